//! The poll loop: one thread at a time, all connections.
//!
//! A turn: wait for events; take notes from outside; accept; write what is queued; read what
//! has arrived; look at the timers when one is due. Each connection has a budget per turn and
//! is visited again in the next one when it used it up, because the edge-triggered poll will
//! not mention it again. The consensus lane goes before the bulk lane in every step.
//!
//! Sleeping: the loop announces that it goes to sleep, then looks once more at every queue,
//! then polls. A sender queues first and looks at the announcement second. Both orders are
//! sequentially consistent, so either the loop sees the frames or the sender wakes it.

mod accepted;
mod dialled;
mod members;
mod slots;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use groups::ids::NodeId;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::{Mutex, RwLock};

use crate::complaints::{Complaints, Who};
use crate::config::MAX_PEERS;
use crate::dial::{Jitter, Resolver};
use crate::handshake::{Part, Refusal, RefusalCode, judge};
use crate::link::{Down, Inbound, Outbound, Phase, Stage};
use crate::metrics::Counters;
use crate::peers::Peers;
use crate::{BindError, Config, Demux, Frame, Lane, Notes, Rejection, Resolved, Shared, Side};
use slots::Slots;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const BACKLOG: i32 = 256;

/// Events taken in one turn.
const MAX_EVENTS: usize = 256;

/// What an event is about. Serial numbers never come back, so that an event for a connection
/// that was closed earlier in the turn finds nobody.
enum Source {
    Listener,
    Waker,
    Outbound { link: usize, dial: usize },
    Inbound { serial: usize },
}

impl Source {
    fn of(token: Token) -> Source {
        match token {
            LISTENER => Source::Listener,
            WAKER => Source::Waker,
            Token(n) if n & 3 == 2 => Source::Outbound { link: n >> 2 & 0x3FFF, dial: n >> 16 },
            Token(n) => Source::Inbound { serial: n >> 2 },
        }
    }
}

/// Both lanes of the longest list have numbers that fit a token.
const _: () = assert!(2 * MAX_PEERS <= 0x4000);

fn outbound_token(link: usize, dial: usize) -> Token {
    debug_assert!(link <= 0x3FFF, "the list of peers is limited to fewer");
    Token(dial << 16 | link << 2 | 2)
}

fn inbound_token(serial: usize) -> Token {
    Token(serial << 2 | 3)
}

/// The bound port and all that exists before the thread.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) config: Config,
    pub(crate) local_addr: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    poll: Poll,
    listener: TcpListener,
}

impl Socket {
    pub(crate) fn bind(mut config: Config) -> Result<Socket, BindError> {
        config.check()?;
        let peers = Peers::new(&config);
        // The list of peers has an owner from here on.
        config.peers = Vec::new();

        let address = config.listen;
        let (mut listener, local_addr) =
            listen(address).map_err(|error| BindError::listen(address, error))?;
        let poll = Poll::new().map_err(BindError::System)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(BindError::System)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(BindError::System)?;

        let shared = Arc::new(Shared {
            peers,
            identity: RwLock::new(config.identity.clone()),
            notes: Mutex::new(Notes::default()),
            has_notes: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            counters: Counters::default(),
            asleep: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            waker,
        });
        Ok(Socket { config, local_addr, shared, poll, listener })
    }
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // A restarted node gets its port back while old connections are still in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from_std(socket.into());
    let local = listener.local_addr()?;
    Ok((listener, local))
}

pub(crate) struct Driver {
    config: Config,
    shared: Arc<Shared>,
    poll: Poll,
    listener: TcpListener,
    demux: Box<dyn Demux>,
    outbounds: Slots,
    /// Dials so far.
    dials: usize,
    inbounds: HashMap<usize, Inbound>,
    /// Inbound connections that may have bytes to read, by lane; greetings with the first.
    readable: [VecDeque<usize>; 2],
    /// Connections inside their handshake, oldest first.
    greetings: VecDeque<usize>,
    serial: usize,
    frames: Vec<Frame>,
    events: Events,
    accepting: bool,
    accept_again: Option<Instant>,
    /// Made when the first name has to be looked up.
    resolver: Option<Resolver>,
    jitter: Jitter,
    complaints: Complaints,
    /// Of the current turn.
    now: Instant,
    /// Not later than the earliest deadline of any connection.
    timer: Instant,
    stopping: bool,
}

