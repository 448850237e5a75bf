//! The cache over the memory store, and over stores that misbehave. Time is paused where it matters.

use std::collections::BTreeMap;
use std::time::Duration;

use common::fields::FieldSelector;
use common::labels::Selector;
use common::shutdown::{CancellationToken, Tasks};
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::*;
use crate::object;
use crate::storage::memory::MemoryStore;
use crate::storage::{EventStream, KeyValue, Listing, Observed, Store, StoreError, StoreEvent};

struct Lab {
    store: Arc<MemoryStore>,
    cacher: Arc<Cacher>,
    tasks: Tasks,
}

fn config(store: Arc<dyn Store>) -> CacherConfig {
    CacherConfig {
        store,
        prefix: "/registry/pods/".into(),
        group: String::new(),
        resource: "pods".into(),
        kind: "Pod".into(),
        namespaced: true,
        selectable_fields: |tree| {
            let node = object::str_at(tree, &["spec", "nodeName"]);
            vec![("spec.nodeName", node.to_owned())]
        },
        selectable_field_names: &["spec.nodeName"],
        custom: None,
    }
}

async fn lab() -> Lab {
    let tasks = Tasks::new(CancellationToken::new());
    let store = MemoryStore::start(&tasks);
    let cacher = Cacher::start(config(store.clone()), &tasks);
    assert!(cacher.ready().await);
    Lab { store, cacher, tasks }
}

fn pod(name: &str, app: &str, node: &str) -> Object {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "labels": {"app": app}},
        "spec": {"nodeName": node},
    })
}

/// Writes whatever the object is now.
struct Put(Object);

#[async_trait]
impl Update for Put {
    async fn apply(&mut self, _: Option<Object>) -> Result<Decision, Status> {
        Ok(Decision::Write { object: self.0.clone(), ttl_seconds: None })
    }
}

struct Remove;

#[async_trait]
impl Update for Remove {
    async fn apply(&mut self, _: Option<Object>) -> Result<Decision, Status> {
        Ok(Decision::Delete)
    }
}

/// Adds one to a counter in the object.
struct Count;

#[async_trait]
impl Update for Count {
    async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status> {
        let mut object = current.expect("it exists");
        let n = object["spec"]["n"].as_u64().unwrap_or(0);
        object["spec"]["n"] = (n + 1).into();
        Ok(Decision::Write { object, ttl_seconds: None })
    }
}

impl Lab {
    async fn put(&self, tree: Object) -> Arc<CachedObject> {
        let name = object::name(&tree).to_owned();
        let none = Preconditions::default();
        self.cacher.guaranteed_update("ns", &name, &none, true, &mut Put(tree)).await.expect("write").0
    }

    async fn remove(&self, name: &str) -> Arc<CachedObject> {
        let none = Preconditions::default();
        self.cacher.guaranteed_update("ns", name, &none, false, &mut Remove).await.expect("delete").0
    }

    async fn names(&self, query: ListQuery) -> Vec<String> {
        let page = self.cacher.list(query).await.expect("list");
        page.items.iter().map(|o| o.name.clone()).collect()
    }
}

fn after(revision: Revision) -> WatchQuery {
    WatchQuery { resource_version: Some(revision), ..WatchQuery::default() }
}

/// An event in one line: what happened, to whom, at which resourceVersion (which the bytes must say too).
fn line(event: &WatchEvent) -> String {
    let show = |what: &str, o: &Arc<CachedObject>| {
        assert_eq!(object::resource_version(&o.tree()), o.revision.to_string());
        format!("{what} {} {}", o.name, o.revision)
    };
    match event {
        WatchEvent::Added(o) => show("added", o),
        WatchEvent::Modified(o) => show("modified", o),
        WatchEvent::Deleted(o) => show("deleted", o),
        WatchEvent::Bookmark { revision, initial_events_end } => {
            format!("bookmark {revision}{}", if *initial_events_end { " end" } else { "" })
        }
        WatchEvent::Error(status) => format!("error {} {}: {}", status.code, status.reason, status.message),
    }
}

