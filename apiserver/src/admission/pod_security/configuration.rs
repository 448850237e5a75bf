//! `PodSecurityConfiguration`: the policy of namespaces that name none, and who is exempt.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

use super::policy::Policy;
use crate::admission::configuration::{ConfigurationError, Configurations};
use crate::registry::names;

const PLUGIN: &str = "PodSecurity";
const API_VERSIONS: [&str; 3] = [
    "pod-security.admission.config.k8s.io/v1",
    "pod-security.admission.config.k8s.io/v1beta1",
    "pod-security.admission.config.k8s.io/v1alpha1",
];

/// As read and checked.
#[derive(Debug, Default)]
pub struct Configuration {
    pub defaults: Policy,
    pub exempt: Exemptions,
}

/// Requests that no policy looks at.
#[derive(Debug, Default)]
pub struct Exemptions {
    pub usernames: HashSet<String>,
    pub namespaces: HashSet<String>,
    pub runtime_classes: HashSet<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    defaults: BTreeMap<String, String>,
    #[serde(default)]
    exemptions: FileExemptions,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileExemptions {
    #[serde(default)]
    usernames: Vec<String>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    runtime_classes: Vec<String>,
}

const KEYS: [&str; 6] = ["enforce", "enforce-version", "audit", "audit-version", "warn", "warn-version"];

impl Configuration {
    /// # Errors
    /// Everything wrong with the plugin's part of the file, by field.
    pub fn load(all: &Configurations) -> Result<Self, ConfigurationError> {
        let file: File = all.of(PLUGIN, "PodSecurityConfiguration", &API_VERSIONS)?;
        let mut wrong = Vec::new();
        let told =
            |field: &str, value: &str, why: &str| format!("{field}: Invalid value: \"{value}\": {why}");
        for key in file.defaults.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            wrong.push(format!("unknown field \"defaults.{key}\", must be one of {}", KEYS.join(", ")));
        }
        let defaults = Policy::from_defaults(&file.defaults, |key, value, why| {
            wrong.push(told(&format!("defaults.{key}"), value, why));
        });
        let mut unique = |field: &str, values: Vec<String>, check: fn(&str) -> Vec<String>| {
            let mut seen = HashSet::new();
            for (i, value) in values.into_iter().enumerate() {
                let path = format!("exemptions.{field}[{i}]");
                let problems = check(&value);
                if !problems.is_empty() {
                    wrong.push(told(&path, &value, &problems.join(", ")));
                } else if seen.contains(&value) {
                    wrong.push(format!("{path}: Duplicate value: \"{value}\""));
                } else {
                    seen.insert(value);
                }
            }
            seen
        };
        let not_empty = |name: &str| {
            if name.is_empty() { vec!["username must not be empty".to_owned()] } else { Vec::new() }
        };
        let exempt = Exemptions {
            namespaces: unique("namespaces", file.exemptions.namespaces, names::dns1123_label),
            runtime_classes: unique(
                "runtimeClasses",
                file.exemptions.runtime_classes,
                names::dns1123_subdomain,
            ),
            usernames: unique("usernames", file.exemptions.usernames, not_empty),
        };
        if wrong.is_empty() {
            return Ok(Self { defaults, exempt });
        }
        Err(ConfigurationError::Plugin { plugin: PLUGIN.to_owned(), reason: wrong.join("; ") })
    }
}
