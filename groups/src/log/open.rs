//! Opening a log: what was there is read and repaired, or a new one is begun.

use super::disk::{Access, Disk, DiskFile};
use super::error::{CommitError, OpenError};
use super::index::{Index, Note, Position};
use super::recovery::{self, At, Recovered, Scan};
use super::segment::{COMMIT_ALIGN, MANIFEST, SEGMENT_HEADER, SPARE, SegmentHeader, SegmentSeq};
use super::shelf::{Shared, Shelf};
use super::{Log, LogOptions, LogStats, Record, Segment, Spare, access};
use crate::ids::{CommitId, StorageId};
use crate::log::commit::Pending;
use std::collections::VecDeque;
use std::io;

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
            let position = Position { segment: at.segment, offset: at.offset, length: at.length };
            index.note(&Note::of(&record), position);
            visit(record);
        })?;
        let found = scan.found.clone();
        let doomed = clear_leftovers(&disk, &scan)?;
        let mut log = if found.fresh {
            Log::begin(disk, options, index)?
        } else {
            Log::resume(disk, options, index, scan)?
        };
        log.doomed = doomed;
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
        let mut log = Log::with(disk, options, index);
        let header = SegmentHeader {
            storage: log.options.storage_id,
            seq: SegmentSeq(1),
            first_commit: CommitId(1),
            size: log.options.segment_size,
        };
        log.disk.start_prepare(SPARE, header.size).map_err(OpenError::io("create a segment"))?;
        log.disk.wait_prepared().map_err(OpenError::io("create a segment"))?;
        let segment = log.install_spare(&header).map_err(OpenError::io("create a segment"))?;
        log.push(segment).map_err(OpenError::io("open a segment"))?;
        log.write_manifest(SegmentSeq(1), SegmentSeq(1)).map_err(OpenError::io("write the manifest"))?;
        Ok(log)
    }

    /// Goes on behind what a scan found.
    fn resume(disk: D, options: LogOptions, index: Index, scan: Scan) -> Result<Log<D>, OpenError> {
        let access = access(options.durability);
        let mut log = Log::with(disk, options, index);
        for header in &scan.segments {
            let file =
                log.disk.open(&header.seq.file_name(), access).map_err(OpenError::io("open a segment"))?;
            log.push(Segment::new(header, file)).map_err(OpenError::io("open a segment"))?;
        }
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

    fn with(disk: D, options: LogOptions, index: Index) -> Log<D> {
        Log {
            disk,
            options,
            segments: VecDeque::new(),
            end: SEGMENT_HEADER as u64,
            last_commit: CommitId(0),
            last_empty: true,
            pending: Pending::new(),
            spare: Spare::None,
            arrived: None,
            shelf: Shared::new(Shelf::new(index)),
            doomed: Vec::new(),
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

/// Removes what an interrupted rotation or drop left behind. Dropped segments that cannot be
/// removed are handed back with their sizes: they do no harm.
fn clear_leftovers<D: Disk>(disk: &D, scan: &Scan) -> Result<Vec<(SegmentSeq, u64)>, OpenError> {
    let names = disk.list().map_err(OpenError::io("list the directory"))?;
    let first = scan.segments.first().map_or(SegmentSeq(0), |header| header.seq);
    let mut doomed = Vec::new();
    for name in names {
        match SegmentSeq::from_file_name(&name).filter(|&seq| seq < first) {
            Some(seq) => {
                if let Err(error) = disk.remove(&name) {
                    tracing::warn!(segment = %seq, %error, "a dropped segment could not be removed");
                    let size = disk.open(&name, Access::Read).and_then(|file| file.len());
                    doomed.push((seq, size.unwrap_or(0)));
                }
            }
            None if name == SPARE || name == format!("{MANIFEST}.tmp") => {
                disk.remove(&name).map_err(OpenError::io("remove a leftover file"))?;
            }
            None => {}
        }
    }
    Ok(doomed)
}
