//! The mirror of a node: the second state machine of each of its groups, on disk, fed by what the
//! first one applied.
//!
//! One [`Mirror`] owns the store of all groups. It is a deterministic object without threads or
//! a clock: whatever happens is a call, time is passed in, and what it wants done comes out of
//! [`Mirror::turn`]. The same object runs on a thread of its own and inside the simulator.
//!
//! ```text
//! loop {
//!     for event in mirror.turn() { ... }          // while mirror.busy(), again
//!     match inbox.next() {
//!         fold        => mirror.fold(fold),       // one per group, after each Folded the next
//!         whole state => mirror.refill(..),       // the answer to Refill
//!         frame       => mirror.on_frame(..),     // kinds FETCH to NONE
//!         now and then, for some groups => mirror.settle(&groups, now),
//!         every 10 to 50 ms             => mirror.tick(now),      // less often while mirror.is_quiet()
//!     }
//! }
//! ```
//!
//! # What may be trusted
//!
//! A fold and the position behind it are one atomic batch of the store, not synced. Now and then
//! [`Mirror::settle`] syncs, reads groups back, compares the hash of their entries with the one
//! in their position and records the point; only that ([`Event::Durable`]) may let log go. A
//! fold that does not continue where the store stands, a group whose content is not what its
//! position says: neither is repaired by guessing. The group is asked for whole
//! ([`Event::Refill`]) and installed beside what is there, in one switch.
//!
//! After a failed write or sync nobody knows what is on the disk: the mirror touches the store
//! no more ([`Event::Poisoned`]), log GC stands still from then on. A write for which there was no
//! space is none ([`Event::NoSpace`]): the store is opened anew once there is ([`Mirror::close`]).
//!
//! # The transfer of a checkpoint
//!
//! The receiver pulls. `FETCH` names a try, what it has staged and how many frames it will take;
//! it says everything a sender needs, which therefore may forget and be asked again. The sender
//! pauses the group's mirror at its position (folds wait, any number of receivers share the
//! pause), verifies it once, and answers with `HEAD` (unless the receiver has staged this very
//! state) and `CHUNK`s, back to back as far as the credit goes. The receiver stages each
//! one durably enough to continue behind it after a crash, and renews its credit when half of
//! it is used. Behind the last one it installs: verified, synced, switched, synced, recorded.
//!
//! Frames of a try are numbered; what comes twice, too late, out of order or for another try is
//! dropped. What has come waits in memory until it is worth a sorted table in the store, a second
//! at most. After silence there is a new try, after three of them another source. A session
//! table of more than a piece is spread over several `HEAD`s.
//!
//! ```text
//! every frame    0   8 boot of the receiver        CHUNK = 10   16  4 sequence
//!                8   8 count: the try                           20  4 entries n
//!                                                               24 16 digest
//! FETCH = 8      16 16 cluster                                  40  8 entries of the whole state
//!                32  8 above                                    48  8 bytes of the whole state
//!                40  4 next sequence number                     56  1 1: the last one
//!                44  4 credit in frames; 0: done                57  3 0
//!                48  1 1: digest, 2: key, 4: doubt,             60    n × { key bytes 4,
//!                     8: session offset                                 value bytes 4, revision 8,
//!                49  3 0                                                expiry 8, key, value }
//!                52 16 digest of what it has
//!                68 .. last key, or offset 4
//!                                                  NONE = 11    16  1 why
//! HEAD = 9       16 16 cluster                                  17  7 0
//!                32  4 sequence                                 24  8 sender's instance
//!                36  4 session bytes s
//!                40  4 offset of the piece in them
//!                44  4 piece bytes p
//!                48 16 digest
//!                64  8 instance
//!                72  8 chained checksum
//!                80 32 state hash
//!                112 8 revision
//!                120 8 epoch
//!                128 4 membership bytes m
//!                132 m membership, then p bytes of the session table
//! ```
//!
//! All numbers are little endian; the group is in the frame around it. The digest is the
//! xxh3-128 of position and session table. Nothing from the network names a file.

mod fold;
mod pace;
mod receive;
mod send;
pub mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use groups::ids::{Boot, ClusterId, GroupId, InstanceId, NodeId};
use groups::time::Time;

use self::fold::Group;
use self::pace::Pace;
use self::receive::Incoming;
use self::send::Outgoing;
use crate::entry::Entry;
use crate::store::{Image, MirrorStore, Points, Position, StoreError};

pub use self::receive::STAGE_AFTER;
pub use self::wire::{CHUNK, FETCH, HEAD, MAX_BODY, NONE};

