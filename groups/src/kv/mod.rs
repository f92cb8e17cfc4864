//! The key-value state machine: commands, outcomes, lives, sessions, state and its hash.

pub mod beside;
pub mod changes;
pub mod check;
pub mod command;
pub mod fence;
pub mod hash;
pub mod history;
pub mod image;
pub mod key;
pub mod life;
pub mod once;
pub mod outcome;
pub mod rescan;
pub mod roll;
pub mod scan;
pub mod session;
pub mod state;
pub mod transaction;
pub mod value;
pub mod walk;

pub use check::{Point, Sum, Verdict};
pub use command::{Command, Condition, Want};
pub use hash::StateHash;
pub use history::{Change, History, Since};
pub use image::{BadImage, Fold, Head, Image};
pub use key::Key;
pub use life::{Life, Renewal, When};
pub use once::Req;
pub use outcome::{Failure, Outcome};
pub use rescan::{Rescan, Scanned};
pub use roll::Roll;
pub use scan::{Page, Range};
pub use session::Ticket;
pub use state::{ApplyError, State};
pub use transaction::{Guard, Transaction};
pub use walk::Walk;
