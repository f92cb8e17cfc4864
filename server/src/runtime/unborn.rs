//! The time before the cluster is born: nodes introduce themselves, clients are told to wait.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use groups::ids::{Boot, ClusterId, NodeId};
use groups::log::RealDisk;
use netio::{FrameBatch, Lane, NO_GROUP, NetHandle};

use super::peers::Switchboard;
use crate::admin::{Board, Stage as Shown};
use crate::config::Config;
use crate::node::birth::{Birth, Word};
use crate::node::manifest::{Manifest, Stage};
use crate::node::open::Refused;
use crate::node::roster;
use crate::node::wire;

/// A node that may have to wait for its cluster.
pub struct Unborn<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// This node.
    pub node: NodeId,
    /// Its manifest, kept up to date.
    pub manifest: &'a mut Manifest,
    /// The data directory.
    pub disk: &'a RealDisk,
    /// The network.
    pub net: &'a NetHandle,
    /// Where the peers' words come from.
    pub switchboard: &'a Switchboard,
    /// The client port.
    pub listener: &'a TcpListener,
    /// Set when the node shall end.
    pub stop: &'a AtomicBool,
    /// Where the admin port sees what is waited for.
    pub board: &'a Board,
}

/// How often a node introduces itself, and the most that it waits for a word.
const PULSE: Duration = Duration::from_millis(50);

/// How often it says in the log what it waits for.
const REPORT: Duration = Duration::from_secs(5);

/// Waits until the cluster is born and returns its id; `None` when the node shall end first.
///
/// # Errors
/// When the manifest cannot be written.
pub fn wait(unborn: Unborn<'_>) -> Result<Option<ClusterId>, Refused> {
    let Unborn { config, node, manifest, disk, net, switchboard, listener, stop, board } = unborn;
    if let Stage::Born(cluster, _) = manifest.stage {
        return Ok(Some(cluster));
    }
    let own = word(config, manifest);
    let nodes = config.nodes.iter().map(|n| n.id).collect();
    let mut birth = Birth::new(node, &config.cluster.name, nodes, own);
    let begun = Instant::now();
    let mut reported: Option<(Instant, String)> = None;
    let mut heard = None;
    let mut peers: BTreeMap<NodeId, String> =
        config.nodes.iter().map(|n| (n.id, n.peer_addr.to_string())).collect();
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut stage = birth.advance();
        let pulse = Instant::now() + PULSE;
        while stage.is_none()
            && let Ok((from, word)) = switchboard.words().recv_deadline(pulse)
        {
            stage = birth.hear(from, word);
        }
        if let Some(roster) = birth.roster().filter(|r| heard.is_none_or(|heard| r.version() > heard)) {
            // It may name nodes that the configuration does not list, and they are asked too.
            heard = Some(roster.version());
            peers.extend(super::roster::addresses(config, roster));
            super::roster::set_peers(net, peers.clone());
        }
        if let Some(stage) = stage {
            if let (Stage::Born(cluster, _), Some(roster)) = (&stage, birth.roster()) {
                // Before the stage that makes use of it.
                roster::store(disk, *cluster, roster)
                    .map_err(|source| Refused::Io { doing: "write the list of nodes", source })?;
            }
            // Written before it is said: a vote is given once.
            manifest.advance(stage, birth.heard());
            manifest.store(disk)?;
        }
        for &peer in peers.keys().filter(|id| **id != node) {
            let mut batch = FrameBatch::new();
            batch.push(NO_GROUP, wire::BIRTH, &birth.word().encode(), &Bytes::new());
            // A peer that is not there yet hears the next one.
            let _ = net.send(peer, Lane::Consensus, batch);
        }
        if let Stage::Born(cluster, founders) = &manifest.stage {
            let took_ms = begun.elapsed().as_millis() as u64;
            if founders.contains(&(node, manifest.storage)) {
                tracing::info!(%cluster, took_ms, "the cluster is born");
            } else {
                tracing::warn!(
                    %cluster,
                    took_ms,
                    storage = %manifest.storage,
                    "this data directory is new to the cluster: it fetches every group and votes in none before \
                     the group has taken it in"
                );
            }
            return Ok(Some(*cluster));
        }
        let waiting = birth.waiting().to_string();
        board.show(Shown::Unborn(waiting.clone()));
        let due = reported.as_ref().is_none_or(|(at, text)| at.elapsed() >= REPORT || *text != waiting);
        if due && begun.elapsed() >= Duration::from_millis(300) {
            tracing::info!("{waiting}");
            reported = Some((Instant::now(), waiting.clone()));
        }
        while let Ok((stream, _)) = listener.accept() {
            let group_less =
                format!("-CLUSTERDOWN this cluster is not born yet; nothing was applied; {waiting}\r\n");
            turn_away(stream, &group_less);
        }
    }
}

/// What a node with this configuration and manifest says of itself.
#[must_use]
pub fn word(config: &Config, manifest: &Manifest) -> Word {
    Word {
        fingerprint: config.fingerprint().0,
        terms: config.terms().0,
        storage: manifest.storage,
        stage: manifest.stage.clone(),
        heard: Boot(0),
        roster: None,
    }
}

/// Answers whatever the client asks with one line and closes.
pub fn turn_away(mut stream: TcpStream, line: &str) {
    // The line fits any socket buffer; a client that is gone does not matter.
    let _ = stream.set_nonblocking(true);
    let _ = stream.write_all(line.as_bytes());
}
