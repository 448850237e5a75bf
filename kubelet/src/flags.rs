//! Command line flags, named as upstream's. A flag that is also a configuration field overrides the file.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use common::flags::{GoDuration, LogFlags, duration};
use k8s_openapi::api::core::v1::Taint;

use crate::config::{self, ConfigError, KubeletConfiguration};

/// The kubelet runs pods on a node.
#[derive(Debug, Parser)]
#[command(name = "kubelet", display_name = "Kubernetes", version = common::version::GIT_VERSION)]
#[command(args_override_self = true)]
pub struct Flags {
    /// File with a KubeletConfiguration.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Kubeconfig of the API server; without it the kubelet stands alone.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Kubeconfig used once, to get a client certificate, when `--kubeconfig` does not exist.
    #[arg(long)]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Name of the node instead of the machine's.
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// Addresses of the node, comma separated.
    #[arg(long, value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Folder of the kubelet's own files.
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Folder of certificates.
    #[arg(long, default_value = "/var/lib/kubelet/pki")]
    pub cert_dir: PathBuf,
    /// Labels to register the node with, `key=value` comma separated.
    #[arg(long, value_delimiter = ',')]
    pub node_labels: Vec<String>,
    #[command(flatten)]
    pub log: LogFlags,

    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    #[arg(long)]
    pub pod_manifest_path: Option<String>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub register_node: Option<bool>,
    /// `key=value:effect`, comma separated.
    #[arg(long, value_delimiter = ',')]
    pub register_with_taints: Vec<String>,
    #[arg(long)]
    pub address: Option<String>,
    #[arg(long)]
    pub port: Option<u16>,
    #[arg(long)]
    pub read_only_port: Option<u16>,
    #[arg(long)]
    pub healthz_port: Option<u16>,
    #[arg(long)]
    pub healthz_bind_address: Option<String>,
    #[arg(long)]
    pub cgroup_driver: Option<String>,
    #[arg(long)]
    pub cgroup_root: Option<String>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub cgroups_per_qos: Option<bool>,
    #[arg(long, value_delimiter = ',')]
    pub cluster_dns: Vec<String>,
    #[arg(long)]
    pub cluster_domain: Option<String>,
    #[arg(long)]
    pub resolv_conf: Option<String>,
    #[arg(long)]
    pub max_pods: Option<i32>,
    #[arg(long)]
    pub pod_cidr: Option<String>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub fail_swap_on: Option<bool>,
    #[arg(long)]
    pub client_ca_file: Option<String>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub anonymous_auth: Option<bool>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub authentication_token_webhook: Option<bool>,
    #[arg(long)]
    pub authorization_mode: Option<String>,
    #[arg(long)]
    pub tls_cert_file: Option<String>,
    #[arg(long)]
    pub tls_private_key_file: Option<String>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub rotate_certificates: Option<bool>,
    #[arg(long, value_parser = duration)]
    pub node_status_update_frequency: Option<Duration>,

    /// Kept for old command lines: the runtime's configuration names the sandbox image.
    #[arg(long, hide = true)]
    pub pod_infra_container_image: Option<String>,
    /// Kept for old command lines.
    #[arg(long, hide = true)]
    pub cloud_provider: Option<String>,
    /// Kept for old command lines: only remote runtimes exist.
    #[arg(long, hide = true)]
    pub container_runtime: Option<String>,
    /// Kept for old command lines.
    #[arg(long, hide = true)]
    pub image_service_endpoint: Option<String>,
    /// Accepted; no gate changes this build.
    #[arg(long, hide = true)]
    pub feature_gates: Option<String>,
    /// Accepted; this build reports the threshold defaults only.
    #[arg(long, hide = true)]
    pub eviction_hard: Option<String>,
    /// Accepted.
    #[arg(long, hide = true)]
    pub runtime_cgroups: Option<String>,
    /// Accepted.
    #[arg(long, hide = true)]
    pub kubelet_cgroups: Option<String>,
}

