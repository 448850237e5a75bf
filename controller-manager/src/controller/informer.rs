//! One watch per kind for the whole daemon: a store that every controller reads, and handlers that turn a
//! change into keys.
//!
//! Handlers are registered while the controllers are built; [`Informers::start`] then opens the watches. A
//! kind that no controller asked for is never watched. kube's own reflector store is not used because the
//! handlers need the object as it was before a change and the readers need indexes.

use std::any::{Any, TypeId};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::shutdown::{CancellationToken, Tasks};
use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Key, Store, View};

/// What happened to an object, with its former state where it had one.
#[derive(Debug)]
pub enum Change<K> {
    Added(Arc<K>),
    Updated { old: Arc<K>, new: Arc<K> },
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The object as it is now, or as it was last.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(o) | Self::Deleted(o) | Self::Updated { new: o, .. } => o,
        }
    }

    /// The object as it was before, for an update.
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Self::Updated { old, .. } => Some(old),
            _ => None,
        }
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

struct Shared<K> {
    store: Store<K>,
    handlers: Mutex<Vec<Handler<K>>>,
    synced: AtomicBool,
    woken: Notify,
}

/// One kind's watch. Cheap to clone.
pub struct Informer<K>(Arc<Shared<K>>);

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: View> Informer<K> {
    /// An informer that nothing feeds yet; tests feed it through [`Informer::apply`].
    pub fn detached() -> Self {
        Self(Arc::new(Shared {
            store: Store::default(),
            handlers: Mutex::default(),
            synced: AtomicBool::new(false),
            woken: Notify::new(),
        }))
    }

    pub fn store(&self) -> &Store<K> {
        &self.0.store
    }

    /// Calls `handler` on every change, in order, from the watch's task: it must not block.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.0.handlers.lock().push(Box::new(handler));
    }

    /// True once the first list is in the store.
    pub fn has_synced(&self) -> bool {
        self.0.synced.load(Ordering::Acquire)
    }

    /// Records an object as present.
    pub fn apply(&self, object: K) {
        let new = Arc::new(object);
        let change = match self.0.store.apply(new.clone()) {
            None => Change::Added(new),
            Some(old) if old.meta().uid != new.meta().uid => {
                // Deleted and made again while nobody looked: two changes.
                self.dispatch(&Change::Deleted(old));
                Change::Added(new)
            }
            Some(old) if old.meta().resource_version == new.meta().resource_version => return,
            Some(old) => Change::Updated { old, new },
        };
        self.dispatch(&change);
    }

    /// Records an object as gone.
    pub fn delete(&self, key: &Key) {
        if let Some(old) = self.0.store.remove(key) {
            self.dispatch(&Change::Deleted(old));
        }
    }

    fn dispatch(&self, change: &Change<K>) {
        for handler in self.0.handlers.lock().iter() {
            handler(change);
        }
    }

    pub fn mark_synced(&self) {
        self.0.synced.store(true, Ordering::Release);
        self.0.woken.notify_waiters();
    }

    /// Returns when the first list is in the store, or false when `stop` came first.
    pub async fn wait_synced(&self, stop: &CancellationToken) -> bool {
        loop {
            let woken = self.0.woken.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.has_synced() {
                return true;
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = woken => {}
            }
        }
    }

    async fn run(self, client: Client, stop: CancellationToken) {
        let kind = K::plural(&()).into_owned();
        let mut config = watcher::Config::default();
        if let Some(fields) = K::FIELDS {
            config = config.fields(fields);
        }
        let stream = watcher(Api::<K>::all(client), config).default_backoff();
        tokio::pin!(stream);
        let mut listed: BTreeSet<Key> = BTreeSet::new();
        let mut failing = false;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = stream.next() => event,
            };
            let event = match event {
                Some(Ok(event)) => event,
                Some(Err(error)) => {
                    if !failing {
                        tracing::warn!(kind, error = %chain(&error), "watch failed; retrying");
                    }
                    failing = true;
                    continue;
                }
                None => return,
            };
            if std::mem::take(&mut failing) {
                tracing::info!(kind, "watch is back");
            }
            match event {
                watcher::Event::Init => listed.clear(),
                watcher::Event::InitApply(object) => {
                    listed.insert(Key::of(&object));
                    self.apply(object);
                }
                watcher::Event::InitDone => {
                    for key in self.store().keys() {
                        if !listed.contains(&key) {
                            self.delete(&key);
                        }
                    }
                    listed = BTreeSet::new();
                    self.mark_synced();
                }
                watcher::Event::Apply(object) => self.apply(object),
                watcher::Event::Delete(object) => {
                    let key = Key::of(&object);
                    self.delete(&key);
                }
            }
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

type Starter = Box<dyn FnOnce(Client, &Tasks) + Send + Sync>;
type Waiter = Box<
    dyn Fn(CancellationToken) -> std::pin::Pin<Box<dyn std::future::Future<Output = bool> + Send>>
        + Send
        + Sync,
>;

/// The daemon's informers, one per kind that a controller asked for.
#[derive(Default)]
pub struct Informers {
    by_type: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
    starters: Vec<Starter>,
    waiters: Vec<Waiter>,
}

impl Informers {
    /// The informer of kind `K`, shared by all who ask.
    pub fn of<K: View>(&mut self) -> Informer<K> {
        if let Some(found) = self.by_type.get(&TypeId::of::<K>()) {
            return found
                .downcast_ref::<Informer<K>>()
                .expect("the map's key is the type of its value")
                .clone();
        }
        let informer = Informer::<K>::detached();
        self.by_type.insert(TypeId::of::<K>(), Box::new(informer.clone()));
        let runner = informer.clone();
        self.starters.push(Box::new(move |client, tasks| {
            let name = format!("informer/{}", K::plural(&()));
            tasks.spawn_essential(name, runner.run(client, tasks.stop_token()));
        }));
        let waiter = informer.clone();
        self.waiters.push(Box::new(move |stop| {
            let waiter = waiter.clone();
            Box::pin(async move { waiter.wait_synced(&stop).await })
        }));
        informer
    }

    /// Opens all watches.
    pub fn start(&mut self, client: &Client, tasks: &Tasks) {
        for starter in self.starters.drain(..) {
            starter(client.clone(), tasks);
        }
    }

    /// Waits until every store holds its first list; false when `stop` came first.
    pub async fn wait_synced(&self, stop: &CancellationToken) -> bool {
        for waiter in &self.waiters {
            if !waiter(stop.clone()).await {
                return false;
            }
        }
        true
    }
}
