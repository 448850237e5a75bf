//! Volumes, claims and their classes; and the autoscaler.

use serde_json::Value;

use super::{Printer, age, list, map, name, number, text, text_or};

pub(super) const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        kind: "PersistentVolume",
        columns: &[
            ("Name", "string", 0),
            ("Capacity", "string", 0),
            ("Access Modes", "string", 0),
            ("Reclaim Policy", "string", 0),
            ("Status", "string", 0),
            ("Claim", "string", 0),
            ("StorageClass", "string", 0),
            ("VolumeAttributesClass", "string", 0),
            ("Reason", "string", 0),
            ("Age", "string", 0),
            ("VolumeMode", "string", 1),
        ],
        cells: |o, now| {
            let claim = match o.pointer("/spec/claimRef") {
                Some(claim) => format!("{}/{}", text(claim, "/namespace"), text(claim, "/name")),
                None => String::new(),
            };
            vec![
                name(o),
                text_or(o, "/spec/capacity/storage", "0").into(),
                access_modes(o, "/spec/accessModes").into(),
                text(o, "/spec/persistentVolumeReclaimPolicy").into(),
                phase(o),
                claim.into(),
                text(o, "/spec/storageClassName").into(),
                text_or(o, "/spec/volumeAttributesClassName", "<unset>").into(),
                text(o, "/status/reason").into(),
                age(o, now),
                text_or(o, "/spec/volumeMode", "<unset>").into(),
            ]
        },
    },
    Printer {
        group: "",
        kind: "PersistentVolumeClaim",
        columns: &[
            ("Name", "string", 0),
            ("Status", "string", 0),
            ("Volume", "string", 0),
            ("Capacity", "string", 0),
            ("Access Modes", "string", 0),
            ("StorageClass", "string", 0),
            ("VolumeAttributesClass", "string", 0),
            ("Age", "string", 0),
            ("VolumeMode", "string", 1),
        ],
        cells: |o, now| {
            let bound = !text(o, "/spec/volumeName").is_empty();
            let (capacity, modes) = if bound {
                (text_or(o, "/status/capacity/storage", "0"), access_modes(o, "/status/accessModes"))
            } else {
                ("", String::new())
            };
            vec![
                name(o),
                phase(o),
                text(o, "/spec/volumeName").into(),
                capacity.into(),
                modes.into(),
                text(o, "/spec/storageClassName").into(),
                text_or(o, "/spec/volumeAttributesClassName", "<unset>").into(),
                age(o, now),
                text_or(o, "/spec/volumeMode", "<unset>").into(),
            ]
        },
    },
    Printer {
        group: "storage.k8s.io",
        kind: "StorageClass",
        columns: &[
            ("Name", "string", 0),
            ("Provisioner", "string", 0),
            ("ReclaimPolicy", "string", 0),
            ("VolumeBindingMode", "string", 0),
            ("AllowVolumeExpansion", "string", 0),
            ("Age", "string", 0),
        ],
        cells: |o, now| {
            let default = map(o, "/metadata/annotations")
                .and_then(|a| a.get("storageclass.kubernetes.io/is-default-class"))
                .is_some_and(|v| v == "true");
            let shown = format!("{}{}", text(o, "/metadata/name"), if default { " (default)" } else { "" });
            vec![
                shown.into(),
                text(o, "/provisioner").into(),
                text_or(o, "/reclaimPolicy", "Delete").into(),
                text_or(o, "/volumeBindingMode", "Immediate").into(),
                super::flag(o, "/allowVolumeExpansion").into(),
                age(o, now),
            ]
        },
    },
    Printer {
        group: "storage.k8s.io",
        kind: "CSINode",
        columns: &[("Name", "string", 0), ("Drivers", "integer", 0), ("Age", "string", 0)],
        cells: |o, now| vec![name(o), list(o, "/spec/drivers").len().into(), age(o, now)],
    },
    Printer {
        group: "storage.k8s.io",
        kind: "VolumeAttachment",
        columns: &[
            ("Name", "string", 0),
            ("Attacher", "string", 0),
            ("PV", "string", 0),
            ("Node", "string", 0),
            ("Attached", "boolean", 0),
            ("Age", "string", 0),
        ],
        cells: |o, now| {
            vec![
                name(o),
                text(o, "/spec/attacher").into(),
                text(o, "/spec/source/persistentVolumeName").into(),
                text(o, "/spec/nodeName").into(),
                super::flag(o, "/status/attached").into(),
                age(o, now),
            ]
        },
    },
    Printer {
        group: "autoscaling",
        kind: "HorizontalPodAutoscaler",
        columns: &[
            ("Name", "string", 0),
            ("Reference", "string", 0),
            ("Targets", "string", 0),
            ("MinPods", "string", 0),
            ("MaxPods", "string", 0),
            ("Replicas", "string", 0),
            ("Age", "string", 0),
        ],
        cells: |o, now| {
            let reference =
                format!("{}/{}", text(o, "/spec/scaleTargetRef/kind"), text(o, "/spec/scaleTargetRef/name"));
            let min = o.pointer("/spec/minReplicas").and_then(Value::as_i64);
            vec![
                name(o),
                reference.into(),
                targets(o).into(),
                min.map_or_else(|| "<unset>".into(), |n| n.to_string()).into(),
                number(o, "/spec/maxReplicas").into(),
                number(o, "/status/currentReplicas").into(),
                age(o, now),
            ]
        },
    },
];

fn phase(o: &Value) -> Value {
    if o.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null()) {
        return "Terminating".into();
    }
    text(o, "/status/phase").into()
}

fn access_modes(o: &Value, pointer: &str) -> String {
    let present: Vec<&str> = list(o, pointer).iter().filter_map(Value::as_str).collect();
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let shown: Vec<&str> =
        short.iter().filter(|(long, _)| present.contains(long)).map(|(_, short)| *short).collect();
    shown.join(",")
}

/// `cpu: 12%/80%` for resource metrics, the metric's kind for others.
fn targets(o: &Value) -> String {
    let parts: Vec<String> = list(o, "/spec/metrics")
        .iter()
        .enumerate()
        .map(|(i, metric)| {
            let resource = text(metric, "/resource/name");
            if resource.is_empty() {
                return format!("<unknown>/{}", text(metric, "/type"));
            }
            let current =
                |field: &str| o.pointer(&format!("/status/currentMetrics/{i}/resource/current/{field}"));
            match metric.pointer("/resource/target/averageUtilization").and_then(Value::as_i64) {
                Some(wanted) => {
                    let now = current("averageUtilization").and_then(Value::as_i64);
                    let now = now.map_or_else(|| "<unknown>".into(), |n| format!("{n}%"));
                    format!("{resource}: {now}/{wanted}%")
                }
                None => {
                    let now = current("averageValue").and_then(Value::as_str).unwrap_or("<unknown>");
                    format!(
                        "{resource}: {now}/{}",
                        text_or(metric, "/resource/target/averageValue", "<auto>")
                    )
                }
            }
        })
        .collect();
    if parts.is_empty() { "<none>".into() } else { parts.join(", ") }
}
