//! Nodes with a mirror each, their owners, and a network that loses, doubles and reorders. All
//! of it in memory, all of it from a seed.

#![allow(dead_code, reason = "every test binary uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use checkpoint::mirror::{CHUNK, Event, Fold, Mirror, MirrorConfig};
use checkpoint::store::sim::SimEngine;
use checkpoint::store::{DiskFiles, MirrorStore, Position, StoreError};
use checkpoint::{Chain, Entry, StateDigest};
use groups::ids::{Boot, ClusterId, GroupId, InstanceId, NodeId};
use groups::kv::StateHash;
use groups::log::SimDisk;
use groups::random::Random;
use groups::time::Time;

pub const CLUSTER: ClusterId = ClusterId(77);
pub const TICK: Duration = Duration::from_millis(10);

/// A group's whole state at one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub applied: InstanceId,
    pub entries: BTreeMap<Bytes, Entry>,
    pub sessions: Bytes,
    pub hash: StateHash,
    pub revision: u64,
}

impl State {
    pub fn position(&self) -> Position {
        Position {
            applied: self.applied,
            chain: Chain(self.applied.0 * 31 + 7),
            state_hash: StateDigest::from(self.hash),
            revision: self.revision,
            epoch: 1,
            membership: Bytes::from_static(b"1,2,3"),
        }
    }

    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.revision += 1;
        let entry = Entry { key: key.clone(), value, revision: self.revision, expiry: self.revision % 3 };
        entry.add_to(&mut self.hash);
        if let Some(old) = self.entries.insert(key, entry) {
            old.remove_from(&mut self.hash);
        }
    }

    pub fn list(&self) -> Vec<Entry> {
        self.entries.values().cloned().collect()
    }
}

/// What was chosen in a group: every state it was ever in.
pub struct Truth {
    pub group: GroupId,
    pub states: BTreeMap<InstanceId, State>,
    random: Random,
    keys: u64,
    value: usize,
}

impl Truth {
    /// Begins empty; `keys` keys with values of up to `value` bytes.
    pub fn new(group: u32, keys: u64, value: usize) -> Truth {
        let states = BTreeMap::from([(InstanceId::ZERO, State::default())]);
        let random = Random::new(u64::from(group) + 1000);
        Truth { group: GroupId(group), states, random, keys, value }
    }

    pub fn at(&self, applied: u64) -> &State {
        &self.states[&InstanceId(applied)]
    }

    pub fn last(&self) -> &State {
        self.states.last_key_value().unwrap().1
    }

    /// One more instance with so many writes.
    pub fn step(&mut self, writes: usize) {
        let mut next = self.last().clone();
        next.applied = next.applied.next();
        for _ in 0..writes {
            let key = Bytes::from(format!("key {:06}", self.random.next_u64() % self.keys));
            if self.random.next_u64().is_multiple_of(6) {
                if let Some(old) = next.entries.remove(&key) {
                    old.remove_from(&mut next.hash);
                }
            } else {
                let length = self.random.next_u64() as usize % self.value + 1;
                next.put(key, Bytes::from(vec![self.random.next_u64() as u8; length]));
            }
        }
        next.sessions = Bytes::from(format!("sessions of {} at {}", self.group, next.applied));
        self.states.insert(next.applied, next);
    }

    /// So many keys at once, all of them there afterwards.
    pub fn fill(&mut self, keys: usize, value: usize) {
        let mut next = self.last().clone();
        next.applied = next.applied.next();
        for n in 0..keys {
            next.put(Bytes::from(format!("key {n:06}")), Bytes::from(vec![n as u8; value]));
        }
        next.sessions = Bytes::from_static(b"sessions after the fill");
        self.states.insert(next.applied, next);
    }

    pub fn with_sessions(&mut self, sessions: Vec<u8>) {
        let mut next = self.last().clone();
        next.applied = next.applied.next();
        next.sessions = sessions.into();
        self.states.insert(next.applied, next);
    }

    pub fn fold(&self, from: u64, to: u64) -> Fold {
        let (before, after) = (self.at(from), self.at(to));
        let changed = after.entries.values().filter(|entry| before.entries.get(&entry.key) != Some(entry));
        let removed = before.entries.keys().filter(|key| !after.entries.contains_key(*key));
        Fold {
            group: self.group,
            from: before.applied,
            to: after.position(),
            sessions: after.sessions.clone(),
            entries: changed.cloned().collect(),
            removed: removed.cloned().collect(),
        }
    }

