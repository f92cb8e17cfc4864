//! Opening a data directory: the manifest, then the log, then every group from its records.

use std::collections::BTreeMap;

use groups::group::Seat;
use groups::ids::{Boot, ClusterId, CommitId, GroupId, NodeId, StorageId};
use groups::kv::State;
use groups::log::{Disk, Log, LogOptions, OpenError, Recovered};
use groups::planted::{self, Bug};
use groups::replay::Replay;

use super::layout::Founding;
use super::manifest::{Manifest, ManifestError, Stage};
use super::memory;
use super::roster::{self, Roster};

/// Who a node is going to be, by its configuration.
#[derive(Clone, Debug)]
pub struct Role {
    /// The cluster's name.
    pub cluster_name: String,
    /// The node.
    pub node: NodeId,
    /// Groups of the cluster.
    pub groups: u32,
    /// Members of each group.
    pub replication: u32,
}

/// Why a data directory is refused. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Another process has it.
    #[error(
        "another process is using this data directory. Nothing was changed. Stop it first, or give this node a data directory of its own"
    )]
    InUse,
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// There are files but no manifest.
    #[error(
        "the directory holds files ({0}) but no node manifest: it is not an empty directory and not a Pelago data directory. Nothing was changed. Give the node an empty directory"
    )]
    NotOurs(String),
    /// It belongs to another node or cluster, or was born otherwise.
    #[error("{0}")]
    Foreign(String),
    /// The log that was once begun is gone.
    #[error(
        "the log of this node is gone ({0} is empty), and with it what the node has promised and voted. It must not vote without that memory"
    )]
    LogLost(String),
    /// Peers remember more of this disk than it does: it was put back from an older copy.
    #[error(
        "node {peer} remembers a later life of this disk, up to commit {known}, than the disk itself, which had {own} at its start: the data directory was put back from an older copy. It must not vote with what it has forgotten"
    )]
    Lapsed {
        /// Who.
        peer: NodeId,
        /// The newest commit that the peer has been told of.
        known: CommitId,
        /// The newest commit that the disk has.
        own: CommitId,
    },
    /// A group has halted here, and a majority goes on without it.
    #[error(
        "group {group} has halted on this node ({why}), and the others go on without it: what is on this disk is wrong. It must not vote with that"
    )]
    Outlived {
        /// The group.
        group: GroupId,
        /// Why it has halted.
        why: String,
    },
    /// The node has been given another disk since.
    #[error(
        "peers have heard of another disk ({by}) for this node since, so the cluster takes in that one, and this data directory belongs to it no more. Nothing in the log was changed. Start the node with the directory of that disk, or with an empty one"
    )]
    Replaced {
        /// That disk.
        by: StorageId,
    },
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The mirror cannot be opened, by this program or now.
    #[error("the mirror checkpoint cannot be opened: {0}")]
    Mirror(#[from] checkpoint::store::StoreError),
    /// The file system failed.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// What came back.
        source: std::io::Error,
    },
}

impl Refused {
    /// Whether what the directory holds is no memory that a node may vote with, so that the node can
    /// only go on as another disk, which learns everything from its peers. `replication` is the number
    /// of members of each group: fewer than three cannot take anybody in without the old disk.
    #[must_use]
    pub fn is_amnesia(&self, replication: u32) -> bool {
        let amnesia = matches!(
            self,
            Refused::LogLost(_)
                | Refused::Lapsed { .. }
                | Refused::Outlived { .. }
                | Refused::Log(OpenError::Damaged(_))
                | Refused::Manifest(ManifestError::Damaged(_))
        );
        amnesia && replication >= 3
    }
}

/// Reads or makes the manifest of a directory and counts this start in it, durably. The
/// directory is locked from here on. `lost` says that a directory without a manifest is not an
/// empty one, but has lost its memory.
///
/// # Errors
/// When the directory is not for this node; then nothing in it was changed.
pub fn open_manifest<D: Disk>(
    disk: &mut D,
    role: &Role,
    fresh_storage: StorageId,
    lost: bool,
) -> Result<Manifest, Refused> {
    let io = |doing| move |source| Refused::Io { doing, source };
    if !disk.lock().map_err(io("lock the data directory"))? {
        return Err(Refused::InUse);
    }
    let mut manifest = match Manifest::load(disk)? {
        Some(manifest) => {
            check(&manifest, role)?;
            manifest
        }
        None => {
            let names = disk.list().map_err(io("list the data directory"))?;
            let known = ["LOCK", memory::FILE, roster::FILE];
            let ours = |n: &String| known.contains(&n.as_str()) || n.ends_with(".tmp");
            let foreign: Vec<String> = names.into_iter().filter(|n| !ours(n)).collect();
            if !foreign.is_empty() {
                return Err(Refused::NotOurs(foreign.join(", ")));
            }
            Manifest {
                cluster_name: role.cluster_name.clone(),
                node: role.node,
                storage: fresh_storage,
                boot: Boot(0),
                groups: role.groups,
                replication: role.replication,
                stage: if lost { Stage::Replacement } else { Stage::Empty },
                log_begun: false,
            }
        }
    };
    // Before the cluster is born the configuration may still change its mind.
    if matches!(manifest.stage, Stage::Empty | Stage::Replacement) {
        manifest.groups = role.groups;
        manifest.replication = role.replication;
    }
    // A boot number names one life: it is on the disk before anybody hears of it.
    if !(planted::is(Bug::BootReused) && manifest.boot > Boot(0)) {
        manifest.boot = Boot(manifest.boot.0 + 1);
    }
    manifest.store(disk)?;
    Ok(manifest)
}

