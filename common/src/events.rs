//! Recording `events.k8s.io/v1` Events, with series as client-go's new recorder keeps them.
//!
//! The first event of a kind about an object is created; the second one within [`FINISH_AFTER`] turns it into a
//! series by a patch; later ones are counted here and written when the series is refreshed or has ended.
//! Recording never blocks and never fails the caller: when more than [`QUEUE_MAX`] events wait, new ones are
//! dropped. Answers to: client-go `tools/events`.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::shutdown::Tasks;

/// Events that wait to be written; more are dropped.
const QUEUE_MAX: usize = 1000;
/// Kinds of events remembered for series; the oldest are forgotten beyond it.
const SERIES_MAX: usize = 4096;
/// A series ends after this long without an event.
const FINISH_AFTER: Duration = Duration::from_secs(6 * 60);
/// A running series is written again this often.
const REFRESH_EVERY: Duration = Duration::from_secs(30 * 60);
/// How often ended and old series are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Attempts to write one event.
const ATTEMPTS_MAX: u32 = 12;
/// Between attempts.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Upstream's limit on `note`, in bytes.
pub const NOTE_MAX: usize = 1024;

/// What happened to which object.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    pub reason: String,
    pub action: String,
    pub text: String,
    pub regarding: ObjectReference,
    pub related: Option<ObjectReference>,
}

/// Hands notes to the writer task. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Note>,
}

impl Recorder {
    /// Starts the writer. `controller` is the reporting controller (`default-scheduler`, `kube-proxy`), `host`
    /// the machine's name.
    pub fn start(client: kube::Client, controller: &str, host: &str, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            client,
            controller: controller.to_owned(),
            instance: format!("{controller}-{host}"),
            series: HashMap::new(),
        };
        let stop = tasks.stop_token();
        tasks.spawn_essential("event-recorder", async move {
            tokio::select! {
                () = writer.run(receiver) => {}
                () = stop.cancelled() => {}
            }
        });
        Self { sender }
    }

    /// A recorder and the notes it was given: for tests.
    pub fn fake() -> (Self, mpsc::Receiver<Note>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        (Self { sender }, receiver)
    }

    /// Never blocks; drops the note when the queue is full.
    pub fn record(&self, note: Note) {
        if self.sender.try_send(note).is_err() {
            tracing::debug!("event dropped: the event queue is full or closed");
        }
    }
}

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
    kind: &'static str,
    reason: String,
    action: String,
    regarding: [String; 5],
}

struct Series {
    event: Event,
    last_seen: Instant,
    written: Instant,
    written_count: i32,
}

struct Writer {
    client: kube::Client,
    controller: String,
    instance: String,
    series: HashMap<Key, Series>,
}

impl Writer {
    async fn run(mut self, mut notes: mpsc::Receiver<Note>) {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        loop {
            let event = tokio::select! {
                note = notes.recv() => match note {
                    Some(note) => self.observe(note, Timestamp::now(), Instant::now()),
                    None => return,
                },
                _ = sweep.tick() => {
                    for event in self.sweep(Instant::now()) {
                        self.write(&event).await;
                    }
                    None
                }
            };
            if let Some(event) = event {
                self.write(&event).await;
            }
        }
    }

    /// Pure: what is to be written because of a note, if anything.
    fn observe(&mut self, note: Note, wall: Timestamp, now: Instant) -> Option<Event> {
        let key = Key {
            kind: note.kind,
            reason: note.reason.clone(),
            action: note.action.clone(),
            regarding: [
                note.regarding.kind.clone().unwrap_or_default(),
                note.regarding.namespace.clone().unwrap_or_default(),
                note.regarding.name.clone().unwrap_or_default(),
                note.regarding.uid.clone().unwrap_or_default(),
                note.regarding.field_path.clone().unwrap_or_default(),
            ],
        };
        if let Some(known) = self.series.get_mut(&key)
            && now.duration_since(known.last_seen) < FINISH_AFTER
        {
            known.last_seen = now;
            let first = known.event.series.is_none();
            let count = known.event.series.as_ref().map_or(1, |s| s.count).saturating_add(1);
            known.event.series = Some(EventSeries { count, last_observed_time: MicroTime(wall) });
            if first {
                known.written = now;
                known.written_count = count;
                return Some(known.event.clone());
            }
            return None;
        }
        let event = self.make(note, wall);
        if self.series.len() >= SERIES_MAX {
            let oldest = self.series.iter().min_by_key(|(_, s)| s.last_seen).map(|(k, _)| k.clone());
            if let Some(oldest) = oldest {
                self.series.remove(&oldest);
            }
        }
        self.series
            .insert(key, Series { event: event.clone(), last_seen: now, written: now, written_count: 1 });
        Some(event)
    }

