//! The bytes of Paxos messages: a format that nodes of different versions share. Golden bytes,
//! round trips, and bodies that are cut, stretched or made up.

use std::fmt::Write as _;

use bytes::Bytes;
use groups::ids::{Ballot, Boot, InstanceId, Member, NodeId, StorageId};
use groups::kv::{Point, StateHash, Sum};
use groups::paxos::Members;
use groups::paxos::codec::{DecodeError, FIRST_KIND, LAST_KIND, decode, encode};
use groups::paxos::message::{
    Accept, Accepted, Advance, AdvanceReply, Ask, Entry, Learn, Mark, Message, Part, Prepare, Probe,
    ProbeReply, Promise, Reject, Report, Then, Transfer, Values,
};
use groups::peers::Tenure;
use groups::time::Time;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn point(instance: u64, byte: u8, rest: u64) -> Point {
    let sum = Sum { hash: StateHash::from_bytes([byte; 32]), rest };
    Point { instance: InstanceId(instance), sum }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    }
}

/// Kind and whole body, as the receiver gets them.
fn bytes_of(message: &Message) -> (u8, Bytes) {
    let mut body = Vec::new();
    let (kind, payload) = encode(message, &mut body);
    body.extend_from_slice(&payload);
    (kind, Bytes::from(body))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn golden() -> Vec<(Message, u8, &'static str)> {
    let ballot = Ballot { round: 0x0102_0304_0506_0708, node: NodeId(0x0A0B_0C0D) };
    let low = Ballot { round: 1, node: NodeId(2) };
    let i = InstanceId;
    let voter = StorageId(0x0001_0203_0405_0607_0809_0A0B_0C0D_0E0F);
    let mark = Mark { instance: i(3), chain: 0x1122_3344_5566_7788 };
    let entries = || {
        vec![
            Entry { instance: i(5), ballot: low, value: Bytes::from_static(b"ab") },
            Entry { instance: i(6), ballot: low, value: Bytes::new() },
        ]
    };
    vec![
        (
            Message::Probe(Probe {
                attempt: 0x1122_3344_5566_7788,
                chosen: i(9),
                life: Boot(3),
                renounced: low,
            }),
            16,
            "8877665544332211 0900000000000000 0300000000000000 0100000000000000 02000000",
        ),
        (
            Message::ProbeReply(ProbeReply {
                attempt: 1,
                granted: true,
                promised: ballot,
                life: Boot(3),
                renounced: low,
            }),
            17,
            "0100000000000000 01 0807060504030201 0d0c0b0a 0300000000000000 0100000000000000 02000000",
        ),
        (
            Message::Prepare(Prepare { ballot: low, from: i(4), consent: ballot }),
            18,
            "0100000000000000 02000000 0400000000000000 0807060504030201 0d0c0b0a",
        ),
        (
            Message::Promise(Promise {
                ballot: low,
                voter,
                changed: i(2),
                chosen: i(4),
                part: 1,
                parts: 2,
                entries: entries(),
            }),
            19,
            "0100000000000000 02000000 0f0e0d0c0b0a0908 0706050403020100 0200000000000000 0400000000000000 01000000 02000000 02000000 \
             0500000000000000 0100000000000000 02000000 02000000 6162 \
             0600000000000000 0100000000000000 02000000 00000000",
        ),
        (
            Message::Accept(Accept { ballot: low, instance: i(7), mark, value: Bytes::from_static(b"xyz") }),
            20,
            "0100000000000000 02000000 0700000000000000 0300000000000000 8877665544332211 78797a",
        ),
        (
            Message::Accepted(Accepted { ballot: low, voter, first: i(5), last: i(7), chosen: i(3) }),
            21,
            "0100000000000000 02000000 0f0e0d0c0b0a0908 0706050403020100 0500000000000000 0700000000000000 0300000000000000",
        ),
        (
            Message::Reject(Reject { refused: low, promised: ballot }),
            22,
            "0100000000000000 02000000 0807060504030201 0d0c0b0a",
        ),
        (
            Message::Advance(Advance {
                ballot: low,
                mark,
                barrier: 6,
                asked: Time::from_nanos(8),
                life: Boot(9),
            }),
            23,
            "0100000000000000 02000000 0300000000000000 8877665544332211 0600000000000000 0800000000000000 \
             0900000000000000",
        ),
        (
            Message::AdvanceReply(AdvanceReply {
                ballot: low,
                voter,
                chosen: i(3),
                barrier: 6,
                tenure: Tenure(7),
            }),
            24,
            "0100000000000000 02000000 0f0e0d0c0b0a0908 0706050403020100 0300000000000000 0600000000000000 \
             0700000000000000",
        ),
        (
            Message::Learn(Learn { session: 7, from: i(3), credit: 0x0102 }),
            25,
            "0700000000000000 0300000000000000 02010000",
        ),
        (
            Message::Values(Values { session: 7, first: i(5), then: Then::More, entries: entries() }),
            26,
            "0700000000000000 0500000000000000 00 02000000 \
             0500000000000000 0100000000000000 02000000 02000000 6162 \
             0600000000000000 0100000000000000 02000000 00000000",
        ),
        (
            Message::Values(Values { session: 8, first: i(5), then: Then::End, entries: Vec::new() }),
            26,
            "0800000000000000 0500000000000000 01 00000000",
        ),
        (
            Message::Values(Values {
                session: 8,
                first: i(5),
                then: Then::Begins(i(9)),
                entries: Vec::new(),
            }),
            26,
            "0800000000000000 0500000000000000 02 0900000000000000 00000000",
        ),
        (Message::Transfer(Transfer { ballot: low }), 27, "0100000000000000 02000000"),
        (
            Message::Report(Report { point: point(5, 6, 7) }),
            28,
            "0500000000000000 0606060606060606 0606060606060606 0606060606060606 0606060606060606 0700000000000000",
        ),
        (
            Message::Ask(Ask { life: Boot(3), sent: Time::from_nanos(0x0102) }),
            29,
            "0300000000000000 0201000000000000",
        ),
        (
            Message::Part(Part {
                ballot: low,
                mark: Mark { instance: i(9), chain: 0xab },
                members: Members::since(i(5), vec![Member { node: NodeId(4), storage: StorageId(6) }]),
            }),
            30,
            "0100000000000000 02000000 0900000000000000 ab00000000000000 \
             0500000000000000 01000000 04000000 06000000000000000000000000000000",
        ),
    ]
}

#[test]
fn the_bytes_of_every_message_stay_as_they_are() {
    let golden = golden();
    let kinds: Vec<u8> = golden.iter().map(|(_, kind, _)| *kind).collect();
    let mut each = kinds.clone();
    each.dedup();
    assert_eq!(each, (FIRST_KIND..=LAST_KIND).collect::<Vec<u8>>(), "one for every kind at least");
    for (message, kind, text) in golden {
        let (got, body) = bytes_of(&message);
        assert_eq!((got, hex(&body)), (kind, text.replace(' ', "")), "{}", message.name());
        assert_eq!(decode(kind, body), Ok(message));
    }
}

#[test]
fn the_head_is_written_behind_what_is_there_and_a_value_is_shared() {
    let value = Bytes::from(vec![7; 1000]);
    let accept = Accept {
        ballot: Ballot { round: 1, node: NodeId(1) },
        instance: InstanceId(1),
        mark: Mark::default(),
        value: value.clone(),
    };
    let mut head = b"frame".to_vec();
    let (_, payload) = encode(&Message::Accept(accept), &mut head);
    assert_eq!(&head[..5], b"frame");
    assert_eq!(head.len(), 5 + 12 + 8 + 16);
    assert_eq!(payload.as_ptr(), value.as_ptr(), "the value is not copied");
}

#[test]
fn counts_and_lengths_that_cannot_be_allocate_nothing() {
    for kind in [19, 26] {
        let count_at = if kind == 19 { 28 } else { 17 };
        let mut body = vec![0; count_at];
        body.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(kind, body.clone().into()), Err(DecodeError::Short { kind }));
        // One entry whose value claims to be 4 GiB.
        body[count_at..].copy_from_slice(&1_u32.to_le_bytes());
        body.extend_from_slice(&[0; 20]);
        body.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(kind, body.into()), Err(DecodeError::Short { kind }));
    }
}

