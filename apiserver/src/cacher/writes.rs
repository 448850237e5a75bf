//! Create, and update until it fits.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use common::status::Status;

use super::engine::Cacher;
use super::{
    CachedObject, Decision, ListPage, ListQuery, ObjectStore, Outcome, Preconditions, Update, WatchQuery,
    WatchReceiver,
};
use super::{entry, errors};
use crate::object::{self, Object};
use crate::storage::{KeyValue, Revision, StoreError};

/// What an update was shown, and whether the store had it at that moment.
struct Shown {
    object: Option<Arc<CachedObject>>,
    current: bool,
}

impl Shown {
    fn revision(&self) -> Option<Revision> {
        self.object.as_ref().map(|o| o.revision)
    }
}

impl Cacher {
    /// The revision up to which the cache is known to be the store's newest state, without asking it.
    pub(super) fn known_current(&self) -> Option<Revision> {
        let newest = self.config.store.newest_local(&self.config.prefix)?;
        let reached = *self.reached.borrow();
        (reached.0 > 0 && reached >= newest).then_some(reached)
    }

    fn written(&self, tree: &Object, key: String, stored: &Bytes, revision: Revision) -> Arc<CachedObject> {
        let bytes = object::with_resource_version(stored, revision.0)
            .expect("an object that was just encoded has metadata");
        let object = Arc::new(entry::from_tree(&self.config, tree, key, revision, bytes));
        self.remember_own_write(&object);
        object
    }

    async fn write_new(
        &self,
        object: &Object,
        ttl_seconds: Option<u64>,
    ) -> Result<Arc<CachedObject>, Status> {
        let name = object::name(object);
        let key = self.key(object::namespace(object), name);
        let stored = object::encode(object);
        let created = self.config.store.create(&key, stored.clone(), ttl_seconds).await;
        let revision = created.map_err(|e| errors::status(e, self.about("create", name)))?;
        Ok(self.written(object, key, &stored, revision))
    }

    async fn show_stored(&self, key: &str, name: &str) -> Result<Shown, Status> {
        let found = self.read_store(key).await.map_err(|e| errors::status(e, self.about("get", name)))?;
        self.shown(found.as_ref())
    }

    fn shown(&self, found: Option<&KeyValue>) -> Result<Shown, Status> {
        let object = found.map(|kv| self.shared_with_cache(kv)).transpose()?;
        Ok(Shown { object, current: true })
    }

    /// The cached object first: mostly it is current, and the write's condition finds out when it is not.
    async fn show_first(&self, key: &str, name: &str) -> Result<Shown, Status> {
        let current = self.known_current().is_some();
        let cached = self.state.read().get(key).cloned();
        match cached {
            Some(object) => Ok(Shown { object: Some(object), current }),
            None => self.show_stored(key, name).await,
        }
    }

    async fn write_until_it_fits(
        &self,
        namespace: &str,
        name: &str,
        preconditions: &Preconditions,
        create_if_missing: bool,
        update: &mut dyn Update,
    ) -> Result<(Arc<CachedObject>, Outcome), Status> {
        let key = self.key(namespace, name);
        let mut shown = self.show_first(&key, name).await?;
        loop {
            let attempt = self.attempt(&key, name, &shown, preconditions, create_if_missing, update).await;
            let verdict = match attempt {
                Ok(Attempt::Wrote(object, outcome)) => return Ok((object, outcome)),
                Ok(Attempt::Lost(newer)) => {
                    shown = newer;
                    continue;
                }
                // The write may have been done: it must not be tried again, nor judged by what is there now.
                Err(Failed::Store(status)) => return Err(status),
                Ok(Attempt::Unchanged(object)) => Ok((object, Outcome::Unchanged)),
                Err(Failed::Verdict(status)) => Err(status),
            };
            if shown.current {
                return verdict;
            }
            // A verdict on a state that may be old stands only if that state is the store's.
            let fresh = self.show_stored(&key, name).await?;
            if fresh.revision() == shown.revision() {
                return verdict;
            }
            shown = fresh;
        }
    }

