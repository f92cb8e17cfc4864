//! The commands that this node took from its clients and that are not answered yet.
//!
//! Writes of a group are numbered and sent to its leader in order; when the leader changes, or
//! falls silent, all unanswered ones are sent again from the lowest on (go-back-N). The session
//! table of the group makes copies harmless. So a command is in doubt only when its time is up
//! while a copy of it may still be on its way to being chosen.

mod admission;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use groups::group::{Answer, Reply, Submission};
use groups::ids::{Boot, GroupId, NodeId};
use groups::kv::session::MAX_OPEN;
use groups::kv::{Failure, Outcome, Ticket};
use groups::planted::{self, Bug};
use groups::time::Time;

use admission::Admission;

/// Names a request to whoever made it; opaque here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Token {
    /// The client's connection.
    pub connection: u64,
    /// The request on it.
    pub request: u64,
}

/// One command of a client for one group.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who wants the answer.
    pub token: Token,
    /// The group of its keys.
    pub group: GroupId,
    /// Whether it only reads.
    pub read: bool,
    /// For a read: its connection may have unanswered writes to this group, which come first.
    pub ordered: bool,
    /// For a read: a state that is no further behind than this will do.
    pub stale: Option<Duration>,
    /// The encoded [`groups::kv::Command`].
    pub command: Bytes,
}

/// Why a request has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Leadership is moving; not applied.
    TryAgain,
    /// No quorum; not applied.
    ClusterDown,
    /// Proposed, outcome unknown.
    InDoubt,
    /// Over a limit; not applied.
    Busy,
    /// The group has halted at its leader; not applied.
    Halted,
    /// This node leads the group, and the client asked to be told so; not applied.
    Moved(NodeId),
}

/// The end of a request.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Whose.
    pub token: Token,
    /// The group.
    pub group: GroupId,
    /// What came of it.
    pub result: Result<Outcome, Refusal>,
}

/// How long to wait for what.
#[derive(Clone, Debug)]
pub struct Patience {
    /// A request is answered within this, if only with an error.
    pub deadline: Duration,
    /// Without a quorum in sight, a request that was never proposed is refused after this.
    pub down: Duration,
    /// Without any answer, requests are sent again after this; doubled each time.
    pub retry: Duration,
    /// The most command bytes of unanswered requests.
    pub max_bytes: usize,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            deadline: Duration::from_secs(3),
            down: Duration::from_secs(1),
            retry: Duration::from_millis(300),
            max_bytes: 64 << 20,
        }
    }
}

/// At most about this many bytes of one group's commands are sent in one go.
const FLUSH_BYTES: usize = 2 << 20;

/// What a request costs beside its bytes: so many empty ones are bounded too.
const REQUEST_COST: usize = 128;

#[derive(Debug)]
struct Pending {
    token: Token,
    command: Bytes,
    after: u64,
    begun: Time,
    /// Copies that were handed to a leader and not explicitly refused: while there are any, the
    /// command may be chosen.
    exposed: u32,
}

impl Pending {
    fn cost(&self) -> usize {
        cost(&self.command)
    }
}

fn cost(command: &Bytes) -> usize {
    command.len() + REQUEST_COST
}

/// Numbered requests of one kind to one group.
#[derive(Debug)]
struct Line {
    /// The number of `pending[0]`; lower ones are answered or given up.
    low: u64,
    pending: VecDeque<Option<Pending>>,
    /// `low <= cursor <= low + pending.len()`: the next number to send to the target.
    cursor: u64,
    /// When `low` last rose, or was last sent: a head that stands still is sent again, however
    /// many behind it are answered.
    moved: Time,
}

impl Line {
    fn new() -> Line {
        Line { low: 1, pending: VecDeque::new(), cursor: 1, moved: Time::ZERO }
    }

    fn end(&self) -> u64 {
        self.low + self.pending.len() as u64
    }

    fn get(&mut self, number: u64) -> Option<&mut Pending> {
        let index = number.checked_sub(self.low)?;
        self.pending.get_mut(index as usize)?.as_mut()
    }

    fn take(&mut self, number: u64) -> Option<Pending> {
        let index = number.checked_sub(self.low)?;
        let taken = self.pending.get_mut(index as usize)?.take();
        while let Some(None) = self.pending.front() {
            self.pending.pop_front();
            self.low += 1;
        }
        self.cursor = self.cursor.max(self.low);
        taken
    }
}

