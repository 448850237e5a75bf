//! The table at run time: rows joined with strategies and custom handlers.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::rows::{Row, Storage, SubresourceRow, rows};
use super::{
    Converter, Enablement, GroupResource, ResourceDef, Strategy, Subresource, SubresourceDef,
    SubresourceHandler,
};

/// Custom handlers by what they serve: `("", "pods/binding")`, and for a kind that is not stored the resource
/// itself: `("authentication.k8s.io", "tokenreviews")`.
pub type CustomHandlers = HashMap<GroupResource, Arc<dyn Subresource>>;

/// What is served. A subresource or review whose handler is missing is not in the table: it is neither routed
/// nor discoverable.
pub struct Table {
    defs: Vec<Arc<ResourceDef>>,
    by_group: HashMap<String, HashMap<String, HashMap<String, Arc<ResourceDef>>>>,
    unserved: Vec<String>,
}

impl Table {
    /// Joins the rows. `strategy` is asked once per stored resource and group that serves it, `("apps",
    /// "deployments")`, and once per subresource that is a view of its object, `("apps", "deployments/status")`.
    ///
    /// Rows that `enablement` does not serve are left out.
    pub fn new(
        strategy: &dyn Fn(&str, &str) -> Arc<dyn Strategy>,
        mut handlers: CustomHandlers,
        enablement: &Enablement,
    ) -> Self {
        let mut unserved = Vec::new();
        let mut strategies: BTreeMap<(String, String), Arc<dyn Strategy>> = BTreeMap::new();
        let mut ask = |group: &str, name: &str| {
            strategies
                .entry((group.to_owned(), name.to_owned()))
                .or_insert_with(|| strategy(group, name))
                .clone()
        };
        let mut defs = Vec::with_capacity(rows().len());
        for row in rows().iter().filter(|row| enablement.serves(row)) {
            let handler = match row.storage {
                Storage::None => {
                    let Some(handler) = handlers.remove(&GroupResource::new(row.group, row.resource)) else {
                        unserved.push(common::status::qualified(row.group, row.resource));
                        continue;
                    };
                    Some(handler)
                }
                Storage::Own(_) | Storage::As { .. } => None,
            };
            let mut subresources = Vec::with_capacity(row.subresources.len());
            for sub in row.subresources {
                let name = format!("{}/{}", row.resource, sub.name);
                let (stored_group, stored_resource) = stored_group_resource(row);
                let served = if sub.view {
                    SubresourceHandler::Object(ask(stored_group, &format!("{stored_resource}/{}", sub.name)))
                } else if let Some(handler) = handlers.remove(&GroupResource::new(row.group, &name)) {
                    SubresourceHandler::Custom(handler)
                } else {
                    unserved.push(common::status::qualified(row.group, &name));
                    continue;
                };
                subresources.push(subresource(row, sub, served));
            }
            let strategy: Arc<dyn Strategy> = match row.storage {
                Storage::None => Arc::new(NoRules),
                Storage::Own(_) | Storage::As { .. } => {
                    let (_, resource) = stored_group_resource(row);
                    ask(row.group, resource)
                }
            };
            defs.push(Arc::new(definition(row, subresources, strategy, handler)));
        }
        Self::from_defs(defs, unserved)
    }

    fn from_defs(defs: Vec<Arc<ResourceDef>>, unserved: Vec<String>) -> Self {
        let mut by_group: HashMap<String, HashMap<String, HashMap<String, Arc<ResourceDef>>>> =
            HashMap::new();
        for def in &defs {
            by_group
                .entry(def.group.clone())
                .or_default()
                .entry(def.version.clone())
                .or_default()
                .insert(def.resource.clone(), def.clone());
        }
        Self { defs, by_group, unserved }
    }

    /// The definition of one served version.
    pub fn get(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<ResourceDef>> {
        self.by_group.get(group)?.get(version)?.get(resource)
    }

    /// Everything served, in discovery order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.defs.iter()
    }

    pub fn has_group_version(&self, group: &str, version: &str) -> bool {
        self.by_group.get(group).is_some_and(|versions| versions.contains_key(version))
    }

    /// The built-in rows with these custom resources behind them.
    pub fn with_custom(&self, custom: impl IntoIterator<Item = Arc<ResourceDef>>) -> Self {
        let builtin = self.defs.iter().filter(|def| def.custom.is_none()).cloned();
        Self::from_defs(builtin.chain(custom).collect(), self.unserved.clone())
    }

