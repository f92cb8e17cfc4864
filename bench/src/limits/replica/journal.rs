//! The disk of a replica, and the thread that writes to it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mio::Waker;

use crate::machine::disk::Ring;

/// Size of the file.
const SIZE: u64 = 32 << 20;
/// Batches that wait for the disk at most; the leader has fewer under way.
const WAITING: usize = 1024;

/// Takes batches, and says which of them are durable.
pub struct Journal {
    batches: SyncSender<(u64, Vec<u8>)>,
    durable: Arc<AtomicU64>,
}

impl Journal {
    /// Prepares the file and starts the thread, which rings `waker` when something has become durable.
    pub fn open(dir: &Path, waker: Waker) -> io::Result<Journal> {
        let ring = Ring::create(dir, SIZE)?;
        let (batches, waiting) = sync_channel(WAITING);
        let durable = Arc::new(AtomicU64::new(0));
        let reached = Arc::clone(&durable);
        std::thread::Builder::new().name("disk".into()).spawn(move || {
            if let Err(error) = write(ring, &waiting, &reached, &waker) {
                eprintln!("pelago-bench: a replica of the bare skeleton cannot write: {error}");
                std::process::exit(2);
            }
        })?;
        Ok(Journal { batches, durable })
    }

    /// Hands a batch to the disk; numbers rise.
    pub fn append(&self, number: u64, batch: Vec<u8>) -> io::Result<()> {
        self.batches.send((number, batch)).map_err(|_| io::Error::other("the disk thread ended"))
    }

    /// The last batch that is durable, with all before it.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }
}

fn write(
    mut ring: Ring,
    waiting: &Receiver<(u64, Vec<u8>)>,
    durable: &AtomicU64,
    waker: &Waker,
) -> io::Result<()> {
    while let Ok((mut number, mut bytes)) = waiting.recv() {
        for (next, more) in waiting.try_iter() {
            number = next;
            bytes.extend_from_slice(&more);
        }
        ring.write(&bytes)?;
        durable.store(number, Ordering::Release);
        waker.wake()?;
    }
    Ok(())
}
