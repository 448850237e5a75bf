//! `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1) and the flags over it, checked.
//!
//! Answers to: pkg/proxy/apis/config. Fields that concern other modes are read and kept out of the way.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::flags::Flags;

const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read --config {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("--config {}: {why}", path.display())]
    Parse { path: PathBuf, why: String },
    #[error("{field}: {why}")]
    Invalid { field: &'static str, why: String },
}

fn invalid<T>(field: &'static str, why: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid { field, why: why.into() })
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    api_version: String,
    kind: String,
    client_connection: ClientConnection,
    hostname_override: String,
    bind_address: String,
    healthz_bind_address: String,
    metrics_bind_address: String,
    bind_address_hard_fail: bool,
    mode: String,
    nftables: NfTables,
    detect_local_mode: String,
    detect_local: DetectLocal,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: String,
    node_port_addresses: Option<Vec<String>>,
    // Read so that upstream's files are taken; nothing here uses them.
    feature_gates: Value,
    logging: Value,
    enable_profiling: bool,
    show_hidden_metrics_for_version: String,
    iptables: Value,
    ipvs: Value,
    winkernel: Value,
    #[serde(rename = "oomScoreAdj")]
    oom_score_adj: Option<i32>,
    conntrack: Value,
    config_sync_period: String,
    port_range: String,
    windows_run_as_service: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ClientConnection {
    kubeconfig: String,
    accept_content_types: String,
    content_type: String,
    qps: f64,
    burst: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NfTables {
    masquerade_bit: Option<i32>,
    masquerade_all: bool,
    sync_period: String,
    min_sync_period: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct DetectLocal {
    bridge_interface: String,
    interface_name_prefix: String,
}

/// How the cluster's own pod traffic is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectLocalMode {
    ClusterCidr(Vec<IpNet>),
    NodeCidr,
    BridgeInterface(String),
    InterfaceNamePrefix(String),
}

/// `nodePortAddresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortSource {
    /// The node's own addresses, as its Node object tells.
    Primary,
    Cidrs(Vec<IpNet>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodRoutes {
    None,
    HostGateway,
}

/// Node-local DNS, when it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    pub bind: SocketAddr,
    pub domain: String,
    pub upstreams: Vec<SocketAddr>,
}

/// What the proxy runs with.
#[derive(Debug, Clone)]
pub struct Config {
    pub kubeconfig: Option<PathBuf>,
    pub node_name: String,
    pub healthz: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    pub bind_hard_fail: bool,
    pub detect_local: DetectLocalMode,
    pub node_ports: NodePortSource,
    pub masquerade_all: bool,
    pub min_sync_period: Duration,
    pub dns: Option<DnsConfig>,
    pub pod_routes: PodRoutes,
}

impl Config {
    /// # Errors
    /// When the file cannot be read or a value makes no sense.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            None => File::default(),
            Some(path) => read(path)?,
        };
        Self::merge(file, flags)
    }

    /// Flags count only without a file, except for those upstream lets override it and our own.
    fn merge(file: File, flags: &Flags) -> Result<Self, ConfigError> {
        let from_file = flags.config.is_some();
        let pick = |in_file: &str, flag: &Option<String>| {
            if from_file { in_file.to_owned() } else { flag.clone().unwrap_or_default() }
        };
        match pick(&file.mode, &flags.proxy_mode).as_str() {
            "" | "nftables" => {}
            other @ ("iptables" | "ipvs") => {
                return invalid("mode", format!("{other:?} is not supported yet; use \"nftables\""));
            }
            other => return invalid("mode", format!("unsupported value {other:?}")),
        }
        if file.nftables.masquerade_bit.is_some_and(|bit| bit != 14) {
            return invalid("nftables.masqueradeBit", "only bit 14 is supported");
        }
        let override_name = flags.hostname_override.clone().unwrap_or_else(|| file.hostname_override.clone());
        let node_name = if override_name.is_empty() { hostname() } else { override_name };
        let bind: IpAddr = match pick(&file.bind_address, &flags.bind_address).as_str() {
            "" => IpAddr::from([0, 0, 0, 0]),
            text => text.parse().or_else(|_| invalid("bindAddress", format!("{text:?} is no IP address")))?,
        };
        let local: IpAddr =
            if bind.is_ipv4() { [127, 0, 0, 1].into() } else { [0, 0, 0, 0, 0, 0, 0, 1u16].into() };
        let any: IpAddr = if bind.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let cidr_text = pick(&file.cluster_cidr, &flags.cluster_cidr);
        let min_sync = if file.nftables.min_sync_period.is_empty() {
            Duration::from_secs(1)
        } else {
            common::flags::duration(&file.nftables.min_sync_period)
                .or_else(|why| invalid("nftables.minSyncPeriod", why.to_string()))?
        };
        let kubeconfig = if from_file && !file.client_connection.kubeconfig.is_empty() {
            Some(file.client_connection.kubeconfig.clone().into())
        } else {
            flags.kubeconfig.clone()
        };
        Ok(Self {
            kubeconfig,
            node_name,
            healthz: address(
                "healthzBindAddress",
                &pick(&file.healthz_bind_address, &flags.healthz_bind_address),
                SocketAddr::new(any, HEALTHZ_PORT),
            )?,
            metrics: address(
                "metricsBindAddress",
                &pick(&file.metrics_bind_address, &flags.metrics_bind_address),
                SocketAddr::new(local, METRICS_PORT),
            )?,
            bind_hard_fail: file.bind_address_hard_fail,
            detect_local: detect_local(&file, &cidr_text)?,
            node_ports: node_ports(file.node_port_addresses.as_deref().unwrap_or_default())?,
            masquerade_all: file.nftables.masquerade_all || (!from_file && flags.masquerade_all),
            min_sync_period: min_sync,
            dns: dns(flags)?,
            pod_routes: match flags.pod_routes.as_str() {
                "host-gw" => PodRoutes::HostGateway,
                _ => PodRoutes::None,
            },
        })
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let file: File = serde_saphyr::from_str(&text)
        .map_err(|e| ConfigError::Parse { path: path.to_owned(), why: e.to_string() })?;
    if file.kind != "KubeProxyConfiguration" || file.api_version != "kubeproxy.config.k8s.io/v1alpha1" {
        return invalid(
            "apiVersion, kind",
            format!(
                "expected kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration, found {} {}",
                file.api_version, file.kind
            ),
        );
    }
    Ok(file)
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_lowercase()
}

/// An address with or without a port; a port of 0 turns the server off.
fn address(field: &'static str, text: &str, default: SocketAddr) -> Result<Option<SocketAddr>, ConfigError> {
    if text.is_empty() {
        return Ok(Some(default));
    }
    let parsed = text
        .parse::<SocketAddr>()
        .ok()
        .or_else(|| Some(SocketAddr::new(text.trim_matches(['[', ']']).parse().ok()?, default.port())));
    match parsed {
        Some(address) if address.port() == 0 => Ok(None),
        Some(address) => Ok(Some(address)),
        None => invalid(field, format!("{text:?} is no address with a port")),
    }
}

fn cidrs(field: &'static str, texts: &[&str]) -> Result<Vec<IpNet>, ConfigError> {
    texts
        .iter()
        .map(|t| t.trim())
        .filter(|t| !t.is_empty())
        .map(|t| t.parse().or_else(|_| invalid(field, format!("{t:?} is no CIDR"))))
        .collect()
}

fn detect_local(file: &File, cidr_text: &str) -> Result<DetectLocalMode, ConfigError> {
    match file.detect_local_mode.as_str() {
        "" | "ClusterCIDR" => {
            let texts: Vec<&str> = cidr_text.split(',').collect();
            Ok(DetectLocalMode::ClusterCidr(cidrs("clusterCIDR", &texts)?))
        }
        "NodeCIDR" => Ok(DetectLocalMode::NodeCidr),
        "BridgeInterface" => Ok(DetectLocalMode::BridgeInterface(interface(
            "detectLocal.bridgeInterface",
            &file.detect_local.bridge_interface,
        )?)),
        "InterfaceNamePrefix" => Ok(DetectLocalMode::InterfaceNamePrefix(interface(
            "detectLocal.interfaceNamePrefix",
            &file.detect_local.interface_name_prefix,
        )?)),
        other => invalid("detectLocalMode", format!("unsupported value {other:?}")),
    }
}

/// The name goes into rules, so it must be one.
fn interface(field: &'static str, text: &str) -> Result<String, ConfigError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if text.is_empty() || text.len() > 15 || !text.chars().all(fits) {
        return invalid(field, format!("{text:?} is no interface name"));
    }
    Ok(text.to_owned())
}

