//! Three replicas of every group, driven by hand: whole [`Host`]s as a server sets them up, messages that
//! arrive at once, disks that are done when they are asked, and a clock that moves only in [`Trio::tick`].
//!
//! What is around the core can be left out ([`Trio::bare`]), so that only the core is measured, or be
//! there ([`Trio::whole`]): every message goes through its bytes, every record into a log.

#![allow(dead_code, reason = "each measurement uses its part")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groups::group::{Answer, Limits, Reply, Seat, Submission};
use groups::host::{Host, HostConfig, MirrorWord};
use groups::ids::{Boot, GroupId, InstanceId, Member, NodeId, StorageId};
use groups::kv::{Command, Condition, Ticket, Want};
use groups::log::{Durability, Log, LogOptions, RealDisk};
use groups::mirrored::{MirrorLimits, MirrorOrder};
use groups::paxos::{Envelope, Members, Message, Tuning, codec};
use groups::peers::Proof;
use groups::replay::Replay;
use groups::time::Time;

/// Who leads every group, and whose clients ask.
const LEADER: NodeId = NodeId(1);

/// Between two ticks.
pub const TICK: Duration = Duration::from_millis(10);

/// The key of a number: 16 bytes.
pub fn key(number: usize) -> Bytes {
    Bytes::from(format!("key:{number:012}"))
}

/// A put of 100 bytes to the key of a number, encoded.
pub fn put(number: usize) -> Bytes {
    let value = Bytes::from(vec![b'v'; 100]);
    Command::Put { key: key(number), value, condition: Condition::None, want: Want::Done }.to_bytes()
}

/// A get of the key of a number, encoded.
pub fn get(number: usize) -> Bytes {
    Command::Get { key: key(number) }.to_bytes()
}

struct Node {
    id: NodeId,
    host: Host,
    inbox: Vec<(NodeId, GroupId, Message)>,
    /// Turns that wait for the disk.
    jobs: Vec<(u64, Vec<Envelope>)>,
    /// What the mirror has taken in.
    folded: Vec<(GroupId, InstanceId)>,
    log: Option<Log<RealDisk>>,
}

impl Node {
    fn has_work(&self) -> bool {
        !(self.inbox.is_empty() && self.jobs.is_empty() && self.folded.is_empty())
    }
}

/// The world.
pub struct Trio {
    now: Time,
    nodes: Vec<Node>,
    /// Whether messages go through their bytes.
    encodes: bool,
    head: Vec<u8>,
    answers: Vec<Answer>,
    /// The next write of each group.
    numbers: Vec<u64>,
    reads: u64,
}

impl Trio {
    /// The core alone.
    pub fn bare(groups: u32) -> Trio {
        Trio::with(groups, None)
    }

    /// With the codec, and logs in directories below `dir`.
    pub fn whole(groups: u32, dir: &Path) -> Trio {
        Trio::with(groups, Some(dir))
    }

    fn with(groups: u32, dir: Option<&Path>) -> Trio {
        let node = |id: u32| Node {
            id: NodeId(id),
            host: host(NodeId(id), groups),
            inbox: Vec::new(),
            jobs: Vec::new(),
            folded: Vec::new(),
            log: dir.map(|dir| log(&dir.join(id.to_string()), id)),
        };
        let mut trio = Trio {
            now: Time::ZERO,
            nodes: (1..=3).map(node).collect(),
            encodes: dir.is_some(),
            head: Vec::new(),
            answers: Vec::new(),
            numbers: vec![1; groups as usize],
            reads: 0,
        };
        let led = |trio: &Trio| trio.nodes[0].host.leads() == groups as usize;
        while !led(&trio) || trio.nodes.iter().any(|node| node.host.is_active()) {
            trio.tick();
            assert!(trio.now < Time::ZERO + Duration::from_secs(60), "the groups find no leader");
        }
        trio
    }

    /// Lets time pass at every node, and heartbeats arrive.
    pub fn tick(&mut self) {
        self.now = self.now + TICK;
        for at in 0..self.nodes.len() {
            let from = self.nodes[at].id;
            self.nodes[at].host.tick(self.now);
            for (to, beat) in self.turn(at) {
                self.nodes[index(to)].host.on_heartbeat(from, &beat, self.now);
            }
        }
        self.settle();
    }

    /// The commands become one batch of a group: proposed, written and voted for by all three, chosen,
    /// applied by the leader, answered. The followers hear that it is chosen with the next one.
    pub fn write(&mut self, group: GroupId, commands: impl Iterator<Item = Bytes>) {
        let first = self.numbers[group.0 as usize];
        let mut number = first;
        for command in commands {
            let behind = (number - first) as u32;
            let ticket = Ticket { node: LEADER, boot: Boot(1), number, behind };
            let submission = Submission { ticket, read: false, after: 0, command };
            self.nodes[0].host.submit(group, submission, self.now);
            number += 1;
        }
        self.numbers[group.0 as usize] = number;
        self.turn(0);
        self.settle();
        self.take_answers((number - first) as usize);
    }