/// The unanswered requests of one group.
#[derive(Debug)]
struct Queue {
    group: GroupId,
    writes: Line,
    reads: Line,
    /// Who was last thought to lead, and has been sent everything before the cursors.
    target: Option<NodeId>,
    /// Who leads by somebody's word, for groups without a seat here.
    hint: Option<NodeId>,
    /// Rotates over the members when nobody knows.
    guess: usize,
    /// How often in a row it was refused by a node that does not lead.
    refusals: u32,
    /// Nothing is sent before this: a refusal is not answered by an instant repetition.
    hold: Time,
    retries: u32,
    dirty: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.writes.pending.is_empty() && self.reads.pending.is_empty()
    }

    fn go_back(&mut self) {
        self.writes.cursor = self.writes.low;
        self.reads.cursor = self.reads.low;
    }

    fn line(&mut self, read: bool) -> &mut Line {
        if read { &mut self.reads } else { &mut self.writes }
    }
}

/// What the node knows about a group when it decides whom to send to.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The leader, when this node has a seat in the group and knows one.
    pub leader: Option<NodeId>,
    /// Without a seat: the member to try when nobody has named a leader.
    pub guess: Option<NodeId>,
    /// How many members the group has.
    pub members: usize,
    /// How many of them are heard.
    pub alive: usize,
}

/// All unanswered requests of a shard.
#[derive(Debug)]
pub struct Requests {
    me: NodeId,
    boot: Boot,
    patience: Patience,
    /// By `group / shards`.
    queues: Vec<Queue>,
    shards: u32,
    dirty: Vec<usize>,
    /// Queues with anything in them.
    busy: Vec<usize>,
    listed: Vec<bool>,
    admission: Admission,
    next_tick: Time,
}

impl Requests {
    /// No requests yet, for the groups of one shard.
    #[must_use]
    pub fn new(me: NodeId, boot: Boot, shard: u32, shards: u32, groups: u32, patience: Patience) -> Requests {
        let queues: Vec<Queue> = (shard..groups)
            .step_by(shards as usize)
            .map(|g| Queue {
                group: GroupId(g),
                writes: Line::new(),
                reads: Line::new(),
                target: None,
                hint: None,
                guess: 0,
                refusals: 0,
                hold: Time::ZERO,
                retries: 0,
                dirty: false,
            })
            .collect();
        let listed = vec![false; queues.len()];
        Requests {
            me,
            boot,
            patience,
            queues,
            shards,
            dirty: Vec::new(),
            busy: Vec::new(),
            listed,
            admission: Admission::new(),
            next_tick: Time::ZERO,
        }
    }

