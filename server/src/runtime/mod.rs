//! Threads, files and sockets around a node: `pelago serve`.
//!
//! ```text
//! netio    one thread, one poll loop: all peers
//! worker   one thread per shard: its groups, its client connections
//! log      one thread: one write and one sync for all that is ready; shortens the log
//! learner  one thread: reads the log for peers that are behind
//! mirror   one thread: checkpoints on the disk, to and from the peers; nothing waits for it
//! scrub    one thread: reads sealed segments of the log again, slowly
//! admin    one thread: HTTP for probes, Prometheus and people; it sees the others' gauges and reports
//! roster   one thread: keeps the list of the cluster's nodes, and tells the others of a newer one
//! main     the birth, then the wait for the end
//! ```

mod aside;
pub mod clock;
pub mod cut;
pub mod learner;
pub mod logger;
pub mod mailbox;
pub mod memory;
pub mod mirror;
pub mod mirror_store;
mod peers;
pub mod reload;
pub mod roster;
pub mod runway;
pub mod scrub;
pub mod tally;
mod unborn;
pub mod worker;

use std::net::{TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use checkpoint::store::StoreError;
use groups::group::Limits as GroupLimits;
use groups::host::{HostConfig, MirrorWord};
use groups::ids::{ClusterId, CommitId, NodeId, StorageId};
use groups::log::{Disk, Durability as LogDurability, LogOptions, RealDisk};
use groups::mirrored::MirrorLimits;
use groups::paxos::Tuning;
use groups::peers::{Memory, Newest, Proof, Standing};
use groups::random::Random;
use netio::{BindError, Identity};
use tokio::sync::Notify;

use crate::admin::{self, Board, Serving, Stage};
use crate::config::{Address, Config, Durability, LiveConfig, Node};
use crate::connection::{Shared, Verdict};
use crate::node::compaction::{CompactionLimits, Compactor};
use crate::node::manifest::Manifest;
use crate::node::mirror::NodeMirror;
use crate::node::open::{Refused, Role, open_log, open_manifest, seats};
use crate::node::requests::Patience;
use crate::node::shard::{Shard, ShardConfig};
use clock::Clock;
use cut::Cut;
use learner::{LearnerParts, Lesson};
use logger::{LogGauge, Logger, LoggerParts, Task};
use mailbox::Tray;
use memory::MemoryHandle;
use mirror::{MirrorGauge, MirrorHandle, MirrorParts};
use peers::PeerDemux;
use reload::Reloader;
use roster::{RosterHandle, RosterParts};
use scrub::ScrubGauge;
use worker::{Letter, Post, WorkerParts};

/// How `serve` is told to behave beside the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServeOptions {
    /// End when standard input ends, so that a demo's nodes never outlive it.
    pub exit_with_stdin: bool,
    /// Obey lines on standard input that cut peers off; see [`cut`].
    pub stdin_commands: bool,
}

/// Why a node did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration has no such node.
    #[error("config.toml has no node {0}; it lists {1}. Nothing was started. Pass one of them with --node")]
    NoSuchNode(NodeId, String),
    /// The data directory is refused.
    #[error("{directory}: {why}")]
    Data {
        /// The directory.
        directory: String,
        /// Why.
        why: Refused,
    },
    /// The peer port cannot be used.
    #[error(transparent)]
    Peers(#[from] BindError),
    /// The client port or the admin port cannot be used.
    #[error("cannot listen {purpose} at {address}: {source}. Nothing was started. {advice}")]
    Listen {
        /// For whom.
        purpose: &'static str,
        /// Where.
        address: String,
        /// What came back.
        source: std::io::Error,
        /// What to do.
        advice: String,
    },
    /// The operating system refused a thread or a file.
    #[error("could not {doing}: {source}")]
    System {
        /// What was attempted.
        doing: &'static str,
        /// What came back.
        source: std::io::Error,
    },
}

impl ServeError {
    /// The exit code: 2 for what the user wrote, 3 for the data directory, 1 for the rest.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            ServeError::NoSuchNode(..) | ServeError::Peers(_) | ServeError::Listen { .. } => 2,
            ServeError::Data { .. } => 3,
            ServeError::System { .. } => 1,
        }
    }
}

