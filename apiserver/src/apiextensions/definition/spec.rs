//! Validation of everything but the schemas.

use std::collections::{BTreeMap, BTreeSet};

use common::status::FieldErrors;
use serde_json::Value;

use super::approval::{self, Approval, approval, is_protected};
use super::properties::{self, Options};
use super::{says, structure, versions_of};
use crate::apiextensions::schema::Structural;
use crate::object::{Object, name};
use crate::registry::names::{dns1035_label, dns1123_subdomain};
use crate::registry::tree::{at, field, flag, has, items, strings, text};

const COLUMN_TYPES: &str = "boolean,date,integer,number,string";
const COLUMN_FORMATS: &str = "byte,date,date-time,double,float,int32,int64,password";
const SELECTABLE_FIELDS_MAX: usize = 8;
const DEPRECATION_WARNING_CHARS_MAX: usize = 256;
/// What may stand beside `properties` at the root when `status` is a subresource.
const ROOT_FIELDS: &[(&str, &str)] = &[
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

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
    let group = text(spec, "group");
    if group.is_empty() {
        errors.required("spec.group", "");
    } else if let found @ [_, ..] = dns1123_subdomain(group).as_slice() {
        errors.invalid("spec.group", group, found.join(","));
    } else if !group.contains('.') {
        errors.invalid("spec.group", group, "should be a domain with at least one dot");
    }
    match text(spec, "scope") {
        "" => errors.required("spec.scope", ""),
        "Cluster" | "Namespaced" => {}
        other => errors.not_supported("spec.scope", other, &["Cluster", "Namespaced"]),
    }
    let versions = items(spec, "versions");
    if options.require_schema {
        for (i, version) in versions.iter().enumerate() {
            if !has(field(version, "schema"), "openAPIV3Schema") {
                errors.required(format!("spec.versions[{i}].schema.openAPIV3Schema"), "");
            }
        }
    }
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for (i, version) in versions.iter().enumerate() {
        let name = text(version, "name");
        unique &= seen.insert(name);
        let path = format!("spec.versions[{i}]");
        if let found @ [_, ..] = dns1035_label(name).as_slice() {
            errors.invalid(format!("{path}.name"), name, found.join(","));
        }
        self::version(version, &path, options, errors);
    }
    if !unique {
        errors.invalid("spec.versions", versions, "must contain unique version names");
    }
    if versions.iter().filter(|v| flag(v, "storage")).count() != 1 {
        errors.invalid("spec.versions", versions, "must have exactly one version marked as storage version");
    }
    let spec_names = field(spec, "names");
    for key in ["plural", "singular", "kind", "listKind"] {
        if text(spec_names, key).is_empty() {
            errors.required(format!("spec.names.{key}"), "");
        }
    }
    names(spec_names, "spec.names", errors);
    conversion(field(spec, "conversion"), flag(spec, "preserveUnknownFields"), errors);
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

fn version(version: &Value, path: &str, options: &Options, errors: &mut FieldErrors) {
    deprecation(version, path, errors);
    let schema = at(version, &["schema", "openAPIV3Schema"]);
    let subresources = field(version, "subresources");
    let options = &options.for_version(text(version, "name"));
    if schema.is_object() {
        self::schema(schema, &format!("{path}.schema"), has(subresources, "status"), options, errors);
    }
    if has(subresources, "scale") {
        scale(field(subresources, "scale"), &format!("{path}.subresources"), errors);
    }
    for (i, column) in items(version, "additionalPrinterColumns").iter().enumerate() {
        self::column(column, &format!("{path}.additionalPrinterColumns[{i}]"), errors);
    }
    let selectable = items(version, "selectableFields");
    if !selectable.is_empty() {
        let path = format!("{path}.selectableFields");
        if schema.is_object() {
            selectable_fields(selectable, &Structural::read(schema), &path, options, errors);
        } else {
            errors.invalid(path, "", "may only be set when `version.schema.openAPIV3Schema` is not included");
        }
    }
}

fn deprecation(version: &Value, path: &str, errors: &mut FieldErrors) {
    let Some(warning) = field(version, "deprecationWarning").as_str() else { return };
    let mut bad = |why: String| errors.invalid(format!("{path}.deprecationWarning"), warning, why);
    if !flag(version, "deprecated") {
        bad("can only be set for deprecated versions".to_owned());
        return;
    }
    if warning.len() > DEPRECATION_WARNING_CHARS_MAX {
        bad(format!("must be <= {DEPRECATION_WARNING_CHARS_MAX} characters long"));
    }
    if warning.is_empty() {
        bad("must not be an empty string".to_owned());
    }
    if let Some((i, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        bad(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {i}"
        ));
    }
}

fn schema(schema: &Value, path: &str, with_status: bool, options: &Options, errors: &mut FieldErrors) {
    let before = errors.0.len();
    let root = format!("{path}.openAPIV3Schema");
    if with_status {
        let ty = text(schema, "type");
        if !ty.is_empty() && ty != "object" {
            errors.invalid(format!("{root}.type"), ty, "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled");
        }
        let extra = schema.as_object().into_iter().flatten().any(|(key, value)| {
            !crate::registry::tree::is_zero(value) && !ROOT_FIELDS.iter().any(|(json, _)| json == key)
        });
        if extra {
            let allowed: Vec<&str> = ROOT_FIELDS.iter().map(|(_, go)| *go).collect();
            errors.invalid(&root, schema, format!("only [{}] fields are allowed at the root of the schema if the status subresource is enabled", allowed.join(" ")));
        }
    }
    if flag(schema, "nullable") {
        errors.forbidden(format!("{root}.nullable"), "nullable cannot be true at the root");
    }
    let mut rules_too = false;
    if options.require_structural {
        let found = structure::validate(schema, &root);
        if found.is_empty() {
            let broken = structure::defaults(schema, &root, options.require_pruned_defaults);
            rules_too = broken.is_empty();
            errors.extend(broken);
        } else {
            errors.extend(found);
        }
    }
    properties::validate(schema, &root, options, errors);
    if rules_too && errors.0.len() == before {
        properties::validate_rules(schema, &root, options, errors);
    }
}

fn simple_path(value: &str, path: &str, errors: &mut FieldErrors) -> bool {
    if value.starts_with('.') {
        return true;
    }
    errors.invalid(path, value, "must be a simple json path starting with .");
    false
}

fn scale(scale: &Value, path: &str, errors: &mut FieldErrors) {
    for (key, below) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let (value, path) = (text(scale, key), format!("{path}.scale.{key}"));
        if value.is_empty() {
            errors.required(path, "");
        } else if simple_path(value, &path, errors) && !value.starts_with(below) {
            let root = below.trim_end_matches('.');
            errors.invalid(path, value, format!("should be a json path under {root}"));
        }
    }
    let selector = text(scale, "labelSelectorPath");
    let path = format!("{path}.scale.labelSelectorPath");
    if !selector.is_empty()
        && simple_path(selector, &path, errors)
        && !selector.starts_with(".spec.")
        && !selector.starts_with(".status.")
    {
        errors.invalid(path, selector, "should be a json path under either .spec or .status");
    }
}

