//! PATCH, in four kinds: a list of operations (RFC 6902), a merge (RFC 7386), the strategic merge that knows
//! which lists merge by which key, and server-side apply.
//!
//! A patch is applied to the object as the client sees it, in the requested version. The result then goes the
//! way of an update.

mod apply;
mod merge;
mod operations;
mod strategic;

pub(in super::super) use apply::Apply;

use common::status::{FieldErrors, Status};
use serde_json::{Map, Value};

use super::super::decode::decode;
use super::super::negotiation::{self, Encoding};
use super::super::query::{FieldValidation, Query, WriteOptions};
use super::super::read::{checked, report, strict_problems};
use super::super::scope::Scope;
use super::super::typed;
use super::super::write::Source;
use super::{body, respond_written, update};
use crate::cacher::Preconditions;
use crate::go;
use crate::object::{Object, str_at};
use crate::request::{ApiRequest, RequestContext, Response};
use crate::resources::ResourceDef;
use crate::resources::schema::{Schema, TypeId};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_MERGE_PATCH: &str = "application/strategic-merge-patch+json";
pub const APPLY_PATCH: &str = "application/apply-patch+yaml";
/// What a patch may be.
const SUPPORTED: &[&str] = &[JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH];

/// Custom resources know no strategic merge.
const SUPPORTED_CUSTOM: &[&str] = &[JSON_PATCH, MERGE_PATCH, APPLY_PATCH];

/// What a patch of this resource may be.
pub fn supported(def: &ResourceDef) -> &'static [&'static str] {
    if def.custom.is_some() { SUPPORTED_CUSTOM } else { SUPPORTED }
}

/// A patch that was read, or why it cannot be: whether there is something to patch is asked first.
pub struct Patch {
    change: Result<Change, Box<Status>>,
    duplicates: Vec<String>,
    /// What a strict reader says of the operations themselves.
    problems: Vec<String>,
}

enum Change {
    Operations(Vec<operations::Operation>),
    Merge(Map<String, Value>),
    Strategic(Map<String, Value>),
}

pub(in super::super) async fn serve(scope: &Scope<'_>, request: ApiRequest) -> Result<Response, Status> {
    let (parts, body) = body(request).await?;
    let media_type = negotiation::media_type(&parts.headers);
    let supported = supported(&scope.def);
    if !supported.contains(&media_type.as_str()) {
        return Err(Status::unsupported_media_type(supported));
    }
    let output = negotiation::output(&parts.headers, true)?;
    let query = Query::parse(&scope.ctx.query);
    let none = Preconditions::default();
    let (code, written) = if media_type == APPLY_PATCH {
        let options = WriteOptions::parse_apply(&query)?;
        let source = Source::Apply(Apply::read(&body)?);
        let create = scope.subresource().is_none();
        update::run(scope, source, options, &none, create).await?
    } else {
        let options = WriteOptions::parse(&query, "PatchOptions")?;
        let source = Source::Patch(Patch::read(&media_type, &body));
        update::run(scope, source, options, &none, false).await?
    };
    respond_written(scope, &parts, output, code, written).await
}

impl Patch {
    /// Reads a patch of a supported type that is no apply.
    pub fn read(media_type: &str, body: &[u8]) -> Self {
        let mut patch = Self {
            change: Err(Box::new(Status::unsupported_media_type(SUPPORTED))),
            duplicates: Vec::new(),
            problems: Vec::new(),
        };
        patch.change = patch.decoded(media_type, body).map_err(Box::new);
        patch
    }

    fn decoded(&mut self, media_type: &str, body: &[u8]) -> Result<Change, Status> {
        let prefix = if media_type == STRATEGIC_MERGE_PATCH { "" } else { "error decoding patch: " };
        let bad = |error: &str| Status::bad_request(format!("{prefix}{error}"));
        if body.is_empty() {
            return Err(bad("unexpected end of JSON input"));
        }
        let decoded = decode(body, Encoding::Json).map_err(|error| bad(&error))?;
        if media_type == JSON_PATCH {
            let unknown = operations::unknown_keys(&decoded.tree);
            self.problems = strict_problems(&unknown, &decoded.duplicates);
            self.problems.iter_mut().for_each(|problem| problem.insert_str(0, "json patch "));
            return operations::read(decoded.tree).map(Change::Operations);
        }
        self.duplicates = decoded.duplicates;
        match (media_type, decoded.tree) {
            (MERGE_PATCH, Value::Object(map)) => Ok(Change::Merge(map)),
            (MERGE_PATCH, Value::Null) => Err(Status::bad_request("Invalid JSON Patch")),
            (STRATEGIC_MERGE_PATCH, Value::Object(map)) => Ok(Change::Strategic(map)),
            (STRATEGIC_MERGE_PATCH, Value::Null) => Ok(Change::Strategic(Map::new())),
            (MERGE_PATCH | STRATEGIC_MERGE_PATCH, other) => {
                let kind = typed::kind_of(&other, false);
                Err(bad(&format!(
                    "json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
                )))
            }
            _ => Err(Status::unsupported_media_type(SUPPORTED)),
        }
    }

    /// Whether it reads or writes who owns what.
    pub fn is_about_owners(&self) -> bool {
        match &self.change {
            Ok(Change::Operations(operations)) => {
                operations.iter().any(|operation| operation.touches("/metadata/managedFields"))
            }
            Ok(Change::Merge(patch) | Change::Strategic(patch)) => {
                patch.get("metadata").is_some_and(|metadata| metadata.get("managedFields").is_some())
            }
            Err(_) => false,
        }
    }

