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
//! that holds for each part, and no part survives without those before it.
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
//! }
//! ```
//!
//! The bytes are drawn in [`record`] and [`segment`], the reasoning of recovery stands in
//! [`recovery`], and [`disk`] is the only file that knows the file system.

pub mod disk;
mod error;
mod index;
pub mod record;
pub mod recovery;
pub mod segment;
mod sim_disk;

pub use disk::{Access, Disk, DiskFile, RealDisk};
pub use error::{AppendError, CommitError, Damage, OpenError, ReadError};
pub use record::Record;
pub use recovery::{At, Recovered, TornTail};
pub use segment::SegmentSeq;
pub use sim_disk::{DiskImage, SimDisk, SimFile};

use crate::ids::{Ballot, CommitId, GroupId, InstanceId, StorageId};
use crate::planted::{self, Bug};
use bytes::Bytes;
use error::is_full;
use index::{Index, Position};
use record::{Place, RECORD_HEADER};
use recovery::{MAX_SEGMENT, Scan};
use segment::{COMMIT_ALIGN, MANIFEST, Manifest, SEGMENT_HEADER, SPARE, SegmentHeader};
use std::collections::VecDeque;
use std::io;

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
        if self.max_record as u64 > room || self.max_record < RECORD_HEADER {
            return Err(OpenError::Options("max_record must fit a segment and hold a record"));
        }
        Ok(())
    }
}

/// Figures of a log since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Segments that make up the log.
    pub segments: u64,
    /// Bytes that the segments take on the disk.
    pub disk_bytes: u64,
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
    /// Holds synced records only.
    index: Index,
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

/// The commit being gathered: room for its header, then the encoded records.
struct Pending {
    bytes: Vec<u8>,
    records: Vec<PendingRecord>,
}

struct PendingRecord {
    start: usize,
    end: usize,
    /// Set for records that carry a value.
    indexed: Option<(GroupId, InstanceId)>,
}

impl Pending {
    fn new() -> Pending {
        Pending { bytes: vec![0; RECORD_HEADER], records: Vec::new() }
    }

