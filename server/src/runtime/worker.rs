//! A worker: one thread that owns one shard and the client connections assigned to it.
//!
//! It is a current-thread tokio runtime, so that a command for one of its own groups crosses no
//! thread between the socket and the log. A turn drains the mailbox, steps the shard, hands out
//! what it wants done and writes the replies.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use groups::host::MirrorWord;
use groups::ids::{Boot, GroupId, NodeId};
use groups::kv::{Command, Outcome};
use groups::mirrored::Demand;
use groups::paxos::{LogFound, LogRead};
use groups::peers::Standing;
use groups::time::Time;
use netio::{Frame, Loan, NetHandle, SendError};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::LocalOptions;
use tokio::sync::{Notify, oneshot};

use super::clock::Clock;
use super::learner::Lesson;
use super::logger::Task;
use super::mailbox::{Mailbox, Tray};
use super::memory::MemoryHandle;
use super::mirror::MirrorHandle;
use super::tally::{Counts, Tally};
use crate::config::TICK;
use crate::connection::{Connection, Shared, Verdict};
use crate::node::ages::Ages;
use crate::node::requests::{Completion, Refusal, Request, Token};
use crate::node::roster::Roster;
use crate::node::shard::{Effects, GroupStatus, Shard};
use crate::node::trace::Step;
use crate::node::watch::{Pull, Pulled};
use crate::protocol::KillFilter;

/// What other threads tell a worker.
pub enum Letter {
    /// Frames of a peer for groups of this shard.
    Frames(NodeId, Vec<Frame>),
    /// A batch is on the disk.
    Synced(u64),
    /// The log's answer.
    LogRead(LogRead, LogFound),
    /// The mirror's word about a group.
    Mirror(GroupId, MirrorWord),
    /// Log GC wants records of a group gone.
    Compact(GroupId, Demand),
    /// A request of a connection of another worker.
    Request(Request),
    /// The ends of requests that this worker sent to another one.
    Completions(Vec<Completion>),
    /// The same, of a client that rather asks the leader itself.
    RequestOrMove(Request),
    /// The same, whose way is to be told.
    TracedRequest(Request),
    /// The way of a request of another worker, or what is known of it.
    Account(Token, bool, oneshot::Sender<Option<Vec<Step>>>),
    /// A question of a watch of another worker's connection.
    Pull(Pull),
    /// The answers to questions that this worker sent to another one.
    Pulled(Vec<Pulled>),
    /// A connection watches no more, or one of its watches has ended.
    Unwatch(u64, Option<u64>),
    /// A new client.
    Client(std::net::TcpStream),
    /// The lines of `CLIENT LIST`, as at this time since 1970.
    Clients(Duration, oneshot::Sender<String>),
    /// Close connections, for this one; how many were.
    Kill(KillFilter, u64, oneshot::Sender<u64>),
    /// Where the groups stand.
    Report(oneshot::Sender<ShardReport>),
    /// Verify the groups, or bring their mirrors up to date; the answer says where they stood
    /// before.
    GoThrough {
        /// One of them, or all.
        only: Option<GroupId>,
        /// Whether to verify everything.
        verify: bool,
        /// Where the answer goes.
        before: oneshot::Sender<ShardReport>,
    },
    /// The cluster's nodes and their groups are these from now on.
    Roster(Arc<Roster>),
    /// Hand over what is led here: the node is about to end.
    Leave,
    /// Clients are to be told of the end, each with its next command.
    Drain,
    /// Stop.
    End,
}

/// A worker's own account of itself.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// Its groups.
    pub groups: Vec<GroupStatus>,
    /// The peers that it hears.
    pub alive: Vec<NodeId>,
    /// How many groups it leads.
    pub leads: usize,
    /// One of the peers at least is not about to end itself.
    pub heirs: bool,
    /// Unanswered requests.
    pub open_requests: usize,
    /// How long records lately took until they were synced, if this shard finds itself slow.
    pub slow: Option<Duration>,
    /// Enough peers vouch for this node's disk.
    pub proven: bool,
    /// Bytes of keys and values.
    pub state_bytes: u64,
    /// What its clients have asked since the start.
    pub tally: Counts,
}

