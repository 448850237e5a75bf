//! Defaults of a pod spec.

use serde_json::{Value, json};

use super::images::default_pull_policy;
use super::resources;
use crate::registry::tree::{
    child_mut, default_to, default_zero, flag, has, items_mut, map_mut, remove, set, text,
};

/// What every pod spec gets, in a pod or in a template.
pub fn pod_spec(spec: &mut Value) {
    default_zero(spec, "dnsPolicy", "ClusterFirst");
    default_zero(spec, "restartPolicy", "Always");
    default_to(spec, "securityContext", json!({}));
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_zero(spec, "schedulerName", "default-scheduler");
    service_account(spec);
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items_mut(spec, key) {
            self::container(container);
        }
    }
    for volume in items_mut(spec, "volumes") {
        self::volume(volume);
    }
    if let Some(overhead) = child_mut(spec, "overhead") {
        resources::default_list(overhead);
    }
    resource_lists(spec);
}

/// What pods get and templates do not (`SetDefaults_Pod`).
pub fn pod(spec: &mut Value) {
    for key in ["containers", "initContainers"] {
        items_mut(spec, key).iter_mut().for_each(resources::requests_from_limits);
    }
    default_to(spec, "enableServiceLinks", true);
    if flag(spec, "hostNetwork") {
        host_ports(spec);
    }
}

/// `serviceAccount` is the deprecated twin of `serviceAccountName`; both are shown.
fn service_account(spec: &mut Value) {
    let name = text(spec, "serviceAccountName").to_owned();
    let old = text(spec, "serviceAccount").to_owned();
    let name = if name.is_empty() { old } else { name };
    if name.is_empty() {
        remove(spec, "serviceAccount");
        remove(spec, "serviceAccountName");
    } else {
        set(spec, "serviceAccountName", name.clone());
        set(spec, "serviceAccount", name);
    }
}

fn host_ports(spec: &mut Value) {
    for key in ["containers", "initContainers"] {
        for container in items_mut(spec, key) {
            for port in items_mut(container, "ports") {
                if let Some(number) = port.get("containerPort").cloned() {
                    default_zero(port, "hostPort", number);
                }
            }
        }
    }
}

