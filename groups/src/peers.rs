//! Liveness between nodes. One heartbeat per pair of nodes and interval speaks for all groups,
//! so that ten thousand idle groups cost no more than one.
//!
//! A node runs its groups in *shards*: shard `g mod shards` owns group `g`. Heartbeats go from
//! shard to shard, because a shard that hangs must not be covered by its neighbour's pulse. The
//! receiver echoes the sender's own time stamp: the sender learns that this very heartbeat was
//! heard, and how old that knowledge is on its own clock.

use std::time::Duration;

use crate::ids::{Boot, GroupId, NodeId};
use crate::time::Time;

/// The most shards of one node; more is a damaged message.
pub const MAX_SHARDS: u32 = 256;

/// "I am alive, and this is the newest of yours that I have heard."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The sender's life.
    pub boot: Boot,
    /// The sending shard.
    pub shard: u32,
    /// How many shards the sender has.
    pub shards: u32,
    /// When it was sent, on the sender's clock.
    pub sent: Time,
    /// The receiver's life that the echoes below belong to.
    pub echo_boot: Boot,
    /// For each shard of the receiver, the `sent` of its newest heartbeat heard here.
    pub echoes: Vec<Time>,
}

/// What this shard knows of one shard of a peer.
#[derive(Clone, Debug, Default)]
struct Pulse {
    /// When its newest heartbeat came, on this node's clock.
    heard: Option<Time>,
    /// The stamp of that heartbeat, on the peer's clock: what is echoed.
    stamp: Time,
    /// When this node sent the newest heartbeat that this shard of the peer has echoed.
    acknowledged: Option<Time>,
    /// What [`Peers::changed`] last reported: alive and reachable.
    reported: (bool, bool),
}

/// What is known of one peer.
#[derive(Clone, Debug)]
struct Peer {
    node: NodeId,
    boot: Boot,
    /// Since when it has been heard without a break.
    up_since: Option<Time>,
    pulses: Vec<Pulse>,
}

/// The peers as one shard sees them.
#[derive(Clone, Debug)]
pub struct Peers {
    me: NodeId,
    boot: Boot,
    shard: u32,
    shards: u32,
    /// Silence after which a peer is taken for dead.
    timeout: Duration,
    peers: Vec<Peer>,
}

/// What a heartbeat changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing: the peer was and is alive.
    Again,
    /// The peer is back after a silence, or was never heard before.
    Up,
    /// The peer is in a new life: what its earlier one led is led by nobody.
    Restarted,
    /// A late copy from an earlier life, ignored.
    Late,
}

impl Peers {
    /// Knows `nodes` (without `me`) by name and has heard none of them.
    #[must_use]
    pub fn new(
        me: NodeId,
        boot: Boot,
        shard: u32,
        shards: u32,
        timeout: Duration,
        nodes: &[NodeId],
    ) -> Peers {
        let mut peers: Vec<Peer> = nodes
            .iter()
            .filter(|n| **n != me)
            .map(|&node| Peer { node, boot: Boot(0), up_since: None, pulses: Vec::new() })
            .collect();
        peers.sort_unstable_by_key(|p| p.node);
        Peers { me, boot, shard, shards, timeout, peers }
    }

