//! Comparing the states of a group's replicas, through the log.
//!
//! The chained checksum of the chosen *values* rides on every watermark. That replicas have made
//! the same *state* of them is compared here. Now and then, while there is traffic, the leader
//! proposes a check ([`value::check`]). Whoever applies it notes the sum of its state at just
//! that instance, which is the same place everywhere, however far apart the replicas are;
//! followers report theirs to the leader, which counts. A later check carries the verdict.
//!
//! # Who is wrong
//!
//! A leader that wrote its own hash into the log would make all others halt when it is itself the
//! odd one. So what the log says is never one replica's word:
//!
//! - **A majority of the members has one sum.** That sum goes into the log, and whoever noted
//!   another one is wrong, and knows it when it applies the verdict, were it after a month of
//!   absence. If the leader is the odd one it halts at once, and the next leader goes on. Two
//!   majorities share a member, so there are never two verdicts about one instance.
//! - **Sums differ and none can have a majority any more**, however the silent members were to
//!   vote. Nobody knows which state is right: that goes into the log, and whoever applies it
//!   stops (FAULTS, rule 23). Who has not heard of it yet finds no majority to lead.
//! - **Sums differ and it depends on members that are silent.** The leader serves nothing until
//!   it is decided, and checks again and again, so that a lost report or a member that returns
//!   decides it.
//! - **Fewer than a majority have spoken, and alike.** Nothing follows; the next check will tell.
//!
//! A replica without an opinion (its state began behind the check: a restart from a mirror that
//! was already beyond it, a checkpoint from a peer) reports nothing and is not judged. It has
//! one at the next check.
//!
//! Where all agree, the verdict waits for the next check that is due: a group that is idle says
//! nothing. A verdict that somebody is wrong goes out at once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{InstanceId, NodeId};
use crate::kv::{Point, State, Sum, Verdict, value};
use crate::paxos::message::{Envelope, Report};
use crate::paxos::{Halt, Members, Message, Ready, Replica};
use crate::time::Time;

/// How often the states of a group are compared.
#[derive(Clone, Debug)]
pub struct CheckLimits {
    /// After so many instances.
    pub entries: u64,
    /// After so long, if anything was chosen meanwhile.
    pub interval: Duration,
    /// While sums differ and nobody has a majority.
    pub retry: Duration,
}

impl Default for CheckLimits {
    fn default() -> CheckLimits {
        CheckLimits { entries: 10_000, interval: Duration::from_secs(60), retry: Duration::from_millis(500) }
    }
}

/// What the sums of a point say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tally {
    /// Too few have spoken.
    Open,
    /// Sums differ, and the silent members decide.
    Disputed,
    /// A majority has this one; whether somebody else has another.
    Majority(Sum, bool),
    /// None can have a majority any more.
    Split,
}

/// What a count depends on beside the reports: the first and the last point, between which none comes or goes,
/// and the change that made the members.
type Basis = (Option<InstanceId>, Option<InstanceId>, InstanceId);

/// The comparison of one group, as one member sees it.
#[derive(Debug)]
pub struct Checks {
    /// At the leader: what members had at points that it has noted itself.
    reports: BTreeMap<InstanceId, BTreeMap<NodeId, Sum>>,
    /// What the next check carries, and whether it is not to wait for when one is due.
    verdict: Option<(Verdict, bool)>,
    /// Verdicts up to here have been proposed.
    spoken: InstanceId,
    /// Points up to here have been found to have a majority.
    decided: InstanceId,
    /// What was counted last; `None` when a report, or a verdict that went out, has changed the matter since.
    counted: Option<Basis>,
    disputed: bool,
    /// Somebody wants a check now.
    asked: bool,
    /// The leader's own check under way, and when it was proposed.
    proposed: Option<(InstanceId, Time)>,
    /// The newest point, or where this life began, and since when it is that.
    newest: (InstanceId, Time),
    /// At a follower: to which leader, at which promise, what was reported last.
    told: Option<(NodeId, u64, InstanceId)>,
}

