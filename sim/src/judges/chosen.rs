//! Invariant 3: chosen = a majority accepted the same ballot. No replica's prefix, and no
//! watermark that leaves a node, reaches beyond that, and the values in it are those.

use groups::ids::{GroupId, NodeId};
use groups::paxos::Message;
use groups::paxos::message::Mark;

use super::{Judge, Ledger, Seen, Sent, Verdict};

/// See the module.
pub struct ChosenByMajority;

fn judge(who: &str, node: NodeId, group: GroupId, mark: Mark, ledger: &Ledger) -> Verdict {
    if mark.instance.0 == 0 {
        return Ok(());
    }
    match ledger.group(group).decided(mark.instance) {
        None => Err(format!(
            "{who} of node {node} calls instance {} of group {group} chosen; by the disks only {} instances are",
            mark.instance,
            ledger.group(group).end()
        )),
        Some(decided) if decided.chain != mark.chain => Err(format!(
            "{who} of node {node} holds other values than the chosen ones up to instance {} of group {group}",
            mark.instance
        )),
        Some(_) => Ok(()),
    }
}

impl Judge for ChosenByMajority {
    fn sent(&mut self, sent: &Sent<'_>, ledger: &Ledger) -> Verdict {
        match sent.message {
            Message::Accept(m) => judge("an accept", sent.from, sent.group, m.mark, ledger),
            Message::Advance(m) => judge("an advance", sent.from, sent.group, m.mark, ledger),
            Message::Values(m) => {
                let ledger = ledger.group(sent.group);
                for entry in &m.entries {
                    if ledger.chosen(entry.instance) != Some(&entry.value) {
                        return Err(format!(
                            "node {} sends as chosen in instance {} of group {} what is not",
                            sent.from, entry.instance, sent.group
                        ));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn stepped(&mut self, seen: &Seen<'_>, ledger: &Ledger) -> Verdict {
        let replica = &seen.group.replica;
        judge("the prefix", seen.node, replica.group(), replica.mark(), ledger)
    }

    fn started(&mut self, seen: &Seen<'_>, ledger: &Ledger) -> Verdict {
        self.stepped(seen, ledger)
    }
}
