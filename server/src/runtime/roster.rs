//! The newest roster that this node knows: kept on its disk, and handed to whoever works by it. A
//! thread of its own, because a sync takes a while; what is not on the disk yet is not worked by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use groups::ids::{ClusterId, NodeId};
use groups::log::RealDisk;
use netio::NetHandle;
use parking_lot::{Mutex, RwLock};

use super::worker::{Letter, Post};
use crate::config::{Config, Node};
use crate::node::layout::Founding;
use crate::node::roster::{self, Roster, RosterNode};
use crate::protocol::NewNode;

/// The newest roster on the disk, for everybody to read.
#[derive(Clone, Debug)]
pub struct RosterHandle {
    current: Arc<RwLock<Arc<Roster>>>,
    newer: Sender<Arc<Roster>>,
    /// The version that was handed to the thread last, and when.
    handed: Arc<Mutex<(u64, Instant)>>,
    /// This node.
    node: NodeId,
    /// This node was taken off: it serves nothing.
    off: Arc<AtomicBool>,
}

/// A roster that could not be written is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);

impl RosterHandle {
    /// Begins with the one on the disk. The second part is for [`run`].
    #[must_use]
    pub fn new(node: NodeId, roster: Roster) -> (RosterHandle, Receiver<Arc<Roster>>) {
        // One message for each change of the cluster, and none of them large.
        let (newer, receiver) = crossbeam_channel::unbounded();
        let handed = Arc::new(Mutex::new((roster.version(), Instant::now())));
        let off = Arc::new(AtomicBool::new(roster.node(node).is_none()));
        let current = Arc::new(RwLock::new(Arc::new(roster)));
        (RosterHandle { current, newer, handed, node, off }, receiver)
    }

    /// The newest one on the disk.
    #[must_use]
    pub fn current(&self) -> Arc<Roster> {
        Arc::clone(&self.current.read())
    }

    /// Whether this node was taken off the cluster.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// Takes in one that was heard of; it may be told again and again until it is on the disk.
    pub fn adopt(&self, roster: Arc<Roster>) {
        let mut handed = self.handed.lock();
        let (version, at) = *handed;
        if roster.version() > version || (roster.version() == version && at.elapsed() >= AGAIN) {
            *handed = (roster.version(), Instant::now());
            let _ = self.newer.send(roster);
        }
    }
}

/// Links to nodes that were taken off stay so long, so that they hear of it.
const LINGER: Duration = Duration::from_secs(3);

/// What the thread works with.
pub struct RosterParts {
    /// What was heard of.
    pub newer: Receiver<Arc<Roster>>,
    /// Where the newest is to be read.
    pub handle: RosterHandle,
    /// The cluster.
    pub cluster: ClusterId,
    /// The data directory.
    pub disk: RealDisk,
    /// The network.
    pub net: NetHandle,
    /// The workers.
    pub posts: Vec<Arc<Post>>,
    /// The configuration, which says where the nodes that it lists are.
    pub config: Config,
}

