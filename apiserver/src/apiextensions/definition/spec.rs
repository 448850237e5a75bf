//! Validation of a definition as a whole: its names, its versions together, what may not change.

use std::collections::BTreeSet;

use common::status::FieldErrors;
use serde_json::Value;

use super::approval::{self, Approval, approval, is_protected};
use super::options::{self, Options, any_node};
use super::parts::Parts;
use super::{conversion, says, versions_of};
use crate::object::{Object, name};
use crate::registry::checks::At;
use crate::registry::names::{dns1035_label, dns1123_subdomain};
use crate::registry::tree::{at, field, flag, has, items, strings, text};

/// A new definition.
pub(super) fn validate(crd: &Object, errors: &mut FieldErrors) {
    let (plural, group) = (at(crd, &["spec", "names", "plural"]), at(crd, &["spec", "group"]));
    let wanted = format!("{}.{}", plural.as_str().unwrap_or(""), group.as_str().unwrap_or(""));
    if !name(crd).is_empty() && name(crd) != wanted {
        errors.invalid("metadata.name", name(crd), "must be spec.names.plural+\".\"+spec.group");
    }
    spec(field(crd, "spec"), &Options::strict(), errors);
    validate_status(crd, errors);
    stored_versions(crd, errors);
    check_approval(crd, None, errors);
    preserve_unknown(crd, None, errors);
}

/// A changed definition. What the old one broke already may stay broken.
pub(super) fn validate_update(crd: &Object, old: &Object, errors: &mut FieldErrors) {
    let (new_spec, old_spec) = (field(crd, "spec"), field(old, "spec"));
    spec(new_spec, &Options::for_update(crd, old), errors);
    let mut immutable = |path: &[&str]| {
        let (new, old) = (at(new_spec, path), at(old_spec, path));
        if new != old {
            errors.invalid(format!("spec.{}", path.join(".")), new, "field is immutable");
        }
    };
    if says(old, "Established") {
        immutable(&["scope"]);
        immutable(&["names", "kind"]);
    }
    immutable(&["group"]);
    immutable(&["names", "plural"]);
    validate_status(crd, errors);
    stored_versions(crd, errors);
    check_approval(crd, Some(old), errors);
    preserve_unknown(crd, Some(old), errors);
}

/// The names that were accepted must be names.
pub(super) fn validate_status(crd: &Object, errors: &mut FieldErrors) {
    names(at(crd, &["status", "acceptedNames"]), "status.acceptedNames", errors);
}

fn stored_versions(crd: &Object, errors: &mut FieldErrors) {
    const PATH: &str = "status.storedVersions";
    let stored = strings(field(crd, "status"), "storedVersions");
    if stored.is_empty() {
        errors.invalid(PATH, &stored, "must have at least one stored version");
        return;
    }
    for version in versions_of(crd) {
        let name = text(version, "name");
        if flag(version, "storage") && !stored.contains(&name) {
            errors.invalid(PATH, &stored, format!("must have the storage version {name}"));
        }
    }
    let known: BTreeSet<&str> = versions_of(crd).iter().map(|v| text(v, "name")).collect();
    for (i, version) in stored.iter().enumerate().filter(|(_, v)| !known.contains(*v)) {
        errors.invalid(format!("{PATH}[{i}]"), version, format!("missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions"));
    }
}

fn check_approval(crd: &Object, old: Option<&Object>, errors: &mut FieldErrors) {
    if !is_protected(at(crd, &["spec", "group"]).as_str().unwrap_or("")) {
        return;
    }
    let (state, reason) = approval(crd);
    if old.is_some_and(|old| approval(old).0 == state) {
        return;
    }
    match state {
        Approval::Invalid => errors.invalid(approval::path(), approval::value(crd), reason),
        Approval::Missing => errors.required(approval::path(), reason),
        Approval::Approved | Approval::Bypassed => {}
    }
}

fn preserve_unknown(crd: &Object, old: Option<&Object>, errors: &mut FieldErrors) {
    let set = |crd: &Object| flag(field(crd, "spec"), "preserveUnknownFields");
    if set(crd) && !old.is_some_and(set) {
        errors.invalid("spec.preserveUnknownFields", true, "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead");
    }
}

