//! What netio is told at its start, and what can be wrong with that.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use groups::ids::{Boot, ClusterId, NodeId, StorageId};
use thiserror::Error;

use crate::handshake::MAX_CLUSTER_NAME;

/// The longest list of peers: the number of a dialled link is a part of its events.
pub(crate) const MAX_PEERS: usize = 1 << 12;

/// Who this node is, as it introduces itself to its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `[cluster] name`; nodes of another name are refused. At most 255 bytes.
    pub cluster_name: String,
    /// The cluster that this node was born in; zero before its birth.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// The disk of this node.
    pub storage: StorageId,
    /// This life of the process.
    pub boot: Boot,
    /// The oldest protocol version that this binary speaks.
    pub protocol_min: u16,
    /// The newest one.
    pub protocol_max: u16,
}

/// A value that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadConfig {
    /// Node ids start at 1.
    #[error("node id 0 is never a node")]
    NodeZero,
    /// The name does not fit a handshake.
    #[error("the cluster name has {0} bytes; at most {MAX_CLUSTER_NAME} are allowed")]
    NameTooLong(usize),
    /// `protocol_min > protocol_max`.
    #[error("the protocol range {0}..={1} is empty")]
    EmptyProtocolRange(u16, u16),
    /// Two peers with one id.
    #[error("node {0} is listed twice")]
    DuplicatePeer(NodeId),
    /// An identity for another node than the one that was bound.
    #[error("this is node {0} and cannot become node {1}")]
    OtherNode(NodeId, NodeId),
    /// A limit is outside its range.
    #[error("{0} must be between {1} and {2}")]
    Range(&'static str, u64, u64),
}

impl Identity {
    pub(crate) fn check(&self) -> Result<(), BadConfig> {
        if self.node == NodeId(0) {
            return Err(BadConfig::NodeZero);
        }
        if self.cluster_name.len() > MAX_CLUSTER_NAME {
            return Err(BadConfig::NameTooLong(self.cluster_name.len()));
        }
        if self.protocol_min > self.protocol_max {
            return Err(BadConfig::EmptyProtocolRange(self.protocol_min, self.protocol_max));
        }
        Ok(())
    }
}

/// Everything netio needs to know. [`Config::new`] has a default for all but the first three.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where peers connect to.
    pub listen: SocketAddr,
    /// All nodes and their `host:port`, until [`set_peers`](crate::NetHandle::set_peers) replaces
    /// them. This node's own entry is ignored. Host names are resolved again for every dial.
    pub peers: Vec<(NodeId, String)>,
    /// Who this node is.
    pub identity: Identity,
    /// The longest frame body, sent or received, in bytes.
    pub max_frame: usize,
    /// Bytes that may wait for one peer on the consensus lane. A single frame of up to
    /// `max_frame` is taken by an empty queue even when it is larger.
    pub consensus_queue_bytes: usize,
    /// The same for the bulk lane.
    pub bulk_queue_bytes: usize,
    /// The pause before the first re-dial; doubled, with jitter, up to `backoff_max`.
    pub backoff_min: Duration,
    /// The longest pause between two dials, and the only one after
    /// [`RefusalCode::UnknownNode`](crate::RefusalCode::UnknownNode). A node that dials this one
    /// is dialled at once.
    pub backoff_max: Duration,
    /// From the start of a dial, or from an accepted connection, to the end of its handshake.
    pub handshake_timeout: Duration,
    /// A link without a received byte, or without progress on waiting bytes, is closed after
    /// this long. A sender that has nothing to say sends a keep-alive three times as often, at
    /// least once a second.
    pub idle_timeout: Duration,
    /// How long queued frames may still be written when links are closed on purpose.
    pub flush_timeout: Duration,
    /// Accepted connections that have not finished their handshake. Beyond it the oldest is
    /// closed: a real peer needs a millisecond, noise takes as long as it likes.
    pub max_greeting: usize,
    /// The same complaint about the same peer is logged once per this interval.
    pub log_interval: Duration,
}

impl Config {
    /// A configuration with the defaults.
    #[must_use]
    pub fn new(listen: SocketAddr, peers: Vec<(NodeId, String)>, identity: Identity) -> Config {
        Config {
            listen,
            peers,
            identity,
            max_frame: (16 << 20) + (64 << 10),
            consensus_queue_bytes: 32 << 20,
            bulk_queue_bytes: 32 << 20,
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(5),
            flush_timeout: Duration::from_millis(200),
            max_greeting: 64,
            log_interval: Duration::from_secs(30),
        }
    }

    pub(crate) fn check(&self) -> Result<(), BadConfig> {
        self.identity.check()?;
        check_peers(&self.peers)?;
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let day = 86_400_000;
        let ranges = [
            ("max_frame", self.max_frame as u64, 1, 1 << 30),
            ("max_greeting", self.max_greeting as u64, 1, 1 << 16),
            ("backoff_min (ms)", ms(self.backoff_min), 1, day),
            ("backoff_max (ms)", ms(self.backoff_max), ms(self.backoff_min), day),
            ("handshake_timeout (ms)", ms(self.handshake_timeout), 1, day),
            ("idle_timeout (ms)", ms(self.idle_timeout), 3, day),
            ("flush_timeout (ms)", ms(self.flush_timeout), 0, day),
            ("log_interval (ms)", ms(self.log_interval), 0, day),
        ];
        match ranges.iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            Some((name, _, low, high)) => Err(BadConfig::Range(name, *low, *high)),
            None => Ok(()),
        }
    }
}

/// Whether that can be a list of peers.
pub(crate) fn check_peers(peers: &[(NodeId, String)]) -> Result<(), BadConfig> {
    if peers.len() > MAX_PEERS {
        return Err(BadConfig::Range("the number of peers", 0, MAX_PEERS as u64));
    }
    let mut nodes: Vec<NodeId> = peers.iter().map(|(node, _)| *node).collect();
    nodes.sort_unstable();
    if nodes.first() == Some(&NodeId(0)) {
        return Err(BadConfig::NodeZero);
    }
    match nodes.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(BadConfig::DuplicatePeer(pair[0])),
        None => Ok(()),
    }
}

/// Why netio cannot start. Nothing was started.
#[derive(Debug, Error)]
pub enum BindError {
    /// A value that cannot be meant.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// Somebody else has the port.
    #[error(
        "cannot listen for peers on {0}: another process has that address. Nothing was started. \
         Stop it (ss -ltnp shows it) or change peer_addr of this node"
    )]
    InUse(SocketAddr),
    /// The address is not one of this machine.
    #[error(
        "cannot listen for peers on {0}: this machine does not have that address. Nothing was \
         started. Change peer_addr of this node to an address of its own"
    )]
    NotLocal(SocketAddr),
    /// The system does not allow it.
    #[error("cannot listen for peers on {address}: {source}. Nothing was started")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No poll or no thread.
    #[error("cannot start the network thread: {0}. Nothing was started")]
    System(#[source] io::Error),
}

impl BindError {
    pub(crate) fn listen(address: SocketAddr, source: io::Error) -> BindError {
        match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            io::ErrorKind::AddrNotAvailable => BindError::NotLocal(address),
            _ => BindError::Listen { address, source },
        }
    }
}
