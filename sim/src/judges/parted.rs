//! Whoever was taken out of a group is told to forget what it holds only once a majority of the members that
//! came after has it all: every value up to the change that took it out is on their disks, whatever
//! lies on the disks of those that leave (see `groups/src/paxos/change.rs`).

use groups::ids::InstanceId;
use groups::paxos::Message;

use super::{Judge, Ledger, Sent, Verdict};

/// See the module. It judges the word and not the anchor of who obeys it: a disk that is no member may
/// write an anchor for what it keeps (seed 6026713).
#[derive(Default)]
pub struct Parted;

impl Judge for Parted {
    fn sent(&mut self, sent: &Sent<'_>, ledger: &Ledger) -> Verdict {
        let Message::Part(part) = sent.message else { return Ok(()) };
        let ledger = ledger.group(sent.group);
        let change = part.members.changed_at();
        let has_all = |acceptor| {
            ledger.shadows().filter(|(member, _)| *member == acceptor).any(|(_, shadow)| {
                // And the disk says that the change is chosen: a restart knows who decides behind it.
                let known = shadow.marked.max(shadow.recovered).max(shadow.anchored);
                known >= change && (1..=change.0).map(InstanceId).all(|instance| shadow.holds(instance))
            })
        };
        let holders = part.members.list().iter().filter(|m| has_all(**m)).count();
        if holders >= part.members.majority() {
            return Ok(());
        }
        Err(format!(
            "node {} tells node {} to forget group {}, and only {holders} of its {} members have everything up to the \
             change in instance {change}",
            sent.from,
            sent.to,
            sent.group,
            part.members.count()
        ))
    }
}
