//! Making volumes, on disk. Blocking; the manager runs it on threads meant for that.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::atomic_writer::{self, Payload};
use super::payload::Owner;
use super::plan::pod_dir;
use super::{VolumeError, mounts, ownership};

/// Upstream's mode of a volume's folder.
const FOLDER_MODE: u32 = 0o777;

fn folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o777 != FOLDER_MODE {
        fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE))?;
    }
    Ok(())
}

fn is_mounted(path: &Path) -> io::Result<bool> {
    Ok(mounts::list()?.iter().any(|m| m == path))
}

/// An empty directory: made once, then left to the pod. `memory` is the size of a tmpfs.
///
/// # Errors
/// When it cannot be made, mounted or given to the group.
pub fn empty_dir(path: &Path, memory: Option<i64>, owner: Owner, ready: &Path) -> io::Result<()> {
    if ready.exists() && path.is_dir() && (memory.is_none() || is_mounted(path)?) {
        return Ok(());
    }
    folder(path)?;
    // A tmpfs keeps the mode the kernel gives it, 1777, as upstream leaves it.
    if let Some(bytes) = memory
        && !is_mounted(path)?
    {
        mounts::tmpfs(path, bytes)?;
    }
    if let Some(group) = owner.group {
        ownership::set_group(path, group, false)?;
    }
    if let Some(parent) = ready.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(ready, b"")
}

/// A volume of files: its folder (a tmpfs when `memory`) and what is in it. True when something changed.
///
/// # Errors
/// As [`empty_dir`] and [`atomic_writer::write`], as text.
pub fn files(path: &Path, memory: bool, owner: Owner, payload: &Payload) -> Result<bool, String> {
    let told = |e: io::Error| format!("{}: {e}", path.display());
    folder(path).map_err(told)?;
    if memory && !is_mounted(path).map_err(told)? {
        mounts::tmpfs(path, 0).map_err(told)?;
        folder(path).map_err(told)?;
    }
    let own = |generation: &Path| match owner.group {
        Some(group) => ownership::set_group(generation, group, true),
        None => Ok(()),
    };
    atomic_writer::write(path, payload, own).map_err(|e| e.to_string())
}

/// Removes all volumes of a pod: unmounts first, then deletes, and deletes nothing while a mount is left.
/// Works from what is on disk; idempotent.
///
/// # Errors
/// Naming the mount that cannot be unmounted or the folder that cannot be deleted.
pub fn tear_down(root: &Path, uid: &str) -> Result<(), VolumeError> {
    let fail = |reason: String| VolumeError::Unmount { uid: uid.to_owned(), reason };
    let pod = checked_pod_dir(root, uid).ok_or_else(|| fail("not a pod's UID".into()))?;
    let parts = ["volume-subpaths", "volumes"].map(|part| pod.join(part));
    for part in &parts {
        let mounted = mounts::list().map_err(|e| fail(format!("cannot list mounts: {e}")))?;
        for mount in mounts::below(&mounted, part) {
            mounts::unmount(&mount).map_err(|e| fail(format!("unmount {}: {e}", mount.display())))?;
        }
    }
    let left = mounts::list().map_err(|e| fail(format!("cannot list mounts: {e}")))?;
    for part in parts.iter().chain([&pod.join("plugins")]) {
        if let Some(mount) = mounts::below(&left, part).first() {
            return Err(fail(format!("{} is still mounted", mount.display())));
        }
        match fs::remove_dir_all(part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(fail(format!("remove {}: {error}", part.display())));
            }
            _ => {}
        }
    }
    // Others keep things there too (/etc/hosts, termination logs); the last one to leave removes it.
    let _ = fs::remove_dir(&pod);
    Ok(())
}

/// The folder of a pod, unless the UID is no plain name.
fn checked_pod_dir(root: &Path, uid: &str) -> Option<PathBuf> {
    let plain = !uid.is_empty() && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    plain.then(|| pod_dir(root, uid))
}

/// UIDs with something of ours under `<root>/pods`.
pub fn pods_on_disk(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.join("pods")) else { return Vec::new() };
    let mut found: Vec<String> = entries
        .flatten()
        .filter(|entry| {
            ["volumes", "volume-subpaths", "plugins"].iter().any(|part| entry.path().join(part).exists())
        })
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|uid| checked_pod_dir(root, uid).is_some())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::plan::{ready_file, volume_dir};
    use crate::volumes::tests::Scratch;

    #[test]
    fn an_empty_dir_is_made_once_and_torn_down() {
        let root = Scratch::new();
        let path = volume_dir(root.path(), "u-1", "empty-dir", "a");
        let ready = ready_file(root.path(), "u-1", "a");
        empty_dir(&path, None, Owner::default(), &ready).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        fs::write(path.join("kept"), "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        empty_dir(&path, None, Owner::default(), &ready).unwrap();
        assert!(path.join("kept").exists());
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "what the pod did to its volume stays");

        assert_eq!(pods_on_disk(root.path()), ["u-1"]);
        tear_down(root.path(), "u-1").unwrap();
        tear_down(root.path(), "u-1").unwrap();
        assert!(pods_on_disk(root.path()).is_empty());
        assert!(!root.path().join("pods/u-1").exists());
    }

    #[test]
    fn a_uid_is_a_plain_name() {
        let root = Scratch::new();
        for uid in ["", "..", "a/b", "."] {
            assert!(tear_down(root.path(), uid).is_err(), "{uid}");
        }
    }
}
