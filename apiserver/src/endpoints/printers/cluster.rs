//! Nodes, namespaces, events, access rules and the small kinds of the core.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, Printer, age, flag, human, list, map, name, number, since, text, text_or};

const NAME_AGE: &[Column] = &[("Name", "string", 0), ("Age", "string", 0)];
const NAME_CREATED: &[Column] = &[("Name", "string", 0), ("Created At", "date", 0)];
const BINDING: &[Column] = &[
    ("Name", "string", 0),
    ("Role", "string", 0),
    ("Age", "string", 0),
    ("Users", "string", 1),
    ("Groups", "string", 1),
    ("ServiceAccounts", "string", 1),
];
const EVENT: &[Column] = &[
    ("Last Seen", "string", 0),
    ("Type", "string", 0),
    ("Reason", "string", 0),
    ("Object", "string", 0),
    ("Subobject", "string", 1),
    ("Source", "string", 1),
    ("Message", "string", 0),
    ("First Seen", "string", 1),
    ("Count", "string", 1),
    ("Name", "string", 1),
];

pub(super) const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        kind: "Node",
        columns: &[
            ("Name", "string", 0),
            ("Status", "string", 0),
            ("Roles", "string", 0),
            ("Age", "string", 0),
            ("Version", "string", 0),
            ("Internal-IP", "string", 1),
            ("External-IP", "string", 1),
            ("OS-Image", "string", 1),
            ("Kernel-Version", "string", 1),
            ("Container-Runtime", "string", 1),
        ],
        cells: node,
    },
    Printer {
        group: "",
        kind: "Namespace",
        columns: &[("Name", "string", 0), ("Status", "string", 0), ("Age", "string", 0)],
        cells: |o, now| vec![name(o), text(o, "/status/phase").into(), age(o, now)],
    },
    Printer {
        group: "",
        kind: "ConfigMap",
        columns: &[("Name", "string", 0), ("Data", "string", 0), ("Age", "string", 0)],
        cells: |o, now| {
            let count = map(o, "/data").map_or(0, serde_json::Map::len)
                + map(o, "/binaryData").map_or(0, serde_json::Map::len);
            vec![name(o), count.into(), age(o, now)]
        },
    },
    Printer {
        group: "",
        kind: "Secret",
        columns: &[("Name", "string", 0), ("Type", "string", 0), ("Data", "string", 0), ("Age", "string", 0)],
        cells: |o, now| {
            vec![
                name(o),
                text(o, "/type").into(),
                map(o, "/data").map_or(0, serde_json::Map::len).into(),
                age(o, now),
            ]
        },
    },
    Printer {
        group: "",
        kind: "ServiceAccount",
        columns: NAME_AGE,
        cells: |o, now| vec![name(o), age(o, now)],
    },
    Printer { group: "", kind: "Event", columns: EVENT, cells: |o, now| event(o, now, &CORE_EVENT) },
    Printer {
        group: "events.k8s.io",
        kind: "Event",
        columns: EVENT,
        cells: |o, now| event(o, now, &NEW_EVENT),
    },
    Printer {
        group: "",
        kind: "ResourceQuota",
        columns: &[
            ("Name", "string", 0),
            ("Request", "string", 0),
            ("Limit", "string", 0),
            ("Age", "string", 0),
        ],
        cells: |o, now| {
            let [requests, limits] = [false, true].map(|limits| quota(o, limits));
            vec![name(o), requests.into(), limits.into(), age(o, now)]
        },
    },
    Printer {
        group: "coordination.k8s.io",
        kind: "Lease",
        columns: &[("Name", "string", 0), ("Holder", "string", 0), ("Age", "string", 0)],
        cells: |o, now| vec![name(o), text(o, "/spec/holderIdentity").into(), age(o, now)],
    },
    Printer { group: "rbac.authorization.k8s.io", kind: "Role", columns: NAME_CREATED, cells: created },
    Printer {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRole",
        columns: NAME_CREATED,
        cells: created,
    },
    Printer { group: "rbac.authorization.k8s.io", kind: "RoleBinding", columns: BINDING, cells: binding },
    Printer {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRoleBinding",
        columns: BINDING,
        cells: binding,
    },
    Printer {
        group: "certificates.k8s.io",
        kind: "CertificateSigningRequest",
        columns: &[
            ("Name", "string", 0),
            ("Age", "string", 0),
            ("SignerName", "string", 0),
            ("Requestor", "string", 0),
            ("RequestedDuration", "string", 0),
            ("Condition", "string", 0),
        ],
        cells: |o, now| {
            let duration = o.pointer("/spec/expirationSeconds").and_then(Value::as_i64);
            vec![
                name(o),
                age(o, now),
                text_or(o, "/spec/signerName", "<none>").into(),
                text(o, "/spec/username").into(),
                duration.map_or_else(|| "<none>".into(), human::duration).into(),
                request_state(o).into(),
            ]
        },
    },
    Printer {
        group: "scheduling.k8s.io",
        kind: "PriorityClass",
        columns: &[
            ("Name", "string", 0),
            ("Value", "integer", 0),
            ("Global-Default", "boolean", 0),
            ("Age", "string", 0),
            ("PreemptionPolicy", "string", 0),
        ],
        cells: |o, now| {
            let policy = text(o, "/preemptionPolicy").into();
            vec![name(o), number(o, "/value").into(), flag(o, "/globalDefault").into(), age(o, now), policy]
        },
    },
    Printer {
        group: "node.k8s.io",
        kind: "RuntimeClass",
        columns: &[("Name", "string", 0), ("Handler", "string", 0), ("Age", "string", 0)],
        cells: |o, now| vec![name(o), text(o, "/handler").into(), age(o, now)],
    },
];

