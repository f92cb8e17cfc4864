//! What a node says about itself: the body of `STATUS JSON` and of `pelago status --json`.
//!
//! Field names are stable; fields may be added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One node's view of itself and of the groups that it has a seat in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The program's version.
    pub version: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// The cluster's id, 32 hex digits.
    pub cluster: String,
    /// This node.
    pub node: u32,
    /// This node's disk, 32 hex digits.
    pub storage: String,
    /// How often this data directory has been started.
    pub boot: u64,
    /// The version of the list of nodes that this node works by.
    #[serde(default)]
    pub roster: u64,
    /// Seconds since this start.
    pub uptime_s: f64,
    /// The process.
    pub pid: u32,
    /// Whether commits wait for the disk; `"none"` loses acknowledged writes in a power loss.
    pub durability: String,
    /// All nodes of the cluster, this one included.
    pub nodes: Vec<PeerStatus>,
    /// The groups that this node has a seat in, ascending.
    pub groups: Vec<GroupLine>,
    /// The log.
    pub log: LogStatus,
    /// Checkpoints on their way.
    pub transfers: Vec<TransferLine>,
    /// Chosen values on their way to whoever missed them.
    #[serde(default)]
    pub learning: Vec<LearningLine>,
    /// Client connections.
    pub connections: u64,
    /// Commands of clients that were executed since the start.
    #[serde(default)]
    pub commands: u64,
    /// Requests of clients that are not answered yet.
    pub open_requests: u64,
    /// What clients have asked of this node since its start.
    #[serde(default)]
    pub traffic: TrafficStatus,
    /// Why writes are refused here: `"nospace"`, `"memory"`, or nothing.
    pub read_only: Option<String>,
    /// What an operator should look at, one sentence each.
    pub alarms: Vec<String>,
}

/// What clients have asked of a node since its start, and how long it took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// Commands that groups answer and that change nothing.
    pub reads: u64,
    /// Commands that groups answer and that may change data.
    pub writes: u64,
    /// All others.
    pub other: u64,
    /// Error replies by their first word.
    pub errors: BTreeMap<String, u64>,
    /// Reads, from being taken until their replies are written.
    pub read_took: HistogramLine,
    /// Writes, likewise.
    pub write_took: HistogramLine,
}

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistogramLine {
    /// Upper bounds of the buckets, microseconds, ascending.
    pub bounds_us: Vec<u64>,
    /// How many lie in each bucket; one more bucket than bounds, for what is above all of them.
    pub counts: Vec<u64>,
    /// The sum of all, microseconds.
    pub sum_us: u64,
}

/// Another node as this one sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The node.
    pub node: u32,
    /// Where it listens for peers.
    pub peer_addr: String,
    /// Where it listens for clients.
    pub client_addr: String,
    /// Whether it is heard (always true of the node itself).
    pub alive: bool,
    /// Of how many groups it is the leader, as far as this node knows.
    pub leads: u32,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupLine {
    /// The group.
    pub group: u32,
    /// Its first slot.
    pub first_slot: u16,
    /// Its last slot.
    pub last_slot: u16,
    /// `leader`, `follower`, `probing`, `candidate` or `halted`: what this node does in it.
    pub role: String,
    /// Who leads, as far as this node knows.
    pub leader: Option<u32>,
    /// Round of the highest ballot promised here.
    pub round: u64,
    /// How many leaders the group has had, up to what is applied here.
    #[serde(default)]
    pub epoch: u64,
    /// Voting members as far as this node knows, ascending.
    pub members: Vec<u32>,
    /// Who shall be the members, the best placed leader first.
    #[serde(default)]
    pub wanted: Vec<u32>,
    /// The last instance applied here.
    pub applied: u64,
    /// Chained checksum of all chosen values up to there, 16 hex digits: equal on every replica
    /// at equal instances.
    pub chain: String,
    /// Hash of the whole state there, 64 hex digits: equal on every replica at equal instances.
    pub state_hash: String,
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Why it has halted here.
    pub halted: Option<String>,
    /// The last instance that the mirror checkpoint has taken in.
    pub mirrored: u64,
    /// The last instance up to which the mirror is verified and durable: the log up to there may go.
    pub checkpoint: u64,
    /// Seconds since that was last verified and durable, in this life; `null` before the first time.
    #[serde(default)]
    pub checkpoint_age_s: Option<f64>,
    /// The state here is missing or incomplete and is being fetched from a peer.
    pub rebuilding: bool,
    /// This node's disk is a member: what it promises and accepts counts.
    pub votes: bool,
    /// Why this group holds the log back, while it does.
    pub holds_log: Option<String>,
    /// At the leader: how far each follower is.
    pub followers: Vec<FollowerLine>,
    /// What the newest comparisons of the replicas found here, ascending: equal on every replica
    /// at equal instances.
    #[serde(default)]
    pub points: Vec<PointLine>,
    /// How often the whole state in memory was hashed anew and was what its hash says.
    #[serde(default)]
    pub rescans: u64,
    /// Reads that this node has answered on a leader's lease, without asking anybody.
    #[serde(default)]
    pub leased: u64,
    /// How often the whole mirror was read back for its own sake and was what it should be.
    #[serde(default)]
    pub verified: u64,
}

