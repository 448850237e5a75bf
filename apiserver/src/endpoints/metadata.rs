//! The rules of `metadata` that hold for every kind.
//!
//! Upstream: `apimachinery/pkg/api/validation/objectmeta.go`, `registry/rest/{create,update}.go`.

use std::collections::{BTreeSet, HashSet};

use common::labels::is_dns1123_subdomain;
use common::status::FieldErrors;
use rand::Rng;
use serde_json::{Map, Value, json};

use super::query::check_manager;
use crate::object::{Object, metadata_mut, str_at};
use crate::resources::{ResourceDef, Strategy};

pub(super) const ORPHAN: &str = "orphan";
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// `TotalAnnotationSizeLimitB`.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
const NAME_PART_BYTES_MAX: usize = 63;
/// Groups whose finalizers need no domain; nor do those of custom resources, whose clients are warned.
const FINALIZERS_FREE: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "policy",
];
/// `MaxSubresourceNameLength`.
const SUBRESOURCE_BYTES_MAX: usize = 256;
/// A generated name is cut so that it still fits a label with its suffix.
const GENERATED_NAME_BYTES_MAX: usize = 63;
const GENERATED_SUFFIX_CHARS: usize = 5;
/// No vowels and no look-alikes (`rand.SafeEncodeString`).
const GENERATED_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_KEY: &str = "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// Now, as objects spell it.
pub(super) fn now() -> String {
    at(jiff::Timestamp::now())
}

/// A time, as objects spell it.
pub(super) fn at(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `base` with a random suffix.
pub(super) fn generate_name(base: &str) -> String {
    let mut end = base.len().min(GENERATED_NAME_BYTES_MAX - GENERATED_SUFFIX_CHARS);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    let mut rng = rand::rng();
    for _ in 0..GENERATED_SUFFIX_CHARS {
        name.push(char::from(GENERATED_ALPHABET[rng.random_range(0..GENERATED_ALPHABET.len())]));
    }
    name
}

/// Gives a new object its identity and clears what only a server sets.
pub(super) fn fill_system_fields(object: &mut Object) {
    let metadata = metadata_mut(object);
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.remove(key);
    }
    metadata.insert("creationTimestamp".to_owned(), now().into());
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    tidy(metadata);
}

/// Carries over what an update never changes, before the strategy has its say.
pub(super) fn carry_generation(object: &mut Object, old: &Object) {
    let generation = old.pointer("/metadata/generation").cloned();
    set_or_remove(metadata_mut(object), "generation", generation);
}

/// Carries over identity and the state of deletion.
pub(super) fn carry_system_fields(object: &mut Object, old: &Object) {
    let old = old.get("metadata").unwrap_or(&Value::Null);
    let metadata = metadata_mut(object);
    if metadata.get("uid").and_then(Value::as_str).unwrap_or("").is_empty() {
        set_or_remove(metadata, "uid", old.get("uid").cloned());
    }
    for key in ["creationTimestamp", "deletionTimestamp"] {
        if let Some(value) = old.get(key) {
            metadata.insert(key.to_owned(), value.clone());
        }
    }
    if !metadata.contains_key("deletionGracePeriodSeconds") {
        set_or_remove(metadata, "deletionGracePeriodSeconds", old.get("deletionGracePeriodSeconds").cloned());
    }
    metadata.remove("selfLink");
    tidy(metadata);
}

/// Removes what is empty, as upstream's encoding leaves it out.
fn tidy(metadata: &mut Map<String, Value>) {
    metadata.retain(|_, value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    });
}

fn set_or_remove(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => map.insert(key.to_owned(), value),
        None => map.remove(key),
    };
}

/// The finalizers.
pub(super) fn finalizers(object: &Object) -> Vec<&str> {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

pub(super) fn set_finalizers(object: &mut Object, finalizers: &[String]) {
    let metadata = metadata_mut(object);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
}

/// Removes owner references that are there twice. Returns the uids of those removed.
pub(super) fn dedup_owner_references(object: &mut Object) -> Vec<String> {
    let mut duplicates = Vec::new();
    let Some(Value::Array(references)) = object.pointer_mut("/metadata/ownerReferences") else {
        return duplicates;
    };
    if references.len() > 1 {
        let mut seen = HashSet::new();
        references.retain(|reference| {
            let new = seen.insert(reference.to_string());
            if !new {
                duplicates.push(text(reference, "uid").to_owned());
            }
            new
        });
    }
    duplicates
}

pub(super) fn deletion_grace(object: &Object) -> Option<i64> {
    object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64)
}

