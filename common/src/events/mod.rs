//! Events: what a daemon tells people about an object, without flooding the API.
//!
//! A [`Recorder`] never blocks and never fails: it puts the event into a bounded queue (full means dropped, and
//! said in a log line), and one task decides what it means beside what was said before and writes it. There are
//! two wire forms, as in client-go, and a daemon uses the one that upstream's daemon uses: `counted` is core/v1
//! with a count, for the controllers and the kubelet; `series` is events.k8s.io/v1 with series, for the scheduler.
//! Both are pure; `writer` is what they share. Answers to client-go's `tools/record` and `tools/events`.

mod counted;
mod series;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokio::sync::mpsc;

use crate::shutdown::Tasks;

pub use series::{NOTE_MAX, truncate_note};

/// Events that wait to be written; more are dropped.
pub const QUEUE_MAX: usize = 1000;

/// `Normal` or `Warning`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn text(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What happened to which object.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    pub type_: EventType,
    pub reason: String,
    /// What was tried or done; core/v1 events of the older kind have none.
    pub action: String,
    pub text: String,
    pub regarding: ObjectReference,
    pub related: Option<ObjectReference>,
}

/// A note and when it was said.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    note: Note,
    at: Timestamp,
}

/// Says things about objects. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    /// None says nothing.
    queue: Option<mpsc::Sender<Said>>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// core/v1 events whose source is `component` (and `host`, for a daemon of a node). The writing task ends
    /// with `tasks`.
    pub fn counted(client: Client, component: &str, host: &str, tasks: &Tasks) -> Self {
        Self::start(client, counted::Counted::new(component, host), tasks)
    }

    /// events.k8s.io events reported by `controller` (`default-scheduler`) on `host`. The writing task ends with
    /// `tasks`.
    pub fn series(client: Client, controller: &str, host: &str, tasks: &Tasks) -> Self {
        Self::start(client, series::SeriesForm::new(controller, host), tasks)
    }

    fn start(client: Client, form: impl writer::Form, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let stop = tasks.stop_token();
        tasks.spawn("events", async move {
            tokio::select! {
                () = writer::run(client, form, receiver) => {}
                () = stop.cancelled() => {}
            }
        });
        Self { queue: Some(sender), dropped: Arc::default() }
    }

    /// A recorder that says nothing: for tests, and for a kubelet without an API server.
    pub fn silent() -> Self {
        Self { queue: None, dropped: Arc::default() }
    }

    /// Says it. Never blocks.
    pub fn record(&self, note: Note) {
        tracing::debug!(
            kind = note.regarding.kind,
            namespace = note.regarding.namespace,
            name = note.regarding.name,
            reason = note.reason,
            message = note.text,
            "event"
        );
        let Some(queue) = &self.queue else { return };
        if queue.try_send(Said { note, at: Timestamp::now() }).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "events dropped: the queue is full");
            }
        }
    }

    /// Says `reason: text` about an object.
    pub fn event(&self, about: &ObjectReference, type_: EventType, reason: &str, text: impl Into<String>) {
        self.record(Note {
            type_,
            reason: reason.to_owned(),
            action: String::new(),
            text: text.into(),
            regarding: about.clone(),
            related: None,
        });
    }

    pub fn normal(&self, about: &ObjectReference, reason: &str, text: impl Into<String>) {
        self.event(about, EventType::Normal, reason, text);
    }

    pub fn warning(&self, about: &ObjectReference, reason: &str, text: impl Into<String>) {
        self.event(about, EventType::Warning, reason, text);
    }
}

/// What of an object makes two events about it the same.
fn identity(about: &ObjectReference) -> [String; 5] {
    [&about.kind, &about.namespace, &about.name, &about.uid, &about.api_version]
        .map(|part| part.clone().unwrap_or_default())
}

/// Where an event about `about` lives, and a name of its own.
fn place(about: &ObjectReference, at: Timestamp) -> (String, String) {
    let namespace = about.namespace.clone().filter(|n| !n.is_empty());
    let name = format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), at.as_nanosecond());
    (namespace.unwrap_or_else(|| "default".to_owned()), name)
}
