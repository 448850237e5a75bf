//! Cgroups as folders: made, read, written, removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::limits::Setting;

/// v1 hierarchies in which pods get cgroups, where they are mounted.
const V1_CONTROLLERS: &[&str] =
    &["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "systemd"];
/// What is handed down on v2, where the kernel has it.
const V2_CONTROLLERS: &[&str] = &["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];

/// Where the machine mounts cgroups.
pub struct Mounts {
    root: PathBuf,
    pub v2: bool,
}

impl Mounts {
    pub fn at(root: PathBuf) -> Self {
        let v2 = root.join("cgroup.controllers").exists();
        Self { root, v2 }
    }

    /// A cgroup's folder in every hierarchy that there is.
    pub fn folders(&self, path: &Path) -> Vec<PathBuf> {
        if self.v2 {
            return vec![self.root.join(path)];
        }
        let mounted = V1_CONTROLLERS.iter().map(|c| self.root.join(c)).filter(|c| c.is_dir());
        mounted.map(|c| c.join(path)).collect()
    }

    pub fn exists(&self, path: &Path) -> bool {
        self.folders(path).iter().all(|f| f.is_dir())
    }

    /// Makes what is missing; controllers come down from every ancestor.
    pub fn make(&self, path: &Path) -> Result<(), (PathBuf, io::Error)> {
        for folder in self.folders(path) {
            if !folder.is_dir() {
                fs::create_dir_all(&folder).map_err(|error| (folder.clone(), error))?;
            }
            if self.v2 {
                self.delegate(path);
            } else {
                self.inherit_cpuset(&folder);
            }
        }
        Ok(())
    }

    fn delegate(&self, path: &Path) {
        let mut at = self.root.clone();
        for part in path.components() {
            let has = fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
            let given = fs::read_to_string(at.join("cgroup.subtree_control")).unwrap_or_default();
            let in_list = |list: &str, c: &str| list.split_whitespace().any(|w| w == c);
            for controller in V2_CONTROLLERS.iter().filter(|c| in_list(&has, c) && !in_list(&given, c)) {
                if let Err(error) = fs::write(at.join("cgroup.subtree_control"), format!("+{controller}")) {
                    tracing::debug!(path = %at.display(), controller, %error, "controller not handed down");
                }
            }
            at.push(part);
        }
    }

    /// A v1 cpuset is unusable until its cpus and mems are set; it takes its parent's.
    fn inherit_cpuset(&self, folder: &Path) {
        let mount = self.root.join("cpuset");
        let Ok(relative) = folder.strip_prefix(&mount) else { return };
        let mut at = mount.clone();
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

    fn file(&self, path: &Path, setting: &Setting) -> PathBuf {
        let base = if self.v2 { self.root.clone() } else { self.root.join(setting.controller) };
        base.join(path).join(setting.file)
    }

    /// True when every file that the kernel offers says what it should.
    pub fn holds(&self, path: &Path, settings: &[Setting]) -> bool {
        settings.iter().all(|setting| match fs::read_to_string(self.file(path, setting)) {
            Ok(text) => same(&text, &setting.value),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        })
    }

    /// Writes what differs. A value that the kernel refuses is logged: a pod with one limit less is better than none.
    pub fn write(&self, path: &Path, settings: &[Setting]) {
        for setting in settings {
            let file = self.file(path, setting);
            match fs::read_to_string(&file) {
                Ok(text) if same(&text, &setting.value) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::debug!(file = %file.display(), "this kernel has no such limit");
                }
                _ => {
                    if let Err(error) = fs::write(&file, &setting.value) {
                        tracing::warn!(file = %file.display(), value = setting.value, %error, "limit not set");
                    }
                }
            }
        }
    }

    /// True when a process lives in the cgroup or below it.
    pub fn populated(&self, path: &Path) -> bool {
        self.folders(path).iter().any(|folder| {
            if self.v2 {
                fs::read_to_string(folder.join("cgroup.events"))
                    .is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
            } else {
                has_processes(folder)
            }
        })
    }

    /// Removes the cgroup and those below it; one in use stays.
    pub fn remove(&self, path: &Path) {
        for folder in self.folders(path) {
            remove_tree(&folder);
        }
    }

    /// Names of the cgroups directly below one.
    pub fn children(&self, path: &Path) -> Vec<String> {
        let mut names: Vec<String> = self
            .folders(path)
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The CPUs of the machine, `0-3`.
    pub fn cpus(&self) -> Option<String> {
        let text = fs::read_to_string(self.root.join("cpuset.cpus.effective")).ok()?;
        Some(text.trim().to_owned()).filter(|t| !t.is_empty())
    }
}

/// The kernel keeps bytes of memory in whole pages, the smallest of which are 4 KiB.
fn same(now: &str, value: &str) -> bool {
    const PAGE: u64 = 4096;
    let (now, value) = (now.trim(), value.trim());
    let pages = |text: &str| text.parse::<u64>().ok().filter(|n| *n >= PAGE).map(|n| n / PAGE);
    now == value
        || pages(now).is_some_and(|n| pages(value) == Some(n) && now.ends_with(&(n * PAGE).to_string()))
}

fn has_processes(folder: &Path) -> bool {
    if fs::read_to_string(folder.join("cgroup.procs")).is_ok_and(|text| !text.trim().is_empty()) {
        return true;
    }
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).any(|e| has_processes(&e.path()))
}

/// Files in a cgroup are the kernel's and go with it.
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

    #[test]
    fn memory_is_compared_in_pages() {
        assert!(same("4096\n", "5000"));
        assert!(!same("4096", "8192"));
        assert!(!same("5000", "5001"));
        assert!(same("max 100000\n", "max 100000"));
        assert!(!same("99", "98"));
    }
}
