//! One socket, the requests under way on it, and the bytes that are half sent or half received.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::ledger::Request;

/// Encoded requests that wait for the socket; more are not encoded ahead.
pub const OUT_LIMIT: usize = 1 << 20;

/// A connection, or the place of one.
#[derive(Debug, Default)]
pub struct Connection {
    stream: Option<TcpStream>,
    /// The TCP handshake is done.
    open: bool,
    /// When the present attempt to connect began.
    pub dialled: u64,
    /// Which address it goes to; another one after each failure.
    pub address: usize,
    /// Failures in a row.
    pub failures: u32,
    /// Encoded and not yet written from `written` on.
    pub out: Vec<u8>,
    written: usize,
    /// The beginning of a reply.
    partial: Vec<u8>,
    /// Sent, in the order in which the replies come.
    pub under_way: VecDeque<Request>,
    /// Refused, to be sent again at the time given.
    pub waiting: Vec<(u64, Request)>,
    /// Closed loop: after an error no new request before this.
    pub rests_until: u64,
    /// Open loop: stands in the list of connections with a free place.
    pub listed: bool,
}

/// Why a connection is of no use any more.
#[derive(Debug)]
pub struct Broken;

impl Connection {
    /// One that will go to the address of this number.
    pub fn to(address: usize) -> Self {
        Connection { address, ..Connection::default() }
    }

    /// Whether requests can be sent.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether a connection is being made or exists.
    pub fn is_dialled(&self) -> bool {
        self.stream.is_some()
    }

    /// Requests that belong to this connection, sent or to be sent again.
    pub fn load(&self) -> usize {
        self.under_way.len() + self.waiting.len()
    }

    /// Begins to connect.
    pub fn dial(&mut self, to: SocketAddr, registry: &Registry, token: Token, now: u64) -> io::Result<()> {
        self.dialled = now;
        let mut stream = TcpStream::connect(to)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Looks whether the handshake is done; to be called when the socket is reported writable.
    pub fn settle_dial(&mut self) -> Result<bool, Broken> {
        let Some(stream) = &self.stream else { return Ok(false) };
        if self.open {
            return Ok(true);
        }
        if stream.take_error().map_or(true, |error| error.is_some()) {
            return Err(Broken);
        }
        match stream.peer_addr() {
            Ok(_) => {
                // Without it the kernel holds back a request while an earlier one is unacknowledged.
                stream.set_nodelay(true).map_err(|_| Broken)?;
                (self.open, self.failures) = (true, 0);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotConnected | ErrorKind::WouldBlock) => {
                Ok(false)
            }
            Err(_) => Err(Broken),
        }
    }

    /// Forgets the socket; the requests stay for the caller to settle.
    pub fn hang_up(&mut self) {
        (self.stream, self.open) = (None, false);
        self.out.clear();
        self.partial.clear();
        self.written = 0;
    }

    /// Writes what waits. Whether all of it went out.
    pub fn flush(&mut self) -> Result<bool, Broken> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        while self.written < self.out.len() {
            match stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(Broken),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(true)
    }

    /// Reads once into `buffer`; `None` if there is nothing.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Broken> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        loop {
            return match stream.read(buffer) {
                Ok(0) => Err(Broken),
                Ok(count) => Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => Err(Broken),
            };
        }
    }

    /// The unread beginning of a reply, taken out together with what was read now; `None` if there is none and the
    /// bytes can be scanned where they are.
    pub fn continue_partial(&mut self, read: &[u8]) -> Option<Vec<u8>> {
        if self.partial.is_empty() {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.partial);
        bytes.extend_from_slice(read);
        Some(bytes)
    }

    /// Keeps the beginning of a reply for the next read.
    pub fn keep_partial(&mut self, rest: &[u8]) {
        self.partial.extend_from_slice(rest);
    }

    /// Keeps it in the buffer it came in.
    pub fn keep_partial_in(&mut self, mut bytes: Vec<u8>, scanned: usize) {
        bytes.drain(..scanned);
        self.partial = bytes;
    }
}
