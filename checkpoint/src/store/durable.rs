//! What log GC may trust: per group the newest point that was on the disk and whose content
//! was verified, in one small file beside the engine.
//!
//! An engine can lose what it said it had flushed. The log behind these points is gone, so a
//! store that opens with less than they say has lost data and must say so itself.
//!
//! ```text
//! 0   8  magic "PELAGODP"
//! 8   2  version = 1
//! 10  2  reserved, 0
//! 12  4  number of points n
//! 16  n × { group 4, applied 8, chain 8, state hash 32 }, ascending by group
//! ..  4  crc32 of everything before
//! ```

use std::collections::BTreeMap;
use std::io;

use bytes::Buf;
use groups::ids::{GroupId, InstanceId};

use super::files::Files;
use crate::entry::{Chain, StateDigest};

const MAGIC: &[u8; 8] = b"PELAGODP";
const VERSION: u16 = 1;
const POINT_BYTES: usize = 4 + 8 + 8 + 32;

/// More groups than a node can have; bounds what is read from the disk.
const MAX_POINTS: usize = 1 << 20;

/// A group's state at one instance, in 48 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// The last instance applied.
    pub applied: InstanceId,
    /// The chained checksum there.
    pub chain: Chain,
    /// The hash of the state there.
    pub state_hash: StateDigest,
}

/// The durable, verified point of every group that has one.
pub type Points = BTreeMap<GroupId, Point>;

/// Its name.
const NAME: &str = "durable";

/// Reads the file; a file that is not there holds no points.
///
/// # Errors
/// `InvalidData` with a reason when it is damaged, else what the operating system reports.
pub(super) fn load(files: &dyn Files) -> io::Result<Points> {
    let most = 16 + MAX_POINTS * POINT_BYTES + 4;
    let Some(raw) = files.read(NAME, most)? else { return Ok(Points::new()) };
    let damaged = || format!("{} is damaged", files.place().join(NAME).display());
    decode(&raw).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, damaged()))
}

/// Replaces the file durably.
pub(super) fn save(files: &dyn Files, points: &Points) -> io::Result<()> {
    files.replace(NAME, &encode(points))
}

/// Removes the file and makes that durable.
pub(super) fn remove(files: &dyn Files) -> io::Result<()> {
    files.remove(NAME)
}

/// Whether there is one.
pub(super) fn exists(files: &dyn Files) -> io::Result<bool> {
    files.exists(NAME)
}

fn encode(points: &Points) -> Vec<u8> {
    assert!(points.len() <= MAX_POINTS, "more durable points than a node can have groups");
    let mut out = Vec::with_capacity(20 + points.len() * POINT_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(points.len() as u32).to_le_bytes());
    for (group, point) in points {
        out.extend_from_slice(&group.0.to_le_bytes());
        out.extend_from_slice(&point.applied.0.to_le_bytes());
        out.extend_from_slice(&point.chain.0.to_le_bytes());
        out.extend_from_slice(&point.state_hash.0);
    }
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn decode(raw: &[u8]) -> Option<Points> {
    let (body, crc) = raw.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut body = body.strip_prefix(MAGIC)?;
    let version = body.try_get_u16_le().ok()?;
    let reserved = body.try_get_u16_le().ok()?;
    let count = body.try_get_u32_le().ok()? as usize;
    if version != VERSION || reserved != 0 || body.len() != count.checked_mul(POINT_BYTES)? {
        return None;
    }
    let mut points = Points::new();
    for mut raw in body.chunks_exact(POINT_BYTES) {
        let group = GroupId(raw.try_get_u32_le().ok()?);
        let applied = InstanceId(raw.try_get_u64_le().ok()?);
        let chain = Chain(raw.try_get_u64_le().ok()?);
        let state_hash = StateDigest(*raw.first_chunk::<32>()?);
        let ascending = points.last_key_value().is_none_or(|(&last, _)| last < group);
        if !ascending {
            return None;
        }
        points.insert(group, Point { applied, chain, state_hash });
    }
    Some(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Points {
        let point =
            |n| Point { applied: InstanceId(n), chain: Chain(n), state_hash: StateDigest([n as u8; 32]) };
        Points::from([(GroupId(1), point(1)), (GroupId(9), point(2))])
    }

    #[test]
    fn the_bytes_are_these() {
        let raw = encode(&points());
        assert_eq!(raw.len(), 16 + 2 * 52 + 4);
        assert_eq!(&raw[..16], b"PELAGODP\x01\0\0\0\x02\0\0\0");
        assert_eq!(&raw[16..32], b"\x01\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0");
        assert_eq!(decode(&raw), Some(points()));
        assert_eq!(decode(&encode(&Points::new())), Some(Points::new()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = encode(&points());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
        for length in 0..good.len() {
            assert_eq!(decode(&good[..length]), None, "length {length}");
        }
    }
}
