//! Environment of a container: services, envFrom, env, `$(VAR)`.
//!
//! Answers to upstream's `makeEnvironmentVariables` and `third_party/forked/golang/expansion`.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};
use kube::Api;

use super::StartError;
use crate::{fieldpath, pod};

/// Facts of the running pod that only the kubelet has.
#[derive(Debug, Clone, Default)]
pub struct PodFacts {
    pub pod_ips: Vec<String>,
    pub host_ips: Vec<String>,
    pub node_allocatable: BTreeMap<String, String>,
}

/// Replaces `$(NAME)` where the name is known; `$$` is a dollar.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(end) = rest.strip_prefix('(').and_then(|r| r.find(')')) {
            let name = &rest[1..=end];
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = &rest[end + 2..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Variables of the services that a pod may see.
pub fn service_variables(pod: &Pod, services: &[std::sync::Arc<Service>]) -> BTreeMap<String, String> {
    let links = pod::spec(pod).enable_service_links.unwrap_or(true);
    let mut out = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or("");
        let namespace = service.metadata.namespace.as_deref().unwrap_or("");
        let master = namespace == "default" && name == "kubernetes";
        if !(master || links && namespace == pod::namespace(pod)) {
            continue;
        }
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let ports = spec.ports.as_deref().unwrap_or(&[]);
        let prefix = name.to_uppercase().replace('-', "_");
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let mut put = |key: String, value: String| {
            // A pod's own namespace wins over the master's service of the same name.
            if !master || namespace == pod::namespace(pod) {
                out.insert(key, value);
            } else {
                out.entry(key).or_insert(value);
            }
        };
        let Some(first) = ports.first() else { continue };
        put(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        put(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for port in ports {
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                let port_name = port_name.to_uppercase().replace('-', "_");
                put(format!("{prefix}_SERVICE_PORT_{port_name}"), port.port.to_string());
            }
        }
        for (i, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if i == 0 {
                put(format!("{prefix}_PORT"), url.clone());
            }
            let base = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            put(base.clone(), url);
            put(format!("{base}_PROTO"), protocol.to_lowercase());
            put(format!("{base}_PORT"), port.port.to_string());
            put(format!("{base}_ADDR"), ip.to_owned());
        }
    }
    out
}

/// Reads configMaps and secrets once per container start.
struct Sources<'a> {
    client: Option<&'a kube::Client>,
    namespace: &'a str,
    config_maps: HashMap<String, Option<ConfigMap>>,
    secrets: HashMap<String, Option<Secret>>,
}

fn config_error(text: impl std::fmt::Display) -> StartError {
    StartError::new("CreateContainerConfigError", text.to_string())
}

impl Sources<'_> {
    fn client(&self, what: &str) -> Result<kube::Client, StartError> {
        self.client.cloned().ok_or_else(|| config_error(format!("cannot read {what} without an API server")))
    }

    async fn config_map(&mut self, name: &str) -> Result<Option<&ConfigMap>, StartError> {
        if !self.config_maps.contains_key(name) {
            let api: Api<ConfigMap> = Api::namespaced(self.client("configMaps")?, self.namespace);
            let found = api.get_opt(name).await.map_err(|e| config_error(api_text(&e)))?;
            self.config_maps.insert(name.to_owned(), found);
        }
        Ok(self.config_maps.get(name).and_then(Option::as_ref))
    }

    async fn secret(&mut self, name: &str) -> Result<Option<&Secret>, StartError> {
        if !self.secrets.contains_key(name) {
            let api: Api<Secret> = Api::namespaced(self.client("secrets")?, self.namespace);
            let found = api.get_opt(name).await.map_err(|e| config_error(api_text(&e)))?;
            self.secrets.insert(name.to_owned(), found);
        }
        Ok(self.secrets.get(name).and_then(Option::as_ref))
    }
}