impl Flags {
    /// The configuration file with the flags over it, checked.
    ///
    /// # Errors
    /// When the file or a flag is wrong; the text names which.
    pub fn configuration(&self) -> Result<KubeletConfiguration, ConfigError> {
        let mut config = match &self.config {
            Some(path) => KubeletConfiguration::load(path)?,
            None => KubeletConfiguration {
                api_version: config::API_VERSION.into(),
                kind: config::KIND.into(),
                ..KubeletConfiguration::default()
            },
        };
        fn set<T: Clone>(field: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                *field = value.clone();
            }
        }
        set(&mut config.container_runtime_endpoint, &self.container_runtime_endpoint);
        set(&mut config.static_pod_path, &self.pod_manifest_path);
        set(&mut config.register_node, &self.register_node);
        set(&mut config.address, &self.address);
        set(&mut config.port, &self.port);
        set(&mut config.read_only_port, &self.read_only_port);
        set(&mut config.healthz_port, &self.healthz_port);
        set(&mut config.healthz_bind_address, &self.healthz_bind_address);
        set(&mut config.cgroup_driver, &self.cgroup_driver);
        set(&mut config.cgroup_root, &self.cgroup_root);
        set(&mut config.cgroups_per_qos, &self.cgroups_per_qos);
        set(&mut config.cluster_domain, &self.cluster_domain);
        set(&mut config.resolv_conf, &self.resolv_conf);
        set(&mut config.max_pods, &self.max_pods);
        set(&mut config.pod_cidr, &self.pod_cidr);
        set(&mut config.fail_swap_on, &self.fail_swap_on);
        set(&mut config.authentication.x509.client_ca_file, &self.client_ca_file);
        set(&mut config.authentication.anonymous.enabled, &self.anonymous_auth);
        set(&mut config.authentication.webhook.enabled, &self.authentication_token_webhook);
        set(&mut config.authorization.mode, &self.authorization_mode);
        set(&mut config.tls_cert_file, &self.tls_cert_file);
        set(&mut config.tls_private_key_file, &self.tls_private_key_file);
        set(&mut config.rotate_certificates, &self.rotate_certificates);
        if !self.cluster_dns.is_empty() {
            config.cluster_dns.clone_from(&self.cluster_dns);
        }
        set(&mut config.node_status_update_frequency, &self.node_status_update_frequency.map(GoDuration));
        if !self.register_with_taints.is_empty() {
            config.register_with_taints =
                self.register_with_taints.iter().map(|t| parse_taint(t)).collect::<Result<_, _>>()?;
        }
        config.validate()?;
        self.labels()?;
        Ok(config)
    }

    /// `--node-labels` as a map.
    ///
    /// # Errors
    /// When an entry is not `key=value`.
    pub fn labels(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        self.node_labels
            .iter()
            .filter(|l| !l.is_empty())
            .map(|entry| {
                entry.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(|| {
                    ConfigError::Invalid(format!(
                        "--node-labels: malformed pair {entry:?}, expect string=string"
                    ))
                })
            })
            .collect()
    }
}

fn parse_taint(text: &str) -> Result<Taint, ConfigError> {
    let invalid = || {
        ConfigError::Invalid(format!(
            "--register-with-taints: invalid taint spec: {text}, expect key=value:effect"
        ))
    };
    let (pair, effect) = text.rsplit_once(':').ok_or_else(invalid)?;
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(invalid());
    }
    let (key, value) = pair.split_once('=').map_or((pair, None), |(k, v)| (k, Some(v.to_owned())));
    if key.is_empty() {
        return Err(invalid());
    }
    Ok(Taint {
        key: key.to_owned(),
        value: value.filter(|v| !v.is_empty()),
        effect: effect.to_owned(),
        time_added: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_and_complain() {
        let parse = |args: &[&str]| Flags::try_parse_from([&["kubelet"], args].concat()).unwrap();
        let flags = parse(&["--v=2", "--max-pods", "3", "--register-with-taints=a=b:NoSchedule,c:NoExecute"]);
        let config = flags.configuration().unwrap();
        assert_eq!(config.max_pods, 3);
        assert_eq!(config.register_with_taints[1].key, "c");
        assert!(parse(&["--node-labels=a"]).configuration().is_err());
        assert!(parse(&["--register-with-taints=a:Sometimes"]).configuration().is_err());
        assert!(parse(&["--cgroup-driver=x"]).configuration().is_err());
    }
}