    fn is_empty(&self) -> bool {
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
    /// Opens the log of a directory, or begins one if there is none. `visit` sees every
    /// surviving record in log order (also when opening fails later on).
    ///
    /// A torn tail is cut, damage is refused; see [`recovery`].
    pub fn open(
        mut disk: D,
        options: LogOptions,
        visit: &mut dyn FnMut(Record),
    ) -> Result<(Log<D>, Recovered), OpenError> {
        options.check()?;
        if !disk.lock().map_err(OpenError::io("lock the directory"))? {
            return Err(OpenError::Locked);
        }
        let mut index = Index::default();
        let scan = recovery::scan(&disk, Some(options.storage_id), &mut |at, record| {
            if let Record::Accept { group, instance, .. } | Record::Chosen { group, instance, .. } = &record {
                let position = Position { segment: at.segment, offset: at.offset, length: at.length };
                index.insert(*group, *instance, position);
            }
            visit(record);
        })?;
        let found = scan.found.clone();
        clear_leftovers(&disk, &scan)?;
        let mut log = if found.fresh {
            Log::begin(disk, options, index)?
        } else {
            Log::resume(disk, options, index, scan)?
        };
        // What was recovered is acted upon from now on, so that it was synced must be provable.
        log.seal().map_err(|error| match error {
            CommitError::NoSpace => OpenError::NoSpace,
            CommitError::Io { doing, source } => OpenError::Io { doing, source },
            CommitError::Poisoned => OpenError::Io { doing: "seal the log", source: io::Error::other(error) },
        })?;
        Ok((log, found))
    }

    /// The first segment of a new log.
    fn begin(disk: D, options: LogOptions, index: Index) -> Result<Log<D>, OpenError> {
        let mut log = Log::with(disk, options, index, VecDeque::new());
        let header = SegmentHeader {
            storage: log.options.storage_id,
            seq: SegmentSeq(1),
            first_commit: CommitId(1),
            size: log.options.segment_size,
        };
        log.disk.start_prepare(SPARE, header.size).map_err(OpenError::io("create a segment"))?;
        log.disk.wait_prepared().map_err(OpenError::io("create a segment"))?;
        let segment = log.install_spare(&header).map_err(OpenError::io("create a segment"))?;
        log.segments.push_back(segment);
        log.write_manifest(SegmentSeq(1), SegmentSeq(1)).map_err(OpenError::io("write the manifest"))?;
        Ok(log)
    }

    /// Goes on behind what a scan found.
    fn resume(disk: D, options: LogOptions, index: Index, scan: Scan) -> Result<Log<D>, OpenError> {
        let access = access(options.durability);
        let mut segments = VecDeque::with_capacity(scan.segments.len());
        for header in &scan.segments {
            let file = disk.open(&header.seq.file_name(), access).map_err(OpenError::io("open a segment"))?;
            segments.push_back(Segment::new(header, file));
        }
        let mut log = Log::with(disk, options, index, segments);
        log.end = scan.end;
        log.last_commit = CommitId(scan.next_commit.0 - 1);
        log.last_empty = scan.last_empty;
        log.settle_tail(&scan).map_err(OpenError::io("repair the tail of the log"))?;
        let (first, last) = (log.segments[0].seq, log.tail().seq);
        if scan.manifest.is_none_or(|manifest| manifest.last != last) {
            log.write_manifest(first, last).map_err(OpenError::io("write the manifest"))?;
        }
        Ok(log)
    }

    fn with(disk: D, options: LogOptions, index: Index, segments: VecDeque<Segment<D::File>>) -> Log<D> {
        Log {
            disk,
            options,
            segments,
            end: SEGMENT_HEADER as u64,
            last_commit: CommitId(0),
            last_empty: true,
            pending: Pending::new(),
            spare: Spare::None,
            arrived: None,
            index,
            stats: LogStats::default(),
            poisoned: false,
        }
    }

    /// Cuts a torn commit, and makes sure that the commits before it are on the disk and not
    /// only in the memory of the kernel: the process that wrote the last one may have died
    /// between write and sync, or of a sync that failed.
    fn settle_tail(&mut self, scan: &Scan) -> io::Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        self.disk.sync_dir()?;
        let tail = &mut self.segments.back_mut().expect("a log that is not new has a segment").file;
        if let Some((offset, bytes)) = &scan.last_bytes {
            tail.write_at(bytes, *offset)?;
        }
        if let Some(torn) = &scan.found.torn {
            let end = (torn.offset + torn.bytes).next_multiple_of(COMMIT_ALIGN as u64);
            let mut at = torn.offset;
            while at < end {
                let step = (end - at).min(ZEROS.len() as u64);
                tail.write_at(&ZEROS[..step as usize], at)?;
                at += step;
            }
        }
        tail.sync()
    }

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
        let indexed = match record {
            Record::Accept { group, instance, .. } | Record::Chosen { group, instance, .. } => {
                Some((*group, *instance))
            }
            Record::Promise { .. } | Record::Watermark { .. } => None,
        };
        self.pending.records.push(PendingRecord { start, end: self.pending.bytes.len(), indexed });
        Ok(())
    }

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

    /// The newest synced record of each instance of `from..=to`, without gaps from `from` on, up
    /// to about `max_bytes` of values but at least one. Empty if the log knows nothing about
    /// `from`. Whether a value is chosen is for the caller to know. Checksums are checked again.
    pub fn read(
        &self,
        group: GroupId,
        from: InstanceId,
        to: InstanceId,
        max_bytes: usize,
    ) -> Result<Vec<(InstanceId, Ballot, Bytes)>, ReadError> {
        if self.poisoned {
            return Err(ReadError::Poisoned);
        }
        match self.index.first(group) {
            Some(first) if from < first => return Err(ReadError::NotHere { first }),
            Some(_) => {}
            None => return Ok(Vec::new()),
        }
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut instance = from;
        while instance <= to {
            let Some(position) = self.index.get(group, instance) else { break };
            let (ballot, value) = self.read_one(group, instance, position)?;
            bytes += value.len();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push((instance, ballot, value));
            match instance.0.checked_add(1) {
                Some(next) => instance = InstanceId(next),
                None => break,
            }
        }
        Ok(found)
    }

    /// The lowest instance of a group that the log holds a record of.
    #[must_use]
    pub fn first_instance(&self, group: GroupId) -> Option<InstanceId> {
        self.index.first(group)
    }

    fn read_one(
        &self,
        group: GroupId,
        instance: InstanceId,
        position: Position,
    ) -> Result<(Ballot, Bytes), ReadError> {
        let nth = position.segment.0 - self.segments[0].seq.0;
        let segment = &self.segments[nth as usize];
        let mut bytes = vec![0; position.length as usize];
        segment.file.read_at(&mut bytes, u64::from(position.offset)).map_err(ReadError::Io)?;
        let why = match segment.place.record_at(&bytes, 0, position.offset) {
            Ok(found) => match found.record {
                Record::Accept { group: g, instance: i, ballot, value }
                | Record::Chosen { group: g, instance: i, ballot, value }
                    if g == group && i == instance =>
                {
                    return Ok((ballot, value));
                }
                _ => "another record than the one that was written",
            },
            Err(bad) => bad.why(),
        };
        Err(ReadError::Damaged(Damage {
            file: position.segment.file_name(),
            offset: u64::from(position.offset),
            why: why.into(),
            groups: vec![group],
        }))
    }

    /// Figures since the log was opened.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats {
            segments: self.segments.len() as u64,
            disk_bytes: self.segments.iter().map(|segment| segment.size).sum(),
            ..self.stats
        }
    }

    /// The directory of the log, for asking how much space is left.
    #[must_use]
    pub fn disk(&self) -> &D {
        &self.disk
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

    /// Writes and syncs the first `count` pending records as one commit, which must fit.
    fn write_commit(&mut self, count: usize) -> Result<(), CommitError> {
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
        for record in &taken.records {
            if let Some((group, instance)) = record.indexed {
                let offset = end as u32 + record.start as u32;
                let length = (record.end - record.start) as u32;
                self.index.insert(group, instance, Position { segment, offset, length });
            }
        }
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

    fn poison(&mut self, doing: &'static str, source: io::Error) -> CommitError {
        self.poisoned = true;
        CommitError::Io { doing, source }
    }

    /// Has the next segment made while there is still room in this one. Failure is no news
    /// before the segment is needed: by then there may be space again.
    fn prepare_ahead(&mut self) {
        match self.spare {
            Spare::None if self.end > self.tail().size / 4 && self.arrived.is_none() => {
                if self.disk.start_prepare(SPARE, self.options.segment_size).is_ok() {
                    self.spare = Spare::Preparing;
                }
            }
            Spare::Preparing => match self.disk.poll_prepared() {
                None => {}
                Some(Ok(())) => self.spare = Spare::Ready,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the next log segment could not be prepared");
                    self.spare = Spare::None;
                }
            },
            Spare::None | Spare::Ready => {}
        }
    }

    /// Moves on to the next segment. When there is no space it can be called again.
    fn rotate(&mut self) -> Result<(), CommitError> {
        let next = SegmentSeq(self.tail().seq.0 + 1);
        let segment = match self.arrived.take() {
            Some(segment) => segment,
            None => {
                self.await_spare()?;
                let header = SegmentHeader {
                    storage: self.options.storage_id,
                    seq: next,
                    first_commit: CommitId(self.last_commit.0 + 1),
                    size: self.options.segment_size,
                };
                self.spare = Spare::None;
                self.install_spare(&header).map_err(|error| self.poison("begin a segment", error))?
            }
        };
        if let Err(error) = self.write_manifest(self.segments[0].seq, next) {
            self.arrived = Some(segment);
            return Err(if is_full(&error) {
                CommitError::NoSpace
            } else {
                self.poison("write the manifest", error)
            });
        }
        self.segments.push_back(segment);
        self.end = SEGMENT_HEADER as u64;
        Ok(())
    }

    fn await_spare(&mut self) -> Result<(), CommitError> {
        if self.spare == Spare::Ready {
            return Ok(());
        }
        self.stats.waits_for_segment += 1;
        let mut outcome = Ok(());
        if self.spare == Spare::None {
            outcome = self.disk.start_prepare(SPARE, self.options.segment_size);
        }
        self.spare = Spare::None;
        match outcome.and_then(|()| self.disk.wait_prepared()) {
            Ok(()) => {
                self.spare = Spare::Ready;
                Ok(())
            }
            Err(error) if is_full(&error) => Err(CommitError::NoSpace),
            Err(error) => Err(self.poison("prepare a segment", error)),
        }
    }

    /// Gives the prepared file its header and its name. The header is synced before the name is
    /// given, so a file with the name of a segment always has one.
    fn install_spare(&mut self, header: &SegmentHeader) -> io::Result<Segment<D::File>> {
        let mut file = self.disk.open(SPARE, access(self.options.durability))?;
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        self.disk.rename(SPARE, &header.seq.file_name())?;
        self.disk.sync_dir()?;
        Ok(Segment::new(header, file))
    }

    fn write_manifest(&self, first: SegmentSeq, last: SegmentSeq) -> io::Result<()> {
        let manifest = Manifest { storage: self.options.storage_id, first, last };
        self.disk.write_small(MANIFEST, &manifest.encode())
    }
}

