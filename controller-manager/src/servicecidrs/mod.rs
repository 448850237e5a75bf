//! Keeps ServiceCIDRs: a finalizer on each, a Ready condition, and none goes while addresses would be left that no
//! other has.
//!
//! API servers allocate from what is ready. They learn of a deletion by their watches, so one waits ten seconds
//! after it before the finalizer goes, also when no address is left. Answers to upstream's
//! `pkg/controller/servicecidrs` (KEP-1880).

mod plan;

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use common::events::Recorder;
use jiff::Timestamp;
use serde_json::json;

use crate::controller::{
    Change, Error, Informer, Key, Outcome, Queue, Reconcile, Rest, View, is_not_found, reference,
};
use crate::daemon::Context;
use crate::views::{IpAddress, ServiceCidr};
use plan::{FINALIZER, Plan, Ready};

/// Owns the conditions in their managed fields.
const MANAGER: &str = "service-cidr-controller";
const WORKERS: usize = 5;

struct ServiceCidrs {
    rest: Rest,
    recorder: Recorder,
    cidrs: Informer<ServiceCidr>,
    addresses: Informer<IpAddress>,
}

/// Registers the handlers and starts the workers; keys are ServiceCIDRs.
pub fn start(context: &mut Context) {
    let queue = context.workers.queue("ipaddresses");
    let cidrs = context.informers.of::<ServiceCidr>();
    let addresses = context.informers.of::<IpAddress>();
    {
        let (queue, all) = (queue.clone(), cidrs.clone());
        cidrs.on_change(move |change| {
            queue.add(change.object().key());
            // A new one may have the addresses for which another stays.
            if matches!(change, Change::Added(_)) {
                let ranges = plan::ranges(change.object());
                let meets = |other: &ServiceCidr| {
                    let others = plan::ranges(other);
                    ranges.iter().any(|a| others.iter().any(|b| a.contains(b) || b.contains(a)))
                };
                all.store()
                    .all()
                    .iter()
                    .filter(|other| meets(other))
                    .for_each(|other| queue.add(other.key()));
            }
        });
    }
    {
        let (queue, all) = (queue.clone(), cidrs.clone());
        addresses.on_change(move |change| {
            if !matches!(change, Change::Updated { .. }) {
                wake(&queue, &all, change.object());
            }
        });
    }
    let controller = Arc::new(ServiceCidrs {
        rest: context.rest.clone(),
        recorder: context.recorder(MANAGER),
        cidrs,
        addresses,
    });
    context.run(queue, controller, WORKERS);
}

/// What an address may keep, or kept, from going.
fn wake(queue: &Queue, cidrs: &Informer<ServiceCidr>, address: &IpAddress) {
    let Some(ip) = plan::managed(address) else { return };
    let has = |cidr: &ServiceCidr, ip: IpAddr| plan::ranges(cidr).iter().any(|r| plan::hands_out(r, ip));
    cidrs.store().all().iter().filter(|cidr| has(cidr, ip)).for_each(|cidr| queue.add(cidr.key()));
}

impl ServiceCidrs {
    async fn patch_finalizer(&self, cidr: &ServiceCidr, there: bool) -> Result<(), Error> {
        let name = cidr.name();
        let key = if there { "finalizers" } else { "$deleteFromPrimitiveList/finalizers" };
        let body = json!({ "metadata": { key: [FINALIZER] } });
        match self.rest.strategic::<ServiceCidr>("", name, &body).await {
            Err(error) if !is_not_found(&error) => {
                Err(Error::api(format!("write the finalizer of ServiceCIDR {name}"))(error))
            }
            _ => Ok(()),
        }
    }

    async fn set_ready(&self, cidr: &ServiceCidr, ready: Ready) -> Result<(), Error> {
        let (status, reason, message) = ready.words();
        let body = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": { "name": cidr.name() },
            "status": { "conditions": [{
                "type": "Ready",
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            }]},
        });
        let result = self.rest.apply_status::<ServiceCidr>("", cidr.name(), MANAGER, &body).await;
        if result.is_err() && ready == Ready::Yes {
            self.recorder.warning(
                &reference(cidr),
                "KubernetesServiceCIDRError",
                "The ServiceCIDR Status can not be set to Ready=True",
            );
        }
        result.map(drop).map_err(Error::api(format!("write the status of ServiceCIDR {}", cidr.name())))
    }
}

#[async_trait]
impl Reconcile for ServiceCidrs {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(cidr) = self.cidrs.store().get(key) else { return Ok(Outcome::Done) };
        let all = self.cidrs.store().all();
        let Plan { finalizer, ready, again } =
            plan::plan(&cidr, &all, &self.addresses.store().all(), Timestamp::now());
        if let Some(there) = finalizer {
            self.patch_finalizer(&cidr, there).await?;
        }
        if let Some(ready) = ready {
            self.set_ready(&cidr, ready).await?;
        }
        Ok(again.map_or(Outcome::Done, Outcome::RequeueAfter))
    }
}
