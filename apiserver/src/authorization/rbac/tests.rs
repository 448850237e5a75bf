use bytes::Bytes;
use serde_json::{Value, json};

use super::policy::Source;
use super::*;
use crate::authorization::follow::Index;
use crate::cacher::CachedObject;
use crate::storage::Revision;

fn object(source: Source, namespace: &str, name: &str, body: &Value) -> CachedObject {
    CachedObject {
        key: format!("/registry/{}/{namespace}/{name}", source.resource()),
        revision: Revision(1),
        namespace: namespace.into(),
        name: name.into(),
        uid: String::new(),
        labels: vec![],
        fields: vec![],
        bytes: Bytes::from(body.to_string()),
    }
}

fn rbac(objects: &[(Source, &str, &str, Value)]) -> Rbac {
    let rbac = Rbac::default();
    for (source, namespace, name, body) in objects {
        let feed = Feed { source: *source, policy: Arc::clone(&rbac.policy) };
        feed.put(&object(*source, namespace, name, body));
    }
    rbac
}

fn asks(user: &str, verb: &str, namespace: &str, resource: &str) -> Attributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        user: UserInfo { name: user.into(), groups: vec!["devs".into()], ..Default::default() },
        verb: verb.into(),
        is_resource: true,
        namespace: namespace.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        ..Default::default()
    }
}

fn view_binding() -> Rbac {
    rbac(&[
        (
            Source::ClusterRoles,
            "",
            "view",
            json!({"rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/log"]}]}),
        ),
        (
            Source::RoleBindings,
            "a",
            "devs-view",
            json!({"roleRef": {"kind": "ClusterRole", "name": "view"},
                "subjects": [{"kind": "Group", "name": "devs"}, {"kind": "ServiceAccount", "name": "bot"}]}),
        ),
    ])
}

#[tokio::test]
async fn a_role_binding_holds_in_its_namespace_only() {
    let rbac = view_binding();
    let verdict = rbac.authorize(&asks("jane", "list", "a", "pods")).await;
    assert!(verdict.allowed());
    assert_eq!(
        verdict.reason,
        r#"RBAC: allowed by RoleBinding "devs-view/a" of ClusterRole "view" to Group "devs""#
    );
    assert!(!rbac.authorize(&asks("jane", "list", "b", "pods")).await.allowed());
    assert!(!rbac.authorize(&asks("jane", "list", "", "pods")).await.allowed());
    assert!(!rbac.authorize(&asks("jane", "delete", "a", "pods")).await.allowed());
    assert!(!rbac.authorize(&asks("jane", "get", "a", "pods/exec")).await.allowed());
    assert!(rbac.authorize(&asks("jane", "get", "a", "pods/log")).await.allowed());
}

#[tokio::test]
async fn a_service_account_subject_defaults_to_the_binding_namespace() {
    let rbac = view_binding();
    let mut attributes = asks("system:serviceaccount:a:bot", "get", "a", "pods");
    attributes.user.groups.clear();
    assert!(rbac.authorize(&attributes).await.allowed());
    attributes.user.name = "system:serviceaccount:b:bot".into();
    assert!(!rbac.authorize(&attributes).await.allowed());
}

#[tokio::test]
async fn a_missing_role_is_named_in_the_reason() {
    let rbac = rbac(&[(
        Source::ClusterRoleBindings,
        "",
        "b",
        json!({"roleRef": {"kind": "ClusterRole", "name": "gone"},
            "subjects": [{"kind": "User", "name": "jane"}]}),
    )]);
    let verdict = rbac.authorize(&asks("jane", "get", "", "nodes")).await;
    assert_eq!(verdict.decision, crate::authorization::Decision::NoOpinion);
    assert_eq!(verdict.reason, r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#);
}

#[tokio::test]
async fn a_removed_binding_stops_holding() {
    let rbac = view_binding();
    let feed = Feed { source: Source::RoleBindings, policy: Arc::clone(&rbac.policy) };
    feed.remove("/registry/rolebindings/a/devs-view");
    assert!(!rbac.authorize(&asks("jane", "list", "a", "pods")).await.allowed());
}

#[test]
fn urls_match_by_prefix() {
    let rule = PolicyRule {
        verbs: vec!["get".into()],
        non_resource_urls: vec!["/healthz".into(), "/apis/*".into()],
        ..Default::default()
    };
    let allows = |path: &str| {
        let verb = "get".into();
        rule_allows(&Attributes { verb, path: path.into(), ..Default::default() }, &rule)
    };
    assert!(allows("/healthz"));
    assert!(allows("/apis/apps"));
    assert!(!allows("/healthz/ping"));
    assert!(!allows("/apis"));
}
