//! The contract on real etcds, and what only an etcd of several members can show.

use std::time::Instant;

use common::shutdown::CancellationToken;

use super::testing::{Etcd, wait_until};
use super::*;
use crate::storage::contract::{self, Scale};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_the_contract() {
    let Some(etcd) = Etcd::single("contract") else { return };
    let tasks = Tasks::new(CancellationToken::new());
    contract::check(etcd.connect("/c/", &tasks).await, Scale { keys: 20_000, seeds: 2 }).await;
    tasks.stop_token().cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_with_client_certificates_keep_the_contract() {
    let Some(etcd) = Etcd::start("members", 3, true) else { return };
    let tasks = Tasks::new(CancellationToken::new());
    contract::check(etcd.connect("/c/", &tasks).await, Scale { keys: 4_000, seeds: 2 }).await;
    tasks.stop_token().cancel();
}

#[tokio::test]
async fn a_client_without_certificate_is_told_so() {
    let Some(etcd) = Etcd::start("stranger", 1, true) else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let _known = etcd.connect("/c/", &tasks).await;
    let config = EtcdConfig { cert_file: None, key_file: None, ..etcd.config("/c/") };
    let stranger = EtcdStore::connect(config, &tasks).await.expect("a possible configuration");
    let refused = stranger.get("/c/a").await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let half = EtcdConfig { key_file: None, ..etcd.config("/c/") };
    assert!(matches!(EtcdStore::connect(half, &tasks).await, Err(ConnectError::HalfIdentity)));
    tasks.stop_token().cancel();
}

/// The leader is killed again and again under writers; what was acknowledged is there, once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_when_the_leader_dies_and_none_is_lost() {
    let Some(mut etcd) = Etcd::start("leader", 3, true) else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let store = etcd.connect("/c/", &tasks).await;
    let begin = store.current_revision().await.expect("revision");
    let mut watch = store.watch("/c/leader/", begin).await.expect("watch");
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        let leader = etcd.leader(&store).await;
        etcd.kill(leader);
        let killed = Instant::now();
        for i in 0..20 {
            let key = format!("/c/leader/{round}-{i}");
            let written = loop {
                match store.create(&key, key.clone().into(), None).await {
                    Ok(revision) => break revision,
                    // Done, and the answer was lost with the leader.
                    Err(StoreError::Exists(_)) => {
                        break store.get(&key).await.expect("get").0.expect("present").mod_revision;
                    }
                    Err(StoreError::Unavailable(_)) => {
                        assert!(killed.elapsed() < Duration::from_secs(30), "writes go on");
                    }
                    Err(other) => panic!("{other:?}"),
                }
            };
            if i == 0 {
                eprintln!("a write succeeded {:?} after the leader was killed", killed.elapsed());
            }
            acknowledged.push((key, written));
        }
        etcd.restart(leader);
    }
    let mut told = Vec::new();
    while told.len() < acknowledged.len() {
        match tokio::time::timeout(Duration::from_secs(30), watch.next()).await.expect("in time") {
            Some(Ok(StoreEvent::Put { kv, .. })) => told.push((kv.key, kv.mod_revision)),
            Some(Ok(StoreEvent::Progress(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, acknowledged, "one watch, gapless over all of it");
    tasks.stop_token().cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_calls_fail_in_bounded_time_and_recover_by_themselves() {
    let Some(mut etcd) = Etcd::start("majority", 3, false) else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let store = etcd.connect("/c/", &tasks).await;
    let first = store.create("/c/a", "1".into(), None).await.expect("create");
    let mut watch = store.watch("/c/", first).await.expect("watch");
    etcd.kill(0);
    etcd.kill(1);
    let begun = Instant::now();
    let (read, write, health) =
        tokio::join!(store.get("/c/a"), store.update("/c/a", first, "2".into(), None), store.healthy());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    assert!(matches!(write, Err(StoreError::Unavailable(_))), "{write:?}");
    let Err(StoreError::Unavailable(why)) = health else { panic!("{health:?}") };
    assert!(!why.is_empty());
    etcd.restart(0);
    wait_until("a majority is back", async || store.healthy().await.is_ok()).await;
    let now = store.get("/c/a").await.expect("get").0.expect("present");
    let last = store.update("/c/a", now.mod_revision, "3".into(), None).await.expect("update");
    loop {
        match tokio::time::timeout(Duration::from_secs(30), watch.next()).await.expect("in time") {
            Some(Ok(StoreEvent::Put { kv, .. })) if kv.mod_revision == last => break,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    tasks.stop_token().cancel();
}

#[tokio::test]
async fn watch_outlives_a_restart_of_etcd_and_a_dead_one_is_an_error() {
    let Some(mut etcd) = Etcd::single("restart") else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let store = etcd.connect("/c/", &tasks).await;
    let first = store.create("/c/a", "1".into(), None).await.expect("create");
    let mut stream = store.watch("/c/", first).await.expect("watch");
    etcd.kill(0);
    let dead = store.healthy().await;
    assert!(matches!(dead, Err(StoreError::Unavailable(_))), "{dead:?}");
    etcd.restart(0);
    wait_until("etcd is back", async || store.healthy().await.is_ok()).await;
    let second = store.create("/c/b", "2".into(), None).await.expect("create");
    let event = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("in time");
    assert!(matches!(event, Some(Ok(StoreEvent::Put { kv, .. })) if kv.mod_revision == second));
    tasks.stop_token().cancel();
}

#[tokio::test]
async fn servers_of_one_etcd_share_the_compaction_clock() {
    let Some(etcd) = Etcd::single("clock") else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let (one, two) = (etcd.connect("/c/", &tasks).await, etcd.connect("/c/", &tasks).await);
    let (mut first, mut second) = (compact::Clock::default(), compact::Clock::default());
    compact::round(&one, &mut first).await.expect("the first round compacts nothing");
    compact::round(&two, &mut second).await.expect("the other takes note");
    assert_eq!((one.compacted(), two.compacted()), (Revision(0), Revision(0)));
    let made = one.create("/c/a", "1".into(), None).await.expect("create");
    one.update("/c/a", made, "2".into(), None).await.expect("update");
    compact::round(&one, &mut first).await.expect("compacts to what it saw at its first round");
    let reached = one.compacted();
    assert!(reached.0 > 0 && reached < made);
    wait_until("the other hears of it", async || two.compacted() == reached).await;
    let newest = one.current_revision().await.expect("revision");
    let _watching = one.watch("/c/", newest).await.expect("watch");
    let observed = one.observe("/c/", newest).await.expect("subscribed");
    assert!(observed.through >= newest, "the clock's own writes do not hold up anyone");
    compact::round(&two, &mut second).await.expect("takes note");
    assert_eq!(two.compacted(), reached);
    tasks.stop_token().cancel();
}

#[tokio::test]
async fn a_watch_from_far_back_joins_the_one_stream_without_a_gap() {
    let Some(etcd) = Etcd::single("far") else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let store = etcd.connect("/c/", &tasks).await;
    let begin = store.current_revision().await.expect("revision");
    let mut last = begin;
    for i in 0..feed::RECENT_EVENTS + 100 {
        last = store.create(&format!("/c/far/{i}"), "x".into(), None).await.expect("create");
    }
    wait_until("all is handed out", async || store.feed.hub.through() == last).await;
    assert!(store.feed.replay("/c/far/", begin, last).is_none(), "no longer remembered");
    let mut stream = store.watch("/c/far/", begin).await.expect("watch");
    for i in 0..20 {
        last = store.create(&format!("/c/far/late{i}"), "x".into(), None).await.expect("create");
    }
    let mut reached = begin;
    while reached < last {
        let event = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("in time");
        match event.expect("open").expect("no error") {
            StoreEvent::Put { kv, .. } => {
                assert_eq!(kv.mod_revision.0, reached.0 + 1);
                reached = kv.mod_revision;
            }
            StoreEvent::Progress(revision) => assert_eq!(revision, reached),
            other => panic!("{other:?}"),
        }
    }
    assert!(store.observe("/c/far/", last).await.is_some());
    tasks.stop_token().cancel();
}

#[tokio::test]
async fn somebody_elses_writes_are_progress_when_etcd_can_be_asked() {
    let Some(etcd) = Etcd::single("progress") else { return };
    let tasks = Tasks::new(CancellationToken::new());
    let store = etcd.connect("/c/", &tasks).await;
    let _watching = store.watch("/c/quiet/", store.feed.hub.through()).await.expect("watch");
    // Behind the prefix and the compaction's clock, where the one watch does not look.
    let elsewhere = store.create("zzz/elsewhere", "x".into(), None).await.expect("create");
    if !store.proves_progress() {
        let waited = tokio::time::timeout(Duration::from_millis(500), store.observe("/c/quiet/", elsewhere));
        assert!(waited.await.is_err(), "an old etcd is not asked, and nothing else tells");
    }
    wait_until("progress is told", async || {
        // As of a version that answers rightly; the one at hand may be older.
        store.feed.progress.trust(true);
        tokio::time::timeout(Duration::from_secs(1), store.observe("/c/quiet/", elsewhere)).await.is_ok()
    })
    .await;
    tasks.stop_token().cancel();
}
