//! PATCH, in four kinds: a list of operations (RFC 6902), a merge (RFC 7386), the strategic merge that knows
//! which lists merge by which key, and server-side apply.
//!
//! A patch is applied to the object as the client sees it, in the requested version. The result then goes the
//! way of an update.

mod apply;
mod strategic;

pub(in super::super) use apply::Apply;

use common::status::{FieldErrors, Status, reason};
use serde_json::Value;

use super::super::decode::decode;
use super::super::negotiation::{self, Encoding};
use super::super::query::{FieldValidation, Query, WriteOptions};
use super::super::scope::Scope;
use super::super::write::{Source, checked, report, strict_problems};
use super::{body, respond_written, update};
use crate::cacher::Preconditions;
use crate::object::{Object, str_at};
use crate::request::{ApiRequest, Response};
use crate::resources::ResourceDef;
use crate::resources::schema::{Schema, TypeId};

/// What all copies of one patch may add together (`JSONPatchMaxCopyBytes`).
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;
/// How deep a patch may make an object: the JSON reader's limit is 128, and lists and events put objects deeper.
const DEPTH_MAX: usize = 120;
/// `maxJSONPatchOperations`.
const OPERATIONS_MAX: usize = 10_000;

/// Unknown keys beyond this many are not listed.
const UNKNOWN_MAX: usize = 100;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";
/// What a patch may be.
const SUPPORTED: &[&str] = &[JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH];

/// Custom resources know no strategic merge.
const SUPPORTED_CUSTOM: &[&str] = &[JSON_PATCH, MERGE_PATCH, APPLY_PATCH];

/// What a patch of this resource may be.
pub(in super::super) fn supported(def: &ResourceDef) -> &'static [&'static str] {
    if def.custom.is_some() { SUPPORTED_CUSTOM } else { SUPPORTED }
}

/// A patch that was read.
pub(in super::super) struct Patch {
    change: Change,
    duplicates: Vec<String>,
    /// What a strict reader says of the operations themselves.
    problems: Vec<String>,
}

