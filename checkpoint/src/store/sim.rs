//! An engine in memory that forgets, fails and dies like a real one.
//!
//! A [`SimEngine`] is a handle; what it holds is shared and survives the store that was opened
//! on it. [`crash`](SimEngine::crash) is a power loss: what was synced stays, of the batches
//! behind it a prefix. [`kill`](SimEngine::kill) is the death of the process alone. Both end the
//! life of every store opened before.
//!
//! Real engines have checksums of their own. This one has none, so that damage reaches the
//! store, where the state hash has to find it.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use groups::ids::GroupId;

use super::engine::{OpenEngine, Store, View, Visit, Writes};
use super::error::EngineError;
use super::files::Files;
use super::keys::{self, Kind};
use super::{durable, locked};

type Map = BTreeMap<Vec<u8>, Bytes>;

/// Writes in key order; `None` deletes.
type Ops = Vec<(Vec<u8>, Option<Bytes>)>;

/// A handle to a simulated engine; clones share it.
#[derive(Clone)]
pub struct SimEngine {
    world: Arc<Mutex<World>>,
}

/// What a flipped bit hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// Where the group stands.
    Position(GroupId),
    /// The progress of a checkpoint on its way in.
    Staging(GroupId),
    /// A session table.
    Sessions(GroupId),
    /// An entry, of whichever generation.
    Entry(GroupId),
}

#[derive(Default)]
struct World {
    life: u64,
    /// Whether a store of this life is open.
    open: bool,
    exists: bool,
    snapshots: bool,
    /// What a read sees. Shared with the snapshots; copied by the first write beside one.
    live: Arc<Map>,
    /// What a power loss leaves.
    durable: Map,
    /// What came since, oldest first.
    unsynced: Vec<Ops>,
    /// A batch whose write failed: a power loss may leave it all the same.
    torn: Option<Ops>,
    operations: u64,
    faults: Faults,
}

#[derive(Default)]
struct Faults {
    stop_at: Option<u64>,
    dead: bool,
    write: Option<(u64, io::ErrorKind)>,
    sync: Option<(u64, io::ErrorKind)>,
    read: Option<(u64, io::ErrorKind)>,
    /// After a failed sync the next ones report success and sync nothing.
    sync_failed: bool,
    unusable: bool,
}

/// Control of the engine. Works in every life.
impl SimEngine {
    /// An empty engine with snapshots, like fjall.
    #[must_use]
    pub fn new() -> SimEngine {
        let world = World { snapshots: true, ..World::default() };
        SimEngine { world: Arc::new(Mutex::new(world)) }
    }

    /// An empty engine without snapshots, like sled.
    #[must_use]
    pub fn without_snapshots() -> SimEngine {
        SimEngine { world: Arc::default() }
    }

    /// Power loss: of the batches that were not synced the first `keep % (count + 1)` stay.
    /// Faults that were asked for are over; what was damaged stays so.
    pub fn crash(&self, keep: u64) {
        let mut world = self.world();
        let torn = world.torn.take();
        let unsynced: Vec<Ops> = std::mem::take(&mut world.unsynced).into_iter().chain(torn).collect();
        let keep = (keep % (unsynced.len() as u64 + 1)) as usize;
        for ops in unsynced.into_iter().take(keep) {
            apply(&mut world.durable, &ops);
        }
        world.live = Arc::new(world.durable.clone());
        world.end_life();
    }

    /// The process dies; the kernel keeps what it has.
    pub fn kill(&self) {
        self.world().end_life();
    }

