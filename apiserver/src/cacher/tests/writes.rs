//! Create and guaranteed update.

use super::*;

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
    // What is gone is not made anew by an update of the one that was known.
    let refused = lab.cacher.guaranteed_update("ns", "a", &right, true, &mut Put(pod("a", "x", ""))).await;
    let refused = refused.expect_err("another object at best");
    assert_eq!(refused.code, 409);
    let ending = "UID in precondition: uid-a, UID in object meta: ";
    assert!(refused.message.ends_with(ending), "{}", refused.message);
    let missing = Preconditions::default();
    let refused = lab.cacher.guaranteed_update("ns", "a", &missing, false, &mut Remove).await;
    assert_eq!(refused.expect_err("gone").code, 404);
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
