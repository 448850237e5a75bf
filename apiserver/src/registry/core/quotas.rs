//! Limit ranges and resource quotas.

use std::collections::BTreeSet;

use common::quantity::Quantity;
use common::status::FieldErrors;
use serde_json::Value;

use super::IMMUTABLE;
use crate::object::{self, Object};
use crate::registry::checks::{At, NONNEGATIVE};
use crate::registry::names;
use crate::registry::others::defaults;
use crate::registry::pod_template::resources;
use crate::registry::rules::{Rules, StatusRule};
use crate::registry::tree::{field, strings};

const QUOTA_RESOURCES: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const COMPUTE: [&str; 7] =
    ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];

fn huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

fn quota_resource(name: &str) -> bool {
    QUOTA_RESOURCES.contains(&name) || huge_pages(name)
}

/// In Kubernetes' own name space (`IsNativeResource`).
fn native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn extended(name: &str) -> bool {
    !native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// A resource that some kind of object has.
fn standard_name(name: &str, path: &str, errors: &mut FieldErrors) {
    let messages = names::qualified_name(name);
    if messages.is_empty() && !name.contains('/') && !quota_resource(name) && name != "storage" {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    for message in messages {
        errors.invalid(path, name, message);
    }
}

pub const RESOURCE_QUOTA: Rules = Rules {
    default: defaults::resource_quota,
    warnings: crate::registry::advice::of_quota,
    validate: |quota, errors| quota_spec(&At::root(quota).at("spec"), errors),
    validate_update: |new, old, errors| {
        let scopes = |object: &Object| -> BTreeSet<String> {
            strings(field(object, "spec"), "scopes").into_iter().map(str::to_owned).collect()
        };
        if scopes(new) != scopes(old) {
            errors.invalid("spec.scopes", field(field(new, "spec"), "scopes"), IMMUTABLE);
        }
    },
    validate_status: |new, _, errors| {
        let status = At::root(new).at("status");
        for key in ["hard", "used"] {
            amounts(&status.at(key), errors);
        }
    },
    status: StatusRule::Split,
    ..Rules::PLAIN
};

fn amounts(list: &At<'_>, errors: &mut FieldErrors) {
    for (name, value) in list.value.as_object().into_iter().flatten() {
        let path = format!("{}[{name}]", list.path);
        standard_name(name, &path, errors);
        if !name.contains('/') && !quota_resource(name) {
            errors.invalid(&path, name, "must be a standard resource for quota");
        }
        let Some(amount) = resources::read(value) else { continue };
        if amount.is_negative() {
            errors.invalid(&path, value, NONNEGATIVE);
        }
        let whole = COUNTED.contains(&name.as_str()) || extended(name);
        if whole && amount.millis() % 1000 != 0 {
            errors.invalid(&path, value, "must be an integer");
        }
    }
}

/// The scope says something about the resource.
fn scope_fits(scope: &str, name: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => COMPUTE.contains(&name),
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn quota_spec(spec: &At<'_>, errors: &mut FieldErrors) {
    amounts(&spec.at("hard"), errors);
    let hard: Vec<&str> =
        spec.at("hard").value.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let unfit =
        |scope: &str| hard.iter().filter(|name| quota_resource(name) && !scope_fits(scope, name)).count();
    let scopes = spec.strings("scopes");
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            spec.invalid("scopes", "unsupported scope", errors);
        }
        for _ in 0..unfit(scope) {
            spec.invalid("scopes", "unsupported scope applied to resource", errors);
        }
    }
    conflicts(spec, &spec.under("scopes"), &scopes, errors);
    let selector = spec.at("scopeSelector");
    if !selector.present() {
        return;
    }
    let place = selector.at("matchExpressions");
    let requirements = selector.each("matchExpressions");
    for requirement in &requirements {
        let (scope, operator) = (requirement.text("scopeName"), requirement.text("operator"));
        if !SCOPES.contains(&scope) {
            errors.invalid(place.under("scopeName"), scope, "unsupported scope");
        }
        for _ in 0..unfit(scope) {
            errors.invalid(&place.path, selector.value, "unsupported scope applied to resource");
        }
        if SCOPES.contains(&scope)
            && !matches!(scope, "PriorityClass" | "VolumeAttributesClass")
            && operator != "Exists"
        {
            errors.invalid(place.under("operator"), operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity");
        }
        let values = requirement.strings("values");
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.required(
                place.under("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                place.under("values"),
                values,
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(place.under("operator"), operator, "not a valid selector operator"),
        }
    }
    let named: Vec<&str> = requirements.iter().map(|r| r.text("scopeName")).collect();
    conflicts(spec, &place.path, &named, errors);
}

/// Scopes of which no pod has both. Upstream shows `spec.scopes`, whatever the path.
fn conflicts(spec: &At<'_>, path: &str, scopes: &[&str], errors: &mut FieldErrors) {
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.contains(&one) && scopes.contains(&other) {
            errors.invalid(path, field(spec.value, "scopes"), "conflicting scopes");
        }
    }
}

pub const LIMIT_RANGE: Rules = Rules {
    default: defaults::limit_range,
    prepare_create: |range| {
        if object::name(range).is_empty() {
            object::metadata_mut(range).insert("name".to_owned(), uuid::Uuid::new_v4().to_string().into());
        }
    },
    validate: limit_range,
    create_on_update: true,
    ..Rules::PLAIN
};

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];
const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn limit_range(range: &Object, errors: &mut FieldErrors) {
    let limits = At::root(range).at("spec").each("limits");
    for (i, limit) in limits.iter().enumerate() {
        let kind = limit.text("type");
        let messages = names::qualified_name(kind);
        if messages.is_empty() && !kind.contains('/') && !TYPES.contains(&kind) {
            limit.invalid("type", "must be a standard limit type or fully qualified", errors);
        }
        for message in messages {
            errors.invalid(limit.under("type"), kind, message);
        }
        if limits[..i].iter().any(|other| other.text("type") == kind) {
            errors.duplicate(limit.under("type"), kind);
        }
        limit_names(limit, kind, errors);
        limit_amounts(limit, kind, errors);
    }
}

fn limit_names(limit: &At<'_>, kind: &str, errors: &mut FieldErrors) {
    for key in LISTS {
        let list = limit.at(key);
        let entries = list.value.as_object();
        let for_pods = kind == "Pod" && matches!(key, "default" | "defaultRequest");
        if for_pods {
            if entries.is_some_and(|e| !e.is_empty()) {
                limit.forbidden(key, "may not be specified when `type` is 'Pod'", errors);
            }
            continue;
        }
        if key == "maxLimitRequestRatio"
            && kind == "PersistentVolumeClaim"
            && !limit.at("min").has("storage")
            && !limit.at("max").has("storage")
        {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            limit.required("limits", detail, errors);
        }
        for (name, _) in entries.into_iter().flatten() {
            let path = format!("{}[{name}]", list.path);
            if matches!(kind, "Pod" | "Container") {
                resources::validate_name(name, &path, errors);
            } else {
                standard_name(name, &path, errors);
            }
        }
    }
}

fn limit_amounts(limit: &At<'_>, kind: &str, errors: &mut FieldErrors) {
    let lists: Vec<&Value> = LISTS.iter().map(|key| limit.at(key).value).collect();
    let names: BTreeSet<&String> =
        lists.iter().filter_map(|l| l.as_object()).flat_map(|l| l.keys()).collect();
    for name in names {
        let get = |i: usize| -> Option<(Quantity, &Value)> {
            if kind == "Pod" && matches!(i, 2 | 3) {
                return None;
            }
            let value = lists[i].get(name)?;
            Some((resources::read(value)?, value))
        };
        let [max, min, default, request, ratio] = [get(0), get(1), get(2), get(3), get(4)];
        let mut refuse = |key: &str, value: &Value, detail: String| {
            errors.invalid(format!("{}[{name}]", limit.under(key)), value, detail);
        };
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if let (Some((least, shown)), Some((most, most_shown))) = (min, max)
            && least > most
        {
            let detail = format!("min value {} is greater than max value {}", text(shown), text(most_shown));
            refuse("min", shown, detail);
        }
        if let Some((wanted, shown)) = request {
            let mine = text(shown);
            if let Some((_, least)) = min.filter(|(least, _)| *least > wanted) {
                let detail =
                    format!("min value {} is greater than default request value {mine}", text(least));
                refuse("defaultRequest", shown, detail);
            }
            for (other, what) in [(max, "max value"), (default, "default limit value")] {
                if let Some((_, most)) = other.filter(|(most, _)| wanted > *most) {
                    let detail =
                        format!("default request value {mine} is greater than {what} {}", text(most));
                    refuse("defaultRequest", shown, detail);
                }
            }
        }
        if let Some((usual, shown)) = default {
            let mine = text(shown);
            if let Some((_, least)) = min.filter(|(least, _)| *least > usual) {
                let detail = format!("min value {} is greater than default value {mine}", text(least));
                refuse("default", least, detail);
            }
            if let Some((_, most)) = max.filter(|(most, _)| usual > *most) {
                let detail = format!("default value {mine} is greater than max value {}", text(most));
                refuse("default", most, detail);
            }
        }
        if let Some((factor, shown)) = ratio {
            if factor < Quantity::from_units(1) {
                refuse("maxLimitRequestRatio", shown, format!("ratio {} is less than 1", text(shown)));
            }
            if let (Some((least, _)), Some((most, _))) = (min, max) {
                let range = most.millis() as f64 / least.millis() as f64;
                if factor.millis() as f64 / 1000.0 > range {
                    let detail = format!("ratio {} is greater than max/min = {range:.6}", text(shown));
                    refuse("maxLimitRequestRatio", shown, detail);
                }
            }
        }
        let overcommits = native(name) && !resources::is_huge_page(name);
        if let (Some((usual, usual_shown)), Some((wanted, shown))) = (default, request)
            && !overcommits
            && usual != wanted
        {
            let detail = format!(
                "default value {} must equal to defaultRequest value {} in {name}",
                text(usual_shown),
                text(shown)
            );
            refuse("defaultRequest", shown, detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::{found, found_on_update};
    use serde_json::json;

    #[test]
    fn bad_quotas_are_refused_in_upstreams_words() {
        let check = |spec: Value, expected: &[&str]| {
            assert_eq!(found(RESOURCE_QUOTA, &json!({"spec": spec})), expected);
        };
        check(json!({"hard": {"pods": "3", "requests.cpu": "1", "count/jobs.batch": "2"}}), &[]);
        check(
            json!({"hard": {"pods": "1.5"}}),
            &["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"],
        );
        check(
            json!({"hard": {"cpus": "1"}}),
            &[
                "spec.hard[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified",
                "spec.hard[cpus]: Invalid value: \"cpus\": must be a standard resource for quota",
            ],
        );
        check(
            json!({"hard": {"services": "1"}, "scopes": ["BestEffort"]}),
            &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
        );
        check(
            json!({"scopes": ["BestEffort", "NotBestEffort"]}),
            &["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"],
        );
        let exists = |scope: &str| json!({"scopeName": scope, "operator": "Exists"});
        check(
            json!({"scopeSelector": {"matchExpressions": [exists("Terminating"), exists("NotTerminating")]}}),
            &["spec.scopeSelector.matchExpressions: Invalid value: null: conflicting scopes"],
        );
        check(
            json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}),
            &[
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ],
        );
        assert_eq!(
            found_on_update(RESOURCE_QUOTA, &json!({"spec": {}}), |q| q["spec"]["scopes"] =
                json!(["BestEffort"])),
            ["spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable"]
        );
    }

    #[test]
    fn bad_limit_ranges_are_refused_in_upstreams_words() {
        let check = |limit: Value, expected: &[&str]| {
            assert_eq!(found(LIMIT_RANGE, &json!({"spec": {"limits": [limit]}})), expected);
        };
        check(json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}}), &[]);
        check(
            json!({"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}}),
            &["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"],
        );
        check(
            json!({"type": "Pod", "default": {"cpu": "1"}}),
            &["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
        );
        check(
            json!({"type": "Thing"}),
            &[
                "spec.limits[0].type: Invalid value: \"Thing\": must be a standard limit type or fully qualified",
            ],
        );
        check(
            json!({"type": "PersistentVolumeClaim"}),
            &[
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
            ],
        );
        check(
            json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "500m"}}),
            &["spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"],
        );
    }
}
