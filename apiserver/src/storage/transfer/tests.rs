//! Copies between all kinds of places, and what must not be copied.

use std::collections::BTreeMap;
use std::time::Duration;

use common::shutdown::{CancellationToken, Tasks};

use super::*;
use crate::storage::etcd::testing::Etcd;
use crate::storage::{Store, StoreEvent};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pintle-transfer-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open_store(path: &Path) -> (std::sync::Arc<EmbeddedStore>, Tasks) {
    let tasks = Tasks::new(CancellationToken::new());
    (EmbeddedStore::open(path, Duration::ZERO, &tasks).unwrap(), tasks)
}

async fn close(store: std::sync::Arc<EmbeddedStore>, tasks: Tasks) {
    drop(store);
    tasks.stop_token().cancel();
    tasks.join(Duration::from_secs(10)).await;
}

/// Keys with and without a time to live, some rewritten, and a history.
async fn fill(store: &dyn Store, keys: usize) {
    for i in 0..keys {
        let ttl = (i % 10 == 3).then_some(3600);
        let key = format!("/registry/things/{i:05}");
        let at = store.create(&key, format!("{i} ").repeat(50).into(), ttl).await.unwrap();
        if i % 7 == 0 {
            store.update(&key, at, format!("{i} again").into(), ttl).await.unwrap();
        }
    }
    let large = Bytes::from(vec![b'x'; 1024 * 1024]);
    store.create("/registry/large/one", large, None).await.unwrap();
}

async fn values(store: &dyn Store) -> BTreeMap<String, Bytes> {
    let list = store.list("/registry/", None, 0, None).await.unwrap();
    list.items.into_iter().map(|kv| (kv.key, kv.value)).collect()
}

async fn all_after(store: &dyn Store, revision: Revision) {
    let list = store.list("/registry/", None, 0, None).await.unwrap();
    assert!(list.items.iter().all(|kv| kv.mod_revision > revision), "every key is newer than {revision}");
    let mut revisions: Vec<_> = list.items.iter().map(|kv| kv.mod_revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), list.items.len(), "each has a revision of its own");
    let expired = match store.watch("/registry/", revision).await {
        Ok(mut stream) => futures::StreamExt::next(&mut stream).await.unwrap().map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(expired, Err(StoreError::Compacted { .. })), "{expired:?}");
    let past = store.list("/registry/", None, 0, Some(revision)).await;
    assert!(matches!(past, Err(StoreError::Compacted { .. })), "{past:?}");
}

/// A copy that failed lets go of its file a moment later.
async fn copy_again(from: &Place, to: &Place, bump: u64) -> Result<Copied, TransferError> {
    let begun = std::time::Instant::now();
    loop {
        match copy(from, to, bump, &mut quiet()).await {
            Err(TransferError::Embedded(OpenError::InUse { .. }))
                if begun.elapsed() < Duration::from_secs(30) =>
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            outcome => return outcome,
        }
    }
}