fn system(doing: &'static str) -> impl FnOnce(std::io::Error) -> ServeError {
    move |source| ServeError::System { doing, source }
}

/// Runs a node until it is told to end.
///
/// # Errors
/// When it does not start. What fails later is logged; an error of the disk ends the process.
pub fn serve(
    config: Config,
    node: NodeId,
    options: ServeOptions,
    reloader: Reloader,
) -> Result<(), ServeError> {
    let reloader = Arc::new(reloader);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let entry = config.node(node).cloned().ok_or_else(|| {
        let listed: Vec<String> = config.nodes.iter().map(|n| n.id.to_string()).collect();
        ServeError::NoSuchNode(node, listed.join(", "))
    })?;
    let stop = Arc::new(AtomicBool::new(false));
    let cut = Arc::new(Cut::default());
    watch_for_the_end(options, &stop, &cut, &reloader)?;
    let mut admin = Admin { board: Board::new(), address: &entry.admin_addr, open: false };
    let mut notes = Vec::new();
    // A life ends with the process, or because the directory is no memory to vote with: then the
    // node begins anew, as another disk.
    while let Some(note) = live(&config, &entry, &stop, &cut, &reloader, notes.clone(), &mut admin)? {
        notes.push(note);
    }
    Ok(())
}

/// The admin port, which outlasts a node's lives.
struct Admin<'a> {
    board: Arc<Board>,
    address: &'a Address,
    open: bool,
}

impl Admin<'_> {
    /// Begins to answer there, unless it does already.
    fn open(&mut self, live: Arc<LiveConfig>) -> Result<(), ServeError> {
        if !self.open {
            let listener = listen(self.address, "for administration", "admin_addr")?;
            admin::start(listener, Arc::clone(&self.board), live).map_err(system("start a thread"))?;
            self.open = true;
        }
        self.board.show(Stage::Opening);
        Ok(())
    }
}

/// What nodes say to each other, by number. 2: heartbeats tell the version of the list of nodes, values
/// change members by a basis, replicas part. 3: heartbeats tell how much a node lags.
const PROTOCOL: u16 = 3;

