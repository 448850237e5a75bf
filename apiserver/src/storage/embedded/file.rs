//! The file itself: made, opened, kept from growing without need.
//!
//! A new file is made under another name and renamed when it is complete, so that a machine that stops in
//! between leaves nothing behind that cannot be opened. Opening a file that was closed reads next to nothing;
//! after a crash the pages in use are read once to check them.

use std::cell::Cell;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use redb::{Database, DatabaseError};

use super::{OpenError, tables};

/// Pages of the file kept in memory: the upper ones of the trees and what a commit writes. Objects are read from the
/// watch caches, and below this is the kernel's cache.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// A file below this is never worth shrinking.
const SHRINK_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// A file is shrunk when it is opened and is this many times what it holds.
const SHRINK_FACTOR: u64 = 4;

/// Opens or makes the file (mode 0600, its folder 0700 when it has to be made).
///
/// # Errors
/// When the file cannot be used, is used already, or was made by a newer program.
pub(super) fn open(path: &Path) -> Result<(Database, tables::Found), OpenError> {
    if is_new(path) {
        create(path)?;
    }
    let (mut db, found) = open_existing(path)?;
    shrink(&mut db, path, found.bytes);
    Ok((db, found))
}

/// Opens a file that must be there.
///
/// # Errors
/// As [`open`].
pub(super) fn open_existing(path: &Path) -> Result<(Database, tables::Found), OpenError> {
    let db = database(path, false)?;
    let failure = |source: redb::Error| OpenError::Database { path: path.into(), source: Box::new(source) };
    let found = tables::prepare(&db).map_err(failure)?;
    if found.format > tables::FORMAT {
        let (found, known) = (found.format, tables::FORMAT);
        return Err(OpenError::NewerFormat { path: path.into(), found, known });
    }
    Ok((db, found))
}

pub(super) fn is_new(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() == 0) || !path.exists()
}

/// A database under the file's other name, to be filled and then given to [`finish`]. What an earlier attempt
/// left there is overwritten.
pub(super) fn begin(path: &Path) -> Result<Database, OpenError> {
    if let Some(parent) = folder(path) {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|source| OpenError::File { path: path.into(), source })?;
    }
    database(&unfinished(path), true)
}

/// Gives a filled database its name. It must have been dropped.
pub(super) fn finish(path: &Path) -> Result<(), OpenError> {
    let sync = || {
        std::fs::rename(unfinished(path), path)?;
        // The name is durable only with its folder.
        File::open(folder(path).unwrap_or(Path::new(".")))?.sync_all()
    };
    sync().map_err(|source| OpenError::File { path: path.into(), source })
}

fn create(path: &Path) -> Result<(), OpenError> {
    let db = begin(path)?;
    let failure = |source: redb::Error| OpenError::Database { path: path.into(), source: Box::new(source) };
    tables::prepare(&db).map_err(failure)?;
    // The lock on the unfinished file is held: another process that made one at the same time has finished.
    if is_new(path) {
        drop(db);
        finish(path)?;
    }
    Ok(())
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn folder(path: &Path) -> Option<&Path> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty())
}

fn database(path: &Path, anew: bool) -> Result<Database, OpenError> {
    let file_error = |source| OpenError::File { path: path.into(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(anew)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(file_error)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(file_error)?;
    if anew {
        // Nobody else may be about to finish what is emptied here. The database below keeps the lock.
        file.try_lock().map_err(|_| OpenError::InUse { path: path.into() })?;
        file.set_len(0).map_err(file_error)?;
    }
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_repair_callback(tell_repair(path.to_owned()));
    builder.create_file(file).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.into() },
        other => OpenError::Database { path: path.into(), source: Box::new(other.into()) },
    })
}

/// Tells once that a file is checked after a crash, and then of each tenth.
fn tell_repair(path: PathBuf) -> impl Fn(&mut redb::RepairSession) + 'static {
    let told = Cell::new(-1);
    move |session| {
        let tenth = (session.progress() * 10.0) as i32;
        if tenth > told.replace(told.get().max(tenth)) {
            tracing::info!(path = %path.display(), percent = tenth * 10, "checking the store after a crash");
        }
    }
}

/// Gives space back that nothing uses. `held` is what the rows weigh.
fn shrink(db: &mut Database, path: &Path, held: u64) {
    let size = || std::fs::metadata(path).map_or(0, |file| file.len());
    let before = size();
    if before < SHRINK_BYTES_MIN || before / SHRINK_FACTOR < held {
        return;
    }
    let begun = Instant::now();
    match db.compact() {
        Ok(_) => {
            let (bytes, took_ms) = (size(), begun.elapsed().as_millis());
            tracing::info!(path = %path.display(), before, bytes, took_ms, "gave unused space back");
        }
        // Only space is lost.
        Err(error) => tracing::warn!(path = %path.display(), %error, "cannot shrink the store"),
    }
}

/// How large the file is.
pub(super) fn size(path: &Path) -> io::Result<u64> {
    std::fs::metadata(path).map(|file| file.len())
}
