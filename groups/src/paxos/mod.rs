//! Multi-Paxos for one group, as a pure function of messages and time.
//!
//! A [`Replica`] is one member. It takes messages ([`Replica::step`]) and the passing of time
//! ([`Replica::tick`]) and fills a [`Ready`]: what may be sent at once, what must be written, and
//! what may be sent only once that is on the disk. It owns no clock, no thread, no socket and no
//! file. The driver loop, for any number of groups that share one `Ready`:
//!
//! ```text
//! loop {
//!     for each message or tick that has come { replica.step(..) or replica.tick(..) }
//!     for each touched replica { replica.turn(..) }         // counts votes, flushes joined ones
//!     while let Some(chosen) = replica.next_chosen() { state_machine.apply(chosen) }
//!     send(ready.send_now)
//!     log.append(ready.records); log.sync()
//!     send(ready.send_after_sync)                           // to oneself: step() it
//! }
//! ```
//!
//! The roles, one file each, and where they come from:
//! - acceptor: promises and votes ("Paxos Made Simple", section 2.2). One promise covers all
//!   instances; so phase 1 runs once per leadership ("Paxos Made Simple", section 3).
//! - election: who becomes a candidate, and when; adoption and filling of gaps.
//! - leader: pipelined phase 2, read barriers (the read index of Raft, Ongaro section 6.4),
//!   stepping aside.
//! - change: from who is a member to who shall be one.
//! - lease: what binds an acceptor for a while, and lets a leader answer reads alone.
//! - teacher: sessions that push chosen values to followers that are behind.
//! - learner: watermarks, fetching what was missed, chained checksums ("Paxos Made Live",
//!   section 5.1 on disk corruption, for the idea of checking replicas against each other).

mod acceptor;
mod change;
pub mod codec;
mod election;
mod leader;
mod learner;
mod lease;
pub mod message;
pub mod quorum;
pub mod ready;
pub mod replica;
mod teacher;

pub use learner::chain;
pub use message::{Envelope, Message};
pub use quorum::Members;
pub use ready::{LogFound, LogRead, Ready};
pub use replica::{Accepted, Chosen, Counters, Halt, Recovered, Replica, Tuning};
pub use teacher::Session;
