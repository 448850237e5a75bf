//! Follows the definitions: decides names and conditions, serves what is accepted, removes the instances of what
//! is deleted.
//!
//! One task owns the state: events in, one pass over what they touched, then one new table. Every server of a
//! cluster runs it; status is written conditionally, so that they agree.
//!
//! Upstream: `pkg/controller/{status,establish,apiapproval,finalizer}`, `apiserver/customresource_handler.go`.

mod cleanup;
mod names;
mod served;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use common::shutdown::Tasks;
use common::status::Status;
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
use names::{Names, Used};
use served::Served;

/// How long to wait before a watch that broke is opened again.
const RETRY: Duration = Duration::from_millis(200);
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
            known: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            cleaning: HashSet::new(),
            cleaned,
            synced: synced.clone(),
        };
        tasks.spawn_essential("customresourcedefinitions", async move {
            stop.run_until_cancelled(state.follow(done)).await;
        });
        synced
    }
}

/// A definition.
#[derive(Clone)]
struct Known {
    object: Arc<CachedObject>,
    /// Read once: every new definition of the group is compared with them.
    names: Arc<Names>,
}

impl Known {
    fn new(object: Arc<CachedObject>) -> Self {
        Self { names: Arc::new(Names::accepted(&object)), object }
    }
}

struct State {
    controller: Controller,
    /// By name, as last seen or written.
    known: BTreeMap<String, Known>,
    /// Those whose status could not be written.
    unwritten: BTreeSet<String>,
    served: Served,
    /// Definitions whose instances are being removed.
    cleaning: HashSet<String>,
    cleaned: mpsc::Sender<String>,
    synced: Arc<AtomicBool>,
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
        let mut touched = BTreeSet::new();
        loop {
            tokio::select! {
                biased;
                event = events.recv() => {
                    let mut next = event;
                    if next.is_none() {
                        return;
                    }
                    while let Some(event) = next.take() {
                        if !self.take_in(event, &mut initial, &mut touched) {
                            return;
                        }
                        next = events.try_recv().ok();
                    }
                }
                name = done.recv() => {
                    let Some(name) = name else { return };
                    self.cleaning.remove(&name);
                    touched.insert(name);
                }
            }
            // A name in the middle of the first state may conflict with one that is still to come.
            if initial.is_none() {
                self.reconcile(std::mem::take(&mut touched)).await;
                self.synced.store(true, Ordering::Release);
            }
        }
    }

    fn take_in(
        &mut self,
        event: WatchEvent,
        initial: &mut Option<BTreeSet<String>>,
        touched: &mut BTreeSet<String>,
    ) -> bool {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                if let Some(seen) = initial {
                    seen.insert(object.name.clone());
                }
                let known = self.known.get(&object.name).map(|k| &k.object).filter(|o| o.uid == object.uid);
                let (newer, own) = known.map_or((true, false), |known| {
                    (known.revision < object.revision, known.revision == object.revision)
                });
                // What was written here was dealt with then.
                if !own || self.unwritten.contains(&object.name) {
                    touched.insert(object.name.clone());
                }
                if newer {
                    self.known.insert(object.name.clone(), Known::new(Arc::clone(&object)));
                }
            }
            WatchEvent::Deleted(object) => {
                self.forget(&object.name, touched);
            }
            WatchEvent::Bookmark { initial_events_end: true, .. } => {
                if let Some(seen) = initial.take() {
                    let gone: Vec<String> =
                        self.known.keys().filter(|name| !seen.contains(*name)).cloned().collect();
                    for name in gone {
                        self.forget(&name, touched);
                    }
                }
            }
            WatchEvent::Bookmark { .. } => {}
            WatchEvent::Error(_) => return false,
        }
        true
    }

    /// A definition is gone: its names are free, so that all others of its group are looked at again.
    fn forget(&mut self, name: &str, touched: &mut BTreeSet<String>) {
        self.known.remove(name);
        self.served.remove(name);
        touched.insert(name.to_owned());
        touched.extend(self.same_group(name));
    }

    fn same_group(&self, name: &str) -> Vec<String> {
        self.known.keys().filter(|other| group_of(other) == group_of(name)).cloned().collect()
    }

    /// What the other definitions of the group are called.
    fn used(&self, name: &str) -> Used {
        let others =
            self.known.iter().filter(|(other, _)| *other != name && group_of(other) == group_of(name));
        Used::new(others.map(|(_, known)| known.names.clone()))
    }

    async fn reconcile(&mut self, touched: BTreeSet<String>) {
        for name in touched {
            self.unwritten.remove(&name);
            self.conditions(&name).await;
            let Some(Known { object, .. }) = self.known.get(&name).cloned() else { continue };
            let tree = object.tree();
            self.served.put(&name, &object, &tree);
            self.clean_up(&name, &tree);
        }
        let defs = self.served.definitions(&self.controller.tables.load());
        self.controller.tables.replace_custom(defs);
        for name in self.served.take_ready() {
            self.establish(&name).await;
        }
    }

    /// Writes the accepted names and conditions when they change.
    async fn conditions(&mut self, name: &str) {
        let Some(Known { object, .. }) = self.known.get(name).cloned() else { return };
        let used = self.used(name);
        let mut wanted = object.tree();
        if names::decide(&mut wanted, &used) {
            self.write(name, move |crd| {
                names::decide(crd, &used);
            })
            .await;
        }
    }

    /// What is in the table is established.
    async fn establish(&mut self, name: &str) {
        self.write(name, |crd| {
            if definition::says(crd, "NamesAccepted") {
                definition::set_condition(
                    crd,
                    "Established",
                    true,
                    "InitialNamesAccepted",
                    "the initial names have been accepted",
                );
            }
        })
        .await;
        if let Some(Known { object, .. }) = self.known.get(name).cloned() {
            let tree = object.tree();
            self.served.put(name, &object, &tree);
            let defs = self.served.definitions(&self.controller.tables.load());
            self.controller.tables.replace_custom(defs);
        }
    }

    async fn write(&mut self, name: &str, change: impl Fn(&mut Object) + Send + Sync) {
        match update(&*self.controller.definitions, name, &Preconditions::default(), change).await {
            Ok(object) => {
                self.known.insert(name.to_owned(), Known::new(object));
            }
            Err(status) if status.code == 404 => {}
            // The next event brings it back here.
            Err(status) => {
                self.unwritten.insert(name.to_owned());
                tracing::warn!(name, error = %status, "status of a definition cannot be written");
            }
        }
    }

    fn clean_up(&mut self, name: &str, crd: &Object) {
        let deleting = !str_at(crd, &["metadata", "deletionTimestamp"]).is_empty();
        if !deleting || !definition::has_finalizer(crd) || !self.cleaning.insert(name.to_owned()) {
            return;
        }
        let job = cleanup::Job {
            definitions: self.controller.definitions.clone(),
            instances: self.served.store(name),
            name: name.to_owned(),
            uid: crate::object::uid(crd).to_owned(),
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

/// A definition is called after its plural name and its group.
fn group_of(name: &str) -> &str {
    name.split_once('.').map_or("", |(_, group)| group)
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
