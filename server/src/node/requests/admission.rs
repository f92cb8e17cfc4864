//! How much is taken in: no more than is answered in time.
//!
//! A queue that is longer than what is answered in half a second helps nobody: throughput is what it is, and
//! whoever stands at its end waits for an answer that comes after the client has given up. By Little's law the
//! time in a queue is its length over the rate at which it empties, so the length that is allowed follows from
//! the rate at which requests were answered lately. What comes on top is refused at once, before anything
//! is proposed, and the client can go elsewhere or wait.
//!
//! The rate is the best of the last seconds, not the latest: while a leader is replaced nothing is answered, and
//! that must not turn a pause into refusals.

use std::time::Duration;

use groups::time::Time;

/// How long the last in the queue may have to wait for those before it.
const PATIENCE: Duration = Duration::from_millis(500);

/// So many are always taken: a rate that is not known yet must not refuse a first pipeline.
const LEAST: usize = 4_096;

/// Answers are counted over this.
const WINDOW: Duration = Duration::from_millis(100);

/// After each window the remembered rate is this much less (of 1024): half of it is gone after seven seconds.
const FADES: u64 = 1014;

/// What is open, and at which rate it is answered.
#[derive(Debug)]
pub(super) struct Admission {
    open: usize,
    answered: u64,
    began: Time,
    /// Answers a second, the best of the last seconds.
    rate: u64,
}

impl Admission {
    pub(super) fn new() -> Admission {
        Admission { open: 0, answered: 0, began: Time::ZERO, rate: 0 }
    }

    /// How many requests are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// How many may be.
    fn allowed(&self) -> usize {
        let in_time = self.rate * PATIENCE.as_millis() as u64 / 1000;
        LEAST.max(usize::try_from(in_time).unwrap_or(usize::MAX))
    }

    /// Takes one more, unless there are enough.
    pub(super) fn admit(&mut self, now: Time) -> bool {
        self.look(now);
        let admitted = self.open < self.allowed();
        self.open += usize::from(admitted);
        admitted
    }

    /// One was answered.
    pub(super) fn answered(&mut self, now: Time) {
        self.look(now);
        self.answered += 1;
        self.given_up();
    }

    /// One has ended without an answer.
    pub(super) fn given_up(&mut self) {
        assert!(self.open > 0, "only what was taken can end");
        self.open -= 1;
    }

    /// Ends the window when it is over.
    fn look(&mut self, now: Time) {
        let passed = now.since(self.began);
        if passed < WINDOW {
            return;
        }
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).max(1);
        // A long pause is many windows in which nothing was answered.
        let windows = (passed.as_millis() / WINDOW.as_millis()).min(1_000) as u32;
        let faded = (0..windows).fold(self.rate, |rate, _| rate * FADES / 1024);
        self.rate = faded.max(self.answered.saturating_mul(1_000_000) / micros);
        (self.answered, self.began) = (0, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_secs(10) + Duration::from_millis(millis)
    }

    /// Offers `offered` and answers at most `served` a millisecond; the longest queue, and what was refused.
    fn run(
        admission: &mut Admission,
        millis: std::ops::Range<u64>,
        offered: u32,
        served: u32,
    ) -> (usize, u64) {
        let (mut longest, mut refused) = (0, 0);
        for now in millis.map(at) {
            for _ in 0..offered {
                refused += u64::from(!admission.admit(now));
            }
            longest = longest.max(admission.open());
            for _ in 0..served.min(admission.open() as u32) {
                admission.answered(now);
            }
        }
        (longest, refused)
    }

    #[test]
    fn twice_of_what_can_be_answered_waits_half_a_second_and_the_rest_is_refused() {
        let mut admission = Admission::new();
        let (longest, refused) = run(&mut admission, 0..10_000, 60, 30);
        assert!((14_000..17_000).contains(&longest), "30 a millisecond for half a second: {longest}");
        assert!((270_000..300_000).contains(&refused), "half of 600 000: {refused}");
    }

    #[test]
    fn what_can_be_answered_is_never_refused() {
        let mut admission = Admission::new();
        assert_eq!(run(&mut admission, 0..5_000, 30, 40).1, 0);
        // Nor is a first pipeline, when no rate is known yet.
        let mut admission = Admission::new();
        assert!((0..LEAST).all(|_| admission.admit(at(0))));
        assert!(!admission.admit(at(0)));
    }

    #[test]
    fn a_pause_of_a_failover_refuses_nothing_that_the_rate_before_would_answer() {
        let mut admission = Admission::new();
        run(&mut admission, 0..3_000, 30, 40);
        // Nothing is answered for 450 ms.
        assert_eq!(run(&mut admission, 3_000..3_450, 30, 0).1, 0);
        assert_eq!(run(&mut admission, 3_450..5_000, 30, 60).1, 0);
    }

    #[test]
    fn the_rate_of_a_better_time_is_forgotten() {
        let mut admission = Admission::new();
        run(&mut admission, 0..3_000, 200, 200);
        run(&mut admission, 3_000..60_000, 20, 10);
        let (longest, _) = run(&mut admission, 60_000..61_000, 20, 10);
        assert!(longest <= 5_100, "10 a millisecond for half a second: {longest}");
    }
}
