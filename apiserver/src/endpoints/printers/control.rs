//! What governs the server itself: webhooks and policies, aggregated services, flow control, storage versions,
//! component statuses.

use serde_json::Value;

use super::{Printer, age, at_most_three, list, name, number, selector, text, text_or};

const AGE: (&str, &str, u8) = ("Age", "string", 0);
const NAME: (&str, &str, u8) = ("Name", "string", 0);

pub(super) const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        kind: "ComponentStatus",
        columns: &[NAME, ("Status", "string", 0), ("Message", "string", 0), ("Error", "string", 0)],
        cells: |o, _| {
            let healthy = list(o, "/conditions").iter().find(|c| text(c, "/type") == "Healthy");
            let status = match healthy.map(|c| text(c, "/status")) {
                None => "Unknown",
                Some("True") => "Healthy",
                Some(_) => "Unhealthy",
            };
            let said = |key| healthy.map_or("", |c| text(c, key));
            vec![name(o), status.into(), said("/message").into(), said("/error").into()]
        },
    },
    webhooks("MutatingWebhookConfiguration"),
    webhooks("ValidatingWebhookConfiguration"),
    Printer {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingAdmissionPolicy",
        columns: &[NAME, ("Validations", "integer", 0), ("ParamKind", "string", 0), AGE],
        cells: |o, now| vec![name(o), list(o, "/spec/validations").len().into(), param_kind(o), age(o, now)],
    },
    Printer {
        group: "admissionregistration.k8s.io",
        kind: "MutatingAdmissionPolicy",
        columns: &[NAME, ("Mutations", "integer", 0), ("ParamKind", "string", 0), AGE],
        cells: |o, now| vec![name(o), list(o, "/spec/mutations").len().into(), param_kind(o), age(o, now)],
    },
    binding("ValidatingAdmissionPolicyBinding"),
    binding("MutatingAdmissionPolicyBinding"),
    Printer {
        group: "apiregistration.k8s.io",
        kind: "APIService",
        columns: &[NAME, ("Service", "string", 0), ("Available", "string", 0), AGE],
        cells: |o, now| {
            let service = match o.pointer("/spec/service") {
                Some(s) => format!("{}/{}", text(s, "/namespace"), text(s, "/name")),
                None => "Local".to_owned(),
            };
            let available = list(o, "/status/conditions").iter().find(|c| text(c, "/type") == "Available");
            let available = match available.map(|c| (text(c, "/status"), text(c, "/reason"))) {
                None => "Unknown".to_owned(),
                Some(("True", _)) => "True".to_owned(),
                Some((status, "")) => status.to_owned(),
                Some((status, reason)) => format!("{status} ({reason})"),
            };
            vec![name(o), service.into(), available.into(), age(o, now)]
        },
    },
    Printer {
        group: "flowcontrol.apiserver.k8s.io",
        kind: "FlowSchema",
        columns: &[
            NAME,
            ("PriorityLevel", "string", 0),
            ("MatchingPrecedence", "string", 0),
            ("DistinguisherMethod", "string", 0),
            AGE,
            ("MissingPL", "string", 0),
        ],
        cells: |o, now| {
            let dangling = list(o, "/status/conditions").iter().find(|c| text(c, "/type") == "Dangling");
            vec![
                name(o),
                text(o, "/spec/priorityLevelConfiguration/name").into(),
                number(o, "/spec/matchingPrecedence").into(),
                text_or(o, "/spec/distinguisherMethod/type", "<none>").into(),
                age(o, now),
                dangling.map_or("?", |c| text(c, "/status")).into(),
            ]
        },
    },
    Printer {
        group: "flowcontrol.apiserver.k8s.io",
        kind: "PriorityLevelConfiguration",
        columns: &[
            NAME,
            ("Type", "string", 0),
            ("NominalConcurrencyShares", "string", 0),
            ("Queues", "string", 0),
            ("HandSize", "string", 0),
            ("QueueLengthLimit", "string", 0),
            AGE,
        ],
        cells: |o, now| {
            let limited = |key: &str| {
                let value = o.pointer("/spec/limited").and_then(|l| l.pointer(key));
                value.cloned().unwrap_or_else(|| "<none>".into())
            };
            vec![
                name(o),
                text(o, "/spec/type").into(),
                limited("/nominalConcurrencyShares"),
                limited("/limitResponse/queuing/queues"),
                limited("/limitResponse/queuing/handSize"),
                limited("/limitResponse/queuing/queueLengthLimit"),
                age(o, now),
            ]
        },
    },
    Printer {
        group: "internal.apiserver.k8s.io",
        kind: "StorageVersion",
        columns: &[NAME, ("CommonEncodingVersion", "string", 0), ("StorageVersions", "string", 0), AGE],
        cells: |o, now| {
            let versions: Vec<String> = list(o, "/status/storageVersions")
                .iter()
                .map(|v| format!("{}={}", text(v, "/apiServerID"), text(v, "/encodingVersion")))
                .collect();
            let common = text_or(o, "/status/commonEncodingVersion", "<unset>");
            vec![name(o), common.into(), at_most_three(&versions).into(), age(o, now)]
        },
    },
    Printer {
        group: "storagemigration.k8s.io",
        kind: "StorageVersionMigration",
        columns: &[NAME, ("Resource", "string", 0), ("Status", "string", 0)],
        cells: |o, _| {
            let (group, resource) = (text(o, "/spec/resource/group"), text(o, "/spec/resource/resource"));
            let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
            let state = list(o, "/status/conditions")
                .iter()
                .filter(|c| text(c, "/status") == "True")
                .map(|c| text(c, "/type"))
                .rfind(|kind| matches!(*kind, "Running" | "Failed" | "Succeeded"));
            vec![name(o), resource.into(), state.unwrap_or("Unknown").into()]
        },
    },
];

const fn webhooks(kind: &'static str) -> Printer {
    Printer {
        group: "admissionregistration.k8s.io",
        kind,
        columns: &[NAME, ("Webhooks", "integer", 0), AGE],
        cells: |o, now| vec![name(o), list(o, "/webhooks").len().into(), age(o, now)],
    }
}

const fn binding(kind: &'static str) -> Printer {
    Printer {
        group: "admissionregistration.k8s.io",
        kind,
        columns: &[NAME, ("PolicyName", "string", 0), ("ParamRef", "string", 0), AGE],
        cells: |o, now| {
            let named = text(o, "/spec/paramRef/name");
            let parameter = if !named.is_empty() {
                format!("{}/{named}", text_or(o, "/spec/paramRef/namespace", "*"))
            } else if o.pointer("/spec/paramRef/selector").is_some() {
                selector(o, "/spec/paramRef/selector")
            } else {
                "<unset>".to_owned()
            };
            vec![name(o), text(o, "/spec/policyName").into(), parameter.into(), age(o, now)]
        },
    }
}

fn param_kind(policy: &Value) -> Value {
    match policy.pointer("/spec/paramKind") {
        Some(kind) => format!("{}/{}", text(kind, "/apiVersion"), text(kind, "/kind")).into(),
        None => "<unset>".into(),
    }
}
