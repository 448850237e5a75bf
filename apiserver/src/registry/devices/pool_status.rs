//! Questions about the state of pools, answered once in their status.

use common::status::FieldErrors;
use serde_json::Value;

use super::lists::within;
use crate::registry::checks::At;
use crate::registry::conditions::conditions;
use crate::registry::core::IMMUTABLE;
use crate::registry::names;
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tree::{default_to, field, same, struct_mut};

const LIMIT: i64 = 100;
const LIMIT_MAX: i64 = 1000;
const POOLS_MAX: usize = 1000;
const CONDITIONS_MAX: usize = 10;
const POOL_NAME_MAX: usize = 253;
const VALIDATION_ERROR_BYTES_MAX: usize = 256;

pub const POOL_STATUS_REQUEST: Rules = Rules {
    default: |request| {
        if let Some(spec) = struct_mut(request, "spec") {
            default_to(spec, "limit", LIMIT);
        }
    },
    validate: |request, errors| {
        let spec = At::root(request).at("spec");
        spec.required_shaped("driver", caseless_subdomain, errors);
        pool_name(&spec, "poolName", errors);
        spec.at_least(&["limit"], 1, errors);
        if let Some(limit) = spec.int("limit").filter(|l| *l > LIMIT_MAX) {
            let detail = format!("must be less than or equal to {LIMIT_MAX}");
            errors.invalid(spec.under("limit"), limit, detail);
        }
    },
    update_validates: false,
    validate_update: |new, old, errors| {
        if !same(field(new, "spec"), field(old, "spec")) {
            errors.invalid("spec", Value::Null, IMMUTABLE);
        }
    },
    validate_status: |new, old, errors| {
        let (status, before) = (At::root(new).at("status"), field(old, "status"));
        if !before.is_null() {
            // The question was answered.
            if !same(status.value, before) {
                errors.invalid("status", status.value, IMMUTABLE);
            }
        } else if status.present() {
            answer(&status, errors);
        }
    },
    status: StatusRule::Split,
    unconditional_update: false,
    ..Rules::PLAIN
};

fn answer(status: &At<'_>, errors: &mut FieldErrors) {
    conditions(status, errors);
    if status.has("poolCount") {
        status.nonnegative(&["poolCount"], errors);
    } else {
        status.required("poolCount", "", errors);
    }
    if within(status, "pools", POOLS_MAX, errors) {
        status.each("pools").iter().for_each(|one| pool(one, errors));
    }
    within(status, "conditions", CONDITIONS_MAX, errors);
}

fn pool(pool: &At<'_>, errors: &mut FieldErrors) {
    pool.required_shaped("driver", caseless_subdomain, errors);
    if pool.required_text("poolName", errors) {
        pool_name(pool, "poolName", errors);
    }
    match pool.int("generation").unwrap_or(0) {
        0 => pool.required("generation", "", errors),
        _ => pool.nonnegative(&["generation"], errors),
    }
    pool.at_least(&["resourceSliceCount"], 1, errors);
    let counts = ["totalDevices", "allocatedDevices", "availableDevices", "unavailableDevices"];
    pool.nonnegative(&counts, errors);
    if pool.has("nodeName") {
        pool.shaped("nodeName", names::dns1123_subdomain, errors);
    }
    if pool.text("validationError").len() > VALIDATION_ERROR_BYTES_MAX {
        errors.too_long(pool.under("validationError"), VALIDATION_ERROR_BYTES_MAX);
    }
}

fn pool_name(owner: &At<'_>, key: &str, errors: &mut FieldErrors) {
    if !owner.has(key) {
        return;
    }
    let name = owner.text(key);
    if name.len() > POOL_NAME_MAX {
        errors.too_long(owner.under(key), POOL_NAME_MAX);
    }
    for (i, segment) in name.split('/').enumerate() {
        if segment.is_empty() {
            owner.invalid(key, format!("segment {i}: must not be empty"), errors);
            continue;
        }
        for message in names::dns1123_subdomain(segment) {
            errors.invalid(owner.under(key), segment, format!("segment {i}: {message}"));
        }
    }
}

/// A subdomain in capitals or not.
fn caseless_subdomain(name: &str) -> Vec<String> {
    const MESSAGE: &str = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'Example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let mut messages = names::dns1123_subdomain(&name.to_ascii_lowercase());
    for message in &mut messages {
        if message == names::SUBDOMAIN_MESSAGE {
            MESSAGE.clone_into(message);
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use crate::registry::rules::StatusStrategy;
    use crate::resources::Strategy;
    use serde_json::json;

    #[test]
    fn bad_questions_are_refused_in_upstreams_words() {
        let check = |spec: Value, expected: &[&str]| {
            assert_eq!(found(POOL_STATUS_REQUEST, &json!({"spec": spec})), expected);
        };
        check(json!({"driver": "GPU.example.com"}), &[]);
        check(json!({}), &["spec.driver: Required value"]);
        check(
            json!({"driver": "d", "limit": 0, "poolName": "a//b"}),
            &[
                "spec.poolName: Invalid value: \"a//b\": segment 1: must not be empty",
                "spec.limit: Invalid value: 0: must be greater than or equal to 1",
            ],
        );
        check(
            json!({"driver": "d", "limit": 1001}),
            &["spec.limit: Invalid value: 1001: must be less than or equal to 1000"],
        );
        let request = json!({"spec": {"driver": "d"}});
        let errors = found_on_update(POOL_STATUS_REQUEST, &request, |new| new["spec"]["driver"] = json!("e"));
        assert_eq!(errors, ["spec: Invalid value: null: field is immutable"]);
    }

    #[test]
    fn a_question_is_answered_once() {
        let answered = |old: Value, new: Value| {
            let old = json!({"metadata": {}, "spec": {"driver": "d"}, "status": old});
            let mut new = json!({"metadata": {}, "status": new});
            let strategy = StatusStrategy::new(POOL_STATUS_REQUEST, &[]);
            strategy.prepare_for_update(&mut new, &old);
            strategy.validate_update(&new, &old).0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let pool = json!({"driver": "d", "poolName": "p", "generation": 1});
        let answer = json!({"poolCount": 1, "pools": [pool]});
        assert_eq!(answered(Value::Null, answer.clone()), [""; 0]);
        assert_eq!(answered(answer.clone(), answer.clone()), [""; 0]);
        let again = answered(answer, json!({"poolCount": 2}));
        assert_eq!(again, ["status: Invalid value: {\"poolCount\":2}: field is immutable"]);
        assert_eq!(
            answered(Value::Null, json!({"pools": [{"driver": "d", "poolName": "p", "totalDevices": -1}]})),
            [
                "status.poolCount: Required value",
                "status.pools[0].generation: Required value",
                "status.pools[0].totalDevices: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }
}
