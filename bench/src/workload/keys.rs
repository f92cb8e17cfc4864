//! Which key comes next.

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
    pub(super) fn below(&mut self, bound: u32) -> u32 {
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

    /// The next key.
    pub(super) fn pick(&self, random: &mut Random) -> u32 {
        match self {
            Keys::Uniform(count) => random.below(*count),
            Keys::Zipf(zipf) => zipf.pick(random),
        }
    }
}
