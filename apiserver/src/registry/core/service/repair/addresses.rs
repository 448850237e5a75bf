//! Services have their addresses, and IPAddresses their services.

use std::net::IpAddr;

use common::status::Status;
use jiff::Timestamp;

use crate::cacher::CachedObject;
use crate::object::{self, Object};
use crate::registry::core::service::allocation::family_of;
use crate::registry::core::service::claims::{Claimed, FAMILY, is_managed, parent};
use crate::registry::core::service::cluster_ips;
use crate::registry::core::service::hooks::ServiceHooks;
use crate::registry::core::service::ranges::Ranges;
use crate::registry::tree::{at, field, strings, text};

/// A claim this young may belong to a service that is being written.
const GRACE_SECONDS: i64 = 60;
/// So may one whose service is there and has another address, until the write that lost is undone.
const UNDO_SECONDS: i64 = 5;

const ALLOCATION: &str = "ClusterIPAllocation";

impl ServiceHooks {
    /// Every address of a service is claimed for it, by an IPAddress that is as it should be.
    pub(super) async fn check_service(&self, service: &Object, ranges: &Ranges) -> Result<(), Status> {
        let spec = field(service, "spec");
        if text(spec, "type") == "ExternalName" || matches!(text(spec, "clusterIP"), "" | "None") {
            return Ok(());
        }
        for given in strings(spec, "clusterIPs") {
            let Ok(ip) = given.parse::<IpAddr>() else {
                let note = format!("Cluster IP {given} is not a valid IP; please recreate Service");
                self.recorder.warn(service, "ClusterIPNotValid", "ClusterIPValidation", &note).await;
                continue;
            };
            if !ranges.contain(ip) {
                let family = family_of(ip);
                let note = format!(
                    "Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate service"
                );
                self.recorder.warn(service, "ClusterIPOutOfRange", ALLOCATION, &note).await;
                continue;
            }
            let known = self.claims.addresses()?.cached("", &ip.to_string());
            if known.as_ref().is_some_and(|claim| is_right(claim, ip, service)) {
                continue;
            }
            self.repair_address(service, ip).await?;
        }
        Ok(())
    }

    /// An address that the cache does not show as this service's.
    async fn repair_address(&self, service: &Object, ip: IpAddr) -> Result<(), Status> {
        let (namespace, name, family) = (object::namespace(service), object::name(service), family_of(ip));
        if !self.has(namespace, name, ip).await? {
            return Ok(());
        }
        let claim = match self.claims.addresses()?.get("", &ip.to_string(), None).await {
            Ok(claim) => claim,
            Err(status) if status.code == 404 => {
                if self.claims.claim(ip, service).await?.is_some() {
                    tracing::info!(%ip, namespace, name, "claimed the address of a service");
                    let note = format!("Cluster IP [{family}]: {ip} is not allocated; repairing");
                    self.recorder.warn(service, "ClusterIPNotAllocated", ALLOCATION, &note).await;
                }
                return Ok(());
            }
            Err(status) => return Err(status),
        };
        if is_right(&claim, ip, service) {
            return Ok(());
        }
        let tree = claim.tree();
        let wrong = match parent(&tree) {
            None => true,
            Some(other) if other == (namespace, name) => false,
            Some((other_namespace, other)) => match self.service(other_namespace, other).await? {
                None => true,
                Some(other) if cluster_ips(&other).contains(&ip) => {
                    let note = format!(
                        "Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service"
                    );
                    self.recorder.warn(service, "ClusterIPAlreadyAllocated", ALLOCATION, &note).await;
                    return Ok(());
                }
                // The address is looked at too, and goes.
                Some(_) => return Ok(()),
            },
        };
        if wrong {
            let note = format!(
                "the ClusterIP [{family}]: {ip} for Service {namespace}/{name} has a wrong reference; repairing"
            );
            self.recorder.warn(service, "ClusterIPNotAllocated", ALLOCATION, &note).await;
        }
        tracing::info!(%ip, namespace, name, "claiming the address of a service anew");
        self.claims.release(&Claimed { name: claim.name.clone(), uid: claim.uid.clone() }).await?;
        self.claims.claim(ip, service).await.map(|_| ())
    }

    /// The services that may have lost an IPAddress that is gone.
    pub(super) async fn check_services_of(&self, claim: &CachedObject) -> Result<(), Status> {
        let (tree, Ok(ip)) = (claim.tree(), claim.name.parse::<IpAddr>()) else { return Ok(()) };
        let Some((namespace, name)) = parent(&tree) else { return Ok(()) };
        let Some(service) = self.registry.store("", "services").cached(namespace, name) else {
            return Ok(());
        };
        let service = service.tree();
        if cluster_ips(&service).contains(&ip) {
            self.check_service(&service, &self.ranges()?).await?;
        }
        Ok(())
    }

