//! The store behind the mirror.
//!
//! One engine ([`Engine`]) holds every group of a node. A group's entries lie under
//! (group, generation, key), and beside them, written in the same atomic batch, its
//! [`Position`]. So after any crash data and position agree, and [`MirrorStore::verify`] can
//! prove it: the hash of the entries is the one in the position.
//!
//! The log is the durability: a write is not synced. Now and then the mirror calls
//! [`MirrorStore::persist`], verifies a group and [`MirrorStore::record`]s the point; only
//! recorded points ([`MirrorStore::durable`]) may let log go. A store that opens with less than
//! it once recorded says so, group by group, as [`StoreError::Damaged`].
//!
//! A checkpoint from a peer goes into a fresh generation ([`MirrorStore::begin_generation`],
//! [`MirrorStore::stage`]) while the old one stays in force; [`MirrorStore::install`] verifies,
//! syncs and switches in one batch. What the switch leaves behind goes away in bounded steps
//! ([`MirrorStore::sweep`]).
//!
//! ```text
//! <dir>/format     which engine, which version
//! <dir>/durable    the points that log GC may trust
//! <dir>/panicked   only after the engine panicked
//! <dir>/opening    only while the engine is opened
//! <dir>/engine/    the engine's own files
//! ```

mod batch;
mod directory;
mod durable;
mod engine;
mod error;
mod files;
mod fjall;
mod guard;
mod install;
mod journal;
mod keys;
mod reader;
mod record;
pub mod sim;
mod sled;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use groups::ids::{GroupId, InstanceId};
use groups::planted::{self, Bug};

use self::directory::{check_format, lost_since, read_table};
use self::engine::InDirectory;
use self::guard::Guard;
use self::record::{Current, SessionStamp};
use crate::entry::{Entry, Generation};

pub use self::batch::Batch;
pub use self::directory::quarantine;
pub use self::durable::{Point, Points};
pub use self::engine::{Engine, OpenEngine, Sizes, Store, UnknownEngine, View, Visit, Writes};
pub use self::error::{EngineError, StoreError};
pub use self::files::{Directory, DiskFiles, Files};
pub use self::install::Swept;
pub use self::reader::{Chunk, ChunkLimit, Image, Reader};
pub use self::record::{MAX_MEMBERSHIP, MAX_SESSIONS, Position, PositionDigest, Staging};

/// The mirrors of all groups of a node, in one directory. One thread writes a group at a time;
/// different groups may be written and read by different threads.
pub struct MirrorStore {
    files: Arc<dyn Files>,
    engine: &'static str,
    store: Box<dyn Store>,
    guard: Guard,
    groups: Mutex<BTreeMap<GroupId, Arc<Mutex<GroupState>>>>,
    durable: Mutex<Points>,
    poison: OnceLock<Poison>,
}

/// Why nothing is written any more.
struct Poison {
    reason: String,
    no_space: bool,
}

impl Poison {
    fn error(&self) -> StoreError {
        let reason = self.reason.clone();
        if self.no_space { StoreError::NoSpace { reason } } else { StoreError::Poisoned { reason } }
    }
}

/// What the group table in the engine says about one group.
#[derive(Default)]
struct GroupState {
    current: Option<Current>,
    staging: Option<Staging>,
    garbage: Vec<Garbage>,
    damaged: Option<String>,
}

/// A generation to be swept.
#[derive(Clone)]
struct Garbage {
    generation: Generation,
    /// Nothing is left below this raw key. Without it each step would begin with all the
    /// deleted keys of the steps before, which an engine may keep for long.
    from: Option<Vec<u8>>,
}

impl From<Generation> for Garbage {
    fn from(generation: Generation) -> Garbage {
        Garbage { generation, from: None }
    }
}

impl GroupState {
    /// Above every generation that has keys in the engine.
    fn next_generation(&self) -> Generation {
        let used = [
            self.current.as_ref().map(|current| current.generation),
            self.staging.as_ref().map(|staging| staging.generation),
            self.garbage.iter().map(|garbage| garbage.generation).max(),
        ];
        Generation(used.into_iter().flatten().max().map_or(1, |Generation(last)| last + 1))
    }
}

