//! Invariant 2: a promise or an accept leaves the node only after its record is synced; so does
//! the ballot of a candidate (FAULTS, rules 1 and 3).

use super::{Judge, Ledger, Sent, Verdict};
use groups::ids::InstanceId;
use groups::paxos::Message;

/// See the module.
pub struct DurableFirst;

impl Judge for DurableFirst {
    fn sent(&mut self, sent: &Sent<'_>, ledger: &Ledger) -> Verdict {
        let (ballot, votes) = match sent.message {
            Message::Prepare(m) => (m.ballot, None),
            Message::Promise(m) => (m.ballot, None),
            Message::Accepted(m) => (m.ballot, Some((m.first, m.last))),
            _ => return Ok(()),
        };
        let Sent { from, group, message, .. } = sent;
        let name = message.name();
        let ledger = ledger.group(*group);
        let Some(disk) = ledger.shadow(*from) else {
            return Err(format!("node {from}, no member of group {group}, sends a {name}"));
        };
        if disk.promised < ballot {
            return Err(format!(
                "a {name} of ballot {ballot} leaves node {from} for group {group}, whose log has promised {} only",
                disk.promised
            ));
        }
        let Some((first, last)) = votes else { return Ok(()) };
        for instance in (first.0..=last.0).map(InstanceId) {
            let voted = ledger.has_accepted(*from, instance, ballot);
            // A vote within the chosen prefix is for the chosen value, whatever ballot it had.
            if !(voted || ledger.chosen(instance).is_some() && disk.holds(instance)) {
                return Err(format!(
                    "a vote for instance {instance} of group {group} at ballot {ballot} leaves node {from}, \
                     whose log does not have it"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use groups::ids::{Ballot, GroupId, NodeId, StorageId};
    use groups::log::Record;
    use groups::paxos::message::Accepted;
    use server::node::layout::Layout;

    /// A node that had stood still took in the accepts of two leaders in one turn, and its slow disk synced
    /// both in one commit. The vote for the first one left behind that, and was called a lie because
    /// the second had a higher ballot (seed 4014359).
    #[test]
    fn a_vote_is_true_when_a_higher_ballot_is_on_the_disk_too() {
        let (node, group, storage) = (NodeId(1), GroupId(0), StorageId(1));
        let mut ledger = Ledger::new(&Layout::new((1..=3).map(NodeId).collect(), 1, 3));
        ledger.runs_on(node, storage, &vec![(node, storage)]);
        let ballot = |round| Ballot { round, node: NodeId(2) };
        let says = |ledger: &Ledger, round| {
            let vote = Accepted {
                ballot: ballot(round),
                voter: storage,
                first: InstanceId(1),
                last: InstanceId(1),
                chosen: InstanceId::ZERO,
            };
            let message = Message::Accepted(vote);
            DurableFirst
                .sent(&Sent { from: node, life: 1, storage, to: NodeId(2), group, message: &message }, ledger)
        };
        for round in [6, 7] {
            let value = Bytes::from_static(b"v");
            ledger.durable(
                node,
                &Record::Accept { group, instance: InstanceId(1), ballot: ballot(round), value },
            );
        }
        assert_eq!((says(&ledger, 6), says(&ledger, 7)), (Ok(()), Ok(())));
        assert!(says(&ledger, 5).is_err(), "at that ballot it has accepted nothing");
    }
}
