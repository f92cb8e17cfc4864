//! A state as it travels: into the mirror, between nodes, and back into memory.

use bytes::Bytes;

use super::changes::Changed;
use super::key::Key;
use super::state::{Item, State};
use super::{StateHash, beside};
use crate::ids::InstanceId;
use crate::paxos::Members;

/// What there is to a state beside its keys and sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The last instance applied.
    pub applied: InstanceId,
    /// The chained checksum of the chosen values up to there.
    pub chain: u64,
    /// The hash over all items.
    pub hash: StateHash,
    /// The revision of the last change.
    pub revision: u64,
    /// How many leaderships the group has had.
    pub epoch: u64,
    /// Who votes from the next instance on; `None` for those of the birth.
    pub members: Option<Members>,
}

/// A whole state at one instance.
#[derive(Debug)]
pub struct Image {
    /// Where it stands.
    pub head: Head,
    /// What the state has beside its items, as [`beside::encode`] writes it: the session tables,
    /// without which a repeated command would apply twice after a restart, and the clock.
    pub sessions: Bytes,
    /// Every key with its item, ascending.
    pub items: Vec<(Key, Item)>,
}

/// Why an image is no state. Nothing was taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadImage {
    /// Keys do not ascend.
    #[error("the keys of the image do not ascend")]
    Unsorted,
    /// The items are not those that the head names.
    #[error("the items hash to {found}, the head of the image says {said}")]
    Hash {
        /// Of the items.
        found: StateHash,
        /// Of the head.
        said: StateHash,
    },
    /// The session table has no known shape.
    #[error("the session table of the image has no known shape")]
    Sessions,
}

/// What a run of chosen values did to a state: each changed key's newest item. Together with
/// the state at `from` it makes the state at `head`.
#[derive(Debug)]
pub struct Fold {
    /// The last instance applied before it.
    pub from: InstanceId,
    /// Where the state stands with it.
    pub head: Head,
    /// What the state has beside its items there, as in [`Image`].
    pub sessions: Bytes,
    /// Changed keys, in no order; `None` is gone.
    pub items: Changed,
}

impl Image {
    /// The state that this is an image of. Every item is hashed again: whatever the image has
    /// been through, a wrong state is never served.
    ///
    /// # Errors
    /// See [`BadImage`].
    pub fn into_state(self) -> Result<State, BadImage> {
        let mut hash = StateHash::EMPTY;
        self.items.iter().for_each(|(key, item)| hash.add(key, &item.value, item.revision, item.expires));
        self.into_state_of(hash)
    }

    /// The same for a caller who has hashed every item as it came from the disk: `hash` is their
    /// sum, and hashing them twice takes as long as reading them.
    ///
    /// # Errors
    /// See [`BadImage`].
    pub fn into_state_of(self, hash: StateHash) -> Result<State, BadImage> {
        let Image { head, sessions, items } = self;
        let beside = beside::decode(sessions).ok_or(BadImage::Sessions)?;
        if !items.is_sorted_by(|(before, _), (key, _)| before < key) {
            return Err(BadImage::Unsorted);
        }
        if hash != head.hash {
            return Err(BadImage::Hash { found: hash, said: head.hash });
        }
        Ok(State::restored(&head, beside, items))
    }
}
