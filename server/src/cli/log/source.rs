//! Opening the data directory of a stopped node for reading only.

use std::fmt;
use std::path::{Path, PathBuf};

use groups::ids::StorageId;
use groups::log::{At, Disk, OpenError, RealDisk, Record, Recovered, inspect};

use crate::cli::Failure;
use crate::node::manifest::{Manifest, ManifestError, Stage};

/// The node's own subfolder for its log.
const LOG: &str = "log";
/// Where a running node holds its lock.
const LOCK: &str = "LOCK";

/// The log of a stopped node, locked as long as this lives.
pub struct Source {
    /// What the directory says about itself.
    pub manifest: Manifest,
    /// The folder of the log.
    pub folder: PathBuf,
    /// `None` while the node has not begun a log.
    log: Option<RealDisk>,
    /// Holds the lock.
    _node: RealDisk,
}

/// How reading ended. Damage is a finding, not a failure.
#[derive(Debug)]
pub enum Ending {
    /// The node has no log yet.
    None,
    /// Everything was read.
    Whole(Recovered),
    /// Something in it is not what was written; what is wrong, for people.
    Damaged(String),
}

impl Source {
    /// Opens a directory such as `data/node-1`.
    pub fn open(dir: &Path) -> Result<Source, Failure> {
        let shown = dir.display();
        if !dir.is_dir() {
            return Err(Failure::error(format!(
                "{shown} is not a directory. Give the directory of one node, as in data/node-1"
            )));
        }
        let node = lock(dir)?;
        let manifest = match Manifest::load(&node) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Err(Failure::error(no_manifest(dir))),
            Err(error @ ManifestError::Damaged(_)) => return Err(Failure::no(format!("{shown}: {error}"))),
            Err(error) => return Err(Failure::error(format!("{shown}: {error}"))),
        };
        let folder = dir.join(LOG);
        let log = if folder.is_dir() { Some(lock(&folder)?) } else { None };
        Ok(Source { manifest, folder, log, _node: node })
    }

    /// Reads the whole log; `visit` sees every surviving record.
    pub fn read(&self, visit: &mut dyn FnMut(At, Record)) -> Result<Ending, Failure> {
        let Some(disk) = &self.log else { return Ok(Ending::None) };
        let folder = self.folder.display();
        match inspect(disk, Some(self.manifest.storage), visit) {
            Ok(found) if found.fresh => Ok(Ending::None),
            Ok(found) => Ok(Ending::Whole(found)),
            Err(OpenError::Damaged(damage)) => Ok(Ending::Damaged(format!("{folder}/{damage}"))),
            Err(OpenError::Foreign { file, expected, found }) => {
                Ok(Ending::Damaged(foreign(&format!("{folder}/{file}"), expected, found)))
            }
            Err(error) => Err(Failure::error(format!("{folder}: {error}"))),
        }
    }
}

fn foreign(file: &str, expected: StorageId, found: StorageId) -> String {
    format!("{file} belongs to storage {found}, this directory is storage {expected}: it was copied here")
}

/// A directory that no process may use meanwhile. One without a lock file was never used by a
/// node, or is a copy: nothing is created in it.
fn lock(dir: &Path) -> Result<RealDisk, Failure> {
    let fail = |error| Failure::error(format!("could not open {}: {error}", dir.display()));
    let mut disk = RealDisk::open(dir).map_err(fail)?;
    if !dir.join(LOCK).exists() {
        return Ok(disk);
    }
    match disk.lock() {
        Ok(true) => Ok(disk),
        Ok(false) => Err(Failure::error(format!(
            "{} is in use by a running node. Nothing was read. Stop the node first, or look at it with: \
             pelago status",
            dir.display()
        ))),
        // A copy that this user may only read is not in use by this user's node.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(disk),
        Err(error) => Err(fail(error)),
    }
}

fn no_manifest(dir: &Path) -> String {
    let nodes: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join(crate::node::manifest::FILE).is_file())
        .take(10)
        .collect();
    let shown = dir.display();
    match nodes.iter().min() {
        Some(first) => {
            format!(
                "{shown} holds the directories of several nodes. Give one of them, as in {}",
                first.display()
            )
        }
        None => format!(
            "{shown} holds no file {}: it is not the directory of a node. Give one such as data/node-1",
            crate::node::manifest::FILE
        ),
    }
}

impl fmt::Display for Source {
    /// Whose log it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manifest { cluster_name, node, storage, boot, stage, .. } = &self.manifest;
        write!(f, "node {node} of cluster \"{cluster_name}\"")?;
        match stage {
            Stage::Born(cluster, _) => write!(f, " ({cluster})")?,
            Stage::Voted(_) | Stage::Empty | Stage::Replacement => f.write_str(" (not born yet)")?,
        }
        write!(f, ", storage {storage}, started {boot} times")
    }
}
