//! Fences: what keeps a holder of a lock who does not know that he has lost it from writing.
//!
//! A lock is a key with a life. Its holder may stand still for longer than that life, somebody else takes
//! the lock, and then the first one goes on and writes as if nothing had happened. No life is long enough to
//! rule that out, so the write itself is judged: it carries a *token*, the revision that the lock's key got
//! when it was taken. Revisions of a group only rise, so a later holder has a larger one. A key remembers
//! the largest token that it was written with, and a write with a smaller one is refused (Kleppmann, "How to
//! do distributed locking", 2016; the sequencer of Burrows, "The Chubby lock service", OSDI '06, section
//! 2.4).
//!
//! Fences are part of the replicated state and of every checkpoint. They stand beside the items and not in
//! them, because a fence outlives its key: a late write must not bring a deleted key back.
//!
//! The table is bounded. A fence that no write has used for a day of the group's clock may be
//! forgotten. One that is younger never is: a write that would need one more is refused when there is no room.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes};

use super::command::{put_bytes, take_sized};

/// A fence that was not used for so many milliseconds of the group's clock may be forgotten.
pub const MIN_LIFE: u64 = 24 * 60 * 60 * 1000;

/// The most bytes of all fences of a group: the table travels in every checkpoint.
pub const MAX_BYTES: usize = 16 << 20;

/// What a fence costs beside its key, which is there twice.
const FENCE_COST: usize = 96;

/// So many old fences are forgotten for each write: the table shrinks, and no command pays for all of it.
const FORGOTTEN_AT_ONCE: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fence {
    /// The largest token that the key was written with; never 0.
    token: u64,
    /// The group's clock when it was last used.
    used: u64,
}

/// The fences of a group.
#[derive(Debug, Default)]
pub struct Fences {
    fences: BTreeMap<Box<[u8]>, Fence>,
    /// All of them by when they were last used.
    order: BTreeSet<(u64, Box<[u8]>)>,
    /// What they cost together.
    bytes: usize,
}

impl Fences {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fences.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fences.is_empty()
    }

    /// The largest token that a key was written with, 0 for none.
    #[must_use]
    pub fn token(&self, key: &[u8]) -> u64 {
        self.fences.get(key).map_or(0, |fence| fence.token)
    }

    /// Makes room for fences of these keys by forgetting old ones. `false`, and as many forgotten as
    /// may be, when there is none. A key that stands there twice is counted twice.
    #[must_use]
    pub fn make_room<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]> + Clone, clock: u64) -> bool {
        let most: usize = keys.clone().map(cost).sum();
        let mut forgotten = 0;
        while let Some((used, _)) = self.order.first()
            && used.saturating_add(MIN_LIFE) <= clock
            && (forgotten < FORGOTTEN_AT_ONCE || self.bytes.saturating_add(most) > MAX_BYTES)
            && let Some((_, key)) = self.order.pop_first()
        {
            self.fences.remove(&key);
            self.bytes -= cost(&key);
            forgotten += 1;
        }
        // Behind the forgetting, which may have met one of these keys.
        let wanted: usize = keys.filter(|key| !self.fences.contains_key(*key)).map(cost).sum();
        self.bytes.saturating_add(wanted) <= MAX_BYTES
    }

    /// Remembers that a key was written with a token, which is not below the one that is known.
    pub fn raise(&mut self, key: &[u8], token: u64, clock: u64) {
        let fence = Fence { token: token.max(self.token(key)), used: clock };
        match self.fences.get_mut(key) {
            Some(held) => {
                let before = std::mem::replace(held, fence);
                if before.used != clock {
                    self.order.remove(&(before.used, key.into()));
                    self.order.insert((clock, key.into()));
                }
            }
            None => {
                self.fences.insert(key.into(), fence);
                self.order.insert((clock, key.into()));
                self.bytes += cost(key);
            }
        }
    }

    /// The table as bytes, the same on every replica, keys ascending: `fences:u32 { length:u32 key
    /// token:u64 used:u64 }*`, little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.fences.len() as u32);
        for (key, fence) in &self.fences {
            put_bytes(out, key);
            out.put_u64_le(fence.token);
            out.put_u64_le(fence.used);
        }
    }

    /// Reads exactly what [`Fences::encode`] wrote; `None` for anything else.
    #[must_use]
    pub fn decode(mut bytes: Bytes) -> Option<Fences> {
        let count = bytes.try_get_u32_le().ok()? as usize;
        let mut table = Fences::default();
        for _ in 0..count {
            let key: Box<[u8]> = take_sized(&mut bytes)?[..].into();
            let token = bytes.try_get_u64_le().ok().filter(|token| *token > 0)?;
            let used = bytes.try_get_u64_le().ok()?;
            if table.fences.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return None;
            }
            table.bytes += cost(&key);
            table.order.insert((used, key.clone()));
            table.fences.insert(key, Fence { token, used });
        }
        (bytes.is_empty() && table.bytes <= MAX_BYTES).then_some(table)
    }
}

