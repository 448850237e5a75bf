//! JSON patches: operations one after another (RFC 6902), with the liberties that upstream's library takes.
//!
//! Clients rely on them: indexes below zero count from the end, `replace` of a key that is not there adds it,
//! `test` finds an absent key to be null, `copy` of one copies null, and a missing value is null. The whole
//! object can be replaced and tested, not added or removed. Operations are judged when their turn comes, so
//! that what is wrong with one is a 422 like any patch that does not apply.
//!
//! Upstream: `gopkg.in/evanphx/json-patch.v4`.

use common::status::{Status, reason};
use serde_json::Value;

use super::super::super::typed::kind_of;
use super::encoded_bytes;

/// `maxJSONPatchOperations`.
const OPERATIONS_MAX: usize = 10_000;

/// What all copies of one patch may add together (`JSONPatchMaxCopyBytes`).
pub(super) const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// How deep a patch may make an object: the JSON reader's limit is 128, and lists and events put objects deeper.
pub(super) const DEPTH_MAX: usize = 120;

/// Unknown keys beyond this many are not listed.
const UNKNOWN_MAX: usize = 100;

/// One operation, as the client wrote it.
#[derive(Debug, Default)]
pub(super) struct Operation {
    op: String,
    path: Option<String>,
    from: Option<String>,
    value: Value,
}

/// Why a patch does not apply: for the log alone, the client is not told.
type Refusal = String;

/// Reads a list of operations.
///
/// # Errors
/// 400 for what is no list of objects, 413 for too many operations.
pub(super) fn read(tree: Value) -> Result<Vec<Operation>, Status> {
    let bad =
        |why: String| Status::bad_request(format!("error decoding patch: json: cannot unmarshal {why}"));
    let items = match tree {
        Value::Null => Vec::new(),
        Value::Array(items) => items,
        other => {
            return Err(bad(format!(
                "{} into Go value of type []handlers.jsonPatchOp",
                kind_of(&other, false)
            )));
        }
    };
    if items.len() > OPERATIONS_MAX {
        let why = format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            items.len()
        );
        return Err(Status::failure(413, reason::REQUEST_ENTITY_TOO_LARGE, why));
    }
    items
        .into_iter()
        .map(|item| match item {
            Value::Null => Ok(Operation::default()),
            Value::Object(mut map) => {
                let mut text = |key: &str| match map.remove(key) {
                    None | Some(Value::Null) => Ok(None),
                    Some(Value::String(text)) => Ok(Some(text)),
                    Some(other) => {
                        let kind = kind_of(&other, false);
                        Err(bad(format!("{kind} into Go struct field jsonPatchOp.{key} of type string")))
                    }
                };
                let (op, path, from) = (text("op")?.unwrap_or_default(), text("path")?, text("from")?);
                Ok(Operation { op, path, from, value: map.remove("value").unwrap_or_default() })
            }
            other => {
                Err(bad(format!("{} into Go value of type handlers.jsonPatchOp", kind_of(&other, false))))
            }
        })
        .collect()
}

