//! A large cluster in which nothing goes wrong: how much is said, written and waited for, by its size.
//!
//! The nodes are the production shards with the server's default settings, one shard each. Around them
//! everything is sound and as simple as can be: a network that delivers after 150 µs, disks that sync
//! in 500 µs whatever is ready then, mirrors that take everything in. There is no birth, no log on the
//! simulated disks and no judge, which look at every group after every event: a hundred nodes with ten
//! thousand groups are for counting, a few nodes with a few groups for finding faults (`world.rs`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use groups::group::{Limits, Seat};
use groups::host::{HostConfig, MirrorWord};
use groups::ids::{Boot, GroupId, NodeId, StorageId};
use groups::kv::{Command, Condition, Want};
use groups::mirrored::{MirrorLimits, MirrorOrder};
use groups::paxos::{Tuning, codec};
use groups::peers::Proof;
use groups::random::Random;
use groups::replay::Replay;
use groups::time::Time;
use netio::{Decoder, Frame};
use server::config::{IDLE_TICK, TICK};
use server::node::layout::{Founding, Layout};
use server::node::requests::{Patience, Request, Token};
use server::node::roster::{Roster, RosterNode};
use server::node::shard::{LogJob, Outbox, Shard, ShardConfig};
use server::node::wire;

use crate::machine::unpack;
use crate::schedule::Schedule;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Calm {
    /// Nodes.
    pub nodes: u32,
    /// Groups.
    pub groups: u32,
    /// Members of each group.
    pub replication: usize,
    /// Puts, each at a node and to a group that are drawn.
    pub puts: u64,
    /// So many puts begin in a second.
    pub rate: u64,
}

/// What went over the network and to the disks in one phase.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Frames by what they are.
    pub frames: BTreeMap<&'static str, u64>,
    /// Batches of frames: what is handed to a connection at a time.
    pub batches: u64,
    /// Bytes of all frames.
    pub bytes: u64,
    /// Syncs of all disks.
    pub syncs: u64,
    /// Records written by them.
    pub records: u64,
    /// How long the phase was, in simulated time.
    pub length: Duration,
    /// How long that took.
    pub took: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Account {
    /// What was simulated.
    pub calm: Calm,
    /// When every group had its best placed leader and nobody had anything to do.
    pub start: Traffic,
    /// Two seconds without a put.
    pub idle: Traffic,
    /// All puts.
    pub load: Traffic,
    /// Until a put was answered: the middle one, and the slowest.
    pub latency: (Duration, Duration),
    /// Resident memory of the whole simulation, in bytes.
    pub memory: u64,
}

enum Event {
    Tick { node: usize },
    Deliver { to: usize, from: NodeId, frames: Vec<Frame> },
    Synced { node: usize },
    Put,
}

struct Node {
    shard: Shard,
    /// What the next sync takes, and what the one under way has taken.
    waiting: Vec<LogJob>,
    writing: Vec<LogJob>,
}

struct World {
    calm: Calm,
    schedule: Schedule<Event>,
    nodes: Vec<Node>,
    decoder: Decoder,
    random: Random,
    traffic: Traffic,
    begun: (Time, Instant),
    /// When each put began.
    puts: Vec<Time>,
    latencies: Vec<Duration>,
}

const SYNC: Duration = Duration::from_micros(500);

/// The same for all: what is sent on one connection arrives in order.
const TRAVEL: Duration = Duration::from_micros(150);

/// How long the groups may take to find their leaders.
const PATIENCE: Duration = Duration::from_secs(30);

impl Calm {
    /// Starts all nodes at once, waits, counts.
    ///
    /// # Errors
    /// When it does not come to rest, or a put is refused.
    pub fn run(self) -> Result<Account, String> {
        let mut world = World::new(self);
        while !world.is_settled() {
            if world.schedule.now() > Time::ZERO + PATIENCE {
                return Err(format!("not at rest within {PATIENCE:?}"));
            }
            world.run_for(Duration::from_millis(20))?;
        }
        let start = world.take_traffic();
        world.run_for(Duration::from_secs(2))?;
        let idle = world.take_traffic();
        world.schedule.after(Duration::ZERO, Event::Put);
        while (world.latencies.len() as u64) < world.calm.puts {
            world.run_for(Duration::from_millis(10))?;
            if world.traffic.length > PATIENCE * 10 {
                return Err("puts are not answered".to_owned());
            }
        }
        // The last followers hear of the last puts.
        world.run_for(Duration::from_millis(500))?;
        let load = world.take_traffic();
        world.latencies.sort_unstable();
        let middle = world.latencies.get(world.latencies.len() / 2).copied().unwrap_or_default();
        let latency = (middle, world.latencies.last().copied().unwrap_or_default());
        Ok(Account { calm: world.calm, start, idle, load, latency, memory: resident() })
    }
}

