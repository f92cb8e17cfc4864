//! `pelago admin leader move` and `pelago admin drain`: who leads what.

use clap::{Args, Subcommand};

use super::member::{Change, placed};
use crate::cli::Failure;

/// Who leads a group
#[derive(Debug, Subcommand)]
pub enum Leader {
    /// Make a member the best placed leader of a group
    #[command(after_help = "Example: pelago admin leader move 5 2 --addr 127.0.0.1:7001")]
    Move(Move),
}

/// A group and its leader.
#[derive(Debug, Args)]
pub struct Move {
    /// The group
    group: u32,

    /// The member that shall lead it
    node: u32,

    #[command(flatten)]
    change: Change,
}

/// Move all leaderships off a node
#[derive(Debug, Args)]
#[command(after_help = "\
The node keeps its groups and votes; it leads only where nobody else can. --undo gives it its share again.

Example: pelago admin drain 3 --addr 127.0.0.1:7001")]
pub struct Drain {
    /// The node
    node: u32,

    /// Let it lead its share again
    #[arg(long)]
    undo: bool,

    #[command(flatten)]
    change: Change,
}

impl Leader {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Leader::Move(Move { group, node, change }) = self;
        let words = [group.to_string(), node.to_string()];
        let what = format!("group {group} is to be led by node {node}");
        change.carry_out("LEADER", &words, &what, |survey| placed(survey, |line| line.group == group))
    }
}

impl Drain {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Drain { node, undo, change } = self;
        let word = if undo { "SERVE" } else { "DRAIN" };
        let what = match undo {
            true => format!("node {node} takes its share of the leaderships again"),
            false => format!("node {node} hands over what it leads"),
        };
        change.carry_out("MEMBER", &[word.to_owned(), node.to_string()], &what, |survey| {
            placed(survey, |_| true)
        })
    }
}
