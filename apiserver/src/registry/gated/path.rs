//! Paths to fields, through lists and maps.
//!
//! Steps are joined by dots. `a[]` goes on in each item of a list, `a{}` in each entry of a map. `a?` goes itself
//! when what is below it was dropped and nothing is left. `a(b)` counts only with a `b` that is not empty, `a!=X`
//! only with another value than X.

use serde_json::Value;

/// A parsed path; the empty one is the place itself.
#[derive(Debug, Clone)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, Clone)]
struct Step {
    key: &'static str,
    into: Into,
    /// Goes when it has become empty.
    prune: bool,
    /// Counts only with this child.
    having: Option<&'static str>,
    /// Counts only with another value.
    unless: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Into {
    Value,
    Items,
    Entries,
}

impl Path {
    pub(super) fn parse(text: &'static str) -> Self {
        Self(text.split('.').filter(|step| !step.is_empty()).map(Step::parse).collect())
    }

    /// True when the path leads to something.
    pub(super) fn used(&self, value: &Value) -> bool {
        used(value, &self.0)
    }

    /// Takes out what the path leads to.
    pub(super) fn remove(&self, value: &mut Value) {
        remove(value, &self.0);
    }
}

impl Step {
    fn parse(text: &'static str) -> Self {
        let mut step = Step { key: text, into: Into::Value, prune: false, having: None, unless: None };
        if let Some((key, value)) = text.split_once("!=") {
            (step.key, step.unless) = (key, Some(value));
        } else if let Some((key, child)) = text.strip_suffix(')').and_then(|t| t.split_once('(')) {
            (step.key, step.having) = (key, Some(child));
        } else if let Some(key) = text.strip_suffix("[]") {
            (step.key, step.into) = (key, Into::Items);
        } else if let Some(key) = text.strip_suffix("{}") {
            (step.key, step.into) = (key, Into::Entries);
        } else if let Some(key) = text.strip_suffix('?') {
            (step.key, step.prune) = (key, true);
        }
        step
    }

    fn counts(&self, value: &Value) -> bool {
        let some = |value: &Value| match value {
            Value::Null => false,
            Value::Array(items) => !items.is_empty(),
            _ => true,
        };
        let child = |key| value.get(key).is_some_and(|v| some(v) && v.as_str() != Some(""));
        some(value)
            && self.having.is_none_or(child)
            && self.unless.is_none_or(|no| value.as_str() != Some(no))
    }
}

fn used(value: &Value, steps: &[Step]) -> bool {
    let [step, rest @ ..] = steps else { return true };
    let Some(found) = value.get(step.key).filter(|found| step.counts(found)) else { return false };
    match step.into {
        Into::Value => used(found, rest),
        Into::Items => found.as_array().into_iter().flatten().any(|item| used(item, rest)),
        Into::Entries => found.as_object().into_iter().flatten().any(|(_, entry)| used(entry, rest)),
    }
}

fn remove(value: &mut Value, steps: &[Step]) {
    let [step, rest @ ..] = steps else { return };
    let Some(map) = value.as_object_mut() else { return };
    let Some(found) = map.get_mut(step.key) else { return };
    if rest.is_empty() {
        if step.counts(found) {
            map.remove(step.key);
        }
        return;
    }
    match step.into {
        Into::Value => remove(found, rest),
        Into::Items => found.as_array_mut().into_iter().flatten().for_each(|item| remove(item, rest)),
        Into::Entries => {
            found.as_object_mut().into_iter().flatten().for_each(|(_, entry)| remove(entry, rest));
        }
    }
    if step.prune && found.as_object().is_some_and(serde_json::Map::is_empty) {
        map.remove(step.key);
    }
}

/// Calls `each` with every place the path leads to, and the old object's of the same index.
pub(super) fn pairs(
    path: &Path,
    new: &mut Value,
    old: Option<&Value>,
    each: &mut dyn FnMut(&mut Value, Option<&Value>),
) {
    walk(&path.0, new, old, each);
}

fn walk(
    steps: &[Step],
    new: &mut Value,
    old: Option<&Value>,
    each: &mut dyn FnMut(&mut Value, Option<&Value>),
) {
    let [step, rest @ ..] = steps else { return each(new, old) };
    let Some(new) = new.get_mut(step.key) else { return };
    let old = old.and_then(|old| old.get(step.key));
    if step.into == Into::Value {
        return walk(rest, new, old, each);
    }
    for (i, item) in new.as_array_mut().into_iter().flatten().enumerate() {
        walk(rest, item, old.and_then(|old| old.get(i)), each);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(path: &'static str, value: Value, used: bool, left: Value) {
        let (path, mut rest) = (Path::parse(path), value.clone());
        assert_eq!(path.used(&value), used, "{value}");
        path.remove(&mut rest);
        assert_eq!(rest, left);
    }

    #[test]
    fn paths_lead_through_lists_and_maps() {
        check("a.b", json!({"a": {"b": 1, "c": 2}}), true, json!({"a": {"c": 2}}));
        check("a[].b", json!({"a": [{"c": 1}, {"b": {}}]}), true, json!({"a": [{"c": 1}, {}]}));
        check("a{}.b", json!({"a": {"x": {"b": 0}}}), true, json!({"a": {"x": {}}}));
        check("a.b{}", json!({"a": {"b": {}}}), false, json!({"a": {}}));
        check("a.b", json!({"a": {"b": []}}), false, json!({"a": {"b": []}}));
        check("a.b", json!({"a": "text"}), false, json!({"a": "text"}));
    }

    #[test]
    fn steps_have_conditions() {
        check("a?.b", json!({"a": {"b": 1}}), true, json!({}));
        check("a?.b", json!({"a": {"b": 1, "c": 1}}), true, json!({"a": {"c": 1}}));
        check("a!=X", json!({"a": "X"}), false, json!({"a": "X"}));
        check("a!=X", json!({"a": "Y"}), true, json!({}));
        check("a(b)", json!({"a": {"b": "", "c": 1}}), false, json!({"a": {"b": "", "c": 1}}));
        check("a(b)", json!({"a": {"b": "n", "c": 1}}), true, json!({}));
    }

    #[test]
    fn items_are_paired_by_index() {
        let (mut new, old) = (json!({"a": [{"b": 1}, {"b": 2}]}), json!({"a": [{"b": 3}]}));
        let mut seen = Vec::new();
        pairs(&Path::parse("a[]"), &mut new, Some(&old), &mut |new, old| {
            seen.push((new["b"].clone(), old.map(|o| o["b"].clone())));
        });
        assert_eq!(seen, [(json!(1), Some(json!(3))), (json!(2), None)]);
    }
}