impl AsRawFd for Driver {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

impl Driver {
    pub(crate) fn new(socket: Socket, demux: Box<dyn Demux>) -> Driver {
        let Socket { config, shared, poll, listener, .. } = socket;
        let now = Instant::now();
        let mut outbounds = Slots::default();
        for it in &*shared.peers.list() {
            for lane in Lane::ALL {
                let shelf = it.shelves[lane.index()].clone();
                outbounds.add(Outbound::new(it.node, lane, it.address.clone(), shelf, now));
            }
        }
        Driver {
            complaints: Complaints::new(config.log_interval),
            config,
            shared,
            poll,
            listener,
            demux,
            outbounds,
            dials: 0,
            inbounds: HashMap::new(),
            readable: [VecDeque::new(), VecDeque::new()],
            greetings: VecDeque::new(),
            serial: 0,
            frames: Vec::new(),
            events: Events::with_capacity(MAX_EVENTS),
            // Peers may have knocked between bind and start.
            accepting: true,
            accept_again: None,
            resolver: None,
            jitter: Jitter::new(),
            now,
            timer: now,
            stopping: false,
        }
    }

    /// Runs until it has been stopped, and returns `true`, or until somebody wants to borrow the loop.
    pub(crate) fn run(&mut self) -> bool {
        while !self.has_ended() {
            if self.shared.wanted.load(Ordering::SeqCst) {
                return false;
            }
            let timeout = self.announce_sleep();
            self.turn(timeout);
        }
        true
    }

    fn has_ended(&self) -> bool {
        self.stopping && self.outbounds.iter().all(|link| link.conn.is_none())
    }

    /// One turn; waits for something to do at most so long. Returns whether there may be more events than it took.
    pub(crate) fn turn(&mut self, timeout: Duration) -> bool {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(timeout)) {
            Ok(()) => (),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            Err(error) => panic!("the poll of the network loop failed: {error}"),
        }
        self.shared.asleep.store(false, Ordering::SeqCst);
        self.shared.counters.polls.add(1);
        self.now = Instant::now();

        for event in &events {
            self.on_event(event);
        }
        let full = events.iter().count() == MAX_EVENTS;
        self.events = events;
        if self.shared.has_notes.swap(false, Ordering::SeqCst) {
            self.on_notes();
        }
        if !self.stopping && self.shared.stop.load(Ordering::SeqCst) {
            self.stop();
        }
        if self.accepting {
            self.accept();
        }
        self.write_all();
        self.read_all();
        if self.now >= self.timer {
            self.on_timer();
        }
        full
    }

    /// How long the poll may last. Unless that is zero, senders know that they must wake it.
    pub(crate) fn announce_sleep(&self) -> Duration {
        let unfinished = self.accepting
            || self.readable.iter().any(|list| !list.is_empty())
            || self.outbounds.iter().any(|link| link.more && link.wants_turn());
        if unfinished {
            return Duration::ZERO;
        }
        self.shared.asleep.store(true, Ordering::SeqCst);
        let news = self.shared.has_notes.load(Ordering::SeqCst)
            || self.shared.wanted.load(Ordering::SeqCst)
            || (!self.stopping && self.shared.stop.load(Ordering::SeqCst))
            || self.outbounds.iter().any(Outbound::wants_turn);
        if news {
            self.shared.asleep.store(false, Ordering::SeqCst);
            return Duration::ZERO;
        }
        self.timer.saturating_duration_since(Instant::now())
    }

    fn on_event(&mut self, event: &Event) {
        match Source::of(event.token()) {
            Source::Listener => self.accepting = !self.stopping,
            Source::Waker => (),
            Source::Inbound { serial } => {
                if let Some(link) = self.inbounds.get_mut(&serial) {
                    link.ends |= event.is_read_closed() || event.is_error();
                }
                self.list_readable(serial);
            }
            Source::Outbound { link, dial } => {
                let current = self.outbounds.get(link).is_some_and(|it| it.dial == dial && it.conn.is_some());
                if current {
                    self.on_outbound_event(link, event);
                }
            }
        }
    }