impl World {
    fn new(calm: Calm) -> World {
        let ids: Vec<NodeId> = (1..=calm.nodes).map(NodeId).collect();
        let layout = Layout::new(ids.clone(), calm.groups, calm.replication);
        let disks = ids.iter().map(|id| (*id, StorageId(u128::from(id.0)))).collect();
        let nowhere = ids.iter().map(|id| RosterNode::nowhere(*id)).collect();
        let roster = Arc::new(Roster::birth(&layout, nowhere));
        let founding = Arc::new(Founding { layout, disks });
        let shard = |id: &NodeId| {
            let seats = roster.groups_of(*id).map(|group| Seat {
                group,
                founders: founding.members(group),
                preference: roster.preference(group),
                replay: Replay::mirrored(),
            });
            let config = ShardConfig { host: host(*id, &calm, &ids), patience: Patience::default() };
            Shard::new(config, Arc::clone(&founding), Arc::clone(&roster), seats.collect(), Time::ZERO)
        };
        let node = |id: &NodeId| Node { shard: shard(id), waiting: Vec::new(), writing: Vec::new() };
        let mut world = World {
            nodes: ids.iter().map(node).collect(),
            schedule: Schedule::default(),
            decoder: Decoder::new(16 << 20),
            random: Random::new(1),
            traffic: Traffic::default(),
            begun: (Time::ZERO, Instant::now()),
            puts: Vec::new(),
            latencies: Vec::new(),
            calm,
        };
        for node in 0..world.nodes.len() {
            // Nodes do not tick in step.
            let micros = 1 + world.random.below(TICK.as_micros() as u64);
            world.schedule.after(Duration::from_micros(micros), Event::Tick { node });
        }
        world
    }

    fn is_settled(&self) -> bool {
        let leads: usize = self.nodes.iter().map(|node| node.shard.host().leads()).sum();
        let rest = |node: &Node| !node.shard.is_active() && node.writing.is_empty();
        leads == self.calm.groups as usize
            && self.nodes.iter().all(rest)
            && self.nodes.iter().all(|node| {
                let mut groups = node.shard.host().groups().map(|group| &group.replica);
                groups.all(|replica| replica.leader() == replica.preference().first().copied())
            })
    }

    fn take_traffic(&mut self) -> Traffic {
        let now = self.schedule.now();
        let (at, instant) = std::mem::replace(&mut self.begun, (now, Instant::now()));
        let mut traffic = std::mem::take(&mut self.traffic);
        (traffic.length, traffic.took) = (now.since(at), instant.elapsed());
        traffic
    }

    fn run_for(&mut self, length: Duration) -> Result<(), String> {
        let end = self.schedule.now() + length;
        while self.schedule.now() < end {
            let event = self.schedule.next_event().ok_or("nothing happens any more")?;
            self.handle(event)?;
        }
        self.traffic.length += length;
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        let now = self.schedule.now();
        match event {
            Event::Tick { node } => {
                self.nodes[node].shard.tick(now);
                self.turn(node)?;
                let pace = if self.nodes[node].shard.is_active() { TICK } else { IDLE_TICK };
                self.schedule.after(pace, Event::Tick { node });
            }
            Event::Deliver { to, from, frames } => {
                for frame in frames {
                    self.nodes[to].shard.on_frame(from, frame, now);
                }
                self.turn(to)?;
            }
            Event::Synced { node } => {
                for job in std::mem::take(&mut self.nodes[node].writing) {
                    self.send(node, job.after_sync);
                    self.nodes[node].shard.on_synced(job.batch, now);
                }
                self.turn(node)?;
                self.write(node);
            }
            Event::Put => self.put()?,
        }
        Ok(())
    }

    fn put(&mut self) -> Result<(), String> {
        let now = self.schedule.now();
        let number = self.puts.len() as u64;
        self.puts.push(now);
        if number + 1 < self.calm.puts {
            self.schedule.after(Duration::from_nanos(1_000_000_000 / self.calm.rate), Event::Put);
        }
        let group = GroupId(self.random.below(u64::from(self.calm.groups)) as u32);
        let node = self.random.below(self.nodes.len() as u64) as usize;
        let put = Command::Put {
            key: Bytes::from(format!("key:{number:012}")),
            value: Bytes::from_static(&[b'v'; 100]),
            condition: Condition::None,
            want: Want::Done,
        };
        let token = Token { connection: 1, request: number };
        let command = put.to_bytes();
        let request = Request { token, group, read: false, ordered: false, stale: None, command };
        self.nodes[node].shard.submit(request, now);
        self.turn(node)
    }

    fn turn(&mut self, node: usize) -> Result<(), String> {
        let now = self.schedule.now();
        let mut effects = self.nodes[node].shard.turn(now);
        self.send(node, std::mem::take(&mut effects.send_now));
        for completion in effects.completions {
            completion.result.map_err(|refusal| format!("a put is refused: {refusal:?}"))?;
            let begun = self.puts[completion.token.request as usize];
            self.latencies.push(now.since(begun));
        }
        let mut folded = false;
        for (group, order) in effects.orders {
            let applied = match order {
                MirrorOrder::Fold(fold) => fold.head.applied,
                MirrorOrder::Refill(image) => image.head.applied,
                _ => continue,
            };
            self.nodes[node].shard.on_mirror(group, MirrorWord::Folded(applied), now);
            folded = true;
        }
        if let Some(job) = effects.job {
            self.nodes[node].waiting.push(job);
            self.write(node);
        }
        if folded { self.turn(node) } else { Ok(()) }
    }

