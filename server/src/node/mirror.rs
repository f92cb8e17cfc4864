//! Between the groups of a node and its mirror: orders in, words out.
//!
//! Deterministic, like everything here: `runtime` puts a thread around it, the simulator its
//! scheduler.

use std::collections::BTreeMap;

use bytes::Bytes;
use checkpoint::mirror::{CHUNK, Event, FETCH, Fold, HEAD, Mirror, NONE, Transfer};
use checkpoint::store::{Image as StoredImage, MirrorStore, Point, Position, StoreError};
use checkpoint::{Chain, Entry, StateDigest};
use groups::host::MirrorWord;
use groups::ids::{GroupId, NodeId};
use groups::kv::state::Item;
use groups::kv::{self, Head, Image, State, StateHash};
use groups::mirrored::MirrorOrder;
use groups::paxos::Members;
use groups::paxos::message::Mark;
use groups::time::Time;

/// What the mirror wants done.
#[derive(Debug)]
pub enum MirrorEffect {
    /// To be sent to a peer's mirror, behind everything that a quorum waits for.
    Send {
        /// The receiver.
        to: NodeId,
        /// The group.
        group: GroupId,
        /// The frame's kind.
        kind: u8,
        /// Its body.
        body: Bytes,
    },
    /// To be told to a group.
    Word(GroupId, MirrorWord),
    /// Something that an operator should know; the groups serve on.
    Alarm(String),
    /// A write or sync of the mirror failed: what is on its disk is not known any more, and only
    /// opening it anew tells. The process ends.
    Failed(String),
}

/// Groups that are read back in one turn: peers that fetch wait meanwhile.
const SETTLED_AT_ONCE: usize = 4;

/// The mirror of a node.
pub struct NodeMirror {
    mirror: Mirror,
    /// Groups whose settling was ordered: one sync for all of them.
    settle: Vec<GroupId>,
    effects: Vec<MirrorEffect>,
}

impl NodeMirror {
    /// A node's end of a mirror.
    #[must_use]
    pub fn new(mirror: Mirror) -> NodeMirror {
        NodeMirror { mirror, settle: Vec::new(), effects: Vec::new() }
    }

    /// Makes these groups durable at once, before anything is built on what they hold.
    ///
    /// # Errors
    /// When the mirror fails: then the node must not start.
    pub fn settle_now(&mut self, groups: &[GroupId], now: Time) -> Result<(), StoreError> {
        if !groups.is_empty() {
            self.mirror.settle(groups, now);
        }
        if let Some(reason) = self.mirror.poisoned() {
            return Err(StoreError::Poisoned { reason: reason.to_owned() });
        }
        match groups.iter().find(|group| self.mirror.durable(**group).is_none()) {
            // It was lost on the way. The log alone is a whole, if an older one: started anew,
            // the node goes on from that.
            Some(group) => Err(StoreError::Damaged {
                group: *group,
                reason: "it was ahead of the log, and could not be read back".into(),
            }),
            None => Ok(()),
        }
    }

    /// What a group asks for.
    pub fn order(&mut self, group: GroupId, order: MirrorOrder, now: Time) {
        match order {
            MirrorOrder::Fold(fold) => self.mirror.fold(stored_fold(group, fold)),
            MirrorOrder::Refill(image) => {
                let Image { head, sessions, items } = image;
                let entries = items.into_iter().map(|(key, item)| entry(key, item)).collect();
                self.mirror.refill(group, position(&head), sessions, entries);
            }
            MirrorOrder::Settle => {
                if !self.settle.contains(&group) {
                    self.settle.push(group);
                }
            }
            MirrorOrder::Discard => self.mirror.give_up(group),
            MirrorOrder::Fetch { least, sources } => {
                let above = groups::ids::InstanceId(least.0.saturating_sub(1));
                self.mirror.want(group, above, sources, now);
            }
            MirrorOrder::Cancel => self.mirror.cancel(group),
        }
    }

    /// A frame of a peer's mirror.
    pub fn frame(&mut self, from: NodeId, group: GroupId, kind: u8, body: Bytes, now: Time) {
        self.mirror.on_frame(from, group, kind, body, now);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) {
        self.mirror.tick(now);
    }

    /// Ends a turn.
    pub fn turn(&mut self, now: Time) -> Vec<MirrorEffect> {
        let mut proven = Vec::new();
        if !self.settle.is_empty() {
            let groups: Vec<GroupId> = self.settle.drain(..self.settle.len().min(SETTLED_AT_ONCE)).collect();
            proven = self.mirror.settle(&groups, now);
        }
        for event in self.mirror.turn() {
            let effect = match event {
                Event::Send { to, group, kind, body } => MirrorEffect::Send { to, group, kind, body },
                Event::Folded { group, applied } => MirrorEffect::Word(group, MirrorWord::Folded(applied)),
                Event::Durable(points) => {
                    let words = points
                        .into_iter()
                        .map(|(group, point)| MirrorEffect::Word(group, MirrorWord::Settled(mark(&point))));
                    self.effects.extend(words);
                    continue;
                }
                Event::Installed { group, image, entries } => {
                    let mark = mark_of(&image.position);
                    // Hashed and built here: the groups' own thread has heartbeats to send.
                    let state = live_image(image, entries)
                        .and_then(|image| image.into_state().map_err(|e| e.to_string()));
                    let word = match state {
                        Ok(state) => MirrorWord::Installed(mark, Box::new(state)),
                        Err(e) => {
                            let text = format!("a checkpoint of group {group} that is no state: {e}");
                            self.effects.push(MirrorEffect::Alarm(text));
                            MirrorWord::Lost
                        }
                    };
                    MirrorEffect::Word(group, word)
                }
                Event::Refill { group, why } => {
                    self.effects.push(MirrorEffect::Alarm(format!(
                        "the mirror of group {group} cannot go on ({why}): it is built anew from the group's state"
                    )));
                    MirrorEffect::Word(group, MirrorWord::Lost)
                }
                Event::Wanted { group, through } => MirrorEffect::Word(group, MirrorWord::Wanted(through)),
                Event::Unmirrored { group, why } => {
                    self.effects.push(MirrorEffect::Alarm(format!(
                        "group {group} cannot be mirrored: {why}. It serves on, but it holds the log back; it is \
                         tried again every minute"
                    )));
                    MirrorEffect::Word(group, MirrorWord::Unmirrored)
                }
                Event::Poisoned { why } => MirrorEffect::Failed(why),
            };
            self.effects.push(effect);
        }
        let words = proven
            .into_iter()
            .map(|(group, point)| MirrorEffect::Word(group, MirrorWord::Proven(mark(&point))));
        self.effects.extend(words);
        std::mem::take(&mut self.effects)
    }

