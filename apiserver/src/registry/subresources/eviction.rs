//! `pods/eviction`: a delete that asks the pod's disruption budget first.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::{Status, StatusCause};
use serde_json::{Value, json};

use super::{Change, admit, query, read, success};
use crate::cacher::{Decision, Preconditions};
use crate::object::{self, Object, str_at};
use crate::registry::core::pod;
use crate::registry::deps::Deps;
use crate::registry::pod_template::metadata::matcher;
use crate::registry::tree::{at, field, has, int, items, map_mut, set, string_map, struct_mut, text};
use crate::request::Response;
use crate::resources::{Subresource, SubresourceRequest};

pub struct Eviction {
    deps: Arc<Deps>,
}

impl Eviction {
    pub fn new(deps: Arc<Deps>) -> Self {
        Self { deps }
    }

    /// Takes one disruption from the budget, or refuses.
    async fn spend(&self, budget: &Object, pod: &str, dry_run: bool) -> Result<(), Status> {
        let mut change = Change(|budget: Object| {
            Ok(Decision::Write { object: spent(budget, pod, jiff::Timestamp::now())?, ttl_seconds: None })
        });
        if dry_run {
            return spent(budget.clone(), pod, jiff::Timestamp::now()).map(|_| ());
        }
        let store = self.deps.registry.store("policy", "poddisruptionbudgets");
        store
            .guaranteed_update(
                object::namespace(budget),
                object::name(budget),
                &Preconditions::default(),
                false,
                &mut change,
            )
            .await?;
        Ok(())
    }
}

/// A budget's status may name this many pods whose deletion was not seen yet.
const DISRUPTED_PODS_MAX: usize = 2000;