fn cost(key: &[u8]) -> usize {
    FENCE_COST + 2 * key.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(table: &mut Fences, key: &str, token: u64, clock: u64) -> bool {
        let room = table.make_room(std::iter::once(key.as_bytes()), clock);
        if room {
            table.raise(key.as_bytes(), token, clock);
        }
        room
    }

    fn bytes(table: &Fences) -> Bytes {
        let mut out = Vec::new();
        table.encode(&mut out);
        out.into()
    }

    #[test]
    fn the_largest_token_counts_and_survives_its_bytes() {
        let mut table = Fences::default();
        assert!(write(&mut table, "b", 7, 1) && write(&mut table, "a", 3, 2) && write(&mut table, "b", 9, 2));
        let copy = Fences::decode(bytes(&table)).expect("its own bytes");
        assert_eq!((&copy.fences, &copy.order, copy.bytes), (&table.fences, &table.order, table.bytes));
        assert_eq!((copy.token(b"a"), copy.token(b"b"), copy.token(b"c")), (3, 9, 0));
    }

    #[test]
    fn bytes_that_nobody_writes_are_no_fences() {
        let mut table = Fences::default();
        assert!(write(&mut table, "a", 3, 2) && write(&mut table, "bc", 4, 5));
        let whole = bytes(&table);
        for length in 0..whole.len() {
            assert!(Fences::decode(whole.slice(..length)).is_none(), "cut to {length}");
        }
        assert!(Fences::decode([&whole[..], &[0]].concat().into()).is_none(), "a byte more");
        let one = &whole[4..25];
        let list = |entries: &[&[u8]]| {
            Bytes::from([&(entries.len() as u32).to_le_bytes()[..], &entries.concat()].concat())
        };
        assert!(Fences::decode(list(&[one])).is_some());
        assert!(Fences::decode(list(&[one, one])).is_none(), "a key twice");
        let mut none = one.to_vec();
        none[5..13].fill(0);
        assert!(Fences::decode(list(&[&none])).is_none(), "token 0");
        assert!(Fences::decode(Bytes::from_static(&[255; 4])).is_none(), "a count of nothing");
    }

    #[test]
    fn an_old_fence_is_forgotten_and_a_young_one_makes_no_room() {
        let mut table = Fences::default();
        assert!(write(&mut table, "old", 3, 1) && write(&mut table, "used", 3, 1));
        assert!(write(&mut table, "used", 3, 10), "a use keeps it");
        assert!(write(&mut table, "new", 1, MIN_LIFE));
        assert_eq!(table.token(b"old"), 3, "a day is not over yet");
        assert!(write(&mut table, "new", 1, MIN_LIFE + 1));
        assert_eq!((table.token(b"old"), table.token(b"used")), (0, 3));

        let mut full = Fences::default();
        let count = MAX_BYTES / cost(b"000000");
        let key = |n: usize| format!("{n:06}");
        for n in 0..count {
            assert!(write(&mut full, &key(n), 1, 1), "{n}");
        }
        assert!(!write(&mut full, &key(count), 1, MIN_LIFE), "no room, and nothing is old enough");
        assert!(write(&mut full, &key(0), 2, MIN_LIFE), "one that is there needs no room");
        assert!(write(&mut full, &key(1), 2, MIN_LIFE + 1), "one that was just forgotten has its own");
        assert!(write(&mut full, &key(count), 1, MIN_LIFE + 1));
        assert_eq!((full.token(b"000000"), full.token(b"000001"), full.token(b"000002")), (2, 2, 0));
        assert!(Fences::decode(bytes(&full)).is_some());
    }
}
