//! The learner: from votes and watermarks to the chosen prefix.
//!
//! "Chosen" travels as a watermark on every message of the leader. It vouches only for values
//! that this replica accepted at the leader's own ballot; anything else below the mark is
//! fetched. So a lost word never matters, and a follower never takes an old vote for the truth.
//!
//! What is fetched comes in a session with one peer (`teacher.rs` has the other side). A word
//! asks for it and an answer brings it where little is missing; where much is, chunks come back
//! to back as far as the credit reaches, are taken in order, and are acknowledged once they are on
//! the disk. A chunk that is missing has the session opened anew here; a peer that falls silent,
//! or brings nothing, has it opened with another.

use std::collections::VecDeque;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::codec::ENTRY_HEAD;
use super::message::{Entry, Learn, Mark, Message, Then, Values};
use super::quorum::Members;
use super::ready::Ready;
use super::replica::{Chosen, Halt, Replica, Tuning};
use super::teacher::{Session, cost};
use crate::ids::{Ballot, InstanceId, NodeId};
use crate::kv::value::as_members;
use crate::log::Record;
use crate::peers::Peers;
use crate::planted::{self, Bug};
use crate::time::Time;

/// A fetch of chosen values under way.
#[derive(Clone, Debug)]
pub struct Learning {
    /// Who is asked.
    source: NodeId,
    /// What is known to be chosen.
    target: InstanceId,
    /// The number of the session with it.
    session: u64,
    /// When it was opened or last heard of; `None`: not opened yet.
    pub(super) heard: Option<Time>,
    /// When it was last acknowledged.
    spoke: Time,
    /// When it was opened with this source, or last brought values.
    moved: Time,
    /// The place at which a missing chunk had it opened anew.
    reopened: Option<InstanceId>,
    /// What has come is to be acknowledged.
    ack_due: bool,
    /// Bytes of values that sessions have brought.
    bytes: u64,
    since: Time,
}

/// A session that brings nothing for so many retries is given up, however alive its sender is.
const STUCK: u32 = 8;

impl Learning {
    /// How the fetch looks to people.
    pub(super) fn session(&self, chosen: InstanceId) -> Option<Session> {
        self.heard.map(|_| Session {
            peer: self.source,
            incoming: true,
            next: chosen.next(),
            target: self.target,
            bytes: self.bytes,
            since: self.since,
        })
    }
}

/// The newest chosen values, for followers that missed a few.
#[derive(Debug)]
pub struct Recent {
    values: VecDeque<(Ballot, Bytes)>,
    /// The instance of the first one.
    first: InstanceId,
    bytes: usize,
    max: usize,
    max_bytes: usize,
}

impl Recent {
    pub(super) fn new(chosen: InstanceId, tuning: &Tuning) -> Recent {
        Recent {
            values: VecDeque::new(),
            first: chosen.next(),
            bytes: 0,
            max: tuning.recent,
            max_bytes: tuning.recent_bytes,
        }
    }

    fn push(&mut self, ballot: Ballot, value: Bytes) {
        self.bytes += value.len();
        self.values.push_back((ballot, value));
        while self.values.len() > self.max || self.bytes > self.max_bytes {
            let Some((_, old)) = self.values.pop_front() else { break };
            self.bytes -= old.len();
            self.first = self.first.next();
        }
    }

    pub(super) fn from(&self, from: InstanceId, chunk_bytes: usize) -> Option<Vec<Entry>> {
        let skip = from.0.checked_sub(self.first.0)?;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (index, (ballot, value)) in (skip..).zip(self.values.iter().skip(skip as usize)) {
            bytes += ENTRY_HEAD + value.len();
            if !entries.is_empty() && bytes > chunk_bytes {
                break;
            }
            entries.push(Entry { instance: self.first.plus(index), ballot: *ballot, value: value.clone() });
        }
        Some(entries)
    }
}

/// The checksum of a chosen prefix after one more value.
#[must_use]
pub fn chain(before: u64, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, before)
}

/// After this many newly chosen instances the log is told, so that a restart knows most of the
/// chosen prefix without asking.
const MARK_EVERY: u64 = 256;

impl Replica {
    /// Takes the next value of the chosen prefix.
    pub(super) fn choose(&mut self, ballot: Ballot, value: Bytes, ready: &mut Ready) {
        self.chosen = self.chosen.next();
        if let Some(held) = self.open.remove(&self.chosen) {
            self.open_bytes -= held.value.len();
            assert!(
                held.ballot != ballot || held.value == value,
                "group {}: two values for instance {} at ballot {ballot}",
                self.group,
                self.chosen
            );
        }
        self.chain = chain(self.chain, &value);
        let members = as_members(&value);
        self.recent.push(ballot, value.clone());
        self.delivery.push_back(Chosen { instance: self.chosen, ballot, value });
        let mut marks = self.chosen.0 - self.marked.0 >= MARK_EVERY;
        if let Some(new) = members.filter(|new| new.follows(self.members.changed_at())) {
            self.change_members(Members::since(self.chosen, new.list));
            // A restart knows who decides what lies behind it, without asking those that did before.
            marks = true;
        }
        if marks {
            self.write_mark(ready);
        }
    }

