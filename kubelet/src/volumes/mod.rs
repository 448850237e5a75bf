//! Volumes of the pods on this node: set up before containers start, refreshed while they run, torn down after.
//!
//! Answers to upstream's `pkg/kubelet/volumemanager` and `pkg/volume/*`. It must not decide whether a pod runs.
//!
//! `plan` says what each volume is and where (pure), `payload` what files it holds (pure), `objects` and `token`
//! fetch what the API has, `setup` makes it on disk (`atomic_writer`, `ownership`, `mounts`, `host_path`),
//! `sub_path` finds paths inside volumes, `manager` remembers pods and refreshes them. What is on disk is the
//! truth: a restarted kubelet finds it there, and nothing is deleted through a live mount.

mod atomic_writer;
mod host_path;
mod manager;
mod mounts;
mod objects;
mod ownership;
mod payload;
mod plan;
mod setup;
mod sub_path;
mod token;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use common::events::Recorder;

pub use manager::VolumeManager;

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
    #[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
    Mount { volume: String, reason: String },
    #[error("timed out waiting for volumes to be mounted: {0}")]
    Timeout(String),
    #[error("tear down of volumes of pod {uid}: {reason}")]
    Unmount { uid: String, reason: String },
    #[error("failed to prepare subPath for volumeMount {name:?} of container {container:?}: {reason}")]
    SubPath { name: String, container: String, reason: String },
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::{Path, PathBuf};

    /// A folder that goes away with the test.
    pub(crate) struct Scratch(PathBuf);

    impl Scratch {
        pub(crate) fn new() -> Self {
            let path = std::env::temp_dir().join(format!("pintle-{}", uuid::Uuid::new_v4()));
            std::fs::create_dir_all(&path).expect("the temporary folder is writable");
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
