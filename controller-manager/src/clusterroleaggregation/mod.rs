//! Fills the rules of cluster roles that are made of others: `admin`, `edit`, `view` and any with an
//! `aggregationRule`.
//!
//! Which role depends on which is not tracked: roles are few, so every change looks at all aggregated ones,
//! and one that already is what it should be is not written. Answers to upstream's
//! `pkg/controller/clusterroleaggregation`.

use std::sync::Arc;

use async_trait::async_trait;
use common::labels::Selector;
use serde_json::json;

use crate::controller::{Error, Informer, Key, Outcome, Reconcile, Rest, View};
use crate::daemon::Context;
use crate::views::{ClusterRole, PolicyRule};

/// Owns the rules of aggregated roles in their managed fields.
const MANAGER: &str = "clusterrole-aggregation-controller";
const WORKERS: usize = 5;
/// The server cannot apply on its side.
const UNSUPPORTED_MEDIA_TYPE: u16 = 415;

struct Aggregator {
    rest: Rest,
    roles: Informer<ClusterRole>,
}

/// Registers the handlers and starts the workers; keys are cluster roles.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("ClusterRoleAggregator");
    let roles = context.informers.of::<ClusterRole>();
    {
        let (queue, all) = (queue.clone(), roles.clone());
        roles.on_change(move |_| {
            for role in all.store().all() {
                if role.aggregation_rule.is_some() {
                    queue.add(role.key());
                }
            }
        });
    }
    let controller = Arc::new(Aggregator { rest: context.rest.clone(), roles });
    context.run(queue, controller, WORKERS);
}

/// Pure: the rules that `role` should have, or `None` where it has them or aggregates nothing. `all` is in the
/// order of names, and so are the rules of each selector.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Result<Option<Vec<PolicyRule>>, Error> {
    let Some(aggregation) = &role.aggregation_rule else { return Ok(None) };
    let mut rules: Vec<PolicyRule> = Vec::new();
    for (n, selector) in aggregation.cluster_role_selectors.iter().enumerate() {
        let selector = Selector::from_label_selector(Some(selector)).map_err(|error| {
            Error::Invalid(format!("aggregationRule.clusterRoleSelectors[{n}] of {}: {error}", role.name()))
        })?;
        for part in all {
            if part.name() == role.name() || !selector.matches(&part.metadata.labels) {
                continue;
            }
            for rule in &part.rules {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Ok((rules != role.rules).then_some(rules))
}

#[async_trait]
impl Reconcile for Aggregator {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(role) = self.roles.store().get(key) else { return Ok(Outcome::Done) };
        let Some(rules) = plan(&role, &self.roles.store().all())? else { return Ok(Outcome::Done) };
        let mut body = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": role.name() },
        });
        if !rules.is_empty() {
            body["rules"] = json!(rules);
        }
        let result = match self.rest.apply::<ClusterRole>("", role.name(), MANAGER, &body).await {
            Err(kube::Error::Api(status)) if status.code == UNSUPPORTED_MEDIA_TYPE => {
                let body = json!({
                    "metadata": { "uid": role.uid(), "resourceVersion": role.metadata.resource_version },
                    "rules": rules,
                });
                self.rest.update::<ClusterRole>("", role.name(), None, &body).await
            }
            other => other,
        };
        result.map_err(Error::api(format!("write the rules of {}", role.name())))?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn role(name: &str, label: Option<&str>, rules: Value, selectors: Value) -> Arc<ClusterRole> {
        let mut role = json!({"metadata": {"name": name}, "rules": rules});
        if let Some(label) = label {
            role["metadata"]["labels"] = json!({ label: "true" });
        }
        if !selectors.is_null() {
            role["aggregationRule"] = json!({ "clusterRoleSelectors": selectors });
        }
        Arc::new(serde_json::from_value(role).expect("role"))
    }

    fn rule(resource: &str) -> Value {
        json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]})
    }

    fn resources(rules: &[PolicyRule]) -> Vec<&str> {
        rules.iter().map(|r| r.resources[0].as_str()).collect()
    }

    #[test]
    fn rules_come_in_order_once_and_not_from_itself() {
        let select = json!([{"matchLabels": {"b": "true"}}, {"matchLabels": {"a": "true"}}]);
        let whole = role("whole", Some("a"), json!([rule("old")]), select);
        let all = [
            role("p1", Some("a"), json!([rule("pods"), rule("nodes")]), Value::Null),
            role("p2", Some("b"), json!([rule("secrets"), rule("pods")]), Value::Null),
            role("p3", None, json!([rule("jobs")]), Value::Null),
            whole.clone(),
        ];
        let rules = plan(&whole, &all).expect("plan").expect("a change");
        assert_eq!(resources(&rules), ["secrets", "pods", "nodes"]);
    }

    #[test]
    fn what_is_right_is_not_written() {
        let select = json!([{"matchLabels": {"a": "true"}}]);
        let part = role("part", Some("a"), json!([rule("pods")]), Value::Null);
        let right = role("right", None, json!([rule("pods")]), select.clone());
        assert_eq!(plan(&right, &[part.clone(), right.clone()]).expect("plan"), None);
        let emptied = role("emptied", None, json!([rule("pods")]), select.clone());
        assert_eq!(plan(&emptied, std::slice::from_ref(&emptied)).expect("plan"), Some(Vec::new()));
        let empty = role("empty", None, Value::Null, select);
        assert_eq!(plan(&empty, std::slice::from_ref(&empty)).expect("plan"), None);
        assert_eq!(plan(&part, std::slice::from_ref(&part)).expect("plan"), None);
    }

    #[test]
    fn a_selector_that_means_nothing_is_an_error() {
        let bad = json!([{"matchExpressions": [{"key": "a", "operator": "Near"}]}]);
        let role = role("r", None, json!([]), bad);
        assert!(plan(&role, &[]).is_err());
    }
}
