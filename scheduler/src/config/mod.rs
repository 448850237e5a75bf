//! `KubeSchedulerConfiguration` (kubescheduler.config.k8s.io/v1): reading, defaults, checks.
//!
//! Flags and this file overlap as upstream's do: with `--config`, the deprecated flags are ignored.
//! Answers to: pkg/scheduler/apis/config.

mod plugins;

use std::path::{Path, PathBuf};

use common::flags::GoDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use plugins::{PluginSet, Plugins, plugins_at};

const KIND: &str = "KubeSchedulerConfiguration";
const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read --config {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("--config {}: {why}", path.display())]
    Parse { path: PathBuf, why: String },
    #[error("{field}: {why}")]
    Invalid { field: String, why: String },
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubeSchedulerConfiguration {
    pub api_version: String,
    pub kind: String,
    pub parallelism: Option<i32>,
    pub leader_election: LeaderElectionConfig,
    pub client_connection: ClientConnection,
    pub enable_profiling: Option<bool>,
    pub enable_contention_profiling: Option<bool>,
    pub percentage_of_nodes_to_score: Option<i32>,
    pub pod_initial_backoff_seconds: Option<i64>,
    pub pod_max_backoff_seconds: Option<i64>,
    pub profiles: Vec<ProfileConfig>,
    pub extenders: Vec<Value>,
    pub delay_cache_until_active: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LeaderElectionConfig {
    pub leader_elect: Option<bool>,
    pub lease_duration: GoDuration,
    pub renew_deadline: GoDuration,
    pub retry_period: GoDuration,
    pub resource_lock: String,
    pub resource_name: String,
    pub resource_namespace: String,
}

impl Default for LeaderElectionConfig {
    fn default() -> Self {
        Self {
            leader_elect: None,
            lease_duration: GoDuration::seconds(15),
            renew_deadline: GoDuration::seconds(10),
            retry_period: GoDuration::seconds(2),
            resource_lock: "leases".into(),
            resource_name: "kube-scheduler".into(),
            resource_namespace: "kube-system".into(),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientConnection {
    pub kubeconfig: String,
    pub accept_content_types: String,
    pub content_type: String,
    pub qps: f64,
    pub burst: i64,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProfileConfig {
    pub scheduler_name: String,
    pub percentage_of_nodes_to_score: Option<i32>,
    pub plugins: Plugins,
    pub plugin_config: Vec<PluginConfig>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PluginConfig {
    pub name: String,
    pub args: Value,
}

impl ProfileConfig {
    pub fn args(&self, plugin: &str) -> Option<&Value> {
        self.plugin_config.iter().find(|c| c.name == plugin).map(|c| &c.args)
    }
}

impl KubeSchedulerConfiguration {
    /// Upstream's defaults: one profile for `default-scheduler`.
    pub fn defaulted() -> Self {
        let mut config = Self { kind: KIND.into(), api_version: API_VERSION.into(), ..Self::default() };
        config.set_defaults();
        config
    }

    /// # Errors
    /// When the file cannot be read, has unknown fields or invalid values.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = serde_saphyr::from_str(&text)
            .map_err(|e| ConfigError::Parse { path: path.to_owned(), why: e.to_string() })?;
        config.set_defaults();
        config.validate()?;
        Ok(config)
    }

    fn set_defaults(&mut self) {
        if self.profiles.is_empty() {
            self.profiles.push(ProfileConfig::default());
        }
        if let [only] = self.profiles.as_mut_slice()
            && only.scheduler_name.is_empty()
        {
            only.scheduler_name = "default-scheduler".into();
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let fail = |field: &str, why: String| Err(ConfigError::Invalid { field: field.into(), why });
        if self.kind != KIND || self.api_version != API_VERSION {
            return fail(
                "apiVersion, kind",
                format!("expected {API_VERSION} {KIND}, found {} {}", self.api_version, self.kind),
            );
        }
        if self.leader_election.resource_lock != "leases" {
            return fail("leaderElection.resourceLock", "supported values: \"leases\"".into());
        }
        for (at, profile) in self.profiles.iter().enumerate() {
            if profile.scheduler_name.is_empty() {
                return fail(&format!("profiles[{at}].schedulerName"), "Required value".into());
            }
            let twin = self.profiles[..at].iter().any(|p| p.scheduler_name == profile.scheduler_name);
            if twin {
                return fail(
                    &format!("profiles[{at}].schedulerName"),
                    format!("Duplicate value: {:?}", profile.scheduler_name),
                );
            }
        }
        for percentage in self
            .profiles
            .iter()
            .filter_map(|p| p.percentage_of_nodes_to_score)
            .chain(self.percentage_of_nodes_to_score)
        {
            if !(0..=100).contains(&percentage) {
                return fail("percentageOfNodesToScore", "not in valid range [0-100]".into());
            }
        }
        let (initial, max) = (self.pod_initial_backoff_seconds(), self.pod_max_backoff_seconds());
        if initial <= 0 {
            return fail("podInitialBackoffSeconds", "must be greater than 0".into());
        }
        if max < initial {
            return fail(
                "podMaxBackoffSeconds",
                "must be greater than or equal to PodInitialBackoffSeconds".into(),
            );
        }
        if !self.extenders.is_empty() {
            return fail("extenders", "scheduler extenders are not supported yet".into());
        }
        Ok(())
    }

    pub fn pod_initial_backoff_seconds(&self) -> i64 {
        self.pod_initial_backoff_seconds.unwrap_or(1)
    }

    pub fn pod_max_backoff_seconds(&self) -> i64 {
        self.pod_max_backoff_seconds.unwrap_or(10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<KubeSchedulerConfiguration, String> {
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        let mut config: KubeSchedulerConfiguration =
            serde_saphyr::from_str(&format!("{head}{text}")).map_err(|e| e.to_string())?;
        config.set_defaults();
        config.validate().map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn bad_values_name_their_field() {
        for (text, field) in [
            ("podInitialBackoffSeconds: 0", "podInitialBackoffSeconds"),
            ("podInitialBackoffSeconds: 20", "podMaxBackoffSeconds"),
            ("percentageOfNodesToScore: 101", "percentageOfNodesToScore"),
            ("profiles: [{schedulerName: a}, {schedulerName: a}]", "profiles[1].schedulerName"),
            ("profiles: [{}, {schedulerName: a}]", "profiles[0].schedulerName"),
            ("unknownThing: 1", "unknownThing"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(field), "{text}: {error}");
        }
    }

    #[test]
    fn the_default_profile_is_named() {
        assert_eq!(read("parallelism: 4").expect("config").profiles[0].scheduler_name, "default-scheduler");
    }
}
