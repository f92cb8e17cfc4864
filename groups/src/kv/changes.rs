//! Which keys have changed since the mirror was last told: writes of one key fold, and what is
//! handed over is each key's newest item.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::key::Key;

/// The most bytes of changed keys that are remembered. Beyond it they are forgotten, and the
/// mirror takes the whole state instead.
const MAX_BYTES: usize = 64 << 20;

/// What one remembered key costs beside its bytes.
const KEY_COST: usize = 48;

/// The keys changed since the last [`Changes::take`].
#[derive(Debug, Default)]
pub struct Changes {
    keys: HashSet<Key, RandomState>,
    bytes: usize,
    /// More changed than was remembered.
    overflowed: bool,
}

impl Changes {
    /// Notes a key.
    pub fn note(&mut self, key: &[u8]) {
        if self.overflowed || self.keys.contains(key) {
            return;
        }
        self.bytes += key.len() + KEY_COST;
        if self.bytes > MAX_BYTES {
            *self = Changes { overflowed: true, ..Changes::default() };
        } else {
            self.keys.insert(key.into());
        }
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.overflowed
    }

    /// The changed keys in ascending order, or `None` when there were too many to remember;
    /// begins anew.
    pub fn take(&mut self) -> Option<Vec<Key>> {
        let taken = std::mem::take(self);
        if taken.overflowed {
            return None;
        }
        let mut keys: Vec<Key> = taken.keys.into_iter().collect();
        keys.sort_unstable();
        Some(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fold_and_come_sorted() {
        let mut changes = Changes::default();
        for key in ["b", "a", "b", "c", "a"] {
            changes.note(key.as_bytes());
        }
        assert_eq!(changes.len(), 3);
        let keys = changes.take().expect("few enough");
        assert_eq!(keys, [b"a".as_slice().into(), b"b".as_slice().into(), b"c".as_slice().into()]);
        assert!(changes.is_empty());
    }

    #[test]
    fn too_many_are_forgotten_and_said_so() {
        let mut changes = Changes::default();
        let long = vec![0; 1 << 20];
        for n in 0..=64_u8 {
            let mut key = long.clone();
            key[0] = n;
            changes.note(&key);
        }
        assert!(!changes.is_empty());
        assert_eq!(changes.take(), None);
        assert!(changes.is_empty(), "begins anew");
        changes.note(b"k");
        assert_eq!(changes.len(), 1);
    }
}
