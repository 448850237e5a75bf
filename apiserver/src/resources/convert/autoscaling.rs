//! autoscaling/v1 and v2: v1 knows only one CPU target and keeps the rest in annotations.

use serde_json::{Map, Value, json};

use crate::object::{Object, map_at_mut};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// What v1 means when it names no metric at all (`DefaultCPUUtilization`).
const CPU_UTILIZATION_DEFAULT: i64 = 80;

pub(super) fn to_stored(mut object: Object) -> Object {
    object["apiVersion"] = json!("autoscaling/v2");
    let annotated = take_annotations(&mut object);
    let spec = map_at_mut(&mut object, &["spec"]);
    let mut metrics = match annotated.get(METRICS) {
        Some(Value::Array(old)) => old.iter().map(|m| metric_to_v2(m, "target")).collect(),
        _ => Vec::new(),
    };
    if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
        metrics.push(cpu_metric("target", json!({"type": "Utilization", "averageUtilization": percent})));
    }
    if metrics.is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": CPU_UTILIZATION_DEFAULT});
        metrics.push(cpu_metric("target", target));
    }
    spec.insert("metrics".to_owned(), Value::Array(metrics));
    if let Some(behavior) = annotated.get(BEHAVIOR) {
        spec.insert("behavior".to_owned(), internal_behavior(behavior.clone(), str::to_lowercase_first));
    }
    if object.get("status").is_some() || annotated.contains_key(CURRENT_METRICS) {
        let status = map_at_mut(&mut object, &["status"]);
        let percent = status.remove("currentCPUUtilizationPercentage");
        let current = match (annotated.get(CURRENT_METRICS), percent) {
            (Some(Value::Array(old)), _) => Some(old.iter().map(|m| metric_to_v2(m, "current")).collect()),
            (_, Some(percent)) => Some(vec![cpu_metric("current", json!({"averageUtilization": percent}))]),
            _ => None,
        };
        if let Some(current) = current {
            status.insert("currentMetrics".to_owned(), Value::Array(current));
        }
        if let Some(conditions) = annotated.get(CONDITIONS) {
            status.insert("conditions".to_owned(), conditions.clone());
        }
    }
    object
}

pub(super) fn from_stored(mut object: Object) -> Object {
    object["apiVersion"] = json!("autoscaling/v1");
    let _ = take_annotations(&mut object);
    let mut annotations = Map::new();
    let spec = map_at_mut(&mut object, &["spec"]);
    let mut others = Vec::new();
    if let Some(Value::Array(metrics)) = spec.remove("metrics") {
        for metric in metrics {
            let percent = metric.pointer("/resource/target/averageUtilization");
            match percent {
                Some(percent) if metric["resource"]["name"] == "cpu" => {
                    spec.insert("targetCPUUtilizationPercentage".to_owned(), percent.clone());
                }
                _ => others.push(metric_to_v1(&metric, "target")),
            }
        }
    }
    if !others.is_empty() {
        annotations.insert(METRICS.to_owned(), json!(Value::Array(others).to_string()));
    }
    if let Some(behavior) = spec.remove("behavior").filter(|b| !b.is_null()) {
        let text = internal_behavior(behavior, str::to_uppercase_first).to_string();
        annotations.insert(BEHAVIOR.to_owned(), json!(text));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        // v1 always says it, v2 when there are some.
        status.entry("currentReplicas").or_insert(json!(0));
        if let Some(Value::Array(current)) = status.remove("currentMetrics") {
            for metric in &current {
                if metric["resource"]["name"] == "cpu"
                    && let Some(percent) = metric.pointer("/resource/current/averageUtilization")
                {
                    status.insert("currentCPUUtilizationPercentage".to_owned(), percent.clone());
                }
            }
            if !current.is_empty() {
                let old: Vec<Value> = current.iter().map(|m| metric_to_v1(m, "current")).collect();
                annotations.insert(CURRENT_METRICS.to_owned(), json!(Value::Array(old).to_string()));
            }
        }
        if let Some(conditions) =
            status.remove("conditions").filter(|c| c.as_array().is_some_and(|a| !a.is_empty()))
        {
            annotations.insert(CONDITIONS.to_owned(), json!(conditions.to_string()));
        }
    }
    if !annotations.is_empty() {
        map_at_mut(&mut object, &["metadata", "annotations"]).extend(annotations);
    }
    object
}

