//! sled 0.34: one tree for everything, because its batches are atomic within a tree only.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::engine::{Sizes, Store, View, Visit, Writes};
use super::error::EngineError;
use super::fjall::explain_io;
use crate::durably;

const LOCK_ATTEMPTS: u32 = 5;

pub(super) struct SledStore {
    db: sled::Db,
    dir: PathBuf,
}

impl SledStore {
    pub(super) fn open(dir: &Path, sizes: &Sizes) -> Result<SledStore, EngineError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(sizes.cache_bytes)
            // Its timer would only add flushes that nothing may rely on.
            .flush_every_ms(None);
        let mut left = LOCK_ATTEMPTS;
        loop {
            left -= 1;
            match config.open().map_err(explain) {
                // Its threads may hold the lock for a moment after the last handle is gone.
                Err(EngineError::Locked) if left > 0 => thread::sleep(Duration::from_millis(100)),
                Err(e) => return Err(e),
                Ok(db) => return Ok(SledStore { db, dir: dir.to_owned() }),
            }
        }
    }
}

impl View for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self.db.get(key).map_err(explain)?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        for found in self.db.range(from..to) {
            let (key, value) = found.map_err(explain)?;
            if let ControlFlow::Break(()) = visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}

impl Store for SledStore {
    fn as_view(&self) -> &dyn View {
        self
    }

    fn write(&self, writes: Writes) -> Result<(), EngineError> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes.into_ops() {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(explain)
    }

    fn snapshot(&self) -> Option<Box<dyn View>> {
        None
    }

    /// sled's own flush ends in `sync_file_range` on Linux, which does not reach a disk's
    /// cache and not the file's size: every file is synced once more from here.
    fn sync(&self) -> Result<(), EngineError> {
        self.db.flush().map_err(explain)?;
        durably::sync_tree(&self.dir).map_err(EngineError::Io)
    }
}

fn explain(error: sled::Error) -> EngineError {
    match error {
        // How sled reports a directory that another process holds.
        sled::Error::Io(e) if e.kind() == io::ErrorKind::Other && e.to_string().contains("lock") => {
            EngineError::Locked
        }
        sled::Error::Io(e) => explain_io(e),
        other => EngineError::Corrupt(format!("sled: {other}")),
    }
}
