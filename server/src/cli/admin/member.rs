//! `pelago admin member`: which nodes the cluster has.
//!
//! Each command makes one change of the roster and then looks until every group has followed it.
//! The change itself needs nobody to watch: who is interrupted runs the same command again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::{Standing, count, look_until};
use crate::cli::connect::Servers;
use crate::cli::{Failure, print};
use crate::client::survey::{Survey, by_group, leading, roster};
use crate::config::Address;
use crate::status::{GroupLine, MoveLine, RosterStatus};

/// Which nodes the cluster has
#[derive(Debug, Subcommand)]
pub enum Member {
    /// List the nodes and how many groups each shall have
    #[command(after_help = "Example: pelago admin member list --addr 127.0.0.1:7001")]
    List(List),
    /// Add a node: it takes its share of the groups
    #[command(after_help = "\
Start it before or after, with an empty directory and a config.toml that lists it and the others.
Exit codes: 0 every group has followed, 1 not all of them yet, 2 refused.

Example: pelago admin member add 4 --peer-addr h4:7101 --client-addr h4:7001 --addr h1:7001")]
    Add(Add),
    /// Take a node off: its groups move to the others first
    #[command(after_help = "\
The node may be dead. While it runs it keeps what it has until others have it all.
Exit codes: 0 it is off, 1 not all groups have moved yet (run it again), 2 refused.

Example: pelago admin member remove 3 --addr 10.0.0.1:7001")]
    Remove(Remove),
    /// Put a new node in the place of another, which is taken off
    #[command(after_help = "\
Example: pelago admin member replace 3 5 --peer-addr h5:7101 --client-addr h5:7001 --addr h1:7001")]
    Replace(Replace),
}

/// Only looks.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    servers: Servers,

    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// What every change takes.
#[derive(Debug, Args)]
pub struct Change {
    #[command(flatten)]
    servers: Servers,

    /// Say what would come of it, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Do not wait until every group has followed
    #[arg(long)]
    no_wait: bool,

    /// Give up waiting after so many seconds without progress
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
}

/// Where a new node is reached.
#[derive(Debug, Args)]
struct Place {
    /// Where the other nodes reach it
    #[arg(long, value_name = "ADDR")]
    peer_addr: String,

    /// Where clients reach it
    #[arg(long, value_name = "ADDR")]
    client_addr: String,

    /// Where its administration listens [default: peer's port + 100]
    #[arg(long, value_name = "ADDR")]
    admin_addr: Option<String>,
}

impl Place {
    fn words(self) -> Vec<String> {
        let beside = || match Address::parse(&self.peer_addr) {
            Ok(peer) => {
                let port = peer.port().checked_add(100).unwrap_or_else(|| peer.port() - 100);
                let host = peer.host();
                if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
            }
            // The node says what is wrong with the address itself.
            Err(_) => self.peer_addr.clone(),
        };
        let admin = self.admin_addr.clone().unwrap_or_else(beside);
        vec![self.peer_addr, self.client_addr, admin]
    }
}

/// A new node.
#[derive(Debug, Args)]
pub struct Add {
    /// Its id, which no node has
    node: u32,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    change: Change,
}

/// A node that leaves.
#[derive(Debug, Args)]
pub struct Remove {
    /// The node
    node: u32,

    #[command(flatten)]
    change: Change,
}

/// One node for another.
#[derive(Debug, Args)]
pub struct Replace {
    /// The node that leaves
    old: u32,

    /// The id of the one that comes
    new: u32,

    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    change: Change,
}

