//! The bytes of one record.
//!
//! ```text
//!  offset  size
//!       0     4  header crc   over bytes 4..48, the storage id, the segment and the offset in it
//!       4     4  payload crc  over the payload (zero when there is none)
//!                             commit: over the header crcs of its records, in order
//!       8     4  payload length in bytes
//!      12     1  version (1)
//!      13     1  kind: 1 commit, 2 promise, 3 accept, 4 chosen, 5 watermark, 6 anchor
//!      14     2  zero
//!      16     4  group        commit: zero
//!      20     4  ballot node  commit, watermark: zero
//!      24     8  ballot round commit: length of the commit in bytes, this header included;
//!                             watermark: the first instance that it vouches for
//!      32     8  instance     commit: number of records that follow; promise: zero
//!      40     8  commit id
//!      48     n  payload      the value of an accept or chosen record
//!                             anchor: the chained checksum (8 bytes), then the members, if they
//!                             are not those of the birth
//!    48+n   0-7  zeros up to the next multiple of 8
//! ```
//!
//! All integers are little-endian. Why two checksums: the search for evidence behind a bad spot
//! looks at every multiple of 8, and a client can store values that are full of plausible
//! lengths. Because the header vouches for itself, each candidate costs 48 bytes of crc and
//! not a length that the candidate claims. And when only a value has rotted, the header still
//! says which group it belonged to. Together the two cover every byte.
//!
//! Why the position is in the header crc: a client may read this file and store a copy of it as
//! a value, a disk may write a sector to the wrong place, and a segment of another data
//! directory may be copied in. None of those bytes validates anywhere but where it was first
//! written. And because a commit header vouches for its records, sectors of two attempts at the
//! same commit (one torn and cut, one after it) never add up to a third.

use crate::ids::{Ballot, CommitId, GroupId, InstanceId, NodeId, StorageId};
use crate::log::segment::SegmentSeq;
use bytes::Bytes;

/// Length of the fixed header of every record, in bytes.
pub const RECORD_HEADER: usize = 48;

/// Records begin at multiples of this, so that a search looks at an eighth of all offsets.
pub const RECORD_ALIGN: usize = 8;

/// Length of an anchor's payload without members, in bytes.
pub(super) const ANCHOR_PAYLOAD: usize = 8;

/// The most bytes of members in an anchor.
pub const MAX_ANCHOR_MEMBERS: usize = 4096;

/// The version of the record format that this code writes and reads.
pub const RECORD_VERSION: u8 = 1;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The group promised never to accept below this ballot.
    Promise {
        /// The promising group.
        group: GroupId,
        /// The promised ballot.
        ballot: Ballot,
    },
    /// The group accepted a value.
    Accept {
        /// The accepting group.
        group: GroupId,
        /// The instance the value was accepted in.
        instance: InstanceId,
        /// The ballot the value was accepted at.
        ballot: Ballot,
        /// The value.
        value: Bytes,
    },
    /// The group learned from a peer that a value is chosen.
    Chosen {
        /// The learning group.
        group: GroupId,
        /// The instance the value is chosen in.
        instance: InstanceId,
        /// A ballot at which it was chosen.
        ballot: Ballot,
        /// The value.
        value: Bytes,
    },
    /// Every instance up to and including this one is chosen, those from `first` on with the value of
    /// the newest accept or chosen record of that instance before this record in the log.
    ///
    /// Where a checkpoint has taken the place of values that never came, older records may hold
    /// what was accepted there once and never chosen. Nobody may learn it from them.
    Watermark {
        /// The group.
        group: GroupId,
        /// Where older records can be trusted from; zero when nothing is before that.
        first: InstanceId,
        /// The last instance of the chosen prefix.
        instance: InstanceId,
    },
    /// Every instance up to and including this one is chosen and in the group's durable
    /// checkpoint. It stands for every older record of the group except the values beyond
    /// `instance`: those records may be missing from the log, and once all that lies in the
    /// oldest segment is stood for, the segment may go (see `gc.rs`).
    ///
    /// It may say less than what it stands for only about watermarks: that the values between
    /// `instance` and an older watermark are chosen may have to be learned again.
    Anchor {
        /// The group.
        group: GroupId,
        /// The last instance that the checkpoint covers; zero for a group without any.
        instance: InstanceId,
        /// The chained checksum of the values up to there.
        chain: u64,
        /// The promise of the group. An anchor below it does not stand for it.
        ballot: Ballot,
        /// Who votes behind `instance`, encoded; empty for the members of the birth. At most
        /// [`MAX_ANCHOR_MEMBERS`] bytes.
        members: Bytes,
    },
}

