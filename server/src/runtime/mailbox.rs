//! The way into a worker: one queue, one wake per drained queue.

use std::sync::Arc;

use parking_lot::Mutex;
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

    /// Swaps everything out into `into`, which must be empty.
    pub fn drain(&self, into: &mut Vec<T>) {
        std::mem::swap(&mut *self.queue.lock(), into);
    }
}
