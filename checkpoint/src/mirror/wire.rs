//! The frames between two mirrors and their bytes. The decoders bound every length before they
//! allocate, refuse what no encoder writes, and say nothing about trust: a sender's promises are
//! checked against the state hash before anything is installed.

use bytes::{Buf, Bytes};
use groups::ids::{Boot, ClusterId, InstanceId};

use crate::entry::{Chain, Entry, EntryRef, MAX_KEY, MAX_VALUE, StateDigest};
use crate::store::{MAX_MEMBERSHIP, MAX_SESSIONS, Position, PositionDigest};

/// The receiver asks, acknowledges and grants credit.
pub const FETCH: u8 = 8;
/// The sender says which state follows, with a piece of its session table.
pub const HEAD: u8 = 9;
/// A run of entries.
pub const CHUNK: u8 = 10;
/// The sender has nothing to give, or not now.
pub const NONE: u8 = 11;

/// The largest frame body that is sent or taken.
pub const MAX_BODY: usize = 16 << 20;

const FETCH_HEAD: usize = 68;
pub(super) const HEAD_HEAD: usize = 132;
pub(super) const CHUNK_HEAD: usize = 60;
const NONE_BYTES: usize = 32;

const HAS_STATE: u8 = 1;
const HAS_KEY: u8 = 2;
const DOUBT: u8 = 4;
const HAS_SESSIONS: u8 = 8;
const HAS_STATE_AND_KEY: u8 = HAS_STATE | HAS_KEY;
const HAS_STATE_AND_SESSIONS: u8 = HAS_STATE | HAS_SESSIONS;

const ENTRY_HEAD: usize = 24;

/// One entry always fits, and so do a membership and some of a session table.
const _: () = assert!(CHUNK_HEAD + ENTRY_HEAD + MAX_KEY + MAX_VALUE <= MAX_BODY);
const _: () = assert!(HEAD_HEAD + MAX_MEMBERSHIP + (1 << 20) <= MAX_BODY);

/// One try of a receiver at a transfer. Rises within a receiver's life and from life to life, so
/// that frames of an earlier try are known by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The receiver's life.
    pub boot: Boot,
    /// Counts the tries of this life.
    pub count: u64,
}

/// What a receiver has already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Has {
    /// Of which state.
    pub digest: PositionDigest,
    /// How much of it.
    pub until: Until,
}

/// Where a state goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// At this byte of the session table.
    Sessions(u32),
    /// Behind this key; `None` before the first.
    Key(Option<Bytes>),
}

/// [`FETCH`]. Says everything that a sender needs to begin or to go on, so that it may forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The try.
    pub attempt: Attempt,
    /// The receiver's cluster.
    pub cluster: ClusterId,
    /// Only a state beyond this instance is of use.
    pub above: InstanceId,
    /// The sequence number that the receiver waits for.
    pub next: u32,
    /// How many frames from there on it will take; 0 ends the transfer.
    pub credit: u32,
    /// What came earlier did not hash to what was promised: the sender verifies again.
    pub doubt: bool,
    /// What it has.
    pub has: Option<Has>,
}

/// [`HEAD`]. A session table that does not fit one frame comes in several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The try it answers.
    pub attempt: Attempt,
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// Numbers the frames of a try.
    pub sequence: u32,
    /// Names position and session table together.
    pub digest: PositionDigest,
    /// The state's position.
    pub position: Position,
    /// Bytes of the whole session table.
    pub sessions_bytes: u32,
    /// Where `piece` begins in it.
    pub offset: u32,
    /// A piece of it.
    pub piece: Bytes,
}

/// [`CHUNK`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The try it answers.
    pub attempt: Attempt,
    /// Numbers the frames of a try.
    pub sequence: u32,
    /// Of which state.
    pub digest: PositionDigest,
    /// Entries of the whole state.
    pub total_keys: u64,
    /// Bytes of keys and values of the whole state.
    pub total_bytes: u64,
    /// Nothing follows.
    pub last: bool,
    /// Entries in strictly ascending order; empty only in the last chunk.
    pub entries: Vec<Entry>,
}

/// Why there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The sender's mirror is not beyond the instance asked for.
    Behind = 1,
    /// The sender's mirror is damaged and being rebuilt.
    Damaged = 2,
    /// Too many transfers.
    Busy = 3,
    /// The receiver is of another cluster.
    Foreign = 4,
    /// It goes on, at the pace that the sender is allowed.
    Soon = 5,
}

