//! A connection from a peer, which only receives frames.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;

use super::{Down, Progress, READ_BUDGET, read_some};
use crate::Peer;
use crate::frame::{Decoder, Frame};
use crate::handshake::{Hello, Message};
use crate::peers::Shelf;

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) stream: TcpStream,
    pub(crate) remote: SocketAddr,
    /// It is in one of the loop's lists of connections to read.
    pub(crate) listed: bool,
    /// The peer has closed its side: what is read goes on to the end.
    pub(crate) ends: bool,
    pub(crate) phase: Phase,
}

#[derive(Debug)]
pub(crate) enum Phase {
    Greeting(Greeting),
    Up(Receiving),
}

/// Before it is known who is there.
#[derive(Debug)]
pub(crate) struct Greeting {
    bytes: Vec<u8>,
    /// Judged and answered.
    pub(crate) hello: Option<Hello>,
    pub(crate) deadline: Instant,
}

impl Greeting {
    pub(crate) fn new(deadline: Instant) -> Greeting {
        Greeting { bytes: Vec::new(), hello: None, deadline }
    }
}

/// After the handshake.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) peer: Peer,
    /// As it introduced itself, to be judged again when this node's identity changes.
    pub(crate) hello: Hello,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) last_read: Instant,
    decoder: Decoder,
}

impl Receiving {
    /// Takes over from the greeting, with the frames that came along with its last message.
    pub(crate) fn new(
        greeting: &Greeting,
        hello: Hello,
        shelf: Arc<Shelf>,
        now: Instant,
        limit: usize,
    ) -> Receiving {
        let mut decoder = Decoder::new(limit);
        let mut rest = &greeting.bytes[..];
        while !rest.is_empty() {
            let room = decoder.room();
            let n = room.len().min(rest.len());
            room[..n].copy_from_slice(&rest[..n]);
            decoder.advance(n);
            rest = &rest[n..];
        }
        shelf.counters.receiving.add(1);
        Receiving { peer: hello.peer(), hello, shelf, last_read: now, decoder }
    }

    /// Reads and decodes until the socket is empty or the budget is used up. What was
    /// appended to `frames` is good, also when the connection turns out to be over.
    ///
    /// A read that does not fill the room has emptied the socket, and whatever comes later is told as an edge of its
    /// own; only an end that was told already is not (`ends`), and has to be read.
    pub(crate) fn read(
        &mut self,
        stream: &mut TcpStream,
        ends: bool,
        now: Instant,
        frames: &mut Vec<Frame>,
    ) -> Result<Progress, Down> {
        // Bytes that came with the handshake are in the decoder before the first read.
        self.decoder.decode(frames).map_err(Down::Corrupt)?;
        let mut read = 0;
        while read < READ_BUDGET {
            let room = self.decoder.room();
            let size = room.len();
            match stream.read(room) {
                Ok(0) => return Err(Down::Closed),
                Ok(n) => {
                    read += n;
                    self.last_read = now;
                    self.shelf.counters.bytes_received.add(n as u64);
                    self.decoder.advance(n);
                    self.decoder.decode(frames).map_err(Down::Corrupt)?;
                    if n < size && !ends {
                        return Ok(Progress::Done);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Done),
                Err(error) => return Err(Down::Io(error)),
            }
        }
        Ok(Progress::More)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.shelf.counters.receiving.sub(1);
    }
}

impl Inbound {
    /// The next message of the handshake; `None` until there is one.
    pub(crate) fn greet(&mut self) -> Result<Option<Message>, Down> {
        let Phase::Greeting(greeting) = &mut self.phase else { return Ok(None) };
        loop {
            if let Some((message, length)) = Message::decode(&greeting.bytes).map_err(Down::Malformed)? {
                greeting.bytes.drain(..length);
                return Ok(Some(message));
            }
            if read_some(&mut self.stream, &mut greeting.bytes)? == Progress::Done {
                return Ok(None);
            }
        }
    }

    /// Sends a message of the handshake. It fits the empty send buffer of a new connection; a
    /// connection that does not even take that is not worth having.
    pub(crate) fn say(&mut self, message: &Message) -> Result<(), Down> {
        let bytes = message.encode();
        match self.stream.write(&bytes) {
            Ok(n) if n == bytes.len() => Ok(()),
            Ok(_) => Err(Down::Io(io::ErrorKind::WriteZero.into())),
            Err(error) => Err(Down::Io(error)),
        }
    }

    pub(crate) fn receiving(&self) -> Option<&Receiving> {
        match &self.phase {
            Phase::Up(receiving) => Some(receiving),
            Phase::Greeting(_) => None,
        }
    }
}
