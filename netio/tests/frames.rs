//! The frame format: golden bytes, and a decoder that takes any split of a stream, no damaged
//! bit and no garbage.

use bytes::Bytes;
use groups::ids::GroupId;
use netio::frame::{Decoder, Frame, FrameBatch, FrameError, HEADER, NO_GROUP, OWN_SEGMENT, RESERVED_KIND};
use proptest::prelude::*;

const LIMIT: usize = 64 << 10;
/// What a decoder may hold beside a frame: its read buffer.
const READ_BUFFER: usize = 128 << 10;

fn encode(frames: &[(u32, u8, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut batch = FrameBatch::new();
    for (group, kind, head, payload) in frames {
        batch.push(GroupId(*group), *kind, head, &Bytes::from(payload.clone()));
    }
    let bytes = batch.bytes();
    let all: Vec<u8> = batch.into_segments().flatten().collect();
    assert_eq!(all.len(), bytes);
    all
}

fn expected(frames: &[(u32, u8, Vec<u8>, Vec<u8>)]) -> Vec<Frame> {
    let frame = |(group, kind, head, payload): &(u32, u8, Vec<u8>, Vec<u8>)| Frame {
        group: GroupId(*group),
        kind: *kind,
        body: [&head[..], &payload[..]].concat().into(),
    };
    frames.iter().map(frame).collect()
}

/// Feeds `bytes` in reads of at most the sizes given (repeated), as a socket would.
fn decode(bytes: &[u8], sizes: &[usize]) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut decoder = Decoder::new(LIMIT);
    let mut frames = Vec::new();
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let room = decoder.room();
        assert!(!room.is_empty());
        let n = rest.len().min(room.len()).min(*sizes.next().unwrap());
        room[..n].copy_from_slice(&rest[..n]);
        decoder.advance(n);
        rest = &rest[n..];
        if let Err(error) = decoder.decode(&mut frames) {
            return (frames, Err(error));
        }
        assert!(decoder.allocated() <= READ_BUFFER.max(HEADER + LIMIT) + READ_BUFFER);
    }
    (frames, Ok(()))
}

fn any_frame() -> impl Strategy<Value = (u32, u8, Vec<u8>, Vec<u8>)> {
    let payload = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..200),
        1 => prop::collection::vec(any::<u8>(), OWN_SEGMENT - 2..OWN_SEGMENT + 2),
        1 => prop::collection::vec(any::<u8>(), 30_000..60_000),
    ];
    (any::<u32>(), 0..RESERVED_KIND, prop::collection::vec(any::<u8>(), 0..64), payload)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_split_of_the_stream_gives_the_same_frames(
        frames in prop::collection::vec(any_frame(), 0..12),
        sizes in prop::collection::vec(prop_oneof![1usize..40, 1usize..70_000], 1..8),
    ) {
        let (decoded, result) = decode(&encode(&frames), &sizes);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(decoded, expected(&frames));
    }

    #[test]
    fn garbage_neither_panics_nor_allocates(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        let (frames, _) = decode(&bytes, &[usize::MAX]);
        prop_assert!(frames.is_empty());
    }

    #[test]
    fn a_damaged_header_never_panics(
        frames in prop::collection::vec(any_frame(), 1..4),
        at in 0..HEADER,
        value in any::<u8>(),
    ) {
        let mut bytes = encode(&frames);
        let changed = bytes[at] != value;
        bytes[at] = value;
        let (decoded, _) = decode(&bytes, &[4096]);
        prop_assert!(!changed || decoded.is_empty());
    }
}

