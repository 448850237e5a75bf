//! Get and list.

use super::*;

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
    let both = ListQuery { resource_version: Some(first.revision), ..page(&gone.metadata.continue_token) };
    let refused = lab.cacher.list(both).await.expect_err("a page has its revision");
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (400, "specifying resource version is not allowed when using continue")
    );
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
    // Also as objects come to a node, and leave it.
    let before = lab.put(pod("p1", "y", "n4")).await.revision;
    lab.put(pod("p4", "y", "n1")).await;
    lab.put(pod("p7", "x", "n4")).await;
    lab.remove("p0").await;
    assert_eq!(lab.names(query("", "spec.nodeName=n4")).await, ["p1", "p7"]);
    assert_eq!(lab.names(query("app=x", "spec.nodeName=n4")).await, ["p7"]);
    assert_eq!(lab.names(query("", "spec.nodeName=n0")).await, [""; 0]);
    let then = ListQuery {
        resource_version: Some(before),
        version_match: Some(VersionMatch::Exact),
        ..query("", "spec.nodeName=n4")
    };
    assert_eq!(lab.names(then).await, ["p1", "p4"]);
    assert_eq!(lab.names(query("", "metadata.name=p2,spec.nodeName!=n2")).await, [""; 0]);
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
async fn a_list_of_one_node_looks_at_that_node_alone() {
    let lab = lab().await;
    for i in 0..100 {
        lab.put(pod(&format!("p{i:02}"), "x", &format!("n{}", i % 10))).await;
    }
    lab.cacher.list(ListQuery::default()).await.expect("the cache has seen all");
    let state = lab.cacher.state.read();
    let looked_at = |field: Option<&str>, value: &'static str, prefix: &str| {
        let looked = std::cell::Cell::new(0);
        let required = |name: &str| (Some(name) == field).then_some(value);
        state.range(false, required, prefix, prefix, state.revision, 0, |_| {
            looked.set(looked.get() + 1);
            true
        });
        looked.get()
    };
    assert_eq!(looked_at(None, "", "/registry/pods/"), 100);
    assert_eq!(looked_at(Some("spec.nodeName"), "n3", "/registry/pods/"), 10);
    assert_eq!(looked_at(Some("spec.nodeName"), "gone", "/registry/pods/"), 0);
    assert_eq!(looked_at(None, "", "/registry/pods/ns/p4"), 10);
}
