//! One shard of a node: some of its groups, and the clients' requests to those groups.
//!
//! A shard is a deterministic object. Frames, synced batches, requests and time go in; one
//! [`Effects`] per turn comes out. Threads and sockets are around it, never in it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groups::group::{Answer, Group, Reply, Seat, Submission};
use groups::host::{Host, HostConfig, MirrorWord};
use groups::ids::{Boot, GroupId, InstanceId, NodeId};
use groups::kv::{Command, Failure, Outcome, Point};
use groups::log::Record;
use groups::mirrored::{Demand, HeldBack, MirrorOrder};
use groups::paxos::{Envelope, LogFound, LogRead, Session, codec};
use groups::peers::{MAX_SHARDS, Memory, Standing};
use groups::planted::{self, Bug};
use groups::time::Time;
use netio::{Frame, FrameBatch, Lane, NO_GROUP};

use super::ages::Ages;
use super::layout::Founding;
use super::requests::{Completion, Patience, Refusal, Request, Requests, Token, View};
use super::roster::{KEEPER, Roster};
use super::trace::{self, Name, Step, Traces};
use super::watch::{Pull, Pulled, Watches};
use super::wire;

/// Frames for peers, a batch per peer and lane.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Heartbeats, in a batch of their own and before all else: whatever does not fit a queue,
    /// liveness does.
    beats: BTreeMap<NodeId, FrameBatch>,
    batches: BTreeMap<(NodeId, bool), Vec<FrameBatch>>,
    head: Vec<u8>,
}

/// A batch is closed when it has grown to this many bytes: a queue takes or refuses a batch as
/// a whole, and much must not be refused because it is much.
const BATCH_BYTES: usize = 512 << 10;

impl Outbox {
    fn batch(&mut self, to: NodeId, lane: Lane) -> &mut FrameBatch {
        let batches = self.batches.entry((to, lane == Lane::Bulk)).or_default();
        if batches.last().is_none_or(|batch| batch.bytes() >= BATCH_BYTES) {
            batches.push(FrameBatch::new());
        }
        let last = batches.len() - 1;
        &mut batches[last]
    }

    fn beat(&mut self, to: NodeId, body: &[u8]) {
        self.beats.entry(to).or_default().push(NO_GROUP, wire::HEARTBEAT, body, &Bytes::new());
    }

    fn push(&mut self, to: NodeId, lane: Lane, group: GroupId, kind: u8, body: &[u8]) {
        self.batch(to, lane).push(group, kind, body, &Bytes::new());
    }

    fn message(&mut self, envelope: &Envelope) {
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        let (kind, payload) = codec::encode(&envelope.message, &mut head);
        let lane = if envelope.message.is_bulk() { Lane::Bulk } else { Lane::Consensus };
        self.batch(envelope.to, lane).push(envelope.group, kind, &head, &payload);
        self.head = head;
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.beats.is_empty() && self.batches.is_empty()
    }

    /// The batches, by peer.
    pub fn into_batches(self) -> impl Iterator<Item = (NodeId, Lane, FrameBatch)> {
        let beats = self.beats.into_iter().map(|(node, batch)| (node, Lane::Consensus, batch));
        beats.chain(self.batches.into_iter().flat_map(|((node, bulk), batches)| {
            let lane = if bulk { Lane::Bulk } else { Lane::Consensus };
            batches.into_iter().map(move |batch| (node, lane, batch))
        }))
    }
}

/// What the log has to do for a shard.
#[derive(Debug)]
pub struct LogJob {
    /// Whose.
    pub shard: u32,
    /// Which turn: handed back by [`Shard::on_synced`].
    pub batch: u64,
    /// To be written, in this order.
    pub records: Vec<Record>,
    /// To be sent once they are synced.
    pub after_sync: Outbox,
}

/// What one turn asks the driver to do.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be sent now.
    pub send_now: Outbox,
    /// To be written.
    pub job: Option<LogJob>,
    /// To be read, beside all else: what they look for is on the disk.
    pub log_reads: Vec<LogRead>,
    /// To be told to clients.
    pub completions: Vec<Completion>,
    /// To be told to those who watch.
    pub pulled: Vec<Pulled>,
    /// To be asked of the mirror.
    pub orders: Vec<(GroupId, MirrorOrder)>,
    /// To be written down: what is remembered of the peers' disks.
    pub memory: Option<Vec<(NodeId, Memory)>>,
    /// To be written down, and then to be handed to every shard of the node: a newer roster.
    pub roster: Option<Arc<Roster>>,
}

