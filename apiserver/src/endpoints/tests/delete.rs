//! DELETE of one and of many, and dry runs.

use super::*;

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
    assert_eq!(gone.body["metadata"]["deletionGracePeriodSeconds"], 0, "{}", gone.body);
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