fn spec(spec: &Value, options: &Options, errors: &mut FieldErrors) {
    let place = At { value: spec, path: "spec".to_owned() };
    let group = text(spec, "group");
    if group.is_empty() {
        errors.required("spec.group", "");
    } else if let found @ [_, ..] = dns1123_subdomain(group).as_slice() {
        errors.invalid("spec.group", group, found.join(","));
    } else if !group.contains('.') {
        errors.invalid("spec.group", group, "should be a domain with at least one dot");
    }
    place.required_choice("scope", &["Cluster", "Namespaced"], errors);
    let preserves = flag(spec, "preserveUnknownFields");
    let options = &options.for_spec(spec);
    let versions = items(spec, "versions");
    for (i, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{i}].schema.openAPIV3Schema");
        if has(field(version, "schema"), "openAPIV3Schema") {
            continue;
        }
        if options.require_schema {
            errors.required(path, "");
        } else if !preserves && flag(version, "served") {
            errors.required(path, "because otherwise all fields are pruned");
        }
    }
    if preserves && options::schemas(spec).any(|s| any_node(s, &|node| has(node, "default"))) {
        let why = "must be false in order to use defaults in the schema";
        errors.invalid("spec.preserveUnknownFields", true, why);
    }
    let parts = Parts::of(versions);
    let bad_name = |name: &str| Some(dns1035_label(name).join(",")).filter(|why| !why.is_empty());
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for (i, version) in versions.iter().enumerate() {
        let name = text(version, "name");
        unique &= seen.insert(name);
        let path = format!("spec.versions[{i}]");
        if let Some(why) = bad_name(name) {
            errors.invalid(format!("{path}.name"), name, why);
        }
        parts.of_version(&At { value: version, path }, options, errors);
    }
    if !unique {
        errors.invalid("spec.versions", versions, "must contain unique version names");
    }
    if versions.iter().filter(|v| flag(v, "storage")).count() != 1 {
        errors.invalid("spec.versions", versions, "must have exactly one version marked as storage version");
    }
    // Upstream's internal type says the first one's name once more.
    let first = versions.first().map_or("", |version| text(version, "name"));
    if let Some(why) = bad_name(first).filter(|_| !first.is_empty()) {
        errors.invalid("spec.version", first, why);
    }
    let names = place.at("names");
    for key in ["plural", "singular", "kind", "listKind"] {
        names.required_text(key, errors);
    }
    self::names(names.value, "spec.names", errors);
    parts.of_all(options, errors);
    conversion::validate(field(spec, "conversion"), preserves, options, errors);
}

