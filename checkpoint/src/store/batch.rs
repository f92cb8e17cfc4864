//! One atomic batch: what a run of chosen values did to a group, and where it stands then.

use std::collections::BTreeMap;

use bytes::Bytes;
use groups::ids::{GroupId, InstanceId};
use groups::planted::{self, Bug};

use super::engine::Writes;
use super::record::{self, Current, SessionStamp};
use super::{MAX_MEMBERSHIP, MAX_SESSIONS, MirrorStore, NOTHING, Position, StoreError};
use super::{bounded, keys, locked, sound};
use crate::entry::{Entry, MAX_KEY, MAX_VALUE};

/// Writes of one group that take effect together with its position. Consecutive writes of a
/// key fold: the last one counts.
#[derive(Debug)]
pub struct Batch {
    group: GroupId,
    from: InstanceId,
    entries: BTreeMap<Bytes, Option<Entry>>,
    sessions: Option<Bytes>,
}

impl Batch {
    /// An empty batch that continues where the group stands: `from` is the last instance
    /// applied before it.
    #[must_use]
    pub fn new(group: GroupId, from: InstanceId) -> Batch {
        Batch { group, from, entries: BTreeMap::new(), sessions: None }
    }

    /// Sets an entry.
    pub fn put(&mut self, entry: Entry) {
        self.entries.insert(entry.key.clone(), Some(entry));
    }

    /// Removes a key.
    pub fn delete(&mut self, key: Bytes) {
        self.entries.insert(key, None);
    }

    /// Replaces the session table; without it the table stays as it is.
    pub fn sessions(&mut self, sessions: Bytes) {
        self.sessions = Some(sessions);
    }

    /// Keys written or deleted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key is written or deleted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl MirrorStore {
    /// Applies a batch and moves the group to `to`, all or nothing, also across a crash. Not
    /// synced: see [`MirrorStore::persist`].
    ///
    /// # Errors
    /// [`StoreError::OutOfOrder`] when the batch does not continue where the group stands or
    /// moves it nowhere, [`StoreError::TooLarge`], [`StoreError::Damaged`],
    /// [`StoreError::Poisoned`].
    pub fn write(&self, batch: Batch, to: Position) -> Result<(), StoreError> {
        let group = batch.group;
        check_sizes(&batch, &to)?;
        let state = self.state_to_write(group);
        let mut state = locked(&state);
        sound(group, &state)?;
        let at = state.current.as_ref().map_or(NOTHING, |current| current.position.applied);
        if batch.from != at || to.applied <= at {
            return Err(StoreError::OutOfOrder { group, at, from: batch.from, to: to.applied });
        }
        let generation = match &state.current {
            Some(current) => current.generation,
            None => state.next_generation(),
        };
        let mut sessions = state.current.as_ref().map_or(SessionStamp::of(b""), |current| current.sessions);
        let mut writes = Writes::default();
        for (key, entry) in &batch.entries {
            let raw = keys::entry(group, generation, key);
            match entry {
                Some(entry) => writes.put(raw, record::encode_entry(entry)),
                None => writes.delete(raw),
            }
        }
        // A new generation writes its table in any case: an empty one must replace whatever a
        // discarded generation of the same number has left.
        let newborn = state.current.is_none().then(Bytes::new);
        if let Some(table) = batch.sessions.or(newborn) {
            sessions = SessionStamp::of(&table);
            writes.put(keys::sessions(group, generation), table.to_vec());
        }
        let next = Current { generation, position: to, sessions };
        if planted::is(Bug::PositionApart) {
            self.commit(std::mem::take(&mut writes))?;
        }
        writes.put(keys::current(group), next.encode());
        self.commit(writes)?;
        state.current = Some(next);
        Ok(())
    }
}

fn check_sizes(batch: &Batch, to: &Position) -> Result<(), StoreError> {
    for (key, entry) in &batch.entries {
        bounded("key", key.len(), MAX_KEY)?;
        bounded("value", entry.as_ref().map_or(0, |entry| entry.value.len()), MAX_VALUE)?;
    }
    bounded("session table", batch.sessions.as_ref().map_or(0, Bytes::len), MAX_SESSIONS)?;
    bounded("membership", to.membership.len(), MAX_MEMBERSHIP)
}
