//! Which operation comes next.

mod keys;

use std::fmt;
use std::str::FromStr;

pub use keys::{Keys, Random};

/// The operations that a load is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A linearizable read.
    #[default]
    Get,
    /// A durable write.
    Put,
    /// A read of neighbouring keys in their order.
    Scan,
    /// A write if the value is still the one last known.
    Cas,
    /// A counter goes up by one.
    Incr,
    /// A read after a lost compare-and-swap, to know what the next one has to compare with; no operation of the load.
    Learn,
}

impl Kind {
    /// Whether it changes something.
    pub fn writes(self) -> bool {
        matches!(self, Kind::Put | Kind::Cas | Kind::Incr)
    }
}

/// What a load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Puts only.
    Put,
    /// Gets only.
    Get,
    /// This many gets in a hundred operations, and puts.
    Mixed(u8),
    /// Reads of this many neighbouring keys.
    Scan(u32),
    /// Compare-and-swap only.
    Cas,
    /// Counters only.
    Incr,
}

/// Keys of a scan that are asked for unless said otherwise, and the most that a page of Pelago has.
const SCANNED: u32 = 10;
const MOST_SCANNED: u32 = 10_000;

impl Mix {
    /// Whether every key must have a value before.
    pub fn needs_values(self) -> bool {
        !matches!(self, Mix::Put | Mix::Incr)
    }

    /// Keys that a scan asks for; none where nothing is scanned.
    pub fn scanned(self) -> u32 {
        if let Mix::Scan(keys) = self { keys } else { 0 }
    }

    /// Whether writes are among the operations.
    pub fn writes(self) -> bool {
        !matches!(self, Mix::Get | Mix::Scan(_))
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "put" => Ok(Mix::Put),
            None if text == "get" => Ok(Mix::Get),
            None if text == "mixed" => Ok(Mix::Mixed(50)),
            None if text == "scan" => Ok(Mix::Scan(SCANNED)),
            None if text == "cas" => Ok(Mix::Cas),
            None if text == "incr" => Ok(Mix::Incr),
            Some(("mixed", percent)) => match percent.parse() {
                Ok(percent @ 1..=99) => Ok(Mix::Mixed(percent)),
                _ => Err("mixed:PERCENT takes the share of gets, 1 to 99".to_owned()),
            },
            Some(("scan", keys)) => match keys.parse() {
                Ok(keys @ 1..=MOST_SCANNED) => Ok(Mix::Scan(keys)),
                _ => Err(format!("scan:KEYS takes the keys of one page, 1 to {MOST_SCANNED}")),
            },
            _ => Err("a workload is put, get, mixed[:PERCENT-OF-GETS], scan[:KEYS], cas or incr".to_owned()),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mix::Put => f.pad("put"),
            Mix::Get => f.pad("get"),
            Mix::Mixed(percent) => f.pad(&format!("mixed:{percent}")),
            Mix::Scan(keys) => f.pad(&format!("scan:{keys}")),
            Mix::Cas => f.pad("cas"),
            Mix::Incr => f.pad("incr"),
        }
    }
}

/// Where the operations of one thread come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Puts of the keys in this range, once each: filling the store before it is read.
    Fill(std::ops::Range<u32>),
    /// Endless choice.
    Choice {
        /// What is done.
        mix: Mix,
        /// To which key.
        keys: Keys,
        /// The thread's randomness.
        random: Random,
    },
}

impl Source {
    /// The next operation, if there is one left.
    pub fn next(&mut self) -> Option<(Kind, u32)> {
        match self {
            Source::Fill(range) => range.next().map(|key| (Kind::Put, key)),
            Source::Choice { mix, keys, random } => {
                let kind = match mix {
                    Mix::Put => Kind::Put,
                    Mix::Get => Kind::Get,
                    Mix::Mixed(gets) if random.below(100) < u32::from(*gets) => Kind::Get,
                    Mix::Mixed(_) => Kind::Put,
                    Mix::Scan(_) => Kind::Scan,
                    Mix::Cas => Kind::Cas,
                    Mix::Incr => Kind::Incr,
                };
                let key = keys.pick(random);
                Some((kind, key))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(theta: Option<f64>, mix: Mix) -> (Vec<u32>, u32) {
        let mut source = Source::Choice { mix, keys: Keys::new(1_000, theta), random: Random::new(1, 0) };
        let (mut by_key, mut gets) = (vec![0; 1_000], 0);
        for _ in 0..100_000 {
            let (kind, key) = source.next().expect("endless");
            by_key[key as usize] += 1;
            gets += u32::from(kind == Kind::Get);
        }
        (by_key, gets)
    }

    #[test]
    fn uniform_keys_are_alike_and_zipfian_ones_are_not() {
        let (uniform, _) = counts(None, Mix::Put);
        assert!(uniform.iter().all(|&n| (50..200).contains(&n)));
        let (mut zipf, _) = counts(Some(0.99), Mix::Put);
        zipf.sort_unstable_by_key(|&n| std::cmp::Reverse(n));
        assert!(zipf[0] > 10_000 && zipf[0] > zipf[1], "the hottest key takes about 13 %: {}", zipf[0]);
        assert!(zipf[999] < 60);
    }

    #[test]
    fn the_mix_has_the_share_of_gets_asked_for() {
        let (_, gets) = counts(None, Mix::Mixed(90));
        assert!((89_000..91_000).contains(&gets), "{gets}");
        assert_eq!(counts(None, Mix::Put).1, 0);
        assert_eq!(counts(None, Mix::Get).1, 100_000);
    }

    #[test]
    fn workloads_are_read_or_explained() {
        assert_eq!("mixed".parse(), Ok(Mix::Mixed(50)));
        assert_eq!("mixed:90".parse(), Ok(Mix::Mixed(90)));
        assert!("mixed:100".parse::<Mix>().is_err());
        assert_eq!("scan".parse(), Ok(Mix::Scan(10)));
        assert_eq!("scan:10000".parse(), Ok(Mix::Scan(10_000)));
        assert!("scan:0".parse::<Mix>().expect_err("no key").contains("1 to 10000"));
        assert!("scna".parse::<Mix>().expect_err("unknown").contains("put, get, mixed"));
        for text in ["put", "get", "mixed:7", "scan:3", "cas", "incr"] {
            assert_eq!(text.parse::<Mix>().map(|mix| mix.to_string()), Ok(text.to_owned()));
        }
    }
}
