//! Asks every node of a cluster for its status.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Client, ClientError, Options};
use crate::config::Address;
use crate::node::roster::MAX_NODES;
use crate::protocol::Reply;
use crate::status::{Begun, GroupLine, NodeStatus, PeerStatus, ReloadStatus, RosterStatus};

/// Nodes that are asked at the same time.
const AT_ONCE: usize = 64;

/// What the nodes of a cluster said about themselves at about the same time.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Who answered, ascending.
    pub nodes: Vec<NodeStatus>,
    /// Who did not, ascending.
    pub unreachable: Vec<Unreachable>,
}

/// A node that did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreachable {
    /// The node.
    pub node: u32,
    /// Where it was asked.
    pub client_addr: String,
    /// Whether another node hears it.
    pub alive: bool,
    /// What happened.
    pub why: String,
}

/// Why there is no survey.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// Nobody answered.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The node answered with an error.
    #[error("{address} answered: {error}")]
    Refused {
        /// Who answered.
        address: String,
        /// Its words.
        error: String,
    },
    /// The answer is not what such a node says.
    #[error("{address} answered with {why}. Is it a Pelago node of this version?")]
    NotStatus {
        /// Who answered.
        address: String,
        /// What is wrong with the answer.
        why: String,
    },
}

/// What nodes say of each group, by group and node, ascending.
#[must_use]
pub fn by_group(nodes: &[NodeStatus]) -> BTreeMap<u32, Vec<(u32, &GroupLine)>> {
    let mut lines: BTreeMap<u32, Vec<(u32, &GroupLine)>> = BTreeMap::new();
    for node in nodes {
        for line in &node.groups {
            lines.entry(line.group).or_default().push((node.node, line));
        }
    }
    lines
}

/// The word of a group's leader: of the newest one, should an old one not know yet.
#[must_use]
pub fn leading<'a>(lines: &[(u32, &'a GroupLine)]) -> Option<(u32, &'a GroupLine)> {
    lines.iter().filter(|(_, line)| line.role == "leader").max_by_key(|(_, line)| line.round).copied()
}

/// Asks the first of `addresses` that answers, then all nodes that it knows of, each for at most
/// `patience`.
///
/// # Errors
/// When nobody answers with a status.
pub fn survey(addresses: &[String], options: &Options, patience: Duration) -> Result<Survey, SurveyError> {
    Ok(around(first_answer(addresses, options, patience)?, options, patience))
}

/// Asks all nodes that the one with this status knows of, each for at most `patience`.
#[must_use]
pub fn around(start: NodeStatus, options: &Options, patience: Duration) -> Survey {
    let others: Vec<PeerStatus> =
        start.nodes.iter().filter(|peer| peer.node != start.node).take(MAX_NODES).cloned().collect();
    let mut survey = Survey { nodes: vec![start], unreachable: Vec::new() };
    let cluster = survey.nodes[0].cluster.clone();
    // A thread per node, but not thousands: who is done with one takes the next.
    let answers: Vec<_> = others.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..others.len().min(AT_ONCE) {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(peer) = others.get(index)
                {
                    *answers[index].lock() = Some(ask(&client_address(peer), options, patience));
                }
            });
        }
    });
    let (asked, roster) = (survey.nodes[0].node, survey.nodes[0].roster);
    for (peer, answer) in others.into_iter().zip(answers) {
        let why = match answer.into_inner() {
            Some(Ok(status)) if status.cluster == cluster && status.node == peer.node => {
                survey.nodes.push(status);
                continue;
            }
            Some(Ok(status)) => {
                format!("node {} of cluster \"{}\" answers there", status.node, status.cluster_name)
            }
            Some(Err(SurveyError::Client(ClientError::Unreachable(tries)))) => {
                tries.last().map_or_else(|| "no answer in time".to_owned(), |last| last.why.clone())
            }
            Some(Err(error)) => error.to_string(),
            None => "asking it failed".to_owned(),
        };
        let client_addr = client_address(&peer);
        survey.unreachable.push(Unreachable { node: peer.node, client_addr, alive: false, why });
    }
    // A node that was taken off knows for ever the list that it was on, and waits for itself to follow.
    if let Some(newest) =
        survey.nodes.iter().filter(|node| node.roster > roster).max_by_key(|node| node.roster)
        && !newest.nodes.iter().any(|peer| peer.node == asked)
    {
        return around(newest.clone(), options, patience);
    }
    let heard = heard(&survey.nodes);
    for missing in &mut survey.unreachable {
        missing.alive = heard.get(&missing.node).copied().unwrap_or(false);
    }
    survey.nodes.sort_by_key(|node| node.node);
    survey.unreachable.sort_by_key(|node| node.node);
    survey
}