    /// Whether another turn would do more without anything happening before.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.mirror.busy() || !self.settle.is_empty()
    }

    /// Checkpoints on their way in and out.
    #[must_use]
    pub fn transfers(&self) -> Vec<Transfer> {
        self.mirror.transfers()
    }

    /// The mirror itself.
    #[must_use]
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }
}

/// What a store has of the groups of a node.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Each group's state, with the chained checksum at it.
    pub states: BTreeMap<GroupId, (State, u64)>,
    /// Points that were verified and recorded in earlier lives.
    pub durable: BTreeMap<GroupId, Mark>,
    /// Groups that the store has lost, and why.
    pub lost: BTreeMap<GroupId, String>,
}

impl Loaded {
    /// Takes in what came of loading a group.
    pub fn add(&mut self, group: GroupId, loaded: Result<Option<(State, u64)>, String>) {
        match loaded {
            Ok(Some(state)) => {
                self.states.insert(group, state);
            }
            Ok(None) => {}
            Err(why) => {
                self.lost.insert(group, why);
            }
        }
    }

    /// Notes which points earlier lives have recorded, and makes the store forget the groups that
    /// it has lost: they are built anew, from the log where it reaches back, else from a peer.
    ///
    /// # Errors
    /// When the store fails.
    pub fn settle(&mut self, store: &MirrorStore) -> Result<(), StoreError> {
        for (group, why) in &self.lost {
            tracing::error!(group = group.0, "the mirror has lost a group, which is built anew: {why}");
            store.discard(*group)?;
        }
        self.durable = store.durable_points().iter().map(|(group, point)| (*group, mark(point))).collect();
        Ok(())
    }
}

/// Whether a frame of this kind is for the mirror.
#[must_use]
pub fn is_mirror_frame(kind: u8) -> bool {
    matches!(kind, FETCH | HEAD | CHUNK | NONE)
}

/// Loads one group: every entry is hashed, and a store whose content is not what its position
/// says has lost it.
///
/// # Errors
/// When the group has to be built anew.
pub fn load_group(store: &MirrorStore, group: GroupId) -> Result<Option<(State, u64)>, String> {
    let mut entries = Vec::new();
    let image = match store.load(group, |entry| entries.push(entry)) {
        Ok(image) => image,
        Err(StoreError::Absent { .. }) => return Ok(None),
        Err(StoreError::Damaged { reason, .. }) => return Err(reason),
        Err(e) => return Err(e.to_string()),
    };
    if image.position.applied == groups::ids::InstanceId::ZERO {
        return Ok(None);
    }
    let image = live_image(image, entries)?;
    let chain = image.head.chain;
    image.into_state().map(|state| Some((state, chain))).map_err(|e| e.to_string())
}

/// The point as the log knows it.
#[must_use]
pub fn mark(point: &Point) -> Mark {
    Mark { instance: point.applied, chain: point.chain.0 }
}

fn mark_of(position: &Position) -> Mark {
    Mark { instance: position.applied, chain: position.chain.0 }
}

fn position(head: &Head) -> Position {
    Position {
        applied: head.applied,
        chain: Chain(head.chain),
        state_hash: StateDigest(head.hash.to_bytes()),
        revision: head.revision,
        epoch: head.epoch,
        membership: head.members.as_ref().map_or_else(Bytes::new, Members::encode),
    }
}

fn entry(key: Box<[u8]>, item: Item) -> Entry {
    Entry { key: Bytes::from(key), value: item.value, revision: item.revision, expiry: 0 }
}

fn stored_fold(group: GroupId, fold: kv::Fold) -> Fold {
    let kv::Fold { from, head, sessions, items } = fold;
    let (mut entries, mut removed) = (Vec::with_capacity(items.len()), Vec::new());
    for (key, item) in items {
        match item {
            Some(item) => entries.push(entry(key, item)),
            None => removed.push(Bytes::from(key)),
        }
    }
    Fold { group, from, to: position(&head), sessions, entries, removed }
}

fn live_image(image: StoredImage, entries: Vec<Entry>) -> Result<Image, String> {
    let StoredImage { position, sessions, .. } = image;
    let members = if position.membership.is_empty() {
        None
    } else {
        let members = Members::decode(position.membership);
        Some(members.ok_or_else(|| "its members have no known shape".to_owned())?)
    };
    let head = Head {
        applied: position.applied,
        chain: position.chain.0,
        hash: StateHash::from_bytes(position.state_hash.0),
        revision: position.revision,
        epoch: position.epoch,
        members,
    };
    let items = entries
        .into_iter()
        .map(|e| (Box::from(&e.key[..]), Item { value: e.value, revision: e.revision }))
        .collect();
    Ok(Image { head, sessions, items })
}
