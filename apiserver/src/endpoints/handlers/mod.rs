//! One handler per verb, for every resource.

pub(super) mod create;
pub(super) mod delete;
pub(super) mod delete_collection;
pub(super) mod get;
pub(super) mod list;
pub(super) mod patch;
pub(super) mod update;
pub(super) mod watch;

use std::sync::Arc;

use bytes::Bytes;
use common::status::Status;

use super::negotiation::{self, Output, Shape};
use super::printers::{Include, TablePrinter};
use super::query::Query;
use super::scope::Scope;
use super::{partial, responses};
use crate::cacher::CachedObject;
use crate::object::{Object, metadata_mut};
use crate::request::{ApiRequest, Response};

/// An object's bytes in the requested version and shape. Shared with the cache when nothing has to change.
fn shaped(scope: &Scope<'_>, object: &CachedObject, shape: Shape) -> Result<Bytes, Status> {
    let bytes = match &scope.def.conversion {
        Some(conversion) => Bytes::from(conversion.from_stored(object.tree()).to_string()),
        None => object.bytes.clone(),
    };
    match shape {
        Shape::Object => Ok(bytes),
        Shape::PartialMetadata => partial::metadata(&bytes),
        Shape::Table => table(scope, &bytes),
    }
}

/// How this request wants objects of its kind printed.
fn printer(scope: &Scope<'_>, query: &Query) -> Result<TablePrinter, Status> {
    let include = Include::parse(query.get("includeObject"))?;
    Ok(match &scope.def.custom {
        Some(kind) => TablePrinter::custom(kind.clone(), include),
        None => TablePrinter::new(&scope.def.group, &scope.def.kind, include),
    })
}

/// One object as a table of one row.
fn table(scope: &Scope<'_>, object: &[u8]) -> Result<Bytes, Status> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        metadata: Metadata,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: Option<String>,
    }
    let versioned: Versioned = serde_json::from_slice(object).map_err(Status::internal)?;
    let metadata = serde_json::json!({"resourceVersion": versioned.metadata.resource_version});
    let printer = printer(scope, &Query::parse(&scope.ctx.query))?;
    printer.table(metadata, std::iter::once(object), true)
}

/// An object of the cache as a response.
async fn respond_cached(
    scope: &Scope<'_>,
    request: &http::request::Parts,
    output: Output,
    code: u16,
    object: &Arc<CachedObject>,
) -> Result<Response, Status> {
    let json = shaped(scope, object, output.shape)?;
    responses::object(code, json, output.encoding, negotiation::accepts_gzip(&request.headers)).await
}

/// A tree in the stored version, not (yet) stored, as a response: for dry runs.
async fn respond_tree(
    scope: &Scope<'_>,
    request: &http::request::Parts,
    output: Output,
    code: u16,
    object: Object,
) -> Result<Response, Status> {
    let mut json = Bytes::from(scope.served_form(object).to_string());
    match output.shape {
        Shape::Object => {}
        Shape::PartialMetadata => json = partial::metadata(&json)?,
        Shape::Table => json = table(scope, &json)?,
    }
    responses::object(code, json, output.encoding, negotiation::accepts_gzip(&request.headers)).await
}

/// What a write that can be a dry run leaves.
enum Written {
    Stored(Arc<CachedObject>),
    /// As it would have been stored.
    DryRun(Object),
}

async fn respond_written(
    scope: &Scope<'_>,
    request: &http::request::Parts,
    output: Output,
    code: u16,
    written: Written,
) -> Result<Response, Status> {
    match written {
        Written::Stored(object) => respond_cached(scope, request, output, code, &object).await,
        Written::DryRun(object) => respond_tree(scope, request, output, code, object).await,
    }
}

/// Reads the body of a write.
async fn body(request: ApiRequest) -> Result<(http::request::Parts, Bytes), Status> {
    let ApiRequest { parts, body, .. } = request;
    Ok((parts, ApiRequest::collect_body(body).await?))
}

/// Gives an object that was just read its place in the namespace of the request.
///
/// # Errors
/// 400 when it names another one.
pub(super) fn place(scope: &Scope<'_>, object: &mut Object) -> Result<(), Status> {
    let named = crate::object::namespace(object).to_owned();
    if named == scope.namespace {
        return Ok(());
    }
    if named.is_empty() {
        metadata_mut(object).insert("namespace".to_owned(), scope.namespace.clone().into());
        return Ok(());
    }
    if scope.namespace.is_empty() {
        metadata_mut(object).remove("namespace");
        return Ok(());
    }
    Err(Status::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}
