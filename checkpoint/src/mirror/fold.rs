//! Folding, refilling, settling: from the owner's state into the store, and what may be trusted.

use bytes::Bytes;
use groups::ids::{GroupId, InstanceId};
use groups::time::Time;
use xxhash_rust::xxh3::xxh3_128;

use super::send::Pause;
use super::{Event, Fold, Mirror};
use crate::entry::{Entry, Generation};
use crate::store::{Batch, Point, Position, StoreError};

/// A group that could not be read so many times in a row is taken for damaged.
const UNREADABLE: u32 = 3;

/// A state that was not what its owner promised so many times in a row is not asked for again.
const REFUSED: u32 = 3;

/// Entries staged in one step.
const STAGE_ENTRIES: usize = 1 << 17;

/// Bytes of keys and values staged in one step, unless one entry is larger.
const STAGE_BYTES: usize = 8 << 20;

/// What is known of a group beside the store.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The hash of the session table that was written last in this life: the same table is not
    /// written again.
    sessions: Option<u128>,
    /// The fold that waits for the end of the pause.
    pub(super) held: Option<Fold>,
    /// Present while receivers read the group.
    pub(super) pause: Option<Pause>,
    /// Why its owner was asked for the whole state.
    pub(super) refill: Option<String>,
    /// The last checkpoint that was handed to the owner: folds that were on their way then
    /// are no surprise.
    installed: InstanceId,
    unreadable: u32,
    refused: u32,
    /// How often in a row a pause was ended although a receiver was not done.
    pub(super) cuts: u32,
}

impl Mirror {
    /// Writes a fold to the store; while the group is paused it waits. Answered by
    /// [`Event::Folded`]; the next fold of the group comes after that. A fold that does not
    /// continue where the store stands is answered by [`Event::Refill`]; none is written after
    /// a [`Event::Refill`] until the whole state has come.
    pub fn fold(&mut self, fold: Fold) {
        if self.poisoned.is_some() {
            return;
        }
        let group = fold.group;
        let state = self.groups.entry(group).or_default();
        if state.refill.is_some() {
            return;
        }
        if state.pause.is_none() {
            self.apply(fold);
        } else if state.held.is_none() {
            state.held = Some(fold);
        } else {
            self.ask_refill(group, "two folds came at once".into());
        }
    }

    pub(super) fn apply(&mut self, fold: Fold) {
        let group = fold.group;
        let at = match self.store.position(group) {
            Ok(position) => position,
            Err(error) => return self.failed(group, error),
        };
        let applied = at.as_ref().map_or(InstanceId::ZERO, |position| position.applied);
        let state = self.groups.entry(group).or_default();
        if fold.to.applied < state.installed || at.as_ref() == Some(&fold.to) {
            return self.events.push(Event::Folded { group, applied });
        }
        if fold.from != applied || fold.to.applied <= applied {
            let (from, to) = (fold.from, fold.to.applied);
            let why = format!("it stands at instance {applied}, the fold goes from {from} to {to}");
            return self.ask_refill(group, why);
        }
        let mut batch = Batch::new(group, fold.from);
        fold.removed.into_iter().for_each(|key| batch.delete(key));
        fold.entries.into_iter().for_each(|entry| batch.put(entry));
        let hash = xxh3_128(&fold.sessions);
        if state.sessions != Some(hash) {
            batch.sessions(fold.sessions);
        }
        let to = fold.to.applied;
        match self.store.write(batch, fold.to) {
            Ok(()) => {
                let state = self.groups.entry(group).or_default();
                (state.sessions, state.unreadable) = (Some(hash), 0);
                self.events.push(Event::Folded { group, applied: to });
            }
            Err(error) => self.failed(group, error),
        }
    }

    /// Forgets the group: its owner knows that what the store has is wrong. Whoever was reading it
    /// looks elsewhere; the owner brings or fetches a whole state later.
    pub fn give_up(&mut self, group: GroupId) {
        if self.poisoned.is_some() {
            return;
        }
        self.break_pause(group);
        self.groups.remove(&group);
        self.garbage = true;
        if let Err(error) = self.store.discard(group) {
            self.failed(group, error);
        }
    }

