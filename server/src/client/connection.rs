//! One connection to one server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::config::Address;
use crate::protocol::{DecodeError, Reply, ReplyDecoder, ReplyLimits};

/// Bytes that one read takes at most.
const READ: usize = 64 * 1024;

/// A connection that has not failed yet. After any error it is of no further use.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    input: BytesMut,
    decoder: ReplyDecoder,
}

/// Why a connection failed.
#[derive(Debug)]
pub(super) enum Broken {
    Io(io::Error),
    NotResp(DecodeError),
}

impl Connection {
    /// Tries the addresses that the name stands for until one takes the connection.
    pub(super) fn open(address: &Address, timeout: Duration, limits: ReplyLimits) -> io::Result<Connection> {
        let end = Instant::now() + timeout;
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for found in (address.host(), address.port()).to_socket_addrs()? {
            match TcpStream::connect_timeout(&found, left(end)?) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let decoder = ReplyDecoder::new(limits);
                    return Ok(Connection { stream, input: BytesMut::new(), decoder });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether the server still has it, as far as one can know without sending: what is sent on
    /// a connection that the server closed while it was idle would be in doubt for no reason.
    pub(super) fn is_open(&self) -> bool {
        let mut byte = [0];
        let peeked = self.stream.set_nonblocking(true).and_then(|()| match self.stream.peek(&mut byte) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(ErrorKind::ConnectionAborted.into()),
        });
        self.stream.set_nonblocking(false).is_ok() && peeked.is_ok() && self.input.is_empty()
    }

    pub(super) fn send(&mut self, bytes: &[u8], end: Instant) -> Result<(), Broken> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let step = left(end).and_then(|wait| {
                self.stream.set_write_timeout(Some(wait))?;
                self.stream.write(bytes)
            });
            match step {
                Ok(0) => return Err(Broken::Io(ErrorKind::WriteZero.into())),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(Broken::Io(error)),
            }
        }
        Ok(())
    }

    pub(super) fn receive(&mut self, end: Instant) -> Result<Reply, Broken> {
        loop {
            if let Some(reply) = self.decoder.next(&mut self.input).map_err(Broken::NotResp)? {
                return Ok(reply);
            }
            let mut piece = [0; READ];
            let step = left(end).and_then(|wait| {
                self.stream.set_read_timeout(Some(wait))?;
                self.stream.read(&mut piece)
            });
            match step {
                Ok(0) => return Err(Broken::Io(ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.input.extend_from_slice(&piece[..count]),
                Err(error) if is_pause(&error) => {}
                Err(error) => return Err(Broken::Io(error)),
            }
        }
    }
}

impl Broken {
    /// For people: the system's words for these say little.
    pub(super) fn why(&self) -> String {
        match self {
            Broken::Io(error) => why(error),
            Broken::NotResp(error) => error.to_string(),
        }
    }
}

/// What happened, for people.
pub(super) fn why(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "the server closed the connection without a reply".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "the connection was lost".to_owned(),
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "no answer in time".to_owned(),
        _ => error.to_string(),
    }
}

/// A socket's time limit reports in two ways, depending on the system; `left` then ends it.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}
