//! One simulated machine: a disk that outlives the node, and the node that runs on it: the
//! production shards, requests, birth, manifest and log, driven by events instead of threads.

use std::sync::Arc;
use std::time::Duration;

use groups::group::Limits;
use groups::host::HostConfig;
use groups::ids::{Boot, ClusterId, NodeId, StorageId};
use groups::log::{Durability, Log, LogOptions, SimDisk};
use groups::paxos::Tuning;
use groups::paxos::message::Entry;
use groups::random::Random;
use groups::time::Time;
use netio::{Decoder, Frame, FrameBatch, Lane, NO_GROUP};
use server::node::birth::{Birth, Word};
use server::node::layout::Layout;
use server::node::manifest::{Manifest, Stage};
use server::node::open::{Role, open_log, open_manifest};
use server::node::requests::{Completion, Patience, Request};
use server::node::shard::{Effects, LogJob, Outbox, Shard, ShardConfig};
use server::node::wire;

/// The cluster that a run simulates.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Nodes, numbered from 1.
    pub nodes: u32,
    /// Groups.
    pub groups: u32,
    /// Members of each group.
    pub replication: usize,
    /// Shards of each node.
    pub shards: u32,
}

/// A frame batch on its way.
#[derive(Debug)]
pub struct Parcel {
    /// The receiver.
    pub to: NodeId,
    /// Encoded frames.
    pub bytes: Vec<u8>,
}

/// What a machine wants of the world after an event.
#[derive(Debug, Default)]
pub struct Wishes {
    /// To be carried.
    pub parcels: Vec<Parcel>,
    /// To be told to clients.
    pub completions: Vec<Completion>,
    /// The log begins to write: its end is an event of its own.
    pub log_begins: bool,
    /// The process ended by itself, and why.
    pub died: Option<String>,
}

struct Running {
    shards: Vec<Shard>,
    log: Log<SimDisk>,
    waiting: Vec<LogJob>,
    writing: Vec<LogJob>,
}

#[allow(clippy::large_enum_variant, reason = "a handful of them exist")]
enum Life {
    Down,
    Unborn { birth: Birth, manifest: Manifest, disk: SimDisk },
    Running(Running),
}

/// One machine.
pub struct Machine {
    /// Its node.
    pub node: NodeId,
    /// Counts the lives of the process, so that events of an earlier one are recognised.
    pub life: u64,
    cluster: Cluster,
    layout: Arc<Layout>,
    node_disk: SimDisk,
    log_disk: SimDisk,
    random: Random,
    state: Life,
    started: Time,
    boot: Boot,
}

impl Machine {
    /// A machine with empty disks that is switched off.
    #[must_use]
    pub fn new(node: NodeId, cluster: &Cluster, seed: u64) -> Machine {
        let nodes = (1..=cluster.nodes).map(NodeId).collect();
        let mut random = Random::new(seed);
        Machine {
            node,
            life: 0,
            cluster: cluster.clone(),
            layout: Arc::new(Layout::new(nodes, cluster.groups, cluster.replication)),
            node_disk: SimDisk::new(random.next_u64()),
            log_disk: SimDisk::new(random.next_u64()),
            random,
            state: Life::Down,
            started: Time::ZERO,
            boot: Boot(0),
        }
    }

