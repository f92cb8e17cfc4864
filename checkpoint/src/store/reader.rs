//! Reading a whole group in order, in bounded chunks, resumable by key.

use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;
use groups::ids::GroupId;

use super::engine::View;
use super::error::EngineError;
use super::record::{self, Current, SessionStamp};
use super::{MirrorStore, Position, StoreError, Verified};
use super::{keys, locked, point_of, read_sessions, sound};
use crate::entry::{Entry, EntryRef, Generation, StateDigest};
use groups::kv::StateHash;

/// How much one chunk may hold; the first entry comes in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimit {
    /// Entries.
    pub entries: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

impl ChunkLimit {
    /// Everything at once.
    pub(super) const ALL: ChunkLimit = ChunkLimit { entries: usize::MAX, bytes: usize::MAX };
}

impl Default for ChunkLimit {
    fn default() -> ChunkLimit {
        ChunkLimit { entries: 4096, bytes: 256 << 10 }
    }
}

/// A run of a group's entries in ascending key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Whether no entry follows.
    pub last: bool,
}

/// A group's state besides its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where it stands.
    pub position: Position,
    /// Its session table.
    pub sessions: Bytes,
    /// Proof that the entries were what the position says.
    pub verified: Verified,
}

/// One state of a group, read in chunks. With snapshots ([`super::Engine::has_snapshots`]) it
/// stands still while the group is written; without, a write in between is noticed as
/// [`StoreError::Moved`], so the mirror is paused for as long.
///
/// A snapshot keeps what it sees on the disk: not to be held for ever.
pub struct Reader<'a> {
    store: &'a MirrorStore,
    instant: Option<Box<dyn View>>,
    group: GroupId,
    current: Current,
}

impl MirrorStore {
    /// Begins to read a group as it stands now.
    ///
    /// # Errors
    /// [`StoreError::Absent`], [`StoreError::Damaged`].
    pub fn reader(&self, group: GroupId) -> Result<Reader<'_>, StoreError> {
        let state = self.state(group);
        // Held over the snapshot, so that no write of the group lies between the two.
        let state = locked(&state);
        sound(group, &state)?;
        let current = state.current.clone().ok_or(StoreError::Absent { group })?;
        Ok(Reader { store: self, instant: self.store.snapshot(), group, current })
    }

    /// Hands every entry of a group to `take` in key order, and afterwards proves that together
    /// they were the state its position promises. Nothing taken may be used before that.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they were not, [`StoreError::Absent`],
    /// [`StoreError::Moved`].
    pub fn load(&self, group: GroupId, mut take: impl FnMut(Entry)) -> Result<Image, StoreError> {
        self.load_raw(group, |entry| take(entry.to_entry()))
    }

    /// As [`MirrorStore::load`], without copying the entries.
    ///
    /// # Errors
    /// As [`MirrorStore::load`].
    pub fn load_raw(&self, group: GroupId, mut take: impl FnMut(EntryRef<'_>)) -> Result<Image, StoreError> {
        let reader = self.reader(group)?;
        let sessions = reader.sessions()?;
        reader.check_position()?;
        let mut hash = StateHash::default();
        reader.visit(None, ChunkLimit::ALL, &mut |entry| {
            entry.add_to(&mut hash);
            take(entry);
        })?;
        let position = reader.current.position;
        let found = StateDigest::from(hash);
        if found != position.state_hash {
            let reason = format!(
                "its entries at instance {} hash to {found}, its position promises {}",
                position.applied, position.state_hash
            );
            locked(&self.state(group)).damaged = Some(reason.clone());
            return Err(StoreError::Damaged { group, reason });
        }
        let verified = Verified { group, point: point_of(&position) };
        Ok(Image { position, sessions, verified })
    }

    /// Proves that a group's entries are the state its position promises, by reading them all.
    ///
    /// # Errors
    /// As [`MirrorStore::load`].
    pub fn verify(&self, group: GroupId) -> Result<Verified, StoreError> {
        self.load_raw(group, |_| {}).map(|image| image.verified)
    }

    /// Shows the entries of any generation behind `after`; the caller knows that it stands still.
    /// Returns whether they were the last.
    pub(super) fn visit_of(
        &self,
        view: &dyn View,
        group: GroupId,
        generation: Generation,
        after: Option<&[u8]>,
        limit: ChunkLimit,
        take: &mut dyn FnMut(EntryRef<'_>),
    ) -> Result<bool, EngineError> {
        let (first, to) = keys::entries(group, generation);
        let from = after.map_or(first, |key| keys::after(group, generation, key));
        let (mut entries, mut bytes, mut last) = (0, 0_usize, true);
        let mut damage = None;
        self.guard.run(|| {
            view.scan(&from, &to, &mut |raw, value| {
                bytes += raw.len() + value.len();
                let full = entries >= limit.entries || bytes > limit.bytes;
                if full && entries > 0 {
                    last = false;
                    return ControlFlow::Break(());
                }
                entries += 1;
                match keys::user_key(raw).and_then(|key| record::decode_entry(key, value)) {
                    Some(entry) => take(entry),
                    None => {
                        damage = Some("an entry is too short");
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            })
        })?;
        match damage {
            Some(reason) => Err(EngineError::Corrupt(reason.into())),
            None => Ok(last),
        }
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader of group {} at instance {}", self.group, self.current.position.applied)
    }
}

impl Reader<'_> {
    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Where the group stands in what is read.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.current.position
    }

    /// The session table that belongs to it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Moved`].
    pub fn sessions(&self) -> Result<Bytes, StoreError> {
        let stamp: SessionStamp = self.current.sessions;
        self.read(|view| {
            self.store.guard.run(|| read_sessions(view, self.group, self.current.generation, stamp))
        })
    }

    /// Proves that the position in the engine is still the one that is known here: what is
    /// verified is what a restart will find.
    fn check_position(&self) -> Result<(), StoreError> {
        let raw = keys::current(self.group);
        self.read(|view| {
            let found = self.store.guard.run(|| view.get(&raw))?;
            match found.as_deref().and_then(Current::decode) {
                Some(found) if found == self.current => Ok(()),
                _ => Err(EngineError::Corrupt("its position is not the one that was written".into())),
            }
        })
    }

    /// The entries behind `after` (`None`: from the first), up to the limit.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Moved`].
    pub fn chunk(&self, after: Option<&[u8]>, limit: ChunkLimit) -> Result<Chunk, StoreError> {
        let mut entries = Vec::new();
        let last = self.visit(after, limit, &mut |entry| entries.push(entry.to_entry()))?;
        Ok(Chunk { entries, last })
    }

    /// Shows the entries behind `after` (`None`: from the first) up to the limit. Returns whether
    /// no entry follows.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Moved`]; what was shown is then worth nothing.
    pub fn visit(
        &self,
        after: Option<&[u8]>,
        limit: ChunkLimit,
        take: &mut dyn FnMut(EntryRef<'_>),
    ) -> Result<bool, StoreError> {
        self.read(|view| self.store.visit_of(view, self.group, self.current.generation, after, limit, take))
    }

    fn read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, EngineError>) -> Result<T, StoreError> {
        let state = self.store.state(self.group);
        if let Some(instant) = &self.instant {
            let result = read(instant.as_ref());
            return result.map_err(|e| self.store.condemn(self.group, &mut locked(&state), e));
        }
        // Held over the read: no write of the group can come between the check and the end.
        let mut state = locked(&state);
        if state.current.as_ref() != Some(&self.current) {
            return Err(StoreError::Moved { group: self.group });
        }
        read(self.store.store.as_view()).map_err(|e| self.store.condemn(self.group, &mut state, e))
    }
}
