//! The deterministic world around whole nodes: production code under a seeded scheduler.
//!
//! - [`history`] records what clients saw and judges whether it is linearizable.
//! - [`machine`] is one node with disks that outlive it.
//! - [`world`] is the scheduler, the network, the clients and the faults.

pub mod history;
pub mod machine;
pub mod world;