/// One life of a node. Returns why it begins another one, or nothing when it was told to end.
fn live(
    config: &Config,
    entry: &Node,
    stop: &Arc<AtomicBool>,
    cut: &Arc<Cut>,
    reloader: &Arc<Reloader>,
    mut notes: Vec<String>,
    admin: &mut Admin<'_>,
) -> Result<Option<String>, ServeError> {
    let clock = Clock::start();
    let started = Instant::now();
    let node = entry.id;
    let replication = config.cluster.replication;
    let directory = config.node_dir(node);
    let data = |why| ServeError::Data { directory: directory.display().to_string(), why };
    let io = |doing| {
        let directory = directory.display().to_string();
        move |source| ServeError::Data { directory, why: Refused::Io { doing, source } }
    };
    std::fs::create_dir_all(&config.storage.data_dir).map_err(io("create the data directory"))?;
    let role = Role {
        cluster_name: config.cluster.name.clone(),
        node,
        groups: config.cluster.groups,
        replication: config.cluster.replication,
    };
    let mut disk = RealDisk::open(&directory).map_err(io("open the data directory"))?;
    let mut lost = aside::is_left_behind(&directory).map_err(io("list the data directory"))?;
    if lost {
        // Nothing is moved that another process uses, or that nobody could give back.
        if replication < 3 {
            return Err(data(Refused::NotOurs("parts of a node's data".to_owned())));
        }
        if !disk.lock().map_err(io("lock the data directory"))? {
            return Err(data(Refused::InUse));
        }
        let told = aside::everything(&directory).map_err(io("move the directory aside"))?;
        let note = format!("the node's manifest ({}) is missing. {told}", crate::node::manifest::FILE);
        tracing::error!("{note}");
        notes.push(note);
    }
    let mut manifest = match open_manifest(&mut disk, &role, StorageId(random_id()?), lost) {
        Err(why) if why.is_amnesia(replication) => {
            lost = true;
            let note =
                format!("{why}. {}", aside::everything(&directory).map_err(io("move the directory aside"))?);
            tracing::error!("{note}");
            notes.push(note);
            open_manifest(&mut disk, &role, StorageId(random_id()?), lost).map_err(data)?
        }
        opened => opened.map_err(data)?,
    };
    let (memory, memory_changed) = MemoryHandle::new(crate::node::memory::load(&disk));

    let listener = listen(&entry.client_addr, "for clients", "client_addr")?;
    admin.open(reloader.live())?;
    let identity = |manifest: &Manifest| Identity {
        cluster_name: config.cluster.name.clone(),
        cluster: match &manifest.stage {
            crate::node::manifest::Stage::Born(cluster, _) => *cluster,
            _ => ClusterId(0),
        },
        node,
        storage: manifest.storage,
        boot: manifest.boot,
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
    };
    let peer_addr = resolve(&entry.peer_addr).map_err(|source| ServeError::Listen {
        purpose: "for peers",
        address: entry.peer_addr.to_string(),
        source,
        advice: "Check peer_addr in config.toml".to_owned(),
    })?;
    let known =
        manifest.founding().map(|(cluster, founding)| roster::known(config, &disk, cluster, &founding));
    let peers = match &known {
        Some(roster) => roster::addresses(config, roster).into_iter().collect(),
        None => config.nodes.iter().map(|n| (n.id, n.peer_addr.to_string())).collect(),
    };
    let bound = netio::bind(netio::Config::new(peer_addr, peers, identity(&manifest)))?;
    let demux = PeerDemux::new(bound.handle(), Arc::clone(cut));
    let switchboard = demux.switchboard();
    let (net, net_thread) = bound.start(demux)?;

    let born = unborn::wait(unborn::Unborn {
        config,
        node,
        manifest: &mut manifest,
        disk: &disk,
        net: &net,
        switchboard: &switchboard,
        listener: &listener,
        stop,
        board: &admin.board,
    })
    .map_err(data)?;
    let Some((cluster, founding)) = born.and(manifest.founding()) else {
        admin.board.show(Stage::Ending);
        net.shutdown();
        let _ = net_thread.join();
        return Ok(None);
    };
    admin.board.show(Stage::Opening);
    let roster = roster::known(config, &disk, cluster, &founding);
    if let Some(text) = roster::difference(config, cluster, &roster) {
        tracing::warn!("{text}");
        notes.push(text);
    }
    let (roster_handle, newer_rosters) = RosterHandle::new(node, roster.clone());
    // From here on whoever is still unborn is told so, and links carry the cluster's id.
    switchboard.born(unborn::word(config, &manifest), memory.clone(), roster_handle.clone());
    if net.identity().cluster != cluster {
        net.set_identity(identity(&manifest))
            .map_err(|e| system("change the node's identity")(std::io::Error::other(e)))?;
    }

    let segment = config.storage.segment_size.0 / 4096 * 4096;
    let log_options = LogOptions {
        segment_size: segment,
        storage_id: manifest.storage,
        max_record: usize::try_from(segment / 2).unwrap_or(usize::MAX),
        durability: match config.storage.durability {
            Durability::Fsync => LogDurability::Fsync,
            Durability::None => LogDurability::None,
        },
    };
    let log_disk = RealDisk::open(directory.join("log")).map_err(io("open the log's directory"))?;
    let opening = Instant::now();
    let mirror_gauge = Arc::new(MirrorGauge::default());
    let engine = match config.checkpoint.engine {
        crate::config::Engine::Fjall => checkpoint::store::Engine::Fjall,
        crate::config::Engine::Sled => checkpoint::store::Engine::Sled,
    };
    let refused = |e: StoreError| data(mirror_store::refused(e));
    let mirror_dir = directory.join("checkpoint");
    let seats = seats(node, &founding, &roster);
    let (store, loaded) = mirror_store::open(&mirror_dir, engine, &seats, &mirror_gauge).map_err(refused)?;
    let mirror_took = opening.elapsed();
    let opened =
        match open_log(log_disk, log_options, &mut manifest, &disk, &founding, &roster, loaded.states) {
            Err(why) if why.is_amnesia(replication) => {
                let note = renew(&directory, &disk, &mut manifest, &why).map_err(data)?;
                net.shutdown();
                let _ = net_thread.join();
                return Ok(Some(note));
            }
            opened => opened.map_err(data)?,
        };
    tracing::info!(
        node = node.0,
        %cluster,
        boot = manifest.boot.0,
        records = opened.recovered.records,
        segments = opened.recovered.segments,
        torn = ?opened.recovered.torn,
        replayed = opened.seats.iter().map(|seat| seat.replay.replayed()).sum::<u64>(),
        mirror_ms = mirror_took.as_millis() as u64,
        took_ms = opening.elapsed().as_millis() as u64,
        "log opened"
    );

    let shards = shard_count(config.cluster.groups);
    let gauge = Arc::new(LogGauge::default());
    let scrub_gauge = Arc::new(ScrubGauge::new(directory.join("log")));
    let scrub_disk = RealDisk::open(directory.join("log")).map_err(io("open the log's directory"))?;
    let shared = Arc::new(Shared {
        live: reloader.live(),
        reloader: Arc::clone(reloader),
        ending: AtomicBool::new(false),
        node,
        storage: manifest.storage,
        boot: manifest.boot,
        cluster,
        layout: founding.layout.clone(),
        roster: roster_handle.clone(),
        started,
        gauge: Arc::clone(&gauge),
        net: net.clone(),
        mirror: Arc::clone(&mirror_gauge),
        scrub: Arc::clone(&scrub_gauge),
        cut: Arc::clone(cut),
        connections: AtomicU64::new(0),
        state_bytes: (0..shards).map(|_| AtomicU64::new(0)).collect(),
        turned_ms: (0..shards).map(|_| AtomicU64::new(started.elapsed().as_millis() as u64)).collect(),
        no_memory: AtomicBool::new(false),
        accepted: AtomicU64::new(0),
        turned_away: AtomicU64::new(0),
        verdict: OnceLock::new(),
        notes,
        config: config.clone(),
    });

    let wakes: Vec<Arc<Notify>> = (0..shards).map(|_| Arc::new(Notify::new())).collect();
    let posts: Vec<Arc<Post>> = wakes.iter().map(Post::new).collect();
    let newest = Newest::new(opened.recovered.last_commit);
    // This life ends: whatever waits for space waits no more.
    let ending = Arc::new(AtomicBool::new(false));
    let log_tasks = Arc::new(Tray::default());
    let parts = LoggerParts {
        tasks: Arc::clone(&log_tasks),
        posts: posts.clone(),
        net: net.clone(),
        gauge,
        live: reloader.live(),
        segment,
        stop: Arc::clone(&ending),
        compactor: Compactor::new(CompactionLimits::new(shared.config.checkpoint.log_keep_bytes.0, segment)),
        clock,
        newest: newest.clone(),
        scrub: Arc::clone(&scrub_gauge),
    };
    let (lesson_sender, lessons) = crossbeam_channel::unbounded();
    let learner_parts = LearnerParts {
        log: opened.log.reader(),
        lessons,
        me: node,
        posts: posts.clone(),
        net: net.clone(),
        scrub: Arc::clone(&scrub_gauge),
        clock,
    };
    let logger = Logger::new(opened.log, parts);
    let learner_thread = spawn("learner".to_owned(), move || learner::run(learner_parts))?;
    let (mirror_handle, errands) = MirrorHandle::new();
    let (shelf, memory_disk) =
        (memory.shelf(), RealDisk::open(&directory).map_err(io("open the data directory"))?);
    let memory_thread =
        spawn("memory".to_owned(), move || memory::run(&shelf, &memory_changed, &memory_disk))?;
    let log_thread = spawn("log".to_owned(), move || logger.run())?;
    let roster_parts = RosterParts {
        newer: newer_rosters,
        handle: roster_handle,
        cluster,
        disk: RealDisk::open(&directory).map_err(io("open the data directory"))?,
        net: net.clone(),
        posts: posts.clone(),
        config: config.clone(),
    };
    let roster_thread = spawn("roster".to_owned(), move || roster::run(roster_parts))?;

    let scrub_thread = {
        let (gauge, storage) = (Arc::clone(&scrub_gauge), shared.storage);
        spawn("scrub".to_owned(), move || scrub::run(&scrub_disk, storage, segment, &gauge))?
    };

    let (founding, roster) = (Arc::new(founding), Arc::new(roster));
    let mut seats: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
    for seat in opened.seats {
        seats[(seat.group.0 % shards) as usize].push(seat);
    }
    let mirror_config = checkpoint::mirror::MirrorConfig {
        cluster,
        boot: shared.boot,
        bytes_per_sec: shared.config.checkpoint.transfer_bytes_per_sec.0,
        ..checkpoint::mirror::MirrorConfig::default()
    };
    let mut mirror = NodeMirror::new(checkpoint::mirror::Mirror::new(store, mirror_config, clock.now()));
    mirror.settle_now(&opened.ahead, clock.now()).map_err(|e| {
        if !matches!(e, StoreError::NoSpace { .. }) {
            mirror_store::note_failure(&mirror_dir, &e.to_string());
        }
        refused(e)
    })?;
    let parts = MirrorParts {
        mirror,
        dir: mirror_dir,
        engine,
        live: reloader.live(),
        errands,
        handle: mirror_handle.clone(),
        posts: posts.clone(),
        net: net.clone(),
        gauge: mirror_gauge,
        clock,
    };
    let mirror_thread = spawn("mirror".to_owned(), move || mirror::run(parts))?;
    for (group, point) in loaded.durable {
        posts[(group.0 % shards) as usize].mail.push(Letter::Mirror(group, MirrorWord::Settled(point)));
    }
    let mut workers = Vec::new();
    let proof = proof(&shared, &manifest, opened.recovered.last_commit, newest, memory.all());
    for ((index, seats), wake) in (0..shards).zip(seats).zip(wakes) {
        let config = shard_config(&shared, index, shards, proof.clone())?;
        let parts = WorkerParts {
            shard: Shard::new(config, Arc::clone(&founding), Arc::clone(&roster), seats, clock.now()),
            posts: posts.clone(),
            wake,
            clock,
            net: net.clone(),
            // Where several workers share it, none of them may hold it up.
            loan: if shards == 1 { net_thread.lend() } else { None },
            log: Arc::clone(&log_tasks),
            learner: lesson_sender.clone(),
            mirror: mirror_handle.clone(),
            memory: memory.clone(),
            shared: Arc::clone(&shared),
        };
        workers.push(spawn(format!("worker-{index}"), move || {
            if let Err(e) = worker::run(parts) {
                tracing::error!("a worker could not start: {e}");
                std::process::exit(1);
            }
        })?);
    }
    switchboard.connect(&posts, mirror_handle.clone());
    admin.board.show(Stage::Serving(Serving { shared: Arc::clone(&shared), posts: posts.clone() }));
    tracing::info!(
        clients = %entry.client_addr,
        peers = %entry.peer_addr,
        admin = format_args!("http://{}/", entry.admin_addr),
        groups = shared.config.cluster.groups,
        workers = shards,
        "serving"
    );
    accept(&listener, &posts, &shared, stop);
    // Whoever comes now goes to another node at once, and does not wait for this one's end.
    drop(listener);
    if shared.verdict.get().is_none() {
        admin.board.leave();
        if shared.roster.current().nodes().len() > 1 {
            hand_over(&posts);
        }
        drain(&posts, &shared);
    }
    admin.board.show(Stage::Ending);
    ending.store(true, Ordering::Relaxed);

    tracing::info!("ending");
    scrub_gauge.end();
    for post in &posts {
        post.mail.push(Letter::End);
    }
    for worker in workers {
        let _ = worker.join();
    }
    let _ = lesson_sender.send(Lesson::End);
    let _ = learner_thread.join();
    log_tasks.put(Task::End);
    let _ = log_thread.join();
    let _ = scrub_thread.join();
    mirror_handle.end();
    let _ = mirror_thread.join();
    net.shutdown();
    let _ = net_thread.join();
    // The last ends of the channels: then their threads have written everything down.
    let verdict = shared.verdict.get().cloned();
    drop((memory, switchboard, shared));
    let _ = memory_thread.join();
    let _ = roster_thread.join();
    let why = match verdict {
        Some(Verdict::Outlived(group, why)) => Refused::Outlived { group, why },
        Some(Verdict::Disk(Standing::Lapsed { peer, known })) => {
            Refused::Lapsed { peer, known: known.commit, own: opened.recovered.last_commit }
        }
        Some(Verdict::Disk(Standing::Replaced { known, .. })) => {
            return Err(data(Refused::Replaced { by: known.storage }));
        }
        Some(Verdict::Disk(Standing::Unproven | Standing::Proven)) | None => return Ok(None),
    };
    if !why.is_amnesia(replication) {
        return Err(data(why));
    }
    renew(&directory, &disk, &mut manifest, &why).map(Some).map_err(data)
}

