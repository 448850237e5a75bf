//! Annotations of pods and templates that mean something: mirror pods, and what was an annotation before it was
//! a field (tolerations, seccomp, AppArmor).
//!
//! Answers to `ValidatePodSpecificAnnotations`; the cost of a pod's deletion is in [`super::gated`].

use common::status::FieldErrors;
use serde_json::{Value, json};

use super::tolerations;
use super::volumes::local_descending_path;
use crate::registry::tree::{has, items, text};

pub const MIRROR: &str = "kubernetes.io/config.mirror";
pub const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
pub const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";

/// The lists of a pod's containers.
pub const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Checks an annotation map beside the spec it is about.
pub fn validate(annotations: &Value, spec: &Value, path: &str, errors: &mut FieldErrors) {
    for (key, value) in annotations.as_object().into_iter().flatten() {
        let (value, here) = (value.as_str().unwrap_or(""), format!("{path}[{key}]"));
        if key == MIRROR && text(spec, "nodeName").is_empty() {
            errors.invalid(&here, value, "must set spec.nodeName if mirror pod annotation is set");
        } else if key == TOLERATIONS && !value.is_empty() {
            match serde_json::from_str::<Vec<Value>>(value) {
                Err(error) => errors.invalid(path, TOLERATIONS, error.to_string()),
                Ok(list) => {
                    let list = json!({"tolerations": list});
                    tolerations::validate(&list, &format!("{path}.{TOLERATIONS}"), errors);
                }
            }
        } else if key == SECCOMP_POD || key.starts_with(SECCOMP) {
            seccomp(value, &format!("{path}.{key}"), errors);
        } else if let Some(container) = key.strip_prefix(APP_ARMOR) {
            let known = CONTAINERS.iter().flat_map(|list| items(spec, list));
            if !known.into_iter().any(|c| text(c, "name") == container) {
                errors.invalid(&here, container, "container not found");
            }
            let named = matches!(value, "" | "runtime/default" | "unconfined");
            if !named && !value.starts_with("localhost/") {
                errors.invalid(&here, value, format!("invalid AppArmor profile name: {value:?}"));
            }
        }
    }
}

fn seccomp(value: &str, path: &str, errors: &mut FieldErrors) {
    match (value, value.strip_prefix("localhost/")) {
        ("runtime/default" | "docker/default" | "unconfined", _) => {}
        (_, Some(profile)) => local_descending_path(profile, path, errors),
        _ => errors.invalid(path, value, "must be a valid seccomp profile"),
    }
}

/// Every container of a spec with its path.
pub fn containers<'a>(spec: &'a Value, path: &'a str) -> impl Iterator<Item = (&'a Value, String)> {
    CONTAINERS.into_iter().flat_map(move |list| {
        let all = items(spec, list).iter().enumerate();
        all.map(move |(i, container)| (container, format!("{path}.{list}[{i}]")))
    })
}

/// `controller.kubernetes.io/pod-deletion-cost`, where it is not a number that fits (`Some` is the bad text).
pub fn bad_deletion_cost(annotations: &Value) -> Option<&str> {
    if !has(annotations, DELETION_COST) {
        return None;
    }
    let cost = text(annotations, DELETION_COST);
    let shaped = cost == "0" || cost.starts_with('-') || cost.starts_with(|c: char| ('1'..='9').contains(&c));
    (!shaped || cost.parse::<i32>().is_err()).then_some(cost)
}

pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_with_a_meaning_are_checked() {
        let spec = json!({"containers": [{"name": "c"}]});
        let check = |key: &str, value: &str, expected: &[&str]| {
            let mut errors = FieldErrors::new();
            validate(&json!({key: value}), &spec, "metadata.annotations", &mut errors);
            let found: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{key}");
        };
        check(
            MIRROR,
            "x",
            &[
                "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
            ],
        );
        check(&format!("{APP_ARMOR}c"), "localhost/p", &[]);
        check(
            &format!("{APP_ARMOR}d"),
            "p",
            &[
                "metadata.annotations[container.apparmor.security.beta.kubernetes.io/d]: Invalid value: \"d\": container not found",
                "metadata.annotations[container.apparmor.security.beta.kubernetes.io/d]: Invalid value: \"p\": invalid AppArmor profile name: \"p\"",
            ],
        );
        check(SECCOMP_POD, "docker/default", &[]);
        check(
            &format!("{SECCOMP}c"),
            "p",
            &[
                "metadata.annotations.container.seccomp.security.alpha.kubernetes.io/c: Invalid value: \"p\": must be a valid seccomp profile",
            ],
        );
        check(
            TOLERATIONS,
            "[{\"key\": \"a\", \"operator\": \"X\"}]",
            &[
                "metadata.annotations.scheduler.alpha.kubernetes.io/tolerations[0].operator: Unsupported value: \"X\": supported values: \"Equal\", \"Exists\"",
            ],
        );
    }

    #[test]
    fn the_cost_of_deletion_is_a_plain_number() {
        let bad = |cost: &str| bad_deletion_cost(&json!({DELETION_COST: cost})).is_some();
        assert!(!bad("0") && !bad("-5") && !bad("2147483647"));
        assert!(bad("") && bad("+5") && bad("08") && bad("2147483648") && bad("-"));
        assert!(bad_deletion_cost(&json!({})).is_none());
    }
}
