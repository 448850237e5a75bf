//! `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1): upstream's names and defaults.
//!
//! A field that does not exist is an error that names it. A field of a part that this build does not have yet is
//! read and ignored, so that an operator's file keeps working. Zero durations mean the default, as upstream
//! (kubeadm writes them).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::flags::GoDuration;
use common::quantity::Quantity;
use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
pub const KIND: &str = "KubeletConfiguration";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("failed to load Kubelet config file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("failed to load Kubelet config file {path}: {reason}")]
    Parse { path: PathBuf, reason: String },
    #[error("invalid configuration: {0}")]
    Invalid(String),
}

const fn seconds(n: u64) -> GoDuration {
    GoDuration::seconds(n)
}

macro_rules! configuration {
    ($($name:literal $field:ident: $type:ty = $default:expr;)*) => {
        /// The whole configuration; the names on the wire stand beside the fields below.
        #[derive(Debug, Clone, Deserialize, Serialize)]
        #[serde(default)]
        pub struct KubeletConfiguration { $(#[serde(rename = $name)] pub $field: $type,)* }

        impl Default for KubeletConfiguration {
            fn default() -> Self { Self { $($field: $default,)* } }
        }

        const FIELDS: &[&str] = &[$($name),*];
    };
}

configuration! {
    "apiVersion" api_version: String = String::new();
    "kind" kind: String = String::new();
    "enableServer" enable_server: bool = true;
    "staticPodPath" static_pod_path: String = String::new();
    "podLogsDir" pod_logs_dir: String = "/var/log/pods".into();
    "syncFrequency" sync_frequency: GoDuration = seconds(60);
    "fileCheckFrequency" file_check_frequency: GoDuration = seconds(20);
    "address" address: String = "0.0.0.0".into();
    "port" port: u16 = 10250;
    "readOnlyPort" read_only_port: u16 = 0;
    "tlsCertFile" tls_cert_file: String = String::new();
    "tlsPrivateKeyFile" tls_private_key_file: String = String::new();
    "rotateCertificates" rotate_certificates: bool = false;
    "serverTLSBootstrap" server_tls_bootstrap: bool = false;
    "authentication" authentication: Authentication = Authentication::default();
    "authorization" authorization: Authorization = Authorization::default();
    "enableDebuggingHandlers" enable_debugging_handlers: bool = true;
    "healthzPort" healthz_port: u16 = 10248;
    "healthzBindAddress" healthz_bind_address: String = "127.0.0.1".into();
    "oomScoreAdj" oom_score_adj: i32 = -999;
    "clusterDomain" cluster_domain: String = String::new();
    "clusterDNS" cluster_dns: Vec<String> = Vec::new();
    "streamingConnectionIdleTimeout" streaming_connection_idle_timeout: GoDuration = seconds(4 * 3600);
    "nodeStatusUpdateFrequency" node_status_update_frequency: GoDuration = seconds(10);
    "nodeStatusReportFrequency" node_status_report_frequency: GoDuration = seconds(300);
    "nodeLeaseDurationSeconds" node_lease_duration_seconds: i32 = 40;
    "cgroupRoot" cgroup_root: String = String::new();
    "cgroupsPerQOS" cgroups_per_qos: bool = true;
    "cgroupDriver" cgroup_driver: String = "cgroupfs".into();
    "runtimeRequestTimeout" runtime_request_timeout: GoDuration = seconds(120);
    "maxPods" max_pods: i32 = 110;
    "podCIDR" pod_cidr: String = String::new();
    "podPidsLimit" pod_pids_limit: i64 = -1;
    "resolvConf" resolv_conf: String = "/etc/resolv.conf".into();
    "cpuCFSQuota" cpu_cfs_quota: bool = true;
    "cpuCFSQuotaPeriod" cpu_cfs_quota_period: GoDuration = GoDuration(Duration::from_millis(100));
    "nodeStatusMaxImages" node_status_max_images: i32 = 50;
    "serializeImagePulls" serialize_image_pulls: Option<bool> = None;
    "maxParallelImagePulls" max_parallel_image_pulls: Option<u32> = None;
    "failSwapOn" fail_swap_on: bool = true;
    "systemReserved" system_reserved: BTreeMap<String, String> = BTreeMap::new();
    "kubeReserved" kube_reserved: BTreeMap<String, String> = BTreeMap::new();
    "evictionHard" eviction_hard: BTreeMap<String, String> = default_eviction();
    "allowedUnsafeSysctls" allowed_unsafe_sysctls: Vec<String> = Vec::new();
    "providerID" provider_id: String = String::new();
    "crashLoopBackOff" crash_loop_back_off: CrashLoopBackOff = CrashLoopBackOff::default();
    "seccompDefault" seccomp_default: bool = false;
    "registerWithTaints" register_with_taints: Vec<Taint> = Vec::new();
    "registerNode" register_node: bool = true;
    "containerRuntimeEndpoint" container_runtime_endpoint: String = "unix:///run/containerd/containerd.sock".into();
    "failCgroupV1" fail_cgroup_v1: bool = true;
    "makeIPTablesUtilChains" make_iptables_util_chains: bool = true;
}

/// Upstream's fields that this build accepts and does not act on.
const ACCEPTED: &[&str] = &[
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxFiles",
    "containerLogMaxSize",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "contentType",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "enableContentionProfiling",
    "enableControllerAttachDetach",
    "enableDebugFlagsHandler",
    "enableProfilingHandler",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "enforceNodeAllocatable",
    "eventBurst",
    "eventRecordQPS",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "featureGates",
    "hairpinMode",
    "httpCheckFrequency",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "imageMaximumGCAge",
    "imageMinimumGCAge",
    "imagePullCredentialsVerificationPolicy",
    "imageServiceEndpoint",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeReservedCgroup",
    "kubeletCgroups",
    "localStorageCapacityIsolation",
    "logging",
    "maxOpenFiles",
    "memoryManagerPolicy",
    "memoryReservationPolicy",
    "memorySwap",
    "memoryThrottlingFactor",
    "mergeDefaultEvictionSettings",
    "podsPerCore",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "qosReserved",
    "registryBurst",
    "registryPullQPS",
    "reservedMemory",
    "reservedSystemCPUs",
    "runOnce",
    "showHiddenMetricsForVersion",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "singleProcessOOMKill",
    "staticPodURL",
    "staticPodURLHeader",
    "systemCgroups",
    "systemReservedCgroup",
    "tlsCipherSuites",
    "tlsCurvePreferences",
    "tlsMinVersion",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
];

fn default_eviction() -> BTreeMap<String, String> {
    [
        ("memory.available", "100Mi"),
        ("nodefs.available", "10%"),
        ("nodefs.inodesFree", "5%"),
        ("imagefs.available", "15%"),
        ("imagefs.inodesFree", "5%"),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Authentication {
    pub x509: X509Authentication,
    pub webhook: WebhookAuthentication,
    pub anonymous: AnonymousAuthentication,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct X509Authentication {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: String,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookAuthentication {
    pub enabled: bool,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: GoDuration,
}

impl Default for WebhookAuthentication {
    fn default() -> Self {
        Self { enabled: true, cache_ttl: seconds(120) }
    }
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnonymousAuthentication {
    pub enabled: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    pub mode: String,
    pub webhook: WebhookAuthorization,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { mode: "Webhook".into(), webhook: WebhookAuthorization::default() }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookAuthorization {
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: GoDuration,
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: GoDuration,
}

impl Default for WebhookAuthorization {
    fn default() -> Self {
        Self { cache_authorized_ttl: seconds(300), cache_unauthorized_ttl: seconds(30) }
    }
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct CrashLoopBackOff {
    pub max_container_restart_period: Option<GoDuration>,
}

impl KubeletConfiguration {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is another kind, or has a field that does not exist or does not fit.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|reason| ConfigError::Parse { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        let Value::Object(mut map) = value else { return Err("the document is not a mapping".into()) };
        for (field, want) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            match map.get(field).and_then(Value::as_str) {
                Some(found) if found == want => {}
                found => return Err(format!("{field}: must be {want:?}, found {:?}", found.unwrap_or(""))),
            }
        }
        let known: BTreeSet<&str> = FIELDS.iter().chain(ACCEPTED).copied().collect();
        if let Some(field) = map.keys().find(|k| !known.contains(k.as_str())) {
            return Err(format!("strict decoding error: unknown field {field:?}"));
        }
        map.retain(|k, v| !v.is_null() && FIELDS.contains(&k.as_str()) && !is_zero_duration(v));
        for nested in ["authentication", "authorization"] {
            if let Some(v) = map.get_mut(nested) {
                drop_zero_durations(v);
            }
        }
        let reports = map.contains_key("nodeStatusReportFrequency");
        let updates = map.contains_key("nodeStatusUpdateFrequency");
        let mut out: Self = serde_json::from_value(Value::Object(map)).map_err(|e| e.to_string())?;
        if updates && !reports {
            out.node_status_report_frequency = out.node_status_update_frequency;
        }
        Ok(out)
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Naming the field and what would be right.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |text: String| Err(ConfigError::Invalid(text));
        if !matches!(self.cgroup_driver.as_str(), "cgroupfs" | "systemd") {
            return invalid(format!(
                "cgroupDriver: {:?} must be \"cgroupfs\" or \"systemd\"",
                self.cgroup_driver
            ));
        }
        if !matches!(self.authorization.mode.as_str(), "Webhook" | "AlwaysAllow") {
            return invalid(format!(
                "authorization.mode: {:?} must be \"AlwaysAllow\" or \"Webhook\"",
                self.authorization.mode
            ));
        }
        for (field, value) in [("address", &self.address), ("healthzBindAddress", &self.healthz_bind_address)]
        {
            if value.parse::<std::net::IpAddr>().is_err() {
                return invalid(format!("{field}: {value:?} must be an IP address"));
            }
        }
        if self.max_pods < 0 || self.node_lease_duration_seconds <= 0 {
            return invalid("maxPods and nodeLeaseDurationSeconds must not be negative or zero".into());
        }
        if let Some(bad) = self.cluster_dns.iter().find(|a| a.parse::<std::net::IpAddr>().is_err()) {
            return invalid(format!("clusterDNS: {bad:?} must be an IP address"));
        }
        for (field, list) in
            [("systemReserved", &self.system_reserved), ("kubeReserved", &self.kube_reserved)]
        {
            if let Some((k, v)) = list.iter().find(|(_, v)| Quantity::parse(v).is_err()) {
                return invalid(format!("{field}: {k}: {v:?} must be a quantity"));
            }
        }
        Ok(())
    }
}

fn is_zero_duration(value: &Value) -> bool {
    matches!(value.as_str(), Some("0s" | "0"))
}

fn drop_zero_durations(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, v| !v.is_null() && !is_zero_duration(v));
        map.values_mut().for_each(drop_zero_durations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    #[test]
    fn reads_what_kubeadm_writes() {
        let text = format!(
            "{HEAD}authentication:\n  anonymous:\n    enabled: false\n  webhook:\n    cacheTTL: 0s\n    enabled: true\n  x509:\n    clientCAFile: /etc/kubernetes/pki/ca.crt\ncgroupDriver: systemd\nclusterDNS:\n- 10.96.0.10\nmemorySwap: {{}}\nnodeStatusUpdateFrequency: 0s\nstaticPodPath: /etc/kubernetes/manifests\nsyncFrequency: 0s\nlogging: {{flushFrequency: 0}}\n"
        );
        let config = KubeletConfiguration::parse(&text).unwrap();
        assert_eq!(config.sync_frequency, seconds(60));
        assert_eq!(config.node_status_report_frequency, seconds(300));
        assert_eq!(config.authentication.webhook.cache_ttl, seconds(120));
        assert_eq!(config.cluster_dns, ["10.96.0.10"]);
        config.validate().unwrap();
    }

    #[test]
    fn names_what_is_wrong() {
        let error = KubeletConfiguration::parse(&format!("{HEAD}clusterDns: []\n")).unwrap_err();
        assert_eq!(error, "strict decoding error: unknown field \"clusterDns\"");
        assert!(
            KubeletConfiguration::parse("kind: KubeletConfiguration\n").unwrap_err().contains("apiVersion")
        );
        let config = KubeletConfiguration { cgroup_driver: "x".into(), ..KubeletConfiguration::default() };
        assert!(config.validate().unwrap_err().to_string().contains("cgroupDriver"));
    }
}
