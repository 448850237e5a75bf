//! Deployments, replica sets, jobs and what else makes pods.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Column, Printer, age, containers, human, labels, list, map, name, number, selector, since, text, text_or,
};

const POD_TEMPLATE: &str = "/spec/template/spec/containers";

const SET_COLUMNS: &[Column] = &[
    ("Name", "string", 0),
    ("Desired", "integer", 0),
    ("Current", "integer", 0),
    ("Ready", "integer", 0),
    ("Age", "string", 0),
    ("Containers", "string", 1),
    ("Images", "string", 1),
    ("Selector", "string", 1),
];

pub(super) const PRINTERS: &[Printer] = &[
    Printer {
        group: "apps",
        kind: "Deployment",
        columns: &[
            ("Name", "string", 0),
            ("Ready", "string", 0),
            ("Up-to-date", "string", 0),
            ("Available", "string", 0),
            ("Age", "string", 0),
            ("Containers", "string", 1),
            ("Images", "string", 1),
            ("Selector", "string", 1),
        ],
        cells: |o, now| {
            let [names, images] = containers(o, POD_TEMPLATE);
            let ready = format!("{}/{}", number(o, "/status/readyReplicas"), number(o, "/spec/replicas"));
            let updated = number(o, "/status/updatedReplicas").into();
            let available = number(o, "/status/availableReplicas").into();
            vec![
                name(o),
                ready.into(),
                updated,
                available,
                age(o, now),
                names,
                images,
                selector(o, "/spec/selector").into(),
            ]
        },
    },
    Printer {
        group: "apps",
        kind: "ReplicaSet",
        columns: SET_COLUMNS,
        cells: |o, now| set(o, now, selector(o, "/spec/selector")),
    },
    Printer {
        group: "",
        kind: "ReplicationController",
        columns: SET_COLUMNS,
        cells: |o, now| set(o, now, labels(map(o, "/spec/selector"))),
    },
    Printer {
        group: "apps",
        kind: "StatefulSet",
        columns: &[
            ("Name", "string", 0),
            ("Ready", "string", 0),
            ("Age", "string", 0),
            ("Containers", "string", 1),
            ("Images", "string", 1),
        ],
        cells: |o, now| {
            let [names, images] = containers(o, POD_TEMPLATE);
            let ready = format!("{}/{}", number(o, "/status/readyReplicas"), number(o, "/spec/replicas"));
            vec![name(o), ready.into(), age(o, now), names, images]
        },
    },
    Printer {
        group: "apps",
        kind: "DaemonSet",
        columns: &[
            ("Name", "string", 0),
            ("Desired", "integer", 0),
            ("Current", "integer", 0),
            ("Ready", "integer", 0),
            ("Up-to-date", "integer", 0),
            ("Available", "integer", 0),
            ("Node Selector", "string", 0),
            ("Age", "string", 0),
            ("Containers", "string", 1),
            ("Images", "string", 1),
            ("Selector", "string", 1),
        ],
        cells: |o, now| {
            let [names, images] = containers(o, POD_TEMPLATE);
            vec![
                name(o),
                number(o, "/status/desiredNumberScheduled").into(),
                number(o, "/status/currentNumberScheduled").into(),
                number(o, "/status/numberReady").into(),
                number(o, "/status/updatedNumberScheduled").into(),
                number(o, "/status/numberAvailable").into(),
                labels(map(o, "/spec/template/spec/nodeSelector")).into(),
                age(o, now),
                names,
                images,
                selector(o, "/spec/selector").into(),
            ]
        },
    },
    Printer {
        group: "apps",
        kind: "ControllerRevision",
        columns: &[
            ("Name", "string", 0),
            ("Controller", "string", 0),
            ("Revision", "string", 0),
            ("Age", "string", 0),
        ],
        cells: |o, now| {
            let owner = list(o, "/metadata/ownerReferences").iter().find(|r| super::flag(r, "/controller"));
            let controller = owner.map_or_else(|| "<none>".into(), controller_name);
            vec![name(o), controller.into(), number(o, "/revision").into(), age(o, now)]
        },
    },
    Printer {
        group: "batch",
        kind: "Job",
        columns: &[
            ("Name", "string", 0),
            ("Status", "string", 0),
            ("Completions", "string", 0),
            ("Duration", "string", 0),
            ("Age", "string", 0),
            ("Containers", "string", 1),
            ("Images", "string", 1),
            ("Selector", "string", 1),
        ],
        cells: job,
    },
    Printer {
        group: "batch",
        kind: "CronJob",
        columns: &[
            ("Name", "string", 0),
            ("Schedule", "string", 0),
            ("Timezone", "string", 0),
            ("Suspend", "boolean", 0),
            ("Active", "integer", 0),
            ("Last Schedule", "string", 0),
            ("Age", "string", 0),
            ("Containers", "string", 1),
            ("Images", "string", 1),
            ("Selector", "string", 1),
        ],
        cells: |o, now| {
            let [names, images] = containers(o, "/spec/jobTemplate/spec/template/spec/containers");
            let last = match text(o, "/status/lastScheduleTime") {
                "" => "<none>".to_owned(),
                time => since(time, now),
            };
            let suspend = match o.pointer("/spec/suspend").and_then(Value::as_bool) {
                Some(true) => "True",
                Some(false) => "False",
                None => "<unset>",
            };
            vec![
                name(o),
                text(o, "/spec/schedule").into(),
                text_or(o, "/spec/timeZone", "<none>").into(),
                suspend.into(),
                list(o, "/status/active").len().into(),
                last.into(),
                age(o, now),
                names,
                images,
                selector(o, "/spec/jobTemplate/spec/selector").into(),
            ]
        },
    },
    Printer {
        group: "",
        kind: "PodTemplate",
        columns: &[
            ("Name", "string", 0),
            ("Containers", "string", 0),
            ("Images", "string", 0),
            ("Pod Labels", "string", 0),
        ],
        cells: |o, _| {
            let [names, images] = containers(o, "/template/spec/containers");
            vec![name(o), names, images, labels(map(o, "/template/metadata/labels")).into()]
        },
    },
    Printer {
        group: "policy",
        kind: "PodDisruptionBudget",
        columns: &[
            ("Name", "string", 0),
            ("Min Available", "string", 0),
            ("Max Unavailable", "string", 0),
            ("Allowed Disruptions", "integer", 0),
            ("Age", "string", 0),
        ],
        cells: |o, now| {
            let bound = |pointer| match o.pointer(pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(n)) => n.to_string(),
                _ => "N/A".into(),
            };
            let (min, max) = (bound("/spec/minAvailable"), bound("/spec/maxUnavailable"));
            vec![name(o), min.into(), max.into(), number(o, "/status/disruptionsAllowed").into(), age(o, now)]
        },
    },
];

