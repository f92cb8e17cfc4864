//! Chunks and the trailer, without any I/O: entries in, frames out, and back.

use bytes::{Buf, Bytes};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::{FormatError, Header};
use crate::entry::{Entry, MAX_KEY, MAX_VALUE, StateDigest};
use groups::kv::StateHash;

/// The payload at which a writer should end a chunk. Larger only where one entry is.
pub const CHUNK_TARGET: usize = 256 << 10;

/// The largest payload that a reader accepts.
pub const MAX_PAYLOAD: usize = 16 << 20;

const CHUNK: [u8; 4] = *b"CHNK";
const TAIL: [u8; 4] = *b"TAIL";

/// Bytes of a chunk before its payload.
pub(super) const CHUNK_HEAD: usize = 16;
pub(super) const TRAILER: usize = 52;
const ENTRY_HEAD: usize = 4 + 4 + 8 + 8;

/// One entry always fits.
const _: () = assert!(MAX_KEY + MAX_VALUE + ENTRY_HEAD <= MAX_PAYLOAD);

/// How far a checkpoint has come: all that is needed to continue behind its last chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Complete chunks.
    pub chunks: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes up to and with the last complete chunk, the header included.
    pub bytes: u64,
    /// The last key; `None` before the first chunk.
    pub last_key: Option<Bytes>,
    /// The chained digest of all these bytes.
    pub digest: u128,
}

impl Progress {
    /// After the header.
    fn begin(header: &[u8]) -> Progress {
        Progress {
            chunks: 0,
            entries: 0,
            bytes: header.len() as u64,
            last_key: None,
            digest: xxh3_128(header),
        }
    }

    fn crc(&self, frame: &[&[u8]]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.digest.to_le_bytes());
        frame.iter().for_each(|part| crc.update(part));
        crc.finalize()
    }

    /// Steps over a complete chunk.
    fn advance(&mut self, frame: &[u8], entries: u64, last_key: Bytes) {
        let mut digest = Xxh3::new();
        digest.update(&self.digest.to_le_bytes());
        digest.update(frame);
        self.digest = digest.digest128();
        self.chunks += 1;
        self.entries += entries;
        self.bytes += frame.len() as u64;
        self.last_key = Some(last_key);
    }
}

/// Turns entries into frames.
#[derive(Clone, Debug)]
pub struct Encoder {
    progress: Progress,
}

impl Encoder {
    /// Begins a checkpoint; also returns the header's frame.
    ///
    /// # Errors
    /// [`FormatError::Refused`].
    pub fn begin(header: &Header) -> Result<(Encoder, Bytes), FormatError> {
        let frame = header.encode()?;
        Ok((Encoder { progress: Progress::begin(&frame) }, frame))
    }

    /// Continues a checkpoint behind its last complete chunk. The entries that follow must come
    /// from the very state that the header names.
    #[must_use]
    pub fn resume(progress: Progress) -> Encoder {
        Encoder { progress }
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The next chunk's frame.
    ///
    /// # Errors
    /// [`FormatError::Refused`] for no entries, keys that do not ascend, or more bytes than one
    /// chunk may hold.
    pub fn chunk(&mut self, entries: &[Entry]) -> Result<Bytes, FormatError> {
        let last = entries.last().ok_or(FormatError::Refused("an empty chunk"))?;
        let mut size = 0usize;
        let mut before = self.progress.last_key.as_ref();
        for entry in entries {
            if entry.key.len() > MAX_KEY || entry.value.len() > MAX_VALUE {
                return Err(FormatError::Refused("an oversized key or value"));
            }
            if before.is_some_and(|before| *before >= entry.key) {
                return Err(FormatError::Refused("keys that do not ascend"));
            }
            before = Some(&entry.key);
            size += ENTRY_HEAD + entry.key.len() + entry.value.len();
        }
        if size > MAX_PAYLOAD {
            return Err(FormatError::Refused("more bytes than one chunk may hold"));
        }
        let mut out = Vec::with_capacity(CHUNK_HEAD + size);
        out.extend_from_slice(&CHUNK);
        out.extend_from_slice(&(size as u32).to_le_bytes());
        out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for entry in entries {
            out.extend_from_slice(&(entry.key.len() as u32).to_le_bytes());
            out.extend_from_slice(&(entry.value.len() as u32).to_le_bytes());
            out.extend_from_slice(&entry.revision.to_le_bytes());
            out.extend_from_slice(&entry.expiry.to_le_bytes());
            out.extend_from_slice(&entry.key);
            out.extend_from_slice(&entry.value);
        }
        let crc = self.progress.crc(&[&out[..12], &out[CHUNK_HEAD..]]);
        out[12..CHUNK_HEAD].copy_from_slice(&crc.to_le_bytes());
        self.progress.advance(&out, entries.len() as u64, last.key.clone());
        Ok(Bytes::from(out))
    }

    /// The trailer's frame, the last one.
    #[must_use]
    pub fn finish(self) -> Bytes {
        let Progress { chunks, entries, bytes, digest, .. } = self.progress;
        let mut out = Vec::with_capacity(TRAILER);
        out.extend_from_slice(&TAIL);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&chunks.to_le_bytes());
        out.extend_from_slice(&entries.to_le_bytes());
        out.extend_from_slice(&bytes.to_le_bytes());
        out.extend_from_slice(&digest.to_le_bytes());
        out.extend_from_slice(&self.progress.crc(&[&out]).to_le_bytes());
        Bytes::from(out)
    }
}

