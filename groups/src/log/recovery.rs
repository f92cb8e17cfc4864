//! Reading a log back, and telling a torn tail from damage.
//!
//! One fact carries everything: **commit N + 1 is written only after commit N was synced.** So
//! whatever the power loss did, only the last commit can be incomplete for an innocent reason,
//! and any valid trace of a later commit proves that an earlier one was on the disk in full.
//!
//! Walking from the first commit on, at the first spot that does not hold:
//!
//! - inside commit N, whose header was readable: damage if anything valid of a commit above N
//!   lies behind it, else a torn tail;
//! - where the header of commit N + 1 should be: damage if anything valid of a commit above
//!   N + 1 lies behind it, else a torn tail (or, if only zeros follow, the clean end).
//!
//! "Anything valid" is a record header that vouches for itself and its place, looked for at
//! every multiple of 8 to the end of the segment, or the header of a later segment: that one is
//! written when a commit no longer fits, and names it. Values cannot pretend to be evidence,
//! because a record is bound to its place (see `record.rs`).
//!
//! A torn commit is dropped as a whole. Some of its records may be intact, but nothing of it was
//! ever acknowledged, and "all or nothing" is one state less to think about. Its bytes are
//! zeroed and synced, so that its id can be given out again.
//!
//! What this cannot see: damage to exactly the last commit looks like a torn tail, and the last
//! commit may have been acknowledged. [`Log::seal`](crate::log::Log::seal) closes that window
//! with an empty commit behind it; opening a log does so too.
//!
//! The log may begin anywhere: what lay before the manifest's first segment was dropped when
//! anchors stood for it (see `gc.rs`), and a file that is left of it is nobody's.
//!
//! The scan changes nothing. All changes happen after it has found the log sound.
//!
//! How long it takes, for 1 GiB in 16 segments that the kernel has in memory (2 cores of a
//! virtual machine, release; one thread does it all; indexing included, what the records are
//! for not):
//!
//! | values | records | |
//! | --- | --- | --- |
//! | 60 kB, one in each commit | 18 thousand | 0.18 s |
//! | 1 kB, 8 in each commit | 1.0 million | 0.36 s |
//! | 150 B, one in each commit | 2.1 million | 0.83 s |
//! | 100 B, 64 in each commit | 6.7 million | 1.4 s |

use crate::ids::{CommitId, GroupId, StorageId};
use crate::log::disk::{Access, Disk, DiskFile};
use crate::log::error::{Damage, OpenError};
use crate::log::record::{Bad, Kind, Place, RECORD_ALIGN, RECORD_HEADER, Record};
use crate::log::segment::{
    BadHeader, COMMIT_ALIGN, MANIFEST, Manifest, SEGMENT_HEADER, SegmentHeader, SegmentSeq,
};
use crate::planted::{self, Bug};
use std::io;

/// No segment is larger, and so nothing larger is ever read into memory.
pub(super) const MAX_SEGMENT: u64 = 1 << 30;

/// Where a record was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The segment.
    pub segment: SegmentSeq,
    /// Bytes from the start of the segment file.
    pub offset: u32,
    /// Bytes that the record takes, padding included.
    pub length: u32,
    /// The commit it belongs to.
    pub commit: CommitId,
}

/// An incomplete last commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment, always the last one.
    pub segment: SegmentSeq,
    /// Where the commit began.
    pub offset: u64,
    /// How many bytes from there on were not all zero.
    pub bytes: u64,
}

/// What was found in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// There was no log at all. A caller that knows better has lost one.
    pub fresh: bool,
    /// Number of records that survived.
    pub records: u64,
    /// Number of complete commits, empty ones included.
    pub commits: u64,
    /// Number of segments.
    pub segments: u64,
    /// The last complete commit; zero if there is none.
    pub last_commit: CommitId,
    /// The incomplete last commit, which is cut off.
    pub torn: Option<TornTail>,
}

