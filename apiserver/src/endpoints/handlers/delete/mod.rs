//! DELETE: at once, or by marking the object and waiting for its finalizers and its grace.
//!
//! `options` reads what is asked for, `decide` says what it makes of an object; here is the way of the request.
//!
//! Upstream: `registry/rest/delete.go` (`BeforeDelete`) and `registry/generic/registry/store.go`.

mod decide;
mod options;

pub(super) use options::DeleteOptions;

use async_trait::async_trait;
use common::status::Status;
use jiff::Timestamp;
use serde_json::Value;

use super::super::negotiation;
use super::super::scope::Scope;
use super::super::{responses, write};
use super::{Written, body, respond_written};
use crate::admission::Operation;
use crate::cacher::{Decision, Outcome, Preconditions, Update};
use crate::object::{Object, metadata_mut, name, resource_version, uid};
use crate::request::{ApiRequest, Response};

use decide::{Decided, decide, is_pending};

/// What a delete did.
pub(super) enum Deleted {
    /// Gone; its last state.
    Gone(Object),
    /// Marked; it goes when nothing holds it any more.
    Pending(Written),
}

pub(in super::super) async fn serve(scope: &Scope<'_>, request: ApiRequest) -> Result<Response, Status> {
    let (parts, body) = body(request).await?;
    let output = negotiation::output(&parts.headers, true)?;
    let options = DeleteOptions::read(&scope.server.schema, &parts.headers, &body, &scope.ctx.query)?;
    match delete(scope, &scope.name, &options).await? {
        Deleted::Pending(written) => {
            let code = if options.orphan_dependents == Some(false) { 202 } else { 200 };
            respond_written(scope, &parts, output, code, written).await
        }
        Deleted::Gone(object) if scope.def.returns_deleted => {
            respond_written(scope, &parts, output, 200, Written::DryRun(object)).await
        }
        Deleted::Gone(object) => {
            let def = &scope.def;
            let status = Status::success_deleted(&def.group, &def.resource, name(&object), uid(&object));
            responses::object(200, status.to_json().into(), output.encoding, false).await
        }
    }
}

/// Deletes one object. Admission is told the name of the request, which a whole list's has none of.
pub(super) async fn delete(
    scope: &Scope<'_>,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, Status> {
    let store = scope.store()?;
    let mut deleting = Deleting { scope, options, last: Value::Null };
    if options.dry_run {
        let current =
            store.get(&scope.namespace, name, None).await.map_err(|status| scope.renamed(status))?.tree();
        return Ok(match deleting.apply(Some(current)).await? {
            Decision::Write { object, .. } => Deleted::Pending(Written::DryRun(object)),
            Decision::Delete => Deleted::Gone(deleting.last),
        });
    }
    // The preconditions are checked by the function itself, in a delete's own words.
    let none = Preconditions::default();
    let (object, outcome) = store
        .guaranteed_update(&scope.namespace, name, &none, false, &mut deleting)
        .await
        .map_err(|status| scope.renamed(status))?;
    Ok(match outcome {
        Outcome::Deleted => {
            let mut last = std::mem::take(&mut deleting.last);
            // As the watchers see it go.
            let version = object.revision.to_string();
            metadata_mut(&mut last).insert("resourceVersion".to_owned(), version.into());
            if let Some(hooks) = scope.def.strategy.hooks() {
                hooks.after_delete(&last).await;
            }
            Deleted::Gone(last)
        }
        Outcome::Created | Outcome::Updated | Outcome::Unchanged => Deleted::Pending(Written::Stored(object)),
    })
}

struct Deleting<'s, 'a> {
    scope: &'s Scope<'a>,
    options: &'s DeleteOptions,
    last: Object,
}

#[async_trait]
impl Update for Deleting<'_, '_> {
    async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status> {
        let scope = self.scope;
        let Some(object) = current else { return Err(scope.not_found()) };
        check(scope, &self.options.preconditions, &object)?;
        let strategy = scope.def.strategy.as_ref();
        if !is_pending(strategy, &object, self.options) {
            self.admit(&object).await?;
        }
        let decision = decide(strategy, object, self.options, Timestamp::now());
        if let Decided::Delete(object) = decision {
            self.last = object;
            return Ok(Decision::Delete);
        }
        let Decided::Keep(object) = decision else { return Err(scope.not_found()) };
        Ok(Decision::Write { ttl_seconds: strategy.ttl_seconds(&object), object })
    }
}

impl Deleting<'_, '_> {
    async fn admit(&self, object: &Object) -> Result<(), Status> {
        let (scope, dry_run) = (self.scope, self.options.dry_run);
        let chain = &scope.server.admission;
        let mut attributes =
            write::attributes(scope, Operation::Delete, &scope.name, None, Some(object), dry_run);
        chain.admit(&mut attributes).await?;
        chain.validate(&attributes).await
    }
}

/// A delete's preconditions (`BeforeDelete`); upstream names the kind here, not the resource.
///
/// # Errors
/// 409 when one does not hold.
fn check(scope: &Scope<'_>, wanted: &Preconditions, object: &Object) -> Result<(), Status> {
    let refuse = |why: String| Err(Status::conflict(&scope.def.group, &scope.def.kind, name(object), why));
    let (found_uid, found_version) = (uid(object), resource_version(object));
    match (&wanted.uid, &wanted.resource_version) {
        (Some(wanted), _) if wanted != found_uid => refuse(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({found_uid}). The object \
             might have been deleted and then recreated"
        )),
        (_, Some(wanted)) if wanted != found_version => refuse(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
             ({found_version}). The object might have been modified"
        )),
        _ => Ok(()),
    }
}
