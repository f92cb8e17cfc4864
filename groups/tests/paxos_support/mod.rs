//! A small world for one group: whole [`Host`]s, a network whose every message waits to be
//! delivered by hand, and disks that keep what was synced and nothing else. The clock moves only
//! when it is told to. Heartbeats between nodes that are up and not cut off arrive at once; they
//! are below what these tests look at.
//!
//! The world watches while it runs: one value per instance for ever, a promise that only rises
//! and outlives a crash, nothing said before the disk has it, every choice backed by a majority
//! of one ballot, and the log able to give back whatever the node calls chosen.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod play;
pub mod script;
pub mod text;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groups::group::{Answer, Limits, Seat, Submission};
use groups::host::{Host, HostConfig, Output};
use groups::ids::{Ballot, Boot, GroupId, InstanceId, Member, NodeId, StorageId};
use groups::kv::value::as_members;
use groups::kv::{Command, Ticket};
use groups::log::Record;
use groups::mirrored::MirrorOrder;
use groups::paxos::message::{Entry, Mark};
use groups::paxos::{Envelope, LogFound, LogRead, Members, Message, Replica, Tuning, chain};
use groups::peers::Proof;
use groups::replay::Replay;
use groups::time::Time;

/// The only group of the world.
pub const GROUP: GroupId = GroupId(0);

/// One step of the clock.
pub const STEP: Duration = Duration::from_millis(10);

/// What a turn handed to the disk.
#[derive(Debug)]
pub struct Batch {
    id: u64,
    pub records: Vec<Record>,
    after: Vec<Envelope>,
    reads: Vec<LogRead>,
}

/// One machine.
#[derive(Debug)]
pub struct Node {
    pub id: u32,
    pub boot: u64,
    /// Its disk; that of the birth has the node's own number.
    pub storage: u128,
    /// The process; `None` while it is down.
    pub host: Option<Host>,
    /// What survives a crash.
    pub durable: Vec<Record>,
    /// What does not, oldest first.
    pub pending: VecDeque<Batch>,
    /// The newest record of each instance, synced or not: what the log would give back.
    values: BTreeMap<u64, Bytes>,
    /// The highest ballot that this node has told anybody that it promised.
    said: Ballot,
    /// Numbers of the writes that its own client has sent in this life.
    pub numbers: u64,
    pub reads: u64,
    seen: Seen,
}

impl Node {
    fn new(id: u32) -> Node {
        Node {
            id,
            boot: 0,
            storage: u128::from(id),
            host: None,
            durable: Vec::new(),
            pending: VecDeque::new(),
            values: BTreeMap::new(),
            said: Ballot::ZERO,
            numbers: 0,
            reads: 0,
            seen: Seen::default(),
        }
    }
}

/// What was last observed of a node.
#[derive(Clone, Debug, Default)]
struct Seen {
    role: String,
    promised: Ballot,
    mark: Mark,
}

/// How a world is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    pub nodes: u32,
    pub prefer: Vec<u32>,
    pub tuning: Tuning,
    pub limits: Limits,
    pub seed: u64,
}

impl Setup {
    pub fn new(nodes: u32) -> Setup {
        Setup {
            nodes,
            prefer: (1..=nodes).collect(),
            // What can wait is done soon, so that transcripts are short.
            tuning: Tuning { quiet: Duration::from_millis(18), rest: Duration::ZERO, ..Tuning::default() },
            limits: Limits { company: Duration::ZERO, ..Limits::default() },
            seed: 0,
        }
    }
}

/// How much of what happens is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    Nothing,
    /// Roles, choices and answers.
    Brief,
    /// Messages and records too.
    Full,
}

