//! The records of the group table and their bytes: little endian, versioned, each with its crc.

use bytes::{Buf, Bytes};
use groups::ids::InstanceId;
use xxhash_rust::xxh3::xxh3_128;

use crate::entry::{Chain, Entry, EntryRef, Generation, MAX_KEY, StateDigest};

/// The longest membership blob.
pub const MAX_MEMBERSHIP: usize = 64 << 10;

/// The longest session table of one group.
pub const MAX_SESSIONS: usize = 64 << 20;

const VERSION: u8 = 1;

/// Where a group's mirror stands: written with the data in one atomic batch, so that the two
/// always agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The last instance applied.
    pub applied: InstanceId,
    /// The chained checksum of chosen values at that instance.
    pub chain: Chain,
    /// The hash of all entries at that instance.
    pub state_hash: StateDigest,
    /// The group's revision counter.
    pub revision: u64,
    /// The group's epoch; moves only through the log.
    pub epoch: u64,
    /// The membership in force, and whatever else travels with it; opaque here.
    pub membership: Bytes,
}

/// Names a whole state in 16 bytes: its position and its session table. Two members of a group
/// at the same instance have the same one, so a transfer that began from one of them can be
/// continued from the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PositionDigest(pub u128);

impl PositionDigest {
    /// The digest of a position and the session table that belongs to it.
    #[must_use]
    pub fn of(position: &Position, sessions: &[u8]) -> PositionDigest {
        PositionDigest::with(position, SessionStamp::of(sessions))
    }

    fn with(position: &Position, sessions: SessionStamp) -> PositionDigest {
        let mut body = Vec::new();
        put_body(&mut body, Generation(0), position, sessions);
        PositionDigest(xxh3_128(&body))
    }
}

/// Identifies a session table that lies under its own key, because it changes more rarely than
/// the position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionStamp {
    pub(super) bytes: u32,
    pub(super) crc: u32,
}

impl SessionStamp {
    pub(super) fn of(sessions: &[u8]) -> SessionStamp {
        // Callers bound the table by MAX_SESSIONS, far below u32::MAX.
        SessionStamp { bytes: sessions.len() as u32, crc: crc32fast::hash(sessions) }
    }
}

/// The current state of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Current {
    pub(super) generation: Generation,
    pub(super) position: Position,
    pub(super) sessions: SessionStamp,
}

/// A checkpoint on its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staging {
    /// The generation its entries are written to.
    pub generation: Generation,
    /// What it will be once installed.
    pub promised: Position,
    /// Entries staged so far.
    pub entries: u64,
    /// The last key staged: a transfer continues behind it.
    pub last_key: Option<Bytes>,
    pub(super) sessions: SessionStamp,
}

impl Staging {
    /// What it will be once installed, in 16 bytes.
    #[must_use]
    pub fn digest(&self) -> PositionDigest {
        PositionDigest::with(&self.promised, self.sessions)
    }
}

impl Current {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_body(&mut out, self.generation, &self.position, self.sessions);
        seal(out)
    }

    /// `None` for bytes that were not written by [`Current::encode`].
    pub(super) fn decode(raw: &[u8]) -> Option<Current> {
        let mut raw = unseal(raw)?;
        let (generation, position, sessions) = take_body(&mut raw)?;
        raw.is_empty().then_some(Current { generation, position, sessions })
    }
}

impl Staging {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_body(&mut out, self.generation, &self.promised, self.sessions);
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.push(u8::from(self.last_key.is_some()));
        out.extend_from_slice(self.last_key.as_deref().unwrap_or_default());
        seal(out)
    }

    /// `None` for bytes that were not written by [`Staging::encode`].
    pub(super) fn decode(raw: &[u8]) -> Option<Staging> {
        let mut raw = unseal(raw)?;
        let (generation, promised, sessions) = take_body(&mut raw)?;
        let entries = raw.try_get_u64_le().ok()?;
        let has_key = raw.try_get_u8().ok()?;
        if raw.len() > MAX_KEY || has_key > 1 {
            return None;
        }
        let last_key = (has_key == 1).then(|| Bytes::copy_from_slice(raw));
        Some(Staging { generation, promised, sessions, entries, last_key })
    }
}

