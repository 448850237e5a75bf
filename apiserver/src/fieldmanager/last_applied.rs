//! The way from client-side apply: `kubectl.kubernetes.io/last-applied-configuration`.
//!
//! Only for the manager `kubectl`; another name opts out.

use serde_json::Value;

use super::FieldManager;
use super::conflict::Conflict;
use super::fieldpath::Set;
use super::typed;
use crate::object::{Object, metadata_mut, str_at};

pub(super) const KUBECTL: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// `TotalAnnotationSizeLimitB`.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

impl FieldManager<'_> {
    /// What the annotation says was applied before and still is as it says: `kubectl` may take it from its
    /// former self. `None` without a usable annotation. `live` is in the stored form.
    fn applied_before(&self, live: &Object) -> Option<Set> {
        let text = str_at(live, &["metadata", "annotations", ANNOTATION]);
        let applied: Value = serde_json::from_str(text).ok().filter(Value::is_object)?;
        if str_at(&applied, &["apiVersion"]) != self.version.api_version() {
            return None;
        }
        let types = self.version.types()?;
        typed::validate(types, &applied).ok()?;
        let live = self.version.served(live);
        let set = typed::field_set(types, &applied).ok()?;
        let changes = typed::compare(types, &applied, &live).ok()?;
        Some(set.difference(&changes.modified).difference(&changes.added).difference(&changes.removed))
    }

    /// The conflicts that stay when `kubectl` may take what it applied from the client's side.
    pub(super) fn unexpected(&self, live: &Object, conflicts: Vec<Conflict>) -> Vec<Conflict> {
        let Some(allowed) = self.applied_before(live) else { return conflicts };
        conflicts.into_iter().filter(|conflict| !allowed.has(&conflict.path)).collect()
    }
}

/// Brings an annotation that is there in step with what was applied.
pub(super) fn refresh(object: &mut Object, patch: &Object) {
    if str_at(object, &["metadata", "annotations", ANNOTATION]).is_empty() {
        return;
    }
    let mut applied = patch.clone();
    if let Some(Value::Object(annotations)) = applied.pointer_mut("/metadata/annotations") {
        annotations.remove(ANNOTATION);
    }
    let text = format!("{applied}\n");
    let Some(Value::Object(annotations)) = metadata_mut(object).get_mut("annotations") else { return };
    annotations.insert(ANNOTATION.to_owned(), Value::String(text));
    let bytes: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if bytes > ANNOTATIONS_BYTES_MAX {
        annotations.remove(ANNOTATION);
    }
}
