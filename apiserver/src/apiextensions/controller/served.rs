//! From definitions to rows of the table.
//!
//! A definition whose spec and names stayed keeps its store and with it its watches; any other change makes a new
//! store and ends the old one's watches, as a client's reflector expects of a kind that changed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use common::shutdown::Tasks;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Controller, conditions};
use crate::apiextensions::definition::{compare_versions, says, storage_version, versions_of};
use crate::apiextensions::kind::{CustomKind, SLOTS, Versions};
use crate::apiextensions::paths;
use crate::apiextensions::scale::CustomScale;
use crate::apiextensions::store::LazyStore;
use crate::apiextensions::strategy::{CustomStrategy, ScalePaths};
use crate::cacher::{CacheMetrics, CachedObject, CacherConfig, ObjectStore};
use crate::object::Object;
use crate::registry::tree::{at, field, flag, has, items, strings, text};
use crate::resources::schema::Schema;
use crate::resources::{Converter, GroupResource, ResourceDef, SubresourceDef, SubresourceHandler, Table};
use crate::storage::Store;

const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const VERBS_TERMINATING: &[&str] = &["delete", "deletecollection", "get", "list", "watch"];

/// The definitions that are served.
pub(super) struct Served {
    store: Arc<dyn Store>,
    prefix: String,
    schema: Arc<Schema>,
    metrics: Arc<CacheMetrics>,
    tasks: Tasks,
    by_name: BTreeMap<String, Entry>,
    /// Whether the rows are others than the table was last told.
    changed: bool,
}

struct Entry {
    uid: String,
    /// What a change of makes a new store.
    identity: Identity,
    terminating: bool,
    versions: Arc<Versions>,
    lazy: Arc<LazyStore>,
    defs: Vec<Arc<ResourceDef>>,
}

impl Served {
    pub(super) fn new(controller: &Controller) -> Self {
        Self {
            store: controller.store.clone(),
            prefix: controller.prefix.clone(),
            schema: controller.schema.clone(),
            metrics: controller.metrics.clone(),
            tasks: controller.tasks.clone(),
            by_name: BTreeMap::new(),
            changed: false,
        }
    }

    /// The store of a definition's instances.
    pub(super) fn store(&self, name: &str) -> Option<Arc<dyn ObjectStore>> {
        self.by_name.get(name).map(|entry| entry.lazy.clone() as Arc<dyn ObjectStore>)
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(entry) = self.by_name.remove(name) {
            entry.lazy.stop();
            self.changed = true;
        }
    }

    /// Whether the rows changed since this was asked last.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Holds the definition's newest bytes instead of older ones, which say the same of what is served.
    pub(super) fn refresh(&self, name: &str, object: &CachedObject) {
        if let Some(entry) = self.by_name.get(name).filter(|entry| entry.uid == object.uid) {
            entry.versions.refresh(object.bytes.clone());
        }
    }

    /// Takes in a definition as it is now.
    pub(super) fn put(&mut self, name: &str, object: &Arc<CachedObject>, crd: &Object) {
        if !conditions::is_served(crd) {
            self.remove(name);
            return;
        }
        let terminating = says(crd, "Terminating");
        let identity = identity(crd);
        if let Some(entry) = self.by_name.get_mut(name) {
            if entry.uid == object.uid && entry.identity == identity {
                entry.versions.refresh(object.bytes.clone());
                if entry.terminating != terminating {
                    entry.terminating = terminating;
                    entry.defs = definitions(crd, &entry.versions, &entry.lazy, terminating);
                    self.changed = true;
                }
                return;
            }
            entry.lazy.stop();
        }
        let Some(storage) = storage_version(crd).map(str::to_owned) else { return };
        let names = at(crd, &["status", "acceptedNames"]);
        let (group, plural) = (text(field(crd, "spec"), "group"), text(names, "plural"));
        let versions = Versions::new(group, &storage, object.bytes.clone(), self.schema.clone());
        let versions = Arc::new(versions.with_selectable(selectable(crd)));
        let config = CacherConfig {
            store: self.store.clone(),
            prefix: format!("{}/{group}/{plural}/", self.prefix),
            group: group.to_owned(),
            resource: plural.to_owned(),
            kind: text(names, "kind").to_owned(),
            namespaced: text(field(crd, "spec"), "scope") == "Namespaced",
            selectable_fields: |_| Vec::new(),
            selectable_field_names: &SLOTS[..versions.selectable_count()],
            custom: Some(versions.clone()),
            metrics: self.metrics.clone(),
        };
        let lazy = Arc::new(LazyStore::new(config, self.tasks.clone()));
        let defs = definitions(crd, &versions, &lazy, terminating);
        self.changed = true;
        let entry = Entry { uid: object.uid.clone(), identity, terminating, versions, lazy, defs };
        self.by_name.insert(name.to_owned(), entry);
    }

    /// The rows, in discovery order. A built-in resource of the same name goes first.
    pub(super) fn definitions(&self, table: &Table) -> Vec<Arc<ResourceDef>> {
        let mut out: Vec<Arc<ResourceDef>> = self
            .by_name
            .values()
            .flat_map(|entry| entry.defs.iter())
            .filter(|def| {
                table.get(&def.group, &def.version, &def.resource).is_none_or(|found| found.custom.is_some())
            })
            .cloned()
            .collect();
        out.sort_by(|a, b| {
            a.group
                .cmp(&b.group)
                .then_with(|| compare_versions(&b.version, &a.version))
                .then_with(|| a.resource.cmp(&b.resource))
        });
        out
    }
}

/// A digest of spec and accepted names: their trees are large.
type Identity = [u8; 32];

