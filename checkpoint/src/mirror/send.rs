//! The sending side: pauses, and frames at the pace of the receivers' credit.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use groups::ids::{GroupId, NodeId};
use groups::time::Time;

use super::wire::{Attempt, Chunk, ChunkWriter, Fetch, Frame, Head, Nothing, Until, Why};
use super::{Direction, Event, Mirror, SLOW, Transfer};
use crate::store::{ChunkLimit, Position, PositionDigest, StoreError};

/// More frames than this are not sent ahead, whatever a receiver says.
pub(super) const MAX_CREDIT: u32 = 64;

/// Receivers served at once, all groups together.
const MAX_OUTGOING: usize = 256;

/// Frames sent in one turn, all receivers together.
const PER_TURN: usize = 16;

/// Entries in one chunk.
const MAX_ENTRIES: usize = 16_384;

/// A state that stands still for its receivers, verified.
#[derive(Debug)]
pub(super) struct Pause {
    position: Position,
    sessions: Bytes,
    digest: PositionDigest,
    keys: u64,
    bytes: u64,
    /// When the group has waited for it long enough.
    ends: Time,
}

/// More than so many times the time for a pause is not doubled.
const MAX_CUTS: u32 = 4;

/// One receiver of one group.
#[derive(Debug)]
pub(super) struct Outgoing {
    attempt: Attempt,
    phase: Phase,
    /// The next frame's number.
    next: u32,
    /// The first number beyond the receiver's credit.
    limit: u32,
    /// Frames that the receiver has not confirmed, each with its number and size.
    ahead: VecDeque<(u32, usize)>,
    ahead_bytes: usize,
    heard: Time,
    started: Time,
    bytes: u64,
    keys: u64,
}

#[derive(Debug)]
enum Phase {
    /// The session table is sent up to here.
    Head(usize),
    /// Entries are sent up to this key.
    Entries(Option<Bytes>),
    /// Everything was sent; the receiver installs it or asks again.
    Done,
}

impl Outgoing {
    pub(super) fn done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    fn may_send(&self) -> bool {
        !self.done() && self.next < self.limit
    }

    /// The receiver waits for `next`.
    fn confirmed(&mut self, next: u32) {
        while let Some((_, bytes)) = self.ahead.pop_front_if(|(sequence, _)| *sequence < next) {
            self.ahead_bytes -= bytes;
        }
    }
}

impl Mirror {
    pub(super) fn on_fetch(&mut self, from: NodeId, group: GroupId, fetch: Fetch) {
        let key = (group, from);
        if fetch.cluster != self.config.cluster {
            return self.refuse(key, fetch.attempt, Why::Foreign);
        }
        let limit = fetch.next.saturating_add(fetch.credit.min(MAX_CREDIT));
        if let Some(out) = self.outgoing.get_mut(&key) {
            if fetch.attempt < out.attempt {
                return;
            }
            if fetch.attempt == out.attempt && fetch.credit > 0 {
                out.heard = self.now;
                out.limit = out.limit.max(limit);
                out.confirmed(fetch.next);
                return;
            }
        }
        if fetch.credit == 0 {
            if self.outgoing.remove(&key).is_some_and(|out| out.done())
                && let Some(state) = self.groups.get_mut(&group)
            {
                state.cuts = 0;
            }
            return self.resume_if_idle(group);
        }
        if !self.outgoing.contains_key(&key) && self.outgoing.len() >= MAX_OUTGOING {
            return self.refuse(key, fetch.attempt, Why::Busy);
        }
        match self.pause(group, &fetch) {
            Ok(digest) => self.begin(key, fetch, digest, limit),
            Err(why) => {
                self.outgoing.remove(&key);
                self.refuse(key, fetch.attempt, why);
                self.resume_if_idle(group);
            }
        }
    }

    fn begin(&mut self, key: (GroupId, NodeId), fetch: Fetch, digest: PositionDigest, limit: u32) {
        let pause = self.groups.get(&key.0).and_then(|state| state.pause.as_ref());
        let sessions = pause.map_or(0, |pause| pause.sessions.len());
        let phase = match fetch.has.filter(|has| has.digest == digest).map(|has| has.until) {
            Some(Until::Key(last_key)) => Phase::Entries(last_key),
            Some(Until::Sessions(offset)) if (offset as usize) < sessions => Phase::Head(offset as usize),
            _ => Phase::Head(0),
        };
        let earlier = self.outgoing.get(&key);
        let (started, bytes, keys) =
            earlier.map_or((self.now, 0, 0), |out| (out.started, out.bytes, out.keys));
        let (attempt, next, heard) = (fetch.attempt, fetch.next, self.now);
        let (ahead, ahead_bytes) = (VecDeque::new(), 0);
        let out = Outgoing { attempt, phase, next, limit, ahead, ahead_bytes, heard, started, bytes, keys };
        self.outgoing.insert(key, out);
        if !self.pace.ready(self.now) {
            self.refuse(key, attempt, Why::Soon);
        }
    }