impl Record {
    /// The group that the record belongs to.
    #[must_use]
    pub fn group(&self) -> GroupId {
        match self {
            Record::Promise { group, .. }
            | Record::Accept { group, .. }
            | Record::Chosen { group, .. }
            | Record::Watermark { group, .. }
            | Record::Anchor { group, .. } => *group,
        }
    }

    /// The bytes that the record takes in the log, padding included.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let payload = match self {
            Record::Accept { value, .. } | Record::Chosen { value, .. } => value.len(),
            Record::Promise { .. } | Record::Watermark { .. } => 0,
            Record::Anchor { members, .. } => ANCHOR_PAYLOAD + members.len(),
        };
        RECORD_HEADER + payload.next_multiple_of(RECORD_ALIGN)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Commit = 1,
    Promise = 2,
    Accept = 3,
    Chosen = 4,
    Watermark = 5,
    Anchor = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Commit,
            2 => Kind::Promise,
            3 => Kind::Accept,
            4 => Kind::Chosen,
            5 => Kind::Watermark,
            6 => Kind::Anchor,
            _ => return None,
        })
    }

    /// Whether a record of this kind may have a payload of this length and checksum.
    fn takes_payload(self, length: u32, crc: u32) -> bool {
        match self {
            Kind::Accept | Kind::Chosen => true,
            Kind::Commit => length == 0,
            Kind::Promise | Kind::Watermark => length == 0 && crc == 0,
            Kind::Anchor => {
                (ANCHOR_PAYLOAD..=ANCHOR_PAYLOAD + MAX_ANCHOR_MEMBERS).contains(&(length as usize))
            }
        }
    }
}

/// A record header whose checksum holds at the place where it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    payload_crc: u32,
    payload_len: u32,
    pub kind: Kind,
    pub group: GroupId,
    pub ballot: Ballot,
    pub instance: InstanceId,
    pub commit: CommitId,
}

impl Header {
    /// Of a commit header: the bytes of the commit, its header included.
    pub fn commit_bytes(&self) -> u64 {
        self.ballot.round
    }

    /// Of a commit header: the number of records that follow.
    pub fn commit_records(&self) -> u64 {
        self.instance.0
    }

    /// Of a commit header: the checksum over the header crcs of its records.
    pub fn commit_crc(&self) -> u32 {
        self.payload_crc
    }

    fn encode(&self) -> [u8; RECORD_HEADER] {
        let mut out = [0; RECORD_HEADER];
        out[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[8..12].copy_from_slice(&self.payload_len.to_le_bytes());
        out[12] = RECORD_VERSION;
        out[13] = self.kind as u8;
        out[16..20].copy_from_slice(&self.group.0.to_le_bytes());
        out[20..24].copy_from_slice(&self.ballot.node.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.ballot.round.to_le_bytes());
        out[32..40].copy_from_slice(&self.instance.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.commit.0.to_le_bytes());
        out
    }
}

/// Binds checksums to one segment of one storage.
#[derive(Clone)]
pub(super) struct Place {
    seed: crc32fast::Hasher,
}

impl Place {
    pub fn new(storage: StorageId, segment: SegmentSeq) -> Place {
        let mut seed = crc32fast::Hasher::new();
        seed.update(&storage.0.to_le_bytes());
        seed.update(&segment.0.to_le_bytes());
        Place { seed }
    }

