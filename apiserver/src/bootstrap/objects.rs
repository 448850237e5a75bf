//! Objects of fixed content.

use std::time::Duration;

use common::status::Status;
use serde_json::json;

use super::Loopback;
use crate::object::Object;
use crate::resources::{GroupResource, Registry};

/// Namespaces that exist in every cluster.
const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];
/// How often the cache is asked for what was just written.
const CACHE_POLL: Duration = Duration::from_millis(5);
/// The highest value that users' own classes may not reach.
const SYSTEM_CRITICAL_PRIORITY: i64 = 2_000_000_000;

pub async fn namespaces(loopback: &Loopback, registry: &Registry) -> Result<(), Status> {
    let store = registry.store("", "namespaces");
    for name in NAMESPACES {
        if store.cached("", name).is_none() {
            let object = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
            loopback.create("/api/v1/namespaces", &object).await?;
        }
    }
    Ok(())
}

/// The `kubernetes` ServiceCIDR: the ranges of the flag, ready. Ranges that are there are left as they are, but
/// for a second one that the flag adds.
pub async fn service_cidr(loopback: &Loopback, registry: &Registry, ranges: &[String]) -> Result<(), Status> {
    const COLLECTION: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    let resource = GroupResource::new("networking.k8s.io", "servicecidrs");
    let Some(store) = registry.get(&resource).filter(|_| !ranges.is_empty()) else { return Ok(()) };
    let path = format!("{COLLECTION}/kubernetes");
    let found = match store.cached("", "kubernetes") {
        Some(found) => Some(found.tree()),
        None => loopback.get(&path).await?,
    };
    let Some(mut found) = found else {
        let object = json!({"kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1",
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ranges}});
        loopback.create(COLLECTION, &object).await?;
        let Some(made) = loopback.get(&path).await? else { return Ok(()) };
        ready_service_cidr(loopback, &path, made, ranges).await?;
        // Services are given addresses from what the cache has.
        while store.cached("", "kubernetes").is_none() {
            tokio::time::sleep(CACHE_POLL).await;
        }
        return Ok(());
    };
    if ranges.len() == 2 && found["spec"]["cidrs"] == json!([ranges[0]]) {
        found["spec"]["cidrs"] = json!(ranges);
        return loopback.update(&path, &found).await;
    }
    ready_service_cidr(loopback, &path, found, ranges).await
}

/// Says that it is ready, unless something was said already or it is not ours.
async fn ready_service_cidr(
    loopback: &Loopback,
    path: &str,
    mut found: Object,
    ranges: &[String],
) -> Result<(), Status> {
    let deleting = !found["metadata"]["deletionTimestamp"].is_null();
    if deleting || found["spec"]["cidrs"] != json!(ranges) {
        return Ok(());
    }
    let mut conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
    if conditions.iter().any(|c| c["type"] == "Ready" && c["status"] != "Unknown") {
        return Ok(());
    }
    conditions.retain(|c| c["type"] != "Ready");
    conditions.push(json!({"type": "Ready", "status": "True", "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}));
    found["status"] = json!({ "conditions": conditions });
    loopback.update(&format!("{path}/status"), &found).await
}

pub async fn priority_classes(loopback: &Loopback, registry: &Registry) -> Result<(), Status> {
    let classes = [
        (
            "system-node-critical",
            SYSTEM_CRITICAL_PRIORITY + 1000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            SYSTEM_CRITICAL_PRIORITY,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ];
    let store = registry.store("scheduling.k8s.io", "priorityclasses");
    for (name, value, description) in classes {
        if store.cached("", name).is_none() {
            let object = json!({
                "kind": "PriorityClass",
                "apiVersion": "scheduling.k8s.io/v1",
                "metadata": {"name": name},
                "value": value,
                "description": description,
            });
            loopback.create("/apis/scheduling.k8s.io/v1/priorityclasses", &object).await?;
        }
    }
    Ok(())
}