/// Keys that no operation has: `[0].foo`.
pub(super) fn unknown_keys(patch: &Value) -> Vec<String> {
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

/// Applies operations one by one. What they copy is counted: a few that copy the whole into itself would double
/// it each time. How deep they nest is bounded: what is deeper could not be read back.
///
/// # Errors
/// 422, always in the same words.
pub(super) fn apply(object: &mut Value, patch: &[Operation]) -> Result<(), Status> {
    let mut copied = 0;
    for operation in patch {
        operation.apply(object, &mut copied).map_err(|why| {
            tracing::debug!(%why, op = operation.op, path = operation.path, "json patch does not apply");
            let why = "the server rejected our request due to an error in our request";
            Status::failure(422, reason::INVALID, why).about("", "", "")
        })?;
    }
    Ok(())
}

/// Whether a place is the field, in it, or around it.
fn meet(place: &str, field: &str) -> bool {
    let (short, long) = if place.len() < field.len() { (place, field) } else { (field, place) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Operation {
    /// Whether it reads or writes the field, something in it, or something that it is in.
    pub(super) fn touches(&self, field: &str) -> bool {
        [&self.path, &self.from].into_iter().flatten().any(|place| meet(place, field))
    }

    fn apply(&self, object: &mut Value, copied: &mut usize) -> Result<(), Refusal> {
        let path = self.path.as_deref().ok_or("no path");
        match self.op.as_str() {
            "add" => add(object, path?, self.value.clone()),
            "remove" => remove(object, path?).map(|_| ()),
            "replace" => replace(object, path?, self.value.clone()),
            "test" => test(object, path?, &self.value),
            "move" => {
                let value = remove(object, self.from.as_deref().ok_or("no from")?)?;
                add(object, path?, value)
            }
            "copy" => {
                let (place, key) = find(object, self.from.as_deref().ok_or("no from")?)?;
                let value = get(place, &key)?.clone();
                *copied += encoded_bytes(&value);
                if *copied > COPIED_BYTES_MAX {
                    return Err(format!("{copied} bytes were copied"));
                }
                add(object, path?, value)
            }
            other => Err(format!("unexpected kind: {other}")),
        }
    }
}

/// The map or list that holds what a path leads to, and the last part of the path.
fn find<'v>(object: &'v mut Value, path: &str) -> Result<(&'v mut Value, String), Refusal> {
    // What is before the first slash is ignored.
    let (_, path) = path.split_once('/').ok_or("the whole object has no place")?;
    let (parents, last) = match path.rsplit_once('/') {
        Some((parents, last)) => (Some(parents), last),
        None => (None, path),
    };
    let mut place = object;
    for part in parents.into_iter().flat_map(|parents| parents.split('/')) {
        let part = unescaped(part);
        place = match place {
            Value::Object(map) => map.get_mut(&part).ok_or("missing path")?,
            Value::Array(items) => {
                let index = index(&part, items.len(), items.len())?;
                &mut items[index]
            }
            _ => return Err("missing path".to_owned()),
        };
    }
    if place.is_object() || place.is_array() {
        Ok((place, unescaped(last)))
    } else {
        Err("missing path".to_owned())
    }
}

fn unescaped(part: &str) -> String {
    // One pass: `~01` is `~1`.
    let mut out = String::with_capacity(part.len());
    let mut rest = part;
    while let Some(at) = rest.find('~') {
        out.push_str(&rest[..at]);
        let (text, used) = match rest.as_bytes().get(at + 1) {
            Some(b'0') => ("~", 2),
            Some(b'1') => ("/", 2),
            _ => ("~", 1),
        };
        out.push_str(text);
        rest = &rest[at + used..];
    }
    out + rest
}

/// The place in a list of `length` items, of which those before `end` are meant; negative from `length`.
fn index(text: &str, length: usize, end: usize) -> Result<usize, Refusal> {
    let index: i64 = text.parse().map_err(|_| format!("{text:?} is no index"))?;
    let from_start = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
    let place = if index < 0 { length.checked_sub(from_start) } else { Some(from_start) };
    place.filter(|place| *place < end).ok_or_else(|| format!("invalid index {index}"))
}

fn get<'v>(place: &'v Value, key: &str) -> Result<&'v Value, Refusal> {
    match place {
        Value::Array(items) => Ok(&items[index(key, items.len(), items.len())?]),
        other => Ok(other.get(key).unwrap_or(&Value::Null)),
    }
}

fn add(object: &mut Value, path: &str, value: Value) -> Result<(), Refusal> {
    if path.matches('/').count() + depth(&value) > DEPTH_MAX {
        return Err("nests too deep".to_owned());
    }
    let (place, key) = find(object, path)?;
    match place {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            // The place behind the last is one, also counted from the end.
            let end = items.len() + 1;
            let index = index(&key, end, end)?;
            items.insert(index, value);
        }
        Value::Object(map) => {
            map.insert(key, value);
        }
        _ => return Err("missing path".to_owned()),
    }
    Ok(())
}

fn remove(object: &mut Value, path: &str) -> Result<Value, Refusal> {
    let (place, key) = find(object, path)?;
    match place {
        Value::Array(items) => {
            let index = index(&key, items.len(), items.len())?;
            Ok(items.remove(index))
        }
        Value::Object(map) => map.remove(&key).ok_or_else(|| format!("nonexistent key {key}")),
        _ => Err("missing path".to_owned()),
    }
}

fn replace(object: &mut Value, path: &str, value: Value) -> Result<(), Refusal> {
    if path.is_empty() {
        if !value.is_object() && !value.is_array() || depth(&value) > DEPTH_MAX {
            return Err("the whole must be an object or array".to_owned());
        }
        *object = value;
        return Ok(());
    }
    if path.matches('/').count() + depth(&value) > DEPTH_MAX {
        return Err("nests too deep".to_owned());
    }
    let (place, key) = find(object, path)?;
    match place {
        Value::Array(items) => {
            let index = index(&key, items.len(), items.len())?;
            items[index] = value;
        }
        Value::Object(map) => {
            map.insert(key, value);
        }
        _ => return Err("missing path".to_owned()),
    }
    Ok(())
}

fn test(object: &mut Value, path: &str, value: &Value) -> Result<(), Refusal> {
    let equal = if path.is_empty() {
        object == value
    } else {
        let (place, key) = find(object, path)?;
        get(place, &key)? == value
    };
    if equal { Ok(()) } else { Err(format!("testing value {path} failed")) }
}

