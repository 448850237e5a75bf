//! `FieldsV1`: a map by element; `{}` is a member, `"."` marks a node that is a member beside its children.

use serde_json::{Map, Value};

use super::element::{Element, ElementError};
use super::set::{Node, Set};

const SELF: &str = ".";

/// Deeper than any object is nested.
const DEPTH_MAX: usize = 512;

/// A `fieldsV1` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    #[error("fields are not a map")]
    NotAMap,
    #[error("fields are nested too deep")]
    TooDeep,
    #[error("parsing key as path element: {0}")]
    Element(#[from] ElementError),
}

impl Set {
    /// # Errors
    /// For what is no map of maps by element.
    pub fn from_fields(fields: &Value) -> Result<Self, FieldsError> {
        match fields {
            Value::Null => Ok(Self::default()),
            Value::Object(map) => Ok(read(map, 0)?.1),
            _ => Err(FieldsError::NotAMap),
        }
    }

    pub fn to_fields(&self) -> Value {
        Value::Object(write(self))
    }
}

fn write(set: &Set) -> Map<String, Value> {
    let mut out = Map::new();
    for node in set.nodes() {
        let mut below = write(&node.children);
        if node.member && !below.is_empty() {
            below.insert(SELF.to_owned(), Value::Object(Map::new()));
        }
        out.insert(node.element.text().to_owned(), Value::Object(below));
    }
    out
}

/// Whether the map's own path is a member, and what is below it.
fn read(map: &Map<String, Value>, depth: usize) -> Result<(bool, Set), FieldsError> {
    if depth > DEPTH_MAX {
        return Err(FieldsError::TooDeep);
    }
    let mut member = false;
    let mut nodes = Vec::with_capacity(map.len());
    for (key, value) in map {
        if key == SELF {
            member = true;
            continue;
        }
        let Some(element) = Element::parse(key)? else { continue };
        let (member, children) = match value {
            Value::Object(below) => read(below, depth + 1)?,
            Value::Null => (true, Set::default()),
            _ => return Err(FieldsError::NotAMap),
        };
        nodes.push(Node { element, member, children });
    }
    let set = Set::from_nodes(nodes);
    Ok((member || set.is_empty(), set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_survive() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:replicas": {}},
            "f:finalizers": {"v:\"x\"": {}},
        });
        let set = Set::from_fields(&fields).expect("valid");
        let labels = [Element::field("metadata"), Element::field("labels")];
        assert!(set.has(&labels));
        assert!(!set.has(&labels[..1]));
        assert_eq!(set.to_fields(), fields);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        assert!(Set::from_fields(&json!([])).is_err());
        assert!(Set::from_fields(&json!({"nonsense": {}})).is_err());
        assert!(Set::from_fields(&json!({"f:a": 1})).is_err());
        assert!(Set::from_fields(&json!({"x:new": {}})).expect("skipped").is_empty());
    }
}
