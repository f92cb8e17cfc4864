//! The list of peers, as the senders and the loop share it.
//!
//! A send looks a peer up under a read lock, which nobody holds for longer than a write that does
//! not wait: a new list is put together beside the old one, and only the exchange of the two shuts
//! readers out.

use std::sync::Arc;

use groups::ids::NodeId;
use parking_lot::{Mutex, RwLock, RwLockUpgradableReadGuard};

use crate::config::{BadConfig, check_peers};
use crate::link::Writer;
use crate::metrics::LinkCounters;
use crate::queue::Queue;
use crate::{Config, FrameBatch, Lane, SendError};

/// One peer and lane, as the senders and the loop share it.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) queue: Queue,
    /// Held while somebody writes to the socket, never longer than a few calls.
    pub(crate) writer: Mutex<Writer>,
    pub(crate) counters: LinkCounters,
}

impl Shelf {
    pub(crate) fn new(queue: Queue) -> Shelf {
        Shelf { queue, writer: Mutex::new(Writer::new()), counters: LinkCounters::default() }
    }

    /// The connection is gone, and with it all that waited for it.
    pub(crate) fn disconnect(&self) {
        // The queue with the lock held: no sender writes what came before the end behind it.
        let mut writer = self.writer.lock();
        writer.disconnect();
        self.queue.reset();
    }

    /// Queues the batch and counts; `true` when it can be written now.
    pub(crate) fn put(&self, batch: FrameBatch) -> Result<bool, SendError> {
        if batch.is_empty() {
            return Ok(false);
        }
        let frames = batch.frames() as u64;
        let queued = self.queue.push(batch);
        match queued {
            Ok(_) => self.counters.frames_queued.add(frames),
            Err(SendError::Full) => self.counters.refused_full.add(frames),
            Err(SendError::NotConnected) => self.counters.refused_down.add(frames),
            Err(SendError::UnknownPeer | SendError::TooLarge { .. }) => (),
        }
        queued
    }
}

/// A peer on the list.
///
/// Its shelves tell one stay on the list from another: a peer that is removed and added again
/// gets new ones, so that whoever still holds the old ones notices.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) node: NodeId,
    /// `host:port`, as configured.
    pub(crate) address: String,
    /// One per lane.
    pub(crate) shelves: [Arc<Shelf>; 2],
}

/// The list and what a newcomer's queues are made with.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Sorted by node, without this one.
    list: RwLock<Arc<[Listed]>>,
    me: NodeId,
    queue_bytes: [usize; 2],
    max_frame: usize,
}

impl Peers {
    /// The list of a configuration that was checked.
    pub(crate) fn new(config: &Config) -> Peers {
        let peers = Peers {
            list: RwLock::new(Arc::new([])),
            me: config.identity.node,
            queue_bytes: Lane::ALL.map(|lane| match lane {
                Lane::Consensus => config.consensus_queue_bytes,
                Lane::Bulk => config.bulk_queue_bytes,
            }),
            max_frame: config.max_frame,
        };
        *peers.list.write() = peers.succeeding(&[], config.peers.clone());
        peers
    }

    /// The list now.
    pub(crate) fn list(&self) -> Arc<[Listed]> {
        self.list.read().clone()
    }

    pub(crate) fn knows(&self, node: NodeId) -> bool {
        find(&self.list.read(), node).is_some()
    }

    pub(crate) fn shelf(&self, node: NodeId, lane: Lane) -> Option<Arc<Shelf>> {
        self.with(node, lane, Arc::clone)
    }

    /// Looks at a shelf without counting one more holder of it. `look` must be short: a change
    /// of the list waits for it.
    pub(crate) fn with<T>(&self, node: NodeId, lane: Lane, look: impl FnOnce(&Arc<Shelf>) -> T) -> Option<T> {
        let list = self.list.read();
        find(&list, node).map(|it| look(&it.shelves[lane.index()]))
    }

    /// Gives a peer another address.
    pub(crate) fn set_address(&self, node: NodeId, address: String) -> Result<(), SendError> {
        let mut list = self.list.write();
        let mut changed = list.to_vec();
        let entry = changed.iter_mut().find(|it| it.node == node);
        entry.ok_or(SendError::UnknownPeer)?.address = address;
        *list = changed.into();
        Ok(())
    }

    /// Replaces the list; whether that changed anything. Peers that stay keep their shelves.
    pub(crate) fn replace(&self, peers: Vec<(NodeId, String)>) -> Result<bool, BadConfig> {
        check_peers(&peers)?;
        // Two that replace it at once do so one after the other; readers go on meanwhile.
        let current = self.list.upgradable_read();
        let next = self.succeeding(&current, peers);
        let same = |old: &Listed, new: &Listed| old.node == new.node && old.address == new.address;
        if current.len() == next.len() && current.iter().zip(&*next).all(|(old, new)| same(old, new)) {
            return Ok(false);
        }
        let mut current = RwLockUpgradableReadGuard::upgrade(current);
        let old = std::mem::replace(&mut *current, next);
        drop(current);
        // The memory of removed peers is given back when readers are let in again.
        drop(old);
        Ok(true)
    }

    fn succeeding(&self, current: &[Listed], peers: Vec<(NodeId, String)>) -> Arc<[Listed]> {
        let listed = |(node, address)| match find(current, node) {
            Some(stays) => Listed { node, address, shelves: stays.shelves.clone() },
            None => Listed { node, address, shelves: Lane::ALL.map(|lane| self.new_shelf(lane)) },
        };
        let mut next: Vec<Listed> =
            peers.into_iter().filter(|(node, _)| *node != self.me).map(listed).collect();
        next.sort_unstable_by_key(|it| it.node);
        next.into()
    }

    fn new_shelf(&self, lane: Lane) -> Arc<Shelf> {
        let queue = Queue::new(self.queue_bytes[lane.index()], self.max_frame);
        Arc::new(Shelf::new(queue))
    }
}

/// The peer of that number on a list.
pub(crate) fn find(list: &[Listed], node: NodeId) -> Option<&Listed> {
    let at = list.binary_search_by_key(&node, |it| it.node).ok()?;
    Some(&list[at])
}
