//! Directories that vanish, random numbers with a seed, and a model of what a group holds.

#![allow(dead_code, reason = "every test binary uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use checkpoint::store::sim::SimEngine;
use checkpoint::store::{Batch, Directory, Engine, MirrorStore, Position, Sizes, StoreError};
use checkpoint::{Chain, Entry, StateDigest};
use groups::ids::{GroupId, InstanceId};
use groups::kv::StateHash;

/// A directory that is removed at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Small, so that tests see flushes and compactions.
pub fn small() -> Sizes {
    Sizes { memtable_bytes: 64 << 10, cache_bytes: 1 << 20, journal_bytes: 64 << 20 }
}

/// Every engine there is: the real ones, and the simulated one with and without snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fjall,
    Sled,
    Sim,
    SimWithoutSnapshots,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Fjall, Kind::Sled, Kind::Sim, Kind::SimWithoutSnapshots];

    pub fn real(self) -> Option<Engine> {
        match self {
            Kind::Fjall => Some(Engine::Fjall),
            Kind::Sled => Some(Engine::Sled),
            Kind::Sim | Kind::SimWithoutSnapshots => None,
        }
    }

    pub fn name(self) -> &'static str {
        self.real().map_or("sim", Engine::name)
    }

    pub fn has_snapshots(self) -> bool {
        matches!(self, Kind::Fjall | Kind::Sim)
    }

    /// Opens the store in `dir`. What a simulated engine holds belongs to its directory too.
    pub fn open(self, dir: &Path) -> Result<MirrorStore, StoreError> {
        match self.real() {
            Some(engine) => MirrorStore::open(dir, engine, &small()),
            None => {
                let files = Directory::open(dir).unwrap();
                MirrorStore::open_with(Arc::new(files), &self.simulated(dir))
            }
        }
    }

    pub fn simulated(self, dir: &Path) -> SimEngine {
        static ENGINES: Mutex<BTreeMap<PathBuf, SimEngine>> = Mutex::new(BTreeMap::new());
        let new = if self == Kind::Sim { SimEngine::new } else { SimEngine::without_snapshots };
        ENGINES.lock().unwrap().entry(dir.to_owned()).or_insert_with(new).clone()
    }
}

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub fn entry(key: &[u8], value: &[u8], revision: u64) -> Entry {
    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    Entry { key, value, revision, expiry: revision % 3 }
}

/// What a group should hold.
#[derive(Clone, Default)]
pub struct Model {
    pub group: GroupId,
    pub applied: InstanceId,
    pub entries: BTreeMap<Bytes, Entry>,
    pub hash: StateHash,
    pub revision: u64,
}

impl Model {
    pub fn new(group: u32) -> Model {
        Model { group: GroupId(group), ..Model::default() }
    }

    pub fn position(&self) -> Position {
        Position {
            applied: self.applied,
            chain: Chain(self.applied.0 * 31),
            state_hash: StateDigest::from(self.hash),
            revision: self.revision,
            epoch: 1,
            membership: Bytes::from_static(b"1,2,3"),
        }
    }

    pub fn put(&mut self, batch: &mut Batch, key: &[u8], value: &[u8]) {
        self.revision += 1;
        let new = entry(key, value, self.revision);
        new.add_to(&mut self.hash);
        if let Some(old) = self.entries.insert(new.key.clone(), new.clone()) {
            old.remove_from(&mut self.hash);
        }
        batch.put(new);
    }

    pub fn delete(&mut self, batch: &mut Batch, key: &[u8]) {
        if let Some(old) = self.entries.remove(key) {
            old.remove_from(&mut self.hash);
        }
        batch.delete(Bytes::copy_from_slice(key));
    }

    pub fn batch(&self) -> Batch {
        Batch::new(self.group, self.applied)
    }

    pub fn write(&mut self, store: &MirrorStore, batch: Batch) -> Result<(), StoreError> {
        self.applied = self.applied.next();
        store.write(batch, self.position())
    }

    /// One batch of puts and deletes over a few hundred keys.
    pub fn step(&mut self, store: &MirrorStore, random: &mut Random) -> Result<(), StoreError> {
        let (batch, after) = self.clone().prepare(random);
        store.write(batch, after.position())?;
        *self = after;
        Ok(())
    }

    /// Such a batch, and the model after it.
    pub fn prepare(mut self, random: &mut Random) -> (Batch, Model) {
        let mut batch = self.batch();
        for _ in 0..1 + random.below(16) {
            let key = random.below(300).to_be_bytes();
            if random.below(5) == 0 {
                self.delete(&mut batch, &key);
            } else {
                let value = vec![random.next() as u8; random.below(400) as usize];
                self.put(&mut batch, &key, &value);
            }
        }
        if random.below(8) == 0 {
            batch.sessions(Bytes::from(format!("sessions at {}", self.applied)));
        }
        self.applied = self.applied.next();
        (batch, self)
    }

    /// The store holds exactly this.
    pub fn check(&self, store: &MirrorStore) {
        let mut found = Vec::new();
        let image = store.load(self.group, |entry| found.push(entry)).unwrap();
        assert_eq!(image.position, self.position());
        assert!(found.iter().eq(self.entries.values()), "group {} differs", self.group);
    }
}
