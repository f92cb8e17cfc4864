//! The mirror's thread: takes in what groups hand over, serves and fetches checkpoints. It runs
//! beside everything else and nothing waits for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use checkpoint::mirror::{Direction, Transfer};
use checkpoint::store::{Engine, MirrorStore, Sizes, StoreError};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use groups::host::MirrorWord;
use groups::ids::{GroupId, NodeId};
use groups::log::{Disk as _, RealDisk};
use groups::mirrored::MirrorOrder;
use groups::time::Time;
use netio::{FrameBatch, Lane, NetHandle};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::clock::Clock;
use super::logger::EXIT_DISK;
use super::mirror_store::note_failure;
use super::worker::{Letter, Post};
use crate::config::LiveConfig;
use crate::node::mirror::{MirrorEffect, NodeMirror};
use crate::node::readers::{Readers, Ticket};
use crate::status::TransferLine;

/// What the mirror's thread is asked.
pub enum Errand {
    /// A group wants something.
    Order(GroupId, MirrorOrder),
    /// A frame of a peer's mirror.
    Frame(NodeId, GroupId, u8, Bytes),
    /// A client reads a checkpoint: its question, and where the answer goes. It is dropped when there is none.
    Read(GroupId, Bytes, oneshot::Sender<(u8, Bytes)>),
    /// The process ends.
    End,
}

/// Frames of peers that may wait, and their bytes; more are dropped, and asked for again. What a
/// sender has on its way is far less. Orders are bounded by themselves: a group has one under way.
const MAX_FRAMES: usize = 1024;
const MAX_FRAME_BYTES: usize = 96 << 20;

/// The way to the mirror's thread.
#[derive(Clone)]
pub struct MirrorHandle {
    errands: Sender<Errand>,
    waiting: Arc<Waiting>,
}

/// The frames that wait.
#[derive(Debug, Default)]
struct Waiting {
    frames: AtomicUsize,
    bytes: AtomicUsize,
}

impl MirrorHandle {
    /// A handle, and the end that the thread has.
    #[must_use]
    pub fn new() -> (MirrorHandle, Receiver<Errand>) {
        let (errands, receiver) = crossbeam_channel::unbounded();
        (MirrorHandle { errands, waiting: Arc::default() }, receiver)
    }

    /// Hands over what a group wants.
    pub fn order(&self, group: GroupId, order: MirrorOrder) {
        // The thread ends only with the process.
        let _ = self.errands.send(Errand::Order(group, order));
    }

    /// Hands over a peer's frame, unless too many wait.
    pub fn frame(&self, from: NodeId, group: GroupId, kind: u8, body: Bytes) {
        let size = body.len();
        let frames = self.waiting.frames.fetch_add(1, Ordering::Relaxed);
        let bytes = self.waiting.bytes.fetch_add(size, Ordering::Relaxed);
        if frames >= MAX_FRAMES || (frames > 0 && bytes + size > MAX_FRAME_BYTES) {
            return self.taken(size);
        }
        let _ = self.errands.send(Errand::Frame(from, group, kind, body));
    }

    /// Hands over the question of a client that reads a checkpoint.
    pub fn read(&self, group: GroupId, body: Bytes, answer: oneshot::Sender<(u8, Bytes)>) {
        let _ = self.errands.send(Errand::Read(group, body, answer));
    }

