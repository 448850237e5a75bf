//! Events: what a daemon tells people about an object, without flooding the API.
//!
//! A [`Recorder`] never blocks and never fails: it puts the event into a bounded queue (full means dropped and
//! counted in a log line), and one task correlates and writes. The same event again raises the count of the
//! one that exists; many that differ only by message become one "(combined from similar events)"; and each
//! source may say 25 things about one object at once and then one every five minutes, as client-go's
//! `tools/record` does, which the kubelet and the controllers use. Events are core/v1; [`crate::events`] is the
//! other recorder, with events.k8s.io series, that the scheduler and kube-proxy use.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::shutdown::Tasks;

/// Events waiting to be written; more are dropped.
pub const QUEUE_MAX: usize = 1000;
/// Remembered events, aggregates and sources, each.
const REMEMBERED_MAX: usize = 4096;
const AGGREGATE_AFTER: usize = 10;
const AGGREGATE_INTERVAL_SECONDS: i64 = 600;
const SPAM_BURST: f64 = 25.0;
const SPAM_PER_SECOND: f64 = 1.0 / 300.0;
/// Attempts at one write before the event is given up.
const WRITE_ATTEMPTS: u32 = 5;

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

#[derive(Debug, Clone)]
struct Said {
    about: ObjectReference,
    type_: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Says things about objects. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: Option<mpsc::Sender<Said>>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// A recorder whose events show `component` (and `host`, for a daemon of a node) as their source. The
    /// writing task ends with `tasks`.
    pub fn new(client: Client, component: &str, host: &str, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let writer = Writer { client, correlator: Correlator::new(component, host) };
        let stop = tasks.stop_token();
        tasks.spawn("events", writer.run(receiver, stop));
        Self { queue: Some(sender), dropped: Arc::default() }
    }

    /// A recorder that says nothing, for tests.
    pub fn silent() -> Self {
        Self { queue: None, dropped: Arc::default() }
    }

    /// Says `reason: message` about an object. Never blocks.
    pub fn event(&self, about: &ObjectReference, type_: EventType, reason: &str, message: impl Into<String>) {
        let message = message.into();
        tracing::debug!(
            kind = about.kind,
            namespace = about.namespace,
            name = about.name,
            reason,
            message,
            "event"
        );
        let Some(queue) = &self.queue else { return };
        let said =
            Said { about: about.clone(), type_, reason: reason.to_owned(), message, at: Timestamp::now() };
        if queue.try_send(said).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "events dropped: the queue is full");
            }
        }
    }

    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Normal, reason, message);
    }

    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Warning, reason, message);
    }
}

/// What to write for one thing said.
#[derive(Debug, PartialEq)]
enum Write {
    Create { namespace: String, body: Value },
    Patch { namespace: String, name: String, body: Value, create: Value },
    Nothing,
}

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

/// The pure part: remembers what was written and decides what one more event means.
struct Correlator {
    component: String,
    host: String,
    written: HashMap<String, Written>,
    similar: HashMap<String, Similar>,
    sources: HashMap<String, (f64, Timestamp)>,
}

/// Makes room for one more: over the limit, everything is forgotten, which costs a duplicate at most.
fn bound<V>(map: &mut HashMap<String, V>) {
    if map.len() >= REMEMBERED_MAX {
        map.clear();
    }
}

impl Correlator {
    fn new(component: &str, host: &str) -> Self {
        Self {
            component: component.to_owned(),
            host: host.to_owned(),
            written: HashMap::new(),
            similar: HashMap::new(),
            sources: HashMap::new(),
        }
    }

    fn observe(&mut self, said: &Said) -> Write {
        let a = &said.about;
        let part = |s: &Option<String>| s.clone().unwrap_or_default();
        let object = [&a.kind, &a.namespace, &a.name, &a.uid, &a.api_version].map(part).join("\u{1}");
        let kind_of =
            format!("{object}\u{1}{}\u{1}{}\u{1}{}", said.type_.text(), said.reason, part(&a.field_path));
        let (message, key) = self.aggregate(said, &kind_of);
        let known = self.written.get(&key).cloned();
        let count = known.as_ref().map_or(1, |w| w.count + 1);
        let first = known.as_ref().map_or(said.at, |w| w.first);
        let namespace = part(&a.namespace);
        let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
        let name = known
            .as_ref()
            .map_or_else(|| format!("{}.{:x}", part(&a.name), said.at.as_nanosecond()), |w| w.name.clone());
        bound(&mut self.written);
        self.written.insert(key, Written { name: name.clone(), count, first });
        if !self.may_say(&format!("{object}\u{1}{}", said.type_.text()), said.at) {
            return Write::Nothing;
        }
        let create = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "name": name, "namespace": namespace },
            "involvedObject": a,
            "reason": said.reason,
            "message": message,
            "source": self.source(),
            "firstTimestamp": Time(first),
            "lastTimestamp": Time(said.at),
            "count": count,
            "type": said.type_.text(),
            "reportingComponent": self.component,
            "reportingInstance": self.host,
        });
        if known.is_none() {
            return Write::Create { namespace, body: create };
        }
        let body = json!({ "count": count, "lastTimestamp": Time(said.at), "message": message });
        Write::Patch { namespace, name, body, create }
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
        similar.messages.insert(said.message.clone());
        if similar.messages.len() < AGGREGATE_AFTER {
            return (said.message.clone(), format!("{kind_of}\u{1}{}", said.message));
        }
        // Any one of them will do; without this the set would grow with every new message.
        if let Some(any) = similar.messages.iter().find(|m| **m != said.message).cloned() {
            similar.messages.remove(&any);
        }
        (format!("(combined from similar events): {}", said.message), kind_of.to_owned())
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