impl Checks {
    /// A member that begins at `applied`.
    #[must_use]
    pub fn new(applied: InstanceId, now: Time) -> Checks {
        Checks {
            reports: BTreeMap::new(),
            verdict: None,
            spoken: InstanceId::ZERO,
            decided: InstanceId::ZERO,
            counted: None,
            disputed: false,
            asked: false,
            proposed: None,
            newest: (applied, now),
            told: None,
        }
    }

    /// Whether sums differ and nobody has a majority: nothing may be served from here.
    #[must_use]
    pub fn is_disputed(&self) -> bool {
        self.disputed
    }

    /// Whether there is something to do without anything happening before.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.disputed || self.asked || self.verdict.is_some_and(|(_, loud)| loud)
    }

    /// Wants a check now; for the leader to do.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// What a member had. Only what can be compared is kept.
    pub fn report(&mut self, from: NodeId, point: Point, members: &Members, state: &State) {
        if members.contains(from) && state.point(point.instance).is_some() {
            self.reports.entry(point.instance).or_default().insert(from, point.sum);
            self.counted = None;
        }
    }

    /// Ends a turn: reports, counts, halts this replica if it is the odd one, proposes what is due.
    pub fn turn(
        &mut self,
        replica: &mut Replica,
        state: &State,
        limits: &CheckLimits,
        me: NodeId,
        now: Time,
        ready: &mut Ready,
    ) {
        if let Some(point) = state.points().next_back()
            && point.instance > self.newest.0
        {
            self.newest = (point.instance, now);
        }
        if !replica.is_leader() {
            self.follow(replica, state, me, ready);
            return;
        }
        self.told = None;
        self.count(replica, state, me);
        if replica.halted().is_none() && self.is_due(replica, state, limits, now) && replica.can_propose() {
            let verdict = self.verdict.take().map(|(verdict, _)| verdict);
            self.spoken = self.spoken.max(verdict.map_or(InstanceId::ZERO, |v| v.instance()));
            // What was less urgent than this may be said next.
            self.counted = None;
            let instance = replica.propose(value::check(verdict), now, ready);
            self.proposed = Some((instance, now));
            self.asked = false;
        }
    }

    /// A follower tells the leader what it had at the newest point, once.
    fn follow(&mut self, replica: &Replica, state: &State, me: NodeId, ready: &mut Ready) {
        let (newest, told) = (self.newest, self.told);
        *self = Checks { newest, told, ..Checks::new(InstanceId::ZERO, Time::ZERO) };
        let Some((leader, point)) = replica.leader().zip(state.points().next_back()) else { return };
        let saying = (leader, replica.promised().round, point.instance);
        // A disk that is no member has no say.
        if leader != me && replica.is_voter() && self.told != Some(saying) {
            self.told = Some(saying);
            let message = Message::Report(Report { point: *point });
            ready.send_now.push(Envelope { to: leader, group: replica.group(), message });
        }
    }

    /// Counts what is known of each point, when something has changed since that was last done: this is asked
    /// in every turn of a leader.
    fn count(&mut self, replica: &mut Replica, state: &State, me: NodeId) {
        let first = state.points().next().map(|point| point.instance);
        let last = state.points().next_back().map(|point| point.instance);
        let basis = (first, last, replica.members().changed_at());
        if self.counted == Some(basis) {
            return;
        }
        self.counted = Some(basis);
        self.disputed = false;
        let first = first.unwrap_or(state.applied());
        self.reports = self.reports.split_off(&first);
        for point in state.points() {
            let sums = self.reports.entry(point.instance).or_default();
            sums.insert(me, point.sum);
            match tally(sums, replica.members()) {
                Tally::Open => {}
                Tally::Disputed => self.disputed = true,
                Tally::Majority(agreed, _) if agreed != point.sum => {
                    let (instance, ours) = (point.instance, point.sum);
                    return replica.halt(Halt::StateDiffers { instance, ours, agreed });
                }
                Tally::Majority(agreed, odd) => {
                    self.disputed = false;
                    if point.instance > self.decided {
                        self.decided = point.instance;
                        replica.counters.checked += 1;
                    }
                    let verdict = Verdict::Agreed(Point { instance: point.instance, sum: agreed });
                    self.conclude(verdict, odd);
                }
                Tally::Split => self.conclude(Verdict::Split(point.instance), true),
            }
        }
    }

    /// Keeps the verdict that somebody is wrong, else the newest.
    fn conclude(&mut self, verdict: Verdict, loud: bool) {
        let louder = self.verdict.is_some_and(|(_, loud)| loud);
        if verdict.instance() > self.spoken && (loud || !louder) {
            self.verdict = Some((verdict, loud));
        }
    }

    fn is_due(&self, replica: &Replica, state: &State, limits: &CheckLimits, now: Time) -> bool {
        let applied = state.applied();
        if self.proposed.is_some_and(|(instance, _)| applied < instance) {
            return false;
        }
        let (newest, since) = self.newest;
        let passed = applied.0.saturating_sub(newest.0);
        let waited = self.proposed.is_none_or(|(_, at)| now.since(at) >= limits.retry);
        self.asked
            || self.verdict.is_some_and(|(_, loud)| loud)
            || (self.disputed && waited)
            || (replica.members().count() > 1
                && (passed >= limits.entries || (passed > 0 && now.since(since) >= limits.interval)))
    }
}

