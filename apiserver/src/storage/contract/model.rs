//! Random writes checked by a model.

use super::*;

type Model = BTreeMap<String, (Bytes, Revision)>;

pub(super) async fn random_writes_match_a_model(store: &dyn Store, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let prefix = format!("/c/model{seed}/");
    let start = store.current_revision().await.expect("revision");
    let mut model = Model::new();
    let mut past: Vec<(Revision, Model)> = vec![(start, model.clone())];
    for step in 0..150 {
        let key = format!("{prefix}{}", rng.random_range(0..12));
        let fresh = value(format!("{seed}-{step}"));
        let current = model.get(&key).map(|(_, revision)| *revision);
        let stale = rng.random_bool(0.1);
        let (result, next) = match (current, rng.random_range(0..3)) {
            (Some(at), 0) => (store.delete(&key, Revision(at.0 - u64::from(stale))).await, None),
            (Some(at), _) => {
                let expected = Revision(at.0 - u64::from(stale));
                (store.update(&key, expected, fresh.clone(), None).await, Some(fresh))
            }
            (None, _) => (store.create(&key, fresh.clone(), None).await, Some(fresh)),
        };
        match (result, stale && current.is_some()) {
            (Ok(revision), false) => {
                match next {
                    Some(value) => model.insert(key, (value, revision)),
                    None => model.remove(&key),
                };
                past.push((revision, model.clone()));
            }
            (Err(StoreError::Conflict { .. }), true) => {}
            (other, _) => panic!("seed {seed} step {step}: {other:?}"),
        }
    }
    for _ in 0..20 {
        let (revision, expected) = &past[rng.random_range(0..past.len())];
        let listed: Model = keys(store, &prefix, Some(*revision))
            .await
            .into_iter()
            .map(|(key, value, revision)| (key, (value, revision)))
            .collect();
        assert_eq!(&listed, expected, "seed {seed} at {revision}");
    }
    let (begin, mut replayed) = past[rng.random_range(0..past.len() / 2)].clone();
    let mut stream = store.watch(&prefix, begin).await.expect("watch");
    for (revision, expected) in past.iter().filter(|(revision, _)| *revision > begin) {
        match next(&mut stream).await {
            StoreEvent::Put { kv, .. } => {
                assert_eq!(kv.mod_revision, *revision, "seed {seed}");
                replayed.insert(kv.key, (kv.value, kv.mod_revision));
            }
            StoreEvent::Delete { key, revision: at, previous } => {
                assert_eq!(at, *revision, "seed {seed}");
                assert_eq!(replayed.remove(&key).map(|(value, _)| value), Some(previous), "seed {seed}");
            }
            StoreEvent::Progress(_) => unreachable!("skipped by next"),
        }
        assert_eq!(&replayed, expected, "seed {seed} at {revision}");
    }
}

/// Clients that write, list, page, watch and compact at once; afterwards the history explains all they saw.
pub(super) async fn concurrent_clients_agree_with_the_history(store: &Arc<dyn Store>, seed: u64) {
    const CLIENTS: u64 = 6;
    const STEPS: usize = 40;
    let prefix: Arc<str> = format!("/c/concurrent{seed}/").into();
    let begin = store.current_revision().await.expect("revision");
    let mut history = store.watch(&prefix, begin).await.expect("watch");
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (store, prefix) = (Arc::clone(store), Arc::clone(&prefix));
        clients.spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed * 100 + client);
            let mut seen = Seen::default();
            for step in 0..STEPS {
                let key = format!("{prefix}{}", rng.random_range(0..8));
                let fresh = value(format!("{client}.{step}"));
                match rng.random_range(0..10) {
                    0 => {
                        let list = store.list(&prefix, None, 0, None).await.expect("list");
                        let items = list.items.into_iter().map(|kv| (kv.key, (kv.value, kv.mod_revision)));
                        seen.lists.push((list.revision, items.collect()));
                    }
                    1 if client == 0 => {
                        let now = store.current_revision().await.expect("revision");
                        // Far enough back for nobody to mind, and perhaps behind an earlier one.
                        let _ = store.compact(Revision(now.0.saturating_sub(400).max(1))).await;
                    }
                    choice => {
                        let there = store.get(&key).await.expect("get").0;
                        let written = match (&there, choice) {
                            (Some(kv), 2..4) => {
                                store.delete(&key, kv.mod_revision).await.map(|at| (at, None))
                            }
                            (Some(kv), _) => store
                                .update(&key, kv.mod_revision, fresh.clone(), None)
                                .await
                                .map(|at| (at, Some(fresh))),
                            (None, _) => {
                                store.create(&key, fresh.clone(), None).await.map(|at| (at, Some(fresh)))
                            }
                        };
                        match written {
                            Ok((at, value)) => seen.writes.push((at, key, value)),
                            Err(StoreError::Conflict { .. } | StoreError::Exists(_)) => {}
                            Err(other) => panic!("seed {seed}: {other:?}"),
                        }
                    }
                }
            }
            seen
        });
    }
    let seen = clients.join_all().await;
    let end = store.create(&format!("{prefix}end"), value("end"), None).await.expect("create");
    let mut writes: BTreeMap<Revision, (String, Option<Bytes>)> = BTreeMap::new();
    for (at, key, value) in seen.iter().flat_map(|s| &s.writes) {
        assert!(writes.insert(*at, (key.clone(), value.clone())).is_none(), "seed {seed}: {at} given twice");
    }
    writes.insert(end, (format!("{prefix}end"), Some(value("end"))));
    let mut states: BTreeMap<Revision, Model> = BTreeMap::from([(begin, Model::new())]);
    let mut state = Model::new();
    for (at, (key, value)) in &writes {
        let told = next(&mut history).await;
        match (&told, value) {
            (StoreEvent::Put { kv, .. }, Some(value)) => {
                assert_eq!((kv.mod_revision, &kv.key, &kv.value), (*at, key, value), "seed {seed}");
                state.insert(key.clone(), (value.clone(), *at));
            }
            (StoreEvent::Delete { key: gone, revision, previous }, None) => {
                let last = state.remove(key).map(|(value, _)| value);
                assert_eq!((*revision, gone, Some(previous)), (*at, key, last.as_ref()), "seed {seed}");
            }
            other => panic!("seed {seed} at {at}: {other:?}"),
        }
        states.insert(*at, state.clone());
    }
    for (at, listed) in seen.into_iter().flat_map(|s| s.lists) {
        let (_, expected) = states.range(..=at).next_back().expect("nothing is before the beginning");
        assert_eq!(&listed, expected, "seed {seed}: a list at {at} is that revision's state");
    }
}

/// What one client was told.
#[derive(Default)]
struct Seen {
    writes: Vec<(Revision, String, Option<Bytes>)>,
    lists: Vec<(Revision, Model)>,
}
