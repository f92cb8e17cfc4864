//! Majorities: the arithmetic that every other safety argument rests on.

use bytes::{Buf, BufMut, Bytes};

use crate::ids::{InstanceId, Member, NodeId, StorageId};
use crate::planted::{self, Bug};

/// The most members that a group may have: votes are a 64-bit set.
pub const MAX_MEMBERS: usize = 64;

/// The voting members of a group, in ascending order, and the instance whose value made them so.
///
/// They decide every later instance, until another change is chosen: the members of an instance
/// follow from the values before it (Lamport, "The Part-Time Parliament", section 3.3.4, with
/// the smallest possible distance of one). A leader that knows of a change below what it proposes
/// has asked these members in phase 1, and a vote counts only with the disk that is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    since: InstanceId,
    list: Vec<Member>,
    nodes: Vec<NodeId>,
}

/// Bytes of one member.
const MEMBER_BYTES: usize = 4 + 16;

impl Members {
    /// The members that a group is born with, sorted, one per node.
    ///
    /// # Panics
    /// When there are none or more than [`MAX_MEMBERS`]; callers check what a user wrote.
    #[must_use]
    pub fn new(list: Vec<Member>) -> Members {
        Members::since(InstanceId::ZERO, list)
    }

    /// The members that the value of `instance` has made, sorted, one per node.
    ///
    /// # Panics
    /// See [`Members::new`].
    #[must_use]
    pub fn since(instance: InstanceId, mut list: Vec<Member>) -> Members {
        list.sort_unstable();
        list.dedup_by_key(|m| m.node);
        assert!(!list.is_empty() && list.len() <= MAX_MEMBERS, "a group has 1 to {MAX_MEMBERS} members");
        let nodes = list.iter().map(|m| m.node).collect();
        Members { since: instance, list, nodes }
    }

    /// The instance whose value made these the members; 0 for those of the birth.
    #[must_use]
    pub fn changed_at(&self) -> InstanceId {
        self.since
    }

    /// All members, ascending.
    #[must_use]
    pub fn list(&self) -> &[Member] {
        &self.list
    }

    /// The nodes of all members, ascending.
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

    /// Whether `node` has a seat here, whatever its disk.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.index_of(node).is_some()
    }

    /// Whether a word of `node` that was written to this disk is a vote.
    #[must_use]
    pub fn counts(&self, node: NodeId, storage: StorageId) -> bool {
        planted::is(Bug::AnyDiskVotes) && self.contains(node)
            || self.index_of(node).is_some_and(|index| self.list[index].storage == storage)
    }

    /// The same members, with this disk in the place of the node's old one.
    #[must_use]
    pub fn with(&self, member: Member) -> Vec<Member> {
        self.list.iter().map(|m| if m.node == member.node { member } else { *m }).collect()
    }

    /// The same members, without this node and with that one, where given; ascending.
    #[must_use]
    pub fn exchange(&self, out: Option<NodeId>, newcomer: Option<Member>) -> Vec<Member> {
        let stay = self.list.iter().copied().filter(|m| Some(m.node) != out);
        let mut list: Vec<Member> = stay.chain(newcomer).collect();
        list.sort_unstable();
        list
    }

    /// The bytes in a record or a checkpoint: `since:u64 count:u32 {node:u32 storage:u128}*`,
    /// little-endian.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(12 + MEMBER_BYTES * self.list.len());
        out.put_u64_le(self.since.0);
        put_members(&self.list, &mut out);
        Bytes::from(out)
    }

    /// Bytes in front of the members themselves.
    pub(super) const HEAD: usize = 8 + 4;

    /// How many bytes what begins with this head takes.
    pub(super) fn length(head: &[u8]) -> usize {
        let count = head.get(8..Members::HEAD).map_or(0, |mut count| count.get_u32_le());
        Members::HEAD + MEMBER_BYTES.saturating_mul(count as usize)
    }

    /// Reads what [`Members::encode`] has written; `None` when it is nothing of the kind.
    #[must_use]
    pub fn decode(mut bytes: Bytes) -> Option<Members> {
        let since = InstanceId(bytes.try_get_u64_le().ok()?);
        take_members(&mut bytes).map(|list| Members::since(since, list))
    }
}

