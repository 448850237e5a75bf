//! Namespaces: phase and the `kubernetes` finalizer belong to the server.

use common::status::FieldErrors;
use serde_json::{Value, json};

use crate::object::{self, Object};
use crate::registry::gated::Gated;
use crate::registry::names;
use crate::registry::rules::{Rules, StatusRule, ViewStrategy};
use crate::registry::tree::{
    at, carry, default_zero, field, has, list_mut, map_mut, set, strings, struct_mut,
};

pub const RULES: Rules = Rules {
    default,
    prepare_create,
    prepare_update: |new, old| carry_finalizers(new, old),
    validate_status,
    name: names::dns1123_label,
    status: StatusRule::Split,
    holds_deletion: |namespace| {
        at(namespace, &["spec", "finalizers"]).as_array().is_some_and(|list| !list.is_empty())
    },
    begin_deletion: |namespace| set_phase(namespace, "Terminating"),
    ..Rules::PLAIN
};

fn set_phase(namespace: &mut Object, phase: &str) {
    object::map_at_mut(namespace, &["status"]).insert("phase".into(), phase.into());
}

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

fn default(namespace: &mut Object) {
    let name = object::name(namespace).to_owned();
    if !name.is_empty()
        && let Some(metadata) = struct_mut(namespace, "metadata")
        && let Some(labels) = map_mut(metadata, "labels")
    {
        labels.insert(NAME_LABEL.into(), Value::String(name));
    }
    map_mut(namespace, "spec");
    if let Some(status) = struct_mut(namespace, "status") {
        default_zero(status, "phase", "Active");
    }
}

fn prepare_create(namespace: &mut Object) {
    set(namespace, "status", json!({"phase": "Active"}));
    if let Some(spec) = struct_mut(namespace, "spec")
        && let Some(finalizers) = list_mut(spec, "finalizers")
        && !finalizers.iter().any(|f| f == FINALIZER)
    {
        finalizers.push(json!(FINALIZER));
    }
    default(namespace);
}

fn carry_finalizers(new: &mut Object, old: &Object) {
    if let Some(spec) = struct_mut(new, "spec") {
        carry(spec, field(old, "spec"), "finalizers");
    }
}

fn validate_status(new: &Object, _old: &Object, errors: &mut FieldErrors) {
    let phase = at(new, &["status", "phase"]).as_str().unwrap_or("");
    let deleting = has(field(new, "metadata"), "deletionTimestamp");
    if !deleting && phase != "Active" {
        errors.invalid("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty");
    } else if deleting && phase != "Terminating" {
        errors.invalid(
            "status.Phase",
            phase,
            "may only be 'Terminating' if `deletionTimestamp` is not empty",
        );
    }
}

/// `namespaces/finalize`: the one place where `spec.finalizers` may change.
pub fn finalize(gated: Gated) -> ViewStrategy {
    ViewStrategy {
        gated,
        resets: &[&["status"]],
        rules: RULES,
        prepare: |new, old, _| carry(new, old, "status"),
        validate: |new, _, _, errors| {
            for (i, finalizer) in strings(field(new, "spec"), "finalizers").iter().enumerate() {
                let here = format!("spec.finalizers[{i}]");
                for message in names::qualified_name(finalizer) {
                    errors.invalid(&here, finalizer, message);
                }
                let known = [FINALIZER, "orphan", "foregroundDeletion"];
                if !finalizer.contains('/') && !known.contains(finalizer) {
                    errors.invalid(
                        &here,
                        finalizer,
                        "name is neither a standard finalizer name nor is it fully qualified",
                    );
                }
            }
        },
    }
}
