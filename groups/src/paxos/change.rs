//! Other members: what a leader does about who *is* a member and who *shall be* one.
//!
//! Who shall be is decided elsewhere, for all groups together, and comes in by
//! [`Replica::set_preference`]. The leader works towards it in steps, one chosen value each
//! ("The Part-Time Parliament", section 3.3.4; FAULTS, rules 17, 18 and 31):
//!
//! - Whoever is new is spoken to like a member, and learns. It answers like one too, and nobody
//!   counts it, until a chosen value has made its disk a member.
//! - A new one takes the place of one that has to go in the same step, so that a group never has more
//!   members to ask than it needs. Where nobody has to go it is added; where nobody is to come, one
//!   is taken out.
//! - No step is taken that would leave the group to members of which no majority is here and has
//!   everything.
//! - Nothing is proposed behind the change before it is chosen; then the leader asks the new members
//!   in a phase 1 of its own. A leader that has to go itself hands over first.
//!
//! Whoever was taken out holds on to what it has until a leader of the new members says that a
//! majority of *them* has it all ([`Part`]): the change was chosen by the old members, and until
//! then some of the prefix may lie on the disks of those alone that leave.

use super::leader::Leadership;
use super::message::{Message, Part};
use super::ready::Ready;
use super::replica::{Replica, Role, circle};
use crate::ids::{Member, NodeId};
use crate::kv::value::{members, noop};
use crate::log::Record;
use crate::peers::Peers;
use crate::planted::{self, Bug};
use crate::time::Time;

impl Replica {
    /// Who shall be the members, from the best placed leader to the worst.
    pub fn set_preference(&mut self, preference: Vec<NodeId>) {
        if preference == self.preference {
            return;
        }
        self.preference = preference;
        self.circle = circle(&self.members, &self.preference, self.me);
        if let Role::Leader(leadership) = &mut self.role {
            leadership.set_circle(&self.circle);
            // It was made for another aim.
            leadership.admitting = None;
        }
    }