    fn on_notes(&mut self) {
        let notes = std::mem::take(&mut *self.shared.notes.lock());
        if notes.peers && !self.stopping {
            self.on_peers();
        }
        if notes.identity && !self.stopping {
            self.on_identity();
        }
        for Resolved { link, dial, addresses } in notes.resolved {
            self.on_resolved(link, dial, addresses);
        }
    }

    /// Makes sure that the timers are looked at by then.
    fn wake_at(&mut self, deadline: Instant) {
        self.timer = self.timer.min(deadline);
    }

    fn on_timer(&mut self) {
        self.timer = self.now + Duration::from_secs(3600);
        if let Some(at) = self.accept_again {
            if at <= self.now {
                self.accept_again = None;
                self.accepting = !self.stopping;
            } else {
                self.wake_at(at);
            }
        }
        for turn in 0..self.outbounds.len() {
            self.outbound_timer(self.outbounds.at(turn));
        }
        self.inbound_timers();
    }

    fn outbound_timer(&mut self, link: usize) {
        let (now, idle, ending) = (self.now, self.config.idle_timeout, self.ending());
        let it = &mut self.outbounds[link];
        let Some(conn) = &mut it.conn else {
            if self.stopping {
                return;
            }
            if it.next > now {
                let next = it.next;
                return self.wake_at(next);
            }
            if it.resolving {
                return self.outbound_down(link, Down::NoAddress("the look-up takes too long".to_owned()));
            }
            return self.dial(link);
        };
        let (why, due) = match conn.stage {
            Stage::Connecting => (Down::Unreachable(io::ErrorKind::TimedOut.into()), conn.deadline),
            Stage::Greeting => (Down::Silent(self.config.handshake_timeout), conn.deadline),
            Stage::Draining(_) => (ending, conn.deadline),
            Stage::Up(_) => {
                if let Some(since) = conn.stalled_since(&it.shelf) {
                    (Down::Stalled(idle), since + idle)
                } else {
                    let (said, due) = conn.keep_alive(keep_alive_interval(idle), now, &it.shelf);
                    self.wake_at(due);
                    if said {
                        self.write(link);
                    }
                    return;
                }
            }
        };
        if due <= now { self.outbound_down(link, why) } else { self.wake_at(due) }
    }

    fn inbound_timers(&mut self) {
        let now = self.now;
        let mut over = Vec::new();
        let mut next = self.timer;
        for (serial, link) in &self.inbounds {
            let (deadline, limit) = match &link.phase {
                Phase::Greeting(greeting) => (greeting.deadline, None),
                Phase::Up(receiving) => {
                    (receiving.last_read + self.config.idle_timeout, Some(self.config.idle_timeout))
                }
            };
            // Bytes that wait unread prove that the link is alive.
            if deadline <= now && !link.listed {
                over.push((*serial, limit));
            } else {
                next = next.min(deadline.max(now + Duration::from_millis(1)));
            }
        }
        self.timer = next;
        for (serial, idle) in over {
            let why = match idle {
                Some(limit) => Down::Idle(limit),
                None => Down::Silent(self.config.handshake_timeout),
            };
            self.inbound_down(serial, why);
        }
    }