    fn header_crc(&self, offset: u32, header: &[u8; RECORD_HEADER]) -> u32 {
        let mut crc = self.seed.clone();
        crc.update(&offset.to_le_bytes());
        crc.update(&header[4..]);
        crc.finalize()
    }

    /// Makes `bytes` a commit that is to be written at `offset` of this segment: room for the
    /// header, then encoded records, which begin at `starts`.
    pub fn stamp_commit(
        &self,
        bytes: &mut [u8],
        starts: impl Iterator<Item = usize>,
        offset: u32,
        commit: CommitId,
    ) {
        let mut crcs = crc32fast::Hasher::new();
        let mut records = 0;
        for start in starts {
            self.stamp(bytes, start, offset + start as u32, commit);
            crcs.update(&bytes[start..start + 4]);
            records += 1;
        }
        let header = Header {
            payload_crc: crcs.finalize(),
            payload_len: 0,
            kind: Kind::Commit,
            group: GroupId(0),
            ballot: Ballot { round: bytes.len() as u64, node: NodeId(0) },
            instance: InstanceId(records),
            commit,
        };
        bytes[..RECORD_HEADER].copy_from_slice(&header.encode());
        self.stamp(bytes, 0, offset, commit);
    }

    /// Stamps the record at `at` in `bytes`, which is to be written at `offset` of this segment.
    fn stamp(&self, bytes: &mut [u8], at: usize, offset: u32, commit: CommitId) {
        let header: &mut [u8; RECORD_HEADER] =
            bytes[at..].first_chunk_mut().expect("a pending record is longer than its header");
        header[40..48].copy_from_slice(&commit.0.to_le_bytes());
        let crc = self.header_crc(offset, header);
        header[..4].copy_from_slice(&crc.to_le_bytes());
    }

    /// The header at `at` of `bytes`, the first of which lies at `base` of the segment.
    /// `None` unless everything about it holds; reads `RECORD_HEADER` bytes and no more.
    pub fn header_at(&self, bytes: &[u8], at: usize, base: u32) -> Option<Header> {
        let raw: &[u8; RECORD_HEADER] = bytes.get(at..)?.first_chunk()?;
        // Cheap refusals first: this runs over every eighth byte of a segment in a search.
        if raw[12] != RECORD_VERSION || raw[14] != 0 || raw[15] != 0 {
            return None;
        }
        let kind = Kind::from_byte(raw[13])?;
        let offset = base.checked_add(u32::try_from(at).ok()?)?;
        if u32_at(raw, 0) != self.header_crc(offset, raw) {
            return None;
        }
        let header = Header {
            payload_crc: u32_at(raw, 4),
            payload_len: u32_at(raw, 8),
            kind,
            group: GroupId(u32_at(raw, 16)),
            ballot: Ballot { round: u64_at(raw, 24), node: NodeId(u32_at(raw, 20)) },
            instance: InstanceId(u64_at(raw, 32)),
            commit: CommitId(u64_at(raw, 40)),
        };
        kind.takes_payload(header.payload_len, header.payload_crc).then_some(header)
    }

