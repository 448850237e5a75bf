//! GET of one object.

use common::status::Status;

use super::super::negotiation;
use super::super::query::{Query, get_resource_version};
use super::super::scope::Scope;
use super::respond_cached;
use crate::request::Response;

pub(in super::super) async fn serve(
    scope: &Scope<'_>,
    request: &http::request::Parts,
) -> Result<Response, Status> {
    let output = negotiation::output(&request.headers, true)?;
    let version = get_resource_version(&Query::parse(&scope.ctx.query))?;
    let object = scope.store()?.get(&scope.namespace, &scope.name, version).await;
    let object = object.map_err(|status| scope.renamed(status))?;
    respond_cached(scope, request, output, 200, &object).await
}
