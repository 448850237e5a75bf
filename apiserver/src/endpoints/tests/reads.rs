//! GET, LIST and WATCH, in every shape.

use super::*;

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
