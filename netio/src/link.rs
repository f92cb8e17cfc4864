//! One connection: [`Outbound`] to a peer, which only sends frames, and [`Inbound`] from one,
//! which only receives them. Both are driven by the loop in `driver`, and the writing end by senders
//! too; nothing here waits.

mod inbound;
mod outbound;
mod writer;

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};

use crate::Side;
use crate::frame::FrameError;
use crate::handshake::{Malformed, Refusal, RefusalCode};

pub(crate) use inbound::{Greeting, Inbound, Phase, Receiving};
pub(crate) use outbound::{Dialled, Outbound, Stage};
pub(crate) use writer::{Writer, write_through};

/// Bytes read from or written to one connection before the next one has its turn.
const READ_BUDGET: usize = 256 << 10;
const WRITE_BUDGET: usize = 1 << 20;

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum Down {
    /// The other end closed it.
    Closed,
    /// The system says so.
    Io(io::Error),
    /// The dial led nowhere.
    Unreachable(io::Error),
    /// The name of the peer has no address.
    NoAddress(String),
    /// The handshake, or a later judgement.
    Refused(Side, Refusal),
    /// Foreign bytes where a handshake should be.
    Malformed(Malformed),
    /// A damaged frame.
    Corrupt(FrameError),
    /// No handshake in time.
    Silent(Duration),
    /// No byte received in time.
    Idle(Duration),
    /// No byte taken in time.
    Stalled(Duration),
    /// Bytes on a connection that only sends.
    Unexpected,
    /// Too many connections are inside their handshake; this one was the oldest.
    Evicted,
    /// This node has a new identity.
    Renewed,
    /// The other node is no peer any more.
    Removed,
    /// The peer has another address.
    Moved,
    /// This node is shutting down.
    Stopped,
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Down::Closed => write!(f, "closed by the other end"),
            Down::Io(error) => write!(f, "{error}"),
            Down::Unreachable(error) => write!(f, "cannot connect: {error}"),
            Down::NoAddress(why) => write!(f, "no address: {why}"),
            Down::Refused(Side::Us, refusal) => write!(f, "refused: {refusal}"),
            Down::Refused(Side::Peer, refusal) => write!(f, "refused by the other end: {refusal}"),
            Down::Malformed(error) => write!(f, "not a peer: {error}"),
            Down::Corrupt(error) => write!(f, "damaged data: {error}"),
            Down::Silent(time) => write!(f, "no handshake within {time:?}"),
            Down::Idle(time) => write!(f, "nothing received for {time:?}"),
            Down::Stalled(time) => write!(f, "the other end took nothing for {time:?}"),
            Down::Unexpected => write!(f, "unexpected bytes on a connection that only sends"),
            Down::Evicted => write!(f, "too many connections without a handshake"),
            Down::Renewed => write!(f, "this node has a new identity"),
            Down::Removed => write!(f, "the node is not (or no longer) a member of this cluster"),
            Down::Moved => write!(f, "the peer has another address"),
            Down::Stopped => write!(f, "this node is shutting down"),
        }
    }
}

impl Down {
    /// What to tell the other end and to count as a rejection, and who rejects.
    pub(crate) fn refusal(&self) -> Option<(Side, Refusal)> {
        let code = match self {
            Down::Refused(side, refusal) => return Some((*side, refusal.clone())),
            Down::Malformed(_) | Down::Unexpected => RefusalCode::Malformed,
            Down::Corrupt(_) => RefusalCode::Corrupt,
            Down::Silent(_) | Down::Idle(_) => RefusalCode::Idle,
            _ => return None,
        };
        Some((Side::Us, Refusal { code, reason: self.to_string() }))
    }
}

/// More to do, or all done until the next event?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The socket said that it would block, or nothing is left to write.
    Done,
    /// The budget of this turn is used up; there will be no event for the rest.
    More,
}

/// Options of every connection. One that the system does not have is done without.
pub(crate) fn tune(stream: &TcpStream, idle_timeout: Duration) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(idle_timeout.max(Duration::from_secs(1)));
    let mut results = vec![socket.set_tcp_nodelay(true), socket.set_tcp_keepalive(&keepalive)];
    #[cfg(any(target_os = "linux", target_os = "android"))]
    results.push(socket.set_tcp_user_timeout(Some(idle_timeout)));
    for error in results.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "a socket option is not available");
    }
}

/// Appends what the socket has, a little at a time: handshakes are short, and a stranger gets
/// no more memory than that. `Done` when it would block.
fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<Progress, Down> {
    let mut chunk = [0; 512];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Err(Down::Closed),
            Ok(n) => {
                bytes.extend_from_slice(&chunk[..n]);
                return Ok(Progress::More);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Done),
            Err(error) => return Err(Down::Io(error)),
        }
    }
}
