//! The configuration of a cluster: one file for all nodes.
//!
//! [`Config::load`] either returns a configuration that makes sense as a whole or every mistake
//! in it at once, each with its line and column, what was meant, and what to do.

mod address;
mod check;
mod keys;
mod live;
mod problem;
mod read;
mod reference;
mod units;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use groups::ids::NodeId;

use crate::protocol::{RequestLimits, SizeLimits};

pub use address::Address;
pub use live::{Change, InForce, LiveConfig, Source};
pub use problem::{ConfigErrors, Place, Problem};
pub use reference::reference;
pub use units::{Share, Size};
pub(crate) use units::{duration, show_duration};

/// A whole, checked configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What the cluster is.
    pub cluster: Cluster,
    /// The nodes, by rising id. Never empty.
    pub nodes: Vec<Node>,
    /// Where and how the log is kept.
    pub storage: Storage,
    /// Timing and sizes of the protocol.
    pub paxos: Paxos,
    /// The mirror, and how much log stays behind it.
    pub checkpoint: Checkpoint,
    /// What one node takes on.
    pub limits: Limits,
    /// Who may talk to the nodes.
    pub security: Security,
    /// What nodes say about themselves on stderr.
    pub log: Log,
    /// What is allowed and yet probably a mistake. To be shown at the start.
    pub warnings: Vec<Problem>,
}

/// Section `[cluster]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's name.
    pub name: String,
    /// How many Paxos groups, 1 to 16 384.
    pub groups: u32,
    /// Members of each group.
    pub replication: u32,
}

/// One entry of `[[nodes]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node's id, never 0.
    pub id: NodeId,
    /// Paxos, learner and checkpoint traffic, all groups.
    pub peer_addr: Address,
    /// RESP and lines.
    pub client_addr: Address,
    /// HTTP.
    pub admin_addr: Address,
}

/// Section `[storage]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Holds one directory per node.
    pub data_dir: PathBuf,
    /// What an acknowledged write is worth.
    pub durability: Durability,
    /// One file of the log.
    pub segment_size: Size,
}

/// What an acknowledged write is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disks of a majority.
    Fsync,
    /// It is in the page caches of a majority. For experiments.
    None,
}

/// How often a shard is told that time passes.
pub const TICK: Duration = Duration::from_millis(5);

/// A worker that has nothing to do is told at least so often. It only keeps up its heartbeats and looks at those
/// of others.
pub const IDLE_TICK: Duration = Duration::from_millis(25);

/// Section `[paxos]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paxos {
    /// Between two heartbeats from node to node.
    pub heartbeat_interval: Duration,
    /// How long a leader may be silent, before randomisation.
    pub election_timeout: Duration,
    /// Shorter than `election_timeout`.
    pub lease: Duration,
    /// Of the lease.
    pub max_clock_drift: Share,
    /// Instances in flight per group.
    pub window: u32,
    /// Client commands packed into one instance.
    pub max_batch_bytes: Size,
}

impl Paxos {
    /// How long a leader counts on a lease: both clocks may be off by the drift.
    #[must_use]
    pub fn own_lease(&self) -> Duration {
        self.lease.saturating_sub(self.max_clock_drift.of(self.lease) * 2)
    }

    /// How often a worker without work looks up: half of a heartbeat's interval at most, so that every other
    /// time a heartbeat is just due.
    #[must_use]
    pub fn idle_tick(&self) -> Duration {
        IDLE_TICK.min(self.heartbeat_interval / 2).max(TICK)
    }
}

/// Section `[checkpoint]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What keeps the mirror.
    pub engine: Engine,
    /// How far the mirror may trail before it is hurried.
    pub interval_entries: u64,
    /// Chosen entries kept behind the mirror for slow learners.
    pub log_keep_entries: u64,
    /// Per node; beyond it garbage collection is urgent.
    pub log_keep_bytes: Size,
    /// 0 is unlimited.
    pub transfer_bytes_per_sec: Size,
}

