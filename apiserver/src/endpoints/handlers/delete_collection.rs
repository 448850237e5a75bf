//! DELETE of a whole list, one object after another.

use common::status::{Status, reason};

use super::super::negotiation;
use super::super::query::{ListOptions, Query};
use super::super::scope::Scope;
use super::delete::{DeleteOptions, delete};
use super::{body, list};
use crate::request::{ApiRequest, Response};

pub(in super::super) async fn serve(scope: &Scope<'_>, request: ApiRequest) -> Result<Response, Status> {
    let (parts, body) = body(request).await?;
    let output = negotiation::output(&parts.headers, false)?;
    let query = Query::parse(&scope.ctx.query);
    let list = ListOptions::parse(&query, &scope.def, &scope.namespace, &scope.name, false)?;
    let options = DeleteOptions::read(&scope.server.schema, &parts.headers, &body, &scope.ctx.query)?;
    let page = scope.store()?.list(list.into_list()).await?;
    for object in &page.items {
        match delete(scope, &object.name, &options).await {
            Ok(_) => {}
            // Somebody else was faster: it is gone all the same.
            Err(status) if status.reason == reason::NOT_FOUND => {}
            Err(status) => return Err(status),
        }
    }
    list::answer(scope, &parts, &query, output, page).await
}
