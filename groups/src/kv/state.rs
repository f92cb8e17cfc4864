//! The key-value state machine of one group: an ordered map in memory.
//!
//! Applying is deterministic: no clock, no randomness, no map order, nothing of the node's own
//! configuration. The same values in the same order give the same state, the same outcomes and
//! the same hash on every replica.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::beside::{self, Beside};
use super::changes::Changes;
use super::check::{Point, Sum, Verdict};
use super::command::{Command, Condition, Want};
use super::fence::Fences;
use super::hash::StateHash;
use super::history::History;
use super::image::{Fold, Head, Image};
use super::key::Key;
use super::life::{Life, Renewal};
use super::once::Clients;
use super::outcome::{Failure, Outcome};
use super::rescan::{Rescan, Scanned};
use super::roll::Roll;
use super::session::{Admission, Sessions, Ticket};
use super::value::Value;
use super::walk::Places;
use crate::ids::{Boot, InstanceId, NodeId};
use crate::paxos::Members;
use crate::planted::{self, Bug};

/// What looking at one item costs beside its bytes, in bytes of hashing.
const SCAN_COST: u64 = 64;

/// A value longer than this stays a slice of the buffer it came in; a shorter one is copied, so
/// that a small value does not keep a large buffer alive.
const COPY_BELOW: usize = 16 << 10;

/// One key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The bytes.
    pub value: Bytes,
    /// The revision of the write that set it.
    pub revision: u64,
    /// Where on the group's clock its life ends, in milliseconds; 0 for nowhere. It is there until
    /// an entry removes it, so this may lie in the past.
    pub expires: u64,
}

/// The state of one group.
#[derive(Debug, Default)]
pub struct State {
    items: BTreeMap<Key, Item>,
    /// Counts writes that changed a key; every change has its own.
    revision: u64,
    /// Counts leaderships.
    epoch: u64,
    /// The last instance applied.
    applied: InstanceId,
    hash: StateHash,
    /// Bytes of all keys and values.
    bytes: u64,
    /// The group's clock in milliseconds: the highest that an applied value was stamped with.
    clock: u64,
    /// Where the lives of items end, and whose: exactly those with `expires != 0`.
    deadlines: BTreeSet<(u64, Key)>,
    /// The cluster's roll, in the group that keeps it.
    roll: Roll,
    sessions: Sessions,
    /// What clients have numbered themselves.
    clients: Clients,
    /// The largest tokens that keys were written with.
    fences: Fences,
    /// Who votes from the next instance on; `None` for those of the birth.
    members: Option<Members>,
    /// What the mirror has not been told yet; `None` where there is no mirror.
    changes: Option<Changes>,
    /// Where the newest checks found this state, ascending: `every instance <= applied`. No part
    /// of the state: a replica that began behind them has no opinion on them.
    points: VecDeque<Point>,
    rescan: Rescan,
    /// The newest changes, for those who watch. No part of the state.
    history: History,
    /// The keys in the order of a walk, while walks come. No part of the state.
    places: Option<Places>,
}

/// Points that are remembered: a verdict comes a message's way behind its point, and a few checks
/// may be under way.
const MAX_POINTS: usize = 8;

/// Why a chosen value could not be applied; the group stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It has no shape that this version knows.
    #[error("{0}")]
    Unreadable(String),
    /// A majority of the members had another state where this replica had this one.
    #[error("at instance {} the state here is {}, a majority has {agreed}", ours.instance, ours.sum)]
    Differs {
        /// What was here.
        ours: Point,
        /// What a majority had.
        agreed: Sum,
    },
    /// No majority of the members had the same state there.
    #[error("no majority had the same state at instance {0}")]
    Split(InstanceId),
}

impl From<super::value::BadValue> for ApplyError {
    fn from(bad: super::value::BadValue) -> ApplyError {
        ApplyError::Unreadable(bad.to_string())
    }
}

