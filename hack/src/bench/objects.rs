//! What is written: a pod as workloads have them, and a node's lease.

use serde_json::{Value, json};

/// Pods are spread over so many labels and scheduler names, for lists by selector.
pub const GROUPS: usize = 50;

/// What a server adds when it stores a pod: system fields, defaults, tolerations and who owns which field.
pub const ADDED_BYTES: usize = 2000;

/// A pod of about 2 KB, which is stored and served as 4 KB. No scheduler knows its scheduler's name, so it is never
/// run.
pub fn pod(name: &str, index: usize) -> Value {
    let group = index % GROUPS;
    let container = |name: &str, port: u16| {
        json!({
            "name": name,
            "image": format!("registry.example.com/team-{group}/{name}:v1.24.{index}"),
            "imagePullPolicy": "IfNotPresent",
            "args": ["--listen", format!("0.0.0.0:{port}"), "--log-format", "json", "--config", "/etc/app/config.yaml"],
            "ports": [{"name": format!("http-{port}"), "containerPort": port, "protocol": "TCP"}],
            "env": [
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
                {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}},
                {"name": "DATABASE_URL", "value": format!("postgres://app-{group}.database.svc.cluster.local:5432/app?sslmode=verify-full")},
                {"name": "FEATURES", "value": "checkout,search,recommendations,reviews,notifications"},
            ],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": port, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3},
            "livenessProbe": {"httpGet": {"path": "/live", "port": port, "scheme": "HTTP"}, "initialDelaySeconds": 15, "periodSeconds": 20, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3},
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "volumeMounts": [{"name": "config", "mountPath": "/etc/app", "readOnly": true}, {"name": "scratch", "mountPath": "/tmp"}],
        })
    };
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/name": "web",
                "app.kubernetes.io/instance": format!("web-{group}"),
                "app.kubernetes.io/version": "1.24.0",
                "pod-template-hash": "6f7d8c9b54",
                "bench": format!("g{group}"),
            },
            "annotations": {
                "prometheus.io/scrape": "true",
                "prometheus.io/port": "8080",
                "checksum/config": "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945",
            },
        },
        "spec": {
            "schedulerName": format!("pintle-bench-{group}"),
            "automountServiceAccountToken": false,
            "containers": [container("app", 8080)],
            "volumes": [
                {"name": "config", "configMap": {"name": format!("web-{group}"), "defaultMode": 420}},
                {"name": "scratch", "emptyDir": {"sizeLimit": "64Mi"}},
            ],
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "web", "effect": "NoSchedule"}],
            "terminationGracePeriodSeconds": 30,
        },
    })
}

/// A lease as a kubelet holds it.
pub fn lease(name: &str) -> Value {
    json!({
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": name},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"},
    })
}

/// Another `renewTime` for each `turn`.
pub fn renewal(turn: usize) -> String {
    let (seconds, micros) = (turn / 1_000_000, turn % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(r#"{{"spec":{{"renewTime":"2026-01-02T{hours:02}:{minutes:02}:{seconds:02}.{micros:06}Z"}}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_pod_is_about_four_kilobytes() {
        let bytes = pod("web-00001", 1).to_string().len() + ADDED_BYTES;
        assert!((3600..4400).contains(&bytes), "{bytes}");
    }

    #[test]
    fn every_renewal_is_another() {
        assert_ne!(renewal(1), renewal(2));
        assert!(renewal(3_600_000_001).contains("01:00:00.000001"));
    }
}
