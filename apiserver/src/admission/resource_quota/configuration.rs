//! `ResourceQuotaConfiguration`: what may only be used where a quota covers it.

use common::quota::ScopeRequirement;
use serde::Deserialize;

use crate::admission::configuration::{ConfigurationError, Configurations};

const PLUGIN: &str = "ResourceQuota";
/// Kind and the versions in which it is known by that name.
const KINDS: [(&str, &[&str]); 2] = [
    ("ResourceQuotaConfiguration", &["apiserver.config.k8s.io/v1"]),
    ("Configuration", &["resourcequota.admission.k8s.io/v1beta1", "resourcequota.admission.k8s.io/v1alpha1"]),
];

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    #[serde(default)]
    pub limited_resources: Vec<LimitedResource>,
}

/// A resource of which some consumption needs a covering quota.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitedResource {
    #[serde(default, rename = "apiGroup")]
    pub group: String,
    #[serde(default)]
    pub resource: String,
    /// Consumption whose name contains one of these.
    #[serde(default)]
    pub match_contains: Vec<String>,
    /// Objects that have one of these scopes.
    #[serde(default)]
    pub match_scopes: Vec<ScopeRequirement>,
}

impl Configuration {
    /// # Errors
    /// What is wrong with the plugin's part of the file, by field.
    pub fn load(all: &Configurations) -> Result<Self, ConfigurationError> {
        let (kind, versions) = if all.kind_of(PLUGIN) == KINDS[1].0 { KINDS[1] } else { KINDS[0] };
        let configuration: Self = all.of(PLUGIN, kind, versions)?;
        let nameless = configuration.limited_resources.iter().position(|limited| limited.resource.is_empty());
        match nameless {
            None => Ok(configuration),
            Some(i) => Err(ConfigurationError::Plugin {
                plugin: PLUGIN.to_owned(),
                reason: format!("limitedResources[{i}].resource: Required value"),
            }),
        }
    }
}