/// What a run of chosen values did to a group, folded per key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The group.
    pub group: GroupId,
    /// The last instance applied before it.
    pub from: InstanceId,
    /// Where the group stands after it.
    pub to: Position,
    /// The whole session table there.
    pub sessions: Bytes,
    /// The last value of every key that was written.
    pub entries: Vec<Entry>,
    /// The keys that are gone.
    pub removed: Vec<Bytes>,
}

/// How a mirror behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorConfig {
    /// The cluster; nothing is taken from or given to another.
    pub cluster: ClusterId,
    /// The life of this node: tells the tries of this life from those of earlier ones.
    pub boot: Boot,
    /// What a chunk should hold, in bytes; one entry always fits.
    pub chunk_bytes: usize,
    /// Frames that a receiver lets a sender send ahead.
    pub window: u32,
    /// Bytes of frames that a sender sends ahead to one node, all groups together and whatever
    /// the credit; one frame in any case. Less than a link's queue holds. A receiver gives news of
    /// itself several times as often.
    pub window_bytes: usize,
    /// What has come of all groups is staged once it is so much, or after [`STAGE_AFTER`].
    pub stage_bytes: usize,
    /// Groups fetched at once; more wait their turn.
    pub max_incoming: usize,
    /// Bytes of all transfers that leave per second; 0 for no limit.
    pub bytes_per_sec: u64,
    /// After so long a silence a receiver asks again.
    pub retry: Duration,
    /// A paused group goes on when its receiver has been silent this long.
    pub lease: Duration,
    /// A group is paused no longer than this and what the transfer takes at [`SLOW`], and half the
    /// rate that is allowed: then it goes on, and a receiver that is not done begins again. Each
    /// time it may take twice as long as before, up to 16 times.
    pub max_pause: Duration,
    /// Keys swept per tick.
    pub sweep: usize,
}

/// Bytes per second of a transfer that is slow, and that its sender waits for all the same.
pub const SLOW: u64 = 1 << 20;

impl Default for MirrorConfig {
    fn default() -> MirrorConfig {
        MirrorConfig {
            cluster: ClusterId(0),
            boot: Boot(0),
            chunk_bytes: 1 << 20,
            window: 16,
            window_bytes: 16 << 20,
            stage_bytes: 32 << 20,
            max_incoming: 4,
            bytes_per_sec: 0,
            retry: Duration::from_secs(5),
            lease: Duration::from_secs(20),
            max_pause: Duration::from_secs(60),
            sweep: 1024,
        }
    }
}

/// What a mirror wants done or known.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame for the mirror of another node.
    Send {
        /// The node.
        to: NodeId,
        /// The group in the frame around it.
        group: GroupId,
        /// [`FETCH`] to [`NONE`].
        kind: u8,
        /// At most [`MAX_BODY`] bytes.
        body: Bytes,
    },
    /// A fold or a refill is in the store: the next fold of the group may come.
    Folded {
        /// The group.
        group: GroupId,
        /// Where its mirror stands.
        applied: InstanceId,
    },
    /// Verified, synced and recorded points of all groups: log GC may trust them. A group that
    /// is not among them has none.
    Durable(Points),
    /// A peer asks for a checkpoint that reaches this instance, and the group's mirror is not
    /// there yet: the owner hands over its next fold as soon as it can.
    Wanted {
        /// The group.
        group: GroupId,
        /// The instance.
        through: InstanceId,
    },
    /// A checkpoint from a peer has been installed and read back, verified: it becomes the
    /// owner's live state.
    Installed {
        /// The group.
        group: GroupId,
        /// Position and session table.
        image: Image,
        /// All entries, ascending.
        entries: Vec<Entry>,
    },
    /// The group's mirror is damaged, discarded or does not fit what was folded: the owner hands
    /// over its whole live state ([`Mirror::refill`]) or wants one from a peer
    /// ([`Mirror::want`]). Folds of the group are dropped until then.
    Refill {
        /// The group.
        group: GroupId,
        /// What was found.
        why: String,
    },
    /// The group cannot be mirrored: a part of its state is over a limit of the store, or what
    /// its owner hands over is again and again not what it promises. Its point stays where it is.
    Unmirrored {
        /// The group.
        group: GroupId,
        /// What was found.
        why: String,
    },
    /// A write or sync failed. The store is not touched any more; nothing becomes durable in
    /// this life. Said once.
    Poisoned {
        /// The failure.
        why: String,
    },
    /// There was no space for a write. This mirror does nothing any more, its store is what it
    /// was before the write; whoever waits for an answer gets none. Said once.
    NoSpace {
        /// What the operating system said.
        why: String,
    },
}

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To this node.
    In,
    /// From this node.
    Out,
}

