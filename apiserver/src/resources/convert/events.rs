//! events.k8s.io/v1 and core/v1 events: the same facts under two sets of names.

use serde_json::{Map, Value};

use crate::object::Object;

/// (events.k8s.io/v1, core/v1). Fields not listed have the same name in both.
const NAMES: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

/// Fields that core/v1 always writes, even when empty.
const CORE_ALWAYS: &[(&str, Empty)] = &[
    ("involvedObject", Empty::Map),
    ("source", Empty::Map),
    ("firstTimestamp", Empty::Null),
    ("lastTimestamp", Empty::Null),
    ("eventTime", Empty::Null),
    ("reportingComponent", Empty::Text),
    ("reportingInstance", Empty::Text),
];

#[derive(Clone, Copy)]
enum Empty {
    Map,
    Null,
    Text,
}

pub(super) fn to_stored(event: Object) -> Object {
    let mut out =
        rename(event, "v1", |name| NAMES.iter().find(|(events, _)| *events == name).map(|(_, core)| *core));
    if let Some(map) = out.as_object_mut() {
        for (name, empty) in CORE_ALWAYS {
            map.entry(*name).or_insert_with(|| match empty {
                Empty::Map => Value::Object(Map::new()),
                Empty::Null => Value::Null,
                Empty::Text => Value::String(String::new()),
            });
        }
    }
    out
}

pub(super) fn from_stored(event: Object) -> Object {
    let mut out = rename(event, "events.k8s.io/v1", |name| {
        NAMES.iter().find(|(_, core)| *core == name).map(|(events, _)| *events)
    });
    if let Some(map) = out.as_object_mut() {
        // events.k8s.io/v1 leaves these out when empty.
        for name in ["reportingController", "reportingInstance"] {
            if map.get(name).is_some_and(|v| v.as_str() == Some("")) {
                map.remove(name);
            }
        }
    }
    out
}

fn rename(event: Object, api_version: &str, name: impl Fn(&str) -> Option<&'static str>) -> Object {
    let Value::Object(fields) = event else { return event };
    let mut out = Map::with_capacity(fields.len());
    for (key, value) in fields {
        match name(&key) {
            Some(new) => out.insert(new.to_owned(), value),
            None => out.insert(key, value),
        };
    }
    out.insert("apiVersion".to_owned(), Value::String(api_version.to_owned()));
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_survives_the_way_and_back() {
        let event = json!({"kind": "Event", "apiVersion": "events.k8s.io/v1",
            "metadata": {"name": "a", "namespace": "n"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "regarding": {"kind": "Pod", "name": "p"}, "note": "hello", "reason": "Because",
            "reportingController": "c", "reportingInstance": "c-1", "action": "Bind", "type": "Normal"});
        let stored = to_stored(event.clone());
        assert_eq!(stored["apiVersion"], "v1");
        assert_eq!(stored["involvedObject"]["name"], "p");
        assert_eq!(stored["message"], "hello");
        assert_eq!(stored["reportingComponent"], "c");
        let back = from_stored(stored);
        for key in ["regarding", "note", "reportingController", "reportingInstance", "apiVersion", "action"] {
            assert_eq!(back[key], event[key], "{key}");
        }
    }
}
