//! The other side of the learner: sessions that push chosen values to members that are behind.
//!
//! A learner opens a session, and values go to it back to back as far as its credit reaches:
//! from memory while that has them, else from the log, which somebody else reads meanwhile, one
//! chunk of each session at a time, so that many sessions take turns. The learner acknowledges
//! what is durable there, which frees its credit. A session ends when everything chosen is sent;
//! whatever is chosen then reaches the learner as it reaches every follower.
//!
//! Nothing here is precious. Each word of the learner says where it stands, so a session that is
//! forgotten is made again by the next one, and a chunk that is lost or refused by a full queue
//! is noticed by the learner, which begins anew at its own place.

use std::collections::VecDeque;

use super::codec::ENTRY_HEAD;
use super::message::{Entry, Learn, Message, Then, Values};
use super::ready::{LogFound, LogRead, Ready};
use super::replica::Replica;
use crate::ids::{InstanceId, NodeId};
use crate::time::Time;

/// Bytes of values in one chunk: what a learner takes in without looking up, and what a sender
/// reads for one learner before it is another's turn.
const CHUNK: usize = 256 << 10;

/// A session with one learner.
#[derive(Clone, Debug)]
pub struct Teaching {
    session: u64,
    /// The first instance that is not acknowledged.
    acknowledged: InstanceId,
    /// The first that is not sent: `acknowledged <= next`.
    next: InstanceId,
    /// Chunks under way: behind which instance they end, and their bytes.
    sent: VecDeque<(InstanceId, usize)>,
    sent_bytes: usize,
    credit: usize,
    /// The log may be asked for values up to here at once: all their records are synced.
    settled: InstanceId,
    /// A chunk is being read from the log.
    reading: bool,
    /// When the learner was last heard.
    heard: Time,
    /// When it was last told something.
    spoke: Time,
    since: Time,
    bytes: u64,
}

/// A session as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The other node.
    pub peer: NodeId,
    /// Whether values come here.
    pub incoming: bool,
    /// The next instance.
    pub next: InstanceId,
    /// The last that is known to be chosen.
    pub target: InstanceId,
    /// Bytes of values so far.
    pub bytes: u64,
    /// When it began.
    pub since: Time,
}

impl Teaching {
    fn new(m: &Learn, now: Time) -> Teaching {
        Teaching {
            session: m.session,
            acknowledged: m.from,
            next: m.from,
            sent: VecDeque::new(),
            sent_bytes: 0,
            credit: m.credit as usize,
            settled: InstanceId::ZERO,
            reading: false,
            heard: now,
            spoke: now,
            since: now,
            bytes: 0,
        }
    }

    fn acknowledge(&mut self, from: InstanceId) {
        if from <= self.acknowledged {
            return;
        }
        self.acknowledged = from;
        while let Some((_, bytes)) = self.sent.pop_front_if(|(end, _)| *end <= from) {
            self.sent_bytes -= bytes;
        }
        // The learner may have found values elsewhere.
        self.next = self.next.max(from);
    }

    fn note(&mut self, entries: &[Entry], now: Time) {
        let bytes = cost(entries);
        self.next = self.next.plus(entries.len() as u64);
        self.sent.push_back((self.next, bytes));
        self.sent_bytes += bytes;
        self.bytes += bytes as u64;
        self.spoke = now;
    }

    /// Bytes that may be sent now.
    fn budget(&self) -> usize {
        if self.sent.is_empty() { self.credit.max(1) } else { self.credit.saturating_sub(self.sent_bytes) }
    }
}

/// What values take of the credit.
pub(super) fn cost(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| ENTRY_HEAD + entry.value.len()).sum()
}

impl Replica {
    /// A learner opens a session, acknowledges, or ends it. Late words of an earlier session are
    /// ignored, repeated ones change nothing.
    pub(super) fn on_learn(&mut self, from: NodeId, m: &Learn, now: Time, ready: &mut Ready) {
        if self.taught.get(&from).is_some_and(|over| m.session <= *over) {
            return;
        }
        match self.teaching.get_mut(&from) {
            Some(teaching) if m.session < teaching.session => return,
            Some(teaching) if m.session == teaching.session => {
                teaching.heard = now;
                teaching.credit = m.credit as usize;
                teaching.acknowledge(m.from);
            }
            _ if m.credit == 0 => {}
            _ => {
                self.teaching.insert(from, Teaching::new(m, now));
            }
        }
        if m.credit == 0 {
            self.taught.insert(from, m.session);
            self.teaching.remove(&from);
            return;
        }
        self.teach(from, now, ready);
    }

