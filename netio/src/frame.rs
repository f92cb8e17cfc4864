//! Frames: what travels on an established link.
//!
//! ```text
//!   0        4        8     9     10        12       16
//!   | length | crc32  | ver | kind| reserved| group  | body, `length` bytes …
//!   | u32    | u32    | u8  | u8  | u16 = 0 | u32    |
//! ```
//!
//! Everything is little-endian. `length` counts the body alone. The crc (IEEE, as in
//! `crc32fast`) covers `length`, then every byte after the crc field: version, kind, reserved,
//! group and body, so no bit of a frame is outside it. `kind` and the body belong to the
//! layer above; kind [`RESERVED_KIND`] alone is netio's own.
//!
//! A length above the limit ends the connection before anything is allocated for it. A length
//! below it that was damaged on the way makes the decoder wait for bytes of later frames, and
//! the crc then fails over all of them: a damaged stream delivers nothing after the damage.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use groups::ids::GroupId;
use thiserror::Error;

/// Not a group: the frame speaks for its node.
pub const NO_GROUP: GroupId = GroupId(u32::MAX);

/// Bytes before the body of a frame.
pub const HEADER: usize = 16;

/// The version of the frame format, in every frame.
pub const FRAME_VERSION: u8 = 1;

/// The one kind that netio keeps for itself: an empty frame that only proves that the link is
/// alive. It is never delivered.
pub const RESERVED_KIND: u8 = 0xFF;

/// Payloads from this size on travel as their own segment of a vectored write; smaller ones
/// are copied next to their header.
pub const OWN_SEGMENT: usize = 4 << 10;

/// One allocation serves this many received bytes.
const READ_BUFFER: usize = 128 << 10;

/// A read call is offered at least this much room, unless it completes a large frame.
const MIN_ROOM: usize = 4 << 10;

/// A batch's small bodies are cut into segments of about this size, so that a growing batch
/// does not copy itself over and over.
const SEGMENT: usize = 64 << 10;

/// A received frame.
///
/// The body is a slice of the read buffer that it arrived in and keeps all of that buffer
/// (128 KiB) in memory: copy what is small and kept long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The group that the frame is for, or [`NO_GROUP`].
    pub group: GroupId,
    /// What the body is; opaque here.
    pub kind: u8,
    /// The body; opaque here.
    pub body: Bytes,
}

/// Why a byte stream is not one of frames. Final for its connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length is over the limit; nothing was allocated.
    #[error("a frame announces {length} bytes, the limit is {limit}")]
    TooLong {
        /// As announced.
        length: u32,
        /// As configured.
        limit: usize,
    },
    /// A format that this binary does not read.
    #[error("frame version {0}, this binary reads {FRAME_VERSION}")]
    Version(u8),
    /// The reserved bytes are not zero, or netio's own kind carries something.
    #[error("reserved bits of a frame header are set")]
    Reserved,
    /// Damaged on the way.
    #[error("frame checksum {found:08x} does not match its content ({computed:08x})")]
    Checksum {
        /// In the header.
        found: u32,
        /// Over what arrived.
        computed: u32,
    },
}

struct Header {
    length: usize,
    crc: u32,
    kind: u8,
    group: GroupId,
}

impl Header {
    /// Checks all that can be checked before the body is here.
    fn parse(bytes: &[u8; HEADER], limit: usize) -> Result<Header, FrameError> {
        let mut at = &bytes[..];
        let length = at.get_u32_le();
        let crc = at.get_u32_le();
        let version = at.get_u8();
        let kind = at.get_u8();
        let reserved = at.get_u16_le();
        let group = GroupId(at.get_u32_le());
        if length as usize > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        if version != FRAME_VERSION {
            return Err(FrameError::Version(version));
        }
        if reserved != 0 || (kind == RESERVED_KIND && (length != 0 || group != NO_GROUP)) {
            return Err(FrameError::Reserved);
        }
        Ok(Header { length: length as usize, crc, kind, group })
    }

    fn total(&self) -> usize {
        HEADER + self.length
    }
}

fn checksum(length: &[u8], rest: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(length);
    crc.update(rest);
    crc.update(payload);
    crc.finalize()
}

/// Outgoing frames for one peer, encoded (and checksummed) by the thread that sends them.
#[derive(Clone, Debug, Default)]
pub struct FrameBatch {
    sealed: Vec<Bytes>,
    tail: BytesMut,
    bytes: usize,
    frames: usize,
    largest_body: usize,
}

