//! The ways into a worker and into a plain thread: one queue, one wake per drained queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// A queue that many threads fill and one worker drains.
///
/// It is not bounded here: everything put in has been bounded before (frames by the peers'
/// windows and netio's read budget, requests by the in-flight limit, log results by the jobs).
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Mutex<Vec<T>>,
    wake: Arc<Notify>,
}

impl<T> Mailbox<T> {
    /// An empty mailbox that wakes `wake`.
    #[must_use]
    pub fn new(wake: Arc<Notify>) -> Mailbox<T> {
        Mailbox { queue: Mutex::new(Vec::new()), wake }
    }

    /// Puts a letter in. Wakes the worker only if it may have seen the queue empty.
    pub fn push(&self, letter: T) {
        let mut queue = self.queue.lock();
        let was_empty = queue.is_empty();
        queue.push(letter);
        drop(queue);
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Moves everything behind what is in `into`.
    pub fn drain(&self, into: &mut VecDeque<T>) {
        into.extend(self.queue.lock().drain(..));
    }

    /// Takes everything out.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.queue.lock())
    }
}

/// A queue that many threads fill and one thread without a runtime empties.
///
/// It sleeps at once when there is nothing: where cores are few, a thread that spins first keeps
/// those from running that would bring it something. Bounded like a [`Mailbox`], by what goes in.
#[derive(Debug)]
pub struct Tray<T> {
    queue: Mutex<VecDeque<T>>,
    filled: Condvar,
}

impl<T> Default for Tray<T> {
    fn default() -> Tray<T> {
        Tray { queue: Mutex::new(VecDeque::new()), filled: Condvar::new() }
    }
}

impl<T> Tray<T> {
    /// Puts something in. Wakes the thread only if it sleeps.
    pub fn put(&self, thing: T) {
        self.queue.lock().push_back(thing);
        self.filled.notify_one();
    }

    /// Takes the oldest thing out, if there is one.
    pub fn take(&self) -> Option<T> {
        self.queue.lock().pop_front()
    }

    /// Takes the oldest thing out, waiting for one at most so long.
    pub fn wait(&self, patience: Duration) -> Option<T> {
        let mut queue = self.queue.lock();
        if queue.is_empty() {
            self.filled.wait_while_for(&mut queue, |queue| queue.is_empty(), patience);
        }
        queue.pop_front()
    }
}
