//! OpenAPI's validation of values, with upstream's words and its ratcheting: an error in a part that the update
//! left as it was does not count.

use common::status::{FieldError, FieldErrorKind, FieldErrors};
use serde_json::Value;

use super::{lists, scalars};
use crate::apiextensions::schema::structural::ValueRules;
use crate::apiextensions::schema::{Additional, Structural};

/// Where an error of the whole is reported.
const NOWHERE: &str = "<nil>";

/// Checks an object. `old` is what it was before an update.
pub fn validate(value: &Value, schema: &Structural, old: Option<&Value>) -> FieldErrors {
    FieldErrors(check(value, schema, "", old).errors)
}

/// Checks a part of an object on update, reporting errors below `path`.
pub fn validate_part(path: &str, value: &Value, schema: &Structural, old: Option<&Value>) -> FieldErrors {
    below(path, validate(value, schema, old))
}

/// Errors of a part as errors of the whole, where the part is at `path`.
pub fn below(path: &str, mut errors: FieldErrors) -> FieldErrors {
    for error in &mut errors.0 {
        error.field = match error.field.as_str() {
            "" | NOWHERE => path.to_owned(),
            field if field.starts_with(['[', '.']) => format!("{path}{field}"),
            field => format!("{path}.{field}"),
        };
    }
    errors
}

/// What checks found. Among alternatives the one that matched most is the one whose errors are told.
#[derive(Default)]
pub(super) struct Outcome {
    errors: Vec<FieldError>,
    matches: usize,
}

impl Outcome {
    fn merge(&mut self, other: Outcome) {
        self.errors.extend(other.errors);
        self.matches += other.matches;
    }

    pub(super) fn fail(
        &mut self,
        kind: FieldErrorKind,
        path: &str,
        value: impl serde::Serialize,
        detail: String,
    ) {
        let field = path.trim_start_matches('.');
        self.errors.push(FieldError {
            kind,
            field: if field.is_empty() { NOWHERE } else { field }.to_owned(),
            value: serde_json::to_string(&value).unwrap_or_default(),
            detail,
        });
    }

    pub(super) fn invalid(&mut self, path: &str, value: impl serde::Serialize, detail: String) {
        self.fail(FieldErrorKind::Invalid, path, value, detail);
    }
}

fn check(value: &Value, schema: &Structural, path: &str, old: Option<&Value>) -> Outcome {
    let mut out = Outcome::default();
    scalars::kind(value, schema, path, &mut out);
    if value.is_null() {
        if let Some(rules) = &schema.values {
            choices(value, rules, path, &mut out);
        }
    } else {
        if let Some(rules) = &schema.values {
            junctors(value, rules, path, old, &mut out);
        }
        match value {
            Value::String(text) => scalars::string(text, schema, path, &mut out),
            Value::Number(number) => scalars::number(number, schema, path, &mut out),
            Value::Array(items) => array(items, schema, path, old, &mut out),
            Value::Object(_) | Value::Bool(_) | Value::Null => {}
        }
        if let Some(rules) = &schema.values {
            choices(value, rules, path, &mut out);
        }
        if let Value::Object(map) = value {
            object(map, schema, path, old, &mut out);
        }
    }
    if !out.errors.is_empty() && old == Some(value) {
        out.errors.clear();
    }
    out.matches += 1;
    out
}

/// What an item of the new list was in the old one; only maps say.
fn old_item<'o>(item: &Value, schema: &Structural, old: Option<&'o Value>) -> Option<&'o Value> {
    if schema.list_type() != "map" {
        return None;
    }
    let key = lists::key_of(item, &schema.list_map_keys);
    old?.as_array()?.iter().find(|candidate| lists::key_of(candidate, &schema.list_map_keys) == key)
}

fn array(items: &[Value], schema: &Structural, path: &str, old: Option<&Value>, out: &mut Outcome) {
    if let Some(inner) = schema.items.as_deref() {
        for (i, item) in items.iter().enumerate() {
            out.merge(check(item, inner, &format!("{path}[{i}]"), old_item(item, schema, old)));
        }
    }
    let Some(rules) = &schema.values else { return };
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if let Some(min) = rules.min_items.filter(|min| count < *min) {
        out.invalid(path, count, format!("{path} in body should have at least {min} items"));
    }
    if let Some(max) = rules.max_items.filter(|max| count > *max) {
        too_many(path, count, max, out);
    }
    if rules.unique_items && items.iter().enumerate().any(|(i, item)| items[..i].contains(item)) {
        out.invalid(path, "", format!("{path} in body shouldn't contain duplicates"));
    }
}

