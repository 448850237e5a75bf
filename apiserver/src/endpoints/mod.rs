//! From an authorized request to an answer: discovery, OpenAPI, and one handler per verb for every resource.
//!
//! A read or a watch leaves at the cache and never decodes an object, unless another shape or version of it is
//! asked for. A write goes: decode, strict check, prune, type check, default, metadata rules, mutating
//! admission, strategy prepare, validate, validating admission, guaranteed update.
//!
//! Handlers go by verb and know no resource; what a resource wants differently it says in its row or its
//! strategy. Nothing here authenticates or authorizes. Every error leaves through [`responses::error`].
//!
//! Upstream: `apiserver/pkg/endpoints/handlers`, `apiserver/pkg/registry/rest` and `generic/registry`.

pub mod decode;
mod discovery;
mod handlers;
mod metadata;
mod metrics;
pub mod negotiation;
mod openapi;
mod partial;
pub mod printers;
pub mod query;
mod read;
pub mod responses;
mod scope;
#[cfg(test)]
mod tests;
pub mod typed;
mod write;

pub use handlers::patch::{APPLY_PATCH, Patch};
pub use metrics::WatchMetrics;
pub use printers::since;
pub use read::{Expected, read_type};

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use common::status::Status;

use crate::admission;
use crate::request::{ApiRequest, Response};
use crate::resources::schema::Schema;
use crate::resources::{Registry, ResourceDef, SubresourceHandler, SubresourceRequest, Table, Tables};

use discovery::Discovery;
use openapi::OpenApi;
use scope::Scope;

/// Answers every request below `/api`, `/apis` and `/openapi`. Cheap to clone.
#[derive(Clone)]
pub struct ApiHandler {
    server: Arc<Server>,
}

/// What the handlers share.
struct Server {
    tables: Arc<Tables>,
    registry: Arc<Registry>,
    admission: admission::Chain,
    schema: Arc<Schema>,
    documents: ArcSwap<Documents>,
    min_request_timeout: Duration,
    watch_metrics: WatchMetrics,
}

/// What says which resources there are, made of one snapshot of the table.
struct Documents {
    table: Arc<Table>,
    discovery: OnceLock<Discovery>,
    openapi: OpenApi,
}

impl Documents {
    /// `before` lends what has not changed.
    fn new(table: Arc<Table>, before: Option<&Self>) -> Self {
        let openapi = OpenApi::new(table.clone(), before.map(|b| &b.openapi));
        Self { table, discovery: OnceLock::new(), openapi }
    }
}

impl ApiHandler {
    /// A watch that asks for no timeout gets one between `min_request_timeout` and twice that.
    pub fn new(
        tables: Arc<Tables>,
        registry: Arc<Registry>,
        admission: admission::Chain,
        schema: Arc<Schema>,
        min_request_timeout: Duration,
        watch_metrics: WatchMetrics,
    ) -> Self {
        let documents = ArcSwap::from_pointee(Documents::new(tables.load(), None));
        Self {
            server: Arc::new(Server {
                tables,
                registry,
                admission,
                schema,
                documents,
                min_request_timeout,
                watch_metrics,
            }),
        }
    }

    /// Never fails: an error is a response with a Status. Warnings collected in the request's context become
    /// headers of it.
    ///
    /// A write runs in a task of its own: a client that goes away in the middle leaves it whole.
    pub async fn handle(&self, request: ApiRequest) -> Response {
        let ctx = request.ctx.clone();
        let result = if self.server.writes(&request) {
            let server = self.server.clone();
            match tokio::spawn(async move { server.dispatch(request).await }).await {
                Ok(result) => result,
                Err(error) => match error.try_into_panic() {
                    // The chain's panic guard words it.
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(error) => Err(Status::internal(error)),
                },
            }
        } else {
            self.server.dispatch(request).await
        };
        let mut response = match result {
            Ok(response) => response,
            Err(status) => responses::error(&status),
        };
        responses::add_warnings(&mut response, &ctx.take_warnings());
        response
    }
}

