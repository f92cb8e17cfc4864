//! From records to one write and one sync.

use super::disk::{Disk, DiskFile};
use super::error::{AppendError, CommitError};
use super::index::{Note, Position};
use super::record::{self, Place, RECORD_HEADER, Record};
use super::segment::{COMMIT_ALIGN, SEGMENT_HEADER};
use super::{Durability, Log};
use crate::ids::CommitId;
use crate::planted::{self, Bug};

/// The commit being gathered: room for its header, then the encoded records.
pub(super) struct Pending {
    pub bytes: Vec<u8>,
    records: Vec<PendingRecord>,
}

struct PendingRecord {
    start: usize,
    end: usize,
    note: Note,
}

impl Pending {
    pub fn new() -> Pending {
        Pending { bytes: vec![0; RECORD_HEADER], records: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The end of the longest run of leading records that, with the header, fits into `room`.
    fn fitting(&self, room: usize) -> usize {
        self.records.partition_point(|record| record.end.next_multiple_of(COMMIT_ALIGN) <= room)
    }

    /// Takes the first `count` records out as a commit of its own.
    fn take(&mut self, count: usize) -> Pending {
        let mut taken = std::mem::replace(self, Pending::new());
        let end = taken.records[..count].last().map_or(RECORD_HEADER, |record| record.end);
        let shift = end - RECORD_HEADER;
        self.bytes.extend_from_slice(&taken.bytes[end..]);
        self.records.extend(taken.records.drain(count..).map(|record| PendingRecord {
            start: record.start - shift,
            end: record.end - shift,
            ..record
        }));
        taken.bytes.truncate(end);
        taken
    }

    /// Makes the bytes ready to be written at `offset` of a segment.
    fn stamp(&mut self, place: &Place, offset: u64, commit: CommitId) {
        let starts = self.records.iter().map(|record| record.start);
        place.stamp_commit(&mut self.bytes, starts, offset as u32, commit);
        self.bytes.resize(self.bytes.len().next_multiple_of(COMMIT_ALIGN), 0);
    }

    /// Empties it but keeps its memory, up to a bound.
    fn reuse(mut self) -> Pending {
        const KEEP: usize = 4 << 20;
        if self.bytes.capacity() > KEEP {
            return Pending::new();
        }
        self.bytes.clear();
        self.bytes.resize(RECORD_HEADER, 0);
        self.records.clear();
        self
    }
}

impl<D: Disk> Log<D> {
    /// Adds a record to the pending commit. Nothing is durable before [`commit`](Self::commit).
    pub fn append(&mut self, record: &Record) -> Result<(), AppendError> {
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        let size = record.encoded_len();
        if size > self.options.max_record {
            return Err(AppendError::TooLarge { size, max: self.options.max_record });
        }
        let start = self.pending.bytes.len();
        record::encode(record, &mut self.pending.bytes);
        self.pending.records.push(PendingRecord {
            start,
            end: self.pending.bytes.len(),
            note: Note::of(record),
        });
        Ok(())
    }

    /// Makes everything pending durable and says which commit did it; with nothing pending, the
    /// last one. One write and one sync, more only when the records do not fit a segment.
    pub fn commit(&mut self) -> Result<CommitId, CommitError> {
        self.check_alive()?;
        while !self.pending.is_empty() {
            let all = self.pending.records.len();
            let mut count = self.pending.fitting(self.room());
            if count < all && self.end > SEGMENT_HEADER as u64 {
                self.rotate()?;
                count = self.pending.fitting(self.room());
            }
            if count == 0 {
                // Only a segment from a run with a smaller segment size can be too small here.
                self.rotate()?;
                count = self.pending.fitting(self.room());
            }
            assert!(count > 0, "append took a record that fits no segment");
            self.write_commit(count)?;
        }
        Ok(self.last_commit)
    }

    /// Appends an empty commit unless the last one is empty. It proves to a later recovery that
    /// the commit before it was synced, so that damage to it is seen and not cut as a torn tail.
    /// For moments of idleness and before a clean end. Pending records are committed first; after
    /// an error [`pending_bytes`](Self::pending_bytes) says whether any still wait.
    pub fn seal(&mut self) -> Result<(), CommitError> {
        self.commit()?;
        if self.last_empty {
            return Ok(());
        }
        if self.room() < COMMIT_ALIGN {
            self.rotate()?;
        }
        self.write_commit(0)
    }

    /// Writes and syncs the first `count` pending records as one commit, which must fit.
    pub(super) fn write_commit(&mut self, count: usize) -> Result<(), CommitError> {
        let commit = CommitId(self.last_commit.0 + 1);
        let mut taken = self.pending.take(count);
        let end = self.end;
        let sync = self.options.durability == Durability::Fsync;
        let tail = self.segments.back_mut().expect("an open log has a segment");
        taken.stamp(&tail.place, end, commit);
        assert!(end + taken.bytes.len() as u64 <= tail.size, "a commit must fit its segment");
        let written = tail.file.write_at(&taken.bytes, end);
        let synced = written.and_then(|()| if sync { tail.file.sync() } else { Ok(()) });
        if let Err(source) = synced
            && !planted::is(Bug::SyncErrorIgnored)
        {
            return Err(self.poison("write a commit", source));
        }
        let segment = tail.seq;
        let mut shelf = self.shelf.lock();
        for record in &taken.records {
            let offset = end as u32 + record.start as u32;
            let length = (record.end - record.start) as u32;
            shelf.index.note(&record.note, Position { segment, offset, length });
        }
        drop(shelf);
        self.end = end + taken.bytes.len() as u64;
        self.last_commit = commit;
        self.last_empty = count == 0;
        self.stats.commits += 1;
        self.stats.records += count as u64;
        self.stats.written_bytes += taken.bytes.len() as u64;
        if self.pending.is_empty() {
            self.pending = taken.reuse();
        }
        self.prepare_ahead();
        Ok(())
    }
}
