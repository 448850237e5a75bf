//! Flow schemas and priority levels (`pkg/apis/flowcontrol`).

use common::status::FieldErrors;
use serde_json::{Value, json};

use super::checks::At;
use super::names;
use super::others::defaults;
use super::rules::Rules;
use super::tree::{annotation, field, items, same, set, text};
use crate::object::{self, Object};

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
const HASH_BITS_MAX: i64 = 60;
/// How v1beta3 said that zero shares are meant.
const PRESERVE_ZERO: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";
const VERBS: [&str; 9] =
    ["get", "list", "create", "update", "delete", "deletecollection", "patch", "watch", "proxy"];

pub const FLOW_SCHEMA: Rules = Rules {
    default: defaults::flow_schema,
    validate: |schema, errors| {
        let spec = At::root(schema).at("spec");
        schema_spec(&spec, object::name(schema), errors);
        let name = object::name(schema);
        if fixed_schema(name).is_some_and(|fixed| !same(spec.value, &fixed)) {
            errors.invalid("spec", spec.value, format!("spec of '{name}' must equal the fixed value"));
        }
    },
    validate_status: |new, _, errors| conditions(new, errors),
    ..Rules::SPLIT
};

pub const PRIORITY_LEVEL: Rules = Rules {
    default: defaults::priority_level,
    validate: |level, errors| {
        if annotation(level, PRESERVE_ZERO).is_some() {
            errors.forbidden("metadata.annotations", format!("annotation '{PRESERVE_ZERO}' is forbidden"));
        }
        let spec = At::root(level).at("spec");
        let name = object::name(level);
        level_spec(&spec, name, errors);
        match name {
            "exempt" => {
                let mut have = spec.value.clone();
                set(&mut have, "exempt", Value::Null);
                if !same(&have, &json!({"type": "Exempt"})) {
                    errors.invalid(
                        "spec",
                        spec.value,
                        "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value",
                    );
                }
            }
            "catch-all" => {
                let fixed = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5,
                    "lendablePercent": 0, "limitResponse": {"type": "Reject"}}});
                if !same(spec.value, &fixed) {
                    errors.invalid("spec", spec.value, "spec of 'catch-all' must equal the fixed value");
                }
            }
            _ => {}
        }
    },
    validate_status: |new, _, errors| conditions(new, errors),
    ..Rules::SPLIT
};

/// The two schemas that no one may change.
fn fixed_schema(name: &str) -> Option<Value> {
    let (level, precedence, groups): (&str, i64, &[&str]) = match name {
        "exempt" => ("exempt", 1, &["system:masters"]),
        "catch-all" => ("catch-all", PRECEDENCE_MAX, &["system:unauthenticated", "system:authenticated"]),
        _ => return None,
    };
    let subjects: Vec<Value> =
        groups.iter().map(|group| json!({"kind": "Group", "group": {"name": group}})).collect();
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
        "rules": [{"subjects": subjects,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
                "clusterScope": true}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]});
    if name == "catch-all" {
        spec["distinguisherMethod"] = json!({"type": "ByUser"});
    }
    Some(spec)
}

fn conditions(object: &Object, errors: &mut FieldErrors) {
    let list = items(field(object, "status"), "conditions");
    for (i, condition) in list.iter().enumerate() {
        let kind = text(condition, "type");
        let path = format!("status.conditions[{i}].type");
        if list[..i].iter().any(|other| text(other, "type") == kind) {
            errors.duplicate(&path, kind);
        }
        if kind.is_empty() {
            errors.required(path, "");
        }
    }
}

fn schema_spec(spec: &At<'_>, name: &str, errors: &mut FieldErrors) {
    let precedence = spec.int("matchingPrecedence").unwrap_or(0);
    if precedence <= 0 {
        errors.invalid(spec.under("matchingPrecedence"), precedence, "must be a positive value");
    }
    if precedence > PRECEDENCE_MAX {
        let detail = format!("must not be greater than {PRECEDENCE_MAX}");
        spec.invalid("matchingPrecedence", detail, errors);
    }
    if precedence == 1 && name != "exempt" {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        spec.invalid("matchingPrecedence", detail, errors);
    }
    let method = spec.at("distinguisherMethod");
    let methods = ["ByNamespace", "ByUser"];
    if method.present() && !methods.contains(&method.text("type")) {
        errors.not_supported(method.under("type"), method.value, &methods);
    }
    let level = spec.at("priorityLevelConfiguration");
    if level.text("name").is_empty() {
        level.required("name", "must reference a priority level", errors);
    } else {
        level.shaped("name", names::dns1123_subdomain, errors);
    }
    for rule in spec.each("rules") {
        schema_rule(&rule, errors);
    }
}

