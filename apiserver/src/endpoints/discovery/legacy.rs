//! `APIVersions`, `APIGroupList`, `APIGroup` and `APIResourceList`.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::groups_of;
use crate::resources::{ResourceDef, SubresourceDef, Table, api_version};

/// Every legacy document by its path.
pub(super) fn documents(table: &Table) -> HashMap<String, Bytes> {
    let mut out = HashMap::new();
    let mut put = |path: String, document: Value| {
        out.insert(path, Bytes::from(document.to_string()));
    };
    put("/api".to_owned(), versions());
    put("/api/v1".to_owned(), resources(table, "", "v1"));
    let mut groups = Vec::new();
    for (group, versions) in groups_of(table) {
        for version in &versions {
            put(format!("/apis/{group}/{version}"), resources(table, group, version));
        }
        let document = api_group(group, &versions);
        let mut alone = Map::new();
        alone.insert("kind".to_owned(), json!("APIGroup"));
        alone.insert("apiVersion".to_owned(), json!("v1"));
        alone.extend(document.clone());
        put(format!("/apis/{group}"), Value::Object(alone));
        groups.push(Value::Object(document));
    }
    put("/apis".to_owned(), json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}));
    out
}

fn versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]})
}

fn api_group(group: &str, versions: &[&str]) -> Map<String, Value> {
    let version = |v: &str| json!({"groupVersion": api_version(group, v), "version": v});
    let mut out = Map::new();
    out.insert("name".to_owned(), json!(group));
    out.insert("versions".to_owned(), versions.iter().map(|v| version(v)).collect());
    out.insert("preferredVersion".to_owned(), version(versions[0]));
    out
}

fn resources(table: &Table, group: &str, version: &str) -> Value {
    let mut list: Vec<(String, Value)> = Vec::new();
    for def in table.iter().filter(|d| d.group == group && d.version == version) {
        list.push((def.resource.clone(), resource(def)));
        for sub in &def.subresources {
            list.push((format!("{}/{}", def.resource, sub.name), subresource(def, sub)));
        }
    }
    list.sort_by(|a, b| a.0.cmp(&b.0));
    let list: Vec<Value> = list.into_iter().map(|(_, v)| v).collect();
    let mut out =
        json!({"kind": "APIResourceList", "groupVersion": api_version(group, version), "resources": list});
    if !group.is_empty() {
        out["apiVersion"] = json!("v1");
    }
    out
}

fn resource(def: &ResourceDef) -> Value {
    let mut out = json!({"name": def.resource, "singularName": def.singular, "namespaced": def.namespaced,
        "kind": def.kind, "verbs": def.verbs});
    if !def.short_names.is_empty() {
        out["shortNames"] = json!(def.short_names);
    }
    if !def.categories.is_empty() {
        out["categories"] = json!(def.categories);
    }
    if def.handler.is_none() {
        out["storageVersionHash"] = json!(storage_version_hash(def));
    }
    out
}

/// `StorageVersionHash` upstream: the first eight bytes of a hash of group, version and kind as stored.
fn storage_version_hash(def: &ResourceDef) -> String {
    let identity = format!("{}/{}/{}", def.stored_as.group, def.stored_version, def.kind);
    STANDARD.encode(&Sha256::digest(identity.as_bytes())[..8])
}

fn subresource(def: &ResourceDef, sub: &SubresourceDef) -> Value {
    let mut out = json!({"name": format!("{}/{}", def.resource, sub.name), "singularName": "",
        "namespaced": def.namespaced, "kind": sub.kind, "verbs": sub.verbs});
    if (&sub.group, &sub.version) != (&def.group, &def.version) {
        out["group"] = json!(sub.group);
        out["version"] = json!(sub.version);
    }
    out
}
