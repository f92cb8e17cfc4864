//! Clients that read checkpoints out of the mirror: backups.
//!
//! To the mirror a reader is one more node that fetches: its questions are `FETCH` frames, and what
//! it is sent are `HEAD`, `CHUNK` and `NONE`, so the pause of a group, its proof, its time limits
//! and the pace of transfers hold for it too. A reader takes a *seat*, whose node number no real
//! node has, and gives each question a *ticket*; a question is answered by one frame. Who is
//! silent loses the seat to whoever comes.

use std::collections::BTreeMap;
use std::time::Duration;

use groups::ids::{Boot, GroupId, NodeId};
use groups::time::Time;

/// Readers at once.
const SEATS: u32 = 4;

/// Whoever is silent this long may lose the seat. Longer than the mirror waits for a receiver.
const SILENCE: Duration = Duration::from_secs(60);

/// Names a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Who reads.
#[derive(Debug, Default)]
pub struct Readers {
    /// The reader on each taken seat, and when it was heard.
    seats: BTreeMap<u32, (Boot, Time)>,
    /// Questions without an answer: one of a seat and group at most.
    waiting: BTreeMap<(GroupId, NodeId), Ticket>,
}

impl Readers {
    /// The node number of a seat, from above: real ones begin at 1.
    fn node(seat: u32) -> NodeId {
        NodeId(u32::MAX - seat)
    }

    /// Whether a node number is that of a seat.
    #[must_use]
    pub fn is_seat(node: NodeId) -> bool {
        node.0 > u32::MAX - SEATS
    }

    /// Takes down a question of `reader`. Returns the seat's node number, and the earlier question
    /// that gets no answer any more; `None` when all seats are taken.
    pub fn ask(
        &mut self,
        reader: Boot,
        group: GroupId,
        ticket: Ticket,
        now: Time,
    ) -> Option<(NodeId, Option<Ticket>)> {
        let own = self.seats.iter().find(|(_, (boot, _))| *boot == reader).map(|(seat, _)| *seat);
        let seat = own.or_else(|| {
            (0..SEATS).find(|seat| self.seats.get(seat).is_none_or(|(_, heard)| *heard + SILENCE <= now))
        })?;
        let node = Readers::node(seat);
        if own.is_none() {
            self.waiting.retain(|(_, of), _| *of != node);
        }
        self.seats.insert(seat, (reader, now));
        Some((node, self.waiting.insert((group, node), ticket)))
    }

    /// The question that a frame for a seat answers.
    pub fn answered(&mut self, node: NodeId, group: GroupId) -> Option<Ticket> {
        self.waiting.remove(&(group, node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_kept_and_goes_to_another_after_a_silence() {
        let mut readers = Readers::default();
        let (group, start) = (GroupId(5), Time::ZERO);
        let mut nodes = Vec::new();
        for reader in 0..u64::from(SEATS) {
            let (node, earlier) = readers.ask(Boot(reader), group, Ticket(reader), start).expect("a seat");
            assert!(Readers::is_seat(node) && earlier.is_none());
            nodes.push(node);
        }
        assert_eq!(readers.ask(Boot(99), group, Ticket(99), start), None, "all are taken");
        let again = readers.ask(Boot(1), group, Ticket(50), start);
        assert_eq!(again, Some((nodes[1], Some(Ticket(1)))), "the first question is given up");
        assert_eq!(readers.answered(nodes[1], group), Some(Ticket(50)));
        assert_eq!(readers.answered(nodes[1], group), None, "one question, one answer");

        let later = start + SILENCE;
        readers.ask(Boot(1), group, Ticket(51), later).expect("its own seat");
        let (node, _) = readers.ask(Boot(99), group, Ticket(99), later).expect("a silent one's seat");
        assert_eq!(node, nodes[0]);
        assert_eq!(readers.answered(node, group), Some(Ticket(99)), "not the other's question");
        assert!(!Readers::is_seat(NodeId(u32::MAX - SEATS)));
    }
}
