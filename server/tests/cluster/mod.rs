//! Clusters of real `pelago` processes for the tests in `cluster_*.rs`.
//!
//! Every cluster has a directory and ports of its own, runs with fsync on, and ends with the test:
//! its processes are killed when the test returns or panics, and end by themselves when the test
//! itself is killed, because their standard input closes. After a panic the tails of the nodes'
//! logs are printed. `PELAGO_TEST_KEEP=1` keeps the directories.

#![allow(dead_code, unused_imports, reason = "each test file uses its own part of the harness")]

pub mod browser;
mod directory;
pub mod http;
mod load;
mod nodes;
mod ports;
mod terminal;
mod wait;
mod wire;

pub use directory::{Snapshot, TestDir, copy};
pub use load::{Harvest, Load, Plan, classify};
pub use nodes::{Cluster, Ended, Recipe, Turn, turn};
pub use ports::Ports;
pub use terminal::{Seat, has_setsid};
pub use wait::{until, within};
pub use wire::{Client, Reply, encode};
