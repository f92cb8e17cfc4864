//! The one network layer between nodes: framing, handshake, links and demultiplexing by group id.
//!
//! It knows ids and bytes, not Paxos. One thread with one poll loop serves all peers.
//!
//! # Contract
//! - [`bind`] takes the port, so that "in use" is reported before anything runs;
//!   [`Bound::start`] starts the thread; [`NetHandle::send`] takes frames from any thread and
//!   never waits.
//! - A node dials every peer once per [`Lane`]. A dialled connection only sends frames, an
//!   accepted one only receives, so there is never a tie between two connections to break.
//! - Frames of one link arrive intact, in order and at most once. Frames are lost when a link
//!   goes down, when its queue is full and while it is not up: the layer above repeats what it
//!   still needs. Nothing is queued for a peer that is not connected, so that a peer that
//!   comes back is not fed with frames that are minutes old.
//! - [`NetHandle::set_peers`] replaces the list of peers at any time. Links of peers that stay are
//!   not touched. A removed peer is unknown to senders at once, its links are closed and what it
//!   dials is refused; added again, it is a new one. Nothing that was under way for it reaches
//!   its successor: dials are numbered, and no number comes back.
//! - [`Demux`] is called on the netio thread and must not block: it hands frames on to
//!   mailboxes, and drops them when a mailbox is full.
//! - A received body is a slice of a read buffer of 128 KiB and keeps it: copy what is small
//!   and kept long.
//! - Memory is bounded: a queue per peer and lane ([`Config::consensus_queue_bytes`],
//!   [`Config::bulk_queue_bytes`]), one read buffer or one frame per connection, one accepted
//!   link per peer and lane, [`Config::max_greeting`] connections that have not introduced
//!   themselves yet (1 KiB each).
//!
//! # Who is accepted
//! The handshake (`handshake.rs` draws it) refuses, with a reason that both sides log and
//! report to [`Demux::rejected`]: another cluster name, another cluster id when both are born,
//! a node that is not on the list of peers, this node's own id, another node than the dialled
//! one, no common protocol version.
//!
//! Whoever is told [`RefusalCode::UnknownNode`] dials again after the longest pause: a removed
//! node that runs on, or comes back, is to make no noise. Whoever adds a node dials it, and a
//! node that is dialled dials back at once, so nobody waits for the end of that pause.
//!
//! Of two accepted connections of one node: with the same disk, the later life wins
//! and an equal one replaces the older connection (it is the same process, dialling again);
//! with different disks, the one that is connected stays until it is silent for
//! [`Config::idle_timeout`], because lives of different disks have no order.
//!
//! # Liveness
//! A sender that has nothing to say sends an empty keep-alive frame three times per
//! [`Config::idle_timeout`], at least once a second, on either lane. An accepted link that
//! receives nothing that long is closed; so is a dialled link whose waiting bytes make no
//! progress. `TCP_USER_TIMEOUT` does the same inside the kernel where it exists.
//!
//! # Files
//! `frame` the bytes on a link · `handshake` the bytes before · `link` one connection ·
//! `peers` the list of them · `queue` between senders and the loop · `driver` the loop ·
//! `dial` when and where to connect · `config` · `metrics`.

mod complaints;
mod config;
mod dial;
mod driver;
pub mod frame;
#[doc(hidden)]
pub mod fuzz;
pub mod handshake;
mod link;
mod loan;
mod metrics;
mod peers;
mod queue;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use groups::ids::{Boot, NodeId, StorageId};
use mio::Waker;
use parking_lot::{Mutex, RwLock};
use thiserror::Error;

pub use config::{BadConfig, BindError, Config, Identity};
pub use frame::{Decoder, Frame, FrameBatch, NO_GROUP};
pub use handshake::RefusalCode;
pub use loan::Loan;
pub use metrics::{LinkStats, Stats};

use metrics::Counters;
use peers::{Peers, Shelf};

/// What a link is for. Each lane has its own connection and queue, so that a checkpoint never
/// stands in front of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Small and urgent: the protocol, heartbeats, forwarded commands.
    Consensus,
    /// Large and patient: catching up, checkpoints.
    Bulk,
}

impl Lane {
    /// Both, the urgent one first.
    pub const ALL: [Lane; 2] = [Lane::Consensus, Lane::Bulk];

    fn number(self) -> u8 {
        match self {
            Lane::Consensus => 1,
            Lane::Bulk => 2,
        }
    }

    fn from_number(n: u8) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| lane.number() == n)
    }

    fn index(self) -> usize {
        usize::from(self.number()) - 1
    }
}

/// The other end of a link, as it introduced itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which node.
    pub node: NodeId,
    /// Which life of it.
    pub boot: Boot,
    /// With which disk.
    pub storage: StorageId,
    /// Over which lane.
    pub lane: Lane,
}

/// Which side of a connection refused the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This node.
    Us,
    /// The other one.
    Peer,
}

/// A connection that was not allowed to be or to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The other end; absent when a dial had no address yet.
    pub remote: Option<SocketAddr>,
    /// The node that was dialled, or that the other end said it is.
    pub node: Option<NodeId>,
    /// The lane, when known.
    pub lane: Option<Lane>,
    /// Who refused.
    pub by: Side,
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub reason: String,
}

