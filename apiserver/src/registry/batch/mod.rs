//! The batch group (`pkg/apis/batch`, `pkg/registry/batch`): jobs, their status, and cron jobs with their
//! schedules.

mod cron;
mod indexes;
mod job;
mod policies;
mod status;
mod update;

pub use job::JOB;

use common::status::FieldErrors;
use serde_json::Value;

use crate::object::{self, Object};
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::pod_template::{default_template, gated};
use crate::registry::rules::Rules;
use crate::registry::tolerance::OF_PODS;
use crate::registry::tree::{
    at, child_mut, default_to, default_zero, field, has, int, is_zero, items_mut, same, struct_mut, text,
};

/// A job's name is its cron job's and eleven characters more.
const CRON_JOB_NAME_MAX: usize = 52;
/// Where a cron job has its pod's spec.
const ROOT: [&str; 5] = ["spec", "jobTemplate", "spec", "template", "spec"];

pub const CRON_JOB: Rules = Rules {
    default: default_cron_job,
    validate: |object, errors| {
        cron_job(object, None, errors);
        let name = object::name(object);
        if name.len() > CRON_JOB_NAME_MAX {
            errors.invalid(
                "metadata.name",
                name,
                format!("must be no more than {CRON_JOB_NAME_MAX} characters"),
            );
        }
    },
    gated: |object, old, features, errors| {
        gated::validate(object, old, &ROOT, features, errors);
    },
    update_validates: false,
    validate_update: |new, old, errors| cron_job(new, Some(old), errors),
    tolerated: OF_PODS,
    warnings: |object, old| {
        let mut out = warnings(object, old, "spec.jobTemplate.spec");
        if old.is_some() && text(field(object, "spec"), "schedule").contains("TZ") {
            out.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_owned());
        }
        out
    },
    ..Rules::SPLIT
};

/// What a client should know of a job's name and size.
fn warnings(object: &Object, old: Option<&Object>, path: &str) -> Vec<String> {
    const COMPLETIONS: i64 = 100_000;
    const PARALLELISM: i64 = 10_000;
    let mut out = Vec::new();
    if old.is_none() {
        let messages = names::dns1123_label(object::name(object));
        if !messages.is_empty() {
            out.push(format!("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]", messages.join(" ")));
        }
    } else if old.is_some_and(|old| same(field(old, "spec"), field(object, "spec"))) {
        return out;
    }
    let spec = at(object, &path.split('.').collect::<Vec<_>>());
    let more = |key: &str, than: i64| int(spec, key).unwrap_or(0) > than;
    if text(spec, "completionMode") == "Indexed"
        && more("completions", COMPLETIONS)
        && more("parallelism", PARALLELISM)
    {
        out.push(format!("{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"));
    }
    let template: Vec<&str> = path.split('.').chain(["template"]).collect();
    out.extend(crate::registry::pod_template::warnings::of_template(object, old, &template));
    out
}

