//! Hands out addresses and ports around writes of services.
//!
//! What is chosen is claimed in the store before the service is written ([`super::claims`]), so that servers
//! on one store cannot give the same to two services, and given back when the write fails or the service goes.
//! Giving back waits for the next write or [`ServiceHooks::maintain`], whichever is sooner; what is lost with a
//! server that dies between is found by [`super::repair`].

use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use super::claims::{Claimed, Claims, GROUP, Removal};
use super::metrics::ServiceMetrics;
use super::ranges::Ranges;
use super::repair::{Leaks, Recorder};
use super::{cluster_ips, node_ports};
use crate::cacher::{ObjectStore, Preconditions};
use crate::object::{self, Object};
use crate::resources::{GroupResource, Hooks, Registry, Rollback};

/// How many writes' addresses and ports may wait to be given back while the store is away.
const RETURNED_MAX: usize = 10_000;

/// See the module.
pub struct ServiceHooks {
    pub(super) registry: Arc<Registry>,
    pub(super) claims: Claims,
    /// Of `--service-cluster-ip-range`, the default first.
    pub(super) families: Vec<&'static str>,
    pub(super) metrics: Arc<ServiceMetrics>,
    pub(super) recorder: Recorder,
    pub(super) leaks: Mutex<Leaks>,
    /// Nothing is handed out before what is there has been claimed.
    ready: OnceCell<()>,
    /// One write of the ports at a time, so that those of one server do not make each other try again.
    pub(super) ports_turn: Semaphore,
    returned: Arc<Mutex<Vec<Held>>>,
}

/// What one write has claimed, or replaces.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) addresses: Vec<Claimed>,
    pub(super) ports: Vec<u16>,
}

/// To be given back. Past the limit it is left to the repair.
fn put_back(returned: &Mutex<Vec<Held>>, held: Held) {
    let mut returned = returned.lock();
    if returned.len() < RETURNED_MAX {
        returned.push(held);
    }
}

impl Held {
    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.ports.is_empty()
    }
}

impl ServiceHooks {
    /// `event_ttl_seconds` is how long the events live that tell of what is repaired.
    pub fn new(
        registry: Arc<Registry>,
        claims: Claims,
        families: Vec<&'static str>,
        metrics: Arc<ServiceMetrics>,
        event_ttl_seconds: u64,
    ) -> Self {
        Self {
            recorder: Recorder::new(registry.clone(), event_ttl_seconds),
            registry,
            claims,
            families,
            metrics,
            leaks: Mutex::default(),
            ready: OnceCell::new(),
            ports_turn: Semaphore::new(1),
            returned: Arc::default(),
        }
    }

    pub(super) fn cidrs(&self) -> Result<&Arc<dyn ObjectStore>, Status> {
        let none = || Status::internal("servicecidrs.networking.k8s.io are not stored by this server");
        self.registry.get(&GroupResource::new(GROUP, "servicecidrs")).ok_or_else(none)
    }

    /// What there is to allocate from, as this server knows it.
    pub(super) fn ranges(&self) -> Result<Ranges, Status> {
        Ok(Ranges::of(&self.cidrs()?.cached_list("")))
    }

    /// Gives back what failed or replaced writes held. What cannot be given back now waits.
    pub(super) async fn give_back(&self) {
        let all = std::mem::take(&mut *self.returned.lock());
        for held in all {
            if let Err(status) = self.release(&held).await {
                tracing::debug!(%status, "giving back addresses and ports; will try again");
                put_back(&self.returned, held);
            }
        }
    }

    async fn release(&self, held: &Held) -> Result<(), Status> {
        for claimed in &held.addresses {
            self.claims.release(claimed).await?;
        }
        if held.ports.is_empty() {
            return Ok(());
        }
        let _turn = self.ports_turn.acquire().await;
        let freeing = self.claims.change_ports(|map| {
            let before = map.used();
            held.ports.iter().for_each(|port| map.release(*port));
            Ok(((map.used(), map.size()), map.used() != before))
        });
        let (used, size) = freeing.await?;
        self.metrics.ports_are(used, size);
        Ok(())
    }

    /// What the old service has and the new one does not.
    async fn replaced(&self, service: &Object, old: &Object) -> Result<Held, Status> {
        let (ips, ports) = (cluster_ips(service), node_ports(service));
        let mut held = Held::default();
        for ip in cluster_ips(old).into_iter().filter(|ip| !ips.contains(ip)) {
            held.addresses.extend(self.claims.claim_of(ip, old).await?);
        }
        held.ports = node_ports(old).into_iter().filter(|port| !ports.contains(port)).collect();
        Ok(held)
    }
}

struct Reservation {
    returned: Arc<Mutex<Vec<Held>>>,
    /// Given back when the write fails.
    taken: Held,
    /// Given back when it succeeds.
    replaced: Held,
    committed: bool,
}

impl Rollback for Reservation {
    fn commit(mut self: Box<Self>) {
        self.committed = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let back = std::mem::take(if self.committed { &mut self.replaced } else { &mut self.taken });
        if !back.is_empty() {
            put_back(&self.returned, back);
        }
    }
}

#[async_trait]
impl Hooks for ServiceHooks {
    async fn begin_write(
        &self,
        service: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<Box<dyn Rollback>, Status> {
        self.ready.get_or_try_init(|| self.repair()).await?;
        self.give_back().await;
        let mut reservation = Reservation {
            returned: self.returned.clone(),
            taken: Held::default(),
            replaced: Held::default(),
            committed: false,
        };
        // What an error leaves claimed goes back with the reservation.
        self.addresses(service, old, dry_run, &mut reservation.taken).await?;
        self.ports(service, old, dry_run, &mut reservation.taken).await?;
        if let Some(old) = old.filter(|_| !dry_run) {
            reservation.replaced = self.replaced(service, old).await?;
        }
        Ok(Box::new(reservation))
    }

    async fn after_delete(&self, service: &Object) {
        let mut held = Held { addresses: Vec::new(), ports: node_ports(service) };
        for ip in cluster_ips(service) {
            match self.claims.claim_of(ip, service).await {
                Ok(claimed) => held.addresses.extend(claimed),
                Err(status) => tracing::warn!(%ip, %status, "looking for the claim on an address"),
            }
        }
        if !held.is_empty() {
            put_back(&self.returned, held);
            self.give_back().await;
        }
        // So that a service that is made again at once does not find the endpoints of the old one.
        let endpoints = self.registry.store("", "endpoints");
        let (namespace, name) = (object::namespace(service), object::name(service));
        let any = Preconditions::default();
        match endpoints.guaranteed_update(namespace, name, &any, false, &mut Removal).await {
            Err(status) if status.code != 404 => {
                tracing::warn!(namespace, name, %status, "removing the endpoints of a service");
            }
            _ => {}
        }
    }
}
