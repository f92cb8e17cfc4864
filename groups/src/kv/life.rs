//! Lives: how long a key is there.
//!
//! A life is counted by the group's clock, which moves through the log only (see
//! `groups/src/clock.rs`), and an item carries the point on that clock at which its life ends. A
//! key whose life has ended is there all the same, for reads and for writes, until the entry that
//! removes it is applied: expiry is an event in the order of all events, never a comparison with
//! whatever clock a reader has at hand.

use bytes::{Buf, BufMut, Bytes};

/// What a put does about the life of its key. A put that says nothing ends it: the key stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// The key keeps the life that it has.
    Keep,
    /// The key is there for so many milliseconds from now on; with 0 it is gone at once.
    For(u64),
}

/// When the life of a key may be changed. Without a word of it: whenever there is such a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// Only if the key has a life (`true`), or only if it has none.
    pub mortal: Option<bool>,
    /// Only if the new life ends later than the present one (`true`), or only if sooner. No life
    /// never ends.
    pub later: Option<bool>,
}

impl When {
    /// Whether a life that ends at `held` may become one that ends at `ends`, 0 being never.
    #[must_use]
    pub fn admits(self, held: u64, ends: u64) -> bool {
        let end = |at: u64| if at == 0 { u64::MAX } else { at };
        self.mortal.is_none_or(|mortal| mortal == (held != 0))
            && self.later.is_none_or(
                |later| {
                    if later { end(ends) > end(held) } else { end(ends) < end(held) }
                },
            )
    }
}

/// How the life of a key is changed, and what is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The new life in milliseconds from now on, 0 for gone at once; `None` for no end.
    pub life: Option<u64>,
    /// When.
    pub when: When,
    /// Whether the value is answered, or 1 and 0 for changed and not changed.
    pub value: bool,
}

const HAS_LIFE: u8 = 1 << 5;
const WANTS_VALUE: u8 = 1 << 4;

impl Renewal {
    /// Writes it: `flags:u8 [life:u64]`. The flags are, from the lowest on, two bits for `mortal`
    /// (0 any, 1 no, 2 yes), two for `later`, one for `value`, one for the life.
    pub fn encode(self, out: &mut Vec<u8>) {
        let choice = |choice: Option<bool>| choice.map_or(0, |yes| 1 + u8::from(yes));
        let mut flags = choice(self.when.mortal) | choice(self.when.later) << 2;
        flags |= if self.value { WANTS_VALUE } else { 0 };
        flags |= if self.life.is_some() { HAS_LIFE } else { 0 };
        out.put_u8(flags);
        if let Some(life) = self.life {
            out.put_u64_le(life);
        }
    }

    /// Reads one; `None` when the bytes are none.
    #[must_use]
    pub fn decode(bytes: &mut Bytes) -> Option<Renewal> {
        let flags = bytes.try_get_u8().ok()?;
        if flags >= HAS_LIFE << 1 {
            return None;
        }
        let choice = |bits: u8| match bits & 3 {
            0 => Some(None),
            1 => Some(Some(false)),
            2 => Some(Some(true)),
            _ => None,
        };
        let when = When { mortal: choice(flags)?, later: choice(flags >> 2)? };
        let life = if flags & HAS_LIFE != 0 { Some(bytes.try_get_u64_le().ok()?) } else { None };
        Some(Renewal { life, when, value: flags & WANTS_VALUE != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_changes_only_when_it_may() {
        let when = |mortal, later| When { mortal, later };
        for (name, when, held, ends, admitted) in [
            ("always", when(None, None), 0, 5, true),
            ("NX on none", when(Some(false), None), 0, 5, true),
            ("NX on one", when(Some(false), None), 7, 5, false),
            ("XX on none", when(Some(true), None), 0, 5, false),
            ("XX on one", when(Some(true), None), 7, 5, true),
            ("GT, later", when(None, Some(true)), 5, 7, true),
            ("GT, the same", when(None, Some(true)), 5, 5, false),
            ("GT, sooner", when(None, Some(true)), 7, 5, false),
            ("GT on none", when(None, Some(true)), 0, 5, false),
            ("LT, sooner", when(None, Some(false)), 7, 5, true),
            ("LT, the same", when(None, Some(false)), 5, 5, false),
            ("LT, later", when(None, Some(false)), 5, 7, false),
            ("LT on none", when(None, Some(false)), 0, 5, true),
            ("XX and LT on none", when(Some(true), Some(false)), 0, 5, false),
            ("persist on none", when(Some(true), None), 0, 0, false),
            ("persist on one", when(Some(true), None), 5, 0, true),
        ] {
            assert_eq!(when.admits(held, ends), admitted, "{name}");
        }
    }

    #[test]
    fn every_renewal_survives_its_bytes_and_no_other_flags_are_read() {
        let choices = [None, Some(false), Some(true)];
        for (mortal, later) in choices.iter().flat_map(|m| choices.iter().map(move |l| (*m, *l))) {
            for (life, value) in [(None, true), (Some(0), false), (Some(u64::MAX), true)] {
                let renewal = Renewal { life, when: When { mortal, later }, value };
                let mut out = Vec::new();
                renewal.encode(&mut out);
                let mut bytes = Bytes::from(out);
                assert_eq!(Renewal::decode(&mut bytes), Some(renewal));
                assert!(bytes.is_empty());
            }
        }
        for flags in 0..=u8::MAX {
            let mut bytes = Bytes::from([&[flags][..], &[0; 8]].concat());
            let known = flags < 64 && flags & 3 != 3 && flags >> 2 & 3 != 3;
            assert_eq!(Renewal::decode(&mut bytes).is_some(), known, "{flags:08b}");
        }
    }
}
