//! What every store must do, run on each of them. Keys of one run live under a prefix of its own, so that a
//! real etcd can serve several runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{EventStream, Revision, Store, StoreError, StoreEvent};

/// Longest wait for anything that must happen. Real stores expire by wall clock, within seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The whole suite.
pub(crate) async fn check(store: Arc<dyn Store>) {
    let store = store.as_ref();
    revisions_count_writes(store).await;
    conditions_hold(store).await;
    lists_page_one_revision(store).await;
    lists_show_the_past(store).await;
    watches_have_no_gap(store).await;
    watches_show_what_was_deleted(store).await;
    the_future_is_refused(store).await;
    observed_progress_is_complete(store).await;
    large_values_fit_and_larger_are_refused(store).await;
    keys_expire_as_deletes(store).await;
    compaction_forgets_the_past_only(store).await;
    for seed in [1, 2, 3] {
        random_writes_match_a_model(store, seed).await;
    }
}

fn value(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

async fn next(stream: &mut EventStream) -> StoreEvent {
    loop {
        let item = tokio::time::timeout(PATIENCE, stream.next()).await.expect("an event in time");
        match item.expect("the stream goes on").expect("no error") {
            StoreEvent::Progress(_) => {}
            event => return event,
        }
    }
}

async fn keys(store: &dyn Store, prefix: &str, at: Option<Revision>) -> Vec<(String, Bytes, Revision)> {
    let list = store.list(prefix, None, 0, at).await.expect("list");
    list.items.into_iter().map(|kv| (kv.key, kv.value, kv.mod_revision)).collect()
}

async fn revisions_count_writes(store: &dyn Store) {
    let start = store.current_revision().await.expect("revision");
    assert!(start.0 >= 1);
    let a = store.create("/c/rev/a", value("1"), None).await.expect("create");
    assert_eq!(a.0, start.0 + 1);
    let b = store.update("/c/rev/a", a, value("2"), None).await.expect("update");
    assert_eq!(b.0, a.0 + 1);
    let (found, read_at) = store.get("/c/rev/a").await.expect("get");
    let found = found.expect("present");
    assert_eq!((found.value, found.mod_revision), (value("2"), b));
    assert!(read_at >= b);
    let c = store.delete("/c/rev/a", b).await.expect("delete");
    assert_eq!(c.0, b.0 + 1);
    assert_eq!(store.get("/c/rev/a").await.expect("get").0, None);
    assert_eq!(store.current_revision().await.expect("revision"), c);
}

async fn conditions_hold(store: &dyn Store) {
    let key = "/c/cond/a";
    let first = store.create(key, value("1"), None).await.expect("create");
    let exists = store.create(key, value("x"), None).await;
    assert!(matches!(&exists, Err(StoreError::Exists(k)) if k == key), "{exists:?}");
    let second = store.update(key, first, value("2"), None).await.expect("update");
    for refused in [store.update(key, first, value("x"), None).await, store.delete(key, first).await] {
        match refused {
            Err(StoreError::Conflict { current: Some(kv), .. }) => {
                assert_eq!((kv.key.as_str(), kv.value, kv.mod_revision), (key, value("2"), second));
            }
            other => panic!("{other:?}"),
        }
    }
    store.delete(key, second).await.expect("delete");
    let before = store.current_revision().await.expect("revision");
    for refused in [store.update(key, second, value("x"), None).await, store.delete(key, second).await] {
        assert!(matches!(refused, Err(StoreError::Conflict { current: None, .. })), "{refused:?}");
    }
    assert_eq!(store.current_revision().await.expect("revision"), before, "refusals take no revision");
}

async fn lists_page_one_revision(store: &dyn Store) {
    for i in 0..7 {
        store.create(&format!("/c/page/k{i}"), value(i.to_string()), None).await.expect("create");
    }
    store.create("/c/page0", value("outside"), None).await.expect("create");
    let first = store.list("/c/page/", None, 3, None).await.expect("list");
    assert_eq!((first.items.len(), first.more, first.remaining), (3, true, Some(4)));
    let (gone, _) = store.get("/c/page/k5").await.expect("get");
    store.delete("/c/page/k5", gone.expect("present").mod_revision).await.expect("delete");
    let mut seen: Vec<String> = first.items.iter().map(|kv| kv.key.clone()).collect();
    let mut more = first.more;
    while more {
        let from = format!("{}\0", seen.last().expect("a page is not empty"));
        let page = store.list("/c/page/", Some(&from), 3, Some(first.revision)).await.expect("list");
        assert_eq!(page.revision, first.revision);
        seen.extend(page.items.into_iter().map(|kv| kv.key));
        more = page.more;
    }
    assert_eq!(seen, (0..7).map(|i| format!("/c/page/k{i}")).collect::<Vec<_>>());
    assert_eq!(keys(store, "/c/page/", None).await.len(), 6);
    assert!(!store.list("/c/nothing/", None, 3, None).await.expect("list").more);
}

async fn lists_show_the_past(store: &dyn Store) {
    let a = store.create("/c/past/a", value("a1"), None).await.expect("create");
    let b = store.create("/c/past/b", value("b1"), None).await.expect("create");
    let then = keys(store, "/c/past/", None).await;
    let a2 = store.update("/c/past/a", a, value("a2"), None).await.expect("update");
    store.delete("/c/past/b", b).await.expect("delete");
    let c = store.create("/c/past/0", value("c1"), None).await.expect("create");
    store.create("/c/past/b", value("b2"), None).await.expect("create");
    assert_eq!(keys(store, "/c/past/", Some(b)).await, then);
    let between = vec![("/c/past/0".to_owned(), value("c1"), c), ("/c/past/a".to_owned(), value("a2"), a2)];
    assert_eq!(keys(store, "/c/past/", Some(c)).await, between);
    assert_eq!(keys(store, "/c/past/", None).await.len(), 3);
}

async fn watches_have_no_gap(store: &dyn Store) {
    let mut revisions = Vec::new();
    for i in 0..20 {
        let key = format!("/c/watch/{}", i % 5);
        let revision = match store.get(&key).await.expect("get").0 {
            Some(kv) => store.update(&key, kv.mod_revision, value(i.to_string()), None).await,
            None => store.create(&key, value(i.to_string()), None).await,
        };
        revisions.push(revision.expect("write"));
    }
    let mut from_start = store.watch("/c/watch/", Revision(revisions[0].0 - 1)).await.expect("watch");
    let mut from_middle = store.watch("/c/watch/", revisions[9]).await.expect("watch");
    let mut from_now = store.watch("/c/watch/", revisions[19]).await.expect("watch");
    for i in 20..40 {
        store.create(&format!("/c/elsewhere/{i}"), value("x"), None).await.expect("write");
        let revision = store.create(&format!("/c/watch/n{i}"), value(i.to_string()), None).await;
        revisions.push(revision.expect("write"));
    }
    for (stream, begin) in [(&mut from_start, 0), (&mut from_middle, 10), (&mut from_now, 20)] {
        for (i, revision) in revisions.iter().enumerate().skip(begin) {
            match next(stream).await {
                StoreEvent::Put { kv, previous, created } => {
                    assert_eq!((kv.mod_revision, kv.value), (*revision, value(i.to_string())));
                    let before = (5..20).contains(&i).then(|| value((i - 5).to_string()));
                    assert_eq!((previous.clone(), created), (before, previous.is_none()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn watches_show_what_was_deleted(store: &dyn Store) {
    let now = store.current_revision().await.expect("revision");
    let mut live = store.watch("/c/del/", now).await.expect("watch");
    let made = store.create("/c/del/a", value("last"), None).await.expect("create");
    let gone = store.delete("/c/del/a", made).await.expect("delete");
    let mut late = store.watch("/c/del/", made).await.expect("watch");
    assert!(matches!(next(&mut live).await, StoreEvent::Put { created: true, .. }));
    let expected = StoreEvent::Delete { key: "/c/del/a".into(), revision: gone, previous: value("last") };
    assert_eq!(next(&mut live).await, expected);
    assert_eq!(next(&mut late).await, expected);
}

async fn the_future_is_refused(store: &dyn Store) {
    let future = Revision(store.current_revision().await.expect("revision").0 + 1000);
    let refused = store.list("/c/", None, 0, Some(future)).await;
    assert!(matches!(refused, Err(StoreError::Future { .. })), "{refused:?}");
}

async fn observed_progress_is_complete(store: &dyn Store) {
    let now = store.current_revision().await.expect("revision");
    let mut stream = store.watch("/c/observe/", now).await.expect("watch");
    let written = store.create("/c/observe/a", value("1"), None).await.expect("create");
    let elsewhere = store.create("/c/observe-not", value("1"), None).await.expect("create");
    let observing = tokio::time::timeout(PATIENCE, store.observe("/c/observe/", elsewhere));
    if let Some(observed) = observing.await.expect("observed in time") {
        assert!(observed.through >= elsewhere);
        assert!((written..elsewhere).contains(&observed.newest), "{observed:?}");
    }
    assert!(matches!(next(&mut stream).await, StoreEvent::Put { kv, .. } if kv.mod_revision == written));
}

async fn large_values_fit_and_larger_are_refused(store: &dyn Store) {
    let large = Bytes::from(vec![b'x'; 1024 * 1024]);
    let at = store.create("/c/large/a", large.clone(), None).await.expect("1 MiB fits");
    assert_eq!(store.get("/c/large/a").await.expect("get").0.expect("present").value, large);
    let larger = Bytes::from(vec![b'x'; 2 * 1024 * 1024]);
    for refused in [
        store.create("/c/large/b", larger.clone(), None).await,
        store.update("/c/large/a", at, larger, None).await,
    ] {
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    }
    store.delete("/c/large/a", at).await.expect("delete");
}

async fn keys_expire_as_deletes(store: &dyn Store) {
    let now = store.current_revision().await.expect("revision");
    let mut stream = store.watch("/c/ttl/", now).await.expect("watch");
    store.create("/c/ttl/short", value("s"), Some(1)).await.expect("create");
    let kept = store.create("/c/ttl/kept", value("k"), Some(1)).await.expect("create");
    store.update("/c/ttl/kept", kept, value("k2"), None).await.expect("update");
    for _ in 0..3 {
        assert!(matches!(next(&mut stream).await, StoreEvent::Put { .. }));
    }
    match next(&mut stream).await {
        StoreEvent::Delete { key, revision, previous } => {
            assert_eq!((key.as_str(), previous), ("/c/ttl/short", value("s")));
            assert!(revision.0 > kept.0 + 1);
        }
        other => panic!("{other:?}"),
    }
    let left: Vec<String> = keys(store, "/c/ttl/", None).await.into_iter().map(|(k, ..)| k).collect();
    assert_eq!(left, ["/c/ttl/kept"], "an update without a time to live removes it");
}

async fn compaction_forgets_the_past_only(store: &dyn Store) {
    let first = store.create("/c/compact/a", value("1"), None).await.expect("create");
    store.create("/c/compact/quiet", value("q"), None).await.expect("create");
    let mut at = first;
    for i in 2..6 {
        at = store.update("/c/compact/a", at, value(i.to_string()), None).await.expect("update");
    }
    store.compact(at).await.expect("compact");
    assert!(store.compacted() >= at, "this process knows what it compacted");
    assert_eq!(keys(store, "/c/compact/", None).await.len(), 2);
    assert_eq!(keys(store, "/c/compact/", Some(at)).await.len(), 2);
    let list = store.list("/c/compact/", None, 0, Some(first)).await;
    assert!(matches!(list, Err(StoreError::Compacted { .. })), "{list:?}");
    let watch = match store.watch("/c/compact/", first).await {
        Ok(mut stream) => tokio::time::timeout(PATIENCE, stream.next())
            .await
            .expect("refused in time")
            .expect("an error before the end")
            .map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(watch, Err(StoreError::Compacted { .. })), "{watch:?}");
    let mut stream = store.watch("/c/compact/", at).await.expect("watch from what is kept");
    let after = store.update("/c/compact/a", at, value("6"), None).await.expect("update");
    assert!(matches!(next(&mut stream).await, StoreEvent::Put { kv, previous, .. }
        if kv.mod_revision == after && previous == Some(value("5"))));
}

type Model = BTreeMap<String, (Bytes, Revision)>;

async fn random_writes_match_a_model(store: &dyn Store, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let prefix = format!("/c/model{seed}/");
    let start = store.current_revision().await.expect("revision");
    let mut model = Model::new();
    let mut past: Vec<(Revision, Model)> = vec![(start, model.clone())];
    for step in 0..150 {
        let key = format!("{prefix}{}", rng.random_range(0..12));
        let fresh = value(format!("{seed}-{step}"));
        let current = model.get(&key).map(|(_, revision)| *revision);
        let stale = rng.random_bool(0.1);
        let (result, next) = match (current, rng.random_range(0..3)) {
            (Some(at), 0) => (store.delete(&key, Revision(at.0 - u64::from(stale))).await, None),
            (Some(at), _) => {
                let expected = Revision(at.0 - u64::from(stale));
                (store.update(&key, expected, fresh.clone(), None).await, Some(fresh))
            }
            (None, _) => (store.create(&key, fresh.clone(), None).await, Some(fresh)),
        };
        match (result, stale && current.is_some()) {
            (Ok(revision), false) => {
                match next {
                    Some(value) => model.insert(key, (value, revision)),
                    None => model.remove(&key),
                };
                past.push((revision, model.clone()));
            }
            (Err(StoreError::Conflict { .. }), true) => {}
            (other, _) => panic!("seed {seed} step {step}: {other:?}"),
        }
    }
    for _ in 0..20 {
        let (revision, expected) = &past[rng.random_range(0..past.len())];
        let listed: Model = keys(store, &prefix, Some(*revision))
            .await
            .into_iter()
            .map(|(key, value, revision)| (key, (value, revision)))
            .collect();
        assert_eq!(&listed, expected, "seed {seed} at {revision}");
    }
    let (begin, mut replayed) = past[rng.random_range(0..past.len() / 2)].clone();
    let mut stream = store.watch(&prefix, begin).await.expect("watch");
    for (revision, expected) in past.iter().filter(|(revision, _)| *revision > begin) {
        match next(&mut stream).await {
            StoreEvent::Put { kv, .. } => {
                assert_eq!(kv.mod_revision, *revision, "seed {seed}");
                replayed.insert(kv.key, (kv.value, kv.mod_revision));
            }
            StoreEvent::Delete { key, revision: at, previous } => {
                assert_eq!(at, *revision, "seed {seed}");
                assert_eq!(replayed.remove(&key).map(|(value, _)| value), Some(previous), "seed {seed}");
            }
            StoreEvent::Progress(_) => unreachable!("skipped by next"),
        }
        assert_eq!(&replayed, expected, "seed {seed} at {revision}");
    }
}
