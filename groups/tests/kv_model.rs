//! The state machine against a simple model, step by step: outcomes, contents, revisions, sizes,
//! and the running hash against the one computed anew.

use std::collections::BTreeMap;

use bytes::Bytes;
use groups::ids::{Boot, InstanceId, NodeId};
use groups::kv::session::{Admission, MAX_OPEN, Sessions};
use groups::kv::value::{Batch, lead, noop};
use groups::kv::{Command, Condition, Failure, Guard, Outcome, State, Ticket, Transaction, Want};
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

/// What the state should be, written as plainly as it can be.
#[derive(Default)]
struct Model {
    items: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    revision: u64,
}

impl Model {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.revision += 1;
        self.items.insert(key.to_vec(), (value.to_vec(), self.revision));
    }

    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.items.get(key).map(|(value, _)| &value[..])
    }

    fn pair(&self, key: &[u8]) -> Option<(Bytes, u64)> {
        self.items.get(key).map(|(value, revision)| (Bytes::copy_from_slice(value), *revision))
    }

    fn met(&self, key: &[u8], condition: &Condition) -> bool {
        let before = self.items.get(key);
        match condition {
            Condition::None => true,
            Condition::Absent => before.is_none(),
            Condition::Present => before.is_some(),
            Condition::Revision(0) => before.is_none(),
            Condition::Revision(r) => before.is_some_and(|(_, revision)| revision == r),
            Condition::Value(v) => before.is_some_and(|(value, _)| value == v),
            Condition::Epoch(_) | Condition::Fence(_) => unreachable!("see kv_fences.rs"),
        }
    }

    fn run(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Revisions { keys } => {
                Outcome::Revisions(keys.iter().map(|k| self.items.get(&k[..]).map_or(0, |i| i.1)).collect())
            }
            Command::Transaction(Transaction { guards, then, otherwise, .. }) => {
                let met = guards.iter().all(|guard| self.met(&guard.key, &guard.condition));
                let commands = if met { then } else { otherwise };
                Outcome::Transaction { met, outcomes: commands.iter().map(|c| self.run(c)).collect() }
            }
            Command::Get { key } => Outcome::Value(self.pair(key)),
            Command::GetMany { keys } => {
                Outcome::Values(keys.iter().map(|k| self.value(k).map(Bytes::copy_from_slice)).collect())
            }
            Command::Exists { keys } => {
                Outcome::Integer(keys.iter().filter(|k| self.items.contains_key(&k[..])).count() as i64)
            }
            Command::Count => Outcome::Integer(self.items.len() as i64),
            Command::Length { key } => Outcome::Integer(self.value(key).map_or(0, <[u8]>::len) as i64),
            Command::Scan(_) | Command::Walk(_) | Command::InSlot(_) | Command::Changes(_) => {
                panic!("see kv_reads.rs")
            }
            Command::Put { key, value, condition, want } => {
                let before = self.pair(key);
                let met = self.met(key, condition);
                if met {
                    self.set(key, value);
                }
                match want {
                    Want::Previous => Outcome::Value(before),
                    _ if !met => Outcome::Unmet,
                    Want::Done => Outcome::Done,
                    Want::Revision => Outcome::Revision(self.revision),
                }
            }
            Command::PutMany { pairs } => {
                for (key, value) in pairs {
                    self.set(key, value);
                }
                Outcome::Done
            }
            Command::Delete { keys } => {
                let mut removed = 0;
                for key in keys {
                    if self.items.remove(&key[..]).is_some() {
                        self.revision += 1;
                        removed += 1;
                    }
                }
                Outcome::Integer(removed)
            }
            Command::Take { key } => {
                let before = self.pair(key);
                if self.items.remove(&key[..]).is_some() {
                    self.revision += 1;
                }
                Outcome::Value(before)
            }
            Command::Add { key, delta } => {
                let text = self.value(key).map_or("0".into(), |v| String::from_utf8_lossy(v).into_owned());
                // A number is canonical when it is written the way it would be written.
                match text.parse::<i64>().ok().filter(|n| n.to_string() == text) {
                    None => Outcome::Failed(Failure::NotAnInteger),
                    Some(n) => match n.checked_add(*delta) {
                        None => Outcome::Failed(Failure::Overflow),
                        Some(sum) => {
                            self.set(key, sum.to_string().as_bytes());
                            Outcome::Integer(sum)
                        }
                    },
                }
            }
            Command::Append { key, value, max } => {
                let whole = [self.value(key).unwrap_or_default(), &value[..]].concat();
                if whole.len() > *max as usize {
                    return Outcome::Failed(Failure::TooLong(*max));
                }
                self.set(key, &whole);
                Outcome::Integer(whole.len() as i64)
            }
            Command::Cas { key, old, new } => {
                if self.value(key) == Some(&old[..]) {
                    self.set(key, new);
                    Outcome::Integer(1)
                } else {
                    Outcome::Integer(0)
                }
            }
            Command::Epoch | Command::Fenced { .. } => unreachable!("see kv_fences.rs"),
            Command::Rest { .. } | Command::PutFor { .. } | Command::Renew { .. } | Command::Once { .. } => {
                unreachable!("kv_lives.rs has a model of them")
            }
            Command::Roll | Command::SetRoll { .. } => {
                unreachable!("no key has to do with it")
            }
        }
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    // Few keys, so that commands meet; the empty one among them.
    prop_oneof![Just("a"), Just("b"), Just("c"), Just(""), Just("ab")]
        .prop_map(|k| Bytes::from_static(k.as_bytes()))
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (-5_i64..50).prop_map(|n| Bytes::from(n.to_string())),
        Just(Bytes::from_static(b"9223372036854775807")),
        Just(Bytes::from_static(b"007")),
        Just(Bytes::new()),
        (0..30_000_usize).prop_map(|n| Bytes::from(vec![b'x'; n])),
        key(),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::None),
        Just(Condition::Absent),
        Just(Condition::Present),
        (0..20_u64).prop_map(Condition::Revision),
        value().prop_map(Condition::Value),
    ]
}

