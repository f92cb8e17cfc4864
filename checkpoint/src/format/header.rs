//! The first frame: whose state this is, and at which point.

use bytes::{Buf, Bytes};
use groups::ids::{ClusterId, GroupId, InstanceId};

use super::FormatError;
use crate::entry::{Chain, StateDigest};
use crate::store::{MAX_MEMBERSHIP, MAX_SESSIONS, Position};

const MAGIC: &[u8; 8] = b"PELAGOCK";
const VERSION: u16 = 1;

/// Bytes up to and with the first crc; they say how long the rest is.
pub(super) const FIXED: usize = 108;

/// Everything about a state except its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster.
    pub cluster: ClusterId,
    /// The group.
    pub group: GroupId,
    /// Instance, chained checksum, state hash, revision, epoch and membership.
    pub position: Position,
    /// The session table.
    pub sessions: Bytes,
}

impl Header {
    /// The header's frame.
    ///
    /// # Errors
    /// [`FormatError::Refused`] when membership or sessions are over their limits.
    pub fn encode(&self) -> Result<Bytes, FormatError> {
        let position = &self.position;
        if position.membership.len() > MAX_MEMBERSHIP || self.sessions.len() > MAX_SESSIONS {
            return Err(FormatError::Refused("membership or session table over its limit"));
        }
        let mut out = Vec::with_capacity(FIXED + position.membership.len() + self.sessions.len() + 4);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.group.0.to_le_bytes());
        out.extend_from_slice(&self.cluster.0.to_le_bytes());
        out.extend_from_slice(&position.applied.0.to_le_bytes());
        out.extend_from_slice(&position.chain.0.to_le_bytes());
        out.extend_from_slice(&position.state_hash.0);
        out.extend_from_slice(&position.revision.to_le_bytes());
        out.extend_from_slice(&position.epoch.to_le_bytes());
        out.extend_from_slice(&(position.membership.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.sessions.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out.extend_from_slice(&position.membership);
        out.extend_from_slice(&self.sessions);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        Ok(Bytes::from(out))
    }

    /// Reads a header's frame.
    ///
    /// # Errors
    /// [`FormatError::Truncated`], [`FormatError::Damaged`], [`FormatError::NewerFormat`].
    pub fn decode(frame: &Bytes) -> Result<Header, FormatError> {
        let fixed = frame.first_chunk::<FIXED>().ok_or(FormatError::Truncated { offset: 0 })?;
        let rest = Header::rest(fixed)?;
        match frame.len().cmp(&(FIXED + rest)) {
            std::cmp::Ordering::Less => return Err(FormatError::Truncated { offset: 0 }),
            std::cmp::Ordering::Greater => return Err(damaged("bytes behind the header")),
            std::cmp::Ordering::Equal => {}
        }
        let (body, crc) = frame.split_last_chunk::<4>().ok_or(FormatError::Truncated { offset: 0 })?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(damaged("the header's crc"));
        }
        let short = |_| FormatError::Truncated { offset: 0 };
        let mut raw = &fixed[12..];
        let group = GroupId(raw.try_get_u32_le().map_err(short)?);
        let cluster = ClusterId(raw.try_get_u128_le().map_err(short)?);
        let applied = InstanceId(raw.try_get_u64_le().map_err(short)?);
        let chain = Chain(raw.try_get_u64_le().map_err(short)?);
        let mut state_hash = StateDigest::default();
        raw.try_copy_to_slice(&mut state_hash.0).map_err(short)?;
        let revision = raw.try_get_u64_le().map_err(short)?;
        let epoch = raw.try_get_u64_le().map_err(short)?;
        let membership = raw.try_get_u32_le().map_err(short)? as usize;
        // Copied, so that a small blob does not keep the whole frame alive.
        let sessions = Bytes::copy_from_slice(&body[FIXED + membership..]);
        let membership = Bytes::copy_from_slice(&body[FIXED..FIXED + membership]);
        let position = Position { applied, chain, state_hash, revision, epoch, membership };
        Ok(Header { cluster, group, position, sessions })
    }

    /// Checks the fixed part and returns how many bytes follow it.
    pub(super) fn rest(fixed: &[u8; FIXED]) -> Result<usize, FormatError> {
        let (body, crc) = fixed.split_at(FIXED - 4);
        if !body.starts_with(MAGIC) {
            return Err(damaged("not a checkpoint"));
        }
        if crc32fast::hash(body).to_le_bytes() != crc {
            return Err(damaged("the crc of the header's first part"));
        }
        let mut raw = &body[8..];
        let version = raw.get_u16_le();
        // A newer format keeps magic, version and this crc where they are.
        if version > VERSION {
            return Err(FormatError::NewerFormat { found: version, known: VERSION });
        }
        if version != VERSION || raw.get_u16_le() != 0 {
            return Err(damaged("the header's version"));
        }
        let mut raw = &body[96..];
        let (membership, sessions) = (raw.get_u32_le() as usize, raw.get_u32_le() as usize);
        if membership > MAX_MEMBERSHIP || sessions > MAX_SESSIONS {
            return Err(damaged("membership or session table over its limit"));
        }
        Ok(membership + sessions + 4)
    }
}

fn damaged(what: &'static str) -> FormatError {
    FormatError::Damaged { offset: 0, what }
}
