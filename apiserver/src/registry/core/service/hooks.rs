//! Hands out addresses and ports around writes of services.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use common::status::{FieldErrors, Status};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::allocation::{AddressPool, PortPool};
use super::{
    cluster_ips, is_headless, needs_cluster_ip, needs_health_check_port, needs_node_port, node_ports,
};
use crate::object::{self, Object};
use crate::registry::deps::Deps;
use crate::registry::tree::{field, has, int, items, items_mut, remove, set, strings, struct_mut, text};
use crate::resources::{Hooks, Registry, Rollback};

/// How old the pools may grow before they are rebuilt from the Services there are.
const REPAIR_INTERVAL: Duration = Duration::from_secs(180);

struct Pools {
    addresses: Vec<AddressPool>,
    ports: PortPool,
    repaired: Option<Instant>,
    /// Writes under way; a rebuild would forget what they hold.
    pending: usize,
}

/// See the module.
pub struct ServiceHooks {
    registry: Arc<Registry>,
    pools: Arc<Mutex<Pools>>,
}

/// What one write holds until it is known to have succeeded.
#[derive(Default)]
struct Held {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Pools {
    fn release(&mut self, held: &Held) {
        for ip in &held.addresses {
            self.addresses.iter_mut().filter(|p| p.is_ipv4() == ip.is_ipv4()).for_each(|p| p.release(*ip));
        }
        held.ports.iter().for_each(|port| self.ports.release(*port));
    }

    fn repair(&mut self, services: &[Object], now: Instant) {
        self.addresses.iter_mut().for_each(AddressPool::clear);
        self.ports.clear();
        for service in services {
            for ip in cluster_ips(service) {
                for pool in self.addresses.iter_mut().filter(|p| p.is_ipv4() == ip.is_ipv4()) {
                    // another service may hold it twice, or an older range may have given it: neither is ours
                    let _ = pool.reserve(ip);
                }
            }
            for port in node_ports(service) {
                let _ = self.ports.reserve(port);
            }
        }
        self.repaired = Some(now);
    }
}

impl ServiceHooks {
    pub fn new(deps: &Deps) -> Self {
        let pools = Pools {
            addresses: deps.service_ip_ranges.iter().copied().map(AddressPool::new).collect(),
            ports: PortPool::new(deps.node_ports.clone()),
            repaired: None,
            pending: 0,
        };
        Self { registry: deps.registry.clone(), pools: Arc::new(Mutex::new(pools)) }
    }