fn column(column: &Value, path: &str, errors: &mut FieldErrors) {
    if text(column, "name").is_empty() {
        errors.required(format!("{path}.name"), "");
    }
    let ty = text(column, "type");
    if ty.is_empty() {
        errors.required(format!("{path}.type"), format!("must be one of {COLUMN_TYPES}"));
    } else if !COLUMN_TYPES.split(',').any(|known| known == ty) {
        errors.invalid(format!("{path}.type"), ty, format!("must be one of {COLUMN_TYPES}"));
    }
    let format = text(column, "format");
    if !format.is_empty() && !COLUMN_FORMATS.split(',').any(|known| known == format) {
        errors.invalid(format!("{path}.format"), format, format!("must be one of {COLUMN_FORMATS}"));
    }
    let json_path = text(column, "jsonPath");
    if json_path.is_empty() {
        errors.required(format!("{path}.JSONPath"), "");
    } else {
        simple_path(json_path, &format!("{path}.JSONPath"), errors);
    }
}

fn selectable_fields(
    fields: &[Value],
    schema: &Structural,
    path: &str,
    options: &Options,
    errors: &mut FieldErrors,
) {
    let mut seen = BTreeSet::new();
    for (i, entry) in fields.iter().enumerate() {
        let (json_path, path) = (text(entry, "jsonPath"), format!("{path}[{i}].jsonPath"));
        if json_path.is_empty() {
            errors.required(path, "");
            continue;
        }
        let steps = match crate::apiextensions::paths::field_path(json_path, schema) {
            Ok(steps) => steps,
            Err(why) => {
                errors.invalid(path, json_path, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if steps.first().is_some_and(|step| step == "metadata") {
            errors.invalid(&path, json_path, "must not point to fields in metadata");
        }
        let ty = steps.iter().try_fold(schema, |here, step| here.of_field(step)).map(|s| s.ty.as_ref());
        if !matches!(ty, Some("string" | "boolean" | "integer")) {
            errors.invalid(&path, json_path, "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.");
        }
        if !seen.insert(steps) {
            errors.duplicate(path, json_path);
        }
    }
    if seen.len() > SELECTABLE_FIELDS_MAX && !options.many_selectable_fields {
        errors.too_many(path, seen.len(), SELECTABLE_FIELDS_MAX);
    }
}

fn conversion(conversion: &Value, preserves: bool, errors: &mut FieldErrors) {
    const PATH: &str = "spec.conversion";
    let strategy = text(conversion, "strategy");
    let webhook = field(conversion, "webhook");
    if strategy != "None" && !strategy.is_empty() && preserves {
        errors.invalid(
            format!("{PATH}.strategy"),
            strategy,
            "must be None if spec.preserveUnknownFields is true",
        );
    }
    match strategy {
        "" => errors.required(format!("{PATH}.strategy"), ""),
        "None" => {
            if has(webhook, "clientConfig") {
                errors.forbidden(
                    format!("{PATH}.webhookClientConfig"),
                    "should not be set when strategy is not set to Webhook",
                );
            }
            if !items(webhook, "conversionReviewVersions").is_empty() {
                errors.forbidden(
                    format!("{PATH}.conversionReviewVersions"),
                    "should not be set when strategy is not set to Webhook",
                );
            }
        }
        "Webhook" => conversion_webhook(webhook, errors),
        other => errors.not_supported(format!("{PATH}.strategy"), other, &["None", "Webhook"]),
    }
}

fn conversion_webhook(webhook: &Value, errors: &mut FieldErrors) {
    const CLIENT: &str = "spec.conversion.webhookClientConfig";
    const REVIEWS: &str = "spec.conversion.conversionReviewVersions";
    let client = field(webhook, "clientConfig");
    if !client.is_object() {
        errors.required(CLIENT, "required when strategy is set to Webhook");
    } else if has(client, "url") == has(client, "service") {
        errors.required(CLIENT, "exactly one of url or service is required");
    } else if has(client, "url") {
        let url = text(client, "url");
        let hint = "desired format: https://host[/path]";
        if !url.starts_with("https://") {
            let path = format!("{CLIENT}.url");
            errors.invalid(path, url, format!("'https' is the only allowed URL scheme; {hint}"));
        } else if url["https://".len()..].split('/').next().unwrap_or("").is_empty() {
            errors.invalid(format!("{CLIENT}.url"), url, format!("host must be specified; {hint}"));
        }
    } else {
        let service = field(client, "service");
        for key in ["name", "namespace"] {
            if text(service, key).is_empty() {
                errors.required(format!("{CLIENT}.service.{key}"), format!("service {key} is required"));
            }
        }
    }
    let versions = strings(webhook, "conversionReviewVersions");
    if versions.is_empty() {
        errors.required(REVIEWS, "");
        return;
    }
    let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
    for (i, version) in versions.iter().enumerate() {
        if seen.insert(version, ()).is_some() {
            errors.invalid(format!("{REVIEWS}[{i}]"), version, "duplicate version");
            continue;
        }
        for message in dns1035_label(version) {
            errors.invalid(format!("{REVIEWS}[{i}]"), version, message);
        }
    }
    if !versions.iter().any(|v| matches!(*v, "v1" | "v1beta1")) {
        errors.invalid(REVIEWS, &versions, "must include at least one of v1, v1beta1");
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
                "spec.versions[0].additionalPrinterColumns[0].type: Invalid value: \"x\": must be one of boolean,date,integer,number,string",
                "spec.versions[0].additionalPrinterColumns[0].JSONPath: Invalid value: \"a\": must be a simple json path starting with .",
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
