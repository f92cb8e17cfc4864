//! Invariant 4: the log lets go only of what the checkpoint has, durably and verified (FAULTS,
//! rules 27 and 28); and what a checkpoint says it is, it is (rule 22): its chained checksum and
//! its state hash are those of the chosen values up to its instance.

use std::collections::{BTreeMap, BTreeSet};

use groups::ids::{GroupId, InstanceId, NodeId, StorageId};
use groups::paxos::message::Mark;

use super::{GroupLedger, Judge, Ledger, Seen, Verdict};

/// See the module.
#[derive(Default)]
pub struct Checkpoints {
    /// The newest point that each mirror has called durable.
    durable: BTreeMap<(NodeId, GroupId), InstanceId>,
    /// Machines whose mirror was damaged on purpose.
    damaged: BTreeSet<NodeId>,
}

impl Judge for Checkpoints {
    fn settled(&mut self, node: NodeId, group: GroupId, point: Mark, ledger: &GroupLedger) -> Verdict {
        let chain = ledger.decided(point.instance).map_or(0, |d| d.chain);
        if chain != point.chain {
            return Err(format!(
                "the mirror of node {node} calls a state of group {group} at instance {} durable that nobody had",
                point.instance
            ));
        }
        let durable = self.durable.entry((node, group)).or_default();
        *durable = point.instance.max(*durable);
        Ok(())
    }

    fn anchored(&mut self, node: NodeId, group: GroupId, anchor: Mark, ledger: &GroupLedger) -> Verdict {
        let durable = self.durable.get(&(node, group)).copied().unwrap_or_default();
        // Whoever is no member any more may forget everything, its mirror too; `parted.rs` judges when.
        // Neither need it keep what was before a time outside: a slow disk may have written that down when the node is
        // a member again (seed 10024619).
        let then = ledger.members_of(anchor.instance.next());
        let outside = !ledger.members().contains(node) || !then.contains(node);
        if outside && anchor.instance > durable {
            self.durable.remove(&(node, group));
        }
        if anchor.instance > durable && !outside {
            return Err(format!(
                "node {node} lets the log of group {group} go up to instance {}; its checkpoint is durable up to \
                 {durable} only",
                anchor.instance
            ));
        }
        let chain = ledger.decided(anchor.instance).map_or(0, |d| d.chain);
        if chain != anchor.chain {
            return Err(format!(
                "node {node} anchors group {group} at instance {} with a checksum that nobody had there",
                anchor.instance
            ));
        }
        Ok(())
    }

    fn started(&mut self, seen: &Seen<'_>, ledger: &Ledger) -> Verdict {
        // Who was told to part gives its mirror up at once, and writes beside it that it has parted: when it ends between the
        // two, it still takes itself for a member and has nothing. It is none, and is told so again (seed 1006222).
        let group = seen.group.replica.group();
        let member = seen.group.replica.is_voter() && ledger.group(group).members().contains(seen.node);
        if seen.group.is_rebuilding() && member && !self.damaged.contains(&seen.node) {
            return Err(format!(
                "node {} starts without the state of group {}, and nothing was damaged",
                seen.node, group
            ));
        }
        Ok(())
    }

    fn mirror_damaged(&mut self, node: NodeId) {
        self.damaged.insert(node);
    }

    fn gone(&mut self, node: NodeId, _storage: StorageId) {
        self.damaged.insert(node);
    }
}
