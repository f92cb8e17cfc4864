//! Counters, and the snapshot of them that status and metrics pages show.

use std::sync::atomic::{AtomicU64, Ordering};

use groups::ids::NodeId;
use parking_lot::Mutex;

use crate::Lane;

/// A counter that one or many threads raise and anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Of one peer and lane, both directions.
#[derive(Debug, Default)]
pub(crate) struct LinkCounters {
    pub(crate) frames_queued: Counter,
    pub(crate) bytes_written: Counter,
    pub(crate) writes: Counter,
    pub(crate) blocked: Counter,
    pub(crate) refused_full: Counter,
    pub(crate) refused_down: Counter,
    pub(crate) frames_received: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) ups: Counter,
    pub(crate) receiving: Counter,
    pub(crate) last_trouble: Mutex<Option<String>>,
}

/// Of the whole layer.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: Counter,
    pub(crate) greeting: Counter,
    pub(crate) rejected: Counter,
    pub(crate) corrupt: Counter,
    pub(crate) polls: Counter,
    pub(crate) wakes: Counter,
}

/// A snapshot of one peer and lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStats {
    /// The peer.
    pub node: NodeId,
    /// The lane.
    pub lane: Lane,
    /// Frames can be sent.
    pub connected: bool,
    /// Connections from the peer that deliver frames, 0 or 1.
    pub receiving: u64,
    /// Bytes queued or being written.
    pub queued_bytes: u64,
    /// Frames taken by `send`.
    pub frames_queued: u64,
    /// Bytes written to sockets.
    pub bytes_written: u64,
    /// Vectored writes that wrote something: `frames_queued / writes` is the coalescing.
    pub writes: u64,
    /// How often the socket was full.
    pub blocked: u64,
    /// Frames dropped because the queue was full.
    pub refused_full: u64,
    /// Frames dropped because the link was down.
    pub refused_down: u64,
    /// Frames delivered to the demultiplexer.
    pub frames_received: u64,
    /// Bytes read from sockets.
    pub bytes_received: u64,
    /// How often the link came up.
    pub ups: u64,
    /// Why the link is or was last down.
    pub last_trouble: Option<String>,
}

/// A snapshot of the whole layer. Counters run from the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Every peer on every lane, by node.
    pub links: Vec<LinkStats>,
    /// Connections accepted, peers or not.
    pub accepted: u64,
    /// Accepted connections inside their handshake now.
    pub greeting: u64,
    /// Connections that ended with a refusal, by either side, or with garbage.
    pub rejected: u64,
    /// Links dropped because of a damaged frame.
    pub corrupt: u64,
    /// Turns of the poll loop.
    pub polls: u64,
    /// Times a sender had to wake the loop.
    pub wakes: u64,
}
