//! The bounded queue between the threads that send and whoever writes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::SendError;
use crate::frame::{FrameBatch, HEADER};

/// Small batches of all senders are gathered in buffers of this size.
const GATHER: usize = 16 << 10;

/// Frames for one peer on one lane.
///
/// `bytes` counts from [`push`](Queue::push) to [`release`](Queue::release): what waits here
/// and what was taken and is not yet written.
#[derive(Debug)]
pub(crate) struct Queue {
    limit: usize,
    max_frame: usize,
    bytes: AtomicUsize,
    /// There is something to take. Written under the lock, read without it.
    pending: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    open: bool,
    /// The socket is full: its writability brings the loop back, no sender needs to do anything.
    blocked: bool,
    segments: VecDeque<Bytes>,
    /// Follows `segments`.
    gathered: BytesMut,
}

impl Inner {
    fn seal(&mut self) {
        if !self.gathered.is_empty() {
            self.segments.push_back(self.gathered.split().freeze());
        }
    }
}

/// A batch up to this size may use the reserve beyond the limit.
const SMALL: usize = 1 << 10;

/// Bytes beyond the limit that only small batches may use.
const RESERVE: usize = 256 << 10;

impl Queue {
    pub(crate) fn new(limit: usize, max_frame: usize) -> Queue {
        Queue {
            limit,
            max_frame,
            bytes: AtomicUsize::new(0),
            pending: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                open: false,
                blocked: false,
                segments: VecDeque::new(),
                gathered: BytesMut::new(),
            }),
        }
    }

    /// Queues the batch; `Ok(true)` when it can be written now, `Ok(false)` when the socket is full
    /// and the loop waits for room in it.
    pub(crate) fn push(&self, batch: FrameBatch) -> Result<bool, SendError> {
        if batch.largest_body() > self.max_frame {
            return Err(SendError::TooLarge { body: batch.largest_body(), limit: self.max_frame });
        }
        let size = batch.bytes();
        let mut inner = self.inner.lock();
        if !inner.open {
            return Err(SendError::NotConnected);
        }
        let used = self.bytes.load(Ordering::Relaxed);
        // Heartbeats and votes are small, and must not be refused because values fill the queue.
        let reserve = if size <= SMALL { RESERVE } else { 0 };
        let fits = used + size <= self.limit + reserve || (used == 0 && size <= self.max_frame + HEADER);
        if !fits {
            return Err(SendError::Full);
        }
        self.bytes.fetch_add(size, Ordering::Relaxed);
        match batch.small() {
            Some(bytes) => {
                if inner.gathered.capacity() - inner.gathered.len() < bytes.len() {
                    inner.seal();
                    inner.gathered.reserve(GATHER);
                }
                inner.gathered.extend_from_slice(bytes);
            }
            None => {
                inner.seal();
                inner.segments.extend(batch.into_segments());
            }
        }
        self.pending.store(true, Ordering::SeqCst);
        Ok(!inner.blocked)
    }

    /// Moves everything queued to the end of `writing`.
    pub(crate) fn take(&self, writing: &mut VecDeque<Bytes>) {
        let mut inner = self.inner.lock();
        inner.seal();
        if writing.is_empty() {
            std::mem::swap(writing, &mut inner.segments);
        } else {
            writing.append(&mut inner.segments);
        }
        self.pending.store(false, Ordering::SeqCst);
    }

    /// Something can be taken. Sequentially consistent: the loop announces its sleep first and
    /// asks here second, a sender queues first and looks at the announcement second, so one of
    /// the two sees the other.
    pub(crate) fn pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }

    /// What a sender has begun to write and cannot end is the loop's: there is something to do.
    pub(crate) fn leave_rest(&self) {
        self.pending.store(true, Ordering::SeqCst);
    }

    /// The loop adds bytes of its own to what it is writing.
    pub(crate) fn charge(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes have been written.
    pub(crate) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.inner.lock().open
    }

    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.inner.lock().blocked = blocked;
    }

    /// The link is up: senders may queue.
    pub(crate) fn open(&self) {
        self.inner.lock().open = true;
    }

    /// No more from senders; what is queued stays.
    pub(crate) fn close(&self) {
        self.inner.lock().open = false;
    }

    /// The link is gone, and with it all that waited for it: a peer that comes back is not fed
    /// with old frames.
    pub(crate) fn reset(&self) {
        let mut inner = self.inner.lock();
        inner.open = false;
        inner.blocked = false;
        inner.segments = VecDeque::new();
        inner.gathered = BytesMut::new();
        self.bytes.store(0, Ordering::Relaxed);
        self.pending.store(false, Ordering::SeqCst);
    }
}
