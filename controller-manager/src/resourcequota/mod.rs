//! Keeps the status of ResourceQuotas: what they allow, and what their namespace uses of it.
//!
//! The API server charges what it admits; this controller gives a new quota its first status, takes over a
//! changed limit, and counts again when something goes ([`monitor`]), when a pod ends, and every
//! `--resource-quota-sync-period`. What an object uses is decided by `common::quota`, as at admission. A quota
//! that is right is not written. Answers to upstream's `pkg/controller/resourcequota`.

mod monitor;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::quota::{ResourceList, resource_of, scopes_of};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::controller::{Change, Error, Informer, Key, Outcome, Queue, Reconcile, Rest, View};
use crate::daemon::Context;
use crate::discovery::Resource;
use crate::views::{Pod, ResourceQuota};

/// Changes that follow each other are counted once.
const SETTLE: Duration = Duration::from_secs(1);

pub(crate) struct ResourceQuotas {
    rest: Rest,
    quotas: Informer<ResourceQuota>,
    queue: Arc<Queue>,
    /// What discovery last found, by group and resource.
    resources: Mutex<BTreeMap<(String, String), Arc<Resource>>>,
    /// A quota may count what no other did.
    asked: Notify,
    period: Duration,
}

/// Registers the handlers and starts the monitors and the workers; keys are quotas.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("resourcequota_primary");
    let quotas = context.informers.of::<ResourceQuota>();
    let controller = Arc::new(ResourceQuotas {
        rest: context.rest.clone(),
        quotas: quotas.clone(),
        queue: queue.clone(),
        resources: Mutex::default(),
        asked: Notify::new(),
        period: context.config.resource_quota_sync_period,
    });
    {
        let controller = controller.clone();
        // A changed status is admission's or our own.
        quotas.on_change(move |change| match change {
            Change::Updated { old, new } if old.spec == new.spec => {}
            Change::Deleted(_) => {}
            Change::Added(quota) | Change::Updated { new: quota, .. } => {
                controller.queue.add(quota.key());
                controller.asked.notify_one();
            }
        });
    }
    {
        let controller = controller.clone();
        context.informers.of::<Pod>().on_change(move |change| {
            let freed = match change {
                Change::Added(_) => false,
                Change::Deleted(_) => true,
                Change::Updated { old, new } => {
                    let changed = old.metadata.generation != new.metadata.generation;
                    let bound = old.spec.node_name != new.spec.node_name;
                    (changed && !bound) || (new.is_finished() && !old.is_finished())
                }
            };
            if freed {
                controller.recount(change.object().namespace(), ("", "pods"));
            }
        });
    }
    let tasks = context.workers.tasks().clone();
    let (monitored, client) = (controller.clone(), context.client.clone());
    context.run_task("resourcequota/monitors", move || monitor::run(monitored, client, tasks));
    context.run(queue, controller, context.config.concurrency.resource_quota);
}

impl ResourceQuotas {
    /// Asks for the quotas of a namespace that count this resource to be counted again.
    fn recount(&self, namespace: &str, resource: (&str, &str)) {
        for quota in self.quotas.store().in_namespace(namespace) {
            if counted(&quota).contains(&(resource.0.to_owned(), resource.1.to_owned())) {
                self.queue.add_after(quota.key(), SETTLE);
            }
        }
    }
}

fn hard(quota: &ResourceQuota) -> ResourceList {
    ResourceList::read(&quota.spec["hard"])
}

/// The groups and resources that a quota counts.
fn counted(quota: &ResourceQuota) -> BTreeSet<(String, String)> {
    let hard = hard(quota);
    let own = |(group, resource): (&str, &str)| (group.to_owned(), resource.to_owned());
    hard.names().filter_map(resource_of).map(own).collect()
}