    /// Bytes of unanswered requests.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.admission.bytes()
    }

    /// How many requests are unanswered.
    #[must_use]
    pub fn open(&self) -> usize {
        self.admission.open()
    }

    /// Whether a request would be refused as busy now, because more are open than are answered in time.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.admission.has_room()
    }

    fn index(&self, group: GroupId) -> usize {
        (group.0 / self.shards) as usize
    }

    fn mark(&mut self, index: usize) {
        if !self.listed[index] {
            self.listed[index] = true;
            self.busy.push(index);
        }
        let queue = &mut self.queues[index];
        if !queue.dirty {
            queue.dirty = true;
            self.dirty.push(index);
        }
    }

    /// Takes a request and numbers it, or says at once that it is too much.
    pub fn submit(&mut self, request: Request, now: Time, completions: &mut Vec<Completion>) -> Option<u64> {
        let Request { token, group, read, ordered, command, .. } = request;
        let index = self.index(group);
        let cost = cost(&command);
        let queue = &mut self.queues[index];
        // Where there is nothing else, anything that the protocol took is taken: many shards have small shares.
        let open = self.admission.bytes();
        if (open > 0 && open + cost > self.patience.max_bytes)
            || queue.line(read).pending.len() as u64 >= MAX_OPEN / 2
            || !self.admission.admit(cost, now)
        {
            completions.push(Completion { token, group, result: Err(Refusal::Busy) });
            return None;
        }
        let mut after = 0;
        if read && ordered {
            let end = queue.writes.end();
            let own = queue
                .writes
                .pending
                .iter()
                .rev()
                .position(|p| p.as_ref().is_some_and(|p| p.token.connection == token.connection));
            if let Some(back) = own {
                after = end - 1 - back as u64;
            }
        }
        if queue.line(read).pending.is_empty() {
            queue.line(read).moved = now;
        }
        let pending = Pending { token, command, after, begun: now, exposed: 0 };
        let number = queue.line(read).end();
        queue.line(read).pending.push_back(Some(pending));
        self.mark(index);
        Some(number)
    }

    /// Hands out what can be sent now: `send` gets the target and the submission, in order.
    pub fn flush(
        &mut self,
        now: Time,
        view: impl Fn(GroupId, usize) -> View,
        mut send: impl FnMut(NodeId, GroupId, Submission),
    ) {
        for index in std::mem::take(&mut self.dirty) {
            let queue = &mut self.queues[index];
            queue.dirty = false;
            if queue.is_empty() || now < queue.hold {
                continue;
            }
            let view = view(queue.group, queue.guess);
            let target = match (view.leader, view.guess) {
                (Some(leader), _) => Some(leader),
                (None, Some(guess)) => Some(queue.hint.unwrap_or(guess)),
                (None, None) => None,
            };
            if target != queue.target {
                queue.target = target;
                queue.go_back();
                queue.retries = 0;
            }
            let Some(target) = target else { continue };
            let (me, boot, group) = (self.me, self.boot, queue.group);
            let mut bytes = 0;
            for read in [false, true] {
                if bytes >= FLUSH_BYTES {
                    continue;
                }
                let line = queue.line(read);
                let low = line.low;
                if line.cursor == low {
                    line.moved = now;
                }
                let skip = (line.cursor - low) as usize;
                for (number, pending) in (line.cursor..).zip(line.pending.iter_mut().skip(skip)) {
                    let Some(pending) = pending else { continue };
                    pending.exposed += 1;
                    let copies =
                        if planted::is(Bug::RetryRenumbers) { u64::from(pending.exposed) - 1 } else { 0 };
                    let shown = number + copies * 1000;
                    let ticket = Ticket { node: me, boot, number: shown, behind: (shown - low) as u32 };
                    let (after, command) = (pending.after, pending.command.clone());
                    bytes += command.len();
                    line.cursor = number + 1;
                    send(target, group, Submission { ticket, read, after, command });
                    if bytes >= FLUSH_BYTES {
                        break;
                    }
                }
                // The rest, if any, goes with the next tick.
                if bytes < FLUSH_BYTES {
                    line.cursor = line.end();
                }
            }
        }
    }

    /// Takes an answer. Late and repeated ones find nothing and change nothing.
    pub fn answer(&mut self, from: NodeId, answer: Answer, now: Time, completions: &mut Vec<Completion>) {
        if answer.boot != self.boot || answer.to != self.me {
            return;
        }
        let index = self.index(answer.group);
        let Some(queue) = self.queues.get_mut(index) else { return };
        let (read, number, group) = (answer.read, answer.number, answer.group);
        let result = match answer.reply {
            Reply::Outcome(Outcome::Failed(Failure::OutOfOrder | Failure::SessionFull)) => {
                // That copy was refused by the state machine; the command itself goes again,
                // behind its predecessors.
                // The leader and the own replica may both say so of one copy: it is not counted
                // as taken back.
                if queue.line(read).get(number).is_some() && now >= queue.hold {
                    queue.hold = now + Duration::from_millis(5);
                    queue.go_back();
                }
                return;
            }
            // A read is never retired; a write is only when nobody waits for it any more.
            Reply::Outcome(Outcome::Retired) => return,
            Reply::Outcome(outcome) => Ok(outcome),
            Reply::NotLeader(leader) => {
                if let Some(pending) = queue.line(read).get(number) {
                    pending.exposed = pending.exposed.saturating_sub(1);
                }
                if queue.target == Some(from) {
                    queue.target = None;
                    queue.hint = leader.filter(|l| *l != from);
                    queue.guess += 1;
                    // Views of who leads may differ for a while: each refusal in a row is answered
                    // with more patience.
                    queue.hold = now + Duration::from_millis(5) * (1 << queue.refusals.min(5));
                    queue.refusals += 1;
                }
                return;
            }
            Reply::Busy => {
                let line = queue.line(read);
                match line.get(number) {
                    // Another copy may still be chosen: only its answer, or time, ends it.
                    Some(pending) if pending.exposed > 1 && !read => {
                        pending.exposed -= 1;
                        return;
                    }
                    _ => Err(Refusal::Busy),
                }
            }
            Reply::Halted => match queue.line(read).get(number) {
                Some(pending) if pending.exposed > 1 && !read => {
                    pending.exposed -= 1;
                    return;
                }
                _ => Err(Refusal::Halted),
            },
        };
        let line = queue.line(read);
        let head = line.low;
        if let Some(pending) = line.take(number) {
            if line.low != head {
                line.moved = now;
                queue.retries = 0;
            }
            queue.refusals = 0;
            match result {
                Ok(_) => self.admission.answered(pending.cost(), now),
                // What a leader has refused is no reason to send it more.
                Err(_) => self.admission.given_up(pending.cost()),
            }
            completions.push(Completion { token: pending.token, group, result });
        }
    }

    /// Lets time pass: repeats what has waited, ends what has waited too long.
    pub fn tick(
        &mut self,
        now: Time,
        view: impl Fn(GroupId, usize) -> View,
        completions: &mut Vec<Completion>,
    ) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + Duration::from_millis(10);
        for index in std::mem::take(&mut self.busy) {
            self.listed[index] = false;
            let queue = &mut self.queues[index];
            let seen = view(queue.group, queue.guess);
            let quorum = seen.alive > seen.members / 2;
            let retry = self.patience.retry * (1 << queue.retries.min(2));
            let stuck = |line: &Line| !line.pending.is_empty() && now.since(line.moved) >= retry;
            if stuck(&queue.writes) || stuck(&queue.reads) {
                queue.writes.moved = now;
                queue.reads.moved = now;
                queue.retries += 1;
                queue.guess += 1;
                queue.hint = None;
                queue.go_back();
            }
            let group = queue.group;
            for read in [false, true] {
                let line = queue.line(read);
                let mut expired = Vec::new();
                for (number, pending) in (line.low..).zip(line.pending.iter()) {
                    let Some(pending) = pending else { continue };
                    let waited = now.since(pending.begun);
                    // A read changes nothing: it is never in doubt.
                    let exposed = pending.exposed > 0 && !read;
                    if waited >= self.patience.deadline
                        || (!quorum && !exposed && waited >= self.patience.down)
                    {
                        expired.push((number, exposed));
                    } else if waited < self.patience.down {
                        break;
                    }
                }
                for (number, exposed) in expired {
                    if let Some(pending) = line.take(number) {
                        self.admission.given_up(pending.cost());
                        let exposed = exposed && !planted::is(Bug::TimeoutIsFailure);
                        let refusal = match (exposed, quorum) {
                            (true, _) => Refusal::InDoubt,
                            (false, true) => Refusal::TryAgain,
                            (false, false) => Refusal::ClusterDown,
                        };
                        completions.push(Completion { token: pending.token, group, result: Err(refusal) });
                    }
                }
            }
            if !self.queues[index].is_empty() {
                self.mark(index);
            }
        }
    }

    /// Whether anything could be handed out by [`Requests::flush`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Something about the leader of a group has changed: look again.
    pub fn leader_changed(&mut self, group: GroupId) {
        let index = self.index(group);
        if self.queues.get(index).is_some_and(|q| !q.is_empty()) {
            self.mark(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: u64, bytes: usize) -> Request {
        let token = Token { connection: 1, request: number };
        let command = Bytes::from(vec![0; bytes]);
        Request { token, group: GroupId(0), read: false, ordered: false, stale: None, command }
    }

    /// Every shard has its part of `max_inflight_bytes`. With 32 cores that part was smaller than the largest
    /// value, which was answered with BUSY however often it came.
    #[test]
    fn what_is_larger_than_the_share_of_a_shard_is_taken_where_nothing_else_is() {
        let patience = Patience { max_bytes: 1000, ..Patience::default() };
        let mut requests = Requests::new(NodeId(1), Boot(1), 0, 1, 1, patience);
        let mut refused = Vec::new();
        assert!(requests.submit(request(1, 5000), Time::ZERO, &mut refused).is_some());
        assert!(refused.is_empty());
        // But only one of them, and nothing beside it.
        assert!(requests.submit(request(2, 10), Time::ZERO, &mut refused).is_none());
        assert!(matches!(refused[0].result, Err(Refusal::Busy)));
    }

    /// Counted as answered, what leaders refused under an overload made the nodes before them send even more of it.
    #[test]
    fn what_a_leader_has_refused_is_no_reason_to_send_it_more() {
        let at = |millis| Time::ZERO + Duration::from_millis(millis);
        let mut requests = Requests::new(NodeId(1), Boot(1), 0, 1, 1, Patience::default());
        let mut ended = Vec::new();
        let fill = |requests: &mut Requests, millis| {
            let taken = (0..).map_while(|n| requests.submit(request(n, 10), at(millis), &mut Vec::new()));
            taken.collect::<Vec<u64>>()
        };
        let first = fill(&mut requests, 0);
        for number in &first {
            let group = GroupId(0);
            let answer = Answer {
                group,
                to: NodeId(1),
                boot: Boot(1),
                read: false,
                number: *number,
                reply: Reply::Busy,
            };
            requests.answer(NodeId(2), answer, at(50), &mut ended);
        }
        assert_eq!(ended.len(), first.len());
        assert_eq!(fill(&mut requests, 200).len(), first.len());
    }
}