/// Removes the conversion's own annotations and returns those that hold JSON.
fn take_annotations(object: &mut Object) -> Map<String, Value> {
    let mut found = Map::new();
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return found;
    };
    for key in [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR] {
        if let Some(parsed) = annotations
            .remove(key)
            .as_ref()
            .and_then(Value::as_str)
            .and_then(|t| serde_json::from_str(t).ok())
        {
            found.insert(key.to_owned(), parsed);
        }
    }
    if annotations.is_empty()
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.remove("annotations");
    }
    found
}

fn cpu_metric(role: &str, value: Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", role: value}})
}

/// The source's key in a metric, by its `type`.
fn source_key(metric: &Value) -> Option<&'static str> {
    Some(match metric.get("type").and_then(Value::as_str)? {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return None,
    })
}

/// v1's flat names for the three numbers of a target (or current value), by source.
fn flat_names(source: &str, role: &str) -> [(String, &'static str); 3] {
    let average = if source == "object" { "averageValue".to_owned() } else { format!("{role}AverageValue") };
    [
        (format!("{role}AverageUtilization"), "averageUtilization"),
        (average, "averageValue"),
        (format!("{role}Value"), "value"),
    ]
}

fn metric_to_v1(metric: &Value, role: &str) -> Value {
    let Some(source) = source_key(metric) else { return metric.clone() };
    let from = &metric[source];
    let mut flat = Map::new();
    for key in ["name", "container"] {
        copy(from, key, &mut flat, key);
    }
    copy(&from["metric"], "name", &mut flat, "metricName");
    let selector = if source == "external" { "metricSelector" } else { "selector" };
    copy(&from["metric"], "selector", &mut flat, selector);
    copy(from, "describedObject", &mut flat, "target");
    for (name, inner) in flat_names(source, role) {
        copy(&from[role], inner, &mut flat, &name);
    }
    json!({"type": metric["type"], source: flat})
}

fn metric_to_v2(metric: &Value, role: &str) -> Value {
    let Some(source) = source_key(metric) else { return metric.clone() };
    let from = &metric[source];
    let mut out = Map::new();
    for key in ["name", "container"] {
        copy(from, key, &mut out, key);
    }
    let mut named = Map::new();
    copy(from, "metricName", &mut named, "name");
    let selector = if source == "external" { "metricSelector" } else { "selector" };
    copy(from, selector, &mut named, "selector");
    if !named.is_empty() {
        out.insert("metric".to_owned(), Value::Object(named));
    }
    if source == "object" {
        copy(from, "target", &mut out, "describedObject");
    }
    let mut value = Map::new();
    for (name, inner) in flat_names(source, role) {
        copy(from, &name, &mut value, inner);
    }
    if role == "target" {
        let kind = if value.contains_key("averageUtilization") {
            "Utilization"
        } else if value.contains_key("averageValue") {
            "AverageValue"
        } else {
            "Value"
        };
        value.insert("type".to_owned(), json!(kind));
    }
    out.insert(role.to_owned(), Value::Object(value));
    json!({"type": metric["type"], source: out})
}

fn copy(from: &Value, key: &str, to: &mut Map<String, Value>, name: &str) {
    if let Some(value) = from.get(key).filter(|v| !v.is_null()) {
        to.insert(name.to_owned(), value.clone());
    }
}

/// The behavior annotation holds upstream's internal type, whose field names begin with a capital.
fn internal_behavior(value: Value, case: fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().map(|(k, v)| (case(&k), internal_behavior(v, case))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(|v| internal_behavior(v, case)).collect(),
        other => other,
    }
}

trait FirstLetter {
    fn to_uppercase_first(&self) -> String;
    fn to_lowercase_first(&self) -> String;
}

impl FirstLetter for str {
    fn to_uppercase_first(&self) -> String {
        let mut chars = self.chars();
        chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
    }

    fn to_lowercase_first(&self) -> String {
        let mut chars = self.chars();
        chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_survive_the_way_and_back() {
        let stored = json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2",
            "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "qps"},
                    "target": {"type": "AverageValue", "averageValue": "10"}}},
                {"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}],
                "behavior": {"scaleUp": {"stabilizationWindowSeconds": 3}}}});
        let v1 = from_stored(stored.clone());
        assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 50);
        assert!(v1["spec"].get("metrics").is_none());
        assert_eq!(to_stored(v1), stored);
    }
}
