//! What is counted of addresses and ports, under upstream's names.
//!
//! How many addresses are taken is read from the caches when metrics are asked for, not kept at every write.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    DEFAULT_BUCKETS, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

use super::allocation::AddressRange;
use super::claims::is_managed;
use super::ranges::Ranges;
use crate::resources::{GroupResource, Registry};

/// Whether a client asked for this one, or for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Static,
    Dynamic,
}

impl Scope {
    fn label(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Dynamic => "dynamic",
        }
    }
}

/// What the repair finds wrong with node ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortError {
    Leak,
    Repair,
    OutOfRange,
    Duplicate,
}

/// See the module.
pub struct ServiceMetrics {
    addresses: IntCounterVec,
    address_errors: IntCounterVec,
    address_durations: HistogramVec,
    ports: IntCounterVec,
    port_errors: IntCounterVec,
    ports_allocated: IntGauge,
    ports_available: IntGauge,
    repaired_ports: IntCounterVec,
    repair_failures: IntCounter,
}

impl ServiceMetrics {
    /// # Errors
    /// When a name is taken.
    pub fn new(
        metrics: &prometheus::Registry,
        registry: &Arc<Registry>,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let address =
            |name: &str, help: &str| Opts::new(format!("kube_apiserver_clusterip_allocator_{name}"), help);
        let port =
            |name: &str, help: &str| Opts::new(format!("kube_apiserver_nodeport_allocator_{name}"), help);
        let repair = |name: &str, help: &str| Opts::new(format!("apiserver_nodeport_repair_{name}"), help);
        let scoped = ["cidr", "scope"];
        let this = Self {
            addresses: IntCounterVec::new(
                address("allocation_total", "Number of Cluster IPs allocations"),
                &scoped,
            )?,
            address_errors: IntCounterVec::new(
                address("allocation_errors_total", "Number of errors trying to allocate Cluster IPs"),
                &scoped,
            )?,
            address_durations: HistogramVec::new(
                HistogramOpts::from(address(
                    "allocation_duration_seconds",
                    "Duration in seconds to allocate a Cluster IP by ServiceCIDR",
                ))
                .buckets(DEFAULT_BUCKETS.to_vec()),
                &["cidr"],
            )?,
            ports: IntCounterVec::new(
                port("allocation_total", "Number of NodePort allocations"),
                &["scope"],
            )?,
            port_errors: IntCounterVec::new(
                port("allocation_errors_total", "Number of errors trying to allocate NodePort"),
                &["scope"],
            )?,
            ports_allocated: IntGauge::with_opts(port(
                "allocated_ports",
                "Gauge measuring the number of allocated NodePorts for Services",
            ))?,
            ports_available: IntGauge::with_opts(port(
                "available_ports",
                "Gauge measuring the number of available NodePorts for Services",
            ))?,
            repaired_ports: IntCounterVec::new(
                repair(
                    "port_errors_total",
                    "Number of errors detected on ports by the repair loop broken down by type of error: leak, repair, full, outOfRange, duplicate, unknown",
                ),
                &["type"],
            )?,
            repair_failures: IntCounter::with_opts(repair(
                "reconcile_errors_total",
                "Number of reconciliation failures on the nodeport repair reconcile loop",
            ))?,
        };
        metrics.register(Box::new(this.addresses.clone()))?;
        metrics.register(Box::new(this.address_errors.clone()))?;
        metrics.register(Box::new(this.address_durations.clone()))?;
        metrics.register(Box::new(this.ports.clone()))?;
        metrics.register(Box::new(this.port_errors.clone()))?;
        metrics.register(Box::new(this.ports_allocated.clone()))?;
        metrics.register(Box::new(this.ports_available.clone()))?;
        metrics.register(Box::new(this.repaired_ports.clone()))?;
        metrics.register(Box::new(this.repair_failures.clone()))?;
        metrics.register(Box::new(Occupancy::new(registry.clone())?))?;
        Ok(Arc::new(this))
    }

    /// An attempt to get an address of a range, and how long it took when it succeeded.
    pub fn address(&self, range: &AddressRange, scope: Scope, took: Option<Duration>) {
        let cidr = range.cidr().to_string();
        let Some(took) = took else {
            self.address_errors.with_label_values(&[cidr.as_str(), scope.label()]).inc();
            return;
        };
        self.addresses.with_label_values(&[cidr.as_str(), scope.label()]).inc();
        self.address_durations.with_label_values(&[cidr.as_str()]).observe(took.as_secs_f64());
    }

    /// Ports that were reserved, and how things stand then.
    pub fn ports(&self, scopes: impl Iterator<Item = Scope>, used: u64, size: u64) {
        scopes.for_each(|scope| self.ports.with_label_values(&[scope.label()]).inc());
        self.ports_are(used, size);
    }

    pub fn port_failed(&self, scope: Scope) {
        self.port_errors.with_label_values(&[scope.label()]).inc();
    }

    pub fn ports_are(&self, used: u64, size: u64) {
        self.ports_allocated.set(i64::try_from(used).unwrap_or(i64::MAX));
        self.ports_available.set(i64::try_from(size.saturating_sub(used)).unwrap_or(i64::MAX));
    }

    pub fn repaired(&self, error: PortError) {
        let kind = match error {
            PortError::Leak => "leak",
            PortError::Repair => "repair",
            PortError::OutOfRange => "outOfRange",
            PortError::Duplicate => "duplicate",
        };
        self.repaired_ports.with_label_values(&[kind]).inc();
    }

    pub fn repair_failed(&self) {
        self.repair_failures.inc();
    }
}

/// How many addresses of each range are taken and left.
struct Occupancy {
    registry: Arc<Registry>,
    allocated: IntGaugeVec,
    available: IntGaugeVec,
}

impl Occupancy {
    fn new(registry: Arc<Registry>) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let name = format!("kube_apiserver_clusterip_allocator_{name}");
            IntGaugeVec::new(Opts::new(name, help), &["cidr"])
        };
        Ok(Self {
            registry,
            allocated: gauge("allocated_ips", "Gauge measuring the number of allocated IPs for Services")?,
            available: gauge("available_ips", "Gauge measuring the number of available IPs for Services")?,
        })
    }

    fn count(&self) -> Vec<(IpNet, u64, u64)> {
        let all = |resource: &str| {
            let store = self.registry.get(&GroupResource::new("networking.k8s.io", resource));
            store.map(|store| store.cached_list("")).unwrap_or_default()
        };
        let taken: Vec<std::net::IpAddr> = all("ipaddresses")
            .iter()
            .filter(|claim| is_managed(claim))
            .filter_map(|claim| claim.name.parse().ok())
            .collect();
        let count = |range: &AddressRange| {
            let used = taken.iter().filter(|ip| range.contains(**ip)).count() as u64;
            (range.cidr(), used, range.size().saturating_sub(used))
        };
        Ranges::of(&all("servicecidrs")).iter().map(count).collect()
    }
}

impl Collector for Occupancy {
    fn desc(&self) -> Vec<&Desc> {
        self.allocated.desc().into_iter().chain(self.available.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.allocated.reset();
        self.available.reset();
        for (cidr, used, left) in self.count() {
            let cidr = cidr.to_string();
            let shown = |figure: u64| i64::try_from(figure).unwrap_or(i64::MAX);
            self.allocated.with_label_values(&[cidr.as_str()]).set(shown(used));
            self.available.with_label_values(&[cidr.as_str()]).set(shown(left));
        }
        self.allocated.collect().into_iter().chain(self.available.collect()).collect()
    }
}
