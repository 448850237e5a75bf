//! Cgroups of pods: `kubepods[/burstable|/besteffort]/pod<uid>`, on cgroup v1 or v2, by either driver.
//!
//! Answers to upstream's `pkg/kubelet/cm` without its resource managers. Containers' own cgroups are the runtime's.
//! With the cgroupfs driver the folders are made and written here. With the systemd driver every one of them is a
//! slice that systemd is asked for, with the limits as its properties; the files are then written too, because
//! systemd does not have a property for all of them. Nothing here ends a process: a cgroup in use stays until the
//! next round.

mod fs;
mod limits;
mod names;
mod systemd;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::kuberuntime::resources::{SHARES_MIN, cpu_shares};
use crate::pod;
use fs::Mounts;
use limits::Limits;
pub use names::{Driver, cgroup_path};
use systemd::Systemd;
pub use systemd::SystemdError;

const MOUNT: &str = "/sys/fs/cgroup";

/// A cgroup that could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cgroup {path}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Systemd(#[from] SystemdError),
}

/// How cgroups are laid out.
#[derive(Debug, Clone)]
pub struct CgroupOptions {
    pub driver: Driver,
    pub root: String,
    pub per_qos: bool,
    /// Of one pod; 0 or less is no limit.
    pub pids_limit: i64,
    pub cpu_quota: bool,
    pub cpu_period_us: i64,
    /// Capacity without what is reserved: what all pods together may use.
    pub allocatable: BTreeMap<String, String>,
    /// How many processes the machine can have.
    pub pids_max: Option<i64>,
}

/// Makes and removes pods' cgroups.
pub struct CgroupManager {
    options: CgroupOptions,
    mounts: Mounts,
    systemd: Systemd,
    /// CPU that burstable pods ask for, by UID; their class has the sum.
    burstable: Mutex<HashMap<String, i64>>,
}

impl CgroupManager {
    /// Looks at how the machine mounts cgroups.
    pub fn new(options: CgroupOptions) -> Self {
        Self::at(options, PathBuf::from(MOUNT))
    }

    fn at(options: CgroupOptions, mount: PathBuf) -> Self {
        Self { options, mounts: Mounts::at(mount), systemd: Systemd::default(), burstable: Mutex::default() }
    }

    /// True on the unified hierarchy.
    pub fn is_v2(&self) -> bool {
        self.mounts.v2
    }

    /// What the runtime gets as `cgroup_parent`.
    pub fn pod_parent(&self, pod: &Pod) -> String {
        if !self.options.per_qos {
            return String::new();
        }
        self.options
            .driver
            .parent(&self.options.root, &names::pod_components(pod::qos_class(pod), pod::uid(pod)))
    }