    /// An IPAddress that servers made belongs to a service that has it, or will in a moment.
    pub(super) async fn check_address(&self, claim: &CachedObject) -> Result<(), Status> {
        let (true, Ok(ip)) = (is_managed(claim), claim.name.parse::<IpAddr>()) else { return Ok(()) };
        let tree = claim.tree();
        let release = async |reason: &str, note: String| -> Result<(), Status> {
            // A round that repaired its service has replaced it already.
            match self.claims.addresses()?.get("", &claim.name, None).await {
                Ok(now) if now.uid == claim.uid => {}
                Ok(_) => return Ok(()),
                Err(status) if status.code == 404 => return Ok(()),
                Err(status) => return Err(status),
            }
            tracing::info!(%ip, "{note}");
            self.recorder.warn(&tree, reason, "IPAddressAllocation", &note).await;
            self.claims.release(&Claimed { name: claim.name.clone(), uid: claim.uid.clone() }).await
        };
        let Some((namespace, name)) = parent(&tree) else {
            let reference = at(&tree, &["spec", "parentRef"]);
            let note = format!(
                "IPAddress {ip} appears to have been modified, not referencing a Service {reference}: cleaning up"
            );
            return release("IPAddressNotAllocated", note).await;
        };
        match self.lacks(&tree, namespace, name, ip).await? {
            None => Ok(()),
            Some(Lack::Service) => {
                let note = format!(
                    "IPAddress: {ip} for Service {namespace}/{name} appears to have leaked: cleaning up"
                );
                release("IPAddressNotAllocated", note).await
            }
            Some(Lack::Address) => {
                let note = format!(
                    "IPAddress: {ip} for Service {namespace}/{name} has a wrong reference; cleaning up"
                );
                release("IPAddressWrongReference", note).await
            }
        }
    }

    /// What a claim lacks for sure. Nothing, while it is so young that its service may be being written.
    async fn lacks(
        &self,
        claim: &Object,
        namespace: &str,
        name: &str,
        ip: IpAddr,
    ) -> Result<Option<Lack>, Status> {
        let cached = self.registry.store("", "services").cached(namespace, name);
        if cached.is_some_and(|service| cluster_ips(&service.tree()).contains(&ip)) {
            return Ok(None);
        }
        let (service, age) = (self.service(namespace, name).await?, age_seconds(claim));
        Ok(match service {
            None => (age > GRACE_SECONDS).then_some(Lack::Service),
            Some(service) if cluster_ips(&service).contains(&ip) => None,
            Some(service) => {
                // It may be about to get its first address.
                let external = text(field(&service, "spec"), "type") == "ExternalName";
                let grace = if external { GRACE_SECONDS } else { UNDO_SECONDS };
                (age > grace).then_some(Lack::Address)
            }
        })
    }

    /// Claims an address for a service, also from one that should have given it back and did not.
    pub(in crate::registry::core::service) async fn claim(
        &self,
        ip: IpAddr,
        service: &Object,
    ) -> Result<Option<Claimed>, Status> {
        let claimed = self.claims.claim(ip, service).await?;
        if claimed.is_some() {
            return Ok(claimed);
        }
        match self.claims.addresses()?.get("", &ip.to_string(), None).await {
            Ok(other) => {
                let tree = other.tree();
                let Some((namespace, name)) = parent(&tree).filter(|_| is_managed(&other)) else {
                    return Ok(None);
                };
                if age_seconds(&tree) <= GRACE_SECONDS
                    || self.lacks(&tree, namespace, name, ip).await?.is_none()
                {
                    return Ok(None);
                }
                self.claims.release(&Claimed { name: other.name.clone(), uid: other.uid.clone() }).await?;
            }
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
        self.claims.claim(ip, service).await
    }

    /// Whether the service in the store has the address.
    async fn has(&self, namespace: &str, name: &str, ip: IpAddr) -> Result<bool, Status> {
        Ok(self.service(namespace, name).await?.is_some_and(|service| cluster_ips(&service).contains(&ip)))
    }

    /// The service as it is in the store.
    async fn service(&self, namespace: &str, name: &str) -> Result<Option<Object>, Status> {
        match self.registry.store("", "services").get(namespace, name, None).await {
            Ok(service) => Ok(Some(service.tree())),
            Err(status) if status.code == 404 => Ok(None),
            Err(status) => Err(status),
        }
    }
}

/// What an IPAddress should have and has not.
enum Lack {
    Service,
    Address,
}

/// A claim for this very service, with the labels that it should have.
fn is_right(claim: &CachedObject, ip: IpAddr, service: &Object) -> bool {
    let family = claim.labels.iter().any(|(key, value)| key == FAMILY && value == family_of(ip));
    let tree = claim.tree();
    family && is_managed(claim) && parent(&tree) == Some((object::namespace(service), object::name(service)))
}

/// A time that cannot be read is long ago.
fn age_seconds(claim: &Object) -> i64 {
    let made = object::str_at(claim, &["metadata", "creationTimestamp"]).parse::<Timestamp>();
    made.map_or(i64::MAX, |made| Timestamp::now().duration_since(made).as_secs())
}