fn check(manifest: &Manifest, role: &Role) -> Result<(), Refused> {
    let foreign = |text: String| Err(Refused::Foreign(text));
    if manifest.node != role.node {
        return foreign(format!(
            "the data directory belongs to node {}, this is node {}. Nothing was changed. Start it with --node {}, \
             or give node {} its own directory",
            manifest.node, role.node, manifest.node, role.node
        ));
    }
    if manifest.cluster_name != role.cluster_name {
        return foreign(format!(
            "the data directory belongs to cluster \"{}\", config.toml names \"{}\". Nothing was changed. \
             Check [cluster] name and [storage] data_dir",
            manifest.cluster_name, role.cluster_name
        ));
    }
    if !matches!(manifest.stage, Stage::Empty | Stage::Replacement)
        && (manifest.groups != role.groups || manifest.replication != role.replication)
    {
        return foreign(format!(
            "the cluster was born with groups = {} and replication = {}, config.toml says {} and {}. Both are \
             fixed at birth. Nothing was changed. Put the old numbers back into config.toml",
            manifest.groups, manifest.replication, role.groups, role.replication
        ));
    }
    Ok(())
}

/// The groups of a node as its log left them.
pub struct Opened<D: Disk> {
    /// The cluster.
    pub cluster: ClusterId,
    /// The log, ready for more.
    pub log: Log<D>,
    /// What was found in it.
    pub recovered: Recovered,
    /// Groups whose mirror has what the log has not: it must be durable before they go on.
    pub ahead: Vec<GroupId>,
    /// One seat per group of which this node is a member.
    pub seats: Vec<Seat>,
}

/// The groups of which a node has something, or shall have: those it was born with, and those that
/// the roster gives it.
#[must_use]
pub fn seats(node: NodeId, founding: &Founding, roster: &Roster) -> Vec<GroupId> {
    let layout = &founding.layout;
    let born = |g: GroupId| layout.members(g).contains(&node);
    (0..layout.groups()).map(GroupId).filter(|g| born(*g) || roster.members(*g).contains(&node)).collect()
}

/// What the mirror has of each group: the state, and the chained checksum at it.
pub type MirrorStates = BTreeMap<GroupId, (State, u64)>;

/// Opens the log of a born node and rebuilds its groups, on top of what the mirror has.
///
/// # Errors
/// When the log is damaged or foreign; then nothing in it was changed.
pub fn open_log<D: Disk, M: Disk>(
    disk: D,
    options: LogOptions,
    manifest: &mut Manifest,
    manifest_disk: &M,
    founding: &Founding,
    roster: &Roster,
    mut states: MirrorStates,
) -> Result<Opened<D>, Refused> {
    let Stage::Born(cluster, _) = manifest.stage else {
        return Err(Refused::Foreign("the cluster is not born yet, so there is no log".to_owned()));
    };
    let node = manifest.node;
    if manifest.log_begun {
        let names =
            disk.list().map_err(|source| Refused::Io { doing: "list the log's directory", source })?;
        if !names.iter().any(|name| name.starts_with("log")) {
            return Err(Refused::LogLost("its folder log".to_owned()));
        }
    }
    let mut replays: BTreeMap<GroupId, Replay> = seats(node, founding, roster)
        .into_iter()
        .map(|g| match states.remove(&g) {
            Some((state, chain)) => (g, Replay::from_mirror(state, chain)),
            None => (g, Replay::mirrored()),
        })
        .collect();
    for (group, (state, chain)) in states {
        replays.insert(group, Replay::from_mirror(state, chain));
    }
    let mut strange = 0_u64;
    let (log, recovered) = Log::open(disk, options, &mut |record| {
        // A group that this node once had and shall have no more: what the disk has promised in it counts
        // all the same.
        if record.group().0 < roster.groups() {
            replays.entry(record.group()).or_insert_with(Replay::mirrored).record(record);
        } else {
            strange += 1;
        }
    })?;
    if !manifest.log_begun {
        // Before anything is promised on the strength of this log.
        manifest.log_begun = true;
        manifest.store(manifest_disk)?;
    }
    if strange > 0 {
        tracing::warn!(records = strange, "the log holds records of groups that the cluster has not");
    }
    let ahead: Vec<GroupId> =
        replays.iter().filter(|(_, replay)| replay.is_mirror_ahead()).map(|(group, _)| *group).collect();
    let seats = replays
        .into_iter()
        .map(|(group, replay)| Seat {
            group,
            founders: founding.members(group),
            preference: roster.preference(group),
            replay,
        })
        .collect();
    Ok(Opened { cluster, log, recovered, ahead, seats })
}
