//! `fsGroup`: a volume's files belong to the group, which may read (and, unless read-only, write) them.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
const SET_GID: u32 = 0o2000;
const EXECUTE: u32 = 0o110;

/// The mode of a file or folder once the group has its rights.
fn mode_for(mode: u32, folder: bool, read_only: bool) -> u32 {
    let mask = if read_only { READ_ONLY } else { READ_WRITE };
    mode | mask | if folder { SET_GID | EXECUTE } else { 0 }
}

/// Gives everything below and including `path` to the group. Symlinks are not followed.
///
/// # Errors
/// With the first file that cannot be changed.
pub fn set_group(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mode = mode_for(meta.permissions().mode() & 0o7777, meta.is_dir(), read_only);
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            set_group(&entry?.path(), group, read_only)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_gets_what_it_needs() {
        assert_eq!(mode_for(0o600, false, true), 0o640);
        assert_eq!(mode_for(0o644, false, false), 0o664);
        assert_eq!(mode_for(0o755, true, true), 0o2755);
        assert_eq!(mode_for(0o777, true, false), 0o2777);
    }
}
