//! The state hash: 32 bytes that two replicas compare instead of their whole states.
//!
//! It is the sum, modulo 2^256, of a hash of every (key, value, revision, expiry). Addition
//! commutes, so the order of writes does not matter and one write updates it in constant time:
//! take the old entry's hash away, add the new one's. It finds accidents (lost writes, flipped
//! bits, replicas that diverge), not attacks: XXH3 is not cryptographic.

use std::fmt;

use xxhash_rust::xxh3::Xxh3;

/// The hash of a whole state, and the algebra to keep it up to date.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct StateHash {
    /// Little-endian limbs of a 256-bit number.
    limbs: [u64; 4],
}

impl StateHash {
    /// The hash of the empty state.
    pub const EMPTY: StateHash = StateHash { limbs: [0; 4] };

    /// Adds an entry. `expiry` is milliseconds on the group's clock, 0 for never.
    pub fn add(&mut self, key: &[u8], value: &[u8], revision: u64, expiry: u64) {
        let entry = entry_hash(key, value, revision, expiry);
        let mut carry = false;
        for (limb, add) in self.limbs.iter_mut().zip(entry) {
            let (sum, over1) = limb.overflowing_add(add);
            let (sum, over2) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = over1 || over2;
        }
    }

    /// Takes an entry away; the exact inverse of [`StateHash::add`].
    pub fn remove(&mut self, key: &[u8], value: &[u8], revision: u64, expiry: u64) {
        let entry = entry_hash(key, value, revision, expiry);
        let mut borrow = false;
        for (limb, sub) in self.limbs.iter_mut().zip(entry) {
            let (diff, under1) = limb.overflowing_sub(sub);
            let (diff, under2) = diff.overflowing_sub(u64::from(borrow));
            *limb = diff;
            borrow = under1 || under2;
        }
    }

    /// The hash with these bytes, little-endian.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> StateHash {
        let mut limbs = [0; 4];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*chunk);
        }
        StateHash { limbs }
    }

    /// As bytes, little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut out = [0; 32];
        for (chunk, limb) in out.chunks_exact_mut(8).zip(self.limbs) {
            chunk.copy_from_slice(&limb.to_le_bytes());
        }
        out
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for limb in self.limbs.iter().rev() {
            write!(f, "{limb:016x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateHash({self})")
    }
}

/// Two 128-bit hashes with different seeds. The key's length comes first, so that no byte can
/// move from key to value unnoticed.
fn entry_hash(key: &[u8], value: &[u8], revision: u64, expiry: u64) -> [u64; 4] {
    let mut head = [0; 24];
    head[..8].copy_from_slice(&(key.len() as u64).to_le_bytes());
    head[8..16].copy_from_slice(&revision.to_le_bytes());
    head[16..].copy_from_slice(&expiry.to_le_bytes());
    let len = head.len() + key.len() + value.len();
    // Short entries, which are most, are hashed in one go from the stack.
    let mut buffer = [0; 240];
    let short = buffer.get_mut(..len).map(|whole| {
        let (start, rest) = whole.split_at_mut(head.len());
        let (for_key, for_value) = rest.split_at_mut(key.len());
        start.copy_from_slice(&head);
        for_key.copy_from_slice(key);
        for_value.copy_from_slice(value);
        &*whole
    });
    let half = |seed| {
        let hash = match short {
            Some(whole) => xxhash_rust::xxh3::xxh3_128_with_seed(whole, seed),
            None => {
                let mut hasher = Xxh3::with_seed(seed);
                hasher.update(&head);
                hasher.update(key);
                hasher.update(value);
                hasher.digest128()
            }
        };
        [hash as u64, (hash >> 64) as u64]
    };
    let ([a, b], [c, d]) = (half(0x5045_4C41_474F_0001), half(0x5045_4C41_474F_0002));
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_do_not_move_between_key_and_value() {
        let (mut a, mut b) = (StateHash::EMPTY, StateHash::EMPTY);
        a.add(b"ab", b"c", 1, 0);
        assert_eq!(StateHash::from_bytes(a.to_bytes()), a);
        b.add(b"a", b"bc", 1, 0);
        assert_ne!(a, b);
    }

    #[test]
    fn the_hash_is_stable_across_versions() {
        let mut h = StateHash::EMPTY;
        h.add(b"key", b"value", 7, 0);
        h.add(b"long", &[7; 1000], 8, 9);
        assert_eq!(h.to_string(), GOLDEN);
    }

    const GOLDEN: &str = "6cf14cfa43441880edb08b415b01865b3598ea408672befc6e5e727f18ad15f2";

    proptest! {
        #[test]
        fn order_does_not_matter_and_removal_undoes(
            entries in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>(), any::<u64>()), 0..20),
            extra in (any::<Vec<u8>>(), any::<Vec<u8>>(), any::<u64>()),
        ) {
            let mut forward = StateHash::EMPTY;
            for (k, v, r) in &entries { forward.add(k, v, *r, 0); }
            let mut backward = StateHash::EMPTY;
            backward.add(&extra.0, &extra.1, extra.2, 5);
            for (k, v, r) in entries.iter().rev() { backward.add(k, v, *r, 0); }
            prop_assert_ne!(forward, backward);
            backward.remove(&extra.0, &extra.1, extra.2, 5);
            prop_assert_eq!(forward, backward);
        }
    }
}
