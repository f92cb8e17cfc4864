//! From the network thread to the workers: frames are dealt out by group.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use groups::ids::NodeId;
use netio::{Demux, Frame, FrameBatch, Lane, NO_GROUP, NetHandle, Peer};

use super::cut::Cut;
use super::memory::MemoryHandle;
use super::mirror::MirrorHandle;
use super::roster::RosterHandle;
use super::worker::{Letter, Post};
use crate::node::birth::Word;
use crate::node::manifest::Stage;
use crate::node::mirror::is_mirror_frame;
use crate::node::wire;

/// Words of the birth that wait to be heard; more are dropped, they are repeated anyway.
const MAX_WORDS: usize = 256;

/// Takes what the peers send.
pub struct PeerDemux {
    net: NetHandle,
    cut: Arc<Cut>,
    switchboard: Switchboard,
    words: Sender<(NodeId, Word)>,
    /// Frames of one readiness, by worker.
    sorted: Vec<Vec<Frame>>,
}

/// Where frames go, as it becomes known during the start.
#[derive(Clone)]
pub struct Switchboard {
    inner: Arc<Inner>,
    words: Receiver<(NodeId, Word)>,
}

struct Inner {
    posts: OnceLock<(Vec<Arc<Post>>, MirrorHandle)>,
    /// What an unborn node is told by a born one, what is remembered of its lives, and where the
    /// newest roster is.
    born: OnceLock<(Word, MemoryHandle, RosterHandle)>,
}

impl Switchboard {
    /// Words of the birth that have come.
    pub fn words(&self) -> &Receiver<(NodeId, Word)> {
        &self.words
    }

    /// The cluster is born here: from now on `word` is what the unborn are told.
    pub fn born(&self, word: Word, memory: MemoryHandle, roster: RosterHandle) {
        let _ = self.inner.born.set((word, memory, roster));
    }

    /// The workers take frames from now on; what came earlier was dropped.
    pub fn connect(&self, posts: &[Arc<Post>], mirror: MirrorHandle) {
        let _ = self.inner.posts.set((posts.to_vec(), mirror));
    }
}

impl PeerDemux {
    /// A demultiplexer whose workers are not there yet.
    #[must_use]
    pub fn new(net: NetHandle, cut: Arc<Cut>) -> PeerDemux {
        let (sender, receiver) = crossbeam_channel::bounded(MAX_WORDS);
        let inner = Arc::new(Inner { posts: OnceLock::new(), born: OnceLock::new() });
        let switchboard = Switchboard { inner, words: receiver };
        PeerDemux { net, cut, switchboard, words: sender, sorted: Vec::new() }
    }

    /// The other side's end.
    #[must_use]
    pub fn switchboard(&self) -> Switchboard {
        self.switchboard.clone()
    }

    fn birth(&self, from: NodeId, body: Bytes) {
        let Some(word) = Word::decode(body) else { return };
        match self.switchboard.inner.born.get() {
            Some((answer, memory, roster)) => {
                if !matches!(word.stage, Stage::Born(..)) {
                    let (heard, roster) = (memory.boot_of(from), Some(roster.current()));
                    let answer = Word { heard, roster, ..answer.clone() }.encode();
                    let mut batch = FrameBatch::new();
                    batch.push(NO_GROUP, wire::BIRTH, &answer, &Bytes::new());
                    let _ = self.net.send(from, Lane::Consensus, batch);
                }
            }
            None => {
                let _ = self.words.try_send((from, word));
            }
        }
    }
}

impl Demux for PeerDemux {
    fn frames(&mut self, peer: &Peer, frames: &mut Vec<Frame>) {
        if self.cut.drops(peer.node) {
            frames.clear();
            return;
        }
        let connected = self.switchboard.inner.posts.get();
        let workers = connected.map_or(0, |(posts, _)| posts.len());
        self.sorted.resize_with(workers, Vec::new);
        for frame in frames.drain(..) {
            if frame.kind == wire::BIRTH {
                self.birth(peer.node, frame.body);
            } else if workers == 0 {
                // Not serving yet; whatever matters is said again.
            } else if is_mirror_frame(frame.kind) {
                if let Some((_, mirror)) = connected {
                    mirror.frame(peer.node, frame.group, frame.kind, frame.body);
                }
            } else if frame.group == NO_GROUP {
                for post in connected.iter().flat_map(|(posts, _)| posts) {
                    post.beats.push((peer.node, frame.clone()));
                }
            } else {
                self.sorted[frame.group.0 as usize % workers].push(frame);
            }
        }
        if let Some((posts, _)) = connected {
            for (post, sorted) in posts.iter().zip(&mut self.sorted) {
                if !sorted.is_empty() {
                    post.mail.push(Letter::Frames(peer.node, std::mem::take(sorted)));
                }
            }
        }
    }

    fn link_up(&mut self, peer: &Peer) {
        tracing::info!(node = peer.node.0, boot = peer.boot.0, lane = ?peer.lane, "peer connected");
    }

    fn link_down(&mut self, peer: &Peer, why: &str) {
        tracing::info!(node = peer.node.0, lane = ?peer.lane, "peer disconnected: {why}");
    }
}
