//! The quality-of-service class of a pod (`pkg/apis/core/v1/helper/qos`).

use serde_json::Value;

use super::resources::read;
use crate::registry::tree::{at, field, items, text};

/// The class that the pod's status says, or the one it would get.
pub fn class_of_record(pod: &Value) -> &str {
    match text(field(pod, "status"), "qosClass") {
        "" => class(pod),
        said => said,
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from the cpu and memory of the pod or its containers.
pub fn class(pod: &Value) -> &'static str {
    let spec = field(pod, "spec");
    let pod_level = field(spec, "resources");
    if positive(field(pod_level, "requests")) + positive(field(pod_level, "limits")) > 0 {
        return classify(&[pod_level]);
    }
    let all: Vec<&Value> = items(spec, "containers")
        .iter()
        .chain(items(spec, "initContainers"))
        .map(|c| field(c, "resources"))
        .collect();
    classify(&all)
}

fn classify(all: &[&Value]) -> &'static str {
    let any = all.iter().any(|r| positive(field(r, "requests")) + positive(field(r, "limits")) > 0);
    if !any {
        return "BestEffort";
    }
    let guaranteed = all.iter().all(|r| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = read(at(r, &["limits", name])).filter(|q| !q.is_zero());
            let request = read(at(r, &["requests", name])).filter(|q| !q.is_zero());
            limit.is_some() && (request.is_none() || request == limit)
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

fn positive(list: &Value) -> usize {
    ["cpu", "memory"].iter().filter(|n| list.get(**n).and_then(read).is_some_and(|q| !q.is_zero())).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn class_follows_requests_and_limits() {
        for (resources, expected) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (
                json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
                "Guaranteed",
            ),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
        ] {
            let pod = json!({"spec": {"containers": [{"resources": resources}]}});
            assert_eq!(class(&pod), expected, "{pod}");
        }
    }
}
