//! The rows against upstream's own list of resources.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Row, Storage, rows};

/// Upstream's discovery, reduced: group and version to resources.
const UPSTREAM: &str = include_str!("../data/resources.json");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Upstream {
    kind: String,
    name: String,
    namespaced: bool,
    singular_name: String,
    verbs: Vec<String>,
    short_names: Vec<String>,
    categories: Vec<String>,
    group: String,
    version: String,
}

fn upstream() -> BTreeMap<String, Vec<Upstream>> {
    serde_json::from_str(UPSTREAM).expect("well formed")
}

fn find<'a>(all: &'a BTreeMap<String, Vec<Upstream>>, row: &Row, name: &str) -> &'a Upstream {
    let version = super::super::api_version(row.group, row.version);
    all.get(&version)
        .and_then(|list| list.iter().find(|r| r.name == name))
        .unwrap_or_else(|| panic!("upstream has no {name} in {version}"))
}

#[test]
fn every_row_is_as_upstream_has_it() {
    let all = upstream();
    for row in rows() {
        let theirs = find(&all, row, row.resource);
        let what = format!("{}/{} {}", row.group, row.version, row.resource);
        assert_eq!(row.kind, theirs.kind, "{what}");
        assert_eq!(row.singular, theirs.singular_name, "{what}");
        assert_eq!(row.namespaced, theirs.namespaced, "{what}");
        assert_eq!(row.verbs, theirs.verbs, "{what}");
        assert_eq!(row.short_names, theirs.short_names, "{what}");
        assert_eq!(row.categories, theirs.categories, "{what}");
        for sub in row.subresources {
            let theirs = find(&all, row, &format!("{}/{}", row.resource, sub.name));
            let what = format!("{what}/{}", sub.name);
            assert_eq!(if sub.kind.is_empty() { row.kind } else { sub.kind }, theirs.kind, "{what}");
            assert_eq!(sub.verbs, theirs.verbs, "{what}");
            let other = sub.group_version.unwrap_or(("", ""));
            assert_eq!(other, (theirs.group.as_str(), theirs.version.as_str()), "{what}");
        }
    }
}

#[test]
fn every_resource_of_upstream_has_a_row() {
    for (version, list) in upstream() {
        for theirs in list.iter().filter(|r| !r.name.contains('/')) {
            let row = rows().iter().find(|row| {
                super::super::api_version(row.group, row.version) == version && row.resource == theirs.name
            });
            assert!(row.is_some(), "{version} {}", theirs.name);
        }
    }
}

#[test]
fn every_subresource_of_a_served_resource_is_there() {
    for (version, list) in upstream() {
        for theirs in list {
            let Some((resource, sub)) = theirs.name.split_once('/') else { continue };
            let row = rows().iter().find(|row| {
                super::super::api_version(row.group, row.version) == version && row.resource == resource
            });
            if let Some(row) = row {
                assert!(row.subresources.iter().any(|s| s.name == sub), "{version} {}", theirs.name);
            }
        }
    }
}

#[test]
fn stored_rows_have_places_of_their_own() {
    let mut seen = Vec::new();
    for row in rows() {
        match row.storage {
            Storage::Own(prefix) => {
                assert!(!seen.contains(&prefix), "{prefix} twice");
                seen.push(prefix);
            }
            Storage::As { group, version, resource, .. } => {
                let target =
                    rows().iter().find(|r| (r.group, r.version, r.resource) == (group, version, resource));
                assert!(
                    target.is_some_and(|r| matches!(r.storage, Storage::Own(_))),
                    "{resource} is stored as something that is not stored"
                );
            }
            Storage::None => {
                assert!(row.verbs == ["create"] || row.resource == "componentstatuses", "{}", row.resource)
            }
        }
    }
}
