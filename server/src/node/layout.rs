//! Where things are: key slots to groups, groups to nodes, nodes to leaderships.
//!
//! All of it follows from what the cluster was born with, so every node computes the same. Which
//! group a slot belongs to stays so for ever; where groups are may change later, see `roster.rs`.

use groups::ids::{GroupId, Member, NodeId, Slot, StorageId};
use groups::paxos::Members;

use super::manifest::Founders;

/// Hash slots of the key space, as in Redis Cluster.
pub const SLOTS: u32 = 16_384;

/// The placement that a cluster is born with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    nodes: Vec<NodeId>,
    groups: u32,
    replication: usize,
}

impl Layout {
    /// The placement of `groups` groups with `replication` members each over `nodes`.
    ///
    /// # Panics
    /// When one of them is zero or there are fewer nodes than members; the configuration has
    /// been checked before.
    #[must_use]
    pub fn new(mut nodes: Vec<NodeId>, groups: u32, replication: usize) -> Layout {
        nodes.sort_unstable();
        nodes.dedup();
        assert!(groups > 0 && groups <= SLOTS, "1 to {SLOTS} groups");
        assert!(replication > 0 && replication <= nodes.len(), "as many nodes as members");
        Layout { nodes, groups, replication }
    }

    /// All nodes, ascending.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// How many groups there are.
    #[must_use]
    pub fn groups(&self) -> u32 {
        self.groups
    }

    /// The group of a slot: slots are dealt out in runs, as even as can be.
    #[must_use]
    pub fn group_of(&self, slot: Slot) -> GroupId {
        GroupId((u32::from(slot.0) * self.groups) / SLOTS)
    }

    /// The slots of a group, first and last.
    #[must_use]
    pub fn slots_of(&self, group: GroupId) -> (Slot, Slot) {
        let first = |g: u32| (u64::from(g) * u64::from(SLOTS)).div_ceil(u64::from(self.groups)) as u16;
        (Slot(first(group.0)), Slot(first(group.0 + 1) - 1))
    }

    /// The members of a group, from the best placed leader to the worst. First places go round
    /// the nodes; so do second places among the rest, so that the groups of a dead node spread
    /// over all who are left.
    #[must_use]
    pub fn preference(&self, group: GroupId) -> Vec<NodeId> {
        let n = self.nodes.len();
        let g = group.0 as usize;
        let mut rest: Vec<NodeId> = (0..self.replication).map(|k| self.nodes[(g + k) % n]).collect();
        let mut order = vec![rest.remove(0)];
        let mut turn = g / n;
        while !rest.is_empty() {
            let next = turn % rest.len();
            turn /= rest.len();
            order.push(rest.remove(next));
        }
        order
    }

    /// The nodes with a seat in a group, ascending.
    #[must_use]
    pub fn members(&self, group: GroupId) -> Vec<NodeId> {
        let mut nodes = self.preference(group);
        nodes.sort_unstable();
        nodes
    }
}

/// What a cluster was born with: where its groups were then, and on which disks. It never changes,
/// and says who the first members of each group were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// The placement.
    pub layout: Layout,
    /// The disks, by node.
    pub disks: Founders,
}

impl Founding {
    /// The members that a group was born with.
    #[must_use]
    pub fn members(&self, group: GroupId) -> Members {
        let member = |node: NodeId| {
            let disk = self.disks.iter().find(|(n, _)| *n == node);
            // A founder without a disk is nobody's vote; there is none, the birth names each.
            Member { node, storage: disk.map_or(StorageId(0), |(_, storage)| *storage) }
        };
        Members::new(self.layout.members(group).into_iter().map(member).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn layout(nodes: u32, groups: u32, replication: usize) -> Layout {
        Layout::new((1..=nodes).map(NodeId).collect(), groups, replication)
    }

    #[test]
    fn every_slot_has_one_group_and_groups_are_even() {
        for groups in [1, 3, 16, 64, 1000, 16_384] {
            let l = layout(3, groups, 3);
            let mut count = BTreeMap::new();
            for slot in 0..SLOTS as u16 {
                let group = l.group_of(Slot(slot));
                let (first, last) = l.slots_of(group);
                assert!(first.0 <= slot && slot <= last.0, "slot {slot} of {groups} groups");
                *count.entry(group).or_insert(0) += 1;
            }
            assert_eq!(count.len() as u32, groups);
            let (min, max) = (count.values().min(), count.values().max());
            assert!(max.unwrap() - min.unwrap() <= 1);
        }
    }

    #[test]
    fn leaderships_are_even_also_after_a_loss() {
        let l = layout(3, 64, 3);
        let mut first = BTreeMap::new();
        let mut without_1 = BTreeMap::new();
        for group in (0..64).map(GroupId) {
            let order = l.preference(group);
            assert_eq!(order.len(), 3);
            *first.entry(order[0]).or_insert(0) += 1;
            let heir = order.iter().find(|n| **n != NodeId(1)).unwrap();
            *without_1.entry(*heir).or_insert(0) += 1;
        }
        assert!(first.values().all(|c| (21..=22).contains(c)), "{first:?}");
        assert!(without_1.values().all(|c| (31..=33).contains(c)), "{without_1:?}");
    }

    #[test]
    fn fewer_members_than_nodes() {
        let l = layout(5, 10, 3);
        for group in (0..10).map(GroupId) {
            assert_eq!(l.members(group).len(), 3);
        }
    }
}
