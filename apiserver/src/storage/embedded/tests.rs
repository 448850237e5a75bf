use std::time::Duration;

use common::shutdown::CancellationToken;

use super::*;
use crate::storage::contract::{self, Scale};

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pintle-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("made/state.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(folder: &Folder) -> (Arc<EmbeddedStore>, Tasks) {
    let tasks = Tasks::new(CancellationToken::new());
    (EmbeddedStore::open(&folder.file(), &tasks).expect("opens"), tasks)
}

async fn close(store: Arc<EmbeddedStore>, tasks: Tasks) {
    tasks.stop_token().cancel();
    tasks.join(Duration::from_secs(10)).await;
    assert_eq!(Arc::strong_count(&store.shared), 1, "the writer has left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_keeps_the_contract() {
    let folder = Folder::new("contract");
    let (store, tasks) = open(&folder);
    let scale = Scale { keys: 30_000, seeds: 3 };
    contract::check(store.clone(), scale).await;
    close(store, tasks).await;
}

#[tokio::test]
async fn reopening_finds_everything_and_only_the_owner_may_read_it() {
    let folder = Folder::new("reopen");
    let (store, tasks) = open(&folder);
    let a = store.create("/r/a", "1".into(), None).await.expect("create");
    store.create("/r/due", "x".into(), Some(0)).await.expect("create");
    let b = store.update("/r/a", a, "2".into(), None).await.expect("update");
    let mode = std::fs::metadata(folder.file()).expect("file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = EmbeddedStore::open(&folder.file(), &tasks);
    assert!(matches!(second.err(), Some(OpenError::InUse { .. })));
    close(store, tasks).await;

    let (store, tasks) = open(&folder);
    assert!(store.current_revision().await.expect("revision") >= b);
    let found = store.get("/r/a").await.expect("get").0.expect("present");
    assert_eq!((found.value.as_ref(), found.mod_revision), (&b"2"[..], b));
    let then = store.list("/r/a", None, 0, Some(a)).await.expect("history survives");
    assert_eq!(then.items[0].value.as_ref(), b"1");
    close(store, tasks).await;
}

#[tokio::test]
async fn concurrent_writes_share_a_transaction_and_one_wins_each_race() {
    let folder = Folder::new("race");
    let (store, tasks) = open(&folder);
    let start = store.create("/g/a", "0".into(), None).await.expect("create");
    let racers: Vec<_> = (0..64)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move { store.update("/g/a", start, i.to_string().into(), None).await })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        match racer.await.expect("no panic") {
            Ok(revision) => {
                won += 1;
                assert_eq!(revision.0, start.0 + 1);
            }
            Err(StoreError::Conflict { current: Some(kv), .. }) => assert_eq!(kv.mod_revision.0, start.0 + 1),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(won, 1);
    close(store, tasks).await;
}

#[tokio::test]
async fn a_newer_format_is_refused_by_name() {
    let folder = Folder::new("format");
    let (store, tasks) = open(&folder);
    {
        let tx = store.shared.db.begin_write().expect("write");
        tx.open_table(tables::META).expect("meta").insert(tables::META_FORMAT, 99).expect("insert");
        tx.commit().expect("commit");
    }
    close(store, tasks.clone()).await;
    let refused = EmbeddedStore::open(&folder.file(), &tasks).err().expect("refused").to_string();
    assert!(refused.contains("format 99") && refused.contains("state.db"), "{refused}");
}

#[tokio::test]
async fn a_long_history_is_forgotten_whole() {
    let folder = Folder::new("forget");
    let (store, tasks) = open(&folder);
    let writers: Vec<_> = (0..5000)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move { store.create(&format!("/h/{i:04}"), "x".into(), None).await })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic").expect("create");
    }
    let page = store.list("/h/", None, 10, None).await.expect("list");
    assert_eq!((page.items.len(), page.more, page.remaining), (10, true, None), "many are not counted");
    let now = store.current_revision().await.expect("revision");
    store.compact(now).await.expect("compact");
    let begun = std::time::Instant::now();
    loop {
        let tx = redb::ReadableDatabase::begin_read(&store.shared.db).expect("read");
        let left = redb::ReadableTableMetadata::len(&tx.open_table(tables::LOG).expect("log")).expect("len");
        if left <= 1 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{left} rows are left");
        tokio::task::yield_now().await;
    }
    close(store, tasks).await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let folder = Folder::new("crash");
    let (store, tasks) = open(&folder);
    let mut acknowledged = Vec::new();
    for i in 0..50 {
        let key = format!("/k/{i}");
        let revision = store.create(&key, i.to_string().into(), None).await.expect("create");
        acknowledged.push((key, revision));
    }
    // What a machine that stops now would find: the file as it is, never closed.
    let crashed = Folder::new("crashed");
    std::fs::create_dir_all(crashed.file().parent().expect("a folder")).expect("made");
    std::fs::copy(folder.file(), crashed.file()).expect("copied");
    close(store, tasks).await;

    let (store, tasks) = open(&crashed);
    for (key, revision) in acknowledged {
        let found = store.get(&key).await.expect("get").0.expect("survived");
        assert_eq!(found.mod_revision, revision);
    }
    let next = store.create("/k/next", "x".into(), None).await.expect("goes on");
    assert_eq!(store.current_revision().await.expect("revision"), next);
    close(store, tasks).await;
}