    /// A read at the leader, which holds a lease.
    pub fn read(&mut self, group: GroupId, command: Bytes) {
        self.reads += 1;
        let ticket = Ticket { node: LEADER, boot: Boot(1), number: self.reads, behind: 0 };
        let submission = Submission { ticket, read: true, after: 0, command };
        self.nodes[0].host.submit(group, submission, self.now);
        self.turn(0);
        self.take_answers(1);
    }

    fn take_answers(&mut self, wanted: usize) {
        assert_eq!(self.answers.len(), wanted, "everything is answered");
        assert!(self.answers.iter().all(|answer| matches!(answer.reply, Reply::Outcome(_))));
        self.answers.clear();
    }

    /// Delivers, writes and syncs until nothing is under way.
    fn settle(&mut self) {
        while self.nodes.iter().any(Node::has_work) {
            for at in 0..self.nodes.len() {
                if !self.nodes[at].has_work() {
                    continue;
                }
                self.sync(at);
                let node = &mut self.nodes[at];
                for (group, applied) in node.folded.drain(..) {
                    node.host.on_mirror(group, MirrorWord::Folded(applied), self.now);
                }
                for (from, group, message) in node.inbox.drain(..) {
                    node.host.on_message(from, group, message, self.now);
                }
                self.turn(at);
            }
        }
    }

    /// Ends a turn of a node; returns its heartbeats.
    fn turn(&mut self, at: usize) -> Vec<(NodeId, groups::peers::Heartbeat)> {
        let node = &mut self.nodes[at];
        let output = node.host.turn(self.now);
        for (group, order) in output.orders {
            match order {
                MirrorOrder::Fold(fold) => node.folded.push((group, fold.head.applied)),
                MirrorOrder::Refill(image) => node.folded.push((group, image.head.applied)),
                _ => {}
            }
        }
        if let Some(log) = &mut node.log {
            for record in &output.ready.records {
                log.append(record).expect("a record of the core is taken");
            }
        }
        if let Some(batch) = output.batch {
            node.jobs.push((batch, output.ready.send_after_sync));
        }
        self.answers.extend(output.answers);
        self.send(at, output.ready.send_now);
        output.beats
    }

    /// The disk has what the node has handed to it.
    fn sync(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let jobs = std::mem::take(&mut node.jobs);
        if !jobs.is_empty()
            && let Some(log) = &mut node.log
        {
            log.commit().expect("a commit to memory");
        }
        for (batch, envelopes) in jobs {
            self.nodes[at].host.on_synced(batch, self.now);
            self.send(at, envelopes);
        }
    }

    fn send(&mut self, from: usize, envelopes: Vec<Envelope>) {
        let from = self.nodes[from].id;
        for Envelope { to, group, message } in envelopes {
            let message = if self.encodes { through_bytes(&message, &mut self.head) } else { message };
            self.nodes[index(to)].inbox.push((from, group, message));
        }
    }
}

fn index(node: NodeId) -> usize {
    node.0 as usize - 1
}

fn through_bytes(message: &Message, head: &mut Vec<u8>) -> Message {
    head.clear();
    let (kind, payload) = codec::encode(message, head);
    let mut body = Vec::with_capacity(head.len() + payload.len());
    body.extend_from_slice(head);
    body.extend_from_slice(&payload);
    codec::decode(kind, Bytes::from(body)).expect("its own bytes")
}

/// A host as a server with the default configuration has it.
fn host(me: NodeId, groups: u32) -> Host {
    let nodes: Vec<NodeId> = (1..=3).map(NodeId).collect();
    let member = |node: &NodeId| Member { node: *node, storage: StorageId(u128::from(node.0)) };
    let founders = Members::new(nodes.iter().map(member).collect());
    let seats = (0..groups).map(|group| Seat {
        group: GroupId(group),
        founders: founders.clone(),
        preference: nodes.clone(),
        replay: Replay::mirrored(),
    });
    let lease = Duration::from_millis(300);
    let config = HostConfig {
        me,
        proof: Proof::alone(member(&me).storage),
        boot: Boot(1),
        shard: 0,
        shards: 1,
        nodes: nodes.clone(),
        groups,
        heartbeat_interval: Duration::from_millis(50),
        tuning: Arc::new(Tuning { lease, own_lease: Duration::from_millis(288), ..Tuning::default() }),
        limits: Arc::new(Limits {
            mirror: Some(MirrorLimits::default()),
            history_bytes: ((32 << 20) / groups as usize).clamp(128 << 10, 4 << 20),
            ..Limits::default()
        }),
        seed: u64::from(me.0),
    };
    Host::new(config, seats.collect(), Time::ZERO)
}

/// A log whose commits are not synced: its work is measured, not a disk's.
fn log(dir: &Path, id: u32) -> Log<RealDisk> {
    std::fs::create_dir_all(dir).expect("a directory for the log");
    let disk = RealDisk::open(dir).expect("the directory opens");
    let options = LogOptions {
        segment_size: 64 << 20,
        storage_id: StorageId(u128::from(id)),
        max_record: 16 << 20,
        durability: Durability::None,
    };
    Log::open(disk, options, &mut |_| {}).expect("a new log").0
}