/// The outcome of a scan: what was found, and what opening needs to go on from there.
pub(super) struct Scan {
    pub found: Recovered,
    pub manifest: Option<Manifest>,
    pub segments: Vec<SegmentHeader>,
    /// Where the next commit goes in the last segment.
    pub end: u64,
    pub next_commit: CommitId,
    /// Place and bytes of the last commit, if it lies in the last segment.
    pub last_bytes: Option<(u64, Vec<u8>)>,
    /// Whether the last commit holds no record.
    pub last_empty: bool,
}

/// Reads the whole log without changing anything; `visit` sees every surviving record in order.
pub(super) fn scan<D: Disk>(
    disk: &D,
    expected: Option<StorageId>,
    visit: &mut dyn FnMut(At, Record),
) -> Result<Scan, OpenError> {
    let manifest = read_manifest(disk)?;
    let mut storage = expected.or(manifest.map(|manifest| manifest.storage));
    if let Some(manifest) = manifest {
        same_storage(MANIFEST, storage, manifest.storage)?;
    }
    let present: Vec<SegmentSeq> = disk
        .list()
        .map_err(OpenError::io("list the directory"))?
        .iter()
        .filter_map(|name| SegmentSeq::from_file_name(name))
        .filter(|&seq| manifest.is_none_or(|manifest| seq >= manifest.first))
        .collect();
    let headers = read_headers(disk, &present, &mut storage)?;
    check_complete(manifest, &present)?;

    let mut walk = Walk {
        found: Recovered::default(),
        last_bytes: None,
        last_empty: true,
        window: Vec::new(),
        records: Vec::new(),
        visit,
    };
    walk.found.segments = headers.len() as u64;
    let Some(first) = headers.first() else {
        walk.found.fresh = true;
        return Ok(walk.finish(manifest, headers, 0, CommitId(1)));
    };
    let mut next = first.first_commit;
    let mut end = 0;
    for (n, header) in headers.iter().enumerate() {
        let commits_before = walk.found.commits;
        (end, next) = walk.segment(disk, header, headers.get(n + 1), next)?;
        // The manifest takes a segment in before its first commit is written.
        let taken_in = manifest.is_some_and(|manifest| header.seq <= manifest.last);
        if !taken_in && (walk.found.commits > commits_before || walk.found.torn.is_some()) {
            let why = "commits in a segment that the manifest does not know";
            return Err(Damage::whole(&header.seq.file_name(), why).into());
        }
    }
    walk.found.last_commit = CommitId(next.0 - 1);
    Ok(walk.finish(manifest, headers, end, next))
}

pub(super) fn read_manifest<D: Disk>(disk: &D) -> Result<Option<Manifest>, OpenError> {
    let bytes = match disk.read_small(MANIFEST, Manifest::MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(Damage::whole(MANIFEST, "far too long").into());
        }
        Err(error) => return Err(OpenError::io("read the manifest")(error)),
    };
    let Some(bytes) = bytes else { return Ok(None) };
    Manifest::decode(&bytes).map(Some).map_err(|bad| bad_header(MANIFEST, bad))
}

fn bad_header(file: &str, bad: BadHeader) -> OpenError {
    match bad {
        BadHeader::Newer(version) => OpenError::Newer { file: file.into(), version },
        BadHeader::Damaged(why) => Damage::whole(file, why).into(),
    }
}

pub(super) fn same_storage(
    file: &str,
    expected: Option<StorageId>,
    found: StorageId,
) -> Result<(), OpenError> {
    match expected {
        Some(expected) if expected != found => Err(OpenError::Foreign { file: file.into(), expected, found }),
        _ => Ok(()),
    }
}

