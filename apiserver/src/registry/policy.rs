//! Pod disruption budgets (`pkg/apis/policy`).

use serde_json::Value;

use super::checks::At;
use super::conditions::conditions;
use super::rules::Rules;
use super::tolerance::SELECTOR_VALUES;

const POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];

pub const POD_DISRUPTION_BUDGET: Rules = Rules {
    prepare_create: |budget| {
        // Always there when written.
        let zeroes = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        let status: Value = zeroes.map(|key| (key.to_owned(), Value::from(0))).into_iter().collect();
        super::tree::set(budget, "status", status);
    },
    validate: |budget, errors| {
        let spec = At::root(budget).at("spec");
        if spec.has("minAvailable") && spec.has("maxUnavailable") {
            errors.invalid("spec", spec.value, "minAvailable and maxUnavailable cannot be both set");
        }
        for key in ["minAvailable", "maxUnavailable"] {
            spec.int_or_percent(key, errors);
            spec.at_most_whole(key, errors);
        }
        spec.selector("selector", errors);
        spec.choice("unhealthyPodEvictionPolicy", &POLICIES, errors);
    },
    tolerated: &[SELECTOR_VALUES],
    validate_status: |new, _, errors| {
        conditions(&At::root(new).at("status"), errors);
        let keys = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        At::root(new).at("status").nonnegative(&keys, errors);
    },
    unconditional_update: false,
    ..Rules::SPLIT
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::found;
    use serde_json::json;

    #[test]
    fn bad_budgets_are_refused_in_upstreams_words() {
        let check = |spec: Value, expected: &[&str]| {
            assert_eq!(found(POD_DISRUPTION_BUDGET, &json!({"spec": spec})), expected);
        };
        check(json!({"minAvailable": "50%"}), &[]);
        check(
            json!({"minAvailable": 1, "maxUnavailable": 1}),
            &[
                "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set",
            ],
        );
        check(
            json!({"minAvailable": "150%"}),
            &["spec.minAvailable: Invalid value: \"150%\": must not be greater than 100%"],
        );
        check(
            json!({"maxUnavailable": -1}),
            &["spec.maxUnavailable: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            json!({"unhealthyPodEvictionPolicy": "X"}),
            &[
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"X\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ],
        );
    }
}
