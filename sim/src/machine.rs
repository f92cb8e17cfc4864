//! One simulated machine: a disk that outlives the node, and the node that runs on it: the
//! production shards, requests, birth, manifest and log, driven by events instead of threads.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use checkpoint::mirror::{Mirror, MirrorConfig};
use checkpoint::store::sim::{self as sim_engine, SimEngine};
use checkpoint::store::{DiskFiles, Files, MirrorStore, StoreError};
use groups::check::CheckLimits;
use groups::group::{Group, Limits};
use groups::host::{HostConfig, MirrorWord};
use groups::ids::{Boot, ClusterId, CommitId, GroupId, InstanceId, NodeId, StorageId};
use groups::log::{
    AppendError, At, CommitError, Disk, DiskImage, Durability, Log, LogOptions, LogReader, OpenError,
    ReadError, Record, Recovered, SegmentSeq, SimDisk, inspect, scrub_segment, sealed_segments,
};
use groups::mirrored::{MirrorLimits, MirrorOrder};
use groups::paxos::message::Mark;
use groups::paxos::{Counters, LogFound, LogRead, Tuning};
use groups::peers::{Memory, Newest, Proof, Standing};
use groups::random::Random;
use groups::time::Time;
use netio::{Decoder, Frame, FrameBatch, NO_GROUP};
use server::node::birth::{Birth, Word};
use server::node::compaction::{CompactionLimits, Compactor};
use server::node::layout::Layout;
use server::node::manifest::{Founders, Manifest, Stage};
use server::node::memory;
use server::node::mirror::{Closed, Loaded, MirrorEffect, NodeMirror, is_mirror_frame, load_group, stored};
use server::node::open::{Refused, Role, open_log, open_manifest, seats};
use server::node::requests::{Completion, Patience, Request};
use server::node::roster::{self, Roster, RosterNode};
use server::node::shard::{Effects, LogJob, Outbox, Shard, ShardConfig};
use server::node::watch::{Pull, Pulled};
use server::node::wire;

use crate::fault::Rot;
use crate::judges::leases::Holder;

/// The cluster that a run simulates.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Nodes that it is born with, numbered from 1.
    pub nodes: u32,
    /// Machines beside them, which an operator may add.
    pub spares: u32,
    /// Groups.
    pub groups: u32,
    /// Members of each group.
    pub replication: usize,
    /// Shards of each node.
    pub shards: u32,
    /// Bytes of one segment of the log.
    pub segment_size: u64,
    /// Leaders answer reads on leases.
    pub leases: bool,
}

/// See [`Tuning`]: as a server sets it by default.
const LEASE: Duration = Duration::from_millis(300);
const OWN_LEASE: Duration = Duration::from_millis(288);

/// Frames on their way to one peer. They were encoded as for a socket, and decoded again: once,
/// for the judges and the receiver alike.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The receiver.
    pub to: NodeId,
    /// What is in it.
    pub frames: Vec<Frame>,
}

/// What a machine wants of the world after an event.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Records that a commit has just made durable; what waited for them is among the parcels.
    pub durable: Vec<Record>,
    /// To be carried.
    pub parcels: Vec<Parcel>,
    /// To be told to clients.
    pub completions: Vec<Completion>,
    /// To be told to those who watch.
    pub pulled: Vec<Pulled>,
    /// The log begins to write: its end is an event of its own.
    pub log_begins: bool,
    /// The log found no space: it tries again later.
    pub log_waits: bool,
    /// The log is to be read for peers: that is an event of its own.
    pub learner_wakes: bool,
    /// The mirror has work: it takes it up later, in an event of its own.
    pub mirror_wakes: bool,
    /// Points that the mirror calls verified and durable.
    pub settled: Vec<(GroupId, Mark)>,
    /// What an operator would be told.
    pub alarms: Vec<String>,
    /// The groups were just rebuilt from the log.
    pub came_to_life: bool,
    /// What the disk held was no memory to vote with: the node goes on as another one. Which it was.
    pub renewed: Option<(StorageId, String)>,
    /// Peers have said what is against the disk: the process ends and begins anew.
    pub verdict: Option<Standing>,
    /// The process ended by itself, and why.
    pub died: Option<String>,
}

/// Why a process did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// It died on the way, or its disk failed: an armed fault.
    Stopped,
    /// There is no room for the log: to be tried again.
    NoSpace,
    /// The log is damaged, and the node knows it.
    Damaged(String),
    /// Anything else.
    Other(String),
}

struct Running {
    cluster: ClusterId,
    shards: Vec<Shard>,
    log: Log<SimDisk>,
    newest: Newest,
    /// What is remembered of the peers' disks.
    memory: Vec<(NodeId, Memory)>,
    waiting: Vec<LogJob>,
    writing: Vec<LogJob>,
    /// The log as the learner thread sees it, what it is asked, by shard, and whether it is on its way.
    reader: LogReader<SimDisk>,
    reads: VecDeque<(usize, LogRead)>,
    learner_awake: bool,
    /// What was last sent from the log to whom: the next instance, and when; for the rule that log
    /// GC leaves alone what is being sent (FAULTS, rule 27).
    sending: BTreeMap<(GroupId, NodeId), (InstanceId, Time)>,
    /// The records of `writing` are in the log's pending commit, which waits for space.
    appended: bool,
    /// When the last write ended, for sealing an idle log.
    idle_since: Time,
    /// `None` while its store waits for space.
    mirror: Option<NodeMirror>,
    /// What goes on once there is space again.
    closed: Option<Closed>,
    errands: Vec<Errand>,
    /// The mirror's next step is under way.
    mirror_awake: bool,
    compactor: Compactor,
}

