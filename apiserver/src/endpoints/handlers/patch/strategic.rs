//! Strategic merge: a merge patch that merges lists by the keys their types name, with directives.
//!
//! In a map: `$patch` (`replace`, `delete`, `merge`), `$retainKeys`, `$setElementOrder/<list>`,
//! `$deleteFromPrimitiveList/<list>`. In a list of maps: elements with `$patch: delete` or `$patch: replace`.
//!
//! Upstream: `apimachinery/pkg/util/strategicpatch`.

use common::status::{Status, reason};
use serde_json::{Map, Value};

use crate::object::Object;
use crate::resources::schema::{Field, Schema, Type, TypeDef, TypeId};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";

/// Merges `patch` into `object`, which is a `type_id`.
pub(super) fn merge(
    schema: &Schema,
    type_id: TypeId,
    object: Object,
    patch: &Value,
) -> Result<Object, Status> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(Status::bad_request("invalid JSON document"));
    };
    let merger = Merger { schema };
    merger.maps(Some(schema.get(type_id)), None, object, patch).map(Value::Object)
}

struct Merger<'s> {
    schema: &'s Schema,
}

/// How the values of a map are typed: by a struct's fields, or all alike.
#[derive(Clone, Copy)]
struct Element<'s> {
    def: Option<&'s TypeDef>,
    values: Option<&'s Type>,
}

impl<'s> Merger<'s> {
    /// What a value of `ty` is made of.
    fn element(&self, ty: Option<&'s Type>) -> Element<'s> {
        match ty.map(|ty| self.schema.resolve(ty)) {
            Some(Type::Struct(id)) => Element { def: Some(self.schema.get(*id)), values: None },
            Some(Type::Map(inner)) => Element { def: None, values: Some(inner) },
            _ => Element { def: None, values: None },
        }
    }

    fn maps(
        &self,
        def: Option<&'s TypeDef>,
        values: Option<&'s Type>,
        mut original: Map<String, Value>,
        patch: &Map<String, Value>,
    ) -> Result<Map<String, Value>, Status> {
        match patch.get(DIRECTIVE) {
            None => {}
            Some(Value::String(directive)) => match directive.as_str() {
                "replace" => {
                    let mut whole = patch.clone();
                    whole.remove(DIRECTIVE);
                    return Ok(whole);
                }
                "delete" => return Ok(Map::new()),
                "merge" => {}
                other => {
                    return Err(misused(format!(
                        "unknown patch type: {other} in map: {}",
                        Value::Object(patch.clone())
                    )));
                }
            },
            Some(_) => {
                return Err(misused(format!("invalid value for special key: {DIRECTIVE}")));
            }
        }
        retain_keys(&mut original, patch)?;
        for (key, value) in patch {
            if key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(SET_ELEMENT_ORDER) {
                continue;
            }
            if let Some(list) = key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
                delete_primitives(&mut original, list, value)?;
                continue;
            }
            if value.is_null() {
                original.remove(key);
                continue;
            }
            let field = def.and_then(|def| def.field(key));
            let ty = field.map(|f| &f.ty).or(values);
            let merged = match (original.remove(key), value) {
                (Some(Value::Object(old)), Value::Object(new)) => {
                    let element = self.element(ty);
                    Value::Object(self.maps(element.def, element.values, old, new)?)
                }
                (Some(Value::Array(old)), Value::Array(new)) => {
                    Value::Array(self.lists(field, ty, old, new)?)
                }
                (_, new) => without_directives(new),
            };
            if deleted_whole(value) {
                // `$patch: delete` of a map leaves no empty one behind.
                continue;
            }
            original.insert(key.clone(), merged);
        }
        for (key, order) in patch {
            if let Some(list) = key.strip_prefix(SET_ELEMENT_ORDER) {
                let field = def.and_then(|def| def.field(list));
                check_order(patch, list, order, field.and_then(|f| f.patch_merge_key.as_deref()))?;
                set_order(&mut original, list, field, order)?;
            }
        }
        Ok(original)
    }

    fn lists(
        &self,
        field: Option<&'s Field>,
        ty: Option<&'s Type>,
        original: Vec<Value>,
        patch: &[Value],
    ) -> Result<Vec<Value>, Status> {
        let Some(field) = field.filter(|f| f.patch_merge) else {
            return Ok(patch.iter().map(without_directives).collect());
        };
        let Some(key) = field.patch_merge_key.as_deref() else {
            let mut merged = original.clone();
            for item in patch {
                if !merged.contains(item) {
                    merged.push(item.clone());
                }
            }
            return Ok(ordered(merged, patch, &original, None));
        };
        let inner = match ty.map(|ty| self.schema.resolve(ty)) {
            Some(Type::List(inner)) => Some(inner.as_ref()),
            _ => None,
        };
        self.lists_by_key(inner, key, original, patch)
    }