    fn repair_when_due(&self) -> Result<(), Status> {
        let now = Instant::now();
        let due = {
            let pools = self.pools.lock();
            pools.pending == 0 && pools.repaired.is_none_or(|at| now.duration_since(at) > REPAIR_INTERVAL)
        };
        if !due {
            return Ok(());
        }
        let store = self.registry.store("", "services");
        if !store.synced() {
            return Err(Status::service_unavailable("the cache of services is not ready yet"));
        }
        let services: Vec<Object> = store.cached_list("").iter().map(|s| s.tree()).collect();
        let mut pools = self.pools.lock();
        if pools.pending == 0 {
            pools.repair(&services, now);
        }
        Ok(())
    }
}

fn refused(service: &Object, path: &str, value: &Value, why: &str) -> Status {
    let mut errors = FieldErrors::new();
    errors.invalid(path, value, why);
    Status::invalid("", "Service", object::name(service), &errors)
}

/// Fills ipFamilyPolicy and ipFamilies.
fn families(service: &mut Object, old: Option<&Object>, pools: &Pools) -> Result<(), Status> {
    let whole = service.clone();
    let Some(spec) = struct_mut(service, "spec") else { return Ok(()) };
    let selectorless = text(spec, "clusterIP") == "None"
        && field(spec, "selector").as_object().is_none_or(serde_json::Map::is_empty);
    if !has(spec, "ipFamilyPolicy") {
        let before = old.map(|o| text(field(o, "spec"), "ipFamilyPolicy")).filter(|p| !p.is_empty());
        let policy = before.unwrap_or(if selectorless { "RequireDualStack" } else { "SingleStack" });
        set(spec, "ipFamilyPolicy", policy);
    }
    let single = text(spec, "ipFamilyPolicy") == "SingleStack";
    if single && old.is_some() {
        for key in ["clusterIPs", "ipFamilies"] {
            let unchanged = old.is_some_and(|o| strings(field(o, "spec"), key) == strings(spec, key));
            if unchanged && let Some(list) = crate::registry::tree::list_mut(spec, key) {
                list.truncate(1);
            }
        }
    }
    if single && (strings(spec, "clusterIPs").len() == 2 || strings(spec, "ipFamilies").len() == 2) {
        let what = if strings(spec, "clusterIPs").len() == 2 { "cluster IPs" } else { "IP families" };
        return Err(refused(
            &whole,
            "spec.ipFamilyPolicy",
            &json!("SingleStack"),
            &format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"),
        ));
    }
    let mut chosen: Vec<String> = strings(spec, "ipFamilies").into_iter().map(str::to_owned).collect();
    let known = |family: &str| pools.addresses.iter().any(|p| p.family() == family);
    for (i, ip) in strings(spec, "clusterIPs").iter().enumerate().skip(chosen.len()) {
        let Ok(ip) = ip.parse::<IpAddr>() else { break };
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        if !known(family) {
            return Err(refused(
                &whole,
                &format!("spec.clusterIPs[{i}]"),
                field(spec, "clusterIPs"),
                &format!("{family} is not configured on this cluster"),
            ));
        }
        chosen.push(family.to_owned());
    }
    let default = pools.addresses.first().map_or("IPv4", AddressPool::family);
    if !selectorless {
        if text(spec, "ipFamilyPolicy") == "RequireDualStack" && pools.addresses.len() < 2 {
            return Err(refused(
                &whole,
                "spec.ipFamilyPolicy",
                &json!("RequireDualStack"),
                "this cluster is not configured for dual-stack services",
            ));
        }
        if let Some((i, family)) = chosen.iter().enumerate().find(|(_, f)| !known(f)) {
            return Err(refused(
                &whole,
                &format!("spec.ipFamilies[{i}]"),
                &json!(family),
                "not configured on this cluster",
            ));
        }
    }
    if chosen.is_empty() {
        chosen.push(default.to_owned());
    }
    if !single && chosen.len() == 1 && (selectorless || pools.addresses.len() == 2) {
        chosen.push(if chosen[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
    }
    set(spec, "ipFamilies", json!(chosen));
    Ok(())
}

fn allocate_addresses(
    service: &mut Object,
    old: Option<&Object>,
    pools: &mut Pools,
    held: &mut Held,
) -> Result<(), Status> {
    let had: Vec<IpAddr> = old.map(cluster_ips).unwrap_or_default();
    let given: Vec<String> =
        strings(field(service, "spec"), "clusterIPs").into_iter().map(str::to_owned).collect();
    let families: Vec<String> =
        strings(field(service, "spec"), "ipFamilies").into_iter().map(str::to_owned).collect();
    let mut result = Vec::new();
    for (i, family) in families.iter().enumerate() {
        let Some(pool) = pools.addresses.iter_mut().find(|p| p.family() == family) else { continue };
        match given.get(i).map(|ip| ip.parse::<IpAddr>()) {
            Some(Ok(ip)) if had.contains(&ip) => result.push(ip),
            Some(Ok(ip)) => {
                pool.reserve(ip).map_err(|e| {
                    let why = format!("failed to allocate IP {ip}: {e}");
                    refused(service, "spec.clusterIPs", &json!(given), &why)
                })?;
                held.addresses.push(ip);
                result.push(ip);
            }
            // validation names the bad address
            Some(Err(_)) => return Ok(()),
            None => {
                let ip = pool.reserve_any().map_err(|e| {
                    let name = object::name(service);
                    Status::internal(format!("failed to allocate a serviceIP for Service \"{name}\": {e}"))
                })?;
                held.addresses.push(ip);
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

fn allocate_ports(
    service: &mut Object,
    old: Option<&Object>,
    pools: &mut Pools,
    held: &mut Held,
) -> Result<(), Status> {
    let had = old.map(node_ports).unwrap_or_default();
    let whole = service.clone();
    let Some(spec) = struct_mut(service, "spec") else { return Ok(()) };
    let allocate = needs_node_port(spec);
    let health = needs_health_check_port(spec);
    // TCP and UDP on one port number share one node port
    let mut by_port: Vec<(i64, u16)> = Vec::new();
    let wanted: Vec<(i64, i64)> = items(spec, "ports")
        .iter()
        .map(|p| (int(p, "port").unwrap_or(0), int(p, "nodePort").unwrap_or(0)))
        .collect();
    for (i, port) in items_mut(spec, "ports").iter_mut().enumerate() {
        let (number, mut asked) = wanted[i];
        if asked == 0 && !allocate {
            continue;
        }
        let shared = by_port.iter().find(|(n, _)| *n == number).map(|(_, p)| *p);
        if asked == 0 && shared.is_none() {
            asked = wanted.iter().find(|(n, p)| *n == number && *p != 0).map_or(0, |(_, p)| *p);
        }
        let chosen = match (u16::try_from(asked).ok().filter(|p| *p != 0), shared) {
            (Some(asked), Some(shared)) if asked == shared => shared,
            (None, Some(shared)) if asked == 0 => shared,
            (Some(asked), _) => {
                if !had.contains(&asked) {
                    pools.ports.reserve(asked).map_err(|e| {
                        refused(&whole, &format!("spec.ports[{i}].nodePort"), &json!(asked), &e.to_string())
                    })?;
                    held.ports.push(asked);
                }
                asked
            }
            (None, _) if asked != 0 => continue,
            (None, _) => {
                let port = pools
                    .ports
                    .reserve_any()
                    .map_err(|e| Status::internal(format!("failed to allocate a nodePort: {e}")))?;
                held.ports.push(port);
                port
            }
        };
        by_port.push((number, chosen));
        set(port, "nodePort", chosen);
    }
    if health {
        let asked = int(spec, "healthCheckNodePort").and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
        let failed = |e| Status::internal(format!("failed to allocate a HealthCheck NodePort: {e}"));
        match asked {
            Some(port) if had.contains(&port) => {}
            Some(port) => {
                pools.ports.reserve(port).map_err(failed)?;
                held.ports.push(port);
            }
            None => {
                let port = pools.ports.reserve_any().map_err(failed)?;
                held.ports.push(port);
                set(spec, "healthCheckNodePort", port);
            }
        }
    }
    Ok(())
}

fn allocate(
    service: &mut Object,
    old: Option<&Object>,
    pools: &mut Pools,
    held: &mut Held,
) -> Result<(), Status> {
    if needs_cluster_ip(field(service, "spec")) {
        families(service, old, pools)?;
        let spec = field(service, "spec");
        if is_headless(spec) {
            if let Some(spec) = struct_mut(service, "spec") {
                set(spec, "clusterIP", "None");
                set(spec, "clusterIPs", json!(["None"]));
            }
        } else {
            allocate_addresses(service, old, pools, held)?;
        }
    } else if let Some(spec) = struct_mut(service, "spec")
        && text(spec, "clusterIP").is_empty()
    {
        remove(spec, "clusterIP");
    }
    allocate_ports(service, old, pools, held)
}

struct Reservation {
    pools: Arc<Mutex<Pools>>,
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
        let mut pools = self.pools.lock();
        pools.pending = pools.pending.saturating_sub(1);
        let back = if self.committed { &self.replaced } else { &self.taken };
        pools.release(back);
    }
}

#[async_trait]
impl Hooks for ServiceHooks {
    async fn begin_write(
        &self,
        service: &mut Object,
        old: Option<&Object>,
        _dry_run: bool,
    ) -> Result<Box<dyn Rollback>, Status> {
        self.repair_when_due()?;
        let mut taken = Held::default();
        {
            let mut pools = self.pools.lock();
            if let Err(status) = allocate(service, old, &mut pools, &mut taken) {
                pools.release(&taken);
                return Err(status);
            }
            pools.pending += 1;
        }
        let (ips, ports) = (cluster_ips(service), node_ports(service));
        let replaced = old.map_or_else(Held::default, |old| Held {
            addresses: cluster_ips(old).into_iter().filter(|ip| !ips.contains(ip)).collect(),
            ports: node_ports(old).into_iter().filter(|p| !ports.contains(p)).collect(),
        });
        // a dry run is never committed, so what it took goes back
        Ok(Box::new(Reservation { pools: self.pools.clone(), taken, replaced, committed: false }))
    }

    async fn after_delete(&self, service: &Object) {
        let held = Held { addresses: cluster_ips(service), ports: node_ports(service) };
        self.pools.lock().release(&held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools() -> Pools {
        Pools {
            addresses: vec![AddressPool::new("10.96.0.0/24".parse().expect("range"))],
            ports: PortPool::new(30000..=32767),
            repaired: None,
            pending: 0,
        }
    }

    fn check(spec: Value) -> Value {
        let mut service = json!({"metadata": {"name": "a"}, "spec": spec});
        (super::super::RULES.default)(&mut service);
        (super::super::RULES.prepare_create)(&mut service);
        let mut held = Held::default();
        allocate(&mut service, None, &mut pools(), &mut held).expect("allocates");
        let mut errors = FieldErrors::new();
        (super::super::RULES.validate)(&service, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        service["spec"].clone()
    }

    #[test]
    fn every_type_gets_what_it_needs() {
        let plain = check(json!({"ports": [{"port": 80}]}));
        assert!(plain["clusterIP"].as_str().is_some_and(|ip| ip.starts_with("10.96.0.")));
        assert_eq!(plain["clusterIPs"][0], plain["clusterIP"]);
        assert_eq!(plain["ipFamilies"], json!(["IPv4"]));
        assert_eq!(plain["ipFamilyPolicy"], "SingleStack");
        assert_eq!(plain["ports"][0]["targetPort"], 80);

        let headless = check(json!({"clusterIP": "None", "selector": {"a": "b"}}));
        assert_eq!(headless["clusterIPs"], json!(["None"]));

        let node = check(json!({"type": "NodePort", "ports": [
            {"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]}));
        assert!(node["ports"][0]["nodePort"].as_i64().is_some_and(|p| (30000..=32767).contains(&p)));
        assert_eq!(node["ports"][0]["nodePort"], node["ports"][1]["nodePort"]);

        let external = check(json!({"type": "ExternalName", "externalName": "a.example"}));
        assert!(external.get("clusterIP").is_none());
    }

    #[test]
    fn a_taken_address_is_refused() {
        let mut pools = pools();
        let mut held = Held::default();
        let mut service = json!({"metadata": {"name": "a"},
            "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}});
        allocate(&mut service.clone(), None, &mut pools, &mut held).expect("free");
        let status = allocate(&mut service, None, &mut pools, &mut held).expect_err("taken");
        assert_eq!(
            status.message,
            "Service \"a\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: provided IP is already allocated"
        );
    }
}
