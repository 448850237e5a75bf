//! What makes a schema structural, and what its defaults must be.

use std::sync::Arc;

use common::status::FieldErrors;
use serde_json::{Value, json};

use crate::apiextensions::cel::Rules;
use crate::apiextensions::schema::pattern::{SCHEMA_BYTES_MAX, compile};
use crate::apiextensions::schema::{Structural, prune};
use crate::apiextensions::validation::{metadata, values};
use crate::registry::tree::{entries, field, flag, has, items, text};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// The errors, sorted by their text as upstream does.
pub(super) fn validate(schema: &Value, path: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    invariants(schema, Level::Root, path, &mut errors);
    complete(schema, path, &mut errors);
    errors.0.sort_by_key(ToString::to_string);
    errors
}

fn present(schema: &Value, key: &str) -> bool {
    schema.get(key).is_some_and(|v| !crate::registry::tree::is_zero(v))
}

fn invariants(schema: &Value, level: Level, path: &str, errors: &mut FieldErrors) {
    let ty = text(schema, "type");
    if ty == "array" && !has(schema, "items") {
        errors.required(format!("{path}.items"), "must be specified");
    }
    if has(schema, "items") {
        invariants(field(schema, "items"), Level::Item, &format!("{path}.items"), errors);
    }
    for (key, property) in entries(schema, "properties") {
        invariants(property, Level::Field, &format!("{path}.properties[{key}]"), errors);
    }
    let (embedded, preserve) = (
        flag(schema, "x-kubernetes-embedded-resource"),
        flag(schema, "x-kubernetes-preserve-unknown-fields"),
    );
    if has(schema, "additionalProperties") {
        let path = format!("{path}.additionalProperties");
        if level == Level::Root {
            errors.forbidden(&path, "must not be used at the root");
        }
        if field(schema, "additionalProperties").is_object() {
            invariants(field(schema, "additionalProperties"), Level::Field, &path, errors);
        }
        if embedded {
            errors.forbidden(&path, "must not be used if x-kubernetes-embedded-resource is set");
        }
    }
    if flag(schema, "x-kubernetes-int-or-string") {
        for (set, key) in
            [(preserve, "x-kubernetes-preserve-unknown-fields"), (embedded, "x-kubernetes-embedded-resource")]
        {
            if set {
                errors.invalid(
                    format!("{path}.{key}"),
                    true,
                    "must be false if x-kubernetes-int-or-string is true",
                );
            }
        }
    }
    let pattern = is_int_or_string(schema.get("anyOf"));
    let first = items(schema, "allOf").first().is_some_and(|s| is_int_or_string(s.get("anyOf")));
    junctors(schema, pattern, first, path, errors);
    if embedded && ty != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        if ty.is_empty() {
            errors.required(format!("{path}.type"), why);
        } else {
            errors.invalid(format!("{path}.type"), ty, why);
        }
    } else if ty.is_empty() && !flag(schema, "x-kubernetes-int-or-string") && !preserve {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.required(format!("{path}.type"), why);
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        errors.invalid(format!("{path}.type"), ty, "must be object at the root");
    }
    identity(schema, level, embedded, path, errors);
    if embedded && !preserve && field(schema, "properties").as_object().is_none_or(|p| p.is_empty()) {
        errors.required(format!("{path}.properties"), "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields");
    }
}

fn identity(schema: &Value, level: Level, embedded: bool, path: &str, errors: &mut FieldErrors) {
    let properties = field(schema, "properties");
    let checked = level == Level::Root || embedded;
    for key in ["kind", "apiVersion"] {
        if checked && has(properties, key) && text(field(properties, key), "type") != "string" {
            let ty = text(field(properties, key), "type");
            errors.invalid(format!("{path}.properties[{key}].type"), ty, "must be string");
        }
    }
    if !has(properties, "metadata") {
        return;
    }
    let metadata = field(properties, "metadata");
    let path = format!("{path}.properties[metadata]");
    if checked && text(metadata, "type") != "object" {
        errors.invalid(format!("{path}.type"), text(metadata, "type"), "must be object");
    }
    let named = entries(metadata, "properties").all(|(key, _)| key == "name" || key == "generateName");
    let extra = metadata.as_object().into_iter().flatten().any(|(key, value)| {
        !matches!(key.as_str(), "type" | "default" | "description" | "properties")
            && !crate::registry::tree::is_zero(value)
    });
    let described = present(metadata, "description");
    if level == Level::Root && (!named || extra || described) {
        errors.forbidden(path, "must not specify anything other than name and generateName, but metadata is implicitly specified");
    }
}

fn is_int_or_string(any_of: Option<&Value>) -> bool {
    any_of == Some(&json!([{"type": "integer"}, {"type": "string"}]))
}

