//! fjall 3: one keyspace for everything, because creating one is slow and because a rarely
//! written second keyspace would hold back the journal.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable, Snapshot};

use super::engine::{Sizes, Store, View, Visit, Writes};
use super::error::EngineError;
use super::journal;

const KEYSPACE: &str = "mirror";

/// fjall refuses a smaller bound on its journals.
const LEAST_JOURNAL: u64 = 64 << 20;

/// Of several workers fjall keeps the first for flushing, and while another compacts that one
/// turns in a circle, giving itself the next compaction again and again: a whole core. A single
/// one flushes between two compactions, and the memtables that may wait last so long.
const WORKERS: usize = 1;

pub(super) struct FjallStore {
    db: Database,
    keys: Keyspace,
}

impl FjallStore {
    pub(super) fn open(dir: &Path, sizes: &Sizes) -> Result<FjallStore, EngineError> {
        journal::cut_torn_tail(dir).map_err(EngineError::Io)?;
        let db = Database::builder(dir)
            .cache_size(sizes.cache_bytes)
            .max_journaling_size(sizes.journal_bytes.max(LEAST_JOURNAL))
            .worker_threads(WORKERS)
            .open()
            .map_err(explain)?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(sizes.memtable_bytes)
                // The mirror is scanned; single gets are rare and mostly find their key, so
                // filters for the last level would be memory for nothing.
                .expect_point_read_hits(true)
        };
        let keys = db.keyspace(KEYSPACE, options).map_err(explain)?;
        Ok(FjallStore { db, keys })
    }
}

impl View for FjallStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self.keys.get(key).map_err(explain)?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        drive(self.keys.range(from..to), visit)
    }
}

impl Store for FjallStore {
    fn as_view(&self) -> &dyn View {
        self
    }

    fn write(&self, writes: Writes) -> Result<(), EngineError> {
        let writes = writes.into_ops();
        let mut batch = OwnedWriteBatch::with_capacity(self.db.clone(), writes.len());
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(&self.keys, key, value),
                None => batch.remove(&self.keys, key),
            }
        }
        batch.commit().map_err(explain)
    }

    /// Sorted tables, written and synced beside the journal and then put in force in one step.
    fn ingest(&self, mark: (Vec<u8>, Vec<u8>), sorted: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), EngineError> {
        // It flushes the memtable on its way; tables should not know what the journal may lose. A
        // failed sync is final, for whatever reason.
        self.sync().map_err(|e| EngineError::Poisoned(format!("the journal cannot be synced: {e:?}")))?;
        let mut ingestion = self.keys.start_ingestion().map_err(explain)?;
        // In force together with the entries, as it is smaller than any of them.
        for (key, value) in std::iter::once(mark).chain(sorted) {
            ingestion.write(key, value).map_err(explain)?;
        }
        ingestion.finish().map_err(explain)
    }

    /// A handful of syncs must be worth it.
    fn ingest_from(&self) -> usize {
        4 << 20
    }

    fn snapshot(&self) -> Option<Box<dyn View>> {
        Some(Box::new(Instant { keys: self.keys.clone(), at: self.db.snapshot() }))
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.db.persist(PersistMode::SyncAll).map_err(explain)
    }
}

struct Instant {
    keys: Keyspace,
    at: Snapshot,
}

impl View for Instant {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self.at.get(&self.keys, key).map_err(explain)?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        drive(self.at.range(&self.keys, from..to), visit)
    }
}

fn drive(found: fjall::Iter, visit: &mut Visit<'_>) -> Result<(), EngineError> {
    for guard in found {
        let (key, value) = guard.into_inner().map_err(explain)?;
        if let ControlFlow::Break(()) = visit(&key, &value) {
            break;
        }
    }
    Ok(())
}

fn explain(error: fjall::Error) -> EngineError {
    match error {
        fjall::Error::Locked => EngineError::Locked,
        fjall::Error::Poisoned => EngineError::Poisoned("fjall refuses writes".into()),
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => explain_io(e),
        other => EngineError::Corrupt(format!("fjall: {other:?}")),
    }
}

/// An end or a file that should be there is damage; a full disk or a missing right is not.
pub(super) fn explain_io(error: io::Error) -> EngineError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound => {
            EngineError::Corrupt(error.to_string())
        }
        _ => EngineError::Io(error),
    }
}
