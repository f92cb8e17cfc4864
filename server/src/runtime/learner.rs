//! The learner thread: reads the log for peers that are behind, beside the thread that writes it.
//!
//! Each session has one chunk under way at most, so taking them in the order in which they come
//! is a round robin: of many groups that catch up at once each has its turn. A peer whose bulk
//! queue is long waits, the others do not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use groups::ids::NodeId;
use groups::log::{LogReader, ReadError, RealDisk};
use groups::paxos::{LogFound, LogRead};
use netio::{Lane, NetHandle};

use super::clock::Clock;
use super::scrub::ScrubGauge;
use super::worker::{Letter, Post};

/// What the learner thread is asked.
pub enum Lesson {
    /// Read for a shard.
    Read(u32, LogRead),
    /// End.
    End,
}

/// While more bytes than this wait for a peer, nothing is read for it.
const QUEUED: usize = 8 << 20;

/// How often it is looked whether a long queue has become shorter.
const LOOK: Duration = Duration::from_millis(1);

/// What the thread is made of.
pub struct LearnerParts {
    /// The log, for reading.
    pub log: LogReader<RealDisk>,
    /// What it is asked.
    pub lessons: Receiver<Lesson>,
    /// This node: what it reads for itself goes through no queue.
    pub me: NodeId,
    /// The workers.
    pub posts: Vec<Arc<Post>>,
    /// The network.
    pub net: NetHandle,
    /// Where damage is reported.
    pub scrub: Arc<ScrubGauge>,
    /// The clock.
    pub clock: Clock,
}

/// Runs until told to end.
pub fn run(mut parts: LearnerParts) {
    let mut waiting: VecDeque<(u32, LogRead)> = VecDeque::new();
    loop {
        match take(&parts.lessons, waiting.is_empty()) {
            Some(Lesson::Read(shard, read)) => {
                parts.log.pin(read.group, read.reader, read.from, parts.clock.now());
                waiting.push_back((shard, read));
                continue;
            }
            Some(Lesson::End) => return,
            None => {}
        }
        let mut long: BTreeMap<NodeId, bool> = BTreeMap::new();
        let may = |(_, read): &(u32, LogRead)| {
            let queued =
                || read.reader != parts.me && parts.net.queued_bytes(read.reader, Lane::Bulk) >= QUEUED;
            !*long.entry(read.reader).or_insert_with(queued)
        };
        match waiting.iter().position(may).and_then(|at| waiting.remove(at)) {
            Some((shard, read)) => serve(&mut parts, shard, read),
            None => std::thread::sleep(LOOK),
        }
    }
}

/// What is asked next; waits for it if there is nothing else to do.
fn take(lessons: &Receiver<Lesson>, idle: bool) -> Option<Lesson> {
    if idle {
        return Some(lessons.recv().unwrap_or(Lesson::End));
    }
    match lessons.try_recv() {
        Ok(lesson) => Some(lesson),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Disconnected) => Some(Lesson::End),
    }
}

fn serve(parts: &mut LearnerParts, shard: u32, read: LogRead) {
    parts.log.pin(read.group, read.reader, read.from, parts.clock.now());
    let found = match read.run(&mut parts.log) {
        Ok(found) => found,
        Err(ReadError::Poisoned) => return,
        Err(e) => {
            if let ReadError::Damaged(damage) = &e {
                parts.scrub.found(damage);
            }
            tracing::error!(
                group = read.group.0,
                peer = read.reader.0,
                instance = read.from.0,
                "cannot serve a peer from the log: {e}. Nothing of it was sent; the peer asks another node"
            );
            LogFound::Entries(Vec::new())
        }
    };
    parts.posts[shard as usize].mail.push(Letter::LogRead(read, found));
}
