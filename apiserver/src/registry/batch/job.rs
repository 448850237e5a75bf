//! Jobs: the spec, what of it may change, and the template that cron jobs share.

use common::status::FieldErrors;
use serde_json::json;

use super::policies;
use crate::object::{self, Object};
use crate::registry::checks::{At, domain_prefixed_path};
use crate::registry::names;
use crate::registry::pod_template::{gated, metadata, validate_template};
use crate::registry::rules::Rules;
use crate::registry::tolerance::OF_PODS;
use crate::registry::tree::{at, field, flag, int, map_mut, string_map, struct_mut, text};

const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// Beyond this many completions less parallelism and fewer failed indexes are allowed.
const MANY_COMPLETIONS: i64 = 100_000;
const PARALLELISM_OF_MANY_MAX: i64 = 10_000;
const FAILED_INDEXES_OF_MANY_MAX: i64 = 10_000;
const MANAGED_BY_MAX: usize = 63;

pub const JOB: Rules = Rules {
    default: super::default_job,
    prepare_create: prepare,
    validate: |job, errors| {
        generated_selector(job, true, errors);
        let spec = At::root(job).at("spec");
        with_selector(&spec, errors);
        index_in_hostname(job, errors);
    },
    gated: |object, old, features, errors| {
        gated::validate(object, old, &["spec", "template", "spec"], features, errors);
        if let Some(old) = old {
            super::update::template(object, old, features, errors);
        }
    },
    update_validates: false,
    validate_update: super::update::validate,
    tolerated: OF_PODS,
    validate_status: super::status::validate,
    warnings: |job, old| super::warnings(job, old, "spec"),
    // batch/v1 keeps dependents unless told otherwise.
    orphans: true,
    ..Rules::SPLIT
};

/// A job finds its pods by its own uid unless told otherwise.
fn prepare(job: &mut Object) {
    if flag(field(job, "spec"), "manualSelector") {
        return;
    }
    let (uid, name) = (object::uid(job).to_owned(), object::name(job).to_owned());
    let Some(spec) = struct_mut(job, "spec") else { return };
    if let Some(template) = struct_mut(spec, "template")
        && let Some(metadata) = struct_mut(template, "metadata")
        && let Some(labels) = map_mut(metadata, "labels")
    {
        for (prefix, value) in [("controller-uid", &uid), ("job-name", &name)] {
            labels.entry(prefix).or_insert_with(|| json!(value));
            labels.entry(format!("batch.kubernetes.io/{prefix}")).or_insert_with(|| json!(value));
        }
    }
    if let Some(selector) = struct_mut(spec, "selector")
        && let Some(labels) = map_mut(selector, "matchLabels")
    {
        labels.entry("batch.kubernetes.io/controller-uid").or_insert_with(|| json!(uid));
    }
}

/// The labels and the selector that [`prepare`] makes are as it makes them.
pub(super) fn generated_selector(job: &Object, prefixed: bool, errors: &mut FieldErrors) {
    let spec = field(job, "spec");
    let selector = field(spec, "selector");
    if flag(spec, "manualSelector") || selector.is_null() {
        return;
    }
    let (uid, name) = (object::uid(job), object::name(job));
    if uid.is_empty() {
        errors.required("metadata.uid", "");
    }
    let mut expected = vec![("controller-uid", uid), ("job-name", name)];
    if prefixed {
        expected.push(("batch.kubernetes.io/controller-uid", uid));
        expected.push(("batch.kubernetes.io/job-name", name));
    }
    let labels = at(spec, &["template", "metadata", "labels"]);
    for (key, value) in &expected {
        let path = format!("spec.template.metadata.labels[{key}]");
        match field(labels, key).as_str() {
            None => errors.required(path, format!("must be '{value}'")),
            Some(found) if found != *value => errors.invalid(path, labels, format!("must be '{value}'")),
            Some(_) => {}
        }
    }
    let expected = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    if !metadata::matcher(selector).matches::<std::collections::BTreeMap<String, String>>(&expected) {
        errors.invalid("spec.selector", selector, "`selector` not auto-generated");
    }
}

/// An indexed job's pods are named after it and their index, which must still be a label.
pub(super) fn index_in_hostname(job: &Object, errors: &mut FieldErrors) {
    let spec = field(job, "spec");
    if text(spec, "completionMode") != "Indexed" {
        return;
    }
    let Some(completions) = int(spec, "completions").filter(|c| *c > 0) else { return };
    let name = object::name(job);
    let last = format!("{name}-{}", completions - 1);
    if !names::dns1123_label(&last).is_empty() {
        errors.invalid(
            "metadata.name",
            name,
            format!("will not able to create pod with invalid DNS label: {last}"),
        );
    }
}