pub(super) fn is_deleting(object: &Object) -> bool {
    !str_at(object, &["metadata", "deletionTimestamp"]).is_empty()
}

pub(super) fn generation(object: &Object) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0)
}

/// `ValidateObjectMeta`.
pub(super) fn validate(object: &Object, def: &ResourceDef, strategy: &dyn Strategy) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let generate = text(metadata, "generateName");
    if !generate.is_empty() {
        // A prefix may end in what a whole name may not.
        let as_name =
            generate.strip_suffix('-').map_or_else(|| generate.to_owned(), |base| format!("{base}a"));
        for message in strategy.validate_name(&as_name) {
            errors.invalid("metadata.generateName", generate, message);
        }
    }
    let name = text(metadata, "name");
    if name.is_empty() {
        errors.required("metadata.name", "name or generateName is required");
    } else {
        for message in strategy.validate_name(name) {
            errors.invalid("metadata.name", name, message);
        }
    }
    let namespace = text(metadata, "namespace");
    match (def.namespaced, namespace.is_empty()) {
        (true, true) => errors.required("metadata.namespace", ""),
        (false, false) => errors.forbidden("metadata.namespace", "not allowed on this type"),
        (true, false) if !common::labels::is_dns1123_label(namespace) => {
            errors.invalid("metadata.namespace", namespace, "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')");
        }
        _ => {}
    }
    if generation(object) < 0 {
        errors.invalid("metadata.generation", generation(object), "must be greater than or equal to 0");
    }
    labels(metadata, &mut errors);
    annotations(metadata, &mut errors);
    owner_references(metadata, &mut errors);
    check_finalizers(object, &mut errors);
    if def.custom.is_none() && !FINALIZERS_FREE.contains(&def.group.as_str()) {
        check_qualified(object, &mut errors);
    }
    managed_fields(metadata, &mut errors);
    errors
}

/// `ValidateObjectMetaUpdate`.
pub(super) fn validate_update(object: &Object, old: &Object) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if is_deleting(old) {
        let before: BTreeSet<&str> = finalizers(old).into_iter().collect();
        let extra: BTreeSet<&str> = finalizers(object).into_iter().filter(|f| !before.contains(f)).collect();
        if !extra.is_empty() {
            let list: Vec<String> = extra.iter().map(|f| format!("{f:?}")).collect();
            errors.forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    list.join(", ")
                ),
            );
        }
    }
    if str_at(object, &["metadata", "resourceVersion"]).is_empty() {
        errors.invalid("metadata.resourceVersion", "", "must be specified for an update");
    }
    if generation(object) < generation(old) {
        errors.invalid("metadata.generation", generation(object), "must not be decremented");
    }
    for key in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let pointer = format!("/metadata/{key}");
        let (new, old) = (object.pointer(&pointer), old.pointer(&pointer));
        if new != old {
            errors.invalid(
                format!("metadata.{key}"),
                new.cloned().unwrap_or(Value::Null),
                "field is immutable",
            );
        }
    }
    errors
}

fn text<'a>(metadata: &'a Value, key: &str) -> &'a str {
    metadata.get(key).and_then(Value::as_str).unwrap_or("")
}

fn labels(metadata: &Value, errors: &mut FieldErrors) {
    let Some(labels) = metadata.get("labels").and_then(Value::as_object) else { return };
    for (key, value) in labels {
        for message in qualified_name(key) {
            errors.invalid("metadata.labels", key, message);
        }
        let value = value.as_str().unwrap_or("");
        if value.len() > NAME_PART_BYTES_MAX {
            errors.invalid(
                "metadata.labels",
                value,
                format!("must be no more than {NAME_PART_BYTES_MAX} bytes"),
            );
        }
        if !value.is_empty() && !is_name_part(value) {
            errors.invalid("metadata.labels", value, LABEL_VALUE);
        }
    }
}

fn annotations(metadata: &Value, errors: &mut FieldErrors) {
    let Some(annotations) = metadata.get("annotations").and_then(Value::as_object) else { return };
    let mut bytes = 0;
    for (key, value) in annotations {
        for message in qualified_name(&key.to_lowercase()) {
            errors.invalid("metadata.annotations", key, message);
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX);
    }
}

