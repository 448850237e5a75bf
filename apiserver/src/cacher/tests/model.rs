//! The randomized workload of `apiserver/tests/model` against the cache, two servers to one store, over stores
//! that fail: watches break, events come late, writes fail before or after they were done, history is forgotten.
//!
//! A few seconds with fixed seeds here; `PINTLE_MODEL_SECONDS` makes it long and `PINTLE_MODEL_SEED` says with
//! which seed it begins. Every round is a world of its own with the next seed, which a failure names.

#[path = "../../../tests/model/mod.rs"]
#[allow(dead_code, reason = "the crash test, its other user, needs other parts")]
mod judged;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::Stream;
use futures::future::BoxFuture;

use super::*;
use crate::storage::embedded::EmbeddedStore;
use crate::storage::etcd::testing::Etcd;
use judged::judge::{Facts, Summary, judge};
use judged::workload::{Plan, run};
use judged::{
    Api, Base, Change, Content, Key, ListAsk, Page, Refusal, Scope, Shown, Told, Verdict, WatchAsk, Watching,
    Written,
};

/// Seeds of the short run.
const SHORT_ROUNDS: u64 = 2;
const ROUND: Duration = Duration::from_millis(1500);

/// A store that fails now and then, while it is told to.
struct Faulty {
    inner: Arc<dyn Store>,
    on: AtomicBool,
    rng: parking_lot::Mutex<StdRng>,
    cut: Arc<tokio::sync::Notify>,
}

impl Faulty {
    fn over(inner: Arc<dyn Store>, seed: u64) -> Arc<Self> {
        let rng = parking_lot::Mutex::new(StdRng::seed_from_u64(seed));
        Arc::new(Self { inner, on: AtomicBool::new(true), rng, cut: Arc::default() })
    }

    fn now(&self, chance: f64) -> bool {
        self.on.load(Ordering::SeqCst) && self.rng.lock().random_bool(chance)
    }

    fn fails<T>(&self, chance: f64) -> Result<Option<T>, StoreError> {
        if self.now(chance) { Err(StoreError::Unavailable("injected".into())) } else { Ok(None) }
    }