enum Change {
    Operations(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

pub(in super::super) async fn serve(scope: &Scope<'_>, request: ApiRequest) -> Result<Response, Status> {
    let (parts, body) = body(request).await?;
    let output = negotiation::output(&parts.headers, true)?;
    let media_type = negotiation::media_type(&parts.headers);
    let supported = supported(&scope.def);
    if !supported.contains(&media_type.as_str()) {
        return Err(Status::unsupported_media_type(supported));
    }
    if media_type == APPLY_PATCH {
        let options = WriteOptions::parse_apply(&Query::parse(&scope.ctx.query))?;
        let source = Source::Apply(Apply::read(&body)?);
        let create = scope.subresource().is_none();
        let none = Preconditions::default();
        let (code, written) = update::run(scope, source, options, &none, create).await?;
        return respond_written(scope, &parts, output, code, written).await;
    }
    let patch = Patch::read(&media_type, &body)?;
    let options = WriteOptions::parse(&Query::parse(&scope.ctx.query), "PatchOptions")?;
    let none = Preconditions::default();
    let (code, written) = update::run(scope, Source::Patch(patch), options, &none, false).await?;
    respond_written(scope, &parts, output, code, written).await
}

impl Patch {
    /// # Errors
    /// 415 for another media type, 400 for what cannot be read, 413 for too many operations.
    fn read(media_type: &str, body: &[u8]) -> Result<Self, Status> {
        if !SUPPORTED.contains(&media_type) {
            return Err(Status::unsupported_media_type(SUPPORTED));
        }
        let decoded = decode(body, Encoding::Json)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        let mut problems = Vec::new();
        let mut duplicates = decoded.duplicates;
        let change = match media_type {
            JSON_PATCH => {
                let unknown = unknown_in_operations(&decoded.tree);
                problems = strict_problems(&unknown, &std::mem::take(&mut duplicates));
                problems.iter_mut().for_each(|problem| problem.insert_str(0, "json patch "));
                let patch: json_patch::Patch = serde_json::from_value(decoded.tree)
                    .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
                if patch.0.len() > OPERATIONS_MAX {
                    return Err(Status::failure(
                        413,
                        reason::REQUEST_ENTITY_TOO_LARGE,
                        format!(
                            "Request entity too large: The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
                            patch.0.len()
                        ),
                    ));
                }
                Change::Operations(patch)
            }
            _ if !decoded.tree.is_object() => {
                return Err(Status::bad_request(
                    "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}",
                ));
            }
            MERGE_PATCH => Change::Merge(decoded.tree),
            _ => Change::Strategic(decoded.tree),
        };
        Ok(Self { change, duplicates, problems })
    }

    /// Whether it reads or writes who owns what.
    pub(in super::super) fn is_about_owners(&self) -> bool {
        match &self.change {
            Change::Operations(patch) => patch.0.iter().any(|operation| {
                use json_patch::PatchOperation::{Copy, Move};
                let from = match operation {
                    Move(moved) => moved.from.as_str(),
                    Copy(copy) => copy.from.as_str(),
                    _ => "/",
                };
                [operation.path().as_str(), from].iter().any(|path| touches(path, "/metadata/managedFields"))
            }),
            Change::Merge(patch) | Change::Strategic(patch) => {
                patch.pointer("/metadata/managedFields").is_some()
            }
        }
    }

    /// The patched object, checked against its type.
    ///
    /// # Errors
    /// 422 when the patch does not apply or its result does not fit the type; 400 for malformed directives.
    pub(in super::super) fn apply(
        &self,
        scope: &Scope<'_>,
        mut object: Object,
        validation: FieldValidation,
    ) -> Result<Object, Status> {
        let (schema, type_id) = scope.types()?;
        let (kind, api_version) =
            (str_at(&object, &["kind"]).to_owned(), str_at(&object, &["apiVersion"]).to_owned());
        object = self.change.apply(schema, type_id, object)?;
        if !object.is_object() {
            return Err(refused(&object, "json: cannot unmarshal into Go value: not an object"));
        }
        for (key, value) in [("kind", &kind), ("apiVersion", &api_version)] {
            if str_at(&object, &[key]) != value {
                return Err(refused(
                    &object,
                    &format!("the {key} of an object cannot be changed by a patch"),
                ));
            }
        }
        let unknown = checked(scope, &mut object).map_err(|error| refused(&object, &error))?;
        let mut problems = self.problems.clone();
        problems.extend(strict_problems(&unknown, &self.duplicates));
        report(&scope.ctx, validation, problems, |why| refused(&object, why))?;
        Ok(object)
    }
}

/// Whether a place is the field, in it, or around it.
fn touches(place: &str, field: &str) -> bool {
    let (short, long) = if place.len() < field.len() { (place, field) } else { (field, place) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Keys that no operation has: `[0].foo`.
fn unknown_in_operations(patch: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for (index, operation) in patch.as_array().into_iter().flatten().enumerate() {
        for key in operation.as_object().into_iter().flat_map(|operation| operation.keys()) {
            if !matches!(key.as_str(), "op" | "path" | "from" | "value") && unknown.len() < UNKNOWN_MAX {
                unknown.push(format!("[{index}].{key}"));
            }
        }
    }
    unknown
}

impl Change {
    /// The object with the change, not yet checked.
    fn apply(&self, schema: &Schema, type_id: TypeId, mut object: Object) -> Result<Object, Status> {
        match self {
            Self::Operations(patch) => operations(&mut object, patch)?,
            Self::Merge(patch) => json_patch::merge(&mut object, patch),
            Self::Strategic(patch) => return strategic::merge(schema, type_id, object, patch),
        }
        Ok(object)
    }
}

/// Applies operations one by one. What they copy is counted: a few that copy the whole into itself would double
/// it each time. How deep they nest is bounded: what is deeper could not be read back.
fn operations(object: &mut Object, patch: &json_patch::Patch) -> Result<(), Status> {
    use json_patch::PatchOperation;

    let mut copied = 0;
    for operation in &patch.0 {
        let source = |from: &str| object.pointer(from);
        let (path, value) = match operation {
            PatchOperation::Add(add) => (add.path.as_str(), Some(&add.value)),
            PatchOperation::Replace(replace) => (replace.path.as_str(), Some(&replace.value)),
            PatchOperation::Move(moved) => (moved.path.as_str(), source(moved.from.as_str())),
            PatchOperation::Copy(copy) => {
                let value = source(copy.from.as_str());
                copied += value.map_or(0, encoded_bytes);
                (copy.path.as_str(), value)
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => ("", None),
        };
        if copied > COPIED_BYTES_MAX || path.matches('/').count() + value.map_or(0, depth) > DEPTH_MAX {
            tracing::debug!(copied, path, "json patch grows too much");
            return Err(rejected());
        }
        json_patch::patch_unsafe(object, std::slice::from_ref(operation)).map_err(|error| {
            tracing::debug!(%error, "json patch does not apply");
            rejected()
        })?;
    }
    Ok(())
}

/// How many levels the value has.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// How long the value is as JSON.
fn encoded_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// 422 for a patch whose result is no valid object.
fn refused(result: &Value, why: &str) -> Status {
    let mut errors = FieldErrors::new();
    errors.invalid("patch", result.to_string(), why);
    Status::invalid("", "", "", &errors)
}

/// 422 for a patch that does not apply.
fn rejected() -> Status {
    Status::failure(422, reason::INVALID, "the server rejected our request due to an error in our request")
        .about("", "", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz;

    fn read(kind: usize, body: &[u8]) -> Result<Patch, Status> {
        Patch::read(SUPPORTED[kind % SUPPORTED.len()], body)
    }

    #[test]
    fn owners_are_told_only_to_who_asks() {
        for (kind, body, want) in [
            (0, r#"[{"op":"add","path":"/metadata/labels/managedFields","value":"x"}]"#, false),
            (0, r#"[{"op":"remove","path":"/spec"},{"op":"copy","from":"/metadata","path":"/spec"}]"#, true),
            (0, r#"[{"op":"test","path":"/metadata/managedFields/0/manager","value":"x"}]"#, true),
            (0, r#"[{"op":"test","path":"","value":{}}]"#, true),
            (0, r#"[{"op":"remove","path":"/metadata/managedFieldsX"}]"#, false),
            (1, r#"{"metadata":{"labels":{"a":"b"}}}"#, false),
            (1, r#"{"metadata":{"managedFields":[{}]}}"#, true),
            (2, r#"{"metadata":{"managedFields":null}}"#, true),
        ] {
            assert_eq!(read(kind, body.as_bytes()).expect("a patch").is_about_owners(), want, "{body}");
        }
    }

    #[test]
    fn copies_cannot_grow_without_bound() {
        let apply = |ops: Vec<String>| {
            let bomb = format!("[{}]", ops.join(","));
            let mut object = serde_json::json!({"b": "c".repeat(100)});
            let Change::Operations(patch) = read(0, bomb.as_bytes()).expect("a patch").change else {
                panic!()
            };
            assert_eq!(operations(&mut object, &patch).expect_err("too much").code, 422);
            assert!(encoded_bytes(&object) < 4 * COPIED_BYTES_MAX);
            assert!(depth(&object) <= DEPTH_MAX);
        };
        // Each doubles the whole.
        apply((0..64).map(|n| format!(r#"{{"op":"copy","from":"","path":"/a{n}"}}"#)).collect());
        // Each puts the whole a level deeper.
        apply(vec![r#"{"op":"copy","from":"","path":"/a"}"#.to_owned(); 500]);
        // Each adds at the bottom.
        let nested = format!("{}{}", r#"{"a":"#.repeat(60), "{}".to_owned() + &"}".repeat(60));
        let at = |n: usize| "/a".repeat(1 + 60 * n);
        apply((0..20).map(|n| format!(r#"{{"op":"add","path":"{}","value":{nested}}}"#, at(n))).collect());
    }

    #[test]
    fn fuzzed_patches_are_applied_or_refused() {
        let schema = Schema::builtin();
        let pod = schema.id("io.k8s.api.core.v1.Pod").expect("Pod");
        let object = crate::protobuf::fixtures::one("core.v1.Pod").tree();
        let mut corpus: Vec<Vec<u8>> = [
            r#"[{"op":"add","path":"/spec/containers/0","value":{"name":"x"}},{"op":"test","path":"/kind","value":"Pod"}]"#,
            r#"[{"op":"copy","from":"/spec","path":"/spec/x"},{"op":"move","from":"/spec/x","path":"/status"},{"op":"remove","path":"/metadata/labels"},{"op":"replace","path":"","value":{}}]"#,
            r#"{"metadata":{"labels":{"a":null,"b":"c"}},"spec":{"containers":[{"name":"nameValue","image":"x"}]}}"#,
            r#"{"spec":{"$setElementOrder/containers":[{"name":"a"},{"name":"b"}],"containers":[{"name":"a","$patch":"delete"},{"$patch":"replace"}],"$retainKeys":["containers"],"$patch":"merge"}}"#,
            r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["x"],"finalizers":["y"],"$setElementOrder/finalizers":["y"]},"spec":{"$patch":"replace"}}"#,
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec();
        corpus.push(object.to_string().into_bytes());
        let limit = 8 * encoded_bytes(&object) + 4 * COPIED_BYTES_MAX;
        fuzz::run("patches", &corpus, |bytes, pick| {
            let _ = Apply::read(bytes);
            if let Ok(patch) = read(pick, bytes)
                && let Ok(result) = patch.change.apply(&schema, pod, object.clone())
            {
                assert!(encoded_bytes(&result) < limit + 8 * bytes.len());
            }
        });
    }
}
