//! ResourceQuota: what a namespace uses stays within its quotas.
//!
//! A write is first held against all quotas of its namespace as the cache has them ([`check`], pure). What it
//! uses is then charged to each quota's status by a conditional write that looks again at the state it
//! replaces, so that of two writes that race for the last of something, in one server or in two, one is
//! refused. What is charged for a write that fails later is given back by the quota controller, which counts
//! anew. Answers to `k8s.io/apiserver/pkg/admission/plugin/resourcequota`.

mod check;
mod configuration;
#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use common::quota::{Evaluator, is_terminating};
use common::status::Status;
use tokio::sync::Semaphore;

use self::check::{Charge, Request};
pub use self::configuration::Configuration;
use super::{Attributes, Operation, Plugin};
use crate::cacher::{Decision, Preconditions, Update};
use crate::object::{self, Object};
use crate::registry::tree::{set, struct_mut};
use crate::resources::Registry;

/// Namespaces share this many lanes. In a lane one write is charged at a time, so that those of one server do
/// not make each other try again.
const LANES: usize = 64;

pub struct ResourceQuota {
    registry: Arc<Registry>,
    configuration: Configuration,
    lanes: Vec<Semaphore>,
}

impl ResourceQuota {
    pub fn new(registry: Arc<Registry>, configuration: Configuration) -> Self {
        Self { registry, configuration, lanes: (0..LANES).map(|_| Semaphore::new(1)).collect() }
    }

    fn lane(&self, namespace: &str) -> &Semaphore {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        &self.lanes[usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0)]
    }
}

/// Whether the write can use more than is used now.
fn concerns(attributes: &Attributes<'_>, evaluator: &Evaluator) -> bool {
    let (create, update) =
        (attributes.operation == Operation::Create, attributes.operation == Operation::Update);
    match (evaluator, attributes.subresource.as_str()) {
        (Evaluator::Pods, "") => {
            let ends = |pod: Option<&Object>| pod.is_some_and(is_terminating);
            create || (update && ends(attributes.object.as_deref()) != ends(attributes.old_object))
        }
        (Evaluator::Pods, "resize") => update,
        (Evaluator::Services, "") | (Evaluator::PersistentVolumeClaims, "" | "status") => create || update,
        (Evaluator::Count(_), "") => create,
        _ => false,
    }
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let (group, resource) = (&attributes.resource.group, &attributes.resource.resource);
        if attributes.namespace.is_empty() || (group.is_empty() && resource == "namespaces") {
            return Ok(());
        }
        let Some(evaluator) = Evaluator::of(group, resource) else { return Ok(()) };
        let Some(object) = attributes.object.as_deref() else { return Ok(()) };
        let store = self.registry.store("", "resourcequotas");
        if !store.synced() {
            return Err(super::refusal(attributes)("not yet ready to handle request"));
        }
        let cached = store.cached_list(&attributes.namespace);
        let limited = &self.configuration.limited_resources;
        if (cached.is_empty() && limited.is_empty()) || !concerns(attributes, &evaluator) {
            return Ok(());
        }
        let request = Request {
            evaluator,
            resource: &attributes.resource,
            object,
            old: attributes.old_object,
            status_only: attributes.subresource == "status",
            now: jiff::Timestamp::now(),
        };
        let refuse = super::refusal(attributes);
        let quotas: Vec<Object> = cached.iter().map(|quota| quota.tree()).collect();
        let charged = check::check(&quotas, &request, limited).map_err(|no| no.into_status(&refuse))?;
        if attributes.dry_run || charged.is_empty() {
            return Ok(());
        }
        let _turn = self.lane(&attributes.namespace).acquire().await;
        for name in charged {
            let mut writing = Charging { request: &request, refuse: &refuse };
            let written = store
                .guaranteed_update(
                    &attributes.namespace,
                    &name,
                    &Preconditions::default(),
                    false,
                    &mut writing,
                )
                .await;
            match written {
                Ok(_) => {}
                // A quota that is gone asks for nothing any more.
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        Ok(())
    }
}

/// The conditional write of one quota's status.
struct Charging<'a, R> {
    request: &'a Request<'a>,
    refuse: &'a R,
}

#[async_trait]
impl<R: Fn(&str) -> Status + Send + Sync> Update for Charging<'_, R> {
    async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status> {
        let mut quota = current.ok_or_else(|| Status::not_found("", "resourcequotas", ""))?;
        match check::charge(&quota, self.request).map_err(|no| no.into_status(self.refuse))? {
            Charge::Nothing => {}
            Charge::Used(used) => {
                if let Some(status) = struct_mut(&mut quota, "status") {
                    set(status, "used", used.to_tree());
                }
                tracing::debug!(quota = object::name(&quota), used = %used, "charged");
            }
        }
        Ok(Decision::Write { object: quota, ttl_seconds: None })
    }
}
