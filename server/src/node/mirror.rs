//! Between the groups of a node and its mirror: orders in, words out.
//!
//! Deterministic, like everything here: `runtime` puts a thread around it, the simulator its
//! scheduler.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use checkpoint::mirror::wire::{self, Frame};
use checkpoint::mirror::{CHUNK, Event, FETCH, Fold, HEAD, Mirror, MirrorConfig, NONE, Transfer};
use checkpoint::store::{Image as StoredImage, MirrorStore, Point, Position, StoreError};
use checkpoint::{Chain, Entry, EntryRef, StateDigest};
use groups::host::MirrorWord;
use groups::ids::{GroupId, InstanceId, NodeId};
use groups::kv::state::Item;
use groups::kv::{self, Head, Image, State, StateHash};
use groups::mirrored::MirrorOrder;
use groups::paxos::Members;
use groups::paxos::message::Mark;
use groups::time::Time;

use super::readers::{Readers, Ticket};

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
    /// The answer to what a client that reads a checkpoint has asked.
    Answer {
        /// The question.
        ticket: Ticket,
        /// The frame's kind.
        kind: u8,
        /// Its body.
        body: Bytes,
    },
    /// To be told to a group.
    Word(GroupId, MirrorWord),
    /// Something about a group that an operator should know until it is over; the groups serve on.
    Alarm(GroupId, String),
    /// What the last alarm of a group said is over.
    AlarmOver(GroupId),
    /// There was no space for a write, which has not happened. The mirror does nothing until its
    /// store has been opened anew: [`NodeMirror::close`].
    NoSpace(String),
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
    /// Groups that have handed something over and have no answer yet.
    under_way: BTreeSet<GroupId>,
    /// Groups with an alarm.
    alarmed: BTreeSet<GroupId>,
    /// Clients that read checkpoints.
    readers: Readers,
    effects: Vec<MirrorEffect>,
}

/// A mirror whose store had no space and is to be opened anew.
#[derive(Debug)]
pub struct Closed {
    config: MirrorConfig,
    wanted: Vec<(GroupId, InstanceId, Vec<NodeId>)>,
    settle: Vec<GroupId>,
    under_way: BTreeSet<GroupId>,
    alarmed: BTreeSet<GroupId>,
}

impl Closed {
    /// Goes on over the store, which has been opened anew. What was on its way when the space
    /// ran out is asked for again.
    #[must_use]
    pub fn open(self, store: MirrorStore, now: Time) -> NodeMirror {
        let Closed { config, wanted, settle, under_way, alarmed } = self;
        let mut mirror = Mirror::new(store, config, now);
        for (group, above, sources) in wanted {
            mirror.want(group, above, sources, now);
        }
        let lost = |group| MirrorEffect::Word(group, MirrorWord::Lost);
        let effects = under_way.into_iter().map(lost).collect();
        let (under_way, readers) = (BTreeSet::new(), Readers::default());
        NodeMirror { mirror, settle, under_way, alarmed, readers, effects }
    }
}

impl NodeMirror {
    /// A node's end of a mirror.
    #[must_use]
    pub fn new(mirror: Mirror) -> NodeMirror {
        let (under_way, alarmed) = (BTreeSet::new(), BTreeSet::new());
        let (settle, readers, effects) = (Vec::new(), Readers::default(), Vec::new());
        NodeMirror { mirror, settle, under_way, alarmed, readers, effects }
    }

    /// From now on checkpoints leave at this rate in bytes per second; 0 is no limit.
    pub fn set_rate(&mut self, bytes_per_sec: u64) {
        self.mirror.set_rate(bytes_per_sec);
    }

    /// Gives up the store, which had no space: it can be opened anew then.
    #[must_use]
    pub fn close(self) -> Closed {
        let NodeMirror { mirror, settle, under_way, alarmed, .. } = self;
        let (config, wanted) = mirror.close();
        Closed { config, wanted, settle, under_way, alarmed }
    }

