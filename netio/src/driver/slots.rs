//! The dialling halves of all links, by the number that their events carry.

use std::ops::{Index, IndexMut};

use groups::ids::NodeId;

use crate::Lane;
use crate::link::Outbound;

/// A place per peer and lane. A number belongs to one [`Outbound`] until that is removed, then to
/// the next one that needs a place, so that numbers stay small however often peers change.
#[derive(Debug, Default)]
pub(super) struct Slots {
    places: Vec<Option<Outbound>>,
    /// The numbers in use: the urgent lane first, each lane by node.
    order: Vec<usize>,
}

impl Slots {
    /// Takes the lowest free number, which is returned.
    pub(super) fn add(&mut self, outbound: Outbound) -> usize {
        let free = self.places.iter().position(Option::is_none);
        let link = free.unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let turn = self.turn_of(outbound.node, outbound.lane);
        self.order.insert(turn, link);
        self.places[link] = Some(outbound);
        link
    }

    /// Frees the number.
    pub(super) fn remove(&mut self, link: usize) -> Option<Outbound> {
        self.order.retain(|used| *used != link);
        self.places.get_mut(link)?.take()
    }

    /// `None` when the number is free.
    pub(super) fn get(&self, link: usize) -> Option<&Outbound> {
        self.places.get(link)?.as_ref()
    }

    /// The number of that peer and lane.
    pub(super) fn find(&self, node: NodeId, lane: Lane) -> Option<usize> {
        let link = *self.order.get(self.turn_of(node, lane))?;
        let it = &self[link];
        (it.node == node && it.lane == lane).then_some(link)
    }

    /// Where in the order it stands, or would.
    fn turn_of(&self, node: NodeId, lane: Lane) -> usize {
        self.order.partition_point(|link| (self[*link].lane, self[*link].node) < (lane, node))
    }

    /// How many links there are.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The number of the link whose turn it is, for loops that need the whole driver for each.
    pub(super) fn at(&self, turn: usize) -> usize {
        self.order[turn]
    }

    /// All links, the urgent lane first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Outbound> {
        self.order.iter().map(|link| &self[*link])
    }

    /// Changes the links of one node.
    pub(super) fn of_node(&mut self, node: NodeId) -> impl Iterator<Item = &mut Outbound> {
        self.places.iter_mut().flatten().filter(move |it| it.node == node)
    }
}

impl Index<usize> for Slots {
    type Output = Outbound;

    fn index(&self, link: usize) -> &Outbound {
        self.places[link].as_ref().expect("the number of a link that exists")
    }
}

impl IndexMut<usize> for Slots {
    fn index_mut(&mut self, link: usize) -> &mut Outbound {
        self.places[link].as_mut().expect("the number of a link that exists")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::peers::Shelf;
    use crate::queue::Queue;

    fn outbound(node: u32, lane: Lane) -> Outbound {
        let shelf = Arc::new(Shelf::new(Queue::new(1, 1)));
        Outbound::new(NodeId(node), lane, String::new(), shelf, Instant::now())
    }

    fn order(slots: &Slots) -> Vec<(Lane, u32)> {
        slots.iter().map(|it| (it.lane, it.node.0)).collect()
    }

    #[test]
    fn numbers_are_used_again_and_the_urgent_lane_stays_first() {
        let mut slots = Slots::default();
        for node in [3, 1] {
            for lane in Lane::ALL {
                slots.add(outbound(node, lane));
            }
        }
        let all = [(Lane::Consensus, 1), (Lane::Consensus, 3), (Lane::Bulk, 1), (Lane::Bulk, 3)];
        assert_eq!(order(&slots), all);
        assert_eq!([0, 1, 2, 3].map(|turn| slots.at(turn)), [2, 0, 3, 1]);
        for _ in 0..1000 {
            assert!(slots.remove(0).is_some_and(|it| it.node == NodeId(3)));
            assert!(slots.get(0).is_none() && slots.remove(0).is_none());
            assert_eq!(slots.len(), 3);
            assert_eq!(slots.add(outbound(3, Lane::Consensus)), 0);
        }
        assert_eq!(order(&slots), all);
        assert_eq!(slots.find(NodeId(1), Lane::Bulk), Some(3));
        assert_eq!(slots.find(NodeId(2), Lane::Bulk), None);
        assert_eq!(slots.find(NodeId(4), Lane::Bulk), None);
        assert!(slots.get(4).is_none() && slots.remove(4).is_none());
    }
}
