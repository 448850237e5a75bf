//! `additionalPrinterColumns`.
//!
//! Upstream: `pkg/registry/customresource/tableconvertor`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::json_path::JsonPath;
use crate::endpoints::since;
use crate::registry::tree::{int, items, text};

/// What `kubectl explain` says of these two, and what their columns are described with.
const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The columns of one version.
#[derive(Debug)]
pub struct Columns {
    definitions: Vec<Value>,
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    ty: String,
    /// `None` for a path that cannot be read: the cell is empty.
    path: Option<JsonPath>,
}

impl Columns {
    /// Of a version's tree. Without columns there is the age.
    pub fn read(version: &Value) -> Self {
        let listed = items(version, "additionalPrinterColumns");
        let age = [json!({"name": "Age", "type": "date", "description": CREATED,
            "jsonPath": ".metadata.creationTimestamp"})];
        let listed = if listed.is_empty() { &age[..] } else { listed };
        let mut definitions = vec![
            json!({"name": "Name", "type": "string", "format": "name", "description": NAME, "priority": 0}),
        ];
        let mut columns = Vec::with_capacity(listed.len());
        for column in listed {
            let path = text(column, "jsonPath");
            let description = match text(column, "description") {
                "" => format!("Custom resource definition column (in JSONPath format): {path}"),
                said => said.to_owned(),
            };
            definitions.push(json!({"name": text(column, "name"), "type": text(column, "type"),
                "format": text(column, "format"), "description": description,
                "priority": int(column, "priority").unwrap_or(0)}));
            columns.push(Column { ty: text(column, "type").to_owned(), path: JsonPath::parse(path).ok() });
        }
        Self { definitions, columns }
    }

    /// The heads.
    pub fn definitions(&self) -> Value {
        Value::Array(self.definitions.clone())
    }

    /// One object's cells.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object.pointer("/metadata/name").cloned().unwrap_or_default();
        std::iter::once(name).chain(self.columns.iter().map(|c| c.cell(object, now))).collect()
    }
}

impl Column {
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.as_ref().and_then(|path| path.find(object).first().copied());
        let Some(value) = found.filter(|v| !v.is_null()) else { return Value::Null };
        match (self.ty.as_str(), value) {
            ("string", Value::String(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            ("string", other) => other.to_string().into(),
            ("integer", Value::Number(n)) => {
                n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)).map_or(Value::Null, Value::from)
            }
            ("number", Value::Number(n)) => n.as_f64().map_or(Value::Null, Value::from),
            ("date", Value::String(time)) => match time.parse::<Timestamp>() {
                Ok(_) => since(time, now).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_follow_their_type() {
        let columns = Columns::read(&json!({"additionalPrinterColumns": [
            {"name": "S", "type": "string", "jsonPath": ".spec.s"}, {"name": "N", "type": "integer", "jsonPath": ".spec.n"},
            {"name": "O", "type": "string", "jsonPath": ".spec"}, {"name": "X", "type": "integer", "jsonPath": ".spec.s"},
            {"name": "D", "type": "date", "jsonPath": ".spec.d", "priority": 1}]}));
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("time");
        let object =
            json!({"metadata": {"name": "a"}, "spec": {"s": "x", "n": 3, "d": "2026-01-01T00:00:00Z"}});
        let cells = columns.cells(&object, now);
        assert_eq!(cells[..3], [json!("a"), json!("x"), json!(3)]);
        assert!(cells[3].is_string() && cells[4].is_null());
        assert_eq!(cells[5], "60s");
        assert_eq!(Columns::read(&json!({})).definitions()[1]["name"], "Age");
    }
}