fn container(container: &mut Value) {
    let policy = default_pull_policy(text(container, "image"));
    default_zero(container, "imagePullPolicy", policy);
    default_zero(container, "terminationMessagePath", "/dev/termination-log");
    default_zero(container, "terminationMessagePolicy", "File");
    map_mut(container, "resources");
    resource_lists(container);
    for port in items_mut(container, "ports") {
        default_zero(port, "protocol", "TCP");
    }
    for variable in items_mut(container, "env") {
        if let Some(source) = child_mut(variable, "valueFrom") {
            if let Some(reference) = child_mut(source, "fieldRef") {
                default_zero(reference, "apiVersion", "v1");
            }
            if let Some(reference) = child_mut(source, "resourceFieldRef") {
                default_zero(reference, "divisor", "0");
            }
            if let Some(reference) = child_mut(source, "fileKeyRef") {
                default_to(reference, "optional", false);
            }
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child_mut(container, key) {
            self::probe(probe);
        }
    }
    if let Some(lifecycle) = child_mut(container, "lifecycle") {
        for key in ["postStart", "preStop"] {
            if let Some(handler) = child_mut(lifecycle, key) {
                http_get(handler);
            }
        }
    }
    if let Some(context) = child_mut(container, "securityContext")
        && has(context, "procMount")
    {
        default_zero(context, "procMount", "Default");
    }
}

fn resource_lists(owner: &mut Value) {
    if let Some(resources) = child_mut(owner, "resources") {
        for key in ["limits", "requests"] {
            if let Some(list) = child_mut(resources, key) {
                resources::default_list(list);
            }
        }
    }
}

fn probe(probe: &mut Value) {
    default_zero(probe, "timeoutSeconds", 1);
    default_zero(probe, "periodSeconds", 10);
    default_zero(probe, "successThreshold", 1);
    default_zero(probe, "failureThreshold", 3);
    http_get(probe);
    if let Some(grpc) = child_mut(probe, "grpc") {
        default_to(grpc, "service", "");
    }
}

fn http_get(handler: &mut Value) {
    if let Some(action) = child_mut(handler, "httpGet") {
        default_zero(action, "path", "/");
        default_zero(action, "scheme", "HTTP");
    }
}

const DEFAULT_MODE: i64 = 0o644;

/// The defaults of one volume, whose source is an empty directory when none is named.
pub fn volume(volume: &mut Value) {
    let bare = volume.as_object().is_some_and(|map| map.keys().all(|k| k == "name"));
    if bare {
        set(volume, "emptyDir", json!({}));
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child_mut(volume, key) {
            default_to(source, "defaultMode", DEFAULT_MODE);
        }
    }
    if let Some(source) = child_mut(volume, "downwardAPI") {
        downward_items(source);
    }
    if let Some(source) = child_mut(volume, "projected") {
        for part in items_mut(source, "sources") {
            if let Some(token) = child_mut(part, "serviceAccountToken") {
                default_to(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = child_mut(part, "downwardAPI") {
                downward_items(downward);
            }
        }
    }
    if let Some(source) = child_mut(volume, "hostPath") {
        default_to(source, "type", "");
    }
    if let Some(source) = child_mut(volume, "image") {
        let policy = default_pull_policy(text(source, "reference"));
        default_zero(source, "pullPolicy", policy);
    }
    if let Some(source) = child_mut(volume, "iscsi") {
        default_zero(source, "iscsiInterface", "default");
    }
    if let Some(source) = child_mut(volume, "rbd") {
        default_zero(source, "pool", "rbd");
        default_zero(source, "user", "admin");
        default_zero(source, "keyring", "/etc/ceph/keyring");
    }
    if let Some(source) = child_mut(volume, "azureDisk") {
        default_to(source, "cachingMode", "ReadWrite");
        default_to(source, "fsType", "ext4");
        default_to(source, "kind", "Shared");
        default_to(source, "readOnly", false);
    }
    if let Some(source) = child_mut(volume, "scaleIO") {
        default_zero(source, "storageMode", "ThinProvisioned");
        default_zero(source, "fsType", "xfs");
    }
    if let Some(template) = child_mut(volume, "ephemeral").and_then(|e| child_mut(e, "volumeClaimTemplate"))
        && let Some(spec) = child_mut(template, "spec")
    {
        claim_spec(spec);
    }
}

fn downward_items(source: &mut Value) {
    for item in items_mut(source, "items") {
        if let Some(reference) = child_mut(item, "fieldRef") {
            default_zero(reference, "apiVersion", "v1");
        }
        if let Some(reference) = child_mut(item, "resourceFieldRef") {
            default_zero(reference, "divisor", "0");
        }
    }
}

/// The defaults of a PersistentVolumeClaimSpec.
pub fn claim_spec(spec: &mut Value) {
    default_to(spec, "volumeMode", "Filesystem");
    resource_lists(spec);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_pod_gets_what_kubectl_shows() {
        let mut spec = json!({
            "containers": [{"name": "a", "image": "nginx", "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "x"}}],
            "serviceAccount": "sa"
        });
        pod_spec(&mut spec);
        pod(&mut spec);
        assert_eq!(
            spec,
            json!({
                "containers": [{"name": "a", "image": "nginx",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                    "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File", "resources": {}}],
                "volumes": [{"name": "v", "emptyDir": {}},
                    {"name": "c", "configMap": {"name": "x", "defaultMode": 420}}],
                "serviceAccount": "sa", "serviceAccountName": "sa", "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Always", "securityContext": {}, "terminationGracePeriodSeconds": 30,
                "schedulerName": "default-scheduler", "enableServiceLinks": true
            })
        );
    }
}
