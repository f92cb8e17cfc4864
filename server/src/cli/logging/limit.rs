//! What repeats itself: of the lines of one place in the program a few are written in each interval, the rest are
//! counted and told of with the next one. A peer that comes and goes ten times a second must neither fill a disk nor
//! bury the line that explains it.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Lines of one place in each interval.
const LINES: u32 = 20;
/// The interval.
const EVERY: Duration = Duration::from_secs(10);

/// What is to become of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Write it; before it say how many like it were left out.
    Write(u64),
    /// Leave it out.
    Leave,
}

/// Counts lines by place. As many places as the program has, which is some dozens.
#[derive(Debug)]
pub(super) struct Limit<K> {
    places: HashMap<K, Place>,
}

impl<K> Default for Limit<K> {
    fn default() -> Limit<K> {
        Limit { places: HashMap::new() }
    }
}

#[derive(Debug)]
struct Place {
    since: Instant,
    written: u32,
    left_out: u64,
}

impl<K: Eq + Hash> Limit<K> {
    /// A line of that place comes up.
    pub fn judge(&mut self, place: K, now: Instant) -> Verdict {
        let place = self.places.entry(place).or_insert(Place { since: now, written: 0, left_out: 0 });
        if now.saturating_duration_since(place.since) >= EVERY {
            place.since = now;
            place.written = 0;
        }
        if place.written == LINES {
            place.left_out += 1;
            return Verdict::Leave;
        }
        place.written += 1;
        Verdict::Write(std::mem::take(&mut place.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_itself_is_left_out_and_counted() {
        let mut limit = Limit::default();
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let written = (0..1_000).filter(|n| limit.judge("here", at(*n)) == Verdict::Write(0)).count();
        assert_eq!(written, LINES as usize);
        assert_eq!(limit.judge("there", at(1_000)), Verdict::Write(0));
        assert_eq!(limit.judge("here", at(9_999)), Verdict::Leave);
        assert_eq!(limit.judge("here", at(10_000)), Verdict::Write(1_000 - u64::from(LINES) + 1));
        assert_eq!(limit.judge("here", at(10_001)), Verdict::Write(0));
    }
}
