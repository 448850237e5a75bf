//! What the flags mean: checked, with defaults applied, and read by the controllers.

use std::path::PathBuf;
use std::time::Duration;

use common::flags::{ClientFlags, ElectionError, SecureServingFlags};
use common::leaderelection::{self, LeaderElection};
use ipnet::IpNet;

use crate::flags::Flags;

/// Of the lease, the certificate and the user agent.
pub const COMPONENT: &str = "kube-controller-manager";

/// A flag that makes no sense; the text names it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("--{flag}: {reason}")]
    Flag { flag: &'static str, reason: String },
    #[error("--{flag}: cannot read {}", path.display())]
    Read { flag: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Election(#[from] ElectionError),
}

fn wrong(flag: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Flag { flag, reason: reason.into() }
}

/// Workers per controller.
#[derive(Debug, Clone)]
pub struct Concurrency {
    pub deployment: usize,
    pub replicaset: usize,
    pub replication_controller: usize,
    pub endpoint: usize,
    pub endpointslice: usize,
    pub namespace: usize,
    pub garbage_collector: usize,
    pub resource_quota: usize,
}

/// Node health.
#[derive(Debug, Clone)]
pub struct NodeMonitor {
    pub grace_period: Duration,
    pub startup_grace_period: Duration,
    pub period: Duration,
    pub eviction_rate: f64,
    pub secondary_eviction_rate: f64,
    pub unhealthy_zone_threshold: f64,
    pub large_cluster_size: usize,
}

/// Pod CIDRs.
#[derive(Debug, Clone)]
pub struct Ipam {
    pub cluster_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    pub mask_ipv4: u8,
    pub mask_ipv6: u8,
}

/// The cluster's signing authority.
#[derive(Debug, Clone)]
pub struct Signing {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub duration: Duration,
}

#[derive(Debug, Clone)]
pub struct Config {
    /// Between full recounts of quotas; zero for none.
    pub resource_quota_sync_period: Duration,
    pub client: ClientFlags,
    pub serving: SecureServingFlags,
    /// None when it is off.
    pub election: Option<LeaderElection>,
    pub controllers: Vec<String>,
    pub use_service_account_credentials: bool,
    /// PEM to publish, when there is any.
    pub root_ca: Option<String>,
    pub signing: Option<Signing>,
    pub ipam: Option<Ipam>,
    pub monitor: NodeMonitor,
    pub terminated_pod_threshold: usize,
    pub endpoints_per_slice: usize,
    pub enable_garbage_collector: bool,
    pub concurrency: Concurrency,
}

fn nets(flag: &'static str, text: Option<&str>) -> Result<Vec<IpNet>, ConfigError> {
    text.unwrap_or("")
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.parse::<IpNet>().map(|n| n.trunc()).map_err(|e| wrong(flag, format!("\"{part}\": {e}")))
        })
        .collect()
}

