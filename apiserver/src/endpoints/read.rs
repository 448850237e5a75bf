//! From bytes to an object of the kind that an endpoint takes.

use common::status::Status;

use super::decode::{decode, key_paths};
use super::negotiation::{self, Encoding};
use super::query::{FieldValidation, WriteOptions};
use super::scope::Scope;
use super::typed;
use crate::object::{Object, str_at};
use crate::request::RequestContext;
use crate::resources::schema::Schema;

/// As much of a body that is no object is shown.
const SHOWN_BYTES_MAX: usize = 30;

/// What a body has to be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'e> {
    pub kind: &'e str,
    /// The version that is meant when none is said, and others that are taken.
    pub api_versions: &'e [&'e str],
}

/// Reads a body as the requested kind in the requested version.
///
/// # Errors
/// 400 for what cannot be read, is of another kind, has a value of a wrong type or (when strict) an unknown
/// or duplicate field.
pub(super) fn read_object(
    scope: &Scope<'_>,
    body: &[u8],
    encoding: Encoding,
    options: &WriteOptions,
) -> Result<Object, Status> {
    let expected = Expected { kind: &scope.def.kind, api_versions: &[&scope.def.api_version()] };
    let check = |object: &mut Object| checked(scope, object);
    read(&scope.ctx, expected, body, encoding, options.field_validation, check)
}

/// Reads the body of a subresource that is a kind of its own: a Binding, a Scale.
///
/// # Errors
/// 415 for another media type, 500 when the schema has no type of that name, and 400 as for every object.
pub fn read_type(
    ctx: &RequestContext,
    schema: &Schema,
    type_name: &str,
    expected: Expected<'_>,
    headers: &http::HeaderMap,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Object, Status> {
    let encoding = negotiation::input(headers)?;
    let id = schema.id(type_name);
    let id = id.ok_or_else(|| Status::internal(format!("no type {type_name} in the schema")))?;
    let check = |object: &mut Object| typed::check(schema, id, object).map_err(|error| error.to_string());
    read(ctx, expected, body, encoding, validation, check)
}

fn read(
    ctx: &RequestContext,
    expected: Expected<'_>,
    body: &[u8],
    encoding: Encoding,
    validation: FieldValidation,
    check: impl FnOnce(&mut Object) -> Result<Vec<String>, String>,
) -> Result<Object, Status> {
    let Expected { kind, api_versions } = expected;
    let api_version = api_versions.first().copied().unwrap_or_default();
    let decoded = decode(body, encoding).map_err(|error| unrecognized(kind, &error, body))?;
    let mut object = decoded.tree;
    let Some(map) = object.as_object_mut() else {
        let why = format!(
            "json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \
             \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            typed::kind_of(&object, false)
        );
        return Err(unrecognized(kind, &why, body));
    };
    for (key, value) in [("kind", kind), ("apiVersion", api_version)] {
        if map.get(key).is_none_or(|v| v.is_null() || v.as_str() == Some("")) {
            map.insert(key.to_owned(), value.into());
        }
    }
    let said_version = str_at(&object, &["apiVersion"]);
    if !api_versions.contains(&said_version) {
        return Err(Status::bad_request(format!(
            "the API version in the data ({said_version}) does not match the expected API version ({api_version})"
        )));
    }
    let said_kind = str_at(&object, &["kind"]);
    let version = api_version.rsplit('/').next().unwrap_or("");
    if said_kind != kind {
        return Err(Status::bad_request(format!(
            "{said_kind} in version \"{version}\" cannot be handled as a {kind}: converting ({version}.{said_kind}) to ({version}.{kind}): unknown conversion"
        )));
    }
    let cannot = |why: &str| {
        Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    };
    let unknown = check(&mut object).map_err(|error| cannot(&error))?;
    let problems = match encoding {
        Encoding::Json if !unknown.is_empty() && !decoded.duplicates.is_empty() => {
            in_document_order(body, &unknown, &decoded.duplicates)
        }
        _ => strict_problems(&unknown, &decoded.duplicates),
    };
    report(ctx, validation, problems, cannot)?;
    Ok(object)
}

/// The same as [`strict_problems`], each where a reader of the JSON comes upon it: clients look for this text.
fn in_document_order(body: &[u8], unknown: &[String], duplicates: &[String]) -> Vec<String> {
    let keys = key_paths(body);
    let place = |path: &str, time: usize| {
        keys.iter()
            .enumerate()
            .filter(|(_, key)| *key == path)
            .nth(time)
            .map_or(usize::MAX, |(place, _)| place)
    };
    // A key is a duplicate when it comes the second time.
    let places =
        duplicates.iter().map(|path| place(path, 1)).chain(unknown.iter().map(|path| place(path, 0)));
    let mut found: Vec<(usize, String)> = places.zip(strict_problems(unknown, duplicates)).collect();
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, problem)| problem).collect()
}

/// `unknown field "spec.foo"`, `duplicate field "spec.foo"`.
pub(super) fn strict_problems(unknown: &[String], duplicates: &[String]) -> Vec<String> {
    let unknown = unknown.iter().map(|path| format!("unknown field \"{path}\""));
    let duplicates = duplicates.iter().map(|path| format!("duplicate field \"{path}\""));
    duplicates.chain(unknown).collect()
}

/// Warns about, refuses or ignores what strict decoding found.
pub(super) fn report(
    ctx: &RequestContext,
    validation: FieldValidation,
    problems: Vec<String>,
    refuse: impl FnOnce(&str) -> Status,
) -> Result<(), Status> {
    if problems.is_empty() {
        return Ok(());
    }
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => problems.into_iter().for_each(|problem| ctx.warn(problem)),
        FieldValidation::Strict => {
            return Err(refuse(&format!("strict decoding error: {}", problems.join(", "))));
        }
    }
    Ok(())
}

/// Checks and cleans an object of the requested version against its type. Returns the paths of unknown fields.
///
/// # Errors
/// What is of a wrong type, worded as Go's decoder does. For a custom resource only its metadata can be.
pub(super) fn checked(scope: &Scope<'_>, object: &mut Object) -> Result<Vec<String>, String> {
    if let Some(custom) = &scope.def.custom {
        return custom.decoded(object);
    }
    let (schema, id) = scope.types().map_err(|status| status.message)?;
    typed::check(schema, id, object).map_err(|error| error.to_string())
}

fn unrecognized(kind: &str, error: &str, body: &[u8]) -> Status {
    let mut shown = match body.get(..SHOWN_BYTES_MAX).unwrap_or(body) {
        [] => "<empty>".to_owned(),
        text @ [b'{', ..] => String::from_utf8_lossy(text).into_owned(),
        bytes => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > SHOWN_BYTES_MAX {
        shown.push_str(" ...");
    }
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: {error} ({shown})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_as_they_are_written() {
        let body = br#"{"spec":{"z":1,"list":[{"odd":1}],"replicas":1,"replicas":2,"a":1}}"#;
        let unknown = ["spec.a", "spec.list[0].odd", "spec.z"].map(str::to_owned);
        assert_eq!(
            in_document_order(body, &unknown, &["spec.replicas".to_owned()]),
            [
                "unknown field \"spec.z\"",
                "unknown field \"spec.list[0].odd\"",
                "duplicate field \"spec.replicas\"",
                "unknown field \"spec.a\"",
            ]
        );
    }
}