    pub(super) fn write_mark(&mut self, ready: &mut Ready) {
        self.marked = self.chosen;
        self.doubtful = false;
        let (group, first, instance) = (self.group, self.vouched_from, self.chosen);
        ready.records.push(Record::Watermark { group, first, instance });
    }

    /// Calls a value chosen, and so all before it: that the log is not to be trusted for some of those comes
    /// first.
    pub(super) fn write_chosen(
        &mut self,
        instance: InstanceId,
        ballot: Ballot,
        value: Bytes,
        ready: &mut Ready,
    ) {
        if self.doubtful {
            self.write_mark(ready);
        }
        ready.records.push(Record::Chosen { group: self.group, instance, ballot, value });
    }

    /// A leader's watermark: moves the prefix over values accepted at its ballot, notes what has
    /// to be fetched, compares checksums.
    pub(super) fn follow_mark(
        &mut self,
        from: NodeId,
        ballot: Ballot,
        mark: Mark,
        now: Time,
        ready: &mut Ready,
    ) {
        while self.chosen < mark.instance {
            match self.open.get(&self.chosen.next()) {
                Some(held) if held.ballot == ballot || planted::is(Bug::WatermarkOfAnyBallot) => {
                    let value = held.value.clone();
                    self.choose(ballot, value, ready);
                }
                _ => break,
            }
        }
        if self.chosen < mark.instance {
            self.want(from, mark.instance, now);
            self.ask(now, ready);
        } else if self.chosen == mark.instance && self.chain != mark.chain {
            self.halt(Halt::Diverged {
                peer: from,
                instance: mark.instance,
                ours: self.chain,
                theirs: mark.chain,
            });
        }
    }

    /// Notes that everything up to `target` is chosen and that `source` has it.
    pub(super) fn want(&mut self, source: NodeId, target: InstanceId, now: Time) {
        match &mut self.learning {
            Some(learning) if learning.target >= target => {}
            Some(learning) => learning.target = target,

            None => {
                self.learning = Some(Learning {
                    source,
                    target,
                    session: 0,
                    heard: None,
                    spoke: now,
                    moved: now,
                    reopened: None,
                    ack_due: false,
                    bytes: 0,
                    since: now,
                });
            }
        }
    }

    pub(super) fn ask(&mut self, now: Time, ready: &mut Ready) {
        if self.learning.as_ref().is_some_and(|learning| learning.heard.is_none()) {
            self.open_session(now, ready);
        }
    }

    /// Opens a session with the source, at the place where this replica stands.
    fn open_session(&mut self, now: Time, ready: &mut Ready) {
        let Some(learning) = &mut self.learning else { return };
        self.session += 1;
        self.counters.sessions += 1;
        learning.session = self.session;
        (learning.heard, learning.spoke) = (Some(now), now);
        learning.ack_due = false;
        let to = learning.source;
        let learn = Learn { session: self.session, from: self.chosen.next(), credit: self.credit.max(1) };
        self.send(to, Message::Learn(learn), ready);
    }

    /// Tells a sender that its session is over.
    fn close_session(&self, to: NodeId, session: u64, ready: &mut Ready) {
        let learn = Learn { session, from: self.chosen.next(), credit: 0 };
        self.send(to, Message::Learn(learn), ready);
    }

    /// Asks again, somebody else if need be. Returns whether a fetch is under way.
    pub(super) fn tick_learning(&mut self, now: Time, peers: &Peers, ready: &mut Ready) -> bool {
        let Some(learning) = &mut self.learning else { return false };
        if self.chosen >= learning.target {
            self.end_learning(true, ready);
            return false;
        }
        let Some(heard) = learning.heard else {
            self.open_session(now, ready);
            return true;
        };
        let stuck = now.since(learning.moved) >= self.tuning.retry * STUCK;
        if now.since(heard) < self.tuning.retry && !stuck {
            if now.since(learning.spoke) >= self.tuning.retry / 2 {
                (learning.ack_due, learning.spoke) = (true, now);
            }
            return true;
        }
        // The silent source may be dead or may itself be behind: take turns.
        let (source, session) = (learning.source, learning.session);
        let alive: Vec<NodeId> = self.others().filter(|n| peers.alive(*n, self.group, now)).collect();
        let next = match alive.iter().position(|n| *n == source) {
            Some(i) => alive.get((i + 1) % alive.len()).copied(),
            None => alive.first().copied(),
        };
        if let (Some(next), Some(learning)) = (next, &mut self.learning) {
            if next != source && learning.bytes > 0 {
                self.counters.resumed += 1;
            }
            learning.source = next;
            learning.moved = now;
        }
        self.close_session(source, session, ready);
        self.open_session(now, ready);
        true
    }

