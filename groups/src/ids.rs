//! Newtypes for every id that crosses a boundary. A bare `u64` crosses none.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id! {
    /// A node of the cluster, as written in `config.toml`. Zero is never a node.
    NodeId(u32)
}
id! {
    /// One Paxos group.
    GroupId(u32)
}
id! {
    /// A position in a group's sequence of chosen values. The first instance is 1;
    /// 0 means "nothing yet".
    InstanceId(u64)
}
id! {
    /// A hash slot of the key space, below 16 384.
    Slot(u16)
}
id! {
    /// How often a data directory has been started. Persisted before it is used, so it
    /// names one life of one process and never comes back.
    Boot(u64)
}
id! {
    /// The number of a group commit: one write and one sync of the node's log.
    CommitId(u64)
}

impl InstanceId {
    /// Nothing chosen yet.
    pub const ZERO: InstanceId = InstanceId(0);

    /// The instance that follows.
    #[must_use]
    pub fn next(self) -> InstanceId {
        InstanceId(self.0 + 1)
    }

    /// The instance `n` further on.
    #[must_use]
    pub fn plus(self, n: u64) -> InstanceId {
        InstanceId(self.0 + n)
    }
}

macro_rules! wide_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:032x})", stringify!($name), self.0)
            }
        }
    };
}

wide_id! {
    /// A cluster, named once at its birth. Zero means "not born yet".
    ClusterId
}
wide_id! {
    /// One data directory's disk. A disk that comes back empty has a new one, and with it
    /// none of the old one's rights to vote.
    StorageId
}

/// A voting member of a group: a node, and the disk that remembers what it has promised and
/// accepted. A node whose disk is lost comes back as another member (FAULTS, rule 18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its disk.
    pub storage: StorageId,
}

/// A ballot: a round and the node that owns it, so that no two nodes ever use the same one
/// (Lamport, "Paxos Made Simple", section 2.4). Ordered by round, then node.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Raised by one candidate above everything it has seen.
    pub round: u64,
    /// The candidate.
    pub node: NodeId,
}

impl Ballot {
    /// Below every ballot that a node can own.
    pub const ZERO: Ballot = Ballot { round: 0, node: NodeId(0) };
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node)
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node)
    }
}
