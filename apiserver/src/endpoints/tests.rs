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

mod apply;

use super::{ApiHandler, responses};
use crate::admission::Chain;
use crate::cacher::{Cacher, CacherConfig, ObjectStore};
use crate::filters::request_info;
use crate::object::{Object, metadata_mut, name, str_at};
use crate::request::{ApiRequest, RequestContext, Response, UserInfo, full};
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
        };
        stores.insert(resource.id.clone(), Cacher::start(config, &tasks));
    }
    let echo: Arc<dyn Subresource> = Arc::new(Echo);
    let handlers = CustomHandlers::from([
        (GroupResource::new("", "pods/binding"), echo.clone()),
        (GroupResource::new("authentication.k8s.io", "tokenreviews"), echo),
    ]);
    let strategy = |_: &str, name: &str| -> Arc<dyn Strategy> { Arc::new(Rules { name: name.to_owned() }) };
    let table = Arc::new(Tables::new(Table::new(&strategy, handlers, &Enablement::default())));
    let handler = ApiHandler::new(
        table,
        Arc::new(Registry::new(stores)),
        Chain::default(),
        Arc::new(Schema::builtin()),
        Duration::from_secs(1800),
    );
    Harness { handler, stop }
}

impl Harness {
    async fn raw(&self, method: Method, uri: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        let (parts, body) =
            request.body(full(Bytes::copy_from_slice(body.as_bytes()))).expect("request").into_parts();
        let query = parts.uri.query().unwrap_or("").to_owned();
        let info = request_info::parse(&parts.method, parts.uri.path(), &query).expect("a known path");
        let ctx = Arc::new(RequestContext::new(info, UserInfo::default(), query));
        self.handler.handle(ApiRequest { ctx, parts, body }).await
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

const MAPS: &str = "/api/v1/namespaces/n/configmaps";
const PODS: &str = "/api/v1/namespaces/n/pods";

fn config_map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"a": "b"}})
}

fn pod(name: &str, node: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}})
}

#[tokio::test]
async fn an_object_lives_through_all_verbs() {
    let server = server();
    let made = server.post(MAPS, config_map("x")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["metadata"]["namespace"], "n");
    assert!(!made.body["metadata"]["uid"].as_str().expect("uid").is_empty());
    let again = server.post(MAPS, config_map("x")).await;
    assert_eq!((again.code, again.body["message"].as_str()), (409, Some("configmaps \"x\" already exists")));

    let got = server.get(&format!("{MAPS}/x")).await;
    assert_eq!((got.code, &got.body), (200, &made.body));
    let mut changed = got.body.clone();
    changed["data"]["a"] = json!("c");
    let put = server.put(&format!("{MAPS}/x"), changed.clone()).await;
    assert_eq!((put.code, &put.body["data"]["a"]), (200, &json!("c")));
    let stale = server.put(&format!("{MAPS}/x"), made.body.clone()).await;
    assert_eq!(stale.code, 409);
    assert_eq!(
        stale.body["message"],
        "Operation cannot be fulfilled on configmaps \"x\": the object has been modified; please apply your changes to the latest version and try again"
    );

    let gone = server.delete(&format!("{MAPS}/x"), Value::Null).await;
    assert_eq!((gone.code, gone.body["status"].as_str()), (200, Some("Success")));
    assert_eq!(gone.body["details"]["kind"], "configmaps");
    let missing = server.get(&format!("{MAPS}/x")).await;
    assert_eq!((missing.code, missing.body["reason"].as_str()), (404, Some("NotFound")));
}

