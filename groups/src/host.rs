//! Many groups, one turn: the groups of one shard of a node, with the peers they share.
//!
//! The driver hands in whatever has come (messages, heartbeats, synced batches, submissions,
//! ticks) and then calls [`Host::turn`], which ends the turn of every touched group and returns
//! one [`Output`] for all of them. Idle groups are in no list and cost nothing.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::group::{Answer, Group, Limits, Reply, Seat, Submission, Traced};
use crate::ids::{Boot, GroupId, InstanceId, Member as Voter, NodeId};
use crate::kv::{Command, Outcome, Scanned, State};
use crate::mirrored::{Demand, MirrorOrder};
use crate::paxos::message::Mark;
use crate::paxos::{Envelope, LogFound, LogRead, Members, Message, Ready, Tuning};
use crate::peers::{Heard, Heartbeat, Memory, Peers, Proof, Standing};
use crate::random::Random;
use crate::replay::Replay;
use crate::time::Time;

/// What a host is made of.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// This node.
    pub me: NodeId,
    /// Its disk, and how much of what it remembers must be vouched for.
    pub proof: Proof,
    /// Its life.
    pub boot: Boot,
    /// Which of the node's shards this is.
    pub shard: u32,
    /// How many shards the node has.
    pub shards: u32,
    /// All nodes of the cluster.
    pub nodes: Vec<NodeId>,
    /// How many groups the cluster has.
    pub groups: u32,
    /// How often nodes say that they are alive.
    pub heartbeat_interval: Duration,
    /// How replicas behave.
    pub tuning: Arc<Tuning>,
    /// Limits of each group's queues.
    pub limits: Arc<Limits>,
    /// Seeds the timeouts.
    pub seed: u64,
}

/// What one turn asks the driver to do. See [`Ready`] for the order.
#[derive(Debug, Default)]
pub struct Output {
    /// Messages, records and log reads of all groups; envelopes to the own node are kept back
    /// and stepped by [`Host::on_synced`].
    pub ready: Ready,
    /// Names this turn for [`Host::on_synced`]; `None` when nothing of it waits for the disk.
    pub batch: Option<u64>,
    /// May be sent at once.
    pub beats: Vec<(NodeId, Heartbeat)>,
    /// Answers to submissions of this and other nodes; may be sent at once.
    pub answers: Vec<Answer>,
    /// What the groups ask of their mirrors.
    pub orders: Vec<(GroupId, MirrorOrder)>,
    /// What is remembered of the peers' disks, when it is to be written down.
    pub memory: Option<Vec<(NodeId, Memory)>>,
}

/// What the mirror says about a group.
#[derive(Debug)]
pub enum MirrorWord {
    /// It has taken in what it was handed, up to here.
    Folded(InstanceId),
    /// This point is verified, durable and recorded.
    Settled(Mark),
    /// It has been read back up to this point, and is what it should be.
    Proven(Mark),
    /// It has nothing of the group that can be trusted.
    Lost,
    /// A peer needs a checkpoint that reaches this instance, and the mirror is not there yet.
    Wanted(InstanceId),
    /// It cannot take the group in as it is.
    Unmirrored,
    /// A peer's checkpoint is in force there, and this is its state.
    Installed(Mark, Box<State>),
}

#[derive(Debug)]
struct Member {
    group: Group,
    touched: bool,
    active: bool,
    /// Its place in [`Host::wakes`].
    wakes: Option<Time>,
}

/// The groups of one shard.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    peers: Peers,
    random: Random,
    members: Vec<Member>,
    /// Position in `members` by `group / shards`; `NONE` for groups that this node has no seat in.
    seats: Vec<u32>,
    touched: Vec<usize>,
    active: Vec<usize>,
    /// When groups want a turn if none comes before, and which: `members[i].wakes` for all `i`.
    wakes: BTreeSet<(Time, usize)>,
    output: Output,
    /// Own votes that wait for the disk, by batch.
    own: VecDeque<(u64, Vec<Envelope>)>,
    next_batch: u64,
    next_beat: Time,
    next_sweep: Time,
    rescan: Round,
    /// Groups that learned from a peer at the last tick.
    learners: usize,
}

/// A pass over all states in memory, under way.
#[derive(Debug, Default)]
struct Round {
    began: Time,
    /// The member whose turn it is, out of all of them.
    next: usize,
    /// What there was to do when the round began, in bytes, and what of it is done.
    total: u64,
    done: u64,
    /// Members that somebody wants gone through now.
    urgent: VecDeque<usize>,
}

