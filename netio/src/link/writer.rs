//! The writing end of a link that is up, for whoever has something to say.
//!
//! A thread that sends writes to the socket itself where it can: waking the loop for each turn of a
//! worker costs more than the write. The loop writes what senders leave behind (a full
//! socket, a large batch) and everything before the link is up.
//!
//! Who writes holds the lock. Who finds it taken goes away, because the holder looks at the queue
//! once more when it has let go; see [`write_through`].

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use bytes::{Buf, Bytes};

use crate::metrics::LinkCounters;
use crate::peers::Shelf;
use crate::queue::Queue;

/// Segments handed to the kernel in one call.
const SEGMENTS: usize = 64;

/// Bytes that a sender writes before it leaves the rest to the loop: it has other work.
const SENDER_BUDGET: usize = 256 << 10;

/// The socket, and what is on its way into it.
#[derive(Debug)]
pub(crate) struct Writer {
    /// A second handle of the loop's socket, while there is a connection.
    stream: Option<TcpStream>,
    writing: VecDeque<Bytes>,
    last_write: Instant,
}

/// How far a round of writing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// Nothing is left.
    All,
    /// The budget is used up.
    Some,
    /// The socket is full.
    Full,
}

impl Writer {
    pub(crate) fn new() -> Writer {
        Writer { stream: None, writing: VecDeque::new(), last_write: Instant::now() }
    }

    /// There is a connection.
    pub(crate) fn connect(&mut self, socket: &impl AsFd) -> io::Result<()> {
        self.stream = Some(TcpStream::from(socket.as_fd().try_clone_to_owned()?));
        self.last_write = Instant::now();
        Ok(())
    }

    /// The connection is gone, and with it what was on its way.
    pub(crate) fn disconnect(&mut self) {
        self.stream = None;
        self.writing = VecDeque::new();
    }

    /// Bytes that do not come from the queue, behind what is being written.
    pub(crate) fn put(&mut self, bytes: Bytes, queue: &Queue) {
        queue.charge(bytes.len());
        self.writing.push_back(bytes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writing.is_empty()
    }

    pub(crate) fn last_write(&self) -> Instant {
        self.last_write
    }

    /// Writes what is queued, many frames in a call, until the socket is full, nothing is left or
    /// the budget is used up.
    pub(crate) fn write(
        &mut self,
        queue: &Queue,
        counters: &LinkCounters,
        mut budget: usize,
    ) -> io::Result<Wrote> {
        loop {
            if self.writing.len() < SEGMENTS && queue.pending() {
                queue.take(&mut self.writing);
            }
            if self.writing.is_empty() {
                return Ok(Wrote::All);
            }
            if budget == 0 {
                return Ok(Wrote::Some);
            }
            let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
            let mut slices = [IoSlice::new(&[]); SEGMENTS];
            let mut count = 0;
            for (slice, segment) in slices.iter_mut().zip(&self.writing) {
                *slice = IoSlice::new(segment);
                count += 1;
            }
            match stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    counters.writes.add(1);
                    counters.bytes_written.add(written as u64);
                    queue.release(written);
                    self.consume(written);
                    self.last_write = Instant::now();
                    budget = budget.saturating_sub(written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Wrote::Full),
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
}

/// A sender, which has just queued something, writes it to the socket. Returns whether the loop has
/// to go on with it.
///
/// Nothing is left behind: whoever queues and then finds the lock taken did the first before the
/// second, and whoever lets the lock go looks at the queue afterwards. With a fence between the
/// two on both sides one of them sees the other.
pub(crate) fn write_through(shelf: &Shelf) -> bool {
    loop {
        fence(Ordering::SeqCst);
        let Some(mut writer) = shelf.writer.try_lock() else { return false };
        let wrote = writer.write(&shelf.queue, &shelf.counters, SENDER_BUDGET);
        match wrote {
            Ok(Wrote::All) => (),
            // The loop meets the same error, and knows what to do about it; it waits for room, too.
            Ok(Wrote::Some | Wrote::Full) | Err(_) => {
                shelf.queue.leave_rest();
                return true;
            }
        }
        drop(writer);
        fence(Ordering::SeqCst);
        if !shelf.queue.pending() {
            return false;
        }
    }
}
