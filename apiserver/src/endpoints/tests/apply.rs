//! Server-side apply and the ownership that other writes note, through the whole pipeline.

use futures::future::join_all;

use super::*;
use crate::authorization::{Attributes, Authorizer, Verdict};

const APPLY: [(&str, &str); 1] = [("content-type", "application/apply-patch+yaml")];
const SERVICES: &str = "/api/v1/namespaces/n/services";

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
}

impl Harness {
    pub(super) async fn apply(&self, uri: &str, query: &str, config: &Value) -> Answer {
        self.call(Method::PATCH, &format!("{uri}?{query}"), &APPLY, &config.to_string()).await
    }
}

pub(super) fn owned<'o>(object: &'o Value, manager: &str) -> &'o Value {
    let entries = object["metadata"]["managedFields"].as_array().expect("entries");
    entries.iter().find(|e| e["manager"] == manager).map_or(&Value::Null, |e| &e["fieldsV1"])
}

#[tokio::test]
async fn apply_creates_merges_and_drops() {
    let server = server();
    let path = format!("{MAPS}/x");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  a: \"1\"\n  b: \"2\"\n";
    let made = server.call(Method::PATCH, &format!("{path}?fieldManager=one"), &APPLY, yaml).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(owned(&made.body, "one"), &json!({"f:data": {"f:a": {}, "f:b": {}}}));
    let again = server.call(Method::PATCH, &format!("{path}?fieldManager=one"), &APPLY, yaml).await;
    assert_eq!((again.code, &again.body), (200, &made.body), "nothing changes");

    let other = server.apply(&path, "fieldManager=two", &map(json!({"b": "2", "c": "3"}))).await;
    assert_eq!(other.code, 200, "{}", other.body);
    let dropped = server.apply(&path, "fieldManager=one", &map(json!({"a": "0"}))).await;
    assert_eq!(dropped.body["data"], json!({"a": "0", "b": "2", "c": "3"}), "b is shared");
    let dropped = server.apply(&path, "fieldManager=two", &map(json!({}))).await;
    assert_eq!(dropped.body["data"], json!({"a": "0"}));

    let conflict = server.apply(&path, "fieldManager=two", &map(json!({"a": "9"}))).await;
    assert_eq!((conflict.code, conflict.body["reason"].as_str()), (409, Some("Conflict")));
    assert_eq!(conflict.body["message"], "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    let dry = server.apply(&path, "fieldManager=two&force=true&dryRun=All", &map(json!({"a": "9"}))).await;
    assert_eq!((dry.code, &dry.body["data"]["a"]), (200, &json!("9")));
    assert_eq!(server.get(&path).await.body["data"]["a"], "0");
    let forced = server.apply(&path, "fieldManager=two&force=true", &map(json!({"a": "9"}))).await;
    assert_eq!((forced.code, &forced.body["data"]["a"]), (200, &json!("9")));
    assert_eq!(owned(&forced.body, "one"), &Value::Null);
}

#[tokio::test]
async fn apply_checks_what_it_is_given() {
    let server = server();
    let path = format!("{MAPS}/x");
    let mut with_uid = map(json!({}));
    with_uid["metadata"]["uid"] = json!("u");
    let mut elsewhere = map(json!({}));
    elsewhere["metadata"]["namespace"] = json!("other");
    let mut nameless = map(json!({}));
    nameless["metadata"] = json!({});
    let cases = [
        (
            "",
            map(json!({})),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (
            "fieldManager=a%07b",
            map(json!({})),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\u0007b\": invalid character U+0007 (at position 1)",
        ),
        (
            "fieldManager=a",
            json!({"apiVersion": "v1", "kind": "Pod"}),
            400,
            "invalid object type: /v1, Kind=Pod",
        ),
        (
            "fieldManager=a",
            with_uid,
            409,
            "Operation cannot be fulfilled on configmaps \"x\": uid mismatch: the provided object specified uid u, and no existing object was found",
        ),
        (
            "fieldManager=a",
            elsewhere,
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "fieldManager=a",
            nameless,
            400,
            "the name of the object (x based on URL) was undeterminable: name must be provided",
        ),
        (
            "fieldManager=a",
            map(json!({"a": 1})),
            500,
            "failed to create typed patch object (/x; /v1, Kind=ConfigMap): .data.a: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            "fieldManager=a",
            map(json!({"bad": "yes"})),
            422,
            "ConfigMap \"x\" is invalid: data.bad: Invalid value: \"yes\": is bad",
        ),
    ];
    for (query, config, code, message) in cases {
        let answer = server.apply(&path, query, &config).await;
        assert_eq!((answer.code, answer.body["message"].as_str()), (code, Some(message)));
    }
    assert_eq!(server.get(&path).await.code, 404);
    let stranger = server.apply(&format!("{MAPS}/y"), "fieldManager=a", &map(json!({}))).await;
    assert_eq!(stranger.code, 400);
    let missing = server
        .apply(
            &format!("{PODS}/p/status"),
            "fieldManager=a",
            &json!({"apiVersion": "v1",
        "kind": "Pod", "metadata": {"name": "p"}, "status": {"phase": "Running"}}),
        )
        .await;
    assert_eq!(missing.code, 404, "{}", missing.body);
    let forced = server.patch("merge-patch", &format!("{path}?force=true"), json!({})).await;
    assert_eq!(forced.code, 422);
}

#[tokio::test]
async fn apply_respects_a_given_version() {
    let server = server();
    let path = format!("{MAPS}/x");
    let made = server.apply(&path, "fieldManager=a", &map(json!({"a": "1"}))).await;
    let mut config = map(json!({"a": "2"}));
    config["metadata"]["resourceVersion"] = made.body["metadata"]["resourceVersion"].clone();
    assert_eq!(server.apply(&path, "fieldManager=a", &config).await.code, 200);
    assert_eq!(server.apply(&path, "fieldManager=a", &config).await.code, 409, "stale by now");
}

#[tokio::test]
async fn every_write_notes_its_fields() {
    let server = server();
    let port = |number: u16| json!({"port": number, "protocol": "TCP"});
    let made = server
        .post(
            &format!("{SERVICES}?fieldManager=maker"),
            json!({"metadata": {"name": "s"}, "spec": {"ports": [port(80)]}}),
        )
        .await;
    assert_eq!(made.code, 201, "{}", made.body);
    let port_fields = json!({".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}});
    assert_eq!(
        owned(&made.body, "maker"),
        &json!({"f:spec": {"f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": port_fields}, "f:type": {}}})
    );
    let path = format!("{SERVICES}/s");
    let patch = json!({"spec": {"externalName": "e"}});
    let patched = server.patch("merge-patch", &format!("{path}?fieldManager=patcher"), patch).await;
    assert_eq!(owned(&patched.body, "patcher"), &json!({"f:spec": {"f:externalName": {}}}));
    let same = server.put(&format!("{path}?fieldManager=nobody"), patched.body.clone()).await;
    assert_eq!(same.body, patched.body, "no change, no new version");
    let status =
        json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}, "spec": {"type": "NodePort"}});
    let shown = server.patch("merge-patch", &format!("{path}/status?fieldManager=lb"), status).await;
    let entries = shown.body["metadata"]["managedFields"].as_array().expect("entries");
    let entry = entries.iter().find(|e| e["manager"] == "lb").expect("lb");
    assert_eq!(entry["subresource"], "status");
    let mut reset = shown.body.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    let reset = server.put(&path, reset).await;
    assert!(reset.body["metadata"].get("managedFields").is_none());
}

