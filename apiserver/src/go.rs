//! Values as Go prints them, for messages that have them so.

use serde_json::{Map, Value};

/// `%v`.
pub fn value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => list(items),
        Value::Object(fields) => map(fields),
    }
}

/// `%v` of a slice.
pub fn list(items: &[Value]) -> String {
    let items: Vec<String> = items.iter().map(value).collect();
    format!("[{}]", items.join(" "))
}

/// `%v` of a map, which Go sorts.
pub fn map(fields: &Map<String, Value>) -> String {
    let items: Vec<String> = fields.iter().map(|(key, item)| format!("{key}:{}", value(item))).collect();
    format!("map[{}]", items.join(" "))
}

/// The type that Go's JSON decoder reads the value as.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_printed_as_go_does() {
        let tree = json!({"b": [1, "x", null], "a": {"c": true}});
        assert_eq!(value(&tree), "map[a:map[c:true] b:[1 x <nil>]]");
        assert_eq!(type_name(&json!(1.5)), "float64");
    }
}