    /// Takes the owner's whole state in place of what the store has: staged beside it, verified
    /// and switched in one step, durable afterwards. `entries` ascend by key. Answered by
    /// [`Event::Folded`]. A state older than the mirror's changes nothing.
    pub fn refill(&mut self, group: GroupId, position: Position, sessions: Bytes, entries: Vec<Entry>) {
        if self.poisoned.is_some() {
            return;
        }
        self.break_pause(group);
        // This is the answer; what goes wrong with it is asked for again.
        self.groups.entry(group).or_default().refill = None;
        let to = position.applied;
        let at = match self.prepare_refill(group, &position) {
            Ok(at) => at,
            Err(error @ StoreError::Io { .. }) => return self.ask_refill(group, error.to_string()),
            Err(error) => return self.failed(group, error),
        };
        if at >= to {
            let state = self.groups.entry(group).or_default();
            (state.refill, state.held) = (None, None);
            return self.events.push(Event::Folded { group, applied: at });
        }
        let hash = xxh3_128(&sessions);
        let begun = self.store.begin_generation(group, position, sessions);
        let staged = begun.and_then(|generation| self.stage_all(group, generation, &entries));
        self.garbage = true;
        self.restage(group);
        match staged.and_then(|generation| self.store.install(group, generation)) {
            Ok(_) => {
                let state = self.groups.entry(group).or_default();
                *state = Group { sessions: Some(hash), installed: state.installed, ..Group::default() };
                self.say_durable();
                self.events.push(Event::Folded { group, applied: to });
            }
            Err(
                error @ (StoreError::NotThatState { .. }
                | StoreError::Unsorted { .. }
                | StoreError::Io { .. }),
            ) => self.refused(group, error),
            Err(error) => self.failed(group, error),
        }
    }

    /// Makes room for a refill; says where the store stands afterwards.
    fn prepare_refill(&mut self, group: GroupId, position: &Position) -> Result<InstanceId, StoreError> {
        let at = match self.store.position(group) {
            Ok(at) => at.unwrap_or_default(),
            Err(StoreError::Damaged { .. }) => {
                self.discard(group)?;
                Position::default()
            }
            Err(error) => return Err(error),
        };
        if at.applied == position.applied && at != *position {
            // One of the two is wrong, and the owner's is the one that is served.
            self.discard(group)?;
            return Ok(InstanceId::ZERO);
        }
        Ok(at.applied)
    }

    fn stage_all(
        &self,
        group: GroupId,
        generation: Generation,
        mut entries: &[Entry],
    ) -> Result<Generation, StoreError> {
        while !entries.is_empty() {
            let mut bytes = 0;
            let fits = entries.iter().take(STAGE_ENTRIES).take_while(|entry| {
                bytes += entry.key.len() + entry.value.len();
                bytes <= STAGE_BYTES
            });
            let (piece, rest) = entries.split_at(fits.count().max(1));
            self.store.stage(group, generation, piece)?;
            entries = rest;
        }
        Ok(generation)
    }

    /// The owner's state is not what it says it is.
    fn refused(&mut self, group: GroupId, error: StoreError) {
        let why = error.to_string();
        if let Err(error) = self.store.abandon(group) {
            return self.failed(group, error);
        }
        let state = self.groups.entry(group).or_default();
        state.refused += 1;
        if state.refused < REFUSED {
            state.refill = None;
            self.ask_refill(group, why);
        } else {
            self.unmirrored(group, why);
        }
    }

    /// Syncs once, reads each of these groups back, compares it with its state hash and records
    /// the points: [`Event::Durable`]. A group that is not what it should be is discarded and
    /// asked for. Takes as long as reading the groups; a few at a time keep turns short. Returns
    /// what was proven: the content of these groups is that of these points.
    pub fn settle(&mut self, groups: &[GroupId], now: Time) -> Vec<(GroupId, Point)> {
        self.now = now;
        if self.poisoned.is_some() {
            return Vec::new();
        }
        let persisted = match self.store.persist() {
            Ok(persisted) => persisted,
            Err(error) => {
                self.stop(error);
                return Vec::new();
            }
        };
        let mut verified = Vec::with_capacity(groups.len());
        for &group in groups {
            match self.store.verify(group) {
                Ok(proof) => {
                    self.groups.entry(group).or_default().unreadable = 0;
                    verified.push(proof);
                    self.drop_overtaken(group, proof.point().applied);
                }
                Err(StoreError::Absent { .. }) => {}
                Err(error) => self.failed(group, error),
            }
        }
        if self.poisoned.is_some() {
            return Vec::new();
        }
        match self.store.record(&persisted, &verified) {
            Ok(_) => {
                self.say_durable();
                verified.iter().map(|proof| (proof.group(), proof.point())).collect()
            }
            Err(error) => {
                self.stop(error);
                Vec::new()
            }
        }
    }

