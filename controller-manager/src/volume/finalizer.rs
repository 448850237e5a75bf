//! A finalizer that protects: what is due about it, and its write.

use serde_json::json;

use crate::controller::{Error, Rest, View, is_not_found};

/// What an object's protection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It was made without.
    Add,
    /// It is deleted and goes once it is not in use.
    RemoveUnused,
}

pub fn due<K: View>(object: &K, finalizer: &str) -> Option<Due> {
    let there = object.meta().finalizers.iter().flatten().any(|f| f == finalizer);
    match (object.is_terminating(), there) {
        (false, false) => Some(Due::Add),
        (true, true) => Some(Due::RemoveUnused),
        _ => None,
    }
}

/// Does what is due; an object that changed since is a conflict, one that is gone is not.
pub async fn write<K: View>(rest: &Rest, object: &K, finalizer: &str, due: Due) -> Result<(), Error> {
    let meta = object.meta();
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    match due {
        Due::Add => finalizers.push(finalizer.to_owned()),
        Due::RemoveUnused => finalizers.retain(|f| f != finalizer),
    }
    let body = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version,
        "finalizers": finalizers}});
    match rest.update::<K>(object.namespace(), object.name(), None, &body).await {
        Err(error) if !is_not_found(&error) => {
            Err(Error::api(format!("write the finalizer {finalizer} of {}", object.key()))(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::PersistentVolume;

    #[test]
    fn a_finalizer_is_due_on_both_ends_of_a_life() {
        let check = |deleted: bool, finalizers: &[&str], expected: Option<Due>| {
            let mut object = json!({"metadata": {"name": "a", "finalizers": finalizers}});
            if deleted {
                object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            let volume: PersistentVolume = serde_json::from_value(object).expect("a view");
            assert_eq!(due(&volume, "a/b"), expected, "{deleted} {finalizers:?}");
        };
        check(false, &[], Some(Due::Add));
        check(false, &["c/d"], Some(Due::Add));
        check(false, &["a/b"], None);
        check(true, &["c/d", "a/b"], Some(Due::RemoveUnused));
        check(true, &["c/d"], None);
    }
}
