//! Changes of the roster: what an operator asks for, and who has which group then.
//!
//! Seats move as little as is needed for every node to have as many as any other, give or take one;
//! and so do the first places, from which leaderships follow.

use std::collections::{BTreeMap, VecDeque};

use groups::ids::{GroupId, NodeId};
use groups::paxos::quorum::MAX_MEMBERS;

use super::{MAX_NODES, NodeState, Roster, RosterNode};

/// Why a change of the roster is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// There is such a node already.
    #[error("node {0} is a node of the cluster already")]
    Known(NodeId),
    /// There is no such node.
    #[error("the cluster has no node {0}; it has {1}")]
    Unknown(NodeId, String),
    /// Zero is never a node.
    #[error("node 0 is never a node; ids start at 1")]
    Zero,
    /// Two nodes cannot be reached at one address.
    #[error("node {1} has the address {0} already")]
    Taken(String, NodeId),
    /// The last one.
    #[error("node {0} is the last one that has groups: nobody could take them")]
    Last(NodeId),
    /// It still has groups.
    #[error("node {0} is not leaving: its groups have to move to others first")]
    NotLeaving(NodeId),
    /// It is on its way out.
    #[error("node {0} is leaving the cluster")]
    Leaving(NodeId),
    /// There is no such group.
    #[error("there is no group {0}; the last one is {1}")]
    NoGroup(GroupId, u32),
    /// The node has no seat in the group.
    #[error("node {0} is no member of group {1}; its members are {2}")]
    NoSeat(NodeId, GroupId, String),
    /// There are too many.
    #[error("a cluster has at most {MAX_NODES} nodes")]
    TooMany,
}

/// A group whose members change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The group.
    pub group: GroupId,
    /// Who shall have it now, the best placed leader first.
    pub from: Vec<NodeId>,
    /// And then.
    pub to: Vec<NodeId>,
}

impl Roster {
    /// A new node, which takes its share of the groups; each shall have `replication` members, where
    /// there are so many nodes.
    ///
    /// # Errors
    /// See [`RosterError`].
    pub fn add(&self, node: RosterNode, replication: usize) -> Result<Roster, RosterError> {
        Ok(self.with(node)?.spread(replication))
    }

    /// A node leaves: its groups move to the others.
    ///
    /// # Errors
    /// See [`RosterError`].
    pub fn remove(&self, id: NodeId, replication: usize) -> Result<Roster, RosterError> {
        self.known(id)?;
        if !self.nodes.iter().any(|n| n.id != id && n.state != NodeState::Leaving) {
            return Err(RosterError::Last(id));
        }
        let mut next = self.next();
        next.set(id, NodeState::Leaving);
        Ok(next.spread(replication))
    }

    /// A node that has left is a node of the cluster no more.
    ///
    /// # Errors
    /// See [`RosterError`].
    pub fn forget(&self, id: NodeId) -> Result<Roster, RosterError> {
        if self.known(id)?.state != NodeState::Leaving || self.groups_of(id).next().is_some() {
            return Err(RosterError::NotLeaving(id));
        }
        let mut next = self.next();
        next.nodes.retain(|n| n.id != id);
        Ok(next)
    }

    /// A new node takes every place of one that leaves.
    ///
    /// # Errors
    /// See [`RosterError`].
    pub fn replace(&self, old: NodeId, node: RosterNode) -> Result<Roster, RosterError> {
        self.known(old)?;
        let new = node.id;
        let mut next = self.with(node)?;
        next.set(old, NodeState::Leaving);
        for place in next.placement.iter_mut().flatten().filter(|id| **id == old) {
            *place = new;
        }
        Ok(next)
    }

    /// A node leads only where nobody else can, or takes its share again.
    ///
    /// # Errors
    /// See [`RosterError`].
    pub fn drain(&self, id: NodeId, drained: bool) -> Result<Roster, RosterError> {
        if self.known(id)?.state == NodeState::Leaving {
            return Err(RosterError::Leaving(id));
        }
        let mut next = self.next();
        next.set(id, if drained { NodeState::Drained } else { NodeState::Serving });
        Ok(next)
    }