fn too_many(path: &str, count: i64, max: i64, out: &mut Outcome) {
    let unit = if max == 1 { "item" } else { "items" };
    out.fail(FieldErrorKind::TooMany, path, count, format!("must have at most {max} {unit}"));
}

fn choices(value: &Value, rules: &ValueRules, path: &str, out: &mut Outcome) {
    if rules.choices.is_empty() || rules.choices.iter().any(|choice| equal(choice, value)) {
        return;
    }
    let supported: Vec<String> = rules
        .choices
        .iter()
        .map(|choice| match choice {
            Value::String(text) => format!("\"{text}\""),
            other => format!("\"{}\"", other.to_string().replace('"', "\\\"")),
        })
        .collect();
    let detail = format!("supported values: {}", supported.join(", "));
    out.fail(FieldErrorKind::NotSupported, path, value, detail);
}

/// Numbers are equal by value.
fn equal(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|x| b.as_f64() == Some(x))
}

fn object(
    map: &serde_json::Map<String, Value>,
    schema: &Structural,
    path: &str,
    old: Option<&Value>,
    out: &mut Outcome,
) {
    let rules = schema.values.as_deref();
    let count = i64::try_from(map.len()).unwrap_or(i64::MAX);
    if let Some(min) = rules.and_then(|r| r.min_properties).filter(|min| count < *min) {
        out.invalid(path, count, format!("{path} in body should have at least {min} properties"));
    }
    if let Some(max) = rules.and_then(|r| r.max_properties).filter(|max| count > *max) {
        too_many(path, count, max, out);
    }
    let correlated = old.filter(|_| schema.map_type.as_deref() != Some("atomic"));
    let before = |key: &str| {
        let type_meta = path.is_empty() && matches!(key, "kind" | "apiVersion");
        if type_meta { None } else { correlated.and_then(|old| old.get(key)) }
    };
    let child = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for (key, value) in map {
        match (schema.properties.get(key.as_str()), &schema.additional) {
            (Some(property), _) => out.merge(check(value, property, &child(key), before(key))),
            (None, Some(Additional::Schema(inner))) => {
                out.merge(check(value, inner, &child(key), before(key)));
            }
            (None, Some(Additional::Allowed(false))) => {
                out.invalid(path, key, format!("{path}.{key} in body is a forbidden property"));
            }
            (None, _) => {}
        }
    }
    for key in rules.map_or(&[][..], |r| &r.required) {
        if !map.contains_key(key.as_ref()) {
            out.fail(FieldErrorKind::Required, &child(key), "", String::new());
        }
    }
}

