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
    serve(&args.dir, &args.followers)
        .map(|()| End::Right)
        .map_err(|error| Failure(format!("a replica of the bare skeleton failed: {error}")))
}

/// Nothing ever comes in from the parent but the end.
fn end_with_parent() {
    let _ = io::stdin().read(&mut [0]);
    std::process::exit(0);
}

fn serve(dir: &Path, followers: &[SocketAddr]) -> io::Result<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let journal = Journal::open(dir, mio::Waker::new(poll.registry(), DISK)?)?;
    let mut output = io::stdout();
    writeln!(output, "{}", listener.local_addr()?)?;
    output.flush()?;
    match followers {
        [] => follower::run(poll, &listener, &journal),
        [first, second] => leader::run(poll, &listener, &journal, [*first, *second]),
        _ => Err(io::Error::other("a leader has two followers")),
    }
}
