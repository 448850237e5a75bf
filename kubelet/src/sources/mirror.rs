//! Mirror pods: the API's copies of static pods, made, made again when they differ, and removed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::shutdown::Tasks;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use parking_lot::Mutex;

use crate::pod::{self, PodManager};

/// Between tries for one pod.
const RETRY: Duration = Duration::from_secs(5);

/// One per kubelet; does nothing without an API server.
pub struct Mirrors {
    client: Option<Client>,
    node: String,
    pods: Arc<PodManager>,
    tasks: Tasks,
    tried: Mutex<HashMap<String, Instant>>,
}

impl Mirrors {
    pub fn new(client: Option<Client>, node: String, pods: Arc<PodManager>, tasks: Tasks) -> Self {
        Self { client, node, pods, tasks, tried: Mutex::default() }
    }

    /// Makes the mirror if it is missing or is another pod's; does not wait.
    pub fn ensure(self: &Arc<Self>, pod: &Arc<Pod>) {
        let Some(client) = &self.client else { return };
        let mirror = self.pods.mirror_of(pod);
        if mirror.as_ref().is_some_and(|m| is_mirror_of(m, pod) && m.metadata.deletion_timestamp.is_none()) {
            return;
        }
        let name = pod::full_name(pod);
        {
            let mut tried = self.tried.lock();
            if tried.get(&name).is_some_and(|at| at.elapsed() < RETRY) {
                return;
            }
            tried.insert(name, Instant::now());
        }
        let (this, client, pod) = (self.clone(), client.clone(), pod.clone());
        self.tasks.spawn("mirror pod", async move {
            if let Some(old) = mirror {
                this.delete(&client, &old).await;
            }
            this.create(&client, &pod).await;
        });
    }

    /// Removes the mirror of a static pod that is gone; does not wait.
    pub fn remove(self: &Arc<Self>, pod: &Pod) {
        self.tried.lock().remove(&pod::full_name(pod));
        let (Some(client), Some(mirror)) = (&self.client, self.pods.mirror_of(pod)) else { return };
        if is_mirror_of(&mirror, pod) {
            self.remove_mirror(client, mirror);
        }
    }

    /// Removes mirrors without a static pod.
    pub fn remove_orphans(self: &Arc<Self>, keep: impl Fn(&Pod) -> bool) {
        let Some(client) = &self.client else { return };
        for mirror in self.pods.mirrors() {
            if !keep(&mirror) {
                self.remove_mirror(client, mirror);
            }
        }
    }

    fn remove_mirror(self: &Arc<Self>, client: &Client, mirror: Arc<Pod>) {
        let (this, client) = (self.clone(), client.clone());
        self.tasks.spawn("mirror pod", async move { this.delete(&client, &mirror).await });
    }

    async fn create(&self, client: &Client, pod: &Pod) {
        let mut copy = pod.clone();
        let hash = pod::annotation(pod, pod::CONFIG_HASH).unwrap_or("").to_owned();
        copy.metadata.annotations.get_or_insert_default().insert(pod::CONFIG_MIRROR.into(), hash);
        copy.metadata.uid = None;
        copy.metadata.resource_version = None;
        copy.status = None;
        // The node owns it, so that it goes with the node; the API server demands it.
        match Api::<Node>::all(client.clone()).get(&self.node).await {
            Ok(node) => {
                copy.metadata.owner_references = Some(vec![OwnerReference {
                    api_version: "v1".into(),
                    kind: "Node".into(),
                    name: self.node.clone(),
                    uid: node.metadata.uid.unwrap_or_default(),
                    controller: Some(true),
                    block_owner_deletion: None,
                }]);
            }
            Err(error) => {
                tracing::debug!(pod = pod::format_pod(pod), %error, "mirror pod waits for the node's object");
                return;
            }
        }
        let api: Api<Pod> = Api::namespaced(client.clone(), pod::namespace(pod));
        match api.create(&PostParams::default(), &copy).await {
            Ok(_) => {}
            Err(kube::Error::Api(s)) if s.code == 409 => {}
            Err(error) => {
                tracing::warn!(pod = pod::format_pod(pod), %error, "mirror pod not created; retrying")
            }
        }
    }

    async fn delete(&self, client: &Client, mirror: &Pod) {
        let api: Api<Pod> = Api::namespaced(client.clone(), pod::namespace(mirror));
        let options = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(pod::name(mirror), &options).await {
            Ok(_) => {}
            Err(kube::Error::Api(s)) if matches!(s.code, 404 | 409) => {}
            Err(error) => {
                tracing::warn!(pod = pod::format_pod(mirror), %error, "mirror pod not deleted; retrying")
            }
        }
    }
}

fn is_mirror_of(mirror: &Pod, pod: &Pod) -> bool {
    pod::annotation(mirror, pod::CONFIG_MIRROR) == pod::annotation(pod, pod::CONFIG_HASH)
}