    /// The store holds one of the states of this group, all of it, and says which.
    pub fn check(&self, store: &MirrorStore) -> InstanceId {
        let mut found = Vec::new();
        let image = match store.load(self.group, |entry| found.push(entry)) {
            Ok(image) => image,
            Err(StoreError::Absent { .. }) => return InstanceId::ZERO,
            Err(error) => panic!("{error}"),
        };
        let state = self.states.get(&image.position.applied).expect("an instance that was");
        assert_eq!(image.position, state.position());
        assert_eq!(image.sessions, state.sessions);
        assert!(found.iter().eq(state.entries.values()), "not the entries of {}", state.applied);
        state.applied
    }
}

pub struct Node {
    pub id: NodeId,
    pub engine: SimEngine,
    pub disk: SimDisk,
    pub config: MirrorConfig,
    pub mirror: Option<Mirror>,
    pub events: Vec<Event>,
}

impl Node {
    pub fn new(id: u32) -> Node {
        let config = MirrorConfig {
            cluster: CLUSTER,
            chunk_bytes: 1000,
            window: 4,
            window_bytes: 4000,
            stage_bytes: 1900,
            retry: Duration::from_millis(200),
            lease: Duration::from_secs(2),
            sweep: 50,
            ..MirrorConfig::default()
        };
        let (engine, disk) = (SimEngine::new(), SimDisk::new(u64::from(id)));
        Node { id: NodeId(id), engine, disk, config, mirror: None, events: Vec::new() }
    }

    pub fn open_store(&self) -> Result<MirrorStore, StoreError> {
        MirrorStore::open_with(Arc::new(DiskFiles::new(self.disk.clone(), "mirror-")), &self.engine)
    }

    pub fn start(&mut self, now: Time) {
        assert!(self.mirror.is_none());
        self.config.boot = Boot(self.config.boot.0 + 1);
        self.mirror = Some(Mirror::new(self.open_store().unwrap(), self.config.clone(), now));
    }

    /// The power fails.
    pub fn crash(&mut self, keep: u64) {
        self.mirror = None;
        self.engine.crash(keep);
        self.disk.crash();
    }

    pub fn mirror(&mut self) -> &mut Mirror {
        self.mirror.as_mut().unwrap()
    }

    pub fn store(&self) -> &MirrorStore {
        self.mirror.as_ref().unwrap().store()
    }

    /// Drains what it wants done, frames included, until it is quiet.
    pub fn drain(&mut self) -> Vec<Event> {
        let mut events = self.mirror().turn();
        while self.mirror().busy() {
            events.extend(self.mirror().turn());
        }
        events
    }

    /// Brings a group to a state by a refill.
    pub fn hold(&mut self, group: GroupId, state: &State) {
        self.mirror().refill(group, state.position(), state.sessions.clone(), state.list());
        let events = self.drain();
        assert!(events.contains(&Event::Folded { group, applied: state.applied }), "{events:?}");
    }

    pub fn refills(&self) -> Vec<GroupId> {
        let refills = self.events.iter().filter_map(|event| match event {
            Event::Refill { group, .. } => Some(*group),
            _ => None,
        });
        refills.collect()
    }

    pub fn installed(&self, group: GroupId) -> Option<(&Position, &Bytes, &[Entry])> {
        self.events.iter().find_map(|event| match event {
            Event::Installed { group: of, image, entries } if *of == group => {
                Some((&image.position, &image.sessions, &entries[..]))
            }
            _ => None,
        })
    }
}

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct Frame {
    pub from: NodeId,
    pub to: NodeId,
    pub group: GroupId,
    pub kind: u8,
    pub body: Bytes,
    at: Time,
    number: u64,
}

pub struct World {
    pub now: Time,
    pub nodes: BTreeMap<NodeId, Node>,
    pub random: Random,
    /// Of 100 frames so many are lost.
    pub lost: u64,
    /// Of 100 frames so many come twice.
    pub doubled: u64,
    /// Frames take so many milliseconds.
    pub latency: u64,
    /// And up to so many more: they overtake each other.
    pub delay: u64,
    /// Nothing comes through any more behind so many frames.
    pub cut_after: Option<u64>,
    pub frames: u64,
    flying: Vec<Frame>,
    /// Every frame that was sent.
    pub sent: Vec<Frame>,
}

