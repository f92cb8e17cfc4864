//! What this process knows of the keys, over all its threads.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which keys have a value, as far as this process knows: it put them, and was told so.
#[derive(Debug)]
pub struct Written(Vec<AtomicU64>);

impl Written {
    /// No key of `keys`.
    pub fn none(keys: u32) -> Self {
        Written((0..keys.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether a put of this key was acknowledged.
    pub fn contains(&self, key: u32) -> bool {
        self.0[(key / 64) as usize].load(Ordering::Relaxed) & 1 << (key % 64) != 0
    }

    /// Notes that it was.
    pub fn insert(&self, key: u32) {
        if !self.contains(key) {
            self.0[(key / 64) as usize].fetch_or(1 << (key % 64), Ordering::Relaxed);
        }
    }
}

/// The sequence number in the value that each key last had, as far as this process was told. It may be an old one:
/// that costs a lost compare-and-swap, after which the key is read again.
#[derive(Debug)]
pub struct Values(Vec<AtomicU64>);

/// No put has this sequence number.
const NONE: u64 = 0;

impl Values {
    /// No value of `keys` keys.
    pub fn none(keys: u32) -> Self {
        Values((0..keys).map(|_| AtomicU64::new(NONE)).collect())
    }

    /// The value last known.
    pub fn get(&self, key: u32) -> Option<u64> {
        Some(self.0[key as usize].load(Ordering::Relaxed)).filter(|&sequence| sequence != NONE)
    }

    /// Notes a value that was just written.
    pub fn set(&self, key: u32, sequence: u64) {
        self.0[key as usize].store(sequence, Ordering::Relaxed);
    }

    /// Notes a value that was read because `stale` was found to be an old one, unless something newer is known by now.
    pub fn replace(&self, key: u32, stale: u64, sequence: u64) {
        let cell = &self.0[key as usize];
        // Losing to another thread is what the comparison is for.
        let _ = cell.compare_exchange(stale, sequence, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_does_not_displace_what_was_written_meanwhile() {
        let values = Values::none(2);
        assert_eq!(values.get(1), None);
        values.set(1, 5);
        values.replace(1, 5, 6);
        assert_eq!(values.get(1), Some(6));
        values.replace(1, 5, 5);
        assert_eq!(values.get(1), Some(6));
        assert_eq!(values.get(0), None);
    }
}
