//! The way of a write, shared by create, update and patch: from an object that was read to what is stored.
//!
//! Who owns which field is noted after defaulting and before admission: what admission changes is nobody's.

use async_trait::async_trait;
use common::status::{Status, reason};
use serde_json::{Map, Value};

use super::handlers::patch::{Apply, Patch};
use super::metadata;
use super::query::WriteOptions;
use super::scope::Scope;
use crate::admission::{Attributes, Operation};
use crate::cacher::{Decision, Update};
use crate::fieldmanager::keep_times;
use crate::object::{Object, metadata_mut, name, namespace, resource_version};
use crate::registry::tree::same;
use crate::resources::{GroupResource, Rollback};

/// The words of a lost race.
pub(super) const CONFLICT: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Removes duplicate owner references, with a warning.
pub(super) fn dedup_owners(scope: &Scope<'_>, object: &mut Object, after_admission: bool) {
    let duplicates = metadata::dedup_owner_references(object);
    if !duplicates.is_empty() {
        let when = if after_admission { " after mutating admission happens" } else { "" };
        scope.ctx.warn(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            duplicates.join(", ")
        ));
    }
}

/// The store does not take an object of that size.
pub(super) fn is_too_large(status: &Status) -> bool {
    status.reason == reason::REQUEST_ENTITY_TOO_LARGE
}

/// Removes who owns what; false when nobody does.
pub(super) fn forget_owners(object: &mut Object) -> bool {
    metadata_mut(object).remove("managedFields").is_some()
}

/// A copy that does not say who owns what.
fn without_owners(object: &Object) -> Object {
    let Some(fields) = object.as_object() else { return object.clone() };
    let copied = |fields: &Map<String, Value>, without: &str| -> Map<String, Value> {
        fields
            .iter()
            .filter(|(key, _)| *key != without)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let mut copy = copied(fields, "metadata");
    if let Some(metadata) = fields.get("metadata") {
        let metadata = metadata.as_object().map(|inside| copied(inside, "managedFields").into());
        copy.insert("metadata".to_owned(), metadata.unwrap_or_default());
    }
    Value::Object(copy)
}

/// What admission is told. `object` is filled in by the caller.
pub(super) fn attributes<'b>(
    scope: &'b Scope<'_>,
    operation: Operation,
    name: &str,
    object: Option<&'b mut Object>,
    old: Option<&'b Object>,
    dry_run: bool,
) -> Attributes<'b> {
    Attributes {
        ctx: &scope.ctx,
        operation,
        resource: GroupResource::new(&scope.def.group, &scope.def.resource),
        version: scope.def.version.clone(),
        kind: scope.def.kind.clone(),
        subresource: scope.subresource().map(|s| s.name.clone()).unwrap_or_default(),
        // A namespace's own requests carry its name as their namespace.
        namespace: if scope.def.namespaced {
            scope.namespace.clone()
        } else {
            scope.ctx.info.namespace.clone()
        },
        name: name.to_owned(),
        object,
        old_object: old,
        dry_run,
    }
}

/// Mutating admission of a new object. Its name is not generated yet.
pub(super) async fn admit_create(
    scope: &Scope<'_>,
    object: &mut Object,
    requested_name: &str,
    dry_run: bool,
) -> Result<(), Status> {
    let chain = &scope.server.admission;
    chain
        .admit(&mut attributes(scope, Operation::Create, requested_name, Some(object), None, dry_run))
        .await?;
    dedup_owners(scope, object, true);
    Ok(())
}

