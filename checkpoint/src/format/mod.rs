//! The checkpoint file, which is also the checkpoint stream: a header, sorted chunks, a trailer.
//!
//! Each of the three is one *frame*: on the network a message, in the file the next bytes. A
//! frame's crc begins with the digest of everything before it, so a frame fits exactly one
//! place in one checkpoint: nothing can be left out, doubled, swapped or taken from another.
//! The digest chains from frame to frame, so whoever knows the 16 bytes after a complete chunk
//! (they are in [`Progress`]) can continue there, be it another process or another node, and
//! the result is byte for byte what one uninterrupted writer would have written.
//!
//! ```text
//! header                                   chunk                        trailer
//! 0    8  "PELAGOCK"                       0   4  "CHNK"                0   4  "TAIL"
//! 8    2  version = 1                      4   4  payload bytes         4   4  0
//! 10   2  0                                8   4  entries, at least 1   8   8  chunks
//! 12   4  group                            12  4  crc*                  16  8  entries
//! 16   16 cluster id                       16  ... payload:             24  8  bytes before
//! 32   8  instance                           4  key bytes               32  16 digest
//! 40   8  chained checksum                   4  value bytes             48  4  crc*
//! 48   32 state hash                         8  revision
//! 80   8  revision                           8  expiry
//! 88   8  epoch                              .. key
//! 96   4  membership bytes m                 .. value
//! 100  4  session bytes s
//! 104  4  crc of 0..104                    crc* = crc32(digest so far, the frame without crc*)
//! 108  m  membership
//! ..   s  sessions                         digest after the header = xxh3-128(header)
//! ..   4  crc of all before                digest after a chunk = xxh3-128(digest, chunk)
//! ```
//!
//! All numbers are little endian. Keys ascend strictly over the whole file. Nothing may follow
//! the trailer.

mod file;
mod frame;
mod header;
mod reader;

pub use file::{StagedFile, Summary, dump, verify};
pub use frame::{CHUNK_TARGET, Decoder, Encoder, Frame, MAX_PAYLOAD, Progress};
pub use header::Header;
pub use reader::Reader;

/// Why bytes are not a checkpoint, or not yet.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It ends before its trailer. What came before the offset's frame is good.
    #[error("the checkpoint ends at byte {offset}, in the middle")]
    Truncated {
        /// Where the incomplete frame begins.
        offset: u64,
    },
    /// Bytes that no writer wrote there.
    #[error("the checkpoint is damaged in the frame at byte {offset}: {what}")]
    Damaged {
        /// Where the frame begins.
        offset: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// Every checksum is right and still the entries are not the state that the header names.
    #[error("the entries hash to {found}, the header promises {promised}")]
    NotThatState {
        /// From the header.
        promised: crate::StateDigest,
        /// Of the entries.
        found: crate::StateDigest,
    },
    /// Written by a newer release.
    #[error("the checkpoint has format {found}, this program knows up to {known}")]
    NewerFormat {
        /// The version found.
        found: u16,
        /// The newest version known here.
        known: u16,
    },
    /// A header or chunk that must not be written: an oversized part, an empty chunk, keys that
    /// do not ascend.
    #[error("not a valid checkpoint to write: {0}")]
    Refused(&'static str),
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