/// The node goes on as another disk: its log is put aside, and it has promised nothing. What its
/// mirror has stays, because what was chosen stays chosen. Returns what an operator should know.
fn renew(
    directory: &Path,
    disk: &RealDisk,
    manifest: &mut Manifest,
    why: &Refused,
) -> Result<String, Refused> {
    let io = |doing| move |source| Refused::Io { doing, source };
    // In this order: a manifest that knows of a log which is gone leads here again. A mirror may have
    // taken in what made its group halt.
    let told = match why {
        Refused::Outlived { .. } => aside::log_and_mirror(directory),
        _ => aside::log(directory),
    };
    let told = told.map_err(io("move the log aside"))?;
    let storage = random_id().map_err(|e| Refused::Io {
        doing: "draw a new storage id",
        source: std::io::Error::other(e.to_string()),
    })?;
    manifest.renew(StorageId(storage));
    manifest.store(disk)?;
    let note = format!("{why}. {told}");
    tracing::error!("{note}");
    Ok(note)
}

/// What peers must vouch for before this node takes part: with syncs that are none, nothing that it
/// has lost can be told from what it never had.
fn proof(
    shared: &Shared,
    manifest: &Manifest,
    opened: CommitId,
    newest: Newest,
    memory: Vec<(NodeId, Memory)>,
) -> Proof {
    if shared.config.storage.durability == Durability::None {
        return Proof { memory, ..Proof::alone(manifest.storage) };
    }
    let founders = Some(shared.layout.nodes().to_vec());
    Proof { storage: manifest.storage, opened, newest, founders, memory }
}

