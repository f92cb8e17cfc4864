//! Invariant 1: one value per (group, instance), for ever.
//!
//! The ledger itself finds two values chosen in one instance. This rule sees it coming, at the
//! first accept of a higher ballot that asks for another value: P2b of Lamport, "Paxos Made
//! Simple", section 2.2. And one ballot proposes one value per instance.

use std::collections::BTreeMap;

use groups::ids::{Ballot, GroupId, InstanceId};
use groups::paxos::{Message, chain};

use super::{Judge, Ledger, Sent, Verdict};

/// See the module.
#[derive(Default)]
pub struct OneValue {
    proposed: BTreeMap<(GroupId, InstanceId, Ballot), u64>,
}

impl Judge for OneValue {
    fn sent(&mut self, sent: &Sent<'_>, ledger: &Ledger) -> Verdict {
        let Message::Accept(m) = sent.message else { return Ok(()) };
        let hash = chain(0, &m.value);
        let first = *self.proposed.entry((sent.group, m.instance, m.ballot)).or_insert(hash);
        if first != hash {
            return Err(format!(
                "node {} proposes a second value for instance {} of group {} at ballot {}",
                sent.from, m.instance, sent.group, m.ballot
            ));
        }
        match ledger.group(sent.group).chosen_at(m.instance) {
            // A leader that does not know yet that it is deposed may say what it likes.
            Some((ballot, chosen)) if m.ballot >= ballot && *chosen != m.value => Err(format!(
                "node {} proposes at ballot {} another value than the one chosen in instance {} of group {}",
                sent.from, m.ballot, m.instance, sent.group
            )),
            _ => Ok(()),
        }
    }
}
