//! Invariant 8: nothing that was durable is ever forgotten. A node that starts has every
//! promise, every accepted value and every watermark that a commit reported as synced, or it
//! refuses to start (FAULTS, rules 1, 19 and 40). Nor does one that runs forget what it has
//! accepted beyond its prefix, whatever it takes in (rule 25).

use super::{Judge, Ledger, Seen, Verdict};

/// See the module.
pub struct Memory;

impl Judge for Memory {
    fn started(&mut self, seen: &Seen<'_>, ledger: &Ledger) -> Verdict {
        let replica = &seen.group.replica;
        let (node, group) = (seen.node, replica.group());
        let Some(disk) = ledger.group(group).shadow(node) else { return Ok(()) };
        let forgotten =
            |what: String| Err(format!("node {node} starts and has forgotten {what} of group {group}"));
        if replica.promised() < disk.promised {
            return forgotten(format!("its promise {}", disk.promised));
        }
        let chosen = replica.mark().instance;
        let known = disk.marked.max(disk.anchored);
        if chosen < known {
            return forgotten(format!("that instance {known} is chosen"));
        }
        self.stepped(seen, ledger)
    }

    fn stepped(&mut self, seen: &Seen<'_>, ledger: &Ledger) -> Verdict {
        let replica = &seen.group.replica;
        let (node, group) = (seen.node, replica.group());
        let Some(disk) = ledger.group(group).shadow(node) else { return Ok(()) };
        for (instance, (ballot, value)) in disk.accepted.range(replica.mark().instance.next()..) {
            let kept = replica.open().get(instance).is_some_and(|held| {
                held.ballot > *ballot || (held.ballot == *ballot && held.value == *value)
            });
            if !kept {
                return Err(format!(
                    "node {node} has forgotten what it accepted in instance {instance} of group {group} at {ballot}"
                ));
            }
        }
        Ok(())
    }
}