fn identity(crd: &Object) -> Identity {
    let mut hash = Sha256::new();
    for part in [field(crd, "spec"), at(crd, &["status", "acceptedNames"])] {
        serde_json::to_writer(&mut hash, part).expect("a hash takes every write");
    }
    hash.finalize().into()
}

/// The paths of all versions' selectable fields, each once.
fn selectable(crd: &Object) -> Vec<Vec<String>> {
    let mut out: Vec<Vec<String>> = Vec::new();
    for version in versions_of(crd) {
        for entry in items(version, "selectableFields") {
            if let Ok(steps) = paths::steps(text(entry, "jsonPath"))
                && !out.contains(&steps)
            {
                out.push(steps);
            }
        }
    }
    out
}

fn definitions(
    crd: &Object,
    versions: &Arc<Versions>,
    lazy: &Arc<LazyStore>,
    terminating: bool,
) -> Vec<Arc<ResourceDef>> {
    let served = versions_of(crd).iter().filter(|v| flag(v, "served"));
    served.map(|version| Arc::new(definition(crd, version, versions, lazy, terminating))).collect()
}

fn definition(
    crd: &Object,
    version: &Value,
    versions: &Arc<Versions>,
    lazy: &Arc<LazyStore>,
    terminating: bool,
) -> ResourceDef {
    let spec = field(crd, "spec");
    let names = at(crd, &["status", "acceptedNames"]);
    let (group, name) = (text(spec, "group"), text(version, "name"));
    let (resource, kind_name) = (text(names, "plural"), text(names, "kind"));
    let owned = |key: &str| strings(names, key).into_iter().map(str::to_owned).collect();
    let mut kind = CustomKind::new(versions.clone(), name, kind_name, lazy.clone());
    kind.terminating = terminating;
    let kind = Arc::new(kind);
    let subresources = field(version, "subresources");
    let has_status = has(subresources, "status");
    let scale = has(subresources, "scale").then(|| scale_paths(field(subresources, "scale")));
    let strategy = || CustomStrategy::new(kind.clone(), has_status, scale.clone());
    let view = |name: &str, handler: SubresourceHandler, scale: bool| SubresourceDef {
        name: name.to_owned(),
        kind: if scale { "Scale" } else { kind_name }.to_owned(),
        group: if scale { "autoscaling" } else { group }.to_owned(),
        version: if scale { "v1" } else { text(version, "name") }.to_owned(),
        verbs: ["get", "patch", "update"].map(str::to_owned).to_vec(),
        handler,
    };
    let mut subs = Vec::new();
    if has_status {
        let status = CustomStrategy::status(kind.clone(), scale.clone());
        subs.push(view("status", SubresourceHandler::Object(Arc::new(status)), false));
    }
    if let Some(paths) = &scale {
        let handler = CustomScale::new(kind.clone(), paths.clone(), strategy(), group, resource);
        subs.push(view("scale", SubresourceHandler::Custom(Arc::new(handler)), true));
    }
    let aliases = items(version, "selectableFields").iter().filter_map(|entry| {
        let path = text(entry, "jsonPath");
        let slot = versions.slot(&paths::steps(path).ok()?)?;
        Some((Cow::Owned(path.trim_start_matches('.').to_owned()), slot))
    });
    let verbs = if terminating { VERBS_TERMINATING } else { VERBS };
    ResourceDef {
        group: group.to_owned(),
        version: name.to_owned(),
        kind: kind_name.to_owned(),
        list_kind: text(names, "listKind").to_owned(),
        resource: resource.to_owned(),
        singular: text(names, "singular").to_owned(),
        short_names: owned("shortNames"),
        categories: owned("categories"),
        namespaced: text(spec, "scope") == "Namespaced",
        verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
        subresources: subs,
        schema: String::new(),
        stored_as: GroupResource::new(group, resource),
        stored_version: versions.storage_version.clone(),
        storage_prefix: format!("{group}/{resource}"),
        conversion: (name != versions.storage_version).then(|| Converter::Custom(kind.clone())),
        selectable_fields: |_| Vec::new(),
        selectable_field_names: &SLOTS[..versions.selectable_count()],
        field_aliases: aliases.collect(),
        strategy: Arc::new(strategy()),
        returns_deleted: false,
        handler: None,
        deprecation: flag(version, "deprecated").then(|| deprecation(crd, version)),
        custom: Some(kind),
    }
}

fn scale_paths(scale: &Value) -> ScalePaths {
    ScalePaths {
        spec_replicas: text(scale, "specReplicasPath").to_owned(),
        status_replicas: text(scale, "statusReplicasPath").to_owned(),
        selector: Some(text(scale, "labelSelectorPath")).filter(|p| !p.is_empty()).map(str::to_owned),
    }
}

/// What is told to users of a deprecated version.
fn deprecation(crd: &Object, version: &Value) -> String {
    if let Some(said) = field(version, "deprecationWarning").as_str() {
        return said.to_owned();
    }
    let (group, kind) = (at(crd, &["spec", "group"]), at(crd, &["spec", "names", "kind"]));
    let (group, kind) = (group.as_str().unwrap_or(""), kind.as_str().unwrap_or(""));
    let name = text(version, "name");
    let newer = versions_of(crd)
        .iter()
        .filter(|v| flag(v, "served") && !flag(v, "deprecated"))
        .map(|v| text(v, "name"))
        .filter(|other| compare_versions(name, other).is_lt())
        .max_by(|a, b| compare_versions(a, b));
    let instead = newer.map_or_else(String::new, |newer| format!("; use {group}/{newer} {kind}"));
    format!("{group}/{name} {kind} is deprecated{instead}")
}