    /// A write that is not done, done, or done and not said so.
    async fn write(
        &self,
        write: BoxFuture<'_, Result<Revision, StoreError>>,
    ) -> Result<Revision, StoreError> {
        self.fails::<()>(0.01)?;
        let done = write.await?;
        self.fails::<()>(0.01)?;
        Ok(done)
    }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), StoreError> {
        self.fails::<()>(0.005)?;
        self.inner.get(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Listing, StoreError> {
        self.fails::<()>(0.02)?;
        // Pages of a listing that the cache must put together itself.
        let limit = if self.now(0.3) { 3 } else { limit };
        self.inner.list(prefix, from, limit, at).await
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<u64>) -> Result<Revision, StoreError> {
        self.write(self.inner.create(key, value, ttl)).await
    }

    async fn update(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        ttl: Option<u64>,
    ) -> Result<Revision, StoreError> {
        self.write(self.inner.update(key, expected, value, ttl)).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        self.write(self.inner.delete(key, expected)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        self.fails::<()>(0.1)?;
        let (events, late) = (self.inner.watch(prefix, after).await?, self.now(0.5));
        let seed = self.rng.lock().random();
        let slowed = futures::stream::unfold(
            (events, StdRng::seed_from_u64(seed)),
            move |(mut events, mut rng)| async move {
                let event = events.next().await?;
                if late && rng.random_bool(0.02) {
                    tokio::time::sleep(Duration::from_millis(rng.random_range(0..30))).await;
                }
                Some((event, (events, rng)))
            },
        );
        let cut = self.cut.clone();
        Ok(Box::pin(slowed.take_until(Box::pin(async move { cut.notified().await }))))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.fails::<()>(0.005)?;
        self.inner.current_revision().await
    }

    async fn observe(&self, prefix: &str, at_least: Revision) -> Option<Observed> {
        if self.now(0.1) { None } else { self.inner.observe(prefix, at_least).await }
    }

    fn newest_local(&self, prefix: &str) -> Option<Revision> {
        self.inner.newest_local(prefix)
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
}

/// A cache as a server of the workload.
struct Server(Arc<Cacher>);

fn shown(object: &CachedObject) -> Shown {
    let tree = object.tree();
    assert_eq!(object::resource_version(&tree), object.revision.to_string());
    let app = object.labels.iter().find(|(key, _)| key == "app").map(|(_, value)| value.clone());
    Shown {
        key: Key { namespace: object.namespace.clone(), name: object.name.clone() },
        revision: object.revision.0,
        content: Content {
            token: object::str_at(&tree, &["spec", "token"]).to_owned(),
            app: app.unwrap_or_default(),
        },
    }
}

fn selection(scope: &Scope) -> Selection {
    let text =
        |key: &str, value: &Option<String>| value.as_ref().map(|v| format!("{key}={v}")).unwrap_or_default();
    Selection {
        namespace: scope.namespace.clone().unwrap_or_default(),
        labels: Selector::parse(&text("app", &scope.app)).expect("selector"),
        fields: FieldSelector::parse(&text("metadata.name", &scope.name)).expect("selector"),
    }
}

fn refusal(status: Status) -> Refusal {
    match status.code {
        410 => Refusal::Expired(status.metadata.continue_token),
        429 | 500 | 504 => Refusal::Unavailable(status.message),
        _ => Refusal::Wrong(format!("{status:?}")),
    }
}

/// Writes or deletes, as long as the state it is shown is the wanted one, and remembers which that was.
struct Noted {
    object: Option<Object>,
    wanted: Option<u64>,
    base: Base,
}

#[async_trait]
impl Update for Noted {
    async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status> {
        let current = current.expect("it exists");
        let revision = object::resource_version(&current).parse().expect("a revision");
        if self.wanted.is_some_and(|wanted| wanted != revision) {
            return Err(Status::conflict("", "pods", object::name(&current), "another version"));
        }
        self.base = Base::At(revision);
        Ok(match self.object.clone() {
            Some(object) => Decision::Write { object, ttl_seconds: None },
            None => Decision::Delete,
        })
    }
}

#[async_trait]
impl Api for Server {
    async fn write(&self, key: &Key, change: Change, content: &Content) -> Written {
        let object = json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": key.name, "namespace": key.namespace, "labels": {"app": content.app}},
            "spec": {"token": content.token},
        });
        let verdict = |result: Result<Revision, Status>| match result {
            Ok(revision) => Verdict::Acknowledged(revision.0),
            Err(status) if matches!(status.code, 404 | 409) => Verdict::Refused,
            Err(_) => Verdict::Unknown,
        };
        if change == Change::Create {
            let made = self.0.create(&object, None).await.map(|made| made.revision);
            return Written { base: Base::Absent, verdict: verdict(made) };
        }
        let wanted = match change {
            Change::ReplaceAt(revision) | Change::DeleteAt(revision) => Some(revision),
            _ => None,
        };
        let deletes = matches!(change, Change::Delete | Change::DeleteAt(_));
        let mut noted = Noted { object: (!deletes).then_some(object), wanted, base: Base::Something };
        let none = Preconditions::default();
        let done = self.0.guaranteed_update(&key.namespace, &key.name, &none, false, &mut noted).await;
        Written { base: noted.base, verdict: verdict(done.map(|(object, _)| object.revision)) }
    }

    async fn get(&self, key: &Key, cached: bool) -> Result<Option<Shown>, Refusal> {
        match self.0.get(&key.namespace, &key.name, cached.then_some(Revision(0))).await {
            Ok(object) => Ok(Some(shown(&object))),
            Err(status) if status.code == 404 => Ok(None),
            Err(status) => Err(refusal(status)),
        }
    }

    async fn list(&self, ask: &ListAsk) -> Result<Page, Refusal> {
        let query = ListQuery {
            selection: selection(&ask.scope),
            resource_version: ask.revision.map(Revision),
            version_match: ask.exact.then_some(VersionMatch::Exact),
            limit: ask.limit,
            continue_token: ask.continue_token.clone(),
        };
        let page = self.0.list(query).await.map_err(refusal)?;
        Ok(Page {
            revision: page.revision.0,
            items: page.items.iter().map(|object| shown(object)).collect(),
            continue_token: page.continue_token,
        })
    }

    async fn watch(&self, ask: &WatchAsk) -> Result<Watching, Refusal> {
        let ends_at = tokio::time::Instant::now() + Duration::from_secs(ask.seconds);
        let query = WatchQuery {
            selection: selection(&ask.scope),
            resource_version: ask.revision.map(Revision),
            bookmarks: true,
            send_initial_events: ask.initial_events,
            ends_at: Some(ends_at),
            shares: false,
        };
        let receiver = self.0.watch(query).await.map_err(refusal)?;
        let events = futures::stream::unfold(receiver, |mut receiver| async move {
            let told = match receiver.recv().await? {
                WatchEvent::Added(object) => Told::Added(shown(&object)),
                WatchEvent::Modified(object) => Told::Modified(shown(&object)),
                WatchEvent::Deleted(object) => Told::Deleted(shown(&object)),
                WatchEvent::Bookmark { revision, initial_events_end } => {
                    Told::Bookmark { revision: revision.0, initial_events_end }
                }
                WatchEvent::Error(status) if status.code == 410 => Told::Expired,
                WatchEvent::Error(status) => Told::Failed(status.message),
            };
            Some((told, receiver))
        });
        let events: Pin<Box<dyn Stream<Item = Told> + Send>> = Box::pin(events);
        Ok(Box::pin(events.take_until(Box::pin(tokio::time::sleep_until(ends_at)))))
    }
}

/// How long, and from which seed.
fn asked_for() -> (Option<Duration>, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    (number("PINTLE_MODEL_SECONDS").map(Duration::from_secs), number("PINTLE_MODEL_SEED").unwrap_or(1))
}

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        duration: ROUND,
        writers: 4,
        watchers: 8,
        readers: 3,
        namespaces: vec!["ns-a".into(), "ns-b".into()],
        names: 6,
        write_pause: Duration::from_millis(3),
        burst: 1500,
        patience: Duration::from_secs(120),
    }
}

