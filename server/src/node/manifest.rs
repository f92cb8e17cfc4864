//! The node's manifest: which cluster, node and disk a data directory belongs to, and how often
//! it has been started.
//!
//! ```text
//! magic "PELAGOND"  version:u32  length:u32  body (bincode, fixed ints)  crc32:u32
//! ```
//! The checksum covers everything before it. The file is replaced atomically.

use bincode::Options;
use groups::ids::{Boot, ClusterId, NodeId, StorageId};
use groups::log::Disk;
use serde::{Deserialize, Serialize};

use super::layout::{Founding, Layout};

/// The file's name in the data directory.
pub const FILE: &str = "NODE";

/// The format that this version writes, and the newest that it reads.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"PELAGOND";
const HEAD: usize = 16;
/// A manifest with the largest cluster is far smaller.
const MAX_BYTES: usize = 1 << 20;

/// The disks that a cluster was born on: node and storage id, ascending by node.
pub type Founders = Vec<(NodeId, StorageId)>;

/// How far the cluster's birth has come on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The disk is empty.
    Empty,
    /// The disk is empty in the place of one that has lost its memory: it takes no part in a
    /// birth, and waits for its cluster to take it in.
    Replacement,
    /// This disk has voted for a birth with these founders, and will vote for no other.
    Voted(Founders),
    /// The cluster is born.
    Born(ClusterId, Founders),
}

impl Stage {
    /// How far a disk has come that says this: it goes on and never back.
    #[must_use]
    pub fn progress(&self) -> u8 {
        match self {
            Stage::Empty | Stage::Replacement => 0,
            Stage::Voted(_) => 1,
            Stage::Born(..) => 2,
        }
    }
}

/// What a data directory says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The cluster's name.
    pub cluster_name: String,
    /// The node.
    pub node: NodeId,
    /// The disk, drawn at random when the directory was made.
    pub storage: StorageId,
    /// How often it has been started, this time included.
    pub boot: Boot,
    /// Groups of the cluster, fixed at its birth.
    pub groups: u32,
    /// Members of each group, fixed at the birth.
    pub replication: u32,
    /// How far the birth has come.
    pub stage: Stage,
    /// Whether this disk has begun a log. From then on a directory without one has lost its
    /// memory of promises and votes, and must not vote as if there had never been any.
    pub log_begun: bool,
}

/// A disk that takes the place of another begins so many lives further on, so that no number of
/// the old one comes back: sessions of clients' commands and peers tell lives by it.
const LIVES_OF_A_LOST_DISK: u64 = 1 << 20;

/// Why a manifest cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file system failed.
    #[error("could not {doing} the node's manifest: {source}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// What came back.
        source: std::io::Error,
    },
    /// Its checksum or shape is wrong.
    #[error("the node's manifest ({FILE}) is damaged: {0}")]
    Damaged(&'static str),
    /// A newer version of the program wrote it.
    #[error("the data directory has format {0}, this program reads up to {VERSION}; nothing was changed")]
    Newer(u32),
}

/// The body as it is written; ids as plain numbers, so that the format is seen here.
#[derive(Serialize, Deserialize)]
struct Body {
    cluster_name: String,
    node: u32,
    storage: u128,
    boot: u64,
    groups: u32,
    replication: u32,
    /// 0 empty, 1 voted, 2 born, 3 replacement.
    stage: u8,
    cluster: u128,
    founders: Vec<(u32, u128)>,
    log_begun: bool,
}

fn codec() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(MAX_BYTES as u64).reject_trailing_bytes()
}

