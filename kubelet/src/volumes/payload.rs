//! What files a volume holds: keys of objects, the pod's own fields, tokens. Pure.
//!
//! Answers to `MakePayload` of upstream's configmap and secret volumes and `CollectData` of downwardapi.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod};

use super::NodeAllocatable;
use super::atomic_writer::{FileProjection, Payload};
use super::objects::{Kind, Object};
use crate::fieldpath;

/// Mode of files when a pod (a static one) says nothing; the API server's default.
pub const DEFAULT_MODE: i32 = 0o644;

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).unwrap_or(DEFAULT_MODE) as u32 & 0o777
}

/// Keys of a ConfigMap or Secret as files: all of them, or the items asked for.
///
/// # Errors
/// When an item names a key that is not there and the source is not optional.
pub fn of_object(
    kind: Kind,
    object: &Object,
    items: &[KeyToPath],
    default_mode: Option<i32>,
    optional: bool,
) -> Result<Payload, String> {
    let file = |data: &[u8], own| FileProjection {
        data: data.to_vec(),
        mode: mode(own, default_mode),
        fs_user: None,
    };
    if items.is_empty() {
        return Ok(object.entries.iter().map(|(key, data)| (key.clone(), file(data, None))).collect());
    }
    let mut payload = Payload::new();
    for item in items {
        match object.entries.get(&item.key) {
            Some(data) => {
                payload.insert(item.path.clone(), file(data, item.mode));
            }
            None if optional => {}
            None => {
                return Err(match kind {
                    Kind::ConfigMap => format!("configmap references non-existent config key: {}", item.key),
                    Kind::Secret => format!("references non-existent secret key: {}", item.key),
                });
            }
        }
    }
    Ok(payload)
}

/// Fields of the pod as files.
///
/// # Errors
/// All that went wrong, as one text.
pub fn of_pod(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    allocatable: &NodeAllocatable,
) -> Result<Payload, String> {
    let (mut payload, mut errors) = (Payload::new(), Vec::new());
    for item in items {
        let value = if let Some(field) = &item.field_ref {
            fieldpath::extract_field(pod, &field.field_path)
        } else if let Some(resource) = &item.resource_field_ref {
            fieldpath::extract_resource(pod, None, resource, allocatable)
        } else {
            continue;
        };
        match value {
            Ok(text) => {
                let file = FileProjection {
                    data: text.into_bytes(),
                    mode: mode(item.mode, default_mode),
                    fs_user: None,
                };
                payload.insert(item.path.clone(), file);
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    aggregate(errors).map_or(Ok(payload), Err)
}

/// A token file: only for its owner when the pod names a user or group.
pub fn of_token(token: &str, default_mode: Option<i32>, owner: Owner) -> FileProjection {
    let mode = if owner.user.is_some() || owner.group.is_some() { 0o600 } else { mode(None, default_mode) };
    FileProjection { data: token.as_bytes().to_vec(), mode, fs_user: owner.user }
}

/// Several errors as Go's `Aggregate` prints them; None for none.
pub fn aggregate(errors: Vec<String>) -> Option<String> {
    let mut unique: Vec<String> = Vec::new();
    for error in errors {
        if !unique.contains(&error) {
            unique.push(error);
        }
    }
    match unique.len() {
        0 => None,
        1 => unique.pop(),
        _ => Some(format!("[{}]", unique.join(", "))),
    }
}

/// Who owns a pod's files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    /// The one user that all containers run as, if they do (`FsUserFrom` upstream).
    pub user: Option<u32>,
    /// `securityContext.fsGroup`.
    pub group: Option<u32>,
}

impl Owner {
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let context = spec.security_context.as_ref();
        let mut containers: Vec<Option<i64>> = Vec::new();
        let own = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        containers.extend(own.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user)));
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        containers.extend(ephemeral.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user)));
        let pod_user = context.and_then(|c| c.run_as_user);
        let mut users = containers.into_iter().map(|user| user.or(pod_user));
        let first = users.next().flatten();
        let user = first.filter(|first| users.all(|user| user == Some(*first)));
        Self {
            user: user.and_then(|id| u32::try_from(id).ok()),
            group: context.and_then(|c| c.fs_group).and_then(|id| u32::try_from(id).ok()),
        }
    }
}

/// The bytes of an object by key.
pub fn entries(
    text: Option<BTreeMap<String, String>>,
    binary: Option<BTreeMap<String, k8s_openapi::ByteString>>,
) -> BTreeMap<String, Vec<u8>> {
    let text = text.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    text.chain(binary.into_iter().flatten().map(|(key, value)| (key, value.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(keys: &[&str]) -> Object {
        Object {
            entries: keys.iter().map(|k| ((*k).to_owned(), k.as_bytes().to_vec())).collect(),
            immutable: false,
        }
    }

    #[test]
    fn items_pick_and_rename() {
        let items: Vec<KeyToPath> =
            serde_json::from_value(json!([{"key": "a", "path": "x/y", "mode": 256}])).unwrap();
        let got = of_object(Kind::ConfigMap, &object(&["a", "b"]), &items, Some(0o600), false).unwrap();
        assert_eq!(got.len(), 1);
        assert_eq!((got["x/y"].data.as_slice(), got["x/y"].mode), (&b"a"[..], 0o400));
        let all = of_object(Kind::Secret, &object(&["a", "b"]), &[], None, false).unwrap();
        assert_eq!((all.len(), all["b"].mode), (2, 0o644));
    }

    #[test]
    fn a_missing_key_is_named_unless_optional() {
        let items: Vec<KeyToPath> = serde_json::from_value(json!([{"key": "z", "path": "z"}])).unwrap();
        let check = |kind, text: &str| {
            assert_eq!(of_object(kind, &object(&["a"]), &items, None, false).unwrap_err(), text);
            assert_eq!(of_object(kind, &object(&["a"]), &items, None, true).unwrap().len(), 0);
        };
        check(Kind::ConfigMap, "configmap references non-existent config key: z");
        check(Kind::Secret, "references non-existent secret key: z");
    }

    #[test]
    fn the_owner_is_the_one_user_of_all_containers() {
        let check = |pod: serde_json::Value, user, group| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": pod})).unwrap();
            assert_eq!(Owner::of(&pod), Owner { user, group });
        };
        check(json!({"containers": [{"name": "a"}]}), None, None);
        check(
            json!({"securityContext": {"runAsUser": 7, "fsGroup": 9}, "containers": [{"name": "a"}]}),
            Some(7),
            Some(9),
        );
        check(
            json!({"securityContext": {"runAsUser": 7}, "containers": [
                {"name": "a"}, {"name": "b", "securityContext": {"runAsUser": 8}}]}),
            None,
            None,
        );
    }

    #[test]
    fn tokens_are_private_to_a_named_owner() {
        assert_eq!(of_token("t", Some(0o644), Owner::default()).mode, 0o644);
        let owned = of_token("t", Some(0o644), Owner { user: Some(7), group: None });
        assert_eq!((owned.mode, owned.fs_user), (0o600, Some(7)));
    }

    #[test]
    fn errors_are_listed_as_upstream_lists_them() {
        assert_eq!(aggregate(vec![]), None);
        assert_eq!(aggregate(vec!["a".into()]).unwrap(), "a");
        assert_eq!(aggregate(vec!["a".into(), "b".into(), "a".into()]).unwrap(), "[a, b]");
    }
}
