//! Revisions and conditions.

use super::*;

pub(super) async fn revisions_count_writes(store: &dyn Store) {
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

pub(super) async fn conditions_hold(store: &dyn Store) {
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

/// Writers that read, add one and write on what they read.
pub(super) async fn one_of_many_writers_wins_each_revision(store: &Arc<dyn Store>) {
    const WRITERS: usize = 12;
    const ROUNDS: usize = 5;
    let key = "/c/race/counter";
    store.create(key, value("0"), None).await.expect("create");
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let store = Arc::clone(store);
        writers.spawn(async move {
            let mut won = Vec::new();
            let mut kv = store.get(key).await.expect("get").0.expect("present");
            while won.len() < ROUNDS {
                let count: usize = std::str::from_utf8(&kv.value).expect("text").parse().expect("a number");
                match store.update(key, kv.mod_revision, value((count + 1).to_string()), None).await {
                    Ok(revision) => {
                        won.push(revision);
                        kv = store.get(key).await.expect("get").0.expect("present");
                    }
                    // What the refusal carries is as good as a read.
                    Err(StoreError::Conflict { current: Some(current), .. }) => kv = current,
                    Err(other) => panic!("{other:?}"),
                }
            }
            won
        });
    }
    let mut won: Vec<Revision> = writers.join_all().await.concat();
    won.sort_unstable();
    won.dedup();
    assert_eq!(won.len(), WRITERS * ROUNDS, "each write has a revision of its own");
    let last = store.get(key).await.expect("get").0.expect("present");
    assert_eq!((last.value, last.mod_revision), (value((WRITERS * ROUNDS).to_string()), won[won.len() - 1]));
}

/// Futures dropped at any point: each write is found whole or not at all, and the history agrees.
pub(super) async fn dropped_writes_are_done_or_not_done(store: &Arc<dyn Store>) {
    let prefix = "/c/dropped/";
    let begin = store.current_revision().await.expect("revision");
    let mut watch = store.watch(prefix, begin).await.expect("watch");
    let mut rng = StdRng::seed_from_u64(7);
    for i in 0..120 {
        let key = format!("{prefix}{}", i % 10);
        let fresh = value(format!("{i}").repeat(200));
        let there = store.get(&key).await.expect("get").0;
        let write = async {
            match &there {
                Some(kv) => store.update(&key, kv.mod_revision, fresh, None).await,
                None => store.create(&key, fresh, None).await,
            }
        };
        let patience = Duration::from_micros(rng.random_range(0..1500));
        // Whether it was done in time is what must not matter.
        let _ = tokio::time::timeout(patience, write).await;
    }
    // What was dropped last may still be under way; the history up to the listing's revision is complete.
    let list = store.list(prefix, None, 0, None).await.expect("list");
    let end = put(store.as_ref(), &format!("{prefix}end"), value("end")).await;
    assert!(end > list.revision);
    let mut replayed = BTreeMap::new();
    let mut reached = begin;
    while let StoreEvent::Put { kv, previous, .. } = next(&mut watch).await {
        assert!(kv.mod_revision > reached, "in order");
        reached = kv.mod_revision;
        if reached > list.revision {
            break;
        }
        let length = kv.value.len();
        assert!(length % 200 == 0 && kv.value.chunks(length / 200).all(|c| c == &kv.value[..length / 200]));
        let replaced = replayed.insert(kv.key, (kv.value, kv.mod_revision));
        assert_eq!(replaced.map(|(value, _)| value), previous);
    }
    let listed: BTreeMap<_, _> =
        list.items.into_iter().map(|kv| (kv.key, (kv.value, kv.mod_revision))).collect();
    assert_eq!(replayed, listed);
}