impl FrameBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> FrameBatch {
        FrameBatch::default()
    }

    /// Appends a frame whose body is `head` followed by `payload`. Either may be empty. A
    /// payload of [`OWN_SEGMENT`] bytes or more is not copied.
    ///
    /// # Panics
    /// If `kind` is [`RESERVED_KIND`], or the body has 4 GiB or more.
    pub fn push(&mut self, group: GroupId, kind: u8, head: &[u8], payload: &Bytes) {
        assert!(kind != RESERVED_KIND, "frame kind {RESERVED_KIND} is netio's own");
        self.append(group, kind, head, payload);
    }

    pub(crate) fn keepalive() -> FrameBatch {
        let mut batch = FrameBatch::new();
        batch.append(NO_GROUP, RESERVED_KIND, &[], &Bytes::new());
        batch
    }

    fn append(&mut self, group: GroupId, kind: u8, head: &[u8], payload: &Bytes) {
        let body = head.len() + payload.len();
        let length = u32::try_from(body).expect("a frame body is smaller than 4 GiB");
        let own_segment = payload.len() >= OWN_SEGMENT;
        let room = HEADER + head.len() + if own_segment { 0 } else { payload.len() };
        self.make_room(room);

        let start = self.tail.len();
        self.tail.put_u32_le(length);
        self.tail.put_u32_le(0);
        self.tail.put_u8(FRAME_VERSION);
        self.tail.put_u8(kind);
        self.tail.put_u16_le(0);
        self.tail.put_u32_le(group.0);
        self.tail.put_slice(head);
        let apart: &[u8] = if own_segment {
            payload
        } else {
            self.tail.put_slice(payload);
            &[]
        };
        let crc = checksum(&length.to_le_bytes(), &self.tail[start + 8..], apart);
        self.tail[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        if own_segment {
            self.seal();
            self.sealed.push(payload.clone());
        }
        self.bytes += HEADER + body;
        self.frames += 1;
        self.largest_body = self.largest_body.max(body);
    }

    fn make_room(&mut self, room: usize) {
        if self.tail.capacity() - self.tail.len() >= room {
            return;
        }
        if self.tail.len() >= SEGMENT / 2 {
            self.seal();
            self.tail = BytesMut::with_capacity(room.max(SEGMENT));
        } else {
            self.tail.reserve(room.max(256));
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.sealed.push(self.tail.split().freeze());
        }
    }

    /// No frame was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Bytes on the wire, headers included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames pushed.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// The largest body pushed.
    #[must_use]
    pub fn largest_body(&self) -> usize {
        self.largest_body
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        *self = FrameBatch::new();
    }

    /// What was pushed so far; leaves an empty batch behind.
    #[must_use]
    pub fn take(&mut self) -> FrameBatch {
        std::mem::take(self)
    }

    /// The bytes on the wire, in order.
    pub fn into_segments(mut self) -> impl Iterator<Item = Bytes> {
        self.seal();
        self.sealed.into_iter()
    }

    /// All bytes, when they are few and in one piece: such a batch is cheaper to copy than to
    /// send as a segment of its own.
    pub(crate) fn small(&self) -> Option<&[u8]> {
        (self.sealed.is_empty() && self.tail.len() < OWN_SEGMENT).then_some(&self.tail[..])
    }
}

/// An incremental decoder that owns its read buffer: ask for [`room`](Decoder::room), read
/// into it, [`advance`](Decoder::advance), [`decode`](Decoder::decode).
///
/// Memory is bounded by one read buffer, or by one frame when that is larger (and then only
/// after its length was checked); bodies that the caller keeps are the caller's.
#[derive(Debug)]
pub struct Decoder {
    /// All initialised; the first `filled` bytes are received and not yet decoded.
    buffer: BytesMut,
    filled: usize,
    limit: usize,
}

impl Decoder {
    /// A decoder for bodies of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Decoder {
        Decoder { buffer: BytesMut::new(), filled: 0, limit }
    }

    /// Where to read to; never empty.
    pub fn room(&mut self) -> &mut [u8] {
        let needed = match self.pending() {
            Some(total) => total,
            None => self.filled + MIN_ROOM,
        };
        if self.buffer.len() < needed {
            self.renew(needed);
        }
        &mut self.buffer[self.filled..]
    }

    /// `n` bytes of [`room`](Decoder::room) have been filled.
    ///
    /// # Panics
    /// If there was not so much room.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.buffer.len() - self.filled, "more bytes than there was room for");
        self.filled += n;
    }

    /// Appends every complete frame to `frames`, in order.
    ///
    /// # Errors
    /// The stream is broken at this point. What was appended before is intact; the decoder
    /// must not be used again.
    pub fn decode(&mut self, frames: &mut Vec<Frame>) -> Result<(), FrameError> {
        while let Some(bytes) = self.buffer[..self.filled].first_chunk::<HEADER>() {
            let header = Header::parse(bytes, self.limit)?;
            let total = header.total();
            if self.filled < total {
                break;
            }
            let computed = checksum(&self.buffer[..4], &self.buffer[8..total], &[]);
            if computed != header.crc {
                return Err(FrameError::Checksum { found: header.crc, computed });
            }
            self.filled -= total;
            let body = if header.length == 0 {
                // An empty slice would still keep the buffer.
                self.buffer.advance(total);
                Bytes::new()
            } else {
                let mut body = self.buffer.split_to(total).freeze();
                body.advance(HEADER);
                body
            };
            if header.kind != RESERVED_KIND {
                frames.push(Frame { group: header.group, kind: header.kind, body });
            }
        }
        if self.buffer.is_empty() {
            // Lets go of a large frame's buffer, which nobody else may hold any more.
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Bytes that this decoder holds allocated for what it has not delivered.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.buffer.capacity()
    }

    /// The whole length of the frame in progress, once its header is here and acceptable.
    fn pending(&self) -> Option<usize> {
        let bytes = self.buffer[..self.filled].first_chunk::<HEADER>()?;
        Header::parse(bytes, self.limit).ok().map(|header| header.total())
    }

    fn renew(&mut self, needed: usize) {
        self.buffer.truncate(self.filled);
        if needed <= READ_BUFFER && self.buffer.try_reclaim(READ_BUFFER - self.filled) {
            self.buffer.resize(READ_BUFFER, 0);
            return;
        }
        let mut fresh = BytesMut::zeroed(needed.max(READ_BUFFER));
        fresh[..self.filled].copy_from_slice(&self.buffer);
        self.buffer = fresh;
    }
}
