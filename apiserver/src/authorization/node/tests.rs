use bytes::Bytes;
use serde_json::{Value, json};

use super::graph::Source;
use super::*;
use crate::authorization::follow::Index;
use crate::cacher::CachedObject;
use crate::storage::Revision;

fn authorizer(objects: &[(Source, &str, &str, Value)]) -> NodeAuthorizer {
    let graph = Arc::<RwLock<Graph>>::default();
    for (source, namespace, name, body) in objects {
        Feed { source: *source, graph: Arc::clone(&graph) }.put(&CachedObject {
            key: format!("{source:?}/{namespace}/{name}"),
            revision: Revision(1),
            namespace: (*namespace).into(),
            name: (*name).into(),
            uid: "u".into(),
            labels: vec![],
            fields: vec![],
            bytes: Bytes::from(body.to_string()),
        });
    }
    NodeAuthorizer { graph, rules: vec![] }
}

fn node_asks(node: &str, verb: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
    Attributes {
        user: UserInfo {
            name: format!("system:node:{node}"),
            groups: vec![NODES_GROUP.into()],
            ..Default::default()
        },
        verb: verb.into(),
        is_resource: true,
        namespace: namespace.into(),
        resource: resource.into(),
        name: name.into(),
        ..Default::default()
    }
}

fn pod() -> Value {
    json!({"spec": {
        "nodeName": "n1", "serviceAccountName": "web",
        "volumes": [{"name": "s", "secret": {"secretName": "tls"}},
            {"name": "p", "projected": {"sources": [{"configMap": {"name": "root-ca"}}, {"secret": {"name": "key"}}]}},
            {"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
        "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env-key"}}}],
            "envFrom": [{"configMapRef": {"name": "env"}}]}]
    }})
}

#[tokio::test]
async fn a_node_reads_what_its_pods_use_and_nothing_else() {
    let authorizer = authorizer(&[
        (Source::Pods, "a", "web", pod()),
        (
            Source::Volumes,
            "",
            "pv",
            json!({"spec": {"claimRef": {"namespace": "a", "name": "data"},
                "csi": {"nodePublishSecretRef": {"name": "csi", "namespace": "b"}}}}),
        ),
    ]);
    for (resource, namespace, name) in [
        ("secrets", "a", "tls"),
        ("secrets", "a", "key"),
        ("secrets", "a", "env-key"),
        ("secrets", "b", "csi"),
        ("configmaps", "a", "root-ca"),
        ("configmaps", "a", "env"),
        ("persistentvolumeclaims", "a", "data"),
        ("persistentvolumes", "", "pv"),
        ("serviceaccounts", "a", "web"),
        ("pods", "a", "web"),
    ] {
        let own = node_asks("n1", "get", resource, namespace, name);
        assert!(authorizer.authorize(&own).await.allowed(), "{resource} {name}");
        let other = authorizer.authorize(&node_asks("n2", "get", resource, namespace, name)).await;
        assert!(!other.allowed(), "{resource} {name}");
        assert_eq!(other.reason, "no relationship found between node 'n2' and this object");
    }
    assert!(!authorizer.authorize(&node_asks("n1", "get", "secrets", "b", "tls")).await.allowed());
    let all = authorizer.authorize(&node_asks("n1", "list", "secrets", "a", "")).await;
    assert_eq!(all.reason, "No Object name found");
}

#[tokio::test]
async fn a_node_lists_its_own_pods_only() {
    let authorizer = authorizer(&[]);
    let mut attributes = node_asks("n1", "list", "pods", "", "");
    assert!(!authorizer.authorize(&attributes).await.allowed());
    attributes.field_selector = "spec.nodeName=n2".into();
    assert!(!authorizer.authorize(&attributes).await.allowed());
    attributes.field_selector = "spec.nodeName=n1".into();
    assert!(authorizer.authorize(&attributes).await.allowed());
}

#[tokio::test]
async fn a_mirror_pod_grants_nothing() {
    let mut mirror = pod();
    mirror["metadata"] = json!({"annotations": {"kubernetes.io/config.mirror": "x"}});
    let authorizer = authorizer(&[(Source::Pods, "a", "web", mirror)]);
    assert!(!authorizer.authorize(&node_asks("n1", "get", "secrets", "a", "tls")).await.allowed());
    assert!(authorizer.authorize(&node_asks("n1", "get", "pods", "a", "web")).await.allowed());
}
