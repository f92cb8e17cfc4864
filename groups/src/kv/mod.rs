//! The key-value state machine: commands, outcomes, sessions, state and its hash.

pub mod changes;
pub mod command;
pub mod hash;
pub mod image;
pub mod outcome;
pub mod session;
pub mod state;
pub mod value;

pub use command::{Command, Condition, Want};
pub use hash::StateHash;
pub use image::{BadImage, Fold, Head, Image};
pub use outcome::{Failure, Outcome};
pub use session::Ticket;
pub use state::State;