#[test]
fn a_flag_is_zero_or_one() {
    // The grant in the answer to a probe.
    let mut body = vec![0; 41];
    body[8] = 2;
    assert_eq!(decode(17, body.into()), Err(DecodeError::Impossible { kind: 17 }));
}

#[test]
fn other_kinds_are_no_messages() {
    for kind in (0..FIRST_KIND).chain(LAST_KIND + 1..=255) {
        assert_eq!(decode(kind, Bytes::new()), Err(DecodeError::UnknownKind { kind }));
    }
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (any::<u64>(), any::<u32>()).prop_map(|(round, node)| Ballot { round, node: NodeId(node) })
}

fn instance() -> impl Strategy<Value = InstanceId> {
    any::<u64>().prop_map(InstanceId)
}

fn value() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn mark() -> impl Strategy<Value = Mark> {
    (instance(), any::<u64>()).prop_map(|(instance, chain)| Mark { instance, chain })
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (instance(), ballot(), value()).prop_map(|(instance, ballot, value)| Entry {
        instance,
        ballot,
        value,
    });
    proptest::collection::vec(entry, 0..6)
}

fn voter() -> impl Strategy<Value = StorageId> {
    any::<u128>().prop_map(StorageId)
}

fn then() -> impl Strategy<Value = Then> {
    prop_oneof![Just(Then::More), Just(Then::End), instance().prop_map(Then::Begins)]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<u64>(), instance(), ballot()).prop_map(|(attempt, chosen, renounced)| {
            Message::Probe(Probe { attempt, chosen, life: Boot(attempt), renounced })
        }),
        (any::<u64>(), any::<bool>(), ballot(), ballot()).prop_map(
            |(attempt, granted, promised, renounced)| {
                Message::ProbeReply(ProbeReply { attempt, granted, promised, life: Boot(attempt), renounced })
            }
        ),
        (ballot(), instance(), ballot()).prop_map(|(ballot, from, consent)| Message::Prepare(Prepare {
            ballot,
            from,
            consent
        })),
        (ballot(), voter(), (instance(), instance()), any::<u32>(), any::<u32>(), entries()).prop_map(
            |(ballot, voter, (changed, chosen), part, parts, entries)| {
                Message::Promise(Promise { ballot, voter, changed, chosen, part, parts, entries })
            }
        ),
        (ballot(), instance(), mark(), value()).prop_map(|(ballot, instance, mark, value)| {
            Message::Accept(Accept { ballot, instance, mark, value })
        }),
        (ballot(), voter(), instance(), instance(), instance()).prop_map(
            |(ballot, voter, first, last, chosen)| {
                Message::Accepted(Accepted { ballot, voter, first, last, chosen })
            }
        ),
        (ballot(), ballot()).prop_map(|(refused, promised)| Message::Reject(Reject { refused, promised })),
        (ballot(), mark(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
            |(ballot, mark, barrier, asked, life)| {
                Message::Advance(Advance {
                    ballot,
                    mark,
                    barrier,
                    asked: Time::from_nanos(asked),
                    life: Boot(life),
                })
            }
        ),
        (any::<u64>(), any::<u64>())
            .prop_map(|(life, sent)| Message::Ask(Ask { life: Boot(life), sent: Time::from_nanos(sent) })),
        (ballot(), voter(), instance(), any::<u64>(), any::<u64>()).prop_map(
            |(ballot, voter, chosen, barrier, tenure)| {
                Message::AdvanceReply(AdvanceReply { ballot, voter, chosen, barrier, tenure: Tenure(tenure) })
            }
        ),
        (any::<u64>(), instance(), any::<u32>()).prop_map(|(session, from, credit)| Message::Learn(Learn {
            session,
            from,
            credit
        })),
        (any::<u64>(), instance(), then(), entries()).prop_map(|(session, first, then, entries)| {
            Message::Values(Values { session, first, then, entries })
        }),
        (ballot(), mark(), instance(), voter()).prop_map(|(ballot, mark, since, storage)| {
            let members = Members::since(since, vec![Member { node: ballot.node, storage }]);
            Message::Part(Part { ballot, mark, members })
        }),
        ballot().prop_map(|ballot| Message::Transfer(Transfer { ballot })),
        (any::<u64>(), any::<u8>(), any::<u64>())
            .prop_map(|(n, byte, rest)| Message::Report(Report { point: point(n, byte, rest) })),
    ]
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn what_is_encoded_is_decoded(message in message()) {
        let (kind, body) = bytes_of(&message);
        prop_assert!((FIRST_KIND..=LAST_KIND).contains(&kind));
        prop_assert_eq!(decode(kind, body), Ok(message));
    }

    #[test]
    fn a_body_that_is_cut_is_refused(message in message(), cut in 1_usize..60) {
        let (kind, body) = bytes_of(&message);
        // The value of an accept is whatever follows its head: only the head can be too short.
        let fixed = match &message {
            Message::Accept(m) => body.len() - m.value.len(),
            _ => body.len(),
        };
        let left = fixed.saturating_sub(cut);
        prop_assert_eq!(decode(kind, body.slice(..left)), Err(DecodeError::Short { kind }));
    }

    #[test]
    fn a_body_that_goes_on_is_refused(message in message(), more in proptest::collection::vec(any::<u8>(), 1..20)) {
        let (kind, body) = bytes_of(&message);
        let longer = Bytes::from([&body[..], &more[..]].concat());
        match message {
            Message::Accept(mut accept) => {
                accept.value = Bytes::from([&accept.value[..], &more[..]].concat());
                prop_assert_eq!(decode(kind, longer), Ok(Message::Accept(accept)));
            }
            _ => prop_assert_eq!(decode(kind, longer), Err(DecodeError::Trailing { kind, extra: more.len() })),
        }
    }

    /// What is decoded from anything is encoded to the same bytes: there is one way to say it.
    #[test]
    fn random_bytes_are_a_message_or_an_error(kind: u8, body in proptest::collection::vec(any::<u8>(), 0..120)) {
        let body = Bytes::from(body);
        for kind in [kind, FIRST_KIND + kind % (LAST_KIND - FIRST_KIND + 1)] {
            if let Ok(message) = decode(kind, body.clone()) {
                prop_assert_eq!(bytes_of(&message), (kind, body.clone()));
            }
        }
    }

    /// The same with bytes that are nearly a message.
    #[test]
    fn damaged_bytes_are_a_message_or_an_error(message in message(), at: usize, bit in 0..8_u8) {
        let (kind, body) = bytes_of(&message);
        let mut body = body.to_vec();
        let at = at % body.len();
        body[at] ^= 1_u8 << bit;
        let body = Bytes::from(body);
        if let Ok(other) = decode(kind, body.clone()) {
            prop_assert_ne!(&other, &message);
            prop_assert_eq!(bytes_of(&other), (kind, body));
        }
    }
}
