//! What an update may keep because the old object already has it.
//!
//! Rules grow stricter over the years and objects stay. Where upstream's `...ValidationOptions` let a fault of one
//! sort pass once the old object shows that sort, a kind names the sort here: an error of it in the old object
//! lifts all such errors from the new one. Everything else about the new object is checked as ever.

use common::status::{FieldError, FieldErrorKind, FieldErrors};

use super::checks::STRICT_ONLY;
use crate::features::Features;

/// A sort of errors.
pub type Sort = fn(&FieldError) -> bool;

/// Takes away the new object's errors of each sort that the old one has too.
pub fn lift(sorts: &[Sort], before: &FieldErrors, errors: &mut FieldErrors) {
    for sort in sorts.iter().filter(|sort| before.0.iter().any(*sort)) {
        errors.0.retain(|error| !sort(error));
    }
}

/// Takes away what is no fault while `StrictIPCIDRValidation` is off.
pub fn lift_strict(sort: Sort, features: &Features, errors: &mut FieldErrors) {
    if !errors.is_empty() && !features.enabled("StrictIPCIDRValidation") {
        errors.0.retain(|error| !sort(error));
    }
}

/// Forms of addresses and ranges that old fields took.
pub const OLD_FORMS: Sort = |error| STRICT_ONLY.contains(&error.detail.as_str());

/// For kinds whose fields were strict from the start.
pub const NEVER: Sort = |_| false;

/// Values in expressions of label selectors (`AllowInvalidLabelValueInSelector`).
pub const SELECTOR_VALUES: Sort = |error| {
    !error.field.contains(".nodeSelectorTerms[")
        && !error.field.contains("topologySpreadConstraints[")
        && is_expression_value(error)
};

/// Values in the node selectors of required affinity (`AllowInvalidLabelValueInRequiredNodeAffinity`).
pub const NODE_SELECTOR_VALUES: Sort =
    |error| error.field.contains(".nodeSelectorTerms[") && is_expression_value(error);

fn is_expression_value(error: &FieldError) -> bool {
    let inside = error.field.rsplit_once(".matchExpressions[").map(|(_, rest)| rest);
    error.kind == FieldErrorKind::Invalid && inside.is_some_and(|rest| rest.contains("].values["))
}

/// Selectors of topology spread, as a whole (`AllowInvalidTopologySpreadConstraintLabelSelector`).
const SPREAD_SELECTORS: Sort = |error| {
    let inside = error.field.rsplit_once("topologySpreadConstraints[").map(|(_, rest)| rest);
    inside.is_some_and(|rest| rest.contains("].labelSelector."))
};

/// Keys of labels that topology spread takes from the pod (`OldPodViolatesMatchLabelKeysValidation`).
const SPREAD_KEYS: Sort = |error| {
    let inside = error.field.rsplit_once("topologySpreadConstraints[").map(|(_, rest)| rest);
    inside.is_some_and(|rest| rest.contains("].matchLabelKeys"))
};

/// Huge pages that are no whole pages (`AllowIndivisibleHugePagesValues`).
const HUGE_PAGES: Sort = |error| {
    error.field.contains("hugepages-")
        && error.detail.starts_with("must be an integer multiple of the page size")
};

/// Paths of projected tokens (`AllowNonLocalProjectedTokenPath`).
const TOKEN_PATHS: Sort =
    |error| error.kind == FieldErrorKind::Invalid && error.field.ends_with(".projected.path");

/// Namespaced sysctls beside the host's namespaces (`AllowNamespacedSysctlsForHostNetAndHostIPC`).
const HOST_SYSCTLS: Sort =
    |error| error.field.contains(".sysctls[") && error.detail.starts_with("may not be specified when '");

/// Costs of deletion that are no numbers (`AllowInvalidPodDeletionCost`).
const DELETION_COSTS: Sort =
    |error| error.field.ends_with("annotations[controller.kubernetes.io/pod-deletion-cost]");

/// What pods and their templates may keep.
pub const OF_PODS: &[Sort] = &[
    SELECTOR_VALUES,
    NODE_SELECTOR_VALUES,
    SPREAD_SELECTORS,
    SPREAD_KEYS,
    HUGE_PAGES,
    TOKEN_PATHS,
    HOST_SYSCTLS,
    DELETION_COSTS,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(fields: &[&str]) -> FieldErrors {
        let mut errors = FieldErrors::new();
        fields.iter().for_each(|field| errors.invalid(*field, "x y", "is wrong"));
        errors
    }

    #[test]
    fn one_fault_of_a_sort_lifts_all_of_it() {
        let before = errors(&["spec.selector.matchExpressions[0].values[1]"]);
        let mut now = errors(&["a.podSelector.matchExpressions[2].values[0]", "a.matchExpressions[0].key"]);
        lift(&[SELECTOR_VALUES], &before, &mut now);
        assert_eq!(now, errors(&["a.matchExpressions[0].key"]));
    }

    #[test]
    fn old_forms_pass_only_without_their_gate() {
        let lenient = Features::default().with("StrictIPCIDRValidation", false);
        for (sort, features, left) in [
            (OLD_FORMS, &lenient, vec!["must be a valid IP address"]),
            (NEVER, &lenient, vec!["must not have leading 0s", "must be a valid IP address"]),
            (OLD_FORMS, &Features::default(), vec!["must not have leading 0s", "must be a valid IP address"]),
        ] {
            let mut found = FieldErrors::new();
            found.invalid("a", "010.0.0.1", "must not have leading 0s");
            found.invalid("b", "x", "must be a valid IP address");
            lift_strict(sort, features, &mut found);
            assert_eq!(found.0.iter().map(|e| e.detail.as_str()).collect::<Vec<_>>(), left);
        }
    }

    #[test]
    fn another_sort_lifts_nothing() {
        let node = "affinity.nodeSelectorTerms[0].matchExpressions[0].values[0]";
        let spread = "spec.topologySpreadConstraints[0].labelSelector.matchExpressions[0].values[0]";
        let before = errors(&[node, spread, "spec.selector.matchLabels"]);
        let mut now = errors(&["spec.selector.matchExpressions[0].values[0]"]);
        lift(&[SELECTOR_VALUES], &before, &mut now);
        assert_eq!(now.0.len(), 1);
        let mut now = errors(&[node, spread]);
        lift(OF_PODS, &before, &mut now);
        assert!(now.is_empty());
    }
}