impl Member {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Member::List(List { servers, json }) => {
                let status = ask(&servers, &["MEMBER", "LIST"].map(String::from))?;
                if json {
                    let text = serde_json::to_string_pretty(&status);
                    return print(text.map_err(|e| Failure::error(e.to_string()))? + "\n");
                }
                print(listed(&status))
            }
            Member::Add(Add { node, place, change }) => {
                let mut words = vec!["ADD".to_owned(), node.to_string()];
                words.extend(place.words());
                let what = format!("node {node} takes its share of the groups");
                change.carry_out("MEMBER", &words, &what, |survey| placed(survey, |_| true))
            }
            Member::Remove(Remove { node, change }) => {
                let words = ["REMOVE".to_owned(), node.to_string()];
                let what = format!("the groups of node {node} move to the others");
                // Said before: what is left is to wait, and to take it off.
                let begun = change.is_leaving(node)?;
                let words: &[String] = if begun { &[] } else { &words };
                change.carry_out("MEMBER", words, &what, |survey| left(survey, node))?;
                change.take_off(node)
            }
            Member::Replace(Replace { old, new, place, change }) => {
                let mut words = vec!["REPLACE".to_owned(), old.to_string(), new.to_string()];
                words.extend(place.words());
                let what = format!("node {new} takes the places of node {old}");
                let begun = change.is_leaving(old)?;
                let words: &[String] = if begun { &[] } else { &words };
                change.carry_out("MEMBER", words, &what, |survey| left(survey, old))?;
                change.take_off(old)
            }
        }
    }
}

impl Change {
    fn is_leaving(&self, node: u32) -> Result<bool, Failure> {
        let status = ask(&self.servers, &["MEMBER", "LIST"].map(String::from))?;
        Ok(status.nodes.iter().any(|n| n.node == node && n.state == "leaving"))
    }

    /// Makes the change, unless there are no `words` for one, and waits until `settled`.
    pub(super) fn carry_out(
        &self,
        verb: &str,
        words: &[String],
        what: &str,
        settled: impl Fn(&Survey) -> Standing,
    ) -> Result<(), Failure> {
        let version = if words.is_empty() {
            ask(&self.servers, &["MEMBER", "LIST"].map(String::from))?.version
        } else {
            let mut all = vec![verb.to_owned()];
            all.extend_from_slice(words);
            if self.dry_run {
                all.push("DRYRUN".to_owned());
            }
            let status = ask(&self.servers, &all)?;
            print(moves(&status))?;
            status.version
        };
        if self.dry_run {
            return print("Nothing was changed: this was a dry run.\n");
        }
        if self.no_wait {
            return print("It goes on by itself. Run: pelago admin member list\n");
        }
        self.wait(what, |survey| {
            let mut standing = settled(survey);
            for node in survey.nodes.iter().filter(|node| node.roster < version) {
                standing.step(false, || format!("node {} has not heard of the change yet", node.node));
            }
            standing
        })
    }

    fn wait(&self, what: &str, standing: impl Fn(&Survey) -> Standing) -> Result<(), Failure> {
        let (begun, patience) = (Instant::now(), Duration::from_secs(self.patience));
        let (_, stands) = look_until(&self.servers.addresses(), what, patience, standing)?;
        let seconds = begun.elapsed().as_secs_f64();
        if stands.open.is_empty() {
            return print(format!("{what}: done in {seconds:.1} s\n"));
        }
        let mut text = format!(
            "{what}: {} of {} groups after {seconds:.0} s, and nothing moves:\n",
            stands.done, stands.all
        );
        for why in stands.open.iter().take(5) {
            let _ = writeln!(text, "  {why}");
        }
        text += "The change was made and goes on by itself. Run the same command again to wait for it.\n";
        print(text)?;
        Err(Failure::no(""))
    }

    /// The last step: a node without groups is a node of the cluster no more.
    fn take_off(&self, node: u32) -> Result<(), Failure> {
        if self.dry_run || self.no_wait {
            return Ok(());
        }
        ask(&self.servers, &["MEMBER", "FORGET", &node.to_string()].map(String::from))?;
        print(format!(
            "node {node} is off: no other node talks to it any more. Stop it, and take it out of config.toml\n"
        ))
    }
}

fn ask(servers: &Servers, words: &[String]) -> Result<RosterStatus, Failure> {
    let words: Vec<&[u8]> =
        std::iter::once(&b"ADMIN"[..]).chain(words.iter().map(String::as_bytes)).collect();
    roster(&servers.addresses(), &Servers::options(), &words).map_err(|e| Failure::error(e.to_string()))
}

/// Whether those groups have the members that they shall have, led by the best placed of them.
pub fn placed(survey: &Survey, which: impl Fn(&GroupLine) -> bool) -> Standing {
    settled(survey, which, |node, line| {
        let mut wanted = line.wanted.clone();
        wanted.sort_unstable();
        if line.members != wanted {
            Some(format!("group {} has the members {:?} and shall have {wanted:?}", line.group, line.members))
        } else if line.wanted.first() != Some(&node) {
            Some(format!(
                "group {} is led by node {node} and shall be by {:?}",
                line.group,
                line.wanted.first()
            ))
        } else {
            None
        }
    })
}