    /// Whether this node shall be a member.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.preference.contains(&self.me)
    }

    /// Whether the members are those that shall be.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.members.count() == self.preference.len()
            && self.preference.iter().all(|n| self.members.contains(*n))
    }

    /// Whether it was a member, has been told that nobody needs it, and has forgotten the group.
    #[must_use]
    pub fn has_parted(&self) -> bool {
        self.parted
    }

    /// Finds the next step towards the members that shall be. Commands wait once there is one, so that
    /// a group that is never idle finds room for it.
    pub(super) fn tick_change(&mut self, now: Time, peers: &Peers) {
        let Role::Leader(leadership) = &self.role else { return };
        if !leadership.may_change(self.chosen) {
            return;
        }
        let next = self.next_members(leadership, now, peers);
        if let Role::Leader(leadership) = &mut self.role {
            leadership.admitting = next;
        }
    }

    fn next_members(&self, leadership: &Leadership, now: Time, peers: &Peers) -> Option<Vec<Member>> {
        let group = self.group;
        let learned = |node: NodeId| {
            let (storage, chosen) = leadership.spoken(node)?;
            let near = chosen.0 + self.tuning.window as u64 >= self.chosen.0;
            // A node that comes and goes would take a majority with it.
            let stays =
                peers.reachable(node, group, now) && peers.up_for(node, now) >= self.tuning.election_timeout;
            (near && stays).then_some(Member { node, storage })
        };
        let others = || self.members.list().iter().filter(|m| m.node != self.me);
        // The new disk of a member's node: the old one cannot come back to what it knew.
        let renewed = others().find_map(|m| learned(m.node).filter(|new| new.storage != m.storage));
        let list = if let Some(member) = renewed {
            self.members.with(member)
        } else {
            let outside = || self.preference.iter().filter(|n| !self.members.contains(**n));
            let newcomer = outside().find_map(|n| learned(*n));
            // Whoever is not here anyway goes first.
            let mut leaving: Vec<NodeId> =
                others().map(|m| m.node).filter(|n| !self.preference.contains(n)).collect();
            leaving.sort_by_key(|n| peers.reachable(*n, group, now));
            let out = leaving.first().copied();
            if newcomer.is_none() && (out.is_none() || outside().next().is_some()) {
                return None;
            }
            self.members.exchange(out, newcomer)
        };
        let here = |m: &&Member| m.node == self.me || learned(m.node).is_some_and(|now| now == **m);
        let able = list.iter().filter(here).count() > list.len() / 2;
        able.then_some(list)
    }

    /// Proposes the change that is due, as soon as the window has room.
    pub(super) fn admit(&mut self, now: Time, ready: &mut Ready) {
        let window = self.tuning.window;
        let Role::Leader(leadership) = &mut self.role else { return };
        let Some(list) = leadership.take_change(window) else { return };
        tracing::info!(
            group = self.group.0,
            from = ?self.members.list(),
            to = ?list,
            "other members are proposed: whoever is new has learned everything"
        );
        self.counters.admissions += 1;
        self.propose(members(self.members.changed_at(), &list), now, ready);
        self.seal();
    }

    /// A node that asks for a leader and is no member is told so, once nobody needs it: a majority of the
    /// members has it on disk, and not only in memory, that everything up to the change is chosen. What
    /// they say with a vote waits for the disk; where there is nothing to vote for, a no-op is proposed.
    pub(super) fn answer_outsider(&mut self, node: NodeId, now: Time, ready: &mut Ready) {
        let Role::Leader(leadership) = &self.role else { return };
        let outsider = !self.members.contains(node) && !self.preference.contains(&node);
        if !outsider || !leadership.may_change(self.chosen) {
            return;
        }
        let change = self.members.changed_at();
        let durable = |m: &&Member| leadership.durable(m) >= change;
        let enough = self.members.list().iter().filter(durable).count() >= self.members.majority();
        if enough || planted::is(Bug::PartsTooEarly) {
            let (ballot, mark, members) = (leadership.ballot, self.mark(), self.members.clone());
            return self.send(node, Message::Part(Part { ballot, mark, members }), ready);
        }
        let told =
            |m: &&Member| m.node == self.me || leadership.spoken(m.node).is_some_and(|s| s.1 >= change);
        let knows = self.members.list().iter().filter(told).count() >= self.members.majority();
        if knows && self.last_proposed().is_none() && self.can_propose() {
            self.propose(noop(), now, ready);
        }
    }

    /// Forgets the group, on the word of a leader that does not need this replica. What it has promised
    /// stays, and so does who the members are: should it come back, it begins as a disk that is none.
    pub(super) fn on_part(&mut self, from: NodeId, m: &Part, ready: &mut Ready) {
        let Part { ballot, mark, members } = m;
        if self.parted || self.is_wanted() || ballot.node != from || !self.plausible(*ballot) {
            return;
        }
        if *ballot < self.promised {
            // Its members may have changed since, and this disk be one of them: it is asked again at a
            // ballot above everything that was promised here.
            return self.reject(from, *ballot, ready);
        }
        if members.contains(self.me) || mark.instance < self.chosen || mark.instance < members.changed_at() {
            return;
        }
        tracing::info!(
            group = self.group.0,
            instance = mark.instance.0,
            "the group has other members and does not need this node any more: what is here of it is given up"
        );
        if *ballot > self.promised {
            self.move_promise(*ballot, ready);
            ready.records.push(Record::Promise { group: self.group, ballot: *ballot });
        }
        self.stand_down();
        self.halted = None;
        self.resign_at = None;
        // What it has accepted beyond the mark stays with the promise.
        self.jump(*mark);
        self.members = members.clone();
        self.members_changed = false;
        self.circle = circle(&self.members, &self.preference, self.me);
        self.stateless = true;
        self.parted = true;
        self.counters.parted += 1;
        // The anchor alone: what the log has accepted below it need not be what was chosen there.
        self.write_anchor(*mark, ready);
    }

    /// Writes again what stays of a group that has other members: the log in which it stands may go.
    pub fn carry_forward(&mut self, ready: &mut Ready) {
        assert!(self.parted, "a member's log says more");
        self.write_anchor(self.mark(), ready);
        for (&instance, accepted) in &self.open {
            let (group, ballot, value) = (self.group, accepted.ballot, accepted.value.clone());
            ready.records.push(Record::Accept { group, instance, ballot, value });
        }
    }

    /// Whether it is neither a member, as far as it knows, nor to be one: then it fetches nothing, and asks
    /// until it is told what has become of it.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        !self.is_wanted() && !self.is_voter()
    }

    /// It shall be a member again: it learns like any new disk.
    pub fn come_back(&mut self, now: Time) {
        assert!(self.parted && self.stateless, "what it held is forgotten");
        self.parted = false;
        self.leader_spoke = now;
        self.election_due = now + self.tuning.election_timeout;
    }
}
