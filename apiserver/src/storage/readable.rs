//! A store whose protobuf values are JSON by the time anyone sees them.
//!
//! A stock server writes built-in kinds to etcd as protobuf. Behind this door they are objects like any other; what
//! is written here is JSON, which a stock server reads too. A value of a kind without a message stays as it is: the
//! cache says what cannot be read, and where. Conditions on writes are by revision and need no translation.
//!
//! Upstream the codec of the storage layer decodes either (`runtime/serializer/recognizer`).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use super::{EventStream, KeyValue, Listing, Observed, Revision, Store, StoreError, StoreEvent};
use crate::object;
use crate::protobuf;

/// See the module.
pub struct Readable {
    inner: Arc<dyn Store>,
    messages: Arc<protobuf::Table>,
}

impl Readable {
    pub fn new(inner: Arc<dyn Store>, messages: Arc<protobuf::Table>) -> Self {
        Self { inner, messages }
    }

    fn kv(&self, kv: KeyValue) -> KeyValue {
        KeyValue { value: json(&self.messages, kv.value), ..kv }
    }
}

/// The value as JSON, when it is protobuf of a known kind.
fn json(messages: &protobuf::Table, value: Bytes) -> Bytes {
    if !protobuf::is_protobuf(&value) {
        return value;
    }
    match protobuf::decode(messages, &value, None) {
        Ok(object) => object::encode(&object),
        Err(error) => {
            tracing::debug!(%error, "a stored value stays protobuf");
            value
        }
    }
}

fn event(messages: &protobuf::Table, event: StoreEvent) -> StoreEvent {
    match event {
        StoreEvent::Put { kv, previous, created } => StoreEvent::Put {
            kv: KeyValue { value: json(messages, kv.value), ..kv },
            previous: previous.map(|value| json(messages, value)),
            created,
        },
        StoreEvent::Delete { key, revision, previous } => {
            StoreEvent::Delete { key, revision, previous: json(messages, previous) }
        }
        StoreEvent::Progress(revision) => StoreEvent::Progress(revision),
    }
}

#[async_trait]
impl Store for Readable {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), StoreError> {
        let (found, revision) = self.inner.get(key).await?;
        Ok((found.map(|kv| self.kv(kv)), revision))
    }

    async fn list(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Listing, StoreError> {
        let mut listing = self.inner.list(prefix, from, limit, at).await?;
        for kv in &mut listing.items {
            if protobuf::is_protobuf(&kv.value) {
                kv.value = json(&self.messages, std::mem::take(&mut kv.value));
            }
        }
        Ok(listing)
    }

    async fn create(
        &self,
        key: &str,
        value: Bytes,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, StoreError> {
        self.inner.create(key, value, ttl_seconds).await
    }

    async fn update(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        ttl_seconds: Option<u64>,
    ) -> Result<Revision, StoreError> {
        self.inner.update(key, expected, value, ttl_seconds).await.map_err(|error| self.error(error))
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        self.inner.delete(key, expected).await.map_err(|error| self.error(error))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        let messages = Arc::clone(&self.messages);
        let events = self.inner.watch(prefix, after).await?;
        Ok(Box::pin(events.map(move |result| result.map(|found| event(&messages, found)))))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.inner.current_revision().await
    }

    async fn observe(&self, prefix: &str, at_least: Revision) -> Option<Observed> {
        self.inner.observe(prefix, at_least).await
    }

    fn newest_local(&self, prefix: &str) -> Option<Revision> {
        self.inner.newest_local(prefix)
    }

    fn proves_progress(&self) -> bool {
        self.inner.proves_progress()
    }

    fn compacted(&self) -> Revision {
        self.inner.compacted()
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.inner.compact(before).await
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        self.inner.healthy().await
    }

    fn whole(&self) -> Option<Result<super::transfer::Source, StoreError>> {
        self.inner.whole()
    }

    async fn size_bytes(&self) -> Option<u64> {
        self.inner.size_bytes().await
    }
}

impl Readable {
    /// A conflict carries what is there now.
    fn error(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Conflict { key, current } => {
                StoreError::Conflict { key, current: current.map(|kv| self.kv(kv)) }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use common::shutdown::{CancellationToken, Tasks};

    use super::*;
    use crate::storage::memory::MemoryStore;

    #[tokio::test]
    async fn a_stock_servers_values_are_read_listed_and_watched_as_json() {
        let tasks = Tasks::new(CancellationToken::new());
        let inner: Arc<dyn Store> = MemoryStore::start(&tasks);
        let store = Readable::new(Arc::clone(&inner), Arc::new(protobuf::Table::builtin()));
        let pod = protobuf::fixtures::one("core.v1.Pod");
        let begin = store.current_revision().await.unwrap();
        let wanted = object::encode(&pod.tree());
        let revision = inner.create("/registry/pods/a/b", pod.protobuf.clone().into(), None).await.unwrap();

        let (found, _) = store.get("/registry/pods/a/b").await.unwrap();
        assert_eq!(found.unwrap().value, wanted);
        let listing = store.list("/registry/pods/", None, 0, None).await.unwrap();
        assert_eq!(listing.items[0].value, wanted);
        let mut events = store.watch("/registry/pods/", begin).await.unwrap();
        let put = loop {
            match events.next().await.unwrap().unwrap() {
                StoreEvent::Put { kv, .. } => break kv,
                _ => continue,
            }
        };
        assert_eq!((put.value, put.mod_revision), (wanted.clone(), revision));
        let stale = store.update("/registry/pods/a/b", Revision(revision.0 + 9), Bytes::new(), None).await;
        let Err(StoreError::Conflict { current: Some(current), .. }) = stale else { panic!("no conflict") };
        assert_eq!(current.value, wanted);

        // What no message is known for stays what it is.
        let odd = Bytes::from_static(b"k8s\0\x0a\x05\x12\x03Foo");
        inner.create("/registry/pods/a/c", odd.clone(), None).await.unwrap();
        assert_eq!(store.get("/registry/pods/a/c").await.unwrap().0.unwrap().value, odd);
        tasks.stop_token().cancel();
    }
}
