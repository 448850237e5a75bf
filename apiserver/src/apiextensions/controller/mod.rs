//! Follows the definitions: decides names and conditions, serves what is accepted, removes the instances of what
//! is deleted.
//!
//! One task owns the state: events in, one pass over all that they touched, then one new table, and only then the
//! status of each, in one write: whoever reads Established finds the resource served. Every server of a cluster
//! runs it; a status is written only to the state that it was decided of, so that they agree.
//!
//! Upstream: `pkg/controller/{status,establish,apiapproval,finalizer}`, `apiserver/customresource_handler.go`.

mod cleanup;
mod conditions;
mod known;
mod names;
mod served;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use common::shutdown::{CancellationToken, Tasks};
use common::status::Status;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::definition;
use crate::cacher::{
    CacheMetrics, CachedObject, Decision, ObjectStore, Preconditions, Update, WatchEvent, WatchQuery,
    WatchReceiver,
};
use crate::object::{Object, str_at};
use crate::resources::Tables;
use crate::resources::schema::Schema;
use crate::storage::Store;
use known::Definitions;
use names::{Names, Used};
use served::Served;

/// How long to wait before a watch that broke is opened again.
const RETRY: Duration = Duration::from_millis(200);
/// How long to wait before a status that could not be written is decided again.
const RETRY_WRITE: Duration = Duration::from_secs(1);
/// Statuses written at once. The store commits together what waits together.
const WRITES_MAX: usize = 64;
/// Finished clean-ups waiting to be told.
const CLEANED_MAX: usize = 64;

/// What the controller works with.
pub struct Controller {
    /// The definitions.
    pub definitions: Arc<dyn ObjectStore>,
    pub tables: Arc<Tables>,
    /// Where instances are kept, below `prefix` (`/registry`).
    pub store: Arc<dyn Store>,
    pub prefix: String,
    pub schema: Arc<Schema>,
    pub metrics: Arc<CacheMetrics>,
    pub tasks: Tasks,
}

impl Controller {
    /// Follows until the tasks stop. The flag is set once everything that was defined at the start is served.
    pub fn start(self) -> Arc<AtomicBool> {
        let synced = Arc::new(AtomicBool::new(false));
        let (tasks, stop) = (self.tasks.clone(), self.tasks.stop_token());
        let (cleaned, done) = mpsc::channel(CLEANED_MAX);
        let mut state = State {
            served: Served::new(&self),
            controller: self,
            known: Definitions::default(),
            touched: BTreeSet::new(),
            cleaning: HashMap::new(),
            cleaned,
            synced: synced.clone(),
        };
        tasks.spawn_essential("customresourcedefinitions", async move {
            stop.run_until_cancelled(state.follow(done)).await;
        });
        synced
    }
}

struct State {
    controller: Controller,
    known: Definitions,
    /// Those to look at in the next pass.
    touched: BTreeSet<String>,
    served: Served,
    /// Definitions whose instances are being removed; the token says that the definition is gone.
    cleaning: HashMap<String, CancellationToken>,
    cleaned: mpsc::Sender<String>,
    synced: Arc<AtomicBool>,
}

/// What a pass made of a definition.
struct Decided {
    /// What it was made of.
    of: Arc<CachedObject>,
    tree: Object,
}

