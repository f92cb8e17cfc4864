//! The door to the storage engine: an ordered map of bytes with atomic batches, no more.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;

use super::error::EngineError;
use super::{fjall, sled};

/// Which engine keeps the mirror; `[checkpoint] engine` in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// A log-structured merge tree with snapshots (fjall 3).
    #[default]
    Fjall,
    /// A lock-free B-link tree over a log (sled 0.34), without snapshots.
    Sled,
}

impl Engine {
    /// Every engine, the default first.
    pub const ALL: [Engine; 2] = [Engine::Fjall, Engine::Sled];

    /// The name in the configuration and in the store's format file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Engine::Fjall => "fjall",
            Engine::Sled => "sled",
        }
    }

    /// Whether a [`super::Reader`] sees one instant while writes go on. Without it the mirror
    /// is paused for as long as a reader is used.
    #[must_use]
    pub fn has_snapshots(self) -> bool {
        matches!(self, Engine::Fjall)
    }

    pub(crate) fn open(self, dir: &Path, sizes: &Sizes) -> Result<Box<dyn Store>, EngineError> {
        match self {
            Engine::Fjall => Ok(Box::new(fjall::FjallStore::open(dir, sizes)?)),
            Engine::Sled => Ok(Box::new(sled::SledStore::open(dir, sizes)?)),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is neither `fjall` nor `sled`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown engine `{0}`: `fjall` or `sled`")]
pub struct UnknownEngine(String);

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Engine, UnknownEngine> {
        Engine::ALL.into_iter().find(|engine| engine.name() == name).ok_or_else(|| UnknownEngine(name.into()))
    }
}

/// An engine at its place, to be opened: one in a directory, or the simulated one
/// ([`super::sim::SimEngine`]).
pub trait OpenEngine {
    /// Its name in the store's format file: a few letters.
    fn name(&self) -> &'static str;

    /// Whether it has ever been opened there.
    ///
    /// # Errors
    /// What the operating system reports.
    fn exists(&self) -> io::Result<bool>;

    /// Opens it, or creates it.
    ///
    /// # Errors
    /// See [`EngineError`].
    fn open(&self) -> Result<Box<dyn Store>, EngineError>;
}

/// An [`Engine`] in a directory.
pub(super) struct InDirectory<'a> {
    pub(super) engine: Engine,
    pub(super) dir: PathBuf,
    pub(super) sizes: &'a Sizes,
}

impl OpenEngine for InDirectory<'_> {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn exists(&self) -> io::Result<bool> {
        self.dir.try_exists()
    }

    fn open(&self) -> Result<Box<dyn Store>, EngineError> {
        self.engine.open(&self.dir, self.sizes)
    }
}

/// Memory and journal budgets in bytes. Always explicit: the engines' own defaults are 64 MiB
/// of memtable and 1 GiB of cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Unflushed writes in memory before they become a table (fjall; up to four such tables
    /// may wait). Fixed when the store is created: fjall keeps it with its keyspace.
    pub memtable_bytes: u64,
    /// Cached blocks (fjall) or pages (sled).
    pub cache_bytes: u64,
    /// Journal on disk before a flush is forced (fjall; at least 64 MiB).
    pub journal_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { memtable_bytes: 8 << 20, cache_bytes: 8 << 20, journal_bytes: 128 << 20 }
    }
}

/// Puts and deletes that take effect together. At most one per key, because the order of two
/// writes to one key inside an engine's batch is not defined by either engine.
#[derive(Debug, Default)]
pub struct Writes(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Writes {
    /// Sets a key; the last write to a key wins.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.insert(key, Some(value));
    }

    /// Removes a key; the last write to a key wins.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.0.insert(key, None);
    }

    /// The writes in key order; `None` deletes.
    pub fn into_ops(self) -> impl ExactSizeIterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
        self.0.into_iter()
    }
}

/// What a visitor of [`View::scan`] sees: a key and its value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Something that can be read: the engine itself or one instant of it.
pub trait View: Send {
    /// The value of a key.
    ///
    /// # Errors
    /// See [`EngineError`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Visits the keys of `from..to` in ascending order until the visitor breaks.
    ///
    /// # Errors
    /// See [`EngineError`].
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError>;
}

/// Bytes of a batch of an engine that has no other way to take in sorted keys.
const INGEST_PIECE: usize = 1 << 20;

/// A storage engine. Keys are never empty.
pub trait Store: View + Sync {
    /// The engine as it is now, as something to read.
    fn as_view(&self) -> &dyn View;

    /// Applies all writes or none, also across a crash.
    ///
    /// # Errors
    /// See [`EngineError`]; after any of them the engine takes no further write.
    fn write(&self, writes: Writes) -> Result<(), EngineError>;

    /// Puts keys that nobody reads yet, in ascending order, by the shortest way that the engine
    /// has, and `mark` (below all of them) once they are there. Not atomic: after a crash any of
    /// them may be there without the mark, but not the mark without all of them.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn ingest(&self, mark: (Vec<u8>, Vec<u8>), sorted: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), EngineError> {
        let (mut writes, mut bytes) = (Writes::default(), 0);
        for (key, value) in sorted {
            bytes += key.len() + value.len();
            writes.put(key, value);
            if bytes >= INGEST_PIECE {
                self.write(std::mem::take(&mut writes))?;
                bytes = 0;
            }
        }
        writes.put(mark.0, mark.1);
        self.write(writes)
    }

    /// From so many bytes on [`Store::ingest`] is worth its cost.
    fn ingest_from(&self) -> usize {
        INGEST_PIECE
    }

    /// One instant, unmoved by later writes; `None` where the engine has no snapshots.
    fn snapshot(&self) -> Option<Box<dyn View>>;

    /// Returns when everything written before is on the disk, power loss included.
    ///
    /// # Errors
    /// See [`EngineError`]; a failed sync is final.
    fn sync(&self) -> Result<(), EngineError>;

    /// Bytes of the engine that do not lie in the store's directory.
    fn bytes_elsewhere(&self) -> u64 {
        0
    }
}