    /// A node becomes the best placed leader of a group.
    ///
    /// # Errors
    /// See [`RosterError`].
    pub fn move_leader(&self, group: GroupId, id: NodeId) -> Result<Roster, RosterError> {
        self.known(id)?;
        let mut next = self.next();
        let last = self.groups() - 1;
        let places = next.placement.get_mut(group.0 as usize).ok_or(RosterError::NoGroup(group, last))?;
        let Some(at) = places.iter().position(|n| *n == id) else {
            return Err(RosterError::NoSeat(id, group, list(places)));
        };
        places[..=at].rotate_right(1);
        Ok(next)
    }

    /// Groups that `next` places on other nodes, or in another order.
    #[must_use]
    pub fn moves(&self, next: &Roster) -> Vec<Move> {
        let groups = (0..self.groups()).map(GroupId);
        let all =
            groups.map(|group| Move { group, from: self.preference(group), to: next.preference(group) });
        all.filter(|m| m.from != m.to).collect()
    }

    fn known(&self, id: NodeId) -> Result<&RosterNode, RosterError> {
        self.node(id).ok_or_else(|| RosterError::Unknown(id, list(&self.ids())))
    }

    fn next(&self) -> Roster {
        Roster { version: self.version + 1, ..self.clone() }
    }

    fn set(&mut self, id: NodeId, state: NodeState) {
        if let Some(node) = self.nodes.iter_mut().find(|n| n.id == id) {
            node.state = state;
        }
    }

    /// The same with one more node, which has no group yet.
    fn with(&self, node: RosterNode) -> Result<Roster, RosterError> {
        if node.id == NodeId(0) {
            return Err(RosterError::Zero);
        }
        if self.node(node.id).is_some() {
            return Err(RosterError::Known(node.id));
        }
        if self.nodes.len() >= MAX_NODES {
            return Err(RosterError::TooMany);
        }
        let new = [&node.peer_addr, &node.client_addr, &node.admin_addr];
        for there in &self.nodes {
            let old = [&there.peer_addr, &there.client_addr, &there.admin_addr];
            if let Some(address) = new.into_iter().find(|a| !a.is_empty() && old.contains(a)) {
                return Err(RosterError::Taken(address.clone(), there.id));
            }
        }
        let mut next = self.next();
        let at = next.nodes.partition_point(|n| n.id < node.id);
        let since = next.version;
        next.nodes.insert(at, RosterNode { since, ..node });
        Ok(next)
    }

    /// Moves as few seats as will do: off nodes that leave, to as many as are wanted, evenly.
    fn spread(mut self, wanted: usize) -> Roster {
        let staying: Vec<NodeId> =
            self.nodes.iter().filter(|n| n.state != NodeState::Leaving).map(|n| n.id).collect();
        let wanted = wanted.clamp(1, staying.len().min(MAX_MEMBERS));
        for group in 0..self.placement.len() {
            self.placement[group].retain(|id| staying.contains(id));
            while self.placement[group].len() < wanted {
                let seats = self.count(&staying, |places| places);
                let absent = staying.iter().filter(|id| !self.placement[group].contains(id));
                let Some(&least) = absent.min_by_key(|id| seats[id]) else { break };
                self.placement[group].push(least);
            }
        }
        self.level_seats(&staying);
        self.level_firsts(&staying);
        self
    }

    /// How many of the places that `which` picks from each group a node has.
    fn count(&self, nodes: &[NodeId], which: impl Fn(&[NodeId]) -> &[NodeId]) -> BTreeMap<NodeId, usize> {
        let mut count: BTreeMap<NodeId, usize> = nodes.iter().map(|id| (*id, 0)).collect();
        for id in self.placement.iter().flat_map(|places| which(places)) {
            *count.entry(*id).or_default() += 1;
        }
        count
    }

    fn level_seats(&mut self, nodes: &[NodeId]) {
        loop {
            let seats = self.count(nodes, |places| places);
            let Some((&most, &least)) =
                nodes.iter().max_by_key(|id| seats[id]).zip(nodes.iter().min_by_key(|id| seats[id]))
            else {
                return;
            };
            if seats[&most] <= seats[&least] + 1 {
                return;
            }
            // Whoever has more groups has one that the other has not; a last place costs no leadership.
            let movable = |places: &&mut Vec<NodeId>| places.contains(&most) && !places.contains(&least);
            let chosen = self
                .placement
                .iter_mut()
                .filter(|places| movable(places))
                .max_by_key(|places| places.iter().position(|id| *id == most));
            let Some(places) = chosen else { return };
            for place in places.iter_mut().filter(|id| **id == most) {
                *place = least;
            }
        }
    }