/// The server's message where there is one.
pub fn api_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// The environment, in order, each name once.
///
/// # Errors
/// `CreateContainerConfigError` when a reference that is not optional does not exist.
pub async fn make(
    pod: &Pod,
    container: &Container,
    facts: &PodFacts,
    services: &[std::sync::Arc<Service>],
    client: Option<&kube::Client>,
) -> Result<Vec<(String, String)>, StartError> {
    let mut sources = Sources {
        client,
        namespace: pod::namespace(pod),
        config_maps: HashMap::new(),
        secrets: HashMap::new(),
    };
    let mut values: indexmap::IndexMap<String, String> = indexmap::IndexMap::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        let data = if let Some(r) = &from.config_map_ref {
            match sources.config_map(&r.name).await? {
                Some(map) => map.data.clone().unwrap_or_default(),
                None if r.optional == Some(true) => continue,
                None => return Err(config_error(format!("configmap {:?} not found", r.name))),
            }
        } else if let Some(r) = &from.secret_ref {
            match sources.secret(&r.name).await? {
                Some(secret) => text_data(secret),
                None if r.optional == Some(true) => continue,
                None => return Err(config_error(format!("secret {:?} not found", r.name))),
            }
        } else {
            continue;
        };
        for (key, value) in data {
            values.insert(format!("{prefix}{key}"), value);
        }
    }
    let service_values = service_variables(pod, services);
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(text), _) if !text.is_empty() => {
                let lookup = |name: &str| values.get(name).or_else(|| service_values.get(name)).cloned();
                Some(expand(text, &lookup))
            }
            (_, Some(source)) => value_from(pod, container, facts, source, &mut sources).await?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            values.insert(var.name.clone(), value);
        }
    }
    for (key, value) in service_values {
        values.entry(key).or_insert(value);
    }
    Ok(values.into_iter().collect())
}

fn text_data(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned())).collect()
}

async fn value_from(
    pod: &Pod,
    container: &Container,
    facts: &PodFacts,
    source: &k8s_openapi::api::core::v1::EnvVarSource,
    sources: &mut Sources<'_>,
) -> Result<Option<String>, StartError> {
    if let Some(field) = &source.field_ref {
        let first = |list: &[String]| list.first().cloned().unwrap_or_default();
        return Ok(Some(match field.field_path.as_str() {
            "status.podIP" => first(&facts.pod_ips),
            "status.podIPs" => facts.pod_ips.join(","),
            "status.hostIP" => first(&facts.host_ips),
            "status.hostIPs" => facts.host_ips.join(","),
            path => fieldpath::extract_field(pod, path).map_err(config_error)?,
        }));
    }
    if let Some(selector) = &source.resource_field_ref {
        let value =
            fieldpath::extract_resource(pod, Some(&container.name), selector, &facts.node_allocatable)
                .map_err(config_error)?;
        return Ok(Some(value));
    }
    let (namespace, key, optional, what, name, value) = if let Some(r) = &source.config_map_key_ref {
        let namespace = sources.namespace.to_owned();
        let map = sources.config_map(&r.name).await?;
        let value = map.map(|m| m.data.as_ref().and_then(|d| d.get(&r.key)).cloned());
        (namespace, r.key.clone(), r.optional, "configmap", r.name.clone(), value)
    } else if let Some(r) = &source.secret_key_ref {
        let namespace = sources.namespace.to_owned();
        let secret = sources.secret(&r.name).await?;
        let value = secret.map(|s| text_data(s).remove(&r.key));
        (namespace, r.key.clone(), r.optional, "secret", r.name.clone(), value)
    } else {
        return Ok(Some(String::new()));
    };
    match value {
        Some(Some(value)) => Ok(Some(value)),
        _ if optional == Some(true) => Ok(None),
        None => Err(config_error(format!("{what} {name:?} not found"))),
        Some(None) => {
            let shown = if what == "secret" { "Secret" } else { "ConfigMap" };
            Err(config_error(format!("couldn't find key {key} in {shown} {namespace}/{name}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expansion() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, want) in [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("x$(B)y", "x$(B)y"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("a$b", "a$b"),
            ("$(A)$(A)", "11"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(text, &lookup), want, "{text}");
        }
    }

    #[tokio::test]
    async fn order_and_services() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"name": "c", "env": [
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "URL", "value": "http://$(IP):$(WEB_SERVICE_PORT)/$(NO)"},
            ]}]},
        }))
        .unwrap();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n"},
            "spec": {"clusterIP": "10.0.0.9", "ports": [{"port": 80, "name": "a-b"}]},
        }))
        .unwrap();
        let facts = PodFacts { pod_ips: vec!["1.2.3.4".into()], ..PodFacts::default() };
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let env: HashMap<_, _> =
            make(&pod, container, &facts, &[service.into()], None).await.unwrap().into_iter().collect();
        assert_eq!(env["URL"], "http://1.2.3.4:80/$(NO)");
        assert_eq!(env["WEB_PORT_80_TCP"], "tcp://10.0.0.9:80");
        assert_eq!(env["WEB_SERVICE_PORT_A_B"], "80");
    }
}
