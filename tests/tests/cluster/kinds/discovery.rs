//! What the server says it has, read from its own discovery documents.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Kubectl;
use super::samples::GROUP;

/// A resource of one version.
#[derive(Debug, Clone)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    /// Whether its version is the group's preferred one: what `kubectl api-resources` shows.
    pub preferred: bool,
}

impl Resource {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// `deployments.v1.apps`; `pods.v1.` in the core group.
    pub fn full(&self) -> String {
        format!("{}.{}.{}", self.plural, self.version, self.group)
    }

    /// `deployments.apps`, `pods`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
}

/// Every resource of Kubernetes' own groups and of the custom one, without subresources: other tests define kinds
/// too, and take them away.
pub fn resources(kubectl: &Kubectl) -> Result<Vec<Resource>> {
    let mut out = of_version(kubectl, "", "v1", true)?;
    for group in list(&kubectl.raw("/apis")?, "groups") {
        let name = text(group, "name");
        if name.contains('.') && !name.ends_with(".k8s.io") && name != GROUP {
            continue;
        }
        let preferred = text(&group["preferredVersion"], "version");
        for version in list(group, "versions") {
            let version = text(version, "version");
            out.extend(of_version(kubectl, &name, &version, version == preferred)?);
        }
    }
    Ok(out)
}

/// The group versions, as `kubectl api-versions` shows them.
pub fn versions(resources: &[Resource]) -> Vec<String> {
    let mut out: Vec<String> = resources.iter().map(Resource::api_version).collect();
    out.sort();
    out.dedup();
    out
}

fn of_version(kubectl: &Kubectl, group: &str, version: &str, preferred: bool) -> Result<Vec<Resource>> {
    let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let document = kubectl.raw(&path).with_context(|| format!("discovery of {path}"))?;
    let words =
        |of: &Value, key: &str| list(of, key).iter().filter_map(|v| Some(v.as_str()?.to_owned())).collect();
    let resources = list(&document, "resources").iter().filter(|r| !text(r, "name").contains('/'));
    Ok(resources
        .map(|r| Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text(r, "kind"),
            plural: text(r, "name"),
            singular: text(r, "singularName"),
            namespaced: r["namespaced"] == true,
            verbs: words(r, "verbs"),
            short_names: words(r, "shortNames"),
            categories: words(r, "categories"),
            preferred,
        })
        .collect())
}

fn list<'v>(of: &'v Value, key: &str) -> &'v [Value] {
    of[key].as_array().map_or(&[], Vec::as_slice)
}

fn text(of: &Value, key: &str) -> String {
    of[key].as_str().unwrap_or_default().to_owned()
}