    /// This node is someone else now: dialled links are made again, accepted ones are judged.
    fn on_identity(&mut self) {
        self.drain_all();
        let me = self.shared.identity.read().clone();
        let mut over = Vec::new();
        for (serial, link) in &self.inbounds {
            let refusal = match &link.phase {
                // It was answered with the old identity, or will be with the new one.
                Phase::Greeting(greeting) if greeting.hello.is_none() => continue,
                Phase::Greeting(_) => Refusal {
                    code: RefusalCode::Renewed,
                    reason: format!("node {} has a new identity, connect again", me.node),
                },
                Phase::Up(up) => {
                    match judge(&me, |node| self.shared.peers.knows(node), &up.hello, Part::Dial) {
                        Ok(_) => continue,
                        Err(refusal) => refusal,
                    }
                }
            };
            over.push((*serial, refusal));
        }
        for (serial, refusal) in over {
            self.inbound_down(serial, Down::Refused(Side::Us, refusal));
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.accepting = false;
        // The port is free for a successor only when the listener is closed, with the thread;
        // but nobody is let in any more.
        if let Err(error) = self.poll.registry().deregister(&mut self.listener) {
            tracing::debug!(%error, "the listener could not be deregistered");
        }
        self.drain_all();
    }

    fn ending(&self) -> Down {
        if self.stopping { Down::Stopped } else { Down::Renewed }
    }

    /// Closes every dialled link: those that are up after their queue is written.
    fn drain_all(&mut self) {
        let deadline = self.now + self.config.flush_timeout;
        for turn in 0..self.outbounds.len() {
            let link = self.outbounds.at(turn);
            let it = &mut self.outbounds[link];
            match &mut it.conn {
                Some(conn) => match conn.stage {
                    Stage::Up(peer) | Stage::Draining(peer) => {
                        it.shelf.queue.close();
                        conn.stage = Stage::Draining(peer);
                        conn.deadline = deadline;
                    }
                    Stage::Connecting | Stage::Greeting => self.outbound_down(link, self.ending()),
                },
                None if it.resolving => (),
                None => it.next = self.now,
            }
        }
        self.wake_at(self.now);
        self.wake_at(deadline);
    }

    fn end_drained(&mut self) {
        for turn in 0..self.outbounds.len() {
            let link = self.outbounds.at(turn);
            let it = &self.outbounds[link];
            let Some(conn) = &it.conn else { continue };
            if matches!(conn.stage, Stage::Draining(_)) && conn.drained(&it.shelf) {
                self.outbound_down(link, self.ending());
            }
        }
    }

    /// Tells the status page every rejection, and the log the first of a kind per interval.
    fn report(
        &mut self,
        who: Who,
        remote: Option<SocketAddr>,
        node: Option<NodeId>,
        lane: Option<Lane>,
        why: &Down,
    ) {
        let on_purpose = matches!(why, Down::Stopped | Down::Renewed | Down::Removed | Down::Moved)
            || matches!(why, Down::Refused(_, refusal)
                if matches!(refusal.code, RefusalCode::Replaced | RefusalCode::Renewed));
        let rejection = if on_purpose { None } else { why.refusal() };
        let rejected = rejection.is_some();
        if let Some((by, Refusal { code, reason })) = rejection {
            self.shared.counters.rejected.add(1);
            self.demux.rejected(&Rejection { remote, node, lane, by, code, reason });
        }
        let kind = match why {
            Down::Refused(Side::Us, _) => "refused",
            Down::Refused(Side::Peer, _) => "refused by peer",
            Down::Malformed(_) => "malformed",
            Down::Corrupt(_) => "corrupt",
            Down::Unreachable(_) | Down::NoAddress(_) => "unreachable",
            _ => "down",
        };
        let Some(unsaid) = self.complaints.first(who, kind, self.now) else { return };
        let remote = remote.map_or_else(|| "-".to_owned(), |remote| remote.to_string());
        let node = node.map_or_else(|| "-".to_owned(), |node| node.to_string());
        if rejected {
            tracing::warn!(%node, %remote, ?lane, unsaid, "peer connection ended: {why}");
        } else {
            tracing::info!(%node, %remote, ?lane, unsaid, "peer connection ended: {why}");
        }
    }
}

/// Three times per idle timeout, and once a second however long that is: the other end may be
/// configured for less patience than this one.
fn keep_alive_interval(idle_timeout: Duration) -> Duration {
    (idle_timeout / 3).min(Duration::from_secs(1))
}

/// Takes the connection out of the poll and says goodbye; dropping it closes it.
fn close(poll: &Poll, stream: &mut TcpStream) {
    let result = poll.registry().deregister(stream).and_then(|()| stream.shutdown(Shutdown::Write));
    if let Err(error) = result {
        tracing::trace!(%error, "closing a connection");
    }
}