#[test]
fn every_single_bit_flip_is_rejected() {
    let frames = vec![
        (7, 1, b"first".to_vec(), vec![]),
        (8, 2, b"second".to_vec(), vec![0xA5; 90]),
        (9, 3, vec![], b"third".to_vec()),
    ];
    let good = encode(&frames);
    let all = expected(&frames);
    // Enough behind it to complete whatever length the flip makes, up to the limit.
    let filler = vec![0u8; LIMIT + HEADER];
    let first = HEADER + 5;
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes.extend_from_slice(&filler);
        let (decoded, result) = decode(&bytes, &[usize::MAX]);
        assert!(result.is_err(), "bit {bit} was not noticed");
        let damaged = if bit / 8 < first { 0 } else { usize::from(bit / 8 >= first + HEADER + 96) + 1 };
        assert_eq!(decoded, all[..damaged], "bit {bit}: what is before the damage arrives, nothing after it");
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_anything_is_allocated() {
    let mut decoder = Decoder::new(LIMIT);
    let room = decoder.room();
    room[..HEADER].copy_from_slice(&[0xFF; HEADER]);
    decoder.advance(HEADER);
    let before = decoder.allocated();
    let result = decoder.decode(&mut Vec::new());
    assert_eq!(result, Err(FrameError::TooLong { length: u32::MAX, limit: LIMIT }));
    assert_eq!(decoder.allocated(), before);
}

#[test]
fn a_large_frame_is_allocated_once_and_let_go() {
    let limit = 8 << 20;
    let body = Bytes::from(vec![3u8; limit]);
    let mut batch = FrameBatch::new();
    batch.push(GroupId(1), 1, &[], &body);
    let bytes: Vec<u8> = batch.into_segments().flatten().collect();
    let mut decoder = Decoder::new(limit);
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let room = decoder.room();
        let n = room.len().min(rest.len()).min(100_000);
        room[..n].copy_from_slice(&rest[..n]);
        decoder.advance(n);
        rest = &rest[n..];
        decoder.decode(&mut frames).unwrap();
        assert!(decoder.allocated() <= limit + HEADER + READ_BUFFER);
    }
    assert_eq!(frames, [Frame { group: GroupId(1), kind: 1, body }]);
    assert_eq!(decoder.allocated(), 0);
}

#[test]
fn a_large_payload_is_not_copied() {
    let payload = Bytes::from(vec![1u8; OWN_SEGMENT]);
    let mut batch = FrameBatch::new();
    batch.push(GroupId(1), 1, b"head", &payload);
    batch.push(GroupId(1), 1, b"tail", &Bytes::new());
    let segments: Vec<Bytes> = batch.into_segments().collect();
    assert_eq!(segments.len(), 3);
    assert_eq!(segments[1].as_ptr(), payload.as_ptr());
}

#[test]
fn many_small_frames_make_few_segments() {
    let mut batch = FrameBatch::new();
    for n in 0..10_000u32 {
        batch.push(GroupId(n), 1, &n.to_le_bytes(), &Bytes::from_static(b"some small payload"));
    }
    assert_eq!(batch.frames(), 10_000);
    assert!(batch.into_segments().count() <= 16);
}

#[test]
fn the_bytes_of_a_frame_stay_what_they_are() {
    let golden = [
        0x05, 0, 0, 0, // length
        0xDD, 0x3B, 0xEC, 0x02, // crc32
        1, 9, 0, 0, // version, kind, reserved
        0x04, 0x03, 0x02, 0x01, // group
        b'h', b'e', b'l', b'l', b'o',
    ];
    assert_eq!(encode(&[(0x0102_0304, 9, b"he".to_vec(), b"llo".to_vec())]), golden);
    let frame = Frame { group: GroupId(0x0102_0304), kind: 9, body: Bytes::from_static(b"hello") };
    assert_eq!(decode(&golden, &[1]), (vec![frame], Ok(())));
}

#[test]
fn reserved_bits_and_other_versions_are_refused_early() {
    for (at, value, error) in [
        (8, 2, FrameError::Version(2)),
        (10, 1, FrameError::Reserved),
        (11, 0x80, FrameError::Reserved),
        (9, RESERVED_KIND, FrameError::Reserved),
    ] {
        let mut bytes = encode(&[(1, 1, vec![0; 10], vec![])]);
        bytes[at] = value;
        bytes.truncate(HEADER);
        assert_eq!(decode(&bytes, &[usize::MAX]), (vec![], Err(error)), "byte {at}");
    }
}

#[test]
#[should_panic(expected = "netio's own")]
fn the_reserved_kind_cannot_be_sent() {
    FrameBatch::new().push(NO_GROUP, RESERVED_KIND, &[], &Bytes::new());
}
