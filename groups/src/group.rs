//! One group on one node: its replica, its state machine, and the commands that wait for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::check::{CheckLimits, Checks};
use crate::clock::Clock;
use crate::ids::{Boot, GroupId, InstanceId, Member, NodeId};
use crate::kv::value::{Batch, COMMAND_HEAD};
use crate::kv::{Command, Outcome, Point, Scanned, State, Ticket};
use crate::mirrored::{Demand, HeldBack, MirrorLimits, MirrorOrder, Mirrored};
use crate::paxos::message::{Entry, Mark};
use crate::paxos::{Halt, LogFound, LogRead, Members, Ready, Replica, Tuning};
use crate::peers::Peers;
use crate::planted::{self, Bug};
use crate::replay::{Replay, Replayed};
use crate::time::Time;

/// A command that a node took from a client, on its way to the group's leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Who asked. For a read the number only names it; for a write it counts in the session.
    pub ticket: Ticket,
    /// Whether it only reads.
    pub read: bool,
    /// For a read: the number of the asker's write that must be applied before it, 0 for none.
    /// So a client that pipelines a write and a read of the same key reads its own write.
    pub after: u64,
    /// The encoded [`Command`].
    pub command: Bytes,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It was executed.
    Outcome(Outcome),
    /// It was not executed and will not be on account of this submission: this replica does not
    /// lead. The hint names who does, where known.
    NotLeader(Option<NodeId>),
    /// It was not executed: too much is queued.
    Busy,
    /// It was not executed: the group has halted on this node.
    Halted,
}

/// An answer to a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The group.
    pub group: GroupId,
    /// The node that asked.
    pub to: NodeId,
    /// The life of that node that asked.
    pub boot: Boot,
    /// Whether a read is answered: reads and writes are numbered apart.
    pub read: bool,
    /// The submission's number.
    pub number: u64,
    /// What became of it.
    pub reply: Reply,
}

/// Limits of one group's queues.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most command bytes packed into one instance; one command may always go.
    pub max_batch_bytes: usize,
    /// The most command bytes that wait to be proposed.
    pub max_queue_bytes: usize,
    /// The most reads that wait for a barrier.
    pub max_reads: usize,
    /// While an instance is in flight that was proposed less than this ago, a batch that is not full waits
    /// for company: the disks are busy anyway, and fewer, larger instances cost less. A way between the
    /// members that takes longer than this is better used by several instances at a time.
    pub company: Duration,
    /// How the group feeds its mirror; `None` without one.
    pub mirror: Option<MirrorLimits>,
    /// How often the replicas compare their states.
    pub check: CheckLimits,
    /// A pass over the states in memory, and over the mirrors behind them, takes this long.
    pub rescan: Duration,
    /// Bytes of changes that are remembered for those who watch.
    pub history_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_batch_bytes: 256 << 10,
            max_queue_bytes: 64 << 20,
            max_reads: 65_536,
            company: Duration::from_millis(20),
            mirror: None,
            check: CheckLimits::default(),
            rescan: Duration::from_secs(3600),
            history_bytes: 4 << 20,
        }
    }
}

#[derive(Debug)]
struct WaitingRead {
    ticket: Ticket,
    after: u64,
    /// When it came.
    since: Time,
    command: Command,
}

/// Values of about this many bytes are copied into answers in one turn; more reads wait for the
/// next, so that a few small requests for large values cannot fill the memory.
const ANSWER_BYTES: i64 = 4 << 20;

/// A read whose own client's write has not come by then never will: the node that asked has
/// given up, or has asked again.
const MAX_DEFERRAL: Duration = Duration::from_secs(4);

/// What only walks need is given up when none has come for so long.
const WALK_REST: Duration = Duration::from_secs(60);

/// The most writes of one group that are traced at a time.
const MAX_TRACED: usize = 16;

/// A write that somebody traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The node that took it from a client.
    pub node: NodeId,
    /// That node's life.
    pub boot: Boot,
    /// Its number in the session of that life.
    pub number: u64,
    packed: bool,
    /// Where it was proposed.
    pub instance: Option<InstanceId>,
    /// How many commands that instance has.
    pub commands: u32,
}