/// What [`MirrorStore::persist`] put on the disk: where every group stood before the sync
/// began. All of it survives power loss; none of it is verified.
#[derive(Clone, Debug)]
pub struct Persisted(Points);

impl Persisted {
    /// Where a group stood.
    #[must_use]
    pub fn point(&self, group: GroupId) -> Option<Point> {
        self.0.get(&group).copied()
    }
}

/// A group whose entries hashed to what its position says: only [`MirrorStore::verify`] and
/// [`MirrorStore::load`] make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    group: GroupId,
    point: Point,
}

impl Verified {
    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The point that was verified.
    #[must_use]
    pub fn point(&self) -> Point {
        self.point
    }
}

impl MirrorStore {
    /// Opens the store in `dir`, or creates it where there is none. A store that is found empty
    /// or behind without having recorded anything cannot tell that it lost data: the caller
    /// compares each position with where its log begins.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the directory has to be rebuilt, [`StoreError::Locked`],
    /// [`StoreError::OtherEngine`], [`StoreError::NewerFormat`] and [`StoreError::Io`] when it
    /// only cannot be opened now or by this program. A single damaged group is no error here.
    pub fn open(dir: &Path, engine: Engine, sizes: &Sizes) -> Result<MirrorStore, StoreError> {
        let files = Directory::open(dir).map_err(StoreError::io("creating the directory"))?;
        let engine = InDirectory { engine, dir: dir.join("engine"), sizes };
        MirrorStore::open_at(Arc::new(files), Some(dir), &engine)
    }

    /// Opens the store whose small files are `files` and whose data is in `engine`: as
    /// [`MirrorStore::open`], for stores that lie in no directory.
    ///
    /// # Errors
    /// As [`MirrorStore::open`].
    pub fn open_with(files: Arc<dyn Files>, engine: &dyn OpenEngine) -> Result<MirrorStore, StoreError> {
        MirrorStore::open_at(files, None, engine)
    }

