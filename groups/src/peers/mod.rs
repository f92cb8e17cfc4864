//! Liveness between nodes. One heartbeat per pair of nodes and interval speaks for all groups,
//! so that ten thousand idle groups cost no more than one.
//!
//! A node runs its groups in *shards*: shard `g mod shards` owns group `g`. Heartbeats go from
//! shard to shard, because a shard that hangs must not be covered by its neighbour's pulse. The
//! receiver echoes the sender's own time stamp: the sender learns that this very heartbeat was
//! heard, and how old that knowledge is on its own clock.
//!
//! Heartbeats are also how a disk is recognised. Each says which disk speaks and the newest
//! commit of its log, and each tells its receiver what the sender remembers of it. A node whose
//! disk was put back from an older copy hears that it once knew more, and a node whose disk was
//! replaced hears of the other one; neither may vote with what it has (FAULTS, rule 18 and
//! "older copy of the disk put back"). So a node takes no part in Paxos before enough peers have
//! answered it, and stops the moment one says so later. That is as much as can be known: a copy
//! that lacks only what no reachable peer has ever heard of is not told apart.
//!
//! And they carry leases: see `lease.rs`; and how much each node lags: see `fitness.rs`.

mod fitness;
mod lease;
mod memory;

use std::time::Duration;

use fitness::Fitness;
pub use lease::Tenure;
use lease::{Granted, Held};
pub use memory::{Memory, Newest, Proof, Standing};

use crate::ids::{Boot, CommitId, GroupId, NodeId, StorageId};
use crate::planted::{self, Bug};
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
    /// The sender is about to end, and wants to lead nothing.
    pub leaving: bool,
    /// How long the sender's records lately took until they were synced.
    pub lag: Duration,
    /// The sender finds itself slow, and wants to lead nothing.
    pub slow: bool,
    /// The version of the sender's list of nodes: whoever has an older one is told.
    pub roster: u64,
    /// The disk that the sender runs on.
    pub storage: StorageId,
    /// The commit that the sender's log ended with when this life began.
    pub opened: CommitId,
    /// The newest commit of the sender's log that is synced.
    pub commit: CommitId,
    /// What the sender remembers of the receiver.
    pub known: Option<Memory>,
    /// The receiver's life that the echoes below belong to.
    pub echo_boot: Boot,
    /// For each shard of the receiver, the `sent` of its newest heartbeat heard here.
    pub echoes: Vec<Time>,
    /// How often this shard has left a leader on the receiver, see [`Tenure`].
    pub tenure: Tenure,
    /// For each shard of the receiver, the `sent` of the newest heartbeat from which on this shard
    /// grants it a lease; zero for none.
    pub grants: Vec<Time>,
}

/// How often the progress of the peers' commits is worth writing down.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// What this shard knows of one shard of a peer.
#[derive(Clone, Debug, Default)]
struct Pulse {
    /// When its newest heartbeat came, on this node's clock.
    heard: Option<Time>,
    /// The stamp of that heartbeat, on the peer's clock: what is echoed.
    stamp: Time,
    /// When this node sent the newest heartbeat that this shard of the peer has echoed.
    acknowledged: Option<Time>,
    /// The lease that this node grants to it.
    granted: Option<Granted>,
    /// The lease that it grants to this node.
    held: Option<Held>,
    /// How much it lags, and whether it finds itself slow.
    lag: Duration,
    slow: bool,
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
    memory: Option<Memory>,
    /// It has heard this life and remembers nothing against it.
    vouches: bool,
    /// How often a group here has left a leader on it, in this life.
    left: u64,
    /// It is about to end, and wants to lead nothing.
    leaving: bool,
    /// When the newest heartbeat that granted a lease to an earlier life of it was heard.
    before: Option<Time>,
}

