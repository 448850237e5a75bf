//! How many watches a write will concern.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use common::fields::FieldSelector;
use parking_lot::Mutex;

use crate::request::RequestInfo;

/// Watches by what they watch. Cheap to clone.
#[derive(Clone, Default)]
pub struct Watches(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// The key is a hash of group, resource, namespace and name: two watches that share one by accident cost a
    /// write a seat too many.
    counts: Mutex<HashMap<u64, usize>>,
    hasher: RandomState,
}

/// A watch is counted until this is dropped.
pub struct WatchMark(Option<(Watches, u64)>);

impl Drop for WatchMark {
    fn drop(&mut self) {
        let Some((watches, key)) = self.0.take() else { return };
        let mut counts = watches.0.counts.lock();
        if let Some(count) = counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&key);
            }
        }
    }
}

impl Watches {
    fn key(&self, group: &str, resource: &str, namespace: &str, name: &str) -> u64 {
        self.0.hasher.hash_one((group, resource, namespace, name))
    }

    /// Counts a watch. One that is found by an index (pods of one node) concerns hardly any write.
    pub fn register(&self, info: &RequestInfo) -> WatchMark {
        if info.resource == "pods"
            && FieldSelector::parse(&info.field_selector)
                .is_ok_and(|selector| selector.required("spec.nodeName").is_some_and(|node| !node.is_empty()))
        {
            return WatchMark(None);
        }
        let key = self.key(&info.group, &info.resource, &info.namespace, &info.name);
        *self.0.counts.lock().entry(key).or_default() += 1;
        WatchMark(Some((self.clone(), key)))
    }

    /// How many watches hear of this write: those of the resource, of its namespace, and of the object.
    pub fn concerned(&self, info: &RequestInfo) -> usize {
        let (group, resource) = (&info.group, &info.resource);
        let counts = self.0.counts.lock();
        if counts.is_empty() {
            return 0;
        }
        let at = |namespace: &str, name: &str| {
            counts.get(&self.key(group, resource, namespace, name)).copied().unwrap_or(0)
        };
        let mut sum = at("", "");
        if !info.namespace.is_empty() {
            sum += at(&info.namespace, "");
        }
        if !info.name.is_empty() {
            sum += at(&info.namespace, &info.name);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::filters::request_info::parse;

    #[test]
    fn watches_are_counted_while_they_last() {
        let watches = Watches::default();
        let watch = |path: &str, query: &str| {
            watches.register(&parse(&Method::GET, path, &format!("watch=1&{query}")).unwrap())
        };
        let put = |path: &str| watches.concerned(&parse(&Method::PUT, path, "").unwrap());
        let all = watch("/api/v1/pods", "");
        let _namespace = watch("/api/v1/namespaces/a/pods", "");
        let _one = watch("/api/v1/namespaces/a/pods", "fieldSelector=metadata.name%3Dp");
        let _node = watch("/api/v1/pods", "fieldSelector=spec.nodeName%3Dn");
        assert_eq!(put("/api/v1/namespaces/a/pods/p"), 3);
        assert_eq!(put("/api/v1/namespaces/a/pods/q"), 2);
        assert_eq!(put("/api/v1/namespaces/b/pods/p"), 1);
        assert_eq!(put("/api/v1/namespaces/b/secrets/p"), 0);
        drop(all);
        assert_eq!(put("/api/v1/namespaces/b/pods/p"), 0);
    }
}
