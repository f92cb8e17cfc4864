//! What this node remembers of its peers' disks, kept in a file: a thread of its own, because a
//! sync takes a while and nobody waits for this one.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use groups::ids::{Boot, NodeId};
use groups::log::{Disk, RealDisk};
use groups::peers::Memory;
use parking_lot::Mutex;

use crate::node::memory::{FILE, boot_of, encode, merge};

/// What is remembered, and the thread that writes it down.
#[derive(Clone, Debug)]
pub struct MemoryHandle {
    peers: Shelf,
    changed: Sender<()>,
}

impl MemoryHandle {
    /// Begins with what the file says. The second part is for [`run`].
    #[must_use]
    pub fn new(peers: Vec<(NodeId, Memory)>) -> (MemoryHandle, Receiver<()>) {
        let (changed, receiver) = bounded(1);
        (MemoryHandle { peers: Arc::new(Mutex::new(peers)), changed }, receiver)
    }

    /// Remembers what a shard has heard from now on.
    pub fn keep(&self, told: &[(NodeId, Memory)]) {
        merge(&mut self.peers.lock(), told);
        // When one is waiting already, it will write this.
        let _ = self.changed.try_send(());
    }

    /// All that is remembered.
    #[must_use]
    pub fn all(&self) -> Vec<(NodeId, Memory)> {
        self.peers.lock().clone()
    }

    /// The newest life of `node` that is remembered.
    #[must_use]
    pub fn boot_of(&self, node: NodeId) -> Boot {
        boot_of(&self.peers.lock(), node)
    }

    /// What [`run`] reads.
    #[must_use]
    pub fn shelf(&self) -> Shelf {
        Arc::clone(&self.peers)
    }
}

/// What is remembered, for the thread that writes it.
pub type Shelf = Arc<Mutex<Vec<(NodeId, Memory)>>>;

/// Writes down what changes, until every [`MemoryHandle`] is gone. What cannot be written is said
/// and left: the node's own promises do not hang on it.
pub fn run(shelf: &Shelf, changed: &Receiver<()>, disk: &RealDisk) {
    while changed.recv().is_ok() {
        let bytes = encode(&shelf.lock());
        if let Err(e) = disk.write_small(FILE, &bytes) {
            tracing::warn!("cannot write {FILE}, what is remembered of the peers' disks: {e}");
        }
    }
}