/// What a shard is made of.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// The groups' part.
    pub host: HostConfig,
    /// The requests' part.
    pub patience: Patience,
}

/// Paxos frames that could not be read, and other oddities worth counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounters {
    /// Frames whose body was not what its kind says.
    pub bad_frames: u64,
}

/// One shard of a node.
#[derive(Debug)]
pub struct Shard {
    me: NodeId,
    boot: Boot,
    shard: u32,
    founding: Arc<Founding>,
    roster: Arc<Roster>,
    /// A newer one, which the driver has not been told of yet.
    heard: Option<Arc<Roster>>,
    /// When peers were last told of this one.
    told: BTreeMap<NodeId, Time>,
    host: Host,
    requests: Requests,
    completions: Vec<Completion>,
    watches: Watches,
    /// For clients that are told who leads: who last did, and since when that is known here.
    leaders: BTreeMap<GroupId, (NodeId, Time)>,
    traces: Traces,
    outbox: Outbox,
    /// Submissions refused in this turn.
    refused: Vec<Answer>,
    /// Bytes of records handed to the log and not synced yet, and since when, by batch.
    unsynced: VecDeque<(u64, usize, Time)>,
    unsynced_bytes: usize,
    lag: Lag,
    /// Reads of the log that wait for a batch to be synced, and those that do so no longer.
    held_reads: VecDeque<(u64, LogRead)>,
    due_reads: Vec<LogRead>,
    /// The sequence of the last stamped frame sent.
    sequence: u64,
    /// The newest stamped frame of each peer's shard: its life and sequence.
    stamped: BTreeMap<(NodeId, u32), (Boot, u64)>,
    /// Counts.
    pub counters: ShardCounters,
}

impl Shard {
    /// A shard whose groups go on from `seats`.
    #[must_use]
    pub fn new(
        config: ShardConfig,
        founding: Arc<Founding>,
        roster: Arc<Roster>,
        seats: Vec<Seat>,
        now: Time,
    ) -> Shard {
        let ShardConfig { host, patience } = config;
        let (me, boot, shard, shards) = (host.me, host.boot, host.shard, host.shards);
        let mut shard = Shard {
            me,
            boot,
            shard,
            requests: Requests::new(me, boot, shard, shards, founding.layout.groups(), patience),
            founding,
            roster: Arc::clone(&roster),
            heard: None,
            told: BTreeMap::new(),
            host: Host::new(host, seats, now),
            completions: Vec::new(),
            watches: Watches::default(),
            leaders: BTreeMap::new(),
            traces: Traces::default(),
            outbox: Outbox::default(),
            refused: Vec::new(),
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            lag: Lag::new(now),
            held_reads: VecDeque::new(),
            due_reads: Vec::new(),
            sequence: 0,
            stamped: BTreeMap::new(),
            counters: ShardCounters::default(),
        };
        shard.set_roster(roster, now);
        shard
    }

    /// The cluster's nodes and their groups are these from now on. An older roster than the one
    /// here is ignored.
    pub fn set_roster(&mut self, roster: Arc<Roster>, now: Time) {
        if roster.version() < self.roster.version() {
            return;
        }
        let founding = &self.founding;
        self.host.place(
            roster.version(),
            &roster.ids(),
            &|group| roster.preference(group),
            &|group| founding.members(group),
            now,
        );
        self.heard.take_if(|heard| heard.version() <= roster.version());
        self.roster = roster;
    }

    /// The newest roster here.
    #[must_use]
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Takes in a roster that somebody tells of, if it is newer.
    fn hear_roster(&mut self, roster: Roster) {
        let newest = self.heard.as_ref().unwrap_or(&self.roster).version();
        let likely = roster.version() <= newest.saturating_add(MAX_STEP);
        if self.shard == 0 && roster.version() > newest && likely && roster.groups() == self.roster.groups() {
            self.heard = Some(Arc::new(roster));
        }
    }