/// What the sums of a point say about it.
fn tally(sums: &BTreeMap<NodeId, Sum>, members: &Members) -> Tally {
    // Who has left the group since has no say.
    let voting = || sums.iter().filter(|(node, _)| members.contains(**node)).map(|(_, sum)| *sum);
    let (mut best, mut most) = (Sum::default(), 0);
    for sum in voting() {
        let same = voting().filter(|other| *other == sum).count();
        if same > most {
            (best, most) = (sum, same);
        }
    }
    let spoken = voting().count();
    let odd = most < spoken;
    if most >= members.majority() {
        Tally::Majority(best, odd)
    } else if most + (members.count() - spoken) < members.majority() {
        Tally::Split
    } else if odd {
        Tally::Disputed
    } else {
        Tally::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Member, StorageId};
    use crate::kv::StateHash;

    fn sums(letters: &str) -> BTreeMap<NodeId, Sum> {
        let sum = |letter: char| Sum { hash: StateHash::EMPTY, rest: u64::from(u32::from(letter)) };
        let spoken = (1..).zip(letters.chars()).filter(|(_, letter)| *letter != '-');
        spoken.map(|(node, letter)| (NodeId(node), sum(letter))).collect()
    }

    fn members(nodes: std::ops::RangeInclusive<u32>) -> Members {
        Members::new(nodes.map(|n| Member { node: NodeId(n), storage: StorageId(1) }).collect())
    }

    #[test]
    fn a_sum_counts_only_when_a_majority_of_all_members_has_it() {
        let same = |letter: char, odd| {
            Tally::Majority(Sum { hash: StateHash::EMPTY, rest: u64::from(u32::from(letter)) }, odd)
        };
        for (letters, expected) in [
            ("a", same('a', false)),
            ("a-", Tally::Open),
            ("aa", same('a', false)),
            ("ab", Tally::Split),
            ("---", Tally::Open),
            ("a--", Tally::Open),
            ("ab-", Tally::Disputed),
            ("aa-", same('a', false)),
            ("aab", same('a', true)),
            ("abb", same('b', true)),
            ("abc", Tally::Split),
            ("ab---", Tally::Disputed),
            ("aab--", Tally::Disputed),
            ("aabb-", Tally::Disputed),
            ("aabbc", Tally::Split),
            ("abcd-", Tally::Split),
            ("aabba", same('a', true)),
        ] {
            let members = members(1..=letters.len() as u32);
            assert_eq!(tally(&sums(letters), &members), expected, "{letters}");
        }
    }

    #[test]
    fn an_outsider_has_no_say() {
        let members = members(2..=4);
        assert_eq!(tally(&sums("abb"), &members), tally(&sums("-bb"), &members));
        assert_eq!(tally(&sums("bb-"), &members), Tally::Open);
    }
}