/// The address of a worker.
#[derive(Debug)]
pub struct Post {
    /// Its mailbox.
    pub mail: Mailbox<Letter>,
    /// What peers say for all their groups: read before the rest of the mail.
    pub beats: Mailbox<(NodeId, Frame)>,
    /// Its shard takes no more requests.
    full: AtomicBool,
}

impl Post {
    /// An empty one, whose worker waits for `wake`.
    #[must_use]
    pub fn new(wake: &Arc<Notify>) -> Arc<Post> {
        let (mail, beats) = (Mailbox::new(Arc::clone(wake)), Mailbox::new(Arc::clone(wake)));
        Arc::new(Post { mail, beats, full: AtomicBool::new(false) })
    }
}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Letter")
    }
}

/// How often it is looked whether the live data is over its limit, and where the groups are.
const PUBLISH: Duration = Duration::from_millis(500);

/// Commands that all connections together may hand in before the groups have their turn: however many
/// clients write however much, a turn stays short against a heartbeat.
const COMMANDS_PER_TURN: u32 = 4_096;

/// Letters are read for so long; then the groups are told the time, what they have to say goes out, and heartbeats
/// and the network have their turn before the rest is read.
const SLICE: Duration = Duration::from_millis(5);

/// A turn of this length is worth a line in the log, one in so long.
const LONG: Duration = Duration::from_millis(150);
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// How long a traced command waits behind its answer until every node has told its part: longer than a
/// leader waits for its members.
const ACCOUNT: Duration = Duration::from_millis(600);

/// Bits of a connection's number that name its worker.
const WORKER_SHIFT: u32 = 48;

/// In the place of a connection's number: commands of this node's own.
const OWN: u64 = 0;

/// The parts of a worker that its connections and its loop share, on one thread.
pub struct Worker {
    index: u32,
    shard: RefCell<Shard>,
    ages: RefCell<Ages>,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    /// Commands of this node's own, and who waits for their ends.
    own: RefCell<HashMap<u64, oneshot::Sender<Result<Outcome, Refusal>>>>,
    next_own: Cell<u64>,
    next_connection: Cell<u64>,
    /// Commands that connections may still hand in before the groups have their turn.
    room: Cell<u32>,
    /// Requests for other shards, by worker.
    posts: Vec<Arc<Post>>,
    wake: Arc<Notify>,
    clock: Clock,
    net: NetHandle,
    log: Arc<Tray<Task>>,
    learner: Sender<Lesson>,
    mirror: MirrorHandle,
    memory: MemoryHandle,
    shared: Arc<Shared>,
    tally: Rc<Tally>,
}

impl Worker {
    /// Where the commands of this worker's connections are counted.
    #[must_use]
    pub fn tally(&self) -> &Rc<Tally> {
        &self.tally
    }

    /// Hands something to the shard that owns a group: at once if that is this worker's, by letter else.
    fn hand<T>(&self, group: GroupId, what: T, here: fn(&mut Shard, T, Time), letter: fn(T) -> Letter) {
        let owner = group.0 % self.posts.len() as u32;
        if owner == self.index {
            here(&mut self.shard.borrow_mut(), what, self.clock.now());
            self.wake.notify_one();
        } else {
            self.posts[owner as usize].mail.push(letter(what));
        }
    }

    /// Takes a request of one of this worker's connections.
    pub fn submit(&self, request: Request) {
        self.hand(request.group, request, Shard::submit, Letter::Request);
    }

    /// Takes a request of a client that is told where else its group is led, instead of being forwarded.
    pub fn submit_or_move(&self, request: Request) {
        self.hand(request.group, request, Shard::submit_or_move, Letter::RequestOrMove);
    }

