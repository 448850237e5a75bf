//! Priority classes and runtime classes.

use common::status::FieldErrors;

use crate::object::{self, Object};
use crate::registry::advice;
use crate::registry::checks::At;
use crate::registry::core::immutable;
use crate::registry::names;
use crate::registry::pod_template::containers::one_of;
use crate::registry::pod_template::{metadata, resources, tolerations};
use crate::registry::rules::Rules;
use crate::registry::tree::{child_mut, default_to, field, flag, int, text};

/// The highest priority users may define.
pub const USER_PRIORITY_MAX: i64 = 1_000_000_000;

pub const PRIORITY_CLASS: Rules = Rules {
    default: |class| default_to(class, "preemptionPolicy", "PreemptLowerPriority"),
    validate: validate_priority,
    validate_update: |new, old, errors| {
        if int(new, "value").unwrap_or(0) != int(old, "value").unwrap_or(0) {
            errors.forbidden("value", "may not be changed in an update.");
        }
        immutable(new, old, &["preemptionPolicy"], errors);
    },
    // It says that there is a generation, and never moves it.
    prepare_create: |class| {
        object::metadata_mut(class).insert("generation".into(), 1.into());
    },
    ..Rules::PLAIN
};

fn validate_priority(class: &Object, errors: &mut FieldErrors) {
    let name = object::name(class);
    let value = int(class, "value").unwrap_or(0);
    if name.starts_with("system-") {
        let known = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
        match known.iter().find(|(n, _)| *n == name) {
            None => errors.forbidden("metadata.name", format!("priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known system priority class")),
            Some((_, expected)) if *expected != value || flag(class, "globalDefault") => errors.forbidden("metadata.name", format!("priority class names with 'system-' prefix are reserved for system use only. error: value of {name} PriorityClass must be {expected}")),
            Some(_) => {}
        }
    } else if value > USER_PRIORITY_MAX {
        errors.forbidden(
            "value",
            format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}"),
        );
    }
    one_of(class, "preemptionPolicy", &["PreemptLowerPriority", "Never"], "", errors);
}

pub const RUNTIME_CLASS: Rules = Rules {
    default: |class| {
        if let Some(overhead) = child_mut(class, "overhead")
            && let Some(fixed) = child_mut(overhead, "podFixed")
        {
            resources::default_list(fixed);
        }
    },
    validate: |class, errors| {
        At::root(class).required_shaped("handler", names::dns1123_label, errors);
        let overhead = field(field(class, "overhead"), "podFixed");
        if !overhead.is_null() {
            resources::validate(&serde_json::json!({"limits": overhead}), &[], "overhead", errors);
        }
        let scheduling = field(class, "scheduling");
        metadata::labels(field(scheduling, "nodeSelector"), "scheduling.nodeSelector", errors);
        tolerations::validate(scheduling, "scheduling.tolerations", errors);
        let listed = crate::registry::tree::items(scheduling, "tolerations");
        let same = |a: &serde_json::Value, b: &serde_json::Value| {
            ["key", "operator", "value", "effect"].iter().all(|key| text(a, key) == text(b, key))
        };
        for (i, toleration) in listed.iter().enumerate() {
            if listed[..i].iter().any(|other| same(other, toleration)) {
                errors.duplicate(format!("scheduling.tolerations[{i}]"), toleration);
            }
        }
    },
    validate_update: |new, old, errors| immutable(new, old, &["handler"], errors),
    warnings: advice::of_runtime_class,
    create_on_update: true,
    unconditional_update: false,
    ..Rules::PLAIN
};