/// Takes what arrives. Called on the thread that runs the loop: every call must return at once.
pub trait Demux: Send + 'static {
    /// All frames decoded in one readiness of one connection, in order. Whatever is left in
    /// `frames` is dropped.
    ///
    /// Frames of a peer may arrive before [`link_up`](Demux::link_up) for it: that speaks of
    /// the connection in the other direction.
    fn frames(&mut self, peer: &Peer, frames: &mut Vec<Frame>);

    /// This node can now send to that peer on that lane.
    fn link_up(&mut self, peer: &Peer);

    /// It no longer can; what was queued and not delivered is lost.
    fn link_down(&mut self, peer: &Peer, why: &str);

    /// A connection was refused, by either side, or was no peer's. Called for each, while the
    /// log only has the first per interval.
    fn rejected(&mut self, _rejection: &Rejection) {}
}

/// Why frames were not queued. They are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The peer, or the way to it, is slower than the senders.
    #[error("the queue to the peer is full")]
    Full,
    /// The link is not up.
    #[error("the peer is not connected")]
    NotConnected,
    /// That node is not on the list of peers, or it is this one.
    #[error("the node is not a peer")]
    UnknownPeer,
    /// The peer would drop the connection over such a frame.
    #[error("a frame body of {body} bytes, the limit is {limit}")]
    TooLarge {
        /// The largest body of the batch.
        body: usize,
        /// [`Config::max_frame`].
        limit: usize,
    },
}

/// What the loop is told from outside. What is said twice before it listens is said once.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The list of peers is another one.
    pub(crate) peers: bool,
    /// This node introduces itself differently.
    pub(crate) identity: bool,
    /// At most one per question, whose number is limited.
    pub(crate) resolved: Vec<Resolved>,
}

/// The answer to a name look-up.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) link: usize,
    pub(crate) dial: usize,
    pub(crate) addresses: io::Result<Vec<SocketAddr>>,
}

/// What the loop and the handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) peers: Peers,
    pub(crate) identity: RwLock<Identity>,
    pub(crate) notes: Mutex<Notes>,
    pub(crate) has_notes: AtomicBool,
    pub(crate) stop: AtomicBool,
    pub(crate) counters: Counters,
    /// The loop is going to sleep, or sleeps: whoever has something for it wakes it.
    pub(crate) asleep: AtomicBool,
    /// Another thread waits to borrow the loop.
    pub(crate) wanted: AtomicBool,
    pub(crate) waker: Waker,
}

impl Shared {
    pub(crate) fn note(&self, say: impl FnOnce(&mut Notes)) {
        say(&mut self.notes.lock());
        self.has_notes.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Wakes the loop unless it is awake or somebody else just did.
    pub(crate) fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.counters.wakes.add(1);
            // An eventfd that cannot be written to leaves the loop to its timers.
            if let Err(error) = self.waker.wake() {
                tracing::error!(%error, "the network thread could not be woken");
            }
        }
    }
}

/// Takes the port.
///
/// # Errors
/// With the address, the reason and what to do; nothing was started.
pub fn bind(config: Config) -> Result<Bound, BindError> {
    driver::Socket::bind(config).map(|socket| Bound { socket })
}

/// The port is taken, nothing runs yet.
#[derive(Debug)]
pub struct Bound {
    socket: driver::Socket,
}

impl Bound {
    /// Where peers connect to: the real port when port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr
    }

    /// The handle that [`start`](Bound::start) will return: it can be wired into other threads
    /// before.
    #[must_use]
    pub fn handle(&self) -> NetHandle {
        NetHandle { shared: self.socket.shared.clone() }
    }

    /// Replaces the `host:port` of a configured peer: for nodes on ports that the system chose.
    ///
    /// # Errors
    /// That node is not on the list of peers.
    pub fn set_peer_address(&mut self, node: NodeId, address: String) -> Result<(), SendError> {
        self.socket.shared.peers.set_address(node, address)
    }

    /// Starts the network thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start<D: Demux>(self, demux: D) -> Result<(NetHandle, NetThread), BindError> {
        let handle = self.handle();
        let driver = driver::Driver::new(self.socket, Box::new(demux));
        let (home, lender) = loan::exchange(handle.shared.clone());
        let thread = std::thread::Builder::new()
            .name("netio".to_owned())
            .spawn(move || home.keep(driver))
            .map_err(BindError::System)?;
        Ok((handle, NetThread { thread, lender }))
    }
}

/// The running thread. It ends after [`NetHandle::shutdown`].
#[derive(Debug)]
pub struct NetThread {
    thread: JoinHandle<()>,
    lender: loan::Lender,
}

impl NetThread {
    /// Borrows the loop for a thread that has an event loop of its own; the network thread sleeps until it
    /// comes back. Waits while it is lent already. `None` when the thread has ended.
    #[must_use]
    pub fn lend(&self) -> Option<Loan> {
        self.lender.lend()
    }