/// What waits for the mirror.
enum Errand {
    Order(GroupId, MirrorOrder),
    Frame(NodeId, Frame),
}

#[allow(clippy::large_enum_variant, reason = "a handful of them exist")]
enum Life {
    Down,
    Unborn { birth: Birth, manifest: Manifest, disk: SimDisk },
    Running(Running),
}

/// A monotonic clock that may run too fast or too slow, and starts anew with every life.
#[derive(Clone, Copy, Debug)]
struct Clock {
    set: Time,
    shown: u64,
    millionths: u64,
}

impl Clock {
    fn at(&self, now: Time) -> Time {
        let passed = now.since(self.set).as_nanos() * u128::from(self.millionths) / 1_000_000;
        Time::from_nanos(self.shown + passed as u64)
    }
}

/// As in production: after so much idleness the log is sealed.
const SEAL_AFTER: Duration = Duration::from_millis(200);

/// One machine.
pub struct Machine {
    /// Its node.
    pub node: NodeId,
    /// Counts the lives of the process, so that events of an earlier one are recognised.
    pub life: u64,
    /// Its disk is damaged and was refused, or is an empty one: it takes no part any more.
    pub gone: bool,
    /// Its log was damaged behind its back.
    pub damaged: bool,
    /// The sealed segment that was damaged while it ran.
    rotten: Option<SegmentSeq>,
    /// Such segments that it has got rid of by itself.
    healed: u64,
    /// An older copy of its log was put back behind its back.
    pub untrusted: bool,
    /// It was given an empty disk: what it remembered of its peers is gone.
    pub forgetful: bool,
    /// The disk that it runs on, and those that its cluster was born on.
    pub storage: StorageId,
    /// See `storage`.
    pub founders: Founders,
    /// A copy of its disks, and the newest commit in it.
    copy: Option<(StorageId, DiskImage, DiskImage, CommitId)>,
    cluster: Cluster,
    layout: Arc<Layout>,
    node_disk: SimDisk,
    log_disk: SimDisk,
    /// The mirror's engine and the small files beside it.
    engine: SimEngine,
    mirror_disk: SimDisk,
    /// To be armed at the next start: operations, and whether on the log's disk.
    midway_start: Option<(u64, bool)>,
    random: Random,
    state: Life,
    clock: Clock,
    boot: Boot,
    decoder: Decoder,
    /// What the last opening of the log found.
    recovered: Option<Recovered>,
    /// Segments begun in lives that have ended.
    segments: u64,
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
            gone: false,
            damaged: false,
            rotten: None,
            healed: 0,
            untrusted: false,
            forgetful: false,
            storage: StorageId(0),
            founders: Founders::new(),
            copy: None,
            cluster: cluster.clone(),
            layout: Arc::new(Layout::new(nodes, cluster.groups, cluster.replication)),
            node_disk: SimDisk::new(random.next_u64()),
            log_disk: SimDisk::new(random.next_u64()),
            engine: SimEngine::new(),
            mirror_disk: SimDisk::new(random.next_u64()),
            midway_start: None,
            random,
            state: Life::Down,
            clock: Clock { set: Time::ZERO, shown: 0, millionths: 1_000_000 },
            boot: Boot(0),
            decoder: Decoder::new(1 << 20),
            recovered: None,
            segments: 0,
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

