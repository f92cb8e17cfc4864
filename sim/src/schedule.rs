//! Simulated time: a queue of events, and the present.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use groups::time::Time;

/// What is going to happen, in order of time; at one time in the order in which it was planned.
#[derive(Debug)]
pub struct Schedule<E> {
    now: Time,
    sequence: u64,
    queue: BinaryHeap<Entry<E>>,
}

#[derive(Debug)]
struct Entry<E> {
    at: Time,
    sequence: u64,
    event: E,
}

impl<E> Entry<E> {
    fn key(&self) -> (Time, u64) {
        (self.at, self.sequence)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// The earliest is the greatest: a heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Schedule { now: Time::ZERO, sequence: 0, queue: BinaryHeap::new() }
    }
}

impl<E> Schedule<E> {
    /// The present.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// Plans an event for `delay` from now.
    pub fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now + delay, event);
    }

    /// Plans an event for a point in time that is not past.
    pub fn at(&mut self, at: Time, event: E) {
        assert!(at >= self.now, "nothing is planned for the past");
        self.sequence += 1;
        self.queue.push(Entry { at, sequence: self.sequence, event });
    }

    /// Moves on to the next event.
    pub fn next_event(&mut self) -> Option<E> {
        let Entry { at, event, .. } = self.queue.pop()?;
        self.now = at;
        Some(event)
    }
}
