//! An error other than -INDOUBT means that nothing was applied, then or later (CONTRACT, promise
//! 3). Judged over writes whose value nobody else writes.

use std::collections::BTreeSet;

use bytes::Bytes;
use groups::ids::GroupId;
use groups::kv::Outcome;
use groups::kv::outcome::Failure;
use groups::kv::value::Value;

use super::{GroupLedger, Judge, Verdict};

/// See the module.
#[derive(Default)]
pub struct Refused {
    executed: BTreeSet<(GroupId, Bytes)>,
    refused: BTreeSet<(GroupId, Bytes)>,
}

fn told(group: GroupId) -> Verdict {
    Err(format!("a client of group {group} was told that its write was not applied, and it was"))
}

impl Judge for Refused {
    fn decided(&mut self, group: GroupId, ledger: &GroupLedger) -> Verdict {
        let Some(decided) = ledger.decided(ledger.end()) else { return Ok(()) };
        let Ok(Value::Batch(commands)) = Value::decode(decided.value.clone()) else { return Ok(()) };
        for (command, (_, outcome)) in commands.flatten().map(|(_, bytes)| bytes).zip(&ledger.answers) {
            if matches!(
                outcome,
                Outcome::Retired | Outcome::Failed(Failure::OutOfOrder | Failure::SessionFull)
            ) {
                continue;
            }
            if self.refused.contains(&(group, command.clone())) {
                return told(group);
            }
            self.executed.insert((group, command));
        }
        Ok(())
    }

    fn refused(&mut self, group: GroupId, command: &Bytes) -> Verdict {
        let write = (group, command.clone());
        if self.executed.contains(&write) {
            return told(group);
        }
        self.refused.insert(write);
        Ok(())
    }
}
