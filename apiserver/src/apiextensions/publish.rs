//! What a custom kind looks like in the published documents.
//!
//! The schema is that of the definition, with the version, kind and metadata that every object has. The older
//! document cannot say alternatives and untyped values: they are left out of it, so that its readers do not refuse
//! what the server accepts.
//!
//! Upstream: `pkg/controller/openapi/{builder,v2}`.

use serde_json::{Map, Value, json};

use super::CustomKind;
use crate::registry::tree::{at, flag, items, text};

/// How the document at hand refers to a type, and texts that it has already.
pub struct Dialect<'a> {
    pub v2: bool,
    pub reference: &'a dyn Fn(&str) -> Value,
    /// The description of a field of every kind: `apiVersion`, `kind`, `metadata`.
    pub describe: &'a dyn Fn(&str) -> String,
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const LIST_META_TEXT: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The types that the schemas of every custom kind refer to.
pub const REFERRED: [&str; 2] = [OBJECT_META, LIST_META];

/// `com.example.v1.Foo`.
pub fn type_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    format!("{}.{version}.{kind}", parts.join("."))
}

/// The schema of a kind.
pub fn schema(kind: &CustomKind, dialect: &Dialect<'_>) -> Value {
    let definition = kind.versions.definition();
    let versions = items(at(&definition, &["spec"]), "versions");
    let version = versions.iter().find(|v| text(v, "name") == kind.version);
    let own = version.map_or(&Value::Null, |v| at(v, &["schema", "openAPIV3Schema"]));
    let keeps = flag(own, "x-kubernetes-preserve-unknown-fields")
        || flag(at(&definition, &["spec"]), "preserveUnknownFields");
    let mut out = if !own.is_object() || (dialect.v2 && keeps) {
        json!({"type": "object"})
    } else {
        let mut out = published(own, dialect);
        add_identity(&mut out, dialect);
        out
    };
    out["x-kubernetes-group-version-kind"] = group_version_kind(kind, &kind.kind);
    let selectable = version.map_or(&[][..], |v| items(v, "selectableFields"));
    if !dialect.v2 && !selectable.is_empty() {
        let fields: Vec<Value> = selectable
            .iter()
            .map(|f| json!({"fieldPath": text(f, "jsonPath").trim_start_matches('.')}))
            .collect();
        out["x-kubernetes-selectable-fields"] = fields.into();
    }
    out
}

/// The schema of a list of a kind.
pub fn list_schema(kind: &CustomKind, list_kind: &str, dialect: &Dialect<'_>) -> Value {
    let name = type_name(&kind.versions.group, &kind.version, &kind.kind);
    let plural = kind.versions.definition();
    let plural = text(at(&plural, &["spec", "names"]), "plural");
    let mut metadata = (dialect.reference)(LIST_META);
    metadata["description"] = LIST_META_TEXT.into();
    json!({
        "type": "object",
        "description": format!("{list_kind} is a list of {}", kind.kind),
        "required": ["items"],
        "properties": {
            "items": {"type": "array", "items": (dialect.reference)(&name),
                "description": format!("List of {plural}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md")},
            "metadata": metadata,
            "apiVersion": {"type": "string", "description": (dialect.describe)("apiVersion")},
            "kind": {"type": "string", "description": (dialect.describe)("kind")},
        },
        "x-kubernetes-group-version-kind": group_version_kind(kind, list_kind),
    })
}

fn group_version_kind(kind: &CustomKind, name: &str) -> Value {
    json!([{"group": kind.versions.group, "version": kind.version, "kind": name}])
}

fn add_identity(schema: &mut Value, dialect: &Dialect<'_>) {
    let mut metadata = (dialect.reference)(OBJECT_META);
    metadata["description"] = (dialect.describe)("metadata").into();
    let Some(map) = schema.as_object_mut() else { return };
    let properties = map.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    properties["metadata"] = metadata;
    for key in ["apiVersion", "kind"] {
        properties[key] = json!({"type": "string", "description": (dialect.describe)(key)});
    }
}

/// One node as it is published.
fn published(schema: &Value, dialect: &Dialect<'_>) -> Value {
    let Value::Object(from) = schema else { return schema.clone() };
    let mut out = Map::new();
    let below = |value: &Value| published(value, dialect);
    for (key, value) in from {
        let value = match key.as_str() {
            "properties" => Value::Object(
                value.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), below(v))).collect(),
            ),
            "items" | "additionalProperties" | "not" => below(value),
            "allOf" | "anyOf" | "oneOf" => {
                if dialect.v2 {
                    continue;
                }
                Value::Array(value.as_array().into_iter().flatten().map(below).collect())
            }
            _ if value.is_null() => continue,
            _ => value.clone(),
        };
        if !(dialect.v2 && key == "not") {
            out.insert(key.clone(), value);
        }
    }
    if dialect.v2 {
        simplify(&mut out, schema);
    } else if flag(schema, "x-kubernetes-int-or-string") && !out.contains_key("anyOf") {
        let nested = items(schema, "allOf").iter().any(|s| s.get("anyOf").is_some());
        if !nested {
            out.insert("anyOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
        }
    }
    let mut out = Value::Object(out);
    if flag(schema, "x-kubernetes-embedded-resource")
        && !(dialect.v2 && flag(schema, "x-kubernetes-preserve-unknown-fields"))
    {
        add_identity(&mut out, dialect);
    }
    out
}

/// What readers of the older document cannot cope with.
fn simplify(out: &mut Map<String, Value>, schema: &Value) {
    let nullable = out.remove("nullable").is_some_and(|n| n == Value::Bool(true));
    let keeps = flag(schema, "x-kubernetes-preserve-unknown-fields");
    if nullable {
        out.remove("type");
    }
    if nullable || keeps {
        out.remove("items");
        out.remove("properties");
    }
    let ty = out.get("type").and_then(Value::as_str).unwrap_or("");
    if (ty == "array" && !out.contains_key("items")) || (ty == "object" && keeps) {
        out.remove("type");
    }
    let nullables: Vec<&String> = at(schema, &["properties"])
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, property)| flag(property, "nullable"))
        .map(|(key, _)| key)
        .collect();
    if let Some(Value::Array(required)) = out.get_mut("required") {
        required.retain(|key| !nullables.iter().any(|n| Some(n.as_str()) == key.as_str()));
        if required.is_empty() || flag(at(schema, &["additionalProperties"]), "nullable") {
            out.remove("required");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: Value, v2: bool, wanted: Value) {
        let reference = |name: &str| json!({"$ref": name});
        let describe = |_: &str| String::new();
        let dialect = Dialect { v2, reference: &reference, describe: &describe };
        assert_eq!(published(&schema, &dialect), wanted);
    }

    #[test]
    fn the_older_document_leaves_out_what_it_cannot_say() {
        let schema = json!({"type": "object", "required": ["n"], "anyOf": [{"required": ["a"]}], "properties": {
            "n": {"type": "string", "nullable": true}, "l": {"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": {"type": "string"}},
            "p": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"q": {"type": "string"}}}}});
        check(
            schema.clone(),
            true,
            json!({"type": "object", "properties": {"n": {},
                "l": {"x-kubernetes-preserve-unknown-fields": true}, "p": {"x-kubernetes-preserve-unknown-fields": true}}}),
        );
        check(schema.clone(), false, schema);
    }

    #[test]
    fn names_are_reversed() {
        assert_eq!(type_name("stable.example.com", "v1", "Foo"), "com.example.stable.v1.Foo");
    }
}