fn cron_job(object: &Object, old: Option<&Object>, errors: &mut FieldErrors) {
    let spec = At::root(object).at("spec");
    let before = old.map_or(&Value::Null, |old| field(old, "spec"));
    let schedule = spec.text("schedule");
    if schedule.is_empty() {
        spec.required("schedule", "", errors);
    } else {
        if let Err(why) = cron::check(schedule) {
            spec.invalid("schedule", why, errors);
        }
        let zone_before = text(before, "schedule").contains("TZ");
        match (schedule.contains("TZ"), zone_before) {
            (true, true) if spec.has("timeZone") => {
                let detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
                spec.invalid("schedule", detail, errors);
            }
            (true, false) => {
                let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
                spec.invalid("schedule", detail, errors);
            }
            _ => {}
        }
    }
    spec.nonnegative(&["startingDeadlineSeconds"], errors);
    if spec.has("timeZone")
        && (old.is_none() || !same(field(spec.value, "timeZone"), field(before, "timeZone")))
    {
        time_zone(&spec, errors);
    }
    spec.required_choice("concurrencyPolicy", &["Allow", "Forbid", "Replace"], errors);
    let job = spec.at("jobTemplate").at("spec");
    job::spec_rules(&job, errors);
    if job.has("selector") {
        job.invalid("selector", "`selector` will be auto-generated", errors);
    }
    if job.flag("manualSelector") {
        errors.not_supported(job.under("manualSelector"), true, &["nil", "false"]);
    }
    spec.nonnegative(&["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], errors);
}

fn time_zone(spec: &At<'_>, errors: &mut FieldErrors) {
    const PART_CHARACTERS_MAX: usize = 14;
    let zone = spec.text("timeZone");
    if zone.is_empty() {
        spec.invalid("timeZone", "timeZone must be nil or non-empty string", errors);
        return;
    }
    let fits = |part: &str| {
        !matches!(part, "." | ".." | "")
            && !part.starts_with('-')
            && part.len() <= PART_CHARACTERS_MAX
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_+".contains(&b))
    };
    if !zone.split('/').all(fits) {
        spec.invalid("timeZone", format!("unknown time zone {zone}"), errors);
        return;
    }
    if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        spec.invalid("timeZone", detail, errors);
    }
    // "Local" is a zone to Go.
    if zone != "Local" && !cron::zone_exists(zone) {
        spec.invalid("timeZone", format!("unknown time zone {zone}"), errors);
    }
}

fn default_failure_policy(spec: &mut Value) {
    if let Some(policy) = child_mut(spec, "podFailurePolicy") {
        for rule in items_mut(policy, "rules") {
            for pattern in items_mut(rule, "onPodConditions") {
                default_zero(pattern, "status", "True");
            }
        }
    }
}

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
    default_failure_policy(spec);
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

fn default_cron_job(object: &mut Object) {
    let Some(spec) = struct_mut(object, "spec") else { return };
    default_zero(spec, "concurrencyPolicy", "Allow");
    default_to(spec, "suspend", false);
    default_to(spec, "successfulJobsHistoryLimit", 3);
    default_to(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = struct_mut(spec, "jobTemplate")
        && let Some(job) = struct_mut(template, "spec")
    {
        // Of a job's own defaults a template has no others.
        default_failure_policy(job);
        if let Some(template) = struct_mut(job, "template") {
            default_template(template);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::found;
    use serde_json::json;

    #[test]
    fn bad_cron_jobs_are_refused_in_upstreams_words() {
        let check = |key: &str, value: Value, expected: &[&str]| {
            let mut object = json!({"metadata": {"name": "a"}, "spec": {"schedule": "0 0 * * *",
                "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
                    "containers": [{"name": "c", "image": "x"}]}}}}}});
            crate::registry::tree::set(&mut object["spec"], key, value);
            assert_eq!(found(CRON_JOB, &object), expected, "{key}");
        };
        check("suspend", json!(true), &[]);
        check("timeZone", json!("Europe/Berlin"), &[]);
        check("schedule", Value::Null, &["spec.schedule: Required value"]);
        check(
            "schedule",
            json!("* *"),
            &["spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]"],
        );
        check(
            "schedule",
            json!("TZ=UTC 0 0 * * *"),
            &[
                "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ],
        );
        check(
            "timeZone",
            json!("Nowhere/Land"),
            &["spec.timeZone: Invalid value: \"Nowhere/Land\": unknown time zone Nowhere/Land"],
        );
        check(
            "timeZone",
            json!("local"),
            &[
                "spec.timeZone: Invalid value: \"local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
                "spec.timeZone: Invalid value: \"local\": unknown time zone local",
            ],
        );
        check(
            "concurrencyPolicy",
            json!("Race"),
            &[
                "spec.concurrencyPolicy: Unsupported value: \"Race\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ],
        );
        check(
            "failedJobsHistoryLimit",
            json!(-1),
            &["spec.failedJobsHistoryLimit: Invalid value: -1: must be greater than or equal to 0"],
        );
    }
}
