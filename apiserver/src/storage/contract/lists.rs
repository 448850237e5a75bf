//! Listings of now and of the past.

use super::*;

pub(super) async fn lists_page_one_revision(store: &dyn Store) {
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

pub(super) async fn lists_show_the_past(store: &dyn Store) {
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

pub(super) async fn keys_of_any_text_are_ordered_by_bytes(store: &dyn Store) {
    let long = "n".repeat(1000);
    let names = ["a", "a-b", "a.b", "a/b", "a0", "A", "ä", "日本", "z:z", "~", long.as_str()];
    for name in names {
        store.create(&format!("/c/names/{name}"), value(name), None).await.expect("create");
    }
    let mut expected: Vec<String> = names.iter().map(|name| format!("/c/names/{name}")).collect();
    expected.sort_unstable();
    let listed: Vec<String> = keys(store, "/c/names/", None).await.into_iter().map(|(key, ..)| key).collect();
    assert_eq!(listed, expected);
    let below: Vec<String> =
        keys(store, "/c/names/a/", None).await.into_iter().map(|(key, ..)| key).collect();
    assert_eq!(below, ["/c/names/a/b"]);
    let from = store.list("/c/names/", Some("/c/names/a0"), 1, None).await.expect("list");
    assert_eq!(from.items[0].key, "/c/names/a0", "from is inclusive");
    let before = store.list("/c/names/", Some("/c/nam"), 1, None).await.expect("list");
    assert_eq!(before.items[0].key, expected[0], "from before the prefix is its beginning");
    let after = store.list("/c/names/", Some("/c/namesx"), 1, None).await.expect("list");
    assert!(after.items.is_empty() && !after.more);
}

/// A client pages slowly while others create, change and delete before, at and behind its place.
pub(super) async fn pages_show_one_snapshot_while_writes_go_on(store: &Arc<dyn Store>) {
    let prefix = "/c/snapshot/";
    for i in 0..60 {
        store.create(&format!("{prefix}{i:03}"), value(format!("first {i}")), None).await.expect("create");
    }
    let (written, mut writes) = tokio::sync::watch::channel(0);
    let writing = Arc::clone(store);
    let writer = tokio::spawn(async move {
        let mut rng = StdRng::seed_from_u64(11);
        // Until the reader is gone.
        for step in 0.. {
            let key = format!("{prefix}{:03}", rng.random_range(0..90));
            let there = writing.get(&key).await.expect("get").0;
            match (there, rng.random_range(0..3)) {
                (Some(kv), 0) => writing.delete(&key, kv.mod_revision).await.expect("delete"),
                _ => put(writing.as_ref(), &key, value(format!("later {step}"))).await,
            };
            if written.send(step).is_err() {
                return;
            }
        }
    });
    for size in [1, 7, 25] {
        let whole = store.list(prefix, None, 0, None).await.expect("list");
        let mut paged = Vec::new();
        let mut from: Option<String> = None;
        loop {
            let page = store
                .list(prefix, from.as_deref(), size, Some(whole.revision))
                .await
                .expect("the revision is still there");
            assert_eq!(page.revision, whole.revision);
            let left = whole.items.len() - paged.len() - page.items.len();
            assert_eq!((page.more, page.remaining), (left > 0, Some(left as u64)));
            paged.extend(page.items);
            from = paged.last().map(|kv| format!("{}\0", kv.key));
            if !page.more {
                break;
            }
            writes.changed().await.expect("writes go on");
        }
        assert_eq!(paged, whole.items, "pages of {size}");
    }
    drop(writes);
    writer.await.expect("no panic");
}

/// More than one message of any protocol should carry; written by many at once.
pub(super) async fn many_keys_are_listed_whole(store: &Arc<dyn Store>, count: usize) {
    const WRITERS: usize = 64;
    const BYTES: usize = 700;
    let name = |i: usize| format!("/c/many/ns-{}/object-{i:06}", i % 7);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(store);
        writers.spawn(async move {
            for i in (writer..count).step_by(WRITERS) {
                let text = format!("{i:06}").repeat(BYTES / 6);
                store.create(&name(i), value(text), None).await.expect("create");
            }
        });
    }
    writers.join_all().await;
    let mut expected: Vec<String> = (0..count).map(name).collect();
    expected.sort_unstable();
    let whole = store.list("/c/many/", None, 0, None).await.expect("list");
    assert!(!whole.more && whole.remaining.is_none_or(|left| left == 0));
    assert!(whole.items.iter().map(|kv| &kv.key).eq(&expected), "every key once and in order");
    assert!(whole.items.iter().all(|kv| kv.value.len() == BYTES / 6 * 6));
    // Changed afterwards: the past is still whole.
    for i in (0..count).step_by(count / 20) {
        put(store.as_ref(), &name(i), value("changed")).await;
    }
    let half = count / 2;
    let past = store.list("/c/many/", Some(&expected[half]), 0, Some(whole.revision)).await.expect("list");
    assert_eq!(past.items, whole.items[half..]);
    let large = store.list("/c/many/", None, half, Some(whole.revision)).await.expect("list");
    assert_eq!(large.items, whole.items[..half]);
    assert!(large.more && large.remaining.is_none_or(|left| left == (count - half) as u64));
}