fn owner_references(metadata: &Value, errors: &mut FieldErrors) {
    const FIELD: &str = "metadata.ownerReferences";
    let Some(references) = metadata.get("ownerReferences").and_then(Value::as_array) else { return };
    let mut controller: Option<String> = None;
    for reference in references {
        let api_version = text(reference, "apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if version.is_empty() {
            errors.invalid(format!("{FIELD}.apiVersion"), api_version, "version must not be empty");
        }
        for key in ["kind", "name", "uid"] {
            if text(reference, key).is_empty() {
                errors.invalid(format!("{FIELD}.{key}"), "", "must not be empty");
            }
        }
        if (group, version, text(reference, "kind")) == ("", "v1", "Event") {
            errors.invalid(FIELD, reference, "/v1, Kind=Event is disallowed from being an owner");
        }
        if reference.get("controller").and_then(Value::as_bool) == Some(true) {
            let this = format!("{}/{}", text(reference, "kind"), text(reference, "name"));
            match &controller {
                Some(first) => errors.invalid(
                    FIELD,
                    references,
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"),
                ),
                None => controller = Some(this),
            }
        }
    }
}

fn check_finalizers(object: &Object, errors: &mut FieldErrors) {
    let finalizers = finalizers(object);
    for finalizer in &finalizers {
        for message in qualified_name(finalizer) {
            errors.invalid("metadata.finalizers", finalizer, message);
        }
    }
    if finalizers.contains(&ORPHAN) && finalizers.contains(&FOREGROUND) {
        errors.invalid(
            "metadata.finalizers",
            &finalizers,
            format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set"),
        );
    }
}

/// A finalizer says whose it is, but for those of the system (`validateKubeFinalizerName`).
fn check_qualified(object: &Object, errors: &mut FieldErrors) {
    for (index, finalizer) in finalizers(object).into_iter().enumerate() {
        if !finalizer.contains('/') && !matches!(finalizer, ORPHAN | FOREGROUND | "kubernetes") {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(format!("metadata.finalizers[{index}]"), finalizer, why);
        }
    }
}

/// `ValidateManagedFields`: what a client may have written itself. Operations and types are checked when the
/// entries are read.
fn managed_fields(metadata: &Value, errors: &mut FieldErrors) {
    let entries = metadata.get("managedFields").and_then(Value::as_array);
    for (index, entry) in entries.into_iter().flatten().enumerate() {
        let field = || format!("metadata.managedFields[{index}]");
        if let Some(manager) = entry.get("manager").and_then(Value::as_str) {
            check_manager(manager, || format!("{}.manager", field()), errors);
        }
        if text(entry, "subresource").len() > SUBRESOURCE_BYTES_MAX {
            errors.too_long(format!("{}.subresource", field()), SUBRESOURCE_BYTES_MAX);
        }
    }
}

/// `IsQualifiedName`.
fn qualified_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".to_owned());
            } else if !is_dns1123_subdomain(prefix) {
                out.push(format!("prefix part {SUBDOMAIN}"));
            }
            *name
        }
        _ => return vec![LABEL_KEY.to_owned()],
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > NAME_PART_BYTES_MAX {
        out.push(format!("name part must be no more than {NAME_PART_BYTES_MAX} bytes"));
    }
    if !is_name_part(name) {
        out.push(NAME_PART.to_owned());
    }
    out
}

fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(b)) if a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let name = generate_name(&"a".repeat(80));
        assert_eq!(name.len(), 63);
        assert_ne!(generate_name("a-"), generate_name("a-"));
    }

    #[test]
    fn qualified_names() {
        for good in ["a", "a.b/c", "example.com/My_Name.1"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "-a", "A.b/c"] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn owner_references_are_listed_once() {
        let one = json!({"uid": "1", "name": "a"});
        let other = json!({"uid": "1", "name": "b"});
        let mut object = json!({"metadata": {"ownerReferences": [one, other, one]}});
        assert_eq!(dedup_owner_references(&mut object), ["1"]);
        assert_eq!(object["metadata"]["ownerReferences"], json!([one, other]));
    }

    #[test]
    fn immutable_fields_stay() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "resourceVersion": "3"}});
        let new = json!({"metadata": {"name": "b", "uid": "1", "resourceVersion": "3"}});
        let errors = validate_update(&new, &old);
        assert_eq!(errors.0.len(), 1);
        assert_eq!(errors.0[0].to_string(), "metadata.name: Invalid value: \"b\": field is immutable");
    }
}
