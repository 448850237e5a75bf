//! The cluster addresses of a service: what [`super::families`] finds wanted, chosen and claimed one by one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use common::status::Status;
use serde_json::{Value, json};

use super::allocation::AllocationError;
use super::families::{families, wanted};
use super::hooks::{Held, ServiceHooks};
use super::metrics::Scope;
use super::ranges::Ranges;
use super::{is_headless, needs_cluster_ip, refused};
use crate::object::{self, Object};
use crate::registry::checks::sloppy_ip;
use crate::registry::tree::{field, remove, set, strings, struct_mut, text};

/// How many addresses are tried that other servers turn out to have claimed.
const ATTEMPTS_MAX: u32 = 1000;

impl ServiceHooks {
    /// Fills the families and addresses of a service, and claims them unless nothing is to be left behind.
    pub(super) async fn addresses(
        &self,
        service: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
        taken: &mut Held,
    ) -> Result<(), Status> {
        let spec = field(service, "spec");
        if !needs_cluster_ip(spec) {
            if let Some(spec) = struct_mut(service, "spec")
                && text(spec, "clusterIP").is_empty()
            {
                remove(spec, "clusterIP");
            }
            return Ok(());
        }
        families(service, old, &self.families)?;
        if is_headless(field(service, "spec")) {
            if let Some(spec) = struct_mut(service, "spec") {
                set(spec, "clusterIP", "None");
                set(spec, "clusterIPs", json!(["None"]));
            }
            return Ok(());
        }
        let wanted = wanted(service, old);
        if wanted.is_empty() {
            return Ok(());
        }
        let ranges = self.ranges()?;
        let mut ips: Vec<String> =
            strings(field(service, "spec"), "clusterIPs").into_iter().map(str::to_owned).collect();
        for want in wanted {
            if ips.len() <= want.index {
                ips.resize(want.index + 1, String::new());
            }
            ips[want.index] = match want.asked {
                Some(asked) => {
                    self.asked(service, &ips, &asked, &ranges, dry_run, taken).await?;
                    asked
                }
                None => self.any(service, &want.family, &ranges, dry_run, taken).await?.to_string(),
            };
        }
        if let Some(spec) = struct_mut(service, "spec") {
            set(spec, "clusterIP", ips[0].as_str());
            set(spec, "clusterIPs", json!(ips));
        }
        Ok(())
    }

    /// The address that a client asks for.
    async fn asked(
        &self,
        service: &Object,
        ips: &[String],
        asked: &str,
        ranges: &Ranges,
        dry_run: bool,
        taken: &mut Held,
    ) -> Result<(), Status> {
        let value: Value = json!(ips);
        let cannot = |error: AllocationError| {
            refused(service, "spec.clusterIPs", &value, &format!("failed to allocate IP {asked}: {error}"))
        };
        let Some(ip) = sloppy_ip(asked) else {
            return Err(Status::internal(format!("failed to parse service IP \"{asked}\"")));
        };
        let range = match ranges.of_address(ip) {
            Ok(range) => range,
            // A dry run upstream asks one range and not all of them, and so has other words.
            Err(_) if dry_run && let Some(range) = ranges.ready(super::allocation::family_of(ip)).next() => {
                let (ip, range) = (ip.to_string(), range.cidr().to_string());
                return Err(cannot(AllocationError::AddressOutside { ip, range }));
            }
            Err(error) => return Err(cannot(error)),
        };
        if dry_run {
            return Ok(());
        }
        let since = Instant::now();
        let claimed = self.claim(ip, service).await;
        self.metrics.address(range, Scope::Static, matches!(claimed, Ok(Some(_))).then(|| since.elapsed()));
        taken.addresses.push(claimed?.ok_or_else(|| cannot(AllocationError::Taken("IP")))?);
        Ok(())
    }

    /// Any address of a family, from the first range that has one.
    async fn any(
        &self,
        service: &Object,
        family: &str,
        ranges: &Ranges,
        dry_run: bool,
        taken: &mut Held,
    ) -> Result<IpAddr, Status> {
        let mut lost: BTreeSet<IpAddr> = BTreeSet::new();
        for range in ranges.ready(family) {
            let since = Instant::now();
            let taken_by_others =
                |lost: &BTreeSet<IpAddr>, ip| lost.contains(&ip) || self.claims.is_known(ip);
            for _ in 0..ATTEMPTS_MAX {
                let Ok(ip) = range.choose(|ip| taken_by_others(&lost, ip)) else { break };
                if dry_run {
                    return Ok(ip);
                }
                let claimed = self.claim(ip, service).await;
                let done = matches!(claimed, Ok(Some(_))).then(|| since.elapsed());
                self.metrics.address(range, Scope::Dynamic, done);
                match claimed? {
                    Some(claimed) => {
                        taken.addresses.push(claimed);
                        return Ok(ip);
                    }
                    // Another server was quicker, or this one's cache is behind.
                    None => lost.insert(ip),
                };
            }
            if !dry_run {
                self.metrics.address(range, Scope::Dynamic, None);
            }
        }
        let (name, error) = (object::name(service), AllocationError::Full);
        Err(Status::internal(format!("failed to allocate a serviceIP for Service \"{name}\": {error}")))
    }
}