    async fn attempt(
        &self,
        key: &str,
        name: &str,
        shown: &Shown,
        preconditions: &Preconditions,
        create_if_missing: bool,
        update: &mut dyn Update,
    ) -> Result<Attempt, Failed> {
        let store = &self.config.store;
        let missing = || Failed::Verdict(Status::not_found(&self.config.group, &self.config.resource, name));
        if shown.object.is_none() && !create_if_missing {
            return Err(missing());
        }
        self.check(preconditions, key, name, shown.object.as_deref()).map_err(Failed::Verdict)?;
        let current = shown.object.as_ref().map(|o| o.tree());
        let decision = update.apply(current).await.map_err(Failed::Verdict)?;
        let (operation, result, done) = match (decision, &shown.object) {
            (Decision::Write { object, ttl_seconds }, Some(old)) => {
                let stored = object::encode(&object);
                if same(&stored, old, &object) {
                    return Ok(Attempt::Unchanged(old.clone()));
                }
                let result = store.update(key, old.revision, stored.clone(), ttl_seconds).await;
                ("update", result, Written::Object(object, stored, Outcome::Updated))
            }
            (Decision::Write { object, ttl_seconds }, None) => {
                let stored = object::encode(&object);
                let result = store.create(key, stored.clone(), ttl_seconds).await;
                ("create", result, Written::Object(object, stored, Outcome::Created))
            }
            (Decision::Delete, Some(old)) => {
                ("delete", store.delete(key, old.revision).await, Written::Nothing(old.clone()))
            }
            (Decision::Delete, None) => return Err(missing()),
        };
        match (result, done) {
            (Ok(revision), Written::Object(object, stored, outcome)) => {
                Ok(Attempt::Wrote(self.written(&object, key.to_owned(), &stored, revision), outcome))
            }
            (Ok(revision), Written::Nothing(old)) => {
                Ok(Attempt::Wrote(entry::at_revision(&old, revision), Outcome::Deleted))
            }
            (Err(StoreError::Conflict { current, .. }), _) => {
                Ok(Attempt::Lost(self.shown(current.as_ref()).map_err(Failed::Store)?))
            }
            (Err(StoreError::Exists(_)), _) => {
                Ok(Attempt::Lost(self.show_stored(key, name).await.map_err(Failed::Store)?))
            }
            (Err(error), _) => Err(Failed::Store(errors::status(error, self.about(operation, name)))),
        }
    }

    /// What is not there has neither uid nor version: an update of a known object never makes a new one.
    fn check(
        &self,
        preconditions: &Preconditions,
        key: &str,
        name: &str,
        object: Option<&CachedObject>,
    ) -> Result<(), Status> {
        let about = self.about("update", name);
        let (uid, revision) =
            object.map_or((String::new(), String::new()), |o| (o.uid.clone(), o.revision.to_string()));
        match (&preconditions.uid, &preconditions.resource_version) {
            (Some(wanted), _) if *wanted != uid => Err(errors::precondition(about, key, "UID", wanted, &uid)),
            (_, Some(wanted)) if *wanted != revision => {
                Err(errors::precondition(about, key, "ResourceVersion", wanted, &revision))
            }
            _ => Ok(()),
        }
    }
}

enum Attempt {
    Wrote(Arc<CachedObject>, Outcome),
    /// Nothing was to be written to what was shown.
    Unchanged(Arc<CachedObject>),
    /// Somebody else wrote in between; this is what is there now.
    Lost(Shown),
}

/// Why an attempt failed.
enum Failed {
    /// What the preconditions or the function make of the state that was shown.
    Verdict(Status),
    /// The store did not take the write, or did not say what became of it.
    Store(Status),
}

enum Written {
    Object(Object, Bytes, Outcome),
    Nothing(Arc<CachedObject>),
}

/// True when the encoding says the same as the old object. Bytes that could be the old ones in another order
/// (another server's JSON) are compared as trees.
fn same(stored: &Bytes, old: &CachedObject, object: &Object) -> bool {
    let (head, tail) = entry::stored_parts(old);
    if head.len() + tail.len() != stored.len() {
        return false;
    }
    let (begin, end) = stored.split_at(head.len());
    if begin == head && end == tail {
        return true;
    }
    if entry::mix(stored) != entry::mix(head).wrapping_add(entry::mix(tail)) {
        return false;
    }
    let mut object = object.clone();
    object::metadata_mut(&mut object).insert("resourceVersion".into(), old.revision.to_string().into());
    old.tree() == object
}

#[async_trait]
impl ObjectStore for Cacher {
    async fn get(
        &self,
        namespace: &str,
        name: &str,
        resource_version: Option<Revision>,
    ) -> Result<Arc<CachedObject>, Status> {
        self.read(namespace, name, resource_version).await
    }

    fn cached(&self, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        self.state.read().get(&self.key(namespace, name)).cloned()
    }

    fn cached_list(&self, namespace: &str) -> Vec<Arc<CachedObject>> {
        let prefix = self.namespace_prefix(namespace);
        let state = self.state.read();
        state.range(false, |_| None, &prefix, &prefix, state.revision, 0, |_| true).items
    }

    async fn list(&self, query: ListQuery) -> Result<ListPage, Status> {
        self.read_list(query).await
    }

    async fn watch(&self, query: WatchQuery) -> Result<WatchReceiver, Status> {
        self.open_watch(query).await
    }

    async fn create(&self, object: &Object, ttl_seconds: Option<u64>) -> Result<Arc<CachedObject>, Status> {
        self.write_new(object, ttl_seconds).await
    }

    async fn guaranteed_update(
        &self,
        namespace: &str,
        name: &str,
        preconditions: &Preconditions,
        create_if_missing: bool,
        update: &mut dyn Update,
    ) -> Result<(Arc<CachedObject>, Outcome), Status> {
        self.write_until_it_fits(namespace, name, preconditions, create_if_missing, update).await
    }

    fn synced(&self) -> bool {
        self.state.read().synced
    }

    fn size(&self) -> (u64, u64) {
        let state = self.state.read();
        (state.len() as u64, state.bytes() as u64)
    }
}
