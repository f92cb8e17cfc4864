//! `CLUSTER COUNTKEYSINSLOT` and `CLUSTER GETKEYSINSLOT`: the keys of a slot, asked of the leader of its
//! group a stretch at a time, so that no worker is held up however many keys the group has.

use bytes::Bytes;
use groups::ids::{GroupId, Slot};
use groups::kv::{Command, InSlot, Outcome};

use super::plan::{not_understood, refusal_reply};
use crate::protocol::Reply;
use crate::runtime::worker::Worker;

/// How many keys a slot has. Each stretch is counted at one instant, and they follow each other: what is
/// there all the time is counted once.
pub(super) async fn count(slot: Slot, worker: &Worker) -> Reply {
    let group = worker.shared().layout.group_of(slot);
    let (mut all, mut from) = (0u64, Bytes::new());
    loop {
        match ask(worker, group, InSlot { slot, from, limit: 0 }).await {
            Ok((count, _, Some(next))) => (all, from) = (all + count, next),
            Ok((count, _, None)) => return Reply::unsigned(all + count),
            Err(reply) => return reply,
        }
    }
}

/// The first keys of a slot, in their order, `limit` at most.
pub(super) async fn keys(slot: Slot, limit: u32, worker: &Worker) -> Reply {
    let group = worker.shared().layout.group_of(slot);
    let (mut found, mut from, mut left) = (Vec::new(), Bytes::new(), limit);
    while left > 0 {
        match ask(worker, group, InSlot { slot, from, limit: left }).await {
            Ok((_, keys, next)) => {
                left = left.saturating_sub(keys.len() as u32);
                found.extend(keys.into_iter().map(Reply::Bulk));
                match next {
                    Some(next) => from = next,
                    None => break,
                }
            }
            Err(reply) => return reply,
        }
    }
    Reply::Array(found)
}

async fn ask(
    worker: &Worker,
    group: GroupId,
    question: InSlot,
) -> Result<(u64, Vec<Bytes>, Option<Bytes>), Reply> {
    match worker.read(group, &Command::InSlot(question)).await {
        Ok(Outcome::InSlot { count, keys, next }) => Ok((count, keys, next)),
        Ok(_) => Err(not_understood(&"the keys of a slot")),
        Err(refusal) => Err(refusal_reply(group, refusal, false, false).into()),
    }
}