/// A transfer, for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The group.
    pub group: GroupId,
    /// The other node; zero while an incoming one waits for its turn.
    pub peer: NodeId,
    /// Which way.
    pub direction: Direction,
    /// Bytes of keys and values so far.
    pub bytes: u64,
    /// Bytes of keys and values of the whole state; 0 while unknown.
    pub expected: u64,
    /// Entries so far.
    pub keys: u64,
    /// When it was asked for.
    pub started: Time,
}

/// The mirrors of a node. See the module.
pub struct Mirror {
    store: MirrorStore,
    config: MirrorConfig,
    now: Time,
    groups: BTreeMap<GroupId, Group>,
    incoming: BTreeMap<GroupId, Incoming>,
    outgoing: BTreeMap<(GroupId, NodeId), Outgoing>,
    /// Who was served last.
    served: Option<(GroupId, NodeId)>,
    pace: Pace,
    /// The largest chunk, when no rate makes it smaller.
    full_chunk: usize,
    /// Tries so far in this life.
    attempts: u64,
    /// Numbers the groups that wait to be fetched.
    queued: u64,
    /// Whether there may be something to sweep.
    garbage: bool,
    events: Vec<Event>,
    poisoned: Option<String>,
    lacks_space: bool,
}

impl Mirror {
    /// Takes over a store.
    #[must_use]
    pub fn new(store: MirrorStore, mut config: MirrorConfig, now: Time) -> Mirror {
        let full_chunk = config.chunk_bytes.clamp(1, 8 << 20);
        config.chunk_bytes = chunk(full_chunk, config.bytes_per_sec);
        config.window = config.window.clamp(1, send::MAX_CREDIT);
        config.max_incoming = config.max_incoming.max(1);
        config.sweep = config.sweep.max(1);
        Mirror {
            pace: Pace::new(config.bytes_per_sec),
            full_chunk,
            store,
            config,
            now,
            groups: BTreeMap::new(),
            incoming: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            served: None,
            attempts: 0,
            queued: 0,
            garbage: true,
            events: Vec::new(),
            poisoned: None,
            lacks_space: false,
        }
    }

    /// From now on checkpoints leave at this rate in bytes per second; 0 is no limit.
    pub fn set_rate(&mut self, bytes_per_sec: u64) {
        self.pace.set(bytes_per_sec);
        self.config.bytes_per_sec = bytes_per_sec;
        self.config.chunk_bytes = chunk(self.full_chunk, bytes_per_sec);
    }

    /// A frame of one of the kinds [`FETCH`] to [`NONE`] has come. What is no such frame, or
    /// none that is waited for, is dropped.
    pub fn on_frame(&mut self, from: NodeId, group: GroupId, kind: u8, body: Bytes, now: Time) {
        self.now = now;
        if self.poisoned.is_some() {
            return;
        }
        let size = body.len();
        match wire::Frame::decode(kind, &body) {
            Ok(wire::Frame::Fetch(fetch)) => self.on_fetch(from, group, fetch),
            Ok(wire::Frame::Head(head)) => self.on_head(from, group, head, size),
            Ok(wire::Frame::Chunk(chunk)) => self.on_chunk(from, group, chunk, size),
            Ok(wire::Frame::Nothing(nothing)) => self.on_nothing(from, group, nothing),
            Err(_) => {}
        }
    }

    /// Time has passed: leases end, tries are repeated, a bounded number of keys is swept.
    pub fn tick(&mut self, now: Time) {
        self.now = now;
        self.end_leases();
        self.stage_old();
        self.retry_silent();
        self.start_waiting();
        self.sweep();
    }

    /// Sends what may be sent now, and says everything that has happened since the last turn.
    pub fn turn(&mut self) -> Vec<Event> {
        self.send_chunks();
        std::mem::take(&mut self.events)
    }

    /// Whether another turn would send more without anything happening before.
    #[must_use]
    pub fn busy(&self) -> bool {
        !self.events.is_empty() || (self.poisoned.is_none() && self.next_to_serve().is_some())
    }