/// A new object (stored version, admitted, system fields set, name generated) through strategy, validation and
/// validating admission. The guard must be committed once the object is written.
pub(super) async fn create(
    scope: &Scope<'_>,
    object: &mut Object,
    dry_run: bool,
) -> Result<Option<Box<dyn Rollback>>, Status> {
    let chain = &scope.server.admission;
    let strategy = scope.strategy();
    strategy.prepare_for_create(object);
    let guard = match strategy.hooks() {
        Some(hooks) => Some(hooks.begin_write(object, None, dry_run).await?),
        None => None,
    };
    let mut errors = metadata::validate(object, &scope.def, strategy);
    errors.extend(strategy.validate(object));
    if !errors.is_empty() {
        return Err(Status::invalid(&scope.def.group, &scope.def.kind, name(object), &errors));
    }
    strategy.warnings(object, None).into_iter().for_each(|warning| scope.ctx.warn(warning));
    let named = name(object).to_owned();
    chain.validate(&attributes(scope, Operation::Create, &named, Some(object), None, dry_run)).await?;
    scope.fill(object);
    Ok(guard)
}

/// Where the new state of an update comes from.
pub(super) enum Source {
    /// The body, in the requested version.
    Whole(Object),
    Patch(Patch),
    Apply(Apply),
}

/// The function of an update's guaranteed update.
pub(super) struct Writing<'s, 'a> {
    scope: &'s Scope<'a>,
    source: Source,
    options: WriteOptions,
    guard: Option<Box<dyn Rollback>>,
    /// The object is too large with its owners.
    ownerless: bool,
    /// The object whose update was its last, in the stored version.
    pub last: Option<Object>,
}

impl<'s, 'a> Writing<'s, 'a> {
    pub(super) fn new(scope: &'s Scope<'a>, source: Source, options: WriteOptions) -> Self {
        Self { scope, source, options, guard: None, ownerless: false, last: None }
    }

    /// Makes the next attempt write no owners. False when that is no way out: an apply is nothing without them.
    pub(super) fn forget_owners(&mut self) -> bool {
        let can = !self.ownerless && !matches!(self.source, Source::Apply(_));
        self.ownerless = true;
        can
    }

