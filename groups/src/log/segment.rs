//! Segment files and the manifest that says which of them there must be.
//!
//! ```text
//!  log-0000000000000001.seg            log-0000000000000002.seg
//!  ┌────────────────┐ 0                ┌────────────────┐
//!  │ segment header │                  │ segment header │ first commit = 4
//!  ├────────────────┤ 512              ├────────────────┤
//!  │ commit 1       │                  │ commit 4       │
//!  │  record        │                  │  ...           │
//!  │  record        │                  ├────────────────┤
//!  │  zeros         │                  │                │
//!  ├────────────────┤ n * 512          │ zeros, ready   │
//!  │ commit 2       │                  │ to be written  │
//!  │  ...           │                  │                │
//!  ├────────────────┤                  │                │
//!  │ commit 3       │                  │                │
//!  ├────────────────┤                  │                │
//!  │ zeros (4 was   │                  │                │
//!  │ too long)      │                  │                │
//!  └────────────────┘ segment size     └────────────────┘
//! ```
//!
//! The segment header, and the manifest `log.manifest` with it:
//!
//! ```text
//!  offset  size  segment                      manifest
//!       0     8  "PELAGOWL"                   "PELAGOLM"
//!       8     4  version (1)                  version (1)
//!      12     4  zero                         zero
//!      16    16  storage id                   storage id
//!      32     8  sequence number              first segment
//!      40     8  id of its first commit       last segment
//!      48     8  size of the file in bytes    zero
//!      56     4  zero                         zero
//!      60     4  crc over bytes 0..60         crc over bytes 0..60
//!      64   448  zero                         (ends here)
//! ```
//!
//! Magic, version and crc keep their places in every later version, so that a newer file can be
//! told from a damaged one. Without the manifest a lost newest segment would look like a log
//! that ends a little earlier.

use crate::ids::{CommitId, StorageId};
use crate::log::record::{u32_at, u64_at, u128_at};
use std::fmt;

/// Bytes at the start of a segment that belong to its header.
pub const SEGMENT_HEADER: usize = 512;

/// Commits begin at multiples of this and are padded to it: a commit never writes a sector that
/// holds bytes of an earlier, already synced one, and direct writes need no copy of the tail.
pub const COMMIT_ALIGN: usize = 512;

/// The version of the segment and manifest format that this code writes and reads.
pub const LOG_VERSION: u32 = 1;

/// The name of the manifest.
pub const MANIFEST: &str = "log.manifest";

/// The name under which the next segment is prepared.
pub const SPARE: &str = "log.spare";

const BLOCK: usize = 64;
const CRC_AT: usize = 60;
const SEGMENT_MAGIC: &[u8; 8] = b"PELAGOWL";
const MANIFEST_MAGIC: &[u8; 8] = b"PELAGOLM";

/// The number of a segment. The first is 1; they have no gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSeq(pub u64);

impl SegmentSeq {
    /// The file name of the segment.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("log-{:016x}.seg", self.0)
    }

    /// The segment that a file name names, if it names one.
    #[must_use]
    pub fn from_file_name(name: &str) -> Option<SegmentSeq> {
        let hex = name.strip_prefix("log-")?.strip_suffix(".seg")?;
        let seq = SegmentSeq(u64::from_str_radix(hex, 16).ok()?);
        (seq.file_name() == name).then_some(seq)
    }
}

impl fmt::Display for SegmentSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file_name())
    }
}

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub storage: StorageId,
    pub seq: SegmentSeq,
    pub first_commit: CommitId,
    pub size: u64,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        let words = [self.seq.0, self.first_commit.0, self.size];
        out[..BLOCK].copy_from_slice(&encode_block(SEGMENT_MAGIC, self.storage, words));
        out
    }

    pub fn decode(bytes: &[u8; SEGMENT_HEADER]) -> Result<SegmentHeader, BadHeader> {
        let (storage, [seq, first_commit, size]) = decode_block(SEGMENT_MAGIC, bytes)?;
        if bytes[BLOCK..].iter().any(|&byte| byte != 0) {
            return Err(BadHeader::Damaged("bytes behind the segment header that are not zero"));
        }
        // Both count up from 1, and never far enough to run over.
        if [seq, first_commit].iter().any(|&n| n == 0 || n > u64::MAX / 2) {
            return Err(BadHeader::Damaged("a segment header that makes no sense"));
        }
        Ok(SegmentHeader { storage, seq: SegmentSeq(seq), first_commit: CommitId(first_commit), size })
    }
}