/// A replica's state at an instance at which all replicas noted theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointLine {
    /// The instance.
    pub instance: u64,
    /// The state hash there, a slash, and a hash of revision, epoch and session table.
    pub state: String,
}

/// A follower as its leader sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowerLine {
    /// The node.
    pub node: u32,
    /// Whether it has confirmed that it follows.
    pub follows: bool,
    /// Instances that it is behind.
    pub behind: u64,
    /// For how many seconds the leader has had the oldest of them.
    #[serde(default)]
    pub behind_s: f64,
}

/// The node's log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogStatus {
    /// Segments.
    pub segments: u64,
    /// Bytes on the disk.
    pub disk_bytes: u64,
    /// Commits (one write and one sync each) since the start.
    pub commits: u64,
    /// Records since the start.
    pub records: u64,
    /// Median time of the latest commits, microseconds.
    pub commit_p50_us: u64,
    /// 99th percentile of the latest commits, microseconds.
    pub commit_p99_us: u64,
    /// Bytes that the file system has left.
    pub free_bytes: u64,
    /// With less than this, reads and deletes only (`limits.min_free_disk`).
    #[serde(default)]
    pub min_free_bytes: u64,
    /// Bytes per second by which the free space has shrunk over the last ten minutes; negative when it grew, `null` in
    /// the first minute.
    #[serde(default)]
    pub growth_bytes_per_s: Option<f64>,
    /// Seconds until `min_free_bytes` are left at that rate; `null` when the free space does not shrink.
    #[serde(default)]
    pub runway_s: Option<f64>,
    /// Segments dropped since the start, because a checkpoint has what they held.
    pub dropped_segments: u64,
    /// What came of reading the sealed segments again.
    #[serde(default)]
    pub scrub: ScrubStatus,
    /// What keeps the log from being shortened, if anything does.
    #[serde(default)]
    pub held: Option<HeldLine>,
}

/// The scrub of the log: sealed segments are read again while the node serves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Passes over all sealed segments that came to their end since the start.
    pub passes: u64,
    /// When the last one ended, seconds since 1970; 0 before the first.
    pub last_pass_unix_s: u64,
    /// How long it took, seconds.
    pub last_pass_took_s: f64,
    /// Segments that it read.
    pub segments: u64,
    /// Bytes of sound records that it read.
    pub bytes: u64,
    /// Passes that somebody has asked for.
    pub asked: u64,
    /// The newest asking that a whole pass has come after.
    pub answered: u64,
    /// Damage that is there now, and what was healed since the last pass.
    pub findings: Vec<FindingLine>,
}

