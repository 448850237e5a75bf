//! LIST: the objects' own bytes, joined.

use std::sync::Arc;

use bytes::Bytes;
use common::status::Status;
use serde_json::{Map, Value};

use super::super::negotiation::{self, Encoding, Output, PrefersProtobuf, Shape};
use super::super::query::{ListOptions, Query};
use super::super::responses::{self, ListBody};
use super::super::scope::Scope;
use super::{printer, shaped};
use crate::cacher::{CachedObject, ListPage};
use crate::request::Response;

pub(in super::super) async fn serve(
    scope: &Scope<'_>,
    request: &http::request::Parts,
) -> Result<Response, Status> {
    let output = negotiation::output(&request.headers, true)?;
    let query = Query::parse(&scope.ctx.query);
    let options = ListOptions::parse(&query, &scope.def, &scope.namespace, &scope.name, false)?;
    let page = scope.store()?.list(options.into_list()).await?;
    answer(scope, request, &query, output, page).await
}

/// A page as the client wants to see it.
pub(super) async fn answer(
    scope: &Scope<'_>,
    request: &http::request::Parts,
    query: &Query<'_>,
    output: Output,
    mut page: ListPage,
) -> Result<Response, Status> {
    let gzip = negotiation::accepts_gzip(&request.headers);
    if scope.def.conversion.is_some() || output.shape == Shape::PartialMetadata {
        let shape = if output.shape == Shape::Table { Shape::Object } else { output.shape };
        for item in &mut page.items {
            let bytes = shaped(scope, item, shape)?;
            *item = with_bytes(item, bytes);
        }
    }
    let (kind, api_version) = match output.shape {
        Shape::Table => {
            let printer = printer(scope, query)?;
            let table = printer.table(metadata(&page), page.items.iter().map(|i| i.bytes.as_ref()), true)?;
            return responses::object(200, table, output.encoding, gzip).await;
        }
        Shape::Object => (scope.def.list_kind.clone(), scope.def.api_version()),
        Shape::PartialMetadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
    };
    let head = head(&kind, &api_version, &page);
    let metadata = metadata(&page).to_string();
    let body = ListBody { head, items: page.items, tail: Bytes::from_static(b"]}") };
    if let Some(prefers) = request.extensions.get::<PrefersProtobuf>()
        && output.encoding == Encoding::Json
    {
        return responses::protobuf_list(prefers, kind, api_version, metadata, body).await;
    }
    match output.encoding {
        Encoding::Json => responses::list(body, gzip).await,
        Encoding::Yaml => responses::object(200, body.joined(), Encoding::Yaml, gzip).await,
    }
}

fn head(kind: &str, api_version: &str, page: &ListPage) -> Bytes {
    let metadata = metadata(page);
    Bytes::from(format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":["
    ))
}

fn metadata(page: &ListPage) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), page.revision.to_string().into());
    if !page.continue_token.is_empty() {
        metadata.insert("continue".to_owned(), page.continue_token.clone().into());
    }
    if let Some(remaining) = page.remaining {
        metadata.insert("remainingItemCount".to_owned(), remaining.into());
    }
    Value::Object(metadata)
}

fn with_bytes(object: &CachedObject, bytes: Bytes) -> Arc<CachedObject> {
    Arc::new(CachedObject {
        key: String::new(),
        revision: object.revision,
        namespace: String::new(),
        name: String::new(),
        uid: String::new(),
        labels: Vec::new(),
        fields: Vec::new(),
        bytes,
    })
}