pub(super) fn with_selector(spec: &At<'_>, errors: &mut FieldErrors) {
    spec_rules(spec, errors);
    let selector = field(spec.value, "selector");
    let labels = at(spec.value, &["template", "metadata", "labels"]);
    let matches = if selector.is_null() {
        spec.required("selector", "", errors);
        false
    } else {
        metadata::label_selector(selector, &spec.under("selector"), errors);
        metadata::matcher(selector).matches(&string_map(labels))
    };
    if !matches {
        errors.invalid(
            spec.under("template.metadata.labels"),
            labels,
            "`selector` does not match template `labels`",
        );
    }
}

/// `validateJobSpec`: what holds for a job and for a cron job's template.
pub fn spec_rules(spec: &At<'_>, errors: &mut FieldErrors) {
    spec.nonnegative(
        &[
            "parallelism",
            "completions",
            "activeDeadlineSeconds",
            "backoffLimit",
            "ttlSecondsAfterFinished",
            "backoffLimitPerIndex",
            "maxFailedIndexes",
        ],
        errors,
    );
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        spec.required("backoffLimitPerIndex", "when maxFailedIndexes is specified", errors);
    }
    if spec.has("managedBy") {
        domain_prefixed_path(spec, "managedBy", errors);
        if spec.text("managedBy").len() > MANAGED_BY_MAX {
            errors.too_long(spec.under("managedBy"), MANAGED_BY_MAX);
        }
    }
    spec.choice("completionMode", &["NonIndexed", "Indexed"], errors);
    let indexed = spec.text("completionMode") == "Indexed";
    if indexed {
        indexed_rules(spec, errors);
    }
    if matches!(spec.text("completionMode"), "" | "NonIndexed") {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if spec.has(key) {
                spec.invalid(key, "requires indexed completion mode", errors);
            }
        }
    }
    if spec.has("podFailurePolicy") {
        policies::failure_policy(spec, errors);
    }
    if spec.has("successPolicy") {
        if indexed {
            policies::success_policy(spec, errors);
        } else {
            spec.invalid("successPolicy", "requires indexed completion mode", errors);
        }
    }
    let replacements: &[&str] =
        if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    spec.choice("podReplacementPolicy", replacements, errors);
    validate_template(field(spec.value, "template"), &spec.under("template"), errors);
    let pod = spec.at("template").at("spec");
    match pod.text("restartPolicy") {
        "Always" | "" => {
            pod.required("restartPolicy", "valid values: \"OnFailure\", \"Never\"", errors);
        }
        "OnFailure" if spec.has("podFailurePolicy") => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            pod.invalid("restartPolicy", detail, errors);
        }
        policy @ ("OnFailure" | "Never") => {
            let _ = policy;
        }
        policy => errors.not_supported(pod.under("restartPolicy"), policy, &["OnFailure", "Never"]),
    }
}