/// [`NONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nothing {
    /// The try it answers.
    pub attempt: Attempt,
    /// The reason.
    pub why: Why,
    /// Where the sender's mirror stands.
    pub applied: InstanceId,
}

/// A frame of the transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// See [`Fetch`].
    Fetch(Fetch),
    /// See [`Head`].
    Head(Head),
    /// See [`Chunk`].
    Chunk(Chunk),
    /// See [`Nothing`].
    Nothing(Nothing),
}

/// Bytes that are no frame of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a frame of a checkpoint transfer: {0}")]
pub struct WireError(&'static str);

const SHORT: WireError = WireError("cut off");

impl Frame {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`WireError`] for everything that [`Frame::encode`] does not write.
    pub fn decode(kind: u8, body: &Bytes) -> Result<Frame, WireError> {
        if body.len() > MAX_BODY {
            return Err(WireError("over the limit"));
        }
        let raw = body.clone();
        match kind {
            FETCH => Fetch::decode(raw).map(Frame::Fetch),
            HEAD => Head::decode(raw).map(Frame::Head),
            CHUNK => Chunk::decode(raw).map(Frame::Chunk),
            NONE => Nothing::decode(raw).map(Frame::Nothing),
            _ => Err(WireError("of another kind")),
        }
    }

    /// The frame's kind and body. The caller keeps the parts within their limits.
    #[must_use]
    pub fn encode(&self) -> (u8, Bytes) {
        let (kind, out) = match self {
            Frame::Fetch(fetch) => (FETCH, fetch.encode()),
            Frame::Head(head) => (HEAD, head.encode()),
            Frame::Chunk(chunk) => (CHUNK, chunk.encode()),
            Frame::Nothing(nothing) => (NONE, nothing.encode()),
        };
        assert!(out.len() <= MAX_BODY, "a frame of {} bytes", out.len());
        (kind, out.into())
    }
}

impl Fetch {
    fn encode(&self) -> Vec<u8> {
        let offset;
        let (flags, until): (u8, &[u8]) = match self.has.as_ref().map(|has| &has.until) {
            None => (0, &[]),
            Some(Until::Key(None)) => (HAS_STATE, &[]),
            Some(Until::Key(Some(key))) => (HAS_STATE | HAS_KEY, key),
            Some(Until::Sessions(at)) => {
                offset = at.to_le_bytes();
                (HAS_STATE | HAS_SESSIONS, &offset)
            }
        };
        let mut out = Vec::with_capacity(FETCH_HEAD + until.len());
        put_attempt(&mut out, self.attempt);
        out.extend_from_slice(&self.cluster.0.to_le_bytes());
        out.extend_from_slice(&self.above.0.to_le_bytes());
        out.extend_from_slice(&self.next.to_le_bytes());
        out.extend_from_slice(&self.credit.to_le_bytes());
        out.push(flags | if self.doubt { DOUBT } else { 0 });
        out.extend_from_slice(&[0; 3]);
        let digest = self.has.as_ref().map_or(PositionDigest::default(), |has| has.digest);
        out.extend_from_slice(&digest.0.to_le_bytes());
        out.extend_from_slice(until);
        out
    }

    fn decode(mut raw: Bytes) -> Result<Fetch, WireError> {
        if raw.len() < FETCH_HEAD {
            return Err(SHORT);
        }
        let attempt = get_attempt(&mut raw);
        let cluster = ClusterId(raw.get_u128_le());
        let above = InstanceId(raw.get_u64_le());
        let (next, credit) = (raw.get_u32_le(), raw.get_u32_le());
        let flags = raw.get_u8();
        zeros(&mut raw, 3)?;
        let digest = PositionDigest(raw.get_u128_le());
        let doubt = flags & DOUBT != 0;
        let until = match flags & !DOUBT {
            0 if digest.0 == 0 && raw.is_empty() => None,
            HAS_STATE if raw.is_empty() => Some(Until::Key(None)),
            HAS_STATE_AND_KEY if raw.len() <= MAX_KEY => Some(Until::Key(Some(Bytes::copy_from_slice(&raw)))),
            HAS_STATE_AND_SESSIONS if raw.len() == 4 => Some(Until::Sessions(raw.get_u32_le())),
            _ => return Err(WireError("its flags")),
        };
        let has = until.map(|until| Has { digest, until });
        Ok(Fetch { attempt, cluster, above, next, credit, doubt, has })
    }
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let position = &self.position;
        let mut out = Vec::with_capacity(HEAD_HEAD + position.membership.len() + self.piece.len());
        put_attempt(&mut out, self.attempt);
        out.extend_from_slice(&self.cluster.0.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.sessions_bytes.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&(self.piece.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.digest.0.to_le_bytes());
        out.extend_from_slice(&position.applied.0.to_le_bytes());
        out.extend_from_slice(&position.chain.0.to_le_bytes());
        out.extend_from_slice(&position.state_hash.0);
        out.extend_from_slice(&position.revision.to_le_bytes());
        out.extend_from_slice(&position.epoch.to_le_bytes());
        out.extend_from_slice(&(position.membership.len() as u32).to_le_bytes());
        out.extend_from_slice(&position.membership);
        out.extend_from_slice(&self.piece);
        out
    }

