//! `--admission-control-config-file`: an `AdmissionConfiguration` (apiserver.config.k8s.io/v1) that gives plugins
//! their own configuration, inline or in a file of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "AdmissionConfiguration";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {reason}")]
    Decode { path: PathBuf, reason: String },
    #[error("{path}: apiVersion \"{api_version}\", kind \"{kind}\": must be {API_VERSION}, {KIND}")]
    Kind { path: PathBuf, api_version: String, kind: String },
    #[error("plugin {plugin}: {reason}")]
    Plugin { plugin: String, reason: String },
}

/// The plugins' configurations by name, as trees.
#[derive(Debug, Default)]
pub struct Configurations(BTreeMap<String, Value>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdmissionConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<PluginConfiguration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConfiguration {
    name: String,
    /// Relative to the file that names it.
    #[serde(default)]
    path: PathBuf,
    #[serde(default)]
    configuration: Value,
}

impl Configurations {
    /// # Errors
    /// When the file or one it names cannot be read or is of another kind.
    pub fn load(path: &Path) -> Result<Self, ConfigurationError> {
        let file: AdmissionConfiguration = read(path)?;
        if file.api_version != API_VERSION || file.kind != KIND {
            let (api_version, kind) = (file.api_version, file.kind);
            return Err(ConfigurationError::Kind { path: path.to_owned(), api_version, kind });
        }
        let mut all = BTreeMap::new();
        for plugin in file.plugins {
            let tree = if plugin.configuration.is_null() && !plugin.path.as_os_str().is_empty() {
                let base = path.parent().unwrap_or(Path::new(""));
                read(&base.join(&plugin.path))?
            } else {
                plugin.configuration
            };
            all.insert(plugin.name, tree);
        }
        Ok(Self(all))
    }

    /// A file that configures one plugin.
    #[cfg(test)]
    pub fn of_plugin(plugin: &str, tree: Value) -> Self {
        Self(BTreeMap::from([(plugin.to_owned(), tree)]))
    }

    /// The kind that the plugin's own configuration says it is; empty when there is none.
    pub fn kind_of(&self, plugin: &str) -> &str {
        self.0.get(plugin).and_then(|tree| tree.get("kind")).and_then(Value::as_str).unwrap_or("")
    }

    /// The plugin's own configuration in a form that has no kind; `T`'s default when there is none.
    ///
    /// # Errors
    /// When a field is unknown or of another type.
    pub fn plain<T: for<'de> Deserialize<'de> + Default>(
        &self,
        plugin: &str,
    ) -> Result<T, ConfigurationError> {
        let Some(tree) = self.0.get(plugin).filter(|tree| !tree.is_null()) else { return Ok(T::default()) };
        serde_json::from_value(tree.clone()).map_err(|error| ConfigurationError::Plugin {
            plugin: plugin.to_owned(),
            reason: error.to_string(),
        })
    }

    /// The plugin's own configuration, read strictly as kind `kind` of one of `api_versions`; `T`'s default
    /// when there is none.
    ///
    /// # Errors
    /// When it is of another kind or has unknown or wrong fields.
    pub fn of<T: for<'de> Deserialize<'de> + Default>(
        &self,
        plugin: &str,
        kind: &str,
        api_versions: &[&str],
    ) -> Result<T, ConfigurationError> {
        let wrong = |reason: String| ConfigurationError::Plugin { plugin: plugin.to_owned(), reason };
        let Some(Value::Object(fields)) = self.0.get(plugin) else { return Ok(T::default()) };
        let mut fields = fields.clone();
        let mut take =
            |key: &str| fields.remove(key).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        let (said_kind, said_version) = (take("kind"), take("apiVersion"));
        if said_kind != kind || !api_versions.contains(&said_version.as_str()) {
            return Err(wrong(format!(
                "apiVersion \"{said_version}\", kind \"{said_kind}\": must be {}, {kind}",
                api_versions.join(" or ")
            )));
        }
        serde_json::from_value(Value::Object(fields)).map_err(|error| wrong(error.to_string()))
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, ConfigurationError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigurationError::Read { path: path.to_owned(), source })?;
    serde_saphyr::from_str(&text)
        .map_err(|error| ConfigurationError::Decode { path: path.to_owned(), reason: error.to_string() })
}
