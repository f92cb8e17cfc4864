//! Leases: what binds an acceptor to its leader for a while, and when a leader may answer reads
//! alone; and what a follower can prove of how far it is behind, by a word of such a leader. How grants travel, and why they are safe together with what is here, is the head of
//! `groups/src/peers/lease.rs`.

use super::message::{Advance, Ask, Message};
use super::ready::Ready;
use super::replica::{Replica, Role};
use std::time::Duration;

use crate::ids::{Ballot, Boot, InstanceId, NodeId};
use crate::peers::{Peers, Tenure};
use crate::planted::{self, Bug};
use crate::time::Time;

/// A follower asks no more often than this.
const ASK_AGAIN: Duration = Duration::from_millis(20);

impl Replica {
    /// Whether a lease forbids to promise a higher ballot to `candidate` now. `consent` is the
    /// ballot of a leader that has given up its lease for this, zero for none.
    pub(super) fn is_bound(&self, candidate: NodeId, consent: Ballot, now: Time, peers: &Peers) -> bool {
        let lease = self.tuning.lease;
        if now < self.born + lease && !planted::is(Bug::LeaseForgottenAtRestart) {
            // The life before may have granted one, to a leader whose ballot it had not written
            // down yet: nobody's consent is known to be that leader's.
            return true;
        }
        let holder = self.promised.node;
        if holder == candidate || holder == self.me || planted::is(Bug::LeaseBindsNobody) {
            return false;
        }
        // The leader at the very ballot promised here has consented itself. That it was elected over the
        // heads of those at lower ballots says nothing of their leases: its members were perhaps those of
        // an earlier instance, and others count on this disk since.
        let consented =
            self.promised == consent || (self.promised < consent && planted::is(Bug::LeaseConsentOfAnother));
        !consented
            && (peers.granted_before(holder, lease, now)
                || (self.confirmed == self.promised && peers.grants(holder, self.group, lease, now)))
    }

    /// Whether a lease forbids to follow a leader at this ballot, as it would have forbidden to promise
    /// it. Among the members of one instance nobody leads at a higher ballot while a lease stands. But
    /// who leads at this one may have been elected by those of an earlier instance, some of which have
    /// not heard that this disk, and not they, bears the lease by now.
    pub(super) fn is_held(&mut self, leader: NodeId, ballot: Ballot, now: Time, peers: &Peers) -> bool {
        let held = ballot > self.promised
            && self.is_bound(leader, Ballot::ZERO, now, peers)
            && !planted::is(Bug::LeaseYieldsToLeaders);
        self.counters.bound += u64::from(held);
        held
    }

    /// The highest ballot such that this replica leads at none up to it, and never will again; zero
    /// when it leads, or may lead soon.
    pub(super) fn renounced(&self) -> Ballot {
        match self.role {
            // It stands for election once it is a member, and begins far above what it has seen then. A
            // leader's disk may have been lost, and who follows its ballot still must be told by somebody.
            Role::Follower | Role::Probing(_) if !self.is_voter() => self.seen.max(self.promised),
            Role::Follower | Role::Probing(_) => self.promised,
            Role::Candidate(_) | Role::Leader(_) => Ballot::ZERO,
        }
    }

    /// This life of `from` leads at no ballot up to this one, and holds no lease with any of them. What an
    /// earlier life had promised when it said so need not have been on its disk: the next may lead at it.
    pub(super) fn release(&mut self, from: NodeId, life: Boot, renounced: Ballot, peers: &Peers) {
        if self.promised.node == from && self.promised <= renounced && life == peers.boot_of(from) {
            self.confirmed = Ballot::ZERO;
        }
    }

    /// `node` is in a new life, which leads at no ballot of an earlier one. Should the promise be the new
    /// life's already, its leader must not count on it before it is confirmed again: returns whether
    /// there was anything that binds.
    pub fn peer_restarted(&mut self, node: NodeId) -> bool {
        let bound = self.promised.node == node;
        if bound {
            self.confirmed = Ballot::ZERO;
        }
        bound
    }