/// What stands below `allOf` and its like restricts values and nothing else.
fn junctors(schema: &Value, skip_any: bool, skip_first: bool, path: &str, errors: &mut FieldErrors) {
    if !skip_any {
        for (i, inner) in items(schema, "anyOf").iter().enumerate() {
            nested(inner, false, &format!("{path}.anyOf[{i}]"), errors);
        }
    }
    for (i, inner) in items(schema, "allOf").iter().enumerate() {
        nested(inner, skip_first && i == 0, &format!("{path}.allOf[{i}]"), errors);
    }
    for (i, inner) in items(schema, "oneOf").iter().enumerate() {
        nested(inner, false, &format!("{path}.oneOf[{i}]"), errors);
    }
    if has(schema, "not") {
        nested(field(schema, "not"), false, &format!("{path}.not"), errors);
    }
    let pattern = text(schema, "pattern");
    if !pattern.is_empty()
        && let Err(error) = compile(pattern, SCHEMA_BYTES_MAX)
    {
        errors.invalid(
            format!("{path}.pattern"),
            pattern,
            format!("must be a valid regular expression, but isn't: {error}"),
        );
    }
}

fn nested(schema: &Value, skip_any: bool, path: &str, errors: &mut FieldErrors) {
    junctors(schema, skip_any, false, path, errors);
    if has(schema, "items") {
        nested(field(schema, "items"), false, &format!("{path}.items"), errors);
    }
    for (key, property) in entries(schema, "properties") {
        nested(property, false, &format!("{path}.properties[{key}]"), errors);
    }
    let additional = field(schema, "additionalProperties");
    let forbidden = [
        ("type", present(schema, "type"), "must be empty to be structural"),
        (
            "additionalProperties",
            additional.is_object() || additional == &Value::Bool(true),
            "must be undefined to be structural",
        ),
        ("default", has(schema, "default"), "must be undefined to be structural"),
        ("title", present(schema, "title"), "must be empty to be structural"),
        ("description", present(schema, "description"), "must be empty to be structural"),
        ("nullable", present(schema, "nullable"), "must be false to be structural"),
        (
            "x-kubernetes-preserve-unknown-fields",
            present(schema, "x-kubernetes-preserve-unknown-fields"),
            "must be false to be structural",
        ),
        (
            "x-kubernetes-embedded-resource",
            present(schema, "x-kubernetes-embedded-resource"),
            "must be false to be structural",
        ),
        (
            "x-kubernetes-int-or-string",
            present(schema, "x-kubernetes-int-or-string"),
            "must be false to be structural",
        ),
        (
            "x-kubernetes-list-map-keys",
            present(schema, "x-kubernetes-list-map-keys"),
            "must be empty to be structural",
        ),
        (
            "x-kubernetes-list-type",
            has(schema, "x-kubernetes-list-type"),
            "must be undefined to be structural",
        ),
        ("x-kubernetes-map-type", has(schema, "x-kubernetes-map-type"), "must be undefined to be structural"),
        (
            "x-kubernetes-validations",
            present(schema, "x-kubernetes-validations"),
            "must be empty to be structural",
        ),
    ];
    for (key, set, why) in forbidden {
        if set {
            errors.forbidden(format!("{path}.{key}"), why);
        }
    }
    if has(field(schema, "properties"), "metadata") {
        errors.forbidden(format!("{path}.properties[metadata]"), "must not be specified in a nested context");
    }
}

/// Every field that a junctor of the root restricts is also specified outside of it. Junctors further down may
/// speak of anything, as upstream has it.
fn complete(schema: &Value, path: &str, errors: &mut FieldErrors) {
    for key in ["anyOf", "allOf", "oneOf"] {
        for (i, inner) in items(schema, key).iter().enumerate() {
            restricted(inner, schema, &format!("{path}.{key}[{i}]"), path, errors);
        }
    }
    if has(schema, "not") {
        restricted(field(schema, "not"), schema, &format!("{path}.not"), path, errors);
    }
}

/// `nested` at `path` may only speak of what `structure` at `place` has.
fn restricted(nested: &Value, structure: &Value, path: &str, place: &str, errors: &mut FieldErrors) {
    if has(nested, "items") {
        if has(structure, "items") {
            restricted(
                field(nested, "items"),
                field(structure, "items"),
                &format!("{path}.items"),
                &format!("{place}.items"),
                errors,
            );
        } else {
            let why = format!("because it is defined in {path}.items");
            errors.required(format!("{place}.items"), why);
        }
    }
    for (key, property) in entries(nested, "properties") {
        let (inner, outer) = (format!("{path}.properties[{key}]"), format!("{place}.properties[{key}]"));
        if has(field(structure, "properties"), key) {
            restricted(property, field(field(structure, "properties"), key), &inner, &outer, errors);
        } else {
            errors.required(outer, format!("because it is defined in {inner}"));
        }
    }
    for key in ["anyOf", "allOf", "oneOf"] {
        for (i, inner) in items(nested, key).iter().enumerate() {
            restricted(inner, structure, &format!("{path}.{key}[{i}]"), place, errors);
        }
    }
    if has(nested, "not") {
        restricted(field(nested, "not"), structure, &format!("{path}.not"), place, errors);
    }
}

