use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::controller::FlowControl;
use super::defaults;
use super::metrics::FlowControlMetrics;
use super::objects::{FlowSchema, PriorityLevel};
use crate::filters::request_info::parse;
use crate::object::Object;
use crate::request::UserInfo;
use crate::resources::Registry;

const PATIENCE: Duration = Duration::from_millis(200);

fn flow_control(seats: usize) -> (Arc<FlowControl>, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    let inflight = prometheus::IntGaugeVec::new(prometheus::Opts::new("inflight", "x"), &["request_kind"]);
    let metrics = FlowControlMetrics::new(&registry, inflight.unwrap()).unwrap();
    (FlowControl::new(seats, metrics, Arc::new(Registry::new(HashMap::new()))), registry)
}

fn with_uids(objects: Vec<Object>) -> Vec<Object> {
    let mut objects = objects;
    for object in &mut objects {
        object["metadata"]["uid"] = format!("uid-of-{}", object["metadata"]["name"].as_str().unwrap()).into();
    }
    objects
}

fn read<T: serde::de::DeserializeOwned>(objects: Vec<Object>) -> Vec<T> {
    with_uids(objects).into_iter().map(|object| serde_json::from_value(object).unwrap()).collect()
}

fn all_levels() -> Vec<PriorityLevel> {
    read([defaults::mandatory_level_objects(), defaults::suggested_level_objects()].concat())
}

fn all_schemas() -> Vec<FlowSchema> {
    read([defaults::mandatory_schema_objects(), defaults::suggested_schema_objects()].concat())
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    UserInfo { name: name.into(), groups, ..Default::default() }
}

async fn sorted(flow: &FlowControl, user: &UserInfo, method: Method, uri: &str) -> (String, String) {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let info = parse(&method, path, query).unwrap();
    let entered =
        flow.enter(&info, user, query, PATIENCE).await.unwrap_or_else(|_| panic!("{uri} was refused"));
    let text = |value: &http::HeaderValue| value.to_str().unwrap().replace("uid-of-", "");
    (text(&entered.sorted.schema_uid), text(&entered.sorted.level_uid))
}

#[tokio::test]
async fn requests_are_sorted_as_upstream_sorts_them() {
    let (flow, _) = flow_control(600);
    flow.configure(all_levels(), all_schemas());
    let everyone = "system:authenticated";
    let node = user("system:node:n", &["system:nodes", everyone]);
    let manager = user("system:kube-controller-manager", &[everyone]);
    let account =
        |ns: &str| user(&format!("system:serviceaccount:{ns}:x"), &["system:serviceaccounts", everyone]);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
    for (who, method, uri, schema, level) in [
        (&user("admin", &["system:masters"]), Method::GET, "/api/v1/pods", "exempt", "exempt"),
        (&user("jane", &[everyone]), Method::GET, "/api/v1/pods", "global-default", "global-default"),
        (&user("jane", &[everyone]), Method::GET, "/livez", "probes", "exempt"),
        (&user("x", &["system:unauthenticated"]), Method::GET, "/readyz/etcd", "probes", "exempt"),
        (&user("jane", &[everyone]), Method::GET, "/metrics", "global-default", "global-default"),
        (&node, Method::PUT, lease, "system-node-high", "node-high"),
        (&node, Method::PATCH, "/api/v1/nodes/n/status", "system-node-high", "node-high"),
        (&node, Method::GET, "/api/v1/namespaces/a/secrets/s", "system-nodes", "system"),
        (&manager, Method::PUT, lease, "system-leader-election", "leader-election"),
        (&manager, Method::GET, "/api/v1/pods", "kube-controller-manager", "workload-high"),
        (
            &account("kube-system"),
            Method::GET,
            "/api/v1/pods",
            "kube-system-service-accounts",
            "workload-high",
        ),
        (&account("default"), Method::GET, "/api/v1/pods", "service-accounts", "workload-low"),
        (&user("odd", &[]), Method::GET, "/api/v1/pods", "catch-all", "catch-all"),
    ] {
        let got = sorted(&flow, who, method, uri).await;
        assert_eq!(got, (schema.to_owned(), level.to_owned()), "{} {uri}", who.name);
    }
}

#[tokio::test]
async fn shares_become_limits_as_upstream_computes_them() {
    let (flow, _) = flow_control(600);
    flow.configure(all_levels(), all_schemas());
    let nominal: HashMap<String, usize> = flow.limits().into_iter().map(|(name, (n, _))| (name, n)).collect();
    // 245 shares: ceil(600 * shares / 245).
    for (level, expected) in [
        ("exempt", 0),
        ("catch-all", 13),
        ("system", 74),
        ("node-high", 98),
        ("leader-election", 25),
        ("workload-high", 98),
        ("workload-low", 245),
        ("global-default", 49),
    ] {
        assert_eq!(nominal[level], expected, "{level}");
    }
    // Idle levels share everything but what must be kept: together they have at least the server's seats.
    let current: usize = flow.limits().values().map(|(_, current)| current).sum();
    assert!((595..=610).contains(&current), "{:?}", flow.limits());
}

