//! The leader: collects the puts of the clients into batches and answers them when two of three replicas have them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::journal::Journal;
use super::link::Link;
use super::{DISK, LISTENER};
use crate::resp::{Scanned, scan};

/// Bytes before a batch on its way to a follower: its number and its length.
pub const HEAD: usize = 16;
/// Tokens of the followers; clients have those behind.
const FOLLOWERS: usize = 2;
const CLIENTS: usize = 4;
/// Batches under way: while one is on the disks the next one is on its way. One, two, four and any number were measured
/// on two cores shared with the load; they did not differ by more than the same one did from run to run.
const WINDOW: usize = 2;

/// A batch that is not yet durable on two replicas.
struct Batch {
    number: u64,
    /// Which clients wait for it, and for how many answers.
    asked: Vec<(usize, usize)>,
}

struct Leader<'a> {
    poll: Poll,
    journal: &'a Journal,
    followers: [Link; 2],
    /// What each follower has made durable.
    reached: [u64; 2],
    clients: HashMap<usize, Link>,
    next_client: usize,
    /// The batch that is being collected.
    puts: Vec<u8>,
    asked: Vec<(usize, usize)>,
    under_way: VecDeque<Batch>,
    last: u64,
}

/// Serves clients until a follower is gone.
pub fn run(
    poll: Poll,
    listener: &TcpListener,
    journal: &Journal,
    followers: [SocketAddr; 2],
) -> io::Result<()> {
    let mut links = Vec::new();
    for (number, address) in followers.into_iter().enumerate() {
        // Nothing can be done before it stands, so it is waited for.
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        let mut link = Link::new(TcpStream::from_std(stream))?;
        let token = Token(FOLLOWERS + number);
        poll.registry().register(link.stream(), token, Interest::READABLE | Interest::WRITABLE)?;
        links.push(link);
    }
    let Ok(followers) = <[Link; 2]>::try_from(links) else { unreachable!("two were made") };
    let leader = Leader {
        poll,
        journal,
        followers,
        reached: [0; 2],
        clients: HashMap::new(),
        next_client: CLIENTS,
        puts: Vec::new(),
        asked: Vec::new(),
        under_way: VecDeque::new(),
        last: 0,
    };
    leader.serve(listener)
}

impl Leader<'_> {
    fn serve(mut self, listener: &TcpListener) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(listener)?,
                    DISK => {}
                    Token(token) if token < CLIENTS => self.hear(token - FOLLOWERS, &mut buffer)?,
                    Token(client) => self.read(client, &mut buffer),
                }
            }
            self.answer();
            self.send()?;
        }
    }

    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut link = Link::new(stream)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(link.stream(), Token(self.next_client), interest)?;
            self.clients.insert(self.next_client, link);
            self.next_client += 1;
        }
    }

    /// Whatever is a whole request counts as a put.
    fn read(&mut self, client: usize, buffer: &mut [u8]) {
        let Some(link) = self.clients.get_mut(&client) else { return };
        let mut there = link.fill(buffer);
        let (mut end, mut count) = (0, 0);
        loop {
            match scan(&link.input[end..]) {
                Scanned::Reply(_, length) => (end, count) = (end + length, count + 1),
                Scanned::Incomplete => break,
                Scanned::Malformed => {
                    there = false;
                    break;
                }
            }
        }
        if count > 0 {
            self.puts.extend_from_slice(&link.input[..end]);
            self.asked.push((client, count));
            link.input.drain(..end);
        }
        if !there || !link.flush() {
            self.clients.remove(&client);
        }
    }

    /// How far a follower has come.
    fn hear(&mut self, follower: usize, buffer: &mut [u8]) -> io::Result<()> {
        let link = &mut self.followers[follower];
        if !link.fill(buffer) || !link.flush() {
            return Err(io::Error::other("a follower is gone"));
        }
        let whole = link.input.len() / 8 * 8;
        if let Some(number) = link.input[..whole].last_chunk::<8>() {
            self.reached[follower] = u64::from_le_bytes(*number);
        }
        link.input.drain(..whole);
        Ok(())
    }

    fn answer(&mut self) {
        let chosen = on_two_of_three([self.journal.durable(), self.reached[0], self.reached[1]]);
        while let Some(batch) = self.under_way.pop_front_if(|batch| batch.number <= chosen) {
            for (client, count) in batch.asked {
                let Some(link) = self.clients.get_mut(&client) else { continue };
                for _ in 0..count {
                    link.output.extend_from_slice(b"+OK\r\n");
                }
                if !link.flush() {
                    self.clients.remove(&client);
                }
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.asked.is_empty() || self.under_way.len() >= WINDOW {
            return Ok(());
        }
        self.last += 1;
        let puts = std::mem::take(&mut self.puts);
        for link in &mut self.followers {
            link.output.extend_from_slice(&self.last.to_le_bytes());
            link.output.extend_from_slice(&(puts.len() as u64).to_le_bytes());
            link.output.extend_from_slice(&puts);
            if !link.flush() {
                return Err(io::Error::other("a follower is gone, or does not read"));
            }
        }
        self.journal.append(self.last, puts)?;
        self.under_way.push_back(Batch { number: self.last, asked: std::mem::take(&mut self.asked) });
        Ok(())
    }
}

/// The last batch that at least two replicas have.
fn on_two_of_three(mut reached: [u64; 3]) -> u64 {
    reached.sort_unstable();
    reached[1]
}

#[cfg(test)]
mod tests {
    use super::on_two_of_three;

    #[test]
    fn two_of_three_are_enough_and_one_is_not() {
        assert_eq!(on_two_of_three([7, 0, 7]), 7);
        assert_eq!(on_two_of_three([0, 0, 9]), 0);
        assert_eq!(on_two_of_three([3, 5, 4]), 4);
    }
}