    /// The record at `at` of `bytes` and the offset behind it. `bytes` is all that it may use.
    pub fn record_at(&self, bytes: &[u8], at: usize, base: u32) -> Result<Found, Bad> {
        let header = self.header_at(bytes, at, base).ok_or(Bad::Header)?;
        let group = header.group;
        let start = at + RECORD_HEADER;
        let end = start.checked_add(header.payload_len as usize).ok_or(Bad::Length { group })?;
        let next = end.next_multiple_of(RECORD_ALIGN);
        let payload = bytes.get(start..end).ok_or(Bad::Length { group })?;
        let padding = bytes.get(end..next).ok_or(Bad::Length { group })?;
        if crc32fast::hash(payload) != header.payload_crc {
            return Err(Bad::Payload { group });
        }
        if padding.iter().any(|&byte| byte != 0) {
            return Err(Bad::Padding { group });
        }
        let Header { kind, group, ballot, instance, .. } = header;
        let value = || Bytes::copy_from_slice(payload);
        let record = match kind {
            Kind::Commit => return Err(Bad::Header),
            Kind::Promise => Record::Promise { group, ballot },
            Kind::Accept => Record::Accept { group, instance, ballot, value: value() },
            Kind::Chosen => Record::Chosen { group, instance, ballot, value: value() },
            Kind::Watermark => Record::Watermark { group, first: InstanceId(ballot.round), instance },
            Kind::Anchor => {
                let members = Bytes::copy_from_slice(&payload[ANCHOR_PAYLOAD..]);
                Record::Anchor { group, instance, chain: u64_at(payload, 0), ballot, members }
            }
        };
        Ok(Found { header, record, next })
    }
}

/// A whole record that was found and checked.
#[derive(Debug)]
pub(super) struct Found {
    pub header: Header,
    pub record: Record,
    /// Where the next record begins.
    pub next: usize,
}

/// Why the bytes at a place are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Header,
    Length { group: GroupId },
    Payload { group: GroupId },
    Padding { group: GroupId },
}

impl Bad {
    pub fn why(self) -> &'static str {
        match self {
            Bad::Header => "no valid record header",
            Bad::Length { .. } => "a record longer than the commit it is in",
            Bad::Payload { .. } => "a value that does not match its checksum",
            Bad::Padding { .. } => "padding that is not zero",
        }
    }
}

/// Appends the record to `out`, without what only [`Place::stamp`] knows.
pub(super) fn encode(record: &Record, out: &mut Vec<u8>) {
    let (kind, group, instance, ballot) = match record {
        Record::Promise { group, ballot } => (Kind::Promise, *group, InstanceId::ZERO, *ballot),
        Record::Accept { group, instance, ballot, .. } => (Kind::Accept, *group, *instance, *ballot),
        Record::Chosen { group, instance, ballot, .. } => (Kind::Chosen, *group, *instance, *ballot),
        Record::Watermark { group, first, instance } => {
            (Kind::Watermark, *group, *instance, Ballot { round: first.0, node: NodeId(0) })
        }
        Record::Anchor { group, instance, ballot, .. } => (Kind::Anchor, *group, *instance, *ballot),
    };
    let anchor: Vec<u8>;
    let payload: &[u8] = match record {
        Record::Accept { value, .. } | Record::Chosen { value, .. } => value,
        Record::Promise { .. } | Record::Watermark { .. } => &[],
        Record::Anchor { chain, members, .. } => {
            anchor = [&chain.to_le_bytes()[..], members].concat();
            &anchor
        }
    };
    let header = Header {
        payload_crc: crc32fast::hash(payload),
        payload_len: u32::try_from(payload.len()).expect("append refuses values above max_record"),
        kind,
        group,
        ballot,
        instance,
        commit: CommitId(0),
    };
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(RECORD_ALIGN), 0);
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

