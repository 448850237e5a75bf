//! Random histories, one after another, against a plain map.

use super::*;

#[tokio::test(start_paused = true)]
async fn random_histories_agree_with_a_model() {
    for seed in 1..=5u64 {
        let lab = lab().await;
        let mut rng = StdRng::seed_from_u64(seed);
        let start = lab.cacher.list(ListQuery::default()).await.expect("list").revision;
        let selection =
            Selection { labels: Selector::parse("app=x").expect("selector"), ..Selection::default() };
        let query = WatchQuery { selection: selection.clone(), ..after(start) };
        let mut watch = lab.cacher.watch(query).await.expect("watch");
        // name -> revision, of what the selection shows.
        let mut model: BTreeMap<String, Revision> = BTreeMap::new();
        let mut past = vec![(start, model.clone())];
        for step in 0..200 {
            let name = format!("p{}", rng.random_range(0..8));
            let exists = lab.cacher.get("ns", &name, None).await.is_ok();
            let revision = if exists && rng.random_bool(0.3) {
                model.remove(&name);
                lab.remove(&name).await.revision
            } else {
                let app = if rng.random_bool(0.5) { "x" } else { "y" };
                let mut tree = pod(&name, app, "");
                tree["spec"]["step"] = step.into();
                let revision = lab.put(tree).await.revision;
                if app == "x" {
                    model.insert(name, revision)
                } else {
                    model.remove(&name)
                };
                revision
            };
            past.push((revision, model.clone()));
        }
        let mut seen: BTreeMap<String, Revision> = BTreeMap::new();
        let mut told = start;
        for (revision, expected) in &past {
            while told < *revision && seen != *expected {
                let event = watch.recv().await.expect("open");
                match &event {
                    WatchEvent::Added(o) => {
                        assert!(seen.insert(o.name.clone(), o.revision).is_none(), "seed {seed}: {event:?}");
                        told = o.revision;
                    }
                    WatchEvent::Modified(o) => {
                        assert!(seen.insert(o.name.clone(), o.revision).is_some(), "seed {seed}: {event:?}");
                        told = o.revision;
                    }
                    WatchEvent::Deleted(o) => {
                        assert!(seen.remove(&o.name).is_some(), "seed {seed}: {event:?}");
                        told = o.revision;
                    }
                    other => panic!("seed {seed}: {other:?}"),
                }
                assert!(told <= *revision, "seed {seed}: told {told} before {revision}");
            }
            assert_eq!(&seen, expected, "seed {seed} at {revision}");
        }
        for _ in 0..20 {
            let (revision, expected) = &past[rng.random_range(0..past.len())];
            let query = ListQuery {
                selection: selection.clone(),
                resource_version: Some(*revision),
                version_match: Some(VersionMatch::Exact),
                ..ListQuery::default()
            };
            let page = lab.cacher.list(query).await.expect("list");
            let listed: BTreeMap<String, Revision> =
                page.items.iter().map(|o| (o.name.clone(), o.revision)).collect();
            assert_eq!((page.revision, &listed), (*revision, expected), "seed {seed}");
        }
        lab.tasks.stop_token().cancel();
    }
}