    fn lists_by_key(
        &self,
        inner: Option<&'s Type>,
        key: &str,
        original: Vec<Value>,
        patch: &[Value],
    ) -> Result<Vec<Value>, Status> {
        let mut plain = Vec::with_capacity(patch.len());
        let mut merged = original.clone();
        let mut replace = false;
        for item in patch {
            let Value::Object(map) = item else {
                return Err(Status::bad_request("invalid JSON document"));
            };
            match map.get(DIRECTIVE).map(|d| d.as_str().unwrap_or("")) {
                None => plain.push(item.clone()),
                Some("delete") => {
                    let wanted = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
                    merged.retain(|have| have.get(key) != Some(wanted));
                }
                Some("replace") => {
                    replace = true;
                    if map.len() > 1 {
                        let mut rest = map.clone();
                        rest.remove(DIRECTIVE);
                        plain.push(Value::Object(rest));
                    }
                }
                Some("merge") => {
                    return Err(misused("merging lists cannot yet be specified in the patch".to_owned()));
                }
                Some(other) => {
                    return Err(misused(format!("unknown patch type: {other} in map: {item}")));
                }
            }
        }
        if replace {
            return Ok(plain);
        }
        let element = self.element(inner);
        for item in &plain {
            let Value::Object(map) = item else { continue };
            let wanted = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
            match merged.iter_mut().find(|have| have.get(key) == Some(wanted)) {
                Some(have) => {
                    let Value::Object(old) = have.take() else { continue };
                    *have = Value::Object(self.maps(element.def, element.values, old, map)?);
                }
                None => merged.push(without_directives(item)),
            }
        }
        Ok(ordered(merged, &plain, &original, Some(key)))
    }
}

/// What upstream takes for its own failure.
fn misused(why: String) -> Status {
    Status::failure(500, "", why)
}

/// What a list patches must come in the order that is asked for beside it.
fn check_order(
    patch: &Map<String, Value>,
    list: &str,
    order: &Value,
    key: Option<&str>,
) -> Result<(), Status> {
    let (Some(items), Some(order)) = (patch.get(list).and_then(Value::as_array), order.as_array()) else {
        return Ok(());
    };
    let mut rest = order.iter();
    let same = |a: &Value, b: &Value| match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    };
    let plain = items.iter().filter(|item| item.get(DIRECTIVE).is_none());
    for item in plain {
        if !rest.any(|wanted| same(wanted, item)) {
            return Err(misused(format!(
                "The order in patch list:\n{}\n doesn't match {} list:\n{}\n",
                Value::from(items.clone()),
                SET_ELEMENT_ORDER.trim_end_matches('/'),
                Value::from(order.clone())
            )));
        }
    }
    Ok(())
}

fn deleted_whole(patch: &Value) -> bool {
    patch.get(DIRECTIVE).and_then(Value::as_str) == Some("delete")
}

fn no_merge_key(map: &Map<String, Value>, key: &str) -> Status {
    misused(format!("map: {} does not contain declared merge key: {key}", Value::Object(map.clone())))
}

/// Keys of the original that the list does not name go; the patch may set only keys that it names.
fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), Status> {
    let Some(keep) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let keep: Vec<&str> = keep
        .as_array()
        .and_then(|list| list.iter().map(Value::as_str).collect())
        .ok_or_else(|| Status::bad_request("invalid patch format of retainKeys"))?;
    let named = |key: &String| key.starts_with('$') || keep.contains(&key.as_str());
    if patch.iter().any(|(key, value)| !value.is_null() && !named(key)) {
        return Err(Status::failure(
            422,
            reason::INVALID,
            "the server rejected our request due to an error in our request",
        ));
    }
    original.retain(|key, _| keep.contains(&key.as_str()));
    Ok(())
}

fn delete_primitives(original: &mut Map<String, Value>, list: &str, remove: &Value) -> Result<(), Status> {
    let remove =
        remove.as_array().ok_or_else(|| Status::bad_request("invalid patch format of primitive list"))?;
    if let Some(Value::Array(items)) = original.get_mut(list) {
        items.retain(|item| !remove.contains(item));
    }
    Ok(())
}

