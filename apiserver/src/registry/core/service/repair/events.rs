//! Tells in events what was found wrong, as upstream's `ipallocator-repair-controller` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::object::{self, Object};
use crate::resources::{GroupResource, Registry};

const CONTROLLER: &str = "ipallocator-repair-controller";
/// How long the same is not said again.
const SILENCE: Duration = Duration::from_secs(3600);
/// How many things that were said are remembered.
const SAID_MAX: usize = 1000;

/// See the module.
pub struct Recorder {
    registry: Arc<Registry>,
    ttl_seconds: u64,
    said: Mutex<BTreeMap<String, Instant>>,
}

impl Recorder {
    pub fn new(registry: Arc<Registry>, ttl_seconds: u64) -> Self {
        Self { registry, ttl_seconds, said: Mutex::default() }
    }

    /// True the first time in a while.
    fn is_news(&self, uid: &str, note: &str) -> bool {
        let now = Instant::now();
        let mut said = self.said.lock();
        said.retain(|_, when| now.duration_since(*when) < SILENCE);
        if said.len() >= SAID_MAX {
            return false;
        }
        said.insert(format!("{uid} {note}"), now).is_none()
    }

    /// A warning about an object. That it cannot be written is no reason to stop.
    pub async fn warn(&self, regarding: &Object, reason: &str, action: &str, note: &str) {
        let uid = object::str_at(regarding, &["metadata", "uid"]);
        let (namespace, name) = (object::namespace(regarding), object::name(regarding));
        let Some(events) = self.registry.get(&GroupResource::new("", "events")) else { return };
        if !self.is_news(uid, note) {
            return;
        }
        let now = Timestamp::now();
        // An IPv6 address is no name of an event.
        let stem = if common::labels::is_dns1123_subdomain(name) { name } else { uid };
        let within = if namespace.is_empty() { "default" } else { namespace };
        let event = json!({
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {
                "name": format!("{stem}.{:x}", now.as_nanosecond()),
                "namespace": within,
                "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            },
            "involvedObject": {
                "kind": object::str_at(regarding, &["kind"]),
                "apiVersion": object::str_at(regarding, &["apiVersion"]),
                "namespace": namespace,
                "name": name,
                "uid": uid,
                "resourceVersion": object::resource_version(regarding),
            },
            "reason": reason,
            "message": note,
            "type": "Warning",
            "action": action,
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            "reportingComponent": CONTROLLER,
            "reportingInstance": format!("{CONTROLLER}-{}", std::process::id()),
            "source": {},
            "firstTimestamp": null,
            "lastTimestamp": null,
        });
        if let Err(status) = events.create(&event, Some(self.ttl_seconds)).await {
            tracing::debug!(%status, reason, "writing an event");
        }
    }
}