/// A transaction that may answer so much; a third of them only read.
fn transaction(max: impl Strategy<Value = u32>) -> impl Strategy<Value = Transaction> {
    let guards = proptest::collection::vec((key(), condition()), 0..3);
    let list = || {
        let reads = single().prop_filter("a read", Command::is_read);
        let list = || proptest::collection::vec(single(), 0..6);
        prop_oneof![2 => list(), 1 => proptest::collection::vec(reads, 0..4)]
    };
    (guards, list(), list(), max).prop_map(|(guards, then, otherwise, max)| {
        let guards = guards.into_iter().map(|(key, condition)| Guard { key, condition }).collect();
        Transaction { guards, then, otherwise, max }
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![4 => single(), 1 => transaction(Just(u32::MAX)).prop_map(Command::Transaction)]
}

fn single() -> impl Strategy<Value = Command> {
    let keys = || proptest::collection::vec(key(), 0..4);
    let condition = condition();
    let want = prop_oneof![Just(Want::Done), Just(Want::Revision), Just(Want::Previous)];
    prop_oneof![
        4 => (key(), value(), condition, want)
            .prop_map(|(key, value, condition, want)| Command::Put { key, value, condition, want }),
        1 => proptest::collection::vec((key(), value()), 0..4).prop_map(|pairs| Command::PutMany { pairs }),
        2 => keys().prop_map(|keys| Command::Delete { keys }),
        1 => key().prop_map(|key| Command::Take { key }),
        2 => (key(), prop_oneof![-3..4_i64, Just(i64::MAX), Just(i64::MIN)])
            .prop_map(|(key, delta)| Command::Add { key, delta }),
        2 => (key(), value(), prop_oneof![Just(10_u32), Just(1 << 20)])
            .prop_map(|(key, value, max)| Command::Append { key, value, max }),
        2 => (key(), value(), value()).prop_map(|(key, old, new)| Command::Cas { key, old, new }),
        1 => key().prop_map(|key| Command::Get { key }),
        1 => keys().prop_map(|keys| Command::GetMany { keys }),
        1 => keys().prop_map(|keys| Command::Revisions { keys }),
        1 => keys().prop_map(|keys| Command::Exists { keys }),
        1 => Just(Command::Count),
        1 => key().prop_map(|key| Command::Length { key }),
    ]
}

fn ticket(number: u64) -> Ticket {
    Ticket { node: NodeId(1), boot: Boot(1), number, behind: 0 }
}

fn batch(commands: &[(Ticket, Command)]) -> Bytes {
    let mut batch = Batch::new();
    for (ticket, command) in commands {
        batch.push(*ticket, &command.to_bytes());
    }
    batch.finish()
}

fn apply(state: &mut State, value: Bytes) -> Vec<(Ticket, Outcome)> {
    let mut answers = Vec::new();
    let next = state.applied().next();
    state.apply(next, value, &mut |ticket, outcome| answers.push((ticket, outcome))).expect("readable");
    answers
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn the_state_does_what_the_model_does(commands in proptest::collection::vec(command(), 1..60)) {
        let (mut state, mut model) = (State::default(), Model::default());
        for (number, command) in (1..).zip(commands) {
            if command.is_read() {
                let want = model.run(&command);
                prop_assert_eq!(state.read(&command), want);
                continue;
            }
            let value = batch(&[(ticket(number), command.clone())]);
            // Numbers that reads took are given up: `behind` is 0, so that is allowed.
            let answers = apply(&mut state, value);
            prop_assert_eq!(answers, vec![(ticket(number), model.run(&command))], "{:?}", command);

            let held: Vec<_> = state.iter().map(|(k, i)| (k.to_vec(), (i.value.to_vec(), i.revision))).collect();
            let bytes: usize = held.iter().map(|(k, (v, _))| k.len() + v.len()).sum();
            prop_assert_eq!(&held, &model.items.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(state.revision(), model.revision);
            prop_assert_eq!(state.bytes(), bytes as u64);
            prop_assert_eq!((state.len(), state.is_empty()), (held.len(), held.is_empty()));
            prop_assert_eq!(state.hash(), state.recomputed_hash());
        }
    }

    /// However a history is cut into instances, and whatever no-ops stand between, the same
    /// commands give the same state; and the bytes of one replica are not those of another.
    #[test]
    fn equal_histories_give_equal_hashes(
        commands in proptest::collection::vec(command(), 1..40),
        cuts in proptest::collection::vec(1..5_usize, 40),
    ) {
        let list: Vec<_> = (1..).zip(commands).map(|(n, c)| (ticket(n), c)).collect();
        let (mut one, mut other) = (State::default(), State::default());
        let mut first = Vec::new();
        for pair in &list {
            first.extend(apply(&mut one, batch(std::slice::from_ref(pair))));
        }
        let mut second = Vec::new();
        let mut rest = &list[..];
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            second.extend(apply(&mut other, batch(now)));
            apply(&mut other, if cut % 2 == 0 { noop() } else { lead(NodeId(2)) });
            rest = later;
        }
        second.extend(apply(&mut other, batch(rest)));
        prop_assert_eq!(first, second);
        prop_assert_eq!(one.hash(), other.hash());
        prop_assert_eq!(one.revision(), other.revision());
    }

    /// What a transaction answers is bounded by what it says itself; one that could answer more
    /// changes nothing at all.
    #[test]
    fn a_transaction_answers_no_more_than_it_may(
        before in proptest::collection::vec(single(), 0..10),
        transaction in transaction(prop_oneof![0..3_000_u32, 20_000..60_000_u32]),
    ) {
        let mut state = State::default();
        for (number, command) in (1..).zip(before) {
            apply(&mut state, batch(&[(ticket(number), command)]));
        }
        let max = transaction.max;
        let (hash, revision) = (state.hash(), state.revision());
        let answers = apply(&mut state, batch(&[(ticket(100), Command::Transaction(transaction.clone()))]));
        match &answers[0].1 {
            Outcome::Failed(Failure::AnswerTooLong(said)) => {
                prop_assert_eq!((*said, state.hash(), state.revision()), (max, hash, revision));
            }
            outcome @ Outcome::Transaction { outcomes, .. } => {
                let mut bytes = Vec::new();
                outcome.encode(&mut bytes);
                prop_assert!(outcome.size() <= max as usize, "{} of {max} bytes", outcome.size());
                prop_assert!(bytes.len() <= outcome.size() + 5 * outcomes.len() + 64, "its size is about its bytes");
            }
            other => prop_assert!(false, "{other:?}"),
        }
        if transaction.is_read() {
            prop_assert_eq!(state.read(&Command::Transaction(transaction)), answers[0].1.clone());
        }
    }

    /// A value, a key, a revision: whatever is different shows in the hash.
    #[test]
    fn different_contents_give_different_hashes(commands in proptest::collection::vec(command(), 1..30), at: usize) {
        let mut state = State::default();
        let mut seen = BTreeMap::new();
        for (number, command) in (1..).zip(commands) {
            apply(&mut state, batch(&[(ticket(number), command)]));
            let contents: Vec<_> = state.iter().map(|(k, i)| (k.to_vec(), i.clone())).collect();
            let contents = format!("{contents:?}");
            let known = seen.entry(state.hash().to_bytes()).or_insert_with(|| contents.clone());
            prop_assert_eq!(&*known, &contents, "after {} of {}", number, at);
        }
    }
}

/// A session as the rules say it, without the cleverness: every number ever applied, and the
/// lowest that is still awaited.
#[derive(Default)]
struct PlainSession {
    boot: u64,
    low: u64,
    applied: BTreeMap<u64, Outcome>,
}

impl PlainSession {
    fn next(&self) -> u64 {
        self.applied.keys().next_back().map_or(0, |n| n + 1).max(self.low)
    }

    fn admit(&mut self, ticket: Ticket) -> Admission {
        if ticket.boot.0 < self.boot {
            return Admission::Answer(Outcome::Retired);
        }
        if ticket.boot.0 > self.boot {
            *self = PlainSession { boot: ticket.boot.0, low: 1, applied: BTreeMap::new() };
        }
        self.low = self.low.max(ticket.number.saturating_sub(u64::from(ticket.behind)));
        if ticket.number < self.low {
            Admission::Answer(Outcome::Retired)
        } else if let Some(outcome) = self.applied.get(&ticket.number) {
            Admission::Answer(outcome.clone())
        } else if ticket.number != self.next() {
            Admission::Answer(Outcome::Failed(Failure::OutOfOrder))
        } else {
            Admission::Apply
        }
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn the_session_table_does_what_the_rules_say(
        tickets in proptest::collection::vec((1..3_u32, 1..4_u64, 1..14_u64, 0..6_u32), 1..150),
    ) {
        let mut sessions = Sessions::default();
        let mut plain: BTreeMap<u32, PlainSession> = BTreeMap::new();
        let mut applied: BTreeMap<(u32, u64, u64), usize> = BTreeMap::new();
        for (step, (node, boot, number, behind)) in (0..).zip(tickets) {
            let ticket = Ticket { node: NodeId(node), boot: Boot(boot), number, behind };
            let model = plain.entry(node).or_insert_with(|| PlainSession { boot, low: 1, ..Default::default() });
            let admission = sessions.admit(ticket);
            prop_assert_eq!(&admission, &model.admit(ticket), "{:?}", ticket);
            if admission == Admission::Apply {
                sessions.record(ticket, Outcome::Integer(step));
                model.applied.insert(number, Outcome::Integer(step));
                let times = applied.entry((node, boot, number)).or_default();
                *times += 1;
                prop_assert_eq!(*times, 1, "{:?} applied again", ticket);
            }
            // A read behind a write waits for exactly the numbers that are not past.
            for number in 0..16 {
                let past = number == 0 || model.boot > boot || (model.boot == boot && number < model.next());
                prop_assert_eq!(sessions.is_past(NodeId(node), Boot(boot), number), past);
            }
            let remembered: usize = plain.values().map(|p| p.applied.range(p.low..).count()).sum();
            prop_assert_eq!(sessions.remembered(), remembered);
            prop_assert!(remembered as u64 <= MAX_OPEN);
        }
    }
}

#[test]
fn leaderships_count_the_epoch_and_nothing_else() {
    let mut state = State::default();
    apply(&mut state, lead(NodeId(1)));
    apply(&mut state, noop());
    apply(&mut state, lead(NodeId(2)));
    assert_eq!((state.epoch(), state.revision(), state.applied()), (2, 0, InstanceId(3)));
    assert!(state.is_empty() && state.hash() == state.recomputed_hash());
}

#[test]
fn one_failed_condition_does_not_fail_its_batch() {
    let mut state = State::default();
    let key = || Bytes::from_static(b"k");
    let put = |condition, value| Command::Put { key: key(), value, condition, want: Want::Done };
    let answers = apply(
        &mut state,
        batch(&[
            (ticket(1), put(Condition::Present, Bytes::from_static(b"1"))),
            (ticket(2), put(Condition::Absent, Bytes::from_static(b"2"))),
            (ticket(3), Command::Add { key: key(), delta: i64::MAX }),
            (ticket(4), Command::Add { key: key(), delta: 1 }),
        ]),
    );
    let outcomes: Vec<Outcome> = answers.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::Unmet, Outcome::Done, Outcome::Failed(Failure::Overflow), Outcome::Integer(3)]
    );
}

/// A thousand gets of one large value were a reply of gigabytes, made of a request of kilobytes.
#[test]
fn a_transaction_that_would_answer_too_much_fails_before_it_begins() {
    let (key, large) = (|| Bytes::from_static(b"k"), Bytes::from(vec![b'x'; 10_000]));
    let put = Command::Put { key: key(), value: large, condition: Condition::None, want: Want::Done };
    let get = || Command::Get { key: key() };
    let run = |then: Vec<Command>| {
        let mut state = State::default();
        let transaction = Transaction { then, max: 11_000, ..Transaction::default() };
        let mut answers = apply(&mut state, batch(&[(ticket(1), Command::Transaction(transaction))]));
        (answers.pop().expect("an answer").1, state.len())
    };
    let failed = (Outcome::Failed(Failure::AnswerTooLong(11_000)), 0);
    assert_eq!(run(vec![put.clone(), get(), get()]), failed);
    assert!(matches!(run(vec![put.clone(), get()]), (Outcome::Transaction { met: true, .. }, 1)));
    // What was taken is gone, and what was overwritten is as long as it is now.
    let take = Command::Take { key: key() };
    let short =
        Command::Put { key: key(), value: "v".into(), condition: Condition::None, want: Want::Previous };
    assert!(matches!(run(vec![put.clone(), take.clone(), take, get()]), (Outcome::Transaction { .. }, 0)));
    assert!(matches!(run(vec![put.clone(), short, get(), get()]), (Outcome::Transaction { .. }, 1)));
    // The bound is the length that the value may come to have.
    let append = Command::Append { key: key(), value: vec![b'y'; 2_000].into(), max: 1 << 20 };
    assert_eq!(run(vec![put, append, get()]), failed);
}

#[test]
fn a_command_that_fails_within_a_transaction_leaves_the_others() {
    let mut state = State::default();
    let (key, other) = (|| Bytes::from_static(b"k"), || Bytes::from_static(b"n"));
    let put = |value: &'static [u8]| Command::Put {
        key: key(),
        value: Bytes::from_static(value),
        condition: Condition::None,
        want: Want::Done,
    };
    let then = vec![
        put(b"text"),
        Command::Add { key: key(), delta: 1 },
        Command::Add { key: other(), delta: 2 },
        Command::Get { key: other() },
    ];
    let transaction = Transaction { then, max: 1 << 20, ..Transaction::default() };
    let answers = apply(&mut state, batch(&[(ticket(1), Command::Transaction(transaction))]));
    let outcomes = vec![
        Outcome::Done,
        Outcome::Failed(Failure::NotAnInteger),
        Outcome::Integer(2),
        Outcome::Value(Some((Bytes::from_static(b"2"), 2))),
    ];
    assert_eq!(answers[0].1, Outcome::Transaction { met: true, outcomes });
    assert_eq!(state.len(), 2);
}

#[test]
#[should_panic(expected = "apply is in order, exactly once")]
fn an_instance_is_applied_once() {
    let mut state = State::default();
    apply(&mut state, noop());
    let _ = state.apply(InstanceId(1), noop(), &mut |_, _| {});
}
