//! The key-value state machine of one group: an ordered map in memory.
//!
//! Applying is deterministic: no clock, no randomness, no map order, nothing of the node's own
//! configuration. The same values in the same order give the same state, the same outcomes and
//! the same hash on every replica.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::changes::Changes;
use super::command::{Command, Condition, Want};
use super::hash::StateHash;
use super::image::{Fold, Head, Image};
use super::outcome::{Failure, Outcome};
use super::session::{Admission, Sessions, Ticket};
use super::value::Value;
use crate::ids::{Boot, InstanceId, NodeId};
use crate::paxos::Members;
use crate::planted::{self, Bug};

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
}

/// The state of one group.
#[derive(Debug, Default)]
pub struct State {
    items: BTreeMap<Box<[u8]>, Item>,
    /// Counts writes that changed a key; every change has its own.
    revision: u64,
    /// Counts leaderships.
    epoch: u64,
    /// The last instance applied.
    applied: InstanceId,
    hash: StateHash,
    /// Bytes of all keys and values.
    bytes: u64,
    sessions: Sessions,
    /// Who votes from the next instance on; `None` for those of the birth.
    members: Option<Members>,
    /// What the mirror has not been told yet; `None` where there is no mirror.
    changes: Option<Changes>,
}

/// Why a chosen value could not be applied; the group stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ApplyError(String);

impl State {
    /// Applies the chosen value of `instance`, which follows the last one applied, and hands
    /// each command's outcome to `answer`.
    ///
    /// # Errors
    /// When the value has no shape that this version knows. Every replica fails alike.
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
        match Value::decode(value).map_err(|e| ApplyError(e.to_string()))? {
            Value::Noop => {}
            Value::Lead(_) => self.epoch += 1,
            Value::Members(list) => self.members = Some(Members::since(instance, list)),
            Value::Batch(commands) => {
                let mut spoiled = false;
                for command in commands {
                    let (ticket, bytes) = command.map_err(|e| ApplyError(e.to_string()))?;
                    match self.sessions.admit(ticket) {
                        Admission::Answer(outcome) => answer(ticket, outcome),
                        Admission::Apply => {
                            let command = Command::decode(bytes).map_err(|e| ApplyError(e.to_string()))?;
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
        }
        self.applied = instance;
        Ok(())
    }

    /// The state that an image was taken of; [`Image::into_state`] has checked it.
    pub(super) fn restored(head: &Head, sessions: Sessions, items: Vec<(Box<[u8]>, Item)>) -> State {
        let bytes = items.iter().map(|(key, item)| (key.len() + item.value.len()) as u64).sum();
        State {
            items: items.into_iter().collect(),
            revision: head.revision,
            epoch: head.epoch,
            applied: head.applied,
            hash: head.hash,
            bytes,
            sessions,
            members: head.members.clone(),
            changes: None,
        }
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
        let keys = self.changes.as_mut()?.take()?;
        let items = keys
            .into_iter()
            .map(|key| {
                let item = self.items.get(&key).cloned();
                (key, item)
            })
            .collect();
        Some(Fold { from, head: self.head(chain), sessions: self.encoded_sessions(), items })
    }

    /// The whole state.
    pub fn image(&mut self, chain: u64) -> Image {
        if let Some(changes) = &mut self.changes {
            changes.take();
        }
        let items = self.items.iter().map(|(key, item)| (key.clone(), item.clone())).collect();
        Image { head: self.head(chain), sessions: self.encoded_sessions(), items }
    }

    fn encoded_sessions(&self) -> Bytes {
        if planted::is(Bug::SessionsNotInCheckpoint) {
            return Sessions::default().encode();
        }
        self.sessions.encode()
    }

    /// Answers a read.
    ///
    /// # Panics
    /// When `command` is a write: writes are chosen first.
    #[must_use]
    pub fn read(&self, command: &Command) -> Outcome {
        match command {
            Command::Get { key } => Outcome::Value(self.get(key).map(|i| (i.value.clone(), i.revision))),
            Command::GetMany { keys } => {
                Outcome::Values(keys.iter().map(|k| self.get(k).map(|i| i.value.clone())).collect())
            }
            Command::Exists { keys } => {
                Outcome::Integer(keys.iter().filter(|k| self.get(k).is_some()).count() as i64)
            }
            Command::Count => Outcome::Integer(self.items.len() as i64),
            Command::Length { key } => Outcome::Integer(self.get(key).map_or(0, |i| i.value.len() as i64)),
            _ => panic!("a write is not a read"),
        }
    }

    /// The item of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Item> {
        self.items.get(key)
    }

    fn execute(&mut self, command: Command) -> Outcome {
        match command {
            Command::Put { key, value, condition, want } => self.put(&key, value, &condition, want),
            Command::PutMany { pairs } => {
                for (key, value) in pairs {
                    self.set(&key, value);
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
                    self.set(&key, new);
                    Outcome::Integer(1)
                } else {
                    Outcome::Integer(0)
                }
            }
            // A read that was proposed all the same (by a later version, say) changes nothing.
            Command::Get { .. }
            | Command::GetMany { .. }
            | Command::Exists { .. }
            | Command::Count
            | Command::Length { .. } => self.read(&command),
        }
    }

    fn put(&mut self, key: &[u8], value: Bytes, condition: &Condition, want: Want) -> Outcome {
        let held = self.items.get(key);
        let met = match condition {
            Condition::None => true,
            Condition::Absent => held.is_none(),
            Condition::Present => held.is_some(),
            Condition::Revision(revision) => held.map_or(0, |i| i.revision) == *revision,
            Condition::Value(value) => held.is_some_and(|i| i.value == *value),
        };
        let previous = match want {
            Want::Previous => held.map(|i| (i.value.clone(), i.revision)),
            Want::Done | Want::Revision => None,
        };
        if met {
            self.set(key, value);
        }
        match (want, met) {
            (Want::Previous, _) => Outcome::Value(previous),
            (_, false) => Outcome::Unmet,
            (Want::Done, true) => Outcome::Done,
            (Want::Revision, true) => Outcome::Revision(self.revision),
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
                self.set(key, Bytes::from(sum.to_string()));
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
        self.set(key, Bytes::from(value));
        Outcome::Integer(len as i64)
    }

    fn set(&mut self, key: &[u8], value: Bytes) {
        self.revision += 1;
        let revision = self.revision;
        if let Some(changes) = &mut self.changes {
            changes.note(key);
        }
        let value = if value.len() < COPY_BELOW { Bytes::copy_from_slice(&value) } else { value };
        self.hash.add(key, &value, revision, 0);
        self.bytes += value.len() as u64;
        let item = Item { value, revision };
        match self.items.get_mut(key) {
            Some(held) => {
                self.hash.remove(key, &held.value, held.revision, 0);
                self.bytes -= held.value.len() as u64;
                *held = item;
            }
            None => {
                self.bytes += key.len() as u64;
                self.items.insert(key.into(), item);
            }
        }
    }

    fn unset(&mut self, key: &[u8]) -> Option<Item> {
        let item = self.items.remove(key)?;
        self.revision += 1;
        if let Some(changes) = &mut self.changes {
            changes.note(key);
        }
        self.hash.remove(key, &item.value, item.revision, 0);
        self.bytes -= (key.len() + item.value.len()) as u64;
        Some(item)
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
            hash.add(key, &item.value, item.revision, 0);
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