    /// The first group has a newer roster than this shard.
    fn look_at_roll(&mut self) {
        let Some(keeper) = self.host.group(KEEPER) else { return };
        let roll = keeper.state().roll();
        if roll.version > self.heard.as_ref().unwrap_or(&self.roster).version() {
            match Roster::decode(roll.version, roll.bytes.clone()) {
                Some(roster) => self.hear_roster(roster),
                None => self.counters.bad_frames += 1,
            }
        }
    }

    /// A peer with an older roster is told of this one, now and then.
    fn tell_roster(&mut self, to: NodeId, version: u64, now: Time) {
        let again = self.told.get(&to).is_none_or(|at| now.since(*at) >= TELL_AGAIN);
        if self.shard == 0 && version < self.roster.version() && again {
            self.told.insert(to, now);
            let body = wire::encode_roster(&self.roster);
            self.outbox.push(to, Lane::Consensus, NO_GROUP, wire::ROSTER, &body);
        }
    }

    /// The groups.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Which shard of the node this is.
    #[must_use]
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// Requests of clients that are not answered yet, and their bytes.
    #[must_use]
    pub fn open_requests(&self) -> (usize, usize) {
        (self.requests.open(), self.requests.bytes())
    }

    /// A frame of a peer.
    pub fn on_frame(&mut self, from: NodeId, frame: Frame, now: Time) {
        let Frame { group, kind, body } = frame;
        let understood = match kind {
            wire::HEARTBEAT => wire::decode_heartbeat(body).map(|beat| {
                self.tell_roster(from, beat.roster, now);
                self.host.on_heartbeat(from, &beat, now);
            }),
            wire::ROSTER => wire::decode_roster(body).map(|roster| self.hear_roster(roster)),
            // A life that may carry the number of an earlier one has asked nothing yet, and must not speak for it.
            wire::SUBMIT | wire::ANSWER if self.host.peers().standing() != Standing::Proven => Some(()),
            wire::TRACE..=wire::TRACED => self.on_trace(from, group, kind, body, now),
            wire::SUBMIT => self.on_submissions(from, group, body, now),
            wire::ANSWER => self.on_answers(from, group, body, now),
            // What a disk that is behind could not take is not even looked at; it is sent again.
            codec::ACCEPT | codec::VALUES if self.is_clogged() => Some(()),
            codec::FIRST_KIND..=codec::LAST_KIND => match codec::decode(kind, body) {
                Ok(message) => {
                    if !self.traces.is_idle() {
                        self.traces.hear(from, group, &message, now);
                    }
                    self.host.on_message(from, group, message, now);
                    // Whatever it was, it may have brought a leader.
                    self.requests.leader_changed(group);
                    Some(())
                }
                Err(_) => None,
            },
            _ => None,
        };
        if understood.is_none() {
            self.counters.bad_frames += 1;
            if self.counters.bad_frames.is_power_of_two() {
                tracing::warn!(
                    node = from.0,
                    kind,
                    count = self.counters.bad_frames,
                    "dropped a frame that this version cannot read"
                );
            }
        }
    }

    /// A word about a request that somebody traces.
    fn on_trace(&mut self, from: NodeId, group: GroupId, kind: u8, mut body: Bytes, now: Time) -> Option<()> {
        match kind {
            wire::TRACE => {
                let name = trace::take_name(from, group, &mut body).filter(|_| body.is_empty())?;
                self.lead_traced(name, now);
            }
            wire::WATCH => self.traces.watch(from, group, trace::take_instance(body)?, now),
            wire::SEEN => self.traces.seen(from, group, trace::take_seen(body)?),
            _ => {
                let name = trace::take_name(self.me, group, &mut body)?;
                self.traces.told(name, trace::take_steps(body)?);
            }
        }
        Some(())
    }

    fn lead_traced(&mut self, name: Name, now: Time) {
        self.traces.lead(name, now);
        if !name.read {
            self.host.trace(name.group, name.asker, name.boot, name.number);
        }
    }

    fn name(&self, group: GroupId, read: bool, number: u64) -> Name {
        Name { asker: self.me, boot: self.boot, group, read, number }
    }

    /// A request of a client of this node whose way is to be told: see [`Shard::account`].
    pub fn submit_traced(&mut self, request: Request, now: Time) {
        let Request { token, group, read, .. } = request;
        if let Some(number) = self.requests.submit(request, now, &mut self.completions) {
            self.traces.ask(self.name(group, read, number), token, now);
        }
    }

