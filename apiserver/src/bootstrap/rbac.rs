//! Default roles and bindings: what is missing is added, what an administrator added stays, and what is marked
//! `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.
//!
//! The objects are data, in `data/`; upstream keeps them in `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`
//! and reconciles them in `component-helpers/auth/rbac/reconciliation`.

use common::status::Status;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value};

use super::Loopback;
use crate::authorization::PolicyRule;
use crate::authorization::rbac::GROUP;
use crate::authorization::rbac::covers::uncovered;
use crate::object::{self, Object, str_at};
use crate::resources::Registry;

/// Writes under way at once.
const WRITES_MAX: usize = 16;
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// Roles before bindings, so that no binding refers to nothing.
const FILES: [(&str, &str); 6] = [
    ("clusterroles", include_str!("data/cluster-roles.yaml")),
    ("clusterroles", include_str!("data/controller-roles.yaml")),
    ("roles", include_str!("data/namespace-roles.yaml")),
    ("clusterrolebindings", include_str!("data/cluster-role-bindings.yaml")),
    ("clusterrolebindings", include_str!("data/controller-role-bindings.yaml")),
    ("rolebindings", include_str!("data/namespace-role-bindings.yaml")),
];

/// The rules of the built-in `system:node` role, which the node authorizer applies to nodes.
pub fn node_rules() -> Vec<PolicyRule> {
    items(FILES[0].1)
        .iter()
        .find(|role| object::name(role) == "system:node")
        .map(rules)
        .expect("the default roles hold system:node")
}

/// Brings the stored roles and bindings up to the defaults.
pub async fn reconcile(loopback: &Loopback, registry: &Registry) -> Result<(), Status> {
    for (resource, text) in FILES {
        let store = registry.store(GROUP, resource);
        stream::iter(items(text))
            .map(|expected| async move {
                let (namespace, name) = (object::namespace(&expected), object::name(&expected));
                let existing = store.cached(namespace, name).map(|cached| cached.tree());
                one(loopback, resource, &expected, existing).await
            })
            .buffer_unordered(WRITES_MAX)
            .try_collect::<Vec<()>>()
            .await?;
    }
    Ok(())
}

async fn one(
    loopback: &Loopback,
    resource: &str,
    expected: &Object,
    existing: Option<Object>,
) -> Result<(), Status> {
    let namespace = object::namespace(expected);
    let collection = if namespace.is_empty() {
        format!("/apis/{GROUP}/v1/{resource}")
    } else {
        format!("/apis/{GROUP}/v1/namespaces/{namespace}/{resource}")
    };
    let path = format!("{collection}/{}", object::name(expected));
    match existing {
        None => loopback.create(&collection, expected).await,
        Some(existing) => match reconciled(expected, &existing) {
            Change::None => Ok(()),
            Change::Update(object) => loopback.update(&path, &object).await,
            // A binding's role cannot be changed, only made anew.
            Change::Recreate => {
                loopback.delete(&path).await?;
                loopback.create(&collection, expected).await
            }
        },
    }
}

#[derive(Debug, PartialEq)]
enum Change {
    None,
    Update(Object),
    Recreate,
}