impl<F> Segment<F> {
    fn new(header: &SegmentHeader, file: F) -> Segment<F> {
        let place = Place::new(header.storage, header.seq);
        Segment { seq: header.seq, size: header.size, place, file }
    }
}

/// Reads a log without opening it for writing, locking it or changing it: for the programs that
/// dump and verify. Without an expected storage id, the log's own is taken for right.
pub fn inspect<D: Disk>(
    disk: &D,
    expected: Option<StorageId>,
    visit: &mut dyn FnMut(At, Record),
) -> Result<Recovered, OpenError> {
    recovery::scan(disk, expected, visit).map(|scan| scan.found)
}

/// Removes what an interrupted rotation left behind.
fn clear_leftovers<D: Disk>(disk: &D, scan: &Scan) -> Result<(), OpenError> {
    let names = disk.list().map_err(OpenError::io("list the directory"))?;
    let first = scan.segments.first().map_or(SegmentSeq(0), |header| header.seq);
    for name in names {
        let stale = SegmentSeq::from_file_name(&name).is_some_and(|seq| seq < first);
        if stale || name == SPARE || name == format!("{MANIFEST}.tmp") {
            disk.remove(&name).map_err(OpenError::io("remove a leftover file"))?;
        }
    }
    Ok(())
}

fn access(durability: Durability) -> Access {
    match durability {
        Durability::Fsync => Access::Synced,
        Durability::None => Access::Unsynced,
    }
}
