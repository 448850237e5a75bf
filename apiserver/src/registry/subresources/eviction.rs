//! `pods/eviction`: a delete that asks the pod's disruption budget first.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::{FieldErrors, Status, StatusCause};
use serde_json::{Value, json};

use super::{Change, admit, create_options, query_all, read, success};
use crate::cacher::{Decision, ListQuery, Preconditions, Selection};
use crate::endpoints::Expected;
use crate::object::{self, Object, str_at};
use crate::registry::core::pod;
use crate::registry::deps::Deps;
use crate::registry::pod_template::metadata::matcher;
use crate::registry::tree::{
    at, field, flag, has, int, items, list_mut, map_mut, set, string_map, strings, struct_mut, text,
};
use crate::request::Response;
use crate::resources::{Registry, Subresource, SubresourceRequest};

pub struct Eviction {
    deps: Arc<Deps>,
}

impl Eviction {
    pub fn new(deps: Arc<Deps>) -> Self {
        Self { deps }
    }

    async fn spend(&self, budget: &Object, pod: &str, dry_run: bool) -> Result<(), Status> {
        if dry_run {
            return spent(budget.clone(), pod, jiff::Timestamp::now()).map(|_| ());
        }
        spend_one(&self.deps.registry, object::namespace(budget), object::name(budget), pod).await
    }
}

/// Takes one disruption from the budget as it is when it is written, or refuses.
async fn spend_one(registry: &Registry, namespace: &str, budget: &str, pod: &str) -> Result<(), Status> {
    let mut change = Change(|budget: Object| {
        Ok(Decision::Write { object: spent(budget, pod, jiff::Timestamp::now())?, ttl_seconds: None })
    });
    let store = registry.store("policy", "poddisruptionbudgets");
    store.guaranteed_update(namespace, budget, &Preconditions::default(), false, &mut change).await?;
    Ok(())
}

/// A budget's status may name this many pods whose deletion was not seen yet.
const DISRUPTED_PODS_MAX: usize = 2000;

/// How often an eviction that needs no budget is tried while its pod changes under it.
const ATTEMPTS_MAX: u32 = 20;

/// 429, with the budget as the cause.
fn refuse(cause: String) -> Status {
    Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0).because(
        vec![StatusCause { reason: "DisruptionBudget".into(), message: cause, field: String::new() }],
    )
}

/// The budget's figures are not those of its present state.
fn in_progress(budget: &str) -> Status {
    refuse(format!("The disruption budget {budget} is still being processed by the server.")).retry_after(10)
}

fn spent(mut budget: Object, pod: &str, now: jiff::Timestamp) -> Result<Object, Status> {
    let name = object::name(&budget).to_owned();
    let status = field(&budget, "status").clone();
    let observed = int(&status, "observedGeneration").unwrap_or(0);
    if observed < at(&budget, &["metadata", "generation"]).as_i64().unwrap_or(0) {
        return Err(in_progress(&name));
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
        return Err(refuse(exhausted(&name, &status)));
    }
    if let Some(status) = struct_mut(&mut budget, "status") {
        set(status, "disruptionsAllowed", allowed - 1);
        if allowed == 1 {
            refuse_disruptions(status, now);
        }
        if let Some(pods) = map_mut(status, "disruptedPods") {
            pods.insert(pod.to_owned(), json!(stamp(now)));
        }
    }
    Ok(budget)
}

fn stamp(now: jiff::Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Why a budget that allows nothing does not.
fn exhausted(name: &str, status: &Value) -> String {
    let condition = items(status, "conditions").iter().find(|c| text(c, "type") == "DisruptionAllowed");
    let refusing = condition.filter(|c| text(c, "status") == "False" && !text(c, "message").is_empty());
    let (now, wanted) =
        (int(status, "currentHealthy").unwrap_or(0), int(status, "desiredHealthy").unwrap_or(0));
    match refusing.map(|c| (text(c, "reason"), text(c, "message"))) {
        Some(("SyncFailed", message)) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}"
        ),
        _ if now <= wanted => {
            format!("The disruption budget {name} needs {wanted} healthy pods and has {now} currently")
        }
        Some((reason, message)) => {
            format!(
                "The disruption budget {name} does not allow evicting pods currently ({reason}): {message}"
            )
        }
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

/// Notes that the last disruption is taken.
fn refuse_disruptions(status: &mut Value, now: jiff::Timestamp) {
    let generation = int(status, "observedGeneration").unwrap_or(0);
    let condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
        "message": "", "observedGeneration": generation});
    put_condition(status, condition, now);
}

