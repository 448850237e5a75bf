//! The conditions of a definition.

use serde_json::{Value, json};

use super::structure;
use crate::object::Object;
use crate::registry::tree::{self, field, flag, items, text};

/// A condition by type.
pub fn condition<'o>(crd: &'o Object, kind: &str) -> Option<&'o Value> {
    items(field(crd, "status"), "conditions").iter().find(|c| text(c, "type") == kind)
}

/// Whether a condition says True.
pub fn is_true(condition: &Value) -> bool {
    text(condition, "status") == "True"
}

/// Whether the condition of this type is there and True.
pub fn says(crd: &Object, kind: &str) -> bool {
    condition(crd, kind).is_some_and(is_true)
}

/// Sets a condition; the time of its last transition moves with its status. Returns whether anything changed.
pub fn set_condition(crd: &mut Object, kind: &str, on: bool, reason: &str, message: &str) -> bool {
    let status = if on { "True" } else { "False" };
    let before = condition(crd, kind);
    let same = |key: &str, value: &str| before.is_some_and(|b| text(b, key) == value);
    if same("status", status) && same("reason", reason) && same("message", message) {
        return false;
    }
    let since = before.filter(|b| text(b, "status") == status);
    let since = since
        .map(|b| field(b, "lastTransitionTime").clone())
        .unwrap_or_else(|| jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
    let new = json!({"type": kind, "status": status, "lastTransitionTime": since, "reason": reason,
        "message": message});
    let Some(status) = tree::struct_mut(crd, "status") else { return false };
    let Some(conditions) = tree::list_mut(status, "conditions") else { return false };
    match conditions.iter_mut().find(|c| text(c, "type") == kind) {
        Some(found) => *found = new,
        None => conditions.push(new),
    }
    true
}

/// Takes a condition away. Returns whether it was there.
pub fn remove_condition(crd: &mut Object, kind: &str) -> bool {
    if condition(crd, kind).is_none() {
        return false;
    }
    let conditions = tree::struct_mut(crd, "status").and_then(|status| tree::list_mut(status, "conditions"));
    if let Some(conditions) = conditions {
        conditions.retain(|c| text(c, "type") != kind);
    }
    true
}

/// How the schemas are not structural. Only a definition of old that keeps unknown fields can have such.
pub fn non_structural(crd: &Object) -> Option<String> {
    let spec = field(crd, "spec");
    if !flag(spec, "preserveUnknownFields") {
        return None;
    }
    let mut errors = common::status::FieldErrors::new();
    errors.invalid("spec.preserveUnknownFields", true, "must be false");
    for (i, version) in items(spec, "versions").iter().enumerate() {
        let schema = tree::at(version, &["schema", "openAPIV3Schema"]);
        if schema.is_object() {
            errors.extend(structure::validate(schema, &format!("spec.versions[{i}].schema.openAPIV3Schema")));
        }
    }
    let mut texts: Vec<String> = Vec::new();
    for error in errors.0 {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    Some(if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_definitions_may_not_be_structural() {
        let mut crd = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
        assert_eq!(non_structural(&crd), None);
        crd["spec"]["preserveUnknownFields"] = true.into();
        let first = "spec.preserveUnknownFields: Invalid value: true: must be false";
        assert_eq!(non_structural(&crd).as_deref(), Some(first));
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
            json!({"properties": {"a": {"type": "string"}}});
        let second =
            "spec.versions[0].schema.openAPIV3Schema.type: Required value: must not be empty at the root";
        assert_eq!(non_structural(&crd), Some(format!("[{first}, {second}]")));
    }

    #[test]
    fn a_condition_can_be_taken_away() {
        let mut crd = json!({"metadata": {}});
        assert!(!remove_condition(&mut crd, "A"));
        set_condition(&mut crd, "A", true, "x", "");
        set_condition(&mut crd, "B", true, "x", "");
        assert!(remove_condition(&mut crd, "A"));
        assert!(condition(&crd, "A").is_none() && says(&crd, "B"));
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut crd = json!({"metadata": {}, "status": {"conditions": [{"type": "A", "status": "True",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "x", "message": ""}]}});
        assert!(set_condition(&mut crd, "A", true, "y", ""));
        assert_eq!(crd["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert!(!set_condition(&mut crd, "A", true, "y", ""));
        assert!(set_condition(&mut crd, "A", false, "y", ""));
        assert_ne!(crd["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    }
}
