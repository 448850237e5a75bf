//! The store of a custom resource, whose cache starts with the first request for it.

use std::sync::Arc;

use async_trait::async_trait;
use common::shutdown::Tasks;
use common::status::Status;
use parking_lot::Mutex;

use crate::cacher::{
    CachedObject, Cacher, CacherConfig, ListPage, ListQuery, ObjectStore, Outcome, Preconditions, Update,
    WatchQuery, WatchReceiver,
};
use crate::object::Object;
use crate::storage::Revision;

/// An [`ObjectStore`] that costs nothing until it is asked something.
pub struct LazyStore {
    config: CacherConfig,
    tasks: Tasks,
    state: Mutex<State>,
}

enum State {
    Idle,
    Running(Arc<Cacher>),
    /// Served no longer. Requests that are still on their way are told so.
    Stopped,
}

impl LazyStore {
    pub fn new(config: CacherConfig, tasks: Tasks) -> Self {
        Self { config, tasks, state: Mutex::new(State::Idle) }
    }

    /// Ends all watches; requests from now on are a 404.
    pub fn stop(&self) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Stopped);
        if let State::Running(cacher) = before {
            cacher.stop();
        }
    }

    /// The cache when it runs.
    pub fn running(&self) -> Option<Arc<Cacher>> {
        match &*self.state.lock() {
            State::Running(cacher) => Some(cacher.clone()),
            State::Idle | State::Stopped => None,
        }
    }

    fn cacher(&self) -> Result<Arc<Cacher>, Status> {
        let mut state = self.state.lock();
        match &*state {
            State::Running(cacher) => Ok(cacher.clone()),
            State::Stopped => Err(Status::path_not_found()),
            State::Idle => {
                let cacher = Cacher::start(self.config.clone(), &self.tasks);
                *state = State::Running(cacher.clone());
                Ok(cacher)
            }
        }
    }
}

#[async_trait]
impl ObjectStore for LazyStore {
    async fn get(
        &self,
        namespace: &str,
        name: &str,
        resource_version: Option<Revision>,
    ) -> Result<Arc<CachedObject>, Status> {
        self.cacher()?.get(namespace, name, resource_version).await
    }

    fn cached(&self, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        self.running()?.cached(namespace, name)
    }

    fn cached_list(&self, namespace: &str) -> Vec<Arc<CachedObject>> {
        self.running().map_or_else(Vec::new, |cacher| cacher.cached_list(namespace))
    }

    async fn list(&self, query: ListQuery) -> Result<ListPage, Status> {
        self.cacher()?.list(query).await
    }

    async fn watch(&self, query: WatchQuery) -> Result<WatchReceiver, Status> {
        self.cacher()?.watch(query).await
    }

    async fn create(&self, object: &Object, ttl_seconds: Option<u64>) -> Result<Arc<CachedObject>, Status> {
        self.cacher()?.create(object, ttl_seconds).await
    }

    async fn guaranteed_update(
        &self,
        namespace: &str,
        name: &str,
        preconditions: &Preconditions,
        create_if_missing: bool,
        update: &mut dyn Update,
    ) -> Result<(Arc<CachedObject>, Outcome), Status> {
        self.cacher()?.guaranteed_update(namespace, name, preconditions, create_if_missing, update).await
    }

    fn synced(&self) -> bool {
        self.running().is_none_or(|cacher| cacher.synced())
    }

    fn size(&self) -> (u64, u64) {
        self.running().map_or((0, 0), |cacher| cacher.size())
    }
}
