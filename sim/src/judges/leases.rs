//! The majority that a leader counts on is one: as many followers as it needs beside itself have
//! promised nothing to anybody else (FAULTS, rules 12 to 17; `groups/src/peers/lease.rs`). Read where
//! both are, on the clocks that they really have: the leader by its own account, the followers by what
//! they have promised. So a broken lease is seen when it breaks, and not only when a read happens to
//! come back old. One follower alone may go: it follows whoever a majority without it has elected,
//! and then the leader counts on too few others.

use groups::ids::{Ballot, GroupId, NodeId};

use super::Verdict;

/// A leader and the followers that it counts on at this moment.
#[derive(Debug)]
pub struct Holder {
    /// The leader.
    pub node: NodeId,
    /// The group.
    pub group: GroupId,
    /// Its ballot.
    pub ballot: Ballot,
    /// Whom it takes for bound.
    pub bound: Vec<NodeId>,
    /// How many it needs.
    pub needed: usize,
}

/// Judges one leader; `promised` says what a follower's replica has promised, where there is one.
///
/// # Errors
/// When the rule is broken.
pub fn judge(holder: &Holder, promised: impl Fn(NodeId) -> Option<Ballot>) -> Verdict {
    if holder.bound.len() < holder.needed {
        return Ok(());
    }
    let gone =
        |node: &NodeId| promised(*node).filter(|other| *other > holder.ballot).map(|other| (*node, other));
    let gone: Vec<(NodeId, Ballot)> = holder.bound.iter().filter_map(gone).collect();
    match gone.first() {
        Some((follower, other)) if holder.bound.len() - gone.len() < holder.needed => Err(format!(
            "node {} leads group {} at {} on a lease and counts on node {follower}, which has promised {other}",
            holder.node, holder.group, holder.ballot
        )),
        _ => Ok(()),
    }
}
