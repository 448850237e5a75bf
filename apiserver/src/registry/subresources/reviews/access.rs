//! What an access review asks: its attributes for the authorizers, and what it may not say.
//!
//! Selectors come as text or as requirements; authorizers read text. A part that is not understood is left out,
//! which asks for more than was meant, and said in `evaluationError` (KEP-4601).

use std::collections::{BTreeMap, BTreeSet};

use common::fields::FieldSelector;
use common::labels::{Requirement, Selector, is_label_value, is_qualified_name};
use common::status::FieldErrors;
use serde_json::Value;

use crate::authorization::Attributes;
use crate::object::{Object, str_at};
use crate::registry::checks::At;
use crate::registry::names;
use crate::registry::tree::{at, field, has, items, strings, text};
use crate::request::UserInfo;

/// The subject that a review names.
pub(super) fn subject(spec: &Value) -> UserInfo {
    let extra: BTreeMap<String, Vec<String>> = field(spec, "extra")
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| {
            let values = strings(field(spec, "extra"), key).into_iter().map(str::to_owned).collect();
            (key.clone(), values)
        })
        .collect();
    UserInfo {
        name: text(spec, "user").to_owned(),
        uid: text(spec, "uid").to_owned(),
        groups: strings(spec, "groups").into_iter().map(str::to_owned).collect(),
        extra,
    }
}

/// The question, and what of it was not understood (empty when all was).
pub(super) fn attributes(spec: &Value, user: UserInfo) -> (Attributes, String) {
    let of = |owner: &Value, key: &str| text(owner, key).to_owned();
    let resource = field(spec, "resourceAttributes");
    if !resource.is_object() {
        let path = field(spec, "nonResourceAttributes");
        let asked =
            Attributes { user, verb: of(path, "verb"), path: of(path, "path"), ..Attributes::default() };
        return (asked, String::new());
    }
    let (fields, fields_left_out) = fields(field(resource, "fieldSelector"));
    let (labels, labels_left_out) = labels(field(resource, "labelSelector"));
    let told = |what: &str, selector: &str, left_out: bool| {
        let partially = if selector.is_empty() { "" } else { "partially " };
        left_out.then(|| format!("spec.resourceAttributes.{what} {partially}ignored due to parse error"))
    };
    let errors: Vec<String> =
        [told("fieldSelector", &fields, fields_left_out), told("labelSelector", &labels, labels_left_out)]
            .into_iter()
            .flatten()
            .collect();
    let version = of(resource, "version");
    let asked = Attributes {
        user,
        verb: of(resource, "verb"),
        is_resource: true,
        namespace: of(resource, "namespace"),
        group: of(resource, "group"),
        version: if version.is_empty() { "*".to_owned() } else { version },
        resource: of(resource, "resource"),
        subresource: of(resource, "subresource"),
        name: of(resource, "name"),
        field_selector: fields,
        label_selector: labels,
        ..Attributes::default()
    };
    (asked, errors.join("; "))
}

/// As a query says it, and whether anything was left out.
fn fields(selector: &Value) -> (String, bool) {
    let raw = text(selector, "rawSelector");
    let requirements = items(selector, "requirements");
    if requirements.is_empty() {
        return if FieldSelector::parse(raw).is_ok() {
            (raw.to_owned(), false)
        } else {
            (String::new(), true)
        };
    }
    let escaped = |value: &str| value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
    let (mut terms, mut left_out) = (Vec::new(), false);
    for requirement in requirements {
        let values = strings(requirement, "values");
        let operator = match text(requirement, "operator") {
            "In" => "=",
            "NotIn" => "!=",
            _ => "",
        };
        match values.as_slice() {
            [value] if !operator.is_empty() => {
                terms.push(format!("{}{operator}{}", text(requirement, "key"), escaped(value)));
            }
            _ => left_out = true,
        }
    }
    (terms.join(","), left_out)
}

fn labels(selector: &Value) -> (String, bool) {
    let raw = text(selector, "rawSelector");
    let requirements = items(selector, "requirements");
    if requirements.is_empty() {
        return if Selector::parse(raw).is_ok() { (raw.to_owned(), false) } else { (String::new(), true) };
    }
    let (mut known, mut left_out) = (Selector::everything(), false);
    for requirement in requirements {
        let key = text(requirement, "key").to_owned();
        let values: BTreeSet<String> =
            strings(requirement, "values").into_iter().map(str::to_owned).collect();
        let right = is_qualified_name(&key) && values.iter().all(|value| is_label_value(value));
        match (text(requirement, "operator"), values.is_empty()) {
            ("In", false) if right => known.requirements.push(Requirement::In(key, values)),
            ("NotIn", false) if right => known.requirements.push(Requirement::NotIn(key, values)),
            ("Exists", true) if right => known.requirements.push(Requirement::Exists(key)),
            ("DoesNotExist", true) if right => known.requirements.push(Requirement::DoesNotExist(key)),
            _ => left_out = true,
        }
    }
    (known.to_string(), left_out)
}

/// Whose access a review is about, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The one who asks.
    Oneself,
    /// A subject that it names.
    Subject,
    /// The same, in the namespace of the review.
    SubjectHere,
}

