//! POST: what a body may be, and which name the object gets.

use super::*;

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
async fn what_is_in_the_way_is_told() {
    let server = server();
    let mut held = config_map("x");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    held["metadata"]["generateName"] = json!("x-");
    server.post(MAPS, held.clone()).await;
    let again = server.post(MAPS, held).await;
    assert_eq!(
        again.body["message"],
        "configmaps \"x\" already exists, the server was not able to generate a unique name for the object"
    );
    server.delete(&format!("{MAPS}/x"), Value::Null).await;
    let again = server.post(MAPS, config_map("x")).await;
    assert_eq!(again.code, 409);
    assert_eq!(again.body["message"], "object is being deleted: configmaps \"x\" already exists");
}

#[tokio::test]
async fn a_body_that_is_no_object_is_shown() {
    let server = server();
    let answer = server.call(Method::POST, MAPS, &[], "[1]").await;
    assert_eq!(
        answer.body["message"],
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" } (5b315d)"
    );
    let answer = server.call(Method::POST, MAPS, &[], "").await;
    assert!(answer.body["message"].as_str().is_some_and(|m| m.ends_with("(<empty>)")), "{}", answer.body);
}

#[tokio::test]
async fn entries_that_a_client_writes_are_checked() {
    let server = server();
    let entry = |manager: &str, subresource: &str| {
        let mut map = config_map("x");
        map["metadata"]["managedFields"] = json!([{"manager": manager, "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "subresource": subresource, "fieldsV1": {"f:data": {"f:old": {}}}}]);
        map
    };
    let cases = [
        (
            entry(&"m".repeat(129), ""),
            "metadata.managedFields[0].manager: Too long: may not be more than 128 bytes",
        ),
        (entry("a\u{7}", ""), "invalid character U+0007 (at position 1)"),
        (entry("a", &"s".repeat(257)), "subresource: Too long: may not be more than 256 bytes"),
    ];
    for (map, message) in cases {
        let answer = server.post(MAPS, map).await;
        let said = answer.body["message"].as_str().unwrap_or_default();
        assert!(answer.code == 422 && said.contains(message), "{} {said}", answer.code);
    }
}