/// The world.
#[derive(Debug)]
pub struct World {
    pub setup: Setup,
    pub now: Time,
    pub nodes: BTreeMap<u32, Node>,
    /// What is on the wire, by sender and receiver.
    pub links: BTreeMap<(u32, u32), VecDeque<Message>>,
    /// Nodes whose process is stopped and goes on later: nothing reaches them meanwhile.
    pub asleep: BTreeSet<u32>,
    /// Links that lose everything.
    pub cut: BTreeSet<(u32, u32)>,
    /// Every chosen value, whoever chose it first.
    pub chosen: BTreeMap<u64, Bytes>,
    /// The chained checksum at each instance.
    pub chains: BTreeMap<u64, u64>,
    /// Who has ever had an accept of this (instance, ballot) on the disk.
    votes: BTreeMap<(u64, Ballot), BTreeSet<Member>>,
    /// All answers, in order, with the node that gave them.
    pub answers: Vec<(u32, Answer)>,
    /// What the nodes asked of their mirrors.
    pub orders: Vec<(u32, MirrorOrder)>,
    pub detail: Detail,
    pub trace: Vec<String>,
    stamped: Option<Time>,
    /// Whether the world believes what it is told: where a test plants a lie on purpose.
    pub trusting: bool,
}

impl World {
    pub fn new(setup: Setup) -> World {
        let mut world = World {
            now: Time::ZERO,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            asleep: BTreeSet::new(),
            cut: BTreeSet::new(),
            chosen: BTreeMap::new(),
            chains: BTreeMap::from([(0, 0)]),
            votes: BTreeMap::new(),
            answers: Vec::new(),
            orders: Vec::new(),
            detail: Detail::Nothing,
            trace: Vec::new(),
            stamped: None,
            trusting: false,
            setup,
        };
        for id in 1..=world.setup.nodes {
            world.nodes.insert(id, Node::new(id));
        }
        for id in 1..=world.setup.nodes {
            world.start(id);
        }
        world
    }

    fn say(&mut self, at: Detail, line: impl FnOnce() -> String) {
        if self.detail >= at {
            if self.detail == Detail::Full
                && let Some(time) = self.stamped.take()
            {
                self.trace.push(format!("at {}ms", time.nanos() / 1_000_000));
            }
            self.trace.push(line());
        }
    }

    pub fn ids(&self) -> Vec<u32> {
        self.nodes.keys().copied().collect()
    }

    pub fn up(&self, id: u32) -> bool {
        self.nodes[&id].host.is_some()
    }

