//! The command line, with upstream's names and defaults.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};
use common::flags::{ClientFlags, LeaderElectionFlags, LogFlags, SecureServingFlags, duration};

/// Flags of kube-controller-manager.
#[derive(Debug, Parser)]
#[command(name = "kube-controller-manager", display_name = "Kubernetes", version = common::version::GIT_VERSION)]
#[command(args_override_self = true, mut_arg("secure_port", |port| port.default_value("10257")))]
pub struct Flags {
    #[command(flatten)]
    pub client: ClientFlags,
    /// Accepted for compatibility; callers are always looked up at the API server.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Accepted for compatibility.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub serving: SecureServingFlags,
    #[command(flatten)]
    pub election: LeaderElectionFlags,

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
    pub concurrent_rc_syncs: usize,
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

    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub profiling: bool,

    #[command(flatten)]
    pub log: LogFlags,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let flags = Flags::try_parse_from([
            "kube-controller-manager",
            "--leader-elect=false",
            "--allocate-node-cidrs",
            "--controllers=*,-garbage-collector-controller",
            "--controllers=-node-ipam-controller",
            "--terminated-pod-gc-threshold=1",
            "--terminated-pod-gc-threshold=2",
        ])
        .expect("flags");
        assert!(flags.election.leader_elect == Some(false) && flags.allocate_node_cidrs);
        assert_eq!(flags.controllers, ["*", "-garbage-collector-controller", "-node-ipam-controller"]);
        assert_eq!((flags.terminated_pod_gc_threshold, flags.serving.secure_port), (2, 10257));
    }
}