    /// The patched object, checked against its type.
    ///
    /// # Errors
    /// 400 for a patch that cannot be read, 415 for one of another type, 422 when it does not apply or its
    /// result does not fit the type; 500 for most malformed directives, as upstream.
    pub(in super::super) fn apply(
        &self,
        scope: &Scope<'_>,
        object: Object,
        validation: FieldValidation,
    ) -> Result<Object, Status> {
        let (schema, type_id) = scope.types()?;
        let check = |object: &mut Object| match &self.change {
            Ok(Change::Strategic(_)) => {
                typed::check(schema, type_id, object).map_err(typed::TypeError::in_converter_words)
            }
            _ => checked(scope, object),
        };
        self.applied(schema, type_id, object, &check, &scope.ctx, validation)
    }

    /// As for an object of a built-in type that no endpoint of the table serves: a Scale.
    ///
    /// # Errors
    /// As for every patch.
    pub fn apply_to(
        &self,
        schema: &Schema,
        type_id: TypeId,
        object: Object,
        ctx: &RequestContext,
        validation: FieldValidation,
    ) -> Result<Object, Status> {
        let check =
            |object: &mut Object| typed::check(schema, type_id, object).map_err(|error| error.to_string());
        self.applied(schema, type_id, object, &check, ctx, validation)
    }

    fn applied(
        &self,
        schema: &Schema,
        type_id: TypeId,
        object: Object,
        check: &dyn Fn(&mut Object) -> Result<Vec<String>, String>,
        ctx: &RequestContext,
        validation: FieldValidation,
    ) -> Result<Object, Status> {
        let change = self.change.as_ref().map_err(|status| status.as_ref().clone())?;
        let (kind, api_version) =
            (str_at(&object, &["kind"]).to_owned(), str_at(&object, &["apiVersion"]).to_owned());
        let mut object = change.apply(schema, type_id, object)?;
        let refused = |result: &Object, why: &str| {
            let shown = match change {
                Change::Strategic(patch) => go::map(patch),
                Change::Operations(_) | Change::Merge(_) => result.to_string(),
            };
            let mut errors = FieldErrors::new();
            errors.invalid("patch", shown, why);
            Status::invalid("", "", "", &errors)
        };
        let Some(map) = object.as_object_mut() else {
            return Err(refused(&object, "json: cannot unmarshal into Go value: not an object"));
        };
        if let Change::Strategic(_) = change {
            // Read as what it was, whatever it says it is.
            map.insert("kind".to_owned(), kind.into());
            map.insert("apiVersion".to_owned(), api_version.into());
        } else {
            for (key, value) in [("kind", &kind), ("apiVersion", &api_version)] {
                if str_at(&object, &[key]) != value {
                    return Err(refused(&object, &not_the_same(&object)));
                }
            }
        }
        let unknown = check(&mut object).map_err(|error| refused(&object, &error))?;
        let mut problems = self.problems.clone();
        problems.extend(strict_problems(&unknown, &self.duplicates));
        report(ctx, validation, problems, |why| refused(&object, why))?;
        Ok(object)
    }
}

/// The words for a patched object that has become another kind.
fn not_the_same(object: &Object) -> String {
    let (kind, version) = (str_at(object, &["kind"]), str_at(object, &["apiVersion"]));
    if kind.is_empty() {
        return format!("Object 'Kind' is missing in '{object}'");
    }
    format!(
        "no kind {kind:?} is registered for version {version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
    )
}

impl Change {
    /// The object with the change, not yet checked.
    fn apply(&self, schema: &Schema, type_id: TypeId, mut object: Object) -> Result<Object, Status> {
        match self {
            Self::Operations(patch) => operations::apply(&mut object, patch)?,
            Self::Merge(patch) => {
                if let Value::Object(map) = &mut object {
                    merge::merge(map, patch);
                }
            }
            Self::Strategic(patch) => return strategic::merge(schema, type_id, object, patch),
        }
        Ok(object)
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

#[cfg(test)]
mod tests {
    use super::operations::{COPIED_BYTES_MAX, DEPTH_MAX, depth};
    use super::*;
    use crate::fuzz;

    fn read(kind: usize, body: &[u8]) -> Result<Change, Box<Status>> {
        Patch::read(SUPPORTED[kind % SUPPORTED.len()], body).change
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
            assert_eq!(Patch::read(SUPPORTED[kind], body.as_bytes()).is_about_owners(), want, "{body}");
        }
    }

    #[test]
    fn copies_cannot_grow_without_bound() {
        let apply = |ops: Vec<String>| {
            let bomb = format!("[{}]", ops.join(","));
            let mut object = serde_json::json!({"a": {"b": "c".repeat(100)}});
            let Change::Operations(patch) = read(0, bomb.as_bytes()).expect("a patch") else { panic!() };
            assert_eq!(operations::apply(&mut object, &patch).expect_err("too much").code, 422);
            assert!(encoded_bytes(&object) < 4 * COPIED_BYTES_MAX);
            assert!(depth(&object) <= DEPTH_MAX);
        };
        // Each doubles it.
        apply((0..64).map(|n| format!(r#"{{"op":"copy","from":"/a","path":"/a/{n}"}}"#)).collect());
        // Each puts it a level deeper.
        apply(vec![r#"{"op":"copy","from":"/a","path":"/a/a"}"#.to_owned(); 500]);
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
            if let Ok(change) = read(pick, bytes)
                && let Ok(result) = change.apply(&schema, pod, object.clone())
            {
                assert!(encoded_bytes(&result) < limit + 8 * bytes.len());
            }
        });
    }
}
