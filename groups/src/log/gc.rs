//! Dropping the oldest segment when nobody needs it any more.
//!
//! A shared log is cut at the minimum over all groups, so a group that is idle for ever would
//! hold it for ever. Therefore the few records that an idle group needs are written again at the
//! end: the owner asks for the [`pins`](Log::pins) of the oldest segment, appends an
//! [`Anchor`](super::Record::Anchor) for each group (and, behind it, the accepted values beyond the
//! anchor that lie there), commits, and [drops](Log::drop_oldest) the segment.
//!
//! A group needs the oldest segment
//!
//! - while the newest record of an instance beyond its anchor lies there: no checkpoint has it;
//! - while no later segment says as much about its promise, its chosen prefix and its anchor.
//!   What an accept says about the promise counts, so the groups that are busy are seldom met.
//!
//! Only synced records count. How far an anchor may go (a durable, verified checkpoint, and what
//! learners still fetch) is for the owner to know; the log checks that nothing is lost that no
//! anchor stands for.
//!
//! The order of a drop: the manifest begins with the next segment, durably; the file goes; the
//! directory is synced. Wherever that is cut off, what the manifest names is there, and what
//! lies before it is removed by the next open.

use super::Log;
use super::disk::Disk;
use super::error::{CommitError, is_full};
use super::index::Pin;
use super::segment::{COMMIT_ALIGN, SegmentSeq};
use crate::planted::{self, Bug};
use crate::time::Time;

/// What holds the oldest segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The oldest segment.
    pub segment: SegmentSeq,
    /// The size of its file in bytes.
    pub bytes: u64,
    /// The size of all segment files in bytes, this one included.
    pub log_bytes: u64,
    /// Groups that need it, as many as were asked for. Empty: it can be dropped.
    pub groups: Vec<Pin>,
}

impl<D: Disk> Log<D> {
    /// Which groups need the oldest segment, `most` of them at most. `None` while it is also the
    /// one that is written. Costs a look at every group that has a record in it.
    #[must_use]
    pub fn pins(&self, most: usize) -> Option<Pinned> {
        let oldest = self.segments.front().filter(|_| self.segments.len() > 1)?;
        let (segment, bytes, log_bytes) = (oldest.seq, oldest.size, self.stats().disk_bytes);
        Some(Pinned { segment, bytes, log_bytes, groups: self.shelf.lock().index.pins(segment, most) })
    }

    /// Whether something in the oldest segment is being sent to a peer, see
    /// [`LogReader::pin`](super::LogReader::pin). A peer that stops asking, or does not get on,
    /// holds nothing after some seconds.
    #[must_use]
    pub fn is_being_sent(&self, now: Time) -> bool {
        self.shelf.lock().is_being_sent(self.segments[0].seq, now)
    }

    /// The oldest segment: everything before it was dropped.
    #[must_use]
    pub fn first_segment(&self) -> SegmentSeq {
        self.segments[0].seq
    }

    /// Drops the oldest segment. `false`, and nothing happens, if a group needs it or it is the
    /// one that is written.
    ///
    /// After [`CommitError::NoSpace`] the segment is still there; any other error poisons the
    /// log, as it does in a commit. That a file cannot be removed is no error: it is no longer
    /// part of the log, and is tried again with the next drop and the next open.
    pub fn drop_oldest(&mut self) -> Result<bool, CommitError> {
        self.check_alive()?;
        if self.pins(1).is_none_or(|pinned| !pinned.groups.is_empty()) {
            return Ok(false);
        }
        // What stands for the dropped records may be in the last commit, whose loss would look
        // like a torn tail: an empty commit behind it makes it provable.
        if !self.last_empty && self.pending.is_empty() && self.room() >= COMMIT_ALIGN {
            self.write_commit(0)?;
        }
        let (first, last) = (self.segments[1].seq, self.tail().seq);
        if planted::is(Bug::FileBeforeManifest) {
            let _ = self.disk.remove(&self.segments[0].seq.file_name()).and_then(|()| self.disk.sync_dir());
        }
        if let Err(error) = self.write_manifest(first, last) {
            return Err(if is_full(&error) {
                CommitError::NoSpace
            } else {
                self.poison("write the manifest", error)
            });
        }
        if let Some(oldest) = self.segments.pop_front() {
            let mut shelf = self.shelf.lock();
            shelf.index.forget(oldest.seq);
            shelf.volumes.pop_front();
            drop(shelf);
            self.doomed.push((oldest.seq, oldest.size));
            self.stats.dropped_segments += 1;
        }
        self.remove_doomed()?;
        Ok(true)
    }

    /// Removes the files of dropped segments.
    fn remove_doomed(&mut self) -> Result<(), CommitError> {
        let disk = &self.disk;
        let before = self.doomed.len();
        self.doomed.retain(|(seq, _)| match disk.remove(&seq.file_name()) {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(segment = %seq, %error, "a dropped segment could not be removed");
                true
            }
        });
        if self.doomed.len() < before
            && let Err(error) = self.disk.sync_dir()
        {
            return Err(self.poison("sync the directory of the log", error));
        }
        Ok(())
    }
}
