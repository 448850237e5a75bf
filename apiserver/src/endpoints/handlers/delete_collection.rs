//! DELETE of a whole list, one object after another.

use common::status::{Status, reason};
use serde_json::{Value, json};

use super::super::query::{ListOptions, Query};
use super::super::scope::Scope;
use super::super::{negotiation, responses};
use super::body;
use super::delete::{DeleteOptions, delete};
use crate::request::{ApiRequest, Response};

pub(in super::super) async fn serve(scope: &Scope<'_>, request: ApiRequest) -> Result<Response, Status> {
    let (parts, body) = body(request).await?;
    let output = negotiation::output(&parts.headers, false)?;
    let query = Query::parse(&scope.ctx.query);
    let list = ListOptions::parse(&query, &scope.def, &scope.namespace, &scope.name, false)?;
    let options = DeleteOptions::read(&scope.server.schema, &parts.headers, &body, &scope.ctx.query)?;
    let page = scope.store()?.list(list.into_list()).await?;
    let mut items = Vec::with_capacity(page.items.len());
    for object in &page.items {
        match delete(scope, &object.name, &options).await {
            Ok(_) => {}
            // Somebody else was faster: it is gone all the same.
            Err(status) if status.reason == reason::NOT_FOUND => {}
            Err(status) => return Err(status),
        }
        items.push(scope.served_form(object.tree()));
    }
    let list: Value = json!({"kind": scope.def.list_kind, "apiVersion": scope.def.api_version(),
        "metadata": super::list::metadata(&page), "items": items});
    let gzip = negotiation::accepts_gzip(&parts.headers);
    responses::object(200, list.to_string().into(), output.encoding, gzip).await
}
