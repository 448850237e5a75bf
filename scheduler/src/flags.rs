//! Command line, as upstream's kube-scheduler has it.

use std::path::PathBuf;

use clap::{ArgAction, Parser};
use common::flags::{ClientFlags, LeaderElectionFlags, LogFlags, SecureServingFlags};

/// The Kubernetes scheduler: assigns Pods to Nodes.
#[derive(Debug, Clone, Parser)]
#[command(name = "kube-scheduler", display_name = "Kubernetes", version = common::version::GIT_VERSION)]
#[command(args_override_self = true, mut_arg("secure_port", |port| port.default_value("10259")))]
#[command(mut_arg("kube_api_qps", |qps| qps.default_value("50")))]
#[command(mut_arg("kube_api_burst", |burst| burst.default_value("100")))]
pub struct Flags {
    /// The path to the configuration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub client: ClientFlags,
    #[command(flatten)]
    pub serving: SecureServingFlags,
    #[command(flatten)]
    pub election: LeaderElectionFlags,
    /// DEPRECATED: accepted and ignored.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub profiling: bool,
    /// A set of key=value pairs that describe feature gates. Accepted; no gate changes anything yet.
    #[arg(long)]
    pub feature_gates: Vec<String>,
    #[command(flatten)]
    pub log: LogFlags,
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
        assert_eq!(flags.election.leader_elect, Some(true));
        assert_eq!(flags.serving.secure_port, 10259);
        assert_eq!(flags.client.kube_api_burst, 100);
        let version = Flags::try_parse_from(["x", "--version"]).expect_err("ends the process").to_string();
        assert_eq!(version.trim_end(), common::version::version_line());
    }
}