    /// The way of a traced request, once all of it is known; with `end` what is known of it now. `None` too
    /// for one that was refused before it was numbered.
    pub fn account(&mut self, token: Token, end: bool) -> Option<Vec<Step>> {
        self.traces.account(token, self.me, end)
    }

    fn on_submissions(&mut self, from: NodeId, group: GroupId, mut body: Bytes, now: Time) -> Option<()> {
        let stamp = wire::take_stamp(&mut body)?;
        let submissions = wire::decode_submissions(from, stamp.from_boot, body)?;
        if self.is_fresh(from, stamp)? {
            for submission in submissions {
                self.submit_here(group, submission, now);
            }
        }
        Some(())
    }

    fn on_answers(&mut self, from: NodeId, group: GroupId, mut body: Bytes, now: Time) -> Option<()> {
        let stamp = wire::take_stamp(&mut body)?;
        let answers = wire::decode_answers(self.me, self.boot, group, body)?;
        if self.is_fresh(from, stamp)? {
            for answer in answers {
                self.note_answer(&answer, from, now);
                self.requests.answer(from, answer, now, &mut self.completions);
            }
        }
        Some(())
    }

    /// Whether a stamped frame is taken; late, repeated and misaddressed ones are not. `None`
    /// for one that no peer writes.
    fn is_fresh(&mut self, from: NodeId, stamp: wire::Stamp) -> Option<bool> {
        if stamp.shard >= MAX_SHARDS {
            return None;
        }
        if stamp.to_boot != self.boot {
            return Some(false);
        }
        let newest = self.stamped.entry((from, stamp.shard)).or_default();
        let fresh = (stamp.from_boot, stamp.sequence) > *newest || planted::is(Bug::FramesCountTwice);
        if fresh {
            *newest = (stamp.from_boot, stamp.sequence);
        }
        Some(fresh)
    }

    /// Sends a body of submissions or answers that begins with room for its stamp.
    fn push_stamped(&mut self, to: NodeId, to_boot: Boot, group: GroupId, kind: u8, body: &mut [u8]) {
        self.sequence += 1;
        let stamp = wire::Stamp { from_boot: self.boot, to_boot, shard: self.shard, sequence: self.sequence };
        wire::put_stamp(stamp, body);
        self.outbox.push(to, Lane::Consensus, group, kind, body);
    }

    /// A request of a client of this node.
    pub fn submit(&mut self, request: Request, now: Time) {
        // What its connection has written before is surely at the leader, and perhaps not here.
        if let Some(bound) = request.stale.filter(|_| request.read && !request.ordered)
            && let Ok(command) = Command::decode(request.command.clone())
            && command.is_read()
            && let Some(outcome) = self.host.read_stale(request.group, &command, bound, now)
        {
            let Request { token, group, .. } = request;
            return self.completions.push(Completion { token, group, result: Ok(outcome) });
        }
        self.requests.submit(request, now, &mut self.completions);
    }

    /// A request of a client that rather asks the leader itself: it is told who leads, if another node does
    /// and has for a while. A leader that has just changed is not told: two nodes that learn of it one after the
    /// other would send a client to and fro.
    pub fn submit_or_move(&mut self, request: Request, now: Time) {
        let Request { token, group, .. } = request;
        let leader = view(&self.host, &self.roster, group, 0, now).leader;
        if let Some(leader) = leader {
            let known = self.leaders.entry(group).or_insert((leader, now));
            if known.0 != leader {
                *known = (leader, now);
            }
            let settled = now.since(known.1) >= SETTLED && self.host.peers().alive(leader, group, now);
            if leader != self.me && settled {
                return self.completions.push(Completion {
                    token,
                    group,
                    result: Err(Refusal::Moved(leader)),
                });
            }
        }
        self.submit(request, now);
    }

    /// A question of a watch of this node.
    pub fn pull(&mut self, pull: Pull, now: Time) {
        if let Some(request) = self.watches.pull(pull, &mut self.host, now) {
            self.submit(request, now);
        }
    }

    /// A connection watches no more, or one of its watches has ended.
    pub fn unwatch(&mut self, connection: u64, watch: Option<u64>) {
        self.watches.forget(connection, watch);
    }

