//! Brings claims and services back in step: what a service has is claimed for it, and what nobody has is given
//! back.
//!
//! Everything is gone through every three minutes; an IPAddress that somebody changes or removes is looked at when
//! that happens. A claim may be young because its service is just being written, so an address must be without
//! its service for a while, and a port in several rounds. A cache may be behind, so the store has the last word
//! before anything is given back. Answers to `pkg/registry/core/service/ipallocator/controller` and
//! `portallocator/controller`.

mod addresses;
mod events;
mod ports;
#[cfg(test)]
mod tests;

pub(super) use events::Recorder;
pub(super) use ports::Leaks;

use std::sync::Arc;
use std::time::Duration;

use common::shutdown::CancellationToken;
use common::status::Status;

use super::hooks::ServiceHooks;
use super::ranges::DEFAULT;
use crate::cacher::{WatchEvent, WatchQuery, WatchReceiver};
use crate::object::Object;

const REPAIR_INTERVAL: Duration = Duration::from_secs(180);
/// How soon what was given back is, when nothing else is written.
const RETURN_INTERVAL: Duration = Duration::from_secs(5);

impl ServiceHooks {
    /// Runs until stopped.
    pub async fn maintain(self: Arc<Self>, stop: CancellationToken) {
        let mut since = tokio::time::Instant::now();
        let mut changes: Option<WatchReceiver> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                change = next(&mut changes) => {
                    self.look_at(change).await;
                    continue;
                }
                () = tokio::time::sleep(RETURN_INTERVAL) => {}
            }
            self.give_back().await;
            if changes.is_none() {
                changes = self.watch().await;
            }
            if since.elapsed() >= REPAIR_INTERVAL {
                since = tokio::time::Instant::now();
                if let Err(status) = self.repair().await {
                    tracing::warn!(%status, "repairing service addresses and node ports; will try again");
                }
            }
        }
    }

    /// From now on; what was before is for the rounds.
    async fn watch(&self) -> Option<WatchReceiver> {
        let store = self.claims.addresses().ok().filter(|store| store.synced())?;
        store.watch(WatchQuery::default()).await.ok()
    }

    async fn look_at(&self, change: WatchEvent) {
        let done = match change {
            WatchEvent::Modified(claim) => self.check_address(&claim).await,
            WatchEvent::Deleted(claim) => self.check_services_of(&claim).await,
            // A new one may be a write's that goes on; the rounds look at it when it has had time.
            WatchEvent::Added(_) | WatchEvent::Bookmark { .. } | WatchEvent::Error(_) => Ok(()),
        };
        if let Err(status) = done {
            tracing::debug!(%status, "repairing a service address; the next round will try again");
        }
    }

    /// One round.
    pub(in crate::registry::core::service) async fn repair(&self) -> Result<(), Status> {
        let store = self.registry.store("", "services");
        if !store.synced() || !self.claims.addresses()?.synced() || !self.cidrs()?.synced() {
            return Err(Status::service_unavailable("the cache of services is not ready yet"));
        }
        // Made by a server that starts; without it all that is there would look out of range.
        if self.cidrs()?.cached("", DEFAULT).is_none() {
            return Err(Status::service_unavailable("the default ServiceCIDR is not there yet"));
        }
        let services: Vec<Object> = store.cached_list("").iter().map(|service| service.tree()).collect();
        let ranges = self.ranges()?;
        for service in &services {
            self.check_service(service, &ranges).await?;
        }
        for claim in self.claims.addresses()?.cached_list("") {
            self.check_address(&claim).await?;
        }
        let ports = self.repair_ports(&services).await;
        if ports.is_err() {
            self.metrics.repair_failed();
        }
        ports
    }
}

/// The next change; never, where there is no watch. A watch that ends is forgotten.
async fn next(changes: &mut Option<WatchReceiver>) -> WatchEvent {
    loop {
        let Some(open) = changes else { return std::future::pending().await };
        match open.recv().await {
            Some(WatchEvent::Error(_)) | None => *changes = None,
            Some(event) => return event,
        }
    }
}
