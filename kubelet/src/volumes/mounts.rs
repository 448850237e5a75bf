//! Mounts of this process's namespace: what is there, tmpfs, binds, and unmounting.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mount points, in mount order.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn list() -> io::Result<Vec<PathBuf>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

fn parse(mountinfo: &[u8]) -> Vec<PathBuf> {
    let lines = mountinfo.split(|b| *b == b'\n');
    lines.filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(unescape).collect()
}

/// The kernel writes space, tab, newline and backslash as octal.
fn unescape(field: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let (mut out, mut at) = (Vec::with_capacity(field.len()), 0);
    while at < field.len() {
        let digits = field.get(at + 1..at + 4).and_then(|d| std::str::from_utf8(d).ok());
        let octal = digits.and_then(|d| u8::from_str_radix(d, 8).ok());
        match (field[at], octal) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                at += 4;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

/// Mount points at or below `path`, innermost and newest first: the order in which to unmount.
pub fn below(mounts: &[PathBuf], path: &Path) -> Vec<PathBuf> {
    mounts.iter().rev().filter(|m| m.starts_with(path)).cloned().collect()
}

/// Mounts a tmpfs; `bytes` 0 is the kernel's default size.
///
/// # Errors
/// As mount(2).
pub fn tmpfs(path: &Path, bytes: i64) -> io::Result<()> {
    let size = (bytes > 0).then(|| format!("size={bytes}"));
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), size.as_deref()).map_err(Into::into)
}

/// Binds `from` over `to`.
///
/// # Errors
/// As mount(2).
pub fn bind(from: &Path, to: &Path) -> io::Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(Into::into)
}

/// Unmounts; a path that is no mount point is fine.
///
/// # Errors
/// As umount(2), such as a mount in use.
pub fn unmount(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_and_ordered() {
        let text = b"22 1 0:20 / / rw - ext4 /dev/a rw\n\
            23 22 0:21 / /k/pods/u/v\\040x rw shared:1 - tmpfs tmpfs rw\n\
            24 23 0:22 / /k/pods/u/v\\040x/in rw - tmpfs tmpfs rw\n\
            25 22 0:23 / /k/pods/uu rw - tmpfs tmpfs rw\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 4);
        assert_eq!(
            below(&mounts, Path::new("/k/pods/u")),
            [PathBuf::from("/k/pods/u/v x/in"), PathBuf::from("/k/pods/u/v x")]
        );
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(list().unwrap().contains(&PathBuf::from("/")));
    }
}
