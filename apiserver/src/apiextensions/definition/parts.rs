//! What versions say of their kind: schema, subresources, columns, selectable fields.
//!
//! What all versions say alike is the spec's own in upstream's internal type, and errors name that place:
//! `spec.validation.openAPIV3Schema` of a definition with one version.

use std::collections::BTreeSet;

use common::status::FieldErrors;
use serde_json::Value;

use super::options::Options;
use super::{properties, structure};
use crate::apiextensions::paths;
use crate::apiextensions::schema::Structural;
use crate::fieldmanager::is_printable;
use crate::registry::checks::At;
use crate::registry::tree::{at, field, flag, has, is_zero, items, text};

const COLUMN_TYPES: &str = "boolean,date,integer,number,string";
const COLUMN_FORMATS: &str = "byte,date,date-time,double,float,int32,int64,password";
const SELECTABLE_FIELDS_MAX: usize = 8;
const DEPRECATION_WARNING_CHARS_MAX: usize = 256;
/// What may stand beside `properties` at the root when `status` is a subresource, as JSON and as Go call it.
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

/// The versions, and what they say alike; an absent part may be that too.
pub(super) struct Parts<'a> {
    versions: &'a [Value],
    schema: Option<&'a Value>,
    subresources: Option<&'a Value>,
    columns: Option<&'a Value>,
    selectable: Option<&'a Value>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(versions: &'a [Value]) -> Self {
        let alike = |key: &str| {
            let first = field(versions.first()?, key);
            let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            let same = |other: &Value| other == first || (empty(other) && empty(first));
            versions.iter().all(|version| same(field(version, key))).then_some(first)
        };
        let schema = alike("schema");
        Self {
            versions,
            schema,
            subresources: alike("subresources"),
            columns: alike("additionalPrinterColumns"),
            // Judged by a schema: where that is each version's own, so are they.
            selectable: schema.and_then(|_| alike("selectableFields")),
        }
    }

    /// What a version says of its own.
    pub(super) fn of_version(&self, version: &At<'_>, options: &Options, errors: &mut FieldErrors) {
        deprecation(version.value, &version.path, errors);
        let options = &options.for_version(version.text("name"));
        let schema = version.at("schema");
        if self.schema.is_none() {
            let with_status = has(field(version.value, "subresources"), "status");
            validation(&schema, with_status, options, errors);
        }
        if self.subresources.is_none() {
            subresources(&version.at("subresources"), errors);
        }
        if self.columns.is_none() {
            columns(version, errors);
        }
        if self.selectable.is_none() {
            let why = "may only be set when `version.schema.openAPIV3Schema` is not included";
            selectable_fields(version, schema.value, why, options, errors);
        }
    }

    /// What all versions say alike.
    pub(super) fn of_all(&self, options: &Options, errors: &mut FieldErrors) {
        let Some(first) = self.versions.first() else { return };
        let options = &options.for_version(text(first, "name"));
        let spec = At { value: first, path: "spec".to_owned() };
        if let Some(value) = self.schema {
            let with_status = self.versions.iter().any(|v| has(field(v, "subresources"), "status"));
            validation(&At { value, path: spec.under("validation") }, with_status, options, errors);
        }
        if self.subresources.is_some() {
            subresources(&spec.at("subresources"), errors);
        }
        if self.columns.is_some() {
            columns(&spec, errors);
        }
        if self.selectable.is_some() {
            let why = "may only be set when validations.schema is included";
            selectable_fields(&spec, field(first, "schema"), why, options, errors);
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
    if let Some((i, _)) = warning.char_indices().find(|(_, c)| !is_printable(*c)) {
        bad(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {i}"
        ));
    }
}

fn validation(validation: &At<'_>, with_status: bool, options: &Options, errors: &mut FieldErrors) {
    let At { value: schema, path: root } = validation.at("openAPIV3Schema");
    if !schema.is_object() {
        return;
    }
    if with_status {
        beside_status(schema, &root, errors);
    }
    if flag(schema, "nullable") {
        errors.forbidden(format!("{root}.nullable"), "nullable cannot be true at the root");
    }
    let mut rules_too = false;
    if options.require_structural {
        let mut found = structure::validate(schema, &root);
        if found.is_empty() {
            found = structure::defaults(schema, &root, options.require_pruned_defaults);
            rules_too = found.is_empty();
        }
        errors.extend(found);
    }
    let before = errors.0.len();
    properties::validate(schema, &root, options, errors);
    if rules_too {
        let broken: Vec<String> = errors.0[before..].iter().map(|error| error.field.clone()).collect();
        properties::validate_rules(schema, &root, &broken, options, errors);
    }
}

/// The root when `status` is a subresource: its schema must not depend on the rest. Only the first mistake is
/// told, in the order of upstream's type.
fn beside_status(schema: &Value, root: &str, errors: &mut FieldErrors) {
    let is_said = |key: &str, value: &Value| !is_zero(value) || (key == "default" && !value.is_null());
    let said = || schema.as_object().into_iter().flatten().filter(|(key, value)| is_said(key, value));
    let is_before_type = |key: &str| matches!(key, "id" | "$schema" | "$ref");
    let ty = text(schema, "type");
    if !ty.is_empty() && ty != "object" && !said().any(|(key, _)| is_before_type(key)) {
        errors.invalid(format!("{root}.type"), ty, "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled");
    } else if said().any(|(key, _)| !ROOT_FIELDS.iter().any(|(json, _)| json == key)) {
        let allowed: Vec<&str> = ROOT_FIELDS.iter().map(|(_, go)| *go).collect();
        errors.invalid(
            root,
            schema,
            format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                allowed.join(" ")
            ),
        );
    }
}

fn subresources(subresources: &At<'_>, errors: &mut FieldErrors) {
    if subresources.has("scale") {
        scale(field(subresources.value, "scale"), &subresources.path, errors);
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

fn columns(holder: &At<'_>, errors: &mut FieldErrors) {
    for column in holder.each("additionalPrinterColumns") {
        self::column(column.value, &column.path, errors);
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
    holder: &At<'_>,
    validation: &Value,
    without_schema: &str,
    options: &Options,
    errors: &mut FieldErrors,
) {
    let (fields, path) = (items(holder.value, "selectableFields"), &holder.under("selectableFields"));
    let schema = at(validation, &["openAPIV3Schema"]);
    if fields.is_empty() {
        return;
    }
    if !schema.is_object() {
        errors.invalid(path, "", without_schema);
        return;
    }
    let schema = &Structural::read(schema);
    let mut seen = BTreeSet::new();
    for (i, entry) in fields.iter().enumerate() {
        let (json_path, path) = (text(entry, "jsonPath"), format!("{path}[{i}].jsonPath"));
        if json_path.is_empty() {
            errors.required(path, "");
            continue;
        }
        let steps = match paths::field_path(json_path, schema) {
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
