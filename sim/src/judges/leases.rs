//! While a leader counts on a follower, that one promises nothing to anybody else (FAULTS, rules 12
//! to 17; `groups/src/peers/lease.rs`). Read where both are, on the clocks that they really have: the
//! leader by its own account, the follower by what it has promised. So a broken lease is seen when it
//! breaks, and not only when a read happens to come back old.

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
}

/// Judges one leader; `promised` says what a follower's replica has promised, where there is one.
///
/// # Errors
/// When the rule is broken.
pub fn judge(holder: &Holder, promised: impl Fn(NodeId) -> Option<Ballot>) -> Verdict {
    for follower in &holder.bound {
        if let Some(other) = promised(*follower).filter(|other| *other > holder.ballot) {
            return Err(format!(
                "node {} leads group {} at {} and counts on node {follower}, which has promised {other}",
                holder.node, holder.group, holder.ballot
            ));
        }
    }
    Ok(())
}