/// Reads all segment headers. A newer or foreign file anywhere outranks damage anywhere else.
fn read_headers<D: Disk>(
    disk: &D,
    present: &[SegmentSeq],
    storage: &mut Option<StorageId>,
) -> Result<Vec<SegmentHeader>, OpenError> {
    let mut headers = Vec::with_capacity(present.len());
    let mut damage = None;
    for &seq in present {
        let name = seq.file_name();
        match read_header(disk, seq) {
            Ok(header) => {
                same_storage(&name, *storage, header.storage)?;
                storage.get_or_insert(header.storage);
                headers.push(header);
            }
            Err(error @ OpenError::Damaged(_)) => damage = damage.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    damage.map_or(Ok(headers), Err)
}

pub(super) fn read_header<D: Disk>(disk: &D, seq: SegmentSeq) -> Result<SegmentHeader, OpenError> {
    let name = seq.file_name();
    let file = disk.open(&name, Access::Read).map_err(OpenError::io("open a segment"))?;
    let length = file.len().map_err(OpenError::io("look at a segment"))?;
    if length < SEGMENT_HEADER as u64 {
        return Err(Damage::whole(&name, "shorter than a segment header").into());
    }
    let mut bytes = [0; SEGMENT_HEADER];
    file.read_at(&mut bytes, 0).map_err(OpenError::io("read a segment"))?;
    let header = SegmentHeader::decode(&bytes).map_err(|bad| bad_header(&name, bad))?;
    if header.seq != seq {
        return Err(Damage::whole(&name, "the header of another segment").into());
    }
    if header.size != length || length > MAX_SEGMENT {
        return Err(Damage::whole(&name, "not as long as its header says").into());
    }
    Ok(header)
}

/// Every segment that the manifest names must be there. One more may be: a crash came between
/// its creation and the manifest.
fn check_complete(manifest: Option<Manifest>, present: &[SegmentSeq]) -> Result<(), OpenError> {
    let (first, last) = match (manifest, present) {
        (None, []) => return Ok(()),
        (None, _) => (SegmentSeq(1), SegmentSeq(0)),
        (Some(manifest), _) => (manifest.first, manifest.last),
    };
    let missing = |seq: SegmentSeq| Damage::whole(&seq.file_name(), "the segment is missing");
    let known = present.partition_point(|&seq| seq <= last);
    let mut due = first;
    for &seq in &present[..known] {
        if seq != due {
            return Err(missing(due).into());
        }
        due = SegmentSeq(seq.0 + 1);
    }
    if due <= last {
        return Err(missing(due).into());
    }
    match present[known..] {
        [] => Ok(()),
        [one] if one == due => Ok(()),
        [one, ..] => Err(Damage::whole(&one.file_name(), "a segment that the manifest does not know").into()),
    }
}

/// Walks a segment that has a later one behind it, so that nothing in it can be a torn tail.
pub(super) fn walk_sealed<D: Disk>(
    disk: &D,
    header: &SegmentHeader,
    later: &SegmentHeader,
    visit: &mut dyn FnMut(At, Record),
) -> Result<(), OpenError> {
    let mut walk = Walk {
        found: Recovered::default(),
        last_bytes: None,
        last_empty: true,
        window: Vec::new(),
        records: Vec::new(),
        visit,
    };
    walk.segment(disk, header, Some(later), header.first_commit).map(|_| ())
}

struct Walk<'a> {
    found: Recovered,
    last_bytes: Option<(u64, Vec<u8>)>,
    last_empty: bool,
    /// Memory of the window and of the commit in hand, kept from one to the next.
    window: Vec<u8>,
    records: Vec<(At, Record)>,
    visit: &'a mut dyn FnMut(At, Record),
}

/// The part of a segment that is in memory. It moves towards the end and is as long as the
/// longest commit needs: a piece that fits the cache is read and checked several times faster
/// than a whole segment in memory that is new to the process.
struct Window<'a, F> {
    file: &'a F,
    size: usize,
    /// `bytes[..filled]` are those of the file from `start` on.
    bytes: &'a mut Vec<u8>,
    start: usize,
    filled: usize,
}

/// What a window reads at once, in bytes.
const WINDOW: usize = 512 << 10;

impl<F: DiskFile> Window<'_, F> {
    /// The bytes from `at` on: `length` at least, or fewer where the segment ends.
    fn from(&mut self, at: usize, length: usize) -> io::Result<&[u8]> {
        let wanted = length.min(self.size - at);
        if at < self.start || at + wanted > self.start + self.filled {
            let kept = (self.start + self.filled).checked_sub(at).filter(|_| at >= self.start).unwrap_or(0);
            self.bytes.copy_within(self.filled - kept..self.filled, 0);
            (self.start, self.filled) = (at, kept);
            let room = wanted.max(WINDOW).min(self.size - at);
            if self.bytes.len() < room {
                self.bytes.resize(room, 0);
            }
            self.file.read_at(&mut self.bytes[kept..room], (at + kept) as u64)?;
            self.filled = room;
        }
        Ok(&self.bytes[at - self.start..self.filled])
    }

    fn only_zeros_from(&mut self, mut at: usize) -> io::Result<bool> {
        while at < self.size {
            let bytes = self.from(at, WINDOW)?;
            if !without_zeros(bytes).is_empty() {
                return Ok(false);
            }
            at += bytes.len();
        }
        Ok(true)
    }
}