    /// Everything up to `batch` is synced.
    pub fn on_synced(&mut self, batch: u64, now: Time) {
        while let Some((_, bytes, since)) = self.unsynced.pop_front_if(|(b, ..)| *b <= batch) {
            self.unsynced_bytes -= bytes;
            self.lag.synced(now.since(since));
        }
        while let Some((_, read)) = self.held_reads.pop_front_if(|(b, _)| *b <= batch) {
            self.due_reads.push(read);
        }
        if !self.traces.is_idle() {
            for (leader, group, seen) in self.traces.synced(batch, now) {
                let mut body = Vec::with_capacity(24);
                trace::put_seen(seen, &mut body);
                self.outbox.push(leader, Lane::Consensus, group, wire::SEEN, &body);
            }
        }
        self.host.on_synced(batch, now);
    }

    /// The log's answer to a [`LogRead`].
    pub fn on_log_read(&mut self, read: LogRead, found: LogFound, now: Time) {
        self.host.on_log_read(&read, found, now);
    }

    /// What the mirror says about a group.
    pub fn on_mirror(&mut self, group: GroupId, word: MirrorWord, now: Time) {
        self.host.on_mirror(group, word, now);
    }

    /// Log GC wants records of a group gone.
    pub fn compact(&mut self, group: GroupId, demand: Demand) {
        self.host.compact(group, demand);
    }

    /// The node is about to end: its groups hand over what they lead.
    pub fn leave_all(&mut self) {
        self.host.leave_all();
    }

    /// The groups are to bring their mirrors up to date, verified and recorded; with `verify`
    /// everything about them is to be verified.
    pub fn go_through(&mut self, only: Option<GroupId>, verify: bool) {
        if verify {
            self.host.verify(only);
        } else {
            self.host.checkpoint(only);
        }
    }