    /// Makes these groups durable at once, before anything is built on what they hold.
    ///
    /// # Errors
    /// When the mirror fails: then the node must not start.
    pub fn settle_now(&mut self, groups: &[GroupId], now: Time) -> Result<(), StoreError> {
        if !groups.is_empty() {
            self.mirror.settle(groups, now);
        }
        if let Some(reason) = self.mirror.poisoned().map(str::to_owned) {
            let lacks_space = self.mirror.lacks_space();
            return Err(if lacks_space {
                StoreError::NoSpace { reason }
            } else {
                StoreError::Poisoned { reason }
            });
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
        if matches!(order, MirrorOrder::Fold(_) | MirrorOrder::Refill(_)) {
            self.under_way.insert(group);
        }
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
                let above = InstanceId(least.0.saturating_sub(1));
                self.mirror.want(group, above, sources, now);
            }
            MirrorOrder::Cancel => self.mirror.cancel(group),
        }
    }

    /// A frame of a peer's mirror.
    pub fn frame(&mut self, from: NodeId, group: GroupId, kind: u8, body: Bytes, now: Time) {
        self.mirror.on_frame(from, group, kind, body, now);
    }

    /// A question of a client that reads a checkpoint: the body of a `FETCH` frame, of which each asks
    /// for one frame. Says whether it is one; else there will be no answer.
    pub fn read(&mut self, group: GroupId, body: Bytes, ticket: Ticket, now: Time) -> bool {
        let Ok(Frame::Fetch(fetch)) = Frame::decode(FETCH, &body) else { return false };
        if fetch.above == InstanceId(u64::MAX) {
            return false;
        }
        let applied = self.mirror.applied(group);
        let answer = |why| {
            let nothing = wire::Nothing { attempt: fetch.attempt, why, applied };
            let (kind, body) = Frame::Nothing(nothing).encode();
            MirrorEffect::Answer { ticket, kind, body }
        };
        let Some((seat, _)) = self.readers.ask(fetch.attempt.boot, group, ticket, now) else {
            self.effects.push(answer(wire::Why::Busy));
            return true;
        };
        if fetch.credit == 0 {
            // The end of a transfer, which the mirror has no answer to.
            self.readers.answered(seat, group);
            self.effects.push(answer(wire::Why::Soon));
        }
        self.mirror.on_frame(seat, group, FETCH, body, now);
        true
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
                Event::Send { to, group, kind, body } if Readers::is_seat(to) => {
                    match self.readers.answered(to, group) {
                        Some(ticket) => MirrorEffect::Answer { ticket, kind, body },
                        // Whoever asked has asked for something else since.
                        None => continue,
                    }
                }
                Event::Send { to, group, kind, body } => MirrorEffect::Send { to, group, kind, body },
                Event::Folded { group, applied } => {
                    self.answered(group);
                    if self.alarmed.remove(&group) {
                        self.effects.push(MirrorEffect::AlarmOver(group));
                    }
                    MirrorEffect::Word(group, MirrorWord::Folded(applied))
                }
                Event::Durable(points) => {
                    let words = points
                        .into_iter()
                        .map(|(group, point)| MirrorEffect::Word(group, MirrorWord::Settled(mark(&point))));
                    self.effects.extend(words);
                    continue;
                }
                Event::Installed { group, image, entries } => {
                    let hash = found_hash(&image);
                    let item = |e: Entry| {
                        let item = Item { value: e.value, revision: e.revision, expires: e.expiry };
                        (kv::Key::new(&e.key), item)
                    };
                    let mark = mark_of(&image.position);
                    // Built here: the groups' own thread has heartbeats to send.
                    let state = live_image(image, entries.into_iter().map(item).collect())
                        .and_then(|image| image.into_state_of(hash).map_err(|e| e.to_string()));
                    let word = match state {
                        Ok(state) => {
                            if self.alarmed.remove(&group) {
                                self.effects.push(MirrorEffect::AlarmOver(group));
                            }
                            MirrorWord::Installed(mark, Box::new(state))
                        }
                        Err(e) => {
                            let text = format!("a checkpoint of group {group} that is no state: {e}");
                            self.alarm(group, text);
                            MirrorWord::Lost
                        }
                    };
                    MirrorEffect::Word(group, word)
                }
                Event::Refill { group, why } => {
                    self.answered(group);
                    self.alarm(
                        group,
                        format!(
                            "the mirror of group {group} cannot go on ({why}): it is built anew from the group's state"
                        ),
                    );
                    MirrorEffect::Word(group, MirrorWord::Lost)
                }
                Event::Wanted { group, through } => MirrorEffect::Word(group, MirrorWord::Wanted(through)),
                Event::Unmirrored { group, why } => {
                    self.answered(group);
                    self.alarm(
                        group,
                        format!(
                            "group {group} cannot be mirrored: {why}. It serves on, but it holds the log back; it is \
                             tried again every minute"
                        ),
                    );
                    MirrorEffect::Word(group, MirrorWord::Unmirrored)
                }
                Event::Poisoned { why } => MirrorEffect::Failed(why),
                Event::NoSpace { why } => MirrorEffect::NoSpace(why),
            };
            self.effects.push(effect);
        }
        let words = proven
            .into_iter()
            .map(|(group, point)| MirrorEffect::Word(group, MirrorWord::Proven(mark(&point))));
        self.effects.extend(words);
        std::mem::take(&mut self.effects)
    }

    fn answered(&mut self, group: GroupId) {
        self.under_way.remove(&group);
    }

    fn alarm(&mut self, group: GroupId, text: String) {
        self.alarmed.insert(group);
        self.effects.push(MirrorEffect::Alarm(group, text));
    }

    /// Whether another turn would do more without anything happening before.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.mirror.busy() || !self.settle.is_empty() || !self.effects.is_empty()
    }

    /// Whether a tick has nothing to do soon.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.mirror.is_quiet()
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

