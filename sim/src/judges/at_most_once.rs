//! Invariant 6: a client command takes effect at most once per session number. Told apart from
//! the session table that implements it: copies of one ticket have one answer, and no value
//! changes the state more often than it has tickets that were never seen before.

use std::collections::BTreeMap;

use groups::ids::{Boot, GroupId, NodeId};
use groups::kv::Outcome;
use groups::kv::outcome::Failure;
use groups::kv::value::Value;

use super::{GroupLedger, Judge, Verdict};

/// See the module.
#[derive(Default)]
pub struct AtMostOnce {
    answered: BTreeMap<(GroupId, NodeId, Boot, u64), Outcome>,
}

impl Judge for AtMostOnce {
    fn decided(&mut self, group: GroupId, ledger: &GroupLedger) -> Verdict {
        let end = ledger.end();
        let mut fresh = 0;
        for (ticket, outcome) in &ledger.answers {
            if matches!(
                outcome,
                Outcome::Retired | Outcome::Failed(Failure::OutOfOrder | Failure::SessionFull)
            ) {
                continue;
            }
            let key = (group, ticket.node, ticket.boot, ticket.number);
            match self.answered.get(&key) {
                None => {
                    fresh += match outcome {
                        // Each of its commands changes one key at most.
                        Outcome::Transaction { outcomes, .. } => outcomes.len() as u64,
                        _ => 1,
                    };
                    self.answered.insert(key, outcome.clone());
                }
                Some(first) if first == outcome => {}
                Some(first) => {
                    return Err(format!(
                        "command {} of node {} (life {}) was answered {first:?}, and {outcome:?} by its copy in \
                         instance {end} of group {group}",
                        ticket.number, ticket.node, ticket.boot
                    ));
                }
            }
        }
        if let Some(Ok(Value::Expire { .. })) = ledger.decided(end).map(|d| Value::decode(d.value.clone())) {
            // Lives end by themselves, without a command; `history` judges when.
            return Ok(());
        }
        let now = ledger.decided(end).map_or(0, |d| d.revision);
        let before = end.0.checked_sub(1).and_then(|i| ledger.decided(groups::ids::InstanceId(i)));
        let changes = now - before.map_or(0, |d| d.revision);
        if changes > fresh {
            return Err(format!(
                "instance {end} of group {group} has new commands for {fresh} changes at most and makes {changes}"
            ));
        }
        Ok(())
    }
}