    /// Sends what the credit allows.
    fn teach(&mut self, to: NodeId, now: Time, ready: &mut Ready) {
        while let Some(teaching) = self.teaching.get_mut(&to) {
            if teaching.reading {
                return;
            }
            if teaching.next > self.chosen || teaching.next == InstanceId::ZERO {
                return self.end_session(to, Then::End, ready);
            }
            let chunk = self.tuning.chunk_bytes.min(CHUNK);
            let max_bytes = teaching.budget().min(chunk);
            // Crumbs are not worth a message while more is under way.
            if max_bytes < (teaching.credit / 4).min(chunk) && !teaching.sent.is_empty() {
                return;
            }
            match self.recent.from(teaching.next, max_bytes) {
                Some(entries) => self.send_values(to, entries, now, ready),
                None if teaching.next < self.vouched_from => {
                    return self.end_session(to, Then::Begins(self.vouched_from), ready);
                }
                None => {
                    teaching.reading = true;
                    self.counters.log_reads += 1;
                    // What was chosen when the last such read went out is on the disk since it
                    // came back.
                    let after_sync = teaching.next > teaching.settled;
                    ready.log_reads.push(LogRead {
                        group: self.group,
                        from: teaching.next,
                        to: if after_sync { self.chosen } else { teaching.settled },
                        reader: to,
                        session: teaching.session,
                        max_bytes,
                        after_sync,
                    });
                }
            }
        }
    }

    fn send_values(&mut self, to: NodeId, entries: Vec<Entry>, now: Time, ready: &mut Ready) {
        let Some(teaching) = self.teaching.get_mut(&to) else { return };
        let (session, first) = (teaching.session, teaching.next);
        teaching.note(&entries, now);
        let then = if teaching.next > self.chosen { Then::End } else { Then::More };
        if then == Then::End {
            self.teaching.remove(&to);
            self.taught.insert(to, session);
        }
        self.send(to, Message::Values(Values { session, first, then, entries }), ready);
    }

    fn end_session(&mut self, to: NodeId, then: Then, ready: &mut Ready) {
        if let Some(teaching) = self.teaching.remove(&to) {
            let (session, first) = (teaching.session, teaching.next);
            self.taught.insert(to, session);
            self.send(to, Message::Values(Values { session, first, then, entries: Vec::new() }), ready);
        }
    }

    /// The log's answer to a peer's [`LogRead`].
    pub fn on_log_read(&mut self, read: &LogRead, found: LogFound, now: Time, ready: &mut Ready) {
        let to = read.reader;
        let Some(teaching) = self.teaching.get_mut(&to) else { return };
        if self.halted.is_some() || teaching.session != read.session {
            return;
        }
        teaching.reading = false;
        if read.after_sync {
            teaching.settled = read.to;
        }
        match found {
            // The learner has meanwhile found it elsewhere.
            LogFound::Entries(_) if teaching.next != read.from => {}
            LogFound::Entries(entries) if entries.is_empty() => {
                return self.end_session(to, Then::End, ready);
            }
            LogFound::Entries(entries) => self.send_values(to, entries, now, ready),
            LogFound::Begins(first) => return self.end_session(to, Then::Begins(first), ready),
        }
        self.teach(to, now, ready);
    }

    /// Keeps sessions alive and forgets those whose learner is silent. Returns whether there are
    /// any.
    pub(super) fn tick_teaching(&mut self, now: Time, ready: &mut Ready) -> bool {
        let (forget, beat) = (self.tuning.forget, self.tuning.retry / 3);
        self.teaching.retain(|_, teaching| now.since(teaching.heard) < forget);
        for (&to, teaching) in &mut self.teaching {
            if now.since(teaching.spoke) >= beat {
                teaching.spoke = now;
                let (session, first) = (teaching.session, teaching.next);
                let values = Values { session, first, then: Then::More, entries: Vec::new() };
                ready.send_now.push(super::message::Envelope {
                    to,
                    group: self.group,
                    message: Message::Values(values),
                });
            }
        }
        !self.teaching.is_empty()
    }

    /// Learning sessions of this replica, for people.
    #[must_use]
    pub fn learning_sessions(&self) -> Vec<Session> {
        let incoming = self.learning.as_ref().and_then(|learning| learning.session(self.chosen));
        let outgoing = self.teaching.iter().map(|(&peer, t)| Session {
            peer,
            incoming: false,
            next: t.next,
            target: self.chosen,
            bytes: t.bytes,
            since: t.since,
        });
        incoming.into_iter().chain(outgoing).collect()
    }
}
