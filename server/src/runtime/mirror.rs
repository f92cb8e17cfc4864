//! The mirror's thread: takes in what groups hand over, serves and fetches checkpoints. It runs
//! beside everything else and nothing waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use checkpoint::mirror::{Direction, Transfer};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use groups::host::MirrorWord;
use groups::ids::{GroupId, NodeId};
use groups::mirrored::MirrorOrder;
use groups::time::Time;
use netio::{FrameBatch, Lane, NetHandle};
use parking_lot::Mutex;

use super::clock::Clock;
use super::logger::EXIT_DISK;
use super::mirror_store::note_failure;
use super::worker::{Letter, Post};
use crate::node::mirror::{MirrorEffect, NodeMirror};
use crate::status::TransferLine;

/// What the mirror's thread is asked.
pub enum Errand {
    /// A group wants something.
    Order(GroupId, MirrorOrder),
    /// A frame of a peer's mirror.
    Frame(NodeId, GroupId, u8, Bytes),
    /// The process ends.
    End,
}

/// Frames of peers that may wait; more are dropped, and asked for again. Orders are bounded by
/// themselves: a group has one under way.
const MAX_FRAMES: usize = 1024;

/// The way to the mirror's thread.
#[derive(Clone)]
pub struct MirrorHandle {
    errands: Sender<Errand>,
    frames: Arc<AtomicUsize>,
}

impl MirrorHandle {
    /// A handle, and the end that the thread has.
    #[must_use]
    pub fn new() -> (MirrorHandle, Receiver<Errand>) {
        let (errands, receiver) = crossbeam_channel::unbounded();
        (MirrorHandle { errands, frames: Arc::new(AtomicUsize::new(0)) }, receiver)
    }

    /// Hands over what a group wants.
    pub fn order(&self, group: GroupId, order: MirrorOrder) {
        // The thread ends only with the process.
        let _ = self.errands.send(Errand::Order(group, order));
    }

    /// Hands over a peer's frame, unless too many wait.
    pub fn frame(&self, from: NodeId, group: GroupId, kind: u8, body: Bytes) {
        if self.frames.fetch_add(1, Ordering::Relaxed) >= MAX_FRAMES {
            self.frames.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let _ = self.errands.send(Errand::Frame(from, group, kind, body));
    }

    /// Ends the thread.
    pub fn end(&self) {
        let _ = self.errands.send(Errand::End);
    }
}

/// What others may know about the mirror at any time.
#[derive(Debug, Default)]
pub struct MirrorGauge {
    shown: Mutex<(Vec<TransferLine>, Vec<String>)>,
}

impl MirrorGauge {
    /// Checkpoints on their way.
    #[must_use]
    pub fn transfers(&self) -> Vec<TransferLine> {
        self.shown.lock().0.clone()
    }

    /// What an operator should know.
    #[must_use]
    pub fn alarms(&self) -> Vec<String> {
        self.shown.lock().1.clone()
    }

    pub(super) fn alarm(&self, text: String) {
        let alarms = &mut self.shown.lock().1;
        if alarms.len() < 64 && !alarms.contains(&text) {
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

/// How often transfers are shown anew.
const SHOW: Duration = Duration::from_millis(250);

/// Errands taken up before what came of them is carried out.
const GATHER: usize = 64;

/// Runs until told to end.
pub fn run(parts: MirrorParts) {
    let MirrorParts { mut mirror, dir, errands, handle, posts, net, gauge, clock } = parts;
    let mut tick_at = Time::ZERO;
    let mut show_at = Time::ZERO;
    loop {
        let patience = if mirror.busy() { Duration::ZERO } else { TICK };
        let mut next = match errands.recv_timeout(patience) {
            Ok(errand) => Some(errand),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let now = clock.now();
        let mut taken = 0;
        while let Some(errand) = next {
            match errand {
                Errand::Order(group, order) => mirror.order(group, order, now),
                Errand::Frame(from, group, kind, body) => {
                    handle.frames.fetch_sub(1, Ordering::Relaxed);
                    mirror.frame(from, group, kind, body, now);
                }
                Errand::End => return,
            }
            taken += 1;
            next = if taken < GATHER { errands.try_recv().ok() } else { None };
        }
        let now = clock.now();
        if now >= tick_at {
            tick_at = now + TICK;
            mirror.tick(now);
        }
        for effect in mirror.turn(now) {
            match effect {
                MirrorEffect::Send { to, group, kind, body } => {
                    let mut batch = FrameBatch::new();
                    batch.push(group, kind, &[], &body);
                    // What cannot be sent is as good as lost, and asked for again.
                    let _ = net.send(to, Lane::Bulk, batch);
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
                    posts[group.0 as usize % posts.len()].mail.push(Letter::Mirror(group, word));
                }
                MirrorEffect::Alarm(text) => {
                    tracing::error!("{text}");
                    gauge.alarm(text);
                }
                MirrorEffect::Failed(why) => {
                    note_failure(&dir, &why);
                    tracing::error!(
                        "the mirror checkpoint failed: {why}. The process ends, because after a failed write or sync \
                         nobody can say what is on the disk. Nothing that was acknowledged is lost. Check the disk, \
                         then start the node again"
                    );
                    std::process::exit(EXIT_DISK);
                }
            }
        }
        if now >= show_at {
            show_at = now + SHOW;
            gauge.shown.lock().0 = mirror.transfers().iter().map(|t| line(t, now)).collect();
        }
    }
}

fn line(transfer: &Transfer, now: Time) -> TransferLine {
    TransferLine {
        group: transfer.group.0,
        peer: transfer.peer.0,
        incoming: transfer.direction == Direction::In,
        bytes: transfer.bytes,
        expected_bytes: transfer.expected,
        elapsed_s: now.since(transfer.started).as_secs_f64(),
    }
}
