//! Many Multi-Paxos groups over one log: the protocol, the log and the state machine.
//!
//! This crate is the ground floor: no sockets, no async runtime and no clock of its own. Time
//! and messages go in; what to send, what to write and what was chosen come out.

pub mod check;
pub mod clock;
#[doc(hidden)]
pub mod fuzz;
pub mod group;
pub mod host;
pub mod ids;
pub mod kv;
pub mod log;
pub mod mirrored;
pub mod paxos;
pub mod peers;
pub mod planted;
pub mod random;
pub mod replay;
pub mod time;
