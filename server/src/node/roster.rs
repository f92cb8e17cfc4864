//! The roster: which nodes the cluster has, and which groups each of them shall have.
//!
//! It is what operators change. A cluster is born with the one that follows from its configuration
//! (version 0); every change after that is one value in the log of the first group
//! ([`Command::SetRoll`](groups::kv::Command)), made against the version that its author knew. The
//! members of that group tell the others, every node keeps the newest on its disk, and the leader
//! of each group works towards what it says ([`groups::paxos`], `change.rs`). The roster says who *shall* be a
//! member; who is one is only in the group's own log. So a node with an old roster is late, never wrong.

mod codec;
mod file;
mod plan;

use std::fmt;

use groups::ids::{GroupId, NodeId};

use super::layout::Layout;

pub use file::{FILE, known, store};
#[cfg(test)]
pub(super) use plan::tests;
pub use plan::{Move, RosterError};

/// The group that keeps the roster.
pub const KEEPER: GroupId = GroupId(0);

/// The most nodes of a cluster.
pub const MAX_NODES: usize = 4096;

/// What a node is for the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It has its share of groups and leaderships.
    Serving,
    /// It has its groups and votes, and leads only where nobody else can.
    Drained,
    /// Its groups move to others; once it has none it can be taken off.
    Leaving,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::Serving => "serving",
            NodeState::Drained => "drained",
            NodeState::Leaving => "leaving",
        })
    }
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterNode {
    /// Its id.
    pub id: NodeId,
    /// What it is for the cluster.
    pub state: NodeState,
    /// The version of the roster that brought it; 0 for a founder.
    pub since: u64,
    /// Where the other nodes reach it, `host:port`.
    pub peer_addr: String,
    /// Where clients reach it.
    pub client_addr: String,
    /// Where its administration listens.
    pub admin_addr: String,
}

impl RosterNode {
    /// A node with its share of everything, and where the other nodes, clients and its administration
    /// reach it, in this order. A founder, until it is added to a roster.
    #[must_use]
    pub fn new(id: NodeId, [peer_addr, client_addr, admin_addr]: [String; 3]) -> RosterNode {
        RosterNode { id, state: NodeState::Serving, since: 0, peer_addr, client_addr, admin_addr }
    }

    /// One that nobody dials.
    #[must_use]
    pub fn nowhere(id: NodeId) -> RosterNode {
        RosterNode::new(id, Default::default())
    }
}

/// The nodes of the cluster, and who shall have which group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    version: u64,
    /// Ascending.
    nodes: Vec<RosterNode>,
    /// For each group its nodes, the best placed leader first.
    placement: Vec<Vec<NodeId>>,
}

impl Roster {
    /// The roster that a cluster is born with: `nodes` are those of its birth, in any order.
    ///
    /// # Panics
    /// When they are not those of the layout.
    #[must_use]
    pub fn birth(layout: &Layout, mut nodes: Vec<RosterNode>) -> Roster {
        nodes.sort_unstable_by_key(|n| n.id);
        assert!(nodes.iter().map(|n| &n.id).eq(layout.nodes()), "the founders are the layout's nodes");
        let placement = (0..layout.groups()).map(|g| layout.preference(GroupId(g))).collect();
        Roster { version: 0, nodes, placement }
    }

    /// Counts the changes since the birth.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All nodes, ascending, those that are leaving among them.
    #[must_use]
    pub fn nodes(&self) -> &[RosterNode] {
        &self.nodes
    }

    /// The ids of all nodes, ascending.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|n| n.id).collect()
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&RosterNode> {
        self.nodes.binary_search_by_key(&id, |n| n.id).ok().map(|at| &self.nodes[at])
    }

    /// How many groups there are.
    #[must_use]
    pub fn groups(&self) -> u32 {
        self.placement.len() as u32
    }

    /// The nodes that shall have a group, from the best placed leader to the worst: whoever is drained
    /// comes last.
    #[must_use]
    pub fn preference(&self, group: GroupId) -> Vec<NodeId> {
        let mut order = self.placed(group).to_vec();
        order.sort_by_key(|id| self.node(*id).is_none_or(|n| n.state != NodeState::Serving));
        order
    }

    /// The nodes that shall have a group, ascending.
    #[must_use]
    pub fn members(&self, group: GroupId) -> Vec<NodeId> {
        let mut nodes = self.placed(group).to_vec();
        nodes.sort_unstable();
        nodes
    }

    /// The groups that a node shall have, ascending.
    pub fn groups_of(&self, node: NodeId) -> impl Iterator<Item = GroupId> + '_ {
        (0..self.groups()).map(GroupId).filter(move |g| self.placed(*g).contains(&node))
    }

    fn placed(&self, group: GroupId) -> &[NodeId] {
        self.placement.get(group.0 as usize).map_or(&[], Vec::as_slice)
    }
}