impl State {
    /// Applies the chosen value of `instance`, which follows the last one applied, and hands
    /// each command's outcome to `answer`.
    ///
    /// # Errors
    /// When the value has no shape that this version knows: every replica fails alike. And when
    /// it says that this state is wrong, or that nobody knows which is right.
    ///
    /// # Panics
    /// When instances come out of order: apply is in order, exactly once.
    pub fn apply(
        &mut self,
        instance: InstanceId,
        value: Bytes,
        answer: &mut dyn FnMut(Ticket, Outcome),
    ) -> Result<(), ApplyError> {
        assert_eq!(instance, self.applied.next(), "apply is in order, exactly once");
        let mut check = false;
        match Value::decode(value)? {
            Value::Noop => {}
            Value::Lead(_) => self.epoch += 1,
            Value::Members(new) => {
                if new.follows(self.members.as_ref().map_or(InstanceId::ZERO, Members::changed_at)) {
                    self.members = Some(Members::since(instance, new.list));
                }
            }
            Value::Expire { clock, most } => {
                self.clock = self.clock.max(clock);
                self.expire(clock, most);
            }
            Value::Batch(commands) => {
                self.clock = self.clock.max(commands.clock());
                let mut spoiled = false;
                for command in commands {
                    let (ticket, bytes) = command?;
                    match self.sessions.admit(ticket) {
                        Admission::Answer(outcome) => answer(ticket, outcome),
                        Admission::Apply => {
                            let command =
                                Command::decode(bytes).map_err(|e| ApplyError::Unreadable(e.to_string()))?;
                            let outcome = if std::mem::take(&mut spoiled) {
                                Outcome::Unmet
                            } else {
                                self.execute(command)
                            };
                            spoiled = planted::is(Bug::BatchFailsTogether) && outcome == Outcome::Unmet;
                            self.sessions.record(ticket, outcome.clone());
                            answer(ticket, outcome);
                        }
                    }
                }
            }
            Value::Check(verdict) => {
                self.compare(verdict)?;
                check = true;
            }
        }
        self.applied = instance;
        if check {
            if self.points.len() >= MAX_POINTS {
                self.points.pop_front();
            }
            self.points.push_back(Point { instance, sum: self.sum() });
        }
        Ok(())
    }

    /// Compares what a majority has said with what was noted here.
    fn compare(&self, verdict: Option<Verdict>) -> Result<(), ApplyError> {
        match verdict {
            Some(Verdict::Agreed(agreed)) => match self.point(agreed.instance) {
                Some(ours) if ours.sum != agreed.sum => Err(ApplyError::Differs { ours, agreed: agreed.sum }),
                _ => Ok(()),
            },
            Some(Verdict::Split(instance)) => Err(ApplyError::Split(instance)),
            None => Ok(()),
        }
    }

    /// This state in a few bytes.
    #[must_use]
    pub fn sum(&self) -> Sum {
        let counted = [self.revision.to_le_bytes(), self.epoch.to_le_bytes()].concat();
        let beside = beside::encode(&self.roll, self.clock, &self.clients, &self.fences, &self.sessions);
        Sum { hash: self.hash, rest: xxh3_64_with_seed(&beside, xxh3_64(&counted)) }
    }

