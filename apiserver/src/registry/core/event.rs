//! Events, which forget themselves. Through events.k8s.io they are held to more than through the core group.

use common::status::FieldErrors;
use serde_json::Value;

use super::immutable;
use crate::object::{Object, namespace};
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::rules::Rules;
use crate::registry::tree::{at, field, has, is_zero, same, text};

/// `--event-ttl`'s default.
pub const TTL_SECONDS: u64 = 60 * 60;

const NOTE_CHARACTERS_MAX: usize = 1024;
const CHARACTERS_MAX: usize = 128;
const FIRST_SERIES: i64 = 2;

/// Of the core group.
pub const RULES: Rules = Rules {
    validate: |event, errors| validate(event, "reportingComponent", errors),
    create_on_update: true,
    collected: false,
    ttl: |_| Some(TTL_SECONDS),
    ..Rules::PLAIN
};

/// Of events.k8s.io.
pub const STRICT: Rules = Rules {
    validate: |event, errors| {
        validate(event, "reportingController", errors);
        series(event, errors);
        if !has(event, "eventTime") {
            errors.required("eventTime", "");
        }
        let kind = text(event, "type");
        if !matches!(kind, "Normal" | "Warning") {
            errors.invalid("type", "", format!("has invalid value: {kind}"));
        }
        for key in ["firstTimestamp", "lastTimestamp", "count"] {
            if !is_zero(field(event, key)) {
                errors.invalid(key, "", "needs to be unset");
            }
        }
        let source = field(event, "source");
        if !text(source, "component").is_empty() || !text(source, "host").is_empty() {
            errors.invalid("source", "", "needs to be unset");
        }
    },
    update_validates: false,
    validate_update: |new, old, errors| {
        validate(new, "reportingController", errors);
        if !same(field(new, "series"), field(old, "series")) {
            series(new, errors);
        }
        let keys =
            ["involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count"];
        keys.iter().for_each(|key| immutable(new, old, &[key], errors));
        immutable(new, old, &["type"], errors);
        // Clients write times of this precision, whatever they were given.
        if micros(new) != micros(old) {
            immutable(new, old, &["eventTime"], errors);
        }
        for key in ["action", "related"] {
            immutable(new, old, &[key], errors);
        }
        let (now, then) = (text(new, "reportingComponent"), text(old, "reportingComponent"));
        if now != then {
            errors.invalid("reportingController", now, super::IMMUTABLE);
        }
        immutable(new, old, &["reportingInstance"], errors);
    },
    ..RULES
};

fn micros(event: &Object) -> Option<i64> {
    text(event, "eventTime").parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond)
}

fn series(event: &Object, errors: &mut FieldErrors) {
    let series = At::root(event).at("series");
    if !series.present() {
        return;
    }
    if series.int("count").unwrap_or(0) < FIRST_SERIES {
        errors.invalid("series.count", "", format!("should be at least {FIRST_SERIES}"));
    }
    if !series.has("lastObservedTime") {
        series.required("lastObservedTime", "", errors);
    }
}

/// What every event must be; with a time of its own it is of the newer kind and says who reports.
fn validate(event: &Object, controller: &str, errors: &mut FieldErrors) {
    let involved = at(event, &["involvedObject", "namespace"]).as_str().unwrap_or("");
    let own = namespace(event);
    let is_new = has(event, "eventTime");
    let strays = match (involved.is_empty(), is_new) {
        (true, false) => !matches!(own, "" | "default"),
        (true, true) => !matches!(own, "default" | "kube-system"),
        (false, false) => involved != own,
        (false, true) => false,
    };
    if strays {
        errors.invalid("involvedObject.namespace", involved, "does not match event.namespace");
    }
    if is_new {
        reported(event, controller, errors);
    }
    if !own.is_empty() {
        for message in names::dns1123_subdomain(own) {
            errors.invalid("namespace", own, message);
        }
    }
}

fn reported(event: &Object, controller: &str, errors: &mut FieldErrors) {
    let name = text(event, "reportingComponent");
    if name.is_empty() {
        errors.required(controller, "");
    }
    for message in names::qualified_name(name) {
        errors.invalid(controller, name, message);
    }
    let mut short = |key: &str, most: usize, value: &Value| {
        let length = value.as_str().map_or(0, str::len);
        if length > most {
            errors.invalid(key, "", format!("can have at most {most} characters"));
        } else if length == 0 && key != "message" {
            errors.required(key, "");
        }
    };
    for key in ["reportingInstance", "action", "reason"] {
        short(key, CHARACTERS_MAX, field(event, key));
    }
    short("message", NOTE_CHARACTERS_MAX, field(event, "message"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use serde_json::json;

    fn event() -> Value {
        json!({"metadata": {"name": "e", "namespace": "n"}, "eventTime": "2026-01-01T00:00:00.000001Z",
            "involvedObject": {"namespace": "n"}, "reportingComponent": "example.com/c",
            "reportingInstance": "i", "action": "a", "reason": "r", "type": "Normal"})
    }

    #[test]
    fn old_events_are_held_to_little() {
        let check = |event: Value, expected: &[&str]| assert_eq!(found(RULES, &event), expected);
        check(
            json!({"metadata": {"namespace": "n"}, "involvedObject": {"namespace": "n"}, "type": "Odd"}),
            &[],
        );
        check(
            json!({"metadata": {"namespace": "n"}, "involvedObject": {"namespace": "m"}}),
            &["involvedObject.namespace: Invalid value: \"m\": does not match event.namespace"],
        );
        check(event(), &[]);
        let mut other = event();
        other["involvedObject"]["namespace"] = json!("m");
        other["reportingInstance"] = json!("");
        check(other, &["reportingInstance: Required value"]);
    }

    #[test]
    fn new_events_say_all_and_stay() {
        assert_eq!(found(STRICT, &event()), [""; 0]);
        let mut bad = event();
        bad["type"] = json!("Odd");
        bad["count"] = json!(1);
        bad["series"] = json!({"count": 1});
        assert_eq!(
            found(STRICT, &bad),
            [
                "series.count: Invalid value: \"\": should be at least 2",
                "series.lastObservedTime: Required value",
                "type: Invalid value: \"\": has invalid value: Odd",
                "count: Invalid value: \"\": needs to be unset",
            ]
        );
        let grown = |new: &mut Value| {
            new["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
            new["eventTime"] = json!("2026-01-01T00:00:00.0000019Z");
        };
        assert_eq!(found_on_update(STRICT, &event(), grown), [""; 0]);
        let errors = found_on_update(STRICT, &event(), |new| new["reason"] = json!("s"));
        assert_eq!(errors, ["reason: Invalid value: \"s\": field is immutable"]);
    }
}