#[tokio::test]
async fn create_checks_the_body_and_its_place() {
    let server = server();
    let cases = [
        (json!({"kind": "Pod"}), 400, "Pod in version \"v1\" cannot be handled as a ConfigMap"),
        (json!({"apiVersion": "apps/v1"}), 400, "the API version in the data (apps/v1) does not match"),
        (json!([1]), 400, "the object provided is unrecognized (must be of type ConfigMap)"),
        (
            json!({"metadata": {"name": "x", "namespace": "other"}}),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (json!({"metadata": {}}), 422, "metadata.name: Required value: name or generateName is required"),
        (json!({"metadata": {"name": "X_"}}), 422, "metadata.name: Invalid value: \"X_\""),
        (json!({"metadata": {"name": "x"}, "data": {"bad": "yes"}}), 422, "data.bad: Invalid value"),
        (
            json!({"metadata": {"name": "x"}, "data": {"a": 1}}),
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            json!({"metadata": {"name": "x", "resourceVersion": "7"}}),
            500,
            "resourceVersion should not be set on objects to be created",
        ),
    ];
    for (body, code, message) in cases {
        let answer = server.post(MAPS, body).await;
        assert_eq!(answer.code, code, "{}", answer.body);
        let said = answer.body["message"].as_str().expect("message");
        assert!(said.contains(message), "{said}");
    }
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    assert_eq!(server.call(Method::POST, MAPS, &protobuf, "k8s").await.code, 415);
}

#[tokio::test]
async fn unknown_fields_are_judged_as_asked() {
    let server = server();
    let body = r#"{"metadata":{"name":"x","name":"y"},"extra":1}"#;
    let strict = server.call(Method::POST, &format!("{MAPS}?fieldValidation=Strict"), &[], body).await;
    assert_eq!(strict.code, 400);
    assert_eq!(
        strict.body["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"metadata.name\", unknown field \"extra\""
    );
    let warned = server.call(Method::POST, MAPS, &[], body).await;
    assert_eq!((warned.code, warned.body.get("extra")), (201, None));
    let warnings: Vec<_> = warned.headers.get_all("warning").iter().collect();
    assert_eq!(
        warnings,
        ["299 - \"duplicate field \\\"metadata.name\\\"\"", "299 - \"unknown field \\\"extra\\\"\""]
    );
}

#[tokio::test]
async fn names_are_generated() {
    let server = server();
    let made = server.post(MAPS, json!({"metadata": {"generateName": "x-"}})).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert!(name(&made.body).starts_with("x-") && name(&made.body).len() == 7);
}

#[tokio::test]
async fn yaml_goes_both_ways() {
    let server = server();
    let yaml = "kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: x\ndata:\n  a: \"1\"\n";
    let headers = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let made = server.call(Method::POST, MAPS, &headers, yaml).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.headers["content-type"], "application/yaml");
    let text = made.body.as_str().expect("yaml is not json");
    let tree: Value = serde_saphyr::from_str(text).expect("yaml");
    assert_eq!(tree["data"]["a"], "1");
}

#[tokio::test]
async fn each_patch_applies() {
    let server = server();
    server.post(PODS, pod("p", "")).await;
    let path = format!("{PODS}/p");
    let merged =
        server.patch("merge-patch", &path, json!({"metadata": {"labels": {"app": null, "b": "c"}}})).await;
    assert_eq!((merged.code, &merged.body["metadata"]["labels"]), (200, &json!({"b": "c"})));
    let operations = json!([{"op": "test", "path": "/metadata/labels/b", "value": "c"},
        {"op": "replace", "path": "/metadata/labels/b", "value": "d"}]);
    let patched = server.patch("json-patch", &path, operations).await;
    assert_eq!((patched.code, &patched.body["metadata"]["labels"]["b"]), (200, &json!("d")));
    let failed =
        server.patch("json-patch", &path, json!([{"op": "test", "path": "/kind", "value": "x"}])).await;
    assert_eq!((failed.code, failed.body["reason"].as_str()), (422, Some("Invalid")));
    let strategic = json!({"spec": {"containers": [{"name": "c", "image": "j"}]}});
    let merged = server.patch("strategic-merge-patch", &path, strategic).await;
    assert_eq!(merged.body["spec"]["containers"], json!([{"name": "c", "image": "j"}]));
    assert_eq!(merged.body["metadata"]["generation"], 2);
    let same = server.patch("merge-patch", &path, json!({})).await;
    assert_eq!(same.body["metadata"]["resourceVersion"], merged.body["metadata"]["resourceVersion"]);

    let stale = server.patch("merge-patch", &path, json!({"metadata": {"resourceVersion": "1"}})).await;
    assert_eq!(stale.code, 409);
    let renamed = server.patch("merge-patch", &path, json!({"metadata": {"name": "q"}})).await;
    assert_eq!(renamed.code, 400, "{}", renamed.body);
    let wrong = server.patch("merge-patch", &path, json!({"spec": {"containers": 1}})).await;
    assert_eq!(wrong.code, 422);
    let missing = server.patch("merge-patch", &format!("{PODS}/none"), json!({})).await;
    assert_eq!(missing.code, 404);
    let apply = [("content-type", "application/apply-patch+cbor")];
    assert_eq!(server.call(Method::PATCH, &path, &apply, "{}").await.code, 415);
}

#[tokio::test]
async fn status_is_a_view_of_its_own() {
    let server = server();
    server.post(PODS, pod("p", "")).await;
    let path = format!("{PODS}/p/status");
    let change = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
    let patched = server.patch("merge-patch", &path, change).await;
    assert_eq!(patched.code, 200, "{}", patched.body);
    assert_eq!(patched.body["status"]["phase"], "Running");
    assert_eq!(patched.body["spec"]["nodeName"], "");
    assert_eq!(server.get(&path).await.body["status"]["phase"], "Running");
    assert_eq!(server.delete(&path, Value::Null).await.code, 405);
}

#[tokio::test]
async fn deletes_wait_for_grace_and_finalizers() {
    let server = server();
    server.post(PODS, pod("p", "node")).await;
    let path = format!("{PODS}/p");
    let pending = server.delete(&path, Value::Null).await;
    assert_eq!(pending.code, 200);
    assert_eq!(pending.body["metadata"]["deletionGracePeriodSeconds"], 30);
    let gone = server.delete(&path, json!({"gracePeriodSeconds": 0})).await;
    assert_eq!((gone.code, gone.body["kind"].as_str()), (200, Some("Pod")));
    assert_eq!(server.get(&path).await.code, 404);

    let mut held = config_map("h");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(MAPS, held).await;
    let path = format!("{MAPS}/h");
    let pending = server.delete(&path, Value::Null).await;
    assert!(pending.body["metadata"]["deletionTimestamp"].is_string(), "{}", pending.body);
    let added = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    assert_eq!(server.patch("merge-patch", &path, added).await.code, 422);
    let released = server.patch("merge-patch", &path, json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(released.code, 200, "{}", released.body);
    assert_eq!(server.get(&path).await.code, 404);

    server.post(MAPS, config_map("u")).await;
    let wrong = json!({"preconditions": {"uid": "other"}});
    let uid = server.get(&format!("{MAPS}/u")).await.body["metadata"]["uid"].clone();
    let refused = server.delete(&format!("{MAPS}/u"), wrong).await;
    assert_eq!(refused.code, 409);
    assert_eq!(
        refused.body["message"],
        format!(
            "Operation cannot be fulfilled on ConfigMap \"u\": the UID in the precondition (other) does not \
             match the UID in record ({}). The object might have been deleted and then recreated",
            uid.as_str().expect("uid")
        )
    );
    let stale = json!({"preconditions": {"resourceVersion": "1"}});
    let refused = server.delete(&format!("{MAPS}/u"), stale).await;
    let message = refused.body["message"].as_str().expect("message");
    assert!(message.contains("the ResourceVersion in the precondition (1) does not match"), "{message}");
    let nonsense = json!({"propagationPolicy": "Sideways"});
    assert_eq!(server.delete(&format!("{MAPS}/u"), nonsense).await.code, 422);
}

#[tokio::test]
async fn collections_are_deleted_by_selection() {
    let server = server();
    for name in ["a", "b", "c"] {
        server.post(PODS, pod(name, "")).await;
    }
    let deleted = server.delete(&format!("{PODS}?labelSelector=app+in+(a,b)"), Value::Null).await;
    assert_eq!((deleted.code, deleted.body["items"].as_array().map(Vec::len)), (200, Some(2)));
    let left = server.get(PODS).await;
    assert_eq!(left.body["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn dry_runs_leave_no_trace() {
    let server = server();
    let made = server.post(&format!("{MAPS}?dryRun=All"), config_map("x")).await;
    assert_eq!(made.code, 201);
    assert_eq!(server.get(&format!("{MAPS}/x")).await.code, 404);
    server.post(MAPS, config_map("x")).await;
    assert_eq!(server.post(&format!("{MAPS}?dryRun=All"), config_map("x")).await.code, 409);
    let uri = format!("{MAPS}/x?dryRun=All");
    let patched = server.patch("merge-patch", &uri, json!({"data": {"a": "z"}})).await;
    assert_eq!(patched.body["data"]["a"], "z");
    assert_eq!(server.delete(&uri, Value::Null).await.code, 200);
    assert_eq!(server.get(&format!("{MAPS}/x")).await.body["data"]["a"], "b");
}

#[tokio::test]
async fn updates_follow_the_strategy() {
    let server = server();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/n/leases/l";
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}});
    assert_eq!(server.put(leases, lease.clone()).await.code, 201);
    assert_eq!(server.put(leases, lease).await.code, 200);
    assert_eq!(server.put(&format!("{MAPS}/x"), config_map("x")).await.code, 404);
    assert_eq!(server.put(&format!("{MAPS}/y"), config_map("x")).await.code, 400);

    let secrets = "/api/v1/namespaces/n/secrets";
    let secret = json!({"metadata": {"name": "s"}, "data": {"k": "dg=="}});
    assert_eq!(server.post(secrets, secret.clone()).await.code, 201);
    let unconditional = server.put(&format!("{secrets}/s"), secret).await;
    assert_eq!(unconditional.code, 422);
    let said = unconditional.body["message"].as_str().expect("message");
    assert!(
        said.contains("metadata.resourceVersion: Invalid value: 0: must be specified for an update"),
        "{said}"
    );
    let service = server.post("/api/v1/namespaces/n/services", json!({"metadata": {"name": "s"}})).await;
    assert_eq!(service.body["spec"]["type"], "ClusterIP");
}

#[tokio::test]
async fn lists_are_joined_and_shaped() {
    let server = server();
    for name in ["a", "b", "c"] {
        server.post(PODS, pod(name, if name == "a" { "node" } else { "" })).await;
    }
    let list = server.get(PODS).await;
    assert_eq!(list.body["kind"], "PodList");
    assert_eq!(list.body["items"].as_array().map(Vec::len), Some(3));
    assert!(list.body["metadata"]["resourceVersion"].as_str().is_some_and(|v| v != "0"));
    let on_node = server.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode").await;
    assert_eq!(on_node.body["items"][0]["metadata"]["name"], "a");
    assert_eq!(on_node.body["items"].as_array().map(Vec::len), Some(1));

    let page = server.get(&format!("{PODS}?limit=2")).await;
    let token = page.body["metadata"]["continue"].as_str().expect("more").to_owned();
    assert_eq!(page.body["metadata"]["remainingItemCount"], 1);
    let rest = server.get(&format!("{PODS}?limit=2&continue={token}")).await;
    assert_eq!(rest.body["items"].as_array().map(Vec::len), Some(1), "{}", rest.body);

    let partial = [("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")];
    let partial = server.call(Method::GET, PODS, &partial, "").await;
    assert_eq!(partial.body["kind"], "PartialObjectMetadataList");
    assert!(partial.body["items"][0].get("spec").is_none());
    let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1,application/json")];
    let table = server.call(Method::GET, PODS, &table, "").await;
    assert_eq!(table.body["kind"], "Table");
    assert_eq!(table.body["columnDefinitions"][2]["name"], "Status");
    assert_eq!(table.body["rows"].as_array().map(Vec::len), Some(3));

    for (query, code, message) in [
        ("fieldSelector=spec.foo%3D1", 400, "field label not supported: spec.foo"),
        ("labelSelector=%3D%3D", 400, "unable to parse requirement"),
        ("resourceVersionMatch=Exact", 422, "resourceVersionMatch is forbidden unless"),
        (
            "resourceVersion=abc",
            400,
            "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv",
        ),
        ("watch=1&resourceVersion=abc", 500, "resourceVersion: Invalid value: \"abc\": strconv.ParseUint"),
        ("continue=nonsense!", 400, "invalid continue token: continue key is not valid"),
    ] {
        let answer = server.get(&format!("{PODS}?{query}")).await;
        assert_eq!(answer.code, code, "{query}: {}", answer.body);
        assert!(answer.body["message"].as_str().expect("message").contains(message), "{}", answer.body);
    }
    let unknown = server.get("/api/v1/configmaps?fieldSelector=data%3Dx").await;
    assert_eq!(
        unknown.body["message"],
        "\"data\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
}

#[tokio::test]
async fn large_lists_are_compressed_when_asked() {
    let server = server();
    for n in 0..40 {
        let mut map = config_map(&format!("m{n}"));
        map["data"]["a"] = json!("x".repeat(8 * 1024));
        assert_eq!(server.post(MAPS, map).await.code, 201);
    }
    let plain = server.get(MAPS).await;
    assert_eq!(plain.body["items"].as_array().map(Vec::len), Some(40));
    let response = server.raw(Method::GET, MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let bytes = response.into_body().collect().await.expect("body").to_bytes();
    let tree: Value = serde_json::from_reader(flate2::read::GzDecoder::new(bytes.as_ref())).expect("json");
    assert_eq!(tree, plain.body);
}

#[tokio::test]
async fn watches_tell_every_change_once() {
    let server = server();
    server.post(PODS, pod("a", "")).await;
    let version = server.get(PODS).await.body["metadata"]["resourceVersion"].as_str().expect("rv").to_owned();
    let uri = format!("{PODS}?watch=true&resourceVersion={version}&labelSelector=app%3Db");
    let response = server.raw(Method::GET, &uri, &[], "").await;
    assert_eq!(response.status(), 200);
    let mut lines = Lines { body: response.into_body(), buffer: Vec::new() };
    server.post(PODS, pod("b", "")).await;
    server.patch("merge-patch", &format!("{PODS}/b"), json!({"metadata": {"annotations": {"x": "y"}}})).await;
    server.delete(&format!("{PODS}/b"), Value::Null).await;
    for (kind, name) in [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "b")] {
        let event = lines.next().await;
        assert_eq!(
            (event["type"].as_str(), event["object"]["metadata"]["name"].as_str()),
            (Some(kind), Some(name))
        );
    }

    let uri = format!(
        "{PODS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let response = server.raw(Method::GET, &uri, &[], "").await;
    let mut lines = Lines { body: response.into_body(), buffer: Vec::new() };
    assert_eq!(lines.next().await["type"], "ADDED");
    let bookmark = lines.next().await;
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "Pod");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
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

#[tokio::test]
async fn events_have_two_faces() {
    let server = server();
    let events = "/apis/events.k8s.io/v1/namespaces/n/events";
    let event = json!({"metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p"}, "note": "hello",
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c"});
    let made = server.post(events, event).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(made.body["note"], "hello");
    let core = server.get("/api/v1/namespaces/n/events/e").await;
    assert_eq!(core.body["message"], "hello");
    assert_eq!(core.body["involvedObject"]["name"], "p");
    let list = server.get(&format!("{events}?fieldSelector=regarding.name%3Dp")).await;
    assert_eq!(list.body["items"][0]["regarding"]["name"], "p");
    assert_eq!(server.get(&format!("{events}?fieldSelector=involvedObject.name%3Dp")).await.code, 400);
    let patched = server.patch("merge-patch", &format!("{events}/e"), json!({"note": "bye"})).await;
    assert_eq!(patched.body["note"], "bye", "{}", patched.body);
    let missing = server.get(&format!("{events}/none")).await;
    assert_eq!(missing.body["message"], "events.events.k8s.io \"none\" not found");
}

#[tokio::test]
async fn custom_handlers_and_missing_ones() {
    let server = server();
    let bound = server.post(&format!("{PODS}/p/binding"), json!({})).await;
    assert_eq!((bound.code, bound.body["name"].as_str()), (201, Some("p")));
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    assert_eq!(server.post(reviews, json!({})).await.code, 201);
    assert_eq!(server.get(reviews).await.code, 405);
    assert_eq!(server.post(&format!("{PODS}/p/eviction"), json!({})).await.code, 404);
    assert_eq!(server.get("/api/v1/namespaces/n/nothings").await.code, 404);
    let method = server.call(Method::DELETE, "/api/v1/namespaces", &[], "").await;
    assert_eq!(method.code, 405);
    assert_eq!(method.body["message"], "the server does not allow this method on the requested resource");
}

#[tokio::test]
async fn discovery_has_both_forms() {
    let server = server();
    let groups = server.get("/apis").await;
    assert_eq!(groups.body["kind"], "APIGroupList");
    assert_eq!(groups.body["groups"][0]["name"], "apiregistration.k8s.io");
    assert_eq!(groups.body["groups"][1]["name"], "apps");
    let hpa = groups.body["groups"].as_array().expect("groups").iter().find(|g| g["name"] == "autoscaling");
    assert_eq!(hpa.expect("autoscaling")["preferredVersion"]["version"], "v2");
    let core = server.get("/api/v1").await;
    let pods = core.body["resources"].as_array().expect("list").iter().find(|r| r["name"] == "pods");
    assert_eq!(pods.expect("pods")["shortNames"], json!(["po"]));
    assert_eq!(server.get("/apis/apps/v1").await.body["groupVersion"], "apps/v1");
    assert_eq!(server.get("/apis/none").await.code, 404);

    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let aggregated = server.call(Method::GET, "/apis", &[("accept", accept)], "").await;
    assert_eq!(aggregated.body["kind"], "APIGroupDiscoveryList");
    let etag = aggregated.headers["etag"].to_str().expect("etag").to_owned();
    let cached = server.call(Method::GET, "/apis", &[("accept", accept), ("if-none-match", &etag)], "").await;
    assert_eq!(cached.code, 304);
}

#[tokio::test]
async fn openapi_says_what_clients_look_for() {
    let server = server();
    let index = server.get("/openapi/v3").await;
    let url = index.body["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("url").to_owned();
    let document = server.get(&url).await;
    assert_eq!(document.code, 200);
    let patch = &document.body["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    let parameters = patch["parameters"].as_array().expect("parameters");
    assert!(parameters.iter().any(|p| p["name"] == "fieldValidation"));
    let schemas = document.body["components"]["schemas"].as_object().expect("schemas");
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    // Every reference leads somewhere.
    let text = document.body.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a quote");
        assert!(schemas.contains_key(name), "{name}");
    }
    assert_eq!(server.get("/openapi/v3/apis/none/v1").await.code, 404);
}