    fn decode(mut raw: Bytes) -> Result<Head, WireError> {
        if raw.len() < HEAD_HEAD {
            return Err(SHORT);
        }
        let attempt = get_attempt(&mut raw);
        let cluster = ClusterId(raw.get_u128_le());
        let sequence = raw.get_u32_le();
        let (sessions_bytes, offset, piece) = (raw.get_u32_le(), raw.get_u32_le(), raw.get_u32_le());
        let digest = PositionDigest(raw.get_u128_le());
        let applied = InstanceId(raw.get_u64_le());
        let chain = Chain(raw.get_u64_le());
        let mut state_hash = StateDigest::default();
        raw.copy_to_slice(&mut state_hash.0);
        let (revision, epoch) = (raw.get_u64_le(), raw.get_u64_le());
        let membership = raw.get_u32_le() as usize;
        let end = u64::from(offset) + u64::from(piece);
        if sessions_bytes as usize > MAX_SESSIONS || end > u64::from(sessions_bytes) {
            return Err(WireError("its session table"));
        }
        if (piece == 0) != (sessions_bytes == 0) {
            return Err(WireError("an empty piece"));
        }
        if membership > MAX_MEMBERSHIP || raw.len() != membership + piece as usize {
            return Err(WireError("its length"));
        }
        let membership = Bytes::copy_from_slice(&raw.split_to(membership));
        let position = Position { applied, chain, state_hash, revision, epoch, membership };
        Ok(Head { attempt, cluster, sequence, digest, position, sessions_bytes, offset, piece: raw })
    }
}

impl Chunk {
    fn encode(&self) -> Vec<u8> {
        let size: usize = self.entries.iter().map(|e| ENTRY_HEAD + e.key.len() + e.value.len()).sum();
        let mut out = Vec::with_capacity(CHUNK_HEAD + size);
        put_attempt(&mut out, self.attempt);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.digest.0.to_le_bytes());
        out.extend_from_slice(&self.total_keys.to_le_bytes());
        out.extend_from_slice(&self.total_bytes.to_le_bytes());
        out.push(u8::from(self.last));
        out.extend_from_slice(&[0; 3]);
        for entry in &self.entries {
            out.extend_from_slice(&(entry.key.len() as u32).to_le_bytes());
            out.extend_from_slice(&(entry.value.len() as u32).to_le_bytes());
            out.extend_from_slice(&entry.revision.to_le_bytes());
            out.extend_from_slice(&entry.expiry.to_le_bytes());
            out.extend_from_slice(&entry.key);
            out.extend_from_slice(&entry.value);
        }
        out
    }

    fn decode(mut raw: Bytes) -> Result<Chunk, WireError> {
        if raw.len() < CHUNK_HEAD {
            return Err(SHORT);
        }
        let attempt = get_attempt(&mut raw);
        let sequence = raw.get_u32_le();
        let count = raw.get_u32_le() as usize;
        let digest = PositionDigest(raw.get_u128_le());
        let (total_keys, total_bytes) = (raw.get_u64_le(), raw.get_u64_le());
        let last = raw.get_u8();
        zeros(&mut raw, 3)?;
        if last > 1 || (count == 0 && last == 0) {
            return Err(WireError("its flags"));
        }
        if count > raw.len() / ENTRY_HEAD {
            return Err(WireError("more entries than it has bytes for"));
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        for _ in 0..count {
            if raw.len() < ENTRY_HEAD {
                return Err(SHORT);
            }
            let (key, value) = (raw.get_u32_le() as usize, raw.get_u32_le() as usize);
            let (revision, expiry) = (raw.get_u64_le(), raw.get_u64_le());
            if key > MAX_KEY || value > MAX_VALUE || key + value > raw.len() {
                return Err(WireError("an oversized key or value"));
            }
            let (key, value) = (raw.split_to(key), raw.split_to(value));
            if entries.last().is_some_and(|before| before.key >= key) {
                return Err(WireError("keys that do not ascend"));
            }
            entries.push(Entry { key, value, revision, expiry });
        }
        if !raw.is_empty() {
            return Err(WireError("bytes behind its last entry"));
        }
        Ok(Chunk { attempt, sequence, digest, total_keys, total_bytes, last: last == 1, entries })
    }
}

