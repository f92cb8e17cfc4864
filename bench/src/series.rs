//! What happened when: successes, failures and latencies of a load over its measured time, in bounded memory.
//!
//! Steps are a tenth of a second; latencies are kept for ten steps together. A load that lasts longer than so many steps
//! gets steps twice as long, as often as needed.

use serde::Serialize;

/// The first length of a step, in nanoseconds.
const STEP: u64 = 100_000_000;
/// Steps at most; even, and so are the spans in them.
const MOST_STEPS: usize = 6_000;
/// Steps whose latencies are kept together.
const SPAN: usize = 10;

/// The series of one thread, or of all of them.
#[derive(Clone, Debug)]
pub struct Series {
    /// Nanoseconds.
    step: u64,
    steps: Vec<Step>,
    spans: Vec<Rough>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Step {
    successes: u64,
    failures: u64,
}

impl Default for Series {
    fn default() -> Self {
        Series { step: STEP, steps: Vec::new(), spans: Vec::new() }
    }
}

impl Series {
    /// Counts a success `at` nanoseconds after the beginning of the measured time.
    pub fn success(&mut self, at: u64, latency: u64) {
        let step = self.reach(at);
        self.steps[step].successes += 1;
        self.spans[step / SPAN].record(latency);
    }

    /// Counts a failure.
    pub fn failure(&mut self, at: u64) {
        let step = self.reach(at);
        self.steps[step].failures += 1;
    }

    /// The number of the step that this time lies in, which is there when this returns.
    fn reach(&mut self, at: u64) -> usize {
        while at / self.step >= MOST_STEPS as u64 {
            self.coarsen();
        }
        let step = (at / self.step) as usize;
        if step >= self.steps.len() {
            self.steps.resize(step + 1, Step::default());
            self.spans.resize_with(step / SPAN + 1, Rough::default);
        }
        step
    }

    fn coarsen(&mut self) {
        self.step *= 2;
        let sum = |pair: &[Step]| Step {
            successes: pair.iter().map(|step| step.successes).sum(),
            failures: pair.iter().map(|step| step.failures).sum(),
        };
        self.steps = self.steps.chunks(2).map(sum).collect();
        self.spans = self
            .spans
            .chunks(2)
            .map(|pair| {
                let mut both = pair[0].clone();
                pair[1..].iter().for_each(|other| both.add(other));
                both
            })
            .collect();
    }

    /// Adds what another thread counted.
    pub fn add(&mut self, mut other: Series) {
        while self.step < other.step {
            self.coarsen();
        }
        while other.step < self.step {
            other.coarsen();
        }
        if let Some(last) = other.steps.len().checked_sub(1) {
            self.reach(last as u64 * self.step);
        }
        for (mine, theirs) in self.steps.iter_mut().zip(&other.steps) {
            mine.successes += theirs.successes;
            mine.failures += theirs.failures;
        }
        for (mine, theirs) in self.spans.iter_mut().zip(&other.spans) {
            mine.add(theirs);
        }
    }

    /// The series as it is told, of a load that was measured for so many seconds. What ended later, because it was
    /// awaited, is left out.
    pub fn told(&self, seconds: f64) -> Told {
        let step = self.step as f64 / 1e9;
        let steps = ((seconds / step).ceil() as usize).min(MOST_STEPS);
        let spans = steps.div_ceil(SPAN);
        let of_step = |number: usize| self.steps.get(number).copied().unwrap_or_default();
        let us = |number: usize, share: f64| Some(self.spans.get(number)?.quantile(share)? as f64 / 1e3);
        Told {
            step_seconds: step,
            successes: (0..steps).map(|number| of_step(number).successes).collect(),
            failures: (0..steps).map(|number| of_step(number).failures).collect(),
            latency_step_seconds: step * SPAN as f64,
            p50_us: (0..spans).map(|number| us(number, 0.5)).collect(),
            p99_us: (0..spans).map(|number| us(number, 0.99)).collect(),
        }
    }
}

/// A series in the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Told {
    /// The length of a step; the last one may have been cut short.
    pub step_seconds: f64,
    /// In each step.
    pub successes: Vec<u64>,
    /// In each step.
    pub failures: Vec<u64>,
    /// The length of a step of latencies.
    pub latency_step_seconds: f64,
    /// Of the successes in each such step, within a twentieth; `null` where there were none.
    pub p50_us: Vec<Option<f64>>,
    /// The same.
    pub p99_us: Vec<Option<f64>>,
}