/// A member counts for so many bytes at least: behind it a mirror is read too.
const LEAST_COST: u64 = 4 << 10;

/// Bytes that a tick goes through at most, and does when somebody waits for it.
const RESCAN_BYTES: u64 = 256 << 10;

/// Leaders that were left are told of before the next word of any group.
fn leave(peers: &mut Peers, ready: &mut Ready) {
    for node in ready.left.drain(..) {
        peers.leave(node);
    }
}

const NONE: u32 = u32::MAX;

/// However many groups learn, each may have so many bytes of values under way.
const MIN_CREDIT: usize = 32 << 10;

impl Host {
    /// The groups that `seats` names, going on from their logs.
    #[must_use]
    pub fn new(config: HostConfig, seats: Vec<Seat>, now: Time) -> Host {
        let peers = Peers::new(
            config.me,
            config.boot,
            config.shard,
            config.shards,
            config.tuning.election_timeout,
            &config.nodes,
            config.proof.clone(),
        );
        let mut host = Host {
            peers,
            random: Random::new(config.seed),
            active: Vec::with_capacity(seats.len()),
            members: Vec::with_capacity(seats.len()),
            seats: vec![NONE; config.groups.div_ceil(config.shards) as usize],
            touched: Vec::new(),
            wakes: BTreeSet::new(),
            output: Output::default(),
            own: VecDeque::new(),
            next_batch: 1,
            next_beat: now,
            next_sweep: now,
            rescan: Round { began: now, next: usize::MAX, ..Round::default() },
            learners: 0,
            config,
        };
        for seat in seats {
            host.add(seat, now);
        }
        host
    }

    /// The nodes of the cluster are these from now on, by the list of this version, and the members of
    /// each group shall be what `preference` says, from the best placed leader to the worst. A group that
    /// is new to this node begins with nothing, and learns; it was born with `founders`.
    pub fn place(
        &mut self,
        version: u64,
        nodes: &[NodeId],
        preference: &dyn Fn(GroupId) -> Vec<NodeId>,
        founders: &dyn Fn(GroupId) -> Members,
        now: Time,
    ) {
        self.peers.set_nodes(version, nodes);
        let mine = (self.config.shard..self.config.groups).step_by(self.config.shards as usize);
        for group in mine.map(GroupId) {
            let preference = preference(group);
            let index = match self.seat(group) {
                Some(index) => {
                    self.members[index].group.set_preference(preference, now);
                    index
                }
                None if preference.contains(&self.config.me) => {
                    let founders = founders(group);
                    self.add(Seat { group, founders, preference, replay: Replay::mirrored() }, now)
                }
                None => continue,
            };
            self.touch(index);
        }
    }

    fn add(&mut self, seat: Seat, now: Time) -> usize {
        let HostConfig { me, shard, shards, boot, .. } = self.config;
        assert_eq!(seat.group.0 % shards, shard, "a shard owns its groups only");
        let index = self.members.len();
        self.seats[(seat.group.0 / shards) as usize] = index as u32;
        let voter = Voter { node: me, storage: self.config.proof.storage };
        let (tuning, limits) = (Arc::clone(&self.config.tuning), Arc::clone(&self.config.limits));
        let group = Group::new(seat, voter, boot, tuning, limits, now);
        self.members.push(Member { group, touched: false, active: true, wakes: None });
        self.active.push(index);
        index
    }

