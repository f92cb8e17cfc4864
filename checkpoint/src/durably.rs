//! Small files that are there whole or not at all, and directories that remember them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Makes the names in a directory durable: a created or renamed file survives power loss only
/// once its directory is synced.
///
/// # Errors
/// Whatever the operating system reports; final, never to be retried as if it had worked.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    // An empty parent is the current directory.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

/// Replaces `path` with `bytes`: written beside it, synced, renamed, directory synced.
///
/// # Errors
/// Whatever the operating system reports. The old content stays in place then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let staged = staged_name(path);
    let mut file = File::create(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&staged, path)?;
    sync_dir(parent(path))
}

/// Creates a directory with its parents and makes its name durable.
///
/// # Errors
/// Whatever the operating system reports.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    sync_dir(dir)?;
    sync_dir(parent(dir))
}

/// Syncs every file and directory below `dir`, for an engine whose own flush is not durable.
///
/// # Errors
/// Whatever the operating system reports; a file that vanished meanwhile is none.
pub fn sync_tree(dir: &Path) -> io::Result<()> {
    for found in fs::read_dir(dir)? {
        let found = found?;
        let path = found.path();
        let synced = if found.file_type()?.is_dir() {
            sync_tree(&path)
        } else {
            File::open(&path).and_then(|file| file.sync_all())
        };
        match synced {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    sync_dir(dir)
}

/// Bytes of all files below `dir` as they occupy the disk (holes do not count).
///
/// # Errors
/// Whatever the operating system reports; a file that vanished meanwhile is none.
pub fn disk_bytes(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for found in fs::read_dir(dir)? {
        let found = found?;
        let path = found.path();
        let bytes = if found.file_type()?.is_dir() {
            disk_bytes(&path)
        } else {
            fs::metadata(&path).map(|meta| meta.blocks() * 512)
        };
        match bytes {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => sum += other?,
        }
    }
    Ok(sum)
}

/// Where the bytes of `path` are collected before they are complete.
pub(crate) fn staged_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}
