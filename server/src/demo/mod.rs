//! A whole cluster on one machine: `pelago demo` and `pelago demo --check`.
//!
//! Every node is a process of its own with its own files and fsync, started from this very
//! executable. Each has a pipe as stdin that only this process holds open and ends with it, so
//! that no node outlives the demo, however the demo ends.
//!
//! * `ports` where the nodes can listen · `recipe` the cluster's config.toml · `directory` what
//!   belongs to the demo on the disk
//! * `cluster` the processes · `waiting` for what they have to become · `interrupt` Ctrl-C
//! * `show` the tour and the live status · `stage` the same on a terminal, with keys · `bench` its load · `check` the same without a person

mod bench;
mod check;
mod cluster;
mod directory;
pub(crate) mod interrupt;
mod ports;
mod recipe;
mod show;
mod stage;
mod waiting;

use std::path::PathBuf;

pub use check::check;
pub use show::show;

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Nodes; 3 unless the directory has a cluster already.
    pub nodes: Option<u32>,
    /// Paxos groups; 16 unless the directory has a cluster already.
    pub groups: Option<u32>,
    /// Where everything is kept.
    pub data: Option<PathBuf>,
    /// Whether to remove what an earlier demo left there.
    pub fresh: bool,
}