    fn level_firsts(&mut self, nodes: &[NodeId]) {
        loop {
            let firsts = self.count(nodes, |places| places.get(..1).unwrap_or(&[]));
            let Some(&most) = nodes.iter().max_by_key(|id| firsts[id]) else { return };
            // The shortest chain of swaps that ends where there is room: each node on it gives one
            // first place to the next and gets one from the one before.
            let mut via: BTreeMap<NodeId, (NodeId, usize)> = BTreeMap::new();
            let mut queue = VecDeque::from([most]);
            let mut end = None;
            'search: while let Some(id) = queue.pop_front() {
                for (group, places) in
                    self.placement.iter().enumerate().filter(|(_, p)| p.first() == Some(&id))
                {
                    for &next in &places[1..] {
                        if next == most || via.contains_key(&next) {
                            continue;
                        }
                        via.insert(next, (id, group));
                        if firsts[&next] + 1 < firsts[&most] {
                            end = Some(next);
                            break 'search;
                        }
                        queue.push_back(next);
                    }
                }
            }
            let Some(mut at) = end else { return };
            while let Some(&(before, group)) = via.get(&at) {
                let places = &mut self.placement[group];
                if let Some(place) = places.iter().position(|id| *id == at) {
                    places.swap(0, place);
                }
                at = before;
            }
        }
    }
}