    /// Call when the write is done.
    pub(super) fn commit(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.commit();
        }
    }

    /// The new state in the stored version, defaulted, not yet admitted.
    fn updated(&self, current: &Object) -> Result<Object, Status> {
        let scope = self.scope;
        let object = match &self.source {
            Source::Whole(object) => {
                let mut object = object.clone();
                dedup_owners(scope, &mut object, false);
                object
            }
            Source::Patch(patch) => {
                // Entries that come back as they were are no news, and they are half of an object.
                let live = if patch.is_about_owners() { current.clone() } else { without_owners(current) };
                patch.apply(scope, scope.served_form(live), self.options.field_validation)?
            }
            Source::Apply(apply) => return apply.onto(scope, Some(current), &self.options),
        };
        self.owned(Some(current), object)
    }

    /// A whole new state with its place, defaults and owners.
    fn owned(&self, live: Option<&Object>, mut object: Object) -> Result<Object, Status> {
        let scope = self.scope;
        super::handlers::place(scope, &mut object)?;
        check_name(scope, &object)?;
        let mut object = scope.stored_form(object);
        scope.def.strategy.default(&mut object);
        let manager = scope.manager(&self.options);
        scope.ownership(|fields| fields.update(live, &mut object, &manager, &metadata::now()));
        Ok(object)
    }

    async fn create(&mut self) -> Result<Decision, Status> {
        let scope = self.scope;
        let mut object = match &self.source {
            Source::Whole(object) => self.owned(None, object.clone())?,
            Source::Apply(apply) => apply.onto(scope, None, &self.options)?,
            Source::Patch(_) => return Err(scope.not_found()),
        };
        scope.may_create().await?;
        metadata::fill_system_fields(&mut object);
        metadata_mut(&mut object).remove("resourceVersion");
        let named = name(&object).to_owned();
        admit_create(scope, &mut object, &named, self.options.dry_run).await?;
        self.guard = create(scope, &mut object, self.options.dry_run).await?;
        let ttl_seconds = scope.def.strategy.ttl_seconds(&object);
        Ok(Decision::Write { object, ttl_seconds })
    }

    async fn update(&mut self, old: Object) -> Result<Decision, Status> {
        let scope = self.scope;
        let dry_run = self.options.dry_run;
        let mut object = self.updated(&old)?;
        let chain = &scope.server.admission;
        chain
            .admit(&mut attributes(
                scope,
                Operation::Update,
                &scope.name,
                Some(&mut object),
                Some(&old),
                dry_run,
            ))
            .await?;
        dedup_owners(scope, &mut object, true);
        if self.ownerless {
            forget_owners(&mut object);
        }
        self.check_version(&mut object, &old)?;
        let strategy = scope.strategy();
        metadata::carry_generation(&mut object, &old);
        strategy.prepare_for_update(&mut object, &old);
        if let Some(hooks) = strategy.hooks() {
            // What an attempt that lost a race took goes back first, or this one would find it taken.
            self.guard = None;
            self.guard = Some(hooks.begin_write(&mut object, Some(&old), dry_run).await?);
        }
        metadata::carry_system_fields(&mut object, &old);
        let mut errors = metadata::validate(&object, &scope.def, strategy);
        errors.extend(metadata::validate_update(&object, &old));
        errors.extend(strategy.validate_update(&object, &old));
        if !errors.is_empty() {
            return Err(Status::invalid(&scope.def.group, &scope.def.kind, name(&object), &errors));
        }
        keep_times(&mut object, &old, same);
        strategy.warnings(&object, Some(&old)).into_iter().for_each(|warning| scope.ctx.warn(warning));
        chain
            .validate(&attributes(
                scope,
                Operation::Update,
                &scope.name,
                Some(&mut object),
                Some(&old),
                dry_run,
            ))
            .await?;
        if completes_deletion(scope, &object, &old) {
            self.last = Some(object);
            return Ok(Decision::Delete);
        }
        scope.fill(&mut object);
        let ttl_seconds = scope.def.strategy.ttl_seconds(&object);
        Ok(Decision::Write { object, ttl_seconds })
    }

    /// The optimistic lock.
    fn check_version(&self, object: &mut Object, old: &Object) -> Result<(), Status> {
        let scope = self.scope;
        let current = resource_version(old);
        let said = resource_version(object);
        if said == current {
            return Ok(());
        }
        if said.is_empty() || said == "0" {
            if !scope.strategy().allow_unconditional_update() {
                let mut errors = common::status::FieldErrors::new();
                errors.invalid("metadata.resourceVersion", 0, "must be specified for an update");
                return Err(Status::invalid(&scope.def.group, &scope.def.resource, &scope.name, &errors));
            }
            let current = Value::from(current);
            metadata_mut(object).insert("resourceVersion".to_owned(), current);
            return Ok(());
        }
        Err(Status::conflict(&scope.def.group, &scope.def.resource, &scope.name, CONFLICT))
    }
}

#[async_trait]
impl Update for Writing<'_, '_> {
    async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status> {
        // What an earlier run reserved belongs to a state that is no more.
        self.guard = None;
        match current {
            None => self.create().await,
            Some(old) => self.update(old).await,
        }
    }
}

/// `ShouldDeleteDuringUpdate`: the last thing that held a deleted object is gone.
fn completes_deletion(scope: &Scope<'_>, object: &Object, old: &Object) -> bool {
    metadata::is_deleting(old)
        && metadata::finalizers(object).is_empty()
        && !scope.def.strategy.holds_deletion(object)
        && metadata::deletion_grace(old).unwrap_or(0) == 0
}

/// 400 unless the body's name is that of the path.
pub(super) fn check_name(scope: &Scope<'_>, object: &Object) -> Result<(), Status> {
    let said = name(object);
    if said.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            scope.name
        )));
    }
    if said != scope.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({said}) does not match the name on the URL ({})",
            scope.name
        )));
    }
    let place = namespace(object);
    if !scope.namespace.is_empty() && !place.is_empty() && place != scope.namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({place}) does not match the namespace on the request ({})",
            scope.namespace
        )));
    }
    Ok(())
}