    fn refuse(&mut self, (group, to): (GroupId, NodeId), attempt: Attempt, why: Why) {
        let applied = self.applied(group);
        self.send(to, group, &Frame::Nothing(Nothing { attempt, why, applied }));
    }

    /// Stops the group's mirror where it stands and proves that it is what it should be, both
    /// only if that has not been done. Whoever doubts has it proven again.
    fn pause(&mut self, group: GroupId, fetch: &Fetch) -> Result<PositionDigest, Why> {
        if self.applied(group) <= fetch.above {
            self.events.push(Event::Wanted { group, through: fetch.above.next() });
            return Err(Why::Behind);
        }
        let state = self.groups.entry(group).or_default();
        if let Some(pause) = state.pause.as_ref().filter(|_| !fetch.doubt) {
            return Ok(pause.digest);
        }
        let (mut keys, mut bytes) = (0, 0);
        let proven = self.store.load_raw(group, |entry| {
            keys += 1;
            bytes += entry.bytes() as u64;
        });
        let image = match proven {
            Ok(image) => image,
            Err(error) => {
                self.failed(group, error);
                return Err(Why::Damaged);
            }
        };
        let digest = PositionDigest::of(&image.position, &image.sessions);
        let cuts = self.groups.get(&group).map_or(0, |state| state.cuts);
        let ends = self.now + self.patience(bytes) * (1 << cuts.min(MAX_CUTS));
        let pause = Pause { position: image.position, sessions: image.sessions, digest, keys, bytes, ends };
        self.groups.entry(group).or_default().pause = Some(pause);
        Ok(digest)
    }

    /// How long a group waits for the receivers of so many bytes.
    fn patience(&self, bytes: u64) -> Duration {
        let slow = match self.config.bytes_per_sec {
            0 => SLOW,
            limit => SLOW.min(limit / 2).max(1),
        };
        self.config.max_pause + Duration::from_secs(bytes / slow)
    }

    /// Ends pauses that have lasted long enough while the group has something to write: its log
    /// cannot be shortened meanwhile. Who was not done begins again, with what there is then.
    fn end_pauses(&mut self) {
        let over = self.groups.iter().filter(|(_, state)| {
            state.held.is_some() && state.pause.as_ref().is_some_and(|pause| pause.ends <= self.now)
        });
        let over: Vec<GroupId> = over.map(|(&group, _)| group).collect();
        for group in over {
            tracing::warn!(group = group.0, "its receivers are too slow: the mirror goes on without them");
            if let Some(state) = self.groups.get_mut(&group) {
                state.cuts = (state.cuts + 1).min(MAX_CUTS);
            }
            self.break_pause(group);
            self.resume_if_idle(group);
        }
    }

    /// Ends the pause that nobody needs any more, and writes the fold that waited for it.
    fn resume_if_idle(&mut self, group: GroupId) {
        if self.served_of(group).next().is_some() {
            return;
        }
        let Some(state) = self.groups.get_mut(&group) else { return };
        state.pause = None;
        if let Some(fold) = state.held.take() {
            self.apply(fold);
        }
    }

    /// The paused state is gone: whoever read it asks again.
    pub(super) fn break_pause(&mut self, group: GroupId) {
        let served: Vec<NodeId> = self.served_of(group).collect();
        for node in served {
            self.outgoing.remove(&(group, node));
        }
        if let Some(state) = self.groups.get_mut(&group) {
            state.pause = None;
        }
    }

    fn served_of(&self, group: GroupId) -> impl Iterator<Item = NodeId> {
        let all = (group, NodeId(0))..=(group, NodeId(u32::MAX));
        self.outgoing.range(all).map(|(&(_, node), _)| node)
    }

    pub(super) fn end_leases(&mut self) {
        let silent = |heard: Time| heard + self.config.lease <= self.now;
        let ended = self.outgoing.iter().filter(|(_, out)| silent(out.heard));
        let ended: Vec<(GroupId, NodeId)> = ended.map(|(&key, _)| key).collect();
        for key in ended {
            self.outgoing.remove(&key);
            self.resume_if_idle(key.0);
        }
        self.end_pauses();
    }