/// Damage in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingLine {
    /// The file.
    pub file: String,
    /// Bytes from its start.
    pub offset: u64,
    /// What is wrong there.
    pub why: String,
    /// Groups that are known to be concerned; none: it cannot be told.
    pub groups: Vec<u32>,
    /// The file was dropped since, and nothing was lost with it.
    #[serde(default)]
    pub healed: bool,
}

/// What keeps the log from being shortened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldLine {
    /// The oldest segment, which should go.
    pub segment: String,
    /// A group that needs it, and how many do in all; none: it is being sent to a peer.
    pub group: Option<u32>,
    /// The newest instance that the group needs it for.
    pub instance: u64,
    /// The groups that need it (1 024 at most are counted).
    pub groups: u64,
    /// For how long it has been asked for, seconds.
    pub for_s: f64,
    /// Whether the log has outgrown `log_keep_bytes`, the disk runs short, or the segment is damaged.
    pub urgent: bool,
    /// Why, in words.
    pub why: String,
}

/// What a node answers to `ADMIN CHECKPOINT` and `ADMIN VERIFY`: where it stood when it began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// The node.
    pub node: u32,
    /// For `ADMIN VERIFY`: the scrub of the log is over when its `answered` reaches this.
    pub scrub: Option<u64>,
    /// The groups that were asked for and have a seat here, ascending, as they were before.
    pub groups: Vec<GroupLine>,
}

/// A learning session of one group with another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearningLine {
    /// The group.
    pub group: u32,
    /// The other node.
    pub peer: u32,
    /// Whether values come here.
    pub incoming: bool,
    /// The next instance.
    pub next: u64,
    /// The last instance that is known to be chosen.
    pub target: u64,
    /// Bytes of values so far.
    pub bytes: u64,
    /// Seconds since it began.
    pub elapsed_s: f64,
}

/// A checkpoint on its way to or from another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransferLine {
    /// The group.
    pub group: u32,
    /// The other node; 0 for a client that takes a backup.
    pub peer: u32,
    /// Whether it comes here.
    pub incoming: bool,
    /// Bytes of keys and values so far.
    pub bytes: u64,
    /// How many there will be, about; 0 while that is not known.
    pub expected_bytes: u64,
    /// Seconds since it began.
    pub elapsed_s: f64,
}

/// `ADMIN RELOAD`: what the file has changed since the node started, or since it was last read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// The node.
    pub node: u32,
    /// In force from now on.
    pub applied: Vec<SettingLine>,
    /// In force from the node's next start on.
    pub restart: Vec<SettingLine>,
    /// Mistakes of the file, one sentence each; then nothing at all was changed.
    pub mistakes: Vec<String>,
}

/// A setting with another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingLine {
    /// `section.key`, or `nodes`.
    pub key: String,
    /// What it was; `null` for a secret.
    pub from: Option<String>,
    /// What the file says now; `null` for a secret.
    pub to: Option<String>,
    /// What else is to be known about it.
    pub note: Option<String>,
}

/// `ADMIN MEMBER …` and `ADMIN LEADER …`: the cluster's nodes, and what a change makes of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterStatus {
    /// Counts the changes since the cluster's birth.
    pub version: u64,
    /// Whether the change was made; `false` for a list or a dry run.
    pub applied: bool,
    /// The nodes, ascending; with the change, if there is one.
    pub nodes: Vec<MemberLine>,
    /// Groups that the change places on other nodes, or in another order.
    pub moves: Vec<MoveLine>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLine {
    /// The node.
    pub node: u32,
    /// `serving`, `drained` or `leaving`.
    pub state: String,
    /// Where the other nodes reach it.
    pub peer_addr: String,
    /// Where clients reach it.
    pub client_addr: String,
    /// Where its administration listens.
    pub admin_addr: String,
    /// How many groups it shall have.
    pub groups: u32,
    /// Of how many of them it is the best placed leader.
    pub first: u32,
}

/// A group that a change places elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveLine {
    /// The group.
    pub group: u32,
    /// Who shall have it now, the best placed leader first.
    pub from: Vec<u32>,
    /// And then.
    pub to: Vec<u32>,
}