fn first_answer(
    addresses: &[String],
    options: &Options,
    patience: Duration,
) -> Result<NodeStatus, SurveyError> {
    let mut tries = Vec::new();
    let mut worse = None;
    for address in addresses {
        match ask(address, options, patience) {
            Ok(status) => return Ok(status),
            Err(SurveyError::Client(ClientError::Unreachable(mut attempts))) => tries.extend(attempts.pop()),
            Err(error) => worse = worse.or(Some(error)),
        }
    }
    Err(worse.unwrap_or(SurveyError::Client(ClientError::Unreachable(tries))))
}

/// Asks one node, once.
///
/// # Errors
/// When it does not answer with a status.
pub fn ask(address: &str, options: &Options, patience: Duration) -> Result<NodeStatus, SurveyError> {
    let short = Options {
        connect: options.connect.min(patience),
        reach: patience,
        reply: options.reply.min(patience),
        deadline: patience,
        once: true,
        ..options.clone()
    };
    call(address, short, &[b"STATUS", b"JSON"])
}

/// Tells a node to begin to verify its groups or to bring its mirrors up to date.
///
/// # Errors
/// When it does not answer that it has begun.
pub fn begin(
    node: &NodeStatus,
    verify: bool,
    group: Option<u32>,
    options: &Options,
    patience: Duration,
) -> Result<Begun, SurveyError> {
    let own = node.nodes.iter().find(|peer| peer.node == node.node);
    let address = own.map(client_address).unwrap_or_default();
    let once = Options { deadline: patience, once: true, ..options.clone() };
    let verb: &[u8] = if verify { b"VERIFY" } else { b"CHECKPOINT" };
    let group = group.map(|group| group.to_string());
    match &group {
        None => call(&address, once, &[b"ADMIN", verb]),
        Some(group) => call(&address, once, &[b"ADMIN", verb, b"GROUP", group.as_bytes()]),
    }
}

/// Has a node read its configuration again.
///
/// # Errors
/// When it does not answer what came of it.
pub fn reload(node: &NodeStatus, options: &Options, patience: Duration) -> Result<ReloadStatus, SurveyError> {
    let own = node.nodes.iter().find(|peer| peer.node == node.node);
    let once = Options { deadline: patience, once: true, ..options.clone() };
    call(&own.map(client_address).unwrap_or_default(), once, &[b"ADMIN", b"RELOAD"])
}

/// Has the first of `addresses` that answers change the roster, or say what it is.
///
/// # Errors
/// When none answers, or the one that does refuses.
pub fn roster(addresses: &[String], options: &Options, words: &[&[u8]]) -> Result<RosterStatus, SurveyError> {
    let mut last = None;
    for address in addresses {
        let once = Options { once: true, ..options.clone() };
        match call(address, once, words) {
            Err(error @ SurveyError::Client(ClientError::Unreachable(_))) => last = Some(error),
            answered => return answered,
        }
    }
    Err(last.unwrap_or(SurveyError::Client(ClientError::Unreachable(Vec::new()))))
}

fn call<T: DeserializeOwned>(address: &str, options: Options, words: &[&[u8]]) -> Result<T, SurveyError> {
    let mut client = Client::connect(&[address.to_owned()], options)?;
    let text = match client.call(words)? {
        Reply::Bulk(text) | Reply::Text(text) => text,
        Reply::Error(error) => {
            return Err(SurveyError::Refused { address: address.to_owned(), error: error.to_string() });
        }
        _ => {
            return Err(SurveyError::NotStatus {
                address: address.to_owned(),
                why: "something else than a text".to_owned(),
            });
        }
    };
    serde_json::from_slice(&text)
        .map_err(|error| SurveyError::NotStatus { address: address.to_owned(), why: error.to_string() })
}

/// Where to ask a node: an address that means "every interface" is no place to connect to, so
/// its host is then the one by which the other nodes know it.
#[must_use]
pub fn client_address(peer: &PeerStatus) -> String {
    let (Ok(client), Ok(known)) = (Address::parse(&peer.client_addr), Address::parse(&peer.peer_addr)) else {
        return peer.client_addr.clone();
    };
    client.reached_like(&known).to_string()
}

/// Whom any other node hears.
fn heard(nodes: &[NodeStatus]) -> BTreeMap<u32, bool> {
    let mut heard = BTreeMap::new();
    for node in nodes {
        for peer in node.nodes.iter().filter(|peer| peer.node != node.node) {
            *heard.entry(peer.node).or_insert(false) |= peer.alive;
        }
    }
    heard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_is_asked_at_the_peer_address() {
        let peer = |peer_addr: &str, client_addr: &str| PeerStatus {
            node: 1,
            peer_addr: peer_addr.into(),
            client_addr: client_addr.into(),
            alive: true,
            leads: 0,
        };
        for (peer_addr, client_addr, asked) in [
            ("10.0.0.1:7101", "0.0.0.0:7001", "10.0.0.1:7001"),
            ("[fd00::1]:7101", "[::]:7001", "[fd00::1]:7001"),
            ("10.0.0.1:7101", "10.0.0.9:7001", "10.0.0.9:7001"),
        ] {
            assert_eq!(client_address(&peer(peer_addr, client_addr)), asked);
        }
    }
}
