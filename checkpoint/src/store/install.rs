//! Taking in a checkpoint, dropping a group, and sweeping what both leave behind.

use std::ops::ControlFlow;

use bytes::Bytes;
use groups::ids::GroupId;

use super::engine::Writes;
use super::record::{self, Current, SessionStamp};
use super::{ChunkLimit, Garbage, GroupState, Image, MAX_MEMBERSHIP, MAX_SESSIONS, MirrorStore, NOTHING};
use super::{Point, Position, Staging, StoreError, Verified};
use super::{bounded, keys, locked, point_of, read_sessions, sound};
use crate::entry::{Entry, EntryRef, Generation, MAX_KEY, MAX_VALUE, StateDigest};
use groups::kv::StateHash;

/// What one step of [`MirrorStore::sweep`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Keys deleted.
    pub deleted: usize,
    /// Whether there is more to sweep.
    pub more: bool,
}

impl MirrorStore {
    /// The checkpoint that a group is taking in, if any: a transfer continues behind its last
    /// key.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn staging(&self, group: GroupId) -> Result<Option<Staging>, StoreError> {
        let state = self.state(group);
        let state = locked(&state);
        sound(group, &state)?;
        Ok(state.staging.clone())
    }

    /// Begins to take in a checkpoint. What was staged before is given up; the group's current
    /// state stays in force until [`MirrorStore::install`].
    ///
    /// # Errors
    /// [`StoreError::OutOfOrder`] when the checkpoint is not ahead of the group,
    /// [`StoreError::TooLarge`], [`StoreError::Damaged`] (a damaged group is discarded first),
    /// [`StoreError::Poisoned`].
    pub fn begin_generation(
        &self,
        group: GroupId,
        promised: Position,
        sessions: Bytes,
    ) -> Result<Generation, StoreError> {
        bounded("session table", sessions.len(), MAX_SESSIONS)?;
        bounded("membership", promised.membership.len(), MAX_MEMBERSHIP)?;
        let state = self.state_to_write(group);
        let mut state = locked(&state);
        sound(group, &state)?;
        ahead(group, &state, &promised)?;
        let generation = state.next_generation();
        let staging = Staging {
            generation,
            promised,
            entries: 0,
            last_key: None,
            sessions: SessionStamp::of(&sessions),
        };
        let mut writes = Writes::default();
        if let Some(given_up) = &state.staging {
            writes.put(keys::garbage(group, given_up.generation), Vec::new());
        }
        writes.put(keys::sessions(group, generation), sessions.to_vec());
        writes.put(keys::staging(group), staging.encode());
        self.commit(writes)?;
        if let Some(given_up) = state.staging.replace(staging) {
            state.garbage.push(given_up.generation.into());
        }
        Ok(generation)
    }

    /// Adds the next entries of the checkpoint, in ascending key order, and then the progress, so
    /// that a crash in between loses whole calls only: entries beyond the progress are those of
    /// the same state, and come again. Many at once go past the engine's journal.
    ///
    /// # Errors
    /// [`StoreError::NotStaged`], [`StoreError::Unsorted`], [`StoreError::TooLarge`],
    /// [`StoreError::Poisoned`].
    pub fn stage(&self, group: GroupId, generation: Generation, entries: &[Entry]) -> Result<(), StoreError> {
        let state = self.state(group);
        let mut state = locked(&state);
        sound(group, &state)?;
        let mut next = staged(group, &state, generation)?.clone();
        let mut sorted = Vec::with_capacity(entries.len());
        let mut bytes = 0;
        for entry in entries {
            bounded("key", entry.key.len(), MAX_KEY)?;
            bounded("value", entry.value.len(), MAX_VALUE)?;
            if next.last_key.as_ref().is_some_and(|last| *last >= entry.key) {
                return Err(StoreError::Unsorted { group });
            }
            bytes += entry.bytes();
            sorted.push((keys::entry(group, generation, &entry.key), record::encode_entry(entry)));
            next.last_key = Some(entry.key.clone());
            next.entries += 1;
        }
        // Copied: the key must not keep a frame alive.
        next.last_key = next.last_key.map(|key| Bytes::copy_from_slice(&key));
        let mark = (keys::staging(group), next.encode());
        if bytes >= self.store.ingest_from() {
            self.check_poison()?;
            self.guard.run(|| self.store.ingest(mark, sorted)).map_err(|e| self.poison_write(e))?;
        } else {
            let mut writes = Writes::default();
            sorted.into_iter().chain([mark]).for_each(|(key, value)| writes.put(key, value));
            self.commit(writes)?;
        }
        state.staging = Some(next);
        Ok(())
    }

    /// Makes the staged checkpoint the group's state: verified entry by entry, synced, switched
    /// in one batch, synced again and recorded as durable. Before the switch the old state is
    /// in force, after it the new one, whatever happens. Returns the recorded point.
    ///
    /// # Errors
    /// [`StoreError::NotThatState`] when what was staged is not what was promised; then it is
    /// still staged, to be given up by the next [`MirrorStore::begin_generation`].
    /// [`StoreError::NotStaged`], [`StoreError::Damaged`], [`StoreError::Poisoned`].
    pub fn install(&self, group: GroupId, generation: Generation) -> Result<Point, StoreError> {
        self.install_reading(group, generation, |_| {}).map(|image| image.verified.point())
    }

    /// The same, and hands every entry to `take` as it is read for the proof, in key order;
    /// nothing taken may be used before this returns the image.
    ///
    /// # Errors
    /// As [`MirrorStore::install`].
    pub fn install_reading(
        &self,
        group: GroupId,
        generation: Generation,
        take: impl FnMut(EntryRef<'_>),
    ) -> Result<Image, StoreError> {
        let state = self.state(group);
        let mut state = locked(&state);
        sound(group, &state)?;
        let staging = staged(group, &state, generation)?.clone();
        ahead(group, &state, &staging.promised)?;
        let sessions = self.prove(group, &mut state, &staging, take)?;
        self.guard.run(|| self.store.sync()).map_err(|e| self.poison(e))?;

        let next = Current { generation, position: staging.promised, sessions: staging.sessions };
        let mut writes = Writes::default();
        writes.put(keys::current(group), next.encode());
        writes.delete(keys::staging(group));
        if let Some(old) = &state.current {
            writes.put(keys::garbage(group, old.generation), Vec::new());
        }
        self.commit(writes)?;
        let (point, position) = (point_of(&next.position), next.position.clone());
        state.staging = None;
        if let Some(old) = state.current.replace(next) {
            state.garbage.push(old.generation.into());
        }
        self.guard.run(|| self.store.sync()).map_err(|e| self.poison(e))?;

        let mut durable = locked(&self.durable);
        let mut recorded = durable.clone();
        recorded.insert(group, point);
        self.save_durable(&mut durable, recorded)?;
        Ok(Image { position, sessions, verified: Verified { group, point } })
    }

    /// Gives up the checkpoint that a group is taking in, if any; its current state stays.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Poisoned`].
    pub fn abandon(&self, group: GroupId) -> Result<(), StoreError> {
        self.check_poison()?;
        let state = self.state(group);
        let mut state = locked(&state);
        sound(group, &state)?;
        let Some(staging) = &state.staging else { return Ok(()) };
        let given_up = staging.generation;
        let mut writes = Writes::default();
        writes.put(keys::garbage(group, given_up), Vec::new());
        writes.delete(keys::staging(group));
        self.commit(writes)?;
        state.staging = None;
        state.garbage.push(given_up.into());
        Ok(())
    }

    /// Drops everything a group has here, damaged or not: log GC stops trusting it first, its
    /// entries are swept later.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`].
    pub fn discard(&self, group: GroupId) -> Result<(), StoreError> {
        self.check_poison()?;
        let state = self.state_to_write(group);
        let mut state = locked(&state);
        {
            let mut durable = locked(&self.durable);
            let mut kept = durable.clone();
            kept.remove(&group);
            self.save_durable(&mut durable, kept)?;
        }
        let mut writes = Writes::default();
        let mut garbage = state.garbage.clone();
        let current = state.current.as_ref().map(|current| current.generation);
        let staging = state.staging.as_ref().map(|staging| staging.generation);
        // The generation of a damaged record is unknown: whatever has entries is swept.
        let found = if state.damaged.is_some() { self.generations(group)? } else { Vec::new() };
        for generation in current.into_iter().chain(staging).chain(found) {
            if garbage.iter().all(|known| known.generation != generation) {
                garbage.push(generation.into());
                writes.put(keys::garbage(group, generation), Vec::new());
            }
        }
        writes.delete(keys::current(group));
        writes.delete(keys::staging(group));
        self.commit(writes)?;
        *state = GroupState { garbage, ..GroupState::default() };
        Ok(())
    }

    /// Deletes up to `most` keys of generations that are no longer in force. Call it again
    /// while there is more, between other work.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`], [`StoreError::Io`].
    pub fn sweep(&self, most: usize) -> Result<Swept, StoreError> {
        self.check_poison()?;
        let mut swept = Swept::default();
        let states: Vec<_> = locked(&self.groups).iter().map(|(&group, s)| (group, s.clone())).collect();
        for (group, state) in states {
            let mut state = locked(&state);
            while let Some(garbage) = state.garbage.last_mut() {
                let left = most - swept.deleted;
                if left == 0 {
                    swept.more = true;
                    return Ok(swept);
                }
                let (deleted, done) = self.sweep_generation(group, garbage, left)?;
                swept.deleted += deleted;
                if done {
                    state.garbage.pop();
                }
            }
        }
        Ok(swept)
    }

    fn sweep_generation(
        &self,
        group: GroupId,
        garbage: &mut Garbage,
        most: usize,
    ) -> Result<(usize, bool), StoreError> {
        let generation = garbage.generation;
        let (first, to) = keys::entries(group, generation);
        let from = garbage.from.clone().unwrap_or(first);
        let mut found = Vec::new();
        let scanned = self.guard.run(|| {
            self.store.scan(&from, &to, &mut |raw, _| {
                found.push(raw.to_vec());
                if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
        });
        scanned.map_err(|e| self.poison(e))?;
        let (deleted, done) = (found.len(), found.len() < most);
        let swept_to = found.last().cloned();
        let mut writes = Writes::default();
        for raw in found {
            writes.delete(raw);
        }
        if done {
            writes.delete(keys::sessions(group, generation));
            writes.delete(keys::garbage(group, generation));
        }
        self.commit(writes)?;
        garbage.from = swept_to.or_else(|| garbage.from.take());
        Ok((deleted, done))
    }

    /// Hashes everything staged and compares it with what the checkpoint promises. Returns the
    /// session table.
    fn prove(
        &self,
        group: GroupId,
        state: &mut GroupState,
        staging: &Staging,
        mut take: impl FnMut(EntryRef<'_>),
    ) -> Result<Bytes, StoreError> {
        let view = self.store.as_view();
        let generation = staging.generation;
        let sessions = self.guard.run(|| read_sessions(view, group, generation, staging.sessions));
        let sessions = sessions.map_err(|e| self.condemn(group, state, e))?;
        let mut hash = StateHash::default();
        let read = self.visit_of(view, group, generation, None, ChunkLimit::ALL, &mut |entry| {
            entry.add_to(&mut hash);
            take(entry);
        });
        read.map_err(|e| self.condemn(group, state, e))?;
        let (found, promised) = (StateDigest::from(hash), staging.promised.state_hash);
        if found != promised {
            return Err(StoreError::NotThatState { group, promised, found });
        }
        Ok(sessions)
    }

    /// The generations of a group that have entries, found by skipping from one to the next.
    fn generations(&self, group: GroupId) -> Result<Vec<Generation>, StoreError> {
        let mut found = Vec::new();
        let (mut from, _) = keys::entries(group, Generation(0));
        let (_, to) = keys::entries(group, Generation(u64::MAX));
        loop {
            let mut next = None;
            let scanned = self.guard.run(|| {
                self.store.scan(&from, &to, &mut |raw, _| {
                    next = keys::generation(raw);
                    ControlFlow::Break(())
                })
            });
            scanned.map_err(|e| self.poison(e))?;
            let Some(generation) = next else { return Ok(found) };
            found.push(generation);
            (_, from) = keys::entries(group, generation);
        }
    }
}

fn staged(group: GroupId, state: &GroupState, generation: Generation) -> Result<&Staging, StoreError> {
    let staging = state.staging.as_ref().filter(|staging| staging.generation == generation);
    staging.ok_or(StoreError::NotStaged { group })
}

/// A checkpoint never takes a group back.
fn ahead(group: GroupId, state: &GroupState, promised: &Position) -> Result<(), StoreError> {
    let at = state.current.as_ref().map_or(NOTHING, |current| current.position.applied);
    if promised.applied <= at {
        return Err(StoreError::OutOfOrder { group, at, from: promised.applied, to: promised.applied });
    }
    Ok(())
}