impl State {
    async fn follow(&mut self, mut done: mpsc::Receiver<String>) {
        loop {
            let query = WatchQuery { bookmarks: true, send_initial_events: true, ..Default::default() };
            if let Ok(mut events) = self.controller.definitions.watch(query).await {
                self.watch(&mut events, &mut done).await;
                tracing::debug!("watch of the definitions ended; starting again");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn watch(&mut self, events: &mut WatchReceiver, done: &mut mpsc::Receiver<String>) {
        // Names seen in the initial state; what is known beside them is gone.
        let mut initial = Some(BTreeSet::new());
        loop {
            tokio::select! {
                biased;
                event = events.recv() => {
                    let mut next = event;
                    if next.is_none() {
                        return;
                    }
                    while let Some(event) = next.take() {
                        if !self.take_in(event, &mut initial) {
                            return;
                        }
                        next = events.try_recv().ok();
                    }
                }
                name = done.recv() => {
                    let Some(name) = name else { return };
                    self.cleaning.remove(&name);
                    self.touched.insert(name);
                }
                () = tokio::time::sleep(RETRY_WRITE), if !self.touched.is_empty() => {}
            }
            // A name in the middle of the first state may conflict with one that is still to come.
            if initial.is_none() {
                self.reconcile().await;
                self.synced.store(true, Ordering::Release);
            }
        }
    }

    fn take_in(&mut self, event: WatchEvent, initial: &mut Option<BTreeSet<String>>) -> bool {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                if let Some(seen) = initial {
                    seen.insert(object.name.clone());
                }
                let known = self.known.get(&object.name).map(|known| &known.object);
                if known.is_some_and(|known| known.uid != object.uid) {
                    self.forget(&object.name);
                } else if known.is_some_and(|known| known.revision >= object.revision) {
                    // What was written here was dealt with then.
                    return true;
                }
                self.touched.insert(object.name.clone());
                self.known.put(Arc::clone(&object));
            }
            WatchEvent::Deleted(object) => {
                self.forget(&object.name);
            }
            WatchEvent::Bookmark { initial_events_end: true, .. } => {
                if let Some(seen) = initial.take() {
                    let gone: Vec<String> =
                        self.known.names().filter(|name| !seen.contains(*name)).cloned().collect();
                    for name in gone {
                        self.forget(&name);
                    }
                }
            }
            WatchEvent::Bookmark { .. } => {}
            WatchEvent::Error(_) => return false,
        }
        true
    }

    /// A definition is gone: its names are free for those of its group that wait for one.
    fn forget(&mut self, name: &str) {
        self.known.remove(name);
        self.served.remove(name);
        if let Some(gone) = self.cleaning.get(name) {
            gone.cancel();
        }
        self.touched.extend(self.known.waiting(name));
    }

    /// One pass: decides, serves, then says so.
    async fn reconcile(&mut self) {
        let mut decided = BTreeMap::new();
        let mut names = self.take_touched();
        while let Some(name) = names.pop_front() {
            let Some(known) = self.known.get(&name) else { continue };
            let (of, mut tree) = (known.object.clone(), known.object.tree());
            let used = Used::new(self.known.siblings(&name).map(|(_, known)| &known.names));
            let changed = conditions::decide(&mut tree, &used);
            self.served.put(&name, &of, &tree);
            self.clean_up(&name, &tree);
            if changed {
                names.extend(self.rename(&name, Names::decided(&tree)));
                decided.insert(name, Decided { of, tree });
            } else {
                decided.remove(&name);
            }
        }
        if self.served.take_changed() {
            let defs = self.served.definitions(&self.controller.tables.load());
            self.controller.tables.replace_custom(defs);
        }
        self.write(decided.into_values()).await;
    }

    /// Who came first gets a name first.
    fn take_touched(&mut self) -> VecDeque<String> {
        let mut names: Vec<String> = std::mem::take(&mut self.touched).into_iter().collect();
        names.sort_by_key(|name| self.known.get(name).map(|known| known.object.revision));
        names.into()
    }

    /// Returns who may get a name that is given up.
    fn rename(&mut self, name: &str, new: Names) -> Vec<String> {
        let Some(known) = self.known.get_mut(name).filter(|known| known.names != new) else {
            return Vec::new();
        };
        known.names = new;
        self.known.waiting(name)
    }

    async fn write(&mut self, decided: impl Iterator<Item = Decided>) {
        let definitions = self.controller.definitions.clone();
        let writes = decided.map(|Decided { of, tree }| {
            let definitions = definitions.clone();
            async move {
                let unchanged = Preconditions {
                    uid: Some(of.uid.clone()),
                    resource_version: Some(of.revision.to_string()),
                };
                let written = update(&*definitions, &of.name, &unchanged, |crd| *crd = tree.clone()).await;
                (of, written)
            }
        });
        let mut writes = futures::stream::iter(writes).buffer_unordered(WRITES_MAX);
        while let Some((of, written)) = writes.next().await {
            self.written(&of.name, written);
        }
    }

    fn written(&mut self, name: &str, written: Result<Arc<CachedObject>, Status>) {
        match written {
            Ok(object) => {
                self.served.refresh(name, &object);
                self.known.put(object);
            }
            // It changed since: the event that says so brings it back.
            Err(status) if matches!(status.code, 404 | 409) => {}
            Err(status) => {
                self.touched.insert(name.to_owned());
                tracing::warn!(name, error = %status, "status of a definition cannot be written");
            }
        }
    }

    fn clean_up(&mut self, name: &str, crd: &Object) {
        let deleting = !str_at(crd, &["metadata", "deletionTimestamp"]).is_empty();
        if !deleting || !definition::has_finalizer(crd) || self.cleaning.contains_key(name) {
            return;
        }
        let gone = CancellationToken::new();
        self.cleaning.insert(name.to_owned(), gone.clone());
        let job = cleanup::Job {
            definitions: self.controller.definitions.clone(),
            instances: self.served.store(name),
            name: name.to_owned(),
            uid: crate::object::uid(crd).to_owned(),
            gone,
            group: str_at(crd, &["spec", "group"]).to_owned(),
            resource: str_at(crd, &["spec", "names", "plural"]).to_owned(),
            established: definition::says(crd, "Established"),
        };
        let (cleaned, stop) = (self.cleaned.clone(), self.controller.tasks.stop_token());
        let name = name.to_owned();
        self.controller.tasks.spawn(format!("clean up {name}"), async move {
            stop.run_until_cancelled(job.run()).await;
            // Fails only when the controller is gone too.
            let _ = cleaned.send(name).await;
        });
    }
}

/// A conditional write of a definition by a function of its present state.
async fn update(
    store: &dyn ObjectStore,
    name: &str,
    preconditions: &Preconditions,
    change: impl Fn(&mut Object) + Send + Sync,
) -> Result<Arc<CachedObject>, Status> {
    struct Change<F>(F);

    #[async_trait]
    impl<F: Fn(&mut Object) + Send + Sync> Update for Change<F> {
        async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status> {
            let mut object = current.ok_or_else(|| Status::internal("the definition does not exist"))?;
            (self.0)(&mut object);
            let deleting = !str_at(&object, &["metadata", "deletionTimestamp"]).is_empty();
            let held = object
                .pointer("/metadata/finalizers")
                .and_then(|f| f.as_array())
                .is_some_and(|f| !f.is_empty());
            if deleting && !held {
                return Ok(Decision::Delete);
            }
            Ok(Decision::Write { object, ttl_seconds: None })
        }
    }

    let mut change = Change(change);
    let (object, _) = store.guaranteed_update("", name, preconditions, false, &mut change).await?;
    Ok(object)
}
