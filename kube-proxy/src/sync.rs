//! The loop: what changed is collected, at most one transaction per period and family is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::shutdown::CancellationToken;
use parking_lot::RwLock;
use rtnetlink::Handle;
use tokio::sync::mpsc;

use crate::config::{Config, DetectLocalMode, NodePortSource, PodRoutes};
use crate::conntrack::{self, UdpPort};
use crate::dns::address::local_addresses;
use crate::health::{Health, ServiceHealth};
use crate::metrics::Metrics;
use crate::model::{Categorized, Family, Key, Place, Service, categorize};
use crate::nftables::{
    BaseConfig, Fragment, FragmentInput, LocalTraffic, Nft, NodePortAddresses, Table, base, fragment,
};
use crate::routes;
use crate::state::{Input, State};

/// Everything is written anew at least this often, should somebody have meddled.
const FULL_SYNC_EVERY: Duration = Duration::from_secs(60 * 60);
/// After a failure.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Routes are compared with the kernel's this often.
const ROUTES_EVERY: Duration = Duration::from_secs(60);
/// Inputs taken in before rules are considered.
const INPUTS_PER_TURN: usize = 1024;

/// One family's table, and whether it must be written whole.
struct Proxied {
    table: Table,
    full_at: Instant,
}

pub(crate) struct Sync {
    pub config: Config,
    pub state: Arc<RwLock<State>>,
    pub nft: Nft,
    pub netlink: Handle,
    pub health: Arc<Health>,
    pub service_health: ServiceHealth,
    pub metrics: Arc<Metrics>,
    families: Vec<Proxied>,
    /// The base rules that are applied.
    base: Option<BaseConfig>,
    pending: BTreeSet<Key>,
    udp: BTreeMap<(Key, String), UdpPort>,
    nodes_changed: bool,
    /// When the next transaction may run.
    next_sync: Instant,
    next_routes: Instant,
}

impl Sync {
    pub(crate) fn new(
        config: Config,
        state: Arc<RwLock<State>>,
        netlink: Handle,
        health: Arc<Health>,
        service_health: ServiceHealth,
        metrics: Arc<Metrics>,
        families: &[Family],
    ) -> Self {
        let now = Instant::now();
        Self {
            config,
            state,
            nft: Nft::default(),
            netlink,
            health,
            service_health,
            metrics,
            families: families.iter().map(|f| Proxied { table: Table::new(*f), full_at: now }).collect(),
            base: None,
            pending: BTreeSet::new(),
            udp: BTreeMap::new(),
            nodes_changed: false,
            next_sync: now,
            next_routes: now,
        }
    }

