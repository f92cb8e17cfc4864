//! The checkpoint format: its bytes, and that nothing wrong with them goes unnoticed.

mod scratch;

use std::fs;
use std::io::Cursor;

use bytes::Bytes;
use checkpoint::format::{Decoder, Encoder, FormatError, Frame, Header, MAX_PAYLOAD, Reader, StagedFile};
use checkpoint::format::{dump, verify};
use checkpoint::store::Position;
use checkpoint::{Chain, Entry, StateDigest};
use groups::ids::{ClusterId, GroupId, InstanceId};
use groups::kv::StateHash;
use proptest::prelude::*;

use scratch::{Scratch, entry};

fn header(entries: &[Entry]) -> Header {
    let mut hash = StateHash::default();
    entries.iter().for_each(|entry| entry.add_to(&mut hash));
    Header {
        cluster: ClusterId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        group: GroupId(0x2122_2324),
        position: Position {
            applied: InstanceId(0x31),
            chain: Chain(0x41),
            state_hash: StateDigest::from(hash),
            revision: 0x51,
            epoch: 0x61,
            membership: Bytes::from_static(b"mem"),
        },
        sessions: Bytes::from_static(b"sess"),
    }
}

fn frames(header: &Header, chunks: &[&[Entry]]) -> Vec<Bytes> {
    let (mut encoder, head) = Encoder::begin(header).unwrap();
    let mut frames = vec![head];
    frames.extend(chunks.iter().map(|chunk| encoder.chunk(chunk).unwrap()));
    frames.push(encoder.finish());
    frames
}

fn small() -> (Vec<Entry>, Vec<Bytes>) {
    let entries = vec![entry(b"", b"empty", 1), entry(b"a", b"", 2), entry(b"a\xff", b"v", 3)];
    let frames = frames(&header(&entries), &[&entries[..2], &entries[2..]]);
    (entries, frames)
}

fn read(bytes: &[u8]) -> Result<Vec<Entry>, FormatError> {
    let mut reader = Reader::open(Cursor::new(bytes))?;
    let mut entries = Vec::new();
    while let Some(chunk) = reader.chunk()? {
        entries.extend(chunk);
    }
    Ok(entries)
}

#[test]
fn the_bytes_are_these() {
    let (_, frames) = small();
    let text: Vec<String> = frames.iter().map(|frame| hex(frame)).collect();
    let golden = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/checkpoint-1.hex"));
    // A change here breaks every checkpoint on every disk: it takes a new version.
    let golden = golden.unwrap();
    assert_eq!(golden.lines().collect::<Vec<_>>(), text);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (entries, frames) = small();
    let good = frames.concat();
    assert_eq!(read(&good).unwrap(), entries);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&bad).is_err(), "bit {bit}");
    }
}