    /// Whether nothing is on its way in or out and nothing waits to be swept: [`Mirror::tick`] has nothing to do soon.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.incoming.is_empty() && self.outgoing.is_empty() && !self.garbage
    }

    /// Every transfer that is going on or waits.
    #[must_use]
    pub fn transfers(&self) -> Vec<Transfer> {
        let outgoing = self.outgoing.iter().filter(|(_, out)| !out.done());
        let outgoing = outgoing.map(|(&(group, peer), out)| self.transfer_out(group, peer, out));
        let incoming = self.incoming.iter().map(|(&group, incoming)| incoming.transfer(group));
        incoming.chain(outgoing).collect()
    }

    /// Where the mirror of a group stands; `None` without one, and for a damaged one.
    #[must_use]
    pub fn position(&self, group: GroupId) -> Option<Position> {
        self.store.position(group).ok().flatten()
    }

    /// The last instance in a group's mirror; 0 without one.
    #[must_use]
    pub fn applied(&self, group: GroupId) -> InstanceId {
        self.position(group).map_or(InstanceId::ZERO, |position| position.applied)
    }

    /// The recorded point of a group: log GC may trust it.
    #[must_use]
    pub fn durable(&self, group: GroupId) -> Option<InstanceId> {
        self.store.durable(group).map(|point| point.applied)
    }

    /// The recorded points of all groups, as in [`Event::Durable`].
    #[must_use]
    pub fn durable_points(&self) -> Points {
        self.store.durable_points()
    }

    /// The groups without a usable mirror, each with the reason: damaged, or waiting for their
    /// owner's state.
    #[must_use]
    pub fn damaged(&self) -> BTreeMap<GroupId, String> {
        let mut damaged: BTreeMap<GroupId, String> = self.store.damaged().into_iter().collect();
        let waiting = self.groups.iter().filter_map(|(&group, state)| Some((group, state.refill.clone()?)));
        damaged.extend(waiting);
        damaged
    }

    /// Whether folds of a group wait because a receiver reads it.
    #[must_use]
    pub fn paused(&self, group: GroupId) -> bool {
        self.groups.get(&group).is_some_and(|state| state.pause.is_some())
    }

    /// Why the store is not touched any more, if so.
    #[must_use]
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Whether that is only because a write found no space: see [`Event::NoSpace`].
    #[must_use]
    pub fn lacks_space(&self) -> bool {
        self.lacks_space
    }

    /// Bytes that the store occupies on the disk.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.store.disk_bytes()
    }

    /// The store, for reading.
    #[must_use]
    pub fn store(&self) -> &MirrorStore {
        &self.store
    }

    fn send(&mut self, to: NodeId, group: GroupId, frame: &wire::Frame) -> usize {
        let (kind, body) = frame.encode();
        self.send_encoded(to, group, kind, body)
    }

    fn send_encoded(&mut self, to: NodeId, group: GroupId, kind: u8, body: Bytes) -> usize {
        let bytes = body.len();
        self.events.push(Event::Send { to, group, kind, body });
        bytes
    }

    /// Gives up a store that had no space. What is to be fetched is said, so that a mirror over
    /// the same store, opened anew, can go on with it: group, instance and sources.
    #[must_use]
    pub fn close(self) -> (MirrorConfig, Vec<(GroupId, InstanceId, Vec<NodeId>)>) {
        let wanted = self.incoming.into_iter().map(|(group, incoming)| {
            let (above, sources) = incoming.wanted();
            (group, above, sources)
        });
        (self.config, wanted.collect())
    }

    fn no_space(&mut self, why: String) {
        if self.poisoned.is_none() {
            self.events.push(Event::NoSpace { why: why.clone() });
            self.lacks_space = true;
            self.poisoned = Some(why);
        }
    }

    fn poison(&mut self, why: String) {
        if self.poisoned.is_none() {
            self.events.push(Event::Poisoned { why: why.clone() });
            self.poisoned = Some(why);
            self.incoming.clear();
            self.outgoing.clear();
        }
    }

    fn sweep(&mut self) {
        if self.poisoned.is_some() || !self.garbage {
            return;
        }
        match self.store.sweep(self.config.sweep) {
            Ok(swept) => self.garbage = swept.more,
            Err(StoreError::Poisoned { reason }) => self.poison(reason),
            Err(StoreError::NoSpace { reason }) => self.no_space(reason),
            // Read again at the next tick.
            Err(_) => {}
        }
    }
}

/// How large a chunk is at a rate: a slow transfer goes in small steps.
fn chunk(full: usize, bytes_per_sec: u64) -> usize {
    let step = usize::try_from(bytes_per_sec / 8).unwrap_or(usize::MAX);
    if bytes_per_sec == 0 { full } else { full.min(step.max(64 << 10)) }
}