/// What keeps the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// fjall 3.
    Fjall,
    /// sled 0.34.
    Sled,
}

/// Section `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest key.
    pub max_key: Size,
    /// The longest value.
    pub max_value: Size,
    /// Client connections of one node.
    pub max_connections: u32,
    /// Requests that a node works on at once.
    pub max_inflight_bytes: Size,
    /// Under it: reads and deletes only.
    pub min_free_disk: Size,
    /// Over it: reads and deletes only. 0 is no limit.
    pub max_state_bytes: Size,
}

/// Section `[security]`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// Allows addresses that other machines can reach although nothing is encrypted.
    pub insecure: bool,
    /// What clients must send with `AUTH`.
    pub password: Option<String>,
}

impl Security {
    /// Whether clients may be served at an address: it is protected, or nobody else reaches it, or that is wanted.
    #[must_use]
    pub fn allows(&self, address: &Address) -> bool {
        self.insecure || self.password.is_some() || address.is_loopback()
    }
}

/// Section `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is logged, as a filter.
    pub level: String,
    /// How it is written.
    pub format: LogFormat,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// What must be the same in the files of all nodes when a cluster is born: its name, groups,
/// replication, and its nodes with their peer addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

impl Config {
    /// Reads the file at `path`. Each of `overrides` is a `section.key=value` as given to
    /// `--set`; the last one of a key counts.
    ///
    /// # Errors
    /// With every mistake of the file and the overrides.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Config, ConfigErrors> {
        let name = path.display().to_string();
        match read::file(path) {
            Ok(text) => Config::parse(&text, &name, overrides),
            Err(message) => {
                Err(ConfigErrors { problems: vec![Problem { file: name, place: Place::File, message }] })
            }
        }
    }

    /// Reads the text of a file. `file_name` stands in the messages only.
    ///
    /// # Errors
    /// With every mistake of the text and the overrides.
    pub fn parse(text: &str, file_name: &str, overrides: &[String]) -> Result<Config, ConfigErrors> {
        read::config(text, file_name, overrides)
    }

    /// The node of that id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Where the node of that id keeps everything.
    #[must_use]
    pub fn node_dir(&self, id: NodeId) -> PathBuf {
        self.storage.data_dir.join(format!("node-{id}"))
    }

    /// What keys and values may measure.
    #[must_use]
    pub fn sizes(&self) -> SizeLimits {
        SizeLimits { max_key: self.limits.max_key.as_usize(), max_value: self.limits.max_value.as_usize() }
    }

    /// What one request may measure: no more than the node works on at once, and no more than
    /// one record of the log holds, so that whatever was read can be proposed in one piece.
    #[must_use]
    pub fn request_limits(&self) -> RequestLimits {
        let record = Size((self.storage.segment_size.0 / 2).saturating_sub(check::RECORD_OVERHEAD.0));
        let SizeLimits { max_key, max_value } = self.sizes();
        // A request travels between nodes in one frame, and frames have an upper bound.
        let most = self.limits.max_inflight_bytes.min(record).min(Size::mib(15));
        RequestLimits::new(max_key, max_value, most.as_usize())
    }

    /// See [`Fingerprint`]. The same for equal configurations whatever version of Pelago, order
    /// of entries or way of writing.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let Cluster { name, groups, replication } = &self.cluster;
        let mut text = format!("pelago 1\n{}:{name}\n{groups}\n{replication}\n", name.len());
        let mut nodes: Vec<_> = self.nodes.iter().map(|node| (node.id, &node.peer_addr)).collect();
        nodes.sort_unstable();
        for (id, address) in nodes {
            text += &format!("{id} {address}\n");
        }
        Fingerprint(xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
    }

    /// What of the fingerprint stays the same however the cluster's nodes come and go.
    #[must_use]
    pub fn terms(&self) -> Fingerprint {
        let Cluster { name, groups, replication } = &self.cluster;
        let text = format!("pelago 1\n{}:{name}\n{groups}\n{replication}\n", name.len());
        Fingerprint(xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
    }

    /// Every setting and its value as text, for `CONFIG GET`: our own as `section.key`, and the
    /// few of Redis that its tools ask for. Secrets are left out.
    #[must_use]
    pub fn settings(&self) -> Vec<(String, String)> {
        let mut copy = self.clone();
        let own = keys::keys().iter().filter_map(|key| Some((key.path(), key.shown(&mut copy)?)));
        let redis = [
            (
                "appendonly",
                if self.storage.durability == Durability::Fsync { "yes" } else { "no" }.to_owned(),
            ),
            (
                "appendfsync",
                if self.storage.durability == Durability::Fsync { "always" } else { "no" }.to_owned(),
            ),
            ("databases", "1".to_owned()),
            ("maxclients", self.limits.max_connections.to_string()),
            ("maxmemory", self.limits.max_state_bytes.0.to_string()),
            ("maxmemory-policy", "noeviction".to_owned()),
            ("proto-max-bulk-len", self.limits.max_value.0.to_string()),
            ("save", String::new()),
            ("timeout", "0".to_owned()),
        ];
        own.chain(redis.map(|(name, value)| (name.to_owned(), value))).collect()
    }
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster { name: "local".to_owned(), groups: 16, replication: 3 }
    }
}

