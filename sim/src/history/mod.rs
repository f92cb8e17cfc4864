//! Client histories and the judge of them: is there an order in which every answer makes sense?
//!
//! A history says who asked what, when the question left and when the answer came. It is *linearizable* (Herlihy &
//! Wing 1990) when every operation can be given one instant between its question and its answer so that, executed one
//! after another at those instants, a single plain map would have given exactly these answers. An operation whose
//! outcome the client never learnt (a lost connection, a timeout, `-INDOUBT`) may take effect at any instant after
//! its question, or never; one that was refused (`-TRYAGAIN`, a failed precondition reported as an error, …) took no
//! effect and says nothing.
//!
//! The simulator, `pelago-bench --verify` and the tests over real processes all record with [`ClientLog`] and judge
//! with [`check`], so that they cannot disagree about what "correct" is. Nothing in here knows the server, reads a
//! clock or starts a thread: time is whatever one monotonic counter common to all clients says.
//!
//! ```
//! use sim::history::{Action, ClientLog, History, Outcome, Verdict, check};
//!
//! let mut writer = ClientLog::new(1);
//! let put = writer.invoke(b"k", 10, Action::Put(b"new".to_vec()));
//! writer.respond(put, 20, Outcome::Done);
//! let mut reader = ClientLog::new(2);
//! let get = reader.invoke(b"k", 30, Action::Get);
//! reader.respond(get, 40, Outcome::Value(None)); // asked after the put was acknowledged, and did not see it
//!
//! let history = History::from_logs([writer, reader]).expect("answers fit their questions");
//! assert!(matches!(check(&history), Verdict::NotLinearizable(_)));
//! ```
//!
//! # How it is judged
//! Linearizability is local: a history is linearizable if the part of it on every single key is. So [`check`] takes
//! the keys one at a time (`check.rs`). The values alone, in `n log n`, decide a key with nothing but puts of distinct
//! values and gets (with their revisions, where all were told), and refute most other wrong ones (`zones.rs`); every
//! other key goes through the search of Wing & Gong with Lowe's memoisation (`search.rs`), pruned by who still has to
//! be served (`demand.rs`), over the sequential model of one key (`model.rs`), bounded in work. A history that is
//! rejected comes with the smallest story that could be found for it (`explain.rs`).
//!
//! A key may be given a life. From its end on, counted from the sending of the write that gave it, the key may vanish at
//! any instant without an operation, and never before; that it does vanish in the end is not judged.
//!
//! Operations over several keys are not judged here yet. They fit without a new search: keys joined by an operation
//! are judged together, and the state of the model becomes one value per joined key.

mod check;
mod demand;
mod explain;
mod file;
mod model;
mod operation;
mod prepare;
mod record;
mod search;
mod zones;

pub use check::{Limits, Undecided, Verdict, check, check_within};
pub use explain::Explanation;
pub use file::ReadError;
pub use operation::{Action, Operation, Outcome};
pub use record::{Call, ClientLog, History, Malformed};