/// Lets nobody create.
struct NoCreation;

#[async_trait]
impl Authorizer for NoCreation {
    async fn authorize(&self, attributes: &Attributes) -> Verdict {
        if attributes.verb == "create" { Verdict::deny("") } else { Verdict::allow("") }
    }

    fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> crate::authorization::Rules {
        crate::authorization::Rules::default()
    }
}

#[tokio::test]
async fn an_apply_that_creates_needs_the_right_to_create() {
    let server = server();
    let apply = async |config: Value| {
        let uri = format!("{MAPS}/x?fieldManager=a");
        let request = http::Request::builder().method(Method::PATCH).uri(&uri).header(APPLY[0].0, APPLY[0].1);
        let (parts, body) = request.body(full(config.to_string())).expect("request").into_parts();
        let query = "fieldManager=a".to_owned();
        let info = request_info::parse(&parts.method, parts.uri.path(), &query).expect("a known path");
        let mut ctx = RequestContext::new(info, UserInfo::default(), query);
        ctx.authorizer = Some(Arc::new(NoCreation));
        server.handler.handle(ApiRequest { ctx: Arc::new(ctx), parts, body }).await.status().as_u16()
    };
    assert_eq!(apply(map(json!({"a": "1"}))).await, 403);
    server.post(MAPS, map(json!({"a": "1"}))).await;
    assert_eq!(apply(map(json!({"b": "1"}))).await, 200);
}

