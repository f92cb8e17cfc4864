//! The mirror checkpoint: a second state machine on disk, its store and its file format.
//!
//! * [`store`] – the store behind the mirror: many groups in one engine, data and position in
//!   one atomic batch, generations so that installing a checkpoint is a switch, and the record
//!   of what log GC may trust.
//! * [`mod@format`] – the checkpoint file and stream: sorted chunks with checksums, resumable after
//!   any complete chunk.
//! * [`transfer`] – from one to the other.
//! * [`mirror`] – the deterministic actor around the store: folds, durable points, checkpoints
//!   from and to other nodes.
//!
//! The bytes of both are drawn in `docs/storage.md`.

pub mod durably;
pub mod entry;
pub mod format;
#[doc(hidden)]
pub mod fuzz;
pub mod mirror;
pub mod store;
pub mod transfer;

pub use entry::{Chain, Entry, EntryRef, Generation, StateDigest};
