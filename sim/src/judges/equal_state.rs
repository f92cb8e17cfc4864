//! Invariants 5 and 11: equal instance, equal state. Every replica's state hash is that of a
//! state machine that has applied the chosen values in order, exactly once; and now and then the
//! running hash is recomputed from everything that the state holds.

use std::collections::BTreeMap;

use groups::ids::{GroupId, InstanceId, NodeId};

use super::{Judge, Ledger, Seen, Verdict};

/// The hash is recomputed after so many instances.
const RECOMPUTE_EVERY: u64 = 32;

/// See the module.
#[derive(Default)]
pub struct EqualState {
    recomputed: BTreeMap<(NodeId, GroupId), InstanceId>,
}

impl Judge for EqualState {
    fn looks_into_states(&self) -> bool {
        true
    }

    fn stepped(&mut self, seen: &Seen<'_>, ledger: &Ledger) -> Verdict {
        let state = seen.group.state();
        let (node, group) = (seen.node, seen.group.replica.group());
        let applied = state.applied();
        // That the instance is chosen at all is another rule's business.
        if let Some(decided) = ledger.group(group).decided(applied)
            && decided.state != state.hash().to_bytes()
        {
            return Err(format!("the state of node {node} in group {group} is wrong at instance {applied}"));
        }
        let last = self.recomputed.entry((node, group)).or_default();
        if applied.0 >= last.0 + RECOMPUTE_EVERY || applied < *last {
            *last = applied;
            if state.recomputed_hash() != state.hash() {
                return Err(format!(
                    "the running hash of node {node} in group {group} is not that of its state at instance {applied}"
                ));
            }
        }
        Ok(())
    }

    fn started(&mut self, seen: &Seen<'_>, ledger: &Ledger) -> Verdict {
        self.stepped(seen, ledger)
    }
}