impl Traced {
    fn is(&self, ticket: Ticket) -> bool {
        (self.node, self.boot, self.number) == (ticket.node, ticket.boot, ticket.number)
    }
}

/// One group on one node.
#[derive(Debug)]
pub struct Group {
    /// The consensus.
    pub replica: Replica,
    state: State,
    limits: Arc<Limits>,
    queue: VecDeque<(Ticket, Bytes)>,
    queue_bytes: usize,
    /// Reads that came in this turn.
    reads: Vec<WaitingRead>,
    /// Reads behind a barrier, in the order of the barriers.
    waiting: VecDeque<(u64, Vec<WaitingRead>)>,
    waiting_count: usize,
    /// Reads whose barrier has passed or that need none, and whose own client's write has not been
    /// applied yet.
    deferred: Vec<WaitingRead>,
    mirrored: Option<Mirrored>,
    /// While the state is behind what the replica knows to be chosen.
    rebuilding: Option<Rebuilding>,
    /// Why the state was given up in this life.
    healed: Option<Halt>,
    /// A checkpoint that reaches this instance is being fetched, because no peer's log reaches
    /// back to where this one ends.
    fetching: Option<InstanceId>,
    /// The mirror has values up to here that the log has not: the log is told as soon as the
    /// mirror calls them durable.
    anchor_due: Option<InstanceId>,
    checks: Checks,
    clock: Clock,
    /// Its members do not need this node: everything that was here of it is given up.
    outside: bool,
    /// Passes over the state in memory that found it sound.
    rescans: u64,
    /// When a walk last came.
    walked: Option<Time>,
    /// Writes that somebody traces: where they were proposed, once they are.
    traced: Vec<Traced>,
    me: NodeId,
    boot: Boot,
}

/// A group whose state was lost with its mirror, or that has just taken in a checkpoint: the
/// replica votes and learns, the state catches up from a checkpoint and from the own log.
#[derive(Debug)]
struct Rebuilding {
    /// A checkpoint must reach here: the own log begins behind it. The state as it is will do
    /// when it does already.
    least: InstanceId,
    /// When the next step is due, if nothing comes before.
    due: Time,
}

/// How often a checkpoint that does not come, or a read of the own log, is asked for again.
const REBUILD_RETRY: Duration = Duration::from_secs(1);

/// What makes a group on a node.
#[derive(Debug)]
pub struct Seat {
    /// The group.
    pub group: GroupId,
    /// The members that it was born with, this node among them.
    pub founders: Members,
    /// The members from the best placed leader to the worst.
    pub preference: Vec<NodeId>,
    /// What the log holds of it.
    pub replay: Replay,
}

impl Group {
    /// A group that goes on from what its log holds.
    #[must_use]
    pub fn new(
        seat: Seat,
        me: Member,
        boot: Boot,
        tuning: Arc<Tuning>,
        limits: Arc<Limits>,
        now: Time,
    ) -> Group {
        let Seat { group, founders, preference, replay } = seat;
        let Replayed { recovered, mut state, mirror, ahead, floor, halted } = replay.finish();
        state.limit_history(limits.history_bytes);
        let rebuilding =
            (state.applied() < recovered.chosen).then_some(Rebuilding { least: floor, due: Time::ZERO });
        let mut replica = Replica::new(group, me, founders, preference, tuning, recovered, now);
        if let Some(halt) = halted {
            replica.halt(halt);
        }
        replica.set_stateless(rebuilding.is_some());
        replica.number_sessions(boot);
        let mirrored = limits.mirror.is_some().then(|| Mirrored::new(mirror));
        Group {
            checks: Checks::new(state.applied(), now),
            clock: Clock::default(),
            outside: false,
            rescans: 0,
            walked: None,
            traced: Vec::new(),
            replica,
            state,
            mirrored,
            rebuilding,
            healed: None,
            fetching: None,
            anchor_due: ahead.then_some(mirror),
            limits,
            queue: VecDeque::new(),
            queue_bytes: 0,
            reads: Vec::new(),
            waiting: VecDeque::new(),
            waiting_count: 0,
            deferred: Vec::new(),
            me: me.node,
            boot,
        }
    }

