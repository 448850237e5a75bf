//! Removes the instances of a definition that is being deleted, then lets it go.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::shutdown::CancellationToken;
use common::status::Status;

use super::update;
use crate::apiextensions::definition::{CLEANUP_FINALIZER, set_condition};
use crate::cacher::{Decision, ListQuery, ObjectStore, Preconditions, Update};
use crate::object::{Object, metadata_mut, str_at};

/// How often it is looked whether finalizers let the last instances go.
const CHECK_PERIOD: Duration = Duration::from_secs(1);
/// Looks before the definition's condition says that instances stay.
const CHECKS_MAX: u32 = 60;
const PAGE: usize = 500;

pub(super) struct Job {
    pub definitions: Arc<dyn ObjectStore>,
    /// `None` when its resource was never served.
    pub instances: Option<Arc<dyn ObjectStore>>,
    pub name: String,
    /// Of the definition that is being deleted: another may come to be called the same.
    pub uid: String,
    /// Cancelled when the definition is seen to be gone.
    pub gone: CancellationToken,
    pub group: String,
    pub resource: String,
    pub established: bool,
}

impl Job {
    /// Ends when the definition is gone, or somebody has to look at it again. Repeatable from the start.
    pub(super) async fn run(&self) {
        let progress = ("InstanceDeletionInProgress", "CustomResource deletion is in progress");
        self.say(true, progress.0, progress.1).await;
        let instances = self.instances.as_ref().filter(|_| self.established);
        let Some(instances) = instances else {
            self.finish("NeverEstablished", "resource was never established").await;
            return;
        };
        let mut checks = 0;
        // Whoever takes the finalizer away by hand takes the definition, its store and this job's work.
        while !self.gone.is_cancelled() {
            match remove_all(&**instances).await {
                Ok(0) => {
                    self.finish("InstanceDeletionCompleted", "removed all instances").await;
                    return;
                }
                Ok(left) => {
                    tracing::debug!(name = self.name, left, "instances stay for their finalizers");
                    checks += 1;
                    if checks == CHECKS_MAX {
                        let why =
                            "could not confirm zero CustomResources remaining: context deadline exceeded";
                        self.say(true, "InstanceDeletionCheck", why).await;
                    }
                }
                Err(status) => {
                    let why = format!("could not issue all deletes: {}", status.message);
                    self.say(true, "InstanceDeletionFailed", &why).await;
                }
            }
            self.gone.run_until_cancelled(tokio::time::sleep(CHECK_PERIOD)).await;
        }
    }

    fn itself(&self) -> Preconditions {
        Preconditions { uid: Some(self.uid.clone()), ..Preconditions::default() }
    }

    async fn say(&self, on: bool, reason: &str, message: &str) {
        let itself = self.itself();
        let written = update(&*self.definitions, &self.name, &itself, |crd| {
            set_condition(crd, "Terminating", on, reason, message);
        });
        self.told(written.await.err());
    }

    async fn finish(&self, reason: &str, message: &str) {
        let itself = self.itself();
        let written = update(&*self.definitions, &self.name, &itself, |crd| {
            set_condition(crd, "Terminating", false, reason, message);
            let metadata = metadata_mut(crd);
            if let Some(list) = metadata.get_mut("finalizers").and_then(|f| f.as_array_mut()) {
                list.retain(|f| f.as_str() != Some(CLEANUP_FINALIZER));
                if list.is_empty() {
                    metadata.remove("finalizers");
                }
            }
        });
        self.told(written.await.err());
    }

    fn told(&self, error: Option<Status>) {
        // 409: another of the same name took its place.
        if let Some(status) = error.filter(|s| !matches!(s.code, 404 | 409)) {
            let resource = common::status::qualified(&self.group, &self.resource);
            tracing::warn!(resource, error = %status, "a definition that is being deleted cannot be written");
        }
    }
}

/// Deletes every instance that nothing holds and marks the others. Returns how many are left.
async fn remove_all(store: &dyn ObjectStore) -> Result<usize, Status> {
    let mut left = 0;
    let mut query = ListQuery { limit: PAGE, ..Default::default() };
    loop {
        let page = store.list(query).await?;
        for object in &page.items {
            let mut delete = Delete { held: false };
            let none = Preconditions::default();
            match store.guaranteed_update(&object.namespace, &object.name, &none, false, &mut delete).await {
                Ok(_) => left += usize::from(delete.held),
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        if page.continue_token.is_empty() {
            return Ok(left);
        }
        query = ListQuery { limit: PAGE, continue_token: page.continue_token, ..Default::default() };
    }
}

struct Delete {
    held: bool,
}

#[async_trait]
impl Update for Delete {
    async fn apply(&mut self, current: Option<Object>) -> Result<Decision, Status> {
        let mut object = current.ok_or_else(|| Status::internal("the object to delete does not exist"))?;
        let finalizers = object.pointer("/metadata/finalizers").and_then(|f| f.as_array());
        self.held = finalizers.is_some_and(|f| !f.is_empty());
        if !self.held {
            return Ok(Decision::Delete);
        }
        if str_at(&object, &["metadata", "deletionTimestamp"]).is_empty() {
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let metadata = metadata_mut(&mut object);
            let generation = metadata.get("generation").and_then(|g| g.as_i64()).unwrap_or(0);
            metadata.insert("deletionTimestamp".to_owned(), now.into());
            metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
            metadata.insert("generation".to_owned(), (generation + 1).into());
        }
        Ok(Decision::Write { object, ttl_seconds: None })
    }
}
