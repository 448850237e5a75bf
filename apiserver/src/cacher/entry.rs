//! From stored bytes to a cached object and back. Pure.

use std::sync::Arc;

use bytes::Bytes;

use super::skim::skim;
use super::{CachedObject, CacherConfig};
use crate::object::{self, Object};
use crate::storage::{KeyValue, Revision};

/// The start of a value that a Go apiserver wrote as protobuf.
const PROTOBUF_MAGIC: &[u8] = b"k8s\0";

/// A stored value that is no object of this resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EntryError {
    #[error("value at {0} is protobuf, written by another server; only JSON can be read")]
    Protobuf(String),
    #[error("value at {0} is not a JSON object with metadata")]
    NotAnObject(String),
}

/// Decodes what the index needs and puts the revision into the bytes.
pub(super) fn from_stored(config: &CacherConfig, kv: &KeyValue) -> Result<CachedObject, EntryError> {
    if kv.value.starts_with(PROTOBUF_MAGIC) {
        return Err(EntryError::Protobuf(kv.key.clone()));
    }
    let not_an_object = || EntryError::NotAnObject(kv.key.clone());
    let bytes = object::with_resource_version(&kv.value, kv.mod_revision.0).ok_or_else(not_an_object)?;
    if let Some(custom) = &config.custom {
        let tree: Object = serde_json::from_slice(&bytes).map_err(|_| not_an_object())?;
        if !tree.is_object() {
            return Err(not_an_object());
        }
        let read = custom.read(tree.clone());
        let bytes = if read == tree {
            bytes
        } else {
            object::with_resource_version(&object::encode(&read), kv.mod_revision.0)
                .ok_or_else(not_an_object)?
        };
        return Ok(from_tree(config, &read, kv.key.clone(), kv.mod_revision, bytes));
    }
    let tree = skim(&bytes).ok().filter(Object::is_object).ok_or_else(not_an_object)?;
    Ok(from_tree(config, &tree, kv.key.clone(), kv.mod_revision, bytes))
}

/// The same from a tree at hand; `bytes` are its encoding with the revision in place.
pub(super) fn from_tree(
    config: &CacherConfig,
    tree: &Object,
    key: String,
    revision: Revision,
    bytes: Bytes,
) -> CachedObject {
    let labels = tree.pointer("/metadata/labels").and_then(Object::as_object).map_or_else(Vec::new, |map| {
        map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
    });
    CachedObject {
        key,
        revision,
        namespace: object::namespace(tree).to_owned(),
        name: object::name(tree).to_owned(),
        uid: object::uid(tree).to_owned(),
        labels,
        fields: match &config.custom {
            Some(custom) => custom.fields(tree),
            None => (config.selectable_fields)(tree),
        },
        bytes,
    }
}

/// The same object saying another revision: how a deletion shows the last state.
pub(super) fn at_revision(object: &CachedObject, revision: Revision) -> Arc<CachedObject> {
    Arc::new(CachedObject {
        key: object.key.clone(),
        revision,
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        uid: object.uid.clone(),
        labels: object.labels.clone(),
        fields: object.fields.clone(),
        bytes: respliced(&object.bytes, object.revision, revision),
    })
}

/// Replaces the version that splicing put right behind `metadata`.
fn respliced(bytes: &Bytes, old: Revision, new: Revision) -> Bytes {
    let marker = format!("\"metadata\":{{\"resourceVersion\":\"{old}\"");
    let at = bytes
        .windows(marker.len())
        .position(|window| window == marker.as_bytes())
        .expect("cached bytes carry their resourceVersion first in metadata");
    let fresh = format!("\"metadata\":{{\"resourceVersion\":\"{new}\"");
    [&bytes[..at], fresh.as_bytes(), &bytes[at + marker.len()..]].concat().into()
}

/// The encoding without the version, as it is stored, in two parts.
pub(super) fn stored_parts(object: &CachedObject) -> (&[u8], &[u8]) {
    let (bytes, version) = (&object.bytes, format!("\"resourceVersion\":\"{}\"", object.revision));
    let at = bytes
        .windows(version.len())
        .position(|window| window == version.as_bytes())
        .expect("cached bytes carry their resourceVersion first in metadata");
    let rest = &bytes[at + version.len()..];
    (&bytes[..at], rest.strip_prefix(b",").unwrap_or(rest))
}

/// A sum over the bytes that does not depend on their order.
pub(super) fn mix(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte).pow(3)).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored_form(object: &CachedObject) -> Bytes {
        let (head, tail) = stored_parts(object);
        [head, tail].concat().into()
    }

    #[test]
    fn version_is_replaced_and_removed_exactly() {
        for tree in [
            json!({"kind": "A", "apiVersion": "v1", "metadata": {"name": "\"resourceVersion\":\"7\""}}),
            json!({"kind": "A", "apiVersion": "v1", "metadata": {}}),
        ] {
            let stored = object::encode(&tree);
            let object = CachedObject {
                key: "/k".into(),
                revision: Revision(7),
                namespace: String::new(),
                name: String::new(),
                uid: String::new(),
                labels: Vec::new(),
                fields: Vec::new(),
                bytes: object::with_resource_version(&stored, 7).expect("object"),
            };
            assert_eq!(stored_form(&object), stored);
            assert_eq!(mix(stored_parts(&object).0).wrapping_add(mix(stored_parts(&object).1)), mix(&stored));
            let moved = at_revision(&object, Revision(1234));
            assert_eq!(object::resource_version(&moved.tree()), "1234");
            assert_eq!(stored_form(&moved), stored);
        }
    }
}