    fn open_at(
        files: Arc<dyn Files>,
        dir: Option<&Path>,
        engine: &dyn OpenEngine,
    ) -> Result<MirrorStore, StoreError> {
        let place = || files.place().to_owned();
        let unusable = |reason: String| StoreError::Unusable { dir: place(), reason };
        let guard = Guard::new(files.clone(), dir);
        if let Some(reason) = guard.refuses() {
            return Err(unusable(reason));
        }
        check_format(files.as_ref(), engine)?;
        let durable = durable::load(files.as_ref()).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => unusable(e.to_string()),
            _ => StoreError::Io { what: "reading the durable points", source: e },
        })?;
        let opened = guard.open(|| {
            let store = engine.open()?;
            let table = read_table(store.as_ref())?;
            Ok((store, table))
        });
        let (store, mut groups) = opened.map_err(|e| match e {
            EngineError::Corrupt(reason) | EngineError::Poisoned(reason) => unusable(reason),
            EngineError::Locked => StoreError::Locked { dir: place() },
            EngineError::Io(source) => StoreError::Io { what: "opening the engine", source },
        })?;
        for (&group, point) in &durable {
            let state = groups.entry(group).or_default();
            if let (None, Some(reason)) = (&state.damaged, lost_since(point, state.current.as_ref())) {
                state.damaged = Some(reason);
            }
        }
        let groups = groups.into_iter().map(|(group, state)| (group, Arc::new(Mutex::new(state))));
        Ok(MirrorStore {
            engine: engine.name(),
            files,
            store,
            guard,
            groups: Mutex::new(groups.collect()),
            durable: Mutex::new(durable),
            poison: OnceLock::new(),
        })
    }

    /// The name of the engine in use.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// What the place of the store is called: its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.files.place()
    }

    /// Every group with anything in the store, damaged ones included.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        locked(&self.groups).keys().copied().collect()
    }

    /// The groups that are known to be damaged, each with what was found.
    #[must_use]
    pub fn damaged(&self) -> Vec<(GroupId, String)> {
        let states: Vec<_> = locked(&self.groups).iter().map(|(&group, s)| (group, s.clone())).collect();
        let found = states.iter().filter_map(|(group, state)| Some((*group, locked(state).damaged.clone()?)));
        found.collect()
    }

    /// Every recorded point.
    #[must_use]
    pub fn durable_points(&self) -> Points {
        locked(&self.durable).clone()
    }

    /// Where a group stands; `None` for a group without state here.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn position(&self, group: GroupId) -> Result<Option<Position>, StoreError> {
        let state = self.state(group);
        let state = locked(&state);
        sound(group, &state)?;
        Ok(state.current.as_ref().map(|current| current.position.clone()))
    }

    /// A group's session table; empty for a group without state here.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], also when the table is not the one that belongs to the position.
    pub fn sessions(&self, group: GroupId) -> Result<Bytes, StoreError> {
        let state = self.state(group);
        let mut state = locked(&state);
        sound(group, &state)?;
        let Some(current) = &state.current else { return Ok(Bytes::new()) };
        let (generation, stamp) = (current.generation, current.sessions);
        let read = self.guard.run(|| read_sessions(self.store.as_view(), group, generation, stamp));
        read.map_err(|e| self.condemn(group, &mut state, e))
    }

    /// One entry of a group.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn get(&self, group: GroupId, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        let state = self.state(group);
        let mut state = locked(&state);
        sound(group, &state)?;
        let Some(current) = &state.current else { return Ok(None) };
        let raw = keys::entry(group, current.generation, key);
        let read = self.guard.run(|| {
            let Some(value) = self.store.get(&raw)? else { return Ok(None) };
            let entry = record::decode_entry(key, &value).map(|entry| entry.to_entry());
            entry.map(Some).ok_or_else(|| EngineError::Corrupt("an entry is too short".into()))
        });
        read.map_err(|e| self.condemn(group, &mut state, e))
    }

    /// Puts everything written so far on the disk and says what that was. Trust in it takes
    /// [`MirrorStore::verify`] and [`MirrorStore::record`].
    ///
    /// # Errors
    /// [`StoreError::Poisoned`], from then on for ever: a failed sync is never repeated.
    pub fn persist(&self) -> Result<Persisted, StoreError> {
        self.check_poison()?;
        // Taken before the sync: whatever is written while it runs may miss it.
        let states: Vec<_> = locked(&self.groups).iter().map(|(&group, s)| (group, s.clone())).collect();
        let points = states.iter().filter_map(|(group, state)| {
            let state = locked(state);
            let current = state.current.as_ref().filter(|_| state.damaged.is_none())?;
            Some((*group, point_of(&current.position)))
        });
        let points = Persisted(points.collect());
        if !planted::is(Bug::MirrorNotSynced) {
            self.guard.run(|| self.store.sync()).map_err(|e| self.poison(e))?;
        }
        self.guard.clear();
        Ok(points)
    }

    /// Records verified points durably, so that log GC may trust them. A point is recorded only
    /// if `persisted` covers it, and never below an earlier one. Returns every recorded point.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] when the record cannot be written.
    pub fn record(&self, persisted: &Persisted, verified: &[Verified]) -> Result<Points, StoreError> {
        self.check_poison()?;
        let verified: Points = verified.iter().map(|v| (v.group, v.point)).collect();
        let states: Vec<_> = verified.iter().map(|(&g, &point)| (g, point, self.state(g))).collect();
        // Held until the record is written, in ascending order of groups: a group that is
        // discarded meanwhile must not get its point back.
        let states: Vec<_> = states.iter().map(|(g, point, state)| (*g, *point, locked(state))).collect();
        let mut durable = locked(&self.durable);
        let mut next = durable.clone();
        for (group, point, state) in &states {
            let at = state.current.as_ref().map_or(NOTHING, |current| current.position.applied);
            let sound = state.damaged.is_none() && at >= point.applied;
            let covered = persisted.point(*group).is_some_and(|p| p.applied >= point.applied);
            let newer = next.get(group).is_none_or(|p| p.applied < point.applied);
            if sound && covered && newer {
                next.insert(*group, *point);
            }
        }
        self.save_durable(&mut durable, next)?;
        Ok(durable.clone())
    }

    /// The recorded point of a group: the log up to its instance may go.
    #[must_use]
    pub fn durable(&self, group: GroupId) -> Option<Point> {
        locked(&self.durable).get(&group).copied()
    }

    /// Bytes that the store occupies on the disk.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        let beside = self.files.total_bytes().map_err(StoreError::io("measuring the directory"))?;
        Ok(beside + self.store.bytes_elsewhere())
    }

    fn state(&self, group: GroupId) -> Arc<Mutex<GroupState>> {
        locked(&self.groups).get(&group).cloned().unwrap_or_default()
    }

    /// Like [`MirrorStore::state`], for a group that is about to have something in the store.
    fn state_to_write(&self, group: GroupId) -> Arc<Mutex<GroupState>> {
        locked(&self.groups).entry(group).or_default().clone()
    }

    fn save_durable(&self, durable: &mut Points, next: Points) -> Result<(), StoreError> {
        if next != *durable {
            let saved = durable::save(self.files.as_ref(), &next);
            // A new file is written each time: what a full disk refused takes nothing with it.
            saved.map_err(|e| self.poison_write(EngineError::Io(e)))?;
            *durable = next;
        }
        Ok(())
    }

    fn commit(&self, writes: Writes) -> Result<(), StoreError> {
        self.check_poison()?;
        self.guard.run(|| self.store.write(writes)).map_err(|e| self.poison_write(e))
    }

    fn check_poison(&self) -> Result<(), StoreError> {
        match self.poison.get() {
            Some(poison) => Err(poison.error()),
            None => Ok(()),
        }
    }

    /// After a failed write nobody knows what is on the disk; but where it failed for want of space
    /// the engine, opened anew, has all of it or nothing.
    fn poison_write(&self, error: EngineError) -> StoreError {
        let no_space = matches!(&error, EngineError::Io(e) if error::is_no_space(e));
        self.poison_for(error, no_space)
    }

    /// After a failed sync nobody knows what is on the disk, whatever the reason was.
    fn poison(&self, error: EngineError) -> StoreError {
        self.poison_for(error, false)
    }

    fn poison_for(&self, error: EngineError, no_space: bool) -> StoreError {
        let reason = match error {
            EngineError::Corrupt(reason) | EngineError::Poisoned(reason) => reason,
            EngineError::Locked => "the engine lost its lock".into(),
            EngineError::Io(e) => e.to_string(),
        };
        self.poison.get_or_init(|| Poison { reason, no_space }).error()
    }

    /// What a failed read means for its group: damage stays with the group until it is
    /// discarded, a refusal of the operating system says nothing about it.
    fn condemn(&self, group: GroupId, state: &mut GroupState, error: EngineError) -> StoreError {
        match error {
            EngineError::Io(source) => StoreError::Io { what: "reading the engine", source },
            EngineError::Corrupt(reason) | EngineError::Poisoned(reason) => {
                state.damaged = Some(reason.clone());
                StoreError::Damaged { group, reason }
            }
            EngineError::Locked => StoreError::Locked { dir: self.dir().to_owned() },
        }
    }
}

fn read_sessions(
    view: &dyn View,
    group: GroupId,
    generation: Generation,
    stamp: SessionStamp,
) -> Result<Bytes, EngineError> {
    let sessions = view.get(&keys::sessions(group, generation))?.unwrap_or_default();
    if SessionStamp::of(&sessions) != stamp {
        return Err(EngineError::Corrupt("the session table does not belong to the position".into()));
    }
    Ok(sessions)
}

fn point_of(position: &Position) -> Point {
    Point { applied: position.applied, chain: position.chain, state_hash: position.state_hash }
}

fn sound(group: GroupId, state: &GroupState) -> Result<(), StoreError> {
    match &state.damaged {
        Some(reason) => Err(StoreError::Damaged { group, reason: reason.clone() }),
        None => Ok(()),
    }
}

/// Bounds a caller's bytes before anything is written.
fn bounded(what: &'static str, bytes: usize, limit: usize) -> Result<(), StoreError> {
    if bytes > limit {
        return Err(StoreError::TooLarge { what, bytes, limit });
    }
    Ok(())
}

/// No code that holds these locks leaves its data half changed when it panics: state in memory
/// changes after the engine has taken the write.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The instance before a group's first.
const NOTHING: InstanceId = InstanceId::ZERO;