    pub fn node(&mut self, id: u32) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of the cluster")
    }

    pub fn host(&self, id: u32) -> &Host {
        self.nodes[&id].host.as_ref().expect("the node is up")
    }

    pub fn replica(&self, id: u32) -> &Replica {
        &self.host(id).group(GROUP).expect("a seat in the group").replica
    }

    pub fn leader(&self) -> Option<u32> {
        // The one with the highest ballot: an older one may not have heard yet.
        let leads = |id: &u32| self.up(*id) && self.replica(*id).is_leader();
        self.ids().into_iter().filter(leads).max_by_key(|id| self.replica(*id).promised())
    }

    /// Starts a node from what its disk holds.
    pub fn start(&mut self, id: u32) {
        let setup = self.setup.clone();
        let now = self.now;
        let founders = Members::new((1..=setup.nodes).map(founder).collect());
        let nodes: Vec<NodeId> = self.ids().into_iter().map(NodeId).collect();
        let node = self.node(id);
        assert!(node.host.is_none(), "it is up already");
        node.boot += 1;
        node.numbers = 0;
        node.reads = 0;
        let mut replay = Replay::default();
        node.values.clear();
        for record in &node.durable {
            replay.record(record.clone());
            note_value(&mut node.values, record);
        }
        let seat = Seat {
            group: GROUP,
            founders,
            preference: setup.prefer.iter().copied().map(NodeId).collect(),
            replay,
        };
        let config = HostConfig {
            me: NodeId(id),
            // What is remembered of disks is tested with the peers.
            proof: Proof::alone(StorageId(node.storage)),
            boot: Boot(node.boot),
            shard: 0,
            shards: 1,
            nodes,
            groups: 1,
            heartbeat_interval: Duration::from_millis(50),
            tuning: Arc::new(setup.tuning),
            limits: Arc::new(setup.limits),
            seed: setup.seed ^ (u64::from(id) << 32) ^ node.boot,
        };
        let host = Host::new(config, vec![seat], now);
        let replica = &host.group(GROUP).expect("a seat").replica;
        assert!(replica.promised() >= node.said, "node {id} forgot a promise that it had given");
        node.seen = Seen {
            role: replica.role_name().to_string(),
            promised: replica.promised(),
            mark: replica.mark(),
        };
        node.host = Some(host);
        self.check_prefix(id, 0);
    }

    /// The power goes: what was not synced is gone, and so is what was on its way here.
    pub fn crash(&mut self, id: u32) {
        self.asleep.remove(&id);
        let node = self.node(id);
        node.host = None;
        node.pending.clear();
        for ((_, to), queue) in &mut self.links {
            if *to == id {
                queue.clear();
            }
        }
    }

    /// A machine that was not there at the birth.
    pub fn join(&mut self, id: u32) {
        assert!(self.nodes.insert(id, Node::new(id)).is_none(), "node {id} is there already");
        self.start(id);
        self.want(self.setup.prefer.clone());
    }

    /// Every node that is up hears who shall be the members; whoever starts later does so then.
    pub fn want(&mut self, prefer: Vec<u32>) {
        self.setup.prefer = prefer;
        let founders = Members::new((1..=self.setup.nodes).map(founder).collect());
        let nodes: Vec<NodeId> = self.ids().into_iter().map(NodeId).collect();
        let preference: Vec<NodeId> = self.setup.prefer.iter().copied().map(NodeId).collect();
        let now = self.now;
        for node in self.nodes.values_mut() {
            if let Some(host) = &mut node.host {
                host.place(1, &nodes, &|_| preference.clone(), &|_| founders.clone(), now);
            }
        }
    }

    /// The machine is replaced: an empty disk, and a life that nobody takes for an earlier one.
    pub fn replace(&mut self, id: u32) {
        if self.up(id) {
            self.crash(id);
        }
        let node = self.node(id);
        node.durable.clear();
        node.said = Ballot::ZERO;
        node.storage += 100;
        node.boot += 1_000;
        self.start(id);
    }

    /// Loses everything that is or will be on the way from `a` to `b`.
    pub fn cut(&mut self, a: u32, b: u32) {
        self.cut.insert((a, b));
        self.links.remove(&(a, b));
    }

    /// Cuts `id` off from everybody, both ways.
    pub fn isolate(&mut self, id: u32) {
        for other in self.ids() {
            if other != id {
                self.cut(id, other);
                self.cut(other, id);
            }
        }
    }

    /// Moves the clock by `by`, in small steps.
    pub fn tick(&mut self, by: Duration) {
        let end = self.now + by;
        while self.now < end {
            self.step_clock();
        }
    }

    pub fn step_clock(&mut self) {
        self.now = self.now + STEP;
        self.stamped = Some(self.now);
        let now = self.now;
        for id in self.ids() {
            if !self.up(id) || self.asleep.contains(&id) {
                continue;
            }
            let host = self.node(id).host.as_mut().expect("up");
            host.tick(now);
            let beats = self.turn(id);
            for (to, beat) in beats {
                let open = !self.cut.contains(&(id, to.0)) && !self.asleep.contains(&to.0);
                if open && let Some(host) = self.node(to.0).host.as_mut() {
                    host.on_heartbeat(NodeId(id), &beat, now);
                }
            }
        }
        self.stamped = None;
    }

    /// Delivers the message at `index` of a link.
    pub fn deliver_at(&mut self, from: u32, to: u32, index: usize) {
        if self.asleep.contains(&to) {
            return;
        }
        let message = self.links.get_mut(&(from, to)).and_then(|queue| queue.remove(index));
        if let Some(message) = message {
            self.hand_over(from, to, message);
        }
    }

    /// Gives `to` a message as if it came from `from`.
    pub fn hand_over(&mut self, from: u32, to: u32, message: Message) {
        let now = self.now;
        self.say(Detail::Full, || format!("{to} hears {from}: {}", text::message(&message)));
        if let Some(host) = self.node(to).host.as_mut() {
            host.on_message(NodeId(from), GROUP, message, now);
            self.turn(to);
        }
    }

    /// Delivers what is on the link now, at most `count`. Returns how many.
    pub fn deliver(&mut self, from: u32, to: u32, count: usize) -> usize {
        let waiting = self.links.get(&(from, to)).map_or(0, VecDeque::len).min(count);
        for _ in 0..waiting {
            self.deliver_at(from, to, 0);
        }
        waiting
    }

    /// The links with something on them whose receiver is awake.
    fn busy_links(&self) -> Vec<(u32, u32)> {
        let busy = |((_, to), queue): &(&(u32, u32), &VecDeque<Message>)| {
            !queue.is_empty() && !self.asleep.contains(to)
        };
        self.links.iter().filter(busy).map(|(link, _)| *link).collect()
    }

    /// Delivers everything, and what that causes, until nothing is on the wire.
    pub fn deliver_all(&mut self) {
        for _ in 0..10_000 {
            let links = self.busy_links();
            if links.is_empty() {
                return;
            }
            for (from, to) in links {
                self.deliver(from, to, usize::MAX);
            }
        }
        panic!("the messages do not come to an end");
    }

    /// Syncs the `count` oldest turns of a node's disk.
    pub fn sync(&mut self, id: u32, count: usize) -> usize {
        let now = self.now;
        let mut done = 0;
        while done < count
            && self.up(id)
            && !self.asleep.contains(&id)
            && let Some(batch) = self.node(id).pending.pop_front()
        {
            done += 1;
            for record in &batch.records {
                if let Record::Accept { instance, ballot, .. } = record {
                    let member = Member { node: NodeId(id), storage: StorageId(self.nodes[&id].storage) };
                    self.votes.entry((instance.0, *ballot)).or_default().insert(member);
                }
            }
            let Batch { id: number, records, after, reads } = batch;
            self.node(id).durable.extend(records);
            for envelope in after {
                self.check_said(id, &envelope.message);
                self.send(id, envelope);
            }
            for read in reads {
                self.read_log(id, &read);
            }
            if let Some(host) = self.node(id).host.as_mut() {
                host.on_synced(number, now);
            }
            self.turn(id);
        }
        done
    }

    /// Delivers and syncs until nothing is left to do at this point in time.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            self.deliver_all();
            let mut synced = 0;
            for id in self.ids() {
                synced += self.sync(id, usize::MAX);
            }
            if synced == 0 && self.busy_links().is_empty() {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Lets time pass with a perfect network and fast disks.
    pub fn run(&mut self, by: Duration) {
        let end = self.now + by;
        while self.now < end {
            self.step_clock();
            self.settle();
        }
    }

    /// Hands a submission to a node's group.
    pub fn submit(&mut self, id: u32, submissions: Vec<Submission>) {
        let now = self.now;
        if let Some(host) = self.node(id).host.as_mut() {
            for submission in submissions {
                host.submit(GROUP, submission, now);
            }
            self.turn(id);
        }
    }

    /// A write of the node's own client.
    pub fn write(&mut self, id: u32, commands: &[Command]) {
        let node = self.node(id);
        let mut submissions = Vec::new();
        for command in commands {
            node.numbers += 1;
            let ticket = Ticket {
                node: NodeId(id),
                boot: Boot(node.boot),
                number: node.numbers,
                behind: (node.numbers - 1) as u32,
            };
            submissions.push(Submission { ticket, read: false, after: 0, command: command.to_bytes() });
        }
        self.submit(id, submissions);
    }

    /// A read of the node's own client, behind its write number `after`.
    pub fn read(&mut self, id: u32, key: &str, after: u64) {
        let node = self.node(id);
        node.reads += 1;
        let ticket = Ticket { node: NodeId(id), boot: Boot(node.boot), number: node.reads, behind: 0 };
        let command = Command::Get { key: Bytes::copy_from_slice(key.as_bytes()) }.to_bytes();
        self.submit(id, vec![Submission { ticket, read: true, after, command }]);
    }

    /// Ends a host's turn and carries out what it asks for. Returns the heartbeats.
    fn turn(&mut self, id: u32) -> Vec<(NodeId, groups::peers::Heartbeat)> {
        let now = self.now;
        let Some(host) = self.node(id).host.as_mut() else { return Vec::new() };
        let Output { ready, batch, beats, answers, orders, .. } = host.turn(now);
        self.orders.extend(orders.into_iter().map(|(_, order)| (id, order)));
        self.observe_role(id);
        for record in &ready.records {
            self.say(Detail::Full, || format!("{id} writes {}", text::record(record)));
            note_value(&mut self.node(id).values, record);
        }
        for envelope in ready.send_now {
            assert!(
                !matches!(envelope.message, Message::Promise(_) | Message::Accepted(_) | Message::Prepare(_)),
                "{} left before the disk had it",
                envelope.message.name()
            );
            self.send(id, envelope);
        }
        for envelope in &ready.send_after_sync {
            self.say(Detail::Full, || {
                format!(
                    "{id} keeps for after the sync, to {}: {}",
                    envelope.to,
                    text::message(&envelope.message)
                )
            });
        }
        match batch {
            Some(number) => self.node(id).pending.push_back(Batch {
                id: number,
                records: ready.records,
                after: ready.send_after_sync,
                reads: Vec::new(),
            }),
            None => assert!(ready.records.is_empty() && ready.send_after_sync.is_empty()),
        }
        for read in ready.log_reads {
            // A read of the log may not overtake the records it is to find.
            match self.node(id).pending.back_mut().filter(|_| read.after_sync) {
                Some(last) => last.reads.push(read),
                None => self.read_log(id, &read),
            }
        }
        self.observe_chosen(id);
        for answer in answers {
            self.say(Detail::Brief, || format!("{id} answers {}", text::answer(&answer)));
            self.answers.push((id, answer));
        }
        beats
    }

    fn send(&mut self, from: u32, envelope: Envelope) {
        let to = envelope.to.0;
        let lost = self.cut.contains(&(from, to)) || self.nodes.get(&to).is_none_or(|n| n.host.is_none());
        self.say(Detail::Full, || {
            let end = if lost { " (lost)" } else { "" };
            format!("{from} -> {to} {}{end}", text::message(&envelope.message))
        });
        if !lost {
            self.links.entry((from, to)).or_default().push_back(envelope.message);
        }
    }

    fn read_log(&mut self, id: u32, read: &LogRead) {
        let mut newest: BTreeMap<u64, (Ballot, Bytes)> = BTreeMap::new();
        for record in &self.nodes[&id].durable {
            if let Record::Accept { instance, ballot, value, .. }
            | Record::Chosen { instance, ballot, value, .. } = record
            {
                newest.insert(instance.0, (*ballot, value.clone()));
            }
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        for instance in read.from.0..=read.to.0 {
            let Some((ballot, value)) = newest.get(&instance) else { break };
            bytes += value.len();
            if bytes > read.max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(Entry { instance: InstanceId(instance), ballot: *ballot, value: value.clone() });
        }
        self.say(Detail::Full, || format!("{id} reads its log for {}: from #{}", read.reader, read.from));
        let now = self.now;
        if let Some(host) = self.node(id).host.as_mut() {
            host.on_log_read(read, LogFound::Entries(entries), now);
            self.turn(id);
        }
    }

    /// A word that waited for the disk leaves: the disk must back it.
    fn check_said(&mut self, id: u32, message: &Message) {
        let chosen: BTreeSet<u64> = self.chosen.keys().copied().collect();
        let node = self.node(id);
        let (ballot, run) = match message {
            Message::Promise(m) => (m.ballot, 0..0),
            Message::Prepare(m) => (m.ballot, 0..0),
            Message::Accepted(m) => (m.ballot, m.first.0..m.last.0 + 1),
            _ => return,
        };
        node.said = node.said.max(ballot);
        let backed = node.durable.iter().any(|r| match r {
            Record::Promise { ballot: b, .. } | Record::Accept { ballot: b, .. } => *b >= ballot,
            _ => false,
        });
        assert!(backed, "node {id} said {ballot} and its disk does not know it");
        for instance in run {
            let voted = node.durable.iter().any(|r| {
                matches!(r, Record::Accept { instance: i, ballot: b, .. } if i.0 == instance && *b == ballot)
            });
            assert!(
                voted || chosen.contains(&instance),
                "node {id} voted for #{instance} at {ballot} without a record"
            );
        }
    }

    fn observe_role(&mut self, id: u32) {
        let replica = self.replica(id);
        let (role, promised) = (replica.role_name().to_string(), replica.promised());
        let halted = replica.halted().map(ToString::to_string);
        let before = self.nodes[&id].seen.clone();
        assert!(promised >= before.promised, "a promise went back");
        self.node(id).seen.promised = promised;
        if before.role != role {
            self.node(id).seen.role.clone_from(&role);
            self.say(Detail::Brief, || match halted {
                Some(why) => format!("{id} halts: {why}"),
                None => format!("{id} is {role}"),
            });
        }
    }

    fn observe_chosen(&mut self, id: u32) {
        let before = self.nodes[&id].seen.mark.instance.0;
        self.check_prefix(id, before);
    }

    /// Checks what a node has newly chosen beyond `before`.
    fn check_prefix(&mut self, id: u32, before: u64) {
        let mark = self.replica(id).mark();
        self.node(id).seen.mark = mark;
        let group = self.host(id).group(GROUP).expect("a seat");
        if group.replica.has_parted() || group.is_rebuilding() {
            // It holds nothing any more and was told how far the others are.
            assert_eq!(
                self.chains[&mark.instance.0], mark.chain,
                "the chain of node {id} at #{}",
                mark.instance
            );
            return;
        }
        for instance in before + 1..=mark.instance.0 {
            let Some(value) = self.nodes[&id].values.get(&instance).cloned() else {
                panic!("node {id} calls #{instance} chosen and its log has no value for it")
            };
            self.say(Detail::Brief, || format!("{id} chose #{instance} {}", text::value(&value)));
            match self.chosen.get(&instance) {
                Some(first) => {
                    assert!(
                        self.trusting || *first == value,
                        "two values for instance {instance}, one at node {id}"
                    );
                }
                None => {
                    assert!(
                        self.trusting || self.has_majority(instance, &value),
                        "#{instance} has no majority"
                    );
                    let chained = chain(self.chains[&(instance - 1)], &value);
                    self.chains.insert(instance, chained);
                    self.chosen.insert(instance, value);
                }
            }
        }
        if !self.trusting {
            assert_eq!(
                self.chains[&mark.instance.0], mark.chain,
                "the chain of node {id} at #{}",
                mark.instance
            );
        }
    }

    /// Who decides an instance: what the values before it say.
    fn members_of(&self, instance: u64) -> Members {
        let mut members = Members::new((1..=self.setup.nodes).map(founder).collect());
        for (at, value) in self.chosen.range(..instance) {
            if let Some(new) = as_members(value).filter(|new| new.follows(members.changed_at())) {
                members = Members::since(InstanceId(*at), new.list);
            }
        }
        members
    }

    /// Whether a majority has had `value` at one ballot on its disks.
    fn has_majority(&self, instance: u64, value: &Bytes) -> bool {
        let members = self.members_of(instance);
        self.votes.range((instance, Ballot::ZERO)..(instance + 1, Ballot::ZERO)).any(
            |((_, ballot), voters)| {
                let counted = || voters.iter().filter(|v| members.counts(v.node, v.storage));
                counted().count() >= members.majority()
                    && counted().all(|voter| {
                        let node = &self.nodes[&voter.node.0];
                        // A disk that is gone had it while it was there.
                        node.storage != voter.storage.0
                            || node.durable.iter().any(|r| {
                                matches!(r, Record::Accept { instance: i, ballot: b, value: v, .. }
                            if i.0 == instance && b == ballot && v == value)
                            })
                    })
            },
        )
    }
}

/// The disk that a node was born with.
pub fn founder(id: u32) -> Member {
    Member { node: NodeId(id), storage: StorageId(id.into()) }
}

fn note_value(values: &mut BTreeMap<u64, Bytes>, record: &Record) {
    if let Record::Accept { instance, value, .. } | Record::Chosen { instance, value, .. } = record {
        values.insert(instance.0, value.clone());
    }
}