    /// A lease forbade a promise. Whoever holds it may lead no more and not know that anybody is bound.
    pub(super) fn ask_holder(&self, ready: &mut Ready) {
        let holder = self.promised.node;
        if holder != self.me && holder != NodeId(0) {
            self.send_probe(holder, 0, ready);
        }
    }

    /// Moves the promise to a higher ballot, in memory. Leaving a leader of another node counts.
    pub(super) fn move_promise(&mut self, ballot: Ballot, ready: &mut Ready) {
        assert!(ballot > self.promised, "a promise only rises");
        let holder = self.promised.node;
        if self.promised > Ballot::ZERO && holder != self.me && holder != ballot.node {
            ready.left.push(holder);
        }
        self.promised = ballot;
    }

    /// Until when this leader may answer reads alone: a majority is bound to it until then, itself
    /// included. `None` when none is, or when this replica does not lead.
    #[must_use]
    pub fn leased_until(&self, peers: &Peers) -> Option<Time> {
        if planted::is(Bug::LeaseOfOne) && self.is_leader() {
            return Some(Time::MAX);
        }
        let mut ends: Vec<Time> = self.bound_followers(peers).into_iter().map(|(_, until)| until).collect();
        if self.is_leader() && self.is_voter() {
            ends.push(Time::MAX);
        }
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(self.members.majority() - 1).copied()
    }

    /// Whether this leader may answer alone what came before `now` was read.
    #[must_use]
    pub fn is_leased(&self, peers: &Peers, now: Time) -> bool {
        self.leased_until(peers).is_some_and(|until| now < until)
    }

    /// The moment that this follower's prefix up to the returned instance is known to have caught up
    /// with: everything acknowledged before it lies there.
    #[must_use]
    pub fn fresh(&self) -> (Time, InstanceId) {
        self.fresh
    }

    /// Asks the leader how far behind this follower may be, unless it was asked a moment ago.
    pub fn ask_fresh(&mut self, now: Time, ready: &mut Ready) {
        if let Some(leader) = self.leader.filter(|leader| *leader != self.me)
            && self.halted.is_none()
            && now.since(self.asked) >= ASK_AGAIN
        {
            self.asked = now;
            self.send(leader, Message::Ask(Ask { life: self.life, sent: now }), ready);
        }
    }

    /// Only who has a lease knows that nobody acknowledges anything beside it. Without one the
    /// barrier brings it, and the follower asks again.
    pub(super) fn on_ask(&mut self, from: NodeId, m: &Ask, now: Time, peers: &Peers, ready: &mut Ready) {
        if self.opening().is_none_or(|opening| self.chosen < opening) {
            return;
        }
        if self.is_leased(peers, now) {
            let (ballot, mark) = (self.promised, self.mark());
            let answer = Advance { ballot, mark, barrier: 0, asked: m.sent, life: m.life };
            self.send(from, Message::Advance(answer), ready);
        } else {
            self.begin_barrier(now, ready);
        }
    }

    /// The leader has answered.
    pub(super) fn note_fresh(&mut self, m: &Advance, now: Time) {
        // Every life begins to count the time anew.
        if m.life == self.life && m.asked > self.fresh.0 && m.asked <= now {
            self.fresh = (m.asked, m.mark.instance);
        }
    }

    /// The followers that this leader takes for bound to it, and until when, on its own clock.
    #[must_use]
    pub fn bound_followers(&self, peers: &Peers) -> Vec<(NodeId, Time)> {
        let Role::Leader(leadership) = &self.role else { return Vec::new() };
        if leadership.has_renounced() {
            return Vec::new();
        }
        let granted = |(node, tenure): (NodeId, Tenure)| {
            let (from, newest) = peers.granted_by(node, self.group)?;
            let speaks = tenure >= newest || planted::is(Bug::LeaseOutlivesPromise);
            speaks.then(|| (node, from + self.tuning.own_lease))
        };
        leadership.confirmations(&self.members).filter_map(granted).collect()
    }
}

/// The tenure in which nobody has confirmed anything.
pub(super) const NO_TENURE: Tenure = Tenure(0);
