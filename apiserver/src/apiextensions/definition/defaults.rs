//! What is filled in.

use serde_json::json;

use super::storage_version;
use crate::object::Object;
use crate::registry::tree::{child_mut, default_to, default_zero, field, items, set, struct_mut, text};

pub(super) fn default(crd: &mut Object) {
    if let Some(spec) = struct_mut(crd, "spec") {
        let kind = text(field(spec, "names"), "kind").to_owned();
        if let Some(names) = struct_mut(spec, "names")
            && !kind.is_empty()
        {
            default_zero(names, "singular", kind.to_lowercase());
            default_zero(names, "listKind", format!("{kind}List"));
        }
        default_to(spec, "conversion", json!({"strategy": "None"}));
        let service = child_mut(spec, "conversion")
            .and_then(|c| child_mut(c, "webhook"))
            .and_then(|w| child_mut(w, "clientConfig"))
            .and_then(|c| child_mut(c, "service"));
        if let Some(service) = service {
            default_to(service, "port", 443);
        }
        if let Some(versions) = spec.get_mut("versions").and_then(|v| v.as_array_mut()) {
            for version in versions {
                default_to(version, "served", false);
                default_to(version, "storage", false);
            }
        }
        if field(spec, "preserveUnknownFields") == &json!(false) {
            set(spec, "preserveUnknownFields", serde_json::Value::Null);
        }
    }
    if let Some(version) = storage_version(crd).map(str::to_owned)
        && let Some(status) = struct_mut(crd, "status")
        && items(status, "storedVersions").is_empty()
    {
        set(status, "storedVersions", json!([version]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_conversion_are_filled_in() {
        let mut crd = json!({"spec": {"names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true}]}});
        default(&mut crd);
        assert_eq!(crd["spec"]["names"]["singular"], "foo");
        assert_eq!(crd["spec"]["names"]["listKind"], "FooList");
        assert_eq!(crd["spec"]["conversion"], json!({"strategy": "None"}));
        assert_eq!(crd["status"]["storedVersions"], json!(["v1"]));
    }
}