    /// How many batches a power loss could take.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.world().unsynced.len()
    }

    /// How many operations have changed something: batches and syncs.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// All operations behind the `n`th from the start of the engine fail and do nothing, and
    /// with the first of them every read too: the process died there.
    pub fn stop_after(&self, n: u64) {
        self.world().faults.stop_at = Some(n);
    }

    /// Whether [`SimEngine::stop_after`] has struck.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.world().faults.dead
    }

    /// The `n`th batch from now on (the next is 1) fails, for example with
    /// `io::ErrorKind::StorageFull`. Whether a power loss leaves it is open as with any other.
    pub fn fail_write(&self, n: u64, kind: io::ErrorKind) {
        self.world().faults.write = Some((n, kind));
    }

    /// The `n`th sync from now on (the next is 1) fails; later ones report success and do
    /// nothing, as Linux does.
    pub fn fail_sync(&self, n: u64, kind: io::ErrorKind) {
        self.world().faults.sync = Some((n, kind));
    }

    /// The `n`th read from now on (the next is 1) fails.
    pub fn fail_read(&self, n: u64, kind: io::ErrorKind) {
        self.world().faults.read = Some((n, kind));
    }

    /// How many values it holds that have a bit to flip.
    #[must_use]
    pub fn values(&self) -> usize {
        self.world().live.values().filter(|value| !value.is_empty()).count()
    }

    /// Flips one bit of the `n`th value in key order (modulo their number), on the medium.
    /// `None` if there is none.
    pub fn flip(&self, n: u64, bit: u64) -> Option<Hit> {
        self.flip_where(n, bit, |_| true)
    }

    /// As [`SimEngine::flip`], of values of one kind only, such as `|hit| hit == Hit::Entry(g)`.
    pub fn flip_where(&self, n: u64, bit: u64, of_kind: impl Fn(Hit) -> bool) -> Option<Hit> {
        let mut world = self.world();
        let found = world.live.iter().filter(|(_, value)| !value.is_empty());
        let found: Vec<(&Vec<u8>, Hit)> =
            found.filter_map(|(key, _)| Some((key, hit(key)?))).filter(|(_, hit)| of_kind(*hit)).collect();
        let at = n.checked_rem(found.len() as u64)? as usize;
        let (key, hit) = (found[at].0.clone(), found[at].1);
        let World { live, durable, unsynced, .. } = &mut *world;
        if let Some(value) = Arc::make_mut(live).get_mut(&key) {
            flip(value, bit);
        }
        // A sync writes what is there: the newest copy is the damaged one.
        let newest = unsynced.iter_mut().rev().flatten().find(|(written, _)| *written == key);
        if let Some(value) = newest.map_or_else(|| durable.get_mut(&key), |(_, value)| value.as_mut()) {
            flip(value, bit);
        }
        Some(hit)
    }

    /// Loses everything without a trace: it opens again, empty.
    pub fn forget(&self) {
        let mut world = self.world();
        world.live = Arc::default();
        world.durable.clear();
        world.unsynced.clear();
        world.torn = None;
    }

    /// Its files are destroyed: it does not open until it is [`quarantine`]d.
    pub fn destroy(&self) {
        self.forget();
        self.world().faults.unusable = true;
    }

    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.world().live.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        locked(&self.world)
    }

    /// The engine for a store that was opened in `life`.
    fn world_of(&self, life: u64) -> Result<MutexGuard<'_, World>, EngineError> {
        let world = self.world();
        if world.life != life {
            return Err(EngineError::Io(io::Error::other("a handle from before the crash")));
        }
        Ok(world)
    }

    fn read(&self, life: u64) -> Result<Arc<Map>, EngineError> {
        let mut world = self.world_of(life)?;
        world.alive()?;
        match due(&mut world.faults.read) {
            Some(error) => Err(error),
            None => Ok(world.live.clone()),
        }
    }
}

impl Default for SimEngine {
    fn default() -> SimEngine {
        SimEngine::new()
    }
}

/// What [`super::quarantine`] does to a directory: makes room for an empty store.
///
/// # Errors
/// Whatever the files report.
pub fn quarantine(files: &dyn Files, engine: &SimEngine) -> io::Result<()> {
    // The trust goes first.
    durable::remove(files)?;
    ["panicked", "opening"].into_iter().try_for_each(|name| files.remove(name))?;
    engine.forget();
    let mut world = engine.world();
    world.faults.unusable = false;
    world.exists = false;
    Ok(())
}

impl World {
    fn end_life(&mut self) {
        self.life += 1;
        self.torn = None;
        self.open = false;
        self.faults = Faults { unusable: self.faults.unusable, ..Faults::default() };
    }

    /// Counts an operation that changes something, unless the process has died before it.
    fn operate(&mut self) -> Result<(), EngineError> {
        self.faults.dead |= self.faults.stop_at.is_some_and(|stop| self.operations >= stop);
        self.alive()?;
        self.operations += 1;
        Ok(())
    }

    fn alive(&self) -> Result<(), EngineError> {
        if self.faults.dead {
            return Err(EngineError::Io(io::Error::other("the simulated process has stopped")));
        }
        Ok(())
    }

    fn commit(&mut self, ops: Ops) {
        apply(Arc::make_mut(&mut self.live), &ops);
        self.unsynced.push(ops);
    }
}

