//! Brings claims and services back in step: what a service has is claimed for it, and what nobody has is given
//! back.
//!
//! A claim may be young because its service is just being written, so an address must be without its service
//! for a while, and a port in several rounds. Answers to `pkg/registry/core/service/ipallocator/controller` and
//! `portallocator/controller`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use common::shutdown::CancellationToken;
use common::status::Status;
use jiff::Timestamp;

use super::claims::{Claimed, is_managed, parent};
use super::hooks::ServiceHooks;
use super::{cluster_ips, node_ports};
use crate::cacher::CachedObject;
use crate::object::{self, Object};

const REPAIR_INTERVAL: Duration = Duration::from_secs(180);
/// How soon what was given back is, when nothing else is written.
const RETURN_INTERVAL: Duration = Duration::from_secs(5);
/// A claim this young may belong to a service that is being written.
const GRACE_SECONDS: i64 = 60;
/// In so many rounds a port must be nobody's.
const ROUNDS: u32 = 3;

/// Ports that were nobody's, and in how many rounds.
pub type Leaks = BTreeMap<u16, u32>;

impl ServiceHooks {
    /// Runs until stopped.
    pub async fn maintain(self: Arc<Self>, stop: CancellationToken) {
        let mut since = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETURN_INTERVAL) => {}
            }
            self.give_back().await;
            if since.elapsed() >= REPAIR_INTERVAL {
                since = tokio::time::Instant::now();
                if let Err(status) = self.repair().await {
                    tracing::warn!(%status, "repairing service addresses and node ports; will try again");
                }
            }
        }
    }

    /// One round.
    pub(super) async fn repair(&self) -> Result<(), Status> {
        let store = self.registry.store("", "services");
        if !store.synced() || !self.claims.addresses()?.synced() {
            return Err(Status::service_unavailable("the cache of services is not ready yet"));
        }
        let services: Vec<Object> = store.cached_list("").iter().map(|service| service.tree()).collect();
        self.claim_what_is_used(&services).await?;
        self.release_what_is_not().await?;
        let used: BTreeSet<u16> = services.iter().flat_map(node_ports).collect();
        let mut leaks = std::mem::take(&mut *self.leaks.lock());
        let gone = self
            .claims
            .change_ports(|map| {
                let before = map.clone();
                for port in &used {
                    // One outside the range was given by another; one that is taken is as it should be.
                    let _ = map.reserve(*port);
                }
                let idle: Vec<u16> = before.taken().filter(|port| !used.contains(port)).collect();
                let due = |port: &&u16| leaks.get(*port).is_some_and(|rounds| rounds + 1 >= ROUNDS);
                idle.iter().filter(due).for_each(|port| map.release(*port));
                Ok((idle, *map != before))
            })
            .await?;
        leaks.retain(|port, _| gone.contains(port));
        for port in gone {
            *leaks.entry(port).or_default() += 1;
        }
        leaks.retain(|_, rounds| *rounds < ROUNDS);
        *self.leaks.lock() = leaks;
        Ok(())
    }

    async fn claim_what_is_used(&self, services: &[Object]) -> Result<(), Status> {
        for service in services {
            for ip in cluster_ips(service) {
                let ours = self.ranges.iter().any(|range| range.contains(ip));
                if !ours || self.claims.is_known(ip) {
                    continue;
                }
                // The cache may be behind: the store has the last word.
                let (namespace, name) = (object::namespace(service), object::name(service));
                if self.has(namespace, name, ip).await? && self.claims.claim(ip, service).await?.is_some() {
                    tracing::info!(%ip, namespace, name, "claimed the address of a service");
                }
            }
        }
        Ok(())
    }

    async fn release_what_is_not(&self) -> Result<(), Status> {
        for claim in self.claims.addresses()?.cached_list("").iter().filter(|claim| is_managed(claim)) {
            self.release_if_stale(claim).await?;
        }
        Ok(())
    }

    /// Claims an address for a service, also from one that should have given it back and did not.
    pub(super) async fn claim(&self, ip: IpAddr, service: &Object) -> Result<Option<Claimed>, Status> {
        let claimed = self.claims.claim(ip, service).await?;
        if claimed.is_some() {
            return Ok(claimed);
        }
        match self.claims.addresses()?.get("", &ip.to_string(), None).await {
            Ok(other) if !is_managed(&other) || !self.release_if_stale(&other).await? => Ok(None),
            Err(status) if status.code != 404 => Err(status),
            _ => self.claims.claim(ip, service).await,
        }
    }

    /// True when the claim was given back: it is not young, and its service does not have the address.
    async fn release_if_stale(&self, claim: &CachedObject) -> Result<bool, Status> {
        let Ok(ip) = claim.name.parse::<IpAddr>() else { return Ok(false) };
        let tree = claim.tree();
        let Some((namespace, name)) = parent(&tree) else { return Ok(false) };
        let cached = self.registry.store("", "services").cached(namespace, name);
        let made = object::str_at(&tree, &["metadata", "creationTimestamp"]).parse::<Timestamp>();
        let young = made.is_ok_and(|at| Timestamp::now().duration_since(at).as_secs() < GRACE_SECONDS);
        let used = cached.is_some_and(|service| cluster_ips(&service.tree()).contains(&ip));
        if used || young || self.has(namespace, name, ip).await? {
            return Ok(false);
        }
        tracing::info!(%ip, namespace, name, "giving back the address of a service that does not have it");
        self.claims.release(&Claimed { name: claim.name.clone(), uid: claim.uid.clone() }).await?;
        Ok(true)
    }

    /// Whether the service in the store has the address.
    async fn has(&self, namespace: &str, name: &str, ip: IpAddr) -> Result<bool, Status> {
        match self.registry.store("", "services").get(namespace, name, None).await {
            Ok(service) => Ok(cluster_ips(&service.tree()).contains(&ip)),
            Err(status) if status.code == 404 => Ok(false),
            Err(status) => Err(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::{Cluster, named, put};
    use crate::registry::core::service::allocation::AddressRange;
    use crate::registry::core::service::claims::Claims;

    #[tokio::test]
    async fn what_nobody_has_is_given_back_in_time() {
        let cluster = Cluster::start();
        let ipaddresses = ("networking.k8s.io", "ipaddresses");
        let registry = cluster.server(&[("", "services"), ipaddresses]).await;
        let claims = Claims::new(registry.clone(), cluster.store(), "/registry", 30000..=30100);
        let ranges = vec![AddressRange::new("10.96.0.0/24".parse().expect("range"))];
        let hooks = ServiceHooks::new(registry.clone(), claims, ranges);
        let claim = |ip: &str, made: &str| {
            json!({"kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
                "metadata": {"name": ip, "uid": ip, "creationTimestamp": made,
                    "labels": {super::super::claims::MANAGED_BY: super::super::claims::CONTROLLER}},
                "spec": {"parentRef": {"group": "", "resource": "services", "namespace": "n", "name": "x"}}})
        };
        let (old, now) = ("2020-01-01T00:00:00Z".to_owned(), Timestamp::now().to_string());
        for object in [claim("10.96.0.5", &old), claim("10.96.0.6", &now), claim("10.96.0.7", &old)] {
            put(&[&registry], ipaddresses.0, ipaddresses.1, object).await;
        }
        let service = named("Service", "x", json!({"spec": {"clusterIPs": ["10.96.0.7"]}}));
        put(&[&registry], "", "services", service).await;
        let taken_over = named("Service", "y", json!({}));
        let ip = "10.96.0.7".parse().expect("ip");
        assert_eq!(hooks.claim(ip, &taken_over).await.expect("asked"), None);
        let reserve = |map: &mut super::super::allocation::PortMap| Ok(((), map.reserve(30007).is_ok()));
        hooks.claims.change_ports(reserve).await.expect("reserved");
        for round in 1..=ROUNDS {
            hooks.repair().await.expect("repaired");
            let (map, _) = hooks.claims.read_ports().await.expect("ports");
            assert_eq!(map.is_taken(30007), round < ROUNDS, "round {round}");
        }
        let store = registry.store(ipaddresses.0, ipaddresses.1);
        for (ip, there) in [("10.96.0.5", false), ("10.96.0.6", true), ("10.96.0.7", true)] {
            assert_eq!(store.get("", ip, None).await.is_ok(), there, "{ip}");
        }
        put(&[&registry], ipaddresses.0, ipaddresses.1, claim("10.96.0.8", &old)).await;
        let stale = "10.96.0.8".parse().expect("ip");
        assert!(hooks.claim(stale, &taken_over).await.expect("asked").is_some());
    }
}