fn set(o: &Value, now: Timestamp, selector: String) -> Vec<Value> {
    let [names, images] = containers(o, POD_TEMPLATE);
    vec![
        name(o),
        number(o, "/spec/replicas").into(),
        number(o, "/status/replicas").into(),
        number(o, "/status/readyReplicas").into(),
        age(o, now),
        names,
        images,
        selector.into(),
    ]
}

/// `deployment.apps/web`.
fn controller_name(owner: &Value) -> String {
    let group = text(owner, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
    let kind = common::status::qualified(group, &text(owner, "/kind").to_lowercase());
    format!("{kind}/{}", text(owner, "/name"))
}

fn job(o: &Value, now: Timestamp) -> Vec<Value> {
    let succeeded = number(o, "/status/succeeded");
    let completions = match o.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if number(o, "/spec/parallelism") > 1 => {
            format!("{succeeded}/1 of {}", number(o, "/spec/parallelism"))
        }
        None => format!("{succeeded}/1"),
    };
    let start = text(o, "/status/startTime").parse::<Timestamp>();
    let end = text(o, "/status/completionTime").parse::<Timestamp>();
    let took = start
        .map_or_else(|_| String::new(), |s| human::duration(end.unwrap_or(now).as_second() - s.as_second()));
    let has = |kind: &str| {
        list(o, "/status/conditions").iter().any(|c| text(c, "/type") == kind && text(c, "/status") == "True")
    };
    let deleted = o.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null());
    let status = match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if deleted => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    let [names, images] = containers(o, POD_TEMPLATE);
    vec![
        name(o),
        status.into(),
        completions.into(),
        took.into(),
        age(o, now),
        names,
        images,
        selector(o, "/spec/selector").into(),
    ]
}