/// Pure: the status that a quota should have, or `None` when it has it. What could not be counted keeps its
/// last figure.
fn plan(quota: &ResourceQuota, fresh: &ResourceList) -> Option<Value> {
    let hard = hard(quota);
    let before = ResourceList::read(&quota.status["used"]);
    let mut used = before.clone();
    used.0.extend(fresh.0.iter().map(|(name, amount)| (name.clone(), *amount)));
    let used = used.only(|name| hard.get(name).is_some());
    let has_status = quota.status["hard"].is_object() && quota.status["used"].is_object();
    let right = ResourceList::read(&quota.status["hard"]) == hard && used == before;
    // One that limits nothing needs no status.
    if right && (has_status || hard.is_empty()) {
        return None;
    }
    Some(json!({"hard": hard.to_tree(), "used": used.to_tree()}))
}

#[async_trait]
impl Reconcile for ResourceQuotas {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(quota) = self.quotas.store().get(key) else { return Ok(Outcome::Done) };
        let hard = hard(&quota);
        let scopes = scopes_of(&json!({ "spec": quota.spec }));
        let (mut fresh, mut failure) = (ResourceList::default(), None);
        for (group, resource) in counted(&quota) {
            match self.count(quota.namespace(), (&group, &resource), &hard, &scopes).await {
                Ok(used) => fresh.add(&used),
                Err(error) => failure = Some(error),
            }
        }
        if let Some(status) = plan(&quota, &fresh) {
            let body = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": quota.metadata,
                "spec": quota.spec, "status": status});
            let path = <ResourceQuota as kube::Resource>::url_path(&(), Some(quota.namespace()));
            self.rest
                .replace_subresource(&path, quota.name(), "status", &body)
                .await
                .map_err(Error::api(format!("write the status of resource quota {key}")))?;
        }
        match failure {
            Some(error) => Err(error),
            None if self.period.is_zero() => Ok(Outcome::Done),
            None => Ok(Outcome::RequeueAfter(self.period)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(spec: Value, status: Value) -> ResourceQuota {
        ResourceQuota { spec, status, ..ResourceQuota::default() }
    }

    fn fresh(tree: Value) -> ResourceList {
        ResourceList::read(&tree)
    }

    #[test]
    fn a_new_quota_gets_its_first_status() {
        let new = quota(json!({"hard": {"pods": "5", "requests.cpu": "1"}}), Value::Null);
        let status = plan(&new, &fresh(json!({"pods": "2", "requests.cpu": "0"})));
        assert_eq!(
            status,
            Some(
                json!({"hard": {"pods": "5", "requests.cpu": "1"}, "used": {"pods": "2", "requests.cpu": "0"}})
            )
        );
    }

    #[test]
    fn what_is_right_is_not_written() {
        let status = json!({"hard": {"cpu": "1000m"}, "used": {"cpu": "0.5"}});
        let right = quota(json!({"hard": {"cpu": "1"}}), status);
        assert_eq!(plan(&right, &fresh(json!({"cpu": "500m"}))), None);
        assert!(plan(&right, &fresh(json!({"cpu": "600m"}))).is_some());
        assert_eq!(plan(&quota(json!({}), Value::Null), &fresh(json!({}))), None);
    }

    #[test]
    fn names_that_left_the_spec_leave_the_status() {
        let status = json!({"hard": {"cpu": "1", "pods": "1"}, "used": {"cpu": "0", "pods": "1"}});
        let changed = quota(json!({"hard": {"pods": "3"}}), status);
        assert_eq!(
            plan(&changed, &fresh(json!({}))),
            Some(json!({"hard": {"pods": "3"}, "used": {"pods": "1"}}))
        );
    }

    #[test]
    fn a_quota_counts_the_resources_it_names() {
        let quota = quota(
            json!({"hard": {"cpu": "1", "pods": "1", "count/widgets.example.com": "1", "services": "2"}}),
            Value::Null,
        );
        let own = |(group, resource): (&str, &str)| (group.to_owned(), resource.to_owned());
        let expected = [("", "pods"), ("", "services"), ("example.com", "widgets")];
        assert_eq!(counted(&quota), expected.map(own).into_iter().collect());
    }
}
