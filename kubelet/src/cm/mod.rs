//! Cgroups of pods: `kubepods[/burstable|/besteffort]/pod<uid>`, on cgroup v1 or v2, named for either driver.
//!
//! Answers to upstream's `pkg/kubelet/cm`. Containers' own cgroups are the runtime's. With the systemd driver the
//! slices come into being when the runtime puts a container into them; here they are only named, given limits
//! once they exist, and cleaned up.

mod names;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::kuberuntime::resources::{SHARES_MIN, amount, cpu_quota, cpu_shares};
use crate::pod;
pub use names::{Driver, cgroup_path};

const MOUNT: &str = "/sys/fs/cgroup";
/// v1 hierarchies in which pods get cgroups, where they are mounted.
const V1_CONTROLLERS: &[&str] =
    &["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "systemd"];
const PERIOD_US: i64 = 100_000;

/// A cgroup that could not be made or changed.
#[derive(Debug, thiserror::Error)]
#[error("cgroup {path}: {source}")]
pub struct CgroupError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// How cgroups are laid out.
#[derive(Debug, Clone)]
pub struct CgroupOptions {
    pub driver: Driver,
    pub root: String,
    pub per_qos: bool,
    /// 0 or less is no limit.
    pub pids_limit: i64,
    pub cpu_quota: bool,
}

/// Makes and removes pods' cgroups.
pub struct CgroupManager {
    options: CgroupOptions,
    mount: PathBuf,
    v2: bool,
}

/// Limits of a pod's cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct PodLimits {
    shares: i64,
    quota: i64,
    memory: i64,
}

impl CgroupManager {
    /// Looks at how the machine mounts cgroups.
    pub fn new(options: CgroupOptions) -> Self {
        Self::at(options, PathBuf::from(MOUNT))
    }

    fn at(options: CgroupOptions, mount: PathBuf) -> Self {
        let v2 = mount.join("cgroup.controllers").exists();
        Self { options, mount, v2 }
    }

    /// True on the unified hierarchy.
    pub fn is_v2(&self) -> bool {
        self.v2
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
    /// When the first of them cannot be made.
    pub fn start(&self) -> Result<(), CgroupError> {
        if !self.options.per_qos || self.options.driver == Driver::Systemd {
            return Ok(());
        }
        for components in [vec!["kubepods"], vec!["kubepods", "burstable"], vec!["kubepods", "besteffort"]] {
            let components: Vec<String> = components.into_iter().map(str::to_owned).collect();
            self.make(&components)?;
            if components.last().is_some_and(|c| c == "besteffort") {
                self.write_shares(&components, SHARES_MIN);
            }
        }
        Ok(())
    }

    /// Makes a pod's cgroup and sets its limits; idempotent.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn ensure_pod(&self, pod: &Pod) -> Result<(), CgroupError> {
        if !self.options.per_qos {
            return Ok(());
        }
        let components = names::pod_components(pod::qos_class(pod), pod::uid(pod));
        if self.options.driver == Driver::Cgroupfs {
            self.make(&components)?;
        }
        let limits = pod_limits(pod);
        self.write_shares(&components, limits.shares);
        let (quota, memory) = (limits.quota, limits.memory);
        if self.v2 {
            if quota > 0 && self.options.cpu_quota {
                self.write("", &components, "cpu.max", &format!("{quota} {PERIOD_US}"));
            }
            if memory > 0 {
                self.write("", &components, "memory.max", &memory.to_string());
            }
            if self.options.pids_limit > 0 {
                self.write("", &components, "pids.max", &self.options.pids_limit.to_string());
            }
        } else {
            if quota > 0 && self.options.cpu_quota {
                self.write("cpu", &components, "cpu.cfs_period_us", &PERIOD_US.to_string());
                self.write("cpu", &components, "cpu.cfs_quota_us", &quota.to_string());
            }
            if memory > 0 {
                self.write("memory", &components, "memory.limit_in_bytes", &memory.to_string());
            }
            if self.options.pids_limit > 0 {
                self.write("pids", &components, "pids.max", &self.options.pids_limit.to_string());
            }
        }
        Ok(())
    }

    /// Removes a pod's cgroups, whichever class it was in. A cgroup in use stays; the next round tries again.
    pub fn remove_pod(&self, uid: &str) {
        for class in ["Guaranteed", "Burstable", "BestEffort"] {
            let components = names::pod_components(class, uid);
            for folder in self.folders(&components) {
                remove_tree(&folder);
            }
        }
    }

