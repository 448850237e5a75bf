use std::sync::Arc;

use common::quota::Evaluator;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ResourceQuota;
use super::check::{Request, check};
use super::configuration::{Configuration, LimitedResource};
use crate::admission::testing::{Cluster, attributes, context, named, put};
use crate::admission::{Operation, Plugin};
use crate::resources::{GroupResource, Registry};

fn quota(name: &str, hard: Value, used: Value, scopes: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"hard": hard, "scopes": scopes},
        "status": {"hard": hard, "used": used}})
}

fn pod(requests: Value) -> Value {
    named("Pod", "p", json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}}))
}

fn outcome(
    quotas: &[Value],
    (resource, object): (&str, &Value),
    old: Option<&Value>,
    limited: &[LimitedResource],
) -> String {
    let request = Request {
        evaluator: Evaluator::of("", resource).expect("counted"),
        resource: &GroupResource::new("", resource),
        object,
        old,
        status_only: false,
        now: Timestamp::UNIX_EPOCH,
    };
    match check(quotas, &request, limited) {
        Ok(names) => names.join(","),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn refusals_are_worded_as_upstream() {
    let cpu = |used: &str| {
        quota("q", json!({"cpu": "2", "pods": "3"}), json!({"cpu": used, "pods": "1"}), json!([]))
    };
    let one = pod(json!({"cpu": "1"}));
    assert_eq!(outcome(&[cpu("1")], ("pods", &one), None, &[]), "q");
    assert_eq!(
        outcome(&[cpu("1500m")], ("pods", &one), None, &[]),
        "exceeded quota: q, requested: cpu=1, used: cpu=1500m, limited: cpu=2"
    );
    assert_eq!(
        outcome(&[cpu("0")], ("pods", &pod(json!({}))), None, &[]),
        "failed quota: q: must specify cpu for: c"
    );
    let unknown = quota("q", json!({"pods": "3", "count/pods": "4"}), json!({"pods": "0"}), json!([]));
    assert_eq!(
        outcome(&[unknown], ("pods", &one), None, &[]),
        "status unknown for quota: q, resources: count/pods,pods"
    );
    assert_eq!(
        outcome(&[cpu("0")], ("pods", &pod(json!({"cpu": "-1"}))), None, &[]),
        "quota usage is negative for resource(s): cpu,requests.cpu"
    );
    let bare = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}});
    assert_eq!(outcome(&[bare], ("pods", &one), None, &[]), "");
}

#[test]
fn a_quota_is_about_its_scopes_only() {
    let scoped = |scope: &str| quota("q", json!({"pods": "0"}), json!({"pods": "0"}), json!([scope]));
    let one = pod(json!({"cpu": "1"}));
    for (scope, within) in
        [("BestEffort", false), ("NotBestEffort", true), ("Terminating", false), ("NotTerminating", true)]
    {
        let told = outcome(&[scoped(scope)], ("pods", &one), None, &[]);
        assert_eq!(told.starts_with("exceeded quota: q, requested: pods=1"), within, "{scope}: {told}");
    }
    // A pod that enters a scope by a change is charged whole.
    let mut ending = one.clone();
    ending["spec"]["activeDeadlineSeconds"] = json!(5);
    let told = outcome(&[scoped("Terminating")], ("pods", &ending), Some(&one), &[]);
    assert_eq!(told, "exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0");
}

#[test]
fn an_update_is_charged_for_what_it_adds() {
    let service = |kind: &str| named("Service", "s", json!({"spec": {"type": kind, "ports": [{}, {}]}}));
    let hard = json!({"services": "1", "services.nodeports": "2"});
    let full = quota("q", hard, json!({"services": "1", "services.nodeports": "1"}), json!([]));
    let quotas = [full];
    assert_eq!(outcome(&quotas, ("services", &service("ClusterIP")), Some(&service("NodePort")), &[]), "");
    assert_eq!(
        outcome(&quotas, ("services", &service("NodePort")), Some(&service("ClusterIP")), &[]),
        "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=1, limited: services.nodeports=2"
    );
}