    pub(crate) async fn run(mut self, mut inputs: mpsc::Receiver<Input>, stop: CancellationToken) {
        loop {
            let due = self.due();
            tokio::select! {
                input = inputs.recv() => {
                    let Some(input) = input else { return };
                    self.take(input);
                    for _ in 0..INPUTS_PER_TURN {
                        let Ok(input) = inputs.try_recv() else { break };
                        self.take(input);
                    }
                }
                () = tokio::time::sleep_until(due.into()) => {}
                () = stop.cancelled() => return,
            }
            let now = Instant::now();
            if !self.state.read().synced() || now < self.next_sync {
                continue;
            }
            self.sync(now).await;
            if self.config.pod_routes == PodRoutes::HostGateway
                && (std::mem::take(&mut self.nodes_changed) || now >= self.next_routes)
            {
                self.next_routes = now + ROUTES_EVERY;
                let wanted = routes::plan(&self.state.read(), &self.config.node_name);
                for error in routes::reconcile(&self.netlink, &wanted).await {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, source, "pod route not in place; trying again");
                }
            }
        }
    }

    /// When something is to be done without an input.
    fn due(&self) -> Instant {
        let full = self.families.iter().map(|f| f.full_at).min();
        let stale = self.families.iter().any(|f| f.table.has_stale());
        let mut due = full.unwrap_or_else(|| Instant::now() + FULL_SYNC_EVERY);
        if self.config.pod_routes == PodRoutes::HostGateway {
            due = due.min(self.next_routes);
        }
        if !self.pending.is_empty() || stale || self.nodes_changed {
            due = due.min(self.next_sync);
        }
        due.max(self.next_sync)
    }

    fn take(&mut self, input: Input) {
        let changed = self.state.write().take(input);
        if !changed.services.is_empty() {
            self.health.queued(Instant::now());
            for family in &self.families {
                self.metrics.queued(family.table.family());
            }
        }
        self.pending.extend(changed.services);
        self.nodes_changed |= changed.nodes;
    }

    async fn sync(&mut self, now: Instant) {
        self.next_sync = now + self.config.min_sync_period;
        let base_config = self.base_config().await;
        let (zone, eligible) = {
            let state = self.state.read();
            let own = state.node(&self.config.node_name);
            (own.map(|n| n.zone.clone()).unwrap_or_default(), own.is_some_and(|n| !n.leaving))
        };
        self.health.set_eligible(eligible);
        let place = Place { node: self.config.node_name.clone(), zone };
        let rebased = self.base.as_ref() != Some(&base_config);
        let keys: BTreeSet<Key> = if rebased {
            // Rules of services depend on the base: all are made anew.
            let state = self.state.read();
            let known = state.services().map(|s| s.key.clone());
            known.chain(std::mem::take(&mut self.pending)).collect()
        } else {
            std::mem::take(&mut self.pending)
        };
        let mut stale_flows = Vec::new();
        for key in &keys {
            let wanted = self.health_port(key, &place);
            self.service_health.set(key, wanted).await;
            stale_flows.extend(self.udp_changes(key, &place));
        }
        let mut failed = false;
        for at in 0..self.families.len() {
            let family = self.families[at].table.family();
            let fragments: Vec<(Key, Fragment)> = {
                let state = self.state.read();
                keys.iter()
                    .map(|k| (k.clone(), self.fragment(&state, k, family, &base_config, &place)))
                    .collect()
            };
            failed |= !self.apply(at, fragments, &base_config, rebased, now).await;
        }
        self.base = Some(base_config);
        if failed {
            self.next_sync = now + RETRY_AFTER;
        } else {
            conntrack::delete(stale_flows).await;
        }
    }

    /// Brings one family's table up to date; false when it must be tried again, then whole.
    async fn apply(
        &mut self,
        at: usize,
        fragments: Vec<(Key, Fragment)>,
        base_config: &BaseConfig,
        rebased: bool,
        now: Instant,
    ) -> bool {
        let proxied = &mut self.families[at];
        let family = proxied.table.family();
        let full = rebased || now >= proxied.full_at;
        let stale = if full { Vec::new() } else { proxied.table.take_stale() };
        if !stale.is_empty()
            && let Err(error) = self.nft.run(&stale).await
        {
            self.metrics.cleanup_failed(family);
            tracing::debug!(%error, "unused chains could not be deleted; the next full sync will");
        }
        let difference = proxied.table.replace(fragments);
        let commands = if full {
            match self.nft.existing(family).await {
                Ok(existing) => {
                    let mut commands = base(family, base_config);
                    commands.extend(proxied.table.rebuild(&existing));
                    commands
                }
                Err(error) => return self.failed(at, &error, now),
            }
        } else {
            difference
        };
        if commands.is_empty() {
            self.health.updated(family);
            return true;
        }
        if let Err(error) = self.nft.run(&commands).await {
            return self.failed(at, &error, now);
        }
        let proxied = &mut self.families[at];
        if full {
            proxied.full_at = now + FULL_SYNC_EVERY;
        }
        self.health.updated(family);
        self.metrics.synced(family, full, now.elapsed(), proxied.table.without_local());
        tracing::debug!(family = family.name(), commands = commands.len(), full, "rules applied");
        true
    }

    fn failed(&mut self, at: usize, error: &crate::nftables::ApplyError, now: Instant) -> bool {
        let family = self.families[at].table.family();
        self.metrics.failed(family);
        self.health.queued(now);
        tracing::error!(family = family.name(), %error, "rules could not be applied; trying again");
        // What the kernel has is not known for sure any more.
        self.families[at].full_at = now;
        false
    }

    fn fragment(
        &self,
        state: &State,
        key: &Key,
        family: Family,
        base: &BaseConfig,
        place: &Place,
    ) -> Fragment {
        let Some(service) = state.service(key).filter(|s| !self.answers_itself(s)) else {
            return Fragment::default();
        };
        let endpoints = of_ports(state, service, family, place);
        fragment(&FragmentInput { family, service, base, endpoints: &endpoints, node: &place.node })
    }

    /// The service whose cluster IP is the address our DNS listens on: rules for it would lead elsewhere.
    fn answers_itself(&self, service: &Service) -> bool {
        self.config.dns.as_ref().is_some_and(|dns| service.cluster_ips.contains(&dns.bind.ip()))
    }

    fn health_port(&self, key: &Key, place: &Place) -> Option<(u16, usize)> {
        let state = self.state.read();
        let service = state.service(key).filter(|s| s.is_proxied() && s.external_local)?;
        let number = service.health_check_node_port?;
        let mut local = BTreeSet::new();
        for family in Family::ALL {
            for port in &service.ports {
                let all = state.endpoints(key, family, &port.name, &port.protocol);
                let here = |n: &Option<String>| n.as_deref() == Some(place.node.as_str());
                local.extend(all.into_iter().filter(|e| e.ready && here(&e.node)).map(|e| e.ip));
            }
        }
        Some((number, local.len()))
    }

    /// Which UDP flows a change makes stale.
    fn udp_changes(&mut self, key: &Key, place: &Place) -> Vec<Vec<String>> {
        let mut now = BTreeMap::new();
        {
            let state = self.state.read();
            if let Some(service) = state.service(key).filter(|s| s.is_proxied()) {
                for port in service.ports.iter().filter(|p| p.protocol == "udp") {
                    let mut udp = UdpPort { node_port: port.node_port, ..UdpPort::default() };
                    let fronts = service
                        .cluster_ips
                        .iter()
                        .chain(&service.external_ips)
                        .chain(&service.load_balancer_ips);
                    udp.fronts = fronts.map(|ip| (*ip, port.port)).collect();
                    for family in Family::ALL {
                        let all = state.endpoints(key, family, &port.name, &port.protocol);
                        let external = service.is_external(port, family);
                        let usable = categorize(
                            &all,
                            place,
                            service.uses_cluster_endpoints(external),
                            service.uses_local_endpoints(external),
                        );
                        udp.backends
                            .extend(usable.cluster.iter().chain(&usable.local).map(|e| (e.ip, e.port)));
                    }
                    now.insert((key.clone(), port.name.clone()), udp);
                }
            }
        }
        let from = (key.clone(), String::new());
        let before: Vec<(Key, String)> =
            self.udp.range(from..).take_while(|((k, _), _)| k == key).map(|(k, _)| k.clone()).collect();
        let mut out = Vec::new();
        for at in before {
            if let Some(old) = self.udp.remove(&at) {
                out.extend(conntrack::stale(&old, now.get(&at).unwrap_or(&UdpPort::default())));
            }
        }
        self.udp.extend(now);
        out
    }

    async fn base_config(&self) -> BaseConfig {
        let node = self.state.read().node(&self.config.node_name).cloned();
        let node_ips = node.as_ref().map(|n| n.internal_ips.clone()).unwrap_or_default();
        let local = match &self.config.detect_local {
            DetectLocalMode::ClusterCidr(cidrs) if cidrs.is_empty() => LocalTraffic::Unknown,
            DetectLocalMode::ClusterCidr(cidrs) => LocalTraffic::Cidrs(cidrs.clone()),
            DetectLocalMode::NodeCidr => {
                LocalTraffic::Cidrs(node.map(|n| n.pod_cidrs.clone()).unwrap_or_default())
            }
            DetectLocalMode::BridgeInterface(name) => LocalTraffic::Interface(name.clone()),
            DetectLocalMode::InterfaceNamePrefix(prefix) => LocalTraffic::InterfacePrefix(prefix.clone()),
        };
        let node_ports = match &self.config.node_ports {
            NodePortSource::Primary => NodePortAddresses::These(node_ips.clone()),
            NodePortSource::Cidrs(cidrs) if cidrs.iter().any(|c| c.prefix_len() == 0) => {
                NodePortAddresses::All
            }
            NodePortSource::Cidrs(cidrs) => match local_addresses(&self.netlink).await {
                Ok(mut all) => {
                    all.retain(|ip| cidrs.iter().any(|c| c.contains(ip)));
                    all.sort();
                    NodePortAddresses::These(all)
                }
                Err(error) => {
                    tracing::error!(%error, "node ports may not work");
                    NodePortAddresses::These(node_ips.clone())
                }
            },
        };
        BaseConfig { local, node_ports, masquerade_all: self.config.masquerade_all, node_ips }
    }
}

fn of_ports(state: &State, service: &Service, family: Family, place: &Place) -> Vec<Categorized> {
    let of = |port: &crate::model::ServicePort| {
        let all = state.endpoints(&service.key, family, &port.name, &port.protocol);
        let external = service.is_external(port, family);
        categorize(
            &all,
            place,
            service.uses_cluster_endpoints(external),
            service.uses_local_endpoints(external),
        )
    };
    service.ports.iter().map(of).collect()
}
