//! A connection to a peer, which only sends frames.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use groups::ids::NodeId;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::{Down, Progress, WRITE_BUDGET, read_some};
use crate::frame::FrameBatch;
use crate::handshake::Message;
use crate::peers::Shelf;
use crate::{Lane, Peer};

/// Segments handed to the kernel in one call.
const SEGMENTS: usize = 64;

/// The dialling half of one peer and lane. Lives as long as the peer is one; connections come and
/// go.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) node: NodeId,
    pub(crate) lane: Lane,
    /// `host:port`, as configured.
    pub(crate) address: String,
    pub(crate) shelf: Arc<Shelf>,
    /// Failed dials in a row.
    pub(crate) attempt: u32,
    /// The number of the dial in progress, so that late answers of older ones are recognised. No
    /// two dials of a process have the same.
    pub(crate) dial: usize,
    /// When there is no connection: the next dial, or the time by which a name must be known.
    pub(crate) next: Instant,
    pub(crate) resolving: bool,
    /// The budget ran out with bytes left to write.
    pub(crate) more: bool,
    pub(crate) conn: Option<Dialled>,
}

/// How far a dialled connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Connecting,
    Greeting,
    Up(Peer),
    /// Up until the queue is written; then closed on purpose.
    Draining(Peer),
}

#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) stream: TcpStream,
    pub(crate) token: Token,
    pub(crate) remote: SocketAddr,
    pub(crate) stage: Stage,
    /// Of the handshake, or of draining.
    pub(crate) deadline: Instant,
    pub(crate) up_since: Instant,
    writing: VecDeque<Bytes>,
    /// The socket is full: WRITABLE is registered, and only then.
    blocked: bool,
    last_write: Instant,
    inbox: Vec<u8>,
}

impl Outbound {
    /// Not connected, to be dialled at once.
    pub(crate) fn new(node: NodeId, lane: Lane, address: String, shelf: Arc<Shelf>, now: Instant) -> Self {
        Outbound {
            node,
            lane,
            address,
            shelf,
            attempt: 0,
            dial: 0,
            next: now,
            resolving: false,
            more: false,
            conn: None,
        }
    }

    /// Something can be written now.
    pub(crate) fn wants_turn(&self) -> bool {
        match &self.conn {
            Some(conn) if conn.blocked || conn.stage == Stage::Connecting => false,
            Some(_) => self.more || self.shelf.queue.pending(),
            None => false,
        }
    }
}

impl Dialled {
    pub(crate) fn new(
        stream: TcpStream,
        token: Token,
        remote: SocketAddr,
        now: Instant,
        limit: Duration,
    ) -> Self {
        Dialled {
            stream,
            token,
            remote,
            stage: Stage::Connecting,
            deadline: now + limit,
            up_since: now,
            writing: VecDeque::new(),
            blocked: false,
            last_write: now,
            inbox: Vec::new(),
        }
    }

    /// Whether the connection stands: `None` while it is still being made.
    pub(crate) fn connected(&mut self, registry: &Registry) -> Option<io::Result<()>> {
        if let Ok(Some(error)) | Err(error) = self.stream.take_error() {
            return Some(Err(error));
        }
        match self.stream.peer_addr() {
            Ok(_) => Some(registry.reregister(&mut self.stream, self.token, Interest::READABLE)),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Puts a message of the handshake behind what is being written.
    pub(crate) fn say(&mut self, message: &Message, shelf: &Shelf) {
        self.put(Bytes::from(message.encode()), shelf);
    }

    fn put(&mut self, bytes: Bytes, shelf: &Shelf) {
        shelf.queue.charge(bytes.len());
        self.writing.push_back(bytes);
    }

    /// An empty frame, if nothing was written for `interval`; when to ask again.
    pub(crate) fn keep_alive(&mut self, interval: Duration, now: Instant, shelf: &Shelf) -> (bool, Instant) {
        let due = self.last_write + interval;
        if now < due {
            return (false, due);
        }
        let idle = !self.blocked && self.writing.is_empty();
        if idle {
            for segment in FrameBatch::keepalive().into_segments() {
                self.put(segment, shelf);
            }
        }
        (idle, now + interval)
    }

    /// Bytes wait and the other end has taken none since then.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        self.blocked.then_some(self.last_write)
    }

    /// Everything has been handed to the kernel.
    pub(crate) fn drained(&self, shelf: &Shelf) -> bool {
        self.writing.is_empty() && !shelf.queue.pending()
    }

    /// The socket has room again.
    pub(crate) fn unblock(&mut self, shelf: &Shelf, registry: &Registry) -> io::Result<()> {
        if !self.blocked {
            return Ok(());
        }
        self.blocked = false;
        shelf.queue.set_blocked(false);
        // Otherwise every acknowledgement of the other end would wake the loop.
        registry.reregister(&mut self.stream, self.token, Interest::READABLE)
    }

    /// Writes what is queued, many frames in a call, until the socket is full, nothing is left
    /// or the budget is used up.
    pub(crate) fn flush(&mut self, shelf: &Shelf, registry: &Registry, now: Instant) -> io::Result<Progress> {
        let mut budget = WRITE_BUDGET;
        if self.blocked {
            return Ok(Progress::Done);
        }
        loop {
            if self.writing.len() < SEGMENTS && shelf.queue.pending() {
                shelf.queue.take(&mut self.writing);
            }
            if self.writing.is_empty() {
                return Ok(Progress::Done);
            }
            if budget == 0 {
                return Ok(Progress::More);
            }
            let mut slices = [IoSlice::new(&[]); SEGMENTS];
            let mut count = 0;
            for (slice, segment) in slices.iter_mut().zip(&self.writing) {
                *slice = IoSlice::new(segment);
                count += 1;
            }
            match self.stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    shelf.counters.writes.add(1);
                    shelf.counters.bytes_written.add(written as u64);
                    shelf.queue.release(written);
                    self.consume(written);
                    self.last_write = now;
                    budget = budget.saturating_sub(written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    shelf.counters.blocked.add(1);
                    shelf.queue.set_blocked(true);
                    // Registering anew reports a socket that got room in between.
                    registry.reregister(
                        &mut self.stream,
                        self.token,
                        Interest::READABLE | Interest::WRITABLE,
                    )?;
                    return Ok(Progress::Done);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn consume(&mut self, mut written: usize) {
        while written > 0 {
            let front = self.writing.front_mut().expect("the kernel took no more than it was given");
            let step = written.min(front.len());
            front.advance(step);
            written -= step;
            if front.is_empty() {
                self.writing.pop_front();
            }
        }
    }

    /// The next message of the handshake; `None` until there is one. After the handshake the
    /// acceptor has nothing to say but a refusal.
    pub(crate) fn listen(&mut self) -> Result<Option<Message>, Down> {
        loop {
            if let Some((message, length)) = Message::decode(&self.inbox).map_err(Down::Malformed)? {
                self.inbox.drain(..length);
                return Ok(Some(message));
            }
            if read_some(&mut self.stream, &mut self.inbox)? == Progress::Done {
                return Ok(None);
            }
        }
    }
}
