//! The objects of every cluster: mandatory ones, which are always as they are here, and suggested ones, which an
//! administrator may change.
//!
//! The values are those of `k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap`, with defaults filled in.

use serde_json::{Value, json};

use super::GROUP;
use super::objects::{FlowSchema, PriorityLevel};
use crate::object::Object;

/// Marks objects that the server keeps as they are here.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Name, shares, percent that may be lent, (queues, hand size) of the suggested levels.
const LEVELS: [(&str, u32, u32, (u32, u32)); 6] = [
    ("system", 30, 33, (64, 6)),
    ("node-high", 40, 25, (64, 6)),
    ("leader-election", 10, 0, (16, 4)),
    ("workload-high", 40, 50, (128, 6)),
    ("workload-low", 100, 90, (128, 6)),
    ("global-default", 20, 50, (128, 6)),
];
const QUEUE_LENGTH: u32 = 50;

/// The levels that always exist.
pub fn mandatory_level_objects() -> Vec<Object> {
    vec![
        level(
            "catch-all",
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0,
                "limitResponse": {"type": "Reject"}}}),
        ),
        level(
            "exempt",
            json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
        ),
    ]
}

/// The levels that a new cluster has.
pub fn suggested_level_objects() -> Vec<Object> {
    LEVELS
        .iter()
        .map(|&(name, shares, lendable, (queues, hand))| {
            level(
                name,
                json!({"type": "Limited", "limited": {
                    "nominalConcurrencyShares": shares,
                    "lendablePercent": lendable,
                    "limitResponse": {"type": "Queue", "queuing": {
                        "queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH}}}}),
            )
        })
        .collect()
}

/// The schemas that always exist.
pub fn mandatory_schema_objects() -> Vec<Object> {
    vec![
        schema("exempt", "exempt", 1, None, &groups(&["system:masters"]), everything()),
        schema("catch-all", "catch-all", 10_000, Some("ByUser"), &everyone(), everything()),
    ]
}

/// The schemas that a new cluster has.
pub fn suggested_schema_objects() -> Vec<Object> {
    let nodes = groups(&["system:nodes"]);
    let kube_system = json!([{"kind": "ServiceAccount",
        "serviceAccount": {"name": "*", "namespace": "kube-system"}}]);
    let leaders =
        json!([user("system:kube-controller-manager"), user("system:kube-scheduler"), kube_system[0]]);
    let leases = |verbs: &[&str]| resource_rule(verbs, &["coordination.k8s.io"], &["leases"], false);
    let (by_user, by_namespace) = (Some("ByUser"), Some("ByNamespace"));
    vec![
        schema("system-nodes", "system", 500, by_user, &nodes, everything()),
        schema(
            "system-node-high",
            "node-high",
            400,
            by_user,
            &nodes,
            json!({"resourceRules": [
                resource_rule(&["*"], &[""], &["nodes", "nodes/status"], true), leases(&["*"])]}),
        ),
        schema(
            "probes",
            "exempt",
            2,
            None,
            &everyone(),
            json!({"nonResourceRules": [
                {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}),
        ),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            by_user,
            &leaders,
            json!({"resourceRules": [leases(&["get", "create", "update"])]}),
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            by_namespace,
            &json!([user("system:kube-controller-manager")]),
            everything(),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            by_namespace,
            &json!([user("system:kube-scheduler")]),
            everything(),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            by_namespace,
            &kube_system,
            everything(),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            by_user,
            &groups(&["system:serviceaccounts"]),
            everything(),
        ),
        schema("global-default", "global-default", 9900, by_user, &everyone(), everything()),
    ]
}

pub fn mandatory_levels() -> Vec<PriorityLevel> {
    read(mandatory_level_objects())
}

pub fn mandatory_schemas() -> Vec<FlowSchema> {
    read(mandatory_schema_objects())
}

fn read<T: serde::de::DeserializeOwned>(objects: Vec<Object>) -> Vec<T> {
    let one = |object| serde_json::from_value(object).expect("the default objects are of their types");
    objects.into_iter().map(one).collect()
}

fn level(name: &str, spec: Value) -> Object {
    json!({
        "kind": "PriorityLevelConfiguration",
        "apiVersion": format!("{GROUP}/v1"),
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": spec,
    })
}

fn schema(
    name: &str,
    level: &str,
    precedence: i32,
    by: Option<&str>,
    subjects: &Value,
    rules: Value,
) -> Object {
    let mut rule = rules;
    rule["subjects"] = subjects.clone();
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [rule],
    });
    if let Some(method) = by {
        spec["distinguisherMethod"] = json!({"type": method});
    }
    json!({
        "kind": "FlowSchema",
        "apiVersion": format!("{GROUP}/v1"),
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": spec,
    })
}

fn groups(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn everyone() -> Value {
    groups(&["system:unauthenticated", "system:authenticated"])
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

/// Every verb on every resource and every path.
fn everything() -> Value {
    json!({
        "resourceRules": [resource_rule(&["*"], &["*"], &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

fn resource_rule(verbs: &[&str], groups: &[&str], resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}
