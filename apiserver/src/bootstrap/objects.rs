//! Objects of fixed content.

use common::status::Status;
use serde_json::json;

use super::Loopback;
use crate::resources::Registry;

/// Namespaces that exist in every cluster.
const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];
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