/// Puts a condition in place of the one of its type; the time of a status that stays is kept.
fn put_condition(status: &mut Value, mut condition: Value, now: jiff::Timestamp) {
    let Some(conditions) = list_mut(status, "conditions") else { return };
    let old = conditions.iter_mut().find(|c| text(c, "type") == text(&condition, "type"));
    let since = match &old {
        Some(old) if text(old, "status") == text(&condition, "status") && has(old, "lastTransitionTime") => {
            field(old, "lastTransitionTime").clone()
        }
        _ => json!(stamp(now)),
    };
    set(&mut condition, "lastTransitionTime", since);
    match old {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

/// The pod, told that it goes by an eviction.
fn marked(mut pod: Object, now: jiff::Timestamp) -> Object {
    let generation = at(&pod, &["metadata", "generation"]).clone();
    if let Some(status) = struct_mut(&mut pod, "status") {
        let mut condition = json!({"type": "DisruptionTarget", "status": "True",
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting", "lastProbeTime": null});
        set(&mut condition, "observedGeneration", generation);
        put_condition(status, condition, now);
    }
    pod
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

/// The disruption budget's say about a pod.
enum Verdict {
    /// None is about it, or it took one disruption from the one that is.
    Go,
    /// It is not healthy and not counted: it may go as it is now, and only so.
    GoUnhealthy(String),
}

impl Eviction {
    async fn ask_budget(&self, namespace: &str, pod: &Object, dry_run: bool) -> Result<Verdict, Status> {
        let labels = string_map(at(pod, &["metadata", "labels"]));
        let selection = Selection { namespace: namespace.to_owned(), ..Selection::default() };
        let query = ListQuery { selection, ..ListQuery::default() };
        let store = self.deps.registry.store("policy", "poddisruptionbudgets");
        let page = store.list(query).await?;
        let budgets: Vec<Object> = page
            .items
            .iter()
            .map(|b| b.tree())
            .filter(|b| matcher(at(b, &["spec", "selector"])).matches(&labels))
            .collect();
        match budgets.as_slice() {
            [] => Ok(Verdict::Go),
            [budget] if !is_ready(pod) && unhealthy_may_go(budget) => {
                Ok(Verdict::GoUnhealthy(object::name(budget).to_owned()))
            }
            [budget] => {
                self.spend(budget, object::name(pod), dry_run).await?;
                Ok(Verdict::Go)
            }
            _ => Err(Status::failure(
                500,
                "",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            )),
        }
    }
}

/// Terminal and deleted pods cannot become healthy meanwhile; others that no budget was asked about can.
fn may_become_healthy(pod: &Object) -> bool {
    !matches!(str_at(pod, &["status", "phase"]), "Succeeded" | "Failed")
        && !has(field(pod, "metadata"), "deletionTimestamp")
}

#[async_trait]
impl Subresource for Eviction {
    async fn serve(&self, request: SubresourceRequest) -> Result<Response, Status> {
        let ctx = request.request.ctx.clone();
        let asked_for = create_options(&ctx)?;
        let expected = Expected { kind: "Eviction", api_versions: &["policy/v1", "policy/v1beta1"] };
        let type_name = "io.k8s.api.policy.v1.Eviction";
        let mut eviction = read(&self.deps, request.request, type_name, expected, &asked_for).await?;
        let options = field(&eviction, "deleteOptions").clone();
        let info = &ctx.info;
        if object::name(&eviction) != info.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let ignore = "ignoreStoreReadErrorWithClusterBreakingPotential";
        if flag(&options, ignore) {
            let mut errors = FieldErrors::new();
            let detail = "can not be set for pod eviction, try after removing the option";
            errors.invalid(format!("deleteOptions.{ignore}"), true, detail);
            return Err(Status::invalid("policy", "Eviction", &info.name, &errors));
        }
        let (asked, said) = (query_all(&ctx, "dryRun"), strings(&options, "dryRun"));
        if !asked.is_empty() && !said.is_empty() && asked != said {
            return Err(Status::failure(
                500,
                "",
                format!(
                    "Non-matching dry-run options in request and content: [{}] and [{}]",
                    asked.join(" "),
                    said.join(" ")
                ),
            ));
        }
        let dry_run = asked.iter().any(|d| d == "All") || said.contains(&"All");
        admit(&request.admission, &ctx, "Eviction", "v1", &mut eviction, dry_run).await?;
        let pods = self.deps.registry.store("", "pods");
        let given = field(&options, "preconditions");
        let own = |key: &str| given.get(key).and_then(Value::as_str).map(str::to_owned);
        let grace = int(&options, "gracePeriodSeconds");
        for attempt in 1.. {
            let pod = pods.get(&info.namespace, &info.name, None).await?.tree();
            let ignorable = unprotected(&pod);
            let verdict =
                if ignorable { Verdict::Go } else { self.ask_budget(&info.namespace, &pod, dry_run).await? };
            if dry_run {
                return Ok(success());
            }
            // What was decided about this state holds for no other.
            let bound = match verdict {
                Verdict::Go => ignorable && may_become_healthy(&pod),
                Verdict::GoUnhealthy(_) => true,
            };
            let current = bound.then(|| object::resource_version(&pod).to_owned());
            let asked_version = own("resourceVersion");
            let preconditions = Preconditions {
                uid: own("uid").or_else(|| Some(object::uid(&pod).to_owned())),
                resource_version: asked_version.clone().or(current),
            };
            let mut change = Change(|pod| {
                let now = jiff::Timestamp::now();
                Ok(deleted(marked(pod, now), grace, now))
            });
            let done =
                pods.guaranteed_update(&info.namespace, &info.name, &preconditions, false, &mut change).await;
            let Err(status) = done else { return Ok(success()) };
            if status.code != 409 || !bound || asked_version.is_some() {
                return Err(status);
            }
            match verdict {
                Verdict::GoUnhealthy(budget) => return Err(in_progress(&budget)),
                Verdict::Go if attempt >= ATTEMPTS_MAX => return Err(status),
                Verdict::Go => {}
            }
        }
        unreachable!("the attempts end in an answer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_then_refuses() {
        let budget = json!({"metadata": {"name": "b", "generation": 1}, "status": {"observedGeneration": 1,
            "disruptionsAllowed": 1, "desiredHealthy": 2, "currentHealthy": 2}});
        let budget = spent(budget, "p", jiff::Timestamp::UNIX_EPOCH).expect("one left");
        assert_eq!(budget["status"]["disruptionsAllowed"], 0);
        let status = spent(budget, "q", jiff::Timestamp::UNIX_EPOCH).expect_err("none left");
        assert_eq!(status.code, 429);
        assert_eq!(status.message, "Cannot evict pod as it would violate the pod's disruption budget.");
        assert_eq!(
            status.details.expect("details").causes[0].message,
            "The disruption budget b needs 2 healthy pods and has 2 currently"
        );
    }

    #[test]
    fn the_reason_is_the_budgets_own() {
        let told = |healthy: i64, reason: &str, message: &str| {
            let condition =
                json!({"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": message});
            exhausted(
                "b",
                &json!({"currentHealthy": healthy, "desiredHealthy": 2, "conditions": [condition]}),
            )
        };
        assert_eq!(
            told(3, "SyncFailed", "no scale"),
            "The disruption budget b does not allow evicting pods currently because it failed sync: no scale"
        );
        assert_eq!(told(2, "X", "y"), "The disruption budget b needs 2 healthy pods and has 2 currently");
        assert_eq!(
            told(3, "InsufficientPods", "too few"),
            "The disruption budget b does not allow evicting pods currently (InsufficientPods): too few"
        );
        assert_eq!(told(3, "X", ""), "The disruption budget b does not allow evicting pods currently");
    }

    #[test]
    fn the_last_disruption_is_noted() {
        let budget = json!({"metadata": {"name": "b", "generation": 1}, "status": {"observedGeneration": 1,
            "disruptionsAllowed": 1, "conditions": [{"type": "DisruptionAllowed", "status": "True",
                "lastTransitionTime": "2020-01-01T00:00:00Z"}]}});
        let budget = spent(budget, "p", jiff::Timestamp::UNIX_EPOCH).expect("one left");
        assert_eq!(budget["status"]["disruptedPods"], json!({"p": "1970-01-01T00:00:00Z"}));
        assert_eq!(budget["status"]["conditions"][0]["status"], "False");
        assert_eq!(budget["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn an_evicted_pod_says_so() {
        let pod = json!({"metadata": {"name": "p", "generation": 3}, "spec": {"nodeName": "n"}});
        let pod = marked(pod, jiff::Timestamp::UNIX_EPOCH);
        let condition = &pod["status"]["conditions"][0];
        assert_eq!(condition["type"], "DisruptionTarget");
        assert_eq!(condition["reason"], "EvictionByEvictionAPI");
        assert_eq!(condition["observedGeneration"], 3);
    }

    #[tokio::test]
    async fn budgets_are_not_overspent_by_evictions_that_race() {
        use crate::admission::testing::{Cluster, named, put};
        let cluster = Cluster::start();
        let resources = [("policy", "poddisruptionbudgets")];
        let (a, b) = (cluster.server(&resources).await, cluster.server(&resources).await);
        let budget = named(
            "PodDisruptionBudget",
            "b",
            json!({"status": {"disruptionsAllowed": 3,
            "currentHealthy": 5, "desiredHealthy": 2}}),
        );
        put(&[&a, &b], "policy", "poddisruptionbudgets", budget).await;
        let mut running = tokio::task::JoinSet::new();
        for i in 0..20 {
            let server = if i % 2 == 0 { a.clone() } else { b.clone() };
            running.spawn(async move { spend_one(&server, "n", "b", &format!("p{i}")).await });
        }
        let mut allowed = 0;
        while let Some(done) = running.join_next().await {
            match done.expect("no panic") {
                Ok(()) => allowed += 1,
                Err(status) => assert_eq!(status.code, 429, "{}", status.message),
            }
        }
        let left =
            a.store("policy", "poddisruptionbudgets").get("n", "b", None).await.expect("budget").tree();
        assert_eq!((allowed, &left["status"]["disruptionsAllowed"]), (3, &json!(0)));
        assert_eq!(left["status"]["disruptedPods"].as_object().map(|pods| pods.len()), Some(3));
    }
}