fn shard_config(shared: &Shared, shard: u32, shards: u32, proof: Proof) -> Result<ShardConfig, ServeError> {
    let config = &shared.config;
    let inflight = config.limits.max_inflight_bytes.as_usize() / shards as usize;
    Ok(ShardConfig {
        host: HostConfig {
            me: shared.node,
            proof,
            boot: shared.boot,
            shard,
            shards,
            nodes: shared.roster.current().ids(),
            groups: config.cluster.groups,
            heartbeat_interval: config.paxos.heartbeat_interval,
            tuning: Arc::new(Tuning {
                election_timeout: config.paxos.election_timeout,
                window: config.paxos.window as usize,
                ahead: (config.paxos.window as usize * 8).max(2048),
                learn_bytes: Tuning::default().learn_bytes / shards as usize,
                recent_bytes: RECENT_BYTES.share(config.cluster.groups),
                lease: config.paxos.lease,
                own_lease: config.paxos.own_lease(),
                ..Tuning::default()
            }),
            limits: Arc::new(GroupLimits {
                max_batch_bytes: config.paxos.max_batch_bytes.as_usize(),
                max_queue_bytes: config.limits.max_inflight_bytes.as_usize(),
                mirror: Some(MirrorLimits {
                    fold_entries: config.checkpoint.interval_entries,
                    keep_entries: config.checkpoint.log_keep_entries,
                    ..MirrorLimits::default()
                }),
                history_bytes: HISTORY_BYTES.share(config.cluster.groups),
                ..GroupLimits::default()
            }),
            seed: Random::new(random_id()? as u64).next_u64(),
        },
        patience: Patience { max_bytes: inflight, ..Patience::default() },
    })
}

