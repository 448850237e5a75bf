//! The rules of CustomResourceDefinitions themselves: defaults, what a client may set, what is valid.
//!
//! Pure functions on trees, gathered in [`RULES`] for `registry`'s table. Conditions and accepted names are the
//! controller's. Upstream: `pkg/apis/apiextensions/{v1/defaults,validation}`,
//! `pkg/registry/customresourcedefinition`, `pkg/apiserver/schema/validation.go`.

mod approval;
mod conditions;
mod conversion;
mod defaults;
mod options;
mod parts;
mod properties;
mod spec;
mod structure;
mod versions;

pub use approval::{Approval, approval, is_protected};
pub use conditions::{condition, non_structural, remove_condition, says, set_condition};
pub(super) use conversion::wrong_bundle;
pub use versions::{compare_versions, sorted_versions};

use serde_json::{Value, json};

use crate::object::{Object, metadata_mut, str_at};
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tree;

/// What removes the instances before a definition goes.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The rules of the kind.
pub const RULES: Rules = Rules {
    default: defaults::default,
    prepare_create,
    validate: spec::validate,
    prepare_update,
    validate_update: spec::validate_update,
    // An update has weaker rules where the old object broke them already.
    update_validates: false,
    validate_status: |new, _, errors| spec::validate_status(new, errors),
    unconditional_update: false,
    status: StatusRule::Split,
    warnings,
    holds_deletion,
    begin_deletion,
    ..Rules::SPLIT
};

fn prepare_create(crd: &mut Object) {
    tree::set(crd, "status", json!({}));
    remember_storage_version(crd);
}

fn prepare_update(crd: &mut Object, _old: &Object) {
    remember_storage_version(crd);
}

/// A version that objects are stored in is remembered until somebody says that none are any more.
fn remember_storage_version(crd: &mut Object) {
    let Some(version) = storage_version(crd).map(str::to_owned) else { return };
    let Some(status) = tree::struct_mut(crd, "status") else { return };
    let Some(stored) = tree::list_mut(status, "storedVersions") else { return };
    if !stored.iter().any(|v| v.as_str() == Some(&version)) {
        stored.push(version.into());
    }
}

/// The version in which objects are stored.
pub fn storage_version(crd: &Object) -> Option<&str> {
    let storage = versions_of(crd).iter().find(|v| tree::flag(v, "storage"))?;
    storage.get("name").and_then(Value::as_str)
}

/// `spec.versions`.
pub fn versions_of(crd: &Object) -> &[Value] {
    tree::items(tree::field(crd, "spec"), "versions")
}

/// A definition goes only after its instances: until its deletion began it cannot go at all.
fn holds_deletion(crd: &Object) -> bool {
    str_at(crd, &["metadata", "deletionTimestamp"]).is_empty() || has_finalizer(crd)
}

/// Whether instances are still to be removed before it goes.
pub fn has_finalizer(crd: &Object) -> bool {
    tree::strings(tree::field(crd, "metadata"), "finalizers").contains(&CLEANUP_FINALIZER)
}

fn begin_deletion(crd: &mut Object) {
    if has_finalizer(crd) || says(crd, "Terminating") {
        return;
    }
    let metadata = metadata_mut(crd);
    let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut() {
        list.push(CLEANUP_FINALIZER.into());
    }
    set_condition(
        crd,
        "Terminating",
        true,
        "InstanceDeletionPending",
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    );
}

/// Names of formats that nothing checks, new ones only.
fn warnings(crd: &Object, old: Option<&Object>) -> Vec<String> {
    let known = old.map(properties::unrecognized_formats).unwrap_or_default();
    let mut out = Vec::new();
    for format in properties::unrecognized_formats(crd) {
        let text = format!("unrecognized format \"{format}\"");
        if !known.contains(&format) && !out.contains(&text) {
            out.push(text);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletion_waits_for_the_instances() {
        let mut crd = json!({"metadata": {"name": "a"}, "spec": {}});
        assert!(holds_deletion(&crd));
        begin_deletion(&mut crd);
        metadata_mut(&mut crd).insert("deletionTimestamp".into(), "2026-01-01T00:00:00Z".into());
        assert!(holds_deletion(&crd) && says(&crd, "Terminating"));
        metadata_mut(&mut crd).remove("finalizers");
        assert!(!holds_deletion(&crd));
    }
}