/// The value of an entry: revision, expiry, then the user's bytes. Its checksum is the
/// engine's; the state hash covers all of them together.
pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + entry.value.len());
    out.extend_from_slice(&entry.revision.to_le_bytes());
    out.extend_from_slice(&entry.expiry.to_le_bytes());
    out.extend_from_slice(&entry.value);
    out
}

/// `None` for a value that is too short to be one.
pub(super) fn decode_entry<'a>(key: &'a [u8], mut raw: &'a [u8]) -> Option<EntryRef<'a>> {
    let revision = raw.try_get_u64_le().ok()?;
    let expiry = raw.try_get_u64_le().ok()?;
    Some(EntryRef { key, value: raw, revision, expiry })
}

fn put_body(out: &mut Vec<u8>, generation: Generation, position: &Position, sessions: SessionStamp) {
    out.extend_from_slice(&generation.0.to_le_bytes());
    out.extend_from_slice(&position.applied.0.to_le_bytes());
    out.extend_from_slice(&position.chain.0.to_le_bytes());
    out.extend_from_slice(&position.state_hash.0);
    out.extend_from_slice(&position.revision.to_le_bytes());
    out.extend_from_slice(&position.epoch.to_le_bytes());
    out.extend_from_slice(&sessions.bytes.to_le_bytes());
    out.extend_from_slice(&sessions.crc.to_le_bytes());
    out.extend_from_slice(&(position.membership.len() as u32).to_le_bytes());
    out.extend_from_slice(&position.membership);
}

fn take_body(raw: &mut &[u8]) -> Option<(Generation, Position, SessionStamp)> {
    let generation = Generation(raw.try_get_u64_le().ok()?);
    let applied = InstanceId(raw.try_get_u64_le().ok()?);
    let chain = Chain(raw.try_get_u64_le().ok()?);
    let (state_hash, rest) = raw.split_first_chunk::<32>()?;
    *raw = rest;
    let revision = raw.try_get_u64_le().ok()?;
    let epoch = raw.try_get_u64_le().ok()?;
    let bytes = raw.try_get_u32_le().ok()?;
    let crc = raw.try_get_u32_le().ok()?;
    let length = raw.try_get_u32_le().ok()? as usize;
    if length > MAX_MEMBERSHIP || bytes as usize > MAX_SESSIONS {
        return None;
    }
    let (membership, rest) = raw.split_at_checked(length)?;
    *raw = rest;
    let position = Position {
        applied,
        chain,
        state_hash: StateDigest(*state_hash),
        revision,
        epoch,
        membership: Bytes::copy_from_slice(membership),
    };
    Some((generation, position, SessionStamp { bytes, crc }))
}

/// Appends the crc.
pub(super) fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Checks and strips crc and version.
pub(super) fn unseal(raw: &[u8]) -> Option<&[u8]> {
    let (body, crc) = raw.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (version, body) = body.split_first()?;
    (*version == VERSION).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position {
        Position {
            applied: InstanceId(7),
            chain: Chain(8),
            state_hash: StateDigest([9; 32]),
            revision: 10,
            epoch: 11,
            membership: Bytes::from_static(b"members"),
        }
    }

    #[test]
    fn records_read_back() {
        let sessions = SessionStamp::of(b"sessions");
        let current = Current { generation: Generation(3), position: position(), sessions };
        assert_eq!(Current::decode(&current.encode()), Some(current));
        for last_key in [None, Some(Bytes::new()), Some(Bytes::from_static(b"k"))] {
            let generation = Generation(4);
            let staging = Staging { generation, promised: position(), sessions, entries: 5, last_key };
            assert_eq!(Staging::decode(&staging.encode()), Some(staging));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let current =
            Current { generation: Generation(3), position: position(), sessions: SessionStamp::default() };
        let good = current.encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Current::decode(&bad), None, "bit {bit}");
        }
        for length in 0..good.len() {
            assert_eq!(Current::decode(&good[..length]), None, "length {length}");
        }
    }
}