#[tokio::test]
async fn without_objects_the_mandatory_configuration_serves() {
    let (flow, _) = flow_control(2);
    let admin = user("admin", &["system:masters"]);
    let info = parse(&Method::GET, "/api/v1/pods", "").unwrap();
    let mut admins = Vec::new();
    for _ in 0..10 {
        admins.push(flow.enter(&info, &admin, "", PATIENCE).await.unwrap_or_else(|_| panic!("refused")));
    }
    let jane = user("jane", &["system:authenticated"]);
    let _first = flow.enter(&info, &jane, "", PATIENCE).await.unwrap_or_else(|_| panic!("refused"));
    let _second = flow.enter(&info, &jane, "", PATIENCE).await.unwrap_or_else(|_| panic!("refused"));
    let refused = flow.enter(&info, &jane, "", PATIENCE).await.err().expect("catch-all rejects");
    assert_eq!(refused.retry_after_seconds, 1);
}

#[tokio::test]
async fn a_reference_to_nothing_is_told_and_not_used() {
    let (flow, _) = flow_control(100);
    let mut schema = defaults::suggested_schema_objects().pop().unwrap();
    schema["metadata"]["name"] = "lost".into();
    schema["spec"]["priorityLevelConfiguration"]["name"] = "nowhere".into();
    let mut schemas = all_schemas();
    schemas.push(serde_json::from_value(schema).unwrap());
    let conditions = flow.configure(all_levels(), schemas.clone());
    assert_eq!(conditions.len(), schemas.len());
    let lost = conditions.iter().find(|c| c.schema == "lost").unwrap();
    assert_eq!((lost.status, lost.reason), ("True", "NotFound"));
    assert_eq!(
        lost.message,
        r#"This FlowSchema references the PriorityLevelConfiguration object named "nowhere" but there is no such object"#
    );
    let found = conditions.iter().find(|c| c.schema == "probes").unwrap();
    let condition =
        json!({"type": "Dangling", "status": "False", "reason": "Found", "message": found.message});
    for schema in &mut schemas {
        if schema.metadata.name == "probes" {
            schema.status.conditions = vec![serde_json::from_value(condition.clone()).unwrap()];
        }
    }
    assert!(flow.configure(all_levels(), schemas).iter().all(|c| c.schema != "probes"));
}

/// A level whose object is deleted serves those in it until they are gone, and then goes too.
#[tokio::test]
async fn a_deleted_level_empties_itself() {
    let (flow, _) = flow_control(100);
    flow.configure(all_levels(), all_schemas());
    let info = parse(&Method::GET, "/api/v1/pods", "").unwrap();
    let jane = user("jane", &["system:authenticated"]);
    let running = flow.enter(&info, &jane, "", PATIENCE).await.unwrap_or_else(|_| panic!("refused"));
    let rest: Vec<_> =
        all_levels().into_iter().filter(|level| level.metadata.name != "global-default").collect();
    flow.configure(rest.clone(), all_schemas());
    assert!(flow.limits().contains_key("global-default"));
    assert_eq!(sorted(&flow, &jane, Method::GET, "/api/v1/pods").await.1, "catch-all");
    drop(running);
    flow.configure(rest, all_schemas());
    assert!(!flow.limits().contains_key("global-default"));
}

/// The stable and beta metrics of upstream's list are exposed by their names and labels.
#[tokio::test]
async fn metrics_have_upstreams_names() {
    let (flow, registry) = flow_control(100);
    flow.configure(all_levels(), all_schemas());
    sorted(&flow, &user("jane", &["system:authenticated"]), Method::GET, "/api/v1/pods").await;
    let families = registry.gather();
    for name in [
        "current_executing_requests",
        "current_executing_seats",
        "current_inqueue_requests",
        "dispatched_requests_total",
        "nominal_limit_seats",
        "rejected_requests_total",
        "request_wait_duration_seconds",
    ] {
        let name = format!("apiserver_flowcontrol_{name}");
        assert!(families.iter().any(|family| family.name() == name), "{name}");
    }
    let page = flow.debug_page("dump_priority_levels").unwrap();
    assert!(page.contains("\nglobal-default, 0, true, false, 0, 0, 1, 0, 0, 0\n"), "{page}");
}

/// What the filter costs a request that does not wait; printed, not judged.
#[tokio::test]
async fn an_idle_level_costs_little() {
    let (flow, _) = flow_control(600);
    flow.configure(all_levels(), all_schemas());
    let jane = user("jane", &["system:authenticated"]);
    let info = parse(&Method::GET, "/api/v1/namespaces/a/pods/p", "").unwrap();
    let started = Instant::now();
    const ROUNDS: u32 = 2000;
    for _ in 0..ROUNDS {
        drop(flow.enter(&info, &jane, "", PATIENCE).await.unwrap_or_else(|_| panic!("refused")));
    }
    println!("{:?} per request", started.elapsed() / ROUNDS);
    let value: Value = json!(flow.limits().len());
    assert_eq!(value, 8);
}
