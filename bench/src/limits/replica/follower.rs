//! A follower: writes what the leader sends and says how far it has come.

use std::io;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use super::journal::Journal;
use super::leader::HEAD;
use super::link::Link;
use super::{DISK, LISTENER};

const LEADER: Token = Token(2);

/// Serves one leader until it is gone.
pub fn run(mut poll: Poll, listener: &TcpListener, journal: &Journal) -> io::Result<()> {
    let mut events = Events::with_capacity(16);
    let mut buffer = vec![0; 256 << 10];
    let mut leader: Option<Link> = None;
    let mut told = 0;
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match (event.token(), &mut leader) {
                (LISTENER, None) => {
                    let mut link = Link::new(listener.accept()?.0)?;
                    poll.registry().register(
                        link.stream(),
                        LEADER,
                        Interest::READABLE | Interest::WRITABLE,
                    )?;
                    leader = Some(link);
                }
                (DISK, Some(link)) => {
                    let durable = journal.durable();
                    if durable > told {
                        link.output.extend_from_slice(&durable.to_le_bytes());
                        told = durable;
                    }
                }
                (LEADER, Some(link)) => {
                    if !link.fill(&mut buffer) {
                        return Ok(());
                    }
                    take_batches(&mut link.input, journal)?;
                }
                _ => {}
            }
        }
        if leader.as_mut().is_some_and(|link| !link.flush()) {
            return Ok(());
        }
    }
}

/// `number`, `length`, both of eight bytes, and so many bytes.
fn take_batches(input: &mut Vec<u8>, journal: &Journal) -> io::Result<()> {
    let mut taken = 0;
    while let Some((head, rest)) = input[taken..].split_first_chunk::<HEAD>() {
        let (number, length) = head.split_at(HEAD / 2);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let (number, length) = (word(number), word(length) as usize);
        let Some(batch) = rest.get(..length) else { break };
        journal.append(number, batch.to_vec())?;
        taken += HEAD + length;
    }
    input.drain(..taken);
    Ok(())
}