fn junctors(value: &Value, rules: &ValueRules, path: &str, old: Option<&Value>, out: &mut Outcome) {
    let try_all = |schemas: &[Structural]| -> Vec<Outcome> {
        schemas.iter().map(|schema| check(value, schema, path, old)).collect()
    };
    let best = |mut tried: Vec<Outcome>| -> Outcome {
        let most = tried.iter().map(|t| t.matches).max().unwrap_or(0);
        let at = tried.iter().position(|t| t.matches == most).unwrap_or(0);
        tried.swap_remove(at)
    };
    if !rules.any_of.is_empty() {
        let tried = try_all(&rules.any_of);
        if tried.iter().all(|t| !t.errors.is_empty()) {
            out.invalid("", "", format!("\"{path}\" must validate at least one schema (anyOf)"));
            out.merge(best(tried));
        }
    }
    if !rules.one_of.is_empty() {
        let tried = try_all(&rules.one_of);
        let valid = tried.iter().filter(|t| t.errors.is_empty()).count();
        if valid != 1 {
            let found = if valid == 0 {
                "Found none valid".to_owned()
            } else {
                format!("Found {valid} valid alternatives")
            };
            out.invalid("", "", format!("\"{path}\" must validate one and only one schema (oneOf). {found}"));
            if valid == 0 {
                out.merge(best(tried));
            }
        }
    }
    if !rules.all_of.is_empty() {
        let tried = try_all(&rules.all_of);
        let valid = tried.iter().filter(|t| t.errors.is_empty()).count();
        let all = tried.len();
        tried.into_iter().for_each(|t| out.merge(t));
        if valid != all {
            let none = if valid == 0 { ". None validated" } else { "" };
            out.invalid("", "", format!("\"{path}\" must validate all the schemas (allOf){none}"));
        }
    }
    if let Some(not) = &rules.not
        && check(value, not, path, old).errors.is_empty()
    {
        out.invalid("", "", format!("\"{path}\" must not validate the schema (not)"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(schema: Value, value: Value, old: Option<Value>) -> Vec<String> {
        let found = validate(&value, &Structural::read(&schema), old.as_ref());
        found.0.iter().map(ToString::to_string).collect()
    }

    fn spec(schema: Value) -> Value {
        json!({"type": "object", "properties": {"spec": schema}})
    }

    #[test]
    fn words_are_upstreams() {
        for (schema, value, wanted) in [
            (
                json!({"type": "integer"}),
                json!("x"),
                "spec: Invalid value: \"string\": spec in body must be of type integer: \"string\"",
            ),
            (
                json!({"type": "string", "enum": ["a", "b"]}),
                json!("c"),
                "spec: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            ),
            (
                json!({"type": "integer", "maximum": 3}),
                json!(4),
                "spec: Invalid value: 4: spec in body should be less than or equal to 3",
            ),
            (
                json!({"type": "string", "pattern": "^a$"}),
                json!("b"),
                "spec: Invalid value: \"b\": spec in body should match '^a$'",
            ),
            (
                json!({"type": "string", "maxLength": 1}),
                json!("bb"),
                "spec: Too long: may not be more than 1 byte",
            ),
            (json!({"type": "object", "required": ["a"]}), json!({}), "spec.a: Required value"),
            (
                json!({"type": "array", "maxItems": 1, "items": {"type": "string"}}),
                json!(["a", "b"]),
                "spec: Too many: 2: must have at most 1 item",
            ),
            (
                json!({"type": "string", "format": "date-time"}),
                json!("x"),
                "spec: Invalid value: \"x\": spec in body must be of type date-time: \"x\"",
            ),
            (
                json!({"type": "string"}),
                json!(null),
                "spec: Invalid value: \"null\": spec in body must be of type string: \"null\"",
            ),
            (
                json!({"type": "integer", "multipleOf": 5}),
                json!(7),
                "spec: Invalid value: 7: spec in body should be a multiple of 5",
            ),
            (
                json!({"type": "object", "not": {"required": ["a"]}}),
                json!({"a": 1}),
                "<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)",
            ),
        ] {
            assert_eq!(errors(spec(schema), json!({"spec": value}), None), [wanted]);
        }
        let one_of = json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
        assert_eq!(
            errors(spec(one_of), json!({"spec": {}}), None),
            [
                "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
                "spec.a: Required value"
            ]
        );
    }

    #[test]
    fn what_fits_passes() {
        for (schema, value) in [
            (
                json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
                json!("50%"),
            ),
            (json!({"type": "integer", "format": "int32"}), json!(7)),
            (json!({"type": "number"}), json!(7)),
            (json!({"type": "integer"}), json!(7.0)),
            (json!({"type": "string", "nullable": true}), json!(null)),
            (json!({"type": "string", "format": "unknown"}), json!("x")),
        ] {
            assert_eq!(errors(spec(schema), json!({"spec": value}), None), Vec::<String>::new());
        }
    }

    #[test]
    fn an_unchanged_part_may_stay_wrong() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 1},
            "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}}}}});
        let old = json!({"spec": {"a": "long", "l": [{"k": "x", "v": 5}]}});
        let moved = json!({"spec": {"a": "long", "l": [{"k": "y", "v": 1}, {"k": "x", "v": 5}]}});
        assert!(errors(spec(schema.clone()), moved, Some(old.clone())).is_empty());
        let worse = json!({"spec": {"a": "longer", "l": [{"k": "x", "v": 6}]}});
        assert_eq!(errors(spec(schema), worse, Some(old)).len(), 2);
    }
}