pub(super) fn validate(review: &Object, about: About) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let spec = field(review, "spec");
    let (resource, path) = ("resourceAttributes", "nonResourceAttributes");
    match (has(spec, resource), has(spec, path)) {
        (true, true) => errors.invalid(
            "spec.nonResourceAttributes",
            field(spec, path),
            "cannot be specified in combination with resourceAttributes",
        ),
        (false, false) => errors.invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => {}
    }
    if about != About::Oneself && text(spec, "user").is_empty() && strings(spec, "groups").is_empty() {
        errors.invalid("spec.user", "", "at least one of user or group must be specified");
    }
    let asked = At { value: field(spec, resource), path: "spec.resourceAttributes".to_owned() };
    for kind in ["fieldSelector", "labelSelector"] {
        selector(&asked.at(kind), kind == "labelSelector", &mut errors);
    }
    metadata_is_empty(review, about, &mut errors);
    if about == About::SubjectHere {
        let namespace = str_at(review, &["metadata", "namespace"]);
        if has(spec, resource) && text(asked.value, "namespace") != namespace {
            let here = "spec.resourceAttributes.namespace";
            errors.invalid(here, text(asked.value, "namespace"), "must match metadata.namespace");
        }
        if has(spec, path) {
            let detail = "disallowed on this kind of request";
            errors.invalid("spec.nonResourceAttributes", field(spec, path), detail);
        }
    }
    errors
}

/// A review is no object: nothing may be in its metadata.
fn metadata_is_empty(review: &Object, about: About, errors: &mut FieldErrors) {
    let here = about == About::SubjectHere;
    let metadata = at(review, &["metadata"]);
    let said = metadata.as_object().into_iter().flatten().any(|(key, value)| {
        let allowed = key == "managedFields" || (here && key == "namespace");
        !allowed && !crate::registry::tree::is_zero(value)
    });
    if said {
        let detail = if here { "must be empty except for namespace" } else { "must be empty" };
        errors.invalid("metadata", metadata, detail);
    }
}

/// Operators that this server does not know are for newer ones, and tolerated.
fn selector(selector: &At<'_>, of_labels: bool, errors: &mut FieldErrors) {
    if !selector.present() {
        return;
    }
    let (raw, requirements) = (selector.text("rawSelector"), selector.each("requirements"));
    if !raw.is_empty() && !requirements.is_empty() {
        selector.invalid("rawSelector", "may not specified at the same time as requirements", errors);
    }
    if raw.is_empty() && requirements.is_empty() {
        let detail = format!("when {} is specified, requirements or rawSelector is required", selector.path);
        selector.required("requirements", &detail, errors);
    }
    for requirement in requirements {
        if !of_labels && requirement.text("key").is_empty() {
            requirement.required("key", "must be specified", errors);
        }
        let values = requirement.strings("values");
        match requirement.text("operator") {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                requirement.required("values", detail, errors);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                requirement.forbidden("values", detail, errors);
            }
            _ => {}
        }
        if of_labels {
            requirement.shaped("key", names::qualified_name, errors);
            for (i, value) in values.iter().enumerate() {
                for message in names::label_value(value) {
                    errors.invalid(format!("{}[{i}]", requirement.under("values")), value, message);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requirements_become_the_text_that_authorizers_read() {
        let check = |resource: Value, fields: &str, labels: &str, error: &str| {
            let (asked, told) = attributes(&json!({"resourceAttributes": resource}), UserInfo::default());
            assert_eq!((asked.field_selector.as_str(), asked.label_selector.as_str()), (fields, labels));
            assert_eq!((told.as_str(), asked.version.as_str()), (error, "*"));
        };
        check(json!({"verb": "list"}), "", "", "");
        let raw = json!({"fieldSelector": {"rawSelector": "spec.nodeName=a"}, "labelSelector": {"rawSelector": "a in (b)"}});
        check(raw, "spec.nodeName=a", "a in (b)", "");
        let said = json!({
            "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["a,b"]},
                {"key": "x", "operator": "NotIn", "values": ["y"]}]},
            "labelSelector": {"requirements": [{"key": "a", "operator": "Exists"}]}});
        check(said, "spec.nodeName=a\\,b,x!=y", "a", "");
        let partly = json!({
            "fieldSelector": {"requirements": [{"key": "x", "operator": "In", "values": ["y", "z"]}]},
            "labelSelector": {"requirements": [{"key": "a", "operator": "Near"}, {"key": "b", "operator": "Exists"}]}});
        check(
            partly,
            "",
            "b",
            "spec.resourceAttributes.fieldSelector ignored due to parse error; spec.resourceAttributes.labelSelector partially ignored due to parse error",
        );
    }

    #[test]
    fn a_review_that_says_too_much_or_too_little_is_refused() {
        let found = |review: Value, about: About| -> Vec<String> {
            validate(&review, about).0.iter().map(ToString::to_string).collect()
        };
        let asks =
            || json!({"metadata": {}, "spec": {"user": "a", "resourceAttributes": {"namespace": "n"}}});
        assert!(found(asks(), About::Subject).is_empty());
        let mut named = asks();
        named["metadata"]["name"] = json!("x");
        assert_eq!(
            found(named, About::Subject),
            ["metadata: Invalid value: {\"name\":\"x\"}: must be empty"]
        );
        let mut here = asks();
        here["metadata"]["namespace"] = json!("m");
        assert_eq!(
            found(here.clone(), About::SubjectHere),
            ["spec.resourceAttributes.namespace: Invalid value: \"n\": must match metadata.namespace"]
        );
        here["metadata"]["namespace"] = json!("n");
        assert!(found(here, About::SubjectHere).is_empty());
        let mut both = asks();
        both["spec"]["resourceAttributes"]["labelSelector"] = json!({});
        assert_eq!(
            found(both, About::Oneself),
            [
                "spec.resourceAttributes.labelSelector.requirements: Required value: when spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required"
            ]
        );
        let nothing = json!({"metadata": {}, "spec": {"groups": ["g"]}});
        assert_eq!(found(nothing, About::Subject).len(), 1);
    }
}
