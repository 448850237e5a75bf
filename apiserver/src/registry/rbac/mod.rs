//! Roles and bindings (`pkg/apis/rbac`). Who may grant what is the admission plugin `RBACEscalation`'s matter.

use common::status::FieldErrors;
use serde_json::Value;

use crate::object::Object;
use crate::registry::names;
use crate::registry::pod_template::metadata::label_selector;
use crate::registry::rules::Rules;
use crate::registry::tolerance::SELECTOR_VALUES;
use crate::registry::tree::{at, default_zero, field, items, items_mut, set, strings, struct_mut, text};

pub const GROUP: &str = "rbac.authorization.k8s.io";

const BASE: Rules = Rules { name: names::path_segment, create_on_update: true, ..Rules::PLAIN };

pub const ROLE: Rules = Rules { validate: |role, errors| policy_rules(role, true, errors), ..BASE };

pub const CLUSTER_ROLE: Rules = Rules {
    validate: |role, errors| {
        policy_rules(role, false, errors);
        let selectors = items(field(role, "aggregationRule"), "clusterRoleSelectors");
        if role.get("aggregationRule").is_some_and(Value::is_object) && selectors.is_empty() {
            errors.required(
                "aggregationRule.clusterRoleSelectors",
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            );
        }
        for (i, selector) in selectors.iter().enumerate() {
            label_selector(selector, &format!("aggregationRule.clusterRoleSelectors[{i}]"), errors);
        }
    },
    tolerated: &[SELECTOR_VALUES],
    ..BASE
};

pub const BINDING: Rules = Rules {
    default: default_binding,
    validate: |binding, errors| validate_binding(binding, true, errors),
    validate_update: |new, old, errors| {
        if at(new, &["roleRef"]) != at(old, &["roleRef"]) {
            errors.invalid("roleRef", field(new, "roleRef"), "cannot change roleRef");
        }
    },
    ..BASE
};

pub const CLUSTER_BINDING: Rules =
    Rules { validate: |binding, errors| validate_binding(binding, false, errors), ..BINDING };

fn policy_rules(role: &Object, namespaced: bool, errors: &mut FieldErrors) {
    for (i, rule) in items(role, "rules").iter().enumerate() {
        let here = format!("rules[{i}]");
        if strings(rule, "verbs").is_empty() {
            errors.required(format!("{here}.verbs"), "verbs must contain at least one value");
        }
        let urls = strings(rule, "nonResourceURLs");
        let groups = strings(rule, "apiGroups");
        let resources = strings(rule, "resources");
        if !urls.is_empty() {
            if namespaced {
                errors.invalid(
                    format!("{here}.nonResourceURLs"),
                    &urls,
                    "namespaced rules cannot apply to non-resource URLs",
                );
            }
            if !groups.is_empty() || !resources.is_empty() || !strings(rule, "resourceNames").is_empty() {
                errors.invalid(
                    format!("{here}.nonResourceURLs"),
                    &urls,
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if groups.is_empty() {
            errors.required(format!("{here}.apiGroups"), "resource rules must supply at least one api group");
        }
        if resources.is_empty() {
            errors.required(format!("{here}.resources"), "resource rules must supply at least one resource");
        }
    }
}

fn default_binding(binding: &mut Object) {
    if let Some(reference) = struct_mut(binding, "roleRef") {
        default_zero(reference, "apiGroup", GROUP);
    }
    for subject in items_mut(binding, "subjects") {
        if text(subject, "apiGroup").is_empty() && matches!(text(subject, "kind"), "User" | "Group") {
            set(subject, "apiGroup", GROUP);
        }
    }
}

fn validate_binding(binding: &Object, namespaced: bool, errors: &mut FieldErrors) {
    let reference = field(binding, "roleRef");
    let group = text(reference, "apiGroup");
    if group != GROUP {
        errors.not_supported("roleRef.apiGroup", group, &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    let kind = text(reference, "kind");
    if !kinds.contains(&kind) {
        errors.not_supported("roleRef.kind", kind, kinds);
    }
    let name = text(reference, "name");
    if name.is_empty() {
        errors.required("roleRef.name", "");
    } else {
        for message in names::path_segment(name) {
            errors.invalid("roleRef.name", name, message);
        }
    }
    for (i, subject) in items(binding, "subjects").iter().enumerate() {
        self::subject(subject, namespaced, &format!("subjects[{i}]"), errors);
    }
}

fn subject(subject: &Value, namespaced: bool, path: &str, errors: &mut FieldErrors) {
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        errors.required(format!("{path}.name"), "");
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            for message in (!name.is_empty()).then(|| names::dns1123_subdomain(name)).into_iter().flatten() {
                errors.invalid(format!("{path}.name"), name, message);
            }
            if !group.is_empty() {
                errors.not_supported(format!("{path}.apiGroup"), group, &[""]);
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                errors.required(format!("{path}.namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.not_supported(format!("{path}.apiGroup"), group, &[GROUP]);
            }
        }
        other => {
            errors.not_supported(format!("{path}.kind"), other, &["ServiceAccount", "User", "Group"]);
        }
    }
}
