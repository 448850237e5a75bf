//! PUT, and views of an object that are written by themselves.

use super::*;

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
async fn an_update_names_the_object_of_its_path() {
    let server = server();
    server.post(MAPS, config_map("x")).await;
    let mut elsewhere = config_map("x");
    elsewhere["metadata"]["namespace"] = json!("m");
    let mut nameless = config_map("x");
    nameless["metadata"] = json!({});
    let mut other = config_map("x");
    other["metadata"]["uid"] = json!("u");
    let uid =
        server.get(&format!("{MAPS}/x")).await.body["metadata"]["uid"].as_str().expect("uid").to_owned();
    let conflict = format!(
        "Operation cannot be fulfilled on configmaps \"x\": StorageError: invalid object, Code: 4, Key: \
         /registry/configmaps/n/x, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in \
         precondition: u, UID in object meta: {uid}"
    );
    let cases = [
        (
            elsewhere,
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (nameless, 400, "the name of the object (x based on URL) was undeterminable: name must be provided"),
        (config_map("y"), 400, "the name of the object (y) does not match the name on the URL (x)"),
        (other, 409, conflict.as_str()),
    ];
    for (map, code, message) in cases {
        for query in ["", "?dryRun=All"] {
            let answer = server.put(&format!("{MAPS}/x{query}"), map.clone()).await;
            assert_eq!((answer.code, answer.body["message"].as_str()), (code, Some(message)), "{query}");
        }
    }
    let empty = server.put(&format!("{MAPS}/x?dryRun="), config_map("x")).await;
    assert_eq!(empty.code, 422, "an empty value is none that there is");
}

#[tokio::test]
async fn finalizers_say_whose_they_are() {
    let server = server();
    let with = |finalizer: &str| json!({"metadata": {"name": "x", "finalizers": [finalizer]}});
    let refused = server.post(MAPS, with("mine")).await;
    assert_eq!(refused.code, 422);
    let message = "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified";
    assert!(refused.body["message"].as_str().is_some_and(|said| said.contains(message)), "{}", refused.body);
    for standard in ["orphan", "foregroundDeletion", "kubernetes", "example.com/mine"] {
        let path = format!("{MAPS}?dryRun=All");
        assert_eq!(server.post(&path, with(standard)).await.code, 201, "{standard}");
    }
    let budgets = "/apis/policy/v1/namespaces/n/poddisruptionbudgets";
    assert_eq!(server.post(budgets, with("mine")).await.code, 201);
}
