//! Leader leases between nodes: one heartbeat renews those of all groups (Chubby's and Spanner's
//! idea; Ongaro, "Consensus", section 6.4.1 for a lease on heartbeats).
//!
//! A node that hears a heartbeat of a peer, and whose own words reach that peer, *grants*: for
//! `lease` from then on, on its own clock, no group here that has confirmed that peer's ballot in
//! this life promises anything to anybody else, as long as that ballot is its promise. (Nobody counts
//! on a follower before it has confirmed; and a group that is told that the peer leads no more, or
//! hears a new life of it, is free.) The next heartbeat back carries the stamp of the one that was
//! granted, so the leader counts from before it sent it, on its own clock, and a little less than
//! `lease` for the drift of both (FAULTS, rule 13). A peer that this node hears and does not reach
//! is granted nothing: it might have stepped down for want of answers, and would bind everybody
//! with its pulse alone.
//!
//! A grant speaks for all groups, and a group may have left: its promise went to somebody else
//! once the lease had run out, while the node goes on granting for the others. So each shard
//! counts how often one of its groups has left a leader on a peer (the [`Tenure`]), says it in
//! every heartbeat, and a follower says it when it confirms a leader. A grant covers a follower of
//! a group if that one has confirmed the leader's ballot in a tenure no older than the newest heard
//! of. Then either it confirmed after the newest leaving that the grant knows of, and no group has
//! left between the two words; or the grant is the older word, and binds the promise that came
//! after it. In both cases, as long as the grant lasts, that follower promises nothing to others.
//!
//! A leader with such followers that make a majority with itself answers reads alone: whoever
//! might be elected beside it needs a promise from one of them, or from the leader itself (rule
//! 16). The clock must be read after the read has come (rule 14): then everything acknowledged
//! before that moment was acknowledged by this leader, and is in its state.
//!
//! A life that has just begun does not know what the one before had granted, and promises nothing
//! for one lease (rule 15). A leader that hands over gives its lease up for good first, and says at
//! which ballot (rule 17); grants of disks that are no members do not count, because their
//! confirmations do not.

use std::time::Duration;

use super::{Heartbeat, Peers, Pulse};
use crate::ids::{GroupId, NodeId};
use crate::planted::{self, Bug};
use crate::time::Time;

/// How often the groups of a shard have left a leader on one peer: raised their promise from a ballot of
/// that node to one of another. Counts up over all lives of the shard's node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenure(pub u64);

/// Leavings of one life that are told apart; a shard that has had more grants nothing.
const MOST: u64 = (1 << 24) - 1;

/// A lease that is granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    /// When the heartbeat was sent, on the holder's clock.
    from: Time,
    /// When it was heard, on this node's.
    heard: Time,
}

/// A lease that is held.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// When this node sent the newest heartbeat that was granted.
    from: Time,
    /// The newest tenure heard of.
    tenure: Tenure,
}

impl Pulse {
    /// A heartbeat that was sent at `from` has been heard.
    pub(super) fn grant(&mut self, from: Time, now: Time, timeout: Duration) {
        let reaches = self.acknowledged.is_some_and(|sent| now.since(sent) < timeout);
        if reaches && self.granted.is_none_or(|granted| granted.from < from) {
            self.granted = Some(Granted { from, heard: now });
        }
    }

    /// What the peer grants to this shard.
    pub(super) fn hold(&mut self, beat: &Heartbeat, my_shard: usize, now: Time) {
        let held = self.held.get_or_insert_default();
        held.tenure = held.tenure.max(beat.tenure);
        let Some(&from) = beat.grants.get(my_shard) else { return };
        if planted::is(Bug::LeaseFromReply) && from > Time::ZERO {
            held.from = now;
        } else if from <= now {
            // A stamp from the future is no stamp of ours.
            held.from = held.from.max(from);
        }
    }

    pub(super) fn granted_at(&self) -> Option<Time> {
        self.granted.map(|granted| granted.heard)
    }

    pub(super) fn granted_from(&self) -> Time {
        self.granted.map_or(Time::ZERO, |granted| granted.from)
    }
}

impl Peers {
    /// Whether this node has granted `node` a lease for `group` that has not run out.
    #[must_use]
    pub fn grants(&self, node: NodeId, group: GroupId, lease: Duration, now: Time) -> bool {
        self.pulse(node, group).and_then(|p| p.granted).is_some_and(|granted| now < granted.heard + lease)
    }

    /// Whether a lease that was granted to an earlier life of `node` has not run out: it may be that of
    /// a process with another disk that is still there.
    #[must_use]
    pub fn granted_before(&self, node: NodeId, lease: Duration, now: Time) -> bool {
        self.peer_or_former(node).and_then(|p| p.before).is_some_and(|heard| now < heard + lease)
    }

    /// From when on `node` grants this node a lease, on this node's clock, and up to which tenure
    /// of it that is known to speak for a follower; `None` when it never has.
    #[must_use]
    pub fn granted_by(&self, node: NodeId, group: GroupId) -> Option<(Time, Tenure)> {
        let held = self.pulse(node, group)?.held.filter(|held| held.from > Time::ZERO)?;
        Some((held.from, held.tenure))
    }

    /// How often groups here have left a leader on `node`.
    #[must_use]
    pub fn tenure(&self, node: NodeId) -> Tenure {
        let left = self.peer_or_former(node).map_or(0, |p| p.left);
        Tenure(self.boot.0 << 24 | left.min(MOST))
    }

    /// Whether leavings can no longer be told apart.
    pub(super) fn is_exhausted(&self, node: NodeId) -> bool {
        self.peer_or_former(node).is_some_and(|p| p.left > MOST)
    }

    /// A group here has left a leader on `node`.
    pub fn leave(&mut self, node: NodeId) {
        if planted::is(Bug::LeaseOutlivesPromise) {
            return;
        }
        if let Some(peer) = self.peers.iter_mut().chain(&mut self.former).find(|p| p.node == node) {
            peer.left += 1;
        }
    }
}