/// Writes a [`Chunk`] entry by entry as they are read, without a copy of each in between.
#[derive(Debug)]
pub struct ChunkWriter {
    out: Vec<u8>,
    entries: u32,
    bytes: u64,
    last_key: Vec<u8>,
}

/// Where a chunk's number of entries and its last flag lie.
const COUNT_AT: usize = 20;
const LAST_AT: usize = 56;

impl ChunkWriter {
    /// Begins with everything but the entries; those of `chunk` are none.
    #[must_use]
    pub fn begin(chunk: &Chunk, expected_bytes: usize) -> ChunkWriter {
        debug_assert!(chunk.entries.is_empty());
        let mut out = Vec::with_capacity(expected_bytes + CHUNK_HEAD);
        out.extend_from_slice(&chunk.encode());
        ChunkWriter { out, entries: 0, bytes: 0, last_key: Vec::new() }
    }

    /// Adds the next entry.
    pub fn push(&mut self, entry: EntryRef<'_>) {
        self.out.extend_from_slice(&(entry.key.len() as u32).to_le_bytes());
        self.out.extend_from_slice(&(entry.value.len() as u32).to_le_bytes());
        self.out.extend_from_slice(&entry.revision.to_le_bytes());
        self.out.extend_from_slice(&entry.expiry.to_le_bytes());
        self.out.extend_from_slice(entry.key);
        self.out.extend_from_slice(entry.value);
        self.entries += 1;
        self.bytes += entry.bytes() as u64;
        self.last_key.clear();
        self.last_key.extend_from_slice(entry.key);
    }

    /// Entries, and bytes of keys and values, so far.
    #[must_use]
    pub fn count(&self) -> (u64, u64) {
        (u64::from(self.entries), self.bytes)
    }

    /// The key of the last entry; `None` without any.
    #[must_use]
    pub fn last_key(&self) -> Option<&[u8]> {
        (self.entries > 0).then_some(&self.last_key)
    }

    /// The frame's kind and body.
    #[must_use]
    pub fn finish(mut self, last: bool) -> (u8, Bytes) {
        self.out[COUNT_AT..COUNT_AT + 4].copy_from_slice(&self.entries.to_le_bytes());
        self.out[LAST_AT] = u8::from(last);
        assert!(self.out.len() <= MAX_BODY, "a frame of {} bytes", self.out.len());
        (CHUNK, self.out.into())
    }
}

impl Nothing {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(NONE_BYTES);
        put_attempt(&mut out, self.attempt);
        out.push(self.why as u8);
        out.extend_from_slice(&[0; 7]);
        out.extend_from_slice(&self.applied.0.to_le_bytes());
        out
    }

    fn decode(mut raw: Bytes) -> Result<Nothing, WireError> {
        if raw.len() != NONE_BYTES {
            return Err(SHORT);
        }
        let attempt = get_attempt(&mut raw);
        let why = match raw.get_u8() {
            1 => Why::Behind,
            2 => Why::Damaged,
            3 => Why::Busy,
            4 => Why::Foreign,
            5 => Why::Soon,
            _ => return Err(WireError("an unknown reason")),
        };
        zeros(&mut raw, 7)?;
        Ok(Nothing { attempt, why, applied: InstanceId(raw.get_u64_le()) })
    }
}

fn put_attempt(out: &mut Vec<u8>, attempt: Attempt) {
    out.extend_from_slice(&attempt.boot.0.to_le_bytes());
    out.extend_from_slice(&attempt.count.to_le_bytes());
}

/// The caller has checked that there are 16 bytes.
fn get_attempt(raw: &mut Bytes) -> Attempt {
    Attempt { boot: Boot(raw.get_u64_le()), count: raw.get_u64_le() }
}

fn zeros(raw: &mut Bytes, count: usize) -> Result<(), WireError> {
    let zero = raw.split_to(count).iter().all(|&byte| byte == 0);
    if zero { Ok(()) } else { Err(WireError("bytes that should be zero")) }
}
