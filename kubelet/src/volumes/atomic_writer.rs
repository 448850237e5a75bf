//! Files of a volume that change all at once: `name -> ..data/name`, `..data -> ..<timestamp>`.
//!
//! Answers to upstream's `pkg/volume/util/atomic_writer.go`; the layout is what programs in containers watch.
//! A reader that resolves `..data` once sees one generation, whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rand::Rng;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";
const PATH_LENGTH_MAX: usize = 4096;
const NAME_LENGTH_MAX: usize = 255;

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProjection {
    pub data: Vec<u8>,
    pub mode: u32,
    /// Owner, when all containers of the pod run as one user.
    pub fs_user: Option<u32>,
}

/// Files by their path below the volume.
pub type Payload = BTreeMap<String, FileProjection>;

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("invalid path: {0}")]
    Path(String),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Io { path, source }
}

/// Makes `target` hold exactly `payload`; true when something changed. `own` is applied to the folder of the
/// new generation before it becomes visible.
///
/// # Errors
/// For a path that leaves the volume, and when the file system refuses; the old generation stays then.
pub fn write(
    target: &Path,
    payload: &Payload,
    own: impl Fn(&Path) -> io::Result<()>,
) -> Result<bool, WriteError> {
    for path in payload.keys() {
        validate(path)?;
    }
    let data = target.join(DATA);
    let old = fs::read_link(&data).ok();
    if let Some(old) = &old
        && holds(&target.join(old), payload)
    {
        link_visible(target, payload)?;
        return Ok(false);
    }
    let name = generation_name();
    let folder = target.join(&name);
    let written = fill(&folder, payload).and_then(|()| own(&folder).map_err(at(&folder)));
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&folder);
        return Err(error);
    }
    let new = target.join(DATA_NEW);
    let _ = fs::remove_file(&new);
    symlink(&name, &new).map_err(at(&new))?;
    fs::rename(&new, &data).map_err(at(&data))?;
    link_visible(target, payload)?;
    sweep(target, payload, &name)?;
    Ok(true)
}

fn validate(path: &str) -> Result<(), WriteError> {
    let refuse = |what: String| Err(WriteError::Path(what));
    if path.is_empty() {
        return refuse("must not be empty: \"\"".into());
    }
    if path.starts_with('/') {
        return refuse(format!("must be relative path: {path}"));
    }
    if path.len() > PATH_LENGTH_MAX {
        return refuse(format!("must be less than or equal to {PATH_LENGTH_MAX} characters"));
    }
    for part in path.split('/') {
        if part == ".." {
            return refuse(format!("must not contain '..': {path}"));
        }
        if part.len() > NAME_LENGTH_MAX {
            return refuse(format!("filenames must be less than or equal to {NAME_LENGTH_MAX} characters"));
        }
    }
    if path.starts_with("..") {
        return refuse(format!("must not start with '..': {path}"));
    }
    Ok(())
}

fn generation_name() -> String {
    let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    format!("..{}.{}", now.strftime("%Y_%m_%d_%H_%M_%S"), rand::rng().random::<u32>())
}

/// Whether a generation has these files with this content, and no others.
fn holds(folder: &Path, payload: &Payload) -> bool {
    let mut found = BTreeSet::new();
    if files_below(folder, Path::new(""), &mut found).is_err() || found.len() != payload.len() {
        return false;
    }
    payload.iter().all(|(path, file)| {
        let path = normal(path);
        found.contains(&path) && fs::read(folder.join(&path)).is_ok_and(|data| data == file.data)
    })
}

/// The path without `.` and doubled slashes.
fn normal(path: &str) -> PathBuf {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

fn files_below(folder: &Path, prefix: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(prefix))? {
        let entry = entry?;
        let path = prefix.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            files_below(folder, &path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

fn fill(folder: &Path, payload: &Payload) -> Result<(), WriteError> {
    fs::create_dir(folder).map_err(at(folder))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(at(folder))?;
    for (path, file) in payload {
        let full = folder.join(normal(path));
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent).map_err(at(parent))?;
        }
        fs::write(&full, &file.data).map_err(at(&full))?;
        // The umask has had its say at creation; the mode asked for is exact.
        fs::set_permissions(&full, fs::Permissions::from_mode(file.mode & 0o777)).map_err(at(&full))?;
        if file.fs_user.is_some() {
            lchown(&full, file.fs_user, None).map_err(at(&full))?;
        }
    }
    Ok(())
}

fn top(path: &str) -> PathBuf {
    normal(path).components().next().map(|c| PathBuf::from(c.as_os_str())).unwrap_or_default()
}

fn link_visible(target: &Path, payload: &Payload) -> Result<(), WriteError> {
    for (path, file) in payload {
        let top = top(path);
        let visible = target.join(&top);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new(DATA).join(&top), &visible).map_err(at(&visible))?;
            if file.fs_user.is_some() {
                lchown(&visible, file.fs_user, None).map_err(at(&visible))?;
            }
        }
    }
    Ok(())
}

/// Removes visible names that are gone and generations that nobody points to (also those of a crash).
fn sweep(target: &Path, payload: &Payload, current: &str) -> Result<(), WriteError> {
    let wanted: BTreeSet<PathBuf> = payload.keys().map(|path| top(path)).collect();
    for entry in fs::read_dir(target).map_err(at(target))? {
        let entry = entry.map_err(at(target))?;
        let (name, path) = (entry.file_name(), entry.path());
        let kind = entry.file_type().map_err(at(&path))?;
        let hidden = name.to_string_lossy().starts_with("..");
        if kind.is_symlink() && !hidden && !wanted.contains(Path::new(&name)) {
            fs::remove_file(&path).map_err(at(&path))?;
        } else if kind.is_dir() && hidden && name != current {
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Scratch;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, data)| {
                let file = FileProjection { data: data.as_bytes().to_vec(), mode: 0o640, fs_user: None };
                ((*path).to_owned(), file)
            })
            .collect()
    }

    #[test]
    fn an_update_swaps_everything_and_leaves_nothing() {
        let dir = Scratch::new();
        let first = payload(&[("a", "1"), ("sub/b", "2")]);
        assert!(write(dir.path(), &first, |_| Ok(())).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.path().join("sub/b")).unwrap(), "2");
        assert_eq!(fs::read_link(dir.path().join("sub")).unwrap(), Path::new("..data/sub"));
        let mode = fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let generation = fs::read_link(dir.path().join(DATA)).unwrap();
        assert!(!write(dir.path(), &first, |_| Ok(())).unwrap(), "the same is no change");

        assert!(write(dir.path(), &payload(&[("a", "3"), ("c", "4")]), |_| Ok(())).unwrap());
        assert_ne!(fs::read_link(dir.path().join(DATA)).unwrap(), generation);
        assert!(!dir.path().join(generation).exists());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert!(fs::symlink_metadata(dir.path().join("sub")).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_failure_keeps_the_old_generation() {
        let dir = Scratch::new();
        write(dir.path(), &payload(&[("a", "1")]), |_| Ok(())).unwrap();
        let refused = write(dir.path(), &payload(&[("a", "2")]), |_| Err(io::Error::other("no")));
        assert!(refused.is_err());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "1");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn paths_that_leave_the_volume_are_refused() {
        let dir = Scratch::new();
        for path in ["", "/a", "../a", "a/../../b", "..data", "..x/y"] {
            assert!(write(dir.path(), &payload(&[(path, "")]), |_| Ok(())).is_err(), "{path}");
        }
        assert!(write(dir.path(), &payload(&[("a..b/c", "")]), |_| Ok(())).is_ok());
    }
}