#[tokio::test]
async fn operations_are_read_strictly_when_asked() {
    let server = server();
    server.post(MAPS, map(json!({"a": "1"}))).await;
    let path = format!("{MAPS}/x");
    let patch = json!([{"op": "add", "path": "/data/b", "value": "2", "foo": 1}]);
    let strict = server.patch("json-patch", &format!("{path}?fieldValidation=Strict"), patch.clone()).await;
    assert_eq!(strict.code, 422);
    let message = strict.body["message"].as_str().expect("message");
    assert!(message.ends_with("strict decoding error: json patch unknown field \"[0].foo\""), "{message}");
    let warned = server.patch("json-patch", &path, patch).await;
    assert_eq!((warned.code, warned.headers.contains_key("warning")), (200, true));
    let mut copies = vec![json!({"op": "add", "path": "/data", "value": {"a": "x".repeat(1000)}})];
    copies.extend((0..40).map(|i| json!({"op": "copy", "from": "/data", "path": format!("/data/k{i}")})));
    assert_eq!(server.patch("json-patch", &path, copies.into()).await.code, 422, "grows without end");
}

/// Many clients at once, each with a name and a key of its own, and one key that all agree on.
#[tokio::test]
async fn many_managers_end_in_the_right_ownership() {
    const CLIENTS: usize = 16;
    let server = server();
    let path = format!("{MAPS}/x");
    let apply = |client: usize, value: usize| {
        let config = map(json!({(format!("k{client}")): value.to_string(), "shared": "s"}));
        let (server, path) = (&server, &path);
        async move {
            loop {
                let answer = server.apply(path, &format!("fieldManager=m{client}"), &config).await;
                // A write that lost too often says so; its client tries again.
                if answer.code != 409 {
                    assert!(matches!(answer.code, 200 | 201), "{}", answer.body);
                    return;
                }
            }
        }
    };
    join_all((0..CLIENTS).map(|client| async move {
        for value in 0..3 {
            apply(client, value).await;
        }
    }))
    .await;
    let end = server.get(&path).await.body;
    let mut data = json!({"shared": "s"});
    for client in 0..CLIENTS {
        data[format!("k{client}")] = json!("2");
        let fields = json!({"f:data": {(format!("f:k{client}")): {}, "f:shared": {}}});
        assert_eq!(owned(&end, &format!("m{client}")), &fields);
    }
    assert_eq!(end["data"], data);
    for client in 0..CLIENTS {
        server.apply(&path, &format!("fieldManager=m{client}"), &map(json!({}))).await;
    }
    let end = server.get(&path).await.body;
    assert!(
        end.get("data").is_none_or(|data| data.as_object().is_none_or(serde_json::Map::is_empty)),
        "{end}"
    );
}
