//! Which nodes should lead now: leadership leaves a disk that lags before its clients notice.
//!
//! Every shard measures how long its records take until they are synced and it knows of that: the queue of the
//! log, the disk, and the processor that has no time. Heartbeats tell it to the others. What "slow" is
//! depends on the machines, so a node compares itself with its peers, and only with them: when all are slow
//! alike, nobody would do better. As chosen values follow the fastest majority, a slow *follower* costs nothing; a
//! slow leader delays its own vote and the first word to all others.
//!
//! A node that finds itself slow says so, hands over what it leads and is given nothing, and goes on following: so
//! it goes on measuring. It takes a while to be called slow, and a longer one to be called fit again, so that
//! a hiccup moves nothing and a disk that comes and goes does not drag its groups back and forth.

use std::time::Duration;

use crate::time::Time;

/// A lag below this is no reason to move anything.
const NOTABLE: Duration = Duration::from_millis(20);

/// Slow is who lags so many times as much as the middle one of its peers.
const SLOW: u32 = 4;

/// Fit again is who lags less than so many times as much.
const FIT: u32 = 2;

/// It has to do so for this long.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// And this long.
const FIT_AFTER: Duration = Duration::from_secs(20);

/// What a node thinks of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Fitness {
    slow: bool,
    /// Since when what it sees has contradicted that.
    doubts: Option<Time>,
}

impl Fitness {
    /// Whether this node is slow.
    pub(super) fn is_slow(&self) -> bool {
        self.slow
    }

    /// Looks at the own lag and at those of the peers that are heard.
    pub(super) fn look(&mut self, own: Duration, peers: &mut [Duration], now: Time) {
        peers.sort_unstable();
        // Of two the slower one: one fast peer shows nothing yet.
        let Some(middle) = peers.get(peers.len() / 2) else {
            *self = Fitness::default();
            return;
        };
        let (factor, patience) = if self.slow { (FIT, FIT_AFTER) } else { (SLOW, SLOW_AFTER) };
        let lags = own >= NOTABLE.max(*middle * factor);
        if lags == self.slow {
            self.doubts = None;
        } else if now.since(*self.doubts.get_or_insert(now)) >= patience {
            *self = Fitness { slow: lags, doubts: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Looks every half a second for so long; when the verdict changed, in milliseconds from the beginning.
    fn watch(fitness: &mut Fitness, from: u64, until: u64, own: u64, peers: &[u64]) -> Vec<u64> {
        let mut changes = Vec::new();
        for at in (from..until).step_by(500) {
            let before = fitness.is_slow();
            let mut lags: Vec<Duration> = peers.iter().map(|lag| MS(*lag)).collect();
            fitness.look(MS(own), &mut lags, Time::ZERO + MS(at + 1));
            if fitness.is_slow() != before {
                changes.push(at);
            }
        }
        changes
    }

    #[test]
    fn who_lags_behind_its_peers_is_slow_after_two_seconds_and_fit_after_twenty() {
        let mut fitness = Fitness::default();
        assert_eq!(watch(&mut fitness, 0, 10_000, 100, &[2, 3]), [2_000]);
        assert_eq!(watch(&mut fitness, 10_000, 60_000, 3, &[2, 3]), [30_000]);
    }

    #[test]
    fn a_hiccup_moves_nothing() {
        let mut fitness = Fitness::default();
        for round in 0..20 {
            let from = round * 2_500;
            assert!(watch(&mut fitness, from, from + 2_000, 500, &[2, 3]).is_empty());
            assert!(watch(&mut fitness, from + 2_000, from + 2_500, 2, &[2, 3]).is_empty());
        }
    }

    #[test]
    fn between_the_two_bounds_a_verdict_stays() {
        let mut fitness = Fitness::default();
        assert!(watch(&mut fitness, 0, 60_000, 30, &[10, 10]).is_empty(), "three times is not slow");
        assert_eq!(watch(&mut fitness, 60_000, 70_000, 100, &[10, 10]), [62_000]);
        assert!(watch(&mut fitness, 70_000, 170_000, 30, &[10, 10]).is_empty(), "nor is it fit");
    }

    #[test]
    fn nobody_is_slow_where_all_are_nor_alone_nor_in_microseconds() {
        for (own, peers) in [(900, &[800, 700][..]), (900, &[]), (19, &[0, 0]), (900, &[1, 800])] {
            assert!(watch(&mut Fitness::default(), 0, 60_000, own, peers).is_empty(), "{own} {peers:?}");
        }
    }
}