    /// Nothing can be written any more.
    fn stop(&mut self, error: StoreError) {
        match error {
            StoreError::NoSpace { reason } => self.no_space(reason),
            error => self.poison(error.to_string()),
        }
    }

    /// Gives up a staged checkpoint that the group's own mirror has gone beyond.
    fn drop_overtaken(&mut self, group: GroupId, applied: InstanceId) {
        if self.fetches(group) {
            return;
        }
        let staging = self.store.staging(group).ok().flatten();
        if staging.is_some_and(|staging| staging.promised.applied <= applied) {
            self.garbage = true;
            if let Err(error) = self.store.abandon(group) {
                self.failed(group, error);
            }
        }
    }

    /// What a failed operation on a group means for it.
    pub(super) fn failed(&mut self, group: GroupId, error: StoreError) {
        match error {
            StoreError::Damaged { reason, .. } => self.lose(group, reason),
            StoreError::Io { .. } => {
                let state = self.groups.entry(group).or_default();
                state.unreadable += 1;
                if state.unreadable >= UNREADABLE {
                    state.unreadable = 0;
                    self.lose(group, error.to_string());
                }
            }
            StoreError::TooLarge { .. } => self.unmirrored(group, error.to_string()),
            StoreError::OutOfOrder { .. }
            | StoreError::Moved { .. }
            | StoreError::Absent { .. }
            | StoreError::NotStaged { .. }
            | StoreError::Unsorted { .. }
            | StoreError::NotThatState { .. } => self.ask_refill(group, error.to_string()),
            StoreError::Poisoned { reason } => self.poison(reason),
            StoreError::NoSpace { reason } => self.no_space(reason),
            StoreError::Unusable { .. }
            | StoreError::Locked { .. }
            | StoreError::OtherEngine { .. }
            | StoreError::NewerFormat { .. } => self.poison(error.to_string()),
        }
    }

    /// The group's content cannot be trusted: nobody gets it, its point is taken back, and its
    /// owner is asked for it.
    pub(super) fn lose(&mut self, group: GroupId, why: String) {
        self.break_pause(group);
        if let Err(error) = self.discard(group) {
            return self.stop(error);
        }
        self.restage(group);
        self.say_durable();
        self.ask_refill(group, why);
    }

    fn discard(&mut self, group: GroupId) -> Result<(), StoreError> {
        self.garbage = true;
        self.groups.entry(group).or_default().sessions = None;
        self.store.discard(group)
    }

    pub(super) fn ask_refill(&mut self, group: GroupId, why: String) {
        let state = self.groups.entry(group).or_default();
        state.held = None;
        if state.refill.is_none() {
            state.refill = Some(why.clone());
            self.events.push(Event::Refill { group, why });
        }
    }

    fn unmirrored(&mut self, group: GroupId, why: String) {
        let state = self.groups.entry(group).or_default();
        state.held = None;
        state.refill = Some(why.clone());
        self.events.push(Event::Unmirrored { group, why });
    }

    /// A checkpoint from a peer is the group's state now.
    pub(super) fn replaced(&mut self, group: GroupId, at: InstanceId) {
        let state = self.groups.entry(group).or_default();
        let held = state.held.take();
        *state = Group { installed: at, ..Group::default() };
        self.say_durable();
        // It was on its way when the checkpoint came; usually it ends below it.
        if let Some(fold) = held {
            self.apply(fold);
        }
    }

    pub(super) fn say_durable(&mut self) {
        let points = self.durable_points();
        self.events.push(Event::Durable(points));
    }
}
