//! Every default: those that the schema publishes, found by walking it, and those that upstream's defaulting
//! functions fill (`pkg/apis/*/v*/defaults.go`), as a table of minimal objects.

use serde_json::{Value, json};

use super::rules::KindStrategy;
use super::table;
use crate::features::Features;
use crate::registry::gated::Gated;
use crate::resources::rows::{Row, Storage};
use crate::resources::schema::{DATA, type_name};
use crate::resources::{Strategy, rows};

type Types = serde_json::Map<String, Value>;

fn strategy(group: &str, resource: &str, features: Features) -> KindStrategy {
    let gated = Gated::new(std::sync::Arc::new(features), group, resource);
    KindStrategy::new(table::rules(group, resource)).gated(gated)
}

/// The type of a field without list and map marks, and how the path goes on.
fn inner(mut ty: &str) -> (&str, Vec<&'static str>) {
    let mut steps = Vec::new();
    loop {
        if let Some(rest) = ty.strip_prefix("[]") {
            (ty, _) = (rest, steps.push("0"));
        } else if let Some(rest) = ty.strip_prefix("map:") {
            (ty, _) = (rest, steps.push("k"));
        } else {
            return (ty, steps);
        }
    }
}

/// Where below a type a default is published that is no zero value.
fn published(
    types: &Types,
    name: &str,
    path: &mut Vec<String>,
    above: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, Value)>,
) {
    let Some(fields) = types.get(name).and_then(|t| t["fields"].as_object()) else { return };
    if above.iter().any(|a| a == name) {
        return;
    }
    above.push(name.to_owned());
    for (key, field) in fields {
        let ty = field.as_str().or_else(|| field["t"].as_str()).unwrap_or("");
        path.push(key.clone());
        let default = field.get("default").filter(|d| !crate::registry::tree::is_zero(d));
        if let Some(default) = default {
            found.push((path.clone(), default.clone()));
        }
        let (ty, steps) = inner(ty);
        path.extend(steps.iter().map(|s| (*s).to_owned()));
        published(types, ty, path, above, found);
        path.truncate(path.len() - steps.len() - 1);
    }
    above.pop();
}

/// An object that has nothing but the way to a field.
fn way_to(path: &[String]) -> Value {
    let (_, owners) = path.split_last().expect("a field");
    owners.iter().rev().fold(json!({}), |below, step| match step.as_str() {
        "0" => json!([below]),
        step => json!({step: below}),
    })
}

/// Kinds that have no rules of their own yet.
const OPEN: [&str; 3] = ["PodCertificateRequest", "PodGroup", "ResourcePoolStatusRequest"];

