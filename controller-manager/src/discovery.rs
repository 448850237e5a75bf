//! Which resources the server has, for the two controllers that must reach all of them.
//!
//! One aggregated request for each of `/api` and `/apis` where the server offers them, and the older form of
//! one request per group version where it does not.

use kube::Client;
use kube::core::ApiResource;
use serde_json::Value;

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// One resource in its group's preferred version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Resource {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// `deployments.apps`, as people name it.
    pub fn name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub fn api_resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.clone(),
            version: self.version.clone(),
            api_version: self.api_version(),
            kind: self.kind.clone(),
            plural: self.plural.clone(),
        }
    }

    /// The collection's path; `namespace` is empty for cluster scope or all namespaces.
    pub fn path(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let version = self.api_version();
        if namespace.is_empty() {
            format!("{root}/{version}/{}", self.plural)
        } else {
            format!("{root}/{version}/namespaces/{namespace}/{}", self.plural)
        }
    }
}

/// What was found, and which group versions could not be asked (their server is down).
#[derive(Debug, Default)]
pub struct Discovered {
    pub resources: Vec<Resource>,
    pub failed: Vec<String>,
}

async fn get(client: &Client, path: &str, accept: &str) -> kube::Result<Value> {
    let request = http::Request::get(path)
        .header(http::header::ACCEPT, accept)
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// All resources with their groups' preferred versions, without subresources.
///
/// # Errors
/// When the server cannot be asked at all.
pub async fn discover(client: &Client) -> kube::Result<Discovered> {
    let mut found = Discovered::default();
    for root in ["/api", "/apis"] {
        let answer = get(client, root, AGGREGATED).await?;
        if answer["kind"] == "APIGroupDiscoveryList" {
            read_aggregated(&answer, &mut found);
            continue;
        }
        let versions: Vec<(String, String)> = if root == "/api" {
            vec![(String::new(), "v1".into())]
        } else {
            answer["groups"].as_array().into_iter().flatten().filter_map(preferred).collect()
        };
        for (group, version) in versions {
            let path = if group.is_empty() {
                format!("{root}/{version}")
            } else {
                format!("{root}/{group}/{version}")
            };
            match get(client, &path, "application/json").await {
                Ok(list) => read_list(&group, &version, &list, &mut found),
                Err(error) => {
                    tracing::debug!(path, %error, "discovery failed");
                    found.failed.push(format!("{group}/{version}"));
                }
            }
        }
    }
    found.resources.sort();
    found.resources.dedup();
    Ok(found)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn preferred(group: &Value) -> Option<(String, String)> {
    let version =
        group["preferredVersion"]["version"].as_str().or(group["versions"][0]["version"].as_str())?;
    Some((group["name"].as_str()?.to_owned(), version.to_owned()))
}

fn read_list(group: &str, version: &str, list: &Value, found: &mut Discovered) {
    for resource in list["resources"].as_array().into_iter().flatten() {
        let plural = text(&resource["name"]);
        if plural.contains('/') {
            continue;
        }
        found.resources.push(Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text(&resource["kind"]),
            plural,
            namespaced: resource["namespaced"].as_bool().unwrap_or(false),
            verbs: strings(&resource["verbs"]),
        });
    }
}

/// Versions are listed in the order of preference; a resource is taken from the first that has it.
fn read_aggregated(answer: &Value, found: &mut Discovered) {
    for group in answer["items"].as_array().into_iter().flatten() {
        let name = text(&group["metadata"]["name"]);
        let mut seen = std::collections::BTreeSet::new();
        for version in group["versions"].as_array().into_iter().flatten() {
            let version_name = text(&version["version"]);
            if version["freshness"] == "Stale" {
                found.failed.push(format!("{name}/{version_name}"));
            }
            for resource in version["resources"].as_array().into_iter().flatten() {
                let plural = text(&resource["resource"]);
                if !seen.insert(plural.clone()) {
                    continue;
                }
                found.resources.push(Resource {
                    group: name.clone(),
                    version: version_name.clone(),
                    kind: text(&resource["responseKind"]["kind"]),
                    plural,
                    namespaced: resource["scope"] == "Namespaced",
                    verbs: strings(&resource["verbs"]),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let mut old = Discovered::default();
        let list = json!({"resources": [
            {"name": "deployments", "namespaced": true, "kind": "Deployment", "verbs": ["list", "delete"]},
            {"name": "deployments/status", "namespaced": true, "kind": "Deployment", "verbs": ["get"]}]});
        read_list("apps", "v1", &list, &mut old);
        let mut new = Discovered::default();
        let aggregated = json!({"items": [{"metadata": {"name": "apps"}, "versions": [
            {"version": "v1", "freshness": "Current", "resources": [{"resource": "deployments", "scope": "Namespaced",
                "verbs": ["list", "delete"], "responseKind": {"kind": "Deployment"}}]},
            {"version": "v1beta1", "freshness": "Stale", "resources": [{"resource": "deployments", "scope": "Namespaced",
                "verbs": [], "responseKind": {"kind": "Deployment"}}]}]}]});
        read_aggregated(&aggregated, &mut new);
        assert_eq!(old.resources, new.resources);
        assert_eq!(new.failed, ["apps/v1beta1"]);
        assert_eq!(old.resources[0].path("n"), "/apis/apps/v1/namespaces/n/deployments");
        assert_eq!(old.resources[0].name(), "deployments.apps");
    }
}
