//! What becomes of reads and watches when the store misbehaves.

use super::*;

/// A store whose watches can be cut, which does not say how far they are, and in whose place another can be put.
struct Flaky {
    now: parking_lot::Mutex<Arc<MemoryStore>>,
    cut: Arc<tokio::sync::Notify>,
}

impl Flaky {
    fn over(store: Arc<MemoryStore>) -> Self {
        Self { now: parking_lot::Mutex::new(store), cut: Arc::default() }
    }

    fn now(&self) -> Arc<MemoryStore> {
        self.now.lock().clone()
    }
}

#[async_trait]
impl Store for Flaky {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), StoreError> {
        self.now().get(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Listing, StoreError> {
        self.now().list(prefix, from, limit, at).await
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<u64>) -> Result<Revision, StoreError> {
        self.now().create(key, value, ttl).await
    }

    async fn update(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        ttl: Option<u64>,
    ) -> Result<Revision, StoreError> {
        self.now().update(key, expected, value, ttl).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        self.now().delete(key, expected).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        let inner = self.now().watch(prefix, after).await?;
        let events = inner.filter(|event| std::future::ready(!matches!(event, Ok(StoreEvent::Progress(_)))));
        let cut = self.cut.clone();
        Ok(Box::pin(events.take_until(Box::pin(async move { cut.notified().await }))))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.now().current_revision().await
    }

    async fn observe(&self, _: &str, _: Revision) -> Option<Observed> {
        None
    }

    fn compacted(&self) -> Revision {
        self.now().compacted()
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.now().compact(before).await
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn without_progress_consistent_reads_come_from_the_store() {
    let tasks = Tasks::new(CancellationToken::new());
    let store = Arc::new(Flaky::over(MemoryStore::start(&tasks)));
    let cacher = Cacher::start(config(store.clone()), &tasks);
    assert!(cacher.ready().await);
    let made = cacher.create(&pod("a", "x", ""), None).await.expect("create");
    let elsewhere = store.create("/registry/other/x", "{}".into(), None).await.expect("create");
    let list = cacher.list(ListQuery::default()).await.expect("list");
    assert_eq!((list.revision, list.items.len()), (elsewhere, 1));
    assert_eq!(cacher.get("ns", "a", None).await.expect("get").revision, made.revision);
    let query = WatchQuery { bookmarks: true, send_initial_events: true, ..WatchQuery::default() };
    let mut watch = cacher.watch(query).await.expect("watch");
    let b = cacher.create(&pod("b", "x", ""), None).await.expect("create").revision;
    assert_eq!(
        lines(&mut watch, 3).await,
        [format!("added a {}", made.revision), format!("bookmark {elsewhere} end"), format!("added b {b}")]
    );
}

#[tokio::test(start_paused = true)]
async fn a_cut_store_watch_is_not_noticed_by_watchers() {
    let tasks = Tasks::new(CancellationToken::new());
    let store = Arc::new(Flaky::over(MemoryStore::start(&tasks)));
    let cacher = Cacher::start(config(store.clone()), &tasks);
    assert!(cacher.ready().await);
    let first = cacher.create(&pod("p0", "x", ""), None).await.expect("create").revision;
    let mut watch = cacher.watch(after(first)).await.expect("watch");
    for round in 1..5 {
        store.cut.notify_one();
        tokio::task::yield_now().await;
        let made = cacher.create(&pod(&format!("p{round}"), "x", ""), None).await.expect("create");
        assert_eq!(lines(&mut watch, 1).await, [format!("added p{round} {}", made.revision)]);
    }
    assert_eq!(cacher.object_count(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_continued_ends_watches_instead_of_inventing_events() {
    let tasks = Tasks::new(CancellationToken::new());
    let store = Arc::new(Flaky::over(MemoryStore::start(&tasks)));
    let cacher = Cacher::start(config(store.clone()), &tasks);
    assert!(cacher.ready().await);
    let first = cacher.create(&pod("a", "x", ""), None).await.expect("create").revision;
    let mut watch = cacher.watch(after(first)).await.expect("watch");
    // While the cache is blind, an object is replaced by another of its name, and history is forgotten.
    store.cut.notify_one();
    tokio::task::yield_now().await;
    let key = "/registry/pods/ns/a";
    store.delete(key, first).await.expect("delete");
    let again = object::encode(&pod("a", "y", ""));
    let second = store.create(key, again, None).await.expect("create");
    store.compact(second).await.expect("compact");
    assert!(watch.recv().await.is_none(), "nothing is told but the end");
    let list = cacher.list(ListQuery::default()).await.expect("list");
    assert_eq!((list.revision, list.items[0].revision), (second, second));
    assert!(cacher.fresh(second).await);
    let mut late = cacher.watch(after(first)).await.expect("watch");
    assert!(lines(&mut late, 1).await[0].starts_with("error 410 Expired"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_set_back_is_read_anew() {
    let tasks = Tasks::new(CancellationToken::new());
    let lab = lab().await;
    for i in 0..5 {
        lab.put(pod(&format!("p{i}"), "x", "")).await;
    }
    let store = Arc::new(Flaky::over(lab.store.clone()));
    let cacher = Cacher::start(config(store.clone()), &tasks);
    assert!(cacher.ready().await);
    let now = cacher.list(ListQuery::default()).await.expect("list").revision;
    let mut watch = cacher.watch(after(now)).await.expect("watch");
    let restored = MemoryStore::start(&tasks);
    restored
        .create("/registry/pods/ns/old", object::encode(&pod("old", "x", "")), None)
        .await
        .expect("create");
    *store.now.lock() = restored;
    store.cut.notify_one();
    assert!(watch.recv().await.is_none(), "what it was told of is no more");
    assert!(cacher.ready().await);
    let list = cacher.list(ListQuery::default()).await.expect("list");
    let names: Vec<&str> = list.items.iter().map(|o| o.name.as_str()).collect();
    assert_eq!((list.revision, names), (Revision(2), vec!["old"]));
}