fn node_ports(texts: &[String]) -> Result<NodePortSource, ConfigError> {
    if texts.is_empty() || texts == ["primary"] {
        return Ok(NodePortSource::Primary);
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Ok(NodePortSource::Cidrs(cidrs("nodePortAddresses", &texts)?))
}

fn dns(flags: &Flags) -> Result<Option<DnsConfig>, ConfigError> {
    let Some(text) = flags.cluster_dns_bind.as_deref().filter(|t| !t.is_empty()) else { return Ok(None) };
    let bind = text
        .parse::<SocketAddr>()
        .ok()
        .or_else(|| Some(SocketAddr::new(text.trim_matches(['[', ']']).parse().ok()?, 53)));
    let Some(bind) = bind else { return invalid("--cluster-dns-bind", format!("{text:?} is no address")) };
    if crate::dns::Zone::new(&flags.cluster_domain).is_none() {
        return invalid("--cluster-domain", format!("{:?} is no DNS name", flags.cluster_domain));
    }
    let mut upstreams = Vec::new();
    for text in flags.cluster_dns_upstream.iter().flat_map(|t| t.split(',')).filter(|t| !t.is_empty()) {
        let parsed =
            text.parse::<SocketAddr>().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, 53)));
        let Some(server) = parsed else {
            return invalid("--cluster-dns-upstream", format!("{text:?} is no address"));
        };
        upstreams.push(server);
    }
    if let Some(path) = &flags.resolv_conf {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        upstreams.extend(crate::dns::servers_of_resolv_conf(&text, bind.ip()));
    }
    Ok(Some(DnsConfig { bind, domain: flags.cluster_domain.clone(), upstreams }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn config(yaml: &str, arguments: &[&str]) -> Result<Config, String> {
        let file: File = serde_saphyr::from_str(yaml).map_err(|e| e.to_string())?;
        let mut all = vec!["kube-proxy"];
        all.extend(arguments);
        if !yaml.is_empty() {
            all.push("--config=x");
        }
        let flags = Flags::try_parse_from(all).map_err(|e| e.to_string())?;
        Config::merge(file, &flags).map_err(|e| e.to_string())
    }

    #[test]
    fn other_modes_are_refused_by_name() {
        let error = config("mode: ipvs", &[]).expect_err("mode");
        assert!(error.contains("mode") && error.contains("not supported yet"), "{error}");
    }

    #[test]
    fn defaults_are_upstreams() {
        let config = config("{}", &["--hostname-override=n1"]).expect("config");
        assert_eq!(config.healthz, Some("0.0.0.0:10256".parse().expect("address")));
        assert_eq!(config.metrics, Some("127.0.0.1:10249".parse().expect("address")));
        assert_eq!((config.node_name.as_str(), config.node_ports), ("n1", NodePortSource::Primary));
        assert_eq!(config.dns, None);
    }

    #[test]
    fn dns_binds_to_port_53_unless_told() {
        let dns = config("{}", &["--cluster-dns-bind=10.96.0.10"]).expect("config").dns.expect("dns");
        assert_eq!(dns.bind, "10.96.0.10:53".parse().expect("address"));
        assert!(dns.upstreams.is_empty());
    }
}