/// `1, 2 and 3`, for people.
fn list(nodes: &[NodeId]) -> String {
    let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

#[cfg(test)]
pub(in crate::node) mod tests {
    use super::*;
    use crate::node::layout::Layout;
    use proptest::prelude::*;

    pub fn entry(id: u32) -> RosterNode {
        RosterNode::new(NodeId(id), [1, 2, 3].map(|port| format!("10.0.0.{id}:{port}")))
    }

    pub fn born(nodes: u32, groups: u32, replication: usize) -> Roster {
        let layout = Layout::new((1..=nodes).map(NodeId).collect(), groups, replication);
        Roster::birth(&layout, (1..=nodes).map(entry).collect())
    }

    /// What holds of every roster: seats and first places are even, and nobody has a seat twice.
    fn check(roster: &Roster, members: usize) {
        let staying: Vec<NodeId> =
            roster.nodes.iter().filter(|n| n.state != NodeState::Leaving).map(|n| n.id).collect();
        for group in (0..roster.groups()).map(GroupId) {
            let mut nodes = roster.members(group);
            assert!(nodes.iter().all(|id| staying.contains(id)), "{nodes:?} of {staying:?}");
            nodes.dedup();
            assert_eq!(nodes.len(), members.min(staying.len()), "group {group}");
        }
        for counts in [roster.count(&staying, |places| places), roster.count(&staying, |places| &places[..1])]
        {
            let (least, most) = (counts.values().min(), counts.values().max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{counts:?}");
        }
    }

    #[test]
    fn three_to_five_and_back_moves_no_more_than_it_must() {
        let three = born(3, 16, 3);
        let five = three.add(entry(4), 3).and_then(|r| r.add(entry(5), 3)).expect("new nodes");
        check(&five, 3);
        let seats = |roster: &Roster, id: u32| roster.groups_of(NodeId(id)).count();
        assert!((1..=5).all(|id| (9..=10).contains(&seats(&five, id))), "48 seats over five nodes");
        // Whoever is new has 9 or 10, and nothing else has moved.
        let moved: usize = (0..16)
            .map(GroupId)
            .map(|g| five.members(g).iter().filter(|id| !three.members(g).contains(id)).count())
            .sum();
        assert_eq!(moved, seats(&five, 4) + seats(&five, 5));
        let back = five.remove(NodeId(4), 3).and_then(|r| r.remove(NodeId(5), 3)).expect("they may leave");
        check(&back, 3);
        assert_eq!(back.version(), 4);
        let gone = back.forget(NodeId(4)).and_then(|r| r.forget(NodeId(5))).expect("they have nothing");
        assert_eq!(gone.ids(), three.ids());
    }

    #[test]
    fn fewer_nodes_than_members_have_what_there_is() {
        let two = born(3, 4, 3).remove(NodeId(2), 3).expect("two are left");
        check(&two, 3);
        let one = two.remove(NodeId(1), 3).expect("one is left");
        check(&one, 3);
        assert_eq!(one.remove(NodeId(3), 3), Err(RosterError::Last(NodeId(3))));
    }

    #[test]
    fn a_replacement_takes_the_very_places() {
        let roster = born(3, 16, 3);
        let next = roster.replace(NodeId(2), entry(7)).expect("a new node");
        check(&next, 3);
        for group in (0..16).map(GroupId) {
            let renamed: Vec<NodeId> = roster
                .preference(group)
                .into_iter()
                .map(|id| if id == NodeId(2) { NodeId(7) } else { id })
                .collect();
            assert_eq!(next.preference(group), renamed);
        }
        assert_eq!(next.node(NodeId(2)).map(|n| n.state), Some(NodeState::Leaving));
    }

    #[test]
    fn whoever_is_drained_or_moved_shows_in_the_order_alone() {
        let roster = born(3, 16, 3);
        let drained = roster.drain(NodeId(1), true).expect("a node");
        for group in (0..16).map(GroupId) {
            assert_eq!(drained.preference(group).last(), Some(&NodeId(1)));
            assert_eq!(drained.members(group), roster.members(group));
        }
        let back = drained.drain(NodeId(1), false).expect("a node");
        assert!(roster.moves(&back).is_empty() && back.version() == 2);
        let worst = roster.preference(GroupId(5))[2];
        let moved = roster.move_leader(GroupId(5), worst).expect("a member");
        assert_eq!(moved.preference(GroupId(5))[0], worst);
        assert_eq!(roster.moves(&moved).len(), 1);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let roster = born(3, 16, 3);
        let mut same = entry(4);
        same.peer_addr = "10.0.0.2:1".to_owned();
        assert_eq!(roster.add(same, 3), Err(RosterError::Taken("10.0.0.2:1".to_owned(), NodeId(2))));
        assert_eq!(roster.add(entry(3), 3), Err(RosterError::Known(NodeId(3))));
        assert_eq!(roster.add(entry(0), 3), Err(RosterError::Zero));
        assert_eq!(roster.forget(NodeId(1)), Err(RosterError::NotLeaving(NodeId(1))));
        let unknown = roster.remove(NodeId(9), 3).expect_err("no such node").to_string();
        assert_eq!(unknown, "the cluster has no node 9; it has 1, 2 and 3");
        let nowhere = roster.move_leader(GroupId(16), NodeId(1)).expect_err("no such group").to_string();
        assert_eq!(nowhere, "there is no group 16; the last one is 15");
        let five = born(5, 8, 3);
        let outside = (1..=5).map(NodeId).find(|id| !five.members(GroupId(0)).contains(id)).expect("one");
        let error = five.move_leader(GroupId(0), outside).expect_err("no seat").to_string();
        assert!(error.contains("its members are"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, rng_seed: proptest::test_runner::RngSeed::Fixed(3), ..ProptestConfig::default() })]
        #[test]
        fn whatever_comes_and_goes_the_rest_is_even(
            nodes in 1..6_u32,
            groups in 1..40_u32,
            steps in proptest::collection::vec((any::<bool>(), 1..9_u32), 0..12),
        ) {
            let replication = 3.min(nodes as usize);
            let mut roster = born(nodes, groups, replication);
            for (adds, id) in steps {
                let next = match (adds, roster.node(NodeId(id)).map(|n| n.state)) {
                    (true, None) => roster.add(entry(id), replication),
                    (false, Some(NodeState::Leaving)) => roster.forget(NodeId(id)),
                    (false, Some(_)) => roster.remove(NodeId(id), replication),
                    _ => continue,
                };
                let Ok(next) = next else { continue };
                prop_assert_eq!(next.version(), roster.version() + 1);
                prop_assert_eq!(Roster::decode(next.version(), next.encode()), Some(next.clone()));
                roster = next;
            }
            check(&roster, replication);
        }
    }
}