fn schema_rule(rule: &At<'_>, errors: &mut FieldErrors) {
    let subjects = rule.each("subjects");
    if subjects.is_empty() {
        rule.required("subjects", "subjects must contain at least one value", errors);
    }
    for subject in &subjects {
        schema_subject(subject, errors);
    }
    let (resources, others) = (rule.each("resourceRules"), rule.each("nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.required(&rule.path, detail);
    }
    for rule in &resources {
        verbs(rule, errors);
        wildcard(
            rule,
            "apiGroups",
            "resource rules must supply at least one api group",
            "api groups",
            errors,
        );
        wildcard(rule, "resources", "resource rules must supply at least one resource", "resources", errors);
        namespaces(rule, errors);
    }
    for rule in &others {
        verbs(rule, errors);
        let missing = "nonResourceURLs must contain at least one value";
        if !wildcard(rule, "nonResourceURLs", missing, "non-resource URLs", errors) {
            for (i, url) in rule.strings("nonResourceURLs").iter().enumerate() {
                if let Some(detail) = url_problem(url) {
                    errors.invalid(format!("{}[{i}]", rule.under("nonResourceURLs")), url, detail);
                }
            }
        }
    }
}

fn schema_subject(subject: &At<'_>, errors: &mut FieldErrors) {
    let kinds = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.text("kind");
    let Some((_, own)) = kinds.iter().find(|(name, _)| *name == kind) else {
        errors.not_supported(subject.under("kind"), kind, &kinds.map(|(name, _)| name));
        return;
    };
    let named = subject.at(own);
    if !named.present() {
        errors.required(&named.path, format!("{own} is required when subject kind is '{kind}'"));
    } else if *own == "serviceAccount" {
        if named.required_text("name", errors) && named.text("name") != "*" {
            named.shaped("name", names::dns1123_subdomain, errors);
        }
        if named.text("namespace").is_empty() {
            named.required("namespace", "must specify namespace for service account", errors);
        } else {
            named.shaped("namespace", names::dns1123_label, errors);
        }
    } else {
        named.required_text("name", errors);
    }
    // In upstream's order.
    for (other, key) in [kinds[0], kinds[1], kinds[2]] {
        if key != *own && subject.has(key) {
            subject.forbidden(key, format!("{key} is forbidden when subject kind is not '{other}'"), errors);
        }
    }
}

/// At least one item, and nothing beside a wildcard; true when there is nothing more to check.
fn wildcard(rule: &At<'_>, key: &str, missing: &str, what: &str, errors: &mut FieldErrors) -> bool {
    let list = rule.strings(key);
    if list.is_empty() {
        rule.required(key, missing, errors);
        return true;
    }
    if list.contains(&"*") {
        if list.len() > 1 {
            rule.invalid(key, format!("if '*' is present, must not specify other {what}"), errors);
        }
        return true;
    }
    false
}

fn verbs(rule: &At<'_>, errors: &mut FieldErrors) {
    let missing = "verbs must contain at least one value";
    if !wildcard(rule, "verbs", missing, "verbs", errors)
        && !rule.strings("verbs").iter().all(|verb| VERBS.contains(verb))
    {
        errors.not_supported(rule.under("verbs"), field(rule.value, "verbs"), &VERBS);
    }
}

fn namespaces(rule: &At<'_>, errors: &mut FieldErrors) {
    let list = rule.strings("namespaces");
    if list.is_empty() {
        if !rule.flag("clusterScope") {
            let detail = "resource rules that are not cluster scoped must supply at least one namespace";
            rule.required("namespaces", detail, errors);
        }
    } else if list.contains(&"*") {
        if list.len() > 1 {
            let detail = "if '*' is present, must not specify other namespaces";
            rule.invalid("namespaces", detail, errors);
        }
    } else {
        for (i, name) in list.iter().enumerate() {
            for message in names::dns1123_label(name) {
                errors.invalid(
                    format!("{}[{i}]", rule.under("namespaces")),
                    name,
                    format!("each member of this list must be '*' or a DNS-1123 label; {message}"),
                );
            }
        }
    }
}

fn url_problem(path: &str) -> Option<&'static str> {
    let stars = path.matches('*').count();
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || (stars == 1 && !path.ends_with("/*")) => {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
    }
}