/// Rounds, as many as asked for, each over the two stores that `open` gives for its seed.
async fn rounds(kind: &str, mut open: impl AsyncFnMut(&Tasks) -> [Arc<dyn Store>; 2]) {
    let (long, first) = asked_for();
    let begun = std::time::Instant::now();
    let mut seed = first;
    loop {
        let tasks = Tasks::new(CancellationToken::new());
        let stores = open(&tasks).await;
        let summary =
            round(seed, stores, &tasks).await.unwrap_or_else(|why| panic!("{kind}, seed {seed}: {why}"));
        println!("{kind}, seed {seed}: {summary}");
        tasks.stop_token().cancel();
        tasks.join(Duration::from_secs(10)).await;
        seed += 1;
        match long {
            Some(long) if begun.elapsed() < long => {}
            None if seed < first + SHORT_ROUNDS => {}
            _ => return,
        }
    }
}

async fn round(seed: u64, stores: [Arc<dyn Store>; 2], tasks: &Tasks) -> Result<Summary, String> {
    let faulty = stores.clone().map(|store| Faulty::over(store, seed));
    let prefix = format!("/registry/m{seed}/");
    let cachers = faulty
        .clone()
        .map(|store| Cacher::start(CacherConfig { prefix: prefix.clone(), ..config(store) }, tasks));
    let chaos = {
        let (faulty, store) = (faulty.clone(), stores[0].clone());
        tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            loop {
                tokio::time::sleep(Duration::from_millis(rng.random_range(5..120))).await;
                match rng.random_range(0..4) {
                    0 => faulty[rng.random_range(0..2)].cut.notify_waiters(),
                    1 => {
                        if let Ok(now) = store.current_revision().await {
                            let before = now.0.saturating_sub(rng.random_range(0..400));
                            // Refused when something newer was forgotten already.
                            let _ = store.compact(Revision(before.max(1))).await;
                        }
                    }
                    // Somebody else's writes, that caches must not wait for in vain.
                    _ => {
                        let key = format!("/registry/other{seed}/{}", rng.random::<u32>());
                        let _ = store.create(&key, "{}".into(), None).await;
                    }
                }
            }
        })
    };
    let truth = Arc::new(parking_lot::Mutex::new(Facts::new()));
    let begin = stores[0].current_revision().await.map_err(|e| e.to_string())?;
    let scribe = tokio::spawn(write_down(stores[0].clone(), prefix.clone(), begin, truth.clone()));
    let servers = cachers.clone().map(|cacher| Arc::new(Server(cacher)) as Arc<dyn Api>);
    let calm = async || {
        chaos.abort();
        for store in &faulty {
            store.on.store(false, Ordering::SeqCst);
        }
    };
    let notes = run(plan(seed), servers.to_vec(), calm).await?;
    let last = notes.acknowledged();
    let begun = std::time::Instant::now();
    while truth.lock().last_key_value().is_none_or(|(revision, _)| *revision < last) {
        if begun.elapsed() > Duration::from_secs(30) {
            return Err(format!("the store never told of {last}"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    scribe.abort();
    let truth = std::mem::take(&mut *truth.lock());
    judge(&notes, truth)
}

/// Notes what the store itself says, by a watch that no fault touches.
async fn write_down(
    store: Arc<dyn Store>,
    prefix: String,
    mut after: Revision,
    truth: Arc<parking_lot::Mutex<Facts>>,
) {
    let config = CacherConfig { prefix: prefix.clone(), ..config(store.clone()) };
    loop {
        let Ok(mut events) = store.watch(&prefix, after).await else { continue };
        while let Some(Ok(event)) = events.next().await {
            let (revision, fact) = match event {
                StoreEvent::Put { kv, .. } => {
                    let shown = shown(&entry::from_stored(&config, &kv).expect("an object"));
                    (kv.mod_revision, (shown.key, Some(shown.content)))
                }
                StoreEvent::Delete { key, revision, .. } => {
                    let (namespace, name) = key[prefix.len()..].split_once('/').expect("a namespaced key");
                    (revision, (Key { namespace: namespace.into(), name: name.into() }, None))
                }
                StoreEvent::Progress(_) => continue,
            };
            after = revision;
            truth.lock().insert(revision.0, fact);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_history_explains_everything_over_the_memory_store() {
    rounds("memory", async |tasks| {
        let store: Arc<dyn Store> = MemoryStore::start(tasks);
        [store.clone(), store]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_history_explains_everything_over_the_embedded_store() {
    let folder = Folder(std::env::temp_dir().join(format!("pintle-model-{}", std::process::id())));
    let mut number = 0;
    rounds("embedded", async |tasks| {
        number += 1;
        let path = folder.0.join(format!("{number}.redb"));
        let _ = std::fs::remove_file(folder.0.join(format!("{}.redb", number - 1)));
        let store: Arc<dyn Store> = EmbeddedStore::open(&path, Duration::ZERO, tasks).expect("opens");
        [store.clone(), store]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_history_explains_everything_over_etcd() {
    let Some(etcd) = Etcd::single("model") else { return };
    rounds("etcd", async |tasks| {
        let one: Arc<dyn Store> = etcd.connect("/registry/", tasks).await;
        let two: Arc<dyn Store> = etcd.connect("/registry/", tasks).await;
        [one, two]
    })
    .await;
}

/// Goes away with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
