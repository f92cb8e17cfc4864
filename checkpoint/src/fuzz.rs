//! The entry points for the fuzz targets: pure functions from bytes to nothing, which panic if a
//! promise of the checkpoint format or of the transfer's frames is broken.

use std::io::{self, Read};

use bytes::Bytes;
use groups::fuzz::Input;
use groups::ids::{Boot, ClusterId, GroupId, InstanceId};
use groups::kv::StateHash;

use crate::format::{Decoder, Encoder, FormatError, Frame, Header, Reader};
use crate::mirror::wire::{self, Attempt, Chunk, Fetch, Has, Head, Nothing, Until, Why};
use crate::store::{Position, PositionDigest};
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

/// Reads any bytes as a frame of a checkpoint transfer, or a good frame that was changed where
/// the input says so.
///
/// # Panics
/// If a frame that was taken is written as anything else, or has keys that do not ascend.
pub fn transfer(data: &[u8]) {
    let mut input = Input(data);
    let (kind, body) = if input.u8().is_multiple_of(4) {
        (wire::FETCH + input.u8() % 5, Bytes::copy_from_slice(input.rest()))
    } else {
        let (kind, body) = transfer_frame(&mut input).encode();
        let sent = wire::Frame::decode(kind, &body).expect("what was written can be read");
        assert_eq!(sent.encode(), (kind, body.clone()));
        let mut body = body.to_vec();
        for _ in 0..4 {
            change_field(&mut body, &mut input);
        }
        (kind, Bytes::from(body))
    };
    match wire::Frame::decode(kind, &body) {
        Ok(frame) => {
            assert_eq!(frame.encode(), (kind, body), "two ways to write a frame");
            if let wire::Frame::Chunk(chunk) = &frame {
                assert!(chunk.entries.is_sorted_by(|a, b| a.key < b.key), "keys that do not ascend");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn transfer_frame(input: &mut Input) -> wire::Frame {
    let attempt = Attempt { boot: Boot(input.number()), count: input.number() };
    let digest = PositionDigest(u128::from(input.number()));
    let (cluster, sequence) = (ClusterId(u128::from(input.number())), input.number() as u32);
    match input.u8() % 4 {
        0 => {
            let until = match input.u8() % 3 {
                0 => Until::Sessions(input.number() as u32),
                1 => Until::Key(None),
                _ => Until::Key(Some(Bytes::copy_from_slice(input.bytes(9)))),
            };
            let has = (!input.u8().is_multiple_of(4)).then_some(Has { digest, until });
            let (above, credit) = (InstanceId(input.number()), input.number() as u32);
            let doubt = input.u8().is_multiple_of(2);
            wire::Frame::Fetch(Fetch { attempt, cluster, above, next: sequence, credit, doubt, has })
        }
        1 => {
            let (header, _) = build(input);
            let length = usize::from(input.u8() % 32);
            let piece = Bytes::from(vec![7; length]);
            let offset = u32::from(length > 0) * u32::from(input.u8());
            let sessions_bytes = offset + length as u32 * 2;
            let position = header.position;
            let head = Head { attempt, cluster, sequence, digest, position, sessions_bytes, offset, piece };
            wire::Frame::Head(head)
        }
        2 => {
            let (_, chunks) = build(input);
            let entries: Vec<Entry> = chunks.concat();
            let last = entries.is_empty() || input.u8().is_multiple_of(2);
            let (total_keys, total_bytes) = (input.number(), input.number());
            let chunk = Chunk { attempt, sequence, digest, total_keys, total_bytes, last, entries };
            wire::Frame::Chunk(chunk)
        }
        _ => {
            let all = [Why::Behind, Why::Damaged, Why::Busy, Why::Foreign, Why::Soon];
            let (why, applied) = (all[input.below(all.len())], InstanceId(input.number()));
            wire::Frame::Nothing(Nothing { attempt, why, applied })
        }
    }
}

/// As [`change`], with numbers that hurt in any field of the head.
fn change_field(bytes: &mut Vec<u8>, input: &mut Input) {
    if input.u8().is_multiple_of(2) {
        return change(bytes, input);
    }
    let at = input.below(160) & !3;
    let number = input.number().to_le_bytes();
    if let Some(field) = bytes.get_mut(at..at + 4) {
        field.copy_from_slice(&number[..4]);
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
