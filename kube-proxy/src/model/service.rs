//! A Service, parsed.

use std::net::IpAddr;

use ipnet::IpNet;

use super::view::ServiceView;
use super::{Family, Key};

/// Without a configured timeout, as upstream: three hours.
const AFFINITY_SECONDS: u32 = 10_800;
/// Services with this label belong to another proxy.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceType {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

/// Requests of one client address stay on one endpoint for this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affinity {
    pub seconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    pub port: u16,
    pub node_port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub key: Key,
    pub type_: ServiceType,
    pub headless: bool,
    /// False when another proxy serves it.
    pub ours: bool,
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    /// Load balancer addresses that reach the node unchanged.
    pub load_balancer_ips: Vec<IpAddr>,
    pub source_ranges: Vec<IpNet>,
    pub external_name: Option<String>,
    pub ports: Vec<ServicePort>,
    pub affinity: Option<Affinity>,
    pub internal_local: bool,
    pub external_local: bool,
    pub health_check_node_port: Option<u16>,
    pub publish_not_ready: bool,
}

impl Service {
    pub fn new(view: ServiceView) -> Self {
        let ServiceView { metadata, spec, status } = view;
        let type_ = match spec.type_.as_deref() {
            Some("NodePort") => ServiceType::NodePort,
            Some("LoadBalancer") => ServiceType::LoadBalancer,
            Some("ExternalName") => ServiceType::ExternalName,
            _ => ServiceType::ClusterIp,
        };
        let mut texts = spec.cluster_ips.unwrap_or_default();
        if texts.is_empty() {
            texts.extend(spec.cluster_ip);
        }
        let headless = texts.iter().any(|t| t == "None");
        let external = matches!(type_, ServiceType::NodePort | ServiceType::LoadBalancer);
        let timeout = spec.session_affinity_config.and_then(|c| c.client_ip?.timeout_seconds);
        let ingress = status.load_balancer.unwrap_or_default().ingress.unwrap_or_default();
        Self {
            key: Key::new(metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default()),
            type_,
            headless,
            ours: !metadata.labels.unwrap_or_default().contains_key(PROXY_NAME_LABEL),
            cluster_ips: addresses(&texts),
            external_ips: addresses(&spec.external_ips.unwrap_or_default()),
            load_balancer_ips: if type_ == ServiceType::LoadBalancer {
                let vip = |i: &&super::view::IngressView| i.ip_mode.as_deref() != Some("Proxy");
                ingress.iter().filter(vip).filter_map(|i| i.ip.as_deref()?.parse().ok()).collect()
            } else {
                Vec::new()
            },
            source_ranges: spec
                .load_balancer_source_ranges
                .iter()
                .flatten()
                .filter_map(|r| r.trim().parse().ok())
                .collect(),
            external_name: spec.external_name.filter(|_| type_ == ServiceType::ExternalName),
            ports: spec
                .ports
                .unwrap_or_default()
                .into_iter()
                .filter_map(|p| {
                    Some(ServicePort {
                        name: p.name.unwrap_or_default(),
                        protocol: p.protocol.unwrap_or_else(|| "TCP".into()).to_lowercase(),
                        port: u16::try_from(p.port).ok().filter(|p| *p > 0)?,
                        node_port: p
                            .node_port
                            .and_then(|n| u16::try_from(n).ok())
                            .filter(|n| *n > 0 && external),
                    })
                })
                .collect(),
            affinity: (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| Affinity {
                seconds: timeout.and_then(|t| u32::try_from(t).ok()).unwrap_or(AFFINITY_SECONDS),
            }),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            health_check_node_port: spec
                .health_check_node_port
                .and_then(|p| u16::try_from(p).ok())
                .filter(|p| *p > 0),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        }
    }

    /// Whether packet rules are made for it at all.
    pub fn is_proxied(&self) -> bool {
        self.ours && !self.headless && self.type_ != ServiceType::ExternalName && !self.cluster_ips.is_empty()
    }

    pub fn cluster_ip(&self, family: Family) -> Option<IpAddr> {
        self.cluster_ips.iter().copied().find(|ip| Family::of(ip) == family)
    }

    /// Reachable by more than its cluster IP.
    pub fn is_external(&self, port: &ServicePort, family: Family) -> bool {
        let has = |ips: &[IpAddr]| ips.iter().any(|ip| Family::of(ip) == family);
        port.node_port.is_some() || has(&self.external_ips) || has(&self.load_balancer_ips)
    }

    pub fn uses_cluster_endpoints(&self, external: bool) -> bool {
        // Local-policy services still short-circuit pod and node traffic to all endpoints.
        !self.internal_local || external
    }

    pub fn uses_local_endpoints(&self, external: bool) -> bool {
        self.internal_local || (self.external_local && external)
    }
}

fn addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|t| t.parse().ok()).collect()
}