fn created(o: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(o), text(o, "/metadata/creationTimestamp").into()]
}

fn node(o: &Value, now: Timestamp) -> Vec<Value> {
    let ready = list(o, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
    let mut status = match ready.map(|c| text(c, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if flag(o, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let roles: Vec<&str> = map(o, "/metadata/labels")
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role).filter(|r| !r.is_empty()),
            None if key == "kubernetes.io/role" => value.as_str().filter(|v| !v.is_empty()),
            None => None,
        })
        .collect();
    let roles = if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") };
    let address = |kind: &str| {
        let found = list(o, "/status/addresses").iter().find(|a| text(a, "/type") == kind);
        Value::from(found.map_or("<none>", |a| text(a, "/address")))
    };
    let mut kernel = text_or(o, "/status/nodeInfo/kernelVersion", "<unknown>").to_owned();
    let architecture = text(o, "/status/nodeInfo/architecture");
    if !architecture.is_empty() {
        kernel.push_str(&format!(" ({architecture})"));
    }
    vec![
        name(o),
        status.into(),
        roles.into(),
        age(o, now),
        text(o, "/status/nodeInfo/kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        text_or(o, "/status/nodeInfo/osImage", "<unknown>").into(),
        kernel.into(),
        text_or(o, "/status/nodeInfo/containerRuntimeVersion", "<unknown>").into(),
    ]
}

/// Where the two forms of an event keep the same things.
struct EventPointers {
    object: &'static str,
    message: &'static str,
    component: &'static str,
    host: &'static str,
    first: &'static str,
    last: &'static str,
    count: &'static str,
    instance: &'static str,
    controller: &'static str,
}

const CORE_EVENT: EventPointers = EventPointers {
    object: "/involvedObject",
    message: "/message",
    component: "/source/component",
    host: "/source/host",
    first: "/firstTimestamp",
    last: "/lastTimestamp",
    count: "/count",
    instance: "/reportingInstance",
    controller: "/reportingComponent",
};
const NEW_EVENT: EventPointers = EventPointers {
    object: "/regarding",
    message: "/note",
    component: "/deprecatedSource/component",
    host: "/deprecatedSource/host",
    first: "/deprecatedFirstTimestamp",
    last: "/deprecatedLastTimestamp",
    count: "/deprecatedCount",
    instance: "/reportingInstance",
    controller: "/reportingController",
};

fn event(o: &Value, now: Timestamp, at: &EventPointers) -> Vec<Value> {
    let first = since(text_or(o, at.first, text(o, "/eventTime")), now);
    let mut last = match text(o, at.last) {
        "" => first.clone(),
        time => since(time, now),
    };
    let mut count = number(o, at.count).max(1);
    if o.pointer("/series").is_some_and(|s| !s.is_null()) {
        last = since(text(o, "/series/lastObservedTime"), now);
        count = number(o, "/series/count");
    }
    let field = |name: &str| text(o, &format!("{}/{name}", at.object)).to_owned();
    let (kind, object) = (field("kind").to_lowercase(), field("name"));
    let target = if object.is_empty() { kind } else { format!("{kind}/{object}") };
    let component = text_or(o, at.component, text(o, at.controller));
    let host = text_or(o, at.host, text(o, at.instance));
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    vec![
        last.into(),
        text(o, "/type").into(),
        text(o, "/reason").into(),
        target.into(),
        field("fieldPath").into(),
        source.into(),
        text(o, at.message).trim().into(),
        first.into(),
        count.into(),
        name(o),
    ]
}

fn binding(o: &Value, now: Timestamp) -> Vec<Value> {
    let of = |kind: &str| {
        let names: Vec<String> = list(o, "/subjects")
            .iter()
            .filter(|s| text(s, "/kind") == kind)
            .map(|s| match text(s, "/namespace") {
                "" => text(s, "/name").to_owned(),
                namespace => format!("{namespace}/{}", text(s, "/name")),
            })
            .collect();
        Value::from(names.join(", "))
    };
    let role = format!("{}/{}", text(o, "/roleRef/kind"), text(o, "/roleRef/name"));
    vec![name(o), role.into(), age(o, now), of("User"), of("Group"), of("ServiceAccount")]
}

fn request_state(o: &Value) -> String {
    let has = |kind: &str| list(o, "/status/conditions").iter().any(|c| text(c, "/type") == kind);
    let mut state = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !text(o, "/status/certificate").is_empty() {
        state.push_str(",Issued");
    }
    state
}

fn quota(o: &Value, limits: bool) -> String {
    let parts: Vec<String> = map(o, "/status/hard")
        .into_iter()
        .flatten()
        .filter(|(resource, _)| resource.starts_with("limits.") == limits)
        .map(|(resource, hard)| {
            let used =
                map(o, "/status/used").and_then(|u| u.get(resource)).and_then(Value::as_str).unwrap_or("0");
            format!("{resource}: {used}/{}", hard.as_str().unwrap_or("0"))
        })
        .collect();
    parts.join(", ")
}
