//! ServiceAccount: every pod runs as one, with a token mounted unless it says no.

use std::sync::Arc;

use async_trait::async_trait;
use common::status::Status;
use rand::Rng;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, is_pod};
use crate::authentication::service_account::WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS;
use crate::object::Object;
use crate::registry::tree::{
    annotation, field, flag, has, items, items_mut, list_mut, set, struct_mut, text,
};
use crate::resources::Registry;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";

pub struct ServiceAccount {
    registry: Arc<Registry>,
}

impl ServiceAccount {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    async fn account(&self, namespace: &str, name: &str) -> Result<Object, Status> {
        let store = self.registry.store("", "serviceaccounts");
        if let Some(found) = store.cached(namespace, name) {
            return Ok(found.tree());
        }
        // it may have been made after the cache's state
        Ok(store.get(namespace, name, None).await?.tree())
    }
}

fn should_automount(account: &Object, spec: &Value) -> bool {
    let key = "automountServiceAccountToken";
    if has(spec, key) {
        return flag(spec, key);
    }
    !has(account, key) || flag(account, key)
}

fn generated_name() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    let suffix: String = (0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect();
    format!("{VOLUME_PREFIX}{suffix}")
}

fn token_source() -> Value {
    json!({
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken":
                {"path": "token", "expirationSeconds": WARN_ONLY_BOUND_TOKEN_EXPIRATION_SECONDS}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace",
                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ],
    })
}

/// Mounts the token in every container that has nothing at its path.
fn mount_token(spec: &mut Value) {
    let existing = items(spec, "volumes")
        .iter()
        .map(|v| text(v, "name"))
        .find(|n| n.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let has_volume = existing.is_some();
    let name = existing.unwrap_or_else(generated_name);
    let mut needed = false;
    for key in ["initContainers", "containers"] {
        for container in items_mut(spec, key) {
            if items(container, "volumeMounts").iter().any(|m| text(m, "mountPath") == MOUNT_PATH) {
                continue;
            }
            if let Some(mounts) = list_mut(container, "volumeMounts") {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
                needed = true;
            }
        }
    }
    if needed
        && !has_volume
        && let Some(volumes) = list_mut(spec, "volumes")
    {
        volumes.push(json!({"name": name, "projected": token_source()}));
    }
}

fn refers_to_secrets(spec: &Value) -> bool {
    let containers = items(spec, "containers").iter().chain(items(spec, "initContainers"));
    let mut in_env = containers.flat_map(|c| {
        let env = items(c, "env").iter().map(|e| has(field(e, "valueFrom"), "secretKeyRef"));
        let from = items(c, "envFrom").iter().map(|e| has(e, "secretRef"));
        env.chain(from).collect::<Vec<_>>()
    });
    !items(spec, "imagePullSecrets").is_empty()
        || items(spec, "volumes").iter().any(|v| {
            has(v, "secret") || items(field(v, "projected"), "sources").iter().any(|s| has(s, "secret"))
        })
        || in_env.any(|yes| yes)
}

fn check_mirror(pod: &Object, forbidden: &dyn Fn(&str) -> Status) -> Result<(), Status> {
    let spec = field(pod, "spec");
    if !text(spec, "serviceAccountName").is_empty() {
        return Err(forbidden("a mirror pod may not reference service accounts"));
    }
    if refers_to_secrets(spec) {
        return Err(forbidden("a mirror pod may not reference secrets"));
    }
    let projected = items(spec, "volumes")
        .iter()
        .flat_map(|v| items(field(v, "projected"), "sources"))
        .any(|s| has(s, "serviceAccountToken"));
    if projected {
        return Err(forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

#[async_trait]
impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        if !is_pod(attributes) || !attributes.subresource.is_empty() {
            return Ok(());
        }
        let forbidden = super::refusal(attributes);
        let namespace = attributes.namespace.clone();
        let Some(pod) = attributes.object.as_deref_mut() else { return Ok(()) };
        if annotation(pod, MIRROR).is_some() {
            return check_mirror(pod, &forbidden);
        }
        let Some(spec) = struct_mut(pod, "spec") else { return Ok(()) };
        if text(spec, "serviceAccountName").is_empty() {
            set(spec, "serviceAccountName", "default");
        }
        let name = text(spec, "serviceAccountName").to_owned();
        set(spec, "serviceAccount", name.clone());
        let account = self.account(&namespace, &name).await.map_err(|status| {
            forbidden(&format!("error looking up service account {namespace}/{name}: {}", status.message))
        })?;
        if should_automount(&account, spec) {
            mount_token(spec);
        }
        if items(spec, "imagePullSecrets").is_empty() {
            let secrets: Vec<Value> = items(&account, "imagePullSecrets")
                .iter()
                .map(|s| json!({"name": text(s, "name")}))
                .collect();
            if !secrets.is_empty() {
                set(spec, "imagePullSecrets", Value::Array(secrets));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_mounted_where_nothing_else_is() {
        let mut spec = json!({"containers": [{"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]}]});
        mount_token(&mut spec);
        let name = spec["volumes"][0]["name"].as_str().expect("a volume").to_owned();
        assert!(name.starts_with(VOLUME_PREFIX) && name.len() == VOLUME_PREFIX.len() + 5);
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], name.as_str());
        assert_eq!(items(&spec["containers"][1], "volumeMounts").len(), 1);
        mount_token(&mut spec);
        assert_eq!(items(&spec, "volumes").len(), 1);
    }
}
