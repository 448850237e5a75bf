//! One cache: what it is configured with, its lock and its signals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::shutdown::{CancellationToken, Tasks};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::errors::About;
use super::metrics::{CacheMetrics, Figures};
use super::state::State;
use super::{CachedObject, StoredForm, reflect};
use crate::object::Object;
use crate::storage::{Revision, Store, StoreError};

/// How long a read waits for the cache to reach a revision.
pub(super) const FRESHNESS_TIMEOUT: Duration = Duration::from_secs(3);
/// The same for a consistent read when the store cannot say on demand how far its watch is complete: the store
/// answers itself then.
const UNPROVEN_TIMEOUT: Duration = Duration::from_millis(250);
/// Objects just written by this process that the store's watch has not brought back yet.
const OWN_WRITES_MAX: usize = 1024;

/// What one cache is about.
#[derive(Clone)]
pub struct CacherConfig {
    pub store: Arc<dyn Store>,
    /// `/registry/pods/`, with the slash.
    pub prefix: String,
    pub group: String,
    /// Plural.
    pub resource: String,
    pub kind: String,
    pub namespaced: bool,
    /// As in [`crate::resources::ResourceDef`].
    pub selectable_fields: fn(&Object) -> Vec<(&'static str, String)>,
    pub selectable_field_names: &'static [&'static str],
    /// How a custom resource is read; `None` for built-in kinds, whose stored bytes are served as they are.
    pub custom: Option<Arc<dyn StoredForm>>,
    pub metrics: Arc<CacheMetrics>,
}

/// The watch cache of one stored resource. See [`crate::cacher::ObjectStore`] for what it does.
pub struct Cacher {
    pub(super) config: CacherConfig,
    pub(super) state: RwLock<State>,
    pub(super) figures: Figures,
    /// The revision reached; 0 until the first state is complete.
    pub(super) reached: watch::Sender<Revision>,
    own_writes: Mutex<BTreeMap<Revision, Arc<CachedObject>>>,
    /// A watcher came whose bookmark is due before all others.
    pub(super) due_changed: Notify,
    stop: CancellationToken,
}

impl Cacher {
    /// Begins to follow the store. Reads wait (bounded) until the first state is complete.
    pub fn start(config: CacherConfig, tasks: &Tasks) -> Arc<Self> {
        let stop = tasks.stop_token().child_token();
        let name = format!("cacher {}", common::status::qualified(&config.group, &config.resource));
        let state = RwLock::new(State::empty(config.selectable_field_names));
        let figures = Figures::new(config.metrics.clone(), &config.group, &config.resource);
        let cacher = Arc::new(Self {
            config,
            state,
            figures,
            reached: watch::Sender::new(Revision(0)),
            own_writes: Mutex::default(),
            due_changed: Notify::new(),
            stop: stop.clone(),
        });
        let follower = cacher.clone();
        tasks.spawn(name, async move {
            stop.run_until_cancelled(reflect::follow(&follower)).await;
            follower.state.write().watchers.close_all();
        });
        cacher
    }

    /// Stops following and ends all watches: the resource is served no longer.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// How many objects are cached, for metrics.
    pub fn object_count(&self) -> usize {
        self.state.read().len()
    }

    /// How many watches are open, for metrics.
    pub fn watcher_count(&self) -> usize {
        self.state.read().watchers.len()
    }

    pub(super) fn key(&self, namespace: &str, name: &str) -> String {
        format!("{}{name}", self.namespace_prefix(namespace))
    }

    /// What all keys of a namespace (empty: of all) begin with.
    pub(super) fn namespace_prefix(&self, namespace: &str) -> String {
        if self.config.namespaced && !namespace.is_empty() {
            format!("{}{namespace}/", self.config.prefix)
        } else {
            self.config.prefix.clone()
        }
    }

