//! What a job's status may say, and how it may go on from what it said.
//!
//! As upstream, most rules look only at what a request changes: a status that is wrong already can still be
//! written to.

use common::status::FieldErrors;
use serde_json::Value;

use super::indexes;
use crate::object::Object;
use crate::registry::checks::{At, invalid_without_value};
use crate::registry::tree::{at, field, flag, has, int, items, same, strings, text};

/// A condition of the job is true.
pub fn condition(job: &Object, kind: &str) -> bool {
    items(field(job, "status"), "conditions")
        .iter()
        .any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

fn resuming(new: &Object, old: &Object) -> bool {
    condition(old, "Suspended")
        && items(field(new, "status"), "conditions")
            .iter()
            .any(|c| text(c, "type") == "Suspended" && text(c, "status") == "False")
}

fn finished(job: &Object) -> bool {
    condition(job, "Complete") || condition(job, "Failed")
}

/// Which of the facts that rules look at a request changes.
struct Changed<'a> {
    new: &'a Object,
    old: &'a Object,
}

impl Changed<'_> {
    fn fields(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| !same(at(self.new, &["status", key]), at(self.old, &["status", key])))
    }

    fn condition(&self, kind: &str) -> bool {
        condition(self.new, kind) != condition(self.old, kind)
    }

    fn finished(&self) -> bool {
        finished(self.new) != finished(self.old)
    }
}

pub fn validate(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let status = At::root(new).at("status");
    status.nonnegative(&["active", "succeeded", "failed", "ready", "terminating"], errors);
    uncounted(&status, errors);
    let changed = Changed { new, old };
    conditions(&changed, errors);
    times(&changed, errors);
    counts(&changed, errors);
    index_texts(&changed, errors);
    transitions(&changed, errors);
}

fn uncounted(status: &At<'_>, errors: &mut FieldErrors) {
    let pods = status.at("uncountedTerminatedPods");
    let mut seen = Vec::new();
    for key in ["succeeded", "failed"] {
        for (i, uid) in pods.strings(key).into_iter().enumerate() {
            let path = format!("{}[{i}]", pods.under(key));
            if uid.is_empty() {
                errors.invalid(path, uid, "must not be empty");
            } else if seen.contains(&uid) {
                errors.duplicate(path, uid);
            } else {
                seen.push(uid);
            }
        }
    }
}