/// A histogram of latencies in nanoseconds that takes little memory: sixteen buckets from each power of two to the
/// next, from a microsecond to a minute.
#[derive(Clone, Debug)]
struct Rough(Box<[u32; BUCKETS]>);

/// Buckets per power of two.
const FINE: u32 = 16;
/// The least and the largest power of two.
const LEAST: u32 = 10;
const LARGEST: u32 = 36;
const BUCKETS: usize = ((LARGEST - LEAST) * FINE) as usize;

impl Default for Rough {
    fn default() -> Self {
        Rough(Box::new([0; BUCKETS]))
    }
}

impl Rough {
    fn record(&mut self, nanos: u64) {
        let nanos = nanos.clamp(1 << LEAST, (1 << LARGEST) - 1);
        let power = nanos.ilog2();
        let within = (nanos >> (power - FINE.ilog2())) as u32 - FINE;
        let bucket = &mut self.0[((power - LEAST) * FINE + within) as usize];
        *bucket = bucket.saturating_add(1);
    }

    fn add(&mut self, other: &Rough) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// The middle of the bucket that holds this share. `None` of nothing.
    fn quantile(&self, share: f64) -> Option<u64> {
        let total: u64 = self.0.iter().map(|&count| u64::from(count)).sum();
        let wanted = ((total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.0.iter().position(|&count| {
            seen += u64::from(count);
            seen >= wanted
        })?;
        let (power, within) = (bucket as u32 / FINE + LEAST, bucket as u32 % FINE);
        let width = 1_u64 << (power - FINE.ilog2());
        Some(u64::from(FINE + within) * width + width / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_within_a_twentieth() {
        let mut rough = Rough::default();
        assert_eq!(rough.quantile(0.5), None);
        for nanos in (2_000..2_000_000).step_by(1_000) {
            rough.record(nanos);
        }
        for (share, expected) in [(0.5, 1_000_000.0), (0.99, 1_980_000.0)] {
            let found = rough.quantile(share).expect("recorded") as f64;
            assert!((found / expected - 1.0).abs() < 0.05, "{share}: {found}");
        }
        let mut ends = Rough::default();
        ends.record(0);
        ends.record(u64::MAX);
        assert!(ends.quantile(0.5).is_some_and(|nanos| nanos < 1_100));
        assert!(ends.quantile(1.0).is_some_and(|nanos| nanos > 60_000_000_000));
    }

    #[test]
    fn what_happened_stands_at_its_time_and_silence_is_told() {
        let mut series = Series::default();
        series.success(50_000_000, 3_000_000);
        series.success(120_000_000, 3_000_000);
        series.failure(310_000_000);
        let told = series.told(1.25);
        assert_eq!(told.successes, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(told.failures[3], 1);
        assert_eq!((told.p50_us.len(), told.p50_us[1]), (2, None));
        assert!(told.p50_us[0].is_some_and(|us| (2_850.0..3_150.0).contains(&us)));
    }

    #[test]
    fn a_long_load_gets_longer_steps_and_loses_nothing() {
        let mut series = Series::default();
        for second in 0..2_000 {
            series.success(second * 1_000_000_000, 1_000_000);
        }
        assert_eq!(series.step, 4 * STEP);
        let told = series.told(2_000.0);
        assert_eq!(told.successes.len(), 5_000);
        assert_eq!(told.successes.iter().sum::<u64>(), 2_000);
        assert_eq!(told.p50_us.len(), 500);
        assert!(told.p50_us.iter().all(Option::is_some));
    }

    #[test]
    fn threads_with_steps_of_different_length_are_added() {
        let (mut one, mut other) = (Series::default(), Series::default());
        one.success(0, 1_000_000);
        one.success(900_000_000_000, 1_000_000);
        other.success(150_000_000, 1_000_000);
        other.failure(500_000_000);
        let mut turned = other.clone();
        turned.add(one.clone());
        one.add(other);
        for sum in [one, turned] {
            assert_eq!(sum.step, 2 * STEP);
            assert_eq!(
                (sum.steps[0].successes, sum.steps[2].failures, sum.steps[4_500].successes),
                (2, 1, 1)
            );
        }
    }
}
