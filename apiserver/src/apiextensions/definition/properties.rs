//! Validation of schemas node by node: forbidden constructs and the `x-kubernetes-*` extensions.

use std::collections::BTreeSet;

use common::status::FieldErrors;
use serde_json::Value;

use super::options::{Options, any_node};
use super::versions_of;
use crate::apiextensions::cel;
use crate::apiextensions::schema::Structural;
use crate::apiextensions::validation::formats;
use crate::object::Object;
use crate::registry::tree::{at, entries, field, flag, has, items, strings, text};

pub(super) const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const REASONS: &[&str] =
    &["FieldValueRequired", "FieldValueForbidden", "FieldValueInvalid", "FieldValueDuplicate"];

/// Formats that are not checked, in the order they are found.
pub(super) fn unrecognized_formats(crd: &Object) -> Vec<String> {
    let found = std::cell::RefCell::new(Vec::new());
    for version in versions_of(crd) {
        any_node(at(version, &["schema", "openAPIV3Schema"]), &|schema| {
            let (ty, format) = (text(schema, "type"), text(schema, "format"));
            if !format.is_empty() && !formats::is_checked(ty, format) {
                found.borrow_mut().push(format.to_owned());
            }
            false
        });
    }
    found.into_inner()
}

#[derive(Clone, Copy)]
struct Place<'a> {
    options: &'a Options,
    forbidden_defaults: Option<&'a str>,
    in_meta: bool,
    root: bool,
}

pub(super) fn validate(schema: &Value, path: &str, options: &Options, errors: &mut FieldErrors) {
    node(schema, path, Place { options, forbidden_defaults: None, in_meta: false, root: true }, errors);
}

