//! Fan-out of committed writes to the watchers of each prefix, shared by all stores.
//!
//! A store publishes every write once, in revision order. The hub hands it to the subscribers whose prefix it
//! has, and remembers per prefix the newest write handed out, so that a quiet prefix can be known to be
//! complete up to the store's revision without a message per write. A subscriber that does not drain its
//! queue is cut off: its stream ends with an error and it lists again.

use std::collections::HashMap;

use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::{EventStream, Observed, Revision, StoreError, StoreEvent};

/// Events one subscriber may be behind before it is cut off.
pub(crate) const SUBSCRIBER_QUEUE_EVENTS: usize = 16 * 1024;

/// See the module.
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    through: watch::Sender<Revision>,
}

struct Inner {
    through: Revision,
    prefixes: HashMap<String, Prefix>,
}

struct Prefix {
    newest: Revision,
    subscribers: Vec<mpsc::Sender<Result<StoreEvent, StoreError>>>,
}

/// A place in the fan-out: everything after `since` arrives at `events`.
pub(crate) struct Subscription {
    pub(crate) since: Revision,
    pub(crate) events: mpsc::Receiver<Result<StoreEvent, StoreError>>,
}

impl Hub {
    pub(crate) fn new(through: Revision) -> Self {
        Self {
            inner: Mutex::new(Inner { through, prefixes: HashMap::new() }),
            through: watch::Sender::new(through),
        }
    }

    /// Hands out `events`, which are all writes after the last published revision up to `through`.
    pub(crate) fn publish(&self, events: &[StoreEvent], through: Revision) {
        let mut inner = self.inner.lock();
        inner.through = inner.through.max(through);
        for event in events {
            let Some((key, revision)) = subject(event) else { continue };
            // A write costs by the depth of its key, not by how many prefixes are watched.
            for (at, _) in key.match_indices('/') {
                let prefix = &key[..=at];
                let Some(entry) = inner.prefixes.get_mut(prefix) else { continue };
                entry.newest = entry.newest.max(revision);
                entry.subscribers.retain(|s| s.try_send(Ok(event.clone())).is_ok());
                if entry.subscribers.is_empty() {
                    inner.prefixes.remove(prefix);
                }
            }
        }
        let reached = inner.through;
        drop(inner);
        self.through.send_replace(reached);
    }

    /// Ends every subscription: what they follow cannot be continued.
    pub(crate) fn fail_all(&self, error: &StoreError) {
        let mut inner = self.inner.lock();
        for (_, prefix) in inner.prefixes.drain() {
            for subscriber in prefix.subscribers {
                // A full queue ends without the reason; the consumer lists again either way.
                let _ = subscriber.try_send(Err(error.clone()));
            }
        }
    }

    /// Moves on without events, after [`Self::fail_all`].
    pub(crate) fn reset(&self, through: Revision) {
        self.inner.lock().through = through;
        self.through.send_replace(through);
    }

    /// `prefix` ends with a slash.
    pub(crate) fn subscribe(&self, prefix: &str) -> Subscription {
        debug_assert!(prefix.ends_with('/'), "{prefix}");
        let (sender, events) = mpsc::channel(SUBSCRIBER_QUEUE_EVENTS);
        let mut inner = self.inner.lock();
        let since = inner.through;
        let entry = inner
            .prefixes
            .entry(prefix.to_owned())
            .or_insert_with(|| Prefix { newest: since, subscribers: Vec::new() });
        entry.subscribers.push(sender);
        Subscription { since, events }
    }

    pub(crate) fn through(&self) -> Revision {
        self.inner.lock().through
    }

    /// The newest write handed out under exactly this prefix, when somebody is subscribed to it.
    pub(crate) fn newest(&self, prefix: &str) -> Option<Revision> {
        self.inner.lock().prefixes.get(prefix).map(|entry| entry.newest)
    }

    /// Waits for `at_least`; `None` when nobody is subscribed to exactly this prefix.
    pub(crate) async fn observe(&self, prefix: &str, at_least: Revision) -> Option<Observed> {
        loop {
            {
                let inner = self.inner.lock();
                let entry = inner.prefixes.get(prefix)?;
                if inner.through >= at_least {
                    return Some(Observed { through: inner.through, newest: entry.newest });
                }
            }
            let mut reached = self.through.subscribe();
            reached.wait_for(|r| *r >= at_least).await.ok()?;
        }
    }
}

impl Subscription {
    /// The stream of a watch after `after`: first `replay` (writes in `(after, since]`, in order), then a
    /// Progress at `since`, then what the hub hands out.
    pub(crate) fn into_stream(self, after: Revision, replay: Vec<StoreEvent>) -> EventStream {
        let since = self.since;
        let caught_up = (since > after).then_some(StoreEvent::Progress(since));
        let head = futures::stream::iter(replay.into_iter().chain(caught_up).map(Ok));
        let live = futures::stream::unfold(Some(self.events), |events| async move {
            let mut events = events?;
            match events.recv().await {
                Some(Ok(event)) => Some((Ok(event), Some(events))),
                Some(Err(error)) => Some((Err(error), None)),
                None => Some((Err(StoreError::Unavailable("watcher was cut off".into())), None)),
            }
        })
        .filter(move |item| {
            let wanted = match item {
                Ok(event) => subject(event).is_none_or(|(_, revision)| revision > after),
                Err(_) => true,
            };
            std::future::ready(wanted)
        });
        Box::pin(head.chain(live))
    }
}

/// The key and revision of a write.
pub(crate) fn subject(event: &StoreEvent) -> Option<(&str, Revision)> {
    match event {
        StoreEvent::Put { kv, .. } => Some((&kv.key, kv.mod_revision)),
        StoreEvent::Delete { key, revision, .. } => Some((key, *revision)),
        StoreEvent::Progress(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::KeyValue;

    fn put(key: &str, revision: u64) -> StoreEvent {
        let kv = KeyValue { key: key.into(), value: "v".into(), mod_revision: Revision(revision) };
        StoreEvent::Put { kv, previous: None, created: true }
    }

    #[tokio::test]
    async fn a_subscriber_that_does_not_drain_is_cut_off_after_what_it_was_told() {
        let hub = Hub::new(Revision(0));
        let mut slow = hub.subscribe("/a/").into_stream(Revision(0), Vec::new());
        let sent = SUBSCRIBER_QUEUE_EVENTS as u64 + 10;
        for revision in 1..=sent {
            hub.publish(&[put("/a/x", revision)], Revision(revision));
        }
        for revision in 1..=SUBSCRIBER_QUEUE_EVENTS as u64 {
            let event = slow.next().await.expect("told").expect("no error yet");
            assert_eq!(event, put("/a/x", revision));
        }
        assert!(matches!(slow.next().await, Some(Err(StoreError::Unavailable(_)))));
        assert!(slow.next().await.is_none());
        assert_eq!(hub.observe("/a/", Revision(0)).await, None, "nobody is subscribed any more");
    }

    #[tokio::test]
    async fn a_quiet_prefix_is_complete_without_a_message() {
        let hub = Hub::new(Revision(5));
        let _quiet = hub.subscribe("/a/");
        hub.publish(&[put("/a/x", 6), put("/b/x", 7)], Revision(7));
        let (through, newest) = (Revision(7), Revision(6));
        assert_eq!(hub.observe("/a/", Revision(7)).await, Some(Observed { through, newest }));
        assert_eq!(hub.newest("/a/"), Some(newest));
        assert_eq!(hub.newest("/b/"), None);
    }
}
