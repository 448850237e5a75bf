//! The objects of one kind as last seen: one writer (the informer), many readers, and two kinds of index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use serde::de::DeserializeOwned;

use super::Key;

/// A slim view of a kind: only the fields the controllers read.
pub trait View:
    kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static
{
    /// A field selector for the watch, when only some objects of the kind are ever read.
    const FIELDS: Option<&'static str> = None;

    /// Values to look objects up by; the first part says what it is (`uid:`, `node:`).
    fn index(&self) -> Vec<String> {
        self.controller_uid().map(|uid| vec![format!("owner:{uid}")]).unwrap_or_default()
    }

    /// The uid of the owner that has `controller: true`.
    fn controller_uid(&self) -> Option<&str> {
        self.controller_ref().map(|o| o.uid.as_str())
    }

    /// The owner that has `controller: true`.
    fn controller_ref(&self) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference> {
        self.meta().owner_references.iter().flatten().find(|o| o.controller == Some(true))
    }

    fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or("")
    }

    fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or("")
    }

    fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or("")
    }

    fn key(&self) -> Key {
        Key::of(self)
    }

    fn is_terminating(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.meta().labels.as_ref()?.get(key).map(String::as_str)
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.meta().annotations.as_ref()?.get(key).map(String::as_str)
    }
}

#[derive(Debug)]
struct Inner<K> {
    objects: BTreeMap<Key, Arc<K>>,
    index: HashMap<String, BTreeSet<Key>>,
}

/// See the module. Readers get `Arc`s; no lock outlives a call.
#[derive(Debug)]
pub struct Store<K>(RwLock<Inner<K>>);

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self(RwLock::new(Inner { objects: BTreeMap::new(), index: HashMap::new() }))
    }
}

impl<K: View> Store<K> {
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.0.read().objects.get(key).cloned()
    }

    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&Key::new(namespace, name))
    }

    pub fn all(&self) -> Vec<Arc<K>> {
        self.0.read().objects.values().cloned().collect()
    }

    pub fn keys(&self) -> Vec<Key> {
        self.0.read().objects.keys().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.0.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All objects of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let first = Key::new(namespace, "");
        let inner = self.0.read();
        inner
            .objects
            .range(first..)
            .take_while(|(k, _)| &*k.namespace == namespace)
            .map(|(_, v)| v.clone())
            .collect()
    }

    /// All objects whose [`View::index`] has `value`, by key.
    pub fn by_index(&self, value: &str) -> Vec<Arc<K>> {
        let inner = self.0.read();
        let keys = inner.index.get(value);
        keys.into_iter().flatten().filter_map(|k| inner.objects.get(k).cloned()).collect()
    }

    /// All objects that `uid` controls.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.by_index(&format!("owner:{uid}"))
    }

    /// Puts an object in and returns what was there.
    pub fn apply(&self, object: Arc<K>) -> Option<Arc<K>> {
        let key = Key::of(&*object);
        let mut inner = self.0.write();
        let old = inner.objects.insert(key.clone(), object.clone());
        if let Some(old) = &old {
            unindex(&mut inner.index, &key, &old.index());
        }
        for value in object.index() {
            inner.index.entry(value).or_default().insert(key.clone());
        }
        old
    }

    /// Takes an object out.
    pub fn remove(&self, key: &Key) -> Option<Arc<K>> {
        let mut inner = self.0.write();
        let old = inner.objects.remove(key)?;
        unindex(&mut inner.index, key, &old.index());
        Some(old)
    }
}

fn unindex(index: &mut HashMap<String, BTreeSet<Key>>, key: &Key, values: &[String]) {
    for value in values {
        if let Some(keys) = index.get_mut(value) {
            keys.remove(key);
            if keys.is_empty() {
                index.remove(value);
            }
        }
    }
}