    /// Nothing more is wanted. `open`: the sender does not know it.
    fn end_learning(&mut self, open: bool, ready: &mut Ready) {
        self.credit = self.tuning.first_credit();
        if let Some(learning) = self.learning.take()
            && open
            && learning.heard.is_some()
        {
            self.close_session(learning.source, learning.session, ready);
        }
    }

    /// Says how far values have come, once that is on the disk.
    pub(super) fn acknowledge_values(&mut self, ready: &mut Ready) {
        let (from, credit) = (self.chosen.next(), self.credit.max(1));
        let Some(learning) = self.learning.as_mut().filter(|learning| learning.ack_due) else { return };
        learning.ack_due = false;
        let (to, session) = (learning.source, learning.session);
        self.send_after_sync(to, Message::Learn(Learn { session, from, credit }), ready);
    }

    /// Bytes of values that may be under way to this replica from now on.
    pub fn set_credit(&mut self, bytes: usize) {
        self.credit = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// Whether values are being fetched.
    #[must_use]
    pub fn is_learning(&self) -> bool {
        self.learning.is_some()
    }

    /// Chosen values: taken in order, written as chosen so that a restart has them. The promise
    /// is not touched (PhxPaxos raises it here and loses by it). What is chosen is chosen,
    /// whichever session brings it; but only the session that is open moves the account with its
    /// sender, and late words of another change nothing there.
    pub(super) fn on_values(&mut self, from: NodeId, m: Values, now: Time, ready: &mut Ready) {
        let before = self.chosen;
        let (bytes, empty) = (cost(&m.entries), m.entries.is_empty());
        for entry in m.entries {
            if entry.instance != self.chosen.next() && !planted::is(Bug::ValuesOutOfOrder) {
                continue;
            }
            // A leader's own instances are chosen by its own count of votes.
            if self.leads_instance(entry.instance) {
                break;
            }
            let (instance, ballot) = (entry.instance, entry.ballot);
            let held = self.open.get(&instance).is_some_and(|h| h.ballot == ballot);
            if !held {
                self.write_chosen(instance, ballot, entry.value.clone(), ready);
            }
            self.counters.learned += 1;
            if planted::is(Bug::LearningMovesPromise) {
                self.promised = ballot;
                ready.records.push(Record::Promise { group: self.group, ballot });
            }
            self.choose(ballot, entry.value, ready);
        }
        let moved = self.chosen > before;
        if moved {
            self.advance_leadership(ready);
        }
        let current = self.learning.as_ref().is_some_and(|learning| {
            learning.source == from && learning.session == m.session && learning.heard.is_some()
        });
        if !current && m.then == Then::More {
            self.close_session(from, m.session, ready);
        }
        let next = self.chosen.next();
        let Some(learning) = &mut self.learning else { return };
        if self.chosen >= learning.target {
            return self.end_learning(!(current && m.then != Then::More), ready);
        }
        if !current {
            return;
        }
        if moved {
            learning.moved = now;
            learning.bytes += bytes as u64;
        }
        match m.then {
            // That peer's log begins behind what is wanted: others are asked, and meanwhile a
            // checkpoint is looked for.
            Then::Begins(first) if first > next => {
                self.checkpoint_wanted = Some(InstanceId(first.0 - 1));
            }
            // A chunk is missing. Anew from here, but once: then it is not the network.
            _ if m.first > next => {
                if learning.reopened != Some(next) {
                    learning.reopened = Some(next);
                    self.counters.reopened += 1;
                    self.open_session(now, ready);
                }
            }
            Then::More => {
                learning.heard = Some(now);
                if !empty {
                    (learning.ack_due, learning.spoke) = (true, now);
                }
            }
            // That was all of it, and more has been chosen since.
            Then::End if moved => self.open_session(now, ready),
            // It has nothing to give: after a while somebody else is asked.
            Then::End | Then::Begins(_) => {}
        }
    }

    /// Chosen values from `from` on that are still in memory, without a gap; `None` when the first
    /// of them is not.
    #[must_use]
    pub fn recent(&self, from: InstanceId) -> Option<Vec<Entry>> {
        self.recent.from(from, usize::MAX)
    }

    /// Tells the log what is chosen once things are quiet: with a record for each instance, a group that gets
    /// a value now and then would write twice as much.
    pub(super) fn tick_mark(&mut self, now: Time, ready: &mut Ready) {
        if self.marked == self.chosen {
            return;
        }
        if self.resting.0 != self.chosen {
            self.resting = (self.chosen, now);
        }
        let due = self.resting.1 + self.tuning.rest;
        if now >= due {
            self.write_mark(ready);
        } else {
            self.wake(due);
        }
    }
}
