//! Invariant 8: a node that cannot prove its memory does not vote. What it says once its disk is
//! empty, damaged or an older copy of itself, it says for another disk (FAULTS, rule 18), and no
//! leader takes that for a member before a chosen value has made it one.

use std::collections::BTreeSet;

use groups::ids::{NodeId, StorageId};
use groups::paxos::Message;

use super::{Judge, Ledger, Sent, Verdict};

/// See the module.
#[derive(Default)]
pub struct Strangers {
    gone: BTreeSet<StorageId>,
}

impl Judge for Strangers {
    fn sent(&mut self, sent: &Sent<'_>, _ledger: &Ledger) -> Verdict {
        if self.gone.contains(&sent.storage) {
            let name = sent.message.name();
            return Err(format!("node {} has lost its memory and sends a {name}", sent.from));
        }
        let voter = match sent.message {
            Message::Promise(m) => m.voter,
            Message::Accepted(m) => m.voter,
            Message::AdvanceReply(m) => m.voter,
            _ => return Ok(()),
        };
        let (from, name) = (sent.from, sent.message.name());
        if voter != sent.storage {
            return Err(format!("node {from} sends a {name} for a disk that it does not run on"));
        }
        Ok(())
    }

    fn gone(&mut self, _node: NodeId, storage: StorageId) {
        self.gone.insert(storage);
    }
}
