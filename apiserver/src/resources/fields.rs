//! Selectable fields by kind: what a `fieldSelector` may name beside metadata.name and metadata.namespace.
//!
//! Upstream: `ToSelectableFields` in `pkg/registry/*/*/strategy.go` gives the values,
//! `AddFieldLabelConversionFunc` in `pkg/apis/*/*/conversion.go` the names.

use serde_json::Value;

use crate::object::{Object, str_at};

/// The selectable fields of one kind.
pub struct Selectable {
    pub names: &'static [&'static str],
    /// A version's own names for them.
    pub aliases: &'static [(&'static str, &'static str)],
    pub read: fn(&Object) -> Vec<(&'static str, String)>,
}

/// No field but metadata.name and metadata.namespace.
pub const NONE: Selectable = Selectable { names: &[], aliases: &[], read: |_| Vec::new() };

pub const POD: Selectable = Selectable {
    names: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    aliases: &[],
    read: |pod| {
        let pod_ip = match str_at(pod, &["status", "podIP"]) {
            "" => pod.pointer("/status/podIPs/0/ip").and_then(Value::as_str).unwrap_or("").to_owned(),
            ip => ip.to_owned(),
        };
        vec![
            text(pod, "spec.nodeName", &["spec", "nodeName"]),
            text(pod, "spec.restartPolicy", &["spec", "restartPolicy"]),
            text(pod, "spec.schedulerName", &["spec", "schedulerName"]),
            text(pod, "spec.serviceAccountName", &["spec", "serviceAccountName"]),
            ("spec.hostNetwork", boolean(pod, "/spec/hostNetwork")),
            text(pod, "status.phase", &["status", "phase"]),
            ("status.podIP", pod_ip),
            text(pod, "status.nominatedNodeName", &["status", "nominatedNodeName"]),
        ]
    },
};

pub const NODE: Selectable = Selectable {
    names: &["spec.unschedulable"],
    aliases: &[],
    read: |node| vec![("spec.unschedulable", boolean(node, "/spec/unschedulable"))],
};

pub const SECRET: Selectable =
    Selectable { names: &["type"], aliases: &[], read: |o| vec![text(o, "type", &["type"])] };

pub const NAMESPACE: Selectable = Selectable {
    names: &["status.phase"],
    aliases: &[],
    read: |o| vec![text(o, "status.phase", &["status", "phase"])],
};

pub const SERVICE: Selectable = Selectable {
    names: &["spec.clusterIP", "spec.type"],
    aliases: &[],
    read: |o| {
        vec![text(o, "spec.clusterIP", &["spec", "clusterIP"]), text(o, "spec.type", &["spec", "type"])]
    },
};

pub const REPLICAS: Selectable = Selectable {
    names: &["status.replicas"],
    aliases: &[],
    read: |o| vec![("status.replicas", number(o, "/status/replicas"))],
};

pub const JOB: Selectable = Selectable {
    names: &["status.successful"],
    aliases: &[],
    read: |o| vec![("status.successful", number(o, "/status/succeeded"))],
};

pub const CSR: Selectable = Selectable {
    names: &["spec.signerName"],
    aliases: &[],
    read: |o| vec![text(o, "spec.signerName", &["spec", "signerName"])],
};

pub const TRUST_BUNDLE: Selectable = CSR;

pub const POD_CERTIFICATE: Selectable = Selectable {
    names: &["spec.signerName", "spec.podName", "spec.nodeName"],
    aliases: &[],
    read: |o| {
        vec![
            text(o, "spec.signerName", &["spec", "signerName"]),
            text(o, "spec.podName", &["spec", "podName"]),
            text(o, "spec.nodeName", &["spec", "nodeName"]),
        ]
    },
};

pub const LEASE_CANDIDATE: Selectable = Selectable {
    names: &["spec.leaseName"],
    aliases: &[],
    read: |o| vec![text(o, "spec.leaseName", &["spec", "leaseName"])],
};

pub const RESOURCE_SLICE: Selectable = Selectable {
    names: &["spec.nodeName", "spec.driver"],
    aliases: &[],
    read: |o| {
        vec![text(o, "spec.nodeName", &["spec", "nodeName"]), text(o, "spec.driver", &["spec", "driver"])]
    },
};

pub const EVENT: Selectable = Selectable {
    names: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    aliases: &[],
    read: event,
};

pub const EVENTS_V1: Selectable = Selectable {
    names: EVENT.names,
    aliases: &[
        ("reason", "reason"),
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        ("regarding.resourceVersion", "involvedObject.resourceVersion"),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reportingController", "reportingComponent"),
        ("type", "type"),
    ],
    read: event,
};

fn event(o: &Object) -> Vec<(&'static str, String)> {
    let source = match str_at(o, &["source", "component"]) {
        "" => str_at(o, &["reportingComponent"]),
        component => component,
    };
    vec![
        text(o, "involvedObject.kind", &["involvedObject", "kind"]),
        text(o, "involvedObject.namespace", &["involvedObject", "namespace"]),
        text(o, "involvedObject.name", &["involvedObject", "name"]),
        text(o, "involvedObject.uid", &["involvedObject", "uid"]),
        text(o, "involvedObject.apiVersion", &["involvedObject", "apiVersion"]),
        text(o, "involvedObject.resourceVersion", &["involvedObject", "resourceVersion"]),
        text(o, "involvedObject.fieldPath", &["involvedObject", "fieldPath"]),
        text(o, "reason", &["reason"]),
        text(o, "reportingComponent", &["reportingComponent"]),
        ("source", source.to_owned()),
        text(o, "type", &["type"]),
    ]
}

fn text(object: &Object, name: &'static str, path: &[&str]) -> (&'static str, String) {
    (name, str_at(object, path).to_owned())
}

fn boolean(object: &Object, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or(false).to_string()
}

fn number(object: &Object, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0).to_string()
}