/// Why a walk through a segment stopped.
enum Stop {
    /// The file system failed.
    Io(io::Error),
    /// No header of the expected commit.
    NoCommit,
    /// The header is there, but at this offset something is wrong.
    Inside { offset: usize, why: &'static str, group: Option<GroupId> },
}

impl Walk<'_> {
    fn finish(
        self,
        manifest: Option<Manifest>,
        segments: Vec<SegmentHeader>,
        end: u64,
        next_commit: CommitId,
    ) -> Scan {
        let Walk { found, last_bytes, last_empty, .. } = self;
        Scan { found, manifest, segments, end, next_commit, last_bytes, last_empty }
    }

    /// Walks one segment; returns where its commits end and which commit comes next.
    fn segment<D: Disk>(
        &mut self,
        disk: &D,
        header: &SegmentHeader,
        later: Option<&SegmentHeader>,
        mut next: CommitId,
    ) -> Result<(u64, CommitId), OpenError> {
        let name = header.seq.file_name();
        let file = disk.open(&name, Access::Read).map_err(OpenError::io("open a segment"))?;
        let place = Place::new(header.storage, header.seq);
        let size = header.size as usize;
        let mut memory = std::mem::take(&mut self.window);
        let mut window = Window { file: &file, size, bytes: &mut memory, start: 0, filled: 0 };

        self.last_bytes = None;
        let mut at = SEGMENT_HEADER;
        let stop = loop {
            let bytes = match read_commit(&place, &mut window, at, header.seq, next, &mut self.records) {
                Ok(bytes) => bytes,
                Err(stop) => break stop,
            };
            self.found.commits += 1;
            self.found.records += self.records.len() as u64;
            self.last_empty = self.records.is_empty();
            if later.is_none() {
                let (offset, last) = self.last_bytes.get_or_insert_default();
                *offset = at as u64;
                last.clear();
                last.extend_from_slice(bytes);
            }
            at += bytes.len();
            next = CommitId(next.0 + 1);
            for (at, record) in self.records.drain(..) {
                (self.visit)(at, record);
            }
        };
        self.records.clear();
        let clean = later.is_none() && window.only_zeros_from(at).map_err(OpenError::io("read a segment"))?;
        self.window = memory;
        let (offset, why, group) = match stop {
            Stop::Io(error) => return Err(OpenError::io("read a segment")(error)),
            // A later segment is only begun once everything before its first commit is synced.
            Stop::NoCommit if later.is_some_and(|later| later.first_commit == next) => {
                return Ok((at as u64, next));
            }
            Stop::NoCommit if clean => return Ok((at as u64, next)),
            Stop::NoCommit => (at, "no valid commit header", None),
            Stop::Inside { offset, why, group } => (offset, why, group),
        };

        // The exception: what follows the last good commit, in memory as a whole.
        let mut rest = vec![0; size - at];
        file.read_at(&mut rest, at as u64).map_err(OpenError::io("read a segment"))?;
        let rest = Rest { place: &place, bytes: &rest, base: at as u32 };
        let used = without_zeros(rest.bytes).len();
        let evidence = later.is_some() || rest.has_later_commit(used, next);
        if evidence && !planted::is(Bug::RotIsTornTail) {
            let mut groups = rest.groups_of(used, next);
            groups.extend(group);
            groups.sort_unstable();
            groups.dedup();
            let why = format!("{why} in commit {next}, and a later commit is on the disk");
            return Err(Damage { file: name, offset: offset as u64, why, groups }.into());
        }
        if later.is_none() && used > 0 {
            let (segment, offset, bytes) = (header.seq, at as u64, used as u64);
            self.found.torn = Some(TornTail { segment, offset, bytes });
        }
        Ok((at as u64, next))
    }
}