fn indexed_rules(spec: &At<'_>, errors: &mut FieldErrors) {
    let (completions, parallelism) = (spec.int("completions"), spec.int("parallelism"));
    let failed = spec.int("maxFailedIndexes");
    if completions.is_none() {
        spec.required("completions", "when completion mode is Indexed", errors);
    }
    if parallelism.is_some_and(|p| p > PARALLELISM_MAX) {
        let detail =
            format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
        spec.invalid("parallelism", detail, errors);
    }
    if let (Some(completions), Some(failed)) = (completions, failed)
        && failed > completions
    {
        spec.invalid("maxFailedIndexes", "must be less than or equal to completions", errors);
    }
    if failed.is_some_and(|f| f > FAILED_INDEXES_MAX) {
        let detail = format!("must be less than or equal to {FAILED_INDEXES_MAX}");
        spec.invalid("maxFailedIndexes", detail, errors);
    }
    if completions.is_some_and(|c| c > MANY_COMPLETIONS) && spec.has("backoffLimitPerIndex") {
        if failed.is_none() {
            let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            spec.required("maxFailedIndexes", &detail, errors);
        }
        for (key, value, most) in [
            ("parallelism", parallelism, PARALLELISM_OF_MANY_MAX),
            ("maxFailedIndexes", failed, FAILED_INDEXES_OF_MANY_MAX),
        ] {
            if value.is_some_and(|value| value > most) {
                spec.invalid(key, format!("must be less than or equal to {most} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"), errors);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::registry::checks::{found, found_on_update};

    fn job() -> Value {
        json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}}})
    }

    fn check(spec: Value, expected: &[&str]) {
        let mut object = job();
        for (key, value) in spec.as_object().expect("fields") {
            object["spec"][key] = value.clone();
        }
        assert_eq!(found(JOB, &object), expected, "{spec}");
    }

    #[test]
    fn bad_jobs_are_refused_in_upstreams_words() {
        check(json!({}), &[]);
        check(
            json!({"parallelism": -1}),
            &["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            json!({"maxFailedIndexes": 1}),
            &[
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
            ],
        );
        check(
            json!({"managedBy": "me"}),
            &[
                "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ],
        );
        check(
            json!({"completionMode": "Indexed", "parallelism": 100_001}),
            &[
                "spec.completions: Required value: when completion mode is Indexed",
                "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
            ],
        );
        check(
            json!({"podFailurePolicy": {"rules": [{"action": "FailJob"}]}}),
            &[
                "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
            ],
        );
        check(
            json!({"podFailurePolicy": {"rules": [{"onExitCodes": {"operator": "In", "values": [2, 1, 0]}}]}}),
            &[
                "spec.podFailurePolicy.rules[0].action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1,0]: must be ordered",
            ],
        );
        check(
            json!({"completionMode": "Indexed", "completions": 3, "successPolicy": {"rules": [{"succeededIndexes": "1,7"}]}}),
            &[
                "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"1,7\": error parsing succeededIndexes: too large index: \"7\"",
            ],
        );
        check(
            json!({"successPolicy": {"rules": []}}),
            &["spec.successPolicy: Invalid value: {\"rules\":[]}: requires indexed completion mode"],
        );
        check(
            json!({"podReplacementPolicy": "Soon"}),
            &[
                "spec.podReplacementPolicy: Unsupported value: \"Soon\": supported values: \"Failed\", \"TerminatingOrFailed\"",
            ],
        );
    }

    #[test]
    fn the_restart_policy_must_be_chosen() {
        let mut object = job();
        object["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
        assert_eq!(
            found(JOB, &object),
            ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
        );
    }

    #[test]
    fn the_template_may_change_while_suspended() {
        let change = |o: &mut Value| o["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
        let errors = found_on_update(JOB, &job(), change);
        assert!(
            errors[0].starts_with("spec.template: Invalid value: ")
                && errors[0].ends_with("field is immutable")
        );
        let mut suspended = job();
        suspended["spec"]["suspend"] = json!(true);
        assert!(found_on_update(JOB, &suspended, change).is_empty());
        let image = |o: &mut Value| o["spec"]["template"]["spec"]["containers"][0]["image"] = json!("y");
        assert!(found_on_update(JOB, &suspended, image)[0].starts_with("spec.template.spec: Invalid value"));
    }

    #[test]
    fn gates_say_what_of_a_suspended_job_may_change() {
        let features = |gate: &'static str| crate::features::Features::default().with(gate, false);
        let found = |gate, started: bool, change: fn(&mut Value)| {
            let mut old = job();
            old["spec"]["suspend"] = json!(true);
            if started {
                old["status"] = json!({"startTime": "2026-01-01T00:00:00Z",
                    "conditions": [{"type": "Suspended", "status": "True"}]});
            }
            let mut new = old.clone();
            change(&mut new["spec"]["template"]["spec"]);
            let mut errors = FieldErrors::new();
            super::super::update::template(&new, &old, &features(gate), &mut errors);
            errors.is_empty()
        };
        let elsewhere: fn(&mut Value) = |spec| spec["nodeSelector"] = json!({"a": "b"});
        let more: fn(&mut Value) =
            |spec| spec["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}});
        let (placing, sizing) =
            ("MutableSchedulingDirectivesForSuspendedJobs", "MutablePodResourcesForSuspendedJobs");
        assert!(found(sizing, true, elsewhere) && !found(sizing, true, more));
        assert!(!found(placing, true, elsewhere) && found(placing, true, more));
        assert!(found(placing, false, elsewhere), "it never started");
    }

    #[test]
    fn completions_stay_or_move_with_parallelism() {
        assert_eq!(
            found_on_update(JOB, &job(), |o| o["spec"]["completions"] = json!(2)),
            ["spec.completions: Invalid value: 2: field is immutable"]
        );
        let mut indexed = job();
        indexed["spec"]["completionMode"] = json!("Indexed");
        indexed["spec"]["completions"] = json!(1);
        assert!(
            found_on_update(JOB, &indexed, |o| {
                o["spec"]["completions"] = json!(2);
                o["spec"]["parallelism"] = json!(2);
            })
            .is_empty()
        );
    }
}
