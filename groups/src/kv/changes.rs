//! What has changed since the mirror was last told: writes of one key fold, and what is handed over
//! is each key's newest item.
//!
//! An item is noted as it is set. Its value is shared with the state, so that costs a few words, and whoever
//! takes the changes need not search the state for them: that would be a search for thousands of keys at once,
//! in a turn that every group of the shard waits for.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::key::Key;
use super::state::Item;

/// The most bytes of changed keys that are remembered. Beyond it they are forgotten, and the
/// mirror takes the whole state instead.
const MAX_BYTES: usize = 64 << 20;

/// What one remembered key costs beside its bytes; its value is the state's.
const KEY_COST: usize = 96;

/// Changed keys with their newest items; `None` is gone. **In no order**, and in another one in each
/// process: whoever writes bytes from it orders them first.
pub type Changed = HashMap<Key, Option<Item>, RandomState>;

/// The keys changed since the last [`Changes::take`].
#[derive(Debug, Default)]
pub struct Changes {
    items: Changed,
    bytes: usize,
    /// More changed than was remembered.
    overflowed: bool,
}

impl Changes {
    /// Notes what became of a key.
    pub fn note(&mut self, key: &[u8], item: Option<Item>) {
        if self.overflowed {
            return;
        }
        if let Some(noted) = self.items.get_mut(key) {
            *noted = item;
            return;
        }
        self.bytes += key.len() + KEY_COST;
        if self.bytes > MAX_BYTES {
            *self = Changes { overflowed: true, ..Changes::default() };
        } else {
            self.items.insert(key.into(), item);
        }
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && !self.overflowed
    }

    /// What has changed, or `None` when it was too much to remember; begins anew.
    pub fn take(&mut self) -> Option<Changed> {
        let taken = std::mem::take(self);
        (!taken.overflowed).then_some(taken.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(revision: u64) -> Item {
        Item { value: "v".into(), revision, expires: 0 }
    }

    #[test]
    fn writes_of_a_key_fold_into_the_newest() {
        let mut changes = Changes::default();
        for (revision, key) in (1..).zip(["b", "a", "b", "c", "a"]) {
            changes.note(key.as_bytes(), Some(item(revision)));
        }
        changes.note(b"c", None);
        assert_eq!(changes.len(), 3);
        let mut taken: Vec<_> = changes.take().expect("few enough").into_iter().collect();
        taken.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let expected = [(&b"a"[..], Some(item(5))), (b"b", Some(item(3))), (b"c", None)];
        assert_eq!(taken, expected.map(|(key, item)| (key.into(), item)));
        assert!(changes.is_empty());
    }

    #[test]
    fn too_many_are_forgotten_and_said_so() {
        let mut changes = Changes::default();
        let long = vec![0; 1 << 20];
        for n in 0..=64_u8 {
            let mut key = long.clone();
            key[0] = n;
            changes.note(&key, None);
        }
        assert!(!changes.is_empty());
        assert_eq!(changes.take(), None);
        assert!(changes.is_empty(), "begins anew");
        changes.note(b"k", None);
        assert_eq!(changes.len(), 1);
    }
}
