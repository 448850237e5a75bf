//! What says which resources there are, and how what is not there is answered.

use super::*;

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
