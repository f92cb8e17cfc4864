//! The hash of a state computed anew in small steps, while the state changes.
//!
//! A bit that flips in memory changes an item and not the hash that is kept beside the items. To
//! find it, every item is hashed again, a slice at a time, in the order of the keys. A write to a
//! key that has been passed already is added to and taken from the sum exactly as it is for the
//! kept hash; a write to a key that is still ahead is met when the cursor gets there. So when
//! the cursor has passed the last key, the sum is that of all items, and the kept hash must
//! equal it.
//!
//! What that cannot see: a value that rots behind the cursor and is overwritten before the pass
//! ends. Then both are wrong alike. The next pass sees it, for the kept hash stays wrong; and so
//! does the comparison with the other replicas.

use super::{Key, StateHash};

/// A pass under way.
#[derive(Debug, Default)]
pub struct Rescan {
    /// The last key that is in the sum; `None` before the first.
    pub(super) passed: Option<Key>,
    /// Of every item up to there.
    pub(super) sum: StateHash,
}

/// What a step of a pass has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// There are more keys; so many bytes were hashed.
    More(u64),
    /// All keys were passed and the hash is right; so many bytes were hashed.
    Sound(u64),
    /// The items are not those that the hash was kept of.
    Rotten {
        /// The hash that was kept.
        kept: StateHash,
        /// Of the items as they are.
        found: StateHash,
    },
}

impl Rescan {
    /// Whether the pass has been at this key.
    pub(super) fn is_past(&self, key: &[u8]) -> bool {
        self.passed.as_deref().is_some_and(|passed| key <= passed)
    }
}
