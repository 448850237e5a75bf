//! StatefulSets.

use common::status::FieldErrors;
use serde_json::{Value, json};

use super::{selected_template_labels, with_template};
use crate::object::{self, Object};
use crate::registry::checks::{At, int_or_percent_value};
use crate::registry::core::volumes::claim_spec;
use crate::registry::names;
use crate::registry::pod_template::metadata::{label_selector, selector_is_empty};
use crate::registry::pod_template::{defaults, gated, validate_template, warnings};
use crate::registry::rules::Rules;
use crate::registry::tree::{
    at, carry, child_mut, default_to, default_zero, field, has, int, items, items_mut, list_mut, map_mut,
    remove, same, set, struct_mut, text,
};

pub const STATEFUL_SET: Rules = Rules {
    default,
    gated_default: |object, features| {
        let strategy = object.pointer_mut("/spec/updateStrategy");
        if features.enabled("MaxUnavailableStatefulSet")
            && let Some(strategy) = strategy.filter(|strategy| text(strategy, "type") == "RollingUpdate")
            && let Some(rolling) = child_mut(strategy, "rollingUpdate")
        {
            default_to(rolling, "maxUnavailable", 1);
        }
    },
    prepare_create: |object| set(object, "status", json!({"replicas": 0})),
    validate: |object, errors| {
        let spec = At::root(object).at("spec");
        spec_rules(&spec, errors);
        for claim in spec.each("volumeClaimTemplates") {
            claim_spec(&claim.at("spec"), errors);
        }
        spec.shaped_if_set("serviceName", names::dns1123_label, errors);
    },
    gated: |object, old, features, errors| {
        gated::validate(object, old, &["spec", "template", "spec"], features, errors);
    },
    update_validates: false,
    validate_update,
    validate_status,
    warnings: |object, old| {
        let mut out = warnings::of_template(object, old, &["spec", "template"]);
        if int(field(object, "spec"), "revisionHistoryLimit").is_some_and(|limit| limit < 0) {
            out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
        out
    },
    name: names::dns1123_label,
    ..Rules::SPLIT
};

fn default(object: &mut Object) {
    with_template(object, |spec| {
        default_zero(spec, "podManagementPolicy", "OrderedReady");
        default_to(spec, "replicas", 1);
        default_to(spec, "revisionHistoryLimit", 10);
        if let Some(strategy) = struct_mut(spec, "updateStrategy") {
            if text(strategy, "type").is_empty() {
                set(strategy, "type", "RollingUpdate");
                map_mut(strategy, "rollingUpdate");
            }
            if text(strategy, "type") == "RollingUpdate"
                && has(strategy, "rollingUpdate")
                && let Some(rolling) = struct_mut(strategy, "rollingUpdate")
            {
                default_to(rolling, "partition", 0);
            }
        }
        if let Some(retention) = struct_mut(spec, "persistentVolumeClaimRetentionPolicy") {
            default_zero(retention, "whenDeleted", "Retain");
            default_zero(retention, "whenScaled", "Retain");
        }
        for claim in items_mut(spec, "volumeClaimTemplates") {
            default_zero(claim, "kind", "PersistentVolumeClaim");
            default_zero(claim, "apiVersion", "v1");
            if let Some(spec) = struct_mut(claim, "spec") {
                defaults::claim_spec(spec);
            }
            if let Some(status) = struct_mut(claim, "status") {
                default_zero(status, "phase", "Pending");
            }
        }
    });
}

fn spec_rules(spec: &At<'_>, errors: &mut FieldErrors) {
    match spec.text("podManagementPolicy") {
        "" => spec.required("podManagementPolicy", "", errors),
        "OrderedReady" | "Parallel" => {}
        _ => spec.invalid("podManagementPolicy", "must be 'OrderedReady' or 'Parallel'", errors),
    }
    update_strategy(spec, errors);
    let retention = spec.at("persistentVolumeClaimRetentionPolicy");
    for key in ["whenDeleted", "whenScaled"] {
        retention.choice(key, &["Retain", "Delete"], errors);
    }
    spec.nonnegative(&["replicas", "minReadySeconds"], errors);
    if let Some(start) = spec.at("ordinals").int("start").filter(|s| *s < 0) {
        errors.invalid(spec.under("ordinals.start"), start, "must be greater than or equal to 0");
    }
    let selector = field(spec.value, "selector");
    if selector.is_null() {
        spec.required("selector", "", errors);
    } else {
        label_selector(selector, &spec.under("selector"), errors);
        if selector_is_empty(selector) {
            spec.invalid("selector", "empty selector is invalid for statefulset", errors);
        }
    }
    selected_template_labels(spec, selector, errors);
    validate_template(&template_as_run(spec.value), &spec.under("template"), errors);
    let pod = spec.at("template").at("spec");
    pod.choice("restartPolicy", &["Always"], errors);
    if pod.has("activeDeadlineSeconds") {
        pod.forbidden(
            "activeDeadlineSeconds",
            "activeDeadlineSeconds in StatefulSet is not Supported",
            errors,
        );
    }
}

fn update_strategy(spec: &At<'_>, errors: &mut FieldErrors) {
    let strategy = spec.at("updateStrategy");
    match strategy.text("type") {
        "" => spec.required("updateStrategy", "", errors),
        "OnDelete" if strategy.has("rollingUpdate") => {
            strategy.invalid("rollingUpdate", "only allowed for updateStrategy 'RollingUpdate'", errors);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = strategy.at("rollingUpdate");
            rolling.nonnegative(&["partition"], errors);
            if rolling.has("maxUnavailable") {
                rolling.int_or_percent("maxUnavailable", errors);
                if int_or_percent_value(field(rolling.value, "maxUnavailable")) == 0 {
                    rolling.invalid("maxUnavailable", "cannot be 0", errors);
                }
                rolling.at_most_whole("maxUnavailable", errors);
            }
        }
        _ => spec.invalid("updateStrategy", "must be 'RollingUpdate' or 'OnDelete'", errors),
    }
}

/// The template as its controller will run it: with the claims' volumes, named by the set.
fn template_as_run(spec: &Value) -> Value {
    let mut template = field(spec, "template").clone();
    let Some(pod) = struct_mut(&mut template, "spec") else { return template };
    remove(pod, "subdomain");
    remove(pod, "hostname");
    let claims: Vec<String> =
        items(spec, "volumeClaimTemplates").iter().map(|claim| object::name(claim).to_owned()).collect();
    if !claims.is_empty()
        && let Some(volumes) = list_mut(pod, "volumes")
    {
        volumes.retain(|volume| !claims.iter().any(|claim| claim == text(volume, "name")));
        let added = claims.iter().map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}}));
        volumes.splice(0..0, added);
    }
    template
}

const MUTABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

fn validate_update(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let mut before = FieldErrors::new();
    spec_rules(&At::root(old).at("spec"), &mut before);
    spec_rules(&At::root(new).at("spec"), errors);
    if !before.is_empty() {
        // A set that is at fault already may keep any template, but for what sets themselves ask of it.
        let own = ["restartPolicy", "activeDeadlineSeconds"].map(|key| format!("spec.template.spec.{key}"));
        errors
            .0
            .retain(|error| own.contains(&error.field) || !error.field.starts_with("spec.template.spec."));
    }
    let mut munged = field(new, "spec").clone();
    for key in MUTABLE {
        carry(&mut munged, field(old, "spec"), key);
    }
    if !same(&munged, field(old, "spec")) {
        errors.forbidden("spec", "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
    }
}

fn validate_status(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let status = At::root(new).at("status");
    status.nonnegative(
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
        errors,
    );
    for key in ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"] {
        super::no_more_than(status.value, key, "replicas", "status.replicas", errors);
    }
    super::no_more_than(status.value, "availableReplicas", "readyReplicas", "status.readyReplicas", errors);
    super::collisions_grow(at(new, &["status"]), at(old, &["status"]), errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};

    fn set() -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"serviceName": "a",
            "selector": {"matchLabels": {"app": "a"}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [
                {"name": "c", "image": "x", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]}}}})
    }

    fn check(pointer: &str, value: Value, expected: &[&str]) {
        let mut object = set();
        let (owner, key) = pointer.rsplit_once('/').expect("a pointer");
        object.pointer_mut(owner).expect("its owner")[key] = value;
        assert_eq!(found(STATEFUL_SET, &object), expected, "{pointer}");
    }

    #[test]
    fn bad_sets_are_refused_in_upstreams_words() {
        assert!(found(STATEFUL_SET, &set()).is_empty(), "{:?}", found(STATEFUL_SET, &set()));
        check(
            "/spec/podManagementPolicy",
            json!("X"),
            &["spec.podManagementPolicy: Invalid value: \"X\": must be 'OrderedReady' or 'Parallel'"],
        );
        check(
            "/spec/updateStrategy",
            json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
            &[
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
            ],
        );
        check(
            "/spec/updateStrategy",
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": -1}}),
            &[
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        check(
            "/spec/ordinals",
            json!({"start": -2}),
            &["spec.ordinals.start: Invalid value: -2: must be greater than or equal to 0"],
        );
        check(
            "/spec/persistentVolumeClaimRetentionPolicy",
            json!({"whenDeleted": "Sell"}),
            &[
                "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: \"Sell\": supported values: \"Delete\", \"Retain\"",
            ],
        );
        check(
            "/spec/selector",
            json!({}),
            &["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"],
        );
        check(
            "/spec/volumeClaimTemplates/0/spec/accessModes",
            json!([]),
            &[
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
            ],
        );
    }

    #[test]
    fn few_fields_may_change() {
        assert!(found_on_update(STATEFUL_SET, &set(), |o| o["spec"]["replicas"] = json!(3)).is_empty());
        assert_eq!(found_on_update(STATEFUL_SET, &set(), |o| o["spec"]["serviceName"] = json!("b")).len(), 1);
    }
}
