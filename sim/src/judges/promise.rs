//! A promise only rises, within a life and across restarts (invariants 8 and 10; FAULTS, rule
//! 38): what a replica has promised is never below what it ever said it had promised, nor below
//! what it had promised before.

use std::collections::BTreeMap;

use groups::ids::{Ballot, GroupId, StorageId};
use groups::paxos::Message;

use super::{Judge, Ledger, Seen, Sent, Verdict};

/// See the module.
#[derive(Default)]
pub struct PromiseRises {
    /// The highest ballot of any promise or vote that left a disk, in any life.
    said: BTreeMap<(StorageId, GroupId), Ballot>,
    /// The promise as last seen, and in which life.
    seen: BTreeMap<(StorageId, GroupId), (u64, Ballot)>,
}

impl Judge for PromiseRises {
    fn sent(&mut self, sent: &Sent<'_>, _ledger: &Ledger) -> Verdict {
        let ballot = match sent.message {
            Message::Promise(m) => m.ballot,
            Message::Accepted(m) => m.ballot,
            _ => return Ok(()),
        };
        let said = self.said.entry((sent.storage, sent.group)).or_default();
        *said = (*said).max(ballot);
        Ok(())
    }

    fn stepped(&mut self, seen: &Seen<'_>, _ledger: &Ledger) -> Verdict {
        let replica = &seen.group.replica;
        let key = (seen.storage, replica.group());
        let promised = replica.promised();
        let (life, before) = self.seen.entry(key).or_insert((seen.life, promised));
        if *life == seen.life && promised < *before {
            return Err(format!(
                "the promise of node {} in group {} falls from {before} to {promised}",
                seen.node, key.1
            ));
        }
        (*life, *before) = (seen.life, promised);
        Ok(())
    }

    fn started(&mut self, seen: &Seen<'_>, _ledger: &Ledger) -> Verdict {
        let replica = &seen.group.replica;
        let key = (seen.storage, replica.group());
        match self.said.get(&key) {
            Some(said) if replica.promised() < *said => Err(format!(
                "node {} starts with promise {} in group {} and had said {said}",
                seen.node,
                replica.promised(),
                key.1
            )),
            _ => Ok(()),
        }
    }
}
