//! Invariants 4 and 5: what is chosen is applied, in order; neither the prefix nor the state
//! goes back within a life, and between steps they end at the same instance, unless the state was
//! lost with the mirror and is being rebuilt.

use std::collections::BTreeMap;

use groups::ids::{GroupId, InstanceId, NodeId};

use super::{Judge, Ledger, Seen, Verdict};

/// See the module.
#[derive(Default)]
pub struct Applied {
    seen: BTreeMap<(NodeId, GroupId), (u64, InstanceId)>,
}

impl Judge for Applied {
    fn stepped(&mut self, seen: &Seen<'_>, _ledger: &Ledger) -> Verdict {
        let (node, group) = (seen.node, seen.group.replica.group());
        let (chosen, applied) = (seen.group.replica.mark().instance, seen.group.state().applied());
        let rebuilding = seen.group.is_rebuilding() && applied < chosen;
        if applied != chosen && !rebuilding {
            return Err(format!("node {node} has {chosen} chosen and {applied} applied in group {group}"));
        }
        let (life, before) = self.seen.entry((node, group)).or_insert((seen.life, applied));
        // Who was taken out and is to come back begins with nothing.
        let anew = rebuilding && !seen.group.replica.is_voter();
        if *life == seen.life && applied < *before && !anew {
            return Err(format!(
                "node {node} goes back from instance {before} to {applied} in group {group}"
            ));
        }
        (*life, *before) = (seen.life, applied);
        Ok(())
    }

    fn started(&mut self, seen: &Seen<'_>, ledger: &Ledger) -> Verdict {
        self.stepped(seen, ledger)
    }
}
