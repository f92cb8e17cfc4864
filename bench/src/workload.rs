//! Which operation comes next.

use std::fmt;
use std::str::FromStr;

/// The two operations a load is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A linearizable read.
    Get,
    /// A durable write.
    Put,
}

/// A mix of gets and puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Puts only.
    Put,
    /// Gets only.
    Get,
    /// This many gets in a hundred operations.
    Mixed(u8),
}

impl Mix {
    /// Whether gets are among the operations.
    pub fn reads(self) -> bool {
        self != Mix::Put
    }

    /// Whether puts are among the operations.
    pub fn writes(self) -> bool {
        self != Mix::Get
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "put" => Ok(Mix::Put),
            None if text == "get" => Ok(Mix::Get),
            None if text == "mixed" => Ok(Mix::Mixed(50)),
            Some(("mixed", percent)) => match percent.parse() {
                Ok(percent @ 1..=99) => Ok(Mix::Mixed(percent)),
                _ => Err("mixed:PERCENT takes the share of gets, 1 to 99".to_owned()),
            },
            _ => Err("a workload is put, get, mixed or mixed:PERCENT-OF-GETS".to_owned()),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mix::Put => f.pad("put"),
            Mix::Get => f.pad("get"),
            Mix::Mixed(percent) => f.pad(&format!("mixed:{percent}")),
        }
    }
}

/// SplitMix64. Small, fast, and good enough to pick keys.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of one thread.
    pub fn new(seed: u64, thread: u64) -> Self {
        let mut random = Random(seed ^ thread.wrapping_mul(0xa076_1d64_78bd_642f));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `bound`, by multiplication; its bias is below 2^-32 for any number of keys.
    fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u32
    }

    /// In `0.0..1.0`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How keys are chosen.
#[derive(Clone, Debug)]
pub enum Keys {
    /// All alike.
    Uniform(u32),
    /// Few hot, many cold.
    Zipf(Zipf),
}

/// Zipfian choice after Gray et al., "Quickly Generating Billion-Record Synthetic Databases" (1994), as in YCSB; the
/// ranks are scattered over the key numbers so that the hot keys are no neighbours.
#[derive(Clone, Debug)]
pub struct Zipf {
    keys: u32,
    zeta: f64,
    second: f64,
    alpha: f64,
    eta: f64,
}

/// A prime above any number of keys, so that multiplying by it permutes them.
const SCATTER: u64 = 2_654_435_761;

impl Zipf {
    fn new(keys: u32, theta: f64) -> Self {
        let count = f64::from(keys);
        let zeta: f64 = (1..=keys).map(|rank| f64::from(rank).powf(-theta)).sum();
        let second = 1.0 + 0.5_f64.powf(theta);
        let eta = (1.0 - (2.0 / count).powf(1.0 - theta)) / (1.0 - second / zeta);
        Zipf { keys, zeta, second, alpha: 1.0 / (1.0 - theta), eta }
    }

    fn pick(&self, random: &mut Random) -> u32 {
        let unit = random.unit();
        let scaled = unit * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < self.second {
            1
        } else {
            (f64::from(self.keys) * (self.eta * unit - self.eta + 1.0).powf(self.alpha)) as u64
        };
        let rank = rank.min(u64::from(self.keys) - 1);
        (rank * SCATTER % u64::from(self.keys)) as u32
    }
}

impl Keys {
    /// The choice among `keys` keys; `theta` in `0..1` for a skewed one.
    pub fn new(keys: u32, theta: Option<f64>) -> Self {
        match theta {
            Some(theta) if keys > 2 => Keys::Zipf(Zipf::new(keys, theta)),
            _ => Keys::Uniform(keys),
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
        /// Gets against puts.
        mix: Mix,
        /// Which key.
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
                };
                let key = match keys {
                    Keys::Uniform(count) => random.below(*count),
                    Keys::Zipf(zipf) => zipf.pick(random),
                };
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
        assert!("scan".parse::<Mix>().expect_err("unknown").contains("put, get, mixed"));
    }
}
