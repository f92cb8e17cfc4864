//! The learner: from votes and watermarks to the chosen prefix.
//!
//! "Chosen" travels as a watermark on every message of the leader. It vouches only for values
//! that this replica accepted at the leader's own ballot; anything else below the mark is
//! fetched. So a lost word never matters, and a follower never takes an old vote for the truth.

use std::collections::VecDeque;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::codec::ENTRY_HEAD;
use super::message::{Entry, Learn, Mark, Message, Values};
use super::quorum::Members;
use super::ready::{LogFound, LogRead, Ready};
use super::replica::{Chosen, Halt, Replica, Tuning};
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
    /// When it was last asked; `None`: not yet.
    pub(super) asked: Option<Time>,
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

    fn from(&self, from: InstanceId, chunk_bytes: usize) -> Option<Vec<Entry>> {
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
        if let Some(list) = members {
            self.change_members(Members::since(self.chosen, list));
        }
        if self.chosen.0 - self.marked.0 >= MARK_EVERY {
            self.write_mark(ready);
        }
    }

    pub(super) fn write_mark(&mut self, ready: &mut Ready) {
        self.marked = self.chosen;
        ready.records.push(Record::Watermark { group: self.group, instance: self.chosen });
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
            self.want(from, mark.instance);
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
    pub(super) fn want(&mut self, source: NodeId, target: InstanceId) {
        match &mut self.learning {
            Some(learning) if learning.target >= target => {}
            Some(learning) => learning.target = target,
            None => self.learning = Some(Learning { source, target, asked: None }),
        }
    }

    pub(super) fn ask(&mut self, now: Time, ready: &mut Ready) {
        let from = self.chosen.next();
        let Some(learning) = &mut self.learning else { return };
        if learning.asked.is_none() {
            learning.asked = Some(now);
            let to = learning.source;
            self.send(to, Message::Learn(Learn { from }), ready);
        }
    }

    /// Asks again, somebody else if need be. Returns whether a fetch is under way.
    pub(super) fn tick_learning(&mut self, now: Time, peers: &Peers, ready: &mut Ready) -> bool {
        let Some(learning) = &self.learning else { return false };
        if self.chosen >= learning.target {
            self.learning = None;
            return false;
        }
        if learning.asked.is_none_or(|asked| now.since(asked) >= self.tuning.retry) {
            // The silent source may be dead or may itself be behind: take turns.
            let alive: Vec<NodeId> = self.others().filter(|n| peers.alive(*n, self.group, now)).collect();
            let source = learning.source;
            let next = match alive.iter().position(|n| *n == source) {
                Some(i) => alive.get((i + 1) % alive.len()).copied(),
                None => alive.first().copied(),
            };
            let first_time = learning.asked.is_none();
            if let Some(learning) = &mut self.learning {
                learning.asked = None;
                if !first_time && let Some(next) = next {
                    learning.source = next;
                }
            }
            self.ask(now, ready);
        }
        true
    }

    /// Serves a peer that is behind: from memory, else from the log.
    pub(super) fn on_learn(&mut self, from: NodeId, m: &Learn, ready: &mut Ready) {
        if m.from > self.chosen || m.from == InstanceId::ZERO {
            let nothing = Values { entries: Vec::new(), first: InstanceId::ZERO };
            return self.send(from, Message::Values(nothing), ready);
        }
        match self.recent.from(m.from, self.tuning.chunk_bytes) {
            Some(entries) => {
                self.send(from, Message::Values(Values { entries, first: m.from }), ready);
            }
            None => {
                self.counters.log_reads += 1;
                ready.log_reads.push(LogRead {
                    group: self.group,
                    from: m.from,
                    to: self.chosen,
                    reader: from,
                });
            }
        }
    }

    /// Chosen values: taken in order, written as chosen so that a restart has them. The promise
    /// is not touched (PhxPaxos raises it here and loses by it).
    pub(super) fn on_values(&mut self, from: NodeId, m: Values, now: Time, ready: &mut Ready) {
        let before = self.chosen;
        if m.entries.is_empty() && m.first > before.next() {
            // That peer's log begins behind what is wanted: others are asked, and meanwhile a
            // checkpoint is looked for.
            self.checkpoint_wanted = Some(InstanceId(m.first.0 - 1));
        }
        for entry in m.entries {
            if entry.instance != self.chosen.next() {
                continue;
            }
            // A leader's own instances are chosen by its own count of votes.
            if self.leads_instance(entry.instance) {
                break;
            }
            let (instance, ballot) = (entry.instance, entry.ballot);
            let held = self.open.get(&instance).is_some_and(|h| h.ballot == ballot);
            if !held {
                let value = entry.value.clone();
                ready.records.push(Record::Chosen { group: self.group, instance, ballot, value });
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
        let Some(learning) = &mut self.learning else { return };
        if self.chosen >= learning.target {
            self.learning = None;
        } else if moved {
            // More is to come: ask at once, the one that has just answered.
            learning.source = from;
            learning.asked = None;
            self.ask(now, ready);
        }
    }

    /// Chosen values from `from` on that are still in memory, without a gap; `None` when the first
    /// of them is not.
    #[must_use]
    pub fn recent(&self, from: InstanceId) -> Option<Vec<Entry>> {
        self.recent.from(from, usize::MAX)
    }

    /// The log's answer to a peer's [`LogRead`].
    pub fn on_log_read(&mut self, reader: NodeId, found: LogFound, ready: &mut Ready) {
        if self.halted.is_none() && self.members.contains(reader) {
            let values = match found {
                LogFound::Entries(entries) => {
                    let first = entries.first().map_or(InstanceId::ZERO, |e| e.instance);
                    Values { entries, first }
                }
                LogFound::Begins(first) => Values { entries: Vec::new(), first },
            };
            self.send(reader, Message::Values(values), ready);
        }
    }

    /// Tells the log what is chosen once things are quiet. Returns whether it should be asked
    /// again.
    pub(super) fn tick_mark(&mut self, ready: &mut Ready) -> bool {
        let dirty = self.marked < self.chosen;
        if dirty && self.open.is_empty() {
            self.write_mark(ready);
            return false;
        }
        dirty
    }
}
