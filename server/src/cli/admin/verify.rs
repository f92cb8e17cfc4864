//! `pelago admin verify`: whether all replicas agree, and whether what they keep has rotted.
//!
//! `--json` prints
//!
//! ```text
//! { "agree": nothing is wrong, "complete": nothing is open and every node was asked,
//!   "groups": [ { "group", "instance", "state", "nodes": [1, 2, 3] } ]     compared, and equal there
//!   "logs":   [ { "node", "segments", "bytes", "findings": [ { "file", "offset", "why", "groups" } ] } ],
//!   "wrong": [ text ], "open": [ text ], "unreachable": [ { "node", "client_addr", "alive", "why" } ] }
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Asked, Standing, Work, count, line};
use crate::cli::status::LISTED_GROUPS;
use crate::cli::{Failure, print};
use crate::client::survey::Survey;
use crate::runtime::scrub::alarm;
use crate::status::{GroupLine, NodeStatus};

/// Compare all replicas, and look for rot in memory, mirrors and logs
#[derive(Debug, Args)]
#[command(after_help = "\
While the cluster serves: every group's replicas compare their state at the same instance, every
node hashes what it has in memory, reads back its mirrors and the sealed segments of its log.
With --group the logs are read all the same: all groups share them. Nothing is changed, except
that a replica that finds itself wrong stops, and a mirror that has rotted is built anew.
Exit codes: 0 all agree and all is sound, 1 something differs or is damaged: what, is printed,
2 nothing wrong was found, but not everything could be looked at.

Example: pelago admin verify --addr 127.0.0.1:7001")]
pub struct Verify {
    #[command(flatten)]
    asked: Asked,
}

/// A group whose replicas are equal.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Agreed {
    group: u32,
    /// Where they were compared.
    instance: u64,
    /// What all of them have there.
    state: String,
    /// Who.
    nodes: Vec<u32>,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let work = Work::begin(&self.asked, true)?;
        let (now, stands) = work.wait("verify", |work, now| examine(work, now).0)?;
        let agreed = examine(&work, &now).1;
        let agree = stands.wrong.is_empty();
        let complete = stands.open.is_empty() && work.missing.is_empty();
        if self.asked.json {
            let log = |n: &NodeStatus| {
                let scrub = &n.log.scrub;
                json!({ "node": n.node, "segments": scrub.segments, "bytes": scrub.bytes, "findings": scrub.findings })
            };
            let logs: Vec<_> = now.nodes.iter().map(log).collect();
            let document = json!({
                "agree": agree, "complete": complete, "groups": agreed, "logs": logs,
                "wrong": stands.wrong, "open": stands.open, "unreachable": work.missing,
            });
            print(format!("{document:#}\n"))?;
        } else {
            print(page(&work, &now, &agreed, &stands))?;
        }
        match (agree, complete) {
            (true, true) => Ok(()),
            (false, _) => Err(Failure::no("")),
            (true, false) => Err(Failure::error("")),
        }
    }
}

/// What is done, what is open, what is wrong; and which groups are equal.
pub(super) fn examine(work: &Work, now: &Survey) -> (Standing, Vec<Agreed>) {
    let mut stands = Standing::default();
    let mut agreed = Vec::new();
    let mut seats: BTreeMap<u32, Vec<(u32, &GroupLine)>> = BTreeMap::new();
    for begun in &work.begun {
        for before in &begun.groups {
            seats.entry(before.group).or_default().push((begun.node, before));
        }
        logs(&mut stands, work, now, begun.node, begun.scrub);
    }
    for (group, seats) in seats {
        let mut living = Vec::new();
        for (node, before) in &seats {
            match line(now, *node, group) {
                None => stands.step(false, || format!("node {node} does not answer")),
                Some(line) => match &line.halted {
                    Some(why) => stands.accuse(format!("group {group} has halted on node {node}: {why}")),
                    None => {
                        replica(&mut stands, *node, before, line);
                        living.push((*node, line));
                    }
                },
            }
        }
        compare(&mut stands, &mut agreed, group, &seats, &living);
    }
    (stands, agreed)
}

/// The log of a node, and what it has found to say since.
fn logs(stands: &mut Standing, work: &Work, now: &Survey, node: u32, asked: Option<u64>) {
    let Some(status) = now.nodes.iter().find(|status| status.node == node) else {
        return stands.step(false, || format!("the log of node {node}, which does not answer"));
    };
    let scrub = &status.log.scrub;
    stands.step(asked.is_none_or(|asked| scrub.answered >= asked), || format!("the log of node {node}"));
    for finding in &scrub.findings {
        stands.accuse(format!("node {node}: {}", alarm(finding)));
    }
    let before = work.before.nodes.iter().find(|before| before.node == node);
    let known = |text: &String| before.is_some_and(|before| before.alarms.contains(text));
    let groups_speak =
        |text: &str| status.groups.iter().any(|g| g.halted.as_ref().is_some_and(|why| text.contains(why)));
    for text in status.alarms.iter().filter(|text| !known(text) && !groups_speak(text)) {
        if !scrub.findings.iter().any(|finding| *text == alarm(finding)) {
            stands.accuse(format!("node {node}: {text}"));
        }
    }
}