fn names(names: &Value, path: &str, errors: &mut FieldErrors) {
    let mut check = |key: String, value: &str, lower: bool| {
        let shown = if lower { value.to_lowercase() } else { value.to_owned() };
        let found = dns1035_label(&shown);
        if value.is_empty() || found.is_empty() {
            return;
        }
        let prefix = if lower { "may have mixed case, but should otherwise match: " } else { "" };
        errors.invalid(format!("{path}.{key}"), value, format!("{prefix}{}", found.join(",")));
    };
    check("plural".to_owned(), text(names, "plural"), false);
    check("singular".to_owned(), text(names, "singular"), false);
    check("kind".to_owned(), text(names, "kind"), true);
    check("listKind".to_owned(), text(names, "listKind"), true);
    for key in ["shortNames", "categories"] {
        for (i, name) in strings(names, key).into_iter().enumerate() {
            check(format!("{key}[{i}]"), name, false);
        }
    }
    let kind = text(names, "kind");
    if !kind.is_empty() && kind == text(names, "listKind") {
        errors.invalid(format!("{path}.listKind"), kind, "kind and listKind may not be the same");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn crd() -> Value {
        json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
            "conversion": {"strategy": "None"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]},
            "status": {"storedVersions": ["v1"]}})
    }

    fn check(change: impl FnOnce(&mut Value), wanted: &[&str]) {
        let mut crd = crd();
        change(&mut crd);
        let mut errors = FieldErrors::new();
        validate(&crd, &mut errors);
        let found: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_wrong_is_named() {
        check(|_| {}, &[]);
        check(
            |crd| crd["metadata"]["name"] = "x.example.com".into(),
            &["metadata.name: Invalid value: \"x.example.com\": must be spec.names.plural+\".\"+spec.group"],
        );
        check(
            |crd| crd["spec"]["scope"] = "X".into(),
            &["spec.scope: Unsupported value: \"X\": supported values: \"Cluster\", \"Namespaced\""],
        );
        check(
            |crd| crd["spec"]["versions"][0]["schema"] = json!({}),
            &["spec.versions[0].schema.openAPIV3Schema: Required value"],
        );
        check(
            |crd| {
                crd["spec"]["versions"][0]["additionalPrinterColumns"] =
                    json!([{"name": "a", "type": "x", "jsonPath": "a"}])
            },
            &[
                "spec.additionalPrinterColumns[0].type: Invalid value: \"x\": must be one of boolean,date,integer,number,string",
                "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"a\": must be a simple json path starting with .",
            ],
        );
    }

    /// What all versions say alike is the spec's own.
    #[test]
    fn parts_are_named_where_upstream_holds_them() {
        let bad = json!({"openAPIV3Schema": {"type": "object", "properties": {"a": {}}}});
        let scale = json!({"scale": {"specReplicasPath": ".x", "statusReplicasPath": ".status.n"}});
        let why = "properties[a].type: Required value: must not be empty for specified object fields";
        check(
            |crd| {
                crd["spec"]["versions"][0]["schema"] = bad.clone();
                crd["spec"]["versions"][0]["subresources"] = scale.clone();
            },
            &[
                &format!("spec.validation.openAPIV3Schema.{why}"),
                "spec.subresources.scale.specReplicasPath: Invalid value: \".x\": should be a json path under .spec",
            ],
        );
        check(
            |crd| {
                let mut second = crd["spec"]["versions"][0].clone();
                second["name"] = "v2".into();
                second["storage"] = false.into();
                second["schema"] = bad.clone();
                second["subresources"] = scale.clone();
                crd["spec"]["versions"].as_array_mut().expect("a list").push(second);
            },
            &[
                &format!("spec.versions[1].schema.openAPIV3Schema.{why}"),
                "spec.versions[1].subresources.scale.specReplicasPath: Invalid value: \".x\": should be a json path under .spec",
            ],
        );
        check(
            |crd| crd["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.a"}]),
            &[
                "spec.selectableFields[0].jsonPath: Invalid value: \".spec.a\": is an invalid path: does not refer to a valid field",
            ],
        );
        check(
            |crd| crd["spec"]["versions"][0]["name"] = "V1".into(),
            &[
                "spec.versions[0].name: Invalid value: \"V1\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                "spec.version: Invalid value: \"V1\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                "status.storedVersions: Invalid value: [\"v1\"]: must have the storage version V1",
                "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions",
            ],
        );
    }

    #[test]
    fn a_root_beside_a_status_is_told_its_first_mistake() {
        let with_status = |schema: Value| {
            move |crd: &mut Value| {
                crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema;
                crd["spec"]["versions"][0]["subresources"] = json!({"status": {}});
            }
        };
        let mut errors = FieldErrors::new();
        let mut crd = crd();
        with_status(json!({"type": "array", "items": {"type": "object"}, "nullable": true}))(&mut crd);
        validate(&crd, &mut errors);
        let about_root: Vec<&str> = errors.0.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(
            about_root,
            [
                "spec.validation.openAPIV3Schema.type",
                "spec.validation.openAPIV3Schema.nullable",
                "spec.validation.openAPIV3Schema.type"
            ]
        );
        errors.0.clear();
        with_status(json!({"type": "object", "maxProperties": 3}))(&mut crd);
        validate(&crd, &mut errors);
        assert_eq!(errors.0.len(), 1);
        assert!(errors.0[0].detail.starts_with("only [Description Type Format"), "{}", errors.0[0]);
    }

    /// A rule is judged unless its own part of the schema is broken.
    #[test]
    fn rules_are_judged_where_the_schema_is_sound() {
        let rule = |text: &str| json!([{"rule": text}]);
        check(
            |crd| {
                crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"type": "object", "properties": {
                    "a": {"type": "array", "uniqueItems": true, "items": {"type": "string"}, "x-kubernetes-validations": rule("1")},
                    "b": {"type": "string", "x-kubernetes-validations": rule("1")}}});
            },
            &[
                "spec.validation.openAPIV3Schema.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
                "spec.validation.openAPIV3Schema.properties[b].x-kubernetes-validations[0].rule: Invalid value: {\"Rule\":\"1\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: cel expression must evaluate to a bool",
            ],
        );
    }

    #[test]
    fn a_definition_that_keeps_unknown_fields_may_go_on() {
        let mut old = crd();
        old["spec"]["preserveUnknownFields"] = true.into();
        old["spec"]["versions"][0]["schema"] = Value::Null;
        let update = |change: &dyn Fn(&mut Value)| {
            let mut new = old.clone();
            change(&mut new);
            let mut errors = FieldErrors::new();
            validate_update(&new, &old, &mut errors);
            errors.0.iter().map(ToString::to_string).collect::<Vec<String>>()
        };
        let nothing: [&str; 0] = [];
        assert_eq!(update(&|_| {}), nothing);
        assert_eq!(
            update(&|crd| crd["spec"]["preserveUnknownFields"] = false.into()),
            [
                "spec.versions[0].schema.openAPIV3Schema: Required value: because otherwise all fields are pruned"
            ]
        );
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}});
        assert_eq!(
            update(&|crd| crd["spec"]["versions"][0]["schema"] = schema.clone()),
            [
                "spec.preserveUnknownFields: Invalid value: true: must be false in order to use defaults in the schema"
            ]
        );
        assert_eq!(
            update(&|crd| crd["spec"]["conversion"]["strategy"] = "Webhook".into())[0],
            "spec.conversion.strategy: Invalid value: \"Webhook\": must be None if spec.preserveUnknownFields is true"
        );
    }

    #[test]
    fn a_warning_is_printable() {
        check(
            |crd| {
                crd["spec"]["versions"][0]["deprecated"] = true.into();
                crd["spec"]["versions"][0]["deprecationWarning"] = "a\u{200b}b".into();
            },
            &[
                "spec.versions[0].deprecationWarning: Invalid value: \"a\u{200b}b\": must only contain printable UTF-8 characters; non-printable character found at index 1",
            ],
        );
    }

    #[test]
    fn identity_cannot_change() {
        let mut old = crd();
        old["metadata"]["resourceVersion"] = "1".into();
        old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        let mut new = old.clone();
        new["spec"]["scope"] = "Cluster".into();
        let mut errors = FieldErrors::new();
        validate_update(&new, &old, &mut errors);
        assert_eq!(errors.0[0].to_string(), "spec.scope: Invalid value: \"Cluster\": field is immutable");
    }
}
