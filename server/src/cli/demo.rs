//! `pelago demo`

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::demo::{self, Plan};

/// Start a whole cluster on this machine and show it at work
#[derive(Debug, Args)]
#[command(after_help = "\
Starts real node processes with real files and fsync, puts through one node, gets through another,
says how to talk to the cluster, and shows its status until Ctrl-C. The next demo goes on with the
same data. --check needs no terminal: it puts, kills the leader with SIGKILL, reads and writes
again, restarts it and compares the checksums of all replicas, in a temporary directory.
Exit codes: 0 all went well, 1 something did not (with the reason), 2 could not start.

Example: pelago demo --nodes 5 --groups 64 --data /tmp/sea --fresh")]
pub struct Demo {
    /// Check that the cluster survives kill -9 of a leader, and end
    #[arg(long)]
    check: bool,

    /// Node processes [default: 3, or as in the directory]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=25))]
    nodes: Option<u32>,

    /// Paxos groups [default: 16, or as in the directory]
    #[arg(long, value_name = "G", value_parser = clap::value_parser!(u32).range(1..=16_384))]
    groups: Option<u32>,

    /// Where everything is kept [default: data/demo; with --check a temporary directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Remove what an earlier demo left in the directory
    #[arg(long)]
    fresh: bool,
}

impl Demo {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Demo { check, nodes, groups, data, fresh } = self;
        let plan = Plan { nodes, groups, data, fresh };
        if check { demo::check(&plan) } else { demo::show(&plan) }
    }
}
