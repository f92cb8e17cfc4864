//! The fuzz targets' entry points on stable Rust: seeds, their beginnings, random bytes, damaged
//! seeds. The memory they take is bounded.

#[path = "../../fuzz/support.rs"]
mod support;

use bytes::Bytes;
use groups::fuzz;
use groups::ids::{Ballot, Boot, InstanceId, NodeId, Slot, StorageId};
use groups::kv::value::{Batch, check, lead, noop};
use groups::kv::{
    Change, Command, Condition, Failure, Guard, InSlot, Outcome, Page, Point, Range, Since, StateHash, Sum,
    Ticket, Transaction, Verdict, Walk, Want,
};
use groups::paxos::message::{
    Accept, Accepted, Advance, AdvanceReply, Learn, Mark, Message, Prepare, Probe, ProbeReply, Promise,
    Reject, Report, Then, Transfer, Values,
};
use groups::peers::Tenure;
use groups::time::Time;
use support::Entry;

const PAXOS: Entry = Entry { name: "paxos_message", run: fuzz::paxos_message, base: 4096, times: 32 };
const COMMAND: Entry = Entry { name: "command", run: fuzz::command, base: 4096, times: 64 };
const OUTCOME: Entry = Entry { name: "outcome", run: fuzz::outcome, base: 4096, times: 64 };
const VALUE: Entry = Entry { name: "value", run: fuzz::value, base: 16 << 10, times: 128 };
/// Images of a log of up to a dozen segments, several times over.
const LOG: Entry = Entry { name: "log_record", run: fuzz::log_image, base: 2 << 20, times: 1024 };
const DAMAGE: Entry = Entry { name: "log_damage", run: fuzz::log_damage, base: 2 << 20, times: 1024 };

#[test]
fn paxos_message() {
    PAXOS.drive(20_000);
}

#[test]
fn command() {
    COMMAND.drive(20_000);
}

#[test]
fn outcome() {
    OUTCOME.drive(20_000);
}

#[test]
fn value() {
    VALUE.drive(20_000);
}

#[test]
fn log_image() {
    LOG.drive(5000);
}

#[test]
fn log_damage() {
    DAMAGE.drive(5000);
}

fn messages() -> Vec<Message> {
    let ballot = Ballot { round: 3, node: NodeId(2) };
    let (instance, chosen, from) = (InstanceId(9), InstanceId(8), InstanceId(7));
    let mark = Mark { instance, chain: 0x1122_3344 };
    let voter = StorageId(0x5566_7788);
    let entry = |n, value: &'static [u8]| groups::paxos::message::Entry {
        instance: InstanceId(n),
        ballot,
        value: value.into(),
    };
    let entries = vec![entry(9, b"a"), entry(10, b""), entry(11, b"a longer value")];
    vec![
        Message::Probe(Probe { attempt: 1, chosen, life: Boot(3), renounced: ballot }),
        Message::ProbeReply(ProbeReply {
            attempt: 1,
            granted: true,
            promised: ballot,
            life: Boot(3),
            renounced: ballot,
        }),
        Message::Prepare(Prepare { ballot, from, consent: ballot }),
        Message::Promise(Promise {
            ballot,
            voter,
            changed: from,
            chosen,
            part: 0,
            parts: 2,
            entries: entries.clone(),
        }),
        Message::Accept(Accept { ballot, instance, mark, value: "value".into() }),
        Message::Accepted(Accepted { ballot, voter, first: from, last: instance, chosen }),
        Message::Reject(Reject { refused: Ballot::ZERO, promised: ballot }),
        Message::Advance(Advance { ballot, mark, barrier: 4, asked: Time::from_nanos(5), life: Boot(3) }),
        Message::AdvanceReply(AdvanceReply { ballot, voter, chosen, barrier: 4, tenure: Tenure(9) }),
        Message::Learn(Learn { session: 1 << 32 | 1, from, credit: 1 << 20 }),
        Message::Values(Values { session: 1 << 32 | 1, first: instance, then: Then::More, entries }),
        Message::Values(Values { session: 2, first: instance, then: Then::End, entries: Vec::new() }),
        Message::Values(Values {
            session: 3,
            first: from,
            then: Then::Begins(instance),
            entries: Vec::new(),
        }),
        Message::Transfer(Transfer { ballot }),
        Message::Report(Report { point: point() }),
    ]
}

fn point() -> Point {
    Point { instance: InstanceId(8), sum: Sum { hash: StateHash::from_bytes([6; 32]), rest: 7 } }
}

