//! An operator who changes which nodes the cluster has, while everything goes wrong.
//!
//! Every step is one change of the roster, made against the newest one that any running node knows and
//! handed to that node. Whether it arrives is left to luck, as with an operator who does not look.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use groups::ids::{GroupId, NodeId};
use groups::kv::Command;
use groups::random::Random;
use server::node::requests::{Request, Token};
use server::node::roster::{KEEPER, NodeState, Roster, RosterNode};

use crate::fault::{Fault, Node};
use crate::machine::Cluster;
use crate::plan::Planned;

/// One thing that the operator does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A machine that was not there at the birth is added, or one that has left comes back.
    Add(Node),
    /// A node leaves.
    Remove(Node),
    /// A node leaves, and another takes its places.
    Replace(Node, Node),
    /// A node leads only where nobody else can, or takes its share again.
    Drain(Node, bool),
    /// A node becomes the best placed leader of a group.
    MoveLeader(u32, Node),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Add(node) => write!(f, "node {} is added", node + 1),
            Step::Remove(node) => write!(f, "node {} is to leave", node + 1),
            Step::Replace(old, new) => {
                write!(f, "node {} is to take the places of node {}", new + 1, old + 1)
            }
            Step::Drain(node, true) => write!(f, "node {} is drained", node + 1),
            Step::Drain(node, false) => write!(f, "node {} serves again", node + 1),
            Step::MoveLeader(group, node) => {
                write!(f, "group {group} is to be led by node {}", node + 1)
            }
        }
    }
}

/// The connection on which the operator speaks: no client's, no observer's, and none that a node uses
/// for its own questions.
pub const CONNECTION: u64 = 1 << 56;

fn id(node: Node) -> NodeId {
    NodeId(node as u32 + 1)
}

/// What the step makes of the roster; `None` when it makes no sense with it. A node that has left and
/// has nothing any more (`empty`) is taken off first.
fn change(
    step: &Step,
    roster: &Roster,
    replication: usize,
    empty: impl Fn(NodeId) -> bool,
) -> Option<Roster> {
    let left = roster.nodes().iter().filter(|n| n.state == NodeState::Leaving && empty(n.id));
    if let Some(next) = left.filter_map(|n| roster.forget(n.id).ok()).next() {
        return Some(next);
    }
    let staying = roster.nodes().iter().filter(|n| n.state != NodeState::Leaving).count();
    match *step {
        Step::Add(node) => roster.add(RosterNode::nowhere(id(node)), replication),
        // With fewer than the groups want, one that dies would be one too many.
        Step::Remove(node) if staying > replication => roster.remove(id(node), replication),
        Step::Remove(_) => return None,
        Step::Replace(old, new) => roster.replace(id(old), RosterNode::nowhere(id(new))),
        Step::Drain(node, drained) => roster.drain(id(node), drained),
        Step::MoveLeader(group, node) => roster.move_leader(GroupId(group), id(node)),
    }
    .ok()
}

/// The request that a step comes to.
pub fn request(
    step: &Step,
    roster: &Roster,
    replication: usize,
    number: u64,
    empty: impl Fn(NodeId) -> bool,
) -> Option<Request> {
    let next = change(step, roster, replication, empty)?;
    let command = Command::SetRoll { expect: roster.version(), bytes: next.encode() };
    Some(Request {
        token: Token { connection: CONNECTION, request: number },
        group: KEEPER,
        read: false,
        ordered: false,
        stale: None,
        command: command.to_bytes(),
    })
}

/// Draws how many machines a seed has in reserve, and what the operator does with them.
pub fn plan(cluster: &mut Cluster, turmoil: Duration, seed: u64, faults: &mut Vec<Planned>) {
    // A stream of its own, so that seeds without an operator are what they always were.
    let mut random = Random::new(seed ^ 0x0B5E_55ED);
    if cluster.replication < 3 || random.below(3) != 0 {
        return;
    }
    cluster.spares = 1 + random.below(2) as u32;
    let all = u64::from(cluster.nodes + cluster.spares);
    let mut drained: BTreeMap<Node, bool> = BTreeMap::new();
    for _ in 0..2 + random.below(6) {
        let spare = (u64::from(cluster.nodes) + random.below(u64::from(cluster.spares))) as Node;
        let any = random.below(all) as Node;
        let step = match random.below(8) {
            0..=2 => Step::Add(spare),
            3 | 4 => Step::Remove(any),
            5 => Step::Replace(any, spare),
            6 => {
                let now = drained.entry(any).or_default();
                *now = !*now;
                Step::Drain(any, *now)
            }
            _ => Step::MoveLeader(random.below(u64::from(cluster.groups)) as u32, any),
        };
        let at = Duration::from_millis(400 + random.below(turmoil.as_millis() as u64));
        if let Step::Remove(gone) | Step::Replace(gone, _) = step {
            slow_farewell(gone, all as usize, at, seed, faults);
        }
        faults.push(Planned { number: faults.len() + 1, at, fault: Fault::Roster(step) });
    }
    // What happens to the machines in reserve: nothing there can cost a group its majority for ever.
    for _ in 0..random.below(8) {
        let node = (u64::from(cluster.nodes) + random.below(u64::from(cluster.spares))) as Node;
        let down = Duration::from_millis(10 + random.below(900));
        let operations = random.below(40);
        let fault = match random.below(6) {
            0 => Fault::Kill { node, down },
            1 => Fault::PowerLoss { node, operations, down },
            2 => Fault::Midway { node, operations },
            3 => Fault::MidwayStart { node, operations, log: random.below(2) == 0 },
            4 => Fault::MirrorMidway { node, operations },
            _ => Fault::Pause { node, length: down },
        };
        let at = Duration::from_millis(400 + random.below(turmoil.as_millis() as u64));
        faults.push(Planned { number: faults.len() + 1, at, fault });
    }
}

/// A node leaves while the disks of those that stay are slow, and it asks them for a leader again and
/// again: only then does it matter that nobody tells it to forget the group before a majority has on its
/// disks what came before.
fn slow_farewell(gone: Node, all: usize, at: Duration, seed: u64, faults: &mut Vec<Planned>) {
    // A stream of its own, as above.
    let mut random = Random::new(seed ^ at.as_nanos() as u64 ^ 0xFA4E_3E11);
    if random.below(2) == 0 {
        return;
    }
    let length = Duration::from_millis(1_500 + random.below(1_500));
    for node in (0..all).filter(|node| *node != gone) {
        let fault = Fault::SlowDisk { node, micros: 50_000 + random.below(350_000), share: 0, length };
        faults.push(Planned { number: faults.len() + 1, at, fault });
    }
    for _ in 0..3 {
        let at = at + Duration::from_millis(200 + random.below(1_500));
        let fault = Fault::Kill { node: gone, down: Duration::from_millis(1 + random.below(20)) };
        faults.push(Planned { number: faults.len() + 1, at, fault });
    }
}
