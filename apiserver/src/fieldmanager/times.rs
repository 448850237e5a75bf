//! Times that alone changed are no change.

use serde_json::Value;

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
    let (Some(a), Some(b)) = (new.as_object(), old.as_object()) else { return false };
    let null = Value::Null;
    let metadata = |map: &serde_json::Map<String, Value>| {
        let mut metadata = map.get("metadata").cloned().unwrap_or_default();
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.remove("managedFields");
        }
        metadata
    };
    a.keys()
        .chain(b.keys())
        .filter(|key| key.as_str() != "metadata")
        .all(|key| same(a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null)))
        && same(&metadata(a), &metadata(b))
}