fn node(schema: &Value, path: &str, place: Place<'_>, errors: &mut FieldErrors) {
    if !schema.is_object() {
        return;
    }
    constructs(schema, path, place, errors);
    if flag(schema, "uniqueItems") {
        errors.forbidden(
            format!("{path}.uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }
    let below = Place { root: false, ..place };
    let additional = field(schema, "additionalProperties");
    if has(schema, "additionalProperties") {
        let named = field(schema, "properties").as_object().is_some_and(|p| !p.is_empty());
        if named && additional != &Value::Bool(true) {
            errors.forbidden(
                format!("{path}.additionalProperties"),
                "additionalProperties and properties are mutual exclusive",
            );
        }
        let inner = if place.in_meta {
            let why = "inside additionalProperties applying to object metadata";
            Place { forbidden_defaults: Some(why), ..below }
        } else {
            below
        };
        node(additional, &format!("{path}.additionalProperties"), inner, errors);
    }
    for (key, property) in entries(schema, "properties") {
        let meta = (place.root || flag(schema, "x-kubernetes-embedded-resource"))
            && matches!(key.as_str(), "metadata" | "kind" | "apiVersion");
        let why = format!("in top-level {key}");
        let mut inner = below;
        inner.in_meta |= meta;
        if meta && place.root {
            inner.forbidden_defaults = Some(&why);
        }
        node(property, &format!("{path}.properties[{key}]"), inner, errors);
    }
    node(field(schema, "not"), &format!("{path}.not"), below, errors);
    for key in ["allOf", "oneOf", "anyOf"] {
        for (i, inner) in items(schema, key).iter().enumerate() {
            node(inner, &format!("{path}.{key}[{i}]"), below, errors);
        }
    }
    node(field(schema, "items"), &format!("{path}.items"), below, errors);
    extensions(schema, path, place.options, errors);
    rules(schema, path, errors);
}

fn constructs(schema: &Value, path: &str, place: Place<'_>, errors: &mut FieldErrors) {
    let ty = text(schema, "type");
    if place.options.require_valid_types && !ty.is_empty() && !TYPES.contains(&ty) {
        errors.not_supported(format!("{path}.type"), ty, TYPES);
    }
    if let Some(why) = place.forbidden_defaults
        && has(schema, "default")
    {
        errors.forbidden(format!("{path}.default"), format!("must not be set {why}"));
    }
    for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if has(schema, key) && !crate::registry::tree::is_zero(field(schema, key)) {
            errors.forbidden(format!("{path}.{key}"), format!("{key} is not supported"));
        }
    }
    if ty == "null" {
        errors
            .forbidden(format!("{path}.type"), "type cannot be set to null, use nullable as an alternative");
    }
    if field(schema, "items").is_array() {
        errors.forbidden(format!("{path}.items"), "items must be a schema object and not an array");
    }
    if place.in_meta && flag(schema, "x-kubernetes-embedded-resource") {
        errors.forbidden(
            format!("{path}.x-kubernetes-embedded-resource"),
            "must not be used inside of resource meta",
        );
    }
}

fn must_be(schema: &Value, wanted: &str, because: &str, path: &str, errors: &mut FieldErrors) -> bool {
    let ty = text(schema, "type");
    let why = format!("must be {wanted} if {because} is specified");
    if ty == wanted {
        return true;
    }
    if ty.is_empty() {
        errors.required(format!("{path}.type"), why);
    } else {
        errors.invalid(format!("{path}.type"), ty, why);
    }
    false
}

fn extensions(schema: &Value, path: &str, options: &Options, errors: &mut FieldErrors) {
    const LIST: &str = "x-kubernetes-list-type";
    const KEYS: &str = "x-kubernetes-list-map-keys";
    const MAP: &str = "x-kubernetes-map-type";
    const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
    if field(schema, PRESERVE) == &Value::Bool(false) {
        errors.invalid(format!("{path}.{PRESERVE}"), false, "must be true or undefined");
    }
    if has(schema, MAP) {
        must_be(schema, "object", MAP, path, errors);
        if !matches!(text(schema, MAP), "atomic" | "granular") {
            errors.not_supported(format!("{path}.{MAP}"), text(schema, MAP), &["atomic", "granular"]);
        }
    }
    let list = text(schema, LIST);
    if has(schema, LIST) {
        if must_be(schema, "array", LIST, path, errors) && options.require_atomic_sets {
            atomic_set(schema, path, errors);
        }
        if !matches!(list, "atomic" | "set" | "map") {
            errors.not_supported(format!("{path}.{LIST}"), list, &["atomic", "set", "map"]);
        }
    }
    let keys = strings(schema, KEYS);
    if !keys.is_empty() && list != "map" {
        let why = format!("must be map if {KEYS} is non-empty");
        if has(schema, LIST) {
            errors.invalid(format!("{path}.{LIST}"), list, why);
        } else {
            errors.required(format!("{path}.{LIST}"), why);
        }
    }
    if list == "map" {
        list_map(schema, &keys, path, errors);
    }
    if options.require_map_keys {
        map_keys(schema, path, errors);
    }
}

fn list_map(schema: &Value, keys: &[&str], path: &str, errors: &mut FieldErrors) {
    const KEYS: &str = "x-kubernetes-list-map-keys";
    if keys.is_empty() {
        errors.required(format!("{path}.{KEYS}"), "must not be empty if x-kubernetes-list-type is map");
    }
    let items = field(schema, "items");
    if !items.is_object() {
        errors.required(format!("{path}.items"), "must have a schema if x-kubernetes-list-type is map");
        return;
    }
    let ty = text(items, "type");
    if ty != "object" {
        errors.invalid(
            format!("{path}.items.type"),
            ty,
            "must be object if parent array's x-kubernetes-list-type is map",
        );
        return;
    }
    let mut seen = BTreeSet::new();
    for key in keys {
        match field(items, "properties").get(*key) {
            Some(property) if matches!(text(property, "type"), "array" | "object") => errors.invalid(
                format!("{path}.items.properties[{key}].type"),
                ty,
                "must be a scalar type if parent array's x-kubernetes-list-type is map",
            ),
            Some(_) => {}
            None => {
                errors.invalid(format!("{path}.{KEYS}"), keys, "entries must all be names of item properties")
            }
        }
        if !seen.insert(key) {
            errors.invalid(format!("{path}.{KEYS}"), keys, "must not contain duplicate entries");
        }
    }
}

/// The items of a set must be atomic.
pub(super) fn atomic_set(schema: &Value, path: &str, errors: &mut FieldErrors) {
    if text(schema, "x-kubernetes-list-type") != "set" {
        return;
    }
    let items = field(schema, "items");
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    for (ty, key, implied) in
        [("array", "x-kubernetes-list-type", true), ("object", "x-kubernetes-map-type", false)]
    {
        let said = field(items, key);
        let atomic = said.as_str() == Some("atomic") || (said.is_null() && implied);
        if text(items, "type") == ty && !atomic {
            errors.invalid(format!("{path}.items.{key}"), field(items, "x-kubernetes-list-type"), why);
        }
    }
}

/// The items of a set or map are not nullable; the keys of a map are always there.
pub(super) fn map_keys(schema: &Value, path: &str, errors: &mut FieldErrors) {
    let (list, items) = (text(schema, "x-kubernetes-list-type"), field(schema, "items"));
    if !matches!(list, "set" | "map") || !items.is_object() {
        return;
    }
    if flag(items, "nullable") {
        errors.forbidden(
            format!("{path}.items.nullable"),
            format!("cannot be nullable when x-kubernetes-list-type is {list}"),
        );
    }
    if list != "map" {
        return;
    }
    let required = strings(items, "required");
    for key in strings(schema, "x-kubernetes-list-map-keys") {
        let Some(property) = field(items, "properties").get(key) else { continue };
        let path = format!("{path}.items.properties[{key}]");
        if !required.contains(&key) && !has(property, "default") {
            errors.required(format!("{path}.default"), "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property");
        }
        if flag(property, "nullable") {
            errors.forbidden(
                format!("{path}.nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            );
        }
    }
}

/// The form of `x-kubernetes-validations`; what they say is [`validate_rules`]'.
fn rules(schema: &Value, path: &str, errors: &mut FieldErrors) {
    let has_newline = |text: &str| text.contains(['\n', '\r']);
    for (i, rule) in items(schema, "x-kubernetes-validations").iter().enumerate() {
        let path = format!("{path}.x-kubernetes-validations[{i}]");
        let (said, message) = (text(rule, "rule"), text(rule, "message"));
        if said.trim().is_empty() {
            errors.required(format!("{path}.rule"), "rule is not specified");
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.invalid(format!("{path}.message"), message, "must be non-empty if specified");
        } else if has_newline(message.trim()) {
            errors.invalid(format!("{path}.message"), message, "must not contain line breaks");
        } else if has_newline(said.trim()) && message.trim().is_empty() {
            errors.required(
                format!("{path}.message"),
                "message must be specified if rule contains line breaks",
            );
        }
        let expression = text(rule, "messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            errors.required(
                format!("{path}.messageExpression"),
                "messageExpression must be non-empty if specified",
            );
        }
        if has(rule, "reason") && !REASONS.contains(&text(rule, "reason")) {
            errors.not_supported(format!("{path}.reason"), text(rule, "reason"), REASONS);
        }
        let field_path = text(rule, "fieldPath");
        if !field_path.is_empty() {
            let path = format!("{path}.fieldPath");
            if field_path.trim().is_empty() {
                errors.invalid(&path, field_path, "must be non-empty if specified");
            }
            if has_newline(field_path) {
                errors.invalid(&path, field_path, "must not contain line breaks");
            }
            if crate::apiextensions::paths::field_path(field_path, &Structural::read(schema)).is_err() {
                errors.invalid(&path, field_path, "must be a valid path");
            }
        }
    }
}

/// Compiles every rule of a structural schema, but where the schema is `broken` at the rule's place or below it:
/// what would be told there goes away with that.
pub(super) fn validate_rules(
    schema: &Value,
    path: &str,
    broken: &[String],
    options: &Options,
    errors: &mut FieldErrors,
) {
    let structural = Structural::read(schema);
    for problem in cel::check(&structural, path) {
        let place = problem.error.field.split(".x-kubernetes-validations").next().unwrap_or_default();
        let is_broken = broken.iter().any(|field| {
            field.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        });
        let is_suffered = problem.is_cost && options.suppress_costs;
        if !is_broken && !is_suffered {
            errors.0.push(problem.error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, wanted: &[&str]) {
        let mut errors = FieldErrors::new();
        validate(&schema, "s", &Options::strict(), &mut errors);
        let found: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn list_types_have_their_rules() {
        check(
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}}),
            &[
                "s.properties[a].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        );
        check(
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}}),
            &[
                "s.items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
            ],
        );
        check(
            json!({"type": "string", "x-kubernetes-list-type": "x"}),
            &[
                "s.type: Invalid value: \"string\": must be array if x-kubernetes-list-type is specified",
                "s.x-kubernetes-list-type: Unsupported value: \"x\": supported values: \"atomic\", \"map\", \"set\"",
            ],
        );
    }

    #[test]
    fn some_constructs_are_forbidden() {
        check(
            json!({"type": "object", "$ref": "x", "uniqueItems": true, "properties": {"a": {"type": "string"}},
                "additionalProperties": {"type": "string"}}),
            &[
                "s.$ref: Forbidden: $ref is not supported",
                "s.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
                "s.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ],
        );
    }
}