fn quiet() -> impl FnMut(Progress) + Send {
    |_| {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_store_is_backed_up_whole_and_restored_ahead_of_its_past() {
    let folder = Folder::new("backup");
    let (store, tasks) = open_store(&folder.file("a.redb"));
    fill(store.as_ref(), 800).await;
    let expected = values(store.as_ref()).await;
    // Taken while writes go on: one revision, not a mixture.
    let source = store.whole().expect("the embedded store can").unwrap();
    let taken_at = source.revision;
    for (key, _) in expected.iter().take(300) {
        let kv = store.get(key).await.unwrap().0.unwrap();
        store.update(key, kv.mod_revision, "later".into(), None).await.unwrap();
    }
    backup::write(source, &folder.file("b.backup"), &mut quiet()).await.unwrap();
    let handed_out = store.current_revision().await.unwrap();
    let (used, nowhere) = (Place::Embedded(folder.file("a.redb")), Place::Backup(folder.file("no.backup")));
    let in_use = copy(&used, &nowhere, 0, &mut quiet()).await;
    assert!(matches!(in_use, Err(TransferError::Embedded(OpenError::InUse { .. }))), "{in_use:?}");
    close(store, tasks).await;

    let bump = 1_000_000_000;
    let (from, to) = (Place::Backup(folder.file("b.backup")), Place::Embedded(folder.file("c.redb")));
    let copied = copy(&from, &to, bump, &mut quiet()).await.unwrap();
    assert_eq!((copied.keys, copied.from), (expected.len() as u64, taken_at));
    assert!(matches!(copy(&from, &to, bump, &mut quiet()).await, Err(TransferError::Occupied(_))));
    let (restored, tasks) = open_store(&folder.file("c.redb"));
    assert_eq!(values(restored.as_ref()).await, expected);
    assert_eq!(restored.current_revision().await.unwrap(), copied.to);
    assert!(copied.to.0 > handed_out.0 + bump / 2);
    all_after(restored.as_ref(), handed_out).await;
    let mut watch = restored.watch("/registry/", copied.to).await.unwrap();
    let next = restored.create("/registry/new", "x".into(), None).await.unwrap();
    assert_eq!(next.0, copied.to.0 + 1);
    let event = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
    assert!(matches!(event, StoreEvent::Put { kv, .. } if kv.mod_revision == next));
    let (_, keys, bytes) = {
        close(restored, tasks).await;
        survey(&to, &mut quiet()).await.unwrap()
    };
    assert!(keys == copied.keys + 1 && bytes > 1024 * 1024);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_whole_backup_is_refused() {
    let folder = Folder::new("damaged");
    let (store, tasks) = open_store(&folder.file("a.redb"));
    for i in 0..20 {
        store.create(&format!("/registry/{i}"), "value".into(), None).await.unwrap();
    }
    let good = folder.file("good.backup");
    backup::write(store.whole().unwrap().unwrap(), &good, &mut quiet()).await.unwrap();
    close(store, tasks).await;
    let bytes = std::fs::read(&good).unwrap();
    let bad = folder.file("bad.backup");
    let verdict = |bytes: &[u8]| {
        std::fs::write(&bad, bytes).unwrap();
        backup::read(&bad).map(drop)
    };
    for length in 0..bytes.len() {
        assert!(verdict(&bytes[..length]).is_err(), "cut at {length}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        assert!(verdict(&changed).is_err(), "changed at {at}");
    }
    let mut newer = bytes.clone();
    newer[20] = 9;
    let text = verdict(&newer).unwrap_err().to_string();
    assert!(text.contains("format 9") && text.contains("bad.backup"), "{text}");
    assert!(matches!(verdict(b"something else entirely"), Err(TransferError::NotABackup { .. })));
    verdict(&bytes).unwrap();
    let lost = Place::Embedded(folder.file("nowhere.redb"));
    let lost = copy(&lost, &Place::Backup(folder.file("x")), 0, &mut quiet()).await;
    assert!(matches!(lost, Err(TransferError::File { .. })), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_grows_into_an_etcd_and_comes_back() {
    let Some(etcd) = Etcd::start("transfer", 1, true) else { return };
    let folder = Folder::new("grow");
    let (store, tasks) = open_store(&folder.file("a.redb"));
    fill(store.as_ref(), 600).await;
    let expected = values(store.as_ref()).await;
    let handed_out = store.current_revision().await.unwrap();
    close(store, tasks).await;

    let (file, there) =
        (Place::Embedded(folder.file("a.redb")), Place::Etcd(Box::new(etcd.config("/registry/"))));
    let tasks = Tasks::new(CancellationToken::new());
    let target = etcd.connect("/registry/", &tasks).await;
    let mut steps = Vec::new();
    let copied = copy(&file, &there, 500, &mut |step| steps.push(step)).await.unwrap();
    assert_eq!((copied.keys, copied.from), (expected.len() as u64, handed_out));
    assert!(matches!(steps[0], Progress::RaisingRevision { to, .. } if to.0 == handed_out.0 + 500));
    let all = copied.keys;
    assert_eq!(steps.last(), Some(&Progress::Copied { keys: all, of: all }));
    assert_eq!(values(target.as_ref()).await, expected);
    all_after(target.as_ref(), Revision(handed_out.0 + 500)).await;
    let again = copy_again(&file, &there, 0).await;
    assert!(matches!(again, Err(TransferError::NotEmpty { .. })), "{again:?}");
    let other = Place::Etcd(Box::new(etcd.config("/other/")));
    let too_far = copy_again(&file, &other, u64::MAX / 2).await;
    assert!(matches!(too_far, Err(TransferError::TooFar { .. })), "{too_far:?}");

    // A copy that broke off left its mark and half the keys: the next one begins again.
    target.create("/registry/half", "x".into(), None).await.unwrap();
    target.create("pintle_copy_key", "".into(), None).await.ok();
    copy_again(&file, &there, 0).await.unwrap();
    assert_eq!(values(target.as_ref()).await, expected);

    let newest = target.current_revision().await.unwrap();
    let back = Place::Embedded(folder.file("back.redb"));
    let returned = copy(&there, &back, 0, &mut quiet()).await.unwrap();
    assert_eq!((returned.keys, returned.from), (expected.len() as u64, newest));
    let expiring = std::sync::Arc::new(std::sync::Mutex::new(0));
    let mut source = EmbeddedStore::offline(&folder.file("back.redb")).unwrap();
    while let Some(Ok(Piece::Rows(rows))) = source.pieces.recv().await {
        for row in rows.iter().filter(|row| row.expires_ms > 0) {
            let left = row.expires_ms.saturating_sub(now_ms()) / 1000;
            assert!((3400..3720).contains(&left), "{left} s left");
            *expiring.lock().unwrap() += 1;
        }
    }
    assert_eq!(*expiring.lock().unwrap(), 60, "times to live came along both ways");
    drop(source);
    let (store, store_tasks) = open_store(&folder.file("back.redb"));
    assert_eq!(values(store.as_ref()).await, expected);
    all_after(store.as_ref(), newest).await;
    close(store, store_tasks).await;
    tasks.stop_token().cancel();
}