fn level_spec(spec: &At<'_>, name: &str, errors: &mut FieldErrors) {
    let kind = spec.text("type");
    if (name == "exempt") != (kind == "Exempt") {
        errors.invalid(spec.under("type"), kind, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match kind {
        "Exempt" => {
            if spec.has("limited") {
                spec.forbidden("limited", "must be nil if the type is not Limited", errors);
            }
            shares(&spec.at("exempt"), errors);
        }
        "Limited" => {
            if spec.has("exempt") {
                spec.forbidden("exempt", "must be nil if the type is Limited", errors);
            }
            if spec.has("limited") {
                limited(&spec.at("limited"), errors);
            } else {
                spec.required("limited", "must not be empty when type is Limited", errors);
            }
        }
        _ => errors.not_supported(spec.under("type"), kind, &["Exempt", "Limited"]),
    }
}

fn shares(of: &At<'_>, errors: &mut FieldErrors) {
    if of.int("nominalConcurrencyShares").is_some_and(|s| s < 0) {
        of.invalid("nominalConcurrencyShares", "must be a non-negative integer", errors);
    }
    of.between("lendablePercent", 0, 100, errors);
}

fn limited(limited: &At<'_>, errors: &mut FieldErrors) {
    if limited.int("nominalConcurrencyShares").is_some_and(|s| s < 0) {
        limited.invalid("nominalConcurrencyShares", "must be a non-negative integer", errors);
    }
    let response = limited.at("limitResponse");
    match response.text("type") {
        "Reject" if response.has("queuing") => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            response.forbidden("queuing", detail, errors);
        }
        "Reject" => {}
        "Queue" if !response.has("queuing") => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            response.required("queuing", detail, errors);
        }
        "Queue" => queuing(&response.at("queuing"), errors),
        other => errors.not_supported(response.under("type"), other, &["Queue", "Reject"]),
    }
    limited.between("lendablePercent", 0, 100, errors);
    if limited.int("borrowingLimitPercent").is_some_and(|p| p < 0) {
        let detail = "if specified, must be a non-negative integer";
        limited.invalid("borrowingLimitPercent", detail, errors);
    }
}

fn queuing(queuing: &At<'_>, errors: &mut FieldErrors) {
    let number = |key: &str| queuing.int(key).unwrap_or(0);
    let (queues, hand) = (number("queues"), number("handSize"));
    if number("queueLengthLimit") <= 0 {
        errors.invalid(queuing.under("queueLengthLimit"), number("queueLengthLimit"), "must be positive");
    }
    if queues <= 0 {
        errors.invalid(queuing.under("queues"), queues, "must be positive");
    } else if queues > QUEUES_MAX {
        queuing.invalid("queues", format!("must not be greater than {QUEUES_MAX}"), errors);
    }
    if hand <= 0 {
        errors.invalid(queuing.under("handSize"), hand, "must be positive");
    } else if hand > queues {
        queuing.invalid("handSize", format!("should not be greater than queues ({queues})"), errors);
    } else {
        let bits = ((queues as f64).log2() * hand as f64).ceil() as i64;
        if bits > HASH_BITS_MAX {
            queuing.invalid("handSize", format!("required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS_MAX}"), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::checks::found;

    #[test]
    fn bad_schemas_are_refused_in_upstreams_words() {
        let check = |spec: Value, expected: &[&str]| {
            let mut whole = json!({"priorityLevelConfiguration": {"name": "l"}});
            for (key, value) in spec.as_object().expect("fields") {
                whole[key] = value.clone();
            }
            assert_eq!(found(FLOW_SCHEMA, &json!({"metadata": {"name": "a"}, "spec": whole})), expected);
        };
        check(json!({}), &[]);
        check(
            json!({"matchingPrecedence": 1}),
            &[
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
            ],
        );
        check(
            json!({"rules": [{"subjects": [{"kind": "User"}]}]}),
            &[
                "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ],
        );
        check(
            json!({"rules": [{"subjects": [{"kind": "Group", "group": {"name": "g"}}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["a*"]}]}]}),
            &[
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"a*\": must start with slash",
            ],
        );
    }

    #[test]
    fn the_fixed_objects_are_fixed() {
        let exempt = json!({"metadata": {"name": "exempt"}, "spec": fixed_schema("exempt")});
        assert!(found(FLOW_SCHEMA, &exempt).is_empty());
        let mut changed = exempt.clone();
        changed["spec"]["rules"] = json!([]);
        assert!(found(FLOW_SCHEMA, &changed)[0].ends_with("spec of 'exempt' must equal the fixed value"));
        let level = json!({"metadata": {"name": "exempt"}, "spec": {"type": "Exempt"}});
        assert!(found(PRIORITY_LEVEL, &level).is_empty());
    }

    #[test]
    fn bad_levels_are_refused_in_upstreams_words() {
        let check = |spec: Value, expected: &[&str]| {
            assert_eq!(found(PRIORITY_LEVEL, &json!({"metadata": {"name": "a"}, "spec": spec})), expected);
        };
        check(json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}), &[]);
        let annotated = json!({"metadata": {"name": "a", "annotations": {PRESERVE_ZERO: ""}},
            "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}});
        assert_eq!(
            found(PRIORITY_LEVEL, &annotated),
            [
                "metadata.annotations: Forbidden: annotation 'flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares' is forbidden"
            ]
        );
        check(
            json!({"type": "Limited"}),
            &["spec.limited: Required value: must not be empty when type is Limited"],
        );
        check(
            json!({"type": "Exempt"}),
            &["spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'"],
        );
        check(
            json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {"queues": 1024, "handSize": 8}}}}),
            &[
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize 1024 and handSize 8 should not be greater than 60",
            ],
        );
    }
}
