//! POST: a new object, with a generated name when it has only a prefix.

use common::status::{Status, reason};

use super::super::query::{Query, WriteOptions};
use super::super::scope::Scope;
use super::super::{metadata, negotiation, read, write};
use super::{Written, body, place, respond_written};
use crate::object::{Object, metadata_mut, name, resource_version, str_at};
use crate::request::{ApiRequest, Response};

/// How often another generated name is tried (`maxNameGenerationCreateAttempts`).
const GENERATED_NAME_ATTEMPTS: u32 = 8;

pub(in super::super) async fn serve(scope: &Scope<'_>, request: ApiRequest) -> Result<Response, Status> {
    let (parts, body) = body(request).await?;
    let output = negotiation::output(&parts.headers, true)?;
    let encoding = negotiation::input(&parts.headers)?;
    let options = WriteOptions::parse(&Query::parse(&scope.ctx.query), "CreateOptions")?;
    let mut object = read::read_object(scope, &body, encoding, &options)?;
    place(scope, &mut object)?;
    let mut object = scope.stored_form(object);
    scope.def.strategy.default(&mut object);
    metadata::fill_system_fields(&mut object);
    if !resource_version(&object).is_empty() && resource_version(&object) != "0" {
        return Err(Status::failure(
            500,
            reason::UNKNOWN,
            "resourceVersion should not be set on objects to be created",
        ));
    }
    metadata_mut(&mut object).remove("resourceVersion");
    write::dedup_owners(scope, &mut object, false);
    let manager = scope.manager(&options);
    scope.ownership(|fields| fields.update(None, &mut object, &manager, &metadata::now()));
    let requested = name(&object).to_owned();
    write::admit_create(scope, &mut object, &requested, options.dry_run).await?;
    let prefix = str_at(&object, &["metadata", "generateName"]).to_owned();
    let generated = name(&object).is_empty() && !prefix.is_empty();
    let attempts = if generated { GENERATED_NAME_ATTEMPTS } else { 1 };
    for attempt in 1..=attempts {
        let last = attempt == attempts;
        let mut candidate = if last { std::mem::take(&mut object) } else { object.clone() };
        if generated {
            metadata_mut(&mut candidate).insert("name".to_owned(), metadata::generate_name(&prefix).into());
        }
        let mut result = create(scope, &mut candidate, options.dry_run).await;
        if result.as_ref().is_err_and(write::is_too_large) && write::forget_owners(&mut candidate) {
            result = create(scope, &mut candidate, options.dry_run).await;
        }
        match result {
            Ok(written) => return respond_written(scope, &parts, output, 201, written).await,
            Err(status) if status.reason == reason::ALREADY_EXISTS => {
                if last {
                    return Err(in_the_way(scope, status, name(&candidate), !prefix.is_empty()).await);
                }
            }
            Err(status) => return Err(status),
        }
    }
    unreachable!("the last attempt answers")
}

async fn create(scope: &Scope<'_>, object: &mut Object, dry_run: bool) -> Result<Written, Status> {
    let guard = write::create(scope, object, dry_run).await?;
    let store = scope.store()?;
    if dry_run {
        return match store.get(&scope.namespace, name(object), None).await {
            Ok(_) => Err(Status::already_exists(&scope.def.group, &scope.def.resource, name(object))),
            Err(status) if status.code == 404 => Ok(Written::DryRun(std::mem::take(object))),
            Err(status) => Err(status),
        };
    }
    let stored = store
        .create(object, scope.def.strategy.ttl_seconds(object))
        .await
        .map_err(|status| scope.renamed(status))?;
    if let Some(guard) = guard {
        guard.commit();
    }
    Ok(Written::Stored(stored))
}

/// Says more about an object that is there already: that the server made the name up, that it is on its way out.
async fn in_the_way(scope: &Scope<'_>, mut status: Status, name: &str, prefixed: bool) -> Status {
    if prefixed {
        status.message.push_str(", the server was not able to generate a unique name for the object");
        status = status.retry_after(1);
    }
    if let Ok(store) = scope.store()
        && let Ok(there) = store.get(&scope.namespace, name, None).await
        && metadata::is_deleting(&there.tree())
    {
        status.message.insert_str(0, "object is being deleted: ");
    }
    status
}