/// What all groups together remember of their changes, for those who watch. None remembers so little that a short pause
/// ends a watch, nor more than is of use.
const HISTORY_BYTES: Budget = Budget { all: 32 << 20, least: 128 << 10, most: 4 << 20 };

/// What all groups together keep of the values chosen last, for members that missed a few; they read the log for the
/// rest. Each keeps several full batches: what comes from the log is always a little old, and a replica without a state
/// is whole only when it has met what is chosen now.
const RECENT_BYTES: Budget = Budget { all: 32 << 20, least: 1 << 20, most: 4 << 20 };

/// Bytes for all groups together, and what one of them has at least and at most.
struct Budget {
    all: usize,
    least: usize,
    most: usize,
}

impl Budget {
    /// What each of so many groups has.
    fn share(&self, groups: u32) -> usize {
        (self.all / groups.max(1) as usize).clamp(self.least, self.most)
    }
}

/// Half the cores, so that the log, the network and the kernel have the rest; one at least, and
/// no more than there are groups.
fn shard_count(groups: u32) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores / 2).unwrap_or(1).clamp(1, 16).min(groups)
}

/// Random bits of the system, never 0: nobody else draws the same.
///
/// # Errors
/// When /dev/urandom cannot be read.
pub fn random_id() -> Result<u128, ServeError> {
    let mut bytes = [0; 16];
    let file = std::fs::File::open("/dev/urandom").map_err(system("open /dev/urandom"))?;
    std::io::Read::read_exact(&mut &file, &mut bytes).map_err(system("read /dev/urandom"))?;
    Ok(u128::from_le_bytes(bytes).max(1))
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServeError> {
    std::thread::Builder::new().name(name).spawn(body).map_err(system("start a thread"))
}

fn resolve(address: &Address) -> std::io::Result<std::net::SocketAddr> {
    (address.host(), address.port())
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| std::io::Error::other("the name has no address"))
}