fn reconciled(expected: &Object, existing: &Object) -> Change {
    if str_at(existing, &["metadata", "annotations", AUTO_UPDATE]) == "false" {
        return Change::None;
    }
    let mut result = existing.clone();
    for kind in ["annotations", "labels"] {
        let wanted = expected.pointer(&format!("/metadata/{kind}")).and_then(Value::as_object);
        for (key, value) in wanted.unwrap_or(&Map::new()) {
            // What is there already wins, as upstream.
            object::map_at_mut(&mut result, &["metadata", kind])
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
    }
    if expected.get("roleRef").is_some() {
        if expected.get("roleRef") != existing.get("roleRef") {
            return Change::Recreate;
        }
        add_missing(expected, &mut result, "subjects");
    } else {
        let missing = uncovered(&rules(existing), &rules(expected));
        if !missing.is_empty() {
            let mut all = rules(existing);
            all.extend(missing);
            result["rules"] = serde_json::to_value(all).unwrap_or_default();
        }
        match (expected.get("aggregationRule"), existing.get("aggregationRule")) {
            (None, Some(_)) => {
                result.as_object_mut().map(|map| map.remove("aggregationRule"));
            }
            (Some(wanted), None) => result["aggregationRule"] = wanted.clone(),
            (Some(wanted), Some(_)) => {
                add_missing(wanted, &mut result["aggregationRule"], "clusterRoleSelectors");
            }
            (None, None) => {}
        }
    }
    if result == *existing { Change::None } else { Change::Update(result) }
}

/// Items of `expected[key]` that `result[key]` lacks are added to it.
fn add_missing(expected: &Value, result: &mut Value, key: &str) {
    let wanted = expected.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut all = result.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let before = all.len();
    for item in wanted {
        if !all.contains(&item) {
            all.push(item);
        }
    }
    if all.len() != before {
        result[key] = Value::Array(all);
    }
}

fn rules(role: &Object) -> Vec<PolicyRule> {
    let rules = role.get("rules").cloned().unwrap_or_default();
    serde_json::from_value::<Option<Vec<PolicyRule>>>(rules).ok().flatten().unwrap_or_default()
}

/// The items of a list file, subjects completed as defaulting would, so that comparing works.
fn items(text: &str) -> Vec<Object> {
    let list: Value = serde_saphyr::from_str(text).expect("the default roles are YAML");
    let mut items = list["items"].as_array().cloned().unwrap_or_default();
    for item in &mut items {
        for subject in item["subjects"].as_array_mut().into_iter().flatten() {
            if subject["kind"] != "ServiceAccount" && subject.get("apiGroup").is_none() {
                subject["apiGroup"] = GROUP.into();
            }
        }
        if let Some(map) = item.as_object_mut() {
            map.retain(|_, value| !value.is_null());
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_data_is_whole() {
        let counts: Vec<usize> = FILES.iter().map(|(_, text)| items(text).len()).collect();
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        assert!(node_rules().iter().any(|rule| rule.resources == ["nodes/status"]));
        for item in FILES.iter().flat_map(|(_, text)| items(text)) {
            assert!(!object::name(&item).is_empty() && !object::kind(&item).is_empty());
        }
    }

    #[test]
    fn missing_rules_are_added_and_own_ones_stay() {
        let rule = |verbs: &[&str]| json!({"verbs": verbs, "apiGroups": [""], "resources": ["pods"]});
        let expected =
            json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "rules": [rule(&["get", "list"])]});
        let mut existing =
            json!({"metadata": {"name": "x", "uid": "1"}, "rules": [rule(&["get", "delete"])]});
        let Change::Update(result) = reconciled(&expected, &existing) else { panic!("no update") };
        assert_eq!(result["rules"], json!([rule(&["get", "delete"]), rule(&["list"])]));
        assert_eq!(result["metadata"], json!({"name": "x", "uid": "1", "labels": {"a": "b"}}));
        assert_eq!(reconciled(&expected, &result), Change::None);
        existing["metadata"]["annotations"] = json!({AUTO_UPDATE: "false"});
        assert_eq!(reconciled(&expected, &existing), Change::None);
    }

    #[test]
    fn a_binding_to_another_role_is_made_anew() {
        let binding =
            |role: &str| json!({"metadata": {"name": "x"}, "roleRef": {"name": role}, "subjects": []});
        assert_eq!(reconciled(&binding("a"), &binding("b")), Change::Recreate);
        let mut expected = binding("a");
        expected["subjects"] = json!([{"kind": "User", "name": "u"}]);
        assert!(matches!(reconciled(&expected, &binding("a")), Change::Update(_)));
    }
}