#[test]
fn every_cut_is_noticed_and_named() {
    let (_, frames) = small();
    let good = frames.concat();
    let mut start = 0;
    for frame in &frames {
        for cut in start..start + frame.len() {
            match read(&good[..cut]) {
                Err(FormatError::Truncated { offset }) => assert_eq!(offset, start as u64, "cut at {cut}"),
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
        start += frame.len();
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(read(&longer), Err(FormatError::Damaged { .. })));
}

#[test]
fn frames_fit_one_place_in_one_checkpoint() {
    let (entries, frames) = small();
    let mut other_header = header(&entries);
    other_header.position.epoch += 1;
    let other = self::frames(&other_header, &[&entries[..2], &entries[2..]]);
    for wrong in [
        vec![&frames[0], &frames[2], &frames[3]],
        vec![&frames[0], &frames[1], &frames[3]],
        vec![&frames[0], &frames[3]],
        vec![&frames[0], &frames[2], &frames[1], &frames[3]],
        vec![&frames[0], &frames[1], &frames[1], &frames[2], &frames[3]],
        vec![&frames[0], &other[1], &frames[2], &frames[3]],
        vec![&frames[0], &frames[1], &frames[2], &other[3]],
        vec![&other[0], &frames[1], &frames[2], &frames[3]],
        vec![&frames[0], &frames[1], &frames[2], &frames[3], &frames[3]],
        vec![&frames[1], &frames[2], &frames[3]],
    ] {
        let bytes = wrong.into_iter().flatten().copied().collect::<Vec<u8>>();
        assert!(matches!(read(&bytes), Err(FormatError::Damaged { .. })));
    }
}

#[test]
fn a_promise_that_does_not_hold_is_noticed() {
    let (entries, _) = small();
    let frames = frames(&header(&entries), &[&entries[..2]]);
    assert!(matches!(read(&frames.concat()), Err(FormatError::NotThatState { .. })));
}

#[test]
fn a_bad_frame_leaves_the_decoder_where_it_was() {
    let (entries, frames) = small();
    let mut decoder = Decoder::begin(&frames[0]).unwrap();
    for frame in &frames[1..] {
        let before = decoder.progress().clone();
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decoder.frame(&Bytes::from(bad)).is_err());
        }
        let longer = Bytes::from([frame, &b"x"[..]].concat());
        assert!(decoder.frame(&longer).is_err());
        assert_eq!(*decoder.progress(), before);
        match decoder.frame(frame).unwrap() {
            Frame::Chunk(chunk) => assert!(entries.ends_with(&chunk) || entries.starts_with(&chunk)),
            Frame::End => assert!(decoder.ended()),
        }
    }
    assert!(decoder.ended());
}

#[test]
fn what_must_not_be_written_is_refused() {
    let (entries, _) = small();
    let mut long = header(&entries);
    long.position.membership = Bytes::from(vec![0; checkpoint::store::MAX_MEMBERSHIP + 1]);
    assert!(matches!(long.encode(), Err(FormatError::Refused(_))));
    let (mut encoder, _) = Encoder::begin(&header(&entries)).unwrap();
    let huge = vec![entry(b"h", &vec![0; checkpoint::entry::MAX_VALUE], 1); 2];
    let twice = [entries[0].clone(), entries[0].clone()];
    for wrong in [&[][..], &[entries[1].clone(), entries[0].clone()], &twice, &huge] {
        assert!(matches!(encoder.chunk(wrong), Err(FormatError::Refused(_))));
    }
    encoder.chunk(&entries[1..2]).unwrap();
    assert!(matches!(encoder.chunk(&entries[..1]), Err(FormatError::Refused(_))));
}

/// A hostile length costs what is really there, not what it claims.
#[test]
fn lengths_are_bounded_before_anything_is_allocated() {
    let (_, frames) = small();
    for claim in [MAX_PAYLOAD as u32, MAX_PAYLOAD as u32 + 1, u32::MAX] {
        let mut bytes = [&frames[0][..], b"CHNK"].concat();
        bytes.extend_from_slice(&claim.to_le_bytes());
        bytes.extend_from_slice(&[0xff; 8]);
        let found = read(&bytes).unwrap_err();
        if claim as usize > MAX_PAYLOAD {
            assert!(matches!(found, FormatError::Damaged { .. }));
        } else {
            assert!(matches!(found, FormatError::Truncated { .. }));
        }
    }
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let (_, frames) = small();
    let mut newer = frames.concat();
    newer[8] = 2;
    let crc = crc32fast::hash(&newer[..104]);
    newer[104..108].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(read(&newer), Err(FormatError::NewerFormat { found: 2, known: 1 })));
}

