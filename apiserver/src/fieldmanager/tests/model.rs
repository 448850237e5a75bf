//! Many random applies and updates against a model of what they mean.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const STEPS: usize = 400;
const MANAGERS: usize = 4;
const KEYS: usize = 6;
const VALUES: usize = 3;

/// A value and who owns it.
type Model = BTreeMap<String, (String, BTreeSet<String>)>;

fn random(rng: &mut StdRng) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for key in 0..KEYS {
        if rng.random_bool(0.4) {
            out.insert(format!("k{key}"), rng.random_range(0..VALUES).to_string());
        }
    }
    out
}

fn apply(model: &mut Model, manager: &str, config: &BTreeMap<String, String>, force: bool) -> bool {
    let taken = |(key, value): (&String, &String)| {
        model.get(key).is_some_and(|(there, owners)| there != value && owners.iter().any(|o| o != manager))
    };
    if !force && config.iter().any(taken) {
        return false;
    }
    for (key, value) in config {
        let (there, owners) = model.entry(key.clone()).or_default();
        if there != value {
            there.clone_from(value);
            owners.clear();
        }
        owners.insert(manager.to_owned());
    }
    model.retain(|key, (_, owners)| {
        let dropped = !config.contains_key(key) && owners.remove(manager);
        !(dropped && owners.is_empty())
    });
    true
}

/// The owners of every key as the entries say.
fn owners(object: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let manager = entry["manager"].as_str().expect("a name");
        for key in entry["fieldsV1"]["f:data"].as_object().into_iter().flat_map(|map| map.keys()) {
            if let Some(key) = key.strip_prefix("f:") {
                out.entry(key.to_owned()).or_default().insert(manager.to_owned());
            }
        }
    }
    out
}

#[test]
fn applies_do_what_the_model_says() {
    let kinds = Kinds::new();
    for seed in 0..4 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut model = Model::new();
        let mut live: Option<Value> = None;
        for step in 0..STEPS {
            let manager = format!("m{}", rng.random_range(0..MANAGERS));
            let config = random(&mut rng);
            let force = rng.random_bool(0.5);
            let mut patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
            if !config.is_empty() {
                patch["data"] = json!(config);
            }
            let result = kinds.with(("v1", "configmaps", ""), &[], |f| {
                f.apply(live.as_ref(), &patch, &manager, force, EARLY)
            });
            let applies = apply(&mut model, &manager, &config, force);
            assert_eq!(result.is_ok(), applies, "seed {seed}, step {step}");
            if let Ok(Applied::New(object) | Applied::Unchanged(object)) = result {
                live = Some(object);
            }
            let Some(object) = &live else { continue };
            let data: BTreeMap<String, String> =
                model.iter().map(|(k, (v, _))| (k.clone(), v.clone())).collect();
            let there: BTreeMap<String, String> =
                serde_json::from_value(object["data"].clone()).unwrap_or_default();
            assert_eq!(there, data, "seed {seed}, step {step}");
            let owned: BTreeMap<String, BTreeSet<String>> = model
                .iter()
                .filter(|(_, (_, owners))| !owners.is_empty())
                .map(|(k, (_, owners))| (k.clone(), owners.clone()))
                .collect();
            assert_eq!(owners(object), owned, "seed {seed}, step {step}");
        }
    }
}
