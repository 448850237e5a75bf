//! The metrics of a server that did something of everything.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Stable and beta metrics of upstream's API server (`test/instrumentation/testdata/stable-metrics-list.yaml`): name, type,
/// labels in order.
const STABLE: &[(&str, &str, &str)] = &[
    (
        "apiserver_admission_controller_admission_duration_seconds",
        "histogram",
        "name operation rejected type",
    ),
    ("apiserver_admission_step_admission_duration_seconds", "histogram", "operation rejected type"),
    ("apiserver_current_inflight_requests", "gauge", "request_kind"),
    ("apiserver_flowcontrol_current_executing_requests", "gauge", "flow_schema priority_level"),
    ("apiserver_flowcontrol_current_executing_seats", "gauge", "flow_schema priority_level"),
    ("apiserver_flowcontrol_current_inqueue_requests", "gauge", "flow_schema priority_level"),
    ("apiserver_flowcontrol_dispatched_requests_total", "counter", "flow_schema priority_level"),
    ("apiserver_flowcontrol_nominal_limit_seats", "gauge", "priority_level"),
    ("apiserver_flowcontrol_rejected_requests_total", "counter", "flow_schema priority_level reason"),
    (
        "apiserver_flowcontrol_request_wait_duration_seconds",
        "histogram",
        "execute flow_schema priority_level",
    ),
    ("apiserver_longrunning_requests", "gauge", "component group resource scope subresource verb version"),
    (
        "apiserver_request_duration_seconds",
        "histogram",
        "component dry_run group resource scope subresource verb version",
    ),
    (
        "apiserver_request_total",
        "counter",
        "code component dry_run group resource scope subresource system_client verb version",
    ),
    ("apiserver_requested_deprecated_apis", "gauge", "group removed_release resource subresource version"),
    ("apiserver_response_sizes", "histogram", "component group resource scope subresource verb version"),
    ("apiserver_storage_events_received_total", "counter", "group resource"),
    ("apiserver_storage_objects", "gauge", "resource"),
    ("apiserver_watch_list_duration_seconds", "histogram", "group resource scope version"),
    ("disabled_metrics_total", "counter", ""),
    ("hidden_metrics_total", "counter", ""),
    (
        "kubernetes_build_info",
        "gauge",
        "build_date compiler git_commit git_tree_state git_version go_version major minor platform",
    ),
    ("kubernetes_feature_enabled", "gauge", "name stage"),
    ("kubernetes_healthcheck", "gauge", "name type"),
    ("kubernetes_healthchecks_total", "counter", "name status type"),
    ("registered_metrics_total", "counter", "deprecated_version stability_level"),
];

/// The same of metrics that upstream calls alpha, and dashboards show.
const ALPHA: &[(&str, &str, &str)] = &[
    ("apiserver_cache_list_fetched_objects_total", "counter", "group index resource"),
    ("apiserver_cache_list_returned_objects_total", "counter", "group resource"),
    ("apiserver_cache_list_total", "counter", "group index resource"),
    ("apiserver_flowcontrol_current_r", "gauge", "priority_level"),
    ("apiserver_flowcontrol_demand_seats", "histogram", "priority_level"),
    ("apiserver_flowcontrol_priority_level_request_utilization", "histogram", "phase priority_level"),
    ("apiserver_flowcontrol_priority_level_seat_utilization", "histogram", "phase priority_level"),
    ("apiserver_flowcontrol_read_vs_write_current_requests", "histogram", "phase request_kind"),
    ("apiserver_init_events_total", "counter", "group resource"),
    ("apiserver_watch_cache_consistent_read_total", "counter", "fallback group resource success"),
    ("apiserver_watch_cache_events_dispatched_total", "counter", "group resource"),
    ("apiserver_watch_cache_events_received_total", "counter", "group resource"),
    ("apiserver_watch_cache_initializations_total", "counter", "group resource"),
    ("apiserver_watch_cache_read_wait_seconds", "histogram", "group resource"),
    ("apiserver_watch_cache_resource_version", "gauge", "group resource"),
    ("apiserver_watch_events_sizes", "histogram", "group resource version"),
    ("apiserver_watch_events_total", "counter", "group resource version"),
    ("etcd_lease_object_counts", "histogram", ""),
    ("watch_cache_capacity", "gauge", "group resource"),
];

/// Type and labels of every metric of an exposition.
fn read(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut out = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut current);
            out.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
            let names = labels.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
            let known: &mut (String, BTreeSet<String>) = out.get_mut(&current).expect("a type goes before");
            known.1.extend(names.filter(|name| name != "le"));
        }
    }
    out
}

#[tokio::test]
async fn metrics_have_the_names_types_and_labels_of_upstream() {
    let server = Server::start().await;
    let client = server.client(None);
    for path in ["/api/v1/componentstatuses", "/api/v1/namespaces", "/livez", "/readyz"] {
        server.raw(&client, path, "admin-token").await;
    }
    let watch = "/api/v1/namespaces?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let response = server.raw(&client, watch, "admin-token").await;
    response.into_body().collect().await.expect("the watch ends");
    let response = server.raw(&client, "/metrics", "admin-token").await;
    let text = response.into_body().collect().await.expect("metrics").to_bytes();
    let shown = read(std::str::from_utf8(&text).expect("text"));
    for (name, kind, labels) in STABLE.iter().chain(ALPHA) {
        let Some((found, names)) = shown.get(*name) else {
            panic!("{name} is not there");
        };
        let wanted: BTreeSet<String> = labels.split_whitespace().map(str::to_owned).collect();
        assert_eq!((found.as_str(), names), (*kind, &wanted), "{name}");
    }
    server.stop().await;
}
