//! What `healthz`, `livez` and `readyz` ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::shutdown::CancellationToken;

use crate::authorization::Followers;
use crate::bootstrap;
use crate::resources::Registry;
use crate::server::health::{Check, Checks};
use crate::storage::Store;

/// What health is read from.
pub(super) struct HealthSources {
    pub store: Arc<dyn Store>,
    pub registry: Arc<Registry>,
    pub followers: Followers,
    pub progress: bootstrap::Progress,
    pub custom_synced: Arc<AtomicBool>,
    pub going: CancellationToken,
}

impl HealthSources {
    /// The checks of `healthz`, `livez` or `readyz`.
    pub(super) fn of(&self, endpoint: &str) -> Option<Checks> {
        if !matches!(endpoint, "healthz" | "livez" | "readyz") {
            return None;
        }
        let store = Arc::clone(&self.store);
        let etcd = move || {
            let store = Arc::clone(&store);
            async move { store.healthy().await.map_err(|error| error.to_string()) }
        };
        let mut checks = vec![Check::ping(), Check::immediate("log", || Ok(()))];
        checks.push(Check::new("etcd", etcd.clone()));
        if endpoint == "readyz" {
            checks.push(Check::new("etcd-readiness", etcd));
            let (registry, followers) = (Arc::clone(&self.registry), self.followers.clone());
            checks.push(Check::immediate("informer-sync", move || {
                let waiting: Vec<String> = registry
                    .iter()
                    .filter(|(_, store)| !store.synced())
                    .map(|(id, _)| common::status::qualified(&id.group, &id.resource))
                    .collect();
                match (waiting.is_empty(), followers.synced()) {
                    (true, true) => Ok(()),
                    (true, false) => Err("authorization indexes are not synced".to_owned()),
                    (false, _) => Err(format!("not synced: {}", waiting.join(", "))),
                }
            }));
        }
        if endpoint == "readyz" {
            let synced = Arc::clone(&self.custom_synced);
            checks.push(Check::immediate("poststarthook/crd-informer-synced", move || {
                if synced.load(Ordering::Acquire) { Ok(()) } else { Err("not finished".to_owned()) }
            }));
        }
        for (name, done) in self.progress.steps() {
            checks.push(Check::immediate(name, move || {
                if done.load(Ordering::Acquire) { Ok(()) } else { Err("not finished".to_owned()) }
            }));
        }
        if endpoint == "readyz" {
            let going = self.going.clone();
            checks.push(Check::immediate("shutdown", move || {
                if going.is_cancelled() { Err("process is shutting down".to_owned()) } else { Ok(()) }
            }));
        }
        Some(Checks::new(checks))
    }
}
