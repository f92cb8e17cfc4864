//! Invariant 9: an error of the disk is final. A process that has ended, for that or any other
//! reason, says nothing more.

use std::collections::BTreeMap;

use groups::ids::NodeId;

use super::{Judge, Ledger, Sent, Verdict};

/// See the module.
#[derive(Default)]
pub struct LastWords {
    ended: BTreeMap<NodeId, u64>,
}

impl Judge for LastWords {
    fn sent(&mut self, sent: &Sent<'_>, _ledger: &Ledger) -> Verdict {
        match self.ended.get(&sent.from) {
            Some(life) if sent.life <= *life => {
                Err(format!("node {} speaks after its end: {}", sent.from, sent.message.name()))
            }
            _ => Ok(()),
        }
    }

    fn ended(&mut self, node: NodeId, life: u64) {
        self.ended.insert(node, life);
    }
}
