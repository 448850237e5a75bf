//! PATCH in its kinds; server-side apply has a room of its own.

use super::*;

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
    assert_eq!(merged.body["spec"]["containers"], json!([{"name": "c", "image": "j", "resources": {}}]));
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
async fn a_patch_is_judged_when_there_is_something_to_patch() {
    let server = server();
    server.post(MAPS, config_map("x")).await;
    let (path, missing) = (format!("{MAPS}/x"), format!("{MAPS}/none"));
    let merge = [("content-type", "application/merge-patch+json")];
    assert_eq!(server.call(Method::PATCH, &missing, &merge, "[").await.code, 404);
    assert_eq!(server.call(Method::PATCH, &path, &merge, "[").await.code, 400);
    for (kind, patch, code, message) in [
        (
            "merge-patch",
            "[]",
            400,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        ("merge-patch", "null", 400, "Invalid JSON Patch"),
        ("merge-patch", "", 400, "error decoding patch: unexpected end of JSON input"),
        (
            "strategic-merge-patch",
            "1",
            400,
            "json: cannot unmarshal number into Go value of type map[string]interface {}",
        ),
        (
            "json-patch",
            "{}",
            400,
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (
            "json-patch",
            r#"[{"op":"grow","path":"/data"}]"#,
            422,
            "the server rejected our request due to an error in our request",
        ),
        ("merge-patch", r#"{"kind":""}"#, 422, "Object 'Kind' is missing in"),
        (
            "strategic-merge-patch",
            r#"{"data":{"a":1}}"#,
            422,
            " \"\" is invalid: patch: Invalid value: \"map[data:map[a:1]]\": cannot convert int64 to string",
        ),
    ] {
        let media = format!("application/{kind}+json");
        let answer = server.call(Method::PATCH, &path, &[("content-type", &media)], patch).await;
        let said = answer.body["message"].as_str().unwrap_or_default();
        assert!(answer.code == code && said.contains(message), "{patch}: {} {said}", answer.code);
    }
    // A strategic merge is of the kind that it patches, whatever it says.
    let kind = json!({"kind": "Pod", "apiVersion": "v9", "data": {"a": "c"}});
    let done = server.patch("strategic-merge-patch", &path, kind).await;
    assert_eq!((done.code, done.body["kind"].as_str()), (200, Some("ConfigMap")), "{}", done.body);
    let added = json!([{"op": "replace", "path": "/data/new", "value": "d"}]);
    let done = server.patch("json-patch", &path, added).await;
    assert_eq!((done.code, &done.body["data"]), (200, &json!({"a": "c", "new": "d"})), "{}", done.body);
}
