//! `APIGroupDiscoveryList` (apidiscovery.k8s.io/v2): every group with its versions and resources at once.

use serde_json::{Value, json};

use super::groups_of;
use crate::resources::{ResourceDef, Table};

/// The document of `/api`.
pub(super) fn core(table: &Table) -> Value {
    list(vec![group(table, "", &["v1"])])
}

/// The document of `/apis`.
pub(super) fn groups(table: &Table) -> Value {
    list(groups_of(table).into_iter().map(|(name, versions)| group(table, name, &versions)).collect())
}

fn list(items: Vec<Value>) -> Value {
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn group(table: &Table, name: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions.iter().map(|v| version(table, name, v)).collect();
    let metadata = if name.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": name, "creationTimestamp": null})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn version(table: &Table, group: &str, version: &str) -> Value {
    let mut defs: Vec<_> = table.iter().filter(|d| d.group == group && d.version == version).collect();
    defs.sort_by(|a, b| a.resource.cmp(&b.resource));
    let resources: Vec<Value> = defs.into_iter().map(|def| resource(def)).collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn resource(def: &ResourceDef) -> Value {
    let mut out = json!({
        "resource": def.resource,
        "responseKind": kind(&def.group, &def.version, &def.kind),
        "scope": if def.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": def.singular,
        "verbs": def.verbs,
    });
    if !def.short_names.is_empty() {
        out["shortNames"] = json!(def.short_names);
    }
    if !def.categories.is_empty() {
        out["categories"] = json!(def.categories);
    }
    if !def.subresources.is_empty() {
        out["subresources"] = def
            .subresources
            .iter()
            .map(|sub| {
                json!({"subresource": sub.name, "responseKind": kind(&sub.group, &sub.version, &sub.kind),
                    "verbs": sub.verbs})
            })
            .collect();
    }
    out
}

fn kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}