fn spent(mut budget: Object, pod: &str, now: jiff::Timestamp) -> Result<Object, Status> {
    let name = object::name(&budget).to_owned();
    let status = field(&budget, "status").clone();
    let observed = int(&status, "observedGeneration").unwrap_or(0);
    let refuse = |cause: String| {
        Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
            .because(vec![StatusCause {
                reason: "DisruptionBudget".into(),
                message: cause,
                field: String::new(),
            }])
    };
    if observed < at(&budget, &["metadata", "generation"]).as_i64().unwrap_or(0) {
        let mut answer =
            refuse(format!("The disruption budget {name} is still being processed by the server."));
        answer = answer.retry_after(10);
        return Err(answer);
    }
    let allowed = int(&status, "disruptionsAllowed").unwrap_or(0);
    if allowed < 0 {
        return Err(Status::forbidden(
            "policy",
            "poddisruptionbudget",
            &name,
            "pdb disruptions allowed is negative",
        ));
    }
    if field(&status, "disruptedPods").as_object().is_some_and(|m| m.len() > DISRUPTED_PODS_MAX) {
        return Err(Status::forbidden(
            "policy",
            "poddisruptionbudget",
            &name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        return Err(refuse(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            int(&status, "desiredHealthy").unwrap_or(0),
            int(&status, "currentHealthy").unwrap_or(0)
        )));
    }
    if let Some(status) = struct_mut(&mut budget, "status") {
        set(status, "disruptionsAllowed", allowed - 1);
        if let Some(pods) = map_mut(status, "disruptedPods") {
            pods.insert(pod.to_owned(), json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        }
    }
    Ok(budget)
}

/// A pod that is no loss to any budget.
fn unprotected(pod: &Object) -> bool {
    matches!(str_at(pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending")
        || has(field(pod, "metadata"), "deletionTimestamp")
}

fn is_ready(pod: &Object) -> bool {
    items(field(pod, "status"), "conditions")
        .iter()
        .any(|c| text(c, "type") == "Ready" && text(c, "status") == "True")
}

fn unhealthy_may_go(budget: &Object) -> bool {
    let status = field(budget, "status");
    let (now, wanted) =
        (int(status, "currentHealthy").unwrap_or(0), int(status, "desiredHealthy").unwrap_or(0));
    match text(field(budget, "spec"), "unhealthyPodEvictionPolicy") {
        "AlwaysAllow" => true,
        _ => now >= wanted && wanted > 0,
    }
}

/// What a delete makes of the pod: marked with a grace, or gone.
pub(super) fn deleted(mut object: Object, requested: Option<i64>, now: jiff::Timestamp) -> Decision {
    let grace = pod::RULES.grace.and_then(|grace| grace(&object, requested)).unwrap_or(0);
    let finalizers = !items(field(&object, "metadata"), "finalizers").is_empty();
    let marked = has(field(&object, "metadata"), "deletionTimestamp");
    if grace == 0 && !finalizers {
        return Decision::Delete;
    }
    let before = at(&object, &["metadata", "deletionGracePeriodSeconds"]).as_i64();
    if !marked || before.is_none_or(|b| grace < b) {
        let generation = at(&object, &["metadata", "generation"]).as_i64().unwrap_or(0) + 1;
        let at = now.saturating_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(now);
        let metadata = object::metadata_mut(&mut object);
        let stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        metadata.insert("deletionTimestamp".into(), json!(stamp));
        metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
        if !marked {
            metadata.insert("generation".into(), json!(generation));
        }
    }
    Decision::Write { object, ttl_seconds: None }
}

#[async_trait]
impl Subresource for Eviction {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let ctx = request.request.ctx.clone();
        let mut eviction = read(&request.request.parts.headers, request.request.body).await?;
        let options = field(&eviction, "deleteOptions").clone();
        let info = &ctx.info;
        if !object::name(&eviction).is_empty() && object::name(&eviction) != info.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let dry_run = query(&ctx, "dryRun") == "All" || items(&options, "dryRun").iter().any(|d| d == "All");
        admit(&self.deps, &ctx, "Eviction", "v1", &mut eviction, dry_run).await?;
        let pods = self.deps.registry.store("", "pods");
        let pod = pods.get(&info.namespace, &info.name, None).await?.tree();
        if !unprotected(&pod) {
            let labels = string_map(at(&pod, &["metadata", "labels"]));
            let store = self.deps.registry.store("policy", "poddisruptionbudgets");
            let budgets: Vec<Object> = store
                .cached_list(&info.namespace)
                .iter()
                .map(|b| b.tree())
                .filter(|b| matcher(at(b, &["spec", "selector"])).matches(&labels))
                .collect();
            match budgets.as_slice() {
                [] => {}
                [budget] if !is_ready(&pod) && unhealthy_may_go(budget) => {}
                [budget] => self.spend(budget, &info.name, dry_run).await?,
                _ => {
                    return Err(Status::internal(
                        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                    ));
                }
            }
        }
        if dry_run {
            return Ok(success());
        }
        let conditions = field(&options, "preconditions");
        let own = |key: &str| conditions.get(key).and_then(Value::as_str).map(str::to_owned);
        let preconditions = Preconditions {
            uid: own("uid").or_else(|| Some(object::uid(&pod).to_owned())),
            resource_version: own("resourceVersion"),
        };
        let grace = int(&options, "gracePeriodSeconds");
        let mut change = Change(|pod| Ok(deleted(pod, grace, jiff::Timestamp::now())));
        pods.guaranteed_update(&info.namespace, &info.name, &preconditions, false, &mut change).await?;
        Ok(success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_then_refuses() {
        let budget = json!({"metadata": {"name": "b", "generation": 1}, "status": {"observedGeneration": 1,
            "disruptionsAllowed": 1, "desiredHealthy": 2, "currentHealthy": 3}});
        let budget = spent(budget, "p", jiff::Timestamp::UNIX_EPOCH).expect("one left");
        assert_eq!(budget["status"]["disruptionsAllowed"], 0);
        let status = spent(budget, "q", jiff::Timestamp::UNIX_EPOCH).expect_err("none left");
        assert_eq!(status.code, 429);
        assert_eq!(status.message, "Cannot evict pod as it would violate the pod's disruption budget.");
        assert_eq!(
            status.details.expect("details").causes[0].message,
            "The disruption budget b needs 2 healthy pods and has 3 currently"
        );
    }
}
