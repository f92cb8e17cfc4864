//! Entry points for the fuzz targets: pure functions from bytes to nothing, which panic if a
//! promise of this crate is broken. Those of the client protocol and the configuration lie
//! beside what they test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use groups::fuzz::Input;
use groups::ids::{Boot, ClusterId, GroupId, NodeId, StorageId};
use groups::kv::Command;
use groups::peers::{MAX_SHARDS, Peers, Proof};
use groups::time::Time;

use crate::node::birth::{Birth, Word};
use crate::node::layout::Layout;
use crate::node::manifest::{Founders, Manifest, Stage};
use crate::node::roster::{Roster, RosterNode};
use crate::node::trace;
use crate::node::wire;
use crate::protocol::{Args, Request, RequestLimits, RequestParser, fuzz_request};

/// Lines: any bytes without an array among them, and words that were quoted.
///
/// # Panics
/// If a promise of the parser is broken, or words between quotes change on their way.
pub fn line(data: &[u8]) {
    let mut stream = data.to_vec();
    let mut starts = true;
    for byte in stream.iter_mut().skip(1) {
        if starts && *byte == b'*' {
            *byte = b'+';
        }
        starts = *byte == b'\n';
    }
    fuzz_request(&stream);
    quoted(data);
}

/// Words, split where the input has a zero, come out of quotes as they went in.
fn quoted(data: &[u8]) {
    let words: Vec<&[u8]> = data.split(|byte| *byte == 0).take(64).collect();
    let mut buffer = BytesMut::new();
    for word in &words {
        let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        buffer.put_slice(format!("\"{escaped}\" ").as_bytes());
    }
    buffer.put_slice(b"\r\n");
    if buffer.len() > crate::protocol::MAX_LINE {
        return;
    }
    let limits = RequestLimits { max_word: 1 << 16, max_request: 1 << 17, max_words: 1024 };
    let request = RequestParser::new(limits).next(&mut buffer);
    assert_eq!(request, Ok(Some(Request::Command(Args::from_words(words)))), "quotes change words");
}

/// What nodes say to each other beside Paxos: the first byte says what the rest is.
///
/// # Panics
/// If a body that was taken changes on its way, or liveness is upset by a heartbeat.
pub fn wire(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.u8() % 6;
    let body = Bytes::copy_from_slice(input.rest());
    match kind {
        0 => heartbeat(body),
        1 => submissions(&body),
        2 => answers(&body),
        3 => stamped(body),
        4 => traced(&body),
        _ => seen(body),
    }
}

fn heartbeat(body: Bytes) {
    let Some(beat) = wire::decode_heartbeat(body.clone()) else { return };
    let mut written = Vec::new();
    wire::encode_heartbeat(&beat, &mut written);
    assert_eq!(written, body, "a heartbeat has other bytes");

    let now = Time::from_nanos(5_000_000_000);
    let later = now + Duration::from_millis(10);
    let nodes = [NodeId(1), NodeId(2), NodeId(3)];
    let founders = Some((1..=3).map(NodeId).collect());
    let proof = Proof { founders, ..Proof::alone(StorageId(1)) };
    let mut peers = Peers::new(NodeId(1), Boot(4), 1, 2, Duration::from_secs(1), &nodes, proof);
    for from in [1, 2, 2, 9] {
        peers.heard(NodeId(from), &beat, now);
        let echoes = peers.beat(NodeId(2), later).echoes.len();
        assert!(echoes <= MAX_SHARDS as usize, "{echoes} shards are remembered");
        for group in [0, 1, u32::MAX] {
            let reachable = peers.reachable(NodeId(2), GroupId(group), later);
            assert!(!reachable || beat.echo_boot == Boot(4), "reached in another life");
            let _ = peers.alive(NodeId(2), GroupId(group), later);
        }
        peers.changed(later);
    }
}

fn submissions(body: &Bytes) {
    let Some(submissions) = wire::decode_submissions(NodeId(2), Boot(3), body.clone()) else { return };
    let mut written = Vec::new();
    for submission in &submissions {
        wire::put_submission(submission, &mut written);
        let _ = Command::decode(submission.command.clone());
    }
    assert_eq!(written, *body, "submissions have other bytes");
}

fn answers(body: &Bytes) {
    let decode = |body| wire::decode_answers(NodeId(2), Boot(3), GroupId(4), body);
    let Some(answers) = decode(body.clone()) else { return };
    let mut written = Vec::new();
    answers.iter().for_each(|answer| wire::put_answer(answer, &mut written));
    assert!(written.len() <= body.len(), "answers grow on their way");
    assert_eq!(decode(written.into()), Some(answers), "answers change on their way");
}

fn stamped(body: Bytes) {
    let mut rest = body.clone();
    let Some(stamp) = wire::take_stamp(&mut rest) else {
        return assert_eq!(rest, body, "a stamp that is none was taken off");
    };
    let mut written = vec![0; wire::STAMP];
    wire::put_stamp(stamp, &mut written);
    written.extend_from_slice(&rest);
    assert_eq!(written, body, "a stamp has other bytes");
}

fn traced(body: &Bytes) {
    let mut rest = body.clone();
    let Some(name) = trace::take_name(NodeId(2), GroupId(4), &mut rest) else { return };
    let Some(steps) = trace::take_steps(rest) else { return };
    let mut written = Vec::new();
    trace::put_name(name, &mut written);
    trace::put_steps(&steps, &mut written);
    assert_eq!(written, *body, "an account has other bytes");
}

