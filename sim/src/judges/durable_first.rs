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
            let voted = disk.accepted.get(&instance).is_some_and(|(held, _)| *held == ballot);
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