impl Peer {
    fn unheard(node: NodeId, memory: Option<Memory>) -> Peer {
        Peer {
            node,
            boot: Boot(0),
            up_since: None,
            pulses: Vec::new(),
            memory,
            vouches: false,
            left: 0,
            leaving: false,
            before: None,
        }
    }
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
    /// Those that were peers in this life and are none: should one come back, what it was told of
    /// tenures still counts.
    former: Vec<Peer>,
    /// The version of the list of nodes.
    roster: u64,
    storage: StorageId,
    opened: CommitId,
    newest: Newest,
    /// See [`Proof::founders`].
    founders: Option<Vec<NodeId>>,
    /// What was remembered when this life began, of whomever.
    remembered: Vec<(NodeId, Memory)>,
    standing: Standing,
    /// This node is about to end, and wants to lead nothing.
    leaving: bool,
    /// How much this shard lags, and what it thinks of that.
    lag: Duration,
    fitness: Fitness,
    /// A peer has another disk or a new life, or its commits have gone on, since the memory was
    /// last handed out.
    unsaved: (bool, bool),
    next_save: Time,
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
        proof: Proof,
    ) -> Peers {
        let Proof { storage, opened, newest, founders, memory } = proof;
        let mut all = Peers {
            me,
            boot,
            shard,
            shards,
            timeout,
            peers: Vec::new(),
            former: Vec::new(),
            roster: 0,
            storage,
            opened,
            newest,
            founders,
            remembered: memory,
            standing: Standing::Unproven,
            leaving: false,
            lag: Duration::ZERO,
            fitness: Fitness::default(),
            unsaved: (false, false),
            next_save: Time::ZERO,
        };
        all.set_nodes(0, nodes);
        all
    }

    /// How many nodes, this one included, must find nothing wrong with this disk: a majority, so that one
    /// of them has heard whatever another disk of this node had made a majority believe. A node that was
    /// added and that nobody has heard of yet can tell nothing, and is not waited for.
    fn needed(&self) -> usize {
        let Some(founders) = &self.founders else { return 1 };
        let counts = |p: &&Peer| founders.contains(&p.node) || p.memory.is_some();
        let nodes = 1 + self.peers.iter().filter(counts).count();
        nodes / 2 + 1
    }

    /// Whether enough peers have found nothing wrong with this disk.
    fn weigh(&mut self) {
        let vouching = 1 + self.peers.iter().filter(|p| p.vouches).count();
        if self.standing == Standing::Unproven && vouching >= self.needed() {
            self.standing = Standing::Proven;
            self.newest.trust();
        }
    }

    /// The nodes of the cluster are these from now on, by the list of this version: whoever is new
    /// has not been heard yet.
    pub fn set_nodes(&mut self, version: u64, nodes: &[NodeId]) {
        self.roster = version;
        self.former.extend(self.peers.extract_if(.., |p| !nodes.contains(&p.node)));
        for &node in nodes.iter().filter(|n| **n != self.me) {
            if let Err(at) = self.peers.binary_search_by_key(&node, |p| p.node) {
                let former = self.former.iter().position(|p| p.node == node);
                let peer = former.map(|i| self.former.swap_remove(i));
                let remembered = self.remembered.iter().find(|(n, _)| *n == node).map(|(_, m)| *m);
                self.peers.insert(at, peer.unwrap_or_else(|| Peer::unheard(node, remembered)));
            }
        }
        self.weigh();
    }

    /// Whether this node may trust what its disk remembers.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// What is remembered of the peers, when it is worth writing down: at once when a peer has
    /// another disk or a new life, now and then while their logs go on.
    pub fn to_save(&mut self, now: Time) -> Option<Vec<(NodeId, Memory)>> {
        let (lives, commits) = self.unsaved;
        if !(lives || (commits && now >= self.next_save)) {
            return None;
        }
        self.unsaved = (false, false);
        self.next_save = now + SAVE_EVERY;
        Some(self.peers.iter().filter_map(|p| Some((p.node, p.memory?))).collect())
    }

    /// Takes in what `from` says about its own disk; `false` when that disk was replaced.
    fn remember(&mut self, index: usize, beat: &Heartbeat) -> bool {
        let told =
            Memory { storage: beat.storage, boot: beat.boot, opened: beat.opened, commit: beat.commit };
        let memory = &mut self.peers[index].memory;
        match memory {
            Some(held) if held.storage == told.storage => {
                if held.is_before(&told) {
                    self.unsaved.0 = true;
                    *held = told;
                } else if (held.boot, held.opened) == (told.boot, told.opened) {
                    self.unsaved.1 |= told.commit > held.commit;
                    held.commit = held.commit.max(told.commit);
                }
                // Anything else is an older copy: it is told what is remembered, however far it has
                // gone on since.
            }
            Some(held) if held.boot >= told.boot => return false,
            Some(_) | None => {
                self.unsaved.0 = true;
                *memory = Some(told);
            }
        }
        true
    }

    /// Whether this disk has once known more than it did when this life began. Where nobody is asked,
    /// nothing is known of it.
    fn has_forgotten(&self, known: &Memory) -> bool {
        let more = match known.boot.cmp(&self.boot) {
            std::cmp::Ordering::Less => known.commit > self.opened,
            // Two lives with one number, unless both began at the same place.
            std::cmp::Ordering::Equal => known.opened != self.opened || known.commit > self.newest.get(),
            std::cmp::Ordering::Greater => true,
        };
        more && self.founders.is_some()
    }

    /// Takes in what `from` remembers of this node.
    fn judge(&mut self, index: usize, beat: &Heartbeat) {
        let peer = self.peers[index].node;
        let Some(known) = beat.known else { return };
        if known.storage != self.storage {
            // Two disks with one number are two that were put in at one time: one of them is too many.
            if known.boot >= self.boot {
                self.standing = Standing::Replaced { peer, known };
            }
        } else if self.has_forgotten(&known) && !planted::is(Bug::TrustsOldMemory) {
            self.standing = Standing::Lapsed { peer, known };
        } else if beat.echo_boot == self.boot {
            self.peers[index].vouches = true;
            self.weigh();
        }
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

    /// A peer, or who was one in this life: a lease does not end with a list of nodes.
    fn peer_or_former(&self, node: NodeId) -> Option<&Peer> {
        self.peer(node).or_else(|| self.former.iter().find(|p| p.node == node))
    }

    fn pulse(&self, node: NodeId, group: GroupId) -> Option<&Pulse> {
        let peer = self.peer_or_former(node)?;
        let shards = peer.pulses.len() as u32;
        if shards == 0 { None } else { peer.pulses.get((group.0 % shards) as usize) }
    }

    /// Takes in a heartbeat of `from`.
    pub fn heard(&mut self, from: NodeId, beat: &Heartbeat, now: Time) -> Heard {
        let timeout = self.timeout;
        let (my_boot, my_shard) = (self.boot, self.shard as usize);
        let Ok(index) = self.peers.binary_search_by_key(&from, |p| p.node) else { return Heard::Late };
        self.judge(index, beat);
        if !self.remember(index, beat) {
            return Heard::Late;
        }
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
            let granted = peer.pulses.iter().filter_map(Pulse::granted_at).max();
            peer.before = peer.before.max(granted);
            peer.pulses = vec![Pulse::default(); beat.shards as usize];
        }
        peer.leaving = beat.leaving;
        let pulse = &mut peer.pulses[beat.shard as usize];
        let silent = pulse.heard.is_none_or(|heard| now.since(heard) >= timeout);
        pulse.heard = Some(now);
        (pulse.lag, pulse.slow) = (beat.lag, beat.slow);
        pulse.stamp = pulse.stamp.max(beat.sent);
        if beat.echo_boot == my_boot
            && let Some(&echo) = beat.echoes.get(my_shard)
            && echo > Time::ZERO
            // A stamp from the future is no stamp of ours.
            && echo <= now
        {
            pulse.acknowledged = pulse.acknowledged.max(Some(echo));
        }
        if beat.echo_boot == my_boot {
            pulse.hold(beat, my_shard, now);
        }
        pulse.grant(beat.sent, now, timeout);
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
        let (known, echo_boot, pulses) = match self.peer(to) {
            Some(peer) => (peer.memory, peer.boot, &peer.pulses[..]),
            None => (None, Boot(0), &[][..]),
        };
        Heartbeat {
            boot: self.boot,
            shard: self.shard,
            shards: self.shards,
            sent: now,
            leaving: self.leaving,
            lag: self.lag,
            slow: self.fitness.is_slow(),
            roster: self.roster,
            storage: self.storage,
            opened: self.opened,
            commit: self.newest.get(),
            known,
            echo_boot,
            echoes: pulses.iter().map(|p| p.stamp).collect(),
            tenure: self.tenure(to),
            grants: match self.is_exhausted(to) {
                true => Vec::new(),
                false => pulses.iter().map(Pulse::granted_from).collect(),
            },
        }
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

    /// This node is about to end: it says so, and wants to lead nothing.
    pub fn leave_all(&mut self) {
        self.leaving = true;
    }

    /// Whether `node` is about to end, and wants to lead nothing.
    #[must_use]
    pub fn is_leaving(&self, node: NodeId) -> bool {
        if node == self.me { self.leaving } else { self.peer(node).is_some_and(|p| p.leaving) }
    }

    /// This shard's records lately took so long until they were synced.
    pub fn set_lag(&mut self, lag: Duration, now: Time) {
        self.lag = lag;
        let timeout = self.timeout;
        let heard = |p: &&Pulse| p.heard.is_some_and(|at| now.since(at) < timeout);
        let lag_of = |p: &Peer| p.pulses.iter().filter(heard).map(|p| p.lag).max();
        let mut lags: Vec<Duration> = self.peers.iter().filter_map(lag_of).collect();
        self.fitness.look(lag, &mut lags, now);
    }

    /// How much this shard lags, if it finds itself slow.
    #[must_use]
    pub fn slowness(&self) -> Option<Duration> {
        self.fitness.is_slow().then_some(self.lag)
    }

    /// Whether the shard of `node` that owns `group` finds itself slow, and wants to lead nothing while
    /// others can.
    #[must_use]
    pub fn is_slow(&self, node: NodeId, group: GroupId) -> bool {
        if node == self.me { self.fitness.is_slow() } else { self.pulse(node, group).is_some_and(|p| p.slow) }
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
        Peers::new(NodeId(me), Boot(boot), 0, 1, TIMEOUT, &nodes, Proof::alone(StorageId(me.into())))
    }

    /// A node on `disk` whose log ends with `commit`, which needs the word of one peer.
    fn on_disk(me: u32, boot: u64, disk: u32, commit: u64) -> Peers {
        let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let newest = Newest::new(CommitId(commit));
        let opened = CommitId(commit);
        let proof =
            Proof { opened, newest, founders: Some(nodes.clone()), ..Proof::alone(StorageId(disk.into())) };
        Peers::new(NodeId(me), Boot(boot), 0, 1, TIMEOUT, &nodes, proof)
    }

    /// Both say one thing, first `a`.
    fn exchange(a: &mut Peers, b: &mut Peers, millis: u64) {
        let beat = a.beat(b.me(), at(millis));
        b.heard(a.me(), &beat, at(millis));
        let beat = b.beat(a.me(), at(millis));
        a.heard(b.me(), &beat, at(millis));
    }

    #[test]
    fn a_node_is_proven_once_a_peer_has_heard_this_life_of_it() {
        let (mut a, mut b) = (on_disk(1, 1, 10, 5), on_disk(2, 1, 20, 5));
        // What b says before it has heard a proves nothing.
        let beat = b.beat(NodeId(1), at(1));
        a.heard(NodeId(2), &beat, at(1));
        assert_eq!(a.standing(), Standing::Unproven);
        exchange(&mut a, &mut b, 2);
        assert_eq!(a.standing(), Standing::Proven);
    }

    #[test]
    fn an_older_copy_of_a_disk_is_found_out() {
        let (mut a, mut b) = (on_disk(1, 4, 10, 900), on_disk(2, 1, 20, 5));
        exchange(&mut a, &mut b, 1);
        a.newest.reach(CommitId(1_000));
        exchange(&mut a, &mut b, 2);
        // The copy was made at commit 950, in the same life.
        let mut copy = on_disk(1, 5, 10, 950);
        exchange(&mut copy, &mut b, 3);
        let (opened, commit) = (CommitId(900), CommitId(1_000));
        let known = Memory { storage: StorageId(10), boot: Boot(4), opened, commit };
        assert_eq!(copy.standing(), Standing::Lapsed { peer: NodeId(2), known });
        // And what is remembered does not fall with what the copy says.
        assert_eq!(b.to_save(at(9)), Some(vec![(NodeId(1), known)]));
        // A peer that comes back with what it had written down says the same.
        let mut later = on_disk(2, 2, 20, 5);
        later.peers[0].memory = Some(known);
        let mut copy = on_disk(1, 6, 10, 951);
        exchange(&mut copy, &mut later, 4);
        assert!(matches!(copy.standing(), Standing::Lapsed { .. }));
    }

    /// The story: only a peer that was away could tell the copy from the disk. Until it came back the
    /// copy had gone on beyond what was remembered of the disk, and that was forgotten over it.
    #[test]
    fn a_copy_that_has_gone_on_is_found_out_all_the_same() {
        let (mut a, mut b, mut c) = (on_disk(1, 4, 10, 900), on_disk(2, 1, 20, 5), on_disk(3, 1, 30, 5));
        a.newest.reach(CommitId(1_000));
        exchange(&mut a, &mut c, 1);
        for boot in [5, 4] {
            let mut copy = on_disk(1, boot, 10, 800);
            exchange(&mut copy, &mut b, 2);
            copy.newest.reach(CommitId(5_000));
            exchange(&mut copy, &mut c, 3);
            exchange(&mut copy, &mut c, 4);
            assert!(matches!(copy.standing(), Standing::Lapsed { peer: NodeId(3), .. }), "life {boot}");
        }
    }

    #[test]
    fn where_nobody_is_asked_nothing_is_forgotten() {
        let mut b = on_disk(2, 1, 20, 5);
        exchange(&mut on_disk(1, 4, 10, 900), &mut b, 1);
        let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let mut alone = Peers::new(NodeId(1), Boot(5), 0, 1, TIMEOUT, &nodes, Proof::alone(StorageId(10)));
        exchange(&mut alone, &mut b, 2);
        assert_eq!(alone.standing(), Standing::Proven);
    }

    #[test]
    fn a_proven_node_that_hears_of_more_later_stops() {
        let (mut a, mut b, mut c) = (on_disk(1, 4, 10, 900), on_disk(2, 1, 20, 5), on_disk(3, 1, 30, 5));
        exchange(&mut a, &mut c, 1);
        let mut copy = on_disk(1, 5, 10, 800);
        exchange(&mut copy, &mut b, 2);
        assert_eq!(copy.standing(), Standing::Proven, "node 2 knows nothing of it");
        exchange(&mut copy, &mut c, 3);
        assert!(matches!(copy.standing(), Standing::Lapsed { peer: NodeId(3), .. }));
    }

    #[test]
    fn a_new_disk_is_known_by_its_higher_boot_and_the_old_one_is_told() {
        let (mut old, mut b) = (on_disk(1, 7, 10, 900), on_disk(2, 1, 20, 5));
        exchange(&mut old, &mut b, 1);
        let mut new = on_disk(1, 1_000, 11, 0);
        exchange(&mut new, &mut b, 2);
        assert_eq!(new.standing(), Standing::Proven, "another disk need not know what the old one knew");
        let mut back = on_disk(1, 8, 10, 950);
        exchange(&mut back, &mut b, 3);
        assert!(
            matches!(back.standing(), Standing::Replaced { known, .. } if known.storage == StorageId(11))
        );
        assert_eq!(b.boot_of(NodeId(1)), Boot(1_000));
    }

    #[test]
    fn lives_are_written_down_at_once_and_commits_now_and_then() {
        let (mut a, mut b) = (on_disk(1, 1, 10, 5), on_disk(2, 1, 20, 5));
        exchange(&mut a, &mut b, 1);
        assert!(b.to_save(at(1)).is_some());
        assert_eq!(b.to_save(at(2)), None);
        a.newest.reach(CommitId(6));
        exchange(&mut a, &mut b, 3);
        assert_eq!(b.to_save(at(3)), None);
        assert!(b.to_save(at(6_000)).is_some());
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
        let shard = |s| Peers::new(NodeId(2), Boot(1), s, 2, TIMEOUT, &nodes, Proof::alone(StorageId(2)));
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