    /// The state machine.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Bytes of commands that wait to be proposed.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// Takes a submission, or answers at once why not.
    pub fn submit(&mut self, submission: Submission, now: Time, answers: &mut Vec<Answer>) {
        let Submission { ticket, read, after, command } = submission;
        if !self.replica.is_leader() {
            let reply = match self.replica.halted() {
                Some(_) => Reply::Halted,
                None => Reply::NotLeader(self.replica.leader()),
            };
            return answers.push(self.answer(ticket, read, reply));
        }
        if read {
            if self.waiting_count + self.reads.len() >= self.limits.max_reads {
                return answers.push(self.answer(ticket, true, Reply::Busy));
            }
            match Command::decode(command) {
                Ok(command) if command.is_read() => {
                    self.reads.push(WaitingRead { ticket, after, since: now, command })
                }
                // Its checksum was right, so a peer of another version wrote it: it gets no
                // answer and says INDOUBT in the end.
                _ => tracing::warn!(group = self.replica.group().0, from = ticket.node.0, "not a read"),
            }
        } else if Command::decode(command.clone()).is_err() {
            // Once chosen it would halt the group on every replica. A peer of another version
            // wrote it; it gets no answer and says INDOUBT in the end.
            tracing::warn!(
                group = self.replica.group().0,
                from = ticket.node.0,
                "not a command of this version"
            );
        } else if self.queue_bytes + command.len() > self.limits.max_queue_bytes {
            answers.push(self.answer(ticket, false, Reply::Busy));
        } else {
            self.queue_bytes += command.len() + COMMAND_HEAD;
            self.queue.push_back((ticket, command));
        }
    }

    /// Remembers where a write is proposed, for whoever traces it. Beyond a few the oldest is forgotten.
    pub fn trace(&mut self, node: NodeId, boot: Boot, number: u64) {
        if self.traced.len() >= MAX_TRACED {
            self.traced.remove(0);
        }
        self.traced.push(Traced { node, boot, number, packed: false, instance: None, commands: 0 });
    }

    /// The traced writes that have been proposed since the last call.
    pub fn take_traced(&mut self) -> Vec<Traced> {
        self.traced.extract_if(.., |traced| traced.instance.is_some()).collect()
    }

    /// Ends a turn: counts votes, applies what is chosen, proposes what is queued, answers reads
    /// whose barrier has passed.
    pub fn turn(
        &mut self,
        now: Time,
        peers: &Peers,
        ready: &mut Ready,
        answers: &mut Vec<Answer>,
        orders: &mut Vec<(GroupId, MirrorOrder)>,
    ) {
        if self.walked.is_some_and(|walked| now.since(walked) >= WALK_REST) {
            self.walked = None;
            self.state.forget_places();
        }
        let before = answers.len();
        self.replica.turn(now, ready);
        if self.replica.has_parted() {
            return self.stay_outside(now, ready, answers, orders);
        }
        self.apply(answers);
        self.clock.follow(&self.replica, &self.state, now);
        self.check(now, ready);
        if self.is_disputed() {
            // Nobody knows whether they are right; they are asked for again.
            answers.truncate(before);
        }
        self.serve(now, peers, ready, answers);
        self.heal(now, orders);
        if self.replica.halted().is_none() {
            self.rebuild(now, peers, ready, orders);
            self.feed_mirror(now, ready, orders);
        }
    }

    /// A turn of a group that has other members. What stays is one record that carries forward what the
    /// disk has promised, and who the members were.
    fn stay_outside(
        &mut self,
        now: Time,
        ready: &mut Ready,
        answers: &mut Vec<Answer>,
        orders: &mut Vec<(GroupId, MirrorOrder)>,
    ) {
        if !self.outside {
            self.outside = true;
            self.give_up_state(now);
            (self.rebuilding, self.healed) = (None, None);
            orders.push((self.replica.group(), MirrorOrder::Cancel));
            orders.push((self.replica.group(), MirrorOrder::Discard));
        }
        if self.mirrored.as_mut().and_then(Mirrored::take_demand).is_some() {
            self.replica.carry_forward(ready);
        }
        self.bounce(&Reply::NotLeader(None), answers);
    }

