//! Watch.

use super::*;

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
    let quiet = WatchQuery { send_initial_events: true, ..WatchQuery::default() };
    let mut plain = lab.cacher.watch(quiet).await.expect("watch");
    let c = lab.put(pod("c", "x", "")).await.revision;
    assert_eq!(
        lines(&mut streaming, 4).await,
        [format!("added a {a}"), format!("added b {b}"), format!("bookmark {b} end"), format!("added c {c}")]
    );
    assert_eq!(lines(&mut plain, 3).await[2], format!("added c {c}"));
    // Without initial events a watch begins at what is newest, or at what the cache has.
    for version in [None, Some(Revision(0))] {
        lab.cacher.list(ListQuery::default()).await.expect("the cache has seen all");
        let query = WatchQuery { resource_version: version, bookmarks: true, ..WatchQuery::default() };
        let mut from_now = lab.cacher.watch(query).await.expect("watch");
        let d = lab.put(pod("d", &format!("{version:?}"), "")).await.revision;
        assert!(lines(&mut from_now, 1).await[0].ends_with(&format!(" d {d}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_not_older_than_asked_for_or_an_error_event() {
    let lab = lab().await;
    let now = lab.put(pod("a", "x", "")).await.revision;
    let at = |n: u64| WatchQuery {
        resource_version: Some(Revision(n)),
        bookmarks: true,
        send_initial_events: true,
        ..WatchQuery::default()
    };
    let mut fresh = lab.cacher.watch(at(now.0)).await.expect("watch");
    assert_eq!(lines(&mut fresh, 2).await, [format!("added a {now}"), format!("bookmark {now} end")]);
    let mut future = lab.cacher.watch(at(now.0 + 100)).await.expect("the stream is open");
    let told = lines(&mut future, 1).await.remove(0);
    let wanted = now.0 + 100;
    assert_eq!(
        told,
        format!("error 504 Timeout: Timeout: Too large resource version: {wanted}, current: {now}")
    );
    assert!(future.recv().await.is_none());
    // Without initial events there is nothing to wait for: it begins when that revision has passed.
    let mut later = lab.cacher.watch(after(Revision(now.0 + 1))).await.expect("watch");
    lab.put(pod("b", "x", "")).await;
    let c = lab.put(pod("c", "x", "")).await.revision;
    assert_eq!(lines(&mut later, 1).await, [format!("added c {c}")]);
}

#[tokio::test(start_paused = true)]
async fn the_last_bookmark_comes_shortly_before_the_end() {
    let lab = lab().await;
    let start = lab.put(pod("a", "x", "")).await.revision;
    let begun = tokio::time::Instant::now();
    let ends_at = Some(begun + Duration::from_secs(90));
    let mut watch =
        lab.cacher.watch(WatchQuery { bookmarks: true, ends_at, ..after(start) }).await.expect("watch");
    let mut seconds = Vec::new();
    for _ in 0..2 {
        lines(&mut watch, 1).await;
        seconds.push(begun.elapsed().as_secs());
    }
    assert!((59..=61).contains(&seconds[0]) && (87..=88).contains(&seconds[1]), "{seconds:?}");
    assert!(tokio::time::timeout(Duration::from_secs(300), watch.recv()).await.is_err(), "no more of them");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_while_events_do_not_stop() {
    let lab = lab().await;
    let start = lab.put(pod("a", "x", "")).await.revision;
    let selection = Selection { namespace: "elsewhere".into(), ..Selection::default() };
    let query = WatchQuery { bookmarks: true, selection, ..after(start) };
    let mut watch = lab.cacher.watch(query).await.expect("watch");
    let begun = tokio::time::Instant::now();
    let mut step = 0;
    let told = loop {
        lab.put(pod("a", &format!("v{step}"), "")).await;
        step += 1;
        tokio::time::advance(Duration::from_millis(100)).await;
        if let Ok(event) = watch.try_recv() {
            break event;
        }
        assert!(begun.elapsed() < Duration::from_secs(65));
    };
    assert!(line(&told).starts_with("bookmark "));
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

#[tokio::test(start_paused = true)]
async fn a_change_asks_only_the_watchers_that_it_may_concern() {
    let lab = lab().await;
    let select = |namespace: &str, fields: &str| Selection {
        namespace: namespace.into(),
        fields: FieldSelector::parse(fields).expect("selector"),
        ..Selection::default()
    };
    let mut scopes = scopes::Scopes::default();
    let selections = [
        select("", ""),
        select("ns", ""),
        select("ns", "metadata.name=a"),
        select("", "spec.nodeName=n1"),
        select("", "spec.nodeName=n2"),
        // These it does not concern.
        select("other", ""),
        select("other", "metadata.name=a"),
        select("ns", "metadata.name=b"),
        select("", "spec.nodeName=n3"),
    ];
    for (id, selection) in selections.iter().enumerate() {
        scopes.add(id as u64, selection);
    }
    let before = lab.put(pod("a", "x", "n1")).await;
    let now = lab.put(pod("a", "x", "n2")).await;
    let change = history::Change::new(now.revision, Some(now), Some(before));
    let mut concerned = scopes.concerned(&change);
    concerned.sort_unstable();
    assert_eq!(concerned, [0, 1, 2, 3, 4]);
    for (id, selection) in selections.iter().enumerate() {
        scopes.remove(id as u64, selection);
    }
    assert!(scopes.concerned(&change).is_empty());
}
