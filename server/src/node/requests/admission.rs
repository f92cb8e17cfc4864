//! How much is taken in: no more than is answered in time.
//!
//! A queue that is longer than what is answered in a quarter of a second helps nobody: throughput is what it is, and
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
const PATIENCE: Duration = Duration::from_millis(250);

/// So many are always taken: a rate that is not known yet must not refuse a first pipeline.
const LEAST: u64 = 4_096;

/// So many bytes are always taken.
const LEAST_BYTES: u64 = 8 << 20;

/// Answers are counted over this.
const WINDOW: Duration = Duration::from_millis(100);

/// After each window a remembered rate is this much less (of 1024): half of it is gone after seven seconds.
const FADES: u64 = 1014;

/// What is open of one kind, and at which rate it is answered.
#[derive(Debug, Default)]
struct Flow {
    open: u64,
    answered: u64,
    /// A second, the best of the last seconds.
    rate: u64,
}

impl Flow {
    /// Whether there is room for more, where `least` is always taken.
    fn has_room(&self, least: u64) -> bool {
        self.open < least.max(self.rate * PATIENCE.as_millis() as u64 / 1000)
    }

    fn end(&mut self, much: u64) {
        assert!(self.open >= much, "only what was taken can end");
        self.open -= much;
    }

    fn end_window(&mut self, micros: u64, windows: u32) {
        let faded = (0..windows).fold(self.rate, |rate, _| rate * FADES / 1024);
        self.rate = faded.max(std::mem::take(&mut self.answered).saturating_mul(1_000_000) / micros);
    }
}

/// What is open, in requests and in bytes.
#[derive(Debug)]
pub(super) struct Admission {
    requests: Flow,
    bytes: Flow,
    began: Time,
}

impl Admission {
    pub(super) fn new() -> Admission {
        Admission { requests: Flow::default(), bytes: Flow::default(), began: Time::ZERO }
    }

    /// How many requests are open.
    pub(super) fn open(&self) -> usize {
        self.requests.open as usize
    }

    /// How many bytes they have.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.open as usize
    }

    /// Whether one more would be taken.
    pub(super) fn has_room(&self) -> bool {
        self.requests.has_room(LEAST) && self.bytes.has_room(LEAST_BYTES)
    }

    /// Takes one more, of so many bytes, unless there is enough.
    pub(super) fn admit(&mut self, bytes: usize, now: Time) -> bool {
        self.look(now);
        let admitted = self.has_room();
        if admitted {
            self.requests.open += 1;
            self.bytes.open += bytes as u64;
        }
        admitted
    }

    /// One of so many bytes was answered.
    pub(super) fn answered(&mut self, bytes: usize, now: Time) {
        self.look(now);
        self.requests.answered += 1;
        self.bytes.answered += bytes as u64;
        self.given_up(bytes);
    }

    /// One of so many bytes has ended without an answer.
    pub(super) fn given_up(&mut self, bytes: usize) {
        self.requests.end(1);
        self.bytes.end(bytes as u64);
    }

    /// Ends the window when it is over.
    fn look(&mut self, now: Time) {
        let passed = now.since(self.began);
        if passed < WINDOW {
            return;
        }
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        // A long pause is many windows in which nothing was answered.
        let windows = (passed.as_millis() / WINDOW.as_millis()).min(1_000) as u32;
        self.requests.end_window(micros, windows);
        self.bytes.end_window(micros, windows);
        self.began = now;
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
                refused += u64::from(!admission.admit(200, now));
            }
            longest = longest.max(admission.open());
            for _ in 0..served.min(admission.open() as u32) {
                admission.answered(200, now);
            }
        }
        (longest, refused)
    }

    #[test]
    fn twice_of_what_can_be_answered_waits_half_a_second_and_the_rest_is_refused() {
        let mut admission = Admission::new();
        let (longest, refused) = run(&mut admission, 0..10_000, 60, 30);
        assert!((7_000..8_500).contains(&longest), "30 a millisecond for a quarter of a second: {longest}");
        assert!((280_000..300_000).contains(&refused), "half of 600 000: {refused}");
    }

    #[test]
    fn what_can_be_answered_is_never_refused() {
        let mut admission = Admission::new();
        assert_eq!(run(&mut admission, 0..5_000, 30, 40).1, 0);
        // Nor is a first pipeline, when no rate is known yet.
        let mut admission = Admission::new();
        assert!((0..LEAST).all(|_| admission.admit(200, at(0))));
        assert!(!admission.admit(200, at(0)));
    }

    #[test]
    fn few_large_ones_are_as_much_as_many_small_ones() {
        let mut admission = Admission::new();
        assert_eq!((0..20).filter(|_| admission.admit(1 << 20, at(0))).count(), 8, "LEAST_BYTES");
        assert_eq!(admission.bytes(), 8 << 20);
        // A megabyte every 20 ms is 50 a second: twelve may wait.
        for now in 1..100 {
            admission.answered(1 << 20, at(now * 20));
            assert!(admission.admit(1 << 20, at(now * 20)));
        }
        let more = (0..30).filter(|_| admission.admit(1 << 20, at(2_000))).count();
        assert!((4..=6).contains(&more), "{more} beside the eight");
    }

    #[test]
    fn a_pause_of_a_failover_refuses_nothing_that_the_rate_before_would_answer() {
        let mut admission = Admission::new();
        run(&mut admission, 0..3_000, 30, 40);
        // Nothing is answered for 200 ms.
        assert_eq!(run(&mut admission, 3_000..3_200, 30, 0).1, 0);
        assert_eq!(run(&mut admission, 3_200..5_000, 30, 60).1, 0);
    }

    #[test]
    fn the_rate_of_a_better_time_is_forgotten() {
        let mut admission = Admission::new();
        run(&mut admission, 0..3_000, 200, 200);
        run(&mut admission, 3_000..60_000, 20, 10);
        let (longest, _) = run(&mut admission, 60_000..61_000, 20, 10);
        assert!(
            longest <= 4_200,
            "10 a millisecond for a quarter of a second are less than LEAST: {longest}"
        );
    }
}