    /// Whether a request of a client would be refused as busy now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.requests.is_full()
    }

    /// Whether something here waits for time to pass: a group, a request, a watch.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.host.is_active()
            || self.requests.open() > 0
            || !self.watches.is_empty()
            || !self.traces.is_idle()
    }

    /// Lets time pass; every few milliseconds while the shard is active, and several times per
    /// heartbeat otherwise.
    pub fn tick(&mut self, now: Time) {
        let waits = self.unsynced.front().map_or(Duration::ZERO, |(.., since)| now.since(*since));
        if let Some(lag) = self.lag.look(waits, now) {
            self.host.set_lag(lag, now);
        }
        self.host.tick(now);
        for request in self.watches.tick(&mut self.host, now) {
            self.submit(request, now);
        }
        let (host, roster) = (&self.host, &self.roster);
        self.requests.tick(now, |g, guess| view(host, roster, g, guess, now), &mut self.completions);
    }

    /// Ends a turn.
    pub fn turn(&mut self, now: Time) -> Effects {
        let mut effects = Effects::default();
        let mut records = Vec::new();
        let mut reads = Vec::new();
        let mut after_sync = Outbox::default();
        let mut batch = None;
        // A request handed to an own group may be answered in the same turn.
        for _ in 0..2 {
            self.flush_requests(now);
            let output = self.host.turn(now);
            if !self.traces.is_idle() {
                self.follow_traces(now);
            }
            for envelope in &output.ready.send_now {
                self.outbox.message(envelope);
            }
            for envelope in &output.ready.send_after_sync {
                after_sync.message(envelope);
            }
            for (to, beat) in &output.beats {
                let mut body = Vec::with_capacity(64);
                wire::encode_heartbeat(beat, &mut body);
                self.outbox.beat(*to, &body);
            }
            records.extend(output.ready.records);
            reads.extend(output.ready.log_reads);
            effects.orders.extend(output.orders);
            effects.memory = output.memory.or(effects.memory);
            batch = output.batch.or(batch);
            let mut answers = output.answers;
            answers.append(&mut self.refused);
            self.deliver(answers, now);
            if !self.requests.is_dirty() {
                break;
            }
        }
        if !self.traces.is_idle() {
            batch.iter().for_each(|batch| self.traces.handed(*batch, now));
            self.tell_traces(now);
        }
        if let Some(batch) = batch {
            let bytes = records.iter().map(Record::encoded_len).sum();
            self.unsynced.push_back((batch, bytes, now));
            self.unsynced_bytes += bytes;
            effects.job = Some(LogJob { shard: self.shard, batch, records, after_sync });
        }
        if self.shard == 0 {
            self.look_at_roll();
            effects.roster = self.heard.clone();
        }
        self.hold_reads(reads);
        effects.log_reads = std::mem::take(&mut self.due_reads);
        effects.send_now = std::mem::take(&mut self.outbox);
        self.watches.sort_out(&mut self.completions, now);
        self.watches.look(&self.host);
        effects.pulled = self.watches.take();
        effects.completions = std::mem::take(&mut self.completions);
        effects
    }

    /// Keeps back the reads that may not overtake the records before them.
    fn hold_reads(&mut self, reads: Vec<LogRead>) {
        let last = self.unsynced.back().map(|(batch, ..)| *batch);
        for read in reads {
            match last {
                Some(batch) if read.after_sync && !planted::is(Bug::LogReadBeforeSync) => {
                    self.held_reads.push_back((batch, read));
                }
                _ => self.due_reads.push(read),
            }
        }
    }

    /// Hands requests to this node's own groups, and to peers in one frame per group.
    fn flush_requests(&mut self, now: Time) {
        // An older copy of a disk counts its lives from an older number: a command in the session of
        // such a life would be taken for a copy of an earlier one.
        if self.host.peers().standing() != Standing::Proven {
            return;
        }
        let mut own: Vec<(GroupId, Submission)> = Vec::new();
        let mut frames: BTreeMap<(NodeId, GroupId), Vec<Vec<u8>>> = BTreeMap::new();
        let mut traced: Vec<(NodeId, Name)> = Vec::new();
        let (host, roster, me, boot) = (&self.host, &self.roster, self.me, self.boot);
        let traces = &mut self.traces;
        self.requests.flush(
            now,
            |group, guess| view(host, roster, group, guess, now),
            |to, group, submission| {
                if !traces.is_idle() {
                    let Submission { ref ticket, read, .. } = submission;
                    let name = Name { asker: me, boot, group, read, number: ticket.number };
                    if traces.sends(name, to, now) {
                        traced.push((to, name));
                    }
                }
                if to == me {
                    own.push((group, submission));
                } else {
                    let bodies = frames.entry((to, group)).or_default();
                    wire::put_submission(&submission, open_body(bodies));
                }
            },
        );
        for (to, name) in traced {
            if to == me {
                self.lead_traced(name, now);
                continue;
            }
            // Before the request itself.
            let mut body = Vec::with_capacity(17);
            trace::put_name(name, &mut body);
            self.outbox.push(to, Lane::Consensus, name.group, wire::TRACE, &body);
        }
        for ((to, group), bodies) in frames {
            let to_boot = self.host.peers().boot_of(to);
            for mut body in bodies {
                self.push_stamped(to, to_boot, group, wire::SUBMIT, &mut body);
            }
        }
        for (group, submission) in own {
            self.submit_here(group, submission, now);
        }
    }

    /// Hands a submission to an own group, unless the disk is too far behind to take more.
    fn submit_here(&mut self, group: GroupId, submission: Submission, now: Time) {
        if self.is_clogged() && !submission.read {
            let Submission { ticket, read, .. } = submission;
            let (to, boot, number) = (ticket.node, ticket.boot, ticket.number);
            self.refused.push(Answer { group, to, boot, read, number, reply: Reply::Busy });
        } else {
            self.host.submit(group, submission, now);
        }
    }

    /// Whether more records wait for the disk than memory should hold.
    fn is_clogged(&self) -> bool {
        self.unsynced_bytes >= MAX_UNSYNCED
    }

    /// For whoever traces it.
    fn note_answer(&mut self, answer: &Answer, from: NodeId, now: Time) {
        let Answer { group, to, boot, read, number, .. } = *answer;
        // Who does not lead says so, and the request goes on to somebody else.
        if !self.traces.is_idle() && matches!(answer.reply, Reply::Outcome(_)) {
            self.traces.answered(Name { asker: to, boot, group, read, number }, from, self.me, now);
        }
    }

    /// Looks where the traced requests are, and tells whoever is to hear of it.
    fn follow_traces(&mut self, now: Time) {
        for (node, group, instance) in self.traces.look(&mut self.host, self.me, now) {
            self.outbox.push(node, Lane::Consensus, group, wire::WATCH, &instance.0.to_le_bytes());
        }
    }

    fn tell_traces(&mut self, now: Time) {
        for (name, steps) in self.traces.finish(self.me, now) {
            if name.asker == self.me {
                self.traces.told(name, steps);
                continue;
            }
            let mut body = Vec::with_capacity(256);
            trace::put_name(name, &mut body);
            trace::put_steps(&steps, &mut body);
            self.outbox.push(name.asker, Lane::Consensus, name.group, wire::TRACED, &body);
        }
    }

    /// Answers of own groups: to own requests, and to peers in one frame per group.
    fn deliver(&mut self, answers: Vec<Answer>, now: Time) {
        let mut frames: BTreeMap<(NodeId, GroupId, Boot), Vec<Vec<u8>>> = BTreeMap::new();
        for answer in answers {
            self.note_answer(&answer, self.me, now);
            if answer.to == self.me {
                self.requests.answer(self.me, answer, now, &mut self.completions);
            } else {
                let mut answer = answer;
                if let Reply::Outcome(outcome) = &answer.reply
                    && outcome.size() > MAX_ANSWER
                {
                    // No frame takes it. Only reads answer so much.
                    answer.reply = Reply::Outcome(Outcome::Failed(Failure::TooLong(MAX_ANSWER as u32)));
                }
                let bodies = frames.entry((answer.to, answer.group, answer.boot)).or_default();
                wire::put_answer(&answer, open_body(bodies));
            }
        }
        for ((to, group, to_boot), bodies) in frames {
            for mut body in bodies {
                self.push_stamped(to, to_boot, group, wire::ANSWER, &mut body);
            }
        }
    }
}

