//! The whole pipeline in process, over the memory store: each verb, each patch, each option that changes them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::shutdown::{CancellationToken, Tasks};
use common::status::{FieldErrors, Status};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

mod admission;
mod apply;
mod create;
mod custom;
mod delete;
mod documents;
mod encodings;
mod fuzzed;
mod patch;
mod reads;
mod update;

use super::{ApiHandler, responses};
use crate::admission::Chain;
use crate::apiextensions::Controller;
use crate::cacher::{Cacher, CacherConfig, ObjectStore};
use crate::filters::request_info;
use crate::object::{Object, metadata_mut, name, str_at};
use crate::request::{ApiRequest, Body, RequestContext, Response, UserInfo, full};
use crate::resources::schema::Schema;
use crate::resources::{
    CustomHandlers, Enablement, GroupResource, Registry, Strategy, Subresource, SubresourceRequest, Table,
    Tables, stored,
};
use crate::storage::memory::MemoryStore;

/// Rules with the shape of real ones: a status of its own, a generation, grace for scheduled pods.
struct Rules {
    name: String,
}

impl Strategy for Rules {
    fn default(&self, object: &mut Object) {
        if self.name == "services" {
            crate::object::map_at_mut(object, &["spec"]).entry("type").or_insert(json!("ClusterIP"));
        }
    }

    fn prepare_for_create(&self, object: &mut Object) {
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
        metadata_mut(object).insert("generation".into(), 1.into());
    }

    fn validate(&self, object: &Object) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if str_at(object, &["data", "bad"]) == "yes" {
            errors.invalid("data.bad", "yes", "is bad");
        }
        errors
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object) {
        let (from, to) = if self.name.ends_with("/status") { ("spec", old) } else { ("status", old) };
        let carried = to.get(from).cloned();
        if let Some(map) = object.as_object_mut() {
            match carried {
                Some(value) => map.insert(from.to_owned(), value),
                None => map.remove(from),
            };
        }
        if object.get("spec") != old.get("spec") {
            let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
            metadata_mut(object).insert("generation".into(), (generation + 1).into());
        }
    }

    fn validate_update(&self, object: &Object, _old: &Object) -> FieldErrors {
        self.validate(object)
    }

    fn allow_create_on_update(&self) -> bool {
        self.name == "leases"
    }

    fn allow_unconditional_update(&self) -> bool {
        self.name != "secrets"
    }

    fn graceful_delete_seconds(&self, object: &Object, requested: Option<i64>) -> Option<i64> {
        let scheduled = !str_at(object, &["spec", "nodeName"]).is_empty();
        (self.name == "pods" && scheduled).then(|| requested.unwrap_or(30))
    }
}

struct Echo;

#[async_trait]
impl Subresource for Echo {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let body = json!({"kind": request.def.kind, "name": request.ctx().info.name});
        Ok(responses::respond(201, "application/json", body.to_string().into()))
    }
}

struct Harness {
    handler: ApiHandler,
    stop: CancellationToken,
    /// What follows the definitions of custom resources needs, until it is started.
    definitions: Option<Controller>,
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Answer {
    code: u16,
    headers: http::HeaderMap,
    body: Value,
}

fn server() -> Harness {
    server_with(Chain::default())
}

fn server_with(chain: Chain) -> Harness {
    let stop = CancellationToken::new();
    let tasks = Tasks::new(stop.clone());
    let store = MemoryStore::start(&tasks);
    let mut stores: HashMap<GroupResource, Arc<dyn ObjectStore>> = HashMap::new();
    for resource in stored() {
        let config = CacherConfig {
            store: store.clone(),
            prefix: format!("/registry/{}/", resource.storage_prefix),
            group: resource.id.group.clone(),
            resource: resource.id.resource.clone(),
            kind: resource.kind.to_owned(),
            namespaced: resource.namespaced,
            selectable_fields: resource.selectable_fields,
            selectable_field_names: resource.selectable_field_names,
            custom: None,
            metrics: crate::cacher::CacheMetrics::new(&prometheus::Registry::new()).expect("fresh names"),
        };
        stores.insert(resource.id.clone(), Cacher::start(config, &tasks));
    }
    let echo: Arc<dyn Subresource> = Arc::new(Echo);
    let handlers = CustomHandlers::from([
        (GroupResource::new("", "pods/binding"), echo.clone()),
        (GroupResource::new("authentication.k8s.io", "tokenreviews"), echo),
    ]);
    let strategy = |_: &str, name: &str| -> Arc<dyn Strategy> { Arc::new(Rules { name: name.to_owned() }) };
    let tables = Arc::new(Tables::new(Table::new(&strategy, handlers, &Enablement::default())));
    let (registry, schema) = (Arc::new(Registry::new(stores)), Arc::new(Schema::builtin()));
    let definitions = Controller {
        definitions: registry.store("apiextensions.k8s.io", "customresourcedefinitions").clone(),
        tables: tables.clone(),
        store,
        prefix: "/registry".to_owned(),
        schema: schema.clone(),
        metrics: crate::cacher::CacheMetrics::new(&prometheus::Registry::new()).expect("fresh names"),
        tasks,
    };
    let handler = ApiHandler::new(
        tables,
        registry,
        chain,
        schema,
        Duration::from_secs(1800),
        super::WatchMetrics::new(&prometheus::Registry::new()).expect("fresh names"),
    );
    Harness { handler, stop, definitions: Some(definitions) }
}

impl Harness {
    async fn raw(&self, method: Method, uri: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        let request = request.body(full(Bytes::copy_from_slice(body.as_bytes()))).expect("request");
        self.send(request).await.expect("a known path")
    }

    /// `None` when the path is none that could be routed here.
    async fn send(&self, request: http::Request<Body>) -> Option<Response> {
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or("").to_owned();
        let info = request_info::parse(&parts.method, parts.uri.path(), &query).ok()?;
        let ctx = Arc::new(RequestContext::new(info, UserInfo::default(), query));
        Some(self.handler.handle(ApiRequest { ctx, parts, body }).await)
    }

    async fn call(&self, method: Method, uri: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let response = self.raw(method, uri, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("body").to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, uri: &str) -> Answer {
        self.call(Method::GET, uri, &[], "").await
    }

    async fn post(&self, uri: &str, body: Value) -> Answer {
        self.call(Method::POST, uri, &[], &body.to_string()).await
    }

    async fn put(&self, uri: &str, body: Value) -> Answer {
        self.call(Method::PUT, uri, &[], &body.to_string()).await
    }

    async fn patch(&self, kind: &str, uri: &str, body: Value) -> Answer {
        let media = format!("application/{kind}+json");
        self.call(Method::PATCH, uri, &[("content-type", &media)], &body.to_string()).await
    }

    async fn delete(&self, uri: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.call(Method::DELETE, uri, &[], &body).await
    }
}

fn table() -> Table {
    let strategy = |_: &str, name: &str| -> Arc<dyn Strategy> { Arc::new(Rules { name: name.to_owned() }) };
    Table::new(&strategy, CustomHandlers::new(), &Enablement::default())
}

const MAPS: &str = "/api/v1/namespaces/n/configmaps";
const PODS: &str = "/api/v1/namespaces/n/pods";

fn config_map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"a": "b"}})
}

fn pod(name: &str, node: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}})
}

struct Lines {
    body: crate::request::Body,
    buffer: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).expect("a line of json");
            }
            let frame = self.body.frame().await.expect("the stream goes on").expect("no error");
            self.buffer.extend_from_slice(&frame.into_data().expect("data"));
        }
    }
}
