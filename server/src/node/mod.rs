//! A whole node as deterministic objects: shards of groups and requests, the log, the birth.
//!
//! Everything here is a function of what is handed in, time included. `runtime` puts threads,
//! files and sockets around it; the simulator puts a seeded scheduler around it.

pub mod ages;
pub mod birth;
pub mod compaction;
pub mod layout;
pub mod manifest;
pub mod memory;
pub mod mirror;
pub mod open;
pub mod readers;
pub mod requests;
pub mod roster;
pub mod shard;
pub mod trace;
pub mod watch;
pub mod wire;
