//! events.k8s.io/v1 events, with series.
//!
//! The first event of a kind about an object is created; the second one within [`FINISH_AFTER_SECONDS`] turns it
//! into a series by a patch; later ones are counted here and written when the series is refreshed or has ended.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};

use super::writer::{Form, Write};
use super::{EventType, Said, identity, place};

/// Kinds of events remembered for series; the oldest is forgotten beyond it.
const SERIES_MAX: usize = 4096;
/// A series ends after this long without an event.
const FINISH_AFTER_SECONDS: i64 = 6 * 60;
/// A running series is written again this often.
const REFRESH_EVERY_SECONDS: i64 = 30 * 60;
/// Upstream's limit on `note`, in bytes.
pub const NOTE_MAX: usize = 1024;

/// Cuts a text to upstream's limit for notes, at a character boundary.
pub fn truncate_note(text: &str) -> String {
    const SUFFIX: &str = " ...";
    if text.len() <= NOTE_MAX {
        return text.to_owned();
    }
    let mut end = NOTE_MAX - SUFFIX.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{SUFFIX}", &text[..end])
}

/// Events that differ in nothing of this are one series.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    type_: EventType,
    reason: String,
    action: String,
    regarding: [String; 5],
    field_path: String,
}

/// One event that was created, and how often it was said since.
struct Series {
    namespace: String,
    name: String,
    /// As it was created, without a series.
    event: Value,
    count: i64,
    last_seen: Timestamp,
    written: Timestamp,
    written_count: i64,
}

impl Series {
    /// The patch that writes the count of now.
    fn patch(&mut self, now: Timestamp) -> Write {
        self.written = now;
        self.written_count = self.count;
        let series = json!({ "count": self.count, "lastObservedTime": MicroTime(self.last_seen) });
        let mut otherwise = self.event.clone();
        otherwise["series"] = series.clone();
        Write::Patch {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            body: json!({ "series": series }),
            otherwise,
        }
    }
}

/// Remembers the series that run.
pub(super) struct SeriesForm {
    controller: String,
    instance: String,
    series: HashMap<Key, Series>,
}

impl Form for SeriesForm {
    const PREFIX: &'static str = "/apis/events.k8s.io/v1";

    fn observe(&mut self, said: &Said) -> Option<Write> {
        let note = &said.note;
        let key = Key {
            type_: note.type_,
            reason: note.reason.clone(),
            action: note.action.clone(),
            regarding: identity(&note.regarding),
            field_path: note.regarding.field_path.clone().unwrap_or_default(),
        };
        if let Some(known) = self.series.get_mut(&key)
            && seconds(known.last_seen, said.at) < FINISH_AFTER_SECONDS
        {
            known.last_seen = said.at;
            known.count += 1;
            return (known.count == 2).then(|| known.patch(said.at));
        }
        let (namespace, name) = place(&note.regarding, said.at);
        let event = self.event(said, &namespace, &name);
        if self.series.len() >= SERIES_MAX {
            let oldest = self.series.iter().min_by_key(|(_, s)| s.last_seen).map(|(k, _)| k.clone());
            if let Some(oldest) = oldest {
                self.series.remove(&oldest);
            }
        }
        let series = Series {
            namespace: namespace.clone(),
            name,
            event: event.clone(),
            count: 1,
            last_seen: said.at,
            written: said.at,
            written_count: 1,
        };
        self.series.insert(key, series);
        Some(Write::Create { namespace, body: event })
    }

    fn sweep(&mut self, now: Timestamp) -> Vec<Write> {
        let mut due = Vec::new();
        self.series.retain(|_, series| {
            let ended = seconds(series.last_seen, now) >= FINISH_AFTER_SECONDS;
            let stale = seconds(series.written, now) >= REFRESH_EVERY_SECONDS;
            if series.count != series.written_count && (ended || stale) {
                due.push(series.patch(now));
            }
            !ended
        });
        due
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second() - from.as_second()
}

impl SeriesForm {
    pub(super) fn new(controller: &str, host: &str) -> Self {
        Self {
            controller: controller.to_owned(),
            instance: format!("{controller}-{host}"),
            series: HashMap::new(),
        }
    }

    fn event(&self, said: &Said, namespace: &str, name: &str) -> Value {
        let note = &said.note;
        let mut event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": { "name": name, "namespace": namespace },
            "eventTime": MicroTime(said.at),
            "reportingController": self.controller,
            "reportingInstance": self.instance,
            "action": note.action,
            "reason": note.reason,
            "regarding": note.regarding,
            "note": truncate_note(&note.text),
            "type": note.type_.text(),
        });
        if let Some(related) = &note.related {
            event["related"] = json!(related);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::super::Note;
    use super::*;

    fn said(second: i64) -> Said {
        let note = Note {
            type_: EventType::Warning,
            reason: "FailedScheduling".into(),
            action: "Scheduling".into(),
            text: "no".into(),
            regarding: ObjectReference {
                name: Some("p".into()),
                namespace: Some("ns".into()),
                ..Default::default()
            },
            related: None,
        };
        Said { note, at: Timestamp::from_second(second).expect("timestamp") }
    }

    #[test]
    fn repeated_events_become_one_series() {
        let mut form = SeriesForm::new("default-scheduler", "host");
        let Some(Write::Create { namespace, body: first }) = form.observe(&said(100)) else {
            panic!("created")
        };
        assert_eq!((namespace.as_str(), &first["series"]), ("ns", &Value::Null));
        assert_eq!(first["reportingInstance"], "default-scheduler-host");
        let Some(Write::Patch { name, body, otherwise, .. }) = form.observe(&said(101)) else {
            panic!("patched")
        };
        assert_eq!((body["series"]["count"].as_i64(), &first["metadata"]["name"]), (Some(2), &json!(name)));
        assert_eq!(otherwise["series"], body["series"]);
        assert_eq!(form.observe(&said(102)), None, "further ones are counted");
        let now = Timestamp::from_second(102 + FINISH_AFTER_SECONDS).expect("timestamp");
        let ended = form.sweep(now);
        let [Write::Patch { body, .. }] = ended.as_slice() else { panic!("the count is written") };
        assert_eq!(body["series"]["count"], 3);
        assert!(form.series.is_empty());
    }

    #[test]
    fn long_notes_are_cut() {
        let cut = truncate_note(&"x".repeat(2000));
        assert_eq!(cut.len(), NOTE_MAX);
        assert!(cut.ends_with(" ..."));
    }
}