fn commands() -> Vec<Command> {
    let key = || Bytes::from_static(b"key");
    let keys = || vec![key(), Bytes::new(), "other".into()];
    let put = |condition, want| Command::Put { key: key(), value: "7".into(), condition, want };
    vec![
        Command::Get { key: key() },
        Command::GetMany { keys: keys() },
        Command::Exists { keys: keys() },
        Command::Count,
        Command::Length { key: key() },
        Command::Scan(Range { from: key(), to: Some("l".into()), limit: 5, max_bytes: 99, values: true }),
        Command::InSlot(InSlot { slot: Slot(7), from: key(), limit: 5 }),
        Command::Walk(Walk { from: 7, limit: 5, max_bytes: 99 }),
        Command::Changes(Since { after: Some(7), prefix: key(), max_bytes: 99 }),
        put(Condition::None, Want::Done),
        put(Condition::Absent, Want::Revision),
        put(Condition::Revision(1), Want::Previous),
        put(Condition::Value("7".into()), Want::Done),
        Command::PutMany { pairs: vec![(key(), "1".into()), ("other".into(), Bytes::new())] },
        Command::Add { key: key(), delta: -5 },
        Command::Append { key: key(), value: "tail".into(), max: 64 },
        Command::Cas { key: key(), old: "7".into(), new: "8".into() },
        Command::Take { key: key() },
        Command::Delete { keys: keys() },
        Command::Transaction(Transaction {
            guards: vec![
                Guard { key: key(), condition: Condition::Absent },
                Guard { key: "other".into(), condition: Condition::Value("7".into()) },
            ],
            then: vec![put(Condition::None, Want::Revision), Command::Take { key: "other".into() }],
            otherwise: vec![Command::Add { key: key(), delta: 1 }, Command::Get { key: key() }],
            max: 4096,
        }),
        Command::Transaction(Transaction {
            guards: vec![Guard { key: key(), condition: Condition::Revision(1) }],
            then: vec![Command::GetMany { keys: keys() }, Command::Count],
            otherwise: vec![],
            max: 4096,
        }),
        Command::Revisions { keys: keys() },
    ]
}

fn values() -> Vec<Bytes> {
    let ticket = |number, behind| Ticket { node: NodeId(1), boot: Boot(2), number, behind };
    let mut all = Batch::new();
    for (n, command) in (1..).zip(commands()) {
        all.push(ticket(n, 2.min(n as u32 - 1)), &command.to_bytes());
    }
    let mut odd = Batch::new();
    for (number, behind) in [(1, 0), (3, 2), (1, 0), (2, 0), (1, 1)] {
        odd.push(ticket(number, behind), &Command::Add { key: "n".into(), delta: 1 }.to_bytes());
    }
    let checks = [None, Some(Verdict::Agreed(point())), Some(Verdict::Split(InstanceId(8)))].map(check);
    let batches = [Batch::new().finish(), all.finish(), odd.finish()];
    [noop(), lead(NodeId(3))].into_iter().chain(batches).chain(checks).collect()
}

#[test]
#[ignore = "writes fuzz/seeds"]
fn write_seeds() {
    let message = |message: &Message| {
        let mut head = Vec::new();
        let (kind, payload) = groups::paxos::codec::encode(message, &mut head);
        [&[kind], &head[..], &payload].concat()
    };
    PAXOS.write_seeds(&messages().iter().map(message).collect::<Vec<_>>());
    COMMAND.write_seeds(&commands().iter().map(|command| command.to_bytes().to_vec()).collect::<Vec<_>>());
    VALUE.write_seeds(&values().iter().map(|value| value.to_vec()).collect::<Vec<_>>());
    let outcomes = [
        Outcome::Done,
        Outcome::Revision(3),
        Outcome::Integer(-1),
        Outcome::Value(None),
        Outcome::Value(Some(("value".into(), 2))),
        Outcome::Values(vec![None, Some(Bytes::new()), Some("value".into())]),
        Outcome::Failed(Failure::TooLong(9)),
        Outcome::Page(Page {
            items: vec![("key".into(), Some("value".into())), ("other".into(), None)],
            next: Some("third".into()),
            large: true,
        }),
        Outcome::Walked { keys: vec!["key".into(), Bytes::new()], next: Some(7) },
        Outcome::InSlot { count: 9, keys: vec!["key".into(), Bytes::new()], next: Some("l".into()) },
        Outcome::Changes {
            changes: vec![
                Change { revision: 7, key: "key".into(), value: Some("value".into()) },
                Change { revision: 8, key: "key".into(), value: None },
            ],
            through: 9,
        },
        Outcome::Compacted { min: 7 },
        Outcome::Retired,
        Outcome::Transaction {
            met: false,
            outcomes: vec![Outcome::Unmet, Outcome::Value(Some(("value".into(), 2))), Outcome::Integer(3)],
        },
        Outcome::Revisions(vec![0, 7]),
        Outcome::Failed(Failure::AnswerTooLong(9)),
    ];
    let encoded = |outcome: &Outcome| {
        let mut bytes = Vec::new();
        outcome.encode(&mut bytes);
        bytes
    };
    OUTCOME.write_seeds(&outcomes.iter().map(encoded).collect::<Vec<_>>());

    // Decisions, not bytes of a log: enough of them for a few commits and changes.
    let decisions = |seed: u64, length: usize| -> Vec<u8> {
        let mut random = groups::random::Random::new(seed);
        (0..length).map(|_| random.next_u64() as u8).collect()
    };
    let logs: Vec<Vec<u8>> =
        (0..12).map(|n| [&[n as u8, 12][..], &decisions(n, 60 + 20 * n as usize)].concat()).collect();
    LOG.write_seeds(&logs);
    DAMAGE.write_seeds(&logs.iter().map(|log| log[1..].to_vec()).collect::<Vec<_>>());
}
