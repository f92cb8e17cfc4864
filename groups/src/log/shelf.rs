//! What a log shares with its readers: where each record lies, the segments opened for reading,
//! and what is being sent to whom.
//!
//! The owner of the log changes it at the end of a commit, a rotation and a drop; a reader looks
//! up the places of one chunk. Both hold the lock for microseconds and never while they wait for
//! the disk. A segment that is dropped stays readable for whoever has begun to read it: its file
//! is open.

use super::index::{Index, Position};
use super::record::Place;
use super::segment::SegmentSeq;
use crate::ids::{GroupId, InstanceId, NodeId};
use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A segment as readers see it.
pub(super) struct Volume<F> {
    pub seq: SegmentSeq,
    pub place: Place,
    pub file: F,
}

/// See the module.
pub(super) struct Shelf<F> {
    /// Knows synced records only.
    pub index: Index,
    /// The same segments as the log's, in the same order.
    pub volumes: VecDeque<Arc<Volume<F>>>,
    sending: BTreeMap<(GroupId, NodeId), Sending>,
    pub poisoned: bool,
}

/// What one peer is being sent of one group.
#[derive(Clone, Copy)]
struct Sending {
    /// The next instance.
    from: InstanceId,
    /// Since when it is the next one.
    since: Time,
    /// When it was last asked for.
    asked: Time,
}

/// What is sent holds its segment for this long after it was last asked for,
const PIN_AFTER_LAST: Duration = Duration::from_secs(2);

/// and for this long without getting on.
const PIN_WITHOUT_PROGRESS: Duration = Duration::from_secs(10);

impl<F> Shelf<F> {
    pub fn new(index: Index) -> Shelf<F> {
        Shelf { index, volumes: VecDeque::new(), sending: BTreeMap::new(), poisoned: false }
    }

    pub fn volume(&self, position: Position) -> Arc<Volume<F>> {
        let nth = position.segment.0 - self.volumes[0].seq.0;
        Arc::clone(&self.volumes[nth as usize])
    }

    /// Notes that `to` is being sent the group from `from` on.
    pub fn send(&mut self, group: GroupId, to: NodeId, from: InstanceId, now: Time) {
        let sending = self.sending.entry((group, to)).or_insert(Sending { from, since: now, asked: now });
        if sending.from != from {
            (sending.from, sending.since) = (from, now);
        }
        sending.asked = now;
    }

    /// Whether something that is being sent lies in the oldest segment. Forgets what is no
    /// longer asked for.
    pub fn is_being_sent(&mut self, oldest: SegmentSeq, now: Time) -> bool {
        self.sending
            .retain(|_, s| now.since(s.asked) < PIN_AFTER_LAST && now.since(s.since) < PIN_WITHOUT_PROGRESS);
        let index = &self.index;
        self.sending.iter().any(|((group, _), s)| index.lies_in_oldest(*group, oldest, s.from))
    }
}

/// The lock around a shelf.
pub(super) struct Shared<F>(Mutex<Shelf<F>>);

impl<F> Shared<F> {
    pub fn new(shelf: Shelf<F>) -> Arc<Shared<F>> {
        Arc::new(Shared(Mutex::new(shelf)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Shelf<F>> {
        // Nothing is left half-changed by a panic that matters to a reader: it checks what it reads.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