    /// A frame of so many bytes does not wait any more.
    fn taken(&self, bytes: usize) {
        self.waiting.frames.fetch_sub(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Ends the thread.
    pub fn end(&self) {
        let _ = self.errands.send(Errand::End);
    }
}

/// Alarms of one kind that are shown.
const MAX_ALARMS: usize = 64;

/// What others may know about the mirror at any time.
#[derive(Debug, Default)]
pub struct MirrorGauge {
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    transfers: Vec<TransferLine>,
    /// What a start has found, for as long as the process lives.
    found: Vec<String>,
    /// What is the matter with a group now.
    groups: BTreeMap<GroupId, String>,
    /// What the mirror as a whole waits for.
    waits: Option<String>,
}

impl MirrorGauge {
    /// Checkpoints on their way.
    #[must_use]
    pub fn transfers(&self) -> Vec<TransferLine> {
        self.shown.lock().transfers.clone()
    }

    /// What an operator should know.
    #[must_use]
    pub fn alarms(&self) -> Vec<String> {
        let shown = self.shown.lock();
        shown
            .found
            .iter()
            .chain(&shown.waits)
            .chain(shown.groups.values().take(MAX_ALARMS))
            .cloned()
            .collect()
    }

    pub(super) fn alarm(&self, text: String) {
        let alarms = &mut self.shown.lock().found;
        if alarms.len() < MAX_ALARMS && !alarms.contains(&text) {
            alarms.push(text);
        }
    }
}

/// What the thread is made of.
pub struct MirrorParts {
    /// The mirror.
    pub mirror: NodeMirror,
    /// Its store's directory.
    pub dir: PathBuf,
    /// Its store's engine.
    pub engine: Engine,
    /// How fast checkpoints are sent, and with how much free space nothing is written any more.
    pub live: Arc<LiveConfig>,
    /// What it is asked.
    pub errands: Receiver<Errand>,
    /// The way to it, for counting frames.
    pub handle: MirrorHandle,
    /// The workers.
    pub posts: Vec<Arc<Post>>,
    /// The network.
    pub net: NetHandle,
    /// Where it shows how it is.
    pub gauge: Arc<MirrorGauge>,
    /// The clock.
    pub clock: Clock,
}

/// How often the mirror is told that time passes.
const TICK: Duration = Duration::from_millis(20);

/// The same while it has nothing to do: no node is woken often for nothing.
const QUIET_TICK: Duration = Duration::from_millis(200);

/// How often transfers are shown anew.
const SHOW: Duration = Duration::from_millis(250);

/// Errands taken up before what came of them is carried out.
const GATHER: usize = 64;

/// How often the free space is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What groups have handed over while there is no space: the newest of each kind. A fold or refill
/// is the only one of its group.
#[derive(Default)]
struct Held(BTreeMap<(GroupId, u8), MirrorOrder>);

impl Held {
    fn keep(&mut self, group: GroupId, order: MirrorOrder) {
        // In the order in which they are done later.
        let kind = match &order {
            MirrorOrder::Discard => {
                // Whatever came before concerns what is to be forgotten.
                self.0.retain(|(held, _), _| *held != group);
                0
            }
            MirrorOrder::Fold(_) | MirrorOrder::Refill(_) => 1,
            MirrorOrder::Settle => 2,
            MirrorOrder::Fetch { .. } | MirrorOrder::Cancel => 3,
        };
        self.0.insert((group, kind), order);
    }
}

/// Runs until told to end.
pub fn run(parts: MirrorParts) {
    let errands = parts.errands.clone();
    let (mut mirror, mut parts) = Running::new(parts);
    let (mut tick_at, mut show_at, mut look_at) = (Time::ZERO, Time::ZERO, Time::ZERO);
    let mut held = Held::default();
    let mut scarce = false;
    loop {
        let patience = match () {
            () if !scarce && mirror.busy() => Duration::ZERO,
            () if scarce || mirror.is_quiet() => QUIET_TICK,
            () => TICK,
        };
        let mut next = match errands.recv_timeout(patience) {
            Ok(errand) => Some(errand),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let now = parts.clock.now();
        if now >= look_at {
            look_at = now + LOOK;
            scarce = parts.look_at_space(scarce);
            mirror.set_rate(parts.live.now().0.checkpoint.transfer_bytes_per_sec.0);
        }
        if !scarce {
            for ((group, _), order) in std::mem::take(&mut held.0) {
                mirror.order(group, order, now);
            }
        }
        let mut taken = 0;
        while let Some(errand) = next {
            match errand {
                Errand::Order(group, order) if scarce => held.keep(group, order),
                Errand::Order(group, order) => mirror.order(group, order, now),
                Errand::Frame(from, group, kind, body) => {
                    parts.handle.taken(body.len());
                    // What is dropped is asked for again.
                    if !scarce {
                        mirror.frame(from, group, kind, body, now);
                    }
                }
                // Dropped: whoever reads a checkpoint asks again.
                Errand::Read(..) if scarce => {}
                Errand::Read(group, body, answer) => {
                    let ticket = parts.take_question(answer);
                    if !mirror.read(group, body, ticket, now) {
                        parts.questions.remove(&ticket);
                    }
                }
                Errand::End => return,
            }
            taken += 1;
            next = if taken < GATHER { errands.try_recv().ok() } else { None };
        }
        if scarce {
            continue;
        }
        let now = parts.clock.now();
        if now >= tick_at {
            tick_at = now + TICK;
            mirror.tick(now);
        }
        if let Some(why) = parts.carry_out(mirror.turn(now)) {
            let closed = mirror.close();
            let Some(store) = parts.wait_for_space(&why, &errands, &mut held) else { return };
            mirror = closed.open(store, parts.clock.now());
        }
        if now >= show_at {
            show_at = now + SHOW;
            parts.gauge.shown.lock().transfers = mirror.transfers().iter().map(|t| line(t, now)).collect();
        }
    }
}

/// What the thread has beside the mirror itself.
struct Running {
    dir: PathBuf,
    engine: Engine,
    live: Arc<LiveConfig>,
    /// For its free space.
    disk: Option<RealDisk>,
    handle: MirrorHandle,
    posts: Vec<Arc<Post>>,
    net: NetHandle,
    gauge: Arc<MirrorGauge>,
    clock: Clock,
    /// Clients that wait for an answer.
    questions: BTreeMap<Ticket, oneshot::Sender<(u8, Bytes)>>,
    /// Questions so far.
    asked: u64,
}

impl Running {
    fn new(parts: MirrorParts) -> (NodeMirror, Running) {
        let MirrorParts { mirror, dir, engine, live, handle, posts, net, gauge, clock, .. } = parts;
        let disk = RealDisk::open(dir.clone()).ok();
        let (questions, asked) = (BTreeMap::new(), 0);
        (mirror, Running { dir, engine, live, disk, handle, posts, net, gauge, clock, questions, asked })
    }

    /// Notes who waits for an answer. Whoever does not wait any more is forgotten.
    fn take_question(&mut self, answer: oneshot::Sender<(u8, Bytes)>) -> Ticket {
        self.questions.retain(|_, waiting| !waiting.is_closed());
        let ticket = Ticket(self.asked);
        self.asked += 1;
        self.questions.insert(ticket, answer);
        ticket
    }

    /// With less free space than this, in bytes, nothing is written. Clients are refused long before, so that what is
    /// left is for shortening the log.
    fn least_free(&self) -> u64 {
        (self.live.now().0.limits.min_free_disk.0 / 4).min(64 << 20)
    }

    /// Whether the space is too scarce to write; said when that changes.
    fn look_at_space(&self, before: bool) -> bool {
        let free = self.disk.as_ref().and_then(|disk| disk.free_space().ok());
        let Some(free) = free else { return before };
        // A little more before it goes on, so that it does not stop at once again.
        let least = self.least_free();
        let scarce = free < if before { least + least / 4 } else { least };
        if scarce != before {
            let alarm = scarce.then(|| waits_for_space(&self.dir, &format!("{free} bytes are free")));
            self.say_waiting(alarm);
        }
        scarce
    }

    fn say_waiting(&self, alarm: Option<String>) {
        match &alarm {
            Some(text) => tracing::error!("{text}"),
            None => tracing::info!("there is space again: the mirror checkpoint goes on"),
        }
        self.gauge.shown.lock().waits = alarm;
    }

    /// Does what the mirror wants done. Says why, when it had no space for a write.
    fn carry_out(&mut self, effects: Vec<MirrorEffect>) -> Option<String> {
        let mut no_space = None;
        for effect in effects {
            match effect {
                MirrorEffect::Send { to, group, kind, body } => {
                    let mut batch = FrameBatch::new();
                    batch.push(group, kind, &[], &body);
                    // What cannot be sent is as good as lost, and asked for again.
                    let _ = self.net.send(to, Lane::Bulk, batch);
                }
                MirrorEffect::Answer { ticket, kind, body } => {
                    if let Some(waiting) = self.questions.remove(&ticket) {
                        // Who has gone needs no answer.
                        let _ = waiting.send((kind, body));
                    }
                }
                MirrorEffect::Word(group, word) => {
                    if let MirrorWord::Installed(mark, state) = &word {
                        tracing::info!(
                            group = group.0,
                            instance = mark.instance.0,
                            keys = state.len(),
                            "a checkpoint from a peer was verified and is in force"
                        );
                    }
                    self.posts[group.0 as usize % self.posts.len()].mail.push(Letter::Mirror(group, word));
                }
                MirrorEffect::Alarm(group, text) => {
                    tracing::error!("{text}");
                    self.gauge.shown.lock().groups.insert(group, text);
                }
                MirrorEffect::AlarmOver(group) => {
                    tracing::info!(group = group.0, "the mirror of the group is whole again");
                    self.gauge.shown.lock().groups.remove(&group);
                }
                MirrorEffect::NoSpace(why) => no_space = Some(why),
                MirrorEffect::Failed(why) => self.fail(&why),
            }
        }
        no_space
    }

    fn fail(&self, why: &str) -> ! {
        note_failure(&self.dir, why);
        tracing::error!(
            "the mirror checkpoint failed: {why}. The process ends, because after a failed write or sync nobody can say \
             what is on the disk. Nothing that was acknowledged is lost. Check the disk, then start the node again"
        );
        std::process::exit(EXIT_DISK);
    }

    /// Waits until the store, which had no space for a write, has some and is opened anew. `None`
    /// when the process ends.
    fn wait_for_space(&self, why: &str, errands: &Receiver<Errand>, held: &mut Held) -> Option<MirrorStore> {
        self.say_waiting(Some(waits_for_space(&self.dir, why)));
        let mut look_at = self.clock.now() + LOOK;
        loop {
            match errands.recv_timeout(TICK) {
                Ok(Errand::Order(group, order)) => held.keep(group, order),
                Ok(Errand::Frame(_, _, _, body)) => self.handle.taken(body.len()),
                Ok(Errand::Read(..)) => {}
                Ok(Errand::End) | Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = self.clock.now();
            if now < look_at {
                continue;
            }
            look_at = now + LOOK;
            let free = self.disk.as_ref().and_then(|disk| disk.free_space().ok());
            if free.is_some_and(|free| free < self.least_free().max(REOPEN)) {
                continue;
            }
            match MirrorStore::open(&self.dir, self.engine, &Sizes::default()) {
                Ok(store) => {
                    self.say_waiting(None);
                    return Some(store);
                }
                Err(StoreError::Io { .. } | StoreError::Locked { .. } | StoreError::NoSpace { .. }) => {}
                Err(e) => self.fail(&e.to_string()),
            }
        }
    }
}

/// The free space that it takes at least to open a store that had none.
const REOPEN: u64 = 16 << 20;

fn waits_for_space(dir: &Path, why: &str) -> String {
    format!(
        "the mirror checkpoint in {} waits for space on the disk: {why}. Nothing is lost, but the log cannot be \
         shortened meanwhile. Make room; it goes on by itself",
        dir.display()
    )
}

fn line(transfer: &Transfer, now: Time) -> TransferLine {
    TransferLine {
        group: transfer.group.0,
        peer: if Readers::is_seat(transfer.peer) { 0 } else { transfer.peer.0 },
        incoming: transfer.direction == Direction::In,
        bytes: transfer.bytes,
        expected_bytes: transfer.expected,
        elapsed_s: now.since(transfer.started).as_secs_f64(),
    }
}