    /// Rows and subresources that are not served for want of a handler: `nodes/proxy`.
    pub fn unserved(&self) -> &[String] {
        &self.unserved
    }
}

/// The table as it is now. A reader takes one snapshot per request; the custom resources of a new one come from
/// the CustomResourceDefinitions.
pub struct Tables(ArcSwap<Table>);

impl Tables {
    pub fn new(table: Table) -> Self {
        Self(ArcSwap::from_pointee(table))
    }

    /// The newest snapshot.
    pub fn load(&self) -> Arc<Table> {
        self.0.load_full()
    }

    /// Replaces all custom resources.
    pub fn replace_custom(&self, custom: impl IntoIterator<Item = Arc<ResourceDef>>) {
        let next = self.0.load().with_custom(custom);
        self.0.store(Arc::new(next));
    }
}

fn stored_group_resource(row: &Row) -> (&'static str, &'static str) {
    match row.storage {
        Storage::As { group, resource, .. } => (group, resource),
        Storage::Own(_) | Storage::None => (row.group, row.resource),
    }
}

fn subresource(row: &Row, sub: &SubresourceRow, handler: SubresourceHandler) -> SubresourceDef {
    let (group, version) = sub.group_version.unwrap_or((row.group, row.version));
    SubresourceDef {
        name: sub.name.to_owned(),
        kind: if sub.kind.is_empty() { row.kind } else { sub.kind }.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        verbs: owned(sub.verbs),
        handler,
    }
}

fn definition(
    row: &Row,
    subresources: Vec<SubresourceDef>,
    strategy: Arc<dyn Strategy>,
    handler: Option<Arc<dyn Subresource>>,
) -> ResourceDef {
    let (stored_group, stored_resource) = stored_group_resource(row);
    let stored_as = GroupResource::new(stored_group, stored_resource);
    let (stored_version, conversion) = match row.storage {
        Storage::As { version, conversion, .. } => (version, Some(Converter::Builtin(*conversion))),
        Storage::Own(_) | Storage::None => (row.version, None),
    };
    let storage_prefix = rows()
        .iter()
        .find(|r| r.group == stored_group && r.version == stored_version && r.resource == stored_resource)
        .and_then(|r| match r.storage {
            Storage::Own(prefix) => Some(prefix),
            Storage::As { .. } | Storage::None => None,
        })
        .unwrap_or("");
    ResourceDef {
        group: row.group.to_owned(),
        version: row.version.to_owned(),
        kind: row.kind.to_owned(),
        list_kind: format!("{}List", row.kind),
        resource: row.resource.to_owned(),
        singular: row.singular.to_owned(),
        short_names: owned(row.short_names),
        categories: owned(row.categories),
        namespaced: row.namespaced,
        verbs: owned(row.verbs),
        subresources,
        schema: super::schema::type_name(row.group, row.version, row.kind),
        stored_as,
        stored_version: stored_version.to_owned(),
        storage_prefix: storage_prefix.to_owned(),
        conversion,
        selectable_fields: row.fields.read,
        selectable_field_names: row.fields.names,
        field_aliases: row
            .fields
            .aliases
            .iter()
            .map(|(name, stored)| (Cow::Borrowed(*name), *stored))
            .collect(),
        strategy,
        returns_deleted: row.returns_deleted,
        handler,
        custom: None,
        deprecation: super::deprecation::warning(&super::api_version(row.group, row.version), row.kind),
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// The strategy that takes every object as it is: that of a kind that is never stored, which no generic write reaches.
pub(crate) struct NoRules;

impl Strategy for NoRules {
    fn default(&self, _object: &mut crate::object::Object) {}

    fn prepare_for_create(&self, _object: &mut crate::object::Object) {}

    fn validate(&self, _object: &crate::object::Object) -> common::status::FieldErrors {
        common::status::FieldErrors::new()
    }

    fn prepare_for_update(&self, _object: &mut crate::object::Object, _old: &crate::object::Object) {}

    fn validate_update(
        &self,
        _object: &crate::object::Object,
        _old: &crate::object::Object,
    ) -> common::status::FieldErrors {
        common::status::FieldErrors::new()
    }
}
