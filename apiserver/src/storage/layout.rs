//! Where each resource is kept, against where upstream keeps it.

use std::collections::BTreeMap;

use crate::resources::rows::{Storage, rows};

/// Paths that are not the plural (`SpecialDefaultResourcePrefixes` in `default_storage_factory_builder.go`).
const SPECIAL: [(&str, &str, &str); 5] = [
    ("", "replicationcontrollers", "controllers"),
    ("", "endpoints", "services/endpoints"),
    ("", "nodes", "minions"),
    ("", "services", "services/specs"),
    ("networking.k8s.io", "ingresses", "ingress"),
];
/// Groups of servers that are built in beside the core one: theirs have the group before the plural
/// (`SimpleRestOptionsFactory`).
const QUALIFIED: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

#[test]
fn every_resource_is_kept_where_upstream_keeps_it() {
    let mut paths = BTreeMap::new();
    for row in rows() {
        let Storage::Own(path) = row.storage else { continue };
        let special =
            SPECIAL.iter().find(|(group, resource, _)| (*group, *resource) == (row.group, row.resource));
        let expected = match special {
            Some((.., path)) => (*path).to_owned(),
            None if QUALIFIED.contains(&row.group) => format!("{}/{}", row.group, row.resource),
            None => row.resource.to_owned(),
        };
        assert_eq!(path, expected, "{} {}", row.group, row.resource);
        let other = paths.insert(path, row.group);
        assert_eq!(other, None, "{path} is used twice");
    }
    assert!(paths.len() > 40, "{paths:?}");
    // No resource's keys look like another's.
    for path in paths.keys() {
        let inside = paths.keys().find(|other| other.starts_with(&format!("{path}/")));
        assert_eq!(inside, None);
    }
}
