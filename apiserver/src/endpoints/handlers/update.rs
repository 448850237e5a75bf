//! PUT: a whole new state of an object, or of one view of it.

use common::status::Status;

use super::super::query::{Query, WriteOptions};
use super::super::scope::Scope;
use super::super::write::{self, Source, Writing};
use super::super::{negotiation, read};
use super::{Written, body, place, respond_written};
use crate::cacher::{Decision, Outcome, Preconditions, Update};
use crate::object::{Object, uid};
use crate::request::{ApiRequest, Response};

pub(in super::super) async fn serve(scope: &Scope<'_>, request: ApiRequest) -> Result<Response, Status> {
    let (parts, body) = body(request).await?;
    let output = negotiation::output(&parts.headers, true)?;
    let encoding = negotiation::input(&parts.headers)?;
    let options = WriteOptions::parse(&Query::parse(&scope.ctx.query), "UpdateOptions")?;
    let mut object = read::read_object(scope, &body, encoding, &options)?;
    place(scope, &mut object)?;
    write::check_name(scope, &object)?;
    let uid = uid(&object);
    let preconditions =
        Preconditions { uid: (!uid.is_empty()).then(|| uid.to_owned()), resource_version: None };
    let create = scope.subresource().is_none() && scope.strategy().allow_create_on_update();
    let (code, written) = run(scope, Source::Whole(object), options, &preconditions, create).await?;
    respond_written(scope, &parts, output, code, written).await
}

/// Runs an update or patch to its end.
pub(super) async fn run(
    scope: &Scope<'_>,
    source: Source,
    options: WriteOptions,
    preconditions: &Preconditions,
    create: bool,
) -> Result<(u16, Written), Status> {
    let store = scope.store()?;
    let dry_run = options.dry_run;
    let mut writing = Writing::new(scope, source, options);
    if dry_run {
        let (code, object) = dry(scope, &mut writing, preconditions, create).await?;
        return Ok((code, Written::DryRun(object)));
    }
    let mut result =
        store.guaranteed_update(&scope.namespace, &scope.name, preconditions, create, &mut writing).await;
    if result.as_ref().is_err_and(write::is_too_large) && writing.forget_owners() {
        result =
            store.guaranteed_update(&scope.namespace, &scope.name, preconditions, create, &mut writing).await;
    }
    let (stored, outcome) = result.map_err(|status| scope.renamed(status))?;
    writing.commit();
    Ok(match outcome {
        Outcome::Created => (201, Written::Stored(stored)),
        Outcome::Updated | Outcome::Unchanged => (200, Written::Stored(stored)),
        Outcome::Deleted => {
            let last = writing.last.unwrap_or_else(|| stored.tree());
            if let Some(hooks) = scope.def.strategy.hooks() {
                hooks.after_delete(&last).await;
            }
            // A client that updates expects its object back, also when this was its last update.
            (200, Written::DryRun(last))
        }
    })
}

async fn dry(
    scope: &Scope<'_>,
    writing: &mut Writing<'_, '_>,
    preconditions: &Preconditions,
    create: bool,
) -> Result<(u16, Object), Status> {
    let current = match scope.store()?.get(&scope.namespace, &scope.name, None).await {
        Ok(object) => Some(object.tree()),
        Err(status) if status.code == 404 && create => None,
        Err(status) => return Err(scope.renamed(status)),
    };
    let code = if current.is_some() { 200 } else { 201 };
    if let Some(object) = &current {
        scope.check(preconditions, object)?;
    }
    let object = match writing.apply(current).await? {
        Decision::Write { object, .. } => object,
        Decision::Delete => writing.last.take().unwrap_or_default(),
    };
    Ok((code, object))
}
