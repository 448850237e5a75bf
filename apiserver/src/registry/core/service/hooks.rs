//! Hands out addresses and ports around writes of services.
//!
//! What is chosen is claimed in the store before the service is written ([`super::claims`]), so that servers
//! on one store cannot give the same to two services, and given back when the write fails or the service goes.
//! Giving back waits for the next write or [`ServiceHooks::maintain`], whichever is sooner; what is lost with a
//! server that dies between is found by [`super::repair`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use common::status::{FieldErrors, Status};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{OnceCell, Semaphore};

use super::allocation::{AddressRange, AllocationError, PortMap};
use super::claims::{Claimed, Claims};
use super::repair::Leaks;
use super::{
    cluster_ips, is_headless, needs_cluster_ip, needs_health_check_port, needs_node_port, node_ports,
};
use crate::object::{self, Object};
use crate::registry::tree::{field, has, int, items, items_mut, remove, set, strings, struct_mut, text};
use crate::resources::{Hooks, Registry, Rollback};

/// How many addresses are tried that other servers turn out to have claimed.
const ATTEMPTS_MAX: u32 = 100;
/// How many writes' addresses and ports may wait to be given back while the store is away.
const RETURNED_MAX: usize = 10_000;

/// See the module.
pub struct ServiceHooks {
    pub(super) registry: Arc<Registry>,
    pub(super) claims: Claims,
    pub(super) ranges: Vec<AddressRange>,
    pub(super) leaks: Mutex<Leaks>,
    /// Nothing is handed out before what is there has been claimed.
    ready: OnceCell<()>,
    /// One write of the ports at a time, so that those of one server do not make each other try again.
    ports_turn: Semaphore,
    returned: Arc<Mutex<Vec<Held>>>,
}

/// What one write has claimed, or replaces.
#[derive(Debug, Default)]
struct Held {
    addresses: Vec<Claimed>,
    ports: Vec<u16>,
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
    pub fn new(registry: Arc<Registry>, claims: Claims, ranges: Vec<AddressRange>) -> Self {
        Self {
            registry,
            claims,
            ranges,
            leaks: Mutex::default(),
            ready: OnceCell::new(),
            ports_turn: Semaphore::new(1),
            returned: Arc::default(),
        }
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
        self.claims
            .change_ports(|map| {
                held.ports.iter().for_each(|port| map.release(*port));
                Ok(((), true))
            })
            .await
    }

