//! Writes of custom resources: scale, lists inside lists, versions that are served no more.

use super::apply::owned;
use super::*;

pub(super) const FOOS: &str = "/apis/example.com/v1/namespaces/n/foos";

/// Two versions, of which the second is served when asked.
fn definition(second_is_served: bool) -> Value {
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "size": {"type": "integer"},
            "groups": {"type": "object", "additionalProperties": set},
            "rows": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"],
                    "properties": {"name": {"type": "string"}, "tags": set}}}}},
        "status": {"type": "object", "properties": {"size": {"type": "integer"}}}}}});
    let scale = json!({"scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}});
    let version = |name: &str, served: bool| json!({"name": name, "served": served, "storage": name == "v1", "schema": schema, "subresources": scale});
    json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
        "versions": [version("v1", true), version("v2", second_is_served)]}})
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A server with the definition.
async fn custom_server() -> Harness {
    defined(server()).await
}

pub(super) async fn defined(mut server: Harness) -> Harness {
    server.definitions.take().expect("not started yet").start();
    let made = server.post(DEFINITIONS, definition(true)).await;
    assert_eq!(made.code, 201, "{}", made.body);
    established(&server, |_| true).await;
    server
}

/// Follows the definition until it is established and as it is wanted.
async fn established(server: &Harness, wanted: impl Fn(&Value) -> bool) {
    let response = server.raw(Method::GET, &format!("{DEFINITIONS}?watch=1"), &[], "").await;
    let mut lines = Lines { body: response.into_body(), buffer: Vec::new() };
    loop {
        let object = lines.next().await["object"].take();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_true = |c: &Value| c["type"] == "Established" && c["status"] == "True";
        if conditions.iter().any(is_true) && wanted(&object) {
            return;
        }
    }
}

pub(super) fn foo(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "x"}, "spec": spec})
}

#[tokio::test]
async fn a_scale_notes_who_owns_the_replicas() {
    let server = custom_server().await;
    let (path, scale) = (format!("{FOOS}/x"), format!("{FOOS}/x/scale"));
    let made = server.apply(&path, "fieldManager=one", &foo(json!({"size": 1}))).await;
    assert_eq!(made.code, 201, "{}", made.body);

    let wanted = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "x"},
        "spec": {"replicas": 3}});
    let refused = server.apply(&scale, "fieldManager=two", &wanted).await;
    assert_eq!(refused.code, 409, "{}", refused.body);
    assert_eq!(
        refused.body["message"],
        "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
    );
    let dry = server.apply(&scale, "fieldManager=two&force=true&dryRun=All", &wanted).await;
    assert_eq!((dry.code, &dry.body["spec"]["replicas"]), (200, &json!(3)));
    assert_eq!(server.get(&path).await.body["spec"]["size"], 1);
    let forced = server.apply(&scale, "fieldManager=two&force=true", &wanted).await;
    assert_eq!((forced.code, &forced.body["spec"]["replicas"]), (200, &json!(3)), "{}", forced.body);
    let object = server.get(&path).await.body;
    assert_eq!(object["spec"]["size"], 3);
    assert_eq!(owned(&object, "two"), &json!({"f:spec": {"f:size": {}}}));
    assert_eq!(owned(&object, "one"), &Value::Null);

    let patched = server
        .patch("merge-patch", &format!("{scale}?fieldManager=three"), json!({"spec": {"replicas": 5}}))
        .await;
    assert_eq!((patched.code, &patched.body["spec"]["replicas"]), (200, &json!(5)), "{}", patched.body);
    let object = server.get(&path).await.body;
    assert_eq!(owned(&object, "three"), &json!({"f:spec": {"f:size": {}}}));
}

#[tokio::test]
async fn a_scale_is_read_strictly() {
    let server = custom_server().await;
    let (path, scale) = (format!("{FOOS}/x"), format!("{FOOS}/x/scale"));
    server.apply(&path, "fieldManager=one", &foo(json!({}))).await;
    for (query, body, code, message) in [
        ("dryRun=Some", json!({"metadata": {"name": "x"}}), 422, "dryRun: Unsupported value: [\"Some\"]"),
        ("", json!({"kind": "Pod", "metadata": {"name": "x"}}), 400, "cannot be handled as a Scale"),
        ("", json!({"metadata": {"name": "y"}}), 400, "the name of the object (y) does not match"),
        ("", json!({"metadata": {"name": "x"}, "spec": {"replicas": "1"}}), 400, "cannot unmarshal string"),
        (
            "",
            json!({"metadata": {"name": "x"}, "spec": {"replicas": -1}}),
            422,
            ".spec.size: Invalid value: -1: should be a non-negative integer",
        ),
        ("", json!({"metadata": {"name": "x", "resourceVersion": "1"}}), 409, "the object has been modified"),
    ] {
        let answer = server.put(&format!("{scale}?{query}"), body).await;
        let said = answer.body["message"].as_str().unwrap_or_default();
        assert!(answer.code == code && said.contains(message), "{} {said}", answer.code);
    }
    // A patch that leaves unset what is unset says nothing.
    let nothing = server.patch("merge-patch", &scale, json!({"spec": {}})).await;
    assert_eq!(nothing.code, 400, "{}", nothing.body);
    assert_eq!(nothing.body["message"], "the spec replicas field \".spec.size\" cannot be empty");
    // Go's clients do not send a zero.
    let zero = server.put(&scale, json!({"metadata": {"name": "x"}, "spec": {}})).await;
    assert_eq!(zero.code, 200, "{}", zero.body);
    assert_eq!(server.get(&path).await.body["spec"]["size"], 0);
}

