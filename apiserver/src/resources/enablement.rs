//! Which versions and resources are served: stable ones, and of the others those that `--runtime-config` names.
//!
//! The most particular setting wins: a resource's, its version's, then `api/alpha`, `api/beta`, `api/ga`,
//! `api/all`. A resource whose feature gate is off is not served whatever the settings say.
//!
//! Upstream: `apiserver/pkg/server/resourceconfig`, `pkg/controlplane/instance.go`.

use std::collections::BTreeMap;

use super::rows::{Row, rows};
use crate::features::{Features, parse_bool};

/// Versions that upstream's scheme still knows though nothing of them is served: naming one is no mistake.
const UNSERVED_VERSIONS: &[&str] = &[
    "apps/v1beta1",
    "apps/v1beta2",
    "authentication.k8s.io/v1alpha1",
    "authentication.k8s.io/v1beta1",
    "authorization.k8s.io/v1beta1",
    "batch/v1beta1",
    "discovery.k8s.io/v1beta1",
    "events.k8s.io/v1beta1",
    "extensions/v1beta1",
    "flowcontrol.apiserver.k8s.io/v1beta1",
    "flowcontrol.apiserver.k8s.io/v1beta2",
    "flowcontrol.apiserver.k8s.io/v1beta3",
    "node.k8s.io/v1alpha1",
    "node.k8s.io/v1beta1",
    "policy/v1beta1",
    "rbac.authorization.k8s.io/v1alpha1",
    "rbac.authorization.k8s.io/v1beta1",
    "scheduling.k8s.io/v1beta1",
    "storage.k8s.io/v1alpha1",
];

/// What is wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnablementError {
    #[error("runtime-config invalid key {0}")]
    Key(String),
    #[error("invalid value {key}={value}")]
    MatcherValue { key: String, value: String },
    #[error("invalid value of {key}: {value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    Value { key: String, value: String },
    #[error("unknown api groups {0}")]
    Group(String),
    #[error("group version {0} that has not been registered")]
    Version(String),
    #[error(
        "invalid key {key}: group/version/resource and resource is always lowercase plural, not {resource:?}"
    )]
    Case { key: String, resource: String },
    #[error("invalid runtime-config with only api/all=false")]
    Nothing,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Enablement {
    /// `api/all`, `api/ga`, `api/beta`, `api/alpha`.
    matchers: BTreeMap<String, bool>,
    /// `group/version` and `group/version/resource`; the core group is empty.
    keys: BTreeMap<String, bool>,
    features: Features,
}