/// Reads the commit that should be at `at`, all of it or nothing: its bytes, padding included,
/// and its records into `records`.
fn read_commit<'w, F: DiskFile>(
    place: &Place,
    window: &'w mut Window<'_, F>,
    at: usize,
    segment: SegmentSeq,
    expected: CommitId,
    records: &mut Vec<(At, Record)>,
) -> Result<&'w [u8], Stop> {
    let base = at as u32;
    let size = window.size;
    let header = place
        .header_at(window.from(at, RECORD_HEADER).map_err(Stop::Io)?, 0, base)
        .filter(|header| header.kind == Kind::Commit && header.commit == expected)
        .ok_or(Stop::NoCommit)?;
    let inside = |offset, why, group| Stop::Inside { offset: at + offset, why, group };
    let length = usize::try_from(header.commit_bytes())
        .ok()
        .filter(|&length| length >= RECORD_HEADER && length <= size - at)
        .ok_or(inside(0, "a commit that is longer than its segment", None))?;
    let aligned = length.next_multiple_of(COMMIT_ALIGN);
    let bytes = window.from(at, aligned).map_err(Stop::Io)?;
    let within = &bytes[..length];
    let mut crcs = crc32fast::Hasher::new();
    let mut next = RECORD_HEADER;
    records.clear();
    while next < length {
        let found = place.record_at(within, next, base).map_err(|bad| {
            let group = match bad {
                Bad::Header => None,
                Bad::Length { group } | Bad::Payload { group } | Bad::Padding { group } => Some(group),
            };
            inside(next, bad.why(), group)
        })?;
        if found.header.commit != expected {
            return Err(inside(next, "a record of another commit", Some(found.header.group)));
        }
        let place =
            At { segment, offset: base + next as u32, length: (found.next - next) as u32, commit: expected };
        crcs.update(&within[next..next + 4]);
        records.push((place, found.record));
        next = found.next;
    }
    if records.len() as u64 != header.commit_records() || crcs.finalize() != header.commit_crc() {
        return Err(inside(0, "records that are not those of the commit", None));
    }
    match bytes.get(length..aligned) {
        Some(padding) if padding.iter().all(|&byte| byte == 0) => Ok(&bytes[..aligned]),
        _ => Err(inside(length, "padding that is not zero", None)),
    }
}

/// What follows the last good commit of a segment.
struct Rest<'a> {
    place: &'a Place,
    bytes: &'a [u8],
    /// Where in the segment it begins.
    base: u32,
}

impl Rest<'_> {
    /// Whether anything valid of a commit above `commit` begins in the first `used` bytes.
    fn has_later_commit(&self, used: usize, commit: CommitId) -> bool {
        self.headers(used).any(|(_, found)| found > commit)
    }

    /// The groups named by readable record headers of `commit` in the first `used` bytes.
    fn groups_of(&self, used: usize, commit: CommitId) -> Vec<GroupId> {
        let of_commit = self.headers(used).filter(|&(_, found)| found == commit);
        of_commit.filter_map(|(group, _)| group).collect()
    }

    /// Record headers that begin in the first `used` bytes: the group, unless it is a commit's,
    /// and the commit. A header may itself end in zeros, so it may reach beyond the last byte
    /// that is not zero.
    fn headers(&self, used: usize) -> impl Iterator<Item = (Option<GroupId>, CommitId)> {
        (0..used).step_by(RECORD_ALIGN).filter_map(|at| {
            let header = self.place.header_at(self.bytes, at, self.base)?;
            Some(((header.kind != Kind::Commit).then_some(header.group), header.commit))
        })
    }
}

/// The bytes without the zeros they end with. Usually nearly all of them are zeros.
fn without_zeros(bytes: &[u8]) -> &[u8] {
    static ZEROS: [u8; 4096] = [0; 4096];
    let mut bytes = bytes;
    while let Some((head, tail)) = bytes.split_last_chunk()
        && *tail == ZEROS
    {
        bytes = head;
    }
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &bytes[..end]
}
