//! Watches.

use super::*;

pub(super) async fn watches_have_no_gap(store: &dyn Store) {
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

pub(super) async fn watches_show_what_was_deleted(store: &dyn Store) {
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

pub(super) async fn observed_progress_is_complete(store: &dyn Store) {
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

pub(super) async fn a_prefix_sees_its_own_keys_alone(store: &dyn Store) {
    let now = store.current_revision().await.expect("revision");
    let mut wide = store.watch("/c/own/", now).await.expect("watch");
    let mut narrow = store.watch("/c/own/a/", now).await.expect("watch");
    let mut twin = store.watch("/c/own/a/", now).await.expect("watch");
    let mut revisions = Vec::new();
    for key in ["/c/own/a/1", "/c/own/ab/1", "/c/own/a", "/c/own/b/1", "/c/own/a/2"] {
        revisions.push(store.create(key, value(key), None).await.expect("create"));
    }
    let put_at = |event: StoreEvent| match event {
        StoreEvent::Put { kv, .. } => kv.mod_revision,
        other => panic!("{other:?}"),
    };
    for revision in &revisions {
        assert_eq!(put_at(next(&mut wide).await), *revision);
    }
    for stream in [&mut narrow, &mut twin] {
        assert_eq!(put_at(next(stream).await), revisions[0]);
        assert_eq!(put_at(next(stream).await), revisions[4]);
    }
}
