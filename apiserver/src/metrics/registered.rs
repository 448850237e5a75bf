//! How many metrics there are, by how stable upstream calls them (`component-base/metrics`).
//!
//! A metric counts from its first sample on. None is hidden or disabled here: no flag does that.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// What upstream calls stable or beta in an API server; the others are alpha.
const STABLE: [&str; 13] = [
    "apiserver_admission_controller_admission_duration_seconds",
    "apiserver_admission_step_admission_duration_seconds",
    "apiserver_admission_webhook_admission_duration_seconds",
    "apiserver_current_inflight_requests",
    "apiserver_longrunning_requests",
    "apiserver_request_duration_seconds",
    "apiserver_request_total",
    "apiserver_requested_deprecated_apis",
    "apiserver_response_sizes",
    "apiserver_storage_objects",
    "apiserver_storage_size_bytes",
    "kubernetes_healthcheck",
    "kubernetes_healthchecks_total",
];
const BETA: [&str; 31] = [
    "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds",
    "apiserver_authentication_config_controller_automatic_reloads_total",
    "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds",
    "apiserver_authorization_config_controller_automatic_reloads_total",
    "apiserver_cel_compilation_duration_seconds",
    "apiserver_cel_evaluation_duration_seconds",
    "apiserver_flowcontrol_current_executing_requests",
    "apiserver_flowcontrol_current_executing_seats",
    "apiserver_flowcontrol_current_inqueue_requests",
    "apiserver_flowcontrol_dispatched_requests_total",
    "apiserver_flowcontrol_nominal_limit_seats",
    "apiserver_flowcontrol_rejected_requests_total",
    "apiserver_flowcontrol_request_wait_duration_seconds",
    "apiserver_storage_events_received_total",
    "apiserver_validating_admission_policy_check_duration_seconds",
    "apiserver_validating_admission_policy_check_total",
    "apiserver_validation_declarative_validation_mismatch_total",
    "apiserver_validation_declarative_validation_panic_total",
    "apiserver_watch_list_duration_seconds",
    "disabled_metrics_total",
    "hidden_metrics_total",
    "kubernetes_build_info",
    "kubernetes_feature_enabled",
    "registered_metrics_total",
    "workqueue_adds_total",
    "workqueue_depth",
    "workqueue_longest_running_processor_seconds",
    "workqueue_queue_duration_seconds",
    "workqueue_retries_total",
    "workqueue_unfinished_work_seconds",
    "workqueue_work_duration_seconds",
];

fn level(name: &str) -> &'static str {
    if STABLE.contains(&name) {
        "STABLE"
    } else if BETA.contains(&name) {
        "BETA"
    } else {
        "ALPHA"
    }
}

/// The count, which is made when somebody asks for it.
pub(super) struct Registered(IntCounterVec);

impl Registered {
    /// # Errors
    /// When a name is taken.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        for (name, help) in [
            ("disabled_metrics_total", "The count of disabled metrics."),
            ("hidden_metrics_total", "The count of hidden metrics."),
        ] {
            registry.register(Box::new(IntCounter::new(name, help)?))?;
        }
        let options = Opts::new(
            "registered_metrics_total",
            "The count of registered metrics broken by stability level and deprecation version.",
        );
        IntCounterVec::new(options, &["stability_level", "deprecated_version"]).map(Self)
    }

    /// Its own family, given all others.
    pub(super) fn count(&self, families: &[MetricFamily]) -> Vec<MetricFamily> {
        for wanted in ["STABLE", "BETA", "ALPHA"] {
            let names = families.iter().map(MetricFamily::name).chain(["registered_metrics_total"]);
            let found = names.filter(|name| level(name) == wanted).count() as u64;
            let counter = self.0.with_label_values(&[wanted, ""]);
            counter.inc_by(found.saturating_sub(counter.get()));
        }
        self.0.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_counted_once_by_their_level() {
        let registry = Registry::new();
        let registered = Registered::new(&registry).expect("fresh names");
        let requests = IntCounter::new("apiserver_request_total", "x").expect("a name");
        registry.register(Box::new(requests)).expect("a fresh name");
        let own = IntCounter::new("made_up_total", "x").expect("a name");
        registry.register(Box::new(own)).expect("a fresh name");
        for _ in 0..2 {
            let families = registered.count(&registry.gather());
            let mut shown: Vec<(String, f64)> = families[0]
                .get_metric()
                .iter()
                .map(|metric| {
                    let level = metric.get_label().iter().find(|pair| pair.name() == "stability_level");
                    (level.expect("a level").value().to_owned(), metric.get_counter().get_value())
                })
                .collect();
            shown.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(
                shown,
                [("ALPHA".to_owned(), 1.0), ("BETA".to_owned(), 3.0), ("STABLE".to_owned(), 1.0)]
            );
        }
    }
}
