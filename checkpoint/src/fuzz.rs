//! The entry point for the fuzz target: a pure function from bytes to nothing, which panics if a
//! promise of the checkpoint format is broken.

use std::io::{self, Read};

use bytes::Bytes;
use groups::fuzz::Input;
use groups::ids::{ClusterId, GroupId, InstanceId};
use groups::kv::StateHash;

use crate::format::{Decoder, Encoder, FormatError, Frame, Header, Reader};
use crate::store::Position;
use crate::{Chain, Entry, StateDigest};

/// Reads any bytes as a checkpoint, or a good checkpoint with one frame forged: changed where the
/// input says so, and its checksums written anew.
///
/// # Panics
/// If a reading depends on how the bytes were cut into reads, a frame that was refused changes
/// anything, or a frame that was taken is written as anything else.
pub fn checkpoint(data: &[u8]) {
    let mut input = Input(data);
    if input.u8().is_multiple_of(4) {
        let piece = usize::from(input.u8()) + 1;
        let bytes = input.rest();
        let whole = read(bytes, bytes.len().max(1));
        let pieces = read(bytes, piece);
        assert_eq!(whole.0, pieces.0, "a checkpoint depends on how it was read");
        assert_eq!(whole.1.map(|error| error.to_string()), pieces.1.map(|error| error.to_string()));
    } else {
        forged(&mut input);
    }
}

/// All entries up to the first error, which is none for a whole checkpoint.
fn read(bytes: &[u8], piece: usize) -> (Vec<Entry>, Option<FormatError>) {
    let mut entries = Vec::new();
    let mut reader = match Reader::open(Pieces { rest: bytes, piece }) {
        Ok(reader) => reader,
        Err(error) => return (entries, Some(error)),
    };
    loop {
        match reader.chunk() {
            Ok(Some(chunk)) => entries.extend(chunk),
            Ok(None) => break,
            Err(error) => return (entries, Some(error)),
        }
    }
    let mut hash = StateHash::default();
    entries.iter().for_each(|entry| entry.add_to(&mut hash));
    assert_eq!(reader.header().position.state_hash, StateDigest::from(hash), "not the promised state");
    assert!(entries.is_sorted_by(|a, b| a.key < b.key), "keys that do not ascend");
    assert_eq!(reader.progress().entries, entries.len() as u64);
    (entries, None)
}

/// Gives at most so many bytes per call.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = self.piece.min(into.len());
        self.rest.read(&mut into[..most])
    }
}

fn forged(input: &mut Input) {
    let (header, chunks) = build(input);
    let (mut encoder, first) = Encoder::begin(&header).expect("a small header");
    let mut frames = vec![first];
    frames.extend(chunks.iter().map(|chunk| encoder.chunk(chunk).expect("ascending keys")));
    frames.push(encoder.finish());

    let target = input.below(frames.len());
    let mut forged = frames[target].to_vec();
    for _ in 0..4 {
        change(&mut forged, input);
    }
    if target == 0 {
        return forged_header(&forged, input);
    }
    let mut decoder = Decoder::begin(&frames[0]).expect("a good header");
    for frame in &frames[1..target] {
        decoder.frame(frame).expect("a good frame");
    }
    if !input.u8().is_multiple_of(4) {
        stamp(&mut forged, decoder.progress().digest);
    }
    let before = decoder.progress().clone();
    let forged = Bytes::from(forged);
    match decoder.frame(&forged) {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(*decoder.progress(), before, "a frame was refused and changed something: {error}");
            for frame in &frames[target..] {
                decoder.frame(frame).expect("the right frame may follow one that was refused");
            }
            assert!(decoder.ended());
        }
        Ok(Frame::End) => assert_eq!(forged, frames[target], "two trailers for one checkpoint"),
        Ok(Frame::Chunk(entries)) => {
            let mut encoder = Encoder::resume(before);
            assert_eq!(encoder.chunk(&entries).expect("what was read can be written"), forged);
            assert_eq!(encoder.progress(), decoder.progress());
        }
    }
}

/// A header and a few chunks with the hash that the header promises.
fn build(input: &mut Input) -> (Header, Vec<Vec<Entry>>) {
    let mut hash = StateHash::default();
    let mut key = Vec::new();
    let mut chunks = Vec::new();
    for _ in 0..input.u8() % 4 {
        let mut chunk = Vec::new();
        for _ in 0..=input.u8() % 4 {
            // Longer than the one before it and beginning alike: it ascends.
            key.push(input.u8());
            let length = usize::from(input.u8() % 32);
            let value = Bytes::copy_from_slice(input.bytes(length));
            let entry = Entry {
                key: Bytes::copy_from_slice(&key),
                value,
                revision: input.number(),
                expiry: input.number(),
            };
            entry.add_to(&mut hash);
            chunk.push(entry);
        }
        chunks.push(chunk);
    }
    let position = Position {
        applied: InstanceId(input.number()),
        chain: Chain(input.number()),
        state_hash: StateDigest::from(hash),
        revision: input.number(),
        epoch: input.number(),
        membership: Bytes::from_static(b"members"),
    };
    let sessions = Bytes::from_static(b"sessions");
    (Header { cluster: ClusterId(7), group: GroupId(3), position, sessions }, chunks)
}

fn change(bytes: &mut Vec<u8>, input: &mut Input) {
    // The lengths lie in front.
    let at = if input.u8().is_multiple_of(2) { input.below(16) } else { input.below(bytes.len()) };
    match input.u8() % 6 {
        0 => bytes.truncate(at),
        1 => {
            let more = usize::from(input.u8());
            bytes.extend_from_slice(input.bytes(more));
        }
        2 => {
            let number = input.number().to_le_bytes();
            if let Some(field) = bytes.get_mut(at & !3..(at & !3) + 4) {
                field.copy_from_slice(&number[..4]);
            }
        }
        3 | 4 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = input.u8();
            }
        }
        _ => {}
    }
}

/// Writes the checksum of a chunk or trailer, as `format/mod.rs` draws it.
fn stamp(frame: &mut [u8], digest: u128) {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&digest.to_le_bytes());
    let field = if frame.starts_with(b"TAIL") {
        let Some(end) = frame.len().checked_sub(4) else { return };
        crc.update(&frame[..end]);
        end
    } else if frame.len() >= 16 {
        crc.update(&frame[..12]);
        crc.update(&frame[16..]);
        12
    } else {
        return;
    };
    frame[field..field + 4].copy_from_slice(&crc.finalize().to_le_bytes());
}

fn forged_header(forged: &[u8], input: &mut Input) {
    let mut forged = forged.to_vec();
    if !input.u8().is_multiple_of(4) {
        if let Some(crc) = forged.get(..104).map(crc32fast::hash) {
            forged[104..].iter_mut().zip(crc.to_le_bytes()).for_each(|(byte, crc)| *byte = crc);
        }
        if let Some((body, crc)) = forged.split_last_chunk_mut::<4>() {
            *crc = crc32fast::hash(body).to_le_bytes();
        }
    }
    let forged = Bytes::from(forged);
    match Header::decode(&forged) {
        Ok(header) => assert_eq!(header.encode().expect("what was read can be written"), forged),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
