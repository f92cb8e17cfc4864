//! A connection to a peer, which only sends frames.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use groups::ids::NodeId;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::writer::Wrote;
use super::{Down, Progress, WRITE_BUDGET, read_some};
use crate::frame::FrameBatch;
use crate::handshake::Message;
use crate::peers::Shelf;
use crate::{Lane, Peer};

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
    /// The socket is full: WRITABLE is registered, and only then.
    blocked: bool,
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
            blocked: false,
            inbox: Vec::new(),
        }
    }

    /// Whether the connection stands: `None` while it is still being made.
    pub(crate) fn connected(&mut self, shelf: &Shelf, registry: &Registry) -> Option<io::Result<()>> {
        if let Ok(Some(error)) | Err(error) = self.stream.take_error() {
            return Some(Err(error));
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                let known = registry.reregister(&mut self.stream, self.token, Interest::READABLE);
                Some(known.and_then(|()| shelf.writer.lock().connect(&self.stream)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Puts a message of the handshake behind what is being written.
    pub(crate) fn say(&mut self, message: &Message, shelf: &Shelf) {
        shelf.writer.lock().put(Bytes::from(message.encode()), &shelf.queue);
    }

    /// An empty frame, if nothing was written for `interval`; when to ask again.
    pub(crate) fn keep_alive(&mut self, interval: Duration, now: Instant, shelf: &Shelf) -> (bool, Instant) {
        let mut writer = shelf.writer.lock();
        let due = writer.last_write() + interval;
        if now < due {
            return (false, due);
        }
        let idle = !self.blocked && writer.is_empty();
        if idle {
            for segment in FrameBatch::keepalive().into_segments() {
                writer.put(segment, &shelf.queue);
            }
        }
        (idle, now + interval)
    }

    /// Bytes wait and the other end has taken none since then.
    pub(crate) fn stalled_since(&self, shelf: &Shelf) -> Option<Instant> {
        self.blocked.then(|| shelf.writer.lock().last_write())
    }

    /// Everything has been handed to the kernel.
    pub(crate) fn drained(&self, shelf: &Shelf) -> bool {
        shelf.writer.lock().is_empty() && !shelf.queue.pending()
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

    /// The loop's part in writing: what senders have left to it, and the wait for room.
    pub(crate) fn flush(&mut self, shelf: &Shelf, registry: &Registry) -> io::Result<Progress> {
        if self.blocked {
            return Ok(Progress::Done);
        }
        let wrote = shelf.writer.lock().write(&shelf.queue, &shelf.counters, WRITE_BUDGET)?;
        match wrote {
            Wrote::All => Ok(Progress::Done),
            Wrote::Some => Ok(Progress::More),
            Wrote::Full => {
                self.blocked = true;
                shelf.counters.blocked.add(1);
                shelf.queue.set_blocked(true);
                // Registering anew reports a socket that got room in between.
                let interest = Interest::READABLE | Interest::WRITABLE;
                registry.reregister(&mut self.stream, self.token, interest)?;
                Ok(Progress::Done)
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
