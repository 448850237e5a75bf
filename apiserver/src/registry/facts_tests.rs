//! Every kind against upstream's fully populated objects: what a client writes it reads again, in JSON and in
//! protobuf, in every version. Their defaults are looked at in `defaults_tests`.

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine;
use serde_json::Value;

use super::rules::{KindStrategy, StatusRule};
use super::table;
use crate::endpoints::typed;
use crate::protobuf;
use crate::resources::rows::{Row, Storage};
use crate::resources::schema::{Schema, type_name};
use crate::resources::{Strategy, api_version, rows};

const OBJECTS: &[u8] = include_bytes!("data/objects.json.gz");

#[derive(serde::Deserialize)]
struct Populated {
    json: Value,
    pb: String,
}

fn objects() -> BTreeMap<String, Populated> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(OBJECTS).read_to_string(&mut text).expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

/// The populated objects that are resources, with their rows and in their stored form.
pub(super) fn stored() -> Vec<(String, &'static Row, Value)> {
    objects()
        .into_iter()
        .filter_map(|(name, object)| {
            let row = rows().iter().find(|row| {
                object.json["kind"] == row.kind
                    && object.json["apiVersion"] == api_version(row.group, row.version)
                    && row.stored_at().is_some()
            })?;
            let stored = match row.storage {
                Storage::As { conversion, .. } => (conversion.to_stored)(object.json),
                _ => object.json,
            };
            Some((name, row, stored))
        })
        .collect()
}

/// What `before` has that `after` lacks or has otherwise.
fn lost(before: &Value, after: &Value, path: &str, out: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                match b.get(key) {
                    Some(other) => lost(value, other, &format!("{path}/{key}"), out),
                    None => out.push(format!("{path}/{key} is gone")),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                lost(x, y, &format!("{path}/{i}"), out);
            }
        }
        _ if before == after => {}
        _ => out.push(format!("{path} was {before}, is {after}")),
    }
}

#[test]
fn every_object_is_read_and_written_in_protobuf() {
    let messages = protobuf::Table::builtin();
    let mut wrong = Vec::new();
    for (name, object) in objects() {
        // What the server sends to webhooks, as JSON, and bodies that are no objects of their own.
        if name.starts_with("admission.k8s.io.")
            || name.ends_with(".APIGroupDiscovery")
            || name.starts_with("imagepolicy.k8s.io.")
            || matches!(name.as_str(), "core.v1.WatchEvent" | "core.v1.RangeAllocation")
        {
            continue;
        }
        let body = base64::engine::general_purpose::STANDARD.decode(&object.pb).expect("base64");
        let Ok(read) = protobuf::decode(&messages, &body, None) else {
            wrong.push(format!("{name} is not read"));
            continue;
        };
        let mut missing = Vec::new();
        lost(&object.json, &read, "", &mut missing);
        wrong.extend(missing.into_iter().map(|what| format!("{name}: {what}")));
        match protobuf::encode(&messages, &object.json) {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(written) => {
                let again = protobuf::decode(&messages, &written, None).expect("own bytes");
                assert_eq!(again, read, "{name}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_field_of_every_kind_is_known() {
    let schema = Schema::builtin();
    let mut wrong = Vec::new();
    for (name, object) in objects() {
        let Some(row) = rows().iter().find(|row| {
            object.json["kind"] == row.kind
                && object.json["apiVersion"] == api_version(row.group, row.version)
        }) else {
            continue;
        };
        let id = schema.id(&type_name(row.group, row.version, row.kind));
        let id = id.unwrap_or_else(|| panic!("{name} has no type"));
        let mut read = object.json.clone();
        match typed::check(&schema, id, &mut read) {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(unknown) => wrong.extend(unknown.into_iter().map(|what| format!("{name}: unknown {what}"))),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_version_keeps_what_it_is_given() {
    let mut wrong = Vec::new();
    for (name, row, stored) in stored() {
        let Storage::As { conversion, .. } = row.storage else { continue };
        let object = &objects()[&name].json;
        let mut gone = Vec::new();
        lost(object, &(conversion.from_stored)(stored), "", &mut gone);
        // What v1 autoscalers and old events say twice comes back once.
        gone.retain(|what| !what.contains("autoscaling.alpha") && !what.contains("/metadata/annotations"));
        wrong.extend(gone.into_iter().map(|what| format!("{name}: {what}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What strategies take away or set on create, beside status and generation.
const CHANGED: &[(&str, &[&str])] = &[
    // Merged into the data.
    ("secrets", &["/stringData"]),
    // Sources of a claim that say the same.
    ("persistentvolumeclaims", &["/spec/dataSource"]),
    ("namespaces", &["/spec/finalizers"]),
    ("certificatesigningrequests", &["/spec"]),
    ("daemonsets", &["/metadata/annotations"]),
];

#[test]
fn every_field_survives_create_where_the_strategy_permits() {
    let mut wrong = Vec::new();
    for (name, row, object) in stored() {
        let (group, _, resource) = row.stored_at().expect("stored");
        let rules = table::rules(group, resource);
        let strategy = KindStrategy::new(rules);
        let mut created = object.clone();
        strategy.default(&mut created);
        strategy.prepare_for_create(&mut created);
        let mut gone = Vec::new();
        lost(&object, &created, "", &mut gone);
        let changed =
            CHANGED.iter().filter(|(r, _)| *r == resource || *r == "*").flat_map(|(_, paths)| *paths);
        let changed: Vec<&str> = changed.copied().collect();
        gone.retain(|what| {
            let status =
                rules.status == StatusRule::Split || matches!(resource, "pods" | "namespaces" | "jobs");
            let permitted = (status && what.starts_with("/status"))
                || what.starts_with("/metadata/generation")
                || changed.iter().any(|path| what.starts_with(path))
                // The old name of the account's name.
                || what.contains("/spec/serviceAccount was");
            !permitted
        });
        wrong.extend(gone.into_iter().map(|what| format!("{name}: {what}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