    /// Forgets what has ended and says which counts must be written now.
    fn sweep(&mut self, now: Instant) -> Vec<Event> {
        let mut due = Vec::new();
        self.series.retain(|_, series| {
            let count = series.event.series.as_ref().map_or(1, |s| s.count);
            let ended = now.duration_since(series.last_seen) >= FINISH_AFTER;
            let stale = now.duration_since(series.written) >= REFRESH_EVERY;
            if count != series.written_count && (ended || stale) {
                due.push(series.event.clone());
                series.written = now;
                series.written_count = count;
            }
            !ended
        });
        due
    }

    fn make(&self, note: Note, wall: Timestamp) -> Event {
        let name = note.regarding.name.clone().unwrap_or_default();
        let namespace = note.regarding.namespace.clone().filter(|n| !n.is_empty());
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", wall.as_nanosecond())),
                namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(wall)),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            action: Some(note.action),
            reason: Some(note.reason),
            regarding: Some(note.regarding),
            related: note.related,
            note: Some(truncate_note(&note.text)),
            type_: Some(note.kind.to_owned()),
            ..Event::default()
        }
    }

    /// Writes one event, again for transport errors, and gives up on what the server refuses.
    async fn write(&self, event: &Event) {
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let name = event.metadata.name.as_deref().unwrap_or("");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        for _ in 0..ATTEMPTS_MAX {
            let mut result = Ok(());
            if let Some(series) = &event.series {
                let patch = serde_json::json!({ "series": series });
                result = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop);
            }
            let absent = matches!(&result, Err(kube::Error::Api(status)) if status.code == 404);
            if event.series.is_none() || absent {
                result = api.create(&PostParams::default(), event).await.map(drop);
            }
            match result {
                Ok(()) => return,
                Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                    tracing::debug!(event = name, namespace, error = %status, "server refused an event");
                    return;
                }
                Err(error) => {
                    tracing::debug!(event = name, namespace, %error, "cannot write an event; trying again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
        tracing::warn!(event = name, namespace, "event was not written: retry limit exceeded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        crate::events::tests::install();
        let config = kube::Config::new("http://127.0.0.1:1".parse().expect("uri"));
        Writer {
            client: kube::Client::try_from(config).expect("client"),
            controller: "default-scheduler".into(),
            instance: "default-scheduler-host".into(),
            series: HashMap::new(),
        }
    }

    pub(super) fn install() {
        drop(rustls::crypto::ring::default_provider().install_default());
    }

    fn note() -> Note {
        Note {
            kind: "Warning",
            reason: "FailedScheduling".into(),
            action: "Scheduling".into(),
            text: "no".into(),
            regarding: ObjectReference {
                name: Some("p".into()),
                namespace: Some("ns".into()),
                ..Default::default()
            },
            related: None,
        }
    }

    #[tokio::test]
    async fn repeated_events_become_one_series() {
        let mut writer = writer();
        let (wall, start) = (Timestamp::now(), Instant::now());
        let first = writer.observe(note(), wall, start).expect("created");
        assert!(first.series.is_none());
        let second = writer.observe(note(), wall, start).expect("patched");
        assert_eq!(second.series.map(|s| s.count), Some(2));
        assert_eq!(second.metadata.name, first.metadata.name);
        assert!(writer.observe(note(), wall, start).is_none(), "further ones are counted");
        let ended = writer.sweep(start + FINISH_AFTER);
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].series.as_ref().map(|s| s.count), Some(3));
        assert!(writer.series.is_empty());
    }

    #[test]
    fn long_notes_are_cut() {
        let cut = truncate_note(&"x".repeat(2000));
        assert_eq!(cut.len(), NOTE_MAX);
        assert!(cut.ends_with(" ..."));
    }
}