/// Writes `count:u32 {node:u32 storage:u128}*`.
pub(crate) fn put_members(list: &[Member], out: &mut Vec<u8>) {
    out.put_u32_le(list.len() as u32);
    for member in list {
        out.put_u32_le(member.node.0);
        out.put_u128_le(member.storage.0);
    }
}

/// Reads what [`put_members`] has written, to the end of `bytes`: members in ascending order.
pub(crate) fn take_members(bytes: &mut Bytes) -> Option<Vec<Member>> {
    let count = bytes.try_get_u32_le().ok()? as usize;
    if count == 0 || count > MAX_MEMBERS || bytes.len() != count * MEMBER_BYTES {
        return None;
    }
    let mut member = || Member { node: NodeId(bytes.get_u32_le()), storage: StorageId(bytes.get_u128_le()) };
    let list: Vec<Member> = (0..count).map(|_| member()).collect();
    list.is_sorted_by(|a, b| a.node < b.node).then_some(list)
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
        Members::new((1..=n).map(|n| disk(n, 100)).collect())
    }

    fn disk(node: u32, storage: u128) -> Member {
        Member { node: NodeId(node), storage: StorageId(storage) }
    }

    #[test]
    fn a_vote_counts_with_the_disk_that_is_a_member() {
        let m = members(3);
        assert!(m.counts(NodeId(2), StorageId(100)));
        assert!(!m.counts(NodeId(2), StorageId(7)) && !m.counts(NodeId(4), StorageId(100)));
        let changed = Members::since(InstanceId(9), m.with(disk(2, 7)));
        assert!(changed.counts(NodeId(2), StorageId(7)) && !changed.counts(NodeId(2), StorageId(100)));
        assert_eq!((changed.changed_at(), changed.nodes()), (InstanceId(9), m.nodes()));
    }

    /// The simulator found a newcomer with a lower number than the others proposed in the last place: a
    /// value that no replica could read, chosen for ever.
    #[test]
    fn whoever_is_exchanged_the_members_stay_in_order() {
        let m = Members::new(vec![disk(2, 1), disk(3, 1), disk(5, 1)]);
        for (out, new, nodes) in [
            (Some(5), Some(1), vec![1, 2, 3]),
            (None, Some(4), vec![2, 3, 4, 5]),
            (Some(3), None, vec![2, 5]),
            (None, None, vec![2, 3, 5]),
        ] {
            let list = m.exchange(out.map(NodeId), new.map(|n| disk(n, 1)));
            assert_eq!(list.iter().map(|m| m.node.0).collect::<Vec<_>>(), nodes);
            let mut bytes = Vec::new();
            put_members(&list, &mut bytes);
            assert_eq!(take_members(&mut Bytes::from(bytes)), Some(list));
        }
    }

    #[test]
    fn members_survive_their_bytes_and_nothing_else_does() {
        let m = Members::since(InstanceId(9), members(3).with(disk(2, 7)));
        let bytes = m.encode();
        assert_eq!(Members::decode(bytes.clone()), Some(m));
        for length in 0..bytes.len() {
            assert_eq!(Members::decode(bytes.slice(..length)), None, "cut to {length}");
        }
        let repeated =
            [&9_u64.to_le_bytes()[..], &2_u32.to_le_bytes(), &bytes[12..32], &bytes[12..32]].concat();
        assert_eq!(Members::decode(Bytes::from(repeated)), None, "a node twice");
        let none = [&9_u64.to_le_bytes()[..], &0_u32.to_le_bytes()].concat();
        assert_eq!(Members::decode(Bytes::from(none)), None, "nobody");
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