    /// The peers as this shard sees them.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// All groups with a seat here.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.members.iter().map(|m| &m.group)
    }

    /// A group that has halted here and goes on elsewhere, and why it has halted.
    #[must_use]
    pub fn outlived(&self) -> Option<(GroupId, String)> {
        let outlived = |m: &&Member| m.group.replica.is_outlived();
        let replica = &self.members.iter().find(outlived)?.group.replica;
        Some((replica.group(), replica.halted()?.to_string()))
    }

    /// One group, if it has a seat here.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&Group> {
        self.seat(group).map(|i| &self.members[i].group)
    }

    /// One group, for faults that tests do to it.
    pub fn group_mut(&mut self, group: GroupId) -> Option<&mut Group> {
        self.seat(group).map(|i| &mut self.members[i].group)
    }

    fn seat(&self, group: GroupId) -> Option<usize> {
        if group.0 % self.config.shards != self.config.shard {
            return None;
        }
        match self.seats.get((group.0 / self.config.shards) as usize) {
            Some(&index) if index != NONE => Some(index as usize),
            _ => None,
        }
    }

    fn touch(&mut self, index: usize) {
        let member = &mut self.members[index];
        if !member.touched {
            member.touched = true;
            self.touched.push(index);
        }
        self.activate(index);
    }

    fn activate(&mut self, index: usize) {
        let member = &mut self.members[index];
        if !member.active {
            member.active = true;
            self.active.push(index);
        }
    }

    /// A message of a peer's replica.
    pub fn on_message(&mut self, from: NodeId, group: GroupId, message: Message, now: Time) {
        // Own votes come from the own disk, never from the network. And a disk whose memory nobody
        // vouches for neither promises nor accepts nor counts.
        if from == self.config.me || self.peers.standing() != Standing::Proven {
            return;
        }
        self.step(from, group, message, now);
    }

    fn step(&mut self, from: NodeId, group: GroupId, message: Message, now: Time) {
        let Some(index) = self.seat(group) else { return };
        if let Message::Report(report) = message {
            self.members[index].group.on_report(from, report.point);
            return self.touch(index);
        }
        let replica = &mut self.members[index].group.replica;
        replica.step(from, message, now, &self.peers, &mut self.random, &mut self.output.ready);
        leave(&mut self.peers, &mut self.output.ready);
        self.touch(index);
    }

    /// A heartbeat of a peer's shard.
    pub fn on_heartbeat(&mut self, from: NodeId, beat: &Heartbeat, now: Time) {
        match self.peers.heard(from, beat, now) {
            Heard::Again | Heard::Late => {}
            Heard::Up => self.peer_up(from),
            Heard::Restarted => {
                for index in 0..self.members.len() {
                    let replica = &mut self.members[index].group.replica;
                    if replica.peer_restarted(from) {
                        self.peers.leave(from);
                    }
                    if replica.leader() == Some(from) {
                        replica.leader_lost(from, now, &self.peers, &mut self.random);
                        self.touch(index);
                    }
                }
                self.peer_up(from);
            }
        }
    }

    fn peer_up(&mut self, node: NodeId) {
        for index in 0..self.members.len() {
            let replica = &mut self.members[index].group.replica;
            if replica.is_leader() {
                replica.peer_up(node);
                self.activate(index);
            }
        }
    }

    /// Everything up to `batch` is on the disk: the own votes of those turns count now.
    pub fn on_synced(&mut self, batch: u64, now: Time) {
        assert!(batch < self.next_batch, "only what was handed out can be synced");
        if self.peers.standing() != Standing::Proven {
            return;
        }
        while let Some((_, envelopes)) = self.own.pop_front_if(|(b, _)| *b <= batch) {
            for envelope in envelopes {
                self.step(self.config.me, envelope.group, envelope.message, now);
            }
        }
    }

    /// What the log found for a peer that is behind, or for a group that rebuilds its state.
    pub fn on_log_read(&mut self, read: &LogRead, found: LogFound, now: Time) {
        if let Some(index) = self.seat(read.group) {
            self.members[index].group.on_log_read(read, found, now, &mut self.output.ready);
            self.touch(index);
        }
    }

    /// The mirror has something to say about a group.
    pub fn on_mirror(&mut self, group: GroupId, word: MirrorWord, now: Time) {
        let Some(index) = self.seat(group) else { return };
        let seat = &mut self.members[index].group;
        match (word, seat.mirrored()) {
            (MirrorWord::Installed(mark, state), _) => {
                seat.install(mark, *state, now, &mut self.output.ready);
            }
            (_, None) => return,
            (MirrorWord::Folded(applied), Some(mirrored)) => mirrored.folded(applied),
            (MirrorWord::Settled(point), Some(mirrored)) => mirrored.settled(point),
            (MirrorWord::Proven(point), Some(mirrored)) => mirrored.proven(point),
            (MirrorWord::Lost, Some(mirrored)) => mirrored.lost(),
            (MirrorWord::Wanted(through), Some(mirrored)) => mirrored.wanted(through),
            (MirrorWord::Unmirrored, Some(mirrored)) => mirrored.unmirrored(now),
        }
        self.touch(index);
    }

    /// Log GC wants records of a group gone.
    pub fn compact(&mut self, group: GroupId, demand: Demand) {
        if let Some(index) = self.seat(group) {
            self.members[index].group.compact(demand);
            self.touch(index);
        }
    }

    /// The node is about to end: its groups hand over what they lead.
    pub fn leave_all(&mut self) {
        self.peers.leave_all();
        // The others hear of it before they are asked to take over.
        self.next_beat = Time::ZERO;
        for index in 0..self.members.len() {
            if self.members[index].group.replica.is_leader() {
                self.activate(index);
            }
        }
    }

    /// How many groups this shard leads.
    #[must_use]
    pub fn leads(&self) -> usize {
        self.members.iter().filter(|m| m.group.replica.is_leader()).count()
    }

    /// The groups are to bring their mirrors up to date, verified and recorded.
    pub fn checkpoint(&mut self, only: Option<GroupId>) {
        for index in self.chosen_seats(only) {
            self.members[index].group.checkpoint();
            self.touch(index);
        }
    }

    /// Everything about the groups that can be verified is to be verified now.
    pub fn verify(&mut self, only: Option<GroupId>) {
        for index in self.chosen_seats(only) {
            self.members[index].group.verify();
            self.touch(index);
            if !self.rescan.urgent.contains(&index) {
                self.rescan.urgent.push_back(index);
            }
        }
    }

    fn chosen_seats(&self, only: Option<GroupId>) -> Vec<usize> {
        match only {
            Some(group) => self.seat(group).into_iter().collect(),
            None => (0..self.members.len()).collect(),
        }
    }

    /// Goes through the next items in memory: all of them within the time of a round.
    fn go_through(&mut self, now: Time) {
        let mut left = RESCAN_BYTES;
        while left > 0
            && let Some(&index) = self.rescan.urgent.front()
        {
            left = left.saturating_sub(self.rescan_member(index, left));
        }
        let length = self.config.limits.rescan;
        let passed = now.since(self.rescan.began);
        if self.rescan.next >= self.members.len() {
            let first = self.rescan.next == usize::MAX;
            if passed < length && !first {
                return;
            }
            let cost = |m: &Member| LEAST_COST + m.group.state().scan_bytes();
            let total = self.members.iter().map(cost).sum();
            let urgent = std::mem::take(&mut self.rescan.urgent);
            self.rescan = Round { began: now, next: 0, total, done: 0, urgent };
            return;
        }
        let due = u128::from(self.rescan.total) * passed.as_nanos() / length.as_nanos().max(1);
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        while left > 0 && self.rescan.done < due && self.rescan.next < self.members.len() {
            let index = self.rescan.next;
            let bytes = self.rescan_member(index, left);
            self.rescan.done += bytes;
            left = left.saturating_sub(bytes);
        }
    }

    /// One step of one member; returns what it cost.
    fn rescan_member(&mut self, index: usize, budget: u64) -> u64 {
        let cost = match self.members[index].group.rescan(budget) {
            Scanned::More(bytes) => return bytes,
            Scanned::Sound(bytes) => bytes,
            Scanned::Rotten { .. } => 0,
        };
        // The end of its pass, whoever wanted it.
        self.touch(index);
        self.rescan.urgent.retain(|urgent| *urgent != index);
        if self.rescan.next == index {
            self.rescan.next += 1;
        }
        cost + LEAST_COST
    }

    /// A command of this or another node's client.
    pub fn submit(&mut self, group: GroupId, submission: Submission, now: Time) {
        match self.seat(group) {
            Some(index) => {
                self.members[index].group.submit(submission, now, &mut self.output.answers);
                self.touch(index);
            }
            None => {
                let Submission { ticket, read, .. } = submission;
                self.output.answers.push(Answer {
                    group,
                    to: ticket.node,
                    boot: ticket.boot,
                    read,
                    number: ticket.number,
                    reply: Reply::NotLeader(None),
                });
            }
        }
    }

    /// Remembers where a write of that node's life is proposed, for whoever traces it.
    pub fn trace(&mut self, group: GroupId, node: NodeId, boot: Boot, number: u64) {
        if let Some(group) = self.group_mut(group) {
            group.trace(node, boot, number);
        }
    }

    /// The traced writes of a group that have been proposed since the last call.
    pub fn take_traced(&mut self, group: GroupId) -> Vec<Traced> {
        self.group_mut(group).map(Group::take_traced).unwrap_or_default()
    }

    /// Answers a read from the state here, if that is proven to be no further behind than `bound`.
    pub fn read_stale(
        &mut self,
        group: GroupId,
        command: &Command,
        bound: Duration,
        now: Time,
    ) -> Option<Outcome> {
        let index = self.seat(group).filter(|_| self.peers.standing() == Standing::Proven)?;
        self.touch(index);
        let Output { ready, .. } = &mut self.output;
        self.members[index].group.read_stale(command, bound, now, &self.peers, ready)
    }

    /// Somebody here waits, or waits no more, for what a group chooses next.
    pub fn set_eager(&mut self, group: GroupId, eager: bool) {
        if let Some(index) = self.seat(group) {
            self.members[index].group.replica.set_eager(eager);
            self.activate(index);
        }
    }

    /// Whether something here may not wait: otherwise time need pass only now and then.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.active.is_empty() || !self.rescan.urgent.is_empty()
    }

    /// The records of this shard lately took so long until they were synced.
    pub fn set_lag(&mut self, lag: Duration, now: Time) {
        self.peers.set_lag(lag, now);
    }

    /// Lets time pass; to be called every few milliseconds while the host is active.
    pub fn tick(&mut self, now: Time) {
        if now >= self.next_beat {
            self.next_beat = now + self.config.heartbeat_interval;
            let nodes: Vec<NodeId> = self.peers.nodes().collect();
            for node in nodes {
                let beat = self.peers.beat(node, now);
                self.output.beats.push((node, beat));
            }
        }
        if self.peers.standing() != Standing::Proven {
            return;
        }
        for node in self.peers.changed(now) {
            for index in 0..self.members.len() {
                let replica = &self.members[index].group.replica;
                if replica.leader() == Some(node) || replica.is_leader() {
                    self.activate(index);
                }
            }
        }
        if now >= self.next_sweep {
            // Leaders that sit in another's best place, or wait for a new member, look now and then
            // whether it is there.
            self.next_sweep = now + self.config.tuning.settle / 4;
            let unfit = self.peers.slowness().is_some();
            for index in 0..self.members.len() {
                let replica = &self.members[index].group.replica;
                let placed = replica.preference().first() == Some(&self.config.me) && replica.is_settled();
                if replica.is_leader() && (!placed || unfit) {
                    self.activate(index);
                }
            }
        }
        self.go_through(now);
        while let Some((at, index)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, index));
            self.members[index].wakes = None;
            self.activate(index);
        }
        let least = MIN_CREDIT.min(self.config.tuning.learn_bytes);
        let credit = (self.config.tuning.learn_bytes / self.learners.max(1)).max(least);
        self.learners = 0;
        let mut still = Vec::with_capacity(self.active.len());
        for index in std::mem::take(&mut self.active) {
            let member = &mut self.members[index];
            let ready = &mut self.output.ready;
            if member.group.replica.is_learning() {
                // What may be under way to this shard is shared by all that learn.
                member.group.replica.set_credit(credit);
                self.learners += 1;
            }
            let busy = member.group.replica.tick(now, &self.peers, &mut self.random, ready);
            leave(&mut self.peers, ready);
            member.active = busy || member.group.is_waiting();
            if member.active {
                still.push(index);
            }
            if !member.touched {
                member.touched = true;
                self.touched.push(index);
            }
        }
        self.active = still;
    }

    /// Ends the turn of every touched group and returns what there is to do.
    pub fn turn(&mut self, now: Time) -> Output {
        match self.peers.standing() {
            Standing::Proven => {}
            Standing::Unproven => {
                // Nothing is written either, see [`Newest::is_trusted`](crate::peers::Newest::is_trusted).
                let (beats, answers) =
                    (std::mem::take(&mut self.output.beats), std::mem::take(&mut self.output.answers));
                let memory = self.peers.to_save(now);
                return Output { beats, answers, memory, ..Output::default() };
            }
            // Nothing of it may count any more, and nothing leaves. The driver ends this life.
            Standing::Lapsed { .. } | Standing::Replaced { .. } => return Output::default(),
        }
        for index in std::mem::take(&mut self.touched) {
            let member = &mut self.members[index];
            member.touched = false;
            let Output { ready, answers, orders, .. } = &mut self.output;
            member.group.turn(now, &self.peers, ready, answers, orders);
            leave(&mut self.peers, ready);
            let wakes = member.group.wakes();
            if wakes != member.wakes {
                if let Some(at) = std::mem::replace(&mut member.wakes, wakes) {
                    self.wakes.remove(&(at, index));
                }
                self.wakes.extend(wakes.map(|at| (at, index)));
            }
        }
        let mut output = std::mem::take(&mut self.output);
        output.memory = self.peers.to_save(now);
        let ready = &mut output.ready;
        if !(ready.records.is_empty() && ready.send_after_sync.is_empty()) {
            let batch = self.next_batch;
            self.next_batch += 1;
            output.batch = Some(batch);
            let me = self.config.me;
            let own: Vec<Envelope> = ready.send_after_sync.extract_if(.., |e| e.to == me).collect();
            if !own.is_empty() {
                self.own.push_back((batch, own));
            }
        }
        output
    }
}
