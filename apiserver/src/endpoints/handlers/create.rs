//! POST: a new object, with a generated name when it has only a prefix.

use common::status::{Status, reason};

use super::super::query::{Query, WriteOptions};
use super::super::scope::Scope;
use super::super::{metadata, negotiation, write};
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
    let mut object = write::read_object(scope, &body, encoding, &options)?;
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
    let prefix = str_at(&object, &["metadata", "generateName"]).to_owned();
    let generated = name(&object).is_empty() && !prefix.is_empty();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut candidate = if generated && attempt < GENERATED_NAME_ATTEMPTS {
            object.clone()
        } else {
            std::mem::take(&mut object)
        };
        if generated {
            metadata_mut(&mut candidate).insert("name".to_owned(), metadata::generate_name(&prefix).into());
        }
        let mut result = create(scope, &mut candidate, options.dry_run).await;
        if result.as_ref().is_err_and(write::is_too_large) && write::forget_owners(&mut candidate) {
            result = create(scope, &mut candidate, options.dry_run).await;
        }
        match result {
            Ok(written) => return respond_written(scope, &parts, output, 201, written).await,
            Err(status) if generated && status.reason == reason::ALREADY_EXISTS => {
                if attempt >= GENERATED_NAME_ATTEMPTS {
                    return Err(no_unique_name(status));
                }
            }
            Err(status) => return Err(status),
        }
    }
}

async fn create(scope: &Scope<'_>, object: &mut Object, dry_run: bool) -> Result<Written, Status> {
    let requested = name(object).to_owned();
    let guard = write::create(scope, object, &requested, dry_run).await?;
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

fn no_unique_name(mut status: Status) -> Status {
    status.message.push_str(", the server was not able to generate a unique name for the object");
    status.retry_after(1)
}
