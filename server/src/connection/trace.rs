//! `TRACE`: executes a command and answers, beside its reply, the way that it took.
//!
//! The lines name the node whose clock measured each of them; times of different nodes are never subtracted
//! from each other, except where a line says so: the way between two nodes is what the asking one waited,
//! less what the leader says it took.

use std::time::{Duration, Instant};

use groups::ids::{GroupId, NodeId};

use super::plan::plan;
use super::{Shared, refused};
use crate::node::trace::{Step, StepKind};
use crate::protocol::{Args, Command, DataCommand, ErrorReply, Reply, SizeLimits};
use crate::runtime::worker::Worker;

/// Executes what `words` say, which was understood as `command` before.
pub(super) async fn answer(words: &Args, command: DataCommand, sizes: &SizeLimits, worker: &Worker) -> Reply {
    let shared = worker.shared();
    if let Some(refusal) = refused(&command, worker, shared) {
        return refusal.into();
    }
    let began = Instant::now();
    let again = Command::parse(words, sizes);
    let parsed = began.elapsed();
    debug_assert!(again.is_ok(), "it was understood before");
    let read = !command.is_write();
    let planned = plan(command, &shared.layout, u32::try_from(sizes.max_value).unwrap_or(u32::MAX));
    let (mut pieces, mut join) = match planned {
        Ok(planned) => planned,
        Err(error) => return error.into(),
    };
    let (Some(piece), true) = (pieces.pop(), pieces.is_empty()) else {
        return ErrorReply::err(
            "TRACE follows one request to one group, and the keys of this one are in several; nothing was applied; \
             trace it with fewer keys",
        )
        .into();
    };
    let planned = began.elapsed().saturating_sub(parsed);
    let (result, steps) = worker.trace(piece.group, &piece.command, read).await;
    join.take(piece.group, result);
    let reply = join.reply(sizes.max_value as u64);
    let story = Story { shared, group: piece.group, bytes: words.size(), parsed, planned, steps };
    Reply::Array(vec![reply, Reply::Array(story.lines().into_iter().map(Reply::bulk).collect())])
}

struct Story<'a> {
    shared: &'a Shared,
    group: GroupId,
    /// Of the request.
    bytes: usize,
    parsed: Duration,
    /// From then until it was handed on.
    planned: Duration,
    steps: Vec<Step>,
}

impl Story<'_> {
    fn lines(&self) -> Vec<String> {
        let me = self.shared.node;
        let mut lines = vec![
            line(me, "parse", Some(self.parsed), &format!("{} bytes", self.bytes)),
            line(me, "plan", Some(self.planned), &format!("group {}", self.group)),
        ];
        let of = |kind| self.steps.iter().find(move |step| step.kind == kind);
        let commands = of(StepKind::Company).map_or(1, |step| step.amount);
        lines.extend(self.steps.iter().filter_map(|step| self.told(step, commands)));
        // What the frames took, both ways, with all queues on them.
        if let (Some(forward), Some(whole)) = (of(StepKind::Forward), of(StepKind::Whole))
            && whole.node != me
            && forward.peer == whole.node
        {
            let way = forward.took.saturating_sub(whole.took);
            let detail = format!("both ways: forward at node {me} less whole at node {}", whole.node);
            lines.push(line(me, "way", Some(way), &detail));
        }
        if self.steps.is_empty() {
            lines.push(line(me, "refused", None, "nothing was sent to the group's leader"));
        } else if of(StepKind::Whole).is_none() {
            lines.push(line(
                me,
                "leader",
                None,
                "has not told its part: it changed, or is of an older version",
            ));
        }
        lines.extend(self.silent().into_iter().map(|node| {
            line(
                node,
                "silent",
                None,
                "has not told its part in time: it is away, slow, or of an older version",
            )
        }));
        lines
    }

    fn told(&self, step: &Step, commands: u64) -> Option<String> {
        let Step { node, kind, peer, took, amount } = *step;
        let (name, detail) = match kind {
            StepKind::Company => return None,
            StepKind::Queue => ("queue", format!("until it went to node {peer}, the leader")),
            StepKind::Forward if peer == node && self.leader() != Some(node) => (
                "forward",
                "until the replica here had applied it, which was sooner than the leader's answer".to_owned(),
            ),
            StepKind::Forward if peer == node => ("execute", "until it was answered here".to_owned()),
            StepKind::Forward if amount > 1 => {
                ("forward", format!("until node {peer} answered; sent {amount} times"))
            }
            StepKind::Forward => ("forward", format!("until node {peer} answered")),
            StepKind::Batch => {
                let others = commands.saturating_sub(1);
                (
                    "batch",
                    format!(
                        "until it was proposed as part of instance {amount}, with {others} other commands"
                    ),
                )
            }
            StepKind::OwnDisk => ("disk", "the leader's, from the proposal until it was synced".to_owned()),
            StepKind::Vote => ("peer", format!("from the proposal until the vote of node {peer} came")),
            StepKind::Quorum => ("quorum", "from the proposal until a majority had it".to_owned()),
            StepKind::Apply => ("apply", "until it was applied and answered; 0 is the same turn".to_owned()),
            StepKind::Read => (
                "read",
                "until it was read at the leader, under its lease or behind a majority's word".to_owned(),
            ),
            StepKind::Whole => ("whole", "at the leader, from its coming to its answer".to_owned()),
            StepKind::Taken => ("accept", "from its coming until the log had it".to_owned()),
            StepKind::Disk => ("disk", "until it was synced".to_owned()),
        };
        Some(line(node, name, Some(took), &detail))
    }

    /// Who executed it, if that was told.
    fn leader(&self) -> Option<NodeId> {
        self.steps.iter().find(|step| step.kind == StepKind::Whole).map(|step| step.node)
    }

    /// Members that should have told of a write and have not.
    fn silent(&self) -> Vec<NodeId> {
        let Some(leader) = self.leader() else { return Vec::new() };
        if !self.steps.iter().any(|step| step.kind == StepKind::Batch) {
            return Vec::new();
        }
        let told = |node: &NodeId| self.steps.iter().any(|s| s.node == *node && s.kind == StepKind::Disk);
        let members = self.shared.roster.current().preference(self.group);
        members.into_iter().filter(|node| *node != leader && !told(node)).collect()
    }
}

fn line(node: NodeId, name: &str, took: Option<Duration>, detail: &str) -> String {
    let took = took.map_or_else(|| "-".to_owned(), |took| format!("{:.1} us", took.as_nanos() as f64 / 1e3));
    format!("node {node:<3} {name:<8} {took:>12}  {detail}")
}