/// How many levels the value has.
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(mut object: Value, patch: Value) -> Result<Value, u16> {
        let operations = read(patch).map_err(|status| status.code)?;
        apply(&mut object, &operations).map_err(|status| status.code)?;
        Ok(object)
    }

    #[test]
    fn operations_apply_as_upstreams_library_applies_them() {
        let list = || json!({"a": [1, 2, 3], "m": {"x/y": 1, "~1": 2}});
        for (patch, want) in [
            // From the end.
            (json!({"op": "replace", "path": "/a/-1", "value": 9}), json!([1, 2, 9])),
            (json!({"op": "add", "path": "/a/-1", "value": 9}), json!([1, 2, 3, 9])),
            (json!({"op": "add", "path": "/a/-4", "value": 9}), json!([9, 1, 2, 3])),
            (json!({"op": "add", "path": "/a/3", "value": 9}), json!([1, 2, 3, 9])),
            (json!({"op": "add", "path": "/a/-", "value": 9}), json!([1, 2, 3, 9])),
            (json!({"op": "remove", "path": "/a/-3"}), json!([2, 3])),
            (json!({"op": "move", "from": "/a/0", "path": "/a/2"}), json!([2, 3, 1])),
            (json!({"op": "copy", "from": "/a/0", "path": "/a/1"}), json!([1, 1, 2, 3])),
            (json!({"op": "test", "path": "/a/-1", "value": 3}), json!([1, 2, 3])),
        ] {
            assert_eq!(patched(list(), json!([patch])).map(|o| o["a"].clone()), Ok(want), "{patch}");
        }
        for (patch, want) in [
            // A key that is not there is null to `replace`, `test` and `copy`.
            (json!({"op": "replace", "path": "/m/new", "value": 1}), json!({"x/y": 1, "~1": 2, "new": 1})),
            (json!({"op": "test", "path": "/m/new", "value": null}), list()["m"].clone()),
            (json!({"op": "test", "path": "/m/new"}), list()["m"].clone()),
            (
                json!({"op": "copy", "from": "/m/no", "path": "/m/new"}),
                json!({"x/y": 1, "~1": 2, "new": null}),
            ),
            (json!({"op": "add", "path": "/m/new"}), json!({"x/y": 1, "~1": 2, "new": null})),
            (json!({"op": "remove", "path": "/m/x~1y"}), json!({"~1": 2})),
            (json!({"op": "remove", "path": "/m/~01"}), json!({"x/y": 1})),
            (json!({"op": "test", "path": "", "value": list()}), list()["m"].clone()),
        ] {
            assert_eq!(patched(list(), json!([patch])).map(|o| o["m"].clone()), Ok(want), "{patch}");
        }
        let whole = json!([{"op": "replace", "path": "", "value": {"b": 1}}]);
        assert_eq!(patched(list(), whole), Ok(json!({"b": 1})));
    }

    #[test]
    fn what_does_not_apply_is_refused() {
        for operation in [
            json!({"op": "add", "path": "/a/4", "value": 1}),
            json!({"op": "add", "path": "/a/-5", "value": 1}),
            json!({"op": "add", "path": "/a/x", "value": 1}),
            json!({"op": "add", "path": "/no/x", "value": 1}),
            json!({"op": "add", "path": "", "value": {}}),
            json!({"op": "add", "value": {}}),
            json!({"op": "remove", "path": "/a/3"}),
            json!({"op": "remove", "path": "/no"}),
            json!({"op": "replace", "path": "/a/3", "value": 1}),
            json!({"op": "replace", "path": "/no/x", "value": 1}),
            json!({"op": "replace", "path": "", "value": 1}),
            json!({"op": "move", "from": "/no", "path": "/a/0"}),
            json!({"op": "move", "path": "/a/0"}),
            json!({"op": "copy", "from": "/a/3", "path": "/a/0"}),
            json!({"op": "test", "path": "/a/0", "value": 2}),
            json!({"op": "test", "path": "/a/0"}),
            json!({"op": "grow", "path": "/a/0"}),
            json!({"path": "/a/0"}),
            json!(null),
        ] {
            let answer = patched(json!({"a": [1, 2, 3]}), json!([operation]));
            assert_eq!(answer, Err(422), "{operation}");
        }
        for broken in [json!({}), json!("x"), json!([1]), json!([{"op": 1}]), json!([{"path": {}}])] {
            assert_eq!(patched(json!({}), broken.clone()), Err(400), "{broken}");
        }
        let many = Value::Array(vec![json!({"op": "test", "path": "/a", "value": null}); OPERATIONS_MAX + 1]);
        assert_eq!(patched(json!({}), many), Err(413));
        assert_eq!(patched(json!({}), Value::Null), Ok(json!({})));
    }
}