    /// Removes cgroups of pods that nothing knows.
    pub fn remove_orphans(&self, keep: &HashSet<String>) {
        if !self.options.per_qos {
            return;
        }
        let base = |class: &[&str]| class.iter().map(|c| (*c).to_owned()).collect::<Vec<String>>();
        for class in
            [base(&["kubepods"]), base(&["kubepods", "burstable"]), base(&["kubepods", "besteffort"])]
        {
            for folder in self.folders(&class) {
                for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    if names::pod_uid(&name).is_some_and(|uid| !keep.contains(&uid)) {
                        remove_tree(&entry.path());
                    }
                }
            }
        }
    }

    /// The cgroup's folder in every hierarchy that there is.
    fn folders(&self, components: &[String]) -> Vec<PathBuf> {
        let path = cgroup_path(self.options.driver, &self.options.root, components);
        if self.v2 {
            return vec![self.mount.join(path)];
        }
        V1_CONTROLLERS
            .iter()
            .map(|c| self.mount.join(c))
            .filter(|c| c.is_dir())
            .map(|c| c.join(&path))
            .collect()
    }

    fn make(&self, components: &[String]) -> Result<(), CgroupError> {
        for folder in self.folders(components) {
            let wrap = |source| CgroupError { path: folder.clone(), source };
            if folder.is_dir() {
                continue;
            }
            fs::create_dir_all(&folder).map_err(wrap)?;
            if self.v2 {
                self.delegate(&folder);
            } else {
                inherit_cpuset(&folder, &self.mount);
            }
        }
        Ok(())
    }

    /// Hands controllers down to a v2 cgroup from every ancestor.
    fn delegate(&self, folder: &Path) {
        let Ok(relative) = folder.strip_prefix(&self.mount) else { return };
        let mut at = self.mount.clone();
        for part in relative.components() {
            for controller in ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"] {
                // A controller that the kernel lacks is refused, and that is fine.
                let _ = fs::write(at.join("cgroup.subtree_control"), format!("+{controller}"));
            }
            at.push(part);
        }
    }

    fn write_shares(&self, components: &[String], shares: i64) {
        if self.v2 {
            // The kernel's own mapping from shares (2..262144) to weight (1..10000).
            let weight = 1 + ((shares - 2) * 9999) / 262_142;
            self.write("", components, "cpu.weight", &weight.to_string());
        } else {
            self.write("cpu", components, "cpu.shares", &shares.to_string());
        }
    }

    fn write(&self, controller: &str, components: &[String], file: &str, value: &str) {
        let path = cgroup_path(self.options.driver, &self.options.root, components);
        let path = self.mount.join(controller).join(path).join(file);
        if path.parent().is_none_or(|p| !p.exists()) {
            return;
        }
        if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
            return;
        }
        if let Err(error) = fs::write(&path, value) {
            tracing::debug!(path = %path.display(), value, %error, "cgroup limit not set");
        }
    }
}

/// The pod's limits: sums of its containers; a limit only when every container has one.
fn pod_limits(pod: &Pod) -> PodLimits {
    let spec = pod::spec(pod);
    let (mut request, mut cpu_limit, mut memory) = (0, 0, 0);
    let (mut cpu_limited, mut memory_limited) = (true, true);
    for container in &spec.containers {
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|r| r.limits.as_ref());
        let requests = resources.and_then(|r| r.requests.as_ref());
        let (cpu, mem) = (amount(limits, "cpu").millis(), amount(limits, "memory").units());
        let asked = amount(requests, "cpu").millis();
        request += if asked == 0 { cpu } else { asked };
        cpu_limit += cpu;
        memory += mem;
        cpu_limited &= cpu > 0;
        memory_limited &= mem > 0;
    }
    for container in spec.init_containers.iter().flatten() {
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|r| r.limits.as_ref());
        let (cpu, mem) = (amount(limits, "cpu").millis(), amount(limits, "memory").units());
        cpu_limited &= cpu > 0;
        memory_limited &= mem > 0;
        if pod::is_restartable_init(container) {
            (cpu_limit, memory) = (cpu_limit + cpu, memory + mem);
        } else {
            (cpu_limit, memory) = (cpu_limit.max(cpu), memory.max(mem));
        }
    }
    PodLimits {
        shares: cpu_shares(request),
        quota: if cpu_limited { cpu_quota(cpu_limit, PERIOD_US) } else { 0 },
        memory: if memory_limited { memory } else { 0 },
    }
}

/// A v1 cpuset is unusable until its cpus and mems are set; it takes its parent's.
fn inherit_cpuset(folder: &Path, mount: &Path) {
    let Ok(relative) = folder.strip_prefix(mount.join("cpuset")) else { return };
    let mut at = mount.join("cpuset");
    for part in relative.components() {
        let parent = at.clone();
        at.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let empty = fs::read_to_string(at.join(file)).is_ok_and(|t| t.trim().is_empty());
            if let (true, Ok(value)) = (empty, fs::read_to_string(parent.join(file))) {
                let _ = fs::write(at.join(file), value);
            }
        }
    }
}

/// Removes a cgroup and those below it; files in it are the kernel's.
fn remove_tree(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(folder) {
        tracing::debug!(path = %folder.display(), %error, "cgroup stays for now");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_of_a_pod() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "1Mi"}}},
            {"name": "b", "resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}}]}}))
        .unwrap();
        assert_eq!(pod_limits(&pod), PodLimits { shares: 614, quota: 100_000, memory: 0 });
    }
}
