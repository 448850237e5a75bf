//! Ends of what a store does: the future, the compacted past, large values, times to live.

use super::*;

pub(super) async fn the_future_is_refused(store: &dyn Store) {
    let future = Revision(store.current_revision().await.expect("revision").0 + 1000);
    let refused = store.list("/c/", None, 0, Some(future)).await;
    assert!(matches!(refused, Err(StoreError::Future { .. })), "{refused:?}");
}

pub(super) async fn large_values_fit_and_larger_are_refused(store: &dyn Store) {
    let large = Bytes::from(vec![b'x'; 1024 * 1024]);
    let at = store.create("/c/large/a", large.clone(), None).await.expect("1 MiB fits");
    assert_eq!(store.get("/c/large/a").await.expect("get").0.expect("present").value, large);
    let larger = Bytes::from(vec![b'x'; 2 * 1024 * 1024]);
    for refused in [
        store.create("/c/large/b", larger.clone(), None).await,
        store.update("/c/large/a", at, larger.clone(), None).await,
    ] {
        assert!(
            matches!(refused, Err(StoreError::TooLarge { bytes }) if bytes == larger.len()),
            "{refused:?}"
        );
    }
    let (found, _) = store.get("/c/large/a").await.expect("get");
    assert_eq!(found.expect("present").mod_revision, at, "a refusal changes nothing");
    store.delete("/c/large/a", at).await.expect("delete");
}

pub(super) async fn keys_expire_as_deletes(store: &dyn Store) {
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

pub(super) async fn compaction_forgets_the_past_only(store: &dyn Store) {
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

/// Events come in floods with one time to live.
pub(super) async fn many_keys_expire_together_and_renewed_ones_stay(store: &dyn Store) {
    let prefix = "/c/flood/";
    let now = store.current_revision().await.expect("revision");
    let mut stream = store.watch(prefix, now).await.expect("watch");
    let mut renewed = Vec::new();
    for i in 0..40 {
        let key = format!("{prefix}{i:02}");
        let made = store.create(&key, value("v"), Some(2)).await.expect("create");
        if i % 10 == 0 {
            store.update(&key, made, value("renewed"), Some(3600)).await.expect("update");
            renewed.push(key);
        }
    }
    let mut expired = Vec::new();
    while expired.len() < 40 - renewed.len() {
        if let StoreEvent::Delete { key, revision, previous } = next(&mut stream).await {
            assert_eq!(previous, value("v"));
            expired.push((key, revision));
        }
    }
    assert!(expired.is_sorted_by_key(|(_, revision)| *revision), "in the order of their revisions");
    let left: Vec<String> = keys(store, prefix, None).await.into_iter().map(|(key, ..)| key).collect();
    assert_eq!(left, renewed);
}

pub(super) async fn compaction_goes_forwards_under_a_live_watch(store: &dyn Store) {
    let prefix = "/c/forwards/";
    let mut at = store.create("/c/forwards/a", value("0"), None).await.expect("create");
    let mut live = store.watch(prefix, at).await.expect("watch");
    let mut compacted = Revision(0);
    for round in 1..4 {
        let before = at;
        for i in 0..5 {
            at =
                store.update("/c/forwards/a", at, value(format!("{round}.{i}")), None).await.expect("update");
        }
        store.compact(at).await.expect("compact");
        assert_eq!(keys(store, prefix, Some(at)).await.len(), 1, "what is compacted to is kept");
        let back = store.compact(before).await;
        assert!(
            matches!(back, Err(StoreError::Compacted { requested, .. }) if requested == before),
            "{back:?}"
        );
        compacted = at;
    }
    let future = Revision(at.0 + 1000);
    let refused = store.compact(future).await;
    assert!(
        matches!(refused, Err(StoreError::Future { requested, .. }) if requested == future),
        "{refused:?}"
    );
    assert_eq!(store.compacted(), compacted);
    for round in 1..4 {
        for i in 0..5 {
            let event = next(&mut live).await;
            let StoreEvent::Put { kv, .. } = &event else { panic!("{event:?}") };
            assert_eq!(kv.value, value(format!("{round}.{i}")), "a live watch misses nothing");
        }
    }
    let late = store.watch(prefix, compacted).await.expect("watch from the newest kept");
    drop(late);
}
