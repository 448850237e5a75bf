//! A pod's line: how many containers are ready, and the one word for its state.

use jiff::Timestamp;
use serde_json::Value;

use super::{Printer, age, flag, list, name, number, since, text, text_or};

pub(super) const PRINTERS: &[Printer] = &[Printer {
    group: "",
    kind: "Pod",
    columns: &[
        ("Name", "string", 0),
        ("Ready", "string", 0),
        ("Status", "string", 0),
        ("Restarts", "string", 0),
        ("Age", "string", 0),
        ("IP", "string", 1),
        ("Node", "string", 1),
        ("Nominated Node", "string", 1),
        ("Readiness Gates", "string", 1),
    ],
    cells,
}];

/// What a walk over container statuses found.
#[derive(Default)]
struct Found {
    ready: usize,
    restarts: i64,
    /// When a container last ended before it was restarted; RFC 3339 in UTC, so text order is time order.
    last_restart: String,
}

impl Found {
    fn count(&mut self, status: &Value) {
        self.restarts += number(status, "/restartCount");
        let ended = text(status, "/lastState/terminated/finishedAt");
        if ended > self.last_restart.as_str() {
            ended.clone_into(&mut self.last_restart);
        }
    }
}

fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let phase = text(pod, "/status/phase");
    let mut reason = text_or(pod, "/status/reason", phase).to_owned();
    if condition(pod, "PodScheduled").is_some_and(|c| text(c, "/reason") == "SchedulingGated") {
        "SchedulingGated".clone_into(&mut reason);
    }
    let sidecars: Vec<&str> = list(pod, "/spec/initContainers")
        .iter()
        .filter(|c| text(c, "/restartPolicy") == "Always")
        .map(|c| text(c, "/name"))
        .collect();
    let total = list(pod, "/spec/containers").len() + sidecars.len();

    let (mut init, mut main) = (Found::default(), Found::default());
    let initializing = initializing(pod, &sidecars, &mut init, &mut main);
    if let Some(why) = &initializing {
        reason.clone_from(why);
    }
    main.ready += init.ready;
    if initializing.is_none() || condition(pod, "Initialized").is_some_and(|c| text(c, "/status") == "True") {
        if let Some(why) = running(pod, &mut main, &reason) {
            reason = why;
        }
    } else {
        main.restarts = init.restarts;
        main.last_restart = init.last_restart;
    }
    if pod.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null()) {
        if text(pod, "/status/reason") == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut reason);
        }
    }
    let restarts = if main.restarts != 0 && !main.last_restart.is_empty() {
        format!("{} ({} ago)", main.restarts, since(&main.last_restart, now))
    } else {
        main.restarts.to_string()
    };
    vec![
        name(pod),
        format!("{}/{total}", main.ready).into(),
        reason.into(),
        restarts.into(),
        age(pod, now),
        text_or(pod, "/status/podIPs/0/ip", "<none>").into(),
        text_or(pod, "/spec/nodeName", "<none>").into(),
        text_or(pod, "/status/nominatedNodeName", "<none>").into(),
        readiness_gates(pod).into(),
    ]
}

/// Walks the init containers up to the first that is not done; what that one is doing.
fn initializing(pod: &Value, sidecars: &[&str], init: &mut Found, main: &mut Found) -> Option<String> {
    let total = list(pod, "/spec/initContainers").len();
    for (index, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        let sidecar = sidecars.contains(&text(status, "/name"));
        init.count(status);
        if sidecar {
            main.count(status);
        }
        let ended = status.pointer("/state/terminated").filter(|t| !t.is_null());
        let waiting = text(status, "/state/waiting/reason");
        match ended {
            Some(ended) if number(ended, "/exitCode") == 0 => {}
            _ if sidecar && flag(status, "/started") => init.ready += usize::from(flag(status, "/ready")),
            Some(ended) => return Some(format!("Init:{}", end_reason(ended))),
            None if !waiting.is_empty() && waiting != "PodInitializing" => {
                return Some(format!("Init:{waiting}"));
            }
            None => return Some(format!("Init:{index}/{total}")),
        }
    }
    None
}

/// Walks the containers, last first, so that the first one's reason is what shows.
fn running(pod: &Value, main: &mut Found, reason: &str) -> Option<String> {
    let (mut shown, mut failed, mut any_running) = (None, None, false);
    for status in list(pod, "/status/containerStatuses").iter().rev() {
        main.count(status);
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            shown = Some(waiting.to_owned());
        } else if let Some(ended) = status.pointer("/state/terminated").filter(|t| !t.is_null()) {
            let why = end_reason(ended);
            if number(ended, "/exitCode") != 0 {
                failed = Some(why.clone());
            }
            shown = Some(why);
        } else if flag(status, "/ready") && status.pointer("/state/running").is_some() {
            any_running = true;
            main.ready += 1;
        }
    }
    if shown.as_deref().unwrap_or(reason) != "Completed" {
        return shown;
    }
    let ready = condition(pod, "Ready").is_some_and(|c| text(c, "/status") == "True");
    match (any_running, failed) {
        (true, _) if ready => Some("Running".into()),
        (_, Some(why)) => Some(why),
        (true, None) => Some("NotReady".into()),
        (false, None) => shown,
    }
}

fn end_reason(ended: &Value) -> String {
    match (text(ended, "/reason"), number(ended, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(ended, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    list(pod, "/status/conditions").iter().find(|c| text(c, "/type") == kind)
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates
        .iter()
        .filter(|g| condition(pod, text(g, "/conditionType")).is_some_and(|c| text(c, "/status") == "True"))
        .count();
    format!("{open}/{}", gates.len())
}
