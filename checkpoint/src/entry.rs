//! What the mirror keeps: entries, and the numbers that describe a whole state.

use std::fmt;

use bytes::Bytes;
use groups::kv::StateHash;

/// The longest key that the store and the format accept. Engines allow 64 KiB for a key with
/// its prefix.
pub const MAX_KEY: usize = 32 << 10;

/// The longest value: one entry always fits one chunk.
pub const MAX_VALUE: usize = 15 << 20;

/// One key of a group's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The user's key; may be empty, may hold any byte.
    pub key: Bytes,
    /// The user's value.
    pub value: Bytes,
    /// The revision that wrote it.
    pub revision: u64,
    /// When it expires, in milliseconds on the group's clock; 0 means never.
    pub expiry: u64,
}

/// An entry as it lies in the engine or in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The user's key.
    pub key: &'a [u8],
    /// The user's value.
    pub value: &'a [u8],
    /// The revision that wrote it.
    pub revision: u64,
    /// When it expires, as in [`Entry`].
    pub expiry: u64,
}

impl EntryRef<'_> {
    /// Adds this entry to the hash of a state.
    pub fn add_to(&self, hash: &mut StateHash) {
        hash.add(self.key, self.value, self.revision, self.expiry);
    }

    /// Bytes of key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }

    /// A copy that stands alone.
    #[must_use]
    pub fn to_entry(&self) -> Entry {
        let (key, value) = (Bytes::copy_from_slice(self.key), Bytes::copy_from_slice(self.value));
        Entry { key, value, revision: self.revision, expiry: self.expiry }
    }
}

impl Entry {
    /// Bytes of key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }

    /// Adds this entry to the hash of a state.
    pub fn add_to(&self, hash: &mut StateHash) {
        hash.add(&self.key, &self.value, self.revision, self.expiry);
    }

    /// Takes this entry out of the hash of a state.
    pub fn remove_from(&self, hash: &mut StateHash) {
        hash.remove(&self.key, &self.value, self.revision, self.expiry);
    }
}

/// The chained checksum over a group's chosen values at some instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Chain(pub u64);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which copy of a group's state a key belongs to. Installing a checkpoint switches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The 256-bit hash of a whole state: equal digests at equal instances mean equal states.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct StateDigest(pub [u8; 32]);

impl From<StateHash> for StateDigest {
    fn from(hash: StateHash) -> StateDigest {
        StateDigest(hash.to_bytes())
    }
}

impl fmt::Display for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateDigest({self})")
    }
}