/// How long records take from here to the disk and back.
#[derive(Debug)]
struct Lag {
    began: Time,
    total: Duration,
    count: u32,
}

impl Lag {
    /// It is looked at over this.
    const WINDOW: Duration = Duration::from_millis(500);

    fn new(now: Time) -> Lag {
        Lag { began: now, total: Duration::ZERO, count: 0 }
    }

    fn synced(&mut self, took: Duration) {
        self.total += took;
        self.count += 1;
    }

    /// At the end of a window: what its records took on average, or for how long the oldest has waited, if
    /// that is more.
    fn look(&mut self, waits: Duration, now: Time) -> Option<Duration> {
        if now.since(self.began) < Lag::WINDOW {
            return None;
        }
        let average = self.total.checked_div(self.count).unwrap_or_default();
        *self = Lag::new(now);
        Some(average.max(waits))
    }
}

/// No cluster changes its nodes so often while one of them is away: a number further on is damage, and
/// would silence every change that follows.
const MAX_STEP: u64 = 1 << 32;

/// Clients are told of a leader that has been one for so long.
const SETTLED: Duration = Duration::from_millis(50);

/// A peer is told of a newer roster no more often than this.
const TELL_AGAIN: Duration = Duration::from_millis(500);

/// Records of this many bytes may wait for the disk; beyond it nothing new is taken in.
const MAX_UNSYNCED: usize = 96 << 20;

/// The most that one answer to another node may hold; a frame takes it.
const MAX_ANSWER: usize = 15 << 20;

/// The body that takes the next item: a new one when the last has grown large.
fn open_body(bodies: &mut Vec<Vec<u8>>) -> &mut Vec<u8> {
    if bodies.last().is_none_or(|body| body.len() >= SPLIT_BYTES) {
        let mut body = Vec::with_capacity(256);
        body.resize(wire::STAMP, 0);
        bodies.push(body);
    }
    let last = bodies.len() - 1;
    &mut bodies[last]
}

/// A frame of submissions or answers is closed when it has grown to this many bytes, so that no
/// frame nears the limit however much waits.
const SPLIT_BYTES: usize = 256 << 10;

fn view(host: &Host, roster: &Roster, group: GroupId, guess: usize, now: Time) -> View {
    // A halted replica knows nothing any more, nor does one that the group has left behind, or that has
    // not learned who leads: others are asked as if this node had no seat.
    let knows = |seat: &&Group| {
        let replica = &seat.replica;
        replica.halted().is_none() && (replica.leader().is_some() || replica.is_voter())
    };
    match host.group(group).filter(knows) {
        Some(seat) => {
            let members = seat.replica.members().nodes();
            View {
                leader: seat.replica.leader(),
                guess: None,
                members: members.len(),
                alive: alive(host, members, group, now),
            }
        }
        None => {
            let mut members = roster.preference(group);
            let count = members.len();
            members.retain(|n| *n != host.peers().me());
            View {
                leader: None,
                guess: members.get(guess % members.len().max(1)).copied(),
                members: count,
                alive: alive(host, &members, group, now),
            }
        }
    }
}

