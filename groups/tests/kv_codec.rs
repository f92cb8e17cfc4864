//! The bytes of commands, outcomes and chosen values. Commands and values stand in the log,
//! outcomes in the session table: their bytes are format.

use std::fmt::Write as _;

use bytes::Bytes;
use groups::ids::{Boot, InstanceId, NodeId, Slot};
use groups::kv::slot::SLOTS;
use groups::kv::transaction::MAX_PARTS;
use groups::kv::value::{Batch, COMMAND_HEAD, Value, check, expire, lead, noop};
use groups::kv::walk::PLACES;
use groups::kv::{
    Change, Command, Condition, Failure, Guard, InSlot, Life, Outcome, Page, Point, Range, Renewal, Req,
    Since, StateHash, Sum, Ticket, Transaction, Verdict, Walk, Want, When,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put(condition: Condition, want: Want) -> Command {
    Command::Put { key: b("k"), value: b("vw"), condition, want }
}

#[test]
fn the_bytes_of_every_command_stay_as_they_are() {
    let golden = [
        (Command::Get { key: b("k") }, "01 01000000 6b"),
        (Command::GetMany { keys: vec![b("a"), b("")] }, "02 02000000 01000000 61 00000000"),
        (Command::Exists { keys: vec![b("a")] }, "03 01000000 01000000 61"),
        (Command::Count, "04"),
        (Command::Length { key: b("k") }, "05 01000000 6b"),
        (
            Command::Scan(Range { from: b("a"), to: None, limit: 3, max_bytes: 258, values: true }),
            "0a 01 03000000 02010000 01000000 61",
        ),
        (
            Command::Scan(Range { from: b(""), to: Some(b("z")), limit: 3, max_bytes: 258, values: false }),
            "0a 02 03000000 02010000 00000000 01000000 7a",
        ),
        (
            Command::InSlot(InSlot { slot: Slot(258), from: b("a"), limit: 3 }),
            "07 02010000 03000000 01000000 61",
        ),
        (Command::Walk(Walk { from: 258, limit: 3, max_bytes: 4 }), "0b 0201000000000000 03000000 04000000"),
        (
            Command::Changes(Since { after: Some(258), prefix: b("k"), max_bytes: 4 }),
            "0e 01 0201000000000000 04000000 01000000 6b",
        ),
        (
            Command::Changes(Since { after: None, prefix: b(""), max_bytes: 0 }),
            "0e 00 0000000000000000 00000000 00000000",
        ),
        (put(Condition::None, Want::Done), "10 00 00 01000000 6b 02000000 7677"),
        (put(Condition::Absent, Want::Revision), "10 01 01 01000000 6b 02000000 7677"),
        (put(Condition::Present, Want::Previous), "10 02 02 01000000 6b 02000000 7677"),
        (put(Condition::Revision(258), Want::Done), "10 00 03 0201000000000000 01000000 6b 02000000 7677"),
        (put(Condition::Value(b("o")), Want::Done), "10 00 04 01000000 6f 01000000 6b 02000000 7677"),
        (
            Command::PutMany { pairs: vec![(b("a"), b("1")), (b("b"), b(""))] },
            "11 02000000 01000000 61 01000000 31 01000000 62 00000000",
        ),
        (Command::Delete { keys: vec![b("a")] }, "12 01000000 01000000 61"),
        (Command::Take { key: b("k") }, "13 01000000 6b"),
        (Command::Add { key: b("k"), delta: -2 }, "14 feffffffffffffff 01000000 6b"),
        (Command::Append { key: b("k"), value: b("v"), max: 258 }, "15 02010000 01000000 6b 01000000 76"),
        (Command::Cas { key: b("k"), old: b("o"), new: b("n") }, "16 01000000 6b 01000000 6f 01000000 6e"),
        (
            Command::Transaction(Transaction {
                guards: vec![Guard { key: b("g"), condition: Condition::Revision(258) }],
                then: vec![Command::Add { key: b("k"), delta: 1 }],
                otherwise: vec![Command::Get { key: b("k") }],
                max: 258,
            }),
            "1c 02010000 01000000 01000000 67 03 0201000000000000 \
             01000000 0e000000 14 0100000000000000 01000000 6b 01000000 06000000 01 01000000 6b",
        ),
        (
            Command::Transaction(Transaction {
                guards: vec![Guard { key: b("g"), condition: Condition::Absent }],
                then: vec![Command::Count],
                otherwise: vec![],
                max: 258,
            }),
            "0c 02010000 01000000 01000000 67 01 01000000 01000000 04 00000000",
        ),
        (Command::Revisions { keys: vec![b("a")] }, "0d 01000000 01000000 61"),
        (Command::Rest { key: b("k") }, "08 01000000 6b"),
        (Command::Roll, "09"),
        (Command::SetRoll { expect: 5, bytes: b("ab") }, "2e 0500000000000000 02000000 6162"),
        (put_for(Life::Keep, Condition::None), "20 00 01 00 01000000 6b 02000000 7677"),
        (
            put_for(Life::For(258), Condition::Revision(3)),
            "20 01 0201000000000000 01 03 0300000000000000 01000000 6b 02000000 7677",
        ),
        (renew(None, Some(true), None, false), "21 02 01000000 6b"),
        (renew(Some(258), Some(false), Some(true), true), "21 39 0201000000000000 01000000 6b"),
        (renew(Some(0), None, Some(false), false), "21 24 0000000000000000 01000000 6b"),
        (
            Command::Once { req: req(258), command: Box::new(Command::Take { key: b("k") }) },
            "22 02 632d 0201000000000000 0700000000000000 13 01000000 6b",
        ),
        (Command::Epoch, "0f"),
        (fenced(258, Command::Take { key: b("k") }), "29 0201000000000000 13 01000000 6b"),
        (put(Condition::Epoch(258), Want::Done), "10 00 05 0201000000000000 01000000 6b 02000000 7677"),
        (put(Condition::Fence(258), Want::Done), "10 00 06 0201000000000000 01000000 6b 02000000 7677"),
    ];
    for (command, text) in golden {
        assert_eq!(hex(&command.to_bytes()), text.replace(' ', ""), "{command:?}");
        assert_eq!(Command::decode(command.to_bytes()), Ok(command));
    }
}

fn put_for(life: Life, condition: Condition) -> Command {
    Command::PutFor { key: b("k"), value: b("vw"), condition, want: Want::Revision, life }
}

fn renew(life: Option<u64>, mortal: Option<bool>, later: Option<bool>, value: bool) -> Command {
    Command::Renew { key: b("k"), renewal: Renewal { life, when: When { mortal, later }, value } }
}

fn fenced(token: u64, command: Command) -> Command {
    Command::Fenced { token, command: Box::new(command) }
}

/// A recursion that a peer could drive, and fences of nothing.
#[test]
fn a_fence_is_around_a_plain_write_and_nothing_else() {
    let take = || Command::Take { key: b("k") };
    let transaction = |command| Transaction { then: vec![command], ..Transaction::default() };
    let fine = [
        fenced(1, take()),
        Command::Once { req: req(1), command: Box::new(fenced(1, take())) },
        Command::Transaction(transaction(fenced(1, take()))),
    ];
    for command in fine {
        assert_eq!(Command::decode(command.to_bytes()), Ok(command));
    }
    let bad = [
        fenced(0, take()),
        fenced(1, Command::Get { key: b("k") }),
        fenced(1, fenced(1, take())),
        fenced(1, Command::Once { req: req(1), command: Box::new(take()) }),
        fenced(1, Command::Transaction(transaction(take()))),
    ];
    for command in bad {
        assert!(Command::decode(command.to_bytes()).is_err(), "{command:?}");
    }
    let mut deep = vec![41; 9 * 1_000_000];
    deep.push(13);
    assert!(Command::decode(deep.into()).is_err());
}

fn req(seq: u64) -> Req {
    Req { client: b("c-"), seq, print: 7 }
}

/// A recursion that a peer could drive, and requests that no client makes.
#[test]
fn a_numbered_command_is_a_write_that_is_not_numbered_itself() {
    let once = |req: Req, command: Command| Command::Once { req, command: Box::new(command) }.to_bytes();
    let take = || Command::Take { key: b("k") };
    assert!(Command::decode(once(req(1), take())).is_ok());
    assert!(Command::decode(once(req(0), take())).is_err(), "numbers begin with 1");
    assert!(Command::decode(once(req(1), Command::Get { key: b("k") })).is_err(), "a read");
    for client in ["", "a b", "a:b"] {
        assert!(Command::decode(once(Req { client: b(client), ..req(1) }, take())).is_err(), "{client:?}");
    }
    let twice = Command::decode(once(req(1), take())).expect("a command");
    assert!(Command::decode(once(req(2), twice)).is_err(), "numbered twice");
}

#[test]
fn the_bytes_of_every_outcome_stay_as_they_are() {
    let golden = [
        (Outcome::Done, "00"),
        (Outcome::Unmet, "01"),
        (Outcome::Revision(258), "02 0201000000000000"),
        (Outcome::Integer(-2), "03 feffffffffffffff"),
        (Outcome::Value(None), "04"),
        (Outcome::Value(Some((b("v"), 258))), "05 0201000000000000 76"),
        (Outcome::Values(vec![None, Some(b("v")), Some(b(""))]), "06 03000000 ffffffff 01000000 76 00000000"),
        (Outcome::Failed(Failure::NotAnInteger), "07"),
        (Outcome::Failed(Failure::Overflow), "08"),
        (Outcome::Failed(Failure::TooLong(258)), "09 02010000"),
        (Outcome::Failed(Failure::SessionFull), "0a"),
        (Outcome::Retired, "0b"),
        (Outcome::Failed(Failure::OutOfOrder), "0c"),
        (
            Outcome::Transaction {
                met: true,
                outcomes: vec![Outcome::Done, Outcome::Value(Some((b("v"), 258)))],
            },
            "18 01 02000000 01000000 00 0a000000 05 0201000000000000 76",
        ),
        (Outcome::Failed(Failure::AnswerTooLong(258)), "19 02010000"),
        (Outcome::Revisions(vec![258, 0]), "1a 02000000 0201000000000000 0000000000000000"),
        (Outcome::Forgotten { newest: 258 }, "14 0201000000000000"),
        (Outcome::Unkept, "15"),
        (Outcome::Failed(Failure::Reused), "16"),
        (Outcome::Failed(Failure::Fenced(258)), "28 0201000000000000"),
        (Outcome::Failed(Failure::FencesFull), "29"),
        (
            Outcome::Page(Page {
                items: vec![(b("a"), Some(b("v"))), (b("b"), None)],
                next: Some(b("c")),
                large: true,
            }),
            "1b 03 01000000 63 02000000 01000000 61 01 01000000 76 01000000 62 00",
        ),
        (Outcome::Page(Page::default()), "1b 00 00000000"),
        (
            Outcome::InSlot { count: 258, keys: vec![b("a")], next: Some(b("k")) },
            "1f 0201000000000000 01000000 01000000 61 01 01000000 6b",
        ),
        (Outcome::InSlot { count: 3, keys: vec![], next: None }, "1f 0300000000000000 00000000 00"),
        (Outcome::Walked { keys: vec![b("a")], next: Some(258) }, "1c 0201000000000000 01000000 01000000 61"),
        (Outcome::Walked { keys: vec![], next: None }, "1c ffffffffffffffff 00000000"),
        (
            Outcome::Changes {
                changes: vec![
                    Change { revision: 258, key: b("k"), value: Some(b("v")) },
                    Change { revision: 259, key: b("k"), value: None },
                ],
                through: 260,
            },
            "1d 0401000000000000 02000000 0201000000000000 01000000 6b 01 01000000 76 \
             0301000000000000 01000000 6b 00",
        ),
        (Outcome::Compacted { min: 258 }, "1e 0201000000000000"),
    ];
    for (outcome, text) in golden {
        let mut bytes = Vec::new();
        outcome.encode(&mut bytes);
        assert_eq!(hex(&bytes), text.replace(' ', ""), "{outcome:?}");
        assert_eq!(Outcome::decode(bytes.into()), Some(outcome));
    }
}

/// A transaction around a command, as bytes: whatever the command's bytes are.
fn around(kind: u8, command: &[u8]) -> Bytes {
    let mut out = vec![kind, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    out.extend_from_slice(&(command.len() as u32).to_le_bytes());
    out.extend_from_slice(command);
    out.extend_from_slice(&[0; 4]);
    out.into()
}

/// A chain of a million transactions, each in the list of the one before, is ten megabytes. Whoever
/// decodes it level by level runs out of stack before it is refused.
#[test]
fn a_transaction_holds_no_transaction_however_deep() {
    let put = put(Condition::None, Want::Done).to_bytes();
    assert!(Command::decode(around(28, &put)).is_ok());
    let mut inner = put;
    for _ in 0..3 {
        inner = around(28, &inner);
    }
    assert!(Command::decode(inner).is_err());
    let get = Command::Get { key: b("k") }.to_bytes();
    assert!(Command::decode(around(12, &around(12, &get))).is_err());
    let answer = Outcome::Transaction { met: true, outcomes: vec![] };
    let mut bytes = Vec::new();
    Outcome::Transaction { met: true, outcomes: vec![answer] }.encode(&mut bytes);
    assert_eq!(Outcome::decode(bytes.into()), None);
}

#[test]
fn a_transaction_is_of_the_kind_that_its_commands_are() {
    let (get, put) = (Command::Get { key: b("k") }, put(Condition::None, Want::Done));
    for (command, reads) in [(get, true), (put, false)] {
        let then = Transaction { then: vec![command.clone()], ..Transaction::default() };
        let otherwise = Transaction { otherwise: vec![command.clone()], ..Transaction::default() };
        assert_eq!((then.is_read(), otherwise.is_read()), (reads, reads));
        assert_eq!(Command::decode(around(12, &command.to_bytes())).is_ok(), reads);
        assert_eq!(Command::decode(around(28, &command.to_bytes())).is_ok(), !reads);
    }
}

#[test]
fn a_transaction_of_too_many_parts_is_refused() {
    let of = |guards, commands| {
        Command::Transaction(Transaction {
            guards: vec![Guard { key: b("g"), condition: Condition::Present }; guards],
            then: vec![Command::Add { key: b("k"), delta: 1 }; commands],
            otherwise: vec![],
            max: 1,
        })
    };
    for (guards, commands, fine) in
        [(0, MAX_PARTS, true), (0, MAX_PARTS + 1, false), (MAX_PARTS, 0, true), (MAX_PARTS, 1, false)]
    {
        assert_eq!(Command::decode(of(guards, commands).to_bytes()).is_ok(), fine, "{guards} and {commands}");
    }
}

fn ticket() -> Ticket {
    Ticket { node: NodeId(3), boot: Boot(2), number: 258, behind: 7 }
}

#[test]
fn the_bytes_of_every_value_stay_as_they_are() {
    assert_eq!(hex(&noop()), "00");
    assert_eq!(hex(&lead(NodeId(258))), "0102010000");
    let mut batch = Batch::new();
    assert_eq!(batch.bytes(), 5);
    batch.push(ticket(), b"cmd");
    batch.push(ticket(), b"");
    assert_eq!(batch.bytes(), 5 + 2 * COMMAND_HEAD + 3);
    assert_eq!(
        hex(&batch.finish()),
        "02 02000000 03000000 0200000000000000 0201000000000000 07000000 03000000 636d64 \
         03000000 0200000000000000 0201000000000000 07000000 00000000"
            .replace(' ', "")
    );
    let mut stamped = Batch::stamped(258, 0);
    assert!(stamped.is_empty());
    stamped.push(ticket(), b"cmd");
    assert!(!stamped.is_empty());
    let stamped = stamped.finish();
    assert_eq!(
        hex(&stamped),
        "05 0201000000000000 01000000 03000000 0200000000000000 0201000000000000 07000000 03000000 636d64"
            .replace(' ', "")
    );
    assert!(matches!(Value::decode(stamped), Ok(Value::Batch(commands)) if commands.clock() == 258));
    assert_eq!(hex(&expire(258, 3)), "06020100000000000003000000");
    assert!(matches!(Value::decode(expire(258, 3)), Ok(Value::Expire { clock: 258, most: 3 })));
    let sum = Sum { hash: StateHash::from_bytes([6; 32]), rest: 7 };
    let agreed = Verdict::Agreed(Point { instance: InstanceId(5), sum });
    let split = Verdict::Split(InstanceId(5));
    for (verdict, text) in [
        (None, "0300".to_owned()),
        (Some(agreed), format!("0301 0500000000000000 {} 0700000000000000", "06".repeat(32))),
        (Some(split), "0302 0500000000000000".to_owned()),
    ] {
        assert_eq!(hex(&check(verdict)), text.replace(' ', ""));
        assert!(matches!(Value::decode(check(verdict)), Ok(Value::Check(read)) if read == verdict));
    }
    assert!(matches!(Value::decode(noop()), Ok(Value::Noop)));
    assert!(matches!(Value::decode(lead(NodeId(258))), Ok(Value::Lead(NodeId(258)))));
}

#[test]
fn shapes_that_nobody_writes_are_no_values() {
    for bytes in [
        &b""[..],
        b"\x00\x00",
        b"\x01",
        b"\x01\0\0\0",
        b"\x01\0\0\0\0\0",
        b"\x02",
        b"\x02\0\0\0",
        b"\x03",
        b"\x03\x00\x00",
        b"\x03\x01",
        b"\x03\x02\0\0\0\0\0\0\0",
        b"\x03\x03",
        b"\x04",
        b"\x05",
        b"\x05\x01\0\0\0\0\0\0\0\0\0\0",
        b"\x05\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x06",
        b"\x06\0\0\0\0\0\0\0\0\0\0\0",
        b"\x06\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ] {
        assert!(Value::decode(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
    }
}

/// Iterates over a batch; `None` when it is damaged anywhere.
fn commands(bytes: Bytes) -> Option<Vec<(Ticket, Bytes)>> {
    match Value::decode(bytes).ok()? {
        Value::Batch(commands) => commands.collect::<Result<_, _>>().ok(),
        _ => None,
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from)
}

fn keys() -> impl Strategy<Value = Vec<Bytes>> {
    proptest::collection::vec(key(), 0..5)
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::None),
        Just(Condition::Absent),
        Just(Condition::Present),
        any::<u64>().prop_map(Condition::Revision),
        any::<u64>().prop_map(Condition::Epoch),
        any::<u64>().prop_map(Condition::Fence),
        key().prop_map(Condition::Value),
    ]
}

fn want() -> impl Strategy<Value = Want> {
    prop_oneof![Just(Want::Done), Just(Want::Revision), Just(Want::Previous)]
}

fn renewal() -> impl Strategy<Value = Renewal> {
    let choice = || proptest::option::of(any::<bool>());
    (proptest::option::of(any::<u64>()), choice(), choice(), any::<bool>())
        .prop_map(|(life, mortal, later, value)| Renewal { life, when: When { mortal, later }, value })
}

fn any_req() -> impl Strategy<Value = Req> {
    ("[A-Za-z0-9._-]{1,64}", 1..=u64::MAX, any::<u64>()).prop_map(|(client, seq, print)| Req {
        client: Bytes::from(client),
        seq,
        print,
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => single(),
        1 => transaction().prop_map(Command::Transaction),
        1 => alone(),
    ]
}

/// What no transaction holds.
fn alone() -> impl Strategy<Value = Command> {
    prop_oneof![
        (any_req(), key(), any::<i64>()).prop_map(|(req, key, delta)| {
            Command::Once { req, command: Box::new(Command::Add { key, delta }) }
        }),
        (key(), proptest::option::of(key()), any::<u32>(), any::<u32>(), any::<bool>()).prop_map(
            |(from, to, limit, max_bytes, values)| {
                Command::Scan(Range { from, to, limit, max_bytes, values })
            }
        ),
        (0..SLOTS, key(), any::<u32>()).prop_map(|(slot, from, limit)| Command::InSlot(InSlot {
            slot: Slot(slot),
            from,
            limit
        })),
        (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(from, limit, max_bytes)| Command::Walk(Walk {
            from,
            limit,
            max_bytes
        })),
        (proptest::option::of(any::<u64>()), key(), any::<u32>())
            .prop_map(|(after, prefix, max_bytes)| { Command::Changes(Since { after, prefix, max_bytes }) }),
    ]
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let guard = (key(), condition()).prop_map(|(key, condition)| Guard { key, condition });
    let list = || proptest::collection::vec(single(), 0..4);
    (proptest::collection::vec(guard, 0..4), list(), list(), any::<u32>())
        .prop_map(|(guards, then, otherwise, max)| Transaction { guards, then, otherwise, max })
}

fn single() -> impl Strategy<Value = Command> {
    let life = prop_oneof![Just(Life::Keep), any::<u64>().prop_map(Life::For)];
    prop_oneof![
        key().prop_map(|key| Command::Rest { key }),
        Just(Command::Roll),
        (any::<u64>(), key()).prop_map(|(expect, bytes)| Command::SetRoll { expect, bytes }),
        (key(), key(), condition(), want(), life).prop_map(|(key, value, condition, want, life)| {
            Command::PutFor { key, value, condition, want, life }
        }),
        (key(), renewal()).prop_map(|(key, renewal)| Command::Renew { key, renewal }),
        key().prop_map(|key| Command::Get { key }),
        keys().prop_map(|keys| Command::GetMany { keys }),
        keys().prop_map(|keys| Command::Revisions { keys }),
        keys().prop_map(|keys| Command::Exists { keys }),
        Just(Command::Count),
        Just(Command::Epoch),
        (1..=u64::MAX, keys()).prop_map(|(token, keys)| fenced(token, Command::Delete { keys })),
        key().prop_map(|key| Command::Length { key }),
        (key(), key(), condition(), want()).prop_map(|(key, value, condition, want)| Command::Put {
            key,
            value,
            condition,
            want
        }),
        proptest::collection::vec((key(), key()), 0..5).prop_map(|pairs| Command::PutMany { pairs }),
        keys().prop_map(|keys| Command::Delete { keys }),
        key().prop_map(|key| Command::Take { key }),
        (key(), any::<i64>()).prop_map(|(key, delta)| Command::Add { key, delta }),
        (key(), key(), any::<u32>()).prop_map(|(key, value, max)| Command::Append { key, value, max }),
        (key(), key(), key()).prop_map(|(key, old, new)| Command::Cas { key, old, new }),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let list = proptest::collection::vec(single_outcome(), 0..4);
    let transaction = (any::<bool>(), list);
    prop_oneof![
        4 => single_outcome(),
        1 => transaction.prop_map(|(met, outcomes)| Outcome::Transaction { met, outcomes }),
    ]
}

fn single_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Done),
        Just(Outcome::Unmet),
        any::<u64>().prop_map(Outcome::Revision),
        any::<i64>().prop_map(Outcome::Integer),
        proptest::option::of((key(), any::<u64>())).prop_map(Outcome::Value),
        proptest::collection::vec(proptest::option::of(key()), 0..5).prop_map(Outcome::Values),
        Just(Outcome::Failed(Failure::NotAnInteger)),
        Just(Outcome::Failed(Failure::Overflow)),
        any::<u32>().prop_map(|max| Outcome::Failed(Failure::TooLong(max))),
        Just(Outcome::Failed(Failure::SessionFull)),
        Just(Outcome::Failed(Failure::OutOfOrder)),
        any::<u32>().prop_map(|max| Outcome::Failed(Failure::AnswerTooLong(max))),
        proptest::collection::vec(any::<u64>(), 0..5).prop_map(Outcome::Revisions),
        Just(Outcome::Retired),
        any::<u64>().prop_map(|newest| Outcome::Forgotten { newest }),
        Just(Outcome::Unkept),
        Just(Outcome::Failed(Failure::Reused)),
        any::<u64>().prop_map(|token| Outcome::Failed(Failure::Fenced(token))),
        (
            proptest::collection::vec((key(), proptest::option::of(key())), 0..5),
            proptest::option::of(key()),
            any::<bool>()
        )
            .prop_map(|(items, next, large)| Outcome::Page(Page { items, next, large })),
        (any::<u64>(), proptest::collection::vec(key(), 0..5), proptest::option::of(key()))
            .prop_map(|(count, keys, next)| Outcome::InSlot { count, keys, next }),
        (proptest::collection::vec(key(), 0..5), proptest::option::of(0..PLACES))
            .prop_map(|(keys, next)| Outcome::Walked { keys, next }),
        (proptest::collection::vec((any::<u64>(), key(), proptest::option::of(key())), 0..5), any::<u64>())
            .prop_map(|(changes, through)| {
                let change = |(revision, key, value)| Change { revision, key, value };
                Outcome::Changes { changes: changes.into_iter().map(change).collect(), through }
            }),
        any::<u64>().prop_map(|min| Outcome::Compacted { min }),
    ]
}

fn any_ticket() -> impl Strategy<Value = Ticket> {
    (any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(node, boot, number, behind)| Ticket {
        node: NodeId(node),
        boot: Boot(boot),
        number,
        behind,
    })
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn a_command_comes_back(command in command()) {
        let read = command.is_read();
        let decoded = Command::decode(command.to_bytes());
        prop_assert_eq!(decoded.as_ref(), Ok(&command));
        prop_assert_eq!(read, command.to_bytes()[0] < 16, "reads are the kinds below 16");
    }

    #[test]
    fn a_command_that_is_cut_or_goes_on_is_refused(command in command(), cut in 1_usize..30, more in 1_usize..9) {
        let bytes = command.to_bytes();
        prop_assert!(Command::decode(bytes.slice(..bytes.len().saturating_sub(cut))).is_err());
        let longer = [&bytes[..], &vec![0; more][..]].concat();
        prop_assert!(Command::decode(longer.into()).is_err());
    }

    #[test]
    fn random_bytes_are_a_command_or_an_error(kind in 0..40_u8, body in proptest::collection::vec(0..6_u8, 0..60)) {
        let bytes = Bytes::from([&[kind][..], &body[..]].concat());
        if let Ok(command) = Command::decode(bytes.clone()) {
            prop_assert_eq!(command.to_bytes(), bytes);
        }
    }

    #[test]
    fn an_outcome_comes_back(outcome in outcome()) {
        let mut bytes = Vec::new();
        outcome.encode(&mut bytes);
        prop_assert_eq!(Outcome::decode(bytes.into()), Some(outcome));
    }

    #[test]
    fn an_outcome_that_is_cut_or_goes_on_is_another_or_none(outcome in outcome(), cut in 1_usize..20, more in 1_usize..9) {
        let mut bytes = Vec::new();
        outcome.encode(&mut bytes);
        let shorter = bytes[..bytes.len().saturating_sub(cut)].to_vec();
        let longer = [&bytes[..], &vec![0; more][..]].concat();
        // The value of a get is whatever follows its revision.
        let open = matches!(outcome, Outcome::Value(Some(_)));
        for other in [shorter, longer] {
            match Outcome::decode(other.into()) {
                None => {}
                Some(Outcome::Value(Some(_))) if open => {}
                Some(decoded) => prop_assert!(false, "{decoded:?}"),
            }
        }
    }

    #[test]
    fn random_bytes_are_an_outcome_or_none(kind in 0..34_u8, body in proptest::collection::vec(0..4_u8, 0..40)) {
        let bytes = [&[kind][..], &body[..]].concat();
        if let Some(outcome) = Outcome::decode(bytes.clone().into()) {
            let mut again = Vec::new();
            outcome.encode(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn a_batch_comes_back(list in proptest::collection::vec((any_ticket(), key()), 0..8)) {
        let mut batch = Batch::with_capacity(100);
        for (ticket, command) in &list {
            batch.push(*ticket, command);
        }
        let size = batch.bytes();
        let bytes = batch.finish();
        prop_assert_eq!(bytes.len(), size);
        prop_assert_eq!(commands(bytes), Some(list));
    }

    #[test]
    fn a_batch_that_is_cut_or_goes_on_is_refused(
        list in proptest::collection::vec((any_ticket(), key()), 1..5),
        cut in 1_usize..200,
        more in 1_usize..40,
    ) {
        let mut batch = Batch::new();
        for (ticket, command) in &list {
            batch.push(*ticket, command);
        }
        let bytes = batch.finish();
        prop_assert_eq!(commands(bytes.slice(..bytes.len().saturating_sub(cut))), None);
        prop_assert_eq!(commands([&bytes[..], &vec![0; more][..]].concat().into()), None);
    }

    #[test]
    fn random_bytes_are_a_value_or_an_error(kind in 0..8_u8, body in proptest::collection::vec(0..3_u8, 0..100)) {
        let bytes = Bytes::from([&[kind][..], &body[..]].concat());
        if let Ok(Value::Batch(commands)) = Value::decode(bytes) {
            // A damaged batch ends after its first error.
            let list: Vec<_> = commands.take(1000).collect();
            prop_assert!(list.len() < 1000);
            let errors = list.iter().filter(|c| c.is_err()).count();
            prop_assert!(errors <= 1 && (errors == 0 || list.last().is_some_and(Result::is_err)));
        }
    }
}
