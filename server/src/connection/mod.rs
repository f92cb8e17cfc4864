//! One client connection: bytes to commands to groups, and replies in the order of the requests.
//!
//! A connection lives on its worker's thread. Its task reads and parses; replies are written by
//! whoever completes them, at the end of a turn, and by the task only when the socket was full.
//!
//! Commands of one connection take effect in the order in which they came wherever their keys
//! share a group: writes are numbered by the node's session, a read names the write that it
//! follows, and a write waits for earlier reads of its group.

mod info;
pub mod node_commands;
mod ordered;
pub mod plan;
mod roster;
mod slots;
mod trace;
pub mod transaction;
mod wall;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf, BytesMut};
use groups::ids::{Boot, ClusterId, GroupId, NodeId, StorageId};
use groups::peers::Standing;
use netio::NetHandle;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use crate::config::{Config, InForce, LiveConfig};
use crate::node::layout::Layout;
use crate::node::requests::{Completion, Request, Token};
use crate::protocol::{
    Command, DataCommand, ErrorReply, KillFilter, LocalCommand, NodeCommand, Reply, ReplyBuffer,
    Request as Parsed, RequestLimits, RequestParser, ServerInfo, Session, Shortage, SizeLimits, Version,
};
use crate::runtime::cut::Cut;
use crate::runtime::logger::LogGauge;
use crate::runtime::mirror::MirrorGauge;
use crate::runtime::reload::Reloader;
use crate::runtime::roster::RosterHandle;
use crate::runtime::scrub::ScrubGauge;
use crate::runtime::tally::{Kind, Tally};
use crate::runtime::worker::Worker;
use plan::{Join, Piece, plan};
use watch::Watches;

/// Why this life of the node ends without anybody having asked for it.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Peers have said what is against its disk.
    Disk(Standing),
    /// A group has halted here for this reason, and a majority goes on without it.
    Outlived(GroupId, String),
}

/// What all connections of a node share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub config: Config,
    /// What of it is in force now, as far as that changes while the node runs, and `CONFIG GET`.
    pub live: Arc<LiveConfig>,
    /// What reads the file again.
    pub reloader: Arc<Reloader>,
    /// The node ends: commands that come now are refused.
    pub ending: AtomicBool,
    /// This node.
    pub node: NodeId,
    /// Its disk.
    pub storage: StorageId,
    /// Its life.
    pub boot: Boot,
    /// The cluster.
    pub cluster: ClusterId,
    /// Which group a key belongs to.
    pub layout: Layout,
    /// Who the cluster's nodes are, and which groups they shall have.
    pub roster: RosterHandle,
    /// When the process started.
    pub started: Instant,
    /// The log.
    pub gauge: Arc<LogGauge>,
    /// The mirror.
    pub mirror: Arc<MirrorGauge>,
    /// The scrub of the log.
    pub scrub: Arc<ScrubGauge>,
    /// The peers that this node is kept from hearing.
    pub cut: Arc<Cut>,
    /// The network.
    pub net: NetHandle,
    /// Open connections.
    pub connections: AtomicU64,
    /// Bytes of keys and values, by worker.
    pub state_bytes: Vec<AtomicU64>,
    /// When each worker last had a turn, milliseconds after the start; it says so twice a second.
    pub turned_ms: Vec<AtomicU64>,
    /// What peers have said against this disk, once one has: the process begins anew or ends.
    pub verdict: OnceLock<Verdict>,
    /// What happened to the data directory before this start, for an operator.
    pub notes: Vec<String>,
    /// More live data than the limit.
    pub no_memory: AtomicBool,
    /// Connections accepted since the start, for `INFO`.
    pub accepted: AtomicU64,
    /// Connections turned away since the start, because there were too many.
    pub turned_away: AtomicU64,
}

impl Shared {
    /// A connection has ended.
    pub fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Why writes are refused now.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        if self.gauge.no_space.load(Ordering::Relaxed) {
            Some(Shortage::Disk)
        } else if self.no_memory.load(Ordering::Relaxed) {
            Some(Shortage::Memory)
        } else {
            None
        }
    }

    fn info<'a>(&self, live: &'a InForce) -> ServerInfo<'a> {
        ServerInfo {
            version: env!("CARGO_PKG_VERSION"),
            password: live.0.security.password.as_deref(),
            settings: &live.1,
            now: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        }
    }
}

