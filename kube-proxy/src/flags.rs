//! Command line: upstream's kube-proxy flags, and our own for DNS and pod routes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};

/// The Kubernetes network proxy: Services, and on request DNS and pod routes, on a node.
#[derive(Debug, Clone, Parser)]
#[command(name = "kube-proxy", version = common::version::GIT_VERSION, args_override_self = true)]
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
    /// Number for the log level verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
    /// Sets the log format: "text" or "json".
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    pub logging_format: String,
}

/// `15s`, `1m30s`, `500ms` as Go writes durations.
///
/// # Errors
/// When the text is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let fail = || format!("{text:?} is not a duration like 10s or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
        let number: f64 = rest[..end].parse().map_err(|_| fail())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..end] {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(fail()),
        };
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| fail())?;
        rest = &rest[end..];
    }
    Ok(total)
}