    /// Whether a connection may take one more command now; a connection that may not is asked again behind
    /// the groups' turn.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        let room = self.room.get();
        self.room.set(room.saturating_sub(1));
        if room == 0 {
            self.wake.notify_one();
        }
        room > 0
    }

    /// Whether a request would be refused as busy whatever its group is: refusing costs least when nothing is
    /// made of the request before. For other workers, it was so at the end of their last turn.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let others = || self.posts.iter().enumerate().filter(|(index, _)| *index != self.index as usize);
        self.shard.borrow().is_full() && others().all(|(_, post)| post.full.load(Ordering::Relaxed))
    }

    /// Takes a question of a watch of one of this worker's connections.
    pub fn pull(&self, pull: Pull) {
        self.hand(pull.group, pull, Shard::pull, Letter::Pull);
    }

    /// One watch of a connection has ended, or all of them.
    pub fn unwatch(&self, connection: u64, watch: Option<u64>) {
        for post in &self.posts {
            post.mail.push(Letter::Unwatch(connection, watch));
        }
    }

    /// The newest life of a node that is remembered here; 0 for none.
    #[must_use]
    pub fn boot_of(&self, node: NodeId) -> Boot {
        self.memory.boot_of(node)
    }

    /// Has a write of this node's own executed.
    ///
    /// # Errors
    /// As for a client's.
    pub async fn write(&self, group: GroupId, command: &Command) -> Result<Outcome, Refusal> {
        self.execute(group, command, false).await
    }

    /// Has a read of this node's own answered, as linearizable as a client's.
    ///
    /// # Errors
    /// As for a client's.
    pub async fn read(&self, group: GroupId, command: &Command) -> Result<Outcome, Refusal> {
        self.execute(group, command, true).await
    }

    /// Has a command of this node's own executed, and follows its way.
    pub async fn trace(
        &self,
        group: GroupId,
        command: &Command,
        read: bool,
    ) -> (Result<Outcome, Refusal>, Vec<Step>) {
        let (token, receiver) = self.own_token();
        let command = command.to_bytes();
        let request = Request { token, group, read, ordered: false, stale: None, command };
        let owner = &self.posts[(group.0 % self.posts.len() as u32) as usize];
        owner.mail.push(Letter::TracedRequest(request));
        let result = receiver.await.unwrap_or(Err(if read { Refusal::TryAgain } else { Refusal::InDoubt }));
        let mut steps = Vec::new();
        let begun = tokio::time::Instant::now();
        // Slower members tell of it later than the answer comes.
        loop {
            let end = result.is_err() || begun.elapsed() >= ACCOUNT;
            let (sender, account) = oneshot::channel();
            owner.mail.push(Letter::Account(token, end, sender));
            if let Ok(Some(found)) = account.await {
                steps = found;
                break;
            }
            if end {
                break;
            }
            tokio::time::sleep(TICK).await;
        }
        (result, steps)
    }

    /// Names a command of this node's own.
    fn own_token(&self) -> (Token, oneshot::Receiver<Result<Outcome, Refusal>>) {
        let number = self.next_own.get();
        self.next_own.set(number + 1);
        let (sender, receiver) = oneshot::channel();
        self.own.borrow_mut().insert(number, sender);
        (Token { connection: self.connection_id(OWN), request: number }, receiver)
    }

    async fn execute(&self, group: GroupId, command: &Command, read: bool) -> Result<Outcome, Refusal> {
        let (token, receiver) = self.own_token();
        let command = command.to_bytes();
        self.submit(Request { token, group, read, ordered: false, stale: None, command });
        // Whoever ends without an answer may have had it executed.
        receiver.await.unwrap_or(Err(if read { Refusal::TryAgain } else { Refusal::InDoubt }))
    }

    /// Asks the mirror for a piece of a group's checkpoint; see [`crate::node::readers`]. `None` when
    /// there is no answer.
    pub async fn image(&self, group: GroupId, fetch: bytes::Bytes) -> Option<(u8, bytes::Bytes)> {
        let (sender, receiver) = oneshot::channel();
        self.mirror.read(group, fetch, sender);
        receiver.await.ok()
    }

    /// Asks every worker where its groups stand.
    pub async fn report(&self) -> Vec<ShardReport> {
        self.ask(Letter::Report).await
    }

    /// Has every worker begin to verify its groups, or to bring their mirrors up to date; returns
    /// where they stood before.
    pub async fn go_through(&self, only: Option<GroupId>, verify: bool) -> Vec<ShardReport> {
        self.ask(|before| Letter::GoThrough { only, verify, before }).await
    }

    /// The clients of all workers, a line each.
    pub async fn clients(&self, now: Duration) -> String {
        self.ask(|answer| Letter::Clients(now, answer)).await.concat()
    }

    /// Closes those connections of all workers; how many.
    pub async fn kill(&self, filter: &KillFilter, by: u64) -> u64 {
        self.ask(|answer| Letter::Kill(filter.clone(), by, answer)).await.into_iter().sum()
    }

    async fn ask<T>(&self, letter: impl Fn(oneshot::Sender<T>) -> Letter) -> Vec<T> {
        let mut answers = Vec::new();
        for post in &self.posts {
            let (sender, receiver) = oneshot::channel();
            post.mail.push(letter(sender));
            answers.push(receiver);
        }
        let mut reports = Vec::new();
        for answer in answers {
            if let Ok(report) = answer.await {
                reports.push(report);
            }
        }
        reports
    }

    /// What connections share over all workers.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Forgets a closed connection. What it still waits for completes into nothing.
    pub fn forget(&self, connection: u64) {
        self.connections.borrow_mut().remove(&connection);
    }

    /// All connections of this worker.
    pub fn connections(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().values().cloned().collect()
    }

    fn own_report(&self, now: Time) -> ShardReport {
        let (shard, ages) = (self.shard.borrow(), self.ages.borrow());
        let groups: Vec<GroupStatus> =
            shard.host().groups().map(|g| GroupStatus::of(g, &ages, now)).collect();
        let peers = shard.host().peers();
        // A node is heard when each of its shards that owns one of our groups is; the first
        // group stands for them.
        let some_group = groups.first().map_or(GroupId(0), |g| g.group);
        ShardReport {
            alive: peers.nodes().filter(|n| peers.alive(*n, some_group, now)).collect(),
            leads: shard.host().leads(),
            heirs: peers.nodes().any(|n| peers.alive(n, some_group, now) && !peers.is_leaving(n)),
            open_requests: shard.open_requests().0,
            slow: peers.slowness(),
            proven: peers.standing() == Standing::Proven,
            state_bytes: groups.iter().map(|g| g.bytes).sum(),
            tally: self.tally.counts(),
            groups,
        }
    }

    /// Publishes how much this shard holds, and whether the node is over its limit, and notes where its groups are.
    fn publish(&self, now: Time) {
        let (shard, mut ages) = (self.shard.borrow(), self.ages.borrow_mut());
        let mut bytes = 0;
        for group in shard.host().groups() {
            bytes += group.state().bytes();
            ages.applied(group.replica.group(), group.replica.mark().instance, now);
        }
        self.shared.state_bytes[self.index as usize].store(bytes, Ordering::Relaxed);
        let turned = &self.shared.turned_ms[self.index as usize];
        turned.store(self.shared.started.elapsed().as_millis() as u64, Ordering::Relaxed);
        let all: u64 = self.shared.state_bytes.iter().map(|b| b.load(Ordering::Relaxed)).sum();
        if let Some((group, why)) = shard.host().outlived() {
            let _ = self.shared.verdict.set(Verdict::Outlived(group, why));
        }
        let limit = self.shared.live.now().0.limits.max_state_bytes.0;
        self.shared.no_memory.store(limit > 0 && all > limit, Ordering::Relaxed);
    }

    fn complete(&self, completions: Vec<Completion>, dirty: &mut Vec<Rc<Connection>>) {
        let mut elsewhere: HashMap<u32, Vec<Completion>> = HashMap::new();
        let connections = self.connections.borrow();
        for completion in completions {
            let home = (completion.token.connection >> WORKER_SHIFT) as u32;
            if home != self.index {
                elsewhere.entry(home).or_default().push(completion);
                continue;
            }
            if completion.token.connection == self.connection_id(OWN) {
                if let Some(sender) = self.own.borrow_mut().remove(&completion.token.request) {
                    let _ = sender.send(completion.result);
                }
            } else if let Some(connection) = connections.get(&completion.token.connection)
                && connection.complete(completion, &self.shared)
            {
                dirty.push(Rc::clone(connection));
            }
        }
        for (home, completions) in elsewhere {
            if let Some(post) = self.posts.get(home as usize) {
                post.mail.push(Letter::Completions(completions));
            }
        }
    }

    fn deliver(&self, pulled: Vec<Pulled>, dirty: &mut Vec<Rc<Connection>>) {
        let mut elsewhere: HashMap<u32, Vec<Pulled>> = HashMap::new();
        for pulled in pulled {
            let home = (pulled.token.connection >> WORKER_SHIFT) as u32;
            if home != self.index {
                elsewhere.entry(home).or_default().push(pulled);
                continue;
            }
            let connection = self.connections.borrow().get(&pulled.token.connection).cloned();
            if let Some(connection) = connection
                && connection.pulled(pulled, self)
            {
                dirty.push(connection);
            }
        }
        for (home, pulled) in elsewhere {
            if let Some(post) = self.posts.get(home as usize) {
                post.mail.push(Letter::Pulled(pulled));
            }
        }
    }

    /// One turn: the shard's wishes are carried out, replies are written.
    fn turn(&self, dirty: &mut Vec<Rc<Connection>>) {
        let Effects { send_now, job, log_reads, completions, pulled, orders, memory, roster } =
            self.shard.borrow_mut().turn(self.clock.now());
        self.posts[self.index as usize].full.store(self.shard.borrow().is_full(), Ordering::Relaxed);
        if let Some(peers) = memory {
            self.memory.keep(&peers);
        }
        if let Some(roster) = roster {
            self.shared.roster.adopt(roster);
        }
        let standing = self.shard.borrow().host().peers().standing();
        if matches!(standing, Standing::Lapsed { .. } | Standing::Replaced { .. }) {
            // The shard says nothing any more; the main thread ends this life.
            let _ = self.shared.verdict.set(Verdict::Disk(standing));
        }
        for (to, lane, batch) in send_now.into_batches() {
            // What cannot be sent is as good as lost, and loss is what retries are for. Only a
            // frame that is too large would be refused for ever.
            if let Err(e @ SendError::TooLarge { .. }) = self.net.send(to, lane, batch) {
                tracing::error!(node = to.0, "a frame cannot be sent: {e}");
            }
        }
        if let Some(job) = job {
            self.log.put(Task::Write(job));
        }
        for read in log_reads {
            // The learner thread ends only with the process.
            let _ = self.learner.send(Lesson::Read(self.index, read));
        }
        for (group, order) in orders {
            self.mirror.order(group, order);
        }
        self.complete(completions, dirty);
        self.deliver(pulled, dirty);
        for connection in dirty.drain(..) {
            connection.flush();
        }
    }

    /// The number of a connection of this worker, which no other worker uses.
    fn connection_id(&self, number: u64) -> u64 {
        u64::from(self.index) << WORKER_SHIFT | number
    }

    fn admit(self: &Rc<Self>, stream: std::net::TcpStream) {
        let number = self.next_connection.get();
        self.next_connection.set(number + 1);
        let id = self.connection_id(number);
        match Connection::open(id, stream, self) {
            Ok((connection, reader)) => {
                self.connections.borrow_mut().insert(id, Rc::clone(&connection));
                let worker = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    connection.serve(reader, &worker).await;
                    connection.unwatch(&worker);
                    worker.forget(id);
                    worker.shared.connection_closed();
                });
            }
            Err(e) => {
                tracing::debug!("a client connection ended before it began: {e}");
                self.shared.connection_closed();
            }
        }
    }

    /// What peers say of their being alive does not wait behind what else they say.
    fn hear(&self) {
        let beats = self.posts[self.index as usize].beats.take();
        // Read after they have come: what is granted on a heartbeat begins no earlier than that was sent.
        let now = self.clock.now();
        let mut shard = self.shard.borrow_mut();
        for (from, frame) in beats {
            shard.on_frame(from, frame, now);
        }
    }

    fn tick(&self, now: Time, due: &mut Time) {
        if now >= *due {
            *due = now + TICK;
            self.shard.borrow_mut().tick(now);
        }
    }

    async fn run(self: Rc<Self>) {
        let mut pace = TICK;
        let tick = tokio::time::sleep(pace);
        tokio::pin!(tick);
        let mut letters = VecDeque::new();
        let mut dirty = Vec::new();
        let mut reports = Vec::new();
        let idle = self.shared.config.paxos.idle_tick();
        let mut publish_at = self.clock.now();
        let mut tick_at = publish_at;
        let mut say_at = publish_at;
        loop {
            if letters.is_empty() {
                tokio::select! {
                    biased;
                    () = self.wake.notified() => {}
                    () = &mut tick => tick.as_mut().reset(tokio::time::Instant::now() + pace),
                }
            }
            let began = self.clock.now();
            let post = &self.posts[self.index as usize];
            post.mail.drain(&mut letters);
            let mut now = self.clock.now();
            while let Some(letter) = letters.pop_front() {
                match letter {
                    Letter::Frames(from, frames) => {
                        let mut shard = self.shard.borrow_mut();
                        for frame in frames {
                            shard.on_frame(from, frame, now);
                        }
                    }
                    Letter::Synced(batch) => self.shard.borrow_mut().on_synced(batch, now),
                    Letter::LogRead(read, found) => self.shard.borrow_mut().on_log_read(read, found, now),
                    Letter::Mirror(group, word) => {
                        if matches!(word, MirrorWord::Settled(_) | MirrorWord::Installed(..)) {
                            self.ages.borrow_mut().settled(group, now);
                        }
                        self.shard.borrow_mut().on_mirror(group, word, now);
                    }
                    Letter::Compact(group, demand) => self.shard.borrow_mut().compact(group, demand),
                    Letter::Request(request) => self.shard.borrow_mut().submit(request, now),
                    Letter::RequestOrMove(request) => self.shard.borrow_mut().submit_or_move(request, now),
                    Letter::TracedRequest(request) => self.shard.borrow_mut().submit_traced(request, now),
                    Letter::Account(token, end, sender) => {
                        let _ = sender.send(self.shard.borrow_mut().account(token, end));
                    }
                    Letter::Completions(completions) => self.complete(completions, &mut dirty),
                    Letter::Pull(pull) => self.shard.borrow_mut().pull(pull, now),
                    Letter::Pulled(pulled) => self.deliver(pulled, &mut dirty),
                    Letter::Unwatch(connection, watch) => {
                        self.shard.borrow_mut().unwatch(connection, watch);
                    }
                    Letter::Client(stream) => self.admit(stream),
                    Letter::Clients(now, sender) => {
                        let lines = self.connections().iter().map(|c| c.describe(now) + "\n").collect();
                        let _ = sender.send(lines);
                    }
                    Letter::Kill(filter, by, sender) => {
                        let killed = self.connections().iter().filter(|c| c.kill(&filter, by)).count();
                        let _ = sender.send(killed as u64);
                    }
                    Letter::Report(sender) => reports.push(sender),
                    Letter::GoThrough { only, verify, before } => {
                        let report = self.own_report(now);
                        self.shard.borrow_mut().go_through(only, verify);
                        let _ = before.send(report);
                    }
                    Letter::Roster(roster) => self.shard.borrow_mut().set_roster(roster, now),
                    Letter::Leave => self.shard.borrow_mut().leave_all(),
                    Letter::Drain => self.connections().iter().for_each(|connection| connection.look_up()),
                    Letter::End => {
                        // Nobody else will answer what is still open.
                        for connection in self.connections() {
                            connection.abandon(self.shared.node);
                        }
                        return;
                    }
                }
                now = self.clock.now();
                if now.since(began) >= SLICE {
                    // Much has come. Neither the own heartbeats nor those of others wait behind it, nor does the
                    // network, which may be this thread's business too.
                    break;
                }
            }
            // What peers have sent goes before what clients send next.
            self.room.set(if letters.is_empty() { COMMANDS_PER_TURN } else { 0 });
            self.hear();
            now = self.clock.now();
            // By the clock and not by which branch woke it: under load the other one always does,
            // and heartbeats must go out all the same.
            let ticks = now >= tick_at;
            self.tick(now, &mut tick_at);
            if now >= publish_at {
                publish_at = now + PUBLISH;
                self.publish(now);
            }
            self.turn(&mut dirty);
            // Between a frame and the end of its turn a group's chosen prefix is ahead of its
            // state: only now the two belong together, and may be compared with another node's.
            for sender in reports.drain(..) {
                let _ = sender.send(self.own_report(now));
            }
            let wanted = if self.shard.borrow().is_active() { TICK } else { idle };
            if wanted != pace {
                pace = wanted;
                tick.as_mut().reset(tokio::time::Instant::now() + pace);
            }
            let end = self.clock.now();
            if ticks {
                // Where thousands of groups have something to do, letting time pass for all of them takes longer than
                // a tick, and must not be all that is done.
                tick_at = tick_at.max(end + end.since(now));
            }
            let took = end.since(began);
            if took >= LONG && now >= say_at {
                say_at = now + SAY_AGAIN;
                tracing::warn!(
                    worker = self.index,
                    took_ms = took.as_millis() as u64,
                    mail_ms = now.since(began).as_millis() as u64,
                    "a turn was so long that heartbeats were late: the machine has too little processor time, or was asleep"
                );
            }
            // Let the connections that became readable in the meantime fill the next turn.
            tokio::task::yield_now().await;
        }
    }
}