/// Which segments make up the log: all of `first..=last`, and no other holds a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub storage: StorageId,
    pub first: SegmentSeq,
    pub last: SegmentSeq,
}

impl Manifest {
    /// More than a manifest of this version ever takes.
    pub const MAX: usize = 4096;

    pub fn encode(&self) -> [u8; BLOCK] {
        encode_block(MANIFEST_MAGIC, self.storage, [self.first.0, self.last.0, 0])
    }

    pub fn decode(bytes: &[u8]) -> Result<Manifest, BadHeader> {
        let (storage, [first, last, zero]) = decode_block(MANIFEST_MAGIC, bytes)?;
        if bytes.len() != BLOCK || zero != 0 || first == 0 || first > last {
            return Err(BadHeader::Damaged("a manifest that makes no sense"));
        }
        Ok(Manifest { storage, first: SegmentSeq(first), last: SegmentSeq(last) })
    }
}

/// Why a segment header or manifest was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    Newer(u32),
    Damaged(&'static str),
}

fn encode_block(magic: &[u8; 8], storage: StorageId, words: [u64; 3]) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    out[..8].copy_from_slice(magic);
    out[8..12].copy_from_slice(&LOG_VERSION.to_le_bytes());
    out[16..32].copy_from_slice(&storage.0.to_le_bytes());
    for (word, at) in words.iter().zip([32, 40, 48]) {
        out[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc32fast::hash(&out[..CRC_AT]);
    out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode_block(magic: &[u8; 8], bytes: &[u8]) -> Result<(StorageId, [u64; 3]), BadHeader> {
    let block: &[u8; BLOCK] = bytes.first_chunk().ok_or(BadHeader::Damaged("a header cut short"))?;
    if &block[..8] != magic || crc32fast::hash(&block[..CRC_AT]) != u32_at(block, CRC_AT) {
        return Err(BadHeader::Damaged("a header that does not match its checksum"));
    }
    match u32_at(block, 8) {
        LOG_VERSION => {}
        newer if newer > LOG_VERSION => return Err(BadHeader::Newer(newer)),
        _ => return Err(BadHeader::Damaged("a format version that never was")),
    }
    if u32_at(block, 12) != 0 || u32_at(block, 56) != 0 {
        return Err(BadHeader::Damaged("reserved bytes that are not zero"));
    }
    Ok((StorageId(u128_at(block, 16)), [u64_at(block, 32), u64_at(block, 40), u64_at(block, 48)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            storage: StorageId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            seq: SegmentSeq(5),
            first_commit: CommitId(77),
            size: 1 << 20,
        }
    }

    /// The format is a promise to every later version: these bytes never change.
    #[test]
    fn golden_segment_header() {
        let bytes = header().encode();
        let hex: String = bytes[..BLOCK].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN_HEADER);
        assert!(bytes[BLOCK..].iter().all(|&byte| byte == 0));
    }

    const GOLDEN_HEADER: &str = concat!(
        "50454c41474f574c0100000000000000100f0e0d0c0b0a090807060504030201",
        "05000000000000004d000000000000000000100000000000000000007662f3cc",
    );

    #[test]
    fn headers_round_trip_and_every_bit_is_covered() {
        let good = header().encode();
        assert_eq!(SegmentHeader::decode(&good), Ok(header()));
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(SegmentHeader::decode(&bad), Err(BadHeader::Damaged(_))), "bit {bit}");
        }
        let manifest = Manifest { storage: StorageId(9), first: SegmentSeq(1), last: SegmentSeq(3) };
        let good = manifest.encode();
        assert_eq!(Manifest::decode(&good), Ok(manifest));
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Manifest::decode(&bad), Err(BadHeader::Damaged(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        assert!(matches!(SegmentHeader::decode(&bytes), Err(BadHeader::Damaged(_))));
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..BLOCK].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Newer(2)));
    }

    #[test]
    fn only_exact_names_name_a_segment() {
        assert_eq!(SegmentSeq::from_file_name("log-000000000000000a.seg"), Some(SegmentSeq(10)));
        for name in ["log-a.seg", "log-000000000000000A.seg", "log-+00000000000000a.seg", "log.spare"] {
            assert_eq!(SegmentSeq::from_file_name(name), None, "{name}");
        }
    }
}
