//! What of an object its printer reads. Most of a large object is what nobody prints: managed fields, the insides of
//! containers, the values of a config map.
//!
//! A kind that has no row here is read whole but for what no printer looks at; a test compares what is printed of
//! parts and of the whole.

use super::Printer;
use crate::json::Parts;

/// Group, kind, and paths as [`Parts::of`] has them. Name and age are read of every kind.
const READ: &[(&str, &str, &[&str])] = &[
    (
        "",
        "Pod",
        &[
            "metadata.deletionTimestamp",
            "spec.containers.name",
            "spec.initContainers.name",
            "spec.initContainers.restartPolicy",
            "spec.nodeName",
            "spec.readinessGates",
            "status.conditions.reason",
            "status.conditions.status",
            "status.conditions.type",
            "status.containerStatuses.lastState.terminated.finishedAt",
            "status.containerStatuses.ready",
            "status.containerStatuses.restartCount",
            "status.containerStatuses.state",
            "status.initContainerStatuses",
            "status.nominatedNodeName",
            "status.phase",
            "status.podIPs",
            "status.reason",
        ],
    ),
    ("apps", "Deployment", SET),
    ("apps", "ReplicaSet", SET),
    ("", "ReplicationController", SET),
    ("apps", "StatefulSet", SET),
    ("apps", "DaemonSet", SET),
    ("apps", "ControllerRevision", &["metadata.ownerReferences", "revision"]),
    (
        "batch",
        "Job",
        &[
            "metadata.deletionTimestamp",
            "spec.completions",
            "spec.parallelism",
            "spec.selector",
            "spec.template.spec.containers.image",
            "spec.template.spec.containers.name",
            "status",
        ],
    ),
    (
        "batch",
        "CronJob",
        &[
            "spec.jobTemplate.spec.selector",
            "spec.jobTemplate.spec.template.spec.containers.image",
            "spec.jobTemplate.spec.template.spec.containers.name",
            "spec.schedule",
            "spec.suspend",
            "spec.timeZone",
            "status",
        ],
    ),
    (
        "",
        "Node",
        &[
            "metadata.labels",
            "spec.unschedulable",
            "status.addresses",
            "status.conditions.status",
            "status.conditions.type",
            "status.nodeInfo",
        ],
    ),
    ("", "ConfigMap", &["binaryData.*", "data.*"]),
    ("", "Secret", &["data.*", "type"]),
];

/// What keeps pods running.
const SET: &[&str] = &[
    "spec.replicas",
    "spec.selector",
    "spec.template.spec.containers.image",
    "spec.template.spec.containers.name",
    "spec.template.spec.nodeSelector",
    "status",
];

pub(super) fn of(printer: &Printer) -> Parts {
    const OF_ALL: &[&str] = &["metadata.name", "metadata.creationTimestamp"];
    if printer.kind.is_empty() {
        return Parts::of(OF_ALL);
    }
    match READ.iter().find(|(group, kind, _)| *group == printer.group && *kind == printer.kind) {
        Some((_, _, paths)) => Parts::of(&[OF_ALL, paths].concat()),
        None => {
            let unread = vec![("managedFields", Parts::Nothing), ("annotations", Parts::Nothing)];
            let metadata = Parts::Rest(unread, Box::new(Parts::All));
            Parts::Rest(vec![("metadata", metadata)], Box::new(Parts::All))
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::printers;
    use super::*;
    use crate::json;
    use crate::protobuf::fixtures;

    #[test]
    fn what_is_printed_of_parts_is_what_is_printed_of_the_whole() {
        let now = Timestamp::now();
        let mut known = 0;
        for fixture in fixtures::all() {
            let whole = fixture.tree();
            let version = whole["apiVersion"].as_str().unwrap_or_default();
            let group = version.split_once('/').map_or("", |(group, _)| group);
            for printer in printers().filter(|p| p.group == group && whole["kind"] == p.kind) {
                known += 1;
                let picked = json::pick(fixture.json.as_bytes(), &of(printer)).expect("an object");
                let [parts, whole] = [&picked.tree, &whole].map(|object| (printer.cells)(object, now));
                assert_eq!(parts, whole, "{group} {}", printer.kind);
            }
        }
        assert!(known > 40, "{known} kinds were printed");
        for (group, kind, _) in READ {
            assert!(printers().any(|p| p.group == *group && p.kind == *kind), "{kind} has a printer");
        }
    }
}