    /// Waits for the end of the thread.
    ///
    /// # Errors
    /// The panic of the thread: an assertion of netio or of the demultiplexer failed.
    pub fn join(self) -> std::thread::Result<()> {
        self.thread.join()
    }
}

/// Sends frames, from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NetHandle {
    shared: Arc<Shared>,
}

impl NetHandle {
    /// Queues the frames, and on the consensus lane writes what is queued to the socket, as far as
    /// that takes it at once. Never waits. An empty batch is nothing.
    ///
    /// # Errors
    /// All frames of the batch were dropped, for the reason returned.
    pub fn send(&self, to: NodeId, lane: Lane, batch: FrameBatch) -> Result<(), SendError> {
        let sent = self.shared.peers.with(to, lane, |shelf| {
            let writable = shelf.put(batch)?;
            // What is large and patient is the loop's; it writes what it can at once.
            Ok(writable && (lane == Lane::Bulk || link::write_through(shelf)))
        });
        if sent.ok_or(SendError::UnknownPeer)?? {
            self.shared.wake();
        }
        Ok(())
    }

    /// Frames for that peer and lane would be queued now.
    #[must_use]
    pub fn is_connected(&self, to: NodeId, lane: Lane) -> bool {
        self.shared.peers.with(to, lane, |shelf| shelf.queue.is_open()).unwrap_or(false)
    }

    /// Bytes that wait for that peer on that lane: a bulk sender paces itself by it.
    #[must_use]
    pub fn queued_bytes(&self, to: NodeId, lane: Lane) -> usize {
        self.shared.peers.with(to, lane, |shelf| shelf.queue.bytes()).unwrap_or(0)
    }

    /// Replaces the list of peers, while the loop runs. This node's own entry is ignored, an equal
    /// list is nothing, and peers that are on both lists with one address are not disturbed: their
    /// links stay up and lose no frame. To the others, in the loop's next turn:
    /// - A new peer is dialled, and let in from now on. Its counters start at zero.
    /// - A removed one is an [`UnknownPeer`](SendError::UnknownPeer) for senders when this returns.
    ///   Its links are closed, the accepted ones with [`RefusalCode::UnknownNode`]; so is what it
    ///   dials later. Frames of it that were already being read may still be delivered until
    ///   [`Demux::rejected`] tells the end. A peer that is removed and added again starts anew.
    /// - A peer with another address is dialled there. What it has dialled stays.
    ///
    /// What waits for a dialled link that is closed is written as far as the system takes it at
    /// once; the rest is lost.
    ///
    /// # Errors
    /// The list cannot be meant: a node twice, node 0, more than 4096 entries. Nothing was changed.
    pub fn set_peers(&self, peers: Vec<(NodeId, String)>) -> Result<(), BadConfig> {
        if self.shared.peers.replace(peers)? {
            self.shared.note(|notes| notes.peers = true);
        }
        Ok(())
    }

    /// Introduces this node differently from now on, which happens once, at its birth. Dialled
    /// links are flushed, closed and made again; accepted ones stay where the new identity
    /// would have accepted them too.
    ///
    /// # Errors
    /// The identity cannot be meant; nothing was changed.
    pub fn set_identity(&self, identity: Identity) -> Result<(), BadConfig> {
        identity.check()?;
        let mut current = self.shared.identity.write();
        if current.node != identity.node {
            return Err(BadConfig::OtherNode(current.node, identity.node));
        }
        if *current == identity {
            return Ok(());
        }
        *current = identity;
        drop(current);
        self.shared.note(|notes| notes.identity = true);
        Ok(())
    }

    /// Who this node says it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.shared.identity.read().clone()
    }

    /// Ends the thread: queued frames are written for up to [`Config::flush_timeout`], then
    /// all connections are closed. Returns at once; join the [`NetThread`].
    pub fn shutdown(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake();
    }

    /// A snapshot of all counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let peers = self.shared.peers.list();
        let links = peers.iter().flat_map(|it| {
            Lane::ALL.into_iter().map(|lane| link_stats(it.node, lane, &it.shelves[lane.index()]))
        });
        Stats {
            links: links.collect(),
            accepted: counters.accepted.get(),
            greeting: counters.greeting.get(),
            rejected: counters.rejected.get(),
            corrupt: counters.corrupt.get(),
            polls: counters.polls.get(),
            wakes: counters.wakes.get(),
        }
    }
}

fn link_stats(node: NodeId, lane: Lane, shelf: &Shelf) -> LinkStats {
    let counters = &shelf.counters;
    LinkStats {
        node,
        lane,
        connected: shelf.queue.is_open(),
        receiving: counters.receiving.get(),
        queued_bytes: shelf.queue.bytes() as u64,
        frames_queued: counters.frames_queued.get(),
        bytes_written: counters.bytes_written.get(),
        writes: counters.writes.get(),
        blocked: counters.blocked.get(),
        refused_full: counters.refused_full.get(),
        refused_down: counters.refused_down.get(),
        frames_received: counters.frames_received.get(),
        bytes_received: counters.bytes_received.get(),
        ups: counters.ups.get(),
        last_trouble: counters.last_trouble.lock().clone(),
    }
}
