//! Commands: what each form means, and the words of each refusal.

use std::time::Duration;

use bytes::Bytes;
use groups::ids::{GroupId, Slot};
use groups::kv::When;
use proptest::prelude::*;
use server::protocol::table::{COMMANDS, find};
use server::protocol::{
    Args, Combine, Command, Condition, Cursor, DataCommand, Guard, KeyOperation, KillFilter, ManyKeys,
    NodeCommand, Operation, Ordered, PageQuery, PageToken, Position, Put, PutAnswer, Renew, Reply, ScanQuery,
    ServerInfo, Session, SizeLimits, Transaction, TransactionCommand, TransactionForm, Until, Version,
    WatchCommand, WatchFrom, nearest,
};

const SIZES: SizeLimits = SizeLimits { max_key: 16, max_value: 64 };

fn parse(line: &str) -> Result<Command, String> {
    Command::parse(&Args::from_words(line.split(' ')), &SIZES).map_err(|error| error.to_string())
}

fn data(line: &str) -> DataCommand {
    match parse(line) {
        Ok(Command::Data(data)) => data,
        other => panic!("{line}: {other:?}"),
    }
}

fn refusal(line: &str) -> String {
    parse(line).expect_err(line)
}

fn one(key: &str, operation: Operation) -> DataCommand {
    DataCommand::One(KeyOperation { key: Bytes::copy_from_slice(key.as_bytes()), operation })
}