    /// Whether the process runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !matches!(self.state, Life::Down)
    }

    /// The shards, once the cluster is born here.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        match &self.state {
            Life::Running(running) => &running.shards,
            Life::Down | Life::Unborn { .. } => &[],
        }
    }

    /// The disk of the log, for faults.
    #[must_use]
    pub fn log_disk(&self) -> &SimDisk {
        &self.log_disk
    }

    /// The node's own monotonic clock: it starts anew with every life.
    fn clock(&self, now: Time) -> Time {
        Time::from_nanos(now.since(self.started).as_nanos() as u64 + 1_000_000)
    }

    /// Starts the process.
    ///
    /// # Errors
    /// When the data directory is refused.
    pub fn start(&mut self, now: Time) -> Result<Wishes, String> {
        assert!(!self.is_up(), "a running process is not started");
        self.life += 1;
        self.started = now;
        let role = Role {
            cluster_name: "sim".into(),
            node: self.node,
            nodes: self.layout.nodes().to_vec(),
            groups: self.cluster.groups,
            replication: self.cluster.replication as u32,
        };
        let mut disk = self.node_disk.clone();
        let storage = StorageId(u128::from(self.random.next_u64()) << 64 | 1);
        let manifest = open_manifest(&mut disk, &role, storage).map_err(|e| e.to_string())?;
        self.boot = manifest.boot;
        match manifest.stage.clone() {
            Stage::Born(cluster, _) => self.run(cluster, manifest.storage, now)?,
            stage => {
                let own = Word { fingerprint: 1, storage: manifest.storage, stage };
                let birth = Birth::new(self.node, "sim", role.nodes, own);
                self.state = Life::Unborn { birth, manifest, disk };
            }
        }
        Ok(Wishes::default())
    }

    fn run(&mut self, cluster: ClusterId, storage_id: StorageId, now: Time) -> Result<(), String> {
        let options = LogOptions {
            segment_size: 256 << 10,
            storage_id,
            max_record: 128 << 10,
            durability: Durability::Fsync,
        };
        let opened = open_log(self.log_disk.clone(), options, self.node, cluster, &self.layout)
            .map_err(|e| e.to_string())?;
        let clock = self.clock(now);
        let mut seats: Vec<Vec<_>> = (0..self.cluster.shards).map(|_| Vec::new()).collect();
        for seat in opened.seats {
            seats[(seat.group.0 % self.cluster.shards) as usize].push(seat);
        }
        let shards = (0..self.cluster.shards)
            .zip(seats)
            .map(|(shard, seats)| {
                let config = self.shard_config(shard);
                Shard::new(config, Arc::clone(&self.layout), seats, clock)
            })
            .collect();
        let (waiting, writing) = (Vec::new(), Vec::new());
        self.state = Life::Running(Running { shards, log: opened.log, waiting, writing });
        Ok(())
    }

    fn shard_config(&mut self, shard: u32) -> ShardConfig {
        // Small limits, so that short runs reach them.
        let tuning = Tuning { window: 8, ahead: 24, recent: 16, chunk_bytes: 600, ..Tuning::default() };
        let limits = Limits { max_batch_bytes: 400, ..Limits::default() };
        ShardConfig {
            host: HostConfig {
                me: self.node,
                boot: self.boot,
                shard,
                shards: self.cluster.shards,
                nodes: self.layout.nodes().to_vec(),
                groups: self.cluster.groups,
                heartbeat_interval: Duration::from_millis(50),
                tuning,
                limits,
                seed: self.random.next_u64(),
            },
            patience: Patience::default(),
        }
    }

    /// Frames of a peer.
    pub fn deliver(&mut self, from: NodeId, bytes: &[u8], now: Time) -> Wishes {
        let mut decoder = Decoder::new(1 << 20);
        let mut frames = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = decoder.room();
            let n = room.len().min(rest.len());
            room[..n].copy_from_slice(&rest[..n]);
            decoder.advance(n);
            rest = &rest[n..];
            decoder.decode(&mut frames).expect("the network breaks no bytes");
        }
        let clock = self.clock(now);
        let mut wishes = Wishes::default();
        for frame in frames {
            self.frame(from, frame, clock, now, &mut wishes);
        }
        self.turn(now, &mut wishes);
        wishes
    }

    fn frame(&mut self, from: NodeId, frame: Frame, clock: Time, now: Time, wishes: &mut Wishes) {
        match &mut self.state {
            Life::Down => {}
            Life::Unborn { birth, manifest, disk } => {
                if frame.kind != wire::BIRTH {
                    return;
                }
                let Some(word) = Word::decode(frame.body) else { return };
                let Some(stage) = birth.hear(from, word) else { return };
                manifest.stage = stage;
                if let Err(e) = manifest.store(disk) {
                    wishes.died = Some(e.to_string());
                    return;
                }
                self.speak_birth(wishes);
                self.come_to_life(now, wishes);
            }
            Life::Running(running) => {
                if frame.kind == wire::BIRTH {
                    // Whoever is not born yet is told of the cluster.
                    let word = Word::decode(frame.body);
                    if word.is_some_and(|w| !matches!(w.stage, Stage::Born(..))) {
                        self.answer_birth(from, wishes);
                    }
                    return;
                }
                let shards = running.shards.len() as u32;
                if frame.group == NO_GROUP {
                    for shard in &mut running.shards {
                        shard.on_frame(from, frame.clone(), clock);
                    }
                } else {
                    running.shards[(frame.group.0 % shards) as usize].on_frame(from, frame, clock);
                }
            }
        }
    }

    fn come_to_life(&mut self, now: Time, wishes: &mut Wishes) {
        let Life::Unborn { manifest, .. } = &self.state else { return };
        if let Stage::Born(cluster, _) = manifest.stage {
            let storage = manifest.storage;
            if let Err(e) = self.run(cluster, storage, now) {
                wishes.died = Some(e);
            }
        }
    }

    fn birth_parcel(to: NodeId, word: &Word) -> Parcel {
        let mut batch = FrameBatch::new();
        batch.push(NO_GROUP, wire::BIRTH, &word.encode(), &bytes::Bytes::new());
        Parcel { to, bytes: batch.into_segments().flatten().collect() }
    }

    fn speak_birth(&mut self, wishes: &mut Wishes) {
        if let Life::Unborn { birth, .. } = &self.state {
            for node in self.layout.nodes().iter().filter(|n| **n != self.node) {
                wishes.parcels.push(Self::birth_parcel(*node, birth.word()));
            }
        }
    }

    fn answer_birth(&self, to: NodeId, wishes: &mut Wishes) {
        if let Ok(Some(manifest)) = Manifest::load(&self.node_disk.clone()) {
            let word = Word { fingerprint: 1, storage: manifest.storage, stage: manifest.stage };
            wishes.parcels.push(Self::birth_parcel(to, &word));
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) -> Wishes {
        let clock = self.clock(now);
        let mut wishes = Wishes::default();
        match &mut self.state {
            Life::Down => {}
            Life::Unborn { birth, manifest, disk } => {
                if let Some(stage) = birth.advance() {
                    manifest.stage = stage;
                    if let Err(e) = manifest.store(disk) {
                        wishes.died = Some(e.to_string());
                        return wishes;
                    }
                }
                self.speak_birth(&mut wishes);
                self.come_to_life(now, &mut wishes);
            }
            Life::Running(running) => {
                for shard in &mut running.shards {
                    shard.tick(clock);
                }
                self.turn(now, &mut wishes);
            }
        }
        wishes
    }

    /// A client's request. `false` when nobody is there to take it.
    pub fn request(&mut self, request: Request, now: Time) -> Option<Wishes> {
        let clock = self.clock(now);
        let Life::Running(running) = &mut self.state else { return None };
        let shards = running.shards.len() as u32;
        running.shards[(request.group.0 % shards) as usize].submit(request, clock);
        let mut wishes = Wishes::default();
        self.turn(now, &mut wishes);
        Some(wishes)
    }

    /// The log's write and sync are through: what waited for them is released.
    pub fn log_done(&mut self, now: Time) -> Wishes {
        let clock = self.clock(now);
        let mut wishes = Wishes::default();
        let Life::Running(running) = &mut self.state else { return wishes };
        let jobs = std::mem::take(&mut running.writing);
        for job in &jobs {
            for record in &job.records {
                if let Err(e) = running.log.append(record) {
                    wishes.died = Some(e.to_string());
                    return wishes;
                }
            }
        }
        if running.log.pending_bytes() > 0
            && let Err(e) = running.log.commit()
        {
            wishes.died = Some(e.to_string());
            return wishes;
        }
        for job in jobs {
            carry(job.after_sync, &mut wishes);
            running.shards[job.shard as usize].on_synced(job.batch, clock);
        }
        self.turn(now, &mut wishes);
        wishes
    }

    fn turn(&mut self, now: Time, wishes: &mut Wishes) {
        let clock = self.clock(now);
        let Life::Running(running) = &mut self.state else { return };
        for index in 0..running.shards.len() {
            loop {
                let shard = &mut running.shards[index];
                let Effects { send_now, job, log_reads, completions } = shard.turn(clock);
                let mut again = false;
                for read in log_reads {
                    let found = running.log.read(read.group, read.from, read.to, 600).unwrap_or_default();
                    let entries = found
                        .into_iter()
                        .map(|(instance, ballot, value)| Entry { instance, ballot, value })
                        .collect();
                    shard.on_log_read(read, entries);
                    again = true;
                }
                carry(send_now, wishes);
                wishes.completions.extend(completions);
                running.waiting.extend(job);
                if !again {
                    break;
                }
            }
        }
        if running.writing.is_empty() && !running.waiting.is_empty() {
            running.writing = std::mem::take(&mut running.waiting);
            wishes.log_begins = true;
        }
    }

    /// The process dies; with `power`, the machine loses its unsynced writes too.
    pub fn stop(&mut self, power: bool) {
        self.state = Life::Down;
        for disk in [&self.node_disk, &self.log_disk] {
            if power {
                disk.crash();
            } else {
                disk.kill();
            }
        }
    }
}

fn carry(outbox: Outbox, wishes: &mut Wishes) {
    for (to, _lane, batch) in outbox.into_batches() {
        let _: Lane = _lane;
        wishes.parcels.push(Parcel { to, bytes: batch.into_segments().flatten().collect() });
    }
}