/// Whatever was lost or garbled when the writer died, the file continues behind its last
/// complete chunk, and ends up byte for byte as if nothing had happened.
#[test]
fn a_staged_file_continues_from_every_byte() {
    let scratch = Scratch::new("resume");
    let (path, tmp) = (scratch.path("c"), scratch.path("c.tmp"));
    let (_, frames) = small();
    let good = frames.concat();
    let mut starts = vec![0];
    frames.iter().for_each(|frame| starts.push(starts.last().unwrap() + frame.len()));
    for cut in 0..=good.len() {
        for garbage in [&b""[..], b"garbage that was never written"] {
            fs::write(&tmp, [&good[..cut], garbage].concat()).unwrap();
            let Some(mut file) = StagedFile::resume(&path).unwrap() else {
                assert!(cut < frames[0].len());
                continue;
            };
            let had = starts[1..4].iter().rev().find(|&&end| end <= cut).unwrap();
            assert_eq!(file.progress().bytes, *had as u64);
            let next = starts.iter().position(|start| start == had).unwrap();
            for frame in &frames[next..] {
                file.append_frame(frame).unwrap();
            }
            file.commit().unwrap();
            assert_eq!(fs::read(&path).unwrap(), good);
            assert!(!tmp.exists());
        }
    }
}

#[test]
fn an_incomplete_file_never_gets_its_name() {
    let scratch = Scratch::new("incomplete");
    let path = scratch.path("c");
    let (entries, frames) = small();
    assert!(StagedFile::resume(&path).unwrap().is_none());
    let mut file = StagedFile::create(&path, &frames[0]).unwrap();
    file.append(&entries[..2]).unwrap();
    file.sync().unwrap();
    assert!(matches!(file.commit(), Err(FormatError::NotThatState { .. })));
    assert!(!path.exists());
    let mut file = StagedFile::resume(&path).unwrap().unwrap();
    file.append(&entries[2..]).unwrap();
    let summary = file.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), frames.concat());
    assert_eq!(verify(&path).unwrap(), summary);

    let mut damaged = frames.concat();
    let last = damaged.len() - 60;
    damaged[last] ^= 1;
    fs::write(&path, damaged).unwrap();
    let mut printed = Vec::new();
    assert!(matches!(dump(&path, true, &mut printed), Err(FormatError::Damaged { .. })));
    let printed = String::from_utf8(printed).unwrap();
    assert!(printed.contains("group 555885348 instance 49") && printed.contains("2 entries"), "{printed}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        entries in proptest::collection::btree_map(
            proptest::collection::vec(any::<u8>(), 0..9),
            (proptest::collection::vec(any::<u8>(), 0..50), any::<u64>(), any::<u64>()),
            0..40,
        ),
        size in 1usize..10,
        resume_at in 0usize..6,
    ) {
        let entries: Vec<Entry> = entries
            .into_iter()
            .map(|(key, (value, revision, expiry))| {
                Entry { key: key.into(), value: value.into(), revision, expiry }
            })
            .collect();
        let header = header(&entries);
        let chunks: Vec<&[Entry]> = entries.chunks(size).collect();
        let whole = frames(&header, &chunks);
        prop_assert_eq!(read(&whole.concat()).unwrap(), &entries[..]);

        // Another encoder continues from the progress alone.
        let resume_at = resume_at.min(chunks.len());
        let (mut first, head) = Encoder::begin(&header).unwrap();
        let mut resumed = vec![head];
        resumed.extend(chunks[..resume_at].iter().map(|chunk| first.chunk(chunk).unwrap()));
        let mut second = Encoder::resume(first.progress().clone());
        resumed.extend(chunks[resume_at..].iter().map(|chunk| second.chunk(chunk).unwrap()));
        resumed.push(second.finish());
        prop_assert_eq!(resumed, whole);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(noise in proptest::collection::vec(any::<u8>(), 0..300), keep in 0usize..400) {
        let (_, frames) = small();
        let good = frames.concat();
        let bytes = [&good[..keep.min(good.len())], &noise[..]].concat();
        let _ = read(&bytes);
        let mut decoder = Decoder::begin(&frames[0]).unwrap();
        let _ = decoder.frame(&Bytes::from(noise));
    }
}