/// Runs the network's loop between the turns of the only worker: what peers send is in its mailbox without a thread
/// being woken for it.
async fn network(loan: Loan) {
    // SAFETY: the descriptor is that of the loop's poll. The loan has the loop until it is dropped, so it names that
    // one descriptor, and it is open, for as long as the registration has the loan.
    let registered = unsafe { AsyncFd::register_with_interest(loan, Interest::READABLE) };
    let mut loan = match registered {
        Ok(loan) => loan,
        Err(e) => {
            // It has gone home to the network thread, which goes on with it.
            tracing::error!("the network's loop cannot run on the worker's thread: {e}");
            return;
        }
    };
    let timer = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(timer);
    loop {
        let due = loan.get_mut().turn();
        if due <= Instant::now() {
            tokio::task::yield_now().await;
            continue;
        }
        if timer.deadline().into_std() != due {
            timer.as_mut().reset(due.into());
        }
        tokio::select! {
            biased;
            ready = loan.readable() => match ready {
                // Before the turn: what becomes readable behind this is told anew.
                Ok(mut ready) => ready.clear_ready(),
                Err(e) => {
                    tracing::error!("the network's loop goes back to its thread: {e}");
                    return;
                }
            },
            () = &mut timer => {}
        }
    }
}

/// What a worker thread is made of.
pub struct WorkerParts {
    /// Its shard.
    pub shard: Shard,
    /// All workers, this one among them.
    pub posts: Vec<Arc<Post>>,
    /// What wakes it.
    pub wake: Arc<Notify>,
    /// The clock.
    pub clock: Clock,
    /// The network.
    pub net: NetHandle,
    /// Its loop, where this worker is to run that as well.
    pub loan: Option<Loan>,
    /// The log thread.
    pub log: Arc<Tray<Task>>,
    /// The learner thread.
    pub learner: Sender<Lesson>,
    /// The mirror's thread.
    pub mirror: MirrorHandle,
    /// Where what is remembered of the peers is kept.
    pub memory: MemoryHandle,
    /// What connections share.
    pub shared: Arc<Shared>,
}

/// Runs a worker until it is told to end.
///
/// # Errors
/// When the runtime cannot be built.
pub fn run(parts: WorkerParts) -> std::io::Result<()> {
    let WorkerParts { shard, posts, wake, clock, net, loan, log, learner, mirror, memory, shared } = parts;
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(LocalOptions::default())?;
    let worker = Rc::new(Worker {
        index: shard.shard(),
        shard: RefCell::new(shard),
        ages: RefCell::default(),
        connections: RefCell::new(HashMap::new()),
        own: RefCell::new(HashMap::new()),
        next_own: Cell::new(1),
        next_connection: Cell::new(1),
        room: Cell::new(COMMANDS_PER_TURN),
        posts,
        wake,
        clock,
        net,
        log,
        learner,
        mirror,
        memory,
        shared,
        tally: Rc::default(),
    });
    if let Some(loan) = loan {
        runtime.spawn_local(network(loan));
    }
    // A task like the others, not what the runtime blocks on: that would be woken by a system call each time.
    let turns = runtime.spawn_local(worker.run());
    match runtime.block_on(turns) {
        Ok(()) => Ok(()),
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}
