//! Command line, as upstream's kube-scheduler has it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};

/// The Kubernetes scheduler: assigns Pods to Nodes.
#[derive(Debug, Clone, Parser)]
#[command(name = "kube-scheduler", version = common::version::GIT_VERSION, args_override_self = true)]
pub struct Flags {
    /// The path to the configuration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// DEPRECATED: path to kubeconfig file with authorization and master location information. Ignored if a
    /// config file is specified in --config.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The address of the Kubernetes API server (overrides any value in kubeconfig).
    #[arg(long)]
    pub master: Option<String>,
    /// kubeconfig file for TokenReviews of callers of the secure port.
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// kubeconfig file for SubjectAccessReviews of callers of the secure port.
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// The IP address on which to listen for the --secure-port port.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// The port on which to serve HTTPS. If 0, don't serve HTTPS at all.
    #[arg(long, default_value_t = 10259)]
    pub secure_port: u16,
    /// File containing the default x509 certificate for HTTPS.
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// File containing the default x509 private key matching --tls-cert-file.
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
    /// The directory where the TLS certs are located when none are given; in memory only when empty.
    #[arg(long)]
    pub cert_dir: Option<PathBuf>,
    /// Start a leader election client and gain leadership before executing the main loop.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub leader_elect: bool,
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,
    #[arg(long, default_value = "leases")]
    pub leader_elect_resource_lock: String,
    #[arg(long, default_value = "kube-scheduler")]
    pub leader_elect_resource_name: String,
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
    /// DEPRECATED: QPS to use while talking with kubernetes apiserver. Accepted; requests are not throttled.
    #[arg(long, default_value_t = 50.0)]
    pub kube_api_qps: f64,
    /// DEPRECATED: burst to use while talking with kubernetes apiserver. Accepted; requests are not throttled.
    #[arg(long, default_value_t = 100)]
    pub kube_api_burst: i64,
    /// DEPRECATED: content type of requests sent to apiserver. Accepted; JSON is used.
    #[arg(long, default_value = "application/vnd.kubernetes.protobuf")]
    pub kube_api_content_type: String,
    /// DEPRECATED: accepted and ignored.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub profiling: bool,
    /// A set of key=value pairs that describe feature gates. Accepted; no gate changes anything yet.
    #[arg(long)]
    pub feature_gates: Vec<String>,
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
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
        let number: f64 = rest[..end].parse().map_err(|_| fail())?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_command_lines_parse() {
        let flags = Flags::try_parse_from([
            "kube-scheduler",
            "--authentication-kubeconfig=/etc/kubernetes/scheduler.conf",
            "--authorization-kubeconfig=/etc/kubernetes/scheduler.conf",
            "--bind-address=127.0.0.1",
            "--kubeconfig=/etc/kubernetes/scheduler.conf",
            "--leader-elect=true",
            "-v=2",
        ])
        .expect("flags");
        assert!(flags.leader_elect);
        assert_eq!(flags.secure_port, 10259);
        assert!(!Flags::try_parse_from(["x", "--leader-elect=false"]).expect("flags").leader_elect);
    }

    #[test]
    fn durations_read_as_in_go() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(duration("10").is_err());
    }
}