impl Config {
    /// # Errors
    /// Names the flag that is wrong and what would be right.
    pub fn from_flags(flags: &Flags) -> Result<Self, ConfigError> {
        let election = LeaderElection::new("kube-system", COMPONENT, leaderelection::identity());
        let root_ca = flags
            .root_ca_file
            .as_ref()
            .map(|path| {
                std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                    flag: "root-ca-file",
                    path: path.clone(),
                    source,
                })
            })
            .transpose()?;
        let signing = match (&flags.cluster_signing_cert_file, &flags.cluster_signing_key_file) {
            (Some(certificate), Some(key)) => Some(Signing {
                certificate: certificate.clone(),
                key: key.clone(),
                duration: flags.cluster_signing_duration,
            }),
            (None, None) => None,
            (Some(_), None) => {
                return Err(wrong("cluster-signing-key-file", "required with --cluster-signing-cert-file"));
            }
            (None, Some(_)) => {
                return Err(wrong("cluster-signing-cert-file", "required with --cluster-signing-key-file"));
            }
        };
        if let Some(name) = crate::registry::unknown(&flags.controllers) {
            return Err(wrong("controllers", format!("\"{name}\" is not in the list of known controllers")));
        }
        Ok(Self {
            client: flags.client.clone(),
            serving: flags.serving.clone(),
            election: flags.election.over(election, true)?,
            controllers: flags.controllers.clone(),
            use_service_account_credentials: flags.use_service_account_credentials,
            root_ca,
            signing,
            ipam: if flags.allocate_node_cidrs { Some(ipam(flags)?) } else { None },
            monitor: NodeMonitor {
                grace_period: flags.node_monitor_grace_period,
                startup_grace_period: flags.node_startup_grace_period,
                period: flags.node_monitor_period,
                eviction_rate: flags.node_eviction_rate,
                secondary_eviction_rate: flags.secondary_node_eviction_rate,
                unhealthy_zone_threshold: flags.unhealthy_zone_threshold,
                large_cluster_size: flags.large_cluster_size_threshold,
            },
            terminated_pod_threshold: usize::try_from(flags.terminated_pod_gc_threshold).unwrap_or(0),
            endpoints_per_slice: match flags.max_endpoints_per_slice {
                n @ 1..=1000 => n,
                n => return Err(wrong("max-endpoints-per-slice", format!("{n} is not between 1 and 1000"))),
            },
            enable_garbage_collector: flags.enable_garbage_collector,
            concurrency: Concurrency {
                deployment: flags.concurrent_deployment_syncs,
                replicaset: flags.concurrent_replicaset_syncs,
                replication_controller: flags.concurrent_rc_syncs,
                endpoint: flags.concurrent_endpoint_syncs,
                endpointslice: flags.concurrent_service_endpoint_syncs,
                namespace: flags.concurrent_namespace_syncs,
                garbage_collector: flags.concurrent_gc_syncs,
                resource_quota: flags.concurrent_resource_quota_syncs,
            },
            resource_quota_sync_period: flags.resource_quota_sync_period,
        })
    }
}

fn ipam(flags: &Flags) -> Result<Ipam, ConfigError> {
    if flags.cidr_allocator_type != "RangeAllocator" {
        let reason = format!("\"{}\" is not supported; use RangeAllocator", flags.cidr_allocator_type);
        return Err(wrong("cidr-allocator-type", reason));
    }
    let cluster_cidrs = nets("cluster-cidr", flags.cluster_cidr.as_deref())?;
    if cluster_cidrs.is_empty() {
        return Err(wrong("cluster-cidr", "required with --allocate-node-cidrs"));
    }
    if cluster_cidrs.len() > 2
        || (cluster_cidrs.len() == 2
            && cluster_cidrs[0].network().is_ipv4() == cluster_cidrs[1].network().is_ipv4())
    {
        return Err(wrong("cluster-cidr", "at most one IPv4 and one IPv6 range may be given"));
    }
    let mask_ipv4 = flags.node_cidr_mask_size_ipv4.or(flags.node_cidr_mask_size).unwrap_or(24);
    let mask_ipv6 = flags.node_cidr_mask_size_ipv6.or(flags.node_cidr_mask_size).unwrap_or(64);
    for net in &cluster_cidrs {
        let (mask, most) = if net.network().is_ipv4() { (mask_ipv4, 32) } else { (mask_ipv6, 128) };
        // As upstream: 16 bits of subnets, which bounds what must be remembered.
        if mask < net.prefix_len() || mask > most || mask - net.prefix_len() > 16 {
            let reason = format!("{mask} does not fit {net}: it may be longer by at most 16 bits");
            return Err(wrong("node-cidr-mask-size", reason));
        }
    }
    let service_cidrs = nets("service-cluster-ip-range", flags.service_cluster_ip_range.as_deref())?;
    Ok(Ipam { cluster_cidrs, service_cidrs, mask_ipv4, mask_ipv6 })
}
