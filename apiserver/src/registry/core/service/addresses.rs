//! The cluster addresses of a service: chosen by a pure function, claimed one by one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use common::status::Status;
use serde_json::json;

use super::allocation::{AddressRange, AllocationError};
use super::families::families;
use super::hooks::{Held, ServiceHooks};
use super::{cluster_ips, is_headless, needs_cluster_ip, refused};
use crate::object::{self, Object};
use crate::registry::tree::{field, remove, set, strings, struct_mut, text};

/// How many addresses are tried that other servers turn out to have claimed.
const ATTEMPTS_MAX: u32 = 100;

impl ServiceHooks {
    pub(super) async fn addresses(
        &self,
        service: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
        taken: &mut Held,
    ) -> Result<(), Status> {
        let mut lost: BTreeSet<IpAddr> = BTreeSet::new();
        for _ in 0..ATTEMPTS_MAX {
            let mut candidate = service.clone();
            let mut chosen = Vec::new();
            let known = |ip: IpAddr| lost.contains(&ip) || self.claims.is_known(ip);
            allocate_cluster(&mut candidate, old, &self.ranges, &known, &mut chosen)?;
            if !dry_run {
                let mut clash = None;
                for ip in chosen {
                    match self.claim(ip, &candidate).await? {
                        Some(claimed) => taken.addresses.push(claimed),
                        None => {
                            clash = Some(ip);
                            break;
                        }
                    }
                }
                if let Some(ip) = clash {
                    if cluster_ips(service).contains(&ip) {
                        return Err(address_refused(service, ip, &AllocationError::Taken("IP")));
                    }
                    lost.insert(ip);
                    for claimed in std::mem::take(&mut taken.addresses) {
                        self.claims.release(&claimed).await?;
                    }
                    continue;
                }
            }
            *service = candidate;
            return Ok(());
        }
        Err(no_address(service, &AllocationError::Full))
    }
}

fn address_refused(service: &Object, ip: IpAddr, error: &AllocationError) -> Status {
    let given = strings(field(service, "spec"), "clusterIPs");
    refused(service, "spec.clusterIPs", &json!(given), &format!("failed to allocate IP {ip}: {error}"))
}

fn no_address(service: &Object, error: &AllocationError) -> Status {
    let name = object::name(service);
    Status::internal(format!("failed to allocate a serviceIP for Service \"{name}\": {error}"))
}

pub(super) fn allocate_cluster(
    service: &mut Object,
    old: Option<&Object>,
    ranges: &[AddressRange],
    taken: &dyn Fn(IpAddr) -> bool,
    chosen: &mut Vec<IpAddr>,
) -> Result<(), Status> {
    if needs_cluster_ip(field(service, "spec")) {
        families(service, old, ranges)?;
        let spec = field(service, "spec");
        if is_headless(spec) {
            if let Some(spec) = struct_mut(service, "spec") {
                set(spec, "clusterIP", "None");
                set(spec, "clusterIPs", json!(["None"]));
            }
            return Ok(());
        }
        return allocate_addresses(service, old, ranges, taken, chosen);
    }
    if let Some(spec) = struct_mut(service, "spec")
        && text(spec, "clusterIP").is_empty()
    {
        remove(spec, "clusterIP");
    }
    Ok(())
}

fn allocate_addresses(
    service: &mut Object,
    old: Option<&Object>,
    ranges: &[AddressRange],
    taken: &dyn Fn(IpAddr) -> bool,
    chosen: &mut Vec<IpAddr>,
) -> Result<(), Status> {
    let had: Vec<IpAddr> = old.map(cluster_ips).unwrap_or_default();
    let own = |key: &str| -> Vec<String> {
        strings(field(service, "spec"), key).into_iter().map(str::to_owned).collect()
    };
    let (given, families) = (own("clusterIPs"), own("ipFamilies"));
    let mut result = Vec::new();
    for (i, family) in families.iter().enumerate() {
        let Some(range) = ranges.iter().find(|range| range.family() == family) else { continue };
        match given.get(i).map(|ip| ip.parse::<IpAddr>()) {
            Some(Ok(ip)) if had.contains(&ip) => result.push(ip),
            Some(Ok(ip)) => {
                // Whether it is taken is for the claim to say.
                range.check(ip).map_err(|error| address_refused(service, ip, &error))?;
                chosen.push(ip);
                result.push(ip);
            }
            // validation names the bad address
            Some(Err(_)) => {
                chosen.clear();
                return Ok(());
            }
            None => {
                let ip = range.choose(taken).map_err(|error| no_address(service, &error))?;
                chosen.push(ip);
                result.push(ip);
            }
        }
    }
    if let (Some(first), Some(spec)) = (result.first(), struct_mut(service, "spec")) {
        set(spec, "clusterIP", first.to_string());
        set(spec, "clusterIPs", json!(result.iter().map(ToString::to_string).collect::<Vec<_>>()));
    }
    Ok(())
}
