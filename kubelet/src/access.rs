//! What the node's server may see of pods.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;

use crate::kuberuntime::{ContainerState, RuntimePod};
use crate::pleg::Pleg;
use crate::pod::{self, PodManager};
use crate::server::{AccessError, ContainerInfo, PodAccess};
use crate::status::StatusManager;
use crate::sync_loop::Beat;

/// The core's answer to [`PodAccess`].
pub struct Access {
    pub pods: Arc<PodManager>,
    pub pleg: Arc<Pleg>,
    pub status: Arc<StatusManager>,
    pub beat: Arc<Beat>,
}

impl Access {
    fn with_status(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let mut out = Pod::clone(pod);
        out.status = Some(self.status.get(pod));
        Arc::new(out)
    }

    async fn read(&self, pod: &Pod) -> Result<Arc<RuntimePod>, AccessError> {
        self.pleg.refresh(pod::uid(pod)).await.map_err(|e| AccessError::Runtime(e.to_string()))
    }
}

#[async_trait]
impl PodAccess for Access {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.pods().iter().map(|p| self.with_status(p)).collect()
    }

    fn pod(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Pod>> {
        let found = self.pods.by_name(namespace, name)?;
        let mirror = self.pods.mirror_of(&found);
        let fits = |wanted: &str| {
            pod::uid(&found) == wanted || mirror.as_ref().is_some_and(|m| pod::uid(m) == wanted)
        };
        uid.filter(|u| !u.is_empty()).is_none_or(fits).then(|| self.with_status(&found))
    }

    async fn container(
        &self,
        pod: &Pod,
        container: &str,
        previous: bool,
    ) -> Result<ContainerInfo, AccessError> {
        let runtime = self.read(pod).await?;
        let about = || (pod::name(pod).to_owned(), container.to_owned());
        let mut attempts = runtime.containers.iter().filter(|c| c.name == container);
        let newest = attempts.next();
        let found = if previous {
            attempts.next().ok_or_else(|| {
                let (pod, container) = about();
                AccessError::NoPrevious { pod, container }
            })?
        } else {
            newest.ok_or_else(|| {
                let (name, container) = about();
                let status = self.status.get(pod);
                let lists = [
                    &status.init_container_statuses,
                    &status.container_statuses,
                    &status.ephemeral_container_statuses,
                ];
                let waits = lists
                    .into_iter()
                    .flatten()
                    .flatten()
                    .find(|s| s.name == container)
                    .and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
                match waits {
                    Some(reason) => AccessError::Waiting { pod: name, container, reason },
                    None => AccessError::ContainerNotFound { pod: name, container },
                }
            })?
        };
        Ok(ContainerInfo {
            id: found.id.clone(),
            running: found.state == ContainerState::Running,
            log_path: PathBuf::from(&found.log_path),
            restart_count: found.labels.restart_count,
        })
    }

    async fn sandbox_id(&self, pod: &Pod) -> Result<String, AccessError> {
        let runtime = self.read(pod).await?;
        let ready = runtime.sandboxes.iter().find(|s| s.ready);
        ready.map(|s| s.id.clone()).ok_or_else(|| AccessError::PodNotFound(pod::full_name(pod)))
    }

    fn sync_loop_healthy(&self) -> bool {
        self.beat.healthy()
    }
}
