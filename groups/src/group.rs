//! One group on one node: its replica, its state machine, and the commands that wait for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::ids::{Ballot, Boot, GroupId, InstanceId, NodeId};
use crate::kv::value::{Batch, COMMAND_HEAD};
use crate::kv::{Command, Outcome, State, Ticket};
use crate::log::Record;
use crate::paxos::{self, Accepted, Halt, Members, Ready, Recovered, Replica, Tuning};
use crate::planted::{self, Bug};
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
    /// While this many instances are in flight a batch that is not full waits for company: the
    /// disks are busy anyway, and fewer, larger instances cost less.
    pub pipeline: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_batch_bytes: 256 << 10, max_queue_bytes: 64 << 20, max_reads: 65_536, pipeline: 2 }
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
    /// Reads whose barrier has passed and whose own client's write has not been applied yet.
    deferred: Vec<WaitingRead>,
    me: NodeId,
    boot: Boot,
}

/// Rebuilds a group from its records, in log order.
#[derive(Debug, Default)]
pub struct Replay {
    promised: Ballot,
    /// The newest record of each instance beyond the chosen prefix.
    pending: BTreeMap<InstanceId, Accepted>,
    chosen: InstanceId,
    chain: u64,
    state: State,
    halted: Option<Halt>,
}

impl Replay {
    /// Takes the next record of the group.
    pub fn record(&mut self, record: Record) {
        match record {
            Record::Promise { .. } if planted::is(Bug::PromiseForgotten) => {}
            Record::Promise { ballot, .. } if planted::is(Bug::LearningMovesPromise) => {
                self.promised = ballot
            }
            Record::Promise { ballot, .. } => self.promised = self.promised.max(ballot),
            Record::Accept { instance, ballot, value, .. } => {
                // An accept implies the promise.
                self.promised = self.promised.max(ballot);
                if instance > self.chosen {
                    self.pending.insert(instance, Accepted { ballot, value });
                } else if planted::is(Bug::ReplayTwice) {
                    self.state.apply_again(value);
                }
            }
            Record::Chosen { instance, ballot, value, .. } => {
                // A learned value leaves the promise alone.
                if instance > self.chosen {
                    self.pending.insert(instance, Accepted { ballot, value });
                    self.choose(instance);
                }
            }
            Record::Watermark { instance, .. } => self.choose(instance),
        }
    }

    fn choose(&mut self, to: InstanceId) {
        while self.chosen < to && self.halted.is_none() {
            let next = self.chosen.next();
            let Some(accepted) = self.pending.remove(&next) else {
                self.halted = Some(Halt::Missing { instance: next });
                return;
            };
            self.chain = paxos::chain(self.chain, &accepted.value);
            if let Err(e) = self.state.apply(next, accepted.value, &mut |_, _| {}) {
                self.halted = Some(Halt::Unreadable { instance: next, why: e.to_string() });
                return;
            }
            self.chosen = next;
        }
    }
}

/// What makes a group on a node.
#[derive(Debug)]
pub struct Seat {
    /// The group.
    pub group: GroupId,
    /// Its voting members, this node among them.
    pub members: Members,
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
        me: NodeId,
        boot: Boot,
        tuning: Arc<Tuning>,
        limits: Arc<Limits>,
        now: Time,
    ) -> Group {
        let Seat { group, members, preference, replay } = seat;
        let recovered = Recovered {
            promised: replay.promised,
            chosen: replay.chosen,
            chain: replay.chain,
            open: replay.pending,
        };
        let mut replica = Replica::new(group, me, members, preference, tuning, recovered, now);
        if let Some(halt) = replay.halted {
            replica.halt(halt);
        }
        Group {
            replica,
            state: replay.state,
            limits,
            queue: VecDeque::new(),
            queue_bytes: 0,
            reads: Vec::new(),
            waiting: VecDeque::new(),
            waiting_count: 0,
            deferred: Vec::new(),
            me,
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

    /// Ends a turn: counts votes, applies what is chosen, proposes what is queued, answers reads
    /// whose barrier has passed.
    pub fn turn(&mut self, now: Time, ready: &mut Ready, answers: &mut Vec<Answer>) {
        self.replica.turn(ready);
        self.apply(answers);
        if self.replica.is_leader() {
            self.propose(now, ready);
            self.begin_reads(now, ready);
            self.replica.turn(ready);
            self.apply(answers);
            self.answer_reads(now, answers);
        } else if self.is_waiting() {
            self.bounce(answers);
        }
    }

    /// Whether something here waits for a turn or a tick.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !(self.queue.is_empty()
            && self.reads.is_empty()
            && self.waiting.is_empty()
            && self.deferred.is_empty())
    }

    fn apply(&mut self, answers: &mut Vec<Answer>) {
        while let Some(chosen) = self.replica.next_chosen() {
            let group = self.replica.group();
            let (me, boot, leads) = (self.me, self.boot, self.replica.is_leader());
            if planted::is(Bug::NodeInApply) && chosen.instance.0.is_multiple_of(64) {
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
                let why = e.to_string();
                self.replica.halt(Halt::Unreadable { instance: chosen.instance, why });
                return;
            }
        }
    }

    /// Packs what is queued into instances.
    fn propose(&mut self, now: Time, ready: &mut Ready) {
        while !self.queue.is_empty() && self.replica.can_propose() {
            if self.replica.in_flight() >= self.limits.pipeline
                && self.queue_bytes < self.limits.max_batch_bytes
            {
                return;
            }
            let mut batch = Batch::with_capacity(self.queue_bytes.min(self.limits.max_batch_bytes));
            while let Some((ticket, command)) = self.queue.pop_front_if(|(_, command)| {
                batch.bytes() <= 5
                    || batch.bytes() + COMMAND_HEAD + command.len() <= self.limits.max_batch_bytes
            }) {
                self.queue_bytes -= command.len() + COMMAND_HEAD;
                batch.push(ticket, &command);
            }
            self.replica.propose(batch.finish(), now, ready);
        }
    }

    fn begin_reads(&mut self, now: Time, ready: &mut Ready) {
        if self.reads.is_empty() {
            return;
        }
        if let Some(number) = self.replica.begin_barrier(now, ready) {
            let reads = std::mem::take(&mut self.reads);
            self.waiting_count += reads.len();
            self.waiting.push_back((number, reads));
        }
    }

    /// A read is answered from the state as it is now, once a majority has confirmed the
    /// leadership after the read came, and an entry of this leadership is applied.
    fn answer_reads(&mut self, now: Time, answers: &mut Vec<Answer>) {
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
                let outcome = self.state.read(&read.command);
                budget -= outcome.size() as i64;
                answers.push(self.answer(read.ticket, true, Reply::Outcome(outcome)));
            } else {
                self.deferred.push(read);
            }
        }
    }

    /// The leadership is gone: nothing that waits here was proposed.
    fn bounce(&mut self, answers: &mut Vec<Answer>) {
        let hint = self.replica.leader();
        self.queue_bytes = 0;
        self.waiting_count = 0;
        let writes = std::mem::take(&mut self.queue).into_iter().map(|(ticket, _)| (ticket, false));
        let reads = std::mem::take(&mut self.reads)
            .into_iter()
            .chain(std::mem::take(&mut self.waiting).into_iter().flat_map(|(_, reads)| reads))
            .chain(std::mem::take(&mut self.deferred))
            .map(|read| (read.ticket, true));
        let bounced: Vec<(Ticket, bool)> = writes.chain(reads).collect();
        for (ticket, read) in bounced {
            answers.push(self.answer(ticket, read, Reply::NotLeader(hint)));
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
