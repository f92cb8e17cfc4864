//! The roll: who the nodes of the cluster are and which groups they shall have, as the first group
//! keeps it for all. What its bytes say is not the state machine's business; it sees to it that every
//! change follows the version that its author knew, so that two operators never undo each other.

use bytes::{Buf, BufMut, Bytes};

use super::command::{put_bytes, take_sized};

/// The longest roll, in bytes: the largest cluster's is shorter.
pub const MAX_ROLL: usize = 1 << 20;

/// A version of the roll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    /// Counts the changes; 0 before the first, while what the cluster was born with holds.
    pub version: u64,
    /// What it says.
    pub bytes: Bytes,
}

impl Roll {
    /// Writes `version:u64 length:u32 bytes`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.version);
        put_bytes(out, &self.bytes);
    }

    /// Reads one; `None` when the bytes are none.
    #[must_use]
    pub fn decode(bytes: &mut Bytes) -> Option<Roll> {
        let version = bytes.try_get_u64_le().ok()?;
        let bytes = take_sized(bytes).filter(|bytes| bytes.len() <= MAX_ROLL)?;
        Some(Roll { version, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Command, Outcome, State};

    #[test]
    fn a_change_follows_the_version_that_its_author_knew() {
        let mut state = State::default();
        let set = |expect, text| Command::SetRoll { expect, bytes: Bytes::from_static(text) };
        assert_eq!(state.read(&Command::Roll), Outcome::Value(None));
        assert_eq!(state.execute(set(0, b"one")), Outcome::Revision(1));
        // Another operator who has not seen it.
        assert_eq!(state.execute(set(0, b"other")), Outcome::Unmet);
        assert_eq!(state.execute(set(1, b"two")), Outcome::Revision(2));
        assert_eq!(state.execute(set(1, b"two")), Outcome::Unmet, "not twice");
        assert_eq!(state.read(&Command::Roll), Outcome::Value(Some((Bytes::from_static(b"two"), 2))));
        assert_eq!((state.len(), state.revision()), (0, 0), "no key has to do with it");
    }

    #[test]
    fn a_roll_that_is_too_long_is_none() {
        let roll = Roll { version: 1, bytes: Bytes::from(vec![0; MAX_ROLL + 1]) };
        let mut bytes = Vec::new();
        roll.encode(&mut bytes);
        assert_eq!(Roll::decode(&mut Bytes::from(bytes)), None);
    }
}