#[test]
fn every_published_default_is_filled() {
    let types: Types = serde_json::from_str(DATA).expect("the schema");
    let (mut tried, mut missing) = (0, Vec::new());
    for row in rows().iter().filter(|row| matches!(row.storage, Storage::Own(_))) {
        let mut found = Vec::new();
        let name = type_name(row.group, row.version, row.kind);
        published(&types, &name, &mut Vec::new(), &mut Vec::new(), &mut found);
        for (path, default) in found {
            let mut object = way_to(&path);
            strategy(row.group, row.resource, Features::default()).default(&mut object);
            let pointer = format!("/{}", path.join("/"));
            if object.pointer(&pointer) != Some(&default) && !OPEN.contains(&row.kind) {
                missing.push(format!("{} {pointer} = {default}", row.kind));
            }
            tried += 1;
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(tried > 130, "{tried}");
}

/// The row of a resource's stored version.
fn row(resource: &str) -> &'static Row {
    rows()
        .iter()
        .find(|row| row.resource == resource && matches!(row.storage, Storage::Own(_)))
        .unwrap_or_else(|| panic!("no resource {resource}"))
}

/// What `object` becomes must have all of `expected`.
fn check_with(features: Features, resource: &str, object: &Value, expected: &Value) {
    let row = row(resource);
    let mut filled = object.clone();
    strategy(row.group, resource, features).default(&mut filled);
    if let Some(what) = lacking(&filled, expected, "") {
        panic!("{resource}: {object} lacks {what}: {filled}");
    }
    let once = filled.clone();
    strategy(row.group, resource, Features::default()).default(&mut filled);
    assert_eq!(filled, once, "{resource}: defaulting twice changes something");
}

fn check(resource: &str, object: Value, expected: Value) {
    check_with(Features::default(), resource, &object, &expected);
}

fn lacking(object: &Value, expected: &Value, path: &str) -> Option<String> {
    match (object, expected) {
        (Value::Object(map), Value::Object(wanted)) => wanted.iter().find_map(|(key, value)| {
            lacking(map.get(key).unwrap_or(&Value::Null), value, &format!("{path}/{key}"))
        }),
        (Value::Array(list), Value::Array(wanted)) if list.len() == wanted.len() => {
            let pairs = list.iter().zip(wanted).enumerate();
            pairs.map(|(i, (a, b))| lacking(a, b, &format!("{path}/{i}"))).find_map(|what| what)
        }
        _ if object == expected => None,
        _ => Some(format!("{path} = {expected}")),
    }
}

/// What every pod spec gets.
fn spec() -> Value {
    json!({"dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
        "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler"})
}

#[test]
fn pod_specs_are_filled_wherever_they_are() {
    check("pods", json!({}), json!({"spec": spec()}));
    check("podtemplates", json!({}), json!({"template": {"spec": spec()}}));
    for resource in
        ["replicationcontrollers", "daemonsets", "deployments", "replicasets", "statefulsets", "jobs"]
    {
        check(resource, json!({}), json!({"spec": {"template": {"spec": spec()}}}));
    }
    let cron = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": spec()}}}}});
    check("cronjobs", json!({}), cron);
}

#[test]
fn containers_are_filled_of_every_kind() {
    let probe = json!({"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1,
        "failureThreshold": 3, "httpGet": {"path": "/", "scheme": "HTTP"}, "grpc": {"service": ""}});
    let given = json!([{"image": "a", "ports": [{"containerPort": 1}],
        "env": [{"valueFrom": {"fieldRef": {}, "resourceFieldRef": {}, "fileKeyRef": {}}}],
        "livenessProbe": {"httpGet": {}, "grpc": {}}, "readinessProbe": {"httpGet": {}, "grpc": {}},
        "startupProbe": {"httpGet": {}, "grpc": {}},
        "lifecycle": {"postStart": {"httpGet": {}}, "preStop": {"httpGet": {}}}}, {"image": "a:1"}]);
    let filled = json!([{"imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File", "ports": [{"protocol": "TCP"}],
        "env": [{"valueFrom": {"fieldRef": {"apiVersion": "v1"}, "resourceFieldRef": {"divisor": "0"},
            "fileKeyRef": {"optional": false}}}],
        "livenessProbe": probe, "readinessProbe": probe, "startupProbe": probe,
        "lifecycle": {"postStart": {"httpGet": {"path": "/", "scheme": "HTTP"}},
            "preStop": {"httpGet": {"path": "/", "scheme": "HTTP"}}}},
        {"imagePullPolicy": "IfNotPresent"}]);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        check("pods", json!({"spec": {list: given}}), json!({"spec": {list: filled}}));
    }
}