/// What a frame behind the header turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A chunk of entries.
    Chunk(Vec<Entry>),
    /// The trailer: the checkpoint is complete and its entries are the promised state.
    End,
}

/// Turns frames back into entries and checks all of it on the way.
#[derive(Clone, Debug)]
pub struct Decoder {
    header: Header,
    progress: Progress,
    hash: StateHash,
    ended: bool,
}

impl Decoder {
    /// Begins with the header's frame.
    ///
    /// # Errors
    /// As [`Header::decode`].
    pub fn begin(frame: &Bytes) -> Result<Decoder, FormatError> {
        let header = Header::decode(frame)?;
        Ok(Decoder { header, progress: Progress::begin(frame), hash: StateHash::default(), ended: false })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether the trailer was seen.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Takes the next frame. A frame that fails changes nothing: the right one may follow.
    ///
    /// # Errors
    /// [`FormatError::Truncated`], [`FormatError::Damaged`], and at the trailer
    /// [`FormatError::NotThatState`].
    pub fn frame(&mut self, frame: &Bytes) -> Result<Frame, FormatError> {
        if self.ended {
            return Err(self.damaged("bytes behind the trailer"));
        }
        match frame.first_chunk::<4>() {
            Some(&CHUNK) => self.chunk(frame).map(Frame::Chunk),
            Some(&TAIL) => self.trailer(frame).map(|()| Frame::End),
            Some(_) => Err(self.damaged("neither chunk nor trailer")),
            None => Err(self.truncated()),
        }
    }

    fn chunk(&mut self, frame: &Bytes) -> Result<Vec<Entry>, FormatError> {
        let head = frame.first_chunk::<CHUNK_HEAD>().ok_or(self.truncated())?;
        let size = self.payload(head)?;
        let payload = frame.slice(CHUNK_HEAD..);
        match payload.len().cmp(&size) {
            std::cmp::Ordering::Less => return Err(self.truncated()),
            std::cmp::Ordering::Greater => return Err(self.damaged("bytes behind the chunk")),
            std::cmp::Ordering::Equal => {}
        }
        let mut raw = &head[8..];
        let (count, crc) = (raw.get_u32_le() as usize, raw.get_u32_le());
        if self.progress.crc(&[&head[..12], &payload]) != crc {
            return Err(self.damaged("the chunk's crc"));
        }
        let entries = self.entries(payload, count)?;
        let last = entries.last().ok_or(self.damaged("an empty chunk"))?;
        entries.iter().for_each(|entry| entry.add_to(&mut self.hash));
        self.progress.advance(frame, count as u64, Bytes::copy_from_slice(&last.key));
        Ok(entries)
    }

    fn entries(&self, mut payload: Bytes, count: usize) -> Result<Vec<Entry>, FormatError> {
        if count > payload.len() / ENTRY_HEAD {
            return Err(self.damaged("more entries than fit the chunk"));
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        for _ in 0..count {
            let short = |_| self.damaged("an entry that is cut off");
            let key = payload.try_get_u32_le().map_err(short)? as usize;
            let value = payload.try_get_u32_le().map_err(short)? as usize;
            let revision = payload.try_get_u64_le().map_err(short)?;
            let expiry = payload.try_get_u64_le().map_err(short)?;
            if key > MAX_KEY || value > MAX_VALUE || key + value > payload.len() {
                return Err(self.damaged("an oversized key or value"));
            }
            let (key, value) = (payload.split_to(key), payload.split_to(value));
            let before = entries.last().map(|entry| &entry.key).or(self.progress.last_key.as_ref());
            if before.is_some_and(|before| *before >= key) {
                return Err(self.damaged("keys that do not ascend"));
            }
            entries.push(Entry { key, value, revision, expiry });
        }
        if !payload.is_empty() {
            return Err(self.damaged("bytes behind the last entry"));
        }
        Ok(entries)
    }

    fn trailer(&mut self, frame: &Bytes) -> Result<(), FormatError> {
        if frame.len() < TRAILER {
            return Err(self.truncated());
        }
        if *frame != (Encoder { progress: self.progress.clone() }).finish() {
            return Err(self.damaged("the trailer does not belong to what is before it"));
        }
        let (promised, found) = (self.header.position.state_hash, StateDigest::from(self.hash));
        if promised != found {
            return Err(FormatError::NotThatState { promised, found });
        }
        self.ended = true;
        Ok(())
    }

    /// The payload's size from a chunk's first bytes, bounded before anything is allocated.
    pub(super) fn payload(&self, head: &[u8; CHUNK_HEAD]) -> Result<usize, FormatError> {
        let size = (&head[4..]).get_u32_le() as usize;
        if size > MAX_PAYLOAD {
            return Err(self.damaged("a chunk over the limit"));
        }
        Ok(size)
    }

    pub(super) fn is_trailer(head: &[u8; CHUNK_HEAD]) -> bool {
        head.starts_with(&TAIL)
    }

    pub(super) fn truncated(&self) -> FormatError {
        FormatError::Truncated { offset: self.progress.bytes }
    }

    pub(super) fn damaged(&self, what: &'static str) -> FormatError {
        FormatError::Damaged { offset: self.progress.bytes, what }
    }
}