    /// Whose turn it is: the next one behind who was served last, so that nobody is served twice
    /// while another waits.
    pub(super) fn next_to_serve(&self) -> Option<(GroupId, NodeId)> {
        if !self.pace.ready(self.now) {
            return None;
        }
        let behind = self.served.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.outgoing.range((behind, Bound::Unbounded)).chain(&self.outgoing);
        let mut transfers: BTreeMap<NodeId, usize> = BTreeMap::new();
        for ((_, node), _) in self.outgoing.iter().filter(|(_, out)| !out.done()) {
            *transfers.entry(*node).or_default() += 1;
        }
        // An equal share of what may be on its way to the node, and no less than it takes for the
        // receiver to give news of itself.
        let share = |node| (self.config.window_bytes / transfers[node]).max(2 * self.config.chunk_bytes);
        all.into_iter()
            .find(|((_, node), out)| {
                out.may_send() && (out.ahead.is_empty() || out.ahead_bytes < share(node))
            })
            .map(|(&key, _)| key)
    }

    pub(super) fn send_chunks(&mut self) {
        for _ in 0..PER_TURN {
            if self.poisoned.is_some() {
                return;
            }
            let Some(key) = self.next_to_serve() else { return };
            self.served = Some(key);
            if let Err(error) = self.send_one(key) {
                let attempt = self.outgoing.get(&key).map(|out| out.attempt).unwrap_or_default();
                self.refuse(key, attempt, Why::Damaged);
                self.break_pause(key.0);
                // What moved is no worse for it: whoever read it asks again.
                if !matches!(error, StoreError::Moved { .. }) {
                    self.failed(key.0, error);
                }
                self.resume_if_idle(key.0);
            }
        }
    }

    fn send_one(&mut self, key: (GroupId, NodeId)) -> Result<(), StoreError> {
        let (group, to) = key;
        let (Some(out), Some(state)) = (self.outgoing.get_mut(&key), self.groups.get(&group)) else {
            return Ok(());
        };
        let Some(pause) = &state.pause else { return Err(StoreError::Moved { group }) };
        let (attempt, sequence, digest) = (out.attempt, out.next, pause.digest);
        let chunk_bytes = self.config.chunk_bytes;
        let (kind, body) = match &out.phase {
            Phase::Done => return Ok(()),
            &Phase::Head(offset) => {
                let end = pause.sessions.len().min(offset + chunk_bytes);
                let head = Head {
                    attempt,
                    cluster: self.config.cluster,
                    sequence,
                    digest,
                    position: pause.position.clone(),
                    sessions_bytes: pause.sessions.len() as u32,
                    offset: offset as u32,
                    piece: pause.sessions.slice(offset..end),
                };
                let whole = end == pause.sessions.len();
                out.phase = if whole { Phase::Entries(None) } else { Phase::Head(end) };
                Frame::Head(head).encode()
            }
            Phase::Entries(after) => {
                let reader = self.store.reader(group)?;
                if *reader.position() != pause.position {
                    return Err(StoreError::Moved { group });
                }
                let limit = ChunkLimit { entries: MAX_ENTRIES, bytes: chunk_bytes };
                let (total_keys, total_bytes, entries) = (pause.keys, pause.bytes, Vec::new());
                let (last, expected) = (false, chunk_bytes + chunk_bytes / 8);
                let chunk = Chunk { attempt, sequence, digest, total_keys, total_bytes, last, entries };
                let mut chunk = ChunkWriter::begin(&chunk, expected);
                let last = reader.visit(after.as_deref(), limit, &mut |entry| chunk.push(entry))?;
                let (keys, bytes) = chunk.count();
                out.bytes += bytes;
                out.keys += keys;
                out.phase = match chunk.last_key() {
                    Some(key) if !last => Phase::Entries(Some(Bytes::copy_from_slice(key))),
                    _ => Phase::Done,
                };
                chunk.finish(last)
            }
        };
        out.next = out.next.saturating_add(1);
        out.ahead.push_back((sequence, body.len()));
        out.ahead_bytes += body.len();
        let bytes = self.send_encoded(to, group, kind, body);
        self.pace.spend(bytes, self.now);
        Ok(())
    }

    pub(super) fn transfer_out(&self, group: GroupId, peer: NodeId, out: &Outgoing) -> Transfer {
        let pause = self.groups.get(&group).and_then(|state| state.pause.as_ref());
        let expected = pause.map_or(0, |pause| pause.bytes);
        let Outgoing { bytes, keys, started, .. } = *out;
        Transfer { group, peer, direction: Direction::Out, bytes, expected, keys, started }
    }
}
