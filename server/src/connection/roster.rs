//! `ADMIN MEMBER` and `ADMIN LEADER`: what an operator changes about the cluster's nodes.
//!
//! A change is made against the roster that this node works by. Should somebody else have made one
//! meanwhile, nothing is changed and the operator is asked to look again.

use std::rc::Rc;
use std::time::{Duration, Instant};

use groups::ids::{Boot, NodeId};
use groups::kv::roll::MAX_ROLL;
use groups::kv::{Command, Outcome};

use super::plan::refusal_reply;
use crate::node::roster::{KEEPER, Roster, RosterError, RosterNode};
use crate::protocol::{ErrorReply, Reply, RosterAction};
use crate::runtime::roster::{entry_of, located};
use crate::runtime::worker::Worker;
use crate::status::{MemberLine, MoveLine, RosterStatus};

/// How long a node that has made a change waits until it works by it: what is asked of it next builds
/// on that.
const ADOPTED: Duration = Duration::from_secs(2);

/// Does it, or says what would come of it.
pub async fn answer(action: RosterAction, dry_run: bool, worker: &Rc<Worker>) -> Reply {
    let shared = worker.shared();
    let now = shared.roster.current();
    let next = match change(action, &now, shared.config.cluster.replication as usize) {
        Ok(None) => return reply(worker, &now, &now, false),
        Ok(Some(next)) => next,
        Err(why) => {
            return ErrorReply::err(format!("{why}. Nothing was changed. Run: pelago admin member list"))
                .into();
        }
    };
    if dry_run {
        return reply(worker, &now, &next, false);
    }
    if let Err(why) = may_follow(worker, &now, &next).await {
        return why.into();
    }
    let bytes = next.encode();
    if bytes.len() > MAX_ROLL {
        return ErrorReply::err(format!(
            "the list of nodes would take {} bytes, at most {MAX_ROLL} are kept; nothing was changed",
            bytes.len()
        ))
        .into();
    }
    let command = Command::SetRoll { expect: now.version(), bytes };
    match worker.write(KEEPER, &command).await {
        Ok(Outcome::Revision(version)) => {
            let begun = Instant::now();
            while shared.roster.current().version() < version && begun.elapsed() < ADOPTED {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            reply(worker, &now, &next, true)
        }
        Ok(Outcome::Unmet) => ErrorReply::try_again(
            KEEPER,
            "keeps another list of nodes by now: somebody else has changed it. Nothing was changed. Look at it with \
             `pelago admin member list`, then ask again",
        )
        .into(),
        Ok(other) => {
            ErrorReply::err(format!("the first group gave an answer that makes no sense here: {other:?}")).into()
        }
        Err(refusal) => refusal_reply(KEEPER, refusal, false, false).into(),
    }
}

/// Whether the cluster is ready for the change. One node at a time: a node that was added and has never
/// been heard of counts among those that a new one asks for their memory of it. And nobody is taken off
/// whom a group still has for a member.
async fn may_follow(worker: &Rc<Worker>, now: &Roster, next: &Roster) -> Result<(), ErrorReply> {
    let shared = worker.shared();
    let unheard = |id: &NodeId| {
        *id != shared.node && !shared.layout.nodes().contains(id) && worker.boot_of(*id) == Boot(0)
    };
    let grows = next.nodes().len() > now.nodes().len();
    if let Some(first) = now.ids().iter().find(|id| grows && unheard(id)) {
        return Err(ErrorReply::err(format!(
            "node {first} was added and has not been heard of yet: start it first, or take it off. Nothing was changed. \
             Run: pelago admin member list"
        )));
    }
    let gone: Vec<NodeId> = now.ids().into_iter().filter(|id| next.node(*id).is_none()).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let reports = worker.report().await;
    let mut groups = reports.iter().flat_map(|r| &r.groups).filter(|g| !g.parted);
    match groups.find(|g| g.members.iter().any(|m| gone.contains(m))) {
        None => Ok(()),
        Some(group) => Err(ErrorReply::err(format!(
            "group {} still has that node for a member: it is taken off once every group has moved. Nothing was changed. \
             Run: pelago admin member remove",
            group.group
        ))),
    }
}

/// The roster with the change; `None` where nothing is to be changed.
fn change(action: RosterAction, now: &Roster, replication: usize) -> Result<Option<Roster>, RosterError> {
    Ok(Some(match action {
        RosterAction::List => return Ok(None),
        RosterAction::Add(node) => now.add(entry_of(node), replication)?,
        RosterAction::Remove(id) => now.remove(id, replication)?,
        RosterAction::Forget(id) => now.forget(id)?,
        RosterAction::Replace(old, node) => now.replace(old, entry_of(node))?,
        RosterAction::Drain(id, drained) => now.drain(id, drained)?,
        RosterAction::Lead(group, id) => now.move_leader(group, id)?,
    }))
}

fn reply(worker: &Rc<Worker>, now: &Roster, next: &Roster, applied: bool) -> Reply {
    let config = &worker.shared().config;
    let line = |node: RosterNode| {
        let groups = next.groups_of(node.id);
        let first = groups.filter(|g| next.preference(*g).first() == Some(&node.id)).count() as u32;
        MemberLine {
            node: node.id.0,
            state: node.state.to_string(),
            groups: next.groups_of(node.id).count() as u32,
            first,
            peer_addr: node.peer_addr,
            client_addr: node.client_addr,
            admin_addr: node.admin_addr,
        }
    };
    let ids = |nodes: Vec<NodeId>| nodes.into_iter().map(|id| id.0).collect();
    let status = RosterStatus {
        version: next.version(),
        applied,
        nodes: located(config, next).into_iter().map(line).collect(),
        moves: now
            .moves(next)
            .into_iter()
            .map(|m| MoveLine { group: m.group.0, from: ids(m.from), to: ids(m.to) })
            .collect(),
    };
    match serde_json::to_string(&status) {
        Ok(text) => Reply::bulk(text),
        Err(e) => ErrorReply::err(format!("the answer cannot be written as JSON: {e}")).into(),
    }
}