fn apply(map: &mut Map, ops: &Ops) {
    for (key, value) in ops {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

fn flip(value: &mut Bytes, bit: u64) {
    let mut bytes = value.to_vec();
    let bit = (bit % (bytes.len() as u64 * 8).max(1)) as usize;
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
    *value = bytes.into();
}

fn hit(key: &[u8]) -> Option<Hit> {
    let (kind, group) = keys::kind(key)?;
    match kind {
        Kind::Current => Some(Hit::Position(group)),
        Kind::Staging => Some(Hit::Staging(group)),
        Kind::Sessions => Some(Hit::Sessions(group)),
        Kind::Entry => Some(Hit::Entry(group)),
        Kind::Garbage => None,
    }
}

/// Whether the fault strikes now.
fn due(fault: &mut Option<(u64, io::ErrorKind)>) -> Option<EngineError> {
    let (left, kind) = fault.as_mut()?;
    *left = left.saturating_sub(1);
    if *left > 0 {
        return None;
    }
    let error = io::Error::new(*kind, "injected");
    *fault = None;
    Some(EngineError::Io(error))
}

impl OpenEngine for SimEngine {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn exists(&self) -> io::Result<bool> {
        Ok(self.world().exists)
    }

    fn open(&self) -> Result<Box<dyn Store>, EngineError> {
        let mut world = self.world();
        world.alive()?;
        if world.faults.unusable {
            return Err(EngineError::Corrupt("the simulated engine is destroyed".into()));
        }
        if world.open {
            return Err(EngineError::Locked);
        }
        (world.open, world.exists) = (true, true);
        // What a failed write has left of itself is cut off.
        world.torn = None;
        Ok(Box::new(Opened { life: world.life, engine: self.clone() }))
    }
}

/// The engine in one life.
struct Opened {
    engine: SimEngine,
    life: u64,
}

impl Opened {
    fn world(&self) -> Result<MutexGuard<'_, World>, EngineError> {
        self.engine.world_of(self.life)
    }

    fn read(&self) -> Result<Arc<Map>, EngineError> {
        self.engine.read(self.life)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Ok(mut world) = self.world() {
            world.open = false;
        }
    }
}

impl View for Opened {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.read()?.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        scan(&*self.read()?, from, to, visit);
        Ok(())
    }
}

impl Store for Opened {
    fn as_view(&self) -> &dyn View {
        self
    }

    fn write(&self, writes: Writes) -> Result<(), EngineError> {
        let mut world = self.world()?;
        world.operate()?;
        let ops: Ops = writes.into_ops().map(|(key, value)| (key, value.map(Bytes::from))).collect();
        if let Some(error) = due(&mut world.faults.write) {
            world.torn = Some(ops);
            return Err(error);
        }
        world.commit(ops);
        Ok(())
    }

    /// Several batches even of the small states of a simulation.
    fn ingest(
        &self,
        mark: (Vec<u8>, Vec<u8>),
        mut sorted: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), EngineError> {
        while !sorted.is_empty() {
            let rest = sorted.split_off(sorted.len().div_ceil(2));
            let mut writes = Writes::default();
            sorted.into_iter().for_each(|(key, value)| writes.put(key, value));
            self.write(writes)?;
            sorted = rest;
        }
        let mut writes = Writes::default();
        writes.put(mark.0, mark.1);
        self.write(writes)
    }

    fn ingest_from(&self) -> usize {
        256
    }

    fn snapshot(&self) -> Option<Box<dyn View>> {
        let world = self.world().ok()?;
        let at = Instant { map: world.live.clone(), engine: self.engine.clone(), life: self.life };
        world.snapshots.then(|| -> Box<dyn View> { Box::new(at) })
    }

    fn sync(&self) -> Result<(), EngineError> {
        let mut world = self.world()?;
        world.operate()?;
        if let Some(error) = due(&mut world.faults.sync) {
            world.faults.sync_failed = true;
            return Err(error);
        }
        if !world.faults.sync_failed {
            for ops in std::mem::take(&mut world.unsynced) {
                apply(&mut world.durable, &ops);
            }
        }
        Ok(())
    }

    fn bytes_elsewhere(&self) -> u64 {
        self.engine.bytes()
    }
}

struct Instant {
    map: Arc<Map>,
    engine: SimEngine,
    life: u64,
}

impl Instant {
    /// A snapshot dies with its store, and its reads fail like the others.
    fn alive(&self) -> Result<(), EngineError> {
        self.engine.read(self.life).map(drop)
    }
}

impl View for Instant {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.alive()?;
        Ok(self.map.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        self.alive()?;
        scan(&self.map, from, to, visit);
        Ok(())
    }
}

fn scan(map: &Map, from: &[u8], to: &[u8], visit: &mut Visit<'_>) {
    if from >= to {
        return;
    }
    for (key, value) in map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
        if let ControlFlow::Break(()) = visit(key, value) {
            break;
        }
    }
}
