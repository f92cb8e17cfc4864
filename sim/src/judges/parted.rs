//! Whoever was taken out of a group forgets what it held only once a majority of the members that
//! came after has it all: every value up to the change that took it out is on their disks, whatever
//! lies on the disks of those that leave (see `groups/src/paxos/change.rs`).

use groups::ids::{GroupId, InstanceId, NodeId};
use groups::paxos::message::Mark;

use super::{GroupLedger, Judge, Verdict};

/// See the module.
#[derive(Default)]
pub struct Parted;

impl Judge for Parted {
    fn anchored(&mut self, node: NodeId, group: GroupId, anchor: Mark, ledger: &GroupLedger) -> Verdict {
        let members = ledger.members();
        if members.contains(node) || !ledger.was_member(node) {
            return Ok(());
        }
        let change = members.changed_at();
        let has_all = |acceptor| {
            ledger.shadows().filter(|(member, _)| *member == acceptor).any(|(_, shadow)| {
                // And the disk says that the change is chosen: a restart knows who decides behind it.
                let known = shadow.marked.max(shadow.recovered).max(shadow.anchored);
                known >= change && (1..=change.0).map(InstanceId).all(|instance| shadow.holds(instance))
            })
        };
        let holders = members.list().iter().filter(|m| has_all(**m)).count();
        if anchor.instance < change || holders >= members.majority() {
            return Ok(());
        }
        Err(format!(
            "node {node} forgets group {group} at instance {}, and only {holders} of its {} members have everything up to \
             the change in instance {change}",
            anchor.instance,
            members.count()
        ))
    }
}
