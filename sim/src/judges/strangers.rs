//! Invariant 8: a node that cannot prove its memory does not vote. One with an empty disk, or
//! with one that is known to be damaged, says nothing that belongs to Paxos.

use std::collections::BTreeSet;

use groups::ids::NodeId;

use super::{Judge, Ledger, Sent, Verdict};

/// See the module.
#[derive(Default)]
pub struct Strangers {
    gone: BTreeSet<NodeId>,
}

impl Judge for Strangers {
    fn sent(&mut self, sent: &Sent<'_>, _ledger: &Ledger) -> Verdict {
        if self.gone.contains(&sent.from) {
            let name = sent.message.name();
            return Err(format!("node {} has lost its memory and sends a {name}", sent.from));
        }
        Ok(())
    }

    fn gone(&mut self, node: NodeId) {
        self.gone.insert(node);
    }
}
