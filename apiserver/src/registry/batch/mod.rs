//! The batch group: defaults, the generated selector of jobs, and template checks. Full validation of failure
//! policies and schedules is not here yet.

use common::status::FieldErrors;
use serde_json::{Value, json};

use crate::object::{self, Object};
use crate::registry::core::nonnegative;
use crate::registry::pod_template::{default_template, metadata, validate_template};
use crate::registry::rules::Rules;
use crate::registry::tree::{
    at, child_mut, default_to, default_zero, field, flag, has, is_zero, items_mut, map_mut, struct_mut, text,
};

pub const JOB: Rules = Rules {
    default: default_job,
    prepare_create: prepare_job,
    validate: |object, errors| validate_spec(field(object, "spec"), "spec", errors),
    validate_update: |new, old, errors| {
        for key in ["selector", "completions", "completionMode"] {
            super::core::immutable(new, old, &["spec", key], errors);
        }
        if !flag(field(old, "spec"), "suspend") {
            super::core::immutable(new, old, &["spec", "template"], errors);
        }
    },
    ..Rules::SPLIT
};

pub const CRON_JOB: Rules = Rules {
    default: default_cron_job,
    validate: |object, errors| {
        let spec = field(object, "spec");
        if text(spec, "schedule").is_empty() {
            errors.required("spec.schedule", "");
        }
        let name = object::name(object);
        if name.len() > 52 {
            errors.invalid("metadata.name", name, "must be no more than 52 characters");
        }
        let policies = ["Allow", "Forbid", "Replace"];
        super::pod_template::containers::one_of(spec, "concurrencyPolicy", &policies, "spec", errors);
        validate_template(
            at(spec, &["jobTemplate", "spec", "template"]),
            "spec.jobTemplate.spec.template",
            errors,
        );
    },
    ..Rules::SPLIT
};

fn default_job_spec(spec: &mut Value) {
    if !has(spec, "completions") && !has(spec, "parallelism") {
        default_to(spec, "completions", 1);
    }
    default_to(spec, "parallelism", 1);
    let limit = if has(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    default_to(spec, "backoffLimit", limit);
    default_to(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    let replacement = if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    default_to(spec, "podReplacementPolicy", replacement);
    default_to(spec, "manualSelector", false);
    if let Some(policy) = child_mut(spec, "podFailurePolicy") {
        for rule in items_mut(policy, "rules") {
            for pattern in items_mut(rule, "onPodConditions") {
                default_zero(pattern, "status", "True");
            }
        }
    }
}

fn default_job(job: &mut Object) {
    let labels = at(job, &["spec", "template", "metadata", "labels"]).clone();
    if let Some(spec) = struct_mut(job, "spec") {
        if let Some(template) = struct_mut(spec, "template") {
            default_template(template);
        }
        default_job_spec(spec);
    }
    if !is_zero(&labels)
        && let Some(metadata) = struct_mut(job, "metadata")
    {
        default_zero(metadata, "labels", labels);
    }
}

/// A job finds its pods by its own uid unless told otherwise.
fn prepare_job(job: &mut Object) {
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

fn validate_spec(spec: &Value, path: &str, errors: &mut FieldErrors) {
    for key in
        ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"]
    {
        nonnegative(spec, key, path, errors);
    }
    let selector = field(spec, "selector");
    if selector.is_null() {
        errors.required(format!("{path}.selector"), "");
    } else {
        metadata::label_selector(selector, &format!("{path}.selector"), errors);
    }
    let labels = at(spec, &["template", "metadata", "labels"]);
    if !metadata::matcher(selector).matches(&crate::registry::tree::string_map(labels)) {
        errors.invalid(
            format!("{path}.template.metadata.labels"),
            labels,
            "`selector` does not match template `labels`",
        );
    }
    validate_template(field(spec, "template"), &format!("{path}.template"), errors);
    let policy = at(spec, &["template", "spec", "restartPolicy"]).as_str().unwrap_or("");
    if policy == "Always" {
        errors.required(
            format!("{path}.template.spec.restartPolicy"),
            "valid values: \"OnFailure\", \"Never\"",
        );
    }
}

fn default_cron_job(object: &mut Object) {
    let Some(spec) = struct_mut(object, "spec") else { return };
    default_zero(spec, "concurrencyPolicy", "Allow");
    default_to(spec, "suspend", false);
    default_to(spec, "successfulJobsHistoryLimit", 3);
    default_to(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = struct_mut(spec, "jobTemplate")
        && let Some(job) = struct_mut(template, "spec")
        && let Some(template) = struct_mut(job, "template")
    {
        default_template(template);
    }
}