fn conditions(changed: &Changed<'_>, errors: &mut FieldErrors) {
    let is = |kind: &str| condition(changed.new, kind);
    let (complete, failed) = (is("Complete"), is("Failed"));
    let (target, criteria) = (is("FailureTarget"), is("SuccessCriteriaMet"));
    let moved = |kinds: &[&str]| kinds.iter().any(|kind| changed.condition(kind));
    let success_policy = has(field(changed.new, "spec"), "successPolicy");
    let mut refuse = |wrong: bool, detail: &str| {
        if wrong {
            invalid_without_value("status.conditions", detail, errors);
        }
    };
    refuse(
        moved(&["Complete", "Failed"]) && complete && failed,
        "cannot set Complete=True and Failed=true conditions",
    );
    refuse(
        moved(&["Complete", "FailureTarget"]) && complete && target,
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    refuse(
        (changed.condition("Failed") || changed.fields(&["failedIndexes"])) && failed && !target,
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        moved(&["Complete", "SuccessCriteriaMet"]) && complete && !criteria,
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    refuse(criteria && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    refuse(criteria && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    refuse(
        success_policy && !criteria && complete,
        "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
    );
}

fn times(changed: &Changed<'_>, errors: &mut FieldErrors) {
    let status = At::root(changed.new).at("status");
    let (start, end) = (status.text("startTime"), status.text("completionTime"));
    let complete = condition(changed.new, "Complete");
    if changed.condition("Complete") || changed.fields(&["completionTime"]) {
        if !end.is_empty() && !complete {
            let detail = "cannot set completionTime when there is no Complete=True condition";
            status.invalid("completionTime", detail, errors);
        }
        if end.is_empty() && complete {
            status.required("completionTime", "completionTime is required for Complete jobs", errors);
        }
    }
    // Times of one form compare as their texts do.
    if changed.fields(&["startTime", "completionTime"]) && !start.is_empty() && !end.is_empty() && end < start
    {
        status.invalid("completionTime", "must be equal to or after `startTime`", errors);
    }
    let spec = field(changed.new, "spec");
    let nothing_to_do = flag(spec, "suspend") && int(spec, "completions") == Some(0);
    let moved = changed.finished() || changed.fields(&["startTime"]);
    if moved && !nothing_to_do && start.is_empty() && finished(changed.new) {
        status.required("startTime", "startTime is required for finished job", errors);
    }
}

fn counts(changed: &Changed<'_>, errors: &mut FieldErrors) {
    let status = At::root(changed.new).at("status");
    let count = |key: &str| status.int(key).unwrap_or(0);
    let done = finished(changed.new);
    let moved = |keys: &[&str]| changed.finished() || changed.fields(keys);
    if moved(&["active"]) && done && count("active") > 0 {
        status.invalid("active", "active>0 is invalid for finished job", errors);
    }
    let pods = status.at("uncountedTerminatedPods");
    let some = !strings(pods.value, "succeeded").is_empty() || !strings(pods.value, "failed").is_empty();
    if moved(&["uncountedTerminatedPods"]) && done && some {
        status.invalid("uncountedTerminatedPods", "must be empty for finished job", errors);
    }
    if moved(&["terminating"]) && done && count("terminating") > 0 {
        status.invalid("terminating", "terminating>0 is invalid for finished job", errors);
    }
    if changed.fields(&["ready", "active"]) && count("ready") > count("active") {
        status.invalid("ready", "cannot set more ready pods than active", errors);
    }
}

fn index_texts(changed: &Changed<'_>, errors: &mut FieldErrors) {
    let status = At::root(changed.new).at("status");
    let spec = field(changed.new, "spec");
    let (completed, failed) = (status.text("completedIndexes"), status.text("failedIndexes"));
    let limited = has(spec, "backoffLimitPerIndex");
    let (completed_moved, failed_moved) =
        (changed.fields(&["completedIndexes"]), changed.fields(&["failedIndexes"]));
    let completions = int(spec, "completions");
    if let Some(completions) = completions {
        for (key, text, look) in [
            ("completedIndexes", completed, completed_moved),
            ("failedIndexes", failed, failed_moved && limited),
        ] {
            if look && let Err(why) = indexes::count(text, completions) {
                status.invalid(key, format!("error parsing {key}: {why}"), errors);
            }
        }
    }
    if completed_moved && !completed.is_empty() && text(spec, "completionMode") != "Indexed" {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        status.invalid("completedIndexes", detail, errors);
    }
    if failed_moved && !limited && status.has("failedIndexes") {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        status.invalid("failedIndexes", detail, errors);
    }
    if let (true, Some(completions)) = (completed_moved || failed_moved, completions)
        && let Some(index) = indexes::overlap(completed, failed, completions)
    {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
        status.invalid("failedIndexes", detail, errors);
    }
}

fn transitions(changed: &Changed<'_>, errors: &mut FieldErrors) {
    let (new, old) = (changed.new, changed.old);
    let status = At::root(new).at("status");
    let (before, spec) = (field(old, "status"), field(new, "spec"));
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if condition(old, kind) && !condition(new, kind) {
            let detail = format!("cannot disable the terminal {kind}=True condition");
            invalid_without_value("status.conditions", detail, errors);
        }
    }
    let shrinks = text(spec, "completionMode") == "Indexed"
        && same(field(spec, "completions"), field(spec, "parallelism"));
    for (key, fixed) in [("failed", true), ("succeeded", !shrinks)] {
        let (now, then) = (status.int(key).unwrap_or(0), int(before, key).unwrap_or(0));
        if fixed && now < then {
            errors.invalid(status.under(key), now, format!("cannot decrease the {key} counter"));
        }
    }
    let moved = |key: &str| {
        status.has(key) && has(before, key) && !same(field(status.value, key), field(before, key))
    };
    if moved("completionTime") {
        status.invalid("completionTime", "field is immutable", errors);
    }
    let restarted = has(before, "startTime") && changed.fields(&["startTime"]);
    if restarted && !resuming(new, old) && !flag(spec, "suspend") {
        let value: &Value = field(status.value, "startTime");
        errors.invalid("status.startTime", value, "field is immutable for unsuspended job once set");
    }
    let criteria = "SuccessCriteriaMet";
    if condition(old, criteria) && !condition(new, criteria) {
        let detail = "cannot disable the SuccessCriteriaMet=True condition";
        invalid_without_value("status.conditions", detail, errors);
    }
    if condition(old, "Complete") && !condition(old, criteria) && condition(new, criteria) {
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        invalid_without_value("status.conditions", detail, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(old: Value, new: Value, expected: &[&str]) {
        let job = |status: Value| json!({"spec": {"completions": 3}, "status": status});
        let mut errors = FieldErrors::new();
        validate(&job(new), &job(old), &mut errors);
        let found: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_status_goes_only_forward() {
        let t = "2026-01-01T00:00:00Z";
        let conditions = |kinds: &[&str]| -> Value {
            kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect()
        };
        let done = json!({"startTime": t, "completionTime": t, "succeeded": 3,
            "conditions": conditions(&["SuccessCriteriaMet", "Complete"])});
        check(json!({"startTime": t, "active": 3}), done.clone(), &[]);
        check(
            done,
            json!({"startTime": t, "succeeded": 3}),
            &[
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            ],
        );
        check(
            json!({"succeeded": 2}),
            json!({"succeeded": 1}),
            &["status.succeeded: Invalid value: 1: cannot decrease the succeeded counter"],
        );
        check(
            json!({}),
            json!({"startTime": t, "conditions": conditions(&["Failed"])}),
            &[
                "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
            ],
        );
        check(
            json!({}),
            json!({"ready": 1}),
            &["status.ready: Invalid value: 1: cannot set more ready pods than active"],
        );
        check(
            json!({}),
            json!({"failed": -1}),
            &[
                "status.failed: Invalid value: -1: must be greater than or equal to 0",
                "status.failed: Invalid value: -1: cannot decrease the failed counter",
            ],
        );
    }
}
