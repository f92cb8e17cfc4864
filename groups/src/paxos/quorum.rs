//! Majorities: the arithmetic that every other safety argument rests on.

use crate::ids::NodeId;
use crate::planted::{self, Bug};

/// The most members that a group may have: votes are a 64-bit set.
pub const MAX_MEMBERS: usize = 64;

/// The voting members of a group, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    nodes: Vec<NodeId>,
}

impl Members {
    /// The members `nodes`, sorted, without repeats.
    ///
    /// # Panics
    /// When there are none or more than [`MAX_MEMBERS`]; callers check what a user wrote.
    #[must_use]
    pub fn new(mut nodes: Vec<NodeId>) -> Members {
        nodes.sort_unstable();
        nodes.dedup();
        assert!(!nodes.is_empty() && nodes.len() <= MAX_MEMBERS, "a group has 1 to {MAX_MEMBERS} members");
        Members { nodes }
    }

    /// All members, ascending.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// How many make a majority.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    /// The position of `node` among the members, or `None` for an outsider.
    #[must_use]
    pub fn index_of(&self, node: NodeId) -> Option<usize> {
        self.nodes.binary_search(&node).ok()
    }

    /// Whether `node` votes here.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.index_of(node).is_some()
    }
}

/// Which members have voted for one thing: one ballot of one instance, one phase 1, one barrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Votes(u64);

impl Votes {
    /// Adds the vote of `node`. An outsider's vote does not count. A repeated one counts once.
    pub fn add(&mut self, members: &Members, node: NodeId) {
        if let Some(index) = members.index_of(node) {
            self.0 |= 1 << index;
        }
    }

    /// Whether `node` has voted.
    #[must_use]
    pub fn has(self, members: &Members, node: NodeId) -> bool {
        members.index_of(node).is_some_and(|index| self.0 & (1 << index) != 0)
    }

    /// How many have voted.
    #[must_use]
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether a majority has voted.
    #[must_use]
    pub fn is_quorum(self, members: &Members) -> bool {
        let slack = usize::from(planted::is(Bug::HalfIsEnough) && members.count() > 1);
        self.count() >= members.majority() - slack
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(n: u32) -> Members {
        Members::new((1..=n).map(NodeId).collect())
    }

    #[test]
    fn majority_table() {
        for (n, majority) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4), (64, 33)] {
            assert_eq!(members(n).majority(), majority, "of {n}");
        }
    }

    #[test]
    fn repeated_and_foreign_votes_do_not_count() {
        let m = members(3);
        let mut votes = Votes::default();
        for node in [2, 2, 9, 0, 4] {
            votes.add(&m, NodeId(node));
        }
        assert_eq!(votes.count(), 1);
        assert!(!votes.is_quorum(&m));
        votes.add(&m, NodeId(3));
        assert!(votes.is_quorum(&m));
        assert!(votes.has(&m, NodeId(3)) && !votes.has(&m, NodeId(1)));
    }

    #[test]
    fn any_two_majorities_meet() {
        for n in 1..=7_u32 {
            let m = members(n);
            let sets: Vec<u64> =
                (0..1_u64 << n).filter(|s| s.count_ones() as usize >= m.majority()).collect();
            for a in &sets {
                for b in &sets {
                    assert_ne!(a & b, 0, "{n} members: {a:b} and {b:b} do not meet");
                }
            }
        }
    }
}