    /// Begins a sync of everything that is ready, unless one is under way.
    fn write(&mut self, node: usize) {
        let Node { waiting, writing, .. } = &mut self.nodes[node];
        if writing.is_empty() && !waiting.is_empty() {
            *writing = std::mem::take(waiting);
            self.traffic.syncs += 1;
            self.traffic.records += writing.iter().map(|job| job.records.len() as u64).sum::<u64>();
            self.schedule.after(SYNC, Event::Synced { node });
        }
    }

    fn send(&mut self, from: usize, outbox: Outbox) {
        for (to, _, batch) in outbox.into_batches() {
            self.traffic.batches += 1;
            self.traffic.bytes += batch.bytes() as u64;
            let mut frames = unpack(&mut self.decoder, batch);
            for frame in &mut frames {
                // What is under way holds its own bytes, not a whole read buffer.
                frame.body = Bytes::copy_from_slice(&frame.body);
                *self.traffic.frames.entry(kind(frame)).or_default() += 1;
            }
            let (to, from) = (to.0 as usize - 1, NodeId(from as u32 + 1));
            self.schedule.after(TRAVEL, Event::Deliver { to, from, frames });
        }
    }
}

fn kind(frame: &Frame) -> &'static str {
    match frame.kind {
        wire::HEARTBEAT => "heartbeat",
        wire::SUBMIT => "submissions",
        wire::ANSWER => "answers",
        kind => codec::decode(kind, frame.body.clone()).map_or("other", |message| message.name()),
    }
}

/// As the server sets it up by default.
fn host(me: NodeId, calm: &Calm, nodes: &[NodeId]) -> HostConfig {
    HostConfig {
        me,
        proof: Proof::alone(StorageId(u128::from(me.0))),
        boot: Boot(1),
        shard: 0,
        shards: 1,
        nodes: nodes.to_vec(),
        groups: calm.groups,
        heartbeat_interval: Duration::from_millis(50),
        tuning: Arc::new(Tuning {
            lease: Duration::from_millis(300),
            own_lease: Duration::from_millis(288),
            ..Tuning::default()
        }),
        limits: Arc::new(Limits {
            mirror: Some(MirrorLimits::default()),
            history_bytes: 64 << 10,
            ..Limits::default()
        }),
        seed: u64::from(me.0),
    }
}

/// Resident memory of this process, 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account { calm, start, idle, load, latency, memory } = self;
        let Calm { nodes, groups, replication, puts, rate } = calm;
        writeln!(f, "{nodes} nodes, {groups} groups of {replication}; {} MiB resident", memory >> 20)?;
        writeln!(f, "start: at rest after {:.2} s", start.length.as_secs_f64())?;
        traffic(f, start, f64::from(*groups), "a group")?;
        writeln!(f, "idle: {:.1} s", idle.length.as_secs_f64())?;
        traffic(f, idle, idle.length.as_secs_f64() * f64::from(*nodes), "a node and second")?;
        let (middle, slowest) = latency;
        writeln!(
            f,
            "load: {puts} puts at {rate}/s, answered within {middle:.1?}, the slowest {slowest:.1?}"
        )?;
        traffic(f, load, *puts as f64, "a put")
    }
}

fn traffic(f: &mut fmt::Formatter<'_>, t: &Traffic, per: f64, unit: &str) -> fmt::Result {
    for (name, count) in &t.frames {
        writeln!(f, "{count:>12} {name:<14} {:>10.3} {unit}", *count as f64 / per)?;
    }
    for (name, count) in
        [("batches", t.batches), ("bytes", t.bytes), ("syncs", t.syncs), ("records", t.records)]
    {
        writeln!(f, "{count:>12} {name:<14} {:>10.3} {unit}", count as f64 / per)?;
    }
    let (length, took) = (t.length.as_secs_f64(), t.took.as_secs_f64());
    writeln!(f, "             simulated in {took:.2} s: {:.2} s for one", took / length.max(1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_takes_two_accepts_two_votes_and_three_records() {
        let calm = Calm { nodes: 3, groups: 8, replication: 3, puts: 200, rate: 100 };
        let account = calm.run().expect("nothing goes wrong");
        let of = |name| account.load.frames.get(name).copied().unwrap_or(0);
        // At this pace hardly two puts meet in one instance.
        assert!((380..=400).contains(&of("Accept")) && (380..=400).contains(&of("Accepted")), "{account}");
        assert!(of("Prepare") == 0 && of("Probe") == 0, "no election while all is well: {account}");
        // What became of each leader's opening is told to its two followers, after a while; then there is silence.
        let said = |name| account.idle.frames.get(name).copied().unwrap_or(0);
        assert_eq!((said("Advance"), said("AdvanceReply")), (16, 16), "{account}");
        assert_eq!(account.idle.frames.len(), 3, "beside them there are heartbeats: {account}");
        assert!(said("heartbeat") > 0);
    }
}
