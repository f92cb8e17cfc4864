//! One write-ahead log per node, shared by all its Paxos groups.
//!
//! # The contract
//!
//! [`append`](Log::append) puts records of any groups into the pending commit and touches no
//! disk. [`commit`](Log::commit) makes everything pending durable with one write and one sync.
//! When it returns `Ok`, what waited for those records may be said: promises, accepts, own
//! votes. When it returns [`CommitError::NoSpace`], nothing of it may be said yet. When it
//! returns anything else, nothing of it may ever be said, and the log is **poisoned**: every
//! later call fails. A second sync could succeed without the bytes of the first, because the
//! kernel forgets what it failed to write; only opening the files anew tells what is there.
//!
//! After a restart [`open`](Log::open) hands back every record of every completed commit in the
//! order of the appends, and of the commit that was under way when the process died either all
//! records or none. Of a commit that had to be divided because it was longer than a segment,
//! that holds for each part, and no part survives without those before it. A group that was
//! brought forward with an [`Anchor`](Record::Anchor) may lack what came before it: the oldest
//! segment goes when nobody needs it, see `gc.rs`.
//!
//! The driver:
//!
//! ```text
//! let (mut log, recovered) = Log::open(disk, options, &mut |record| replay(record))?;
//! loop {
//!     for record in everything_ready() {
//!         log.append(&record)?;
//!     }
//!     if log.pending_bytes() > 0 {
//!         log.commit()?;                  // one sync for all groups
//!         release_what_waited();
//!     } else if idle() {
//!         log.seal()?;                    // does nothing the second time
//!     }
//!     if too_large(log.stats().disk_bytes) && !log.drop_oldest()? {
//!         bring_forward(log.pins(64));    // anchors, with the records of a later turn
//!     }
//! }
//! ```
//!
//! `open.rs`, `commit.rs`, `rotate.rs`, `gc.rs` and `read.rs` hold what a log does, `index.rs`
//! what it knows without reading, and `shelf.rs` what it shares with readers on other threads. The bytes are drawn in [`record`] and [`segment`], the reasoning of recovery stands in
//! [`recovery`], and [`disk`] is the only file that knows the file system.

mod commit;
pub mod disk;
mod error;
mod gc;
mod index;
mod open;
mod read;
pub mod record;
pub mod recovery;
mod rotate;
mod scrub;
pub mod segment;
mod shelf;
mod sim_disk;

pub use disk::{Access, Disk, DiskFile, RealDisk};
pub use error::{AppendError, CommitError, Damage, OpenError, ReadError};
pub use gc::Pinned;
pub use index::Pin;
pub use open::inspect;
pub use read::{Found, LogReader};
pub use record::Record;
pub use recovery::{At, Recovered, TornTail};
pub use scrub::{Scrubbed, scrub_segment, sealed_segments};
pub use segment::SegmentSeq;
pub use sim_disk::{DiskImage, SimDisk, SimFile};

use crate::ids::{CommitId, GroupId, InstanceId, StorageId};
use commit::Pending;
use record::{ANCHOR_PAYLOAD, Place, RECORD_HEADER};
use recovery::MAX_SEGMENT;
use segment::{COMMIT_ALIGN, SEGMENT_HEADER, SegmentHeader};
use shelf::{Shared, Volume};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Every commit is synced. What is acknowledged survives a power loss.
    #[default]
    Fsync,
    /// Commits are written but not synced: they survive the death of the process, not that of
    /// the machine, after which the log may not even open. For measurements.
    None,
}

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Size of new segments in bytes, a multiple of 4096 and at most 1 GiB. Existing segments
    /// keep theirs.
    pub segment_size: u64,
    /// The disk that this log belongs to; a log of another one is refused.
    pub storage_id: StorageId,
    /// The largest record that is taken, in encoded bytes; must fit a segment.
    pub max_record: usize,
    /// Whether a commit waits for the disk.
    pub durability: Durability,
}

impl LogOptions {
    fn check(&self) -> Result<(), OpenError> {
        if !self.segment_size.is_multiple_of(4096) || self.segment_size > MAX_SEGMENT {
            return Err(OpenError::Options("segment_size must be a multiple of 4096, at most 1 GiB"));
        }
        let room = self.segment_size.saturating_sub((SEGMENT_HEADER + COMMIT_ALIGN) as u64);
        if self.max_record as u64 > room || self.max_record < RECORD_HEADER + ANCHOR_PAYLOAD {
            return Err(OpenError::Options("max_record must fit a segment and hold an anchor"));
        }
        Ok(())
    }
}

