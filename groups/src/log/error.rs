//! One error per operation.

use crate::ids::{GroupId, InstanceId, StorageId};
use crate::log::segment::LOG_VERSION;
use std::fmt;
use std::io;
use thiserror::Error;

/// A place in the log whose bytes were once synced and are no longer what they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, relative to the directory of the log.
    pub file: String,
    /// Bytes from its start.
    pub offset: u64,
    /// What is wrong there.
    pub why: String,
    /// Groups known to have records in the damaged commit, from what is still readable. Empty or
    /// incomplete when headers are gone: then any group may be concerned.
    pub groups: Vec<GroupId>,
}

impl Damage {
    /// Damage that is not at one place of the file.
    pub(super) fn whole(file: &str, why: &str) -> Damage {
        Damage { file: file.into(), offset: 0, why: why.into(), groups: Vec::new() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file, self.offset, self.why)?;
        if !self.groups.is_empty() {
            let groups: Vec<String> = self.groups.iter().map(GroupId::to_string).collect();
            write!(f, " (groups {})", groups.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Damage {}

/// Why a log was not opened. Nothing was changed on the disk, except after [`OpenError::Io`],
/// which may come from the middle of the repair of a torn tail; that can be repeated.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("the log is in use by another process")]
    Locked,
    /// The options contradict each other.
    #[error("bad log options: {0}")]
    Options(&'static str),
    /// The file belongs to another data directory.
    #[error("{file} belongs to storage {found}, this is storage {expected}")]
    Foreign {
        /// The file.
        file: String,
        /// The storage id that the log should have.
        expected: StorageId,
        /// The storage id that it has.
        found: StorageId,
    },
    /// The file was written by a newer version of the program.
    #[error("{file} has format {version}, this program reads up to {LOG_VERSION}; nothing was changed")]
    Newer {
        /// The file.
        file: String,
        /// Its format version.
        version: u32,
    },
    /// What was once synced is damaged or missing: a restart must not pretend to remember.
    #[error("the log is damaged: {0}; nothing was changed")]
    Damaged(#[from] Damage),
    /// There is no room for a segment.
    #[error("no space for the log")]
    NoSpace,
    /// The file system failed.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// What came back.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        move |source| if is_full(&source) { OpenError::NoSpace } else { OpenError::Io { doing, source } }
    }
}

/// Why a record was not taken.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    /// The record is larger than the log takes.
    #[error("a record of {size} bytes, the log takes {max}")]
    TooLarge {
        /// Size of the encoded record in bytes.
        size: usize,
        /// `LogOptions::max_record`.
        max: usize,
    },
    /// An earlier failure ended this log.
    #[error("the log has failed before")]
    Poisoned,
}

/// Why a commit did not happen. Nothing of it may be acknowledged.
#[derive(Debug, Error)]
pub enum CommitError {
    /// There is no room for the next segment. The log is intact, the records are still pending,
    /// and the commit may be tried again when there is space.
    #[error("no space for the next segment of the log")]
    NoSpace,
    /// The file system failed. The log is poisoned: what is on the disk is known again only
    /// after the next open.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// What came back.
        source: io::Error,
    },
    /// An earlier failure ended this log.
    #[error("the log has failed before")]
    Poisoned,
}

/// Why nothing was read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The log begins further on; what is missing is in a checkpoint.
    #[error("the log begins with instance {first}")]
    NotHere {
        /// Where the values of the group begin, see [`Log::first_instance`](crate::log::Log::first_instance).
        first: InstanceId,
    },
    /// The record is no longer what was written.
    #[error("the log is damaged: {0}")]
    Damaged(Damage),
    /// The file system failed.
    #[error("could not read the log: {0}")]
    Io(io::Error),
    /// An earlier failure ended this log.
    #[error("the log has failed before")]
    Poisoned,
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
