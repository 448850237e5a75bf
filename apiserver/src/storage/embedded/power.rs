//! The power is cut at every single write to the disk. A disk may then have done any part of what was asked of
//! it since the last fsync: none, all, some, and some of those by halves.

use std::collections::BTreeMap;
use std::path::Path;

use common::shutdown::CancellationToken;
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, Io};
use super::*;
use crate::storage::StoreEvent;

/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;

type State = BTreeMap<String, (Bytes, Revision)>;

/// A run: what the disk was asked, and what the store said.
struct Run {
    /// The disk when it began.
    before: Vec<u8>,
    journal: Vec<Io>,
    /// Position in the journal at which an acknowledgement was in hand, and its revision.
    acknowledged: Vec<(usize, Revision)>,
    /// As a watch told it, expiries included.
    history: Vec<StoreEvent>,
}

/// Writes of every kind, alone and at once, small and large, with expiry and compaction between.
async fn run(seed: u64) -> Run {
    let disk = Disk::default();
    drop(disk.database().expect("made"));
    let before = disk.bytes();
    let begin = disk.position();
    let tasks = Tasks::new(CancellationToken::new());
    let store = disk.open(&tasks);
    let mut watch = store.watch("/", Revision(1)).await.expect("watch");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut acknowledged = Vec::new();
    let mut known: BTreeMap<String, Revision> = BTreeMap::new();
    for step in 0..14 {
        let keys: Vec<String> =
            (0..rng.random_range(1..5)).map(|i| format!("/{}", (step + i * 3) % 7)).collect();
        let writes = keys.iter().map(|key| {
            let length = if rng.random_bool(0.1) { 40_000 } else { rng.random_range(1..3000) };
            let value = Bytes::from(vec![b'a' + step as u8; length]);
            let delete = rng.random_bool(0.2);
            let (store, at) = (store.clone(), known.get(key).copied());
            async move {
                match at {
                    Some(at) if delete => (store.delete(key, at).await, None),
                    Some(at) => {
                        let written = store.update(key, at, value, None).await;
                        (written.clone(), written.ok())
                    }
                    None => {
                        let written = store.create(key, value, None).await;
                        (written.clone(), written.ok())
                    }
                }
            }
        });
        let written = futures::future::join_all(writes).await;
        let position = disk.position() - begin;
        for (key, (outcome, now)) in keys.into_iter().zip(written) {
            acknowledged.push((position, outcome.expect("nobody else writes")));
            match now {
                Some(at) => known.insert(key, at),
                None => known.remove(&key),
            };
        }
        if step == 5 {
            let at = store.create("/due", "soon gone".into(), Some(0)).await.expect("create");
            acknowledged.push((disk.position() - begin, at));
        }
        if step == 9 {
            let half = Revision(store.current_revision().await.expect("revision").0 / 2);
            store.compact(half).await.expect("compact");
        }
    }
    let end = store.create("/end", "end".into(), None).await.expect("create");
    acknowledged.push((disk.position() - begin, end));
    let mut history = Vec::new();
    loop {
        let event = watch.next().await.expect("open").expect("no error");
        let ended = matches!(&event, StoreEvent::Put { kv, .. } if kv.mod_revision == end);
        if !matches!(event, StoreEvent::Progress(_)) {
            history.push(event);
        }
        if ended {
            break;
        }
    }
    tasks.stop_token().cancel();
    drop(watch);
    drop(store);
    tasks.join(Duration::from_secs(10)).await;
    Run { before, journal: disk.journal().split_off(begin), acknowledged, history }
}

/// What the disk holds when it did `chance` of what it was asked since its last fsync.
fn survivor(durable: &[u8], pending: &[Io], chance: f64, rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = durable.to_vec();
    for io in pending {
        if !rng.random_bool(chance) {
            continue;
        }
        match io {
            Io::Write { offset, data } if chance < 1.0 && rng.random_bool(0.3) => {
                // Torn: some of its sectors.
                for (i, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                    if rng.random_bool(0.5) {
                        let offset = offset + (i * SECTOR_BYTES) as u64;
                        Io::Write { offset, data: sector.to_vec() }.apply(&mut bytes);
                    }
                }
            }
            io => io.apply(&mut bytes),
        }
    }
    bytes
}