impl Manifest {
    /// The bytes of the file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (stage, cluster, founders) = match &self.stage {
            Stage::Empty => (0, ClusterId(0), &[][..]),
            Stage::Replacement => (3, ClusterId(0), &[][..]),
            Stage::Voted(founders) => (1, ClusterId(0), &founders[..]),
            Stage::Born(cluster, founders) => (2, *cluster, &founders[..]),
        };
        let body = Body {
            cluster_name: self.cluster_name.clone(),
            node: self.node.0,
            storage: self.storage.0,
            boot: self.boot.0,
            groups: self.groups,
            replication: self.replication,
            stage,
            cluster: cluster.0,
            founders: founders.iter().map(|(n, s)| (n.0, s.0)).collect(),
            log_begun: self.log_begun,
        };
        let body = codec().serialize(&body).expect("a manifest is far below its limit");
        let mut out = Vec::with_capacity(HEAD + body.len() + 4);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&body);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the bytes of the file.
    ///
    /// # Errors
    /// When anything in them is wrong, or newer than this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let damaged = ManifestError::Damaged;
        let word =
            |at: usize| -> Option<u32> { Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
        if bytes.get(..8) != Some(MAGIC) {
            return Err(damaged("it does not begin as one"));
        }
        let version = word(8).ok_or(damaged("it is cut short"))?;
        if version > VERSION {
            return Err(ManifestError::Newer(version));
        }
        let length = word(12).ok_or(damaged("it is cut short"))? as usize;
        let end = HEAD.checked_add(length).filter(|end| end + 4 == bytes.len());
        let end = end.ok_or(damaged("its length is wrong"))?;
        if word(end) != Some(crc32fast::hash(&bytes[..end])) {
            return Err(damaged("its checksum is wrong"));
        }
        let body: Body =
            codec().deserialize(&bytes[HEAD..end]).map_err(|_| damaged("its content has no known shape"))?;
        let founders: Founders = body.founders.iter().map(|(n, s)| (NodeId(*n), StorageId(*s))).collect();
        let stage = match body.stage {
            0 => Stage::Empty,
            1 => Stage::Voted(founders),
            2 => Stage::Born(ClusterId(body.cluster), founders),
            3 => Stage::Replacement,
            _ => return Err(damaged("its stage is unknown")),
        };
        Ok(Manifest {
            cluster_name: body.cluster_name,
            node: NodeId(body.node),
            storage: StorageId(body.storage),
            boot: Boot(body.boot),
            groups: body.groups,
            replication: body.replication,
            stage,
            log_begun: body.log_begun,
        })
    }

    /// Takes the next step of the birth. `boot` is the newest life of this node that a peer has told
    /// of: a disk that is taken in by a cluster which it did not found begins behind it.
    pub fn advance(&mut self, stage: Stage, boot: Boot) {
        if let Stage::Born(_, founders) = &stage
            && !founders.contains(&(self.node, self.storage))
        {
            self.boot = Boot(self.boot.0.max(boot.0) + LIVES_OF_A_LOST_DISK);
        }
        self.stage = stage;
    }

    /// The directory's log is no memory any more: from here on this is another disk, which has
    /// promised nothing and counts for nothing until the groups take it in.
    pub fn renew(&mut self, storage: StorageId) {
        self.storage = storage;
        self.boot = Boot(self.boot.0 + LIVES_OF_A_LOST_DISK);
        self.log_begun = false;
    }

    /// The cluster and what it was born with, once it is.
    #[must_use]
    pub fn founding(&self) -> Option<(ClusterId, Founding)> {
        let Stage::Born(cluster, founders) = &self.stage else { return None };
        let nodes: Vec<NodeId> = founders.iter().map(|(node, _)| *node).collect();
        let layout = Layout::new(nodes, self.groups, self.replication as usize);
        Some((*cluster, Founding { layout, disks: founders.clone() }))
    }

    /// Loads the manifest of a directory; `None` when it has none.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub fn load<D: Disk>(disk: &D) -> Result<Option<Manifest>, ManifestError> {
        let bytes =
            disk.read_small(FILE, MAX_BYTES).map_err(|source| ManifestError::Io { doing: "read", source })?;
        bytes.map(|bytes| Manifest::from_bytes(&bytes)).transpose()
    }

    /// Replaces the manifest of a directory, durably.
    ///
    /// # Errors
    /// When the file system fails; the old one is still there then.
    pub fn store<D: Disk>(&self, disk: &D) -> Result<(), ManifestError> {
        disk.write_small(FILE, &self.to_bytes())
            .map_err(|source| ManifestError::Io { doing: "write", source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(stage: Stage) -> Manifest {
        Manifest {
            cluster_name: "local".into(),
            node: NodeId(2),
            storage: StorageId(77),
            boot: Boot(3),
            groups: 16,
            replication: 3,
            stage,
            log_begun: true,
        }
    }

    #[test]
    fn every_stage_survives_the_file() {
        let founders = vec![(NodeId(1), StorageId(9)), (NodeId(2), StorageId(77))];
        for stage in [
            Stage::Empty,
            Stage::Replacement,
            Stage::Voted(founders.clone()),
            Stage::Born(ClusterId(5), founders),
        ] {
            let m = manifest(stage);
            assert_eq!(Manifest::from_bytes(&m.to_bytes()).unwrap(), m);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = manifest(Stage::Born(ClusterId(5), vec![(NodeId(1), StorageId(9))])).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::from_bytes(&bad).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Manifest::from_bytes(&bytes[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_as_such() {
        let mut bytes = manifest(Stage::Empty).to_bytes();
        bytes[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
        assert!(matches!(Manifest::from_bytes(&bytes), Err(ManifestError::Newer(v)) if v == VERSION + 1));
    }
}
