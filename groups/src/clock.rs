//! The group's clock, as its leader carries it on.
//!
//! Lives of keys and the memory of clients are counted by one clock per group, a number in the
//! replicated state that only a chosen value moves, and never back. A leader stamps what it
//! proposes with what the state's clock showed when the entry that opened its leadership was
//! applied, and its own monotonic time since then. So
//!
//! - no wall clock is asked: whoever sets one, or moves it, changes nothing;
//! - the clock never runs faster than the leader's monotonic clock: a life is not shorter than
//!   was asked for, as far as that clock keeps time;
//! - while nobody leads the clock stands: a change of leaders makes lives longer, never shorter;
//! - a deposed leader's stamps that are chosen after all were made before its successor began.
//!
//! What is over by this clock is removed by an entry of its own, which the leader proposes when
//! the next deadline is due (FAULTS, rule 24). A group says when that will be, so one with far
//! deadlines, or none, costs nothing meanwhile.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::{InstanceId, NodeId};
use crate::kv::{State, value};
use crate::paxos::Replica;
use crate::planted::{self, Bug};
use crate::time::Time;

/// So many lives end with one entry: applying it is a short step for every replica.
pub const EXPIRED_AT_ONCE: u32 = 1024;

/// Stamps are whole milliseconds, rounded down: a life counts from a little before the moment at which
/// it was given, and ends by a clock that has not begun this one.
const BEGUN_MILLI: u64 = 1;

/// The clock of one group, at one member.
#[derive(Debug, Default)]
pub struct Clock {
    begun: Option<Begun>,
    /// The entry that ends lives, under way.
    expiring: Option<InstanceId>,
}

/// Since when this member has carried the clock on.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// The entry that opened its leadership.
    opening: InstanceId,
    /// What the clock showed then.
    clock: u64,
    /// The member's own time then.
    at: Time,
}

impl Clock {
    /// Looks at what has become of the leadership; to be called in every turn.
    pub fn follow(&mut self, replica: &Replica, state: &State, now: Time) {
        let Some(opening) = replica.opening() else {
            *self = Clock::default();
            return;
        };
        if self.begun.is_none_or(|begun| begun.opening != opening) {
            *self = Clock::default();
            if state.applied() >= opening {
                self.begun = Some(Begun { opening, clock: state.clock(), at: now });
            }
        }
        if self.expiring.is_some_and(|instance| state.applied() >= instance) {
            self.expiring = None;
        }
    }

    /// What the clock shows: what a value proposed now is stamped with. Before the leadership is
    /// open, what the state's shows.
    #[must_use]
    pub fn now(&self, state: &State, me: NodeId, now: Time) -> u64 {
        let Some(begun) = self.begun else { return state.clock() };
        if planted::is(Bug::ExpiryByOwnClock) {
            return now.nanos() / 1_000_000 + u64::from(me.0) * 1_000;
        }
        let passed = u64::try_from(now.since(begun.at).as_millis()).unwrap_or(u64::MAX);
        begun.clock.saturating_add(passed).max(state.clock())
    }

    /// The entry that ends what is over now; `None` while nothing is, or one is under way.
    #[must_use]
    pub fn expire(&self, state: &State, me: NodeId, now: Time) -> Option<Bytes> {
        let clock = self.now(state, me, now).saturating_sub(BEGUN_MILLI);
        let due = self.expiring.is_none() && state.next_deadline().is_some_and(|at| at <= clock);
        (due && self.begun.is_some()).then(|| value::expire(clock, EXPIRED_AT_ONCE))
    }

    /// That entry was proposed.
    pub fn proposed(&mut self, instance: InstanceId) {
        self.expiring = Some(instance);
    }

    /// When the next life ends, in the member's own time: a turn is due then if none comes before.
    #[must_use]
    pub fn wakes(&self, state: &State) -> Option<Time> {
        let begun = self.begun.filter(|_| self.expiring.is_none())?;
        let left = state.next_deadline()?.saturating_sub(begun.clock).saturating_add(BEGUN_MILLI);
        Some(begun.at + Duration::from_millis(left))
    }
}
