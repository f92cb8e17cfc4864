//! One of the three processes of the bare skeleton: one thread for the sockets, one for the disk.
//!
//! ```text
//! client ── put ──▶ leader ── batch ──▶ 2 followers
//!                     │ disk               │ disk          one durable write for all batches that wait
//! client ◀── +OK ── leader ◀── number ─────┘               as soon as two of the three have it
//! ```
//!
//! No ballots, no groups, no state: less than this cannot replicate a put.

mod follower;
mod journal;
mod leader;
mod link;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use mio::net::TcpListener;
use mio::{Interest, Poll, Token};

use crate::args::SkeletonReplica;
use crate::{End, Failure};
use journal::Journal;

const LISTENER: Token = Token(0);
const DISK: Token = Token(1);

/// Runs until the process that started it ends it, or ends itself.
pub fn run(args: &SkeletonReplica) -> Result<End, Failure> {
    std::thread::spawn(end_with_parent);
    let announce = |address: SocketAddr| {
        let mut output = io::stdout();
        writeln!(output, "{address}").and_then(|()| output.flush())
    };
    serve(&args.dir, &args.followers, announce)
        .map(|()| End::Right)
        .map_err(|error| Failure(format!("a replica of the bare skeleton failed: {error}")))
}

/// Nothing ever comes in from the parent but the end.
fn end_with_parent() {
    let _ = io::stdin().read(&mut [0]);
    std::process::exit(0);
}

/// `announce` is told where it listens, once it does.
fn serve(
    dir: &Path,
    followers: &[SocketAddr],
    announce: impl FnOnce(SocketAddr) -> io::Result<()>,
) -> io::Result<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let journal = Journal::open(dir, mio::Waker::new(poll.registry(), DISK)?)?;
    announce(listener.local_addr()?)?;
    match followers {
        [] => follower::run(poll, &listener, &journal),
        [first, second] => leader::run(poll, &listener, &journal, [*first, *second]),
        _ => Err(io::Error::other("a leader has two followers")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::sync::mpsc;

    use super::*;

    /// A replica in a thread, which ends with the process.
    fn replica(followers: Vec<SocketAddr>) -> SocketAddr {
        let (announced, address) = mpsc::channel();
        let announce = move |address| announced.send(address).map_err(io::Error::other);
        std::thread::spawn(move || serve(&std::env::temp_dir(), &followers, announce));
        address.recv().expect("it listens")
    }

    #[test]
    fn every_put_is_answered_and_what_is_none_ends_the_connection() {
        let leader = replica(vec![replica(vec![]), replica(vec![])]);
        let put = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\na\r\n\r\n";
        let mut clients = [(); 3].map(|()| TcpStream::connect(leader).expect("it listens"));
        for round in 1..=20 {
            for client in &mut clients {
                // The last one is cut in two.
                let puts = put.repeat(round);
                client.write_all(&puts[..puts.len() - 5]).expect("sent");
            }
            for client in &mut clients {
                client.write_all(&put[put.len() - 5..]).expect("sent");
                let mut answers = vec![0; 5 * round];
                client.read_exact(&mut answers).expect("answered");
                assert_eq!(answers, b"+OK\r\n".repeat(round));
            }
        }
        let [client, ..] = &mut clients;
        client.write_all(b"what?\r\n").expect("sent");
        assert_eq!(client.read(&mut [0]).expect("closed"), 0);
    }
}
