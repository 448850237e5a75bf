//! Command line: upstream's kube-proxy flags, and our own for DNS and pod routes.

use std::path::PathBuf;

use clap::{ArgAction, Parser};
use common::flags::LogFlags;

/// The Kubernetes network proxy: Services, and on request DNS and pod routes, on a node.
#[derive(Debug, Clone, Parser)]
#[command(name = "kube-proxy", display_name = "Kubernetes", version = common::version::GIT_VERSION)]
#[command(args_override_self = true)]
pub struct Flags {
    /// The path to the configuration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Path to kubeconfig file with authorization information. Ignored if a config file is specified by --config
    /// that names one.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// If non-empty, will be used as the name of the Node that kube-proxy is running on.
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// Which proxy mode to use: 'nftables'.
    #[arg(long)]
    pub proxy_mode: Option<String>,
    /// The CIDR range of the pods in the cluster (one per IP family, comma separated).
    #[arg(long)]
    pub cluster_cidr: Option<String>,
    /// Overrides kube-proxy's idea of what its node's primary IP family is.
    #[arg(long)]
    pub bind_address: Option<String>,
    /// The IP address and port for the health check server to serve on (default 0.0.0.0:10256).
    #[arg(long)]
    pub healthz_bind_address: Option<String>,
    /// The IP address and port for the metrics server to serve on (default 127.0.0.1:10249).
    #[arg(long)]
    pub metrics_bind_address: Option<String>,
    /// SNAT all traffic sent via Service cluster IPs.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub masquerade_all: bool,
    /// If true cleanup all traces of kube-proxy (rules, our routes, the DNS address) and exit.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub cleanup: bool,
    /// Answer cluster DNS on this address (port 53 unless given). Off unless set.
    #[arg(long)]
    pub cluster_dns_bind: Option<String>,
    /// The cluster's DNS domain.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Servers to ask for names outside the cluster's domain; without any they are refused.
    #[arg(long)]
    pub cluster_dns_upstream: Vec<String>,
    /// A resolv.conf whose nameservers are asked for names outside the cluster's domain.
    #[arg(long)]
    pub resolv_conf: Option<PathBuf>,
    /// Keep routes to other nodes' pod CIDRs: 'none' or 'host-gw' (through the nodes' own addresses).
    #[arg(long, default_value = "none", value_parser = ["none", "host-gw"])]
    pub pod_routes: String,
    #[command(flatten)]
    pub log: LogFlags,
}