    fn give_up_state(&mut self, now: Time) {
        self.state = State::default();
        self.state.watch_changes();
        self.state.limit_history(self.limits.history_bytes);
        self.checks = Checks::new(InstanceId::ZERO, now);
        self.mirrored = self.mirrored.is_some().then(|| Mirrored::new(InstanceId::ZERO));
        (self.fetching, self.anchor_due) = (None, None);
    }

    /// Who shall be the members, from the best placed leader to the worst.
    pub fn set_preference(&mut self, preference: Vec<NodeId>, now: Time) {
        self.replica.set_preference(preference);
        if self.replica.has_parted() && self.replica.is_wanted() {
            self.outside = false;
            self.replica.come_back(now);
            self.checks = Checks::new(InstanceId::ZERO, now);
            self.rebuilding = Some(Rebuilding { least: self.replica.mark().instance, due: Time::ZERO });
        }
    }

    fn serve(&mut self, now: Time, peers: &Peers, ready: &mut Ready, answers: &mut Vec<Answer>) {
        if self.is_disputed() {
            self.bounce(&Reply::Halted, answers);
        } else if self.replica.is_leader() {
            self.propose(now, ready);
            self.expire(now, ready);
            self.begin_reads(now, peers, ready);
            self.replica.turn(now, ready);
            self.apply(answers);
            self.clock.follow(&self.replica, &self.state, now);
            self.answer_reads(now, answers);
        } else if self.is_waiting() {
            self.bounce(&Reply::NotLeader(self.replica.leader()), answers);
        }
    }