/// Memory and mirror of one replica.
fn replica(stands: &mut Standing, node: u32, before: &GroupLine, line: &GroupLine) {
    let group = line.group;
    stands.step(line.rescans > before.rescans, || format!("group {group} in the memory of node {node}"));
    stands.step(line.verified > before.verified, || format!("group {group} in the mirror of node {node}"));
}

/// The newest instance at which all living replicas have noted their state since it was asked for.
fn compare(
    stands: &mut Standing,
    agreed: &mut Vec<Agreed>,
    group: u32,
    seats: &[(u32, &GroupLine)],
    living: &[(u32, &GroupLine)],
) {
    let newest = |line: &GroupLine| line.points.last().map_or(0, |point| point.instance);
    // The leader is the one who answers the question; what it had before is older than that.
    let leading = seats.iter().find(|(_, before)| before.role == "leader");
    let base = match leading {
        Some((_, before)) => newest(before),
        None => seats.iter().map(|(_, before)| newest(before)).max().unwrap_or(0),
    };
    let Some((first, others)) = living.split_first() else { return };
    let at = |line: &GroupLine, instance| {
        line.points.iter().find(|point| point.instance == instance).map(|point| point.state.clone())
    };
    let common = first.1.points.iter().rev().find(|point| {
        point.instance > base && others.iter().all(|(_, line)| at(line, point.instance).is_some())
    });
    stands.step(common.is_some(), || match leading {
        Some(_) => format!("the replicas of group {group}"),
        None => format!("the replicas of group {group}, which had no leader"),
    });
    let Some(point) = common else { return };
    let odd: Vec<&(u32, &GroupLine)> =
        others.iter().filter(|(_, line)| at(line, point.instance).as_ref() != Some(&point.state)).collect();
    if odd.is_empty() {
        let nodes = living.iter().map(|(node, _)| *node).collect();
        let (instance, state) = (point.instance, point.state.clone());
        agreed.push(Agreed { group, instance, state, nodes });
    } else {
        let all = living
            .iter()
            .map(|(node, line)| format!("node {node} has {}", at(line, point.instance).unwrap_or_default()));
        let all: Vec<String> = all.collect();
        stands.accuse(format!(
            "the replicas of group {group} differ at instance {}: {}",
            point.instance,
            all.join(", ")
        ));
    }
}

fn page(work: &Work, now: &Survey, agreed: &[Agreed], stands: &Standing) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for one in agreed.iter().filter(|_| agreed.len() <= LISTED_GROUPS) {
        let hash: String = one.state.chars().take(16).collect();
        let nodes: Vec<String> = one.nodes.iter().map(u32::to_string).collect();
        let _ = writeln!(
            text,
            "group {:<5} nodes {} agree at instance {}: state {hash}…",
            one.group,
            nodes.join(", "),
            one.instance
        );
    }
    for node in &now.nodes {
        let scrub = &node.log.scrub;
        let _ = writeln!(
            text,
            "node {:<6} log: {} read, {} bytes, {}",
            node.node,
            count(scrub.segments as usize, "sealed segment"),
            scrub.bytes,
            count(scrub.findings.len(), "finding")
        );
    }
    for missing in &work.missing {
        let _ = writeln!(text, "not asked: node {} ({}): {}", missing.node, missing.client_addr, missing.why);
    }
    for sentence in &stands.open {
        let _ = writeln!(text, "not seen in time: {sentence}");
    }
    for sentence in &stands.wrong {
        let _ = writeln!(text, "WRONG {sentence}");
    }
    let (groups, nodes) = (count(agreed.len(), "group"), count(now.nodes.len(), "node"));
    let _ = match (stands.wrong.len(), stands.open.len() + work.missing.len()) {
        (0, 0) => writeln!(text, "all agree: {groups} on {nodes}; memory, mirrors and logs are sound"),
        (0, open) => writeln!(
            text,
            "nothing wrong was found, but {} could not be looked at: {groups} on {nodes} agree",
            count(open, "thing")
        ),
        (wrong, _) => writeln!(text, "{} wrong; {groups} on {nodes} agree", count(wrong, "thing")),
    };
    text
}