    pub(super) fn about<'a>(&'a self, operation: &'a str, name: &'a str) -> About<'a> {
        About { group: &self.config.group, resource: &self.config.resource, name, operation }
    }

    /// Remembers an object that this process wrote, so that its event needs no decoding.
    pub(super) fn remember_own_write(&self, object: &Arc<CachedObject>) {
        let reached = *self.reached.borrow();
        if reached >= object.revision {
            return;
        }
        let mut own = self.own_writes.lock();
        if own.len() < OWN_WRITES_MAX {
            own.insert(object.revision, object.clone());
        }
    }

    /// Takes back an own write at exactly this revision, and forgets older ones.
    pub(super) fn take_own_write(&self, revision: Revision) -> Option<Arc<CachedObject>> {
        let mut own = self.own_writes.lock();
        while own.first_key_value().is_some_and(|(oldest, _)| *oldest < revision) {
            own.pop_first();
        }
        own.remove(&revision)
    }

    /// Own writes belong to a past that the store no longer has.
    pub(super) fn forget_own_writes(&self) {
        self.own_writes.lock().clear();
    }

    /// Waits until the cache is at `revision` or later.
    ///
    /// A quiet resource's cache learns from the store how far it is complete.
    pub(super) async fn wait_for(&self, revision: Revision) {
        let arrived = async {
            // Fails only when the sender is gone, and `self` holds it.
            let _ = self.reached.subscribe().wait_for(|r| *r >= revision && r.0 > 0).await;
        };
        tokio::select! {
            biased;
            () = arrived => {}
            () = self.observe(revision) => {}
        }
    }

    /// Lets the cache say the store's revision once it has processed all there is for its prefix.
    async fn observe(&self, revision: Revision) {
        let mut changes = self.reached.subscribe();
        let observed = loop {
            match self.config.store.observe(&self.config.prefix, revision).await {
                Some(observed) => break observed,
                // The cache is not subscribed right now, or the store never tells.
                None => {
                    let _ = changes.changed().await;
                }
            }
        };
        let _ = self.reached.subscribe().wait_for(|r| *r >= observed.newest && r.0 > 0).await;
        self.advance(observed.through);
    }

    /// Nothing of this resource happened up to `revision` beyond what the cache has.
    pub(super) fn advance(&self, revision: Revision) {
        if *self.reached.borrow() >= revision {
            return;
        }
        self.state.write().advance(revision);
        self.announce();
    }

    /// Wakes those who wait for a revision. Must not be called with the state's lock held.
    pub(super) fn announce(&self) {
        self.reached.send_if_modified(|reached| {
            let state = self.state.read();
            let revision = if state.synced { state.revision } else { Revision(0) };
            let changed = *reached != revision;
            if changed {
                self.figures.reached(revision);
            }
            *reached = revision;
            changed
        });
    }

    /// The cache is at `revision` within the usual patience; false when it is not.
    pub(super) async fn fresh(&self, revision: Revision) -> bool {
        self.within(FRESHNESS_TIMEOUT, revision).await
    }

    async fn within(&self, patience: Duration, revision: Revision) -> bool {
        *self.reached.borrow() >= revision
            || tokio::time::timeout(patience, self.wait_for(revision)).await.is_ok()
    }

    /// The first state is there within the usual patience.
    pub(super) async fn ready(&self) -> bool {
        self.fresh(Revision(1)).await
    }

    /// Brings the cache to the store's newest revision. `Ok(None)` when it did not get there in time.
    pub(super) async fn consistent(&self) -> Result<Option<Revision>, StoreError> {
        let store = &self.config.store;
        let newest = store.current_revision().await?;
        let patience = if store.proves_progress() { FRESHNESS_TIMEOUT } else { UNPROVEN_TIMEOUT };
        let begun = Instant::now();
        let fresh = self.within(patience, newest).await;
        self.figures.waited(begun);
        self.figures.read_consistently(fresh);
        Ok(fresh.then_some(newest))
    }
}