    async fn addresses(
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

    async fn ports(
        &self,
        service: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
        taken: &mut Held,
    ) -> Result<(), Status> {
        let spec = field(service, "spec");
        if !needs_node_port(spec) && !needs_health_check_port(spec) && node_ports(service).is_empty() {
            return Ok(());
        }
        let _turn = self.ports_turn.acquire().await;
        let given = service.clone();
        let (written, chosen) = self
            .claims
            .change_ports(|map| {
                let (mut candidate, mut chosen) = (given.clone(), Vec::new());
                allocate_ports(&mut candidate, old, map, &mut chosen)?;
                let changed = !dry_run && !chosen.is_empty();
                Ok(((candidate, chosen), changed))
            })
            .await?;
        *service = written;
        if !dry_run {
            taken.ports = chosen;
        }
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

fn refused(service: &Object, path: &str, value: &Value, why: &str) -> Status {
    let mut errors = FieldErrors::new();
    errors.invalid(path, value, why);
    Status::invalid("", "Service", object::name(service), &errors)
}

fn address_refused(service: &Object, ip: IpAddr, error: &AllocationError) -> Status {
    let given = strings(field(service, "spec"), "clusterIPs");
    refused(service, "spec.clusterIPs", &json!(given), &format!("failed to allocate IP {ip}: {error}"))
}

fn no_address(service: &Object, error: &AllocationError) -> Status {
    let name = object::name(service);
    Status::internal(format!("failed to allocate a serviceIP for Service \"{name}\": {error}"))
}

/// Fills ipFamilyPolicy and ipFamilies.
fn families(service: &mut Object, old: Option<&Object>, ranges: &[AddressRange]) -> Result<(), Status> {
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
    let known = |family: &str| ranges.iter().any(|p| p.family() == family);
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
    let default = ranges.first().map_or("IPv4", AddressRange::family);
    if !selectorless {
        if text(spec, "ipFamilyPolicy") == "RequireDualStack" && ranges.len() < 2 {
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
    if !single && chosen.len() == 1 && (selectorless || ranges.len() == 2) {
        chosen.push(if chosen[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
    }
    set(spec, "ipFamilies", json!(chosen));
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

fn allocate_ports(
    service: &mut Object,
    old: Option<&Object>,
    map: &mut PortMap,
    chosen: &mut Vec<u16>,
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
                    map.reserve(asked).map_err(|e| {
                        refused(&whole, &format!("spec.ports[{i}].nodePort"), &json!(asked), &e.to_string())
                    })?;
                    chosen.push(asked);
                }
                asked
            }
            (None, _) if asked != 0 => continue,
            (None, _) => {
                let port = map
                    .reserve_any()
                    .map_err(|e| Status::internal(format!("failed to allocate a nodePort: {e}")))?;
                chosen.push(port);
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
                map.reserve(port).map_err(failed)?;
                chosen.push(port);
            }
            None => {
                let port = map.reserve_any().map_err(failed)?;
                chosen.push(port);
                set(spec, "healthCheckNodePort", port);
            }
        }
    }
    Ok(())
}

fn allocate_cluster(
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::{Cluster, named, put};

    fn ranges() -> Vec<AddressRange> {
        vec![AddressRange::new("10.96.0.0/24".parse().expect("range"))]
    }

    fn check(spec: Value) -> Value {
        let mut service = json!({"metadata": {"name": "a"}, "spec": spec});
        (super::super::RULES.default)(&mut service);
        (super::super::RULES.prepare_create)(&mut service);
        allocate_cluster(&mut service, None, &ranges(), &|_| false, &mut Vec::new()).expect("address");
        let mut map = PortMap::new(30000..=32767);
        allocate_ports(&mut service, None, &mut map, &mut Vec::new()).expect("ports");
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

    const RESOURCES: [(&str, &str); 2] = [("", "services"), ("networking.k8s.io", "ipaddresses")];

    fn hooks(
        cluster: &Cluster,
        registry: &Arc<Registry>,
        range: &str,
        ports: std::ops::RangeInclusive<u16>,
    ) -> Arc<ServiceHooks> {
        let claims = Claims::new(registry.clone(), cluster.store(), "/registry", ports);
        let ranges = vec![AddressRange::new(range.parse().expect("range"))];
        Arc::new(ServiceHooks::new(registry.clone(), claims, ranges))
    }

    fn service(name: &str, spec: Value) -> Value {
        let mut service = named("Service", name, json!({ "spec": spec }));
        (super::super::RULES.default)(&mut service);
        (super::super::RULES.prepare_create)(&mut service);
        service
    }

    async fn write(hooks: &ServiceHooks, mut service: Value) -> Result<Value, Status> {
        let guard = hooks.begin_write(&mut service, None, false).await?;
        hooks.registry.store("", "services").create(&service, None).await?;
        guard.commit();
        Ok(service)
    }

    #[tokio::test]
    async fn two_servers_never_hand_out_the_same() {
        let cluster = Cluster::start();
        let mut servers = Vec::new();
        for _ in 0..2 {
            let registry = cluster.server(&RESOURCES).await;
            servers.push(hooks(&cluster, &registry, "10.96.0.0/27", 30000..=30019));
        }
        let mut running = tokio::task::JoinSet::new();
        for i in 0..40 {
            let hooks = servers[i % 2].clone();
            let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
            running.spawn(async move { write(&hooks, service(&format!("s{i}"), spec)).await });
        }
        let (mut ips, mut ports) = (BTreeSet::new(), BTreeSet::new());
        while let Some(done) = running.join_next().await {
            match done.expect("no panic") {
                Ok(service) => {
                    assert!(ips.insert(cluster_ips(&service)[0]), "{service}");
                    assert!(ports.insert(node_ports(&service)[0]), "{service}");
                }
                Err(status) => assert!(status.message.ends_with("range is full"), "{}", status.message),
            }
        }
        assert_eq!((ips.len(), ports.len()), (20, 20));
    }

    #[tokio::test]
    async fn a_taken_address_is_refused_and_a_freed_one_is_not() {
        let cluster = Cluster::start();
        let registry = cluster.server(&RESOURCES).await;
        let hooks = hooks(&cluster, &registry, "10.96.0.0/24", 30000..=32767);
        let spec =
            json!({"clusterIP": "10.96.0.9", "type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]});
        let first = write(&hooks, service("a", spec.clone())).await.expect("free");
        let told = write(&hooks, service("b", spec.clone())).await.expect_err("taken");
        assert_eq!(
            told.message,
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: provided IP is already allocated"
        );
        let told = write(
            &hooks,
            service("b", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]})),
        )
        .await
        .expect_err("taken");
        assert_eq!(
            told.message,
            "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"
        );
        hooks.after_delete(&first).await;
        let mut again = service("c", spec.clone());
        drop(hooks.begin_write(&mut again, None, false).await.expect("free again"));
        let mut again = service("d", spec);
        drop(hooks.begin_write(&mut again, None, true).await.expect("given back"));
        let (map, _) = hooks.claims.read_ports().await.expect("ports");
        assert!(!map.is_taken(30001));
    }

    #[tokio::test]
    async fn what_is_there_is_claimed_before_anything_is_handed_out() {
        let cluster = Cluster::start();
        let registry = cluster.server(&RESOURCES).await;
        let object = named(
            "Service",
            "old",
            json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7"], "ports": [{"port": 1, "nodePort": 30005}]}}),
        );
        put(&[&registry], "", "services", object).await;
        let hooks = hooks(&cluster, &registry, "10.96.0.0/24", 30000..=32767);
        write(&hooks, service("new", json!({"ports": [{"port": 1}]}))).await.expect("written");
        let claimed = registry.store("networking.k8s.io", "ipaddresses").get("", "10.96.0.7", None).await;
        let claimed = claimed.expect("claimed").tree();
        assert_eq!(claimed["spec"]["parentRef"]["name"], "old");
        assert!(hooks.claims.read_ports().await.expect("ports").0.is_taken(30005));
    }
}
