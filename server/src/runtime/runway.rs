//! When the disk will be as full as it may be, at the rate at which it has filled lately.
//!
//! The log takes whole segments and gives whole segments back, so free space moves in steps and in teeth. A straight
//! line through the samples of ten minutes goes through the middle of them.

use std::collections::VecDeque;
use std::time::Duration;

/// Between two samples.
pub const EVERY: Duration = Duration::from_secs(5);
/// Samples that are kept: ten minutes.
const MAX_SAMPLES: usize = 120;
/// Nothing is said of a shorter past.
const LEAST: Duration = Duration::from_secs(60);

/// Samples of the free space, the newest last.
#[derive(Clone, Debug, Default)]
pub struct Runway {
    samples: VecDeque<(Duration, u64)>,
}

impl Runway {
    /// At `at` since some start, so many bytes were free. Samples that come too early are dropped.
    pub fn note(&mut self, at: Duration, free: u64) {
        if self.samples.back().is_some_and(|(last, _)| at < *last + EVERY) {
            return;
        }
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((at, free));
    }

    /// Bytes per second by which the free space shrinks; negative when it grows, `None` as long as too little is
    /// known.
    #[must_use]
    pub fn growth(&self) -> Option<f64> {
        let ((first, base), (last, _)) = (self.samples.front()?, self.samples.back()?);
        if *last - *first < LEAST {
            return None;
        }
        // Least squares, relative to the first sample, so that nothing large is subtracted from something large.
        let points =
            self.samples.iter().map(|(at, free)| ((*at - *first).as_secs_f64(), *free as f64 - *base as f64));
        let count = self.samples.len() as f64;
        let (t, f) = points.clone().fold((0.0, 0.0), |(t, f), (x, y)| (t + x / count, f + y / count));
        let (up, down) =
            points.fold((0.0, 0.0), |(up, down), (x, y)| (up + (x - t) * (y - f), down + (x - t) * (x - t)));
        (down > 0.0).then(|| -up / down)
    }

    /// Seconds until only `least` bytes are free: 0 when that is so already, `None` when the free space does not
    /// shrink or too little is known.
    #[must_use]
    pub fn seconds(&self, least: u64) -> Option<f64> {
        let (_, free) = self.samples.back()?;
        if *free <= least {
            return Some(0.0);
        }
        let growth = self.growth().filter(|growth| *growth > 0.0)?;
        Some((*free - least) as f64 / growth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runway(free: impl Fn(u64) -> u64, seconds: u64) -> Runway {
        let mut runway = Runway::default();
        for second in 0..=seconds {
            runway.note(Duration::from_secs(second), free(second));
        }
        runway
    }

    #[test]
    fn a_disk_that_fills_evenly() {
        let runway = runway(|second| 10_000_000 - second * 1_000, 120);
        assert_eq!(runway.growth().map(f64::round), Some(1_000.0));
        // 9 880 000 are left, 8 000 000 of them may be used.
        assert_eq!(runway.seconds(1_880_000).map(f64::round), Some(8_000.0));
        assert_eq!(runway.seconds(9_880_000), Some(0.0));
    }

    #[test]
    fn teeth_of_whole_segments_are_seen_through() {
        const SEGMENT: u64 = 64 << 20;
        // A segment every 20 s, and of ten that were taken nine are given back at once: one stays in 200 s.
        let free = |second: u64| (1 << 40) - (second / 20 % 10) * SEGMENT - second / 200 * SEGMENT;
        let growth = runway(free, 599).growth().expect("ten minutes of it");
        let truth = SEGMENT as f64 / 200.0;
        assert!(growth > 0.3 * truth && growth < 3.0 * truth, "{growth} and not {truth}");
    }

    #[test]
    fn nothing_is_said_of_a_short_past_or_of_a_disk_that_does_not_fill() {
        assert_eq!(runway(|second| 1_000_000 - second, 59).seconds(0), None);
        assert_eq!(runway(|_| 1_000_000, 120).seconds(0), None);
        assert_eq!(runway(|second| 1_000_000 + second, 120).seconds(0), None);
        assert_eq!(Runway::default().seconds(0), None);
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let runway =
            runway(|second| if second < 3_600 { 1 << 40 } else { (1 << 40) - (second - 3_600) * 10 }, 4_400);
        assert_eq!(runway.samples.len(), MAX_SAMPLES);
        assert_eq!(runway.growth().map(f64::round), Some(10.0));
    }
}
