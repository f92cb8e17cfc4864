//! The acceptor: promises and votes (Lamport, "Paxos Made Simple", section 2.2).
//!
//! Both answers go out in `send_after_sync`, together with the record that makes them true. The
//! promise covers every instance, so accepts are checked against it too.
//!
//! A disk that is no member answers like one that is: it remembers what it has promised and
//! accepted from its first day on, and nobody counts it before its admission is chosen.

use super::codec::ENTRY_HEAD;
use super::message::{self, Accept, Entry, Message, Prepare, Promise, Reject};
use super::ready::Ready;
use super::replica::{Accepted, Replica, Role};
use crate::ids::{Ballot, InstanceId, NodeId};
use crate::log::Record;
use crate::peers::Peers;
use crate::planted::{self, Bug};
use crate::random::Random;
use crate::time::Time;

/// The most that one honest candidate raises the round by. A larger step is damage or malice
/// and would wear out the ballots; it is refused.
const MAX_ROUND_STEP: u64 = 1 << 32;

impl Replica {
    /// Whether `ballot` could have come about by elections. Whether its node is a member is for those to
    /// say who know the members of the instance: this replica may have missed a change.
    pub(super) fn plausible(&self, ballot: Ballot) -> bool {
        ballot.round <= self.promised.round.saturating_add(MAX_ROUND_STEP) && ballot.node != NodeId(0)
    }

    /// Phase 1b. A repeated prepare is answered again.
    pub(super) fn on_prepare(
        &mut self,
        from: NodeId,
        m: &Prepare,
        now: Time,
        peers: &Peers,
        random: &mut Random,
        ready: &mut Ready,
    ) {
        if m.ballot.node != from || !self.plausible(m.ballot) {
            return;
        }
        if m.ballot < self.promised {
            return self.reject(from, m.ballot, ready);
        }
        if m.ballot > self.promised {
            if self.is_bound(from, m.consent, now, peers) {
                self.counters.bound += 1;
                return self.ask_holder(ready);
            }
            // A live leader is not deposed by a node that does not hear it.
            let asked = m.consent > Ballot::ZERO && m.consent >= self.promised;
            if !asked && self.has_live_leader(now, peers) && self.leader != Some(from) {
                self.counters.sticky += 1;
                return;
            }
            self.raise_promise(m.ballot, now, random, ready);
            ready.records.push(Record::Promise { group: self.group, ballot: m.ballot });
        }
        self.report(from, m.ballot, ready);
    }