/// Whether no group has that node for a member, and it keeps nothing that others might need.
fn left(survey: &Survey, node: u32) -> Standing {
    let mut standing = settled(
        survey,
        |_| true,
        |_, line| {
            let here = line.members.contains(&node) || line.wanted.contains(&node);
            here.then(|| format!("group {} still has node {node} for a member", line.group))
        },
    );
    if let Some(own) = survey.nodes.iter().find(|n| n.node == node)
        && let Some(line) = own.groups.first()
    {
        standing.step(false, || format!("node {node} still keeps what it has of group {}", line.group));
    }
    standing
}

fn settled(
    survey: &Survey,
    which: impl Fn(&GroupLine) -> bool,
    missing: impl Fn(u32, &GroupLine) -> Option<String>,
) -> Standing {
    let lines = by_group(&survey.nodes);
    let mut standing = Standing::default();
    for group in lines.last_key_value().into_iter().flat_map(|(last, _)| 0..=*last) {
        let missing = match lines.get(&group).and_then(|lines| leading(lines)) {
            Some((_, line)) if !which(line) => continue,
            Some((node, line)) => missing(node, line),
            None => Some(format!("group {group} has no leader that answers")),
        };
        standing.step(missing.is_none(), || missing.clone().unwrap_or_default());
    }
    standing
}

fn listed(status: &RosterStatus) -> String {
    let mut text = format!("version {} of the list of nodes\n", status.version);
    let _ = writeln!(
        text,
        "{:>5}  {:<8} {:>7} {:>8}  {:<22} {:<22} admin",
        "node", "state", "groups", "leads", "clients", "peers"
    );
    for n in &status.nodes {
        let _ = writeln!(
            text,
            "{:>5}  {:<8} {:>7} {:>8}  {:<22} {:<22} {}",
            n.node, n.state, n.groups, n.first, n.client_addr, n.peer_addr, n.admin_addr
        );
    }
    text
}

/// What a change does to the groups: how many move, and what each then tolerates.
fn moves(status: &RosterStatus) -> String {
    let mut text = String::new();
    let tolerates = |members: usize| members.saturating_sub(1) / 2;
    let sets = |m: &&MoveLine| {
        let sorted = |nodes: &[u32]| {
            let mut nodes = nodes.to_vec();
            nodes.sort_unstable();
            nodes
        };
        sorted(&m.from) != sorted(&m.to)
    };
    let moved: Vec<&MoveLine> = status.moves.iter().filter(sets).collect();
    let _ = writeln!(
        text,
        "{} get other members, {} only another order of leaders",
        count(moved.len(), "group"),
        status.moves.len() - moved.len()
    );
    for m in moved.iter().take(SHOWN) {
        let _ = writeln!(text, "  group {}: {:?} -> {:?}", m.group, m.from, m.to);
    }
    if moved.len() > SHOWN {
        let _ = writeln!(text, "  and {} more", moved.len() - SHOWN);
    }
    let mut tolerance: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for m in &moved {
        let change = (tolerates(m.from.len()), tolerates(m.to.len()));
        if change.0 != change.1 {
            *tolerance.entry(change).or_default() += 1;
        }
    }
    for ((before, after), groups) in tolerance {
        let _ =
            writeln!(text, "{} then tolerate {after} lost nodes instead of {before}", count(groups, "group"));
    }
    text
}

/// Groups that are listed one by one.
const SHOWN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_what_moves_and_what_is_tolerated_then() {
        let status = RosterStatus {
            version: 1,
            applied: false,
            nodes: Vec::new(),
            moves: vec![
                MoveLine { group: 0, from: vec![1, 2, 3], to: vec![2, 1] },
                MoveLine { group: 1, from: vec![1, 2, 3], to: vec![2, 1, 3] },
            ],
        };
        assert_eq!(
            moves(&status),
            "1 group get other members, 1 only another order of leaders\n  group 0: [1, 2, 3] -> [2, 1]\n\
             1 group then tolerate 0 lost nodes instead of 1\n"
        );
    }
}