#[test]
fn volumes_are_filled() {
    let reference = json!([{"fieldRef": {}, "resourceFieldRef": {}}]);
    let filled = json!([{"fieldRef": {"apiVersion": "v1"}, "resourceFieldRef": {"divisor": "0"}}]);
    check(
        "pods",
        json!({"spec": {"volumes": [{"name": "a"}, {"secret": {}}, {"configMap": {}},
            {"downwardAPI": {"items": reference}}, {"hostPath": {}},
            {"projected": {"sources": [{"serviceAccountToken": {}}, {"downwardAPI": {"items": reference}}]}},
            {"image": {"reference": "a"}}, {"image": {"reference": "a:1"}},
            {"ephemeral": {"volumeClaimTemplate": {"spec": {}}}}, {"azureDisk": {}}]}}),
        json!({"spec": {"volumes": [{"emptyDir": {}}, {"secret": {"defaultMode": 420}},
            {"configMap": {"defaultMode": 420}}, {"downwardAPI": {"defaultMode": 420, "items": filled}},
            {"hostPath": {"type": ""}},
            {"projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"expirationSeconds": 3600}},
                {"downwardAPI": {"items": filled}}]}},
            {"image": {"pullPolicy": "Always"}}, {"image": {"pullPolicy": "IfNotPresent"}},
            {"ephemeral": {"volumeClaimTemplate": {"spec": {"volumeMode": "Filesystem"}}}},
            {"azureDisk": {"readOnly": false}}]}}),
    );
    check(
        "persistentvolumes",
        json!({"spec": {"hostPath": {}, "azureDisk": {}}}),
        json!({"spec": {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem",
            "hostPath": {"type": ""}, "azureDisk": {"readOnly": false}}, "status": {"phase": "Pending"}}),
    );
    check(
        "persistentvolumeclaims",
        json!({}),
        json!({"spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}),
    );
}

#[test]
fn pods_are_filled_as_templates_are_not() {
    let limits = json!({"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "500m"}});
    let both = json!({"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "500m", "memory": "2Gi"}});
    let ports = json!([{"containerPort": 80}]);
    check(
        "pods",
        json!({"spec": {"hostNetwork": true, "containers": [{"resources": limits, "ports": ports}],
            "initContainers": [{"resources": limits, "ports": ports}]}}),
        json!({"spec": {"enableServiceLinks": true,
            "containers": [{"resources": both, "ports": [{"hostPort": 80}]}],
            "initContainers": [{"resources": both, "ports": [{"hostPort": 80}]}]}}),
    );
    let whole = json!({"spec": {"resources": {"limits": {"cpu": "4", "memory": "9Gi"}},
        "containers": [{"resources": {"requests": {"cpu": "1"}}}]}});
    let filled = json!({"limits": {"cpu": "4", "memory": "9Gi"}, "requests": {"cpu": "1", "memory": "9Gi"}});
    check("pods", whole.clone(), json!({"spec": {"resources": filled}}));
    let mut off = whole.clone();
    strategy("", "pods", Features::default().with("PodLevelResources", false)).default(&mut off);
    assert_eq!(off["spec"]["resources"], whole["spec"]["resources"]);
    let mut template = json!({"spec": {"template": {"spec": {"containers": [{"resources": limits}]}}}});
    strategy("apps", "deployments", Features::default()).default(&mut template);
    let spec = &template["spec"]["template"]["spec"];
    assert_eq!(spec["containers"][0]["resources"], limits);
    assert!(spec.get("enableServiceLinks").is_none());
}

#[test]
fn workloads_are_filled() {
    check(
        "replicationcontrollers",
        json!({"spec": {"template": {"metadata": {"labels": {"a": "1"}}}}}),
        json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 1, "selector": {"a": "1"}}}),
    );
    check(
        "deployments",
        json!({}),
        json!({"spec": {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}}}),
    );
    check("replicasets", json!({}), json!({"spec": {"replicas": 1}}));
    check(
        "daemonsets",
        json!({}),
        json!({"spec": {"revisionHistoryLimit": 10, "updateStrategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}}),
    );
    check(
        "statefulsets",
        json!({"spec": {"volumeClaimTemplates": [{}]}}),
        json!({"spec": {"replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "volumeClaimTemplates": [{"spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}]}}),
    );
    check_with(
        Features::default().with("MaxUnavailableStatefulSet", true),
        "statefulsets",
        &json!({}),
        &json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}}}}),
    );
    check(
        "jobs",
        json!({"spec": {"template": {"metadata": {"labels": {"a": "1"}}}}}),
        json!({"metadata": {"labels": {"a": "1"}}, "spec": {"completions": 1, "parallelism": 1,
            "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "podReplacementPolicy": "TerminatingOrFailed", "manualSelector": false}}),
    );
    let policy = json!({"rules": [{"onPodConditions": [{"type": "a"}]}]});
    let filled = json!({"rules": [{"onPodConditions": [{"status": "True"}]}]});
    check(
        "jobs",
        json!({"spec": {"completions": 2, "backoffLimitPerIndex": 1, "podFailurePolicy": policy}}),
        json!({"spec": {"parallelism": 1, "backoffLimit": 2_147_483_647, "podReplacementPolicy": "Failed",
            "podFailurePolicy": filled}}),
    );
    check(
        "cronjobs",
        json!({"spec": {"jobTemplate": {"spec": {"podFailurePolicy": policy}}}}),
        json!({"spec": {"concurrencyPolicy": "Allow", "suspend": false, "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1, "jobTemplate": {"spec": {"podFailurePolicy": filled}}}}),
    );
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    check(
        "horizontalpodautoscalers",
        json!({"spec": {"behavior": {"scaleUp": {}, "scaleDown": {}}}}),
        json!({"spec": {"minReplicas": 1,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}],
            "behavior": {"scaleUp": {"selectPolicy": "Max", "stabilizationWindowSeconds": 0,
                "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, percent]},
                "scaleDown": {"selectPolicy": "Max", "policies": [percent]}}}}),
    );
}

#[test]
fn the_core_group_is_filled() {
    check(
        "services",
        json!({"spec": {"ports": [{"port": 80}]}}),
        json!({"spec": {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [{"protocol": "TCP", "targetPort": 80}]}}),
    );
    check(
        "services",
        json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"},
            "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}}),
        json!({"spec": {"allocateLoadBalancerNodePorts": true, "externalTrafficPolicy": "Cluster",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}},
            "status": {"loadBalancer": {"ingress": [{"ipMode": "VIP"}]}}}),
    );
    check("secrets", json!({}), json!({"type": "Opaque"}));
    check(
        "endpoints",
        json!({"subsets": [{"ports": [{"port": 1}]}]}),
        json!({"subsets": [{"ports": [{"protocol": "TCP"}]}]}),
    );
    check(
        "namespaces",
        json!({"metadata": {"name": "a"}}),
        json!({"metadata": {"labels": {"kubernetes.io/metadata.name": "a"}}, "status": {"phase": "Active"}}),
    );
    check(
        "nodes",
        json!({"status": {"capacity": {"cpu": "1"}}}),
        json!({"status": {"allocatable": {"cpu": "1"}}}),
    );
    check(
        "limitranges",
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Gi"}}]}}),
        json!({"spec": {"limits": [{"default": {"cpu": "2"},
            "defaultRequest": {"cpu": "2", "memory": "1Gi"}}]}}),
    );
}

#[test]
fn other_groups_are_filled() {
    check(
        "networkpolicies",
        json!({"spec": {"ingress": [{"ports": [{}]}], "egress": [{"ports": [{}]}]}}),
        json!({"spec": {"policyTypes": ["Ingress", "Egress"], "ingress": [{"ports": [{"protocol": "TCP"}]}],
            "egress": [{"ports": [{"protocol": "TCP"}]}]}}),
    );
    check(
        "ingressclasses",
        json!({"spec": {"parameters": {}}}),
        json!({"spec": {"parameters": {"scope": "Cluster"}}}),
    );
    check("endpointslices", json!({"ports": [{}]}), json!({"ports": [{"name": "", "protocol": "TCP"}]}));
    check("storageclasses", json!({}), json!({"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}));
    check(
        "csidrivers",
        json!({}),
        json!({"spec": {"attachRequired": true, "podInfoOnMount": false, "storageCapacity": false,
            "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"],
            "requiresRepublish": false, "seLinuxMount": false}}),
    );
    check_with(
        Features::default().with("VolumeLimitScaling", true),
        "csidrivers",
        &json!({}),
        &json!({"spec": {"preventPodSchedulingIfMissing": false}}),
    );
    check("priorityclasses", json!({}), json!({"preemptionPolicy": "PreemptLowerPriority"}));
    const RBAC: &str = "rbac.authorization.k8s.io";
    for resource in ["rolebindings", "clusterrolebindings"] {
        check(
            resource,
            json!({"subjects": [{"kind": "User"}, {"kind": "Group"}]}),
            json!({"roleRef": {"apiGroup": RBAC}, "subjects": [{"apiGroup": RBAC}, {"apiGroup": RBAC}]}),
        );
    }
    let hook = json!({"failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {},
        "objectSelector": {}, "timeoutSeconds": 10, "rules": [{"scope": "*"}],
        "clientConfig": {"service": {"port": 443}}});
    for resource in ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"] {
        check(
            resource,
            json!({"webhooks": [{"rules": [{}], "clientConfig": {"service": {}}}]}),
            json!({"webhooks": [hook]}),
        );
    }
    check(
        "mutatingwebhookconfigurations",
        json!({"webhooks": [{}]}),
        json!({"webhooks": [{"reinvocationPolicy": "Never"}]}),
    );
    let matched = json!({"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
        "resourceRules": [{"scope": "*"}], "excludeResourceRules": [{"scope": "*"}]});
    let given = json!({"resourceRules": [{}], "excludeResourceRules": [{}]});
    for resource in ["validatingadmissionpolicies", "mutatingadmissionpolicies"] {
        check(
            resource,
            json!({"spec": {"matchConstraints": given}}),
            json!({"spec": {"failurePolicy": "Fail", "matchConstraints": matched}}),
        );
    }
    for resource in ["validatingadmissionpolicybindings", "mutatingadmissionpolicybindings"] {
        check(
            resource,
            json!({"spec": {"matchResources": given}}),
            json!({"spec": {"matchResources": matched}}),
        );
    }
    check("apiservices", json!({"spec": {"service": {}}}), json!({"spec": {"service": {"port": 443}}}));
    check(
        "customresourcedefinitions",
        json!({"spec": {"names": {"kind": "Foo"}, "versions": [{"name": "v1", "storage": true}]}}),
        json!({"spec": {"names": {"singular": "foo", "listKind": "FooList"},
            "conversion": {"strategy": "None"}}, "status": {"storedVersions": ["v1"]}}),
    );
    check("flowschemas", json!({}), json!({"spec": {"matchingPrecedence": 1000}}));
    check(
        "prioritylevelconfigurations",
        json!({"spec": {"exempt": {}, "limited": {"limitResponse": {"queuing": {}}}}}),
        json!({"spec": {"exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0},
            "limited": {"nominalConcurrencyShares": 30, "lendablePercent": 0,
                "limitResponse": {"queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50}}}}}),
    );
}

#[test]
fn devices_are_filled() {
    let given = json!({"devices": {"requests": [{"exactly": {"tolerations": [{}]}},
        {"firstAvailable": [{"tolerations": [{}]}]}, {"exactly": {"allocationMode": "All"}}]}});
    let filled = json!({"allocationMode": "ExactCount", "count": 1, "tolerations": [{"operator": "Equal"}]});
    let expected = json!({"devices": {"requests": [{"exactly": filled}, {"firstAvailable": [filled]}, {}]}});
    check("resourceclaims", json!({"spec": given}), json!({"spec": expected}));
    check("resourceclaimtemplates", json!({"spec": {"spec": given}}), json!({"spec": {"spec": expected}}));
}