    /// The nodes beside this one, ascending.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().map(|p| p.node)
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.binary_search_by_key(&node, |p| p.node).ok().map(|i| &self.peers[i])
    }

    fn pulse(&self, node: NodeId, group: GroupId) -> Option<&Pulse> {
        let peer = self.peer(node)?;
        let shards = peer.pulses.len() as u32;
        if shards == 0 { None } else { peer.pulses.get((group.0 % shards) as usize) }
    }

    /// Takes in a heartbeat of `from`.
    pub fn heard(&mut self, from: NodeId, beat: &Heartbeat, now: Time) -> Heard {
        let timeout = self.timeout;
        let (my_boot, my_shard) = (self.boot, self.shard as usize);
        let Ok(index) = self.peers.binary_search_by_key(&from, |p| p.node) else { return Heard::Late };
        let peer = &mut self.peers[index];
        if beat.boot < peer.boot || beat.shards == 0 || beat.shards > MAX_SHARDS || beat.shard >= beat.shards
        {
            return Heard::Late;
        }
        let first = peer.boot == Boot(0);
        let restarted = beat.boot > peer.boot && !first;
        if beat.boot > peer.boot || peer.pulses.len() != beat.shards as usize {
            peer.boot = beat.boot;
            peer.up_since = None;
            peer.pulses = vec![Pulse::default(); beat.shards as usize];
        }
        let pulse = &mut peer.pulses[beat.shard as usize];
        let silent = pulse.heard.is_none_or(|heard| now.since(heard) >= timeout);
        pulse.heard = Some(now);
        pulse.stamp = pulse.stamp.max(beat.sent);
        if beat.echo_boot == my_boot
            && let Some(&echo) = beat.echoes.get(my_shard)
            && echo > Time::ZERO
            // A stamp from the future is no stamp of ours.
            && echo <= now
        {
            pulse.acknowledged = pulse.acknowledged.max(Some(echo));
        }
        if silent || peer.up_since.is_none() {
            peer.up_since = Some(now);
        }
        match (restarted, silent) {
            (true, _) => Heard::Restarted,
            (false, true) => Heard::Up,
            (false, false) => Heard::Again,
        }
    }

    /// The heartbeat to send to `to` now.
    #[must_use]
    pub fn beat(&self, to: NodeId, now: Time) -> Heartbeat {
        let (echo_boot, echoes) = match self.peer(to) {
            Some(peer) => (peer.boot, peer.pulses.iter().map(|p| p.stamp).collect()),
            None => (Boot(0), Vec::new()),
        };
        Heartbeat { boot: self.boot, shard: self.shard, shards: self.shards, sent: now, echo_boot, echoes }
    }

    /// Whether the shard of `node` that owns `group` has been heard within the timeout. A node
    /// is always alive to itself.
    #[must_use]
    pub fn alive(&self, node: NodeId, group: GroupId, now: Time) -> bool {
        node == self.me
            || self
                .pulse(node, group)
                .and_then(|p| p.heard)
                .is_some_and(|heard| now.since(heard) < self.timeout)
    }

    /// Whether `node` has lately echoed one of this node's heartbeats, so that words pass in
    /// both directions.
    #[must_use]
    pub fn reachable(&self, node: NodeId, group: GroupId, now: Time) -> bool {
        node == self.me
            || self
                .pulse(node, group)
                .and_then(|p| p.acknowledged)
                .is_some_and(|sent| now.since(sent) < self.timeout)
    }

    /// The nodes of which a shard has fallen silent, come back, or stopped or begun to hear this
    /// node, since this was last asked.
    pub fn changed(&mut self, now: Time) -> Vec<NodeId> {
        let timeout = self.timeout;
        let fresh = |t: Option<Time>| t.is_some_and(|t| now.since(t) < timeout);
        let mut changed = Vec::new();
        for peer in &mut self.peers {
            let mut any = false;
            for pulse in &mut peer.pulses {
                let state = (fresh(pulse.heard), fresh(pulse.acknowledged));
                any |= pulse.reported != state;
                pulse.reported = state;
            }
            if any {
                changed.push(peer.node);
            }
        }
        changed
    }

    /// For how long `node` has been heard without a break.
    #[must_use]
    pub fn up_for(&self, node: NodeId, now: Time) -> Duration {
        match self.peer(node).and_then(|p| p.up_since) {
            Some(since) => now.since(since),
            None => Duration::ZERO,
        }
    }

    /// The life in which `node` was last heard; 0 for never.
    #[must_use]
    pub fn boot_of(&self, node: NodeId) -> Boot {
        if node == self.me { self.boot } else { self.peer(node).map_or(Boot(0), |p| p.boot) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(400);
    const G: GroupId = GroupId(0);

    fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn peers(me: u32, boot: u64) -> Peers {
        let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
        Peers::new(NodeId(me), Boot(boot), 0, 1, TIMEOUT, &nodes)
    }

    #[test]
    fn a_peer_is_alive_while_it_is_heard_and_reachable_while_it_echoes() {
        let (mut a, mut b) = (peers(1, 1), peers(2, 1));
        assert!(a.alive(NodeId(1), G, at(1)) && a.reachable(NodeId(1), G, at(1)), "to itself, always");
        assert!(!a.alive(NodeId(2), G, at(1)));
        // b speaks first: a hears it, and cannot know yet whether b hears a.
        assert_eq!(a.heard(NodeId(2), &b.beat(NodeId(1), at(7)), at(10)), Heard::Up);
        assert!(a.alive(NodeId(2), G, at(10)) && !a.reachable(NodeId(2), G, at(10)));
        // a's answer carries b's own stamp back.
        assert_eq!(b.heard(NodeId(1), &a.beat(NodeId(2), at(20)), at(30)), Heard::Up);
        assert!(b.reachable(NodeId(1), G, at(30)));
        assert_eq!(a.heard(NodeId(2), &b.beat(NodeId(1), at(40)), at(50)), Heard::Again);
        assert!(a.reachable(NodeId(2), G, at(50)));
        // What a knows is as old as the heartbeat of its own that was echoed: sent at 20.
        assert!(a.reachable(NodeId(2), G, at(419)) && !a.reachable(NodeId(2), G, at(420)));
        assert!(a.alive(NodeId(2), G, at(449)) && !a.alive(NodeId(2), G, at(450)));
    }

    #[test]
    fn an_outsider_and_an_impossible_shard_are_not_heard() {
        let mut a = peers(1, 1);
        let mut beat = peers(2, 1).beat(NodeId(1), at(1));
        assert_eq!(a.heard(NodeId(9), &beat, at(1)), Heard::Late);
        for (shard, shards) in [(1, 1), (0, 0), (0, MAX_SHARDS + 1)] {
            (beat.shard, beat.shards) = (shard, shards);
            assert_eq!(a.heard(NodeId(2), &beat, at(1)), Heard::Late);
        }
        assert!(!a.alive(NodeId(2), G, at(1)));
    }

    #[test]
    fn a_new_life_is_noticed_and_the_old_one_is_heard_no_more() {
        let mut a = peers(1, 1);
        let (old, new) = (peers(2, 3), peers(2, 4));
        assert_eq!(a.heard(NodeId(2), &old.beat(NodeId(1), at(1)), at(1)), Heard::Up);
        assert_eq!(a.heard(NodeId(2), &new.beat(NodeId(1), at(1)), at(2)), Heard::Restarted);
        assert_eq!(a.boot_of(NodeId(2)), Boot(4));
        assert_eq!(a.heard(NodeId(2), &old.beat(NodeId(1), at(9)), at(3)), Heard::Late);
        assert_eq!(a.up_for(NodeId(2), at(12)), Duration::from_millis(10), "counted from the new life on");
    }

    #[test]
    fn an_echo_for_an_earlier_life_or_from_the_future_is_no_echo() {
        let mut a = peers(1, 2);
        let mut beat = peers(2, 1).beat(NodeId(1), at(1));
        (beat.echo_boot, beat.echoes) = (Boot(1), vec![at(5)]);
        a.heard(NodeId(2), &beat, at(10));
        assert!(!a.reachable(NodeId(2), G, at(10)), "meant for an earlier life of this node");
        (beat.echo_boot, beat.echoes) = (Boot(2), vec![at(11)]);
        a.heard(NodeId(2), &beat, at(10));
        assert!(!a.reachable(NodeId(2), G, at(10)), "this node has not sent that yet");
        beat.echoes = vec![at(9)];
        a.heard(NodeId(2), &beat, at(10));
        assert!(a.reachable(NodeId(2), G, at(10)));
    }

    #[test]
    fn a_shard_that_hangs_is_not_covered_by_its_neighbour() {
        let mut a = peers(1, 1);
        let nodes = [NodeId(1), NodeId(2)];
        let shard = |s| Peers::new(NodeId(2), Boot(1), s, 2, TIMEOUT, &nodes);
        a.heard(NodeId(2), &shard(0).beat(NodeId(1), at(1)), at(1));
        assert!(a.alive(NodeId(2), GroupId(4), at(1)) && !a.alive(NodeId(2), GroupId(5), at(1)));
    }

    #[test]
    fn what_changed_is_told_once() {
        let mut a = peers(1, 1);
        let b = peers(2, 1);
        assert!(a.changed(at(1)).is_empty());
        a.heard(NodeId(2), &b.beat(NodeId(1), at(1)), at(10));
        assert_eq!(a.changed(at(10)), [NodeId(2)]);
        assert!(a.changed(at(409)).is_empty());
        assert_eq!(a.changed(at(410)), [NodeId(2)]);
        assert!(a.changed(at(900)).is_empty());
        assert_eq!(a.up_for(NodeId(3), at(900)), Duration::ZERO);
    }
}
