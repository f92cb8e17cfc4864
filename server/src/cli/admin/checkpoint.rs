//! `pelago admin checkpoint`: every mirror up to date, verified and durable.
//!
//! `--json` prints
//!
//! ```text
//! { "complete": everything is done,
//!   "checkpoints": [ { "node", "group", "instance", "bytes", "state_hash" } ],
//!   "open": [ text ], "wrong": [ text ], "unreachable": [ { "node", "client_addr", "alive", "why" } ] }
//! ```

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Asked, Standing, Work, count, line};
use crate::cli::status::LISTED_GROUPS;
use crate::cli::{Failure, print};
use crate::client::survey::Survey;

/// Bring every group's mirror checkpoint up to date, verified and durable
#[derive(Debug, Args)]
#[command(after_help = "\
All nodes do it for all their groups, while they serve: a restart then replays almost nothing.
The instance is what each group had applied when it was asked, or more.
Exit codes: 0 done, 1 not everywhere (where, and why, is printed), 2 no node answered or began.

Example: pelago admin checkpoint --addr 127.0.0.1:7001")]
pub struct Checkpoint {
    #[command(flatten)]
    asked: Asked,
}

/// One group's checkpoint on one node.
#[derive(Debug, Serialize)]
struct Line {
    node: u32,
    group: u32,
    /// Up to here it is durable.
    instance: u64,
    /// Bytes of keys and values of the group.
    bytes: u64,
    /// The hash of the state where the node stands.
    state_hash: String,
}

impl Checkpoint {
    pub(super) fn run(self) -> Result<(), Failure> {
        let work = Work::begin(&self.asked, false)?;
        let (now, stands) = work.wait("checkpoint", standing)?;
        let lines = lines(&work, &now);
        let complete = stands.open.is_empty() && stands.wrong.is_empty() && work.missing.is_empty();
        if self.asked.json {
            let document = json!({
                "complete": complete, "checkpoints": lines, "open": stands.open, "wrong": stands.wrong,
                "unreachable": work.missing,
            });
            print(format!("{document:#}\n"))?;
        } else {
            print(page(&work, &lines, &stands, complete))?;
        }
        if complete { Ok(()) } else { Err(Failure::no("")) }
    }
}

/// How far the checkpoints are.
pub(super) fn standing(work: &Work, now: &Survey) -> Standing {
    let mut stands = Standing::default();
    for begun in &work.begun {
        for before in &begun.groups {
            let (node, group) = (begun.node, before.group);
            let Some(line) = line(now, node, group) else {
                stands.step(false, || format!("node {node} does not answer"));
                continue;
            };
            if let Some(why) = &line.halted {
                stands.accuse(format!("group {group} has halted on node {node}: {why}"));
                continue;
            }
            let done = line.checkpoint >= before.applied && line.verified > before.verified;
            stands.step(done, || {
                let (at, to) = (line.checkpoint, before.applied);
                format!("group {group} on node {node} is at instance {at}, of {to}")
            });
        }
    }
    stands
}

fn lines(work: &Work, now: &Survey) -> Vec<Line> {
    let asked = work.begun.iter().flat_map(|b| b.groups.iter().map(move |g| (b.node, g.group)));
    let found = asked.filter_map(|(node, group)| Some((node, line(now, node, group)?)));
    let mut lines: Vec<Line> = found
        .map(|(node, line)| Line {
            node,
            group: line.group,
            instance: line.checkpoint,
            bytes: line.bytes,
            state_hash: line.state_hash.clone(),
        })
        .collect();
    lines.sort_by_key(|line| (line.group, line.node));
    lines
}

fn page(work: &Work, lines: &[Line], stands: &Standing, complete: bool) -> String {
    let mut text = String::new();
    let groups = lines.chunk_by(|a, b| a.group == b.group);
    let many = groups.clone().count() > LISTED_GROUPS;
    // Writing to a string cannot fail.
    for line in lines.iter().filter(|_| !many) {
        let hash: String = line.state_hash.chars().take(16).collect();
        let _ = writeln!(
            text,
            "group {:<5} node {:<4} instance {:<10} {:>12} bytes  state {hash}…",
            line.group, line.node, line.instance, line.bytes
        );
    }
    for missing in &work.missing {
        let _ =
            writeln!(text, "node {} ({}) was not asked: {}", missing.node, missing.client_addr, missing.why);
    }
    for sentence in stands.wrong.iter().chain(&stands.open) {
        let _ = writeln!(text, "not done: {sentence}");
    }
    let nodes = count(work.begun.len(), "node");
    let _ = match complete {
        true => writeln!(
            text,
            "{} on {nodes}: every checkpoint is up to date, verified and durable",
            count(groups.count(), "group")
        ),
        false => writeln!(text, "{} of {} checkpoints are up to date", stands.done, stands.all),
    };
    text
}
