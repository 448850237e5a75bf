//! `matchLabelKeys` and `mismatchLabelKeys` of affinity terms and spread constraints (KEP-3633, KEP-3243): what
//! they may name, and the selectors that a new pod gets from them.

use common::status::FieldErrors;
use serde_json::{Value, json};

use crate::registry::names;
use crate::registry::tree::{at, entries, field, has, items, items_mut, list_mut, string_map, strings, text};

/// Checks both lists of an affinity term, or the one of a spread constraint whose selector has them already.
pub fn validate(term: &Value, path: &str, errors: &mut FieldErrors) {
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        label_names(term, list, path, errors);
    }
    let keys = strings(term, "matchLabelKeys");
    let selector = field(term, "labelSelector");
    let mut seen: Vec<&str> = entries(selector, "matchLabels").map(|(key, _)| key.as_str()).collect();
    for expression in items(selector, "matchExpressions") {
        let key = text(expression, "key");
        // The first may be what the key itself became.
        if let Some(i) = keys.iter().rposition(|k| *k == key).filter(|_| seen.contains(&key)) {
            errors.invalid(format!("{path}[{i}]"), key, "exists in both matchLabelKeys and labelSelector");
        }
        seen.push(key);
    }
    let mismatch = strings(term, "mismatchLabelKeys");
    for (i, key) in keys.iter().enumerate().filter(|(_, key)| mismatch.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.invalid(format!("{path}.matchLabelKeys[{i}]"), key, detail);
    }
}

/// Checks a spread constraint whose selector stays as it is written.
pub fn validate_apart(constraint: &Value, path: &str, errors: &mut FieldErrors) {
    label_names(constraint, "matchLabelKeys", path, errors);
    let selector = field(constraint, "labelSelector");
    for (i, key) in strings(constraint, "matchLabelKeys").into_iter().enumerate() {
        let named = entries(selector, "matchLabels").any(|(k, _)| k == key)
            || items(selector, "matchExpressions").iter().any(|e| text(e, "key") == key);
        if named {
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.invalid(format!("{path}.matchLabelKeys[{i}]"), key, detail);
        }
    }
}

fn label_names(term: &Value, list: &str, path: &str, errors: &mut FieldErrors) {
    let keys = strings(term, list);
    if keys.is_empty() {
        return;
    }
    if !has(term, "labelSelector") {
        errors.forbidden(format!("{path}.{list}"), "must not be specified when labelSelector is not set");
        return;
    }
    for (i, key) in keys.iter().enumerate() {
        for message in names::qualified_name(key) {
            errors.invalid(format!("{path}.{list}[{i}]"), key, message);
        }
    }
}

/// Adds the pod's own values of the keys to the selectors of a new pod: of affinity terms, and of spread
/// constraints where `spread`.
pub fn apply(pod: &mut Value, spread: bool) {
    let labels = string_map(at(pod, &["metadata", "labels"]));
    let add = |term: &mut Value| {
        if !has(term, "labelSelector") {
            return;
        }
        for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
            let keys: Vec<String> = strings(term, list).into_iter().map(str::to_owned).collect();
            for (key, value) in keys.into_iter().filter_map(|key| labels.get(&key).map(|v| (key, v))) {
                if let Some(expressions) =
                    term.get_mut("labelSelector").and_then(|s| list_mut(s, "matchExpressions"))
                {
                    expressions.push(json!({"key": key, "operator": operator, "values": [value]}));
                }
            }
        }
    };
    let Some(spec) = pod.get_mut("spec") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.pointer_mut(&format!("/affinity/{kind}")) else { continue };
        let preferred = items_mut(affinity, "preferredDuringSchedulingIgnoredDuringExecution").iter_mut();
        preferred.filter_map(|weighted| weighted.get_mut("podAffinityTerm")).for_each(add);
        items_mut(affinity, "requiredDuringSchedulingIgnoredDuringExecution").iter_mut().for_each(add);
    }
    if spread {
        items_mut(spec, "topologySpreadConstraints").iter_mut().for_each(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_part_of_the_selector_once() {
        let term = json!({"labelSelector": {}, "matchLabelKeys": ["a", "x"], "mismatchLabelKeys": ["b"],
            "topologyKey": "t"});
        let mut pod = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]},
                "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": {"matchLabelKeys": ["a"]}}]}},
            "topologySpreadConstraints": [{"labelSelector": {}, "matchLabelKeys": ["a"]}]}});
        apply(&mut pod, false);
        let required = "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0";
        assert_eq!(
            pod.pointer(required).expect("the term")["labelSelector"]["matchExpressions"],
            json!([{"key": "a", "operator": "In", "values": ["1"]},
                {"key": "b", "operator": "NotIn", "values": ["2"]}])
        );
        assert_eq!(pod["spec"]["topologySpreadConstraints"][0]["labelSelector"], json!({}));
        apply(&mut pod, true);
        let spread = &pod["spec"]["topologySpreadConstraints"][0];
        assert_eq!(items(&spread["labelSelector"], "matchExpressions").len(), 1);
        let mut errors = FieldErrors::new();
        validate(spread, "c", &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn keys_that_say_something_twice_are_refused() {
        let found = |term: Value, apart: bool| {
            let mut errors = FieldErrors::new();
            if apart {
                validate_apart(&term, "t", &mut errors)
            } else {
                validate(&term, "t", &mut errors)
            }
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let expression = json!({"key": "a", "operator": "In", "values": ["1"]});
        assert_eq!(
            found(json!({"matchLabelKeys": ["a"]}), false),
            ["t.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"]
        );
        assert_eq!(
            found(
                json!({"matchLabelKeys": ["a"],
                    "labelSelector": {"matchLabels": {"a": "1"}, "matchExpressions": [expression]}}),
                false
            ),
            ["t[0]: Invalid value: \"a\": exists in both matchLabelKeys and labelSelector"]
        );
        assert_eq!(
            found(json!({"matchLabelKeys": ["a"], "mismatchLabelKeys": ["a"], "labelSelector": {}}), false),
            [
                "t.matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and mismatchLabelKeys"
            ]
        );
        assert_eq!(
            found(
                json!({"matchLabelKeys": ["a"], "labelSelector": {"matchExpressions": [expression]}}),
                true
            ),
            ["t.matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and labelSelector"]
        );
    }
}