struct Writer {
    client: Client,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Said>, stop: crate::shutdown::CancellationToken) {
        loop {
            let said = tokio::select! {
                () = stop.cancelled() => return,
                said = receiver.recv() => said,
            };
            let Some(said) = said else { return };
            let write = self.correlator.observe(&said);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.write(write) => {}
            }
        }
    }

    async fn write(&self, write: Write) {
        for attempt in 0..WRITE_ATTEMPTS {
            let result = match &write {
                Write::Nothing => return,
                Write::Create { namespace, body } => self.create(namespace, body).await,
                Write::Patch { namespace, name, body, create } => {
                    match self.patch(namespace, name, body).await {
                        // It expired meanwhile.
                        Err(kube::Error::Api(status)) if status.code == 404 => {
                            let mut create = create.clone();
                            create["count"] = json!(1);
                            self.create(namespace, &create).await
                        }
                        other => other,
                    }
                }
            };
            match result {
                Ok(()) => return,
                // The server understood and refused (a namespace on its way out, no permission): final.
                Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                    tracing::debug!(error = %status.message, "event not written");
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, attempt, "event not written; trying again");
                    let pause = std::time::Duration::from_secs(1 << attempt);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn create(&self, namespace: &str, body: &Value) -> kube::Result<()> {
        let uri = format!("/api/v1/namespaces/{namespace}/events");
        self.send(http::Method::POST, &uri, "application/json", body).await
    }

    async fn patch(&self, namespace: &str, name: &str, body: &Value) -> kube::Result<()> {
        let uri = format!("/api/v1/namespaces/{namespace}/events/{name}");
        self.send(http::Method::PATCH, &uri, "application/merge-patch+json", body).await
    }

    async fn send(&self, method: http::Method, uri: &str, mime: &str, body: &Value) -> kube::Result<()> {
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, mime)
            .body(body.to_string().into_bytes())
            .map_err(kube::Error::HttpError)?;
        self.client.request::<Value>(request).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str, second: i64) -> Said {
        Said {
            about: ObjectReference {
                kind: Some("Pod".into()),
                namespace: Some("n".into()),
                name: Some("p".into()),
                uid: Some("u".into()),
                ..Default::default()
            },
            type_: EventType::Normal,
            reason: "Pulled".into(),
            message: message.into(),
            at: Timestamp::from_second(second).expect("timestamp"),
        }
    }

    #[test]
    fn the_same_again_raises_the_count() {
        let mut c = Correlator::new("kubelet", "node");
        let Write::Create { namespace, body } = c.observe(&said("a", 100)) else { panic!("create") };
        assert_eq!((namespace.as_str(), body["count"].as_i64()), ("n", Some(1)));
        assert_eq!(body["source"]["host"], "node");
        let Write::Patch { name, body: patch, .. } = c.observe(&said("a", 101)) else { panic!("patch") };
        assert_eq!(name, body["metadata"]["name"]);
        assert_eq!(patch["count"], 2);
    }

    #[test]
    fn similar_ones_are_combined() {
        let mut c = Correlator::new("kubelet", "");
        for i in 0..9 {
            assert!(matches!(c.observe(&said(&i.to_string(), 100)), Write::Create { .. }));
        }
        let Write::Create { body, .. } = c.observe(&said("9", 100)) else { panic!("create") };
        assert_eq!(body["message"], "(combined from similar events): 9");
        let Write::Patch { body, .. } = c.observe(&said("10", 100)) else { panic!("patch") };
        assert_eq!(
            (body["message"].as_str(), body["count"].as_i64()),
            (Some("(combined from similar events): 10"), Some(2))
        );
    }

    #[test]
    fn a_source_that_says_too_much_is_cut_off() {
        let mut c = Correlator::new("kubelet", "");
        for _ in 0..25 {
            assert_ne!(c.observe(&said("a", 100)), Write::Nothing);
        }
        assert_eq!(c.observe(&said("a", 101)), Write::Nothing);
        assert_ne!(c.observe(&said("a", 500)), Write::Nothing);
    }
}