impl Enablement {
    /// Reads `--runtime-config`.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub fn parse(settings: &[String], features: Features) -> Result<Self, EnablementError> {
        let mut out = Self { features, ..Self::default() };
        for setting in settings.iter().map(|s| s.trim()).filter(|s| !s.is_empty()) {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            let (key, value) = (key.trim(), value.trim());
            if matches!(key, "api/all" | "api/ga" | "api/beta" | "api/alpha") {
                let enabled = match value {
                    "true" => true,
                    "false" => false,
                    _ => {
                        return Err(EnablementError::MatcherValue {
                            key: key.to_owned(),
                            value: value.to_owned(),
                        });
                    }
                };
                out.matchers.insert(key.to_owned(), enabled);
            } else {
                let enabled = out.checked(key, value)?;
                out.keys.insert(key.to_owned(), enabled);
            }
        }
        if out.keys.is_empty() && out.matchers.len() == 1 && out.matchers.get("api/all") == Some(&false) {
            return Err(EnablementError::Nothing);
        }
        Ok(out)
    }

    fn checked(&self, key: &str, value: &str) -> Result<bool, EnablementError> {
        let parts: Vec<&str> = key.split('/').collect();
        let (group, version, resource) = match parts.as_slice() {
            [group, version] => (*group, *version, None),
            [group, version, resource] => (*group, *version, Some(*resource)),
            _ => return Err(EnablementError::Key(key.to_owned())),
        };
        let named = format!("{group}/{version}");
        let served = |row: &Row| row.group == group && row.version == version;
        let old = UNSERVED_VERSIONS.contains(&named.as_str());
        let group_known = rows().iter().any(|row| row.group == group)
            || UNSERVED_VERSIONS.iter().any(|v| v.split('/').next() == Some(group));
        if !group_known {
            return Err(EnablementError::Group(named));
        }
        if !old && !rows().iter().any(served) {
            return Err(EnablementError::Version(named));
        }
        if let Some(resource) = resource
            && resource.to_lowercase() != resource
        {
            let (key, resource) = (key.to_owned(), resource.to_owned());
            return Err(EnablementError::Case { key, resource });
        }
        match value {
            "" => Ok(true),
            value => parse_bool(value)
                .ok_or_else(|| EnablementError::Value { key: key.to_owned(), value: value.to_owned() }),
        }
    }

    /// The row has routes and is discoverable.
    pub fn serves(&self, row: &Row) -> bool {
        if row.gate.is_some_and(|gate| !self.features.enabled(gate)) {
            return false;
        }
        let version = format!("{}/{}", row.group, row.version);
        let particular = self.keys.get(&format!("{version}/{}", row.resource)).or(self.keys.get(&version));
        if let Some(enabled) = particular {
            return *enabled;
        }
        let (matcher, default) = match row.version {
            v if v.contains("alpha") => ("api/alpha", false),
            v if v.contains("beta") => ("api/beta", false),
            _ => ("api/ga", true),
        };
        self.matchers.get(matcher).or(self.matchers.get("api/all")).copied().unwrap_or(default)
    }

    /// A served version of some resource is kept where this row's objects are.
    pub fn stores(&self, row: &Row) -> bool {
        rows().iter().any(|other| self.serves(other) && other.stored_at() == row.stored_at())
            // Stable kinds are read by parts of the server itself, served or not.
            || !(row.version.contains("alpha") || row.version.contains("beta"))
    }

    pub fn features(&self) -> &Features {
        &self.features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Enablement, String> {
        let settings: Vec<String> = text.split(',').map(str::to_owned).collect();
        Enablement::parse(&settings, Features::default()).map_err(|e| e.to_string())
    }

    fn serves(text: &str, group: &str, version: &str, resource: &str) -> bool {
        let row = rows()
            .iter()
            .find(|r| (r.group, r.version, r.resource) == (group, version, resource))
            .unwrap_or_else(|| panic!("no row {group}/{version} {resource}"));
        parse(text).expect(text).serves(row)
    }

    #[test]
    fn only_stable_versions_by_default() {
        for row in rows() {
            let stable = !(row.version.contains("alpha") || row.version.contains("beta"));
            assert_eq!(Enablement::default().serves(row), stable, "{}/{}", row.group, row.version);
        }
    }

    #[test]
    fn the_most_particular_setting_wins() {
        let networking = |text| serves(text, "networking.k8s.io", "v1beta1", "ipaddresses");
        assert!(networking("api/beta=true"));
        assert!(networking("api/all=true"));
        assert!(!networking("api/all=true,api/beta=false"));
        assert!(networking("networking.k8s.io/v1beta1"));
        assert!(networking("networking.k8s.io/v1beta1/ipaddresses=true,networking.k8s.io/v1beta1=false"));
        assert!(!serves("batch/v1/jobs=false", "batch", "v1", "jobs"));
        // Its gate is off.
        assert!(!serves("api/all=true", "scheduling.k8s.io", "v1alpha2", "podgroups"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("v1=true", "runtime-config invalid key v1"),
            ("example.com/v1=true", "unknown api groups example.com/v1"),
            ("apps/v3=true", "group version apps/v3 that has not been registered"),
            ("api/all=maybe", "invalid value api/all=maybe"),
            ("api/all=false", "invalid runtime-config with only api/all=false"),
            (
                "apps/v1=maybe",
                "invalid value of apps/v1: maybe, err: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            (
                "apps/v1/Deployments=true",
                "invalid key apps/v1/Deployments: group/version/resource and resource is always lowercase plural, not \"Deployments\"",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
    }
}