fn states(history: &[StoreEvent]) -> BTreeMap<Revision, State> {
    let mut states = BTreeMap::from([(Revision(1), State::new())]);
    let mut state = State::new();
    for event in history {
        let revision = match event {
            StoreEvent::Put { kv, .. } => {
                state.insert(kv.key.clone(), (kv.value.clone(), kv.mod_revision));
                kv.mod_revision
            }
            StoreEvent::Delete { key, revision, .. } => {
                state.remove(key);
                *revision
            }
            StoreEvent::Progress(_) => continue,
        };
        states.insert(revision, state.clone());
    }
    states
}

/// Opens what survived and compares it with what was promised.
fn check(run: &Run, states: &BTreeMap<Revision, State>, image: Vec<u8>, cut: usize, what: &str) -> Disk {
    let at = || format!("cut before write {cut} of {}, {what}", run.journal.len());
    let disk = Disk::holding(image);
    let (db, found) = disk.database().unwrap_or_else(|error| panic!("{}: {error}", at()));
    let promised =
        run.acknowledged.iter().filter(|(position, _)| *position <= cut).map(|(_, revision)| *revision);
    let promised = promised.max().unwrap_or(Revision(1));
    assert!(found.revision >= promised, "{}: {promised} was acknowledged, {} found", at(), found.revision);
    let expected = states.get(&found.revision).unwrap_or_else(|| panic!("{}: unknown revision", at()));
    let shared = Shared::new(db, &found, Path::new("in memory"));
    let list = reader::list(&shared, "", None, 0, None).expect("list");
    let listed: State = list.items.into_iter().map(|kv| (kv.key, (kv.value, kv.mod_revision))).collect();
    assert_eq!(&listed, expected, "{}: not the state at {}", at(), found.revision);
    let oldest = found.compacted.max(Revision(1));
    let replayed = reader::replay(&shared, "", oldest, found.revision).expect("the log is whole");
    let told = run.history.iter().filter(|event| {
        crate::storage::hub::subject(event).is_some_and(|(_, r)| r > oldest && r <= found.revision)
    });
    assert!(replayed.iter().eq(told), "{}: the log tells another story", at());
    let next = Op::Create { key: "/after".into(), value: "x".into(), ttl_seconds: None };
    let mut outcome = writer::transact(&shared, vec![next]).expect("goes on");
    let next = outcome.results.remove(0).expect("written");
    assert_eq!(next.0, found.revision.0 + 1, "{}", at());
    disk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_write_loses_nothing_acknowledged_and_shows_nothing_torn() {
    let run = run(1).await;
    let states = states(&run.history);
    let mut rng = StdRng::seed_from_u64(2);
    let (mut durable, mut pending): (_, Vec<Io>) = (run.before.clone(), Vec::new());
    let mut cuts = 0;
    for cut in 0..=run.journal.len() {
        for (chance, what) in [(0.0, "nothing since the fsync"), (1.0, "all of it"), (0.5, "some of it")] {
            if pending.is_empty() && chance > 0.0 {
                continue;
            }
            let image = survivor(&durable, &pending, chance, &mut rng);
            let recovered = check(&run, &states, image.clone(), cut, what);
            cuts += 1;
            // Power fails again while the store is opened.
            if cut % 40 == 0 && chance == 0.5 {
                let repair = recovered.journal();
                let end = rng.random_range(0..repair.len());
                let synced = repair[..end].iter().rposition(|io| matches!(io, Io::Sync)).map_or(0, |i| i + 1);
                let mut again = image;
                repair[..synced].iter().for_each(|io| io.apply(&mut again));
                let again = survivor(&again, &repair[synced..end], 0.5, &mut rng);
                let disk = Disk::holding(again);
                let (_, found) = disk.database().expect("opens after a second cut");
                let promised = run.acknowledged.iter().filter(|(position, _)| *position <= cut);
                assert!(found.revision >= promised.map(|(_, r)| *r).max().unwrap_or(Revision(1)));
            }
        }
        let Some(io) = run.journal.get(cut) else { break };
        match io {
            Io::Sync => pending.drain(..).for_each(|io| io.apply(&mut durable)),
            io => pending.push(io.clone()),
        }
    }
    eprintln!("{cuts} power cuts over {} writes to the disk", run.journal.len());
    assert!(run.journal.len() > 50 && cuts > run.journal.len());
}