/// Defaults must be pruned and valid.
pub(super) fn defaults(schema: &Value, path: &str, pruned: bool) -> FieldErrors {
    let mut errors = FieldErrors::new();
    walk_defaults(schema, path, pruned, false, &mut errors);
    errors
}

fn walk_defaults(schema: &Value, path: &str, pruned: bool, in_meta: bool, errors: &mut FieldErrors) {
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let in_meta = in_meta && !embedded;
    if has(schema, "default") && !in_meta {
        let path = format!("{path}.default");
        let structural = Arc::new(Structural::read(schema));
        default(field(schema, "default"), structural, &path, pruned, errors);
    }
    if has(schema, "items") {
        walk_defaults(field(schema, "items"), &format!("{path}.items"), pruned, in_meta, errors);
    }
    for (key, property) in entries(schema, "properties") {
        let meta = embedded && matches!(key.as_str(), "metadata" | "apiVersion" | "kind");
        let path = format!("{path}.properties[{key}]");
        walk_defaults(property, &path, pruned, in_meta || meta, errors);
    }
}

/// One default. Like an object it is checked in steps, of which each asks for the one before.
fn default(default: &Value, schema: Arc<Structural>, path: &str, pruned: bool, errors: &mut FieldErrors) {
    if pruned {
        let mut clean = default.clone();
        prune::prune_part(&mut clean, &schema);
        if &clean != default {
            errors.invalid(path, default, "must not have unknown fields");
        }
    }
    let mut found = metadata::validate(default, &schema);
    if found.is_empty() {
        found = values::validate(default, &schema, None);
    }
    if found.is_empty()
        && let Some(rules) = Rules::compile(schema)
    {
        found = rules.validate(default, None);
    }
    errors.extend(values::below(path, found));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: Value, wanted: &[&str]) {
        let found: Vec<String> = validate(&schema, "s").0.iter().map(ToString::to_string).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn types_are_required_and_junctors_only_restrict() {
        check(
            json!({"type": "object", "properties": {"a": {}, "b": {"type": "array"},
                "c": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}}),
            &[
                "s.properties[a].type: Required value: must not be empty for specified object fields",
                "s.properties[b].items: Required value: must be specified",
            ],
        );
        check(
            json!({"type": "object", "anyOf": [{"required": ["a"], "properties": {"b": {"type": "string"}}}]}),
            &[
                "s.anyOf[0].properties[b].type: Forbidden: must be empty to be structural",
                "s.properties[b]: Required value: because it is defined in s.anyOf[0].properties[b]",
            ],
        );
    }

    #[test]
    fn only_the_root_must_be_complete() {
        let restricted = json!({"anyOf": [{"properties": {"b": {"minimum": 1}}}], "type": "object"});
        check(json!({"type": "object", "properties": {"spec": restricted}}), &[]);
        check(
            restricted,
            &["s.properties[b]: Required value: because it is defined in s.anyOf[0].properties[b]"],
        );
    }

    #[test]
    fn defaults_keep_the_rules_of_what_they_are() {
        let rule = json!([{"rule": "self.a > 1", "message": "a is small"}]);
        let part = json!({"type": "object", "x-kubernetes-validations": rule, "properties": {"a": {"type": "integer"}}});
        let schema = |default: Value| {
            let mut part = part.clone();
            part["default"] = default;
            json!({"type": "object", "properties": {"p": part}})
        };
        assert!(defaults(&schema(json!({"a": 2})), "s", true).is_empty());
        let found: Vec<String> =
            defaults(&schema(json!({"a": 1})), "s", true).0.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["s.properties[p].default: Invalid value: a is small"]);
        let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true, "default": {"kind": "A"}});
        let found = defaults(&json!({"type": "object", "properties": {"e": embedded}}), "s", true);
        assert_eq!(found.0[0].to_string(), "s.properties[e].default.apiVersion: Required value");
    }

    #[test]
    fn defaults_are_pruned_and_valid() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "object", "default": {"x": 1}},
            "b": {"type": "integer", "default": "x"}}});
        let found: Vec<String> = defaults(&schema, "s", true).0.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("must not have unknown fields"), "{found:?}");
        assert!(found[1].starts_with("s.properties[b].default: Invalid value: \"string\""), "{found:?}");
    }
}
