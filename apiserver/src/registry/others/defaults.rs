//! The defaults of groups whose rules are short of a room for them.

use serde_json::{Value, json};

use crate::object::Object;
use crate::registry::pod_template::resources;
use crate::registry::tree::{
    child_mut, default_to, default_zero, field, has, is_zero, items, items_mut, map_mut, struct_mut, text,
};

pub fn network_policy(policy: &mut Object) {
    let Some(spec) = struct_mut(policy, "spec") else { return };
    if is_zero(field(spec, "policyTypes")) {
        let mut types = vec!["Ingress"];
        if !items(spec, "egress").is_empty() {
            types.push("Egress");
        }
        crate::registry::tree::set(spec, "policyTypes", json!(types));
    }
    for key in ["ingress", "egress"] {
        for rule in items_mut(spec, key) {
            for port in items_mut(rule, "ports") {
                default_to(port, "protocol", "TCP");
            }
        }
    }
}

pub fn ingress_class(class: &mut Object) {
    if let Some(parameters) = child_mut(class, "spec").and_then(|s| child_mut(s, "parameters")) {
        default_to(parameters, "scope", "Cluster");
    }
}

pub fn storage_class(class: &mut Object) {
    default_to(class, "reclaimPolicy", "Delete");
    default_to(class, "volumeBindingMode", "Immediate");
}

pub fn csi_driver(driver: &mut Object) {
    let Some(spec) = struct_mut(driver, "spec") else { return };
    default_to(spec, "attachRequired", true);
    for key in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        default_to(spec, key, false);
    }
    default_to(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    default_zero(spec, "volumeLifecycleModes", json!(["Persistent"]));
}

pub fn limit_range(range: &mut Object) {
    let Some(spec) = struct_mut(range, "spec") else { return };
    for item in items_mut(spec, "limits") {
        for key in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            if let Some(list) = child_mut(item, key) {
                resources::default_list(list);
            }
        }
        if text(item, "type") == "Container" {
            for (target, source) in
                [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")]
            {
                let from = field(item, source).as_object().cloned().unwrap_or_default();
                if let Some(list) = map_mut(item, target) {
                    for (name, value) in from {
                        list.entry(name).or_insert(value);
                    }
                }
            }
            for key in ["default", "defaultRequest"] {
                if is_zero(field(item, key)) {
                    crate::registry::tree::remove(item, key);
                }
            }
        }
    }
}

pub fn resource_quota(quota: &mut Object) {
    for (section, keys) in [("spec", &["hard"][..]), ("status", &["hard", "used"][..])] {
        if let Some(section) = child_mut(quota, section) {
            for key in keys {
                if let Some(list) = child_mut(section, key) {
                    resources::default_list(list);
                }
            }
        }
    }
}

fn webhook(hook: &mut Value) {
    default_to(hook, "failurePolicy", "Fail");
    default_to(hook, "matchPolicy", "Equivalent");
    default_to(hook, "namespaceSelector", json!({}));
    default_to(hook, "objectSelector", json!({}));
    default_to(hook, "timeoutSeconds", 10);
    for rule in items_mut(hook, "rules") {
        default_to(rule, "scope", "*");
    }
    if let Some(service) = child_mut(hook, "clientConfig").and_then(|c| child_mut(c, "service")) {
        default_to(service, "port", 443);
    }
}

pub fn validating_webhooks(object: &mut Object) {
    items_mut(object, "webhooks").iter_mut().for_each(webhook);
}

pub fn mutating_webhooks(object: &mut Object) {
    for hook in items_mut(object, "webhooks") {
        webhook(hook);
        default_to(hook, "reinvocationPolicy", "Never");
    }
}

fn match_resources(constraints: &mut Value) {
    default_to(constraints, "matchPolicy", "Equivalent");
    default_to(constraints, "namespaceSelector", json!({}));
    default_to(constraints, "objectSelector", json!({}));
    for key in ["resourceRules", "excludeResourceRules"] {
        for rule in items_mut(constraints, key) {
            default_to(rule, "scope", "*");
        }
    }
}

pub fn admission_policy(policy: &mut Object) {
    let Some(spec) = struct_mut(policy, "spec") else { return };
    default_to(spec, "failurePolicy", "Fail");
    for key in ["matchConstraints", "matchResources"] {
        if let Some(constraints) = child_mut(spec, key) {
            match_resources(constraints);
        }
    }
}

pub fn admission_policy_binding(binding: &mut Object) {
    if let Some(resources) = child_mut(binding, "spec").and_then(|s| child_mut(s, "matchResources")) {
        match_resources(resources);
    }
}

pub fn api_service(service: &mut Object) {
    if let Some(reference) = child_mut(service, "spec").and_then(|s| child_mut(s, "service")) {
        default_to(reference, "port", 443);
    }
}

pub fn flow_schema(schema: &mut Object) {
    if let Some(spec) = struct_mut(schema, "spec") {
        default_zero(spec, "matchingPrecedence", 1000);
    }
}

pub fn priority_level(level: &mut Object) {
    let Some(spec) = struct_mut(level, "spec") else { return };
    if let Some(exempt) = child_mut(spec, "exempt") {
        default_to(exempt, "nominalConcurrencyShares", 0);
        default_to(exempt, "lendablePercent", 0);
    }
    if let Some(limited) = child_mut(spec, "limited") {
        default_to(limited, "nominalConcurrencyShares", 30);
        default_to(limited, "lendablePercent", 0);
        if let Some(queuing) = child_mut(limited, "limitResponse").and_then(|r| child_mut(r, "queuing")) {
            default_zero(queuing, "queues", 64);
            default_zero(queuing, "handSize", 8);
            default_zero(queuing, "queueLengthLimit", 50);
        }
    }
}

pub fn horizontal_pod_autoscaler(scaler: &mut Object) {
    let Some(spec) = struct_mut(scaler, "spec") else { return };
    default_to(spec, "minReplicas", 1);
    default_zero(
        spec,
        "metrics",
        json!([{"type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]),
    );
    if !has(spec, "behavior") {
        return;
    }
    let Some(behavior) = child_mut(spec, "behavior") else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    if let Some(up) = struct_mut(behavior, "scaleUp") {
        default_to(up, "stabilizationWindowSeconds", 0);
        default_to(up, "selectPolicy", "Max");
        default_to(up, "policies", json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, percent]));
    }
    if let Some(down) = struct_mut(behavior, "scaleDown") {
        default_to(down, "selectPolicy", "Max");
        default_to(down, "policies", json!([percent]));
    }
}
