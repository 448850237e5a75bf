//! Devices and drivers: dynamic resource allocation, CSI, and the newer kinds of networking, scheduling,
//! certificates and coordination.

use serde_json::Value;

use super::{Printer, age, flag, labels, list, map, name, number, since, text, text_or};

const AGE: (&str, &str, u8) = ("Age", "string", 0);
const NAME: (&str, &str, u8) = ("Name", "string", 0);

pub(super) const PRINTERS: &[Printer] = &[
    aged("resource.k8s.io", "DeviceClass"),
    aged("resource.k8s.io", "ResourceClaimTemplate"),
    aged("scheduling.k8s.io", "Workload"),
    Printer {
        group: "resource.k8s.io",
        kind: "ResourceClaim",
        columns: &[NAME, ("State", "string", 0), AGE],
        cells: |o, now| {
            let deleted = !text(o, "/metadata/deletionTimestamp").is_empty();
            let mut states = Vec::new();
            if deleted {
                states.push("deleted");
            }
            if o.pointer("/status/allocation").is_some() {
                states.push("allocated");
                if !list(o, "/status/reservedFor").is_empty() {
                    states.push("reserved");
                }
            } else if !deleted {
                states.push("pending");
            }
            vec![name(o), states.join(",").into(), age(o, now)]
        },
    },
    Printer {
        group: "resource.k8s.io",
        kind: "ResourceSlice",
        columns: &[NAME, ("Node", "string", 0), ("Driver", "string", 0), ("Pool", "string", 0), AGE],
        cells: |o, now| {
            let mut cells = vec![name(o)];
            cells.extend(["/spec/nodeName", "/spec/driver", "/spec/pool/name"].map(|p| text(o, p).into()));
            cells.push(age(o, now));
            cells
        },
    },
    Printer {
        group: "resource.k8s.io",
        kind: "DeviceTaintRule",
        columns: &[
            NAME,
            ("Key", "string", 0),
            ("Value", "string", 0),
            ("Effect", "string", 0),
            ("TimeAdded", "string", 0),
            AGE,
        ],
        cells: |o, now| {
            vec![
                name(o),
                text(o, "/spec/taint/key").into(),
                text(o, "/spec/taint/value").into(),
                text(o, "/spec/taint/effect").into(),
                since(text(o, "/spec/taint/timeAdded"), now).into(),
                age(o, now),
            ]
        },
    },
    Printer {
        group: "resource.k8s.io",
        kind: "ResourcePoolStatusRequest",
        columns: &[
            NAME,
            ("Driver", "string", 0),
            ("Total", "string", 0),
            ("Available", "string", 0),
            ("Allocated", "string", 0),
            ("Unavailable", "string", 0),
            ("Errors", "string", 0),
            ("Pools", "integer", 0),
            ("Status", "string", 0),
            ("Completed", "string", 0),
        ],
        cells: pool_status,
    },
    Printer {
        group: "storage.k8s.io",
        kind: "CSIDriver",
        columns: &[
            NAME,
            ("AttachRequired", "boolean", 0),
            ("PodInfoOnMount", "boolean", 0),
            ("StorageCapacity", "boolean", 0),
            ("TokenRequests", "string", 0),
            ("RequiresRepublish", "boolean", 0),
            ("Modes", "string", 0),
            AGE,
        ],
        cells: |o, now| {
            let attach = o.pointer("/spec/attachRequired").and_then(Value::as_bool).unwrap_or(true);
            let audiences: Vec<&str> =
                list(o, "/spec/tokenRequests").iter().map(|r| text(r, "/audience")).collect();
            let requests = match o.pointer("/spec/tokenRequests") {
                Some(_) => audiences.join(","),
                None => "<unset>".to_owned(),
            };
            let modes: Vec<&str> =
                list(o, "/spec/volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
            let modes = if modes.is_empty() { "<none>".to_owned() } else { modes.join(",") };
            vec![
                name(o),
                attach.into(),
                flag(o, "/spec/podInfoOnMount").into(),
                flag(o, "/spec/storageCapacity").into(),
                requests.into(),
                flag(o, "/spec/requiresRepublish").into(),
                modes.into(),
                age(o, now),
            ]
        },
    },
    Printer {
        group: "storage.k8s.io",
        kind: "CSIStorageCapacity",
        columns: &[NAME, ("StorageClassName", "string", 0), ("Capacity", "string", 0)],
        cells: |o, _| {
            vec![name(o), text(o, "/storageClassName").into(), text_or(o, "/capacity", "<unset>").into()]
        },
    },
    Printer {
        group: "storage.k8s.io",
        kind: "VolumeAttributesClass",
        columns: &[NAME, ("DriverName", "string", 0), AGE],
        cells: |o, now| vec![name(o), text(o, "/driverName").into(), age(o, now)],
    },
    Printer {
        group: "networking.k8s.io",
        kind: "ServiceCIDR",
        columns: &[NAME, ("CIDRs", "string", 0), AGE],
        cells: |o, now| {
            let ranges: Vec<&str> = list(o, "/spec/cidrs").iter().filter_map(Value::as_str).collect();
            vec![name(o), ranges.join(",").into(), age(o, now)]
        },
    },
    Printer {
        group: "networking.k8s.io",
        kind: "IPAddress",
        columns: &[NAME, ("ParentRef", "string", 0), AGE],
        cells: |o, now| {
            let parent = match o.pointer("/spec/parentRef") {
                None => "<none>".to_owned(),
                Some(parent) => {
                    let resource =
                        common::status::qualified(text(parent, "/group"), text(parent, "/resource"));
                    let namespace = text(parent, "/namespace");
                    let parts =
                        [resource.to_lowercase(), namespace.to_owned(), text(parent, "/name").to_owned()];
                    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
                }
            };
            vec![name(o), parent.into(), age(o, now)]
        },
    },
    Printer {
        group: "certificates.k8s.io",
        kind: "ClusterTrustBundle",
        columns: &[NAME, ("SignerName", "string", 0)],
        cells: |o, _| vec![name(o), text_or(o, "/spec/signerName", "<none>").into()],
    },
    Printer {
        group: "certificates.k8s.io",
        kind: "PodCertificateRequest",
        columns: &[
            NAME,
            ("PodName", "string", 0),
            ("ServiceAccountName", "string", 0),
            ("NodeName", "string", 0),
            ("SignerName", "string", 0),
            ("State", "string", 0),
            ("UnverifiedUserAnnotations", "string", 1),
        ],
        cells: |o, _| {
            let state = list(o, "/status/conditions")
                .iter()
                .map(|c| text(c, "/type"))
                .rfind(|kind| matches!(*kind, "Issued" | "Denied" | "Failed"));
            vec![
                name(o),
                text(o, "/spec/podName").into(),
                text(o, "/spec/serviceAccountName").into(),
                text(o, "/spec/nodeName").into(),
                text(o, "/spec/signerName").into(),
                state.unwrap_or("Pending").into(),
                labels(map(o, "/spec/unverifiedUserAnnotations")).into(),
            ]
        },
    },
    Printer {
        group: "coordination.k8s.io",
        kind: "LeaseCandidate",
        columns: &[
            NAME,
            ("LeaseName", "string", 0),
            ("BinaryVersion", "string", 0),
            ("EmulationVersion", "string", 0),
            AGE,
        ],
        cells: |o, now| {
            let mut cells = vec![name(o)];
            let texts = ["/spec/leaseName", "/spec/binaryVersion", "/spec/emulationVersion"];
            cells.extend(texts.map(|pointer| text(o, pointer).into()));
            cells.push(age(o, now));
            cells
        },
    },
    Printer {
        group: "scheduling.k8s.io",
        kind: "PodGroup",
        columns: &[NAME, ("Policy", "string", 0), ("Workload", "string", 0), ("Status", "string", 0), AGE],
        cells: |o, now| {
            let policy = if o.pointer("/spec/schedulingPolicy/gang").is_some() { "Gang" } else { "Basic" };
            let condition =
                |kind: &str| list(o, "/status/conditions").iter().find(|c| text(c, "/type") == kind);
            let status = match (condition("DisruptionTarget"), condition("PodGroupScheduled")) {
                (Some(target), _) => text(target, "/reason"),
                (None, Some(scheduled)) if text(scheduled, "/status") == "True" => "Scheduled",
                (None, Some(_)) => "Unschedulable",
                (None, None) => "Pending",
            };
            let workload = text_or(o, "/spec/podGroupTemplateRef/workload/workloadName", "<none>");
            vec![name(o), policy.into(), workload.into(), status.into(), age(o, now)]
        },
    },
];

const fn aged(group: &'static str, kind: &'static str) -> Printer {
    Printer { group, kind, columns: &[NAME, AGE], cells: |o, now| vec![name(o), age(o, now)] }
}

fn pool_status(o: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let conditions = list(o, "/status/conditions");
    let ended = conditions
        .iter()
        .find(|c| text(c, "/status") == "True" && matches!(text(c, "/type"), "Complete" | "Failed"));
    let pools = list(o, "/status/pools");
    let count = number(o, "/status/poolCount");
    let (status, completed) = match ended.map(|c| (text(c, "/type"), c)) {
        None => ("Pending".to_owned(), "<none>".to_owned()),
        Some(("Complete", condition)) => {
            let status = if count > pools.len() as i64 {
                format!("Complete ({}/{count} pools)", pools.len())
            } else {
                "Complete".to_owned()
            };
            (status, since(text(condition, "/lastTransitionTime"), now))
        }
        Some(_) => ("Failed".to_owned(), "<none>".to_owned()),
    };
    let counted = o.get("status").is_some() && status != "Failed";
    let sum = |key: &str| -> Value {
        if !counted {
            return "-".into();
        }
        pools.iter().map(|pool| number(pool, key)).sum::<i64>().to_string().into()
    };
    let errors = pools.iter().filter(|pool| pool.pointer("/validationError").is_some()).count();
    vec![
        name(o),
        text(o, "/spec/driver").into(),
        sum("/totalDevices"),
        sum("/availableDevices"),
        sum("/allocatedDevices"),
        sum("/unavailableDevices"),
        if counted { errors.to_string().into() } else { "-".into() },
        count.into(),
        status.into(),
        completed.into(),
    ]
}