    /// Sends the whole report that belongs to a promise of `ballot`, in parts that fit a frame.
    /// It waits for the record of the promise even when that was written in an earlier turn.
    pub(super) fn report(&mut self, to: NodeId, ballot: Ballot, ready: &mut Ready) {
        let mut parts: Vec<Vec<Entry>> = vec![Vec::new()];
        let mut bytes = 0;
        for (&instance, accepted) in &self.open {
            let size = ENTRY_HEAD + accepted.value.len();
            if bytes > 0 && bytes + size > self.tuning.chunk_bytes {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            if let Some(part) = parts.last_mut() {
                part.push(Entry { instance, ballot: accepted.ballot, value: accepted.value.clone() });
            }
        }
        let count = parts.len() as u32;
        for (part, entries) in (0..count).zip(parts) {
            let promise = Promise {
                ballot,
                voter: self.storage,
                changed: self.members.changed_at(),
                chosen: self.chosen,
                part,
                parts: count,
                entries,
            };
            self.send_after_sync(to, Message::Promise(promise), ready);
        }
    }

    /// Phase 2b. A repeated accept is answered again and written once.
    pub(super) fn on_accept(
        &mut self,
        from: NodeId,
        m: Accept,
        now: Time,
        peers: &Peers,
        random: &mut Random,
        ready: &mut Ready,
    ) {
        if m.ballot.node != from || !self.plausible(m.ballot) {
            return;
        }
        if m.ballot < self.promised {
            if planted::is(Bug::AcceptIgnoresPromise) && m.instance > self.chosen {
                let (group, instance, ballot, value) = (self.group, m.instance, m.ballot, m.value);
                self.open.insert(instance, Accepted { ballot, value: value.clone() });
                ready.records.push(Record::Accept { group, instance, ballot, value });
                let (voter, chosen) = (self.storage, self.chosen);
                let ack = message::Accepted { ballot, voter, first: instance, last: instance, chosen };
                return self.send_after_sync(from, Message::Accepted(ack), ready);
            }
            return self.reject(from, m.ballot, ready);
        }
        if self.is_held(from, m.ballot, now, peers) {
            return self.ask_holder(ready);
        }
        self.follow(m.ballot, now, random, ready);
        self.accept(m.ballot, m.instance, m.value, ready);
        self.follow_mark(from, m.ballot, m.mark, now, ready);
    }

    /// Accepts a value at the promised ballot and votes for it once it is on the disk.
    pub(super) fn accept(
        &mut self,
        ballot: Ballot,
        instance: InstanceId,
        value: bytes::Bytes,
        ready: &mut Ready,
    ) {
        assert_eq!(ballot, self.promised, "accepts follow the promise");
        if instance > self.chosen {
            match self.open.get(&instance) {
                Some(held) if held.ballot == ballot => {
                    assert!(held.value == value, "one ballot proposes one value per instance");
                }
                held => {
                    let freed = held.map_or(0, |h| h.value.len());
                    let limit = self.chosen.plus(self.tuning.ahead as u64);
                    let bytes = self.open_bytes - freed + value.len();
                    // A leader's own proposals are bounded by its window, and nobody would send
                    // them to it again.
                    if held.is_none()
                        && ballot.node != self.me
                        && (instance > limit || (bytes > self.tuning.ahead_bytes && !self.open.is_empty()))
                    {
                        self.counters.too_far += 1;
                        return;
                    }
                    self.open_bytes = bytes;
                    self.open.insert(instance, Accepted { ballot, value: value.clone() });
                    ready.records.push(Record::Accept { group: self.group, instance, ballot, value });
                }
            }
        }
        // At or below the chosen prefix the vote is for the chosen value: no other can be
        // proposed at a ballot that reached this far (P2b of "Paxos Made Simple").
        self.acknowledge(ballot, instance, ready);
    }

    /// Joins votes of one turn into runs.
    fn acknowledge(&mut self, ballot: Ballot, instance: InstanceId, ready: &mut Ready) {
        if let Some(run) = &mut self.acks
            && run.ballot == ballot
            && run.last.next() == instance
        {
            run.last = instance;
            return;
        }
        self.flush(ready);
        let (voter, chosen) = (self.storage, self.chosen);
        self.acks = Some(message::Accepted { ballot, voter, first: instance, last: instance, chosen });
    }

    /// Raises the promise in memory; the caller sees to the record. A leader or candidate of a
    /// lower ballot is one no more.
    pub(super) fn raise_promise(
        &mut self,
        ballot: Ballot,
        now: Time,
        random: &mut Random,
        ready: &mut Ready,
    ) {
        self.move_promise(ballot, ready);
        if planted::is(Bug::AcceptedForgotten) {
            self.open.clear();
            self.open_bytes = 0;
        }
        if self.is_leader() {
            self.counters.deposed += 1;
        }
        self.role = Role::Follower;
        self.leader = None;
        self.acks = None;
        self.election_due =
            now + self.tuning.election_timeout + random.duration_below(self.tuning.election_timeout);
    }

    /// Follows the leader that speaks at `ballot >= promised`.
    pub(super) fn follow(&mut self, ballot: Ballot, now: Time, random: &mut Random, ready: &mut Ready) {
        if ballot > self.promised {
            self.raise_promise(ballot, now, random, ready);
            // An accept's own record would imply it, but not every word of a leader is an
            // accept that this replica writes.
            ready.records.push(Record::Promise { group: self.group, ballot });
        }
        self.leader_spoke = now;
        if ballot.node != self.me && self.leader != Some(ballot.node) {
            self.leader = Some(ballot.node);
            self.leader_since = now;
            self.role = Role::Follower;
        }
    }

    pub(super) fn reject(&self, to: NodeId, refused: Ballot, ready: &mut Ready) {
        if to != self.me {
            self.send(to, Message::Reject(Reject { refused, promised: self.promised }), ready);
        }
    }
}