pub(super) fn u128_at(bytes: &[u8], at: usize) -> u128 {
    let mut raw = [0; 16];
    raw.copy_from_slice(&bytes[at..at + 16]);
    u128::from_le_bytes(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORAGE: StorageId = StorageId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);

    fn accept() -> Record {
        Record::Accept {
            group: GroupId(7),
            instance: InstanceId(9),
            ballot: Ballot { round: 3, node: NodeId(2) },
            value: Bytes::from_static(b"hello"),
        }
    }

    fn stamped(record: &Record) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(record, &mut bytes);
        Place::new(STORAGE, SegmentSeq(1)).stamp(&mut bytes, 0, 560, CommitId(4));
        bytes
    }

    /// The format is a promise to every later version: these bytes never change.
    #[test]
    fn golden_accept() {
        let hex: String = stamped(&accept()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN_ACCEPT);
    }

    #[test]
    fn golden_commit() {
        let mut bytes = vec![0; RECORD_HEADER];
        encode(&accept(), &mut bytes);
        Place::new(STORAGE, SegmentSeq(1)).stamp_commit(&mut bytes, [48].into_iter(), 512, CommitId(4));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, format!("{GOLDEN_COMMIT_HEADER}{GOLDEN_ACCEPT}"));
    }

    const GOLDEN_COMMIT_HEADER: &str = concat!(
        "47641e7c01439cc6000000000101000000000000000000006800000000000000",
        "01000000000000000400000000000000",
    );

    const GOLDEN_ACCEPT: &str = concat!(
        "a3136b7586a61036050000000103000007000000020000000300000000000000",
        "0900000000000000040000000000000068656c6c6f000000",
    );

    fn anchor() -> Record {
        Record::Anchor {
            group: GroupId(7),
            instance: InstanceId(9),
            chain: 0x0807_0605_0403_0201,
            ballot: Ballot { round: 3, node: NodeId(2) },
            members: Bytes::new(),
        }
    }

    fn anchor_with_members() -> Record {
        let Record::Anchor { group, instance, chain, ballot, .. } = anchor() else { unreachable!() };
        Record::Anchor { group, instance, chain, ballot, members: Bytes::from_static(&[5; 52]) }
    }

    #[test]
    fn golden_anchor() {
        let hex: String = stamped(&anchor()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN_ANCHOR);
    }

    const GOLDEN_ANCHOR: &str = concat!(
        "4abffdc3c588ca3f080000000106000007000000020000000300000000000000",
        "090000000000000004000000000000000102030405060708",
    );

    #[test]
    fn every_bit_is_covered() {
        let place = Place::new(STORAGE, SegmentSeq(1));
        for record in [accept(), anchor(), anchor_with_members()] {
            let good = stamped(&record);
            let found = place.record_at(&good, 0, 560).expect("a record");
            let length = record.encoded_len();
            assert_eq!((&found.record, found.next, found.header.commit), (&record, length, CommitId(4)));
            assert_eq!(good.len(), length);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(place.record_at(&bad, 0, 560).is_err(), "bit {bit}");
            }
            for length in 0..good.len() {
                assert!(place.record_at(&good[..length], 0, 560).is_err(), "cut to {length}");
            }
        }
    }

    /// Checksums that hold do not make an anchor of something that is too short or too long.
    #[test]
    fn an_anchor_has_a_checksum_and_few_members() {
        let place = Place::new(STORAGE, SegmentSeq(1));
        for length in (0..ANCHOR_PAYLOAD).chain([ANCHOR_PAYLOAD + MAX_ANCHOR_MEMBERS + 1]) {
            let mut bytes = vec![0; RECORD_HEADER + length.next_multiple_of(RECORD_ALIGN)];
            let payload = [0; ANCHOR_PAYLOAD + MAX_ANCHOR_MEMBERS + 1];
            let header = Header {
                payload_crc: crc32fast::hash(&payload[..length]),
                payload_len: length as u32,
                kind: Kind::Anchor,
                group: GroupId(7),
                ballot: Ballot::ZERO,
                instance: InstanceId(9),
                commit: CommitId(4),
            };
            bytes[..RECORD_HEADER].copy_from_slice(&header.encode());
            place.stamp(&mut bytes, 0, 560, CommitId(4));
            assert_eq!(place.record_at(&bytes, 0, 560).map(|found| found.record), Err(Bad::Header));
        }
    }

    #[test]
    fn a_record_holds_only_where_it_was_written() {
        let good = stamped(&accept());
        let here = Place::new(STORAGE, SegmentSeq(1));
        for offset in (0..65_536).step_by(8).filter(|&offset| offset != 560) {
            assert!(here.header_at(&good, 0, offset).is_none());
        }
        assert!(Place::new(STORAGE, SegmentSeq(2)).header_at(&good, 0, 560).is_none());
        assert!(Place::new(StorageId(1), SegmentSeq(1)).header_at(&good, 0, 560).is_none());
    }

    #[test]
    fn zeros_are_no_record() {
        let place = Place::new(StorageId(0), SegmentSeq(0));
        assert!(place.header_at(&[0; 64], 0, 0).is_none());
    }
}