fn set_order(
    original: &mut Map<String, Value>,
    list: &str,
    field: Option<&Field>,
    order: &Value,
) -> Result<(), Status> {
    let order = order
        .as_array()
        .ok_or_else(|| Status::bad_request("invalid patch format of setElementOrder list"))?;
    if let Some(Value::Array(items)) = original.get_mut(list) {
        let before = std::mem::take(items);
        let key = field.and_then(|f| f.patch_merge_key.as_deref());
        *items = ordered(before.clone(), order, &before, key);
    }
    Ok(())
}

/// `normalizeElementOrder`: what `order` names comes in its order; what only the server knows goes between,
/// as near to its old place as that allows.
fn ordered(items: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let same = |a: &Value, b: &Value| match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    };
    let place_in = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut named, mut rest): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| place_in(order, item).is_some());
    named.sort_by_key(|item| place_in(order, item));
    rest.sort_by_key(|item| place_in(server, item));
    let mut from = 0;
    for item in rest {
        let mine = place_in(server, &item);
        let greater = |other: &Value| place_in(server, other).is_some_and(|theirs| Some(theirs) > mine);
        let at = named[from..].iter().position(greater).map_or(named.len(), |offset| from + offset);
        named.insert(at, item);
        from = at + 1;
    }
    named
}

/// A value that has no counterpart: directives mean nothing there, and nulls set nothing.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, value)| !is_directive(key) && !value.is_null())
            .map(|(key, value)| (key.clone(), without_directives(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items
            .iter()
            .filter(|item| item.get(DIRECTIVE).and_then(Value::as_str) != Some("delete"))
            .map(without_directives)
            .collect(),
        other => other.clone(),
    }
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE
        || key == RETAIN_KEYS
        || key.starts_with(SET_ELEMENT_ORDER)
        || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(object: Value, patch: Value, want: Value) {
        let schema = Schema::builtin();
        let id = schema.id("io.k8s.api.apps.v1.Deployment").expect("Deployment");
        let got = merge(&schema, id, object, &patch).expect("applies");
        assert_eq!(got, want, "patch {patch}");
    }

    fn containers(list: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": list}}}})
    }

    #[test]
    fn lists_merge_by_key() {
        check(
            containers(json!([{"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}])),
            containers(json!([{"name": "a", "image": "2"}])),
            containers(json!([{"name": "a", "image": "2", "args": ["x"]}, {"name": "b"}])),
        );
        check(
            containers(json!([{"name": "a"}, {"name": "b"}])),
            containers(json!([{"name": "a", "$patch": "delete"}])),
            containers(json!([{"name": "b"}])),
        );
        check(
            containers(json!([{"name": "a"}, {"name": "b"}])),
            containers(json!([{"$patch": "replace"}, {"name": "c"}])),
            containers(json!([{"name": "c"}])),
        );
    }

    #[test]
    fn order_is_kept_as_asked() {
        let patch = json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [{"name": "c", "image": "3"}]}}}});
        check(
            containers(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}])),
            patch,
            containers(json!([{"name": "b"}, {"name": "c", "image": "3"}, {"name": "a"}])),
        );
        check(
            containers(json!([{"name": "a"}])),
            containers(json!([{"name": "d"}])),
            containers(json!([{"name": "d"}, {"name": "a"}])),
        );
    }

    #[test]
    fn misuse_is_told() {
        let schema = Schema::builtin();
        let id = schema.id("io.k8s.api.apps.v1.Deployment").expect("Deployment");
        let wrong = |patch: Value| {
            merge(&schema, id, containers(json!([{"name": "a"}])), &patch).expect_err("refused").message
        };
        assert!(
            wrong(containers(json!([{"image": "x"}]))).ends_with("does not contain declared merge key: name")
        );
        let patch = json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [{"name": "b"}, {"name": "a"}]}}}});
        assert!(wrong(patch).starts_with("The order in patch list:"));
        assert!(wrong(json!({"$patch": "mangle"})).starts_with("unknown patch type: mangle in map"));
    }

    #[test]
    fn maps_take_directives() {
        check(
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        );
        check(
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
            json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
        );
        check(
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
            json!({"metadata": {"labels": {"c": "3"}}}),
        );
    }

    #[test]
    fn primitive_lists_merge_as_sets() {
        check(
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}}),
            json!({"metadata": {"finalizers": ["c", "b"]}}),
        );
    }

    #[test]
    fn a_list_without_a_strategy_is_replaced() {
        check(
            containers(json!([{"name": "a", "args": ["x", "y"]}])),
            containers(json!([{"name": "a", "args": ["z"]}])),
            containers(json!([{"name": "a", "args": ["z"]}])),
        );
    }
}