/// Listens at the address that stands under `key` in the configuration.
fn listen(address: &Address, purpose: &'static str, key: &str) -> Result<TcpListener, ServeError> {
    let failed = |source: std::io::Error| {
        let advice = match source.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("Another process listens there: stop it, or change {key} in config.toml")
            }
            std::io::ErrorKind::AddrNotAvailable => {
                format!("This machine has no such address: check {key} in config.toml")
            }
            _ => format!("Check {key} in config.toml"),
        };
        ServeError::Listen { purpose, address: address.to_string(), source, advice }
    };
    let addr = resolve(address).map_err(failed)?;
    let bind = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(1024)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    };
    bind().map_err(failed)
}

/// Accepts clients and deals them out to the workers until the end.
fn accept(listener: &TcpListener, posts: &[Arc<Post>], shared: &Shared, stop: &AtomicBool) {
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) && shared.verdict.get().is_none() {
        match listener.accept() {
            Ok((stream, _)) => {
                let max = u64::from(shared.live.now().0.limits.max_connections);
                if shared.connections.load(Ordering::Relaxed) >= max {
                    shared.turned_away.fetch_add(1, Ordering::Relaxed);
                    unborn::turn_away(stream, "-ERR max number of clients reached\r\n");
                    continue;
                }
                shared.connections.fetch_add(1, Ordering::Relaxed);
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                posts[next % posts.len()].mail.push(Letter::Client(stream));
                next += 1;
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => wait_readable(listener),
            Err(e) => {
                // Out of descriptors, most likely: the clients that are there go on.
                tracing::warn!("cannot accept a client: {e}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// The longest that a node waits at its end for others to take over what it leads.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Hands over what this node leads, so that nobody has to miss it first.
fn hand_over(posts: &[Arc<Post>]) {
    let begun = Instant::now();
    for post in posts {
        post.mail.push(Letter::Leave);
    }
    // What is led here, and whether anybody is there to take it over.
    let look = || {
        let (mut led, mut heirs) = (0, false);
        for post in posts {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            post.mail.push(Letter::Report(sender));
            if let Ok(report) = receiver.blocking_recv() {
                led += report.leads;
                heirs |= report.heirs;
            }
        }
        (led, heirs)
    };
    let (before, mut heirs) = look();
    let mut left = before;
    while left > 0 && heirs && begun.elapsed() < HAND_OVER {
        std::thread::sleep(Duration::from_millis(5));
        (left, heirs) = look();
    }
    let took_ms = begun.elapsed().as_millis() as u64;
    tracing::info!(groups = before - left.min(before), left, took_ms, "leaderships handed over");
}

/// The longest that a node waits at its end for its clients' open requests.
const DRAIN: Duration = Duration::from_secs(3);

/// How long a client that has nothing open may take until it is told of the end with its next command.
const IDLE: Duration = Duration::from_millis(300);

/// Open requests are answered; whatever is sent from now on is refused as not applied, and its connection closed. So
/// a client that waits for its answers is never left in doubt.
fn drain(posts: &[Arc<Post>], shared: &Shared) {
    let begun = Instant::now();
    let clients = shared.connections.load(Ordering::Relaxed);
    shared.ending.store(true, Ordering::Relaxed);
    for post in posts {
        post.mail.push(Letter::Drain);
    }
    let open = || {
        let mut open = 0;
        for post in posts {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            post.mail.push(Letter::Report(sender));
            open += receiver.blocking_recv().map_or(0, |report| report.open_requests);
        }
        open
    };
    let mut left = open();
    while shared.connections.load(Ordering::Relaxed) > 0
        && (left > 0 || begun.elapsed() < IDLE)
        && begun.elapsed() < DRAIN
    {
        std::thread::sleep(Duration::from_millis(5));
        left = open();
    }
    let idle = shared.connections.load(Ordering::Relaxed);
    let took_ms = begun.elapsed().as_millis() as u64;
    tracing::info!(clients, idle, open = left, took_ms, "clients drained");
}

/// Waits until a client knocks, and looks up now and then.
fn wait_readable(listener: &TcpListener) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout));
}

/// SIGTERM, SIGINT and, if asked for, the end of standard input set the flag. SIGHUP reads the configuration again.
fn watch_for_the_end(
    options: ServeOptions,
    stop: &Arc<AtomicBool>,
    cut: &Arc<Cut>,
    reloader: &Arc<Reloader>,
) -> Result<(), ServeError> {
    let (flag, reloader) = (Arc::clone(stop), Arc::clone(reloader));
    spawn("signals".to_owned(), move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut term), Ok(mut int), Ok(mut hup)) = (
                signal(SignalKind::terminate()),
                signal(SignalKind::interrupt()),
                signal(SignalKind::hangup()),
            ) else {
                return;
            };
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                    _ = hup.recv() => {
                        reloader.reload();
                        continue;
                    }
                }
                if flag.swap(true, Ordering::Relaxed) {
                    // Asked twice: whatever it still waits for, nothing acknowledged depends on it.
                    std::process::exit(130);
                }
            }
        });
    })?;
    if options.exit_with_stdin {
        let (flag, cut) = (Arc::clone(stop), Arc::clone(cut));
        spawn("stdin".to_owned(), move || {
            hear_stdin(options.stdin_commands.then_some(&*cut));
            flag.store(true, Ordering::Relaxed);
        })?;
    }
    Ok(())
}

/// Reads standard input to its end, line by line for who obeys lines.
fn hear_stdin(obeys: Option<&Cut>) {
    use std::io::{BufRead as _, Read as _};
    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    // A longer line is none, and comes in pieces that are none either.
    while let Ok(read) = (&mut input).take(1024).read_until(b'\n', &mut line)
        && read > 0
    {
        if let Some(cut) = obeys {
            cut.obey(&String::from_utf8_lossy(&line));
        }
        line.clear();
    }
}
