//! A promise reports every value accepted from the first unchosen instance on, in all its parts
//! together (FAULTS, rule 4; Lamport, "Paxos Made Simple", section 2.2, phase 1b).

use std::collections::BTreeMap;

use groups::ids::{Ballot, GroupId, InstanceId, NodeId};
use groups::paxos::Message;

use super::{Judge, Ledger, Sent, Verdict};

/// See the module.
#[derive(Default)]
pub struct CompleteReport {
    /// Reports whose last part has not left yet. The parts of one report leave together.
    parts: BTreeMap<(NodeId, NodeId, GroupId), BTreeMap<InstanceId, Ballot>>,
}

impl Judge for CompleteReport {
    fn sent(&mut self, sent: &Sent<'_>, ledger: &Ledger) -> Verdict {
        let Message::Promise(m) = sent.message else { return Ok(()) };
        let key = (sent.from, sent.to, sent.group);
        let report = self.parts.entry(key).or_default();
        if m.part == 0 {
            report.clear();
        }
        report.extend(m.entries.iter().map(|e| (e.instance, e.ballot)));
        if m.part + 1 < m.parts {
            return Ok(());
        }
        let report = self.parts.remove(&key).unwrap_or_default();
        let Some(disk) = ledger.group(sent.group).shadow(sent.from) else { return Ok(()) };
        for (instance, (ballot, _)) in disk.accepted.range(m.chosen.next()..) {
            // What was accepted at the promised ballot itself came after the promise.
            if *ballot < m.ballot && report.get(instance).is_none_or(|told| told < ballot) {
                return Err(format!(
                    "the promise of node {} for ballot {} of group {} keeps silent about instance {instance}, \
                     accepted at {ballot}",
                    sent.from, m.ballot, sent.group
                ));
            }
        }
        Ok(())
    }
}
