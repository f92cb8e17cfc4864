//! Everything that can go wrong with the mirror's store, sorted by what the caller does next.

use std::io;
use std::path::PathBuf;

use groups::ids::{GroupId, InstanceId};

use crate::entry::StateDigest;

/// What went wrong, sorted by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory as a whole cannot be trusted or does not open: quarantine it with
    /// [`super::quarantine`] and rebuild every group from a peer and the log.
    #[error("mirror store in {} is unusable: {reason}", dir.display())]
    Unusable {
        /// The store's directory.
        dir: PathBuf,
        /// What was found.
        reason: String,
    },
    /// One group's content cannot be trusted: [`super::MirrorStore::discard`] it and rebuild it.
    #[error("group {group}: its mirror is damaged: {reason}")]
    Damaged {
        /// The group.
        group: GroupId,
        /// What was found.
        reason: String,
    },
    /// An earlier write or sync failed. Nothing more is written through this handle; the
    /// process stops acknowledging and starts again.
    #[error("mirror store is poisoned: {reason}")]
    Poisoned {
        /// The failure that poisoned it.
        reason: String,
    },
    /// The disk had no space for a write, which as a whole has not happened. Nothing more is
    /// written through this handle; opened anew, the store is what it was before.
    #[error("no space for the mirror store: {reason}")]
    NoSpace {
        /// What the operating system said.
        reason: String,
    },
    /// Another process has the directory open.
    #[error("mirror store in {} is open in another process", dir.display())]
    Locked {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The directory was written by the other engine. Nothing was touched.
    #[error("mirror store in {} was written by {found}, not by {asked}", dir.display())]
    OtherEngine {
        /// The store's directory.
        dir: PathBuf,
        /// The engine that wrote it.
        found: String,
        /// The engine asked for.
        asked: &'static str,
    },
    /// The directory was written by a newer release. Nothing was touched.
    #[error("mirror store in {} has format {found}, this program knows up to {known}", dir.display())]
    NewerFormat {
        /// The store's directory.
        dir: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// The operating system refused; says nothing about the content.
    #[error("mirror store: {what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// A batch does not continue where the group stands: applied exactly once, in order.
    #[error("group {group} stands at instance {at}; a batch from {from} to {to} does not continue it")]
    OutOfOrder {
        /// The group.
        group: GroupId,
        /// Where it stands.
        at: InstanceId,
        /// Where the batch begins (the instance before its first).
        from: InstanceId,
        /// Where the batch ends.
        to: InstanceId,
    },
    /// The group moved while it was read without a snapshot: pause the mirror and read again.
    #[error("group {group} moved while it was read")]
    Moved {
        /// The group.
        group: GroupId,
    },
    /// The group has no state here.
    #[error("group {group} has no state in the mirror")]
    Absent {
        /// The group.
        group: GroupId,
    },
    /// The generation is not the one being staged.
    #[error("group {group}: that generation is not being staged")]
    NotStaged {
        /// The group.
        group: GroupId,
    },
    /// Keys of a staged checkpoint must ascend strictly.
    #[error("group {group}: the checkpoint's keys do not ascend")]
    Unsorted {
        /// The group.
        group: GroupId,
    },
    /// What was staged is not the state that the checkpoint promised. Nothing was installed.
    #[error("group {group}: staged state hashes to {found}, the checkpoint promises {promised}")]
    NotThatState {
        /// The group.
        group: GroupId,
        /// From the checkpoint's header.
        promised: StateDigest,
        /// Of the staged entries.
        found: StateDigest,
    },
    /// A key, value or table over the limit. Nothing was written.
    #[error("{what} of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl StoreError {
    /// Wraps an operating system error with what was being done.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Io { what, source }
    }
}

/// Whether the operating system refused for want of space.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What an engine reports, before the store knows which group or directory it means.
#[derive(Debug)]
pub enum EngineError {
    /// The bytes on disk are not what the engine wrote.
    Corrupt(String),
    /// The engine refuses further writes.
    Poisoned(String),
    /// Another process holds the engine's lock.
    Locked,
    /// The operating system refused.
    Io(io::Error),
}
