//! Volumes of the pods on this node: set up before containers start, refreshed while they run, torn down after.
//!
//! Answers to upstream's `pkg/kubelet/volumemanager` and `pkg/volume/*`. It must not decide whether a pod runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::record::Recorder;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio_util::sync::CancellationToken;

/// How long `mount_all` waits for a pod's volumes, as upstream's `podAttachAndMountTimeout`.
pub const MOUNT_TIMEOUT: Duration = Duration::from_secs(2 * 60 + 3);

/// Amounts of the node by resource name, in quantity text, for `resourceFieldRef` without a limit.
pub type NodeAllocatable = BTreeMap<String, String>;

/// What the volume manager is given once.
pub struct VolumeDeps {
    /// `/var/lib/kubelet`; pod folders are `<root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>`.
    pub root_dir: PathBuf,
    pub node_name: String,
    /// Absent in standalone mode: volumes that need the API then fail with a named reason.
    pub client: Option<kube::Client>,
    pub recorder: Recorder,
    pub node_allocatable: NodeAllocatable,
}

/// A volume that is ready for containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedVolume {
    pub name: String,
    pub host_path: PathBuf,
    /// The volume can only be mounted read-only (configMap, secret, projected, downwardAPI are).
    pub read_only: bool,
    pub selinux_relabel: bool,
}

/// Why volumes are not ready; the text is the message of a `FailedMount` event.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("volume {volume:?}: {reason}")]
    Mount { volume: String, reason: String },
    #[error("timed out waiting for volumes to be mounted: {0}")]
    Timeout(String),
    #[error("tear down of volumes of pod {uid}: {reason}")]
    Unmount { uid: String, reason: String },
    #[error("failed to prepare subPath for volumeMount {name:?} of container {container:?}: {reason}")]
    SubPath { name: String, container: String, reason: String },
}

/// One per kubelet; cheap calls when nothing changed.
pub struct VolumeManager {
    deps: VolumeDeps,
}

impl VolumeManager {
    pub fn new(deps: VolumeDeps) -> Self {
        Self { deps }
    }

    /// Makes every volume of the pod ready, by name. Idempotent; called at every pod sync, so it must be cheap
    /// when all is mounted. Registers the pod for periodic refresh (the newest `pod` given wins). Emits
    /// `FailedMount` itself through the recorder.
    pub async fn mount_all(&self, pod: &Arc<Pod>) -> Result<BTreeMap<String, MountedVolume>, VolumeError> {
        match pod.spec.as_ref().and_then(|s| s.volumes.as_ref()).and_then(|v| v.first()) {
            None => Ok(BTreeMap::new()),
            Some(v) => Err(VolumeError::Mount { volume: v.name.clone(), reason: "no plugin".into() }),
        }
    }

    /// The host path of `container.volumeMounts[index]` with its subPath (already expanded) applied: created if
    /// missing, never outside the volume, bound so that a later change of a symlink cannot move it.
    pub async fn prepare_sub_path(
        &self,
        _pod: &Pod,
        container: &Container,
        _index: usize,
        volume: &MountedVolume,
        _sub_path: &str,
    ) -> Result<PathBuf, VolumeError> {
        Err(VolumeError::SubPath {
            name: volume.name.clone(),
            container: container.name.clone(),
            reason: "not supported".into(),
        })
    }

    /// Tears everything of the pod down (subPaths too) and forgets it; idempotent, works after a restart of the
    /// kubelet from what is on disk.
    pub async fn unmount_all(&self, _uid: &str) -> Result<(), VolumeError> {
        Ok(())
    }

    /// UIDs that still have volume folders on disk under `<root>/pods`.
    pub fn pods_on_disk(&self) -> Vec<String> {
        let _ = &self.deps;
        Vec::new()
    }

    /// Refreshes configMap, secret, projected and downwardAPI volumes until stopped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        stop.cancelled().await;
    }
}
