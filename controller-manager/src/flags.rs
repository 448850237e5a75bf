//! The command line, with upstream's names and defaults.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};

/// Reads Go's duration syntax: `40s`, `5m0s`, `1h30m`, `100ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("invalid duration \"{text}\": expected a form like 40s, 5m0s or 8760h0m0s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0.0_f64);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(wrong()),
        };
        total += number * seconds;
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| wrong())
}

/// Flags of kube-controller-manager.
#[derive(Debug, Parser)]
#[command(name = "kube-controller-manager", version = common::version::GIT_VERSION, disable_version_flag = true)]
pub struct Flags {
    /// Path to kubeconfig file with authorization and master location information.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The address of the Kubernetes API server (overrides any value in kubeconfig).
    #[arg(long)]
    pub master: Option<String>,
    /// kubeconfig for TokenReviews of callers of this daemon's endpoints.
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// kubeconfig for SubjectAccessReviews of callers of this daemon's endpoints.
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// Accepted for compatibility; callers are always looked up at the API server.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Accepted for compatibility.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,

    /// The IP address on which to listen for the --secure-port port.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// The port on which to serve HTTPS; 0 for none.
    #[arg(long, default_value_t = 10257)]
    pub secure_port: u16,
    /// Certificate to serve with; one is made up when there is none.
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,

    /// Start a leader election client and gain leadership before executing the main loop.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub leader_elect: bool,
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,
    #[arg(long, default_value = "leases")]
    pub leader_elect_resource_lock: String,
    #[arg(long, default_value = "kube-controller-manager")]
    pub leader_elect_resource_name: String,
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,

    /// A list of controllers to enable: '*' enables all on-by-default controllers, 'foo' enables the
    /// controller named 'foo', '-foo' disables the controller named 'foo'.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    pub controllers: Vec<String>,
    /// If true, use individual service account credentials for each controller.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub use_service_account_credentials: bool,
    /// Root certificate authority that is published in every namespace as kube-root-ca.crt.
    #[arg(long)]
    pub root_ca_file: Option<PathBuf>,
    /// Accepted for compatibility; the API server signs service account tokens.
    #[arg(long)]
    pub service_account_private_key_file: Option<PathBuf>,

    #[arg(long)]
    pub cluster_signing_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub cluster_signing_key_file: Option<PathBuf>,
    /// The max length of duration signed certificates will be given.
    #[arg(long, default_value = "8760h0m0s", value_parser = duration)]
    pub cluster_signing_duration: Duration,

    /// CIDR Range for Pods in cluster.
    #[arg(long)]
    pub cluster_cidr: Option<String>,
    /// Should CIDRs for Pods be allocated and set on the nodes.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub allocate_node_cidrs: bool,
    #[arg(long, default_value = "RangeAllocator")]
    pub cidr_allocator_type: String,
    /// CIDR Range for Services in cluster; kept out of the pod CIDRs.
    #[arg(long)]
    pub service_cluster_ip_range: Option<String>,
    /// Mask size for node cidr in cluster; 24 for IPv4 and 64 for IPv6 unless set.
    #[arg(long)]
    pub node_cidr_mask_size: Option<u8>,
    #[arg(long)]
    pub node_cidr_mask_size_ipv4: Option<u8>,
    #[arg(long)]
    pub node_cidr_mask_size_ipv6: Option<u8>,
    #[arg(long, default_value = "kubernetes")]
    pub cluster_name: String,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub configure_cloud_routes: bool,
    #[arg(long, default_value = "")]
    pub cloud_provider: String,

    /// How long a running node may be unresponsive before it is marked unhealthy.
    #[arg(long, default_value = "40s", value_parser = duration)]
    pub node_monitor_grace_period: Duration,
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub node_monitor_period: Duration,
    #[arg(long, default_value = "1m0s", value_parser = duration)]
    pub node_startup_grace_period: Duration,
    /// Nodes per second that are tainted for eviction while a zone is healthy.
    #[arg(long, default_value_t = 0.1)]
    pub node_eviction_rate: f64,
    #[arg(long, default_value_t = 0.01)]
    pub secondary_node_eviction_rate: f64,
    #[arg(long, default_value_t = 0.55)]
    pub unhealthy_zone_threshold: f64,
    #[arg(long, default_value_t = 50)]
    pub large_cluster_size_threshold: usize,
    /// Ended pods that may exist before they are deleted; 0 or less for any number.
    #[arg(long, default_value_t = 12500)]
    pub terminated_pod_gc_threshold: i32,

    #[arg(long, default_value_t = 5)]
    pub concurrent_deployment_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_replicaset_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_endpoint_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_service_endpoint_syncs: usize,
    #[arg(long, default_value_t = 10)]
    pub concurrent_namespace_syncs: usize,
    #[arg(long, default_value_t = 20)]
    pub concurrent_gc_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_resource_quota_syncs: usize,
    /// The period for syncing quota usage status in the system.
    #[arg(long, default_value = "5m0s", value_parser = duration)]
    pub resource_quota_sync_period: Duration,
    #[arg(long, default_value_t = 5)]
    pub concurrent_serviceaccount_token_syncs: usize,
    #[arg(long, default_value_t = 100)]
    pub max_endpoints_per_slice: usize,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_garbage_collector: bool,

    /// Accepted for compatibility; requests are not limited on the client's side.
    #[arg(long, default_value_t = 20.0)]
    pub kube_api_qps: f64,
    #[arg(long, default_value_t = 30)]
    pub kube_api_burst: u32,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub profiling: bool,

    /// Number for the log level verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
    /// Sets the log format: text or json.
    #[arg(long, default_value = "text")]
    pub logging_format: String,
    /// Print version information and quit.
    #[arg(long, action = ArgAction::Version)]
    pub version: Option<bool>,
}

impl Flags {
    pub fn json_logs(&self) -> bool {
        self.logging_format == "json"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_and_booleans() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("8760h0m0s"), Ok(Duration::from_secs(8760 * 3600)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for bad in ["", "5", "s", "5x", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        let flags = Flags::try_parse_from([
            "kube-controller-manager",
            "--leader-elect=false",
            "--allocate-node-cidrs",
            "--controllers=*,-garbage-collector-controller",
        ])
        .expect("flags");
        assert!(!flags.leader_elect && flags.allocate_node_cidrs);
        assert_eq!(flags.controllers, ["*", "-garbage-collector-controller"]);
    }
}