/// Bits of a request's number that stay free, so that it can never run over.
const FIRST_REQUEST: u64 = 1;

/// A client with this many unanswered requests, or parts of them at groups, is not read further.
const MAX_PENDING: usize = 4_096;

/// Commands that are taken from one client before others have their turn. How many are taken from all of
/// them before the groups have theirs is the worker's ([`Worker::takes_more`]).
const COMMANDS_PER_TURN: usize = 512;

/// Nor is one that leaves this many bytes of replies unread.
const MAX_UNREAD: usize = 1 << 20;

#[derive(Debug)]
enum Slot {
    Waiting(Box<Join>),
    Ready(Reply),
    /// A node command: its task will fill it.
    Later,
}

#[derive(Debug)]
struct Pending {
    slot: Slot,
    /// About how many bytes of outcomes it holds.
    bytes: usize,
    /// Set once the reply is known: `HELLO` changes the protocol for itself and what follows.
    version: Version,
    /// Of what groups answer: when it was taken, and whether it is a write.
    taken: Option<(Instant, bool)>,
}

/// Unanswered pieces of this connection at one group.
#[derive(Debug, Default)]
struct Open {
    reads: u32,
    writes: u32,
}

#[derive(Debug)]
struct State {
    session: Session,
    /// When the task last looked for requests: one look at the clock serves a whole pipeline.
    now: Instant,
    pending: VecDeque<Pending>,
    /// The number of `pending[0]`.
    first: u64,
    open: HashMap<GroupId, Open, foldhash::fast::FixedState>,
    /// Pieces at groups that are not answered.
    pieces: usize,
    /// Bytes of replies that wait for earlier ones.
    ready_bytes: usize,
    /// A node command or a `WATCH` is being answered, or a watch is being begun: nothing else is taken
    /// before that.
    asking: bool,
    watches: Watches,
    out: ReplyBuffer,
}

impl State {
    /// Whether no more requests are taken for now.
    fn is_full(&self) -> bool {
        self.pending.len() >= MAX_PENDING
            || self.pieces >= MAX_PENDING
            || self.ready_bytes + self.out.len() >= MAX_UNREAD
    }
}

/// One client.
pub struct Connection {
    id: u64,
    /// Replies go out here; the task has the other half.
    stream: OwnedWriteHalf,
    state: RefCell<State>,
    /// Something has moved: the task looks again.
    moved: Notify,
    broken: Cell<bool>,
    /// The task waits for replies to be written, not only for the client to send more.
    awaits_progress: Cell<bool>,
    /// The client's bytes make no sense any more: the error is said once, then the end.
    out_of_step: Cell<bool>,
    /// The client was told that the node ends.
    dismissed: Cell<bool>,
    sizes: SizeLimits,
    limits: RequestLimits,
    max_value: u64,
    tally: Rc<Tally>,
}

/// A command that waits for what its connection has sent before.
enum Held {
    /// For earlier reads of its group.
    Data(DataCommand),
    /// For everything: it reads data, and on another way.
    Node(NodeCommand),
}

enum Flow {
    NeedMore,
    /// There is more to do after the others.
    Again,
    /// The request waits for earlier ones.
    Wait,
    /// No more requests are taken before replies are written or have come.
    Full,
    Close,
}