/// Figures of a log since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Segments that make up the log.
    pub segments: u64,
    /// Bytes that the segments take on the disk, those that could not be removed included.
    pub disk_bytes: u64,
    /// Segments that were dropped.
    pub dropped_segments: u64,
    /// Commits written, empty ones included.
    pub commits: u64,
    /// Records written.
    pub records: u64,
    /// Bytes written by commits, headers and padding included.
    pub written_bytes: u64,
    /// Commits that waited because the next segment was not ready.
    pub waits_for_segment: u64,
}

/// The log. One owner, one thread; see the module for the contract.
pub struct Log<D: Disk> {
    disk: D,
    options: LogOptions,
    /// From the oldest to the one that is written; never empty.
    segments: VecDeque<Segment<D::File>>,
    /// Where the next commit goes in the last segment: `SEGMENT_HEADER <= end <= size`, and a
    /// multiple of `COMMIT_ALIGN`. Everything before it is synced, everything behind it is zero.
    end: u64,
    /// The last commit that was synced, and whether it was empty.
    last_commit: CommitId,
    last_empty: bool,
    pending: Pending,
    spare: Spare,
    /// A segment that has its name, but is not in the manifest and may hold no commit.
    arrived: Option<Segment<D::File>>,
    /// What readers see.
    shelf: Arc<Shared<D::File>>,
    /// Dropped segments whose files could not be removed, and their sizes.
    doomed: Vec<(SegmentSeq, u64)>,
    stats: LogStats,
    poisoned: bool,
}

struct Segment<F> {
    seq: SegmentSeq,
    size: u64,
    place: Place,
    file: F,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spare {
    None,
    Preparing,
    Ready,
}

impl<D: Disk> Log<D> {
    /// Bytes of the records that wait for a commit. The caller bounds them.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.bytes.len() - RECORD_HEADER
    }

    /// The last commit that is durable.
    #[must_use]
    pub fn last_commit(&self) -> CommitId {
        self.last_commit
    }

    /// Figures since the log was opened.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let held = self.segments.iter().map(|segment| segment.size);
        let doomed = self.doomed.iter().map(|(_, size)| size);
        LogStats {
            segments: self.segments.len() as u64,
            disk_bytes: held.sum::<u64>() + doomed.sum::<u64>(),
            ..self.stats
        }
    }

    /// Where the values of a group begin: the lowest instance behind which there is no hole up
    /// to the anchor, or what follows the anchor. `None` for a group without values and anchor.
    #[must_use]
    pub fn first_instance(&self, group: GroupId) -> Option<InstanceId> {
        self.shelf.lock().index.first(group)
    }

    /// The directory of the log, for asking how much space is left.
    #[must_use]
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Adds a segment behind the others.
    fn push(&mut self, segment: Segment<D::File>) -> io::Result<()> {
        let file = self.disk.open(&segment.seq.file_name(), Access::Read)?;
        let volume = Volume { seq: segment.seq, place: segment.place.clone(), file };
        self.shelf.lock().volumes.push_back(Arc::new(volume));
        self.segments.push_back(segment);
        Ok(())
    }

    fn check_alive(&self) -> Result<(), CommitError> {
        if self.poisoned { Err(CommitError::Poisoned) } else { Ok(()) }
    }

    fn tail(&self) -> &Segment<D::File> {
        self.segments.back().expect("an open log has a segment")
    }

    fn room(&self) -> usize {
        (self.tail().size - self.end) as usize
    }

    fn poison(&mut self, doing: &'static str, source: io::Error) -> CommitError {
        self.poisoned = true;
        self.shelf.lock().poisoned = true;
        CommitError::Io { doing, source }
    }
}

impl<F> Segment<F> {
    fn new(header: &SegmentHeader, file: F) -> Segment<F> {
        let place = Place::new(header.storage, header.seq);
        Segment { seq: header.seq, size: header.size, place, file }
    }
}

fn access(durability: Durability) -> Access {
    match durability {
        Durability::Fsync => Access::Synced,
        Durability::None => Access::Unsynced,
    }
}
