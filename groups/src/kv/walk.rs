//! Going through all keys by a number, as Redis' `SCAN` does.
//!
//! A key's *place* follows from its bytes alone: 48 bits of a hash. A walk goes through the places in
//! ascending order, so a number says where it is, whoever is asked and however much has changed
//! meanwhile; and a key that is there all the time is met when the walk comes to its place.
//!
//! The keys in the order of their places are an index that only walks need. So it is built when one
//! comes, a slice with every question, and given up when none has come for a while. A question that
//! comes before it is complete is answered with no keys and the place from which it asked.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::{BufMut, Bytes};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::command::{BadCommand, MAX_KEYS, Reader, put_bytes};
use super::key::Key;
use super::outcome::Outcome;
use super::scan::ITEM_COST;
use super::state::State;

/// A question for the next keys of a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// The first place that may be among them.
    pub from: u64,
    /// About so many keys.
    pub limit: u32,
    /// About so many bytes of them.
    pub max_bytes: u32,
}

/// Places are below this.
pub const PLACES: u64 = 1 << 48;

/// Part of the protocol: a cursor outlives the version that gave it out.
const SEED: u64 = 0x5045_4C41_474F_0003;

/// Keys that one question adds to an index under way.
pub(super) const SLICE: usize = 1_024;

/// The place of a key.
#[must_use]
pub fn place(key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, SEED) >> 16
}

/// The keys by their places, as far as they have been gone through.
#[derive(Debug, Default)]
pub(super) struct Places {
    keys: BTreeSet<(u64, Key)>,
    /// The last key in it while it is being built; `None` before the first.
    passed: Option<Key>,
    complete: bool,
}

impl Places {
    fn is_past(&self, key: &[u8]) -> bool {
        self.complete || self.passed.as_deref().is_some_and(|passed| key <= passed)
    }

    /// A key that was absent is there.
    pub(super) fn insert(&mut self, key: &[u8]) {
        if self.is_past(key) {
            self.keys.insert((place(key), key.into()));
        }
    }

    /// A key is gone.
    pub(super) fn remove(&mut self, key: &[u8]) {
        if self.is_past(key) {
            self.keys.remove(&(place(key), key.into()));
        }
    }

    /// Takes in the next keys of the map; afterwards it may be complete.
    pub(super) fn build(&mut self, state: &State) {
        if self.complete {
            return;
        }
        let from = self.passed.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut added = 0;
        let mut last = None;
        for (key, _) in state.range((from, Bound::Unbounded)).take(SLICE) {
            self.keys.insert((place(key), key.into()));
            added += 1;
            last = Some(key);
        }
        self.complete = added < SLICE;
        if let Some(last) = last {
            self.passed = Some(last.into());
        }
    }

    pub(super) fn answer(&self, walk: &Walk) -> Outcome {
        if !self.complete {
            return Outcome::Walked { keys: Vec::new(), next: Some(walk.from) };
        }
        let rest = self.keys.range((walk.from, Key::default())..);
        gather(rest.map(|(place, key)| (*place, &key[..])), walk)
    }
}

impl Walk {
    /// The same without an index, by going through all keys: for tests, and for a question that was
    /// proposed, which every replica has to answer alike.
    pub(super) fn read(&self, state: &State) -> Outcome {
        let mut keys: Vec<(u64, &[u8])> =
            state.iter().map(|(key, _)| (place(key), key)).filter(|(place, _)| *place >= self.from).collect();
        keys.sort_unstable();
        gather(keys.into_iter(), self)
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.put_u64_le(self.from);
        out.put_u32_le(self.limit);
        out.put_u32_le(self.max_bytes);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Walk, BadCommand> {
        Ok(Walk { from: r.u64()?, limit: r.u32()?, max_bytes: r.u32()? })
    }
}

/// Keys that share a place come together: a cursor cannot tell them apart.
fn gather<'a>(keys: impl Iterator<Item = (u64, &'a [u8])>, walk: &Walk) -> Outcome {
    let limit = walk.limit.clamp(1, MAX_KEYS as u32) as usize;
    let (mut found, mut bytes, mut last) = (Vec::new(), 0, None);
    for (place, key) in keys {
        let full = found.len() >= limit || bytes >= walk.max_bytes as usize;
        if full && last.is_some_and(|last| last != place) {
            return Outcome::Walked { keys: found, next: Some(place) };
        }
        bytes += ITEM_COST + key.len();
        found.push(Bytes::copy_from_slice(key));
        last = Some(place);
    }
    Outcome::Walked { keys: found, next: None }
}

pub(super) fn encode_walked(keys: &[Bytes], next: Option<u64>, out: &mut Vec<u8>) {
    out.put_u64_le(next.map_or(u64::MAX, |place| place));
    out.put_u32_le(keys.len() as u32);
    keys.iter().for_each(|key| put_bytes(out, key));
}

pub(super) fn decode_walked(r: &mut Reader) -> Result<(Vec<Bytes>, Option<u64>), BadCommand> {
    let next = r.u64()?;
    let keys = r.keys()?;
    match next {
        u64::MAX => Ok((keys, None)),
        next if next < PLACES => Ok((keys, Some(next))),
        _ => Err(BadCommand("no place")),
    }
}
