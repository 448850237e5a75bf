//! Whether a node is one that a pod's selector and required node affinity allow. Pure.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};

use crate::pod;

/// `nodeSelector` and the required part of `nodeAffinity`; both must hold.
pub(super) fn allows(pod: &Pod, node: &Node) -> bool {
    let spec = pod::spec(pod);
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| label(node, key).is_some_and(|found| found == value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|term| term_holds(term, node)))
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// A term that asks for nothing allows no node.
fn term_holds(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |key: &str| if key == "metadata.name" { node.metadata.name.as_deref() } else { None };
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|r| requirement_holds(r, label(node, &r.key)))
        && fields.iter().all(|r| requirement_holds(r, field(&r.key)))
}

fn requirement_holds(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |found: &str| values.iter().any(|v| v == found);
    let numbers = || Some((found?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => found.is_some_and(listed),
        "NotIn" => !found.is_some_and(listed),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => numbers().is_some_and(|(a, b)| a > b),
        "Lt" => numbers().is_some_and(|(a, b)| a < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn selectors_and_terms() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"zone": "a", "cores": "4"}}}))
                .unwrap();
        let pod = |selector: Value, terms: Value| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [], "nodeSelector": selector,
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms": terms}}}}}))
            .unwrap()
        };
        let label = |key: &str, op: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": op, "values": values}]});
        for (term, want) in [
            (label("zone", "In", &["a", "b"]), true),
            (label("zone", "NotIn", &["a"]), false),
            (label("other", "NotIn", &["a"]), true),
            (label("zone", "Exists", &[]), true),
            (label("zone", "DoesNotExist", &[]), false),
            (label("cores", "Gt", &["3"]), true),
            (label("cores", "Lt", &["4"]), false),
            (label("zone", "Gt", &["3"]), false),
            (json!({}), false),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}), true),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}), false),
        ] {
            assert_eq!(allows(&pod(json!({}), json!([term.clone()])), &node), want, "{term}");
        }
        let either = json!([label("zone", "In", &["b"]), label("zone", "In", &["a"])]);
        assert!(allows(&pod(json!({"zone": "a"}), either.clone()), &node));
        assert!(!allows(&pod(json!({"zone": "b"}), either), &node));
    }
}
