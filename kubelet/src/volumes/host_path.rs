//! `hostPath`: a path of the node as it is, checked against the type the pod asked for.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Checks `path`, or makes it where the type says so. An empty type checks nothing.
///
/// # Errors
/// With upstream's text when the path is of another type.
pub fn check(path: &Path, kind: &str) -> Result<(), String> {
    let is = |test: fn(&fs::FileType) -> bool| fs::metadata(path).is_ok_and(|m| test(&m.file_type()));
    let expect = |matches: bool, what: &str| {
        if matches {
            Ok(())
        } else {
            Err(format!("hostPath type check failed: {} is not {what}", path.display()))
        }
    };
    let missing = || matches!(fs::symlink_metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound);
    let made = |result: io::Result<()>| result.map_err(|e| format!("cannot make {}: {e}", path.display()));
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if missing() => {
            made(fs::DirBuilder::new().recursive(true).mode(0o755).create(path))
        }
        "DirectoryOrCreate" | "Directory" => expect(is(fs::FileType::is_dir), "a directory"),
        "FileOrCreate" if missing() => made(
            fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path).map(drop),
        ),
        "FileOrCreate" | "File" => expect(is(fs::FileType::is_file), "a file"),
        "Socket" => expect(is(FileTypeExt::is_socket), "a socket file"),
        "CharDevice" => expect(is(FileTypeExt::is_char_device), "a character device"),
        "BlockDevice" => expect(is(FileTypeExt::is_block_device), "a block device"),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Scratch;

    #[test]
    fn types_are_checked_and_made() {
        let dir = Scratch::new();
        let (folder, file, socket) = (dir.path().join("d/e"), dir.path().join("f"), dir.path().join("s"));
        check(&folder, "DirectoryOrCreate").unwrap();
        check(&folder, "Directory").unwrap();
        check(&file, "FileOrCreate").unwrap();
        check(&file, "File").unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        check(&socket, "Socket").unwrap();
        check(Path::new("/dev/null"), "CharDevice").unwrap();
        check(&dir.path().join("none"), "").unwrap();
        assert_eq!(
            check(&file, "DirectoryOrCreate").unwrap_err(),
            format!("hostPath type check failed: {} is not a directory", file.display())
        );
        assert!(check(&folder, "File").is_err());
        assert!(check(&file, "BlockDevice").is_err());
        assert_eq!(check(&file, "Nonsense").unwrap_err(), "Nonsense is an invalid volume type");
    }
}
