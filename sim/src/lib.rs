//! The deterministic world around whole nodes: production code under a seeded scheduler.
//!
//! - [`plan`] says what a run is, and [`fault`] what can go wrong in it.
//! - [`world`] runs it: [`schedule`] is time, [`network`] the links, [`machine`] one node with
//!   disks that outlive it, [`clients`] those who ask, [`tellers`] those of them who move money.
//!   disks that outlive it, [`clients`] those who ask, [`observers`] those who look at many keys.
//! - [`judges`] look at every step, one rule per file; [`history`] judges what clients saw.
//! - [`trial`] runs one seed, [`swarm`] many, [`mod@shrink`] makes a failing one small,
//!   [`coverage`] counts, [`story`] tells.
//! - [`calm`] is apart: large clusters without faults and judges, for counting what they say.

pub mod calm;
pub mod clients;
pub mod coverage;
pub mod fault;
pub mod history;
pub mod judges;
pub mod machine;
pub mod network;
pub mod observers;
pub mod operator;
pub mod plan;
pub mod resend;
pub mod schedule;
pub mod shrink;
pub mod story;
pub mod swarm;
pub mod tellers;
pub mod trial;
pub mod world;