#[tokio::test]
async fn sets_inside_lists_and_maps_are_owned_item_by_item() {
    let server = custom_server().await;
    let path = format!("{FOOS}/x");
    let spec = |tag: &str| json!({"groups": {"g": [tag]}, "rows": [{"name": "r", "tags": [tag]}]});
    for manager in ["one", "two", "three"] {
        let done = server.apply(&path, &format!("fieldManager={manager}"), &foo(spec(manager))).await;
        assert!(matches!(done.code, 200 | 201), "{}", done.body);
    }
    let object = server.get(&path).await.body;
    assert_eq!(object["spec"]["groups"]["g"], json!(["one", "two", "three"]));
    assert_eq!(object["spec"]["rows"][0]["tags"], json!(["one", "two", "three"]));
    assert_eq!(
        owned(&object, "two"),
        &json!({"f:spec": {
        "f:groups": {"f:g": {".": {}, "v:\"two\"": {}}},
        "f:rows": {"k:{\"name\":\"r\"}": {".": {}, "f:name": {}, "f:tags": {"v:\"two\"": {}}}}}})
    );
    let dropped = server.apply(&path, "fieldManager=two", &foo(json!({}))).await;
    assert_eq!(dropped.body["spec"]["groups"]["g"], json!(["one", "three"]));
    assert_eq!(dropped.body["spec"]["rows"][0]["tags"], json!(["one", "three"]));
}

#[tokio::test]
async fn owners_in_a_version_that_is_served_no_more_are_kept() {
    let server = custom_server().await;
    let mut second = foo(json!({"groups": {"g": ["a"]}}));
    second["apiVersion"] = json!("example.com/v2");
    let in_second = "/apis/example.com/v2/namespaces/n/foos/x";
    let made = server.apply(in_second, "fieldManager=old", &second).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let path = format!("{DEFINITIONS}/foos.example.com");
    let patch = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    assert_eq!(server.patch("json-patch", &path, patch).await.code, 200);
    let mut gone = server.get(in_second).await;
    while gone.code != 404 {
        tokio::task::yield_now().await;
        gone = server.get(in_second).await;
    }
    let path = format!("{FOOS}/x");
    let changed = server.apply(&path, "fieldManager=new", &foo(json!({"groups": {"g": ["b"]}}))).await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    assert_eq!(
        owned(&changed.body, "old"),
        &json!({"f:spec": {"f:groups": {"f:g": {".": {}, "v:\"a\"": {}}}}})
    );
    let patch = json!({"spec": {"groups": {"g": ["b"]}}});
    let taken = server.patch("merge-patch", &path, patch).await;
    let left = json!({"f:spec": {"f:groups": {"f:g": {}}}});
    assert_eq!(owned(&taken.body, "old"), &left, "an item that is gone is nobody's");
}

/// Who takes the finalizer away by hand takes the definition from under its clean-up; the next of that name can be
/// deleted all the same.
#[tokio::test]
async fn a_definition_taken_away_by_hand_leaves_its_name_free() {
    let server = custom_server().await;
    let path = format!("{DEFINITIONS}/foos.example.com");
    let finalizer =
        json!({"metadata": {"finalizers": [crate::apiextensions::definition::CLEANUP_FINALIZER]}});
    assert_eq!(server.patch("merge-patch", &path, finalizer.clone()).await.code, 200);
    let held = json!({"apiVersion": "example.com/v1", "kind": "Foo",
        "metadata": {"name": "held", "finalizers": ["example.com/stays"]}});
    assert_eq!(server.post(FOOS, held).await.code, 201);
    assert_eq!(server.call(Method::DELETE, &path, &[], "").await.code, 200);
    let said = |reason: &'static str| {
        move |crd: &Value| {
            let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Terminating" && c["reason"] == reason)
        }
    };
    established(&server, said("InstanceDeletionInProgress")).await;
    let freed = server.patch("merge-patch", &path, json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(freed.code, 200, "{}", freed.body);
    assert_eq!(server.call(Method::GET, &path, &[], "").await.code, 404);

    assert_eq!(server.post(DEFINITIONS, definition(true)).await.code, 201);
    established(&server, |_| true).await;
    assert_eq!(server.patch("merge-patch", &path, finalizer).await.code, 200);
    let freed =
        server.patch("merge-patch", &format!("{FOOS}/held"), json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(freed.code, 200, "the instance outlived its definition: {}", freed.body);
    assert_eq!(server.call(Method::DELETE, &path, &[], "").await.code, 200);
    let gone = async {
        while server.call(Method::GET, &path, &[], "").await.code != 404 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("deleted");
}
