//! Removing what a schema does not name.

use serde_json::{Map, Value};

use super::{Additional, Structural};

/// Unknown fields beyond this many are removed but not listed.
const UNKNOWN_MAX: usize = 100;

/// Prunes a value that stands somewhere inside an object.
pub fn prune_part(value: &mut Value, schema: &Structural) {
    let mut walk = Walk { path: String::new(), unknown: Vec::new() };
    walk.value(value, Some(schema));
}

/// Prunes a whole object: `apiVersion`, `kind` and `metadata` stay. Returns the paths of what went, sorted.
pub fn prune(object: &mut Value, schema: &Structural) -> Vec<String> {
    let mut walk = Walk { path: String::new(), unknown: Vec::new() };
    match object {
        Value::Object(map) if schema.preserve_unknown => walk.keep_map(map, schema, true),
        Value::Object(map) => walk.map(map, schema, true),
        _ => {}
    }
    walk.unknown.sort();
    walk.unknown
}

struct Walk {
    path: String,
    unknown: Vec<String>,
}

fn is_meta(key: &str) -> bool {
    matches!(key, "apiVersion" | "kind" | "metadata")
}

impl Walk {
    fn below(&mut self, key: &str, go: impl FnOnce(&mut Self)) {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        go(self);
        self.path.truncate(before);
    }

    fn at(&mut self, index: usize, go: impl FnOnce(&mut Self)) {
        let before = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        go(self);
        self.path.truncate(before);
    }

    fn record(&mut self, key: &str) {
        if self.unknown.len() < UNKNOWN_MAX {
            let dot = if self.path.is_empty() { "" } else { "." };
            self.unknown.push(format!("{}{dot}{key}", self.path));
        }
    }

    fn value(&mut self, value: &mut Value, schema: Option<&Structural>) {
        match (value, schema) {
            (value, Some(schema)) if schema.preserve_unknown => self.keep(value, schema),
            (Value::Object(map), Some(schema)) => self.map(map, schema, schema.embedded),
            (Value::Object(map), None) => {
                for key in map.keys() {
                    self.record(key);
                }
                map.clear();
            }
            (Value::Array(items), schema) => {
                let inner = schema.and_then(|s| s.items.as_deref());
                for (index, item) in items.iter_mut().enumerate() {
                    self.at(index, |walk| walk.value(item, inner));
                }
            }
            _ => {}
        }
    }

    fn map(&mut self, map: &mut Map<String, Value>, schema: &Structural, embedded: bool) {
        let mut gone = Vec::new();
        for (key, value) in map.iter_mut() {
            if embedded && is_meta(key) {
                continue;
            }
            if let Some(property) = schema.properties.get(key.as_str()) {
                self.below(key, |walk| walk.value(value, Some(property)));
            } else if let Some(additional) = &schema.additional {
                let inner = match additional {
                    Additional::Schema(inner) => Some(inner.as_ref()),
                    Additional::Allowed(_) => None,
                };
                self.below(key, |walk| walk.value(value, inner));
            } else {
                if !is_meta(key) || !self.path.is_empty() {
                    self.record(key);
                }
                gone.push(key.clone());
            }
        }
        for key in gone {
            map.remove(&key);
        }
    }

    /// Below `x-kubernetes-preserve-unknown-fields`: only what is named is looked at.
    fn keep(&mut self, value: &mut Value, schema: &Structural) {
        match value {
            Value::Object(map) => self.keep_map(map, schema, schema.embedded),
            Value::Array(items) => {
                let Some(inner) = schema.items.as_deref() else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    self.at(index, |walk| walk.keep(item, inner));
                }
            }
            _ => {}
        }
    }

    fn keep_map(&mut self, map: &mut Map<String, Value>, schema: &Structural, embedded: bool) {
        for (key, value) in map.iter_mut() {
            if embedded && is_meta(key) {
                continue;
            }
            if let Some(property) = schema.of_field(key) {
                self.below(key, |walk| walk.value(value, Some(property)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, mut object: Value, wanted: Value, unknown: &[&str]) {
        assert_eq!(prune(&mut object, &Structural::read(&schema)), unknown);
        assert_eq!(object, wanted);
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        check(
            json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "a": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}}}}}}),
            json!({"kind": "X", "metadata": {"name": "a"}, "x": 1, "spec": {"a": [{"b": "", "c": 1}], "d": {}}}),
            json!({"kind": "X", "metadata": {"name": "a"}, "spec": {"a": [{"b": ""}]}}),
            &["spec.a[0].c", "spec.d", "x"],
        );
    }

    #[test]
    fn what_is_preserved_stays_but_for_its_named_children() {
        check(
            json!({"type": "object", "properties": {"spec": {"type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}}}}}}),
            json!({"spec": {"x": {"y": [1]}, "a": {"b": "", "c": 1}}}),
            json!({"spec": {"x": {"y": [1]}, "a": {"b": ""}}}),
            &["spec.a.c"],
        );
    }
}
