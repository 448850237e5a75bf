//! core/v1 events. The same event again raises the count of the one that exists; many that differ only by message
//! become one "(combined from similar events)"; and each source may say 25 things about one object at once and
//! then one every five minutes.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::writer::{Form, Write};
use super::{Said, identity, place};

/// Remembered events, aggregates and sources, each.
const REMEMBERED_MAX: usize = 4096;
const AGGREGATE_AFTER: usize = 10;
const AGGREGATE_INTERVAL_SECONDS: i64 = 600;
const SPAM_BURST: f64 = 25.0;
const SPAM_PER_SECOND: f64 = 1.0 / 300.0;

#[derive(Debug, Clone)]
struct Written {
    name: String,
    count: i64,
    first: Timestamp,
}

#[derive(Debug)]
struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

/// Remembers what was written.
pub(super) struct Counted {
    component: String,
    host: String,
    written: HashMap<String, Written>,
    similar: HashMap<String, Similar>,
    /// Tokens left, and when they were counted.
    sources: HashMap<String, (f64, Timestamp)>,
}

/// Makes room for one more: over the limit, everything is forgotten, which costs a duplicate at most.
fn bound<V>(map: &mut HashMap<String, V>) {
    if map.len() >= REMEMBERED_MAX {
        map.clear();
    }
}

impl Form for Counted {
    const PREFIX: &'static str = "/api/v1";

    fn observe(&mut self, said: &Said) -> Option<Write> {
        let (about, type_) = (&said.note.regarding, said.note.type_.text());
        let object = identity(about).join("\u{1}");
        let path = about.field_path.as_deref().unwrap_or_default();
        let kind_of = format!("{object}\u{1}{type_}\u{1}{}\u{1}{path}", said.note.reason);
        let (message, key) = self.aggregate(said, &kind_of);
        let known = self.written.get(&key).cloned();
        let count = known.as_ref().map_or(1, |w| w.count + 1);
        let first = known.as_ref().map_or(said.at, |w| w.first);
        let (namespace, fresh) = place(about, said.at);
        let name = known.as_ref().map_or(fresh, |w| w.name.clone());
        bound(&mut self.written);
        self.written.insert(key, Written { name: name.clone(), count, first });
        if !self.may_say(&format!("{object}\u{1}{type_}"), said.at) {
            return None;
        }
        let event = |count: i64| {
            json!({
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": { "name": name, "namespace": namespace },
                "involvedObject": about,
                "reason": said.note.reason,
                "message": message,
                "source": self.source(),
                "firstTimestamp": Time(first),
                "lastTimestamp": Time(said.at),
                "count": count,
                "type": type_,
                "reportingComponent": self.component,
                "reportingInstance": self.host,
            })
        };
        if known.is_none() {
            return Some(Write::Create { body: event(count), namespace });
        }
        // Expired meanwhile, it starts again.
        let otherwise = event(1);
        let body = json!({ "count": count, "lastTimestamp": Time(said.at), "message": message });
        Some(Write::Patch { namespace, name, body, otherwise })
    }

    /// Counts are written as they rise, and what is remembered is bounded without a clock.
    fn sweep(&mut self, _now: Timestamp) -> Vec<Write> {
        Vec::new()
    }
}

impl Counted {
    pub(super) fn new(component: &str, host: &str) -> Self {
        Self {
            component: component.to_owned(),
            host: host.to_owned(),
            written: HashMap::new(),
            similar: HashMap::new(),
            sources: HashMap::new(),
        }
    }

    fn source(&self) -> Value {
        if self.host.is_empty() {
            json!({ "component": self.component })
        } else {
            json!({ "component": self.component, "host": self.host })
        }
    }

    /// The message and the identity under which an event is counted: its own, or its kind's once too many
    /// that differ only by message came in a short time.
    fn aggregate(&mut self, said: &Said, kind_of: &str) -> (String, String) {
        let message = &said.note.text;
        if !self.similar.contains_key(kind_of) {
            bound(&mut self.similar);
        }
        let similar = self
            .similar
            .entry(kind_of.to_owned())
            .or_insert_with(|| Similar { messages: HashSet::new(), last: said.at });
        if said.at.as_second() - similar.last.as_second() > AGGREGATE_INTERVAL_SECONDS {
            similar.messages.clear();
        }
        similar.last = said.at;
        similar.messages.insert(message.clone());
        if similar.messages.len() < AGGREGATE_AFTER {
            return (message.clone(), format!("{kind_of}\u{1}{message}"));
        }
        // Any one of them will do; without this the set would grow with every new message.
        if let Some(any) = similar.messages.iter().find(|m| *m != message).cloned() {
            similar.messages.remove(&any);
        }
        (format!("(combined from similar events): {message}"), kind_of.to_owned())
    }

    fn may_say(&mut self, source: &str, now: Timestamp) -> bool {
        if !self.sources.contains_key(source) {
            bound(&mut self.sources);
        }
        let (tokens, last) = self.sources.entry(source.to_owned()).or_insert((SPAM_BURST, now));
        let passed = now.duration_since(*last).as_secs_f64().max(0.0);
        *tokens = (*tokens + passed * SPAM_PER_SECOND).min(SPAM_BURST);
        *last = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::super::{EventType, Note};
    use super::*;

    fn said(message: &str, second: i64) -> Said {
        let note = Note {
            type_: EventType::Normal,
            reason: "Pulled".into(),
            action: String::new(),
            text: message.into(),
            regarding: ObjectReference {
                kind: Some("Pod".into()),
                namespace: Some("n".into()),
                name: Some("p".into()),
                uid: Some("u".into()),
                ..Default::default()
            },
            related: None,
        };
        Said { note, at: Timestamp::from_second(second).expect("timestamp") }
    }

    #[test]
    fn the_same_again_raises_the_count() {
        let mut c = Counted::new("kubelet", "node");
        let Some(Write::Create { namespace, body }) = c.observe(&said("a", 100)) else { panic!("create") };
        assert_eq!((namespace.as_str(), body["count"].as_i64()), ("n", Some(1)));
        assert_eq!(body["source"]["host"], "node");
        let Some(Write::Patch { name, body: patch, otherwise, .. }) = c.observe(&said("a", 101)) else {
            panic!("patch")
        };
        assert_eq!(name, body["metadata"]["name"]);
        assert_eq!(patch["count"], 2);
        assert_eq!(otherwise["count"], 1);
    }

    #[test]
    fn similar_ones_are_combined() {
        let mut c = Counted::new("kubelet", "");
        for i in 0..9 {
            assert!(matches!(c.observe(&said(&i.to_string(), 100)), Some(Write::Create { .. })));
        }
        let Some(Write::Create { body, .. }) = c.observe(&said("9", 100)) else { panic!("create") };
        assert_eq!(body["message"], "(combined from similar events): 9");
        let Some(Write::Patch { body, .. }) = c.observe(&said("10", 100)) else { panic!("patch") };
        assert_eq!(
            (body["message"].as_str(), body["count"].as_i64()),
            (Some("(combined from similar events): 10"), Some(2))
        );
    }

    #[test]
    fn a_source_that_says_too_much_is_cut_off() {
        let mut c = Counted::new("kubelet", "");
        for _ in 0..25 {
            assert!(c.observe(&said("a", 100)).is_some());
        }
        assert_eq!(c.observe(&said("a", 101)), None);
        assert!(c.observe(&said("a", 500)).is_some());
    }
}