    /// All groups with a seat here.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.shards().iter().flat_map(|s| s.host().groups())
    }

    /// The seat here in this group.
    #[must_use]
    pub fn seat(&self, group: GroupId) -> Option<&Group> {
        self.shards().iter().find_map(|s| s.host().group(group))
    }

    /// Whether this machine hands over what it leads of a group because it lags.
    #[must_use]
    pub fn is_slow(&self, group: GroupId) -> bool {
        let hosts = self.shards().iter().map(Shard::host);
        hosts.filter(|host| host.group(group).is_some()).any(|host| host.peers().is_slow(self.node, group))
    }

    /// The disk of the log, for faults.
    #[must_use]
    pub fn log_disk(&self) -> &SimDisk {
        &self.log_disk
    }

    /// The engine of the mirror, for faults.
    #[must_use]
    pub fn engine(&self) -> &SimEngine {
        &self.engine
    }

    /// Bytes that the files of the log take.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        match &self.state {
            Life::Running(running) => running.log.stats().disk_bytes,
            Life::Down | Life::Unborn { .. } => 0,
        }
    }

    /// Segments dropped in this life.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        match &self.state {
            Life::Running(running) => running.log.stats().dropped_segments,
            Life::Down | Life::Unborn { .. } => 0,
        }
    }

    /// Values that were read for peers, in this life, from segments that were written no more.
    #[must_use]
    pub fn sealed_values(&self) -> u64 {
        match &self.state {
            Life::Running(running) => running.reader.sealed_values(),
            Life::Down | Life::Unborn { .. } => 0,
        }
    }

    /// Times, in this life, that a segment was kept because it was being sent.
    #[must_use]
    pub fn pinned(&self) -> u64 {
        match &self.state {
            Life::Running(running) => running.compactor.kept_for_readers(),
            Life::Down | Life::Unborn { .. } => 0,
        }
    }

    /// Takes the mirror away from a stopped machine.
    pub fn lose_mirror(&mut self) {
        assert!(!self.is_up(), "the files of a running process are not touched");
        self.engine = SimEngine::new();
        self.mirror_disk = SimDisk::new(self.random.next_u64());
    }

    /// What the last opening of the log found; told once.
    pub fn take_recovered(&mut self) -> Option<Recovered> {
        self.recovered.take()
    }

    /// The leaders here and whom they take for bound to them at `now`.
    pub fn holders(&self, now: Time) -> Vec<Holder> {
        let clock = self.clock.at(now);
        let mut holders = Vec::new();
        for shard in self.shards() {
            let host = shard.host();
            for replica in host.groups().map(|group| &group.replica).filter(|replica| replica.is_leader()) {
                let bound = replica.bound_followers(host.peers()).into_iter();
                let bound = bound.filter(|(_, until)| clock < *until).map(|(node, _)| node).collect();
                let (group, ballot) = (replica.group(), replica.promised());
                let needed = replica.members().majority() - usize::from(replica.is_voter());
                holders.push(Holder { node: self.node, group, ballot, bound, needed });
            }
        }
        holders
    }

    /// Segments that the log has begun beyond its first, in this life.
    #[must_use]
    pub fn rotations(&self) -> u64 {
        match &self.state {
            Life::Running(running) => running.log.stats().segments.saturating_sub(self.segments),
            Life::Down | Life::Unborn { .. } => 0,
        }
    }

    /// The product's counters of this life.
    pub fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.groups().map(|g| &g.replica.counters)
    }

    /// Lets the clock run at another speed from now on.
    pub fn set_clock(&mut self, millionths: u64, now: Time) {
        self.clock = Clock { set: now, shown: self.clock.at(now).nanos(), millionths };
    }

    /// The next start dies behind so many operations on one of its disks.
    pub fn arm_start(&mut self, operations: u64, log: bool) {
        self.midway_start = Some((operations, log));
    }

    /// Starts the process.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(&mut self, now: Time) -> Result<Wishes, StartError> {
        assert!(!self.is_up(), "a running process is not started");
        self.life += 1;
        self.clock = Clock { set: now, shown: 1_000_000, ..self.clock };
        self.decoder = Decoder::new(1 << 20);
        if let Some((operations, log)) = self.midway_start.take() {
            let disk = if log { &self.log_disk } else { &self.node_disk };
            disk.stop_after(disk.operations() + operations);
        }
        let role = Role {
            cluster_name: "sim".into(),
            node: self.node,
            groups: self.cluster.groups,
            replication: self.cluster.replication as u32,
        };
        let mut disk = self.node_disk.clone();
        let storage = StorageId(u128::from(self.random.next_u64()) << 64 | 1);
        let manifest = open_manifest(&mut disk, &role, storage, false).map_err(start_error)?;
        self.storage = manifest.storage;
        self.boot = manifest.boot;
        let mut wishes = Wishes::default();
        match manifest.stage.clone() {
            Stage::Born(..) => self.run_or_renew(manifest, now, &mut wishes).map_err(start_error)?,
            stage => {
                let own = self.word(manifest.storage, stage);
                let birth = Birth::new(self.node, "sim", self.listed(), own);
                self.state = Life::Unborn { birth, manifest, disk };
            }
        }
        Ok(wishes)
    }

    /// The nodes that its configuration lists: the founders, and itself.
    fn listed(&self) -> Vec<NodeId> {
        let mut nodes = self.layout.nodes().to_vec();
        if !nodes.contains(&self.node) {
            nodes.push(self.node);
        }
        nodes
    }

    /// What it says of itself. Whoever is no founder has another configuration.
    fn word(&self, storage: StorageId, stage: Stage) -> Word {
        let fingerprint = if self.layout.nodes().contains(&self.node) { 1 } else { 2 };
        Word { fingerprint, terms: 1, storage, stage, heard: Boot(0), roster: None }
    }

    /// The roster that it works by, while it runs.
    #[must_use]
    pub fn roster(&self) -> Option<&Arc<Roster>> {
        match &self.state {
            Life::Running(running) => running.shards.first().map(Shard::roster),
            _ => None,
        }
    }

    /// Brings the groups to life; with a log that is no memory any more, as another disk.
    fn run_or_renew(
        &mut self,
        mut manifest: Manifest,
        now: Time,
        wishes: &mut Wishes,
    ) -> Result<(), Refused> {
        wishes.came_to_life = true;
        match self.run(manifest.clone(), now) {
            Err(why) if why.is_amnesia(self.cluster.replication as u32) => {
                let old = self.storage;
                self.renew(&mut manifest)?;
                wishes.renewed = Some((old, why.to_string()));
                self.run(manifest, now)
            }
            ran => ran,
        }
    }

    /// The log is put aside, and the disk is another one from here on.
    fn renew(&mut self, manifest: &mut Manifest) -> Result<(), Refused> {
        self.log_disk = SimDisk::new(self.random.next_u64());
        manifest.renew(StorageId(u128::from(self.random.next_u64()) << 64 | 2));
        manifest.store(&self.node_disk.clone())?;
        (self.storage, self.boot) = (manifest.storage, manifest.boot);
        (self.damaged, self.untrusted, self.rotten) = (false, false, None);
        Ok(())
    }

    /// Peers remember more of the stopped machine's disk than it does: its next life is another one.
    /// Returns the disk that it was.
    ///
    /// # Errors
    /// When its manifest cannot be written.
    pub fn begin_anew(&mut self) -> Result<StorageId, String> {
        assert!(!self.is_up(), "a running process is not begun anew");
        let old = self.storage;
        let loaded = Manifest::load(&self.node_disk.clone()).map_err(|e| e.to_string())?;
        let mut manifest = loaded.ok_or_else(|| "it has no manifest".to_owned())?;
        self.renew(&mut manifest).map_err(|e| e.to_string())?;
        Ok(old)
    }

    /// Copies the disks of the stopped machine.
    pub fn take_copy(&mut self) {
        assert!(!self.is_up(), "a running process's disks are not copied");
        let inspected = inspect(&self.log_disk.clone(), None, &mut |_, _| {});
        self.copy = inspected
            .ok()
            .map(|found| (self.storage, self.node_disk.image(), self.log_disk.image(), found.last_commit));
    }

    /// The newest commit in the copy of the disk that the machine still runs on.
    #[must_use]
    pub fn copied(&self) -> Option<CommitId> {
        self.copy.as_ref().filter(|(storage, ..)| *storage == self.storage).map(|(_, _, _, commit)| *commit)
    }

    /// Puts the copy back into the stopped machine; its mirror is gone.
    pub fn put_copy_back(&mut self) {
        assert!(!self.is_up(), "disks are exchanged in a stopped machine");
        let Some((_, node, log, _)) = self.copy.take() else { return };
        self.node_disk.restore(&node);
        self.log_disk.restore(&log);
        self.lose_mirror();
        // The copy is of a sound log, whatever became of the one that it replaces.
        (self.damaged, self.untrusted, self.rotten) = (false, true, None);
    }

    /// The newest commit of a peer's disk that this machine would still know of after a power loss.
    #[must_use]
    pub fn remembers(&self, node: NodeId, storage: StorageId) -> CommitId {
        let known = memory::load(&self.node_disk.clone());
        let found = known.iter().find(|(n, m)| *n == node && m.storage == storage);
        found.map_or(CommitId(0), |(_, m)| m.commit)
    }

    fn run(&mut self, mut manifest: Manifest, now: Time) -> Result<(), Refused> {
        (self.storage, self.boot) = (manifest.storage, manifest.boot);
        if let Stage::Born(_, founders) = &manifest.stage {
            self.founders.clone_from(founders);
        }
        let options = LogOptions {
            segment_size: self.cluster.segment_size,
            storage_id: manifest.storage,
            max_record: self.cluster.segment_size as usize / 2,
            durability: Durability::Fsync,
        };
        let store = self.open_mirror()?;
        let Some((cluster, founding)) = manifest.founding() else {
            return Err(Refused::Foreign("the cluster is not born yet".to_owned()));
        };
        // Nobody dials anybody here.
        let roster = roster::known(&self.node_disk.clone(), cluster, &founding.layout, RosterNode::nowhere);
        let mut loaded = Loaded::default();
        for group in stored(&store, &seats(self.node, &founding, &roster)) {
            loaded.add(group, load_group(&store, group));
        }
        loaded.settle(&store)?;
        let opened = open_log(
            self.log_disk.clone(),
            options,
            &mut manifest,
            &self.node_disk.clone(),
            &founding,
            &roster,
            loaded.states,
        )?;
        self.segments = opened.log.stats().segments;
        // It may have died between the drop and the word of it.
        self.look_whether_healed(opened.log.first_segment());
        let newest = Newest::new(opened.recovered.last_commit);
        let remembered = memory::load(&self.node_disk.clone());
        let proof = Proof {
            storage: manifest.storage,
            opened: opened.recovered.last_commit,
            newest: newest.clone(),
            founders: Some(founding.layout.nodes().to_vec()),
            memory: remembered.clone(),
        };
        self.recovered = Some(opened.recovered);
        let clock = self.clock.at(now);
        let mut seats: Vec<Vec<_>> = (0..self.cluster.shards).map(|_| Vec::new()).collect();
        for seat in opened.seats {
            seats[(seat.group.0 % self.cluster.shards) as usize].push(seat);
        }
        let (founding, roster) = (Arc::new(founding), Arc::new(roster));
        let mut shards = (0..self.cluster.shards)
            .zip(seats)
            .map(|(shard, seats)| {
                let config = self.shard_config(shard, proof.clone(), roster.ids());
                Shard::new(config, Arc::clone(&founding), Arc::clone(&roster), seats, clock)
            })
            .collect::<Vec<Shard>>();
        for (group, point) in loaded.durable {
            let shard = &mut shards[(group.0 % self.cluster.shards) as usize];
            shard.on_mirror(group, MirrorWord::Settled(point), clock);
        }
        let config = MirrorConfig {
            chunk_bytes: 600,
            retry: Duration::from_millis(150),
            cluster: opened.cluster,
            boot: self.boot,
            ..MirrorConfig::default()
        };
        let limits = CompactionLimits {
            start_bytes: 2 * self.cluster.segment_size,
            keep_bytes: 4 * self.cluster.segment_size,
        };
        let mut mirror = NodeMirror::new(Mirror::new(store, config, clock));
        mirror.settle_now(&opened.ahead, clock)?;
        self.state = Life::Running(Running {
            cluster,
            mirror: Some(mirror),
            closed: None,
            errands: Vec::new(),
            mirror_awake: false,
            compactor: Compactor::new(limits),
            shards,
            reader: opened.log.reader(),
            log: opened.log,
            newest,
            memory: remembered,
            waiting: Vec::new(),
            writing: Vec::new(),
            reads: VecDeque::new(),
            learner_awake: false,
            sending: BTreeMap::new(),
            appended: false,
            idle_since: now,
        });
        Ok(())
    }

    fn open_mirror(&self) -> Result<MirrorStore, Refused> {
        let files: Arc<dyn Files> = Arc::new(DiskFiles::new(self.mirror_disk.clone(), "mirror-"));
        match MirrorStore::open_with(Arc::clone(&files), &self.engine) {
            Err(StoreError::Unusable { .. }) => {
                sim_engine::quarantine(files.as_ref(), &self.engine)
                    .map_err(|source| Refused::Io { doing: "move the mirror aside", source })?;
                Ok(MirrorStore::open_with(files, &self.engine)?)
            }
            opened => Ok(opened?),
        }
    }

    fn shard_config(&mut self, shard: u32, proof: Proof, nodes: Vec<NodeId>) -> ShardConfig {
        // Small limits, so that short runs reach them.
        let tuning = Tuning {
            window: 8,
            ahead: 24,
            recent: 16,
            chunk_bytes: 600,
            learn_bytes: 3_000,
            lease: if self.cluster.leases { LEASE } else { Duration::ZERO },
            own_lease: if self.cluster.leases { OWN_LEASE } else { Duration::ZERO },
            ..Tuning::default()
        };
        let mirror = MirrorLimits { fold_keys: 4, fold_entries: 60, keep_entries: 10 };
        let check = CheckLimits {
            entries: 24,
            interval: Duration::from_millis(700),
            retry: Duration::from_millis(100),
        };
        let rescan = Duration::from_secs(2);
        let limits = Limits {
            max_batch_bytes: 400,
            mirror: Some(mirror),
            check,
            rescan,
            history_bytes: 4_000,
            // Shorter than most ways here, so that several instances are under way.
            company: Duration::from_millis(2),
            ..Limits::default()
        };
        ShardConfig {
            host: HostConfig {
                me: self.node,
                proof,
                boot: self.boot,
                shard,
                shards: self.cluster.shards,
                nodes,
                groups: self.cluster.groups,
                heartbeat_interval: Duration::from_millis(100),
                tuning: Arc::new(tuning),
                limits: Arc::new(limits),
                seed: self.random.next_u64(),
            },
            patience: Patience::default(),
        }
    }

    /// Frames of a peer.
    pub fn deliver(&mut self, from: NodeId, frames: Vec<Frame>, now: Time) -> Wishes {
        let clock = self.clock.at(now);
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
                if let (Stage::Born(cluster, _), Some(roster)) = (&stage, birth.roster())
                    && let Err(e) = roster::store(disk, *cluster, roster)
                {
                    wishes.died = Some(e.to_string());
                    return;
                }
                manifest.advance(stage, birth.heard());
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
                if is_mirror_frame(frame.kind) {
                    running.errands.push(Errand::Frame(from, frame));
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
        if let Stage::Born(..) = manifest.stage {
            let manifest = manifest.clone();
            if let Err(e) = self.run_or_renew(manifest, now, wishes) {
                wishes.came_to_life = false;
                wishes.died = Some(e.to_string());
            }
        }
    }

    fn birth_parcel(&mut self, to: NodeId, word: &Word) -> Parcel {
        let mut batch = FrameBatch::new();
        batch.push(NO_GROUP, wire::BIRTH, &word.encode(), &bytes::Bytes::new());
        Parcel { to, frames: unpack(&mut self.decoder, batch) }
    }

    fn speak_birth(&mut self, wishes: &mut Wishes) {
        let Life::Unborn { birth, .. } = &self.state else { return };
        let word = birth.word().clone();
        let me = self.node;
        let told = birth.roster().map_or_else(Vec::new, |roster| roster.ids());
        let mut nodes = self.listed();
        nodes.extend(told);
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes.into_iter().filter(|n| *n != me) {
            let parcel = self.birth_parcel(node, &word);
            wishes.parcels.push(parcel);
        }
    }

    fn answer_birth(&mut self, to: NodeId, wishes: &mut Wishes) {
        if let Ok(Some(manifest)) = Manifest::load(&self.node_disk.clone()) {
            let heard = memory::boot_of(&memory::load(&self.node_disk.clone()), to);
            let Some(roster) = self.roster().cloned() else { return };
            let word = Word { heard, roster: Some(roster), ..self.word(manifest.storage, manifest.stage) };
            let parcel = self.birth_parcel(to, &word);
            wishes.parcels.push(parcel);
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Time) -> Wishes {
        let clock = self.clock.at(now);
        let mut wishes = Wishes::default();
        match &mut self.state {
            Life::Down => {}
            Life::Unborn { birth, manifest, disk } => {
                if let Some(stage) = birth.advance() {
                    manifest.advance(stage, birth.heard());
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
                let idle = running.writing.is_empty() && running.waiting.is_empty();
                let trusted = running.newest.is_trusted();
                if idle && trusted && now.since(running.idle_since) >= SEAL_AFTER {
                    running.idle_since = now;
                    match running.log.seal() {
                        Ok(()) | Err(CommitError::NoSpace) => {}
                        Err(e) => wishes.died = Some(e.to_string()),
                    }
                }
                self.reopen_mirror(clock, &mut wishes);
                if wishes.died.is_none() {
                    self.mirror_turn(clock, &mut wishes);
                    self.compact(clock, &mut wishes);
                    self.turn(now, &mut wishes);
                }
            }
        }
        wishes
    }

    /// Questions of watches. `None` when nobody is there to take them.
    pub fn pull(&mut self, pulls: Vec<Pull>, now: Time) -> Option<Wishes> {
        let clock = self.clock.at(now);
        let Life::Running(running) = &mut self.state else { return None };
        let shards = running.shards.len() as u32;
        for pull in pulls {
            running.shards[(pull.group.0 % shards) as usize].pull(pull, clock);
        }
        let mut wishes = Wishes::default();
        self.turn(now, &mut wishes);
        Some(wishes)
    }

    /// A client's request. `None` when nobody is there to take it.
    pub fn request(&mut self, requests: Vec<Request>, now: Time) -> Option<Wishes> {
        let clock = self.clock.at(now);
        let Life::Running(running) = &mut self.state else { return None };
        let shards = running.shards.len() as u32;
        for request in requests {
            running.shards[(request.group.0 % shards) as usize].submit(request, clock);
        }
        let mut wishes = Wishes::default();
        self.turn(now, &mut wishes);
        Some(wishes)
    }

    /// The mirror takes up what waits for it.
    pub fn mirror_step(&mut self, now: Time) -> Wishes {
        let clock = self.clock.at(now);
        let mut wishes = Wishes::default();
        let Life::Running(running) = &mut self.state else { return wishes };
        running.mirror_awake = false;
        let Some(mirror) = &mut running.mirror else { return wishes };
        for errand in std::mem::take(&mut running.errands) {
            match errand {
                Errand::Order(group, order) => mirror.order(group, order, clock),
                Errand::Frame(from, frame) => {
                    mirror.frame(from, frame.group, frame.kind, frame.body, clock);
                }
            }
        }
        self.mirror_turn(clock, &mut wishes);
        self.turn(now, &mut wishes);
        wishes
    }

    /// The learner thread reads one chunk.
    pub fn learner_step(&mut self, now: Time) -> Wishes {
        let clock = self.clock.at(now);
        let mut wishes = Wishes::default();
        let Life::Running(running) = &mut self.state else { return wishes };
        running.learner_awake = false;
        if let Some((shard, read)) = running.reads.pop_front() {
            running.reader.pin(read.group, read.reader, read.from, clock);
            match read.run(&mut running.reader) {
                Ok(found) => {
                    if let LogFound::Entries(entries) = &found
                        && let Some(last) = entries.last()
                    {
                        let key = (read.group, read.reader);
                        running.sending.insert(key, (last.instance.next(), clock));
                    }
                    running.shards[shard].on_log_read(read, found, clock);
                }
                Err(ReadError::Poisoned) => {}
                Err(e) => {
                    wishes.alarms.push(format!("cannot serve node {} from the log: {e}", read.reader));
                    running.shards[shard].on_log_read(read, LogFound::Entries(Vec::new()), clock);
                }
            }
        }
        self.turn(now, &mut wishes);
        wishes
    }

    fn mirror_turn(&mut self, clock: Time, wishes: &mut Wishes) {
        let Life::Running(running) = &mut self.state else { return };
        let shards = running.shards.len() as u32;
        let Some(mirror) = &mut running.mirror else { return };
        let mut no_space = false;
        for effect in mirror.turn(clock) {
            match effect {
                MirrorEffect::Send { to, group, kind, body } => {
                    let mut batch = FrameBatch::new();
                    batch.push(group, kind, &body, &bytes::Bytes::new());
                    wishes.parcels.push(Parcel { to, frames: unpack(&mut self.decoder, batch) });
                }
                MirrorEffect::Word(group, word) => {
                    match &word {
                        MirrorWord::Settled(point) => wishes.settled.push((group, *point)),
                        MirrorWord::Installed(point, _) => wishes.settled.push((group, *point)),
                        _ => {}
                    }
                    running.shards[(group.0 % shards) as usize].on_mirror(group, word, clock);
                }
                // No client of the simulator reads checkpoints.
                MirrorEffect::Answer { .. } => {}
                MirrorEffect::Alarm(_, text) => wishes.alarms.push(text),
                MirrorEffect::AlarmOver(_) => {}
                MirrorEffect::NoSpace(_) => no_space = true,
                MirrorEffect::Failed(why) => wishes.died = Some(why),
            }
        }
        if no_space {
            running.closed = running.mirror.take().map(NodeMirror::close);
        }
        if self.engine.stopped() {
            wishes.died = Some("the simulated process has stopped in the mirror".into());
        }
    }

    /// Lets the mirror's time pass. One that had no space has some by now: it is opened anew.
    fn reopen_mirror(&mut self, clock: Time, wishes: &mut Wishes) {
        let Life::Running(running) = &mut self.state else { return };
        if let Some(mirror) = &mut running.mirror {
            return mirror.tick(clock);
        }
        let Some(closed) = running.closed.take() else { return };
        let files: Arc<dyn Files> = Arc::new(DiskFiles::new(self.mirror_disk.clone(), "mirror-"));
        match MirrorStore::open_with(files, &self.engine) {
            Ok(store) => running.mirror = Some(closed.open(store, clock)),
            Err(e) => wishes.died = Some(e.to_string()),
        }
    }

    /// Shortens the log, or asks the groups that hold it to move on.
    fn compact(&mut self, clock: Time, wishes: &mut Wishes) {
        let Life::Running(running) = &mut self.state else { return };
        if !running.newest.is_trusted() {
            return;
        }
        let scarce = self.log_disk.free_space().is_ok_and(|free| free < 2 * self.cluster.segment_size);
        let shards = running.shards.len() as u32;
        // Twice what is to be kept, less what the log may grow by while it is shortened.
        let room = running.log.stats().disk_bytes <= 6 * self.cluster.segment_size
            && !scarce
            && self.rotten.is_none();
        let sending = if room { running.being_sent(clock) } else { Vec::new() };
        let looked = running.compactor.look(&mut running.log, scarce, clock);
        let first = running.log.first_segment();
        // A log that has failed tells nothing any more.
        for (group, instance) in sending.into_iter().filter(|_| looked.is_ok()) {
            assert!(
                running.has(group, instance),
                "log GC has dropped instance {instance} of group {group}, which was being sent"
            );
        }
        self.look_whether_healed(first);
        let Life::Running(running) = &mut self.state else { return };
        match looked {
            Ok(demands) => {
                for (group, demand) in demands {
                    running.shards[(group.0 % shards) as usize].compact(group, demand);
                }
            }
            Err(e) => wishes.died = Some(e.to_string()),
        }
    }

    /// The log's write and sync are through: what waited for them is released.
    pub fn log_done(&mut self, now: Time) -> Wishes {
        let clock = self.clock.at(now);
        let mut wishes = Wishes::default();
        let Life::Running(running) = &mut self.state else { return wishes };
        match running.commit() {
            Ok(()) => running.newest.reach(running.log.last_commit()),
            Err(CommitError::NoSpace) => {
                wishes.log_waits = true;
                return wishes;
            }
            Err(e) => {
                wishes.died = Some(e.to_string());
                return wishes;
            }
        }
        running.idle_since = now;
        self.compact(clock, &mut wishes);
        let Life::Running(running) = &mut self.state else { return wishes };
        if wishes.died.is_some() {
            return wishes;
        }
        for job in std::mem::take(&mut running.writing) {
            wishes.durable.extend(job.records);
            carry(job.after_sync, &mut self.decoder, &mut wishes);
            running.shards[job.shard as usize].on_synced(job.batch, clock);
        }
        self.turn(now, &mut wishes);
        wishes
    }

    fn turn(&mut self, now: Time, wishes: &mut Wishes) {
        let clock = self.clock.at(now);
        let Life::Running(running) = &mut self.state else { return };
        let mut rosters: Vec<Arc<Roster>> = Vec::new();
        for index in 0..running.shards.len() {
            let shard = &mut running.shards[index];
            let Effects {
                send_now,
                job,
                log_reads,
                completions,
                pulled,
                orders,
                memory: peers,
                roster: newer,
            } = shard.turn(clock);
            let standing = shard.host().peers().standing();
            if matches!(standing, Standing::Lapsed { .. } | Standing::Replaced { .. }) {
                wishes.verdict = Some(standing);
            }
            if let Some(told) = peers {
                memory::merge(&mut running.memory, &told);
                let bytes = memory::encode(&running.memory);
                if let Err(e) = self.node_disk.clone().write_small(memory::FILE, &bytes) {
                    wishes.died = Some(e.to_string());
                }
            }
            rosters.extend(newer);
            running.errands.extend(orders.into_iter().map(|(group, order)| Errand::Order(group, order)));
            running.waiting.extend(job);
            for read in log_reads {
                running.reader.pin(read.group, read.reader, read.from, clock);
                // Whoever asks from another place is not sent the old one any more.
                running.sending.insert((read.group, read.reader), (read.from, clock));
                running.reads.push_back((index, read));
            }
            carry(send_now, &mut self.decoder, wishes);
            wishes.completions.extend(completions);
            wishes.pulled.extend(pulled);
        }
        for roster in rosters {
            // Written down before anybody works by it.
            match roster::store(&self.node_disk.clone(), running.cluster, &roster) {
                Ok(()) => running.shards.iter_mut().for_each(|s| s.set_roster(Arc::clone(&roster), clock)),
                Err(e) => wishes.died = Some(e.to_string()),
            }
        }
        if !running.reads.is_empty() && !running.learner_awake {
            running.learner_awake = true;
            wishes.learner_wakes = true;
        }
        if running.writing.is_empty() && !running.waiting.is_empty() {
            running.writing = std::mem::take(&mut running.waiting);
            wishes.log_begins = true;
        }
        let mirror_has_work =
            running.mirror.as_ref().is_some_and(|mirror| mirror.busy() || !running.errands.is_empty());
        if mirror_has_work && !running.mirror_awake {
            running.mirror_awake = true;
            wishes.mirror_wakes = true;
        }
    }

    /// The process dies. With `power`, the machine loses its unsynced writes too, and a write
    /// that was under way got so many operations far.
    pub fn stop(&mut self, power: Option<u64>) {
        if let (Some(operations), Life::Running(running)) = (power, &mut self.state)
            && !running.writing.is_empty()
        {
            self.log_disk.stop_after(self.log_disk.operations() + operations);
            // Nobody hears how it ended.
            let _ = running.commit();
        }
        self.state = Life::Down;
        for disk in [&self.node_disk, &self.log_disk, &self.mirror_disk] {
            match power {
                Some(_) => disk.crash(),
                None => disk.kill(),
            }
        }
        match power {
            Some(_) => self.engine.crash(self.random.next_u64()),
            None => self.engine.kill(),
        }
    }

    /// Damages a record of the stopped machine's log that is certainly synced: one with a later
    /// commit behind it. `false` when there is none yet.
    pub fn damage(&mut self, rot: Rot, place: u64) -> bool {
        assert!(!self.is_up(), "the files of a running process are not touched");
        let Ok(Some(manifest)) = Manifest::load(&self.node_disk.clone()) else { return false };
        let disk = self.log_disk.clone();
        let mut records: Vec<At> = Vec::new();
        let Ok(found) = inspect(&disk, Some(manifest.storage), &mut |at, _| records.push(at)) else {
            return false;
        };
        records.retain(|at| at.commit < found.last_commit);
        let Some(at) = records.get(records.len() * place as usize / 1000) else { return false };
        let name = at.segment.file_name();
        let sector = |at: &At| u64::from(at.offset) / 512 * 512;
        self.damaged = match rot {
            Rot::BitFlip => {
                let bit = self.random.below(u64::from(at.length) * 8);
                disk.flip_bit(&name, u64::from(at.offset) + bit / 8, (bit % 8) as u8)
            }
            Rot::LostBlock => disk.lose_block(&name, sector(at), 512),
            Rot::Misplaced => {
                let older = records.iter().find(|r| r.segment == at.segment && sector(r) < sector(at));
                match older {
                    Some(older) => disk.misplace(&name, sector(at), sector(older), 512),
                    None => disk.lose_block(&name, sector(at), 512),
                }
            }
        };
        self.damaged
    }

    /// Flips a bit in a sealed segment of the running log, and the scrub finds it. `false` when
    /// there is none, or the log is damaged already.
    pub fn rot_sealed(&mut self, place: u64) -> bool {
        let Life::Running(running) = &mut self.state else { return false };
        if self.damaged || !running.newest.is_trusted() {
            return false;
        }
        let disk = self.log_disk.clone();
        let mut records: Vec<At> = Vec::new();
        if inspect(&disk, Some(self.storage), &mut |at, _| records.push(at)).is_err() {
            return false;
        }
        let Ok(sealed) = sealed_segments(&disk, self.storage) else { return false };
        records.retain(|at| sealed.contains(&at.segment));
        let Some(at) = records.get(records.len() * place as usize / 1000) else { return false };
        let bit = self.random.below(u64::from(at.length) * 8);
        if !disk.flip_bit(&at.segment.file_name(), u64::from(at.offset) + bit / 8, (bit % 8) as u8) {
            return false;
        }
        let found = scrub_segment(&disk, self.storage, at.segment, &mut |_| {});
        assert!(matches!(found, Err(OpenError::Damaged(_))), "the scrub overlooks a flipped bit: {found:?}");
        (self.damaged, self.rotten) = (true, Some(at.segment));
        running.compactor.condemn(at.segment);
        true
    }

    /// What rotted is gone when the log begins behind it.
    fn look_whether_healed(&mut self, first: SegmentSeq) {
        if self.rotten.is_some_and(|rotten| rotten < first) {
            (self.rotten, self.damaged) = (None, false);
            self.healed += 1;
        }
    }

    /// Rotten segments that this machine has dropped by itself since this was asked.
    pub fn take_healed(&mut self) -> u64 {
        std::mem::take(&mut self.healed)
    }

    /// Puts empty disks into the stopped machine.
    pub fn exchange_disks(&mut self) {
        assert!(!self.is_up(), "disks are exchanged in a stopped machine");
        self.node_disk = SimDisk::new(self.random.next_u64());
        self.log_disk = SimDisk::new(self.random.next_u64());
        self.lose_mirror();
        (self.damaged, self.untrusted, self.forgetful, self.rotten) = (false, false, true, None);
    }

    /// Whether its disk says that the cluster is born.
    #[must_use]
    pub fn is_born(&self) -> bool {
        matches!(Manifest::load(&self.node_disk.clone()), Ok(Some(Manifest { stage: Stage::Born(..), .. })))
    }
}

/// What was sent a moment ago is being sent still.
const MOMENT: Duration = Duration::from_secs(1);

impl Running {
    /// What peers are being sent and the log still has.
    fn being_sent(&self, now: Time) -> Vec<(GroupId, InstanceId)> {
        let recent = self.sending.iter().filter(|(_, (_, at))| now.since(*at) < MOMENT);
        recent.map(|((group, _), (next, _))| (*group, *next)).filter(|(g, i)| self.has(*g, *i)).collect()
    }

    fn has(&self, group: GroupId, instance: InstanceId) -> bool {
        self.log.read(group, instance, instance, 0).is_ok_and(|found| !found.is_empty())
    }

    /// Writes what is being written; again after there was no space.
    fn commit(&mut self) -> Result<(), CommitError> {
        if !self.appended {
            for record in self.writing.iter().flat_map(|job| &job.records) {
                match self.log.append(record) {
                    Ok(()) => {}
                    Err(AppendError::Poisoned) => return Err(CommitError::Poisoned),
                    Err(e @ AppendError::TooLarge { .. }) => panic!("{e}"),
                }
            }
            self.appended = true;
        }
        if self.log.pending_bytes() > 0 {
            self.log.commit()?;
        }
        self.appended = false;
        Ok(())
    }
}

fn start_error(refused: Refused) -> StartError {
    let text = refused.to_string();
    match refused {
        Refused::Log(OpenError::Damaged(_)) => StartError::Damaged(text),
        // Its disk failed while it was opened: a new start sees what is there.
        Refused::Mirror(StoreError::Poisoned { .. }) => StartError::Stopped,
        Refused::Log(OpenError::NoSpace) | Refused::Mirror(StoreError::NoSpace { .. }) => StartError::NoSpace,
        _ if ["the simulated process has stopped", "os error 5"].iter().any(|e| text.contains(e)) => {
            StartError::Stopped
        }
        _ => StartError::Other(text),
    }
}

fn carry(outbox: Outbox, decoder: &mut Decoder, wishes: &mut Wishes) {
    for (to, _lane, batch) in outbox.into_batches() {
        wishes.parcels.push(Parcel { to, frames: unpack(decoder, batch) });
    }
}

/// What the receiver's end of the socket makes of a batch.
pub(crate) fn unpack(decoder: &mut Decoder, batch: FrameBatch) -> Vec<Frame> {
    let mut frames = Vec::with_capacity(batch.frames());
    for segment in batch.into_segments() {
        let mut rest = &segment[..];
        while !rest.is_empty() {
            let room = decoder.room();
            let n = room.len().min(rest.len());
            room[..n].copy_from_slice(&rest[..n]);
            decoder.advance(n);
            rest = &rest[n..];
            decoder.decode(&mut frames).expect("the network breaks no bytes");
        }
    }
    frames
}
