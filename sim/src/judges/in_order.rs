//! Commands that one node took for a group take effect in the order in which it took them: no
//! command before one that its node still waited for (docs/ARCHITECTURE.md, "Sessions"). Users of
//! Redis pipelines rely on it.

use std::collections::BTreeMap;

use groups::ids::{Boot, GroupId, NodeId};
use groups::kv::Outcome;
use groups::kv::outcome::Failure;

use super::{GroupLedger, Judge, Verdict};

/// See the module.
#[derive(Default)]
pub struct InOrder {
    /// The last command of each node that took effect.
    last: BTreeMap<(GroupId, NodeId), (Boot, u64)>,
}

impl Judge for InOrder {
    fn decided(&mut self, group: GroupId, ledger: &GroupLedger) -> Verdict {
        for (ticket, outcome) in &ledger.answers {
            if matches!(
                outcome,
                Outcome::Retired | Outcome::Failed(Failure::OutOfOrder | Failure::SessionFull)
            ) {
                continue;
            }
            let last = self.last.entry((group, ticket.node)).or_insert((ticket.boot, 0));
            if last.0 != ticket.boot {
                *last = (ticket.boot, 0);
            }
            if ticket.number <= last.1 {
                // A copy, answered from memory.
                continue;
            }
            if ticket.behind > 0 && last.1 + 1 < ticket.number {
                return Err(format!(
                    "command {} of node {} (life {}) takes effect in group {group} behind command {} though its \
                     node waits for the last {} before it",
                    ticket.number, ticket.node, ticket.boot, last.1, ticket.behind
                ));
            }
            last.1 = ticket.number;
        }
        Ok(())
    }
}
