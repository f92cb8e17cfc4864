//! How fast checkpoints leave: a token bucket, kept as the time at which it is no longer empty.

use std::time::Duration;

use groups::time::Time;

/// What may leave at once after a silence, as time at the full rate: longer than a tick.
const BURST: Duration = Duration::from_millis(100);

/// A rate in bytes per second.
#[derive(Debug)]
pub(super) struct Pace {
    /// 0: no limit.
    bytes_per_sec: u64,
    /// When the next frame may leave.
    ready: Time,
}

impl Pace {
    pub(super) fn new(bytes_per_sec: u64) -> Pace {
        Pace { bytes_per_sec, ready: Time::ZERO }
    }

    /// Another rate from now on. What was sent at the old one is paid.
    pub(super) fn set(&mut self, bytes_per_sec: u64) {
        if bytes_per_sec != self.bytes_per_sec {
            *self = Pace::new(bytes_per_sec);
        }
    }

    /// Whether a frame may leave now, whatever its size; it is paid afterwards.
    pub(super) fn ready(&self, now: Time) -> bool {
        self.bytes_per_sec == 0 || self.ready <= now
    }

    /// A frame has left.
    pub(super) fn spend(&mut self, bytes: usize, now: Time) {
        if self.bytes_per_sec == 0 {
            return;
        }
        let cost = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_sec);
        let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
        let earliest = Time::from_nanos(now.nanos().saturating_sub(BURST.as_nanos() as u64));
        self.ready = self.ready.max(earliest) + cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_rate_holds_at_once_and_the_same_one_changes_nothing() {
        let now = Time::from_nanos(9_000_000_000);
        let mut pace = Pace::new(1_000);
        pace.spend(1_000_000, now);
        pace.set(1_000);
        assert!(!pace.ready(now), "a quarter of an hour is to be paid");
        pace.set(0);
        assert!(pace.ready(now));
        pace.spend(1_000_000, now);
        assert!(pace.ready(now));
    }

    #[test]
    fn the_rate_holds_over_time_and_a_silence_saves_up_no_more_than_a_burst() {
        let mut pace = Pace::new(1_000_000);
        let mut sent = 0;
        for millis in 5000..6000 {
            let now = Time::from_nanos(millis * 1_000_000);
            while pace.ready(now) {
                pace.spend(10_000, now);
                sent += 10_000;
            }
        }
        assert!((1_000_000..=1_110_000).contains(&sent), "{sent}");
    }
}