/// Keeps the newest roster, until every [`RosterHandle`] but its own is gone.
pub fn run(parts: RosterParts) {
    let RosterParts { newer, handle, cluster, disk, net, posts, config } = parts;
    let RosterHandle { current, newer: own, node, off, .. } = handle;
    // Else the end would never come.
    drop(own);
    let mut lingering = false;
    loop {
        let roster =
            match if lingering { newer.recv_timeout(LINGER) } else { newer.recv().map_err(Into::into) } {
                Ok(roster) => roster,
                Err(RecvTimeoutError::Timeout) => {
                    lingering = false;
                    set_peers(&net, addresses(&config, &current.read()));
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
        let before = Arc::clone(&current.read());
        if roster.version() <= before.version() {
            continue;
        }
        if let Err(e) = roster::store(&disk, cluster, &roster) {
            // It is told again as long as this node works by an older one.
            tracing::warn!("cannot write {}, the list of the cluster's nodes: {e}", roster::FILE);
            continue;
        }
        let mut peers = addresses(&config, &before);
        peers.extend(addresses(&config, &roster));
        set_peers(&net, peers);
        lingering = true;
        tracing::info!(version = roster.version(), nodes = ?roster.ids(), "the cluster has another list of nodes");
        off.store(roster.node(node).is_none(), Ordering::Relaxed);
        *current.write() = Arc::clone(&roster);
        for post in &posts {
            post.mail.push(Letter::Roster(Arc::clone(&roster)));
        }
    }
}

/// Gives the network the nodes that it has to do with.
pub(super) fn set_peers(net: &NetHandle, peers: BTreeMap<NodeId, String>) {
    if let Err(e) = net.set_peers(peers.into_iter().collect()) {
        tracing::error!("the network does not take the list of nodes: {e}");
    }
}

/// Where the nodes are: founders as the configuration says, which an operator may have changed since;
/// who was added later as it was said then. Before the first change of the roster whatever is listed is
/// dialled, so that a founder that has lost its roster finds somebody.
#[must_use]
pub fn addresses(config: &Config, roster: &Roster) -> BTreeMap<NodeId, String> {
    let mut peers: BTreeMap<NodeId, String> = roster
        .nodes()
        .iter()
        .filter(|n| !n.peer_addr.is_empty())
        .map(|n| (n.id, n.peer_addr.clone()))
        .collect();
    for listed in &config.nodes {
        let founder = roster.node(listed.id).is_some_and(|n| n.since == 0);
        if roster.version() == 0 || founder {
            peers.insert(listed.id, listed.peer_addr.to_string());
        }
    }
    peers
}

/// The nodes of the roster, founders with the addresses that the configuration has for them.
#[must_use]
pub fn located(config: &Config, roster: &Roster) -> Vec<RosterNode> {
    let located = |node: &RosterNode| match config.node(node.id).filter(|_| node.since == 0) {
        Some(listed) => RosterNode { state: node.state, ..entry(listed) },
        None => node.clone(),
    };
    roster.nodes().iter().map(located).collect()
}

/// A node as an operator names it.
#[must_use]
pub fn entry_of(node: NewNode) -> RosterNode {
    let NewNode { id, peer_addr, client_addr, admin_addr } = node;
    RosterNode::new(id, [peer_addr, client_addr, admin_addr].map(|a| a.to_string()))
}

/// A node as the configuration lists it.
#[must_use]
pub fn entry(node: &Node) -> RosterNode {
    let Node { id, peer_addr, client_addr, admin_addr, .. } = node;
    RosterNode::new(*id, [peer_addr, client_addr, admin_addr].map(ToString::to_string))
}

/// The newest roster on the disk, else the one that the cluster was born with. A founder that the
/// configuration does not list has no address there.
#[must_use]
pub fn known(config: &Config, disk: &RealDisk, cluster: ClusterId, founding: &Founding) -> Roster {
    let founder = |id| config.node(id).map_or_else(|| RosterNode::nowhere(id), entry);
    roster::known(disk, cluster, &founding.layout, founder)
}

/// What an operator should know when the configuration lists other nodes than the cluster has.
#[must_use]
pub fn difference(config: &Config, cluster: ClusterId, roster: &Roster) -> Option<String> {
    let mut listed: Vec<NodeId> = config.nodes.iter().map(|n| n.id).collect();
    listed.sort_unstable();
    let there = roster.ids();
    let names =
        |nodes: Vec<&NodeId>| nodes.into_iter().map(|id| format!("node {id}")).collect::<Vec<_>>().join(", ");
    let added: Vec<&NodeId> = there.iter().filter(|id| !listed.contains(id)).collect();
    let gone: Vec<&NodeId> = listed.iter().filter(|id| !there.contains(id)).collect();
    let mut why = Vec::new();
    if !added.is_empty() {
        why.push(format!("{} added by `member add` or `member replace`", names(added)));
    }
    if !gone.is_empty() {
        why.push(format!("{} listed and no node of it", names(gone)));
    }
    (!why.is_empty()).then(|| {
        format!(
            "config.toml lists {} nodes, but cluster {cluster} has {} ({}). The cluster's own list counts; nothing was \
             changed. Bring config.toml up to date when it suits. Run: pelago admin member list",
            listed.len(),
            there.len(),
            why.join("; ")
        )
    })
}
