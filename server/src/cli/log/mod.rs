//! `pelago log`: reads the log of a stopped node without changing it.

mod dump;
mod source;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(super) use source::Source;

use super::Failure;

/// Read the log of a stopped node
#[derive(Debug, Args)]
#[command(after_help = "Example: pelago log verify data/node-1")]
pub struct LogCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Dump(Dump),
    Verify(Verify),
}

/// Print the records of a log, one per line, and a summary
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is changed. A running node is refused: stop it first. The summary goes to stderr.
Exit codes: 0 read to its end (a torn tail is said), 1 damaged (what lies before it is printed),
2 could not be read.

Example: pelago log dump data/node-1 --group 5")]
struct Dump {
    /// The node's directory
    #[arg(value_name = "DATA_DIR")]
    dir: PathBuf,

    /// Only records of this group
    #[arg(long, value_name = "GROUP")]
    group: Option<u32>,
}

/// Check every byte of a log against its checksums
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is changed. A running node is refused: stop it first.
Exit codes: 0 sound; also with a torn tail, which is what a crash in the middle of a commit
leaves (it was never acknowledged, and the next start cuts it). 1 damaged: which file, and where.
2 could not be checked.

Example: pelago log verify data/node-1")]
struct Verify {
    /// The node's directory
    #[arg(value_name = "DATA_DIR")]
    dir: PathBuf,
}

impl LogCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Dump(Dump { dir, group }) => dump::run(&dir, group),
            Action::Verify(Verify { dir }) => verify::run(&dir),
        }
    }
}

#[cfg(test)]
mod tests;
