//! `subPath`: a folder or file inside a volume, found without ever leaving the volume, and held by a bind
//! mount so that what a container does to symlinks later changes nothing.
//!
//! Answers to upstream's `pkg/volume/util/subpath`. Resolution is the kernel's (openat2 with RESOLVE_BENEATH),
//! so there is no moment between a check and its use.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};

use super::mounts;

/// Opens `sub` below `base`, making missing folders with the mode of `base`.
///
/// # Errors
/// When the path leaves the volume, is no path, or cannot be made.
pub fn open(base: &Path, sub: &str) -> io::Result<OwnedFd> {
    let parts = parts(sub)?;
    let root = File::open(base)?;
    let mode = root.metadata()?.permissions().mode() & 0o777;
    let mut walked = PathBuf::from(".");
    for part in parts {
        let parent = walked.clone();
        walked.push(&part);
        match beneath(&root, &walked, OFlag::O_PATH) {
            Ok(_) => {}
            Err(nix::Error::ENOENT) => make(&root, &parent, Path::new(&part), mode).map_err(outside)?,
            Err(error) => return Err(outside(error)),
        }
    }
    beneath(&root, &walked, OFlag::O_PATH).map_err(outside)
}

fn outside(error: nix::Error) -> io::Error {
    match error {
        nix::Error::EXDEV => io::Error::other("the subPath leads out of the volume"),
        nix::Error::ELOOP => io::Error::other("the subPath has too many symlinks"),
        other => other.into(),
    }
}

fn parts(sub: &str) -> io::Result<Vec<std::ffi::OsString>> {
    let mut parts = Vec::new();
    for component in Path::new(sub).components() {
        match component {
            Component::Normal(name) => parts.push(name.to_owned()),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => {
                return Err(io::Error::other("must be a relative path"));
            }
            Component::ParentDir => return Err(io::Error::other("must not contain '..'")),
        }
    }
    Ok(parts)
}

fn beneath(root: &impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(root, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve))
}

fn make(root: &File, parent: &Path, name: &Path, mode: u32) -> nix::Result<()> {
    let parent = beneath(root, parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    match mkdirat(&parent, name, Mode::from_bits_truncate(0o700)) {
        Ok(()) => {}
        // A dangling symlink of that name, or someone was faster.
        Err(nix::Error::EEXIST) => return Err(nix::Error::ENOENT),
        Err(error) => return Err(error),
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let made = beneath(&parent, name, flags)?;
    fchmod(&made, Mode::from_bits_truncate(mode))
}

/// Binds what `open` found to `target`, which is made as a folder or a file to fit. A target that is a mount
/// already stays as it is.
///
/// # Errors
/// When the target cannot be made or mounted on.
pub fn bind(found: &OwnedFd, target: &Path) -> io::Result<()> {
    if mounts::list()?.iter().any(|m| m == target) {
        return Ok(());
    }
    let through = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let kind = fs::metadata(&through)?.file_type();
    if kind.is_socket() || kind.is_dir() || kind.is_file() || kind.is_fifo() || kind.is_char_device() {
        prepare_target(target, kind.is_dir())?;
    } else {
        return Err(io::Error::other("the subPath is neither a folder nor a file"));
    }
    mounts::bind(&through, target)
}

fn prepare_target(target: &Path, folder: bool) -> io::Result<()> {
    if folder {
        return fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if target.is_dir() {
        fs::remove_dir(target)?;
    }
    fs::OpenOptions::new().create(true).append(true).open(target).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Scratch;
    use std::os::unix::fs::symlink;

    fn resolved(found: &OwnedFd) -> PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).unwrap()
    }

    #[test]
    fn folders_are_made_inside() {
        let dir = Scratch::new();
        let found = open(dir.path(), "a/b").unwrap();
        assert_eq!(resolved(&found), dir.path().canonicalize().unwrap().join("a/b"));
        fs::write(dir.path().join("a/file"), "x").unwrap();
        open(dir.path(), "a/file").unwrap();
        assert!(open(dir.path(), "a/file/below").is_err());
    }

    #[test]
    fn symlinks_inside_are_followed_and_out_of_it_refused() {
        let dir = Scratch::new();
        let (volume, secret) = (dir.path().join("volume"), dir.path().join("secret"));
        fs::create_dir_all(volume.join("..gen")).unwrap();
        fs::create_dir(&secret).unwrap();
        fs::write(volume.join("..gen/key"), "x").unwrap();
        symlink("..gen", volume.join("..data")).unwrap();
        symlink("..data/key", volume.join("key")).unwrap();
        assert!(resolved(&open(&volume, "key").unwrap()).ends_with("..gen/key"));
        symlink("../secret", volume.join("up")).unwrap();
        symlink(&secret, volume.join("absolute")).unwrap();
        symlink("/nowhere", volume.join("dangling")).unwrap();
        for sub in ["up", "absolute", "absolute/x", "up/made", "../secret", "/etc", "dangling", "dangling/x"]
        {
            assert!(open(&volume, sub).is_err(), "{sub}");
        }
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 0, "nothing was made outside");
    }
}