/// The groups that a start looks for in a store: those of the node, and whatever else it has. Who has
/// come to a group and is to leave it again has its state there all the same.
#[must_use]
pub fn stored(store: &MirrorStore, groups: &[GroupId]) -> Vec<GroupId> {
    let mut all = store.groups();
    all.extend(groups);
    all.sort_unstable();
    all.dedup();
    all
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
    let mut items = Vec::new();
    let take = |e: EntryRef<'_>| {
        let value = Bytes::copy_from_slice(e.value);
        let item = Item { value, revision: e.revision, expires: e.expiry };
        items.push((kv::Key::new(e.key), item));
    };
    let image = match store.load_raw(group, take) {
        Ok(image) => image,
        Err(StoreError::Absent { .. }) => return Ok(None),
        Err(StoreError::Damaged { reason, .. }) => return Err(reason),
        Err(e) => return Err(e.to_string()),
    };
    if image.position.applied == InstanceId::ZERO {
        return Ok(None);
    }
    let hash = found_hash(&image);
    let image = live_image(image, items)?;
    let chain = image.head.chain;
    image.into_state_of(hash).map(|state| Some((state, chain))).map_err(|e| e.to_string())
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

fn entry(key: kv::Key, item: Item) -> Entry {
    Entry {
        key: Bytes::copy_from_slice(&key),
        value: item.value,
        revision: item.revision,
        expiry: item.expires,
    }
}

fn stored_fold(group: GroupId, fold: kv::Fold) -> Fold {
    let kv::Fold { from, head, sessions, items } = fold;
    let (mut entries, mut removed) = (Vec::with_capacity(items.len()), Vec::new());
    for (key, item) in items {
        match item {
            Some(item) => entries.push(entry(key, item)),
            None => removed.push(Bytes::copy_from_slice(&key)),
        }
    }
    Fold { group, from, to: position(&head), sessions, entries, removed }
}

/// What the store's entries hashed to as they were read.
fn found_hash(image: &StoredImage) -> StateHash {
    StateHash::from_bytes(image.verified.point().state_hash.0)
}

fn live_image(image: StoredImage, items: Vec<(kv::Key, Item)>) -> Result<Image, String> {
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
    Ok(Image { head, sessions, items })
}