fn keys(names: &[&'static str]) -> Vec<Bytes> {
    names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect()
}

fn range(from: &'static str, to: Option<&'static str>, limit: u32) -> DataCommand {
    let query = PageQuery { from: from.into(), to: to.map(Bytes::from), limit, alone: false };
    DataCommand::Ordered(Ordered::Page(query))
}

fn scan(place: u64, pattern: Option<&'static str>, count: u32, any_type: bool) -> DataCommand {
    let cursor = Cursor { group: GroupId(0), place };
    DataCommand::Ordered(Ordered::Scan(ScanQuery {
        cursor,
        pattern: pattern.map(Bytes::from),
        count,
        any_type,
    }))
}

#[test]
fn a_page_goes_on_behind_its_token() {
    let token = |from: &'static str, alone| PageToken { from: from.into(), alone }.to_text();
    for (from, alone) in [("a", false), ("ab", true), ("az\0", false)] {
        let query = PageQuery { from: from.into(), to: Some("b".into()), limit: 7, alone };
        let line = format!("PREFIX a AFTER {} LIMIT 7", token(from, alone));
        assert_eq!(data(&line), DataCommand::Ordered(Ordered::Page(query)), "{line}");
    }
    for (line, token) in [
        ("PREFIX a AFTER", token("b", false)),
        ("PREFIX b AFTER", token("a", false)),
        ("RANGE a b AFTER", token("b", false)),
        ("RANGE a b AFTER", Position { first: 0, revisions: vec![1] }.to_text()),
        ("RANGE a b AFTER", "x".to_owned()),
    ] {
        let refused = parse(&format!("{line} {token}")).expect_err(line);
        assert!(refused.starts_with("ERR this is no token of this range"), "{line}: {refused}");
    }
}

#[test]
fn watches() {
    let begin = |from| Command::Watch(WatchCommand::Begin { prefix: "k".into(), from });
    let position = Position { first: 0, revisions: vec![7, 0, 300] };
    for (line, expected) in [
        ("SUBSCRIBEKV k", begin(WatchFrom::Now)),
        ("subscribekv k from 7", begin(WatchFrom::Revision(7))),
        (&format!("SUBSCRIBEKV k FROM {}", position.to_text()), begin(WatchFrom::Position(position))),
        ("UNSUBSCRIBEKV", Command::Watch(WatchCommand::End(None))),
        ("UNSUBSCRIBEKV k", Command::Watch(WatchCommand::End(Some("k".into())))),
    ] {
        assert_eq!(parse(line), Ok(expected), "{line}");
    }
    assert!(parse("SUBSCRIBEKV k FROM x").expect_err("no place").starts_with("ERR FROM needs"));
    assert!(parse("UNSUBSCRIBEKV a b").expect_err("two").starts_with("ERR wrong number"));
}

#[test]
fn data_commands() {
    let put =
        |condition, answer| Operation::Put(Put { condition, answer, ..Put::new(Bytes::from_static(b"v")) });
    let plain = put(Condition::Always, PutAnswer::Ok);
    for (line, expected) in [
        ("GET k", one("k", Operation::Get { revision: false, stale: None })),
        ("gEt k rev", one("k", Operation::Get { revision: true, stale: None })),
        (
            "get k stale 250 rev",
            one("k", Operation::Get { revision: true, stale: Some(Duration::from_millis(250)) }),
        ),
        ("SET k v", one("k", plain.clone())),
        ("put k v", one("k", plain.clone())),
        ("SET k v NX", one("k", put(Condition::Absent, PutAnswer::Ok))),
        ("SET k v xx get", one("k", put(Condition::Present, PutAnswer::Previous))),
        ("SET k v IFREV 7 REV", one("k", put(Condition::Revision(7), PutAnswer::Revision))),
        ("SET k v IFREV 0", one("k", put(Condition::Revision(0), PutAnswer::Ok))),
        ("SET k v IFEQ NX", one("k", put(Condition::Value("NX".into()), PutAnswer::Ok))),
        ("SET k v NX NX GET GET", one("k", put(Condition::Absent, PutAnswer::Previous))),
        ("SET k v KEEPTTL", one("k", Operation::Put(Put { keep_ttl: true, ..Put::new("v".into()) }))),
        ("GETSET k v", one("k", put(Condition::Always, PutAnswer::Previous))),
        ("SETNX k v", one("k", put(Condition::Absent, PutAnswer::Flag))),
        ("GETDEL k", one("k", Operation::GetDelete)),
        ("DEL k", one("k", Operation::Delete)),
        ("UNLINK a b", DataCommand::Many(ManyKeys::Delete(keys(&["a", "b"])))),
        ("EXISTS k", one("k", Operation::Exists)),
        ("EXISTS k k", DataCommand::Many(ManyKeys::Exists(keys(&["k", "k"])))),
        ("MGET k", DataCommand::Many(ManyKeys::Get(keys(&["k"])))),
        ("MSET k v", one("k", plain)),
        (
            "MSET a 1 b 2",
            DataCommand::Many(ManyKeys::Put(vec![("a".into(), "1".into()), ("b".into(), "2".into())])),
        ),
        ("INCR k", one("k", Operation::Add(1))),
        ("DECR k", one("k", Operation::Add(-1))),
        ("INCRBY k -5", one("k", Operation::Add(-5))),
        ("DECRBY k 5", one("k", Operation::Add(-5))),
        ("DECRBY k 9223372036854775807", one("k", Operation::Add(-i64::MAX))),
        ("APPEND k v", one("k", Operation::Append("v".into()))),
        ("TYPE k", one("k", Operation::Kind)),
        ("GETRANGE k 0 -1", one("k", Operation::Part { start: 0, end: -1 })),
        ("substr k -3 7", one("k", Operation::Part { start: -3, end: 7 })),
        ("TOUCH a b", DataCommand::Many(ManyKeys::Exists(keys(&["a", "b"])))),
        ("STRLEN k", one("k", Operation::Length)),
        ("CAS k a b", one("k", Operation::CompareAndSwap { old: "a".into(), new: "b".into() })),
        ("DBSIZE", DataCommand::Size),
        ("RANGE a b", range("a", Some("b"), 100)),
        ("range - + limit 10000", range("", None, 10_000)),
        ("PREFIX ab LIMIT 1", range("ab", Some("ac"), 1)),
        ("SCAN 0", scan(0, None, 10, true)),
        ("SCAN 281474976710656 MATCH a* COUNT 99999 TYPE STRING", scan(0, Some("a*"), 10_000, true)),
        ("SCAN 0 TYPE hash MATCH *", scan(0, None, 10, false)),
        ("KEYS a*", DataCommand::Ordered(Ordered::Keys("a*".into()))),
    ] {
        assert_eq!(data(line), expected, "{line}");
    }
    assert_eq!(
        parse("GET "),
        Ok(Command::Data(one("", Operation::Get { revision: false, stale: None }))),
        "empty keys are keys"
    );
}

/// The guards, and the operations of both lists.
type Parts = (Vec<Guard>, Vec<DataCommand>, Vec<DataCommand>);

fn multiop(words: &[&[u8]]) -> Parts {
    match Command::parse(&Args::from_words(words), &SIZES) {
        Ok(Command::Data(DataCommand::Transaction(Transaction {
            guards,
            then,
            otherwise,
            form: TransactionForm::Branches,
        }))) => (guards, then, otherwise),
        other => panic!("{words:?}: {other:?}"),
    }
}

fn guard(key: &'static str, condition: Condition) -> Guard {
    Guard { key: key.into(), condition }
}

#[test]
fn the_clauses_of_a_multiop() {
    let say = |line: &str| multiop(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
    let get = |key, revision| one(key, Operation::Get { revision, stale: None });
    let put = |condition, answer| {
        let put = Put { condition, answer, ..Put::new(Bytes::from_static(b"v")) };
        one("k", Operation::Put(put))
    };
    let (guards, then, otherwise) = say(
        "MULTIOP IF a REV 5 if b value v IF c ABSENT IF d present THEN PUT k v IFREV 7 REV THEN get k rev ELSE GET k",
    );
    assert_eq!(
        guards,
        [
            guard("a", Condition::Revision(5)),
            guard("b", Condition::Value("v".into())),
            guard("c", Condition::Absent),
            guard("d", Condition::Present),
        ]
    );
    assert_eq!(then, [put(Condition::Revision(7), PutAnswer::Revision), get("k", true)]);
    assert_eq!(otherwise, [get("k", false)]);

    for (line, operation) in [
        ("SET k v NX GET", put(Condition::Absent, PutAnswer::Previous)),
        ("SETNX k v", put(Condition::Absent, PutAnswer::Flag)),
        ("GETSET k v", put(Condition::Always, PutAnswer::Previous)),
        ("GETDEL k", one("k", Operation::GetDelete)),
        ("DEL k", one("k", Operation::Delete)),
        ("EXISTS k", one("k", Operation::Exists)),
        ("STRLEN k", one("k", Operation::Length)),
        ("INCR k", one("k", Operation::Add(1))),
        ("DECR k", one("k", Operation::Add(-1))),
        ("INCRBY k 5", one("k", Operation::Add(5))),
        ("DECRBY k 5", one("k", Operation::Add(-5))),
        ("APPEND k v", one("k", Operation::Append("v".into()))),
        ("CAS k a b", one("k", Operation::CompareAndSwap { old: "a".into(), new: "b".into() })),
    ] {
        let expected = vec![operation];
        assert_eq!(say(&format!("MULTIOP THEN {line}")), (vec![], expected.clone(), vec![]), "{line}");
        assert_eq!(say(&format!("MULTIOP ELSE {line}")), (vec![], vec![], expected), "{line}");
    }
    assert_eq!(say("MULTIOP IF k PRESENT").0, [guard("k", Condition::Present)]);
}

#[test]
fn keys_and_values_of_a_multiop_may_be_its_keywords() {
    // What stands at the place of a key or a value is one, whatever its bytes are.
    let (guards, then, otherwise) = multiop(&[
        b"MULTIOP",
        b"IF",
        b"THEN",
        b"VALUE",
        b"ELSE",
        b"THEN",
        b"PUT",
        b"THEN",
        b"ELSE",
        b"IFEQ",
        b"THEN",
        b"THEN",
        b"CAS",
        b"ELSE",
        b"IF",
        b"THEN",
        b"ELSE",
        b"APPEND",
        b"IF",
        b"\0\r\n THEN",
        b"ELSE",
        b"GET",
        b"REV",
    ]);
    assert_eq!(guards, [guard("THEN", Condition::Value("ELSE".into()))]);
    let put = Put { condition: Condition::Value("THEN".into()), ..Put::new("ELSE".into()) };
    assert_eq!(
        then,
        [
            one("THEN", Operation::Put(put)),
            one("ELSE", Operation::CompareAndSwap { old: "IF".into(), new: "THEN".into() })
        ]
    );
    assert_eq!(
        otherwise,
        [
            one("IF", Operation::Append("\0\r\n THEN".into())),
            one("REV", Operation::Get { revision: false, stale: None })
        ]
    );
}

#[test]
fn a_multiop_says_what_is_wrong_with_it() {
    for (line, why) in [
        ("MULTIOP GET k v", "IF, THEN or ELSE is expected, not 'GET'"),
        ("MULTIOP THEN GET k GET k", "IF, THEN or ELSE is expected, not 'GET'"),
        ("MULTIOP THEN GET k IF k PRESENT", "every IF stands before the first THEN and ELSE"),
        ("MULTIOP ELSE GET k THEN GET k", "every THEN stands before the first ELSE"),
        ("MULTIOP IF k REVISION 5", "'REVISION' is no condition"),
        ("MULTIOP IF k VALUE", "VALUE needs a value"),
        ("MULTIOP IF k PRESENT IF k", "IF needs a key and REV, VALUE, ABSENT, PRESENT, EPOCH or FENCE"),
        ("MULTIOP IF k PRESENT IF", "IF needs a key"),
        ("MULTIOP IF k PRESENT THEN", "THEN and ELSE need an operation"),
        ("MULTIOP IF k PRESENT THEN GET", "GET needs a key"),
        ("MULTIOP IF k PRESENT THEN PUT k", "PUT needs a value"),
        ("MULTIOP IF k PRESENT THEN CAS k a", "CAS needs a value"),
        ("MULTIOP THEN MGET k k", "'MGET' is no operation on one key"),
        ("MULTIOP THEN MULTIOP THEN GET k", "'MULTIOP' is no operation on one key"),
        ("MULTIOP THEN PUT k v NX XX", "only one of NX, XX, IFREV, IFEQ and IFEPOCH can be given"),
        ("MULTIOP THEN DEL a b", "IF, THEN or ELSE is expected, not 'b'"),
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.starts_with(&format!("ERR syntax error: {why}")), "{line}: {error}");
        assert!(error.contains("nothing was applied; usage: MULTIOP [IF key REV"), "{line}: {error}");
    }
    for (line, error) in [
        ("MULTIOP IF k REV x", "ERR value is not an integer or out of range"),
        ("MULTIOP IF k REV -1", "ERR value is not an integer or out of range"),
        ("MULTIOP THEN INCRBY k x", "ERR value is not an integer or out of range"),
        ("MULTIOP THEN INCRBY k", "ERR value is not an integer or out of range"),
    ] {
        assert_eq!(parse(line).expect_err(line), error, "{line}");
    }
    let (key, value) = ("k".repeat(17), "v".repeat(65));
    for line in [format!("MULTIOP IF {key} PRESENT"), format!("MULTIOP THEN GET {key}")] {
        assert!(parse(&line).expect_err(&line).starts_with("TOOBIG max=16 the key"));
    }
    for line in [format!("MULTIOP IF k VALUE {value}"), format!("MULTIOP THEN PUT k {value}")] {
        assert!(parse(&line).expect_err(&line).starts_with("TOOBIG max=64 the value"));
    }
    // More parts than the state machine takes.
    let words = std::iter::once("MULTIOP").chain(["THEN", "INCR", "k"].into_iter().cycle().take(3 * 70_000));
    let error = Command::parse(&Args::from_words(words), &SIZES).expect_err("too many").to_string();
    assert!(error.contains("more than 65536 guards and operations"), "{error}");
}

#[test]
fn transaction_commands() {
    for (line, expected) in [
        ("MULTI", TransactionCommand::Multi),
        ("exec", TransactionCommand::Exec),
        ("DISCARD", TransactionCommand::Discard),
        ("WATCH a b", TransactionCommand::Watch(keys(&["a", "b"]))),
        ("UNWATCH", TransactionCommand::Unwatch),
    ] {
        assert_eq!(parse(line), Ok(Command::Transaction(expected)), "{line}");
    }
    for (line, write, frees) in [
        ("MULTIOP THEN GET k ELSE GET k", false, true),
        ("MULTIOP THEN GET k ELSE DEL k", true, true),
        ("MULTIOP THEN DEL k THEN PUT k v", true, false),
        ("MULTIOP IF k REV 1 ELSE INCR k", true, false),
    ] {
        assert_eq!((data(line).is_write(), data(line).frees()), (write, frees), "{line}");
    }
}

#[test]
fn many_keys_become_one_operation_each() {
    for (line, combine, operations) in [
        (
            "MGET a b",
            Combine::List,
            vec![
                ("a", Operation::Get { revision: false, stale: None }),
                ("b", Operation::Get { revision: false, stale: None }),
            ],
        ),
        ("DEL a b", Combine::Sum, vec![("a", Operation::Delete), ("b", Operation::Delete)]),
        (
            "MSET a 1 b 2",
            Combine::Ok,
            vec![("a", Operation::Put(Put::new("1".into()))), ("b", Operation::Put(Put::new("2".into())))],
        ),
    ] {
        let DataCommand::Many(many) = data(line) else { panic!("{line}") };
        assert_eq!((many.combine(), many.len()), (combine, 2));
        assert!(many.keys().eq(["a", "b"]));
        let expected: Vec<_> = operations
            .into_iter()
            .map(|(key, operation)| KeyOperation { key: Bytes::copy_from_slice(key.as_bytes()), operation })
            .collect();
        assert_eq!(many.into_operations().collect::<Vec<_>>(), expected, "{line}");
    }
}

#[test]
fn what_has_to_be_proposed() {
    for (line, write, frees) in [
        ("GET k", false, false),
        ("STRLEN k", false, false),
        ("MGET a b", false, false),
        ("EXISTS a b", false, false),
        ("DBSIZE", false, false),
        ("RANGE - +", false, false),
        ("SCAN 0", false, false),
        ("SET k v", true, false),
        ("MSET a 1 b 2", true, false),
        ("INCR k", true, false),
        ("CAS k a b", true, false),
        ("DEL k", true, true),
        ("DEL a b", true, true),
        ("GETDEL k", true, true),
    ] {
        assert_eq!((data(line).is_write(), data(line).frees()), (write, frees), "{line}");
    }
}

#[test]
fn lives() {
    let put = |until| Operation::Put(Put { until: Some(until), ..Put::new("v".into()) });
    let renew = |until, mortal, later, value| {
        one("k", Operation::Renew(Renew { until, when: When { mortal, later }, value }))
    };
    for (line, expected) in [
        ("SET k v EX 10", one("k", put(Until::In(10_000)))),
        ("SET k v px 10", one("k", put(Until::In(10)))),
        ("SET k v EXAT 10", one("k", put(Until::At(10_000)))),
        ("SET k v PXAT 10", one("k", put(Until::At(10)))),
        ("SETEX k 10 v", one("k", put(Until::In(10_000)))),
        ("PSETEX k 10 v", one("k", put(Until::In(10)))),
        ("EXPIRE k 10", renew(Some(Until::In(10_000)), None, None, false)),
        ("PEXPIRE k -1 nx", renew(Some(Until::In(-1)), Some(false), None, false)),
        ("EXPIREAT k 0 XX GT", renew(Some(Until::At(0)), Some(true), Some(true), false)),
        ("PEXPIREAT k 7 LT", renew(Some(Until::At(7)), None, Some(false), false)),
        ("PERSIST k", renew(None, Some(true), None, false)),
        ("GETEX k", one("k", Operation::Get { revision: false, stale: None })),
        ("GETEX k PERSIST", renew(None, None, None, true)),
        ("GETEX k PX 5", renew(Some(Until::In(5)), None, None, true)),
        ("TTL k", one("k", Operation::Rest { seconds: true, at: false })),
        ("PTTL k", one("k", Operation::Rest { seconds: false, at: false })),
        ("EXPIRETIME k", one("k", Operation::Rest { seconds: true, at: true })),
        ("PEXPIRETIME k", one("k", Operation::Rest { seconds: false, at: true })),
    ] {
        assert_eq!(data(line), expected, "{line}");
    }
    assert!(!data("GETEX k").is_write() && data("GETEX k PERSIST").is_write() && !data("TTL k").is_write());
    assert!(data("EXPIRE k 1").frees() && !data("PERSIST k").frees() && !data("SETEX k 1 v").frees());
}

#[test]
fn numbered_commands() {
    for line in [
        "SET k v REQ app-7.x_Y:12",
        "SET k v NX req app-7.x_Y:12 EX 10",
        "DEL k REQ app-7.x_Y:12",
        "DEL a b REQ app-7.x_Y:12",
        "UNLINK a b c REQ app-7.x_Y:12",
        "MSET a 1 REQ app-7.x_Y:12",
        "MSET a 1 b 2 REQ app-7.x_Y:12",
        "INCR k req app-7.x_Y:12",
        "DECRBY k 5 REQ app-7.x_Y:12",
        "APPEND k v REQ app-7.x_Y:12",
        "GETSET k v REQ app-7.x_Y:12",
        "GETDEL k REQ app-7.x_Y:12",
        "SETNX k v REQ app-7.x_Y:12",
        "CAS k a b REQ app-7.x_Y:12",
        "SETEX k 1 v REQ app-7.x_Y:12",
        "EXPIRE k 1 REQ app-7.x_Y:12",
        "EXPIRE k 1 REQ app-7.x_Y:12 NX",
        "PERSIST k REQ app-7.x_Y:12",
        "GETEX k EX 1 REQ app-7.x_Y:12",
    ] {
        let DataCommand::Once { req, command } = data(line) else { panic!("{line} is not numbered") };
        assert_eq!((&req.client[..], req.seq), (&b"app-7.x_Y"[..], 12), "{line}");
        let words = line.split(' ').collect::<Vec<_>>();
        let at = words.iter().position(|word| word.eq_ignore_ascii_case("REQ")).expect("there is one");
        let plain = [&words[..at], &words[at + 2..]].concat().join(" ");
        assert_eq!(*command, data(&plain), "{line}");
        assert!(data(line).is_write());
    }
    let print = |line: &str| match data(line) {
        DataCommand::Once { req, .. } => req.print,
        other => panic!("{other:?}"),
    };
    assert_eq!(print("SET k v REQ a:1 NX"), print("set k v NX REQ a:2"), "the same is asked");
    assert_ne!(print("SET k v REQ a:1"), print("SET k w REQ a:1"));
    assert_ne!(print("APPEND ab c REQ a:1"), print("APPEND a bc REQ a:1"));
    // Where any number of keys may come, only the capitals make the option, and a key comes first.
    for (line, expected) in [("DEL a req b:1", &["a", "req", "b:1"][..]), ("DEL REQ b:1", &["REQ", "b:1"])] {
        assert_eq!(data(line), DataCommand::Many(ManyKeys::Delete(keys(expected))), "{line}");
    }
}

#[test]
fn fenced_commands() {
    for line in [
        "SET k v FENCE 7",
        "SET k v NX fence 7 EX 10",
        "DEL k FENCE 7",
        "DEL a b FENCE 7",
        "UNLINK a b c FENCE 7",
        "MSET a 1 FENCE 7",
        "MSET a 1 b 2 FENCE 7",
        "INCR k fence 7",
        "DECRBY k 5 FENCE 7",
        "APPEND k v FENCE 7",
        "GETDEL k FENCE 7",
        "SETNX k v FENCE 7",
        "CAS k a b FENCE 7",
        "SETEX k 1 v FENCE 7",
        "EXPIRE k 1 FENCE 7",
        "PERSIST k FENCE 7",
        "GETEX k EX 1 FENCE 7",
    ] {
        let DataCommand::Fenced { token: 7, command } = data(line) else { panic!("{line} is not fenced") };
        let words = line.split(' ').collect::<Vec<_>>();
        let at = words.iter().position(|word| word.eq_ignore_ascii_case("FENCE")).expect("there is one");
        let plain = [&words[..at], &words[at + 2..]].concat().join(" ");
        assert_eq!(*command, data(&plain), "{line}");
        assert!(data(line).is_write());
        for numbered in [format!("{line} REQ a:1"), line.replacen(" FENCE", " REQ a:1 FENCE", 1)] {
            let DataCommand::Once { command, .. } = data(&numbered) else { continue };
            assert_eq!(*command, data(line), "{numbered}");
        }
    }
    assert!(data("DEL k FENCE 7").frees() && !data("PUT k v FENCE 7").frees());
    // Where any number of keys may come, only the capitals make the option, and a key comes first.
    for (line, expected) in [("DEL a fence 7", &["a", "fence", "7"][..]), ("DEL FENCE 7", &["FENCE", "7"])] {
        assert_eq!(data(line), DataCommand::Many(ManyKeys::Delete(keys(expected))), "{line}");
    }
    for line in ["PUT k v FENCE 0", "PUT k v FENCE x", "PUT k v FENCE -1", "DEL k FENCE x"] {
        let error = refusal(line);
        assert!(error.starts_with("ERR FENCE needs a token from 1 on"), "{line}: {error}");
    }
    assert!(refusal("PUT k v FENCE 1 FENCE 2").contains("FENCE can be given once"));
    assert!(refusal("GETEX k FENCE 1").contains("FENCE is for commands that write"));
    assert!(refusal("GET k FENCE 1").contains("not expected"));
}

#[test]
fn epochs_and_fences_in_one_request() {
    assert_eq!(data("EPOCH k"), one("k", Operation::Epoch));
    let transaction = |line: &str| match data(line) {
        DataCommand::Transaction(transaction) => transaction,
        other => panic!("{line}: {other:?}"),
    };
    let found = transaction(
        "MULTIOP IF k EPOCH 3 IF k FENCE 7 THEN PUT k v FENCE 7 THEN DEL l FENCE 7 THEN INCR n ELSE EPOCH k",
    );
    let conditions: Vec<_> = found.guards.iter().map(|guard| guard.condition.clone()).collect();
    assert_eq!(conditions, [Condition::Epoch(3), Condition::Fence(7)]);
    assert_eq!(found.then, ["PUT k v FENCE 7", "DEL l FENCE 7", "INCR n"].map(data));
    assert_eq!(found.otherwise, ["EPOCH k"].map(data));
    let DataCommand::Once { req, command } = data("MULTIOP THEN PUT k v THEN INCR n REQ a:1") else {
        panic!("not numbered")
    };
    assert_eq!((&req.client[..], *command), (&b"a"[..], data("MULTIOP THEN PUT k v THEN INCR n")));
    assert!(refusal("MULTIOP THEN GET k FENCE 7").contains("FENCE is for commands that write"));
    assert!(refusal("MULTIOP THEN GET k REQ a:1").contains("REQ is for commands that write"));
}

#[test]
fn every_refusal_has_its_words() {
    let set = "SET key value [NX | XX | IFREV revision | IFEQ value | IFEPOCH epoch] [GET | REV] \
               [EX s | PX ms | EXAT unix-s | PXAT unix-ms | KEEPTTL] [FENCE token] [REQ client:seq]";
    let req = "ERR REQ needs client:seq, as in REQ app-7:42; client is 1 to 64 of A-Z a-z 0-9 . _ - and seq counts \
               from 1; nothing was applied";
    for (line, expected) in [
        ("GET", "ERR wrong number of arguments for 'get' command; usage: GET key [REV] [STALE milliseconds]"),
        (
            "INCR a b",
            "ERR wrong number of arguments for 'incr' command; usage: INCR key [FENCE token] [REQ client:seq]",
        ),
        (
            "MSET a 1 b",
            "ERR wrong number of arguments for 'mset' command; usage: MSET key value [key value ...] [FENCE token] [REQ client:seq]",
        ),
        ("PING a b", "ERR wrong number of arguments for 'ping' command; usage: PING [message]"),
        ("CLIENT", "ERR wrong number of arguments for 'client' command; usage: CLIENT subcommand ..."),
        (
            "CLIENT SETNAME",
            "ERR wrong number of arguments for 'client|setname' command; usage: CLIENT SETNAME name",
        ),
        (
            "SET k v FOO",
            &format!("ERR syntax error: 'FOO' is not expected here; nothing was applied; usage: {set}"),
        ),
        (
            "SET k v NX XX",
            &format!(
                "ERR syntax error: only one of NX, XX, IFREV, IFEQ and IFEPOCH can be given; nothing was applied; usage: {set}"
            ),
        ),
        (
            "SET k v IFREV 1 IFREV 2",
            &format!(
                "ERR syntax error: only one of NX, XX, IFREV, IFEQ and IFEPOCH can be given; nothing was applied; usage: {set}"
            ),
        ),
        (
            "SET k v GET REV",
            &format!(
                "ERR syntax error: only one of GET and REV can be given; nothing was applied; usage: {set}"
            ),
        ),
        ("SET k v IFEQ", &format!("ERR syntax error: IFEQ needs a value; nothing was applied; usage: {set}")),
        ("SET k v IFREV", "ERR value is not an integer or out of range"),
        ("SET k v IFREV -1", "ERR value is not an integer or out of range"),
        ("GET k STALE", "ERR value is not an integer or out of range"),
        ("GET k STALE -5", "ERR value is not an integer or out of range"),
        ("GET k STALE 1s", "ERR value is not an integer or out of range"),
        ("SET k v EX 0", "ERR invalid expire time in 'set' command"),
        ("put k v pxat -1", "ERR invalid expire time in 'put' command"),
        ("SET k v EX 9223372036854775807", "ERR invalid expire time in 'set' command"),
        ("SET k v PX 1.5", "ERR value is not an integer or out of range"),
        ("SET k v PX", &format!("ERR syntax error: PX needs a time; nothing was applied; usage: {set}")),
        (
            "SET k v EX 1 PX 2",
            &format!(
                "ERR syntax error: only one of EX, PX, EXAT, PXAT and KEEPTTL can be given; nothing was applied; usage: {set}"
            ),
        ),
        (
            "SET k v KEEPTTL EX 1",
            &format!(
                "ERR syntax error: only one of EX, PX, EXAT, PXAT and KEEPTTL can be given; nothing was applied; usage: {set}"
            ),
        ),
        ("SETEX k 0 v", "ERR invalid expire time in 'setex' command"),
        ("PSETEX k x v", "ERR value is not an integer or out of range"),
        ("EXPIRE k x", "ERR value is not an integer or out of range"),
        ("EXPIRE k 9223372036854775807", "ERR invalid expire time in 'expire' command"),
        ("PEXPIREAT k -9223372036854775808", "ERR invalid expire time in 'pexpireat' command"),
        ("EXPIRE k 1 FOO", "ERR Unsupported option FOO"),
        ("EXPIRE k 1 NX GT", "ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE k 1 XX NX", "ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE k 1 gt lt", "ERR GT and LT options at the same time are not compatible"),
        (
            "GETEX k EX 1 PERSIST",
            "ERR syntax error: only one of EX, PX, EXAT, PXAT and PERSIST can be given; nothing was applied; usage: \
             GETEX key [EX s | PX ms | EXAT unix-s | PXAT unix-ms | PERSIST] [FENCE token] [REQ client:seq]",
        ),
        ("GETEX k PX 0", "ERR invalid expire time in 'getex' command"),
        (
            "GETEX k REQ a:1",
            "ERR syntax error: REQ is for commands that write; nothing was applied; usage: \
             GETEX key [EX s | PX ms | EXAT unix-s | PXAT unix-ms | PERSIST] [FENCE token] [REQ client:seq]",
        ),
        ("SET k v REQ", req),
        ("SET k v REQ a", req),
        ("SET k v REQ a:0", req),
        ("SET k v REQ a:01", req),
        ("SET k v REQ :1", req),
        ("SET k v REQ a/b:1", req),
        ("INCR k REQ a:-1", req),
        ("DEL k REQ a:x", req),
        (
            "SET k v REQ a:1 REQ a:1",
            &format!("ERR syntax error: REQ can be given once; nothing was applied; usage: {set}"),
        ),
        ("STRLEN k REQ a:1", "ERR wrong number of arguments for 'strlen' command; usage: STRLEN key"),
        (
            "GET k REQ a:1",
            "ERR syntax error: 'REQ' is not expected here; nothing was applied; usage: GET key [REV] [STALE milliseconds]",
        ),
        (
            "GET k v",
            "ERR syntax error: 'v' is not expected here; nothing was applied; usage: GET key [REV] [STALE milliseconds]",
        ),
        ("RANGE a b LIMIT 0", "ERR LIMIT must be between 1 and 10000; use AFTER for more"),
        ("RANGE a b LIMIT x", "ERR value is not an integer or out of range"),
        ("SCAN 1", "ERR invalid cursor; a scan begins with cursor 0"),
        (
            "SCAN 0 COUNT 0",
            "ERR syntax error: COUNT must be at least 1; nothing was applied; usage: SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]",
        ),
        ("INCRBY k 1.5", "ERR value is not an integer or out of range"),
        ("INCRBY k 9223372036854775808", "ERR value is not an integer or out of range"),
        ("DECRBY k -9223372036854775808", "ERR decrement would overflow"),
        (
            "GET 12345678901234567",
            "TOOBIG max=16 the key has 17 bytes; nothing was applied; the limit is limits.max_key in config.toml",
        ),
        ("SELECT 1", "ERR DB index is out of range"),
        ("SELECT x", "ERR value is not an integer or out of range"),
        ("HELLO 4", "NOPROTO unsupported protocol version"),
        ("HELLO x", "ERR Protocol version is not an integer or out of range"),
        ("HELLO 3 AUTH x", "ERR Syntax error in HELLO option 'AUTH'"),
        ("HELLO 3 FOO", "ERR Syntax error in HELLO option 'FOO'"),
        ("AUTH a b c", "ERR syntax error"),
        ("CLIENT SETNAME a\u{7}b", "ERR Client names cannot contain spaces, newlines or special characters."),
        ("CLIENT SETINFO lib-foo x", "ERR Unrecognized option 'lib-foo'"),
        (
            "CLIENT SETINFO LIB-VER \u{1}",
            "ERR lib-ver cannot contain spaces, newlines or special characters.",
        ),
        (
            "CLIENT REPLY OFF",
            "ERR syntax error: 'OFF' is not expected here; nothing was applied; usage: CLIENT REPLY ON",
        ),
        (
            "CLIENT TRACKING ON",
            "ERR unknown subcommand 'TRACKING': replies are not cached for clients; SUBSCRIBEKV tells changes of keys; \
             nothing was applied. Try HELP CLIENT.",
        ),
        ("CLIENT KILL ID 0", "ERR client-id should be greater than 0"),
        (
            "CLIENT KILL ID 1 FOO",
            "ERR syntax error: a filter needs a value; nothing was applied; usage: CLIENT KILL address | [ID id] [ADDR \
             address] [LADDR address] [SKIPME yes | no]",
        ),
        ("CLIENT GETNAMES", "ERR unknown subcommand 'GETNAMES'. Did you mean CLIENT GETNAME?"),
        (
            "CONFIG SET a b",
            "ERR settings are not changed by clients; nothing was changed; edit config.toml, check it with `pelago config check`, and have it read again with `pelago admin reload`",
        ),
        (
            "STATUS XML",
            "ERR syntax error: 'XML' is not expected here; nothing was applied; usage: STATUS [JSON]",
        ),
        (
            "CLIENT REDIRECT MAYBE",
            "ERR syntax error: 'MAYBE' is not expected here; nothing was applied; usage: CLIENT REDIRECT ON | OFF",
        ),
        ("CLUSTER COUNTKEYSINSLOT 16384", "ERR Invalid slot"),
        ("CLUSTER GETKEYSINSLOT 1 -1", "ERR Invalid slot or number of keys"),
        ("GETRANGE k 0 x", "ERR value is not an integer or out of range"),
        (
            "flushall",
            "ERR unknown command 'flushall': deleting everything at once is not supported; nothing was applied; \
             HELP lists all commands",
        ),
        ("COMMAND GETKEYS FOO a", "ERR Invalid command specified"),
        ("COMMAND GETKEYS PING a", "ERR The command has no key arguments"),
        ("COMMAND GETKEYS GETSET a", "ERR Invalid number of arguments specified for command"),
        ("GTE k", "ERR unknown command 'GTE', with args beginning with: 'k' ; did you mean 'get'?"),
        (
            "FOOBARBAZ a\rb c",
            "ERR unknown command 'FOOBARBAZ', with args beginning with: 'a b' 'c' ; HELP lists all commands",
        ),
        (
            "subscribe c",
            "ERR unknown command 'subscribe': there are no channels; SUBSCRIBEKV tells changes of keys; nothing was applied; HELP \
             lists all commands",
        ),
        ("HELP GTE", "ERR unknown command 'GTE', with args beginning with: ; did you mean 'get'?"),
    ] {
        assert_eq!(parse(line).expect_err(line), expected, "{line}");
    }
    let value = "v".repeat(65);
    let too_big = "TOOBIG max=64 the value has 65 bytes; nothing was applied; the limit is limits.max_value in config.toml";
    for line in ["SET k", "MSET a 1 b", "APPEND k", "GETSET k", "SETNX k", "CAS k a"] {
        assert_eq!(parse(&format!("{line} {value}")).expect_err(line), too_big, "{line}");
    }
}

#[test]
fn an_unknown_command_with_much_behind_it_gets_a_short_answer() {
    let args = Args::from_words(std::iter::repeat_n("x".repeat(5000), 1000));
    let error = Command::parse(&args, &SIZES).expect_err("unknown").to_string();
    assert!(error.len() < 800, "{} bytes", error.len());
}

fn filter() -> KillFilter {
    KillFilter { id: None, peer: None, local: None, skip_me: true, plain: false }
}

#[test]
fn node_commands() {
    for (line, expected) in [
        ("INFO", NodeCommand::Info(vec![])),
        ("INFO Server REPLICATION", NodeCommand::Info(vec!["server".into(), "replication".into()])),
        ("STATUS", NodeCommand::Status { json: false }),
        ("status json", NodeCommand::Status { json: true }),
        ("WHERE k", NodeCommand::Where("k".into())),
        ("ADMIN CHECKPOINT", NodeCommand::Admin { verify: false, group: None }),
        ("admin verify GROUP 7", NodeCommand::Admin { verify: true, group: Some(GroupId(7)) }),
        ("CLIENT LIST", NodeCommand::ClientList),
        ("CLUSTER SLOTS", NodeCommand::ClusterSlots),
        ("CLUSTER SHARDS", NodeCommand::ClusterShards),
        ("CLUSTER NODES", NodeCommand::ClusterNodes),
        ("CLUSTER INFO", NodeCommand::ClusterInfo),
        ("CLUSTER MYID", NodeCommand::ClusterMyId),
        ("CLUSTER COUNTKEYSINSLOT 16383", NodeCommand::ClusterCountKeysInSlot(Slot(16383))),
        ("CLUSTER GETKEYSINSLOT 7 99999", NodeCommand::ClusterGetKeysInSlot(Slot(7), 10_000)),
        (
            "CLIENT KILL 127.0.0.1:5",
            NodeCommand::ClientKill(KillFilter {
                peer: Some("127.0.0.1:5".into()),
                skip_me: false,
                plain: true,
                ..filter()
            }),
        ),
        ("CLIENT KILL ID 7", NodeCommand::ClientKill(KillFilter { id: Some(7), ..filter() })),
        (
            "CLIENT KILL ADDR a:1 LADDR b:2 SKIPME no",
            NodeCommand::ClientKill(KillFilter {
                peer: Some("a:1".into()),
                local: Some("b:2".into()),
                skip_me: false,
                ..filter()
            }),
        ),
    ] {
        assert_eq!(parse(line), Ok(Command::Node(expected)), "{line}");
    }
}

/// A connection to a server with or without a password.
struct Client {
    session: Session,
    password: Option<&'static str>,
    settings: Vec<(String, String)>,
}

impl Client {
    fn new(password: Option<&'static str>) -> Client {
        let settings = [("save", ""), ("appendonly", "yes"), ("paxos.window", "256")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let server = ServerInfo { version: "0.1.0", password, settings: &[], now: Duration::from_secs(1000) };
        let session = Session::new(7, "127.0.0.1:5000".to_owned(), "127.0.0.1:7001".to_owned(), &server);
        Client { session, password, settings }
    }

    /// The reply as it goes over the wire.
    fn ask(&mut self, line: &str) -> String {
        let server = ServerInfo {
            version: "0.1.0",
            password: self.password,
            settings: &self.settings,
            now: Duration::new(1042, 5_000),
        };
        let command = match Command::parse(&Args::from_words(line.split(' ')), &SIZES) {
            Ok(command) => command,
            Err(error) => return error.to_string(),
        };
        let reply = match (self.session.admit(&command), &command) {
            (Err(error), _) => error.into(),
            (Ok(()), Command::Local(local)) => self.session.local(local, &server),
            (Ok(()), other) => panic!("{other:?} is not for the session"),
        };
        let bytes = reply.to_bytes(self.session.version());
        String::from_utf8(bytes.to_vec()).expect("text")
    }
}

#[test]
fn a_conversation() {
    let mut client = Client::new(None);
    for (line, expected) in [
        ("PING", "+PONG\r\n"),
        ("PING hi", "$2\r\nhi\r\n"),
        ("ECHO hi", "$2\r\nhi\r\n"),
        ("SELECT 0", "+OK\r\n"),
        ("READONLY", "+OK\r\n"),
        ("CLIENT ID", ":7\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
        ("CLIENT SETNAME ann", "+OK\r\n"),
        ("CLIENT GETNAME", "$3\r\nann\r\n"),
        ("CLIENT SETINFO lib-name redis-py", "+OK\r\n"),
        ("CLIENT SETINFO LIB-VER 8.0", "+OK\r\n"),
        ("CLIENT NO-EVICT ON", "+OK\r\n"),
        ("CLIENT REDIRECT ON", "+OK\r\n"),
        ("ASKING", "+OK\r\n"),
        ("CLIENT REPLY ON", "+OK\r\n"),
        ("CONFIG GET save appendonly", "*4\r\n$4\r\nsave\r\n$0\r\n\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n"),
        ("CONFIG GET PAXOS.*", "*2\r\n$12\r\npaxos.window\r\n$3\r\n256\r\n"),
        ("CONFIG GET nothing", "*0\r\n"),
        ("CLUSTER KEYSLOT foo", ":12182\r\n"),
        ("TIME", "*2\r\n$4\r\n1042\r\n$1\r\n5\r\n"),
        ("COMMAND GETKEYS MSET a 1 b 2", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("COMMAND LIST FILTERBY PATTERN g*et", "*2\r\n$3\r\nget\r\n$6\r\ngetset\r\n"),
        ("COMMAND INFO nothing", "*1\r\n*-1\r\n"),
        (
            "COMMAND INFO get",
            "*1\r\n*10\r\n$3\r\nget\r\n:-2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n\
             *3\r\n+@read\r\n+@string\r\n+@fast\r\n*0\r\n*0\r\n*0\r\n",
        ),
        ("HELP STRLEN", "$36\r\nSTRLEN key   The length of a value.\n\r\n"),
        (
            "AUTH x",
            "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n",
        ),
        ("AUTH default x", "+OK\r\n"),
    ] {
        assert_eq!(client.ask(line), expected, "{line}");
    }
    let line = "id=7 addr=127.0.0.1:5000 laddr=127.0.0.1:7001 name=ann age=42 db=0 resp=2 user=default lib-name=redis-py lib-ver=8.0 redirect=on";
    assert!(client.ask("CLIENT INFO").contains(line));
    let hello = client.ask("HELLO 3 SETNAME bob");
    assert!(
        hello.starts_with("%7\r\n$6\r\nserver\r\n$6\r\npelago\r\n")
            && hello.contains("$5\r\nproto\r\n:3\r\n"),
        "{hello}"
    );
    assert_eq!(client.session.version(), Version::Resp3);
    assert_eq!(client.ask("CLIENT GETNAME"), "$3\r\nbob\r\n");
    assert_eq!(client.ask("RESET"), "+RESET\r\n");
    assert_eq!(client.ask("CLIENT GETNAME"), "$-1\r\n");
    assert!(!client.session.redirects(), "a connection that is used again begins anew");
    assert!(!client.session.is_closing());
    assert_eq!(client.ask("QUIT"), "+OK\r\n");
    assert!(client.session.is_closing());
}

#[test]
fn nothing_without_the_password() {
    let mut client = Client::new(Some("secret"));
    for (line, expected) in [
        ("PING", "-NOAUTH Authentication required.\r\n"),
        ("COMMAND", "-NOAUTH Authentication required.\r\n"),
        ("AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ("AUTH secre", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ("AUTH secretsecret", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ("AUTH ", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ("AUTH root secret", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ("PING", "-NOAUTH Authentication required.\r\n"),
        ("AUTH secret", "+OK\r\n"),
        ("PING", "+PONG\r\n"),
        ("RESET", "+RESET\r\n"),
        ("PING", "-NOAUTH Authentication required.\r\n"),
    ] {
        assert_eq!(client.ask(line), expected, "{line}");
    }
    assert!(client.ask("HELLO 3").starts_with("-NOAUTH HELLO must be called"));
    assert_eq!(client.session.version(), Version::Resp2);
    assert!(client.ask("HELLO 3 AUTH default secret").starts_with("%7\r\n"));
    assert!(client.session.is_authenticated());
    let command = parse("AUTH secret");
    assert!(!format!("{command:?}").contains("secret"));
}

#[test]
fn the_table_answers_for_every_command() {
    let mut client = Client::new(None);
    client.ask("HELLO 3");
    assert_eq!(client.ask("COMMAND COUNT"), format!(":{}\r\n", COMMANDS.len()));
    assert!(client.ask("COMMAND").starts_with(&format!("*{}\r\n*10\r\n", COMMANDS.len())));
    assert!(client.ask("COMMAND DOCS").starts_with(&format!("%{}\r\n", COMMANDS.len())));
    assert!(client.ask("COMMAND DOCS client nothing").contains("client|setname"));
    let help = client.ask("HELP");
    for spec in COMMANDS {
        assert!(help.contains(&format!("  {}", spec.name.to_uppercase())), "{} is not in HELP", spec.name);
        assert!(client.ask(&format!("HELP {}", spec.name)).contains(spec.summary));
        assert_eq!(nearest(spec.name, COMMANDS.iter().map(|spec| spec.name)), Some(spec.name));
    }
}

#[test]
fn arity_in_the_table_is_arity_in_the_parser() {
    for spec in COMMANDS.iter().filter(|spec| spec.subcommands.is_empty()) {
        for words in 1..8 {
            let line = [vec![spec.name], vec!["1"; words - 1]].concat().join(" ");
            let wrong_arity = parse(&line).is_err_and(|error| error.contains("wrong number of arguments"));
            assert!(spec.admits(words) || wrong_arity, "{line} is too short or too long");
        }
    }
    assert!(find(b"PuT").is_some());
}

#[test]
fn help_is_text_that_people_can_read() {
    let Ok(Command::Local(help)) = parse("help") else { panic!("help") };
    let mut client = Client::new(None);
    let server = ServerInfo { version: "", password: None, settings: &[], now: Duration::ZERO };
    let Reply::Text(text) = client.session.local(&help, &server) else { panic!("a text") };
    let text = String::from_utf8(text.to_vec()).expect("UTF-8");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");

    let chapter = client.ask("HELP @transactions");
    assert!(
        chapter.contains("MULTI ") && chapter.contains("WATCH key") && !chapter.contains("GETSET"),
        "{chapter}"
    );
    let compat = client.ask("help compat");
    for line in
        ["  GETSET                   same", "CLUSTER SHARDS", "absent: every value is a string", " LPUSH "]
    {
        assert!(compat.contains(line), "{line}: {compat}");
    }
    for parent in ["CLIENT", "CLUSTER", "COMMAND", "CONFIG"] {
        assert_eq!(client.ask(&format!("{parent} HELP")), client.ask(&format!("HELP {parent}")));
    }
}

proptest! {
    #[test]
    fn any_words_are_answered(
        name in prop::sample::select(COMMANDS.iter().map(|spec| spec.name).collect::<Vec<_>>()),
        words in prop::collection::vec("[a-zA-Z0-9-]{0,20}|NX|GET|REV|IFREV|LIST|INFO|DOCS|AUTH|2", 0..8),
    ) {
        let words = std::iter::once(name.to_owned()).chain(words);
        match Command::parse(&Args::from_words(words), &SIZES) {
            Ok(Command::Local(local)) => {
                let server = ServerInfo { version: "", password: None, settings: &[], now: Duration::ZERO };
                let mut session = Session::new(1, String::new(), String::new(), &server);
                prop_assert!(!session.local(&local, &server).to_bytes(Version::Resp3).is_empty());
            }
            Ok(_) => {}
            Err(error) => prop_assert!(!error.to_string().contains(['\r', '\n'])),
        }
    }
}
