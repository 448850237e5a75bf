//! Times that alone changed are no change.

use serde_json::{Map, Value};

use super::entries;
use crate::object::Object;

/// Puts back the times of the entries when nothing else differs from `old`, so that the object is not written
/// for their sake. `same` compares the rest of the two objects.
pub fn keep_times(new: &mut Object, old: &Object, same: impl Fn(&Value, &Value) -> bool) {
    let (Some(was), Some(is)) = (entries(old).as_array(), entries(new).as_array()) else { return };
    if was.len() != is.len() || was == is {
        return;
    }
    let timeless = |a: &Value, b: &Value| match (a.as_object(), b.as_object()) {
        (Some(a), Some(b)) => {
            let rest = |key: &&String| key.as_str() != "time";
            a.keys().filter(rest).count() == b.keys().filter(rest).count()
                && a.iter().filter(|(key, _)| rest(key)).all(|(key, value)| b.get(key) == Some(value))
        }
        _ => a == b,
    };
    if !was.iter().zip(is).all(|(a, b)| timeless(a, b)) {
        return;
    }
    let times = Value::Array(was.clone());
    if same_but_entries(new, old, same) {
        super::set_entries(new, Some(times));
    }
}

fn same_but_entries(new: &Object, old: &Object, same: impl Fn(&Value, &Value) -> bool) -> bool {
    let nothing = Map::new();
    let [new, old] = [new, old].map(|object| object.as_object().unwrap_or(&nothing));
    let [new_metadata, old_metadata] =
        [new, old].map(|fields| fields.get("metadata").and_then(Value::as_object).unwrap_or(&nothing));
    same_without("managedFields", new_metadata, old_metadata, &same)
        && same_without("metadata", new, old, &same)
}

/// Whether two maps agree in all but one key.
fn same_without(
    without: &str,
    a: &Map<String, Value>,
    b: &Map<String, Value>,
    same: impl Fn(&Value, &Value) -> bool,
) -> bool {
    let nothing = Value::Null;
    a.keys().chain(b.keys()).filter(|key| key.as_str() != without).all(|key| {
        let [x, y] = [a, b].map(|map| map.get(key).unwrap_or(&nothing));
        same(x, y)
    })
}