impl Connection {
    /// Takes over an accepted socket. The half that is read belongs to [`Connection::serve`].
    ///
    /// # Errors
    /// When the socket is gone already.
    pub fn open(
        id: u64,
        stream: std::net::TcpStream,
        worker: &Worker,
    ) -> io::Result<(Rc<Connection>, OwnedReadHalf)> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let (peer, local) = (stream.peer_addr()?.to_string(), stream.local_addr()?.to_string());
        let (reader, stream) = TcpStream::from_std(stream)?.into_split();
        let shared = worker.shared();
        let live = shared.live.now();
        let session = Session::new(id, peer, local, &shared.info(&live));
        let connection = Rc::new(Connection {
            id,
            stream,
            state: RefCell::new(State {
                session,
                now: Instant::now(),
                pending: VecDeque::new(),
                first: FIRST_REQUEST,
                open: HashMap::default(),
                pieces: 0,
                ready_bytes: 0,
                asking: false,
                watches: Watches::default(),
                out: ReplyBuffer::new(),
            }),
            moved: Notify::new(),
            broken: Cell::new(false),
            awaits_progress: Cell::new(false),
            out_of_step: Cell::new(false),
            dismissed: Cell::new(false),
            sizes: live.0.sizes(),
            limits: live.0.request_limits(),
            max_value: live.0.limits.max_value.0,
            tally: Rc::clone(worker.tally()),
        });
        Ok((connection, reader))
    }

    /// The line of `CLIENT LIST`.
    #[must_use]
    pub fn describe(&self, now: Duration) -> String {
        self.state.borrow().session.describe(now)
    }

    /// Closes the connection if all that is asked of it is so. `by` is the one that wants it closed: it gets
    /// its answers first. Whether it is closed.
    pub fn kill(&self, filter: &KillFilter, by: u64) -> bool {
        let mut state = self.state.borrow_mut();
        let (peer, local) = state.session.addresses();
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let this = filter.id.is_none_or(|id| id == self.id)
            && is(&filter.peer, peer)
            && is(&filter.local, local)
            && !(filter.skip_me && by == self.id);
        if this && by == self.id {
            state.session.close();
        } else if this {
            self.broken.set(true);
            self.moved.notify_one();
        }
        this
    }

    /// Serves the client until it leaves.
    pub async fn serve(self: &Rc<Self>, mut reader: OwnedReadHalf, worker: &Rc<Worker>) {
        let shared = Arc::clone(worker.shared());
        let mut parser = RequestParser::new(self.limits);
        let mut input = BytesMut::with_capacity(READ_BYTES);
        let mut waiting: Option<Held> = None;
        let mut eof = false;
        loop {
            let flow = self.process(&mut input, &mut parser, &mut waiting, worker, &shared);
            self.write_out();
            self.pull_more(worker);
            if self.broken.get() {
                return;
            }
            let (full, idle) = {
                let state = self.state.borrow();
                (state.is_full(), state.pending.is_empty() && state.out.is_empty())
            };
            let blocked = !self.state.borrow().out.is_empty();
            self.awaits_progress.set(full || eof || !matches!(flow, Flow::NeedMore));
            match flow {
                Flow::Close => {
                    if idle {
                        if self.dismissed.get() {
                            self.farewell(&mut reader).await;
                        }
                        return;
                    }
                    self.wait(blocked).await;
                }
                Flow::Wait => {
                    self.wait(blocked).await;
                }
                // What filled it was written just now: nobody is left who would say so later.
                Flow::Full if !full => tokio::task::yield_now().await,
                Flow::Full => {
                    self.wait(blocked).await;
                }
                Flow::Again => tokio::task::yield_now().await,
                Flow::NeedMore => {
                    if eof && idle {
                        return;
                    }
                    // A client that closed its side still gets the answers to what it sent.
                    if full || eof {
                        self.wait(blocked).await;
                        continue;
                    }
                    make_room(&mut input, &parser);
                    // A short read tells the runtime that the socket is empty: it is not asked again
                    // only to hear so.
                    let read = tokio::select! {
                        () = self.wait(blocked) => continue,
                        read = reader.read_buf(&mut input) => read,
                    };
                    match read {
                        Ok(0) => eof = true,
                        Ok(_) => {}
                        Err(_) => return,
                    }
                }
            }
        }
    }

    /// Closes the own side, and reads on until the client has closed the other one: a socket that is closed while
    /// bytes come in throws away what its client has not read yet.
    async fn farewell(&self, reader: &mut OwnedReadHalf) {
        let _ = SockRef::from(self.stream.as_ref()).shutdown(std::net::Shutdown::Write);
        let mut rest = [0; 1024];
        let read_on = async { while matches!(reader.read(&mut rest).await, Ok(1..)) {} };
        let _ = tokio::time::timeout(FAREWELL, read_on).await;
    }

    /// Something has changed for all connections: the task looks.
    pub fn look_up(&self) {
        self.moved.notify_one();
    }

    /// The node ends with this client's requests open: what becomes of them cannot be told any more.
    pub fn abandon(&self, node: NodeId) {
        {
            let mut state = self.state.borrow_mut();
            for pending in state.pending.iter_mut().filter(|p| !matches!(p.slot, Slot::Ready(_))) {
                pending.slot = Slot::Ready(ErrorReply::abandoned(node).into());
            }
        }
        self.write_out();
    }

    /// Waits until something may have changed.
    async fn wait(&self, write: bool) {
        tokio::select! {
            () = self.moved.notified() => {}
            _ = self.stream.writable(), if write => {}
        }
    }

    /// Takes every complete request out of `input`, up to one that has to wait.
    fn process(
        self: &Rc<Self>,
        input: &mut BytesMut,
        parser: &mut RequestParser,
        waiting: &mut Option<Held>,
        worker: &Rc<Worker>,
        shared: &Arc<Shared>,
    ) -> Flow {
        self.state.borrow_mut().now = Instant::now();
        let again = match waiting.take() {
            Some(Held::Data(command)) => {
                self.data(command, worker, shared).map_err(|command| Held::Data(*command))
            }
            Some(Held::Node(command)) => self.node(command, worker).map_err(Held::Node),
            None => Ok(()),
        };
        if let Err(held) = again {
            *waiting = Some(held);
            return Flow::Wait;
        }
        let sizes = self.sizes;
        for _ in 0..COMMANDS_PER_TURN {
            {
                let state = self.state.borrow();
                if state.session.is_closing() || self.out_of_step.get() {
                    return Flow::Close;
                }
                if state.asking {
                    return Flow::Wait;
                }
                if state.is_full() {
                    return Flow::Full;
                }
                if !worker.takes_more() {
                    return Flow::Again;
                }
                parser.set_authenticated(state.session.is_authenticated());
            }
            let parsed = match parser.next(input) {
                Ok(Some(parsed)) => parsed,
                Ok(None) if self.dismissed.get() => return Flow::Close,
                Ok(None) => return Flow::NeedMore,
                Err(e) => {
                    self.push(Slot::Ready(ErrorReply::err(e.to_string()).into()));
                    self.out_of_step.set(true);
                    return Flow::Close;
                }
            };
            if shared.ending.load(Ordering::Relaxed) {
                self.dismissed.set(true);
                self.push(Slot::Ready(ErrorReply::ending(shared.node).into()));
                continue;
            }
            let mut bytes = 0;
            let command = match parsed {
                Parsed::Command(args) => {
                    bytes = args.size();
                    Command::parse(&args, &sizes)
                }
                Parsed::Oversized(oversized) => Err(Command::oversized(&oversized, &sizes)),
                Parsed::Malformed(why) => Err(ErrorReply::err(why)),
            };
            self.tally.command(command.as_ref().map_or(Kind::Other, Kind::of));
            let admitted = command.and_then(|command| {
                self.state.borrow().session.admit(&command)?;
                self.allows(command)
            });
            match admitted {
                Err(error) => {
                    self.state.borrow_mut().session.transaction().fail();
                    self.push(Slot::Ready(error.into()));
                }
                Ok(command) if self.state.borrow().session.queues(&command) => {
                    let queued = self.state.borrow_mut().session.transaction().push(
                        command,
                        bytes,
                        self.limits.max_request,
                    );
                    self.push(Slot::Ready(queued.into()));
                }
                Ok(Command::Transaction(command)) => {
                    if let Err(command) = self.transaction(command, worker, shared) {
                        *waiting = Some(Held::Data(*command));
                        return Flow::Wait;
                    }
                }
                Ok(Command::Watch(command)) => self.watch(command, worker, shared),
                Ok(Command::Local(command)) => {
                    if let Some(reply) = self.watching_ping(&command) {
                        self.push(Slot::Ready(reply));
                        continue;
                    }
                    if command == LocalCommand::Reset {
                        self.unwatch(worker);
                    }
                    let reply =
                        self.state.borrow_mut().session.local(&command, &shared.info(&shared.live.now()));
                    self.push(Slot::Ready(reply));
                }
                Ok(Command::Node(command)) => {
                    if let Err(command) = self.node(command, worker) {
                        *waiting = Some(Held::Node(command));
                        return Flow::Wait;
                    }
                }
                Ok(Command::Data(command)) => {
                    if let Err(command) = self.data(command, worker, shared) {
                        *waiting = Some(Held::Data(*command));
                        return Flow::Wait;
                    }
                }
            }
        }
        Flow::Again
    }

    /// Begins to answer a node command, or hands it back when it has to wait.
    fn node(self: &Rc<Self>, command: NodeCommand, worker: &Rc<Worker>) -> Result<(), NodeCommand> {
        if command.reads_data() && self.state.borrow().pieces > 0 {
            return Err(command);
        }
        let number = self.push(Slot::Later);
        // One at a time: each is small to ask and may be large to answer.
        self.state.borrow_mut().asking = true;
        let (connection, worker) = (Rc::clone(self), Rc::clone(worker));
        tokio::task::spawn_local(async move {
            let reply = node_commands::answer(command, &connection, &worker).await;
            connection.fill(number, reply);
            connection.flush();
        });
        Ok(())
    }

    /// Hands a data command to its groups, or back when it has to wait for earlier reads.
    fn data(&self, command: DataCommand, worker: &Worker, shared: &Shared) -> Result<(), Box<DataCommand>> {
        let write = command.is_write();
        if let Some(refusal) = refused(&command, worker, shared) {
            self.push(Slot::Ready(refusal.into()));
            return Ok(());
        }
        if write
            && self.state.borrow().open.values().any(|o| o.reads > 0)
            && self.follows_a_read(&command, shared)
        {
            return Err(Box::new(command));
        }
        let max_value = u32::try_from(self.max_value).unwrap_or(u32::MAX);
        let stale = command.stale();
        let locals = self.locals(&command, shared);
        let moves = self.moves(&command);
        let (pieces, mut join) = match plan(command, &shared.layout, max_value) {
            Ok(planned) => planned,
            Err(error) => {
                self.push(Slot::Ready(error.into()));
                return Ok(());
            }
        };
        join.set_locals(locals);
        let moves = moves.filter(|_| pieces.len() == 1);
        join.set_slot(moves);
        if pieces.is_empty() {
            self.push(Slot::Ready(join.reply(self.max_value)));
            return Ok(());
        }
        let request = self.push(Slot::Waiting(Box::new(join)));
        self.mark_taken(write);
        for Piece { group, command } in pieces {
            let ordered = self.open_piece(group, write);
            let request = Request {
                token: Token { connection: self.id, request },
                group,
                read: !write,
                ordered,
                stale,
                command: command.to_bytes(),
            };
            match moves {
                Some(_) => worker.submit_or_move(request),
                None => worker.submit(request),
            }
        }
        Ok(())
    }

    /// The slot of a command that is to be answered with `MOVED` where another node leads its group: what a
    /// cluster client sends to one node, all keys in one slot. A transaction is forwarded in any case: its
    /// client has been told `QUEUED` here.
    fn moves(&self, command: &DataCommand) -> Option<groups::ids::Slot> {
        // A read that need not be the newest may be answered here.
        let anywhere = command.is_transaction() || command.stale().is_some();
        if !self.state.borrow().session.redirects() || anywhere {
            return None;
        }
        command.keys().next().map(|key| crate::protocol::slot_of(key))
    }

    fn follows_a_read(&self, command: &DataCommand, shared: &Shared) -> bool {
        let state = self.state.borrow();
        let reads = |key: &[u8]| {
            let group = shared.layout.group_of(crate::protocol::slot_of(key));
            state.open.get(&group).is_some_and(|o| o.reads > 0)
        };
        command.keys().any(|key| reads(key))
    }

    /// Notes an unanswered piece. Returns whether writes to the same group are unanswered.
    fn open_piece(&self, group: GroupId, write: bool) -> bool {
        let mut state = self.state.borrow_mut();
        state.pieces += 1;
        let open = state.open.entry(group).or_default();
        if write {
            open.writes += 1;
        } else {
            open.reads += 1;
        }
        open.writes > 0
    }

    fn push(&self, slot: Slot) -> u64 {
        let mut state = self.state.borrow_mut();
        let number = state.first + state.pending.len() as u64;
        let version = state.session.version();
        state.pending.push_back(Pending { slot, bytes: 0, version, taken: None });
        number
    }

    /// What was pushed last is answered by groups, and how long that takes is counted.
    fn mark_taken(&self, write: bool) {
        let mut state = self.state.borrow_mut();
        let taken = Some((state.now, write));
        if let Some(last) = state.pending.back_mut() {
            last.taken = taken;
        }
    }

    fn fill(&self, number: u64, reply: Reply) {
        let mut state = self.state.borrow_mut();
        state.asking = false;
        let first = state.first;
        if let Some(pending) = state.pending.get_mut((number - first) as usize) {
            pending.slot = Slot::Ready(reply);
        }
    }

    /// Takes the end of one piece. Returns whether there may be something to write.
    pub fn complete(&self, completion: Completion, shared: &Shared) -> bool {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let index = completion.token.request.wrapping_sub(state.first) as usize;
        let Some(pending) = state.pending.get_mut(index) else { return false };
        let Slot::Waiting(join) = &mut pending.slot else { return false };
        state.pieces = state.pieces.saturating_sub(1);
        if let Some(open) = state.open.get_mut(&completion.group) {
            let count = if join.is_write() { &mut open.writes } else { &mut open.reads };
            *count = count.saturating_sub(1);
            if open.reads == 0 && open.writes == 0 {
                state.open.remove(&completion.group);
            }
        }
        if let Ok(outcome) = &completion.result {
            state.ready_bytes += outcome.size();
            pending.bytes += outcome.size();
        }
        if join.take(completion.group, completion.result) {
            if join.is_watch() {
                state.session.transaction().watch(join.seen());
                state.asking = false;
            }
            let Slot::Waiting(join) = std::mem::replace(&mut pending.slot, Slot::Later) else { return false };
            let moved = join.moved().and_then(|(slot, node)| node_commands::moved(shared, slot, node));
            pending.slot = Slot::Ready(moved.unwrap_or_else(|| join.reply(self.max_value)));
        }
        true
    }

    /// Writes what can be written, and wakes the task if there is something for it to do.
    pub fn flush(&self) {
        self.write_out();
        let blocked = !self.state.borrow().out.is_empty();
        if blocked || self.broken.get() || self.awaits_progress.get() {
            self.moved.notify_one();
        }
    }

    /// Encodes the replies that are next in order and writes what the socket takes.
    fn write_out(&self) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let mut now = None;
        while let Some(pending) = state.pending.pop_front_if(|p| matches!(p.slot, Slot::Ready(_))) {
            state.first += 1;
            state.ready_bytes -= pending.bytes;
            if let Some((taken, write)) = pending.taken {
                self.tally.took(write, now.get_or_insert_with(Instant::now).duration_since(taken));
            }
            if let Slot::Ready(reply) = pending.slot {
                if let Reply::Error(error) = &reply {
                    self.tally.error(error.class());
                }
                reply.encode(&mut state.out, pending.version);
            }
        }
        while !state.out.is_empty() && !self.broken.get() {
            let mut slices = [IoSlice::new(&[]); 16];
            let count = state.out.chunks_vectored(&mut slices);
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(0) => self.broken.set(true),
                Ok(n) => state.out.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.broken.set(true),
            }
        }
    }
}

/// Why a data command is refused before anything is made of it.
fn refused(command: &DataCommand, worker: &Worker, shared: &Shared) -> Option<ErrorReply> {
    if shared.roster.is_off() {
        return Some(ErrorReply::taken_off(shared.node));
    }
    if worker.is_full() {
        return Some(plan::BUSY);
    }
    let takes = command.is_write() && !command.frees();
    shared.shortage().filter(|_| takes).map(ErrorReply::read_only)
}
/// The longest that a client which was told of the node's end may take to close its side.
const FAREWELL: Duration = Duration::from_millis(200);

/// Bytes that are read at one time, at least.
const READ_BYTES: usize = 16 << 10;

/// Room for what is known to be missing, but not all of a large value at once: memory follows what
/// has really arrived.
fn make_room(input: &mut BytesMut, parser: &RequestParser) {
    let hint = parser.missing(input.len()).clamp(READ_BYTES, 1 << 20);
    if input.capacity() - input.len() < READ_BYTES / 4 {
        input.reserve(hint);
    }
}
