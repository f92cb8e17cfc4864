//! Entry points for the fuzz targets: pure functions from bytes to nothing, which panic if a
//! promise of this crate is broken.

use groups::fuzz::Input;
use groups::ids::{Boot, ClusterId, NodeId, StorageId};

use crate::config::Identity;
use crate::frame::{Decoder, Frame, FrameBatch, FrameError, HEADER, RESERVED_KIND};
use crate::handshake::{self, Hello, MAX_MESSAGE, Malformed, Message, Part, Refusal};

/// Above one read buffer, so that a large frame gets one of its own.
const LIMIT: usize = 256 << 10;

/// The most that a decoder may hold with that limit: the old buffer and the new one.
const MOST: usize = 2 * (LIMIT + HEADER);

/// Reads a stream of frames twice, whole and in pieces, and writes it again.
///
/// # Panics
/// If the two readings differ, more is held than the limit allows, or a frame is written as
/// anything else than it was read from.
pub fn frame(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.u8();
    let mut stream = input.rest().to_vec();
    if mode.is_multiple_of(2) {
        seal_frames(&mut stream);
    }
    let whole = frames(&stream, stream.len().max(1));
    assert_eq!(whole, frames(&stream, usize::from(mode / 2 % 64) + 1), "frames depend on how they were read");

    let (frames_found, _) = whole;
    let bodies: usize = frames_found.iter().map(|frame| HEADER + frame.body.len()).sum();
    assert!(bodies <= stream.len(), "frames of {bodies} bytes from {}", stream.len());
    let mut rest = &stream[..];
    for frame in &frames_found {
        assert_ne!(frame.kind, RESERVED_KIND, "netio's own frame was delivered");
        // Keep-alives between frames were not delivered.
        while rest[9] == RESERVED_KIND {
            rest = &rest[HEADER..];
        }
        let mut batch = FrameBatch::new();
        batch.push(frame.group, frame.kind, &[], &frame.body);
        let written: Vec<u8> = batch.into_segments().flatten().collect();
        assert!(rest.starts_with(&written), "{frame:?} has other bytes");
        rest = &rest[written.len()..];
    }
}

/// Gives every frame of the stream a length that fits and the right checksum.
fn seal_frames(stream: &mut [u8]) {
    let mut rest = stream;
    while rest.len() >= HEADER {
        let room = rest.len() - HEADER;
        let length = usize::from(rest[0]).min(room);
        let (frame, behind) = rest.split_at_mut(HEADER + length);
        frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&frame[..4]);
        crc.update(&frame[8..]);
        frame[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
        rest = behind;
    }
}

fn frames(stream: &[u8], piece: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::new(LIMIT);
    let mut frames = Vec::new();
    for mut piece in stream.chunks(piece) {
        while !piece.is_empty() {
            let room = decoder.room();
            assert!(!room.is_empty(), "no room to read to");
            let n = piece.len().min(room.len());
            room[..n].copy_from_slice(&piece[..n]);
            decoder.advance(n);
            piece = &piece[n..];
            assert!(decoder.allocated() <= MOST, "the decoder holds {} bytes", decoder.allocated());
            if let Err(error) = decoder.decode(&mut frames) {
                return (frames, Some(error));
            }
        }
    }
    (frames, None)
}

/// Reads the beginning of a connection, writes it again, and judges who it is.
///
/// # Panics
/// If a part of a message is taken for one, a message changes on its way, or a judgement
/// contradicts itself.
pub fn handshake(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.u8();
    let bytes = if mode.is_multiple_of(2) { sealed(&mut input) } else { input.rest().to_vec() };
    match Message::decode(&bytes) {
        Ok(Some((message, end))) => {
            assert!(end <= bytes.len() && end <= MAX_MESSAGE);
            for cut in (0..end.min(24)).chain([end - 1]) {
                assert_eq!(Message::decode(&bytes[..cut]), Ok(None), "a message of {end} bytes cut to {cut}");
            }
            written_again(&message);
            if let Message::Hello(hello) = message {
                judged(mode / 2, &hello);
            }
        }
        Ok(None) => assert!(bytes.len() < MAX_MESSAGE, "{} bytes are no message yet", bytes.len()),
        Err(Malformed::Magic) => assert!(bytes.iter().zip(b"pelago>n").any(|(a, b)| a != b)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// An envelope whose checksum holds around a body of any bytes.
fn sealed(input: &mut Input) -> Vec<u8> {
    let kind = input.u8() % 5;
    let body = input.rest();
    let mut bytes = b"pelago>n".to_vec();
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 0, 1, kind, 0, 0]);
    bytes.extend_from_slice(body);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[8..12]);
    crc.update(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
    bytes
}

fn written_again(message: &Message) {
    let written = message.encode();
    assert!(written.len() <= MAX_MESSAGE, "a message of {} bytes", written.len());
    let (read, end) = Message::decode(&written).expect("what was written").expect("all of it");
    assert_eq!(end, written.len());
    match (&read, message) {
        // Bytes that were no text became longer; a reason is cut to its limit.
        (Message::Refusal(read), Message::Refusal(refusal)) => {
            assert_eq!(read.code, refusal.code);
            assert!(refusal.reason.starts_with(&read.reason));
            assert!(!read.reason.contains(char::is_control), "a reason that moves a terminal's cursor");
        }
        _ => assert_eq!(read, *message, "a message changed on its way"),
    }
    assert_eq!(read.encode(), written);
}

/// A node that has some things in common with the sender of `hello`.
fn judged(common: u8, hello: &Hello) {
    let same = |bit: u8| common & (1 << bit) != 0;
    let me = Identity {
        cluster_name: if same(0) { hello.cluster_name.clone() } else { "local".into() },
        cluster: if same(1) { hello.cluster } else { ClusterId(7) },
        node: if same(2) { hello.expects } else { NodeId(2) },
        storage: if same(3) { hello.storage } else { StorageId(9) },
        boot: Boot(3),
        protocol_min: 2,
        protocol_max: 4,
    };
    let knows = |node: NodeId| !node.0.is_multiple_of(4);
    for part in [Part::Dial, Part::Answer(NodeId(1))] {
        match handshake::judge(&me, knows, hello, part) {
            Ok(version) => {
                assert!((2..=4).contains(&version));
                assert!((hello.protocol_min..=hello.protocol_max).contains(&version));
                assert_eq!(hello.cluster_name, me.cluster_name);
                assert!(knows(hello.node), "an unknown node was let in");
                match part {
                    Part::Dial => assert!(hello.node != me.node && hello.expects == me.node),
                    Part::Answer(expected) => assert_eq!(hello.node, expected),
                }
            }
            Err(Refusal { code, reason }) => {
                assert!(!reason.is_empty() && !reason.contains(char::is_control), "{reason:?}");
                written_again(&Message::Refusal(Refusal { code, reason }));
            }
        }
    }
}