impl Default for Storage {
    fn default() -> Storage {
        Storage {
            data_dir: PathBuf::from("data"),
            durability: Durability::Fsync,
            segment_size: Size::mib(64),
        }
    }
}

impl Default for Paxos {
    fn default() -> Paxos {
        Paxos {
            heartbeat_interval: Duration::from_millis(50),
            election_timeout: Duration::from_millis(400),
            lease: Duration::from_millis(300),
            max_clock_drift: Share::percent(2),
            window: 256,
            max_batch_bytes: Size::kib(256),
        }
    }
}

impl Default for Checkpoint {
    fn default() -> Checkpoint {
        Checkpoint {
            engine: Engine::Fjall,
            interval_entries: 100_000,
            log_keep_entries: 10_000,
            log_keep_bytes: Size::gib(1),
            transfer_bytes_per_sec: Size(0),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_key: Size::kib(4),
            max_value: Size::mib(8),
            max_connections: 10_000,
            max_inflight_bytes: Size::mib(64),
            min_free_disk: Size::mib(256),
            max_state_bytes: Size(0),
        }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl LogFormat {
    /// As it is written in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }

    /// The format of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<LogFormat> {
        [LogFormat::Text, LogFormat::Json].into_iter().find(|format| format.name() == name)
    }
}

impl Durability {
    /// As it is written in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Durability::Fsync => "fsync",
            Durability::None => "none",
        }
    }

    fn from_name(name: &str) -> Option<Durability> {
        [Durability::Fsync, Durability::None].into_iter().find(|durability| durability.name() == name)
    }
}

impl Engine {
    /// As it is written in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Engine::Fjall => "fjall",
            Engine::Sled => "sled",
        }
    }

    fn from_name(name: &str) -> Option<Engine> {
        [Engine::Fjall, Engine::Sled].into_iter().find(|engine| engine.name() == name)
    }
}

impl fmt::Debug for Security {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "…");
        f.debug_struct("Security").field("insecure", &self.insecure).field("password", &password).finish()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Reads any bytes as a configuration, for the fuzz target.
///
/// # Panics
/// If a configuration that was accepted breaks a promise of [`Config`].
pub fn fuzz_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Config::parse(&text, "fuzz.toml", &[]) {
        Ok(config) => {
            assert!(!config.nodes.is_empty() && config.paxos.lease < config.paxos.election_timeout);
            assert_eq!(config.settings(), config.clone().settings());
        }
        Err(errors) => assert!(!errors.problems.is_empty() && !errors.to_string().is_empty()),
    }
    let _ = Config::parse("", "fuzz.toml", &[text.into_owned()]);
}
