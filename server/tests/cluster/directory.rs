//! Directories of tests, and what is in them byte by byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that ends with the test.
#[derive(Debug)]
pub struct TestDir {
    path: PathBuf,
}

impl TestDir {
    /// A new, empty directory.
    pub fn new() -> TestDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pelago-test-{}-{number}", std::process::id()));
        // What an earlier process of the same number may have left.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("cannot create {}: {e}", path.display()));
        TestDir { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if std::env::var_os("PELAGO_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// All files under a directory with their bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Snapshot {
    /// Reads everything under `root`.
    pub fn of(root: &Path) -> Snapshot {
        let mut files = BTreeMap::new();
        let mut open = vec![root.to_owned()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("cannot list {}: {e}", dir.display())) {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let bytes =
                        fs::read(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
                    files.insert(path, bytes);
                }
            }
        }
        Snapshot { files }
    }

    /// Fails with the names of the files that differ.
    ///
    /// # Panics
    /// When any does.
    pub fn assert_unchanged(&self, root: &Path) {
        let now = Snapshot::of(root);
        let names = self.files.keys().chain(now.files.keys());
        let changed: Vec<&PathBuf> =
            names.filter(|name| self.files.get(*name) != now.files.get(*name)).collect();
        assert!(changed.is_empty(), "changed, new or gone: {changed:?}");
    }
}

/// Copies a directory with everything in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
