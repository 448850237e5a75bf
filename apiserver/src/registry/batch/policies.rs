//! When a job ends before all its pods succeeded: `podFailurePolicy` and `successPolicy`.

use common::status::FieldErrors;
use serde_json::Value;

use super::indexes;
use crate::registry::checks::{At, invalid_without_value, required_of};
use crate::registry::names;
use crate::registry::tree::{at, items, text};

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const CONDITIONS_MAX: usize = 20;
const SUCCEEDED_INDEXES_BYTES_MAX: usize = 64 * 1024;

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

pub(super) fn failure_policy(spec: &At<'_>, errors: &mut FieldErrors) {
    let policy = spec.at("podFailurePolicy");
    let rules = policy.each("rules");
    if rules.len() > RULES_MAX {
        errors.too_many(policy.under("rules"), rules.len(), RULES_MAX);
    }
    let pod = at(spec.value, &["template", "spec"]);
    let containers: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|k| items(pod, k))
        .map(|c| text(c, "name"))
        .collect();
    for rule in rules {
        match rule.text("action") {
            "" => required_of(rule.under("action"), &ACTIONS, errors),
            "FailIndex" if !spec.has("backoffLimitPerIndex") => {
                rule.invalid("action", "requires the backoffLimitPerIndex to be set", errors);
            }
            action if ACTIONS.contains(&action) => {}
            action => errors.not_supported(rule.under("action"), action, &ACTIONS),
        }
        let conditions = rule.each("onPodConditions");
        if rule.has("onExitCodes") {
            exit_codes(&rule.at("onExitCodes"), &containers, errors);
        }
        if conditions.len() > CONDITIONS_MAX {
            errors.too_many(rule.under("onPodConditions"), conditions.len(), CONDITIONS_MAX);
        }
        for pattern in &conditions {
            pattern.shaped("type", names::qualified_name, errors);
            match pattern.text("status") {
                "" => required_of(pattern.under("status"), &STATUSES, errors),
                status if STATUSES.contains(&status) => {}
                status => errors.not_supported(pattern.under("status"), status, &STATUSES),
            }
        }
        match (rule.has("onExitCodes"), !conditions.is_empty()) {
            (true, true) => invalid_without_value(
                &rule.path,
                "specifying both OnExitCodes and OnPodConditions is not supported",
                errors,
            ),
            (false, false) => invalid_without_value(
                &rule.path,
                "specifying one of OnExitCodes and OnPodConditions is required",
                errors,
            ),
            _ => {}
        }
    }
}

fn exit_codes(codes: &At<'_>, containers: &[&str], errors: &mut FieldErrors) {
    let operators = ["In", "NotIn"];
    match codes.text("operator") {
        "" => required_of(codes.under("operator"), &operators, errors),
        operator if operators.contains(&operator) => {}
        operator => errors.not_supported(codes.under("operator"), operator, &operators),
    }
    if codes.has("containerName") && !containers.contains(&codes.text("containerName")) {
        let detail = "must be one of the container or initContainer names in the pod template";
        codes.invalid("containerName", detail, errors);
    }
    let values: Vec<i64> = items(codes.value, "values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        codes.invalid("values", "at least one value is required", errors);
    } else if values.len() > EXIT_CODES_MAX {
        errors.too_many(codes.under("values"), values.len(), EXIT_CODES_MAX);
    }
    let path = codes.under("values");
    for (i, value) in values.iter().enumerate() {
        if codes.text("operator") == "In" && *value == 0 {
            errors.invalid(format!("{path}[{i}]"), value, "must not be 0 for the In operator");
        }
        if values[..i].contains(value) {
            errors.duplicate(format!("{path}[{i}]"), value);
        }
    }
    if !values.is_sorted() {
        codes.invalid("values", "must be ordered", errors);
    }
}

/// `successPolicy`.
pub(super) fn success_policy(spec: &At<'_>, errors: &mut FieldErrors) {
    let policy = spec.at("successPolicy");
    let rules = policy.each("rules");
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        policy.required("rules", detail, errors);
    }
    if rules.len() > RULES_MAX {
        errors.too_many(policy.under("rules"), rules.len(), RULES_MAX);
    }
    let completions = spec.int("completions").unwrap_or(0);
    for rule in rules {
        let (count, named) = (rule.int("succeededCount"), rule.has("succeededIndexes"));
        if count.is_none() && !named {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.required(&rule.path, detail);
        }
        let mut total = 0;
        if named {
            let text = rule.text("succeededIndexes");
            if text.len() > SUCCEEDED_INDEXES_BYTES_MAX {
                errors.too_long(rule.under("succeededIndexes"), SUCCEEDED_INDEXES_BYTES_MAX);
            }
            match indexes::count(text, completions) {
                Ok(count) => total = count,
                Err(why) => {
                    rule.invalid(
                        "succeededIndexes",
                        format!("error parsing succeededIndexes: {why}"),
                        errors,
                    );
                }
            }
        }
        rule.nonnegative(&["succeededCount"], errors);
        if count.is_some_and(|count| count > completions) {
            let detail =
                format!("must be less than or equal to {completions} (the number of specified completions)");
            rule.invalid("succeededCount", detail, errors);
        }
        if named && count.is_some_and(|count| count > total) {
            let detail = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            rule.invalid("succeededCount", detail, errors);
        }
    }
}
