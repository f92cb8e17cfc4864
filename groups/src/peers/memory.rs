//! What nodes remember of each other's disks, and whether a node may trust its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::ids::{Boot, CommitId, NodeId, StorageId};

/// What is remembered of a peer's disk, across lives of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The disk with the highest boot number heard of.
    pub storage: StorageId,
    /// That number.
    pub boot: Boot,
    /// The commit that its log ended with when that life began.
    pub opened: CommitId,
    /// The newest commit that this life has told of.
    pub commit: CommitId,
}

impl Memory {
    /// Whether `later` is a later life of the same disk, which had everything at its beginning that
    /// this one had told of.
    #[must_use]
    pub fn is_before(&self, later: &Memory) -> bool {
        self.storage == later.storage && self.boot < later.boot && self.commit <= later.opened
    }
}

/// Whether a node may trust what its disk remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Too few peers have answered yet: it says nothing that belongs to Paxos.
    Unproven,
    /// Enough peers remember no more of it than it does itself.
    Proven,
    /// A peer remembers more: the disk is an older copy of itself.
    Lapsed {
        /// Who.
        peer: NodeId,
        /// What it remembers.
        known: Memory,
    },
    /// The node has been given another disk since.
    Replaced {
        /// Who says so.
        peer: NodeId,
        /// What it remembers.
        known: Memory,
    },
}

/// The newest synced commit of a node's log: set by whoever syncs, before anybody hears of the sync;
/// read by every shard, which all speak for one disk.
#[derive(Clone, Debug, Default)]
pub struct Newest(Arc<(AtomicU64, AtomicBool)>);

impl Newest {
    /// A log that ends with `commit`.
    #[must_use]
    pub fn new(commit: CommitId) -> Newest {
        Newest(Arc::new((AtomicU64::new(commit.0), AtomicBool::new(false))))
    }

    /// The log has synced up to here.
    pub fn reach(&self, commit: CommitId) {
        self.0.0.fetch_max(commit.0, Ordering::AcqRel);
    }

    /// Where the log ends.
    #[must_use]
    pub fn get(&self) -> CommitId {
        CommitId(self.0.0.load(Ordering::Acquire))
    }

    /// Whether a shard has heard enough for the disk. Before, nothing is written to the log, not even
    /// an empty commit: by where it ends an older copy is told from the disk.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.0.1.load(Ordering::Acquire)
    }

    pub(super) fn trust(&self) {
        self.0.1.store(true, Ordering::Release);
    }
}

/// This node's own end of the proof.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The disk.
    pub storage: StorageId,
    /// The newest commit that was on it when this life began.
    pub opened: CommitId,
    /// The newest commit on it.
    pub newest: Newest,
    /// The nodes that the cluster was born with; `None` for a disk that promises nothing of what it holds
    /// to be durable, and asks nobody.
    pub founders: Option<Vec<NodeId>>,
    /// What is remembered of the peers from earlier lives.
    pub memory: Vec<(NodeId, Memory)>,
}

impl Proof {
    /// A node that needs nobody's word: a cluster of one, or a disk that promises nothing of what it
    /// holds to be durable.
    #[must_use]
    pub fn alone(storage: StorageId) -> Proof {
        let (opened, newest) = (CommitId(0), Newest::default());
        Proof { storage, opened, newest, founders: None, memory: Vec::new() }
    }
}
