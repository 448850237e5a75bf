use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::shutdown::CancellationToken;

use super::disk::Disk;
use super::*;
use crate::storage::contract::{self, Scale};

/// No compaction but what the test asks for.
const NEVER: Duration = Duration::ZERO;

/// A folder that goes away with the test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pintle-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    pub(super) fn file(&self) -> PathBuf {
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
    (EmbeddedStore::open(&folder.file(), NEVER, &tasks).expect("opens"), tasks)
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
    let second = EmbeddedStore::open(&folder.file(), NEVER, &tasks);
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
    let refused = EmbeddedStore::open(&folder.file(), NEVER, &tasks).err().expect("refused").to_string();
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

/// An fsync at the bottom stops all acknowledgements above, and those who waited for it share the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_acknowledged_after_their_fsync_and_share_it() {
    const WRITES: usize = 64;
    let disk = Disk::default();
    let tasks = Tasks::new(CancellationToken::new());
    let store = disk.open(&tasks);
    let before = disk.syncs();
    disk.hold();
    let mut writes = tokio::task::JoinSet::new();
    for i in 0..WRITES {
        let store = store.clone();
        writes.spawn(async move { store.create(&format!("/s/{i}"), "x".into(), None).await });
    }
    disk.wait_for_held_sync().await;
    assert!(writes.try_join_next().is_none(), "nothing is acknowledged before its fsync");
    assert!(store.get("/s/0").await.expect("get").0.is_none(), "nor seen");
    disk.release();
    for written in writes.join_all().await {
        written.expect("create");
    }
    let syncs = disk.syncs() - before;
    assert!(syncs < WRITES / 2, "{WRITES} writes took {syncs} fsyncs");
    tasks.stop_token().cancel();
}

/// The same objects written again and again: the file stays as large as a few intervals' history.
#[tokio::test]
async fn churn_does_not_grow_the_file_without_end() {
    let folder = Folder::new("churn");
    let (store, tasks) = open(&folder);
    let round = async |round: usize| {
        let writes = (0..200).map(|i| {
            let (store, key) = (store.clone(), format!("/c/{i}"));
            async move {
                let fresh = Bytes::from(format!("{round} ").repeat(1000));
                match store.get(&key).await.expect("get").0 {
                    Some(kv) => store.update(&key, kv.mod_revision, fresh, None).await.expect("update"),
                    None => store.create(&key, fresh, None).await.expect("create"),
                }
            }
        });
        let last = futures::future::join_all(writes).await.into_iter().max().expect("some");
        store.compact(last).await.expect("compact");
        store.size_bytes().await.expect("a file")
    };
    // 36 MB are written all in all.
    for i in 0..60 {
        let size = round(i).await;
        assert!(size <= 8 * 1024 * 1024, "round {i}: {size} bytes");
    }
    close(store, tasks).await;
}

#[tokio::test]
async fn history_is_forgotten_once_per_interval() {
    let folder = Folder::new("interval");
    let tasks = Tasks::new(CancellationToken::new());
    let store = EmbeddedStore::open(&folder.file(), Duration::from_millis(50), &tasks).expect("opens");
    let first = store.create("/i/a", "1".into(), None).await.expect("create");
    let second = store.update("/i/a", first, "2".into(), None).await.expect("update");
    let begun = std::time::Instant::now();
    while store.compacted() < second {
        assert!(begun.elapsed() < Duration::from_secs(30), "compacted to {}", store.compacted());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let past = store.list("/i/", None, 0, Some(first)).await;
    assert!(matches!(past, Err(StoreError::Compacted { .. })), "{past:?}");
    close(store, tasks).await;
}

#[tokio::test]
async fn a_mostly_empty_file_is_shrunk_when_it_is_opened() {
    let folder = Folder::new("shrink");
    let (store, tasks) = open(&folder);
    let mut last = Revision(0);
    for batch in 0..10 {
        let writes = (0..10).map(|i| {
            let (store, key) = (store.clone(), format!("/s/{batch}-{i}"));
            async move { store.create(&key, vec![7; 1024 * 1024].into(), None).await.expect("create") }
        });
        last = futures::future::join_all(writes).await.into_iter().max().expect("some");
    }
    let kept = store.create("/s/kept", "x".into(), None).await.expect("create");
    for kv in store.list("/s/", None, 0, Some(last)).await.expect("list").items {
        store.delete(&kv.key, kv.mod_revision).await.expect("delete");
    }
    let now = store.current_revision().await.expect("revision");
    store.compact(now).await.expect("compact");
    close(store, tasks).await;
    let before = file::size(&folder.file()).expect("a file");
    let (store, tasks) = open(&folder);
    let after = store.size_bytes().await.expect("a file");
    assert!(after < 16 * 1024 * 1024, "{before} bytes became {after}");
    assert_eq!(store.get("/s/kept").await.expect("get").0.expect("present").mod_revision, kept);
    assert_eq!(store.current_revision().await.expect("revision"), now);
    close(store, tasks).await;
}

#[tokio::test]
async fn a_file_that_was_never_finished_is_made_anew() {
    let folder = Folder::new("unfinished");
    std::fs::create_dir_all(folder.file().parent().expect("a folder")).expect("made");
    std::fs::write(folder.file().with_file_name("state.db.new"), "half a header").expect("write");
    std::fs::write(folder.file(), "").expect("an empty file, as a full disk leaves one");
    let (store, tasks) = open(&folder);
    store.create("/u/a", "1".into(), None).await.expect("create");
    assert!(!folder.file().with_file_name("state.db.new").exists());
    close(store, tasks).await;
}