async fn lines(receiver: &mut WatchReceiver, count: usize) -> Vec<String> {
    let mut out = Vec::new();
    for _ in 0..count {
        let event = tokio::time::timeout(Duration::from_secs(300), receiver.recv()).await;
        out.push(line(&event.expect("in time").expect("open")));
    }
    out
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_read_with_its_revision() {
    let lab = lab().await;
    let made = lab.cacher.create(&pod("a", "x", "n"), None).await.expect("create");
    let read = lab.cacher.get("ns", "a", None).await.expect("get");
    assert_eq!((read.revision, &read.bytes), (made.revision, &made.bytes));
    assert_eq!(object::resource_version(&read.tree()), made.revision.to_string());
    let again = lab.cacher.create(&pod("a", "x", "n"), None).await.expect_err("taken");
    assert_eq!((again.code, again.message.as_str()), (409, "pods \"a\" already exists"));
    let changed = lab.put(pod("a", "y", "n")).await;
    assert!(changed.revision > made.revision);
    let (same, outcome) = lab
        .cacher
        .guaranteed_update("ns", "a", &Preconditions::default(), false, &mut Put(pod("a", "y", "n")))
        .await
        .expect("unchanged");
    assert_eq!((same.revision, outcome), (changed.revision, Outcome::Unchanged));
    let gone = lab.remove("a").await;
    assert!(gone.revision > changed.revision);
    assert_eq!(object::resource_version(&gone.tree()), gone.revision.to_string());
    let missing = lab.cacher.get("ns", "a", None).await.expect_err("gone");
    assert_eq!((missing.code, missing.message.as_str()), (404, "pods \"a\" not found"));
    let list = lab.cacher.list(ListQuery::default()).await.expect("list");
    assert_eq!((list.items.len(), list.revision), (0, gone.revision));
}

#[tokio::test(start_paused = true)]
async fn watchers_see_their_selection_come_and_go() {
    let lab = lab().await;
    let start = lab.put(pod("a", "x", "n1")).await.revision;
    let select = |labels: &str, fields: &str| Selection {
        namespace: "ns".into(),
        labels: Selector::parse(labels).expect("selector"),
        fields: FieldSelector::parse(fields).expect("selector"),
    };
    let watch = async |selection: Selection| {
        lab.cacher.watch(WatchQuery { selection, ..after(start) }).await.expect("watch")
    };
    let mut all = watch(select("", "")).await;
    let mut app_y = watch(select("app=y", "")).await;
    let mut node_1 = watch(select("", "spec.nodeName=n1")).await;
    let mut named_b = watch(select("", "metadata.name=b")).await;
    let mut elsewhere = watch(Selection { namespace: "other".into(), ..Selection::default() }).await;
    let r = start.0;
    lab.put(pod("a", "y", "n1")).await; // r+1
    lab.put(pod("b", "y", "n2")).await; // r+2
    lab.put(pod("a", "x", "n2")).await; // r+3
    lab.remove("b").await; // r+4
    let at = |text: &str, n: u64| format!("{text} {}", r + n);
    assert_eq!(
        lines(&mut all, 4).await,
        [at("modified a", 1), at("added b", 2), at("modified a", 3), at("deleted b", 4)]
    );
    assert_eq!(
        lines(&mut app_y, 4).await,
        [at("added a", 1), at("added b", 2), at("deleted a", 3), at("deleted b", 4)]
    );
    assert_eq!(lines(&mut node_1, 2).await, [at("modified a", 1), at("deleted a", 3)]);
    assert_eq!(lines(&mut named_b, 2).await, [at("added b", 2), at("deleted b", 4)]);
    // A watch that resumes is told the same from history.
    let mut resumed = watch(select("app=y", "")).await;
    assert_eq!(lines(&mut resumed, 4).await[2], at("deleted a", 3));
    for quiet in [&mut all, &mut app_y, &mut node_1, &mut named_b, &mut elsewhere, &mut resumed] {
        assert!(quiet.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn initial_events_then_the_bookmark_then_what_follows() {
    let lab = lab().await;
    let a = lab.put(pod("a", "x", "")).await.revision;
    let b = lab.put(pod("b", "x", "")).await.revision;
    let query = WatchQuery { bookmarks: true, send_initial_events: true, ..WatchQuery::default() };
    let mut streaming = lab.cacher.watch(query).await.expect("watch");
    let mut plain = lab.cacher.watch(WatchQuery::default()).await.expect("watch");
    let c = lab.put(pod("c", "x", "")).await.revision;
    assert_eq!(
        lines(&mut streaming, 4).await,
        [format!("added a {a}"), format!("added b {b}"), format!("bookmark {b} end"), format!("added c {c}")]
    );
    assert_eq!(lines(&mut plain, 3).await[2], format!("added c {c}"));
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_each_minute_with_the_revision_reached_elsewhere() {
    let lab = lab().await;
    let start = lab.put(pod("a", "x", "")).await.revision;
    let query = WatchQuery { bookmarks: true, ..after(start) };
    let mut asked = lab.cacher.watch(query).await.expect("watch");
    let mut silent = lab.cacher.watch(after(start)).await.expect("watch");
    let elsewhere = lab.store.create("/registry/leases/x", "{}".into(), None).await.expect("create");
    assert_eq!(lines(&mut asked, 1).await, [format!("bookmark {elsewhere}")]);
    assert!(silent.try_recv().is_err());
    // The revision of a bookmark is a good place to resume.
    let mut resumed = lab.cacher.watch(after(elsewhere)).await.expect("watch");
    let b = lab.put(pod("b", "x", "")).await.revision;
    assert_eq!(lines(&mut resumed, 1).await, [format!("added b {b}")]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_is_cut_off_after_what_it_was_told() {
    let lab = lab().await;
    let start = lab.put(pod("a", "x", "")).await.revision;
    let mut slow = lab.cacher.watch(after(start)).await.expect("watch");
    for i in 0..watchers::WATCHER_QUEUE_EVENTS + 50 {
        lab.put(pod("a", &format!("v{i}"), "")).await;
    }
    lab.cacher.list(ListQuery::default()).await.expect("the cache has seen all");
    assert_eq!(lab.cacher.watcher_count(), 0);
    let mut last = start.0;
    while let Some(event) = slow.recv().await {
        let WatchEvent::Modified(object) = event else { panic!("{event:?}") };
        assert_eq!(object.revision.0, last + 1, "no event is skipped");
        last = object.revision.0;
    }
    assert!(last < start.0 + watchers::WATCHER_QUEUE_EVENTS as u64 + 50);
    // It resumes where it was cut off.
    let mut resumed = lab.cacher.watch(after(Revision(last))).await.expect("watch");
    assert_eq!(lines(&mut resumed, 1).await, [format!("modified a {}", last + 1)]);
}

#[tokio::test(start_paused = true)]
async fn too_old_is_an_expired_event_and_too_new_waits_for_its_time() {
    let lab = lab().await;
    let first = lab.put(pod("a", "0", "")).await.revision;
    let mut oldest = first;
    for i in 0..history::CHANGES_MIN + 50 {
        let now = lab.put(pod("a", &format!("v{i}"), "")).await.revision;
        if i == 49 {
            lab.cacher.list(ListQuery::default()).await.expect("the cache has seen all");
            tokio::time::advance(history::FRESH).await;
            oldest = now;
        }
    }
    lab.cacher.list(ListQuery::default()).await.expect("the cache has seen all");
    let mut expired = lab.cacher.watch(after(first)).await.expect("opens");
    let told = lines(&mut expired, 1).await.remove(0);
    let start = lab.cacher.state.read().history.start();
    assert!(start >= oldest);
    assert_eq!(told, format!("error 410 Expired: too old resource version: {first} ({start})"));
    assert!(expired.recv().await.is_none());

    let now = lab.cacher.list(ListQuery::default()).await.expect("list").revision;
    let future = Some(Revision(now.0 + 100));
    let refused = lab.cacher.get("ns", "a", future).await.expect_err("too large");
    let message = format!("Timeout: Too large resource version: {}, current: {now}", now.0 + 100);
    assert_eq!((refused.code, refused.message), (504, message));
    let details = refused.details.expect("details");
    assert_eq!(details.causes[0].reason, "ResourceVersionTooLarge");
    let query = ListQuery { resource_version: future, ..ListQuery::default() };
    assert_eq!(lab.cacher.list(query).await.expect_err("too large").code, 504);
    // In time, it is answered.
    let query = ListQuery { resource_version: Some(Revision(now.0 + 1)), ..ListQuery::default() };
    let (list, _) = tokio::join!(lab.cacher.list(query), lab.put(pod("b", "x", "")));
    assert_eq!(list.expect("list").items.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn pages_are_of_one_revision_until_it_is_compacted() {
    let lab = lab().await;
    for i in 0..10 {
        lab.put(pod(&format!("p{i}"), "x", "")).await;
    }
    let ns = Selection { namespace: "ns".into(), ..Selection::default() };
    let page = |token: &str| ListQuery {
        selection: ns.clone(),
        limit: 4,
        continue_token: token.to_owned(),
        ..ListQuery::default()
    };
    let first = lab.cacher.list(page("")).await.expect("list");
    assert_eq!((first.items.len(), first.remaining), (4, Some(6)));
    lab.remove("p5").await;
    lab.put(pod("p6", "changed", "")).await;
    lab.put(pod("p4a", "x", "")).await;
    let second = lab.cacher.list(page(&first.continue_token)).await.expect("list");
    assert_eq!(second.revision, first.revision);
    let names: Vec<&str> = second.items.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["p4", "p5", "p6", "p7"]);
    assert_eq!(second.items[2].labels[0].1, "x");
    let third = lab.cacher.list(page(&second.continue_token)).await.expect("list");
    assert_eq!((third.items.len(), third.continue_token.as_str(), third.remaining), (2, "", None));

    // The same from the store's history, when the cache's does not reach back.
    {
        let mut state = lab.cacher.state.write();
        state.history = history::History::starting_at(state.revision);
    }
    let stored = lab.cacher.list(page(&first.continue_token)).await.expect("list");
    let shown = |page: &ListPage| -> Vec<_> { page.items.iter().map(|o| o.bytes.clone()).collect() };
    assert_eq!(shown(&stored), shown(&second));
    assert_eq!((stored.continue_token, stored.remaining), (second.continue_token.clone(), second.remaining));

    let exact = ListQuery {
        resource_version: Some(first.revision),
        version_match: Some(VersionMatch::Exact),
        ..ListQuery::default()
    };
    assert_eq!(lab.cacher.list(exact.clone()).await.expect("list").items.len(), 10);
    lab.store.compact(lab.store.current_revision().await.expect("revision")).await.expect("compact");
    let gone = lab.cacher.list(exact).await.expect_err("compacted");
    assert_eq!(
        (gone.code, gone.reason.as_str(), gone.message.as_str()),
        (410, "Expired", "The resourceVersion for the provided list is too old.")
    );
    let gone = lab.cacher.list(page(&first.continue_token)).await.expect_err("compacted");
    assert_eq!((gone.code, gone.reason.as_str()), (410, "Expired"));
    let rest = lab.cacher.list(page(&gone.metadata.continue_token)).await.expect("goes on inconsistently");
    let names: Vec<&str> = rest.items.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["p4", "p4a", "p6", "p7"]);
    let bad = lab.cacher.list(page("nonsense!")).await.expect_err("not a token");
    assert_eq!(bad.code, 400);
}

#[tokio::test(start_paused = true)]
async fn selections_limit_lists_too() {
    let lab = lab().await;
    for i in 0..9 {
        lab.put(pod(&format!("p{i}"), if i % 3 == 0 { "x" } else { "y" }, &format!("n{i}"))).await;
    }
    let query = |labels: &str, fields: &str| ListQuery {
        selection: Selection {
            namespace: String::new(),
            labels: Selector::parse(labels).expect("selector"),
            fields: FieldSelector::parse(fields).expect("selector"),
        },
        limit: 2,
        ..ListQuery::default()
    };
    let page = lab.cacher.list(query("app=x", "")).await.expect("list");
    assert_eq!((page.items.len(), page.remaining), (2, None), "what follows is not counted by selection");
    let next = ListQuery { continue_token: page.continue_token, ..query("app=x", "") };
    assert_eq!(lab.names(next).await, ["p6"]);
    assert_eq!(lab.names(query("", "spec.nodeName=n4")).await, ["p4"]);
    assert_eq!(lab.names(query("", "metadata.name=p2,spec.nodeName!=n2")).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn racing_updates_all_count_once() {
    let lab = lab().await;
    lab.put(pod("a", "x", "")).await;
    let racers: Vec<_> = (0..20)
        .map(|_| {
            let cacher = lab.cacher.clone();
            tokio::spawn(async move {
                for _ in 0..5 {
                    let none = Preconditions::default();
                    cacher.guaranteed_update("ns", "a", &none, false, &mut Count).await.expect("update");
                }
            })
        })
        .collect();
    for racer in racers {
        racer.await.expect("no panic");
    }
    let end = lab.cacher.get("ns", "a", None).await.expect("get").tree();
    assert_eq!(end["spec"]["n"], 100);
}

#[tokio::test(start_paused = true)]
async fn preconditions_fail_in_the_known_words() {
    let lab = lab().await;
    let revision = lab.put(pod("a", "x", "")).await.revision;
    let uid = Preconditions { uid: Some("other".into()), resource_version: None };
    let refused = lab.cacher.guaranteed_update("ns", "a", &uid, false, &mut Remove).await.expect_err("uid");
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            409,
            "Operation cannot be fulfilled on pods \"a\": StorageError: invalid object, Code: 4, Key: \
             /registry/pods/ns/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in \
             precondition: other, UID in object meta: uid-a"
        )
    );
    let stale = Preconditions { uid: None, resource_version: Some("1".into()) };
    let refused = lab.cacher.guaranteed_update("ns", "a", &stale, false, &mut Remove).await.expect_err("rv");
    let ending = format!("ResourceVersion in precondition: 1, ResourceVersion in object meta: {revision}");
    assert!(refused.message.ends_with(&ending), "{}", refused.message);
    let right = Preconditions { uid: Some("uid-a".into()), resource_version: Some(revision.to_string()) };
    lab.cacher.guaranteed_update("ns", "a", &right, false, &mut Remove).await.expect("both hold");
    let missing = Preconditions::default();
    let refused = lab.cacher.guaranteed_update("ns", "a", &missing, false, &mut Remove).await;
    assert_eq!(refused.expect_err("gone").code, 404);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_value_is_named_and_harms_no_other() {
    let lab = lab().await;
    lab.put(pod("good", "x", "")).await;
    for (name, value) in [("proto", &b"k8s\0\n"[..]), ("junk", b"[]")] {
        let key = format!("/registry/pods/ns/{name}");
        lab.store.create(&key, bytes::Bytes::from_static(value), None).await.expect("create");
        for version in [None, Some(Revision(0))] {
            let list = lab.cacher.list(ListQuery::default()).await.expect("list");
            assert_eq!(list.items.len(), 1);
            let refused = lab.cacher.get("ns", name, version).await.expect_err("unreadable");
            assert_eq!(refused.code, 500);
            assert!(refused.message.contains(&key), "{}", refused.message);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn expired_objects_are_told_as_deleted() {
    let lab = lab().await;
    let made = lab.cacher.create(&pod("a", "x", ""), Some(60)).await.expect("create");
    let mut watch = lab.cacher.watch(after(made.revision)).await.expect("watch");
    assert_eq!(lines(&mut watch, 1).await, [format!("deleted a {}", made.revision.0 + 1)]);
}

#[tokio::test(start_paused = true)]
async fn stopping_a_cache_ends_its_watches() {
    let lab = lab().await;
    let mut watch = lab.cacher.watch(WatchQuery::default()).await.expect("watch");
    lab.cacher.stop();
    assert!(watch.recv().await.is_none());
    lab.tasks.stop_token().cancel();
}

/// A store whose watches can be cut, and which does not say how far they are.
struct Flaky {
    inner: Arc<MemoryStore>,
    cut: Arc<tokio::sync::Notify>,
}

#[async_trait]
impl Store for Flaky {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), StoreError> {
        self.inner.get(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        from: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Listing, StoreError> {
        self.inner.list(prefix, from, limit, at).await
    }

    async fn create(&self, key: &str, value: Bytes, ttl: Option<u64>) -> Result<Revision, StoreError> {
        self.inner.create(key, value, ttl).await
    }

    async fn update(
        &self,
        key: &str,
        expected: Revision,
        value: Bytes,
        ttl: Option<u64>,
    ) -> Result<Revision, StoreError> {
        self.inner.update(key, expected, value, ttl).await
    }

    async fn delete(&self, key: &str, expected: Revision) -> Result<Revision, StoreError> {
        self.inner.delete(key, expected).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<EventStream, StoreError> {
        let inner = self.inner.watch(prefix, after).await?;
        let events = inner.filter(|event| std::future::ready(!matches!(event, Ok(StoreEvent::Progress(_)))));
        let cut = self.cut.clone();
        Ok(Box::pin(events.take_until(Box::pin(async move { cut.notified().await }))))
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        self.inner.current_revision().await
    }

    async fn observe(&self, _: &str, _: Revision) -> Option<Observed> {
        None
    }

    fn compacted(&self) -> Revision {
        self.inner.compacted()
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.inner.compact(before).await
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn without_progress_consistent_reads_come_from_the_store() {
    let tasks = Tasks::new(CancellationToken::new());
    let store = Arc::new(Flaky { inner: MemoryStore::start(&tasks), cut: Arc::default() });
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
    let store = Arc::new(Flaky { inner: MemoryStore::start(&tasks), cut: Arc::default() });
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
async fn a_new_listing_tells_watchers_the_difference() {
    let lab = lab().await;
    let keep = lab.put(pod("keep", "x", "")).await;
    lab.put(pod("change", "x", "")).await;
    let last = lab.put(pod("gone", "x", "")).await;
    lab.cacher.list(ListQuery::default()).await.expect("the cache has seen all");
    let mut watch = lab.cacher.watch(after(last.revision)).await.expect("watch");
    // What a listing finds after the watch was blind for a while.
    let fresh = |name: &str, app: &str, revision: u64| {
        let tree = pod(name, app, "");
        let bytes = object::with_resource_version(&object::encode(&tree), revision).expect("object");
        let key = format!("/registry/pods/ns/{name}");
        Arc::new(entry::from_tree(&lab.cacher.config, &tree, key, Revision(revision), bytes))
    };
    let r = last.revision.0;
    let listed = vec![fresh("change", "y", r + 7), keep, fresh("new", "x", r + 4)];
    lab.cacher.state.write().replace(listed, BTreeMap::new(), Revision(r + 9));
    assert_eq!(
        lines(&mut watch, 3).await,
        [
            format!("deleted gone {}", r + 1),
            format!("added new {}", r + 4),
            format!("modified change {}", r + 7),
        ]
    );
    // Who was cut off in between must list again.
    let mut early = lab.cacher.watch(after(Revision(r + 1))).await.expect("watch");
    assert!(lines(&mut early, 1).await[0].starts_with("error 410 Expired"));
}

#[tokio::test(start_paused = true)]
async fn random_histories_agree_with_a_model() {
    for seed in 1..=5u64 {
        let lab = lab().await;
        let mut rng = StdRng::seed_from_u64(seed);
        let start = lab.cacher.list(ListQuery::default()).await.expect("list").revision;
        let selection =
            Selection { labels: Selector::parse("app=x").expect("selector"), ..Selection::default() };
        let query = WatchQuery { selection: selection.clone(), ..after(start) };
        let mut watch = lab.cacher.watch(query).await.expect("watch");
        // name -> revision, of what the selection shows.
        let mut model: BTreeMap<String, Revision> = BTreeMap::new();
        let mut past = vec![(start, model.clone())];
        for step in 0..200 {
            let name = format!("p{}", rng.random_range(0..8));
            let exists = lab.cacher.get("ns", &name, None).await.is_ok();
            let revision = if exists && rng.random_bool(0.3) {
                model.remove(&name);
                lab.remove(&name).await.revision
            } else {
                let app = if rng.random_bool(0.5) { "x" } else { "y" };
                let mut tree = pod(&name, app, "");
                tree["spec"]["step"] = step.into();
                let revision = lab.put(tree).await.revision;
                if app == "x" {
                    model.insert(name, revision)
                } else {
                    model.remove(&name)
                };
                revision
            };
            past.push((revision, model.clone()));
        }
        let mut seen: BTreeMap<String, Revision> = BTreeMap::new();
        let mut told = start;
        for (revision, expected) in &past {
            while told < *revision && seen != *expected {
                let event = watch.recv().await.expect("open");
                match &event {
                    WatchEvent::Added(o) => {
                        assert!(seen.insert(o.name.clone(), o.revision).is_none(), "seed {seed}: {event:?}");
                        told = o.revision;
                    }
                    WatchEvent::Modified(o) => {
                        assert!(seen.insert(o.name.clone(), o.revision).is_some(), "seed {seed}: {event:?}");
                        told = o.revision;
                    }
                    WatchEvent::Deleted(o) => {
                        assert!(seen.remove(&o.name).is_some(), "seed {seed}: {event:?}");
                        told = o.revision;
                    }
                    other => panic!("seed {seed}: {other:?}"),
                }
                assert!(told <= *revision, "seed {seed}: told {told} before {revision}");
            }
            assert_eq!(&seen, expected, "seed {seed} at {revision}");
        }
        for _ in 0..20 {
            let (revision, expected) = &past[rng.random_range(0..past.len())];
            let query = ListQuery {
                selection: selection.clone(),
                resource_version: Some(*revision),
                version_match: Some(VersionMatch::Exact),
                ..ListQuery::default()
            };
            let page = lab.cacher.list(query).await.expect("list");
            let listed: BTreeMap<String, Revision> =
                page.items.iter().map(|o| (o.name.clone(), o.revision)).collect();
            assert_eq!((page.revision, &listed), (*revision, expected), "seed {seed}");
        }
        lab.tasks.stop_token().cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everyone_reads_their_writes_and_watchers_miss_none() {
    const WRITERS: usize = 6;
    const WRITES: usize = 60;
    let lab = Arc::new(lab().await);
    let start = lab.cacher.list(ListQuery::default()).await.expect("list").revision;
    let mut watch = lab.cacher.watch(after(start)).await.expect("watch");
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let lab = lab.clone();
            tokio::spawn(async move {
                let name = format!("w{writer}");
                for i in 0..WRITES {
                    let written = lab.put(pod(&name, &format!("v{i}"), "")).await.revision;
                    let read = lab.cacher.get("ns", &name, None).await.expect("get");
                    assert_eq!(read.revision, written);
                    let list = lab.cacher.list(ListQuery::default()).await.expect("list");
                    assert!(list.revision >= written);
                    let listed = list.items.iter().find(|o| o.name == name).expect("listed");
                    assert_eq!(listed.revision, written);
                }
            })
        })
        .collect();
    for n in 1..=(WRITERS * WRITES) as u64 {
        let event = tokio::time::timeout(Duration::from_secs(60), watch.recv()).await;
        match event.expect("in time").expect("open") {
            WatchEvent::Added(o) | WatchEvent::Modified(o) => assert_eq!(o.revision.0, start.0 + n),
            other => panic!("{other:?}"),
        }
    }
    for writer in writers {
        writer.await.expect("no panic");
    }
}