    /// Whether something here waits for a turn or a tick.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !(self.queue.is_empty()
            && self.reads.is_empty()
            && self.waiting.is_empty()
            && self.deferred.is_empty()
            && (self.rebuilding.is_none() || self.replica.is_outside())
            && !(self.replica.is_leader() && self.checks.is_waiting()))
    }

    /// When a turn is due because the life of a key ends then, or for what the replica puts off, if none
    /// comes before.
    #[must_use]
    pub fn wakes(&self) -> Option<Time> {
        self.clock.wakes(&self.state).into_iter().chain(self.replica.wakes()).min()
    }

    /// What the mirror has, what of it is durable, and why the log is held back here.
    #[must_use]
    pub fn mirror_status(&self) -> Option<(InstanceId, InstanceId, Option<HeldBack>)> {
        let mirrored = self.mirrored.as_ref()?;
        let (taken, durable) = mirrored.position();
        let held = match self.rebuilding {
            _ if self.outside => None,
            Some(_) => Some(HeldBack::NoState),
            None => mirrored.held_back(self.state.applied()),
        };
        Some((taken, durable, held))
    }

    /// The account with the mirror, for its answers.
    pub fn mirrored(&mut self) -> Option<&mut Mirrored> {
        self.mirrored.as_mut()
    }

    /// Whether the state behind the chosen prefix is missing.
    #[must_use]
    pub fn is_rebuilding(&self) -> bool {
        self.rebuilding.is_some()
    }

    /// Whether this leader does not know if its state is the right one.
    fn is_disputed(&self) -> bool {
        self.replica.is_leader() && self.checks.is_disputed()
    }

    /// A state that is known to be wrong is given up, in memory and in the mirror. The log and the
    /// votes are what they were: the replica votes and learns on, and takes its state from a peer.
    fn heal(&mut self, now: Time, orders: &mut Vec<(GroupId, MirrorOrder)>) {
        if self.mirrored.is_none() || self.replica.members().count() < 2 {
            return;
        }
        let Some(halt) = self.replica.revive(now) else { return };
        let group = self.replica.group();
        tracing::error!(group = group.0, "the state here is given up and fetched from a peer: {halt}");
        self.healed = Some(halt);
        self.give_up_state(now);
        self.rebuilding = Some(Rebuilding { least: self.replica.mark().instance, due: Time::ZERO });
        // What was folded before the memory went wrong is right, and may be the last there is: the
        // checkpoint that comes takes its place. A state that others call wrong is wrong there too.
        if matches!(self.healed, Some(Halt::StateDiffers { .. })) {
            orders.push((group, MirrorOrder::Discard));
        }
    }

    /// Why the state here was given up in this life, if it was.
    #[must_use]
    pub fn healed(&self) -> Option<&Halt> {
        self.healed.as_ref()
    }

    /// Compares the states of the replicas; see `check.rs`.
    fn check(&mut self, now: Time, ready: &mut Ready) {
        if self.replica.halted().is_none() && self.rebuilding.is_none() {
            let (limits, me) = (&self.limits.check, self.me);
            self.checks.turn(&mut self.replica, &self.state, limits, me, now, ready);
        }
    }

    /// What a member says that its state was.
    pub fn on_report(&mut self, from: NodeId, point: Point) {
        if self.replica.is_leader() {
            self.checks.report(from, point, self.replica.members(), &self.state);
        }
    }

    /// Wants everything that can be verified verified now, from its beginning: the states of the
    /// replicas if this one leads, the state in memory, the mirror.
    pub fn verify(&mut self) {
        if self.replica.is_leader() {
            self.checks.ask();
        }
        self.state.restart_rescan();
        if let Some(mirrored) = &mut self.mirrored {
            mirrored.verify(self.state.applied());
        }
    }

    /// Wants the mirror brought up to date, verified and recorded.
    pub fn checkpoint(&mut self) {
        if let Some(mirrored) = &mut self.mirrored {
            mirrored.verify(self.state.applied());
        }
    }

    /// Hashes the next items in memory anew, about `budget` bytes of them. A state that is not
    /// what its hash says halts the group here. After a whole pass the mirror has its turn.
    pub fn rescan(&mut self, budget: u64) -> Scanned {
        let scanned = self.state.rescan(budget);
        match scanned {
            Scanned::More(_) => {}
            Scanned::Sound(_) => {
                self.rescans += 1;
                self.checkpoint();
            }
            Scanned::Rotten { kept, found } => {
                let instance = self.state.applied();
                self.replica.halt(Halt::MemoryRotten { instance, kept, found });
            }
        }
        scanned
    }

    /// How often the whole state in memory was found sound, and the whole mirror.
    #[must_use]
    pub fn scrubbed(&self) -> (u64, u64) {
        (self.rescans, self.mirrored.as_ref().map_or(0, Mirrored::verified))
    }

    /// The state machine, for faults that tests do to it.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// Log GC wants records of this group gone.
    pub fn compact(&mut self, demand: Demand) {
        if let Some(mirrored) = &mut self.mirrored {
            mirrored.demand(demand);
        }
    }

    /// Takes in a checkpoint that the mirror has installed: verified, durable, in force there.
    pub fn install(&mut self, mark: Mark, mut state: State, now: Time, ready: &mut Ready) {
        assert_eq!(mark.instance, state.applied(), "the mark is that of the state");
        let Some(mirrored) = &mut self.mirrored else { return };
        if self.replica.halted().is_some() || self.replica.has_parted() {
            return;
        }
        if mark.instance <= self.state.applied() {
            // The log was faster. The mirror has gone back to what it was sent: it gets the rest.
            return mirrored.lost();
        }
        state.watch_changes();
        state.limit_history(self.limits.history_bytes);
        let members = state.members().cloned();
        self.state = state;
        *mirrored = Mirrored::new(mark.instance);
        mirrored.settled(mark);
        if mark.instance > self.replica.mark().instance {
            self.replica.install(mark, members.as_ref(), now, ready);
        } else {
            self.rebuilding.get_or_insert(Rebuilding { least: mark.instance, due: Time::ZERO });
            self.replica.set_stateless(true);
            self.replica.drop_deliveries();
        }
        if let Some(rebuilding) = &mut self.rebuilding {
            rebuilding.due = now;
        }
    }

    /// What the log has found for this group, or for another node's replica of it.
    pub fn on_log_read(&mut self, read: &LogRead, found: LogFound, now: Time, ready: &mut Ready) {
        if read.reader != self.me {
            return self.replica.on_log_read(read, found, now, ready);
        }
        let Some(rebuilding) = &mut self.rebuilding else { return };
        match found {
            LogFound::Entries(entries) if entries.is_empty() => {
                // There is a hole that only a later checkpoint bridges.
                rebuilding.least = rebuilding.least.max(self.state.applied().next());
            }
            LogFound::Entries(entries) => {
                rebuilding.due = now;
                self.catch_up(entries);
            }
            LogFound::Begins(first) => {
                rebuilding.least = rebuilding.least.max(InstanceId(first.0.saturating_sub(1)));
            }
        }
    }

    /// Applies chosen values that the own log still has.
    fn catch_up(&mut self, entries: Vec<Entry>) {
        let chosen = self.replica.mark().instance;
        for entry in entries {
            if entry.instance != self.state.applied().next() || entry.instance > chosen {
                continue;
            }
            // Whoever waited for these answers has had them from the leader, or asks again.
            if let Err(e) = self.state.apply(entry.instance, entry.value, &mut |_, _| {}) {
                return self.replica.halt(Halt::of(entry.instance, e));
            }
        }
    }

    /// The next step of bringing the state up to the chosen prefix.
    fn rebuild(
        &mut self,
        now: Time,
        peers: &Peers,
        ready: &mut Ready,
        orders: &mut Vec<(GroupId, MirrorOrder)>,
    ) {
        let (group, chosen) = (self.replica.group(), self.replica.mark().instance);
        if let Some(least) = self.replica.take_checkpoint_wanted()
            && self.rebuilding.is_none()
        {
            // Whoever serves already has what its own log begins with; another peer's log, which
            // begins later, must not make a transfer start over. But one that begins sooner will do: the other
            // may have lost what it had, and then nobody has a checkpoint that reaches so far (seed 1019918).
            let least = self.fetching.map_or(least, |fetching| fetching.min(least)).max(chosen.next());
            self.fetching = Some(least);
            orders.push((group, MirrorOrder::Fetch { least, sources: self.sources(now, peers) }));
        }
        if self.fetching.is_some_and(|least| chosen >= least) {
            self.fetching = None;
            orders.push((group, MirrorOrder::Cancel));
        }
        if self.rebuilding.is_none() || self.replica.is_outside() {
            return;
        }
        let sources = self.sources(now, peers);
        self.replica.drop_deliveries();
        // The last stretch comes from memory: under load the log's answer is always a little old.
        if let Some(entries) = self.replica.recent(self.state.applied().next()) {
            self.catch_up(entries);
        }
        let Some(rebuilding) = &mut self.rebuilding else { return };
        let applied = self.state.applied();
        if applied == chosen {
            self.rebuilding = None;
            self.replica.set_stateless(false);
            orders.push((group, MirrorOrder::Cancel));
            return;
        }
        if now < rebuilding.due {
            return;
        }
        rebuilding.due = now + REBUILD_RETRY;
        let from = self.replica.vouched_from().0.saturating_sub(1);
        rebuilding.least = rebuilding.least.max(InstanceId(from));
        if applied < rebuilding.least {
            orders.push((group, MirrorOrder::Fetch { least: rebuilding.least, sources }));
        } else {
            ready.log_reads.push(LogRead {
                group,
                from: applied.next(),
                to: chosen,
                reader: self.me,
                session: 0,
                max_bytes: self.replica.chunk_bytes(),
                after_sync: true,
            });
        }
    }

    /// Who may have a checkpoint: those that are heard, while there are any; and the leader last, it
    /// has enough to do.
    fn sources(&self, now: Time, peers: &Peers) -> Vec<NodeId> {
        let (group, leader) = (self.replica.group(), self.replica.leader());
        let mut sources: Vec<NodeId> = self.replica.others().collect();
        if sources.iter().any(|n| peers.alive(*n, group, now)) {
            // Whoever is dead is not waited for.
            sources.retain(|n| peers.alive(*n, group, now));
        }
        sources.sort_by_key(|n| Some(*n) == leader);
        sources
    }

    fn feed_mirror(&mut self, now: Time, ready: &mut Ready, orders: &mut Vec<(GroupId, MirrorOrder)>) {
        let Some((mirrored, limits)) = self.mirrored.as_mut().zip(self.limits.mirror.as_ref()) else {
            return;
        };
        let mark = self.replica.mark();
        if self.rebuilding.is_some() || mark.instance != self.state.applied() {
            return;
        }
        if let Some(due) = self.anchor_due
            && let Some(point) = mirrored.durable_at(due)
        {
            self.anchor_due = None;
            self.replica.anchor(point, point.instance, ready);
        }
        if let Some(order) = mirrored.order(&mut self.state, mark.chain, limits, now) {
            // The log is not to know less than the mirror: it could not vouch for its values then.
            self.replica.mark_chosen(ready);
            orders.push((self.replica.group(), order));
        }
        if let Some((point, through)) = mirrored.anchor(mark, limits) {
            self.replica.anchor(point, through, ready);
        }
    }

    fn apply(&mut self, answers: &mut Vec<Answer>) {
        if self.rebuilding.is_some() {
            return;
        }
        while let Some(chosen) = self.replica.next_chosen() {
            let group = self.replica.group();
            let (me, boot, leads) = (self.me, self.boot, self.replica.is_leader());
            if planted::is(Bug::NodeInApply) && chosen.instance.0.is_multiple_of(64) {
                self.state.skew(me);
            }
            if planted::is(Bug::StateSkewed) && me == NodeId(2) && chosen.instance.0.is_multiple_of(32) {
                self.state.skew(me);
            }
            let applied = self.state.apply(chosen.instance, chosen.value, &mut |ticket, outcome| {
                // The leader answers everybody; every replica answers its own node, so that a
                // lost answer costs nothing.
                let own = ticket.node == me && ticket.boot == boot;
                if own || (leads && ticket.node != me) {
                    answers.push(Answer {
                        group,
                        to: ticket.node,
                        boot: ticket.boot,
                        read: false,
                        number: ticket.number,
                        reply: Reply::Outcome(outcome),
                    });
                }
            });
            if let Err(e) = applied {
                return self.replica.halt(Halt::of(chosen.instance, e));
            }
        }
    }

    /// Packs what is queued into instances.
    fn propose(&mut self, now: Time, ready: &mut Ready) {
        while !self.queue.is_empty() && self.replica.can_propose() {
            let under_way =
                self.replica.last_proposed().is_some_and(|at| now.since(at) < self.limits.company);
            if under_way && self.queue_bytes < self.limits.max_batch_bytes {
                return;
            }
            let clock = self.clock.now(&self.state, self.me, now);
            let mut commands = 0;
            let mut batch = Batch::stamped(clock, self.queue_bytes.min(self.limits.max_batch_bytes));
            while let Some((ticket, command)) = self.queue.pop_front_if(|(_, command)| {
                batch.is_empty()
                    || batch.bytes() + COMMAND_HEAD + command.len() <= self.limits.max_batch_bytes
            }) {
                self.queue_bytes -= command.len() + COMMAND_HEAD;
                batch.push(ticket, &command);
                commands += 1;
                self.traced
                    .iter_mut()
                    .filter(|traced| traced.is(ticket))
                    .for_each(|traced| traced.packed = true);
            }
            let instance = self.replica.propose(batch.finish(), now, ready);
            for traced in self.traced.iter_mut().filter(|t| t.packed && t.instance.is_none()) {
                (traced.instance, traced.commands) = (Some(instance), commands);
            }
        }
    }

    /// Proposes the end of what is over.
    fn expire(&mut self, now: Time, ready: &mut Ready) {
        if self.replica.can_propose()
            && let Some(value) = self.clock.expire(&self.state, self.me, now)
        {
            let instance = self.replica.propose(value, now, ready);
            self.clock.proposed(instance);
        }
    }

    /// Answers a read from the state here if it is not further behind than `bound`, and that can be
    /// proven: by an own lease, or by a word of the leader. `None` where it cannot; then the leader is
    /// asked, so that later ones can.
    pub fn read_stale(
        &mut self,
        command: &Command,
        bound: Duration,
        now: Time,
        peers: &Peers,
        ready: &mut Ready,
    ) -> Option<Outcome> {
        if self.rebuilding.is_some() || self.replica.halted().is_some() || self.is_disputed() {
            return None;
        }
        let applied = self.state.applied();
        let proven = if self.replica.is_leader() {
            self.replica.opening().is_some_and(|opening| applied >= opening)
                && self.replica.is_leased(peers, now)
        } else {
            let (at, instance) = self.replica.fresh();
            let fresh = at > Time::ZERO && now.since(at) <= bound || planted::is(Bug::StaleWithoutBound);
            if now.since(at) * 2 >= bound {
                self.replica.ask_fresh(now, ready);
            }
            fresh && applied >= instance
        };
        proven.then(|| self.state.read(command))
    }

    /// With a lease, nobody need be asked whether this leadership still stands; else a majority is,
    /// once for all reads of this turn. `now` was read after they came.
    fn begin_reads(&mut self, now: Time, peers: &Peers, ready: &mut Ready) {
        if self.reads.is_empty() {
            return;
        }
        if self.replica.is_leased(peers, now) {
            self.waiting_count += self.reads.len();
            self.replica.counters.leased += self.reads.len() as u64;
            return self.deferred.append(&mut self.reads);
        }
        if let Some(number) = self.replica.begin_barrier(now, ready) {
            let reads = std::mem::take(&mut self.reads);
            self.waiting_count += reads.len();
            self.waiting.push_back((number, reads));
        }
    }

    /// A read is answered from the state as it is now, once a majority has confirmed the
    /// leadership after the read came, or was bound to it then, and an entry of this leadership is
    /// applied.
    fn answer_reads(&mut self, now: Time, answers: &mut Vec<Answer>) {
        if self.rebuilding.is_some() {
            return;
        }
        let opened = self.replica.opening().is_some_and(|opening| self.state.applied() >= opening);
        if !opened && !planted::is(Bug::ReadBeforeOpening) {
            return;
        }
        let passed =
            if planted::is(Bug::ReadWithoutBarrier) { u64::MAX } else { self.replica.barrier_passed() };
        let mut due = std::mem::take(&mut self.deferred);
        while let Some((_, reads)) = self.waiting.pop_front_if(|(number, _)| *number <= passed) {
            due.extend(reads);
        }
        let clock = self.clock.now(&self.state, self.me, now);
        let mut budget = ANSWER_BYTES;
        for read in due {
            if budget <= 0 || now.since(read.since) >= MAX_DEFERRAL {
                if budget <= 0 {
                    self.deferred.push(read);
                } else {
                    self.waiting_count -= 1;
                }
                continue;
            }
            let past = self.state.is_past(read.ticket.node, read.ticket.boot, read.after);
            if past || planted::is(Bug::ReadOvertakesWrite) {
                self.waiting_count -= 1;
                if matches!(read.command, Command::Walk(_)) {
                    self.walked = Some(now);
                }
                let outcome = self.state.answer(&read.command, clock);
                budget -= outcome.size() as i64;
                answers.push(self.answer(read.ticket, true, Reply::Outcome(outcome)));
            } else {
                self.deferred.push(read);
            }
        }
    }

    /// The leadership is gone, or nothing may be served: nothing that waits here was proposed.
    fn bounce(&mut self, reply: &Reply, answers: &mut Vec<Answer>) {
        self.queue_bytes = 0;
        self.traced.clear();
        self.waiting_count = 0;
        let writes = std::mem::take(&mut self.queue).into_iter().map(|(ticket, _)| (ticket, false));
        let reads = std::mem::take(&mut self.reads)
            .into_iter()
            .chain(std::mem::take(&mut self.waiting).into_iter().flat_map(|(_, reads)| reads))
            .chain(std::mem::take(&mut self.deferred))
            .map(|read| (read.ticket, true));
        let bounced: Vec<(Ticket, bool)> = writes.chain(reads).collect();
        for (ticket, read) in bounced {
            answers.push(self.answer(ticket, read, reply.clone()));
        }
    }

    fn answer(&self, ticket: Ticket, read: bool, reply: Reply) -> Answer {
        Answer {
            group: self.replica.group(),
            to: ticket.node,
            boot: ticket.boot,
            read,
            number: ticket.number,
            reply,
        }
    }
}