#[test]
fn what_is_limited_needs_a_covering_quota() {
    let limited: Vec<LimitedResource> = serde_json::from_value(json!([
        {"resource": "persistentvolumeclaims", "matchContains": ["gold.storageclass"]},
        {"resource": "pods", "matchScopes": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["cluster-services"]}]}]))
    .expect("configuration");
    let claim = |class: &str| {
        named(
            "PersistentVolumeClaim",
            "c",
            json!({"spec": {"storageClassName": class,
            "resources": {"requests": {"storage": "1Gi"}}}}),
        )
    };
    let told = |class: &str| outcome(&[], ("persistentvolumeclaims", &claim(class)), None, &limited);
    assert_eq!(told("tin"), "");
    assert_eq!(
        told("gold"),
        "insufficient quota to consume: gold.storageclass.storage.k8s.io/persistentvolumeclaims,gold.storageclass.storage.k8s.io/requests.storage"
    );
    let mut important = pod(json!({}));
    important["spec"]["priorityClassName"] = json!("cluster-services");
    assert_eq!(
        outcome(&[], ("pods", &important), None, &limited),
        "insufficient quota to match these scopes: [{PriorityClass In [cluster-services]}]"
    );
    let covering = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}, "scopeSelector": {
        "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["cluster-services"]}]}},
        "status": {"hard": {"pods": "1"}, "used": {"pods": "0"}}});
    assert_eq!(outcome(&[covering], ("pods", &important), None, &limited), "q");
}

async fn admit(plugin: &ResourceQuota, name: String, dry_run: bool) -> Result<(), common::status::Status> {
    let ctx = context();
    let mut object = named("Pod", &name, json!({"spec": {"containers": []}}));
    let mut asked = attributes(&ctx, ("", "pods"), &mut object, None);
    asked.dry_run = dry_run;
    assert!(plugin.handles(Operation::Create));
    plugin.validate(&asked).await
}

async fn used(server: &Arc<Registry>) -> Value {
    let quota = server.store("", "resourcequotas").get("n", "q", None).await.expect("quota").tree();
    quota["status"]["used"].clone()
}

#[tokio::test]
async fn writes_that_race_through_two_servers_stay_within_the_quota() {
    let cluster = Cluster::start();
    let resources = [("", "resourcequotas")];
    let (a, b) = (cluster.server(&resources).await, cluster.server(&resources).await);
    let object = named(
        "ResourceQuota",
        "q",
        json!({"spec": {"hard": {"pods": "7"}},
        "status": {"hard": {"pods": "7"}, "used": {"pods": "0"}}}),
    );
    put(&[&a, &b], "", "resourcequotas", object).await;
    let servers = [a.clone(), b].map(|s| Arc::new(ResourceQuota::new(s, Configuration::default())));
    let mut running = tokio::task::JoinSet::new();
    for i in 0..40 {
        let plugin = servers[i % 2].clone();
        running.spawn(async move { admit(&plugin, format!("p{i}"), false).await });
    }
    let mut admitted = 0;
    while let Some(done) = running.join_next().await {
        match done.expect("no panic") {
            Ok(()) => admitted += 1,
            Err(status) => {
                assert_eq!(status.code, 403, "{}", status.message);
                assert!(
                    status.message.ends_with(
                        "is forbidden: exceeded quota: q, requested: pods=1, used: pods=7, limited: pods=7"
                    ),
                    "{}",
                    status.message
                );
            }
        }
    }
    assert_eq!(admitted, 7);
    assert_eq!(used(&a).await, json!({"pods": "7"}));
}

#[tokio::test]
async fn a_dry_run_is_checked_and_not_charged() {
    let cluster = Cluster::start();
    let server = cluster.server(&[("", "resourcequotas")]).await;
    let object = named(
        "ResourceQuota",
        "q",
        json!({"spec": {"hard": {"pods": "1"}},
        "status": {"hard": {"pods": "1"}, "used": {"pods": "0"}}}),
    );
    put(&[&server], "", "resourcequotas", object).await;
    let plugin = ResourceQuota::new(server.clone(), Configuration::default());
    admit(&plugin, "a".into(), true).await.expect("fits");
    assert_eq!(used(&server).await, json!({"pods": "0"}));
    admit(&plugin, "b".into(), false).await.expect("fits");
    assert_eq!(used(&server).await, json!({"pods": "1"}));
}