fn alive(host: &Host, members: &[NodeId], group: GroupId, now: Time) -> usize {
    members.iter().filter(|n| host.peers().alive(**n, group, now)).count()
}

/// Where one group stands, for status.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// What this node does in it.
    pub role: &'static str,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The leader's round, or the highest promised.
    pub round: u64,
    /// How many leaders the group has had, up to what is applied here.
    pub epoch: u64,
    /// The end of the chosen prefix, which is applied.
    pub applied: InstanceId,
    /// Chained checksum of the chosen values up to there.
    pub chain: u64,
    /// Hash of the state there.
    pub state_hash: [u8; 32],
    /// Keys held.
    pub keys: usize,
    /// Keys whose life ends.
    pub mortal: usize,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Why the group has halted here.
    pub halted: Option<String>,
    /// For how long the mirror has been what it was when it was last verified and durable.
    pub checkpoint_age: Option<Duration>,
    /// What the mirror has taken in, and up to where that is verified and durable; `None`
    /// without a mirror.
    pub mirror: Option<(InstanceId, InstanceId)>,
    /// Why the group holds the log back, while it does.
    pub held_back: Option<HeldBack>,
    /// The state is missing or incomplete, and is being fetched.
    pub rebuilding: bool,
    /// Why the state here was given up in this life and fetched from a peer.
    pub healed: Option<String>,
    /// Whether this node's disk is a member: what it promises and accepts counts.
    pub votes: bool,
    /// Who decides the group's next value, as far as this node knows.
    pub members: Vec<NodeId>,
    /// Who shall be the members, the best placed leader first.
    pub wanted: Vec<NodeId>,
    /// Its members need this node no more: nothing of it is kept here.
    pub parted: bool,
    /// Sessions that bring chosen values here or to others, and for how many seconds they have.
    pub learning: Vec<(Session, f64)>,
    /// At the leader: each follower, whether it follows, how many instances it is behind, and for how long the leader
    /// has had them.
    pub followers: Vec<(NodeId, bool, u64, Duration)>,
    /// What the newest comparisons of the replicas found here.
    pub points: Vec<Point>,
    /// How often the state in memory and the mirror were gone through and found sound.
    pub scrubbed: (u64, u64),
    /// Reads that were answered here on a lease.
    pub leased: u64,
}

impl GroupStatus {
    /// The status of a group with a seat here.
    #[must_use]
    pub fn of(group: &Group, ages: &Ages, now: Time) -> GroupStatus {
        let (replica, state) = (&group.replica, group.state());
        let mark = replica.mark();
        // While the state is being rebuilt it is behind the prefix, and has no checksum of its own.
        let chain = if state.applied() == mark.instance { mark.chain } else { 0 };
        GroupStatus {
            group: replica.group(),
            role: replica.role_name(),
            leader: replica.leader(),
            round: replica.promised().round,
            epoch: state.epoch(),
            applied: state.applied(),
            chain,
            state_hash: state.hash().to_bytes(),
            keys: state.len(),
            mortal: state.mortal(),
            bytes: state.bytes(),
            halted: replica.halted().map(ToString::to_string),
            checkpoint_age: ages.checkpoint(replica.group(), now),
            mirror: group.mirror_status().map(|(taken, durable, _)| (taken, durable)),
            held_back: group.mirror_status().and_then(|(_, _, held)| held),
            rebuilding: group.is_rebuilding(),
            votes: replica.is_voter(),
            members: replica.members().nodes().to_vec(),
            wanted: replica.preference().to_vec(),
            parted: replica.has_parted(),
            healed: group.healed().map(ToString::to_string),
            learning: replica
                .learning_sessions()
                .into_iter()
                .map(|session| (session, now.since(session.since).as_secs_f64()))
                .collect(),
            followers: replica
                .followers()
                .into_iter()
                .map(|(node, follows, chosen)| {
                    let behind = mark.instance.0.saturating_sub(chosen.0);
                    (node, follows, behind, ages.behind(replica.group(), chosen, now))
                })
                .collect(),
            points: state.points().copied().collect(),
            scrubbed: group.scrubbed(),
            leased: group.replica.counters.leased,
        }
    }
}