    /// Makes the node's and the QoS classes' cgroups.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub async fn start(&self) -> Result<(), CgroupError> {
        if !self.options.per_qos {
            return Ok(());
        }
        let cpus = if self.mounts.v2 { self.mounts.cpus() } else { None };
        let node = limits::of_node(&self.options.allocatable, self.options.pids_max, cpus);
        self.apply(&names::class_components("Guaranteed"), node).await?;
        let least = Limits { shares: Some(SHARES_MIN), ..Limits::default() };
        self.apply(&names::class_components("BestEffort"), least).await?;
        self.share_burstable().await
    }

    /// Makes a pod's cgroup and sets its limits; idempotent.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn ensure_pod(&self, pod: &Pod) -> Result<(), CgroupError> {
        if !self.options.per_qos {
            return Ok(());
        }
        let (class, uid) = (pod::qos_class(pod), pod::uid(pod));
        if class == "Burstable" {
            self.burstable.lock().insert(uid.to_owned(), limits::cpu_request(pod));
            self.share_burstable().await?;
        }
        let pids = Some(self.options.pids_limit).filter(|n| *n > 0);
        let limits = limits::of_pod(pod, self.options.cpu_period_us, self.options.cpu_quota, pids);
        self.apply(&names::pod_components(class, uid), limits).await
    }

    /// Removes a pod's cgroups, whichever class it was in. A cgroup in use stays; the next round tries again.
    pub async fn remove_pod(&self, uid: &str) {
        for class in names::CLASSES {
            self.remove(&names::pod_components(class, uid)).await;
        }
        let counted = self.burstable.lock().remove(uid).is_some();
        if counted && let Err(error) = self.share_burstable().await {
            tracing::warn!(%error, "the burstable class keeps its share for now");
        }
    }

    /// Removes cgroups of pods that nothing knows, and mends what the class of burstable pods is given.
    pub async fn remove_orphans(&self, keep: &HashSet<String>) {
        if !self.options.per_qos {
            return;
        }
        for class in names::CLASSES {
            let path = self.path(&names::class_components(class));
            for name in self.mounts.children(&path) {
                if let Some(uid) = names::pod_uid(&name).filter(|uid| !keep.contains(uid)) {
                    self.remove(&names::pod_components(class, &uid)).await;
                }
            }
        }
        if let Err(error) = self.share_burstable().await {
            tracing::warn!(%error, "the burstable class keeps its share for now");
        }
    }

    /// Gives the class of burstable pods what they ask for together.
    async fn share_burstable(&self) -> Result<(), CgroupError> {
        let sum = self.burstable.lock().values().copied().fold(0, i64::saturating_add);
        let limits = Limits { shares: Some(cpu_shares(sum)), ..Limits::default() };
        self.apply(&names::class_components("Burstable"), limits).await
    }

    fn path(&self, components: &[String]) -> PathBuf {
        cgroup_path(self.options.driver, &self.options.root, components)
    }

    /// Brings a cgroup into being with its limits, or an existing one to them.
    async fn apply(&self, components: &[String], limits: Limits) -> Result<(), CgroupError> {
        let (path, period, v2) = (self.path(components), self.options.cpu_period_us, self.mounts.v2);
        let exists = self.mounts.exists(&path);
        let limits = match self.options.driver {
            Driver::Cgroupfs => limits,
            Driver::Systemd => limits.rounded_for_systemd(period),
        };
        let settings = limits.files(v2, period);
        if exists && self.mounts.holds(&path, &settings) {
            return Ok(());
        }
        if self.options.driver == Driver::Systemd {
            let (name, parent) = names::slice_and_parent(&self.options.root, components);
            let made =
                !exists && self.systemd.start_slice(&name, &parent, limits.properties(v2, period)).await?;
            if !made {
                self.systemd.set_properties(&name, &limits.properties(v2, period)).await?;
            }
        }
        self.mounts.make(&path).map_err(|(path, source)| CgroupError::Folder { path, source })?;
        self.mounts.write(&path, &settings);
        Ok(())
    }

    async fn remove(&self, components: &[String]) {
        let path = self.path(components);
        if !self.mounts.folders(&path).iter().any(|f| f.exists()) {
            return;
        }
        if self.mounts.populated(&path) {
            tracing::debug!(path = %path.display(), "cgroup is in use and stays for now");
            return;
        }
        if self.options.driver == Driver::Systemd {
            let (name, _) = names::slice_and_parent(&self.options.root, components);
            if let Err(error) = self.systemd.stop(&name).await {
                tracing::warn!(%error, "slice stays for now");
                return;
            }
        }
        self.mounts.remove(&path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn options(driver: Driver) -> CgroupOptions {
        CgroupOptions {
            driver,
            root: String::new(),
            per_qos: true,
            pids_limit: 64,
            cpu_quota: true,
            cpu_period_us: 100_000,
            allocatable: BTreeMap::from([("cpu".into(), "2".into()), ("memory".into(), "1Gi".into())]),
            pids_max: Some(1000),
        }
    }

    fn burstable(uid: &str, cpu: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
        .unwrap()
    }

    /// A folder in place of the kernel's: files are there before they are written, as in a real cgroup.
    fn hierarchy() -> (PathBuf, CgroupManager) {
        let root = std::env::temp_dir().join(format!("cm-{}", uuid::Uuid::new_v4()));
        for folder in ["", "kubepods", "kubepods/burstable", "kubepods/besteffort"] {
            fs::create_dir_all(root.join(folder)).unwrap();
            for file in
                ["cgroup.controllers", "cgroup.subtree_control", "cpu.weight", "memory.max", "pids.max"]
            {
                fs::write(root.join(folder).join(file), "").unwrap();
            }
        }
        let manager = CgroupManager::at(options(Driver::Cgroupfs), root.clone());
        (root, manager)
    }

    #[tokio::test]
    async fn classes_get_their_shares() {
        let (root, manager) = hierarchy();
        let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
        assert!(manager.is_v2());
        manager.start().await.unwrap();
        assert_eq!(
            ["cpu.weight", "memory.max", "pids.max"].map(|f| read(&format!("kubepods/{f}"))),
            ["79".to_owned(), (1_u64 << 30).to_string(), "1000".into()]
        );
        assert_eq!(read("kubepods/besteffort/cpu.weight"), "1");
        assert_eq!(read("kubepods/burstable/cpu.weight"), "1");
        let (one, two) = ("0a1b2c3d-0000-1111-2222-333344445555", "1a1b2c3d-0000-1111-2222-333344445555");
        manager.ensure_pod(&burstable(one, "1")).await.unwrap();
        manager.ensure_pod(&burstable(two, "1")).await.unwrap();
        assert_eq!(read("kubepods/burstable/cpu.weight"), "79");
        assert!(root.join(format!("kubepods/burstable/pod{one}")).is_dir());
        manager.remove_pod(one).await;
        assert!(!root.join(format!("kubepods/burstable/pod{one}")).exists());
        assert_eq!(read("kubepods/burstable/cpu.weight"), "39");
        manager.remove_orphans(&HashSet::new()).await;
        assert!(!root.join(format!("kubepods/burstable/pod{two}")).exists());
        fs::remove_dir_all(root).unwrap();
    }
}