fn seen(body: Bytes) {
    let Some(seen) = trace::take_seen(body.clone()) else { return };
    let mut written = Vec::new();
    trace::put_seen(seen, &mut written);
    assert_eq!(written, body, "what a member has seen has other bytes");
}

/// Any bytes as a word of the birth, then a whole birth that hears words made of the input.
///
/// # Panics
/// If a word changes on its way, a disk votes twice, or a node is born into a cluster that its disk did not found
/// without a majority that tells of it, or in spite of a vote that may still count.
pub fn birth(data: &[u8]) {
    if let Some(word) = Word::decode(Bytes::copy_from_slice(data)) {
        assert_eq!(Word::decode(word.encode().into()), Some(word), "a word changes on its way");
    }
    let mut input = Input(data);
    let me = (NodeId(1), StorageId(1));
    let nodes: Vec<NodeId> = (1..=1 + u32::from(input.u8() % 3)).map(NodeId).collect();
    let own =
        Word { fingerprint: 0, terms: 0, storage: me.1, stage: Stage::Empty, heard: Boot(0), roster: None };
    // Of the three nodes that every word of a born one names.
    let needed = 2;
    let mut told: BTreeMap<NodeId, Word> = BTreeMap::new();
    let mut birth = Birth::new(me.0, "fuzz", nodes.clone(), own);
    while !input.is_empty() {
        let from = NodeId(u32::from(input.u8() % 4));
        let word = word(&mut input);
        let speaks = matches!(word.stage, Stage::Born(..)) || nodes.contains(&from);
        let late = told.get(&from).is_some_and(|before| {
            before.storage == word.storage && before.stage.progress() > word.stage.progress()
        });
        if from != me.0 && speaks && !late {
            told.insert(from, word.clone());
        }
        let before = birth.word().stage.clone();
        let step = if from == me.0 { birth.advance() } else { birth.hear(from, word) };
        match (&before, &step) {
            (Stage::Empty, Some(Stage::Voted(founders))) => assert!(founders.contains(&me)),
            (before, Some(Stage::Born(cluster, founders))) if !founders.contains(&me) => {
                let tells = |word: &&Word| {
                    word.terms == 0 && matches!(&word.stage, Stage::Born(theirs, _) if theirs == cluster)
                };
                let tellers = told.values().filter(tells).count();
                assert!(tellers >= needed, "joins on the word of {tellers}");
                // One of those that this disk has voted with has voted for others.
                let void = |voted: &Founders| {
                    told.iter().any(|(node, word)| match &word.stage {
                        Stage::Born(_, theirs) => {
                            let disk = (*node, word.storage);
                            theirs != voted && theirs.contains(&disk) && voted.contains(&disk)
                        }
                        _ => false,
                    })
                };
                match before {
                    Stage::Voted(voted) => assert!(void(voted), "a vote that may still count was broken"),
                    before => assert_eq!(*before, Stage::Empty),
                }
            }
            (_, Some(Stage::Born(..))) => {}
            (_, None) => {}
            (before, step) => panic!("from {before:?} to {step:?}"),
        }
        assert!(!(matches!(before, Stage::Born(..)) && step.is_some()), "born twice");
        assert_eq!(birth.word().stage, step.unwrap_or(before));
        assert!(!birth.waiting().to_string().is_empty());
    }
}

/// A word of few possible ones, so that some of them agree.
fn word(input: &mut Input) -> Word {
    let mut choice = input.u8();
    let mut pick = |of: u8| {
        let picked = choice % of;
        choice /= of;
        picked
    };
    let fingerprint = u64::from(pick(8) == 7);
    let storage = StorageId(u128::from(pick(3)) + 1);
    let stage = pick(3);
    let founders: Founders = (1..=u32::from(input.u8() % 4))
        .map(|node| (NodeId(node), StorageId(u128::from(input.u8() % 3) + 1)))
        .collect();
    let stage = match stage {
        0 => Stage::Empty,
        1 => Stage::Voted(founders),
        _ => Stage::Born(ClusterId(u128::from(input.u8())), founders),
    };
    let roster = matches!(stage, Stage::Born(..)).then(|| {
        let layout = Layout::new((1..=3).map(NodeId).collect(), 1, 3);
        let node = |&id: &NodeId| RosterNode { peer_addr: format!("n{id}:1"), ..RosterNode::nowhere(id) };
        Arc::new(Roster::birth(&layout, layout.nodes().iter().map(node).collect()))
    });
    Word { fingerprint, terms: fingerprint, storage, stage, heard: Boot(0), roster }
}

/// The manifest of a node: any bytes, or a body of any bytes behind a head and a checksum that
/// hold.
///
/// # Panics
/// If a manifest changes on its way, or a part of one is taken for one.
pub fn manifest(data: &[u8]) {
    let mut input = Input(data);
    let bytes = if input.u8().is_multiple_of(2) {
        let version = u32::from(input.u8() % 4);
        let body = input.rest();
        let mut bytes = b"PELAGOND".to_vec();
        bytes.put_u32_le(version);
        bytes.put_u32_le(body.len() as u32);
        bytes.put_slice(body);
        bytes.put_u32_le(crc32fast::hash(&bytes));
        bytes
    } else {
        input.rest().to_vec()
    };
    match Manifest::from_bytes(&bytes) {
        Ok(manifest) => {
            let written = manifest.to_bytes();
            assert!(written.len() <= bytes.len(), "a manifest grows on its way");
            let again = Manifest::from_bytes(&written).expect("what was written");
            assert_eq!(again, manifest, "a manifest changes on its way");
            assert!(Manifest::from_bytes(&bytes[..bytes.len() - 1]).is_err(), "a part is no manifest");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