impl Server {
    /// A write to storage, as opposed to a read or a stream to somewhere else.
    fn writes(&self, request: &ApiRequest) -> bool {
        let info = &request.ctx.info;
        if !info.is_resource || matches!(info.verb.as_str(), "get" | "list" | "watch" | "proxy") {
            return false;
        }
        let table = self.tables.load();
        let streams = table
            .get(&info.group, &info.version, &info.resource)
            .and_then(|def| def.subresource(&info.subresource))
            // PodExecOptions, NodeProxyOptions ...: what is connected to, not written.
            .is_some_and(|sub| sub.kind.ends_with("Options"));
        !streams
    }

    /// The documents of the table as it is now. Those of a new table are made when somebody asks.
    fn documents(&self) -> Arc<Documents> {
        let documents = self.documents.load_full();
        let table = self.tables.load();
        if Arc::ptr_eq(&documents.table, &table) {
            return documents;
        }
        // Two requests at once may both make them; the loser's are dropped.
        let fresh = Arc::new(Documents::new(table, Some(&documents)));
        self.documents.store(fresh.clone());
        fresh
    }

    fn custom(&self, def: Arc<ResourceDef>, request: ApiRequest) -> SubresourceRequest {
        SubresourceRequest { def, admission: self.admission.clone(), request }
    }

    async fn dispatch(&self, request: ApiRequest) -> Result<Response, Status> {
        if !request.ctx.info.is_resource {
            if request.parts.uri.path().starts_with("/openapi/") {
                return self.documents().openapi.serve(&request.parts).await;
            }
            let documents = self.documents();
            let discovery = documents.discovery.get_or_init(|| Discovery::build(&documents.table));
            return discovery.serve(&request.parts);
        }
        let scope = Scope::resolve(self, &self.tables.load(), &request)?;
        if let Some(warning) = &scope.def.deprecation
            && scope.subresource().is_none_or(|sub| sub.kind == scope.def.kind)
        {
            scope.ctx.warn(warning.clone());
        }
        if let Some(custom) = &scope.def.custom
            && custom.terminating
            && scope.verb == "create"
        {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::forbidden(&scope.def.group, &scope.def.resource, &scope.name, why));
        }
        if let Some(sub) = scope.subresource() {
            if !sub.verbs.contains(&scope.verb) {
                return Err(scope.method_not_allowed());
            }
            if let SubresourceHandler::Custom(handler) = &sub.handler {
                let handler = handler.clone();
                return handler.serve(self.custom(scope.def, request)).await;
            }
        } else {
            // What is being deleted is still changed, so that finalizers can go; discovery does not say so.
            let finishing = scope.def.custom.is_some() && matches!(scope.verb.as_str(), "update" | "patch");
            if !scope.def.has_verb(&scope.verb) && !finishing {
                return Err(scope.method_not_allowed());
            }
            if let Some(handler) = scope.def.handler.clone() {
                // An answer that is never stored has no table and no metadata to show.
                if scope.verb == "create" {
                    negotiation::output(&request.parts.headers, false)?;
                }
                return handler.serve(self.custom(scope.def, request)).await;
            }
        }
        // Reads have no body; holding it would only keep it from the other threads.
        match scope.verb.as_str() {
            "get" => handlers::get::serve(&scope, &request.parts).await,
            "list" => handlers::list::serve(&scope, &request.parts).await,
            "watch" => handlers::watch::serve(&scope, &request.parts).await,
            "create" => handlers::create::serve(&scope, request).await,
            "update" => handlers::update::serve(&scope, request).await,
            "patch" => handlers::patch::serve(&scope, request).await,
            "delete" => handlers::delete::serve(&scope, request).await,
            "deletecollection" => handlers::delete_collection::serve(&scope, request).await,
            _ => Err(scope.method_not_allowed()),
        }
    }
}