impl World {
    pub fn new(nodes: u32, seed: u64) -> World {
        let mut world = World {
            now: Time::from_nanos(1_000_000_000),
            nodes: BTreeMap::new(),
            random: Random::new(seed),
            lost: 0,
            doubled: 0,
            latency: 0,
            delay: 0,
            cut_after: None,
            frames: 0,
            flying: Vec::new(),
            sent: Vec::new(),
        };
        for id in 1..=nodes {
            let mut node = Node::new(id);
            node.start(world.now);
            world.nodes.insert(node.id, node);
        }
        world
    }

    pub fn node(&mut self, id: u32) -> &mut Node {
        self.nodes.get_mut(&NodeId(id)).unwrap()
    }

    pub fn want(&mut self, id: u32, group: GroupId, above: u64, sources: &[u32]) {
        let now = self.now;
        let sources = sources.iter().map(|&id| NodeId(id)).collect();
        self.node(id).mirror().want(group, InstanceId(above), sources, now);
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound.max(1)
    }

    /// Takes the turns of all nodes once; frames go on their way.
    pub fn turns(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let Some(mirror) = node.mirror.as_mut() else { continue };
            for event in mirror.turn() {
                match event {
                    Event::Send { to, group, kind, body } => self.launch(id, to, group, kind, body),
                    other => self.nodes.get_mut(&id).unwrap().events.push(other),
                }
            }
        }
    }

    fn launch(&mut self, from: NodeId, to: NodeId, group: GroupId, kind: u8, body: Bytes) {
        self.frames += 1;
        let mut frame = Frame { from, to, group, kind, body, at: self.now, number: self.frames };
        self.sent.push(frame.clone());
        if self.cut_after.is_some_and(|last| self.frames > last) || self.below(100) < self.lost {
            return;
        }
        let copies = 1 + u64::from(self.below(100) < self.doubled);
        for _ in 0..copies {
            frame.at = self.now + Duration::from_millis(self.latency + self.below(self.delay + 1));
            self.flying.push(frame.clone());
        }
    }

    /// Delivers what has arrived by now.
    pub fn deliver(&mut self) {
        let (mut come, flying): (Vec<Frame>, Vec<Frame>) =
            std::mem::take(&mut self.flying).into_iter().partition(|frame| frame.at <= self.now);
        self.flying = flying;
        come.sort_by_key(|frame| (frame.at, frame.number));
        for frame in come {
            let now = self.now;
            if let Some(mirror) = self.nodes.get_mut(&frame.to).and_then(|node| node.mirror.as_mut()) {
                mirror.on_frame(frame.from, frame.group, frame.kind, frame.body, now);
            }
        }
    }

    /// One tick of time: turns and deliveries until nothing is left to do now.
    pub fn step(&mut self) {
        self.now = self.now + TICK;
        let now = self.now;
        for node in self.nodes.values_mut() {
            if let Some(mirror) = node.mirror.as_mut() {
                mirror.tick(now);
            }
        }
        for _ in 0..10_000 {
            self.turns();
            self.deliver();
            let busy = self.nodes.values().any(|node| node.mirror.as_ref().is_some_and(Mirror::busy));
            if !busy && self.flying.iter().all(|frame| frame.at > now) {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Steps until it is so; panics after a simulated minute.
    pub fn until(&mut self, mut done: impl FnMut(&mut World) -> bool) {
        for _ in 0..6000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("not within a minute");
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// Chunks sent by a node so far.
    pub fn chunks(&self, from: u32, group: GroupId) -> usize {
        let of = |frame: &&Frame| frame.kind == CHUNK && frame.from == NodeId(from) && frame.group == group;
        self.sent.iter().filter(of).count()
    }

    /// The node has installed the state of the truth's last instance, and has told its owner all
    /// of it.
    pub fn assert_installed(&mut self, id: u32, truth: &Truth) {
        let node = self.node(id);
        let (position, sessions, entries) = node.installed(truth.group).expect("nothing was installed");
        let state = &truth.states[&position.applied];
        assert_eq!((position, sessions), (&state.position(), &state.sessions));
        assert!(entries.iter().eq(state.entries.values()));
        let applied = position.applied;
        assert_eq!(truth.check(node.store()), applied);
        assert_eq!(node.mirror().durable(truth.group), Some(applied));
    }
}
