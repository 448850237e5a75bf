//! Scopes: which objects a quota is about.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::pods::pod_totals;
use super::{Amount, ResourceList};
use crate::labels::Selector;

/// One scope that an object must have (`v1.ScopedResourceSelectorRequirement`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScopeRequirement {
    pub scope_name: String,
    #[serde(default)]
    pub operator: String,
    #[serde(default)]
    pub values: Vec<String>,
}

/// A requirement that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse and convert selector: {0}")]
pub struct ScopeError(String);

/// As Go prints the struct, which is how refusals show it.
impl fmt::Display for ScopeRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{} {} [{}]}}", self.scope_name, self.operator, self.values.join(" "))
    }
}

/// The scopes of a quota: those it lists and those it selects.
pub fn scopes_of(quota: &Value) -> Vec<ScopeRequirement> {
    let spec = &quota["spec"];
    let listed = spec["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let listed = listed.map(|name| ScopeRequirement {
        scope_name: name.to_owned(),
        operator: "Exists".to_owned(),
        values: Vec::new(),
    });
    let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    listed.chain(selected.filter_map(|e| serde_json::from_value(e.clone()).ok())).collect()
}

impl ScopeRequirement {
    /// Whether a pod has the scope. Scopes of other kinds are nobody's.
    ///
    /// # Errors
    /// When the operator or the values cannot be a selector.
    pub(super) fn of_pod(&self, pod: &Value) -> Result<bool, ScopeError> {
        Ok(match self.scope_name.as_str() {
            "Terminating" => is_terminating(pod),
            "NotTerminating" => !is_terminating(pod),
            "BestEffort" => is_best_effort(pod),
            "NotBestEffort" => !is_best_effort(pod),
            "PriorityClass" => {
                let class = pod["spec"]["priorityClassName"].as_str().unwrap_or("");
                if self.operator == "Exists" {
                    return Ok(!class.is_empty());
                }
                self.selects(Some(class).filter(|class| !class.is_empty()))?
            }
            "CrossNamespacePodAffinity" => crosses_namespaces(pod),
            _ => false,
        })
    }

    /// Whether a claim has the scope: any of the attribute classes it has, wants or is moving to counts.
    pub(super) fn of_claim(&self, claim: &Value) -> Result<bool, ScopeError> {
        if self.scope_name != "VolumeAttributesClass" {
            return Ok(false);
        }
        let status = &claim["status"];
        let classes: BTreeSet<&str> = [
            &claim["spec"]["volumeAttributesClassName"],
            &status["currentVolumeAttributesClassName"],
            &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
        ]
        .into_iter()
        .filter_map(Value::as_str)
        .filter(|class| !class.is_empty())
        .collect();
        if self.operator == "Exists" {
            return Ok(!classes.is_empty());
        }
        if classes.is_empty() {
            return self.selects(None);
        }
        for class in classes {
            if self.selects(Some(class))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn selects(&self, value: Option<&str>) -> Result<bool, ScopeError> {
        let expression = serde_json::json!({"matchExpressions": [
            {"key": self.scope_name, "operator": self.operator, "values": self.values}]});
        let wrong = |error: String| ScopeError(error);
        let selector = serde_json::from_value(expression).map_err(|error| wrong(error.to_string()))?;
        let selector = Selector::from_label_selector(Some(&selector)).map_err(|e| wrong(e.to_string()))?;
        let labels: BTreeMap<String, String> =
            value.map(|value| (self.scope_name.clone(), value.to_owned())).into_iter().collect();
        Ok(selector.matches(&labels))
    }
}

/// The pod ends by itself.
pub fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

/// No container, nor the pod as a whole, asks for cpu or memory.
fn is_best_effort(pod: &Value) -> bool {
    let asks = |list: &ResourceList| {
        ["cpu", "memory"].iter().any(|name| list.get(name).is_some_and(|a: Amount| !a.value.is_zero()))
    };
    let totals = pod_totals(pod, false, false);
    !asks(&totals.requests) && !asks(&totals.limits)
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crossing = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|names| !names.is_empty())
            || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = &pod["spec"]["affinity"][kind];
        let terms = |key: &str| affinity[key].as_array().cloned().unwrap_or_default();
        terms("requiredDuringSchedulingIgnoredDuringExecution").iter().any(crossing)
            || terms("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| crossing(&weighted["podAffinityTerm"]))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(name: &str, operator: &str, values: &[&str], pod: Value, expected: bool) {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        let scope = ScopeRequirement { scope_name: name.into(), operator: operator.into(), values };
        assert_eq!(scope.of_pod(&pod), Ok(expected), "{scope} {pod}");
    }

    #[test]
    fn pods_have_scopes() {
        let plain = json!({"spec": {"containers": [{"name": "a"}]}});
        let busy = json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high",
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "x", "namespaceSelector": {}}}]}}}});
        for (name, of_plain) in [
            ("Terminating", false),
            ("NotTerminating", true),
            ("BestEffort", true),
            ("NotBestEffort", false),
            ("PriorityClass", false),
        ] {
            check(name, "Exists", &[], plain.clone(), of_plain);
            check(name, "Exists", &[], busy.clone(), !of_plain);
        }
        check("CrossNamespacePodAffinity", "Exists", &[], busy.clone(), true);
        check("CrossNamespacePodAffinity", "Exists", &[], plain.clone(), false);
        check("PriorityClass", "In", &["low", "high"], busy.clone(), true);
        check("PriorityClass", "NotIn", &["high"], busy, false);
        check("PriorityClass", "NotIn", &["high"], plain.clone(), true);
        check("PriorityClass", "DoesNotExist", &[], plain.clone(), true);
        check("VolumeAttributesClass", "Exists", &[], plain, false);
    }

    #[test]
    fn claims_have_the_scope_of_any_of_their_classes() {
        let claim = json!({"spec": {"volumeAttributesClassName": "gold"},
            "status": {"currentVolumeAttributesClassName": "silver"}});
        let scope = |operator: &str, value: &str| ScopeRequirement {
            scope_name: "VolumeAttributesClass".into(),
            operator: operator.into(),
            values: if value.is_empty() { Vec::new() } else { vec![value.into()] },
        };
        assert_eq!(scope("In", "silver").of_claim(&claim), Ok(true));
        assert_eq!(scope("In", "bronze").of_claim(&claim), Ok(false));
        assert_eq!(scope("Exists", "").of_claim(&claim), Ok(true));
        assert_eq!(scope("DoesNotExist", "").of_claim(&json!({})), Ok(true));
        assert!(scope("Near", "x").of_claim(&claim).is_err());
    }
}