    /// Where the newest checks found this state, ascending.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = &Point> {
        self.points.iter()
    }

    /// What the check in `instance` found, while that is remembered.
    #[must_use]
    pub fn point(&self, instance: InstanceId) -> Option<Point> {
        self.points.iter().find(|point| point.instance == instance).copied()
    }

    /// Hashes the next items anew, about `budget` bytes of them but one at least; see `rescan.rs`.
    pub fn rescan(&mut self, budget: u64) -> Scanned {
        let from = match &self.rescan.passed {
            Some(passed) => Bound::Excluded(&passed[..]),
            None => Bound::Unbounded,
        };
        let (mut bytes, mut last, mut more) = (0, None, false);
        let mut sum = self.rescan.sum;
        for (key, item) in self.items.range::<[u8], _>((from, Bound::Unbounded)) {
            if bytes >= budget {
                more = true;
                break;
            }
            sum.add(key, &item.value, item.revision, item.expires);
            bytes += SCAN_COST + (key.len() + item.value.len()) as u64;
            last = Some(key);
        }
        if more {
            self.rescan = Rescan { passed: last.cloned(), sum };
            return Scanned::More(bytes);
        }
        self.rescan = Rescan::default();
        if sum == self.hash { Scanned::Sound(bytes) } else { Scanned::Rotten { kept: self.hash, found: sum } }
    }

    /// What a whole pass of [`State::rescan`] goes through, in bytes.
    #[must_use]
    pub fn scan_bytes(&self) -> u64 {
        self.bytes + SCAN_COST * self.items.len() as u64
    }

    /// Begins the pass of [`State::rescan`] anew.
    pub fn restart_rescan(&mut self) {
        self.rescan = Rescan::default();
    }

    /// The state that an image was taken of; [`Image::into_state`] has checked it.
    pub(super) fn restored(head: &Head, beside: Beside, items: Vec<(Key, Item)>) -> State {
        let Beside { roll, clock, clients, fences, sessions } = beside;
        let mortal = items.iter().filter(|(_, item)| item.expires != 0);
        let deadlines = mortal.map(|(key, item)| (item.expires, key.clone())).collect();
        let bytes = items.iter().map(|(key, item)| (key.len() + item.value.len()) as u64).sum();
        State {
            items: items.into_iter().collect(),
            revision: head.revision,
            epoch: head.epoch,
            applied: head.applied,
            hash: head.hash,
            bytes,
            clock,
            deadlines,
            roll,
            sessions,
            clients,
            fences,
            members: head.members.clone(),
            changes: None,
            points: VecDeque::new(),
            rescan: Rescan::default(),
            history: History::behind(head.revision),
            places: None,
        }
    }

    /// Remembers at most so many bytes of changes from now on.
    pub fn limit_history(&mut self, bytes: usize) {
        self.history.limit(bytes);
    }

    /// The newest changes.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Remembers from now on which keys change, for [`State::fold`].
    pub fn watch_changes(&mut self) {
        self.changes.get_or_insert_default();
    }

    /// How many keys have changed since the last fold.
    #[must_use]
    pub fn changed(&self) -> usize {
        self.changes.as_ref().map_or(0, Changes::len)
    }

    /// Where the state stands; `chain` is the chained checksum of what was applied.
    #[must_use]
    pub fn head(&self, chain: u64) -> Head {
        let members = self.members.clone().filter(|_| !planted::is(Bug::MembersNotInCheckpoint));
        let State { applied, hash, revision, epoch, .. } = *self;
        Head { applied, chain, hash, revision, epoch, members }
    }

    /// What has changed since `from`, the instance of the fold before; `None` when more has
    /// changed than was remembered.
    pub fn fold(&mut self, from: InstanceId, chain: u64) -> Option<Fold> {
        let items = self.changes.as_mut()?.take()?;
        Some(Fold { from, head: self.head(chain), sessions: self.encoded_beside(), items })
    }

    /// The whole state.
    pub fn image(&mut self, chain: u64) -> Image {
        if let Some(changes) = &mut self.changes {
            changes.take();
        }
        let items = self.items.iter().map(|(key, item)| (key.clone(), item.clone())).collect();
        Image { head: self.head(chain), sessions: self.encoded_beside(), items }
    }

    fn encoded_beside(&self) -> Bytes {
        if planted::is(Bug::SessionsNotInCheckpoint) {
            let none = Sessions::default();
            return beside::encode(&self.roll, self.clock, &self.clients, &self.fences, &none);
        }
        if planted::is(Bug::ReqsNotInCheckpoint) {
            let none = Clients::default();
            return beside::encode(&self.roll, self.clock, &none, &self.fences, &self.sessions);
        }
        let none = Roll::default();
        let roll = if planted::is(Bug::RollNotInCheckpoint) { &none } else { &self.roll };
        beside::encode(roll, self.clock, &self.clients, &self.fences, &self.sessions)
    }

    /// Answers a read, with lives as they were at the last stamp.
    ///
    /// # Panics
    /// When `command` is a write: writes are chosen first.
    #[must_use]
    pub fn read(&self, command: &Command) -> Outcome {
        self.read_at(command, self.clock)
    }

    /// Answers a read when the group's clock shows `clock`, which says how long lives still are
    /// and nothing else.
    ///
    /// # Panics
    /// When `command` is a write: writes are chosen first.
    #[must_use]
    pub fn read_at(&self, command: &Command, clock: u64) -> Outcome {
        match command {
            Command::Get { key } => Outcome::Value(self.get(key).map(|i| (i.value.clone(), i.revision))),
            Command::GetMany { keys } => {
                Outcome::Values(keys.iter().map(|k| self.get(k).map(|i| i.value.clone())).collect())
            }
            Command::Revisions { keys } => {
                Outcome::Revisions(keys.iter().map(|k| self.get(k).map_or(0, |i| i.revision)).collect())
            }
            Command::Exists { keys } => {
                Outcome::Integer(keys.iter().filter(|k| self.get(k).is_some()).count() as i64)
            }
            Command::Count => Outcome::Integer(self.items.len() as i64),
            Command::Roll => {
                let Roll { version, bytes } = &self.roll;
                Outcome::Value((*version > 0).then(|| (bytes.clone(), *version)))
            }
            Command::Length { key } => Outcome::Integer(self.get(key).map_or(0, |i| i.value.len() as i64)),
            Command::Transaction(transaction) if transaction.is_read() => {
                self.read_transaction(transaction, clock)
            }
            Command::Rest { key } => Outcome::Integer(match self.get(key) {
                None => -2,
                Some(item) if item.expires == 0 => -1,
                Some(item) => i64::try_from(item.expires.saturating_sub(clock)).unwrap_or(i64::MAX),
            }),
            Command::Epoch => Outcome::Integer(i64::try_from(self.epoch).unwrap_or(i64::MAX)),
            Command::Scan(range) => Outcome::Page(range.read(self)),
            Command::Walk(walk) => walk.read(self),
            Command::InSlot(question) => question.read(self),
            Command::Changes(since) => self.history.since(since),
            _ => panic!("a write is not a read"),
        }
    }

    /// Answers a read like [`State::read_at`], in bounded time: what a walk needs is built by and by.
    pub fn answer(&mut self, command: &Command, clock: u64) -> Outcome {
        let Command::Walk(walk) = command else { return self.read_at(command, clock) };
        let mut places = self.places.take().unwrap_or_default();
        places.build(self);
        let outcome = places.answer(walk);
        self.places = Some(places);
        outcome
    }

    /// Gives up what only walks need.
    pub fn forget_places(&mut self) {
        self.places = None;
    }

    /// The items of a range of keys, in their order.
    pub(super) fn range(&self, range: (Bound<&[u8]>, Bound<&[u8]>)) -> impl Iterator<Item = (&[u8], &Item)> {
        self.items.range::<[u8], _>(range).map(|(key, item)| (&key[..], item))
    }

    /// The item of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Item> {
        self.items.get(key)
    }

    pub(super) fn execute(&mut self, command: Command) -> Outcome {
        match command {
            Command::Put { key, value, condition, want } => self.put(&key, value, &condition, want, None),
            Command::PutMany { pairs } => {
                for (key, value) in pairs {
                    self.set(&key, value, 0);
                }
                Outcome::Done
            }
            Command::Delete { keys } => {
                let removed = keys.iter().filter(|key| self.unset(key).is_some()).count();
                Outcome::Integer(removed as i64)
            }
            Command::Take { key } => Outcome::Value(self.unset(&key).map(|i| (i.value, i.revision))),
            Command::Add { key, delta } => self.increment(&key, delta),
            Command::Append { key, value, max } => self.append(&key, &value, max),
            Command::Cas { key, old, new } => {
                if self.get(&key).is_some_and(|item| item.value == old) {
                    self.set(&key, new, 0);
                    Outcome::Integer(1)
                } else {
                    Outcome::Integer(0)
                }
            }
            Command::Transaction(transaction) => self.transact(transaction),
            Command::PutFor { key, value, condition, want, life } => {
                self.put(&key, value, &condition, want, Some(life))
            }
            Command::Renew { key, renewal } => self.renew(&key, renewal),
            Command::SetRoll { expect, bytes } => {
                if self.roll.version != expect {
                    return Outcome::Unmet;
                }
                self.roll = Roll { version: self.roll.version + 1, bytes };
                Outcome::Revision(self.roll.version)
            }
            Command::Once { req, command } => match self.clients.admit(&req, self.clock) {
                Some(outcome) => outcome,
                None => {
                    let outcome = self.execute(*command);
                    self.clients.record(&req, &outcome, self.clock);
                    outcome
                }
            },
            Command::Fenced { token, command } => self.fenced(token, *command),
            // A read that was proposed all the same (by a later version, say) changes nothing.
            Command::Get { .. }
            | Command::GetMany { .. }
            | Command::Revisions { .. }
            | Command::Exists { .. }
            | Command::Count
            | Command::Length { .. }
            | Command::Rest { .. }
            | Command::Roll
            | Command::Epoch
            | Command::Scan(_) => self.read(&command),
            // What replicas remember differs, and how long a walk takes is not bounded here.
            Command::Walk(_) | Command::InSlot(_) | Command::Changes(_) => Outcome::Unmet,
        }
    }

    /// Whether a condition holds of a key that has this item, or none.
    pub(super) fn meets(&self, key: &[u8], held: Option<&Item>, condition: &Condition) -> bool {
        match condition {
            Condition::None => true,
            Condition::Absent => held.is_none(),
            Condition::Present => held.is_some(),
            Condition::Revision(revision) => held.map_or(0, |item| item.revision) == *revision,
            Condition::Value(value) => held.is_some_and(|item| item.value == *value),
            Condition::Epoch(epoch) => self.epoch == *epoch,
            Condition::Fence(token) => self.fences.token(key) <= *token,
        }
    }

    /// Executes a write of the holder of a lock, unless a later holder has written one of its keys.
    fn fenced(&mut self, token: u64, command: Command) -> Outcome {
        let keys: Vec<Bytes> = command.written().cloned().collect();
        let newest = keys.iter().map(|key| self.fences.token(key)).max().unwrap_or(0);
        if newest > token {
            return Outcome::Failed(Failure::Fenced(newest));
        }
        if !self.fences.make_room(keys.iter().map(|key| &key[..]), self.clock) {
            return Outcome::Failed(Failure::FencesFull);
        }
        // Whoever deletes a key wants it gone, also where it was gone already.
        let deletes = matches!(command, Command::Delete { .. } | Command::Take { .. });
        let before = self.hash;
        let outcome = self.execute(command);
        if deletes || self.hash != before {
            for key in &keys {
                self.fences.raise(key, token, self.clock);
            }
        }
        outcome
    }

    fn put(
        &mut self,
        key: &[u8],
        value: Bytes,
        condition: &Condition,
        want: Want,
        life: Option<Life>,
    ) -> Outcome {
        // A plain put looks its key up only once, where it sets it.
        let looks = *condition != Condition::None || want == Want::Previous || life == Some(Life::Keep);
        let held = if looks { self.items.get(key) } else { None };
        let met = self.meets(key, held, condition);
        let previous = match want {
            Want::Previous => held.map(|i| (i.value.clone(), i.revision)),
            Want::Done | Want::Revision => None,
        };
        if met {
            let expires = match life {
                None => 0,
                Some(Life::Keep) => held.map_or(0, |item| item.expires),
                Some(Life::For(millis)) => self.clock.saturating_add(millis),
            };
            self.set(key, value, expires);
            if life == Some(Life::For(0)) {
                self.unset(key);
            }
        }
        match (want, met) {
            (Want::Previous, _) => Outcome::Value(previous),
            (_, false) => Outcome::Unmet,
            (Want::Done, true) => Outcome::Done,
            (Want::Revision, true) => Outcome::Revision(self.revision),
        }
    }

    fn renew(&mut self, key: &[u8], renewal: Renewal) -> Outcome {
        let Renewal { life, when, value } = renewal;
        let held = self.items.get(key);
        let answer = held.filter(|_| value).map(|item| (item.value.clone(), item.revision));
        let expires = life.map_or(0, |millis| self.clock.saturating_add(millis));
        // A life that is over at once ends sooner than any other.
        let ends = if life == Some(0) { expires.max(1) } else { expires };
        let changed = held.is_some_and(|item| when.admits(item.expires, ends));
        match life {
            Some(0) if changed => drop(self.unset(key)),
            _ if changed => self.set_expiry(key, expires),
            _ => {}
        }
        if value { Outcome::Value(answer) } else { Outcome::Integer(i64::from(changed)) }
    }

    /// Removes items whose life is over at `clock`, those that ended first first, at most so many.
    fn expire(&mut self, clock: u64, most: u32) {
        for _ in 0..most {
            let Some((_, key)) = self.deadlines.first().filter(|(at, _)| *at <= clock) else { return };
            let key = key.clone();
            self.unset(&key);
        }
    }

    fn increment(&mut self, key: &[u8], delta: i64) -> Outcome {
        let held = match self.get(key) {
            None => 0,
            Some(item) => match parse_integer(&item.value) {
                Some(n) => n,
                None => return Outcome::Failed(Failure::NotAnInteger),
            },
        };
        match held.checked_add(delta) {
            None => Outcome::Failed(Failure::Overflow),
            Some(sum) => {
                self.set(key, Bytes::from(sum.to_string()), self.expiry(key));
                Outcome::Integer(sum)
            }
        }
    }

    fn append(&mut self, key: &[u8], tail: &[u8], max: u32) -> Outcome {
        let held = self.get(key).map_or(&[][..], |i| &i.value[..]);
        let len = held.len() + tail.len();
        if len > max as usize {
            return Outcome::Failed(Failure::TooLong(max));
        }
        let mut value = Vec::with_capacity(len);
        value.extend_from_slice(held);
        value.extend_from_slice(tail);
        self.set(key, Bytes::from(value), self.expiry(key));
        Outcome::Integer(len as i64)
    }

    /// Where the life of a key ends, 0 for nowhere.
    fn expiry(&self, key: &[u8]) -> u64 {
        self.items.get(key).map_or(0, |item| item.expires)
    }

    /// Moves the end of an item's life. That is no new revision of the item: its value is the
    /// same.
    fn set_expiry(&mut self, key: &[u8], expires: u64) {
        let Some(item) = self.items.get_mut(key).filter(|item| item.expires != expires) else { return };
        let before = std::mem::replace(&mut item.expires, expires);
        self.hash.remove(key, &item.value, item.revision, before);
        self.hash.add(key, &item.value, item.revision, expires);
        if self.rescan.is_past(key) {
            self.rescan.sum.remove(key, &item.value, item.revision, before);
            self.rescan.sum.add(key, &item.value, item.revision, expires);
        }
        if let Some(changes) = &mut self.changes {
            changes.note(key, Some(item.clone()));
        }
        self.move_deadline(key, before, expires);
    }

    fn move_deadline(&mut self, key: &[u8], before: u64, expires: u64) {
        if before == expires {
            return;
        }
        if before != 0 {
            self.deadlines.remove(&(before, key.into()));
        }
        if expires != 0 {
            self.deadlines.insert((expires, key.into()));
        }
    }

    fn set(&mut self, key: &[u8], value: Bytes, expires: u64) {
        self.revision += 1;
        let revision = self.revision;
        let value = if value.len() < COPY_BELOW { Bytes::copy_from_slice(&value) } else { value };
        self.history.note(revision, key, Some(value.clone()));
        let scanned = self.rescan.is_past(key);
        self.hash.add(key, &value, revision, expires);
        if scanned {
            self.rescan.sum.add(key, &value, revision, expires);
        }
        self.bytes += value.len() as u64;
        let item = Item { value, revision, expires };
        if let Some(changes) = &mut self.changes {
            changes.note(key, Some(item.clone()));
        }
        let mut before = 0;
        match self.items.get_mut(key) {
            Some(held) => {
                before = held.expires;
                self.hash.remove(key, &held.value, held.revision, before);
                if scanned {
                    self.rescan.sum.remove(key, &held.value, held.revision, before);
                }
                self.bytes -= held.value.len() as u64;
                *held = item;
            }
            None => {
                self.bytes += key.len() as u64;
                if let Some(places) = &mut self.places {
                    places.insert(key);
                }
                self.items.insert(key.into(), item);
            }
        }
        self.move_deadline(key, before, expires);
    }

    fn unset(&mut self, key: &[u8]) -> Option<Item> {
        let item = self.items.remove(key)?;
        self.revision += 1;
        self.history.note(self.revision, key, None);
        if let Some(places) = &mut self.places {
            places.remove(key);
        }
        if let Some(changes) = &mut self.changes {
            changes.note(key, None);
        }
        self.hash.remove(key, &item.value, item.revision, item.expires);
        if self.rescan.is_past(key) {
            self.rescan.sum.remove(key, &item.value, item.revision, item.expires);
        }
        self.move_deadline(key, item.expires, 0);
        self.bytes -= (key.len() + item.value.len()) as u64;
        Some(item)
    }

    /// A fault for tests: a bit of a stored value flips, and nobody is told. `false` when there
    /// is no such key or bit.
    pub fn rot(&mut self, key: &[u8], bit: usize) -> bool {
        let Some(item) = self.items.get_mut(key).filter(|item| bit / 8 < item.value.len()) else {
            return false;
        };
        let mut value = item.value.to_vec();
        value[bit / 8] ^= 1 << (bit % 8);
        item.value = Bytes::from(value);
        true
    }

    /// A planted defect: something of the node gets into the state.
    pub(crate) fn skew(&mut self, node: NodeId) {
        self.revision += u64::from(node.0);
    }

    /// A planted defect: the commands of a value once more.
    pub(crate) fn apply_again(&mut self, value: Bytes) {
        if let Ok(Value::Batch(commands)) = Value::decode(value) {
            for (_, bytes) in commands.flatten() {
                if let Ok(command) = Command::decode(bytes) {
                    self.execute(command);
                }
            }
        }
    }

    /// The group's clock, in milliseconds.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Where on the group's clock the next life ends.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// How many keys have a life that ends.
    #[must_use]
    pub fn mortal(&self) -> usize {
        self.deadlines.len()
    }

    /// The last instance applied.
    #[must_use]
    pub fn applied(&self) -> InstanceId {
        self.applied
    }

    /// The revision of the last change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Who votes from the next instance on; `None` for those of the birth.
    #[must_use]
    pub fn members(&self) -> Option<&Members> {
        self.members.as_ref()
    }

    /// The cluster's roll, in the group that keeps it.
    #[must_use]
    pub fn roll(&self) -> &Roll {
        &self.roll
    }

    /// How many leaderships the group has had.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The hash of the whole map.
    #[must_use]
    pub fn hash(&self) -> StateHash {
        self.hash
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether the write that a read must follow is past.
    #[must_use]
    pub fn is_past(&self, node: NodeId, boot: Boot, number: u64) -> bool {
        self.sessions.is_past(node, boot, number)
    }

    /// All keys in order, for judges and checkpoints.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Item)> {
        self.items.iter().map(|(k, i)| (&k[..], i))
    }

    /// The hash computed anew over the whole map: what [`State::hash`] must equal.
    #[must_use]
    pub fn recomputed_hash(&self) -> StateHash {
        let mut hash = StateHash::EMPTY;
        for (key, item) in &self.items {
            hash.add(key, &item.value, item.revision, item.expires);
        }
        hash
    }
}

/// A decimal number as Redis reads one: an optional minus, no plus, no leading zeros, no blanks.
fn parse_integer(bytes: &[u8]) -> Option<i64> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let canonical = match digits {
        [b'0'] => bytes.len() == 1,
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_redis_reads_them() {
        for (text, want) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("", None),
            ("-", None),
            ("1a", None),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), want, "{text:?}");
        }
    }
}
