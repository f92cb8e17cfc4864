//! Fences and epochs against a simple model: who may still write, also after deletes, the end of lives
//! and checkpoints.

use std::collections::BTreeMap;

use bytes::Bytes;
use groups::ids::{Boot, NodeId};
use groups::kv::value::{Batch, expire, lead};
use groups::kv::{Command, Condition, Failure, Guard, Life, Outcome, Req, State, Ticket, Transaction, Want};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put(key: &'static str, value: &'static str) -> Command {
    put_if(key, value, Condition::None)
}

fn put_if(key: &'static str, value: &'static str, condition: Condition) -> Command {
    Command::Put { key: b(key), value: b(value), condition, want: Want::Done }
}

fn fenced(token: u64, command: Command) -> Command {
    Command::Fenced { token, command: Box::new(command) }
}

/// A state and the number of the next command.
#[derive(Default)]
struct Group {
    state: State,
    number: u64,
}

impl Group {
    fn apply(&mut self, value: Bytes) -> Vec<Outcome> {
        let mut answers = Vec::new();
        let next = self.state.applied().next();
        self.state.apply(next, value, &mut |_, outcome| answers.push(outcome)).expect("readable");
        answers
    }

    fn run_at(&mut self, clock: u64, command: &Command) -> Outcome {
        self.number += 1;
        let mut batch = Batch::stamped(clock, 0);
        let ticket = Ticket { node: NodeId(1), boot: Boot(1), number: self.number, behind: 0 };
        batch.push(ticket, &command.to_bytes());
        self.apply(batch.finish()).pop().expect("an answer")
    }

    fn run(&mut self, command: &Command) -> Outcome {
        self.run_at(1, command)
    }

    fn through_a_checkpoint(&mut self) {
        let before = self.state.sum();
        let state = std::mem::take(&mut self.state);
        self.state = { state }.image(0).into_state().expect("its own image");
        assert_eq!(self.state.sum(), before, "a checkpoint has lost something");
    }
}

fn refused(token: u64) -> Outcome {
    Outcome::Failed(Failure::Fenced(token))
}

#[test]
fn a_holder_who_has_lost_the_lock_without_noticing_writes_nothing_any_more() {
    // The story: holder 33 stands still, holder 34 writes, and 33 goes on. Whatever has become of
    // the key in between, and through however many restarts, 33 comes too late.
    let mut group = Group::default();
    assert_eq!(group.run(&fenced(33, put("k", "from 33"))), Outcome::Done);
    assert_eq!(group.run(&fenced(33, put("k", "from 33 again"))), Outcome::Done);
    assert_eq!(group.run(&fenced(34, put("k", "from 34"))), Outcome::Done);
    for late in [
        put("k", "late"),
        Command::Delete { keys: vec![b("other"), b("k")] },
        Command::Take { key: b("k") },
        Command::Add { key: b("k"), delta: 1 },
        Command::Append { key: b("k"), value: b("x"), max: 100 },
        Command::Cas { key: b("k"), old: b("from 34"), new: b("x") },
        Command::PutMany { pairs: vec![(b("other"), b("x")), (b("k"), b("x"))] },
    ] {
        let before = group.state.revision();
        assert_eq!(group.run(&fenced(33, late.clone())), refused(34), "{late:?}");
        assert_eq!(group.state.revision(), before, "{late:?}");
    }
    group.through_a_checkpoint();
    assert_eq!(group.run(&fenced(33, put("k", "late"))), refused(34));
    // A key that is gone does not come back, however it went.
    assert_eq!(group.run(&Command::Delete { keys: vec![b("k")] }), Outcome::Integer(1));
    assert_eq!(group.run(&fenced(33, put("k", "late"))), refused(34));
    let mortal = Command::PutFor {
        key: b("m"),
        value: b("v"),
        condition: Condition::None,
        want: Want::Done,
        life: Life::For(5),
    };
    assert_eq!(group.run(&fenced(40, mortal)), Outcome::Done);
    group.apply(expire(100, 10));
    group.through_a_checkpoint();
    assert_eq!(group.state.get(b"m"), None);
    assert_eq!(group.run(&fenced(39, put("m", "late"))), refused(40));
    // Who does not use the lock is not kept from anything.
    assert_eq!(group.run(&put("k", "without")), Outcome::Done);
}

#[test]
fn a_write_that_changes_nothing_raises_no_fence_and_a_delete_does() {
    let mut group = Group::default();
    assert_eq!(group.run(&fenced(9, put_if("k", "v", Condition::Present))), Outcome::Unmet);
    assert_eq!(
        group.run(&fenced(9, Command::Cas { key: b("k"), old: b("a"), new: b("b") })),
        Outcome::Integer(0)
    );
    assert_eq!(group.run(&fenced(3, put("k", "v"))), Outcome::Done, "nothing of token 9 was applied");
    assert_eq!(
        group.run(&fenced(9, Command::Add { key: b("k"), delta: 1 })),
        Outcome::Failed(Failure::NotAnInteger)
    );
    assert_eq!(group.run(&fenced(3, put("k", "v"))), Outcome::Done);
    // Holder 9 wants it gone, and finds it gone: holder 3 must not bring it back.
    assert_eq!(group.run(&fenced(9, Command::Delete { keys: vec![b("gone")] })), Outcome::Integer(0));
    assert_eq!(group.run(&fenced(3, put("gone", "back"))), refused(9));
}

#[test]
fn a_fence_is_part_of_what_replicas_compare() {
    let sum = |token| {
        let mut group = Group::default();
        group.run(&fenced(token, put("k", "v")));
        group.state.sum()
    };
    assert_eq!(sum(1).hash, sum(2).hash, "the items are the same");
    assert_ne!(sum(1), sum(2));
}

#[test]
fn fences_and_epochs_are_guards_of_a_transaction() {
    let mut group = Group::default();
    group.apply(lead(NodeId(1)));
    group.apply(lead(NodeId(2)));
    assert_eq!(group.state.read(&Command::Epoch), Outcome::Integer(2));
    group.run(&fenced(7, put("k", "v")));
    let guarded = |condition: Condition| {
        Command::Transaction(Transaction {
            guards: vec![Guard { key: b("k"), condition }],
            then: vec![put("k", "then"), Command::Epoch],
            otherwise: vec![],
            max: 100,
        })
    };
    for (condition, holds) in [
        (Condition::Epoch(2), true),
        (Condition::Epoch(1), false),
        (Condition::Epoch(3), false),
        (Condition::Fence(7), true),
        (Condition::Fence(8), true),
        (Condition::Fence(6), false),
    ] {
        let outcomes = if holds { vec![Outcome::Done, Outcome::Integer(2)] } else { vec![] };
        let outcome = group.run(&guarded(condition.clone()));
        assert_eq!(outcome, Outcome::Transaction { met: holds, outcomes }, "{condition:?}");
    }
    assert_eq!(group.run(&put_if("k", "v", Condition::Epoch(1))), Outcome::Unmet);
    assert_eq!(group.run(&put_if("k", "v", Condition::Epoch(2))), Outcome::Done);
    // One that is refused inside a transaction changes nothing and says so; the others count.
    let both = Command::Transaction(Transaction {
        guards: vec![],
        then: vec![fenced(6, put("k", "late")), put("other", "v"), fenced(8, put("k", "new"))],
        otherwise: vec![],
        max: 100,
    });
    let outcomes = vec![refused(7), Outcome::Done, Outcome::Done];
    assert_eq!(group.run(&both), Outcome::Transaction { met: true, outcomes });
}

#[test]
fn what_a_transaction_may_answer_counts_fenced_commands() {
    // The story: a value is put under a fence and taken again in one transaction. Whether the put is refused is
    // not known before, so the longer of both values counts.
    let mut group = Group::default();
    group.run(&put("k", "12345678901234567890123456789012345678901234567890"));
    let taking = |max| {
        Command::Transaction(Transaction {
            guards: vec![],
            then: vec![fenced(1, put("k", "s")), fenced(1, Command::Take { key: b("k") })],
            otherwise: vec![],
            max,
        })
    };
    assert_eq!(group.run(&taking(110)), Outcome::Failed(Failure::AnswerTooLong(110)));
    assert!(matches!(group.run(&taking(200)), Outcome::Transaction { met: true, .. }));
}

#[test]
fn a_numbered_write_that_was_refused_stays_refused() {
    let mut group = Group::default();
    group.run(&fenced(7, put("k", "v")));
    let req = Req { client: b("c"), seq: 1, print: 9 };
    let numbered = Command::Once { req, command: Box::new(fenced(6, put("k", "late"))) };
    assert_eq!(group.run(&numbered), refused(7));
    group.through_a_checkpoint();
    assert_eq!(group.run(&numbered), refused(7));
}

fn key() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("")]
}

#[derive(Clone, Debug)]
enum Step {
    Put(&'static str, Option<u64>),
    Delete(&'static str, Option<u64>),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let token = || proptest::option::of(1..6_u64);
    prop_oneof![
        4 => (key(), token()).prop_map(|(key, token)| Step::Put(key, token)),
        2 => (key(), token()).prop_map(|(key, token)| Step::Delete(key, token)),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    })]

    #[test]
    fn tokens_of_a_key_never_fall(steps in proptest::collection::vec(step(), 1..60)) {
        let mut group = Group::default();
        let mut fences: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut keys = std::collections::BTreeSet::new();
        for step in steps {
            let (key, token, command, deletes) = match step {
                Step::Restart => {
                    group.through_a_checkpoint();
                    continue;
                }
                Step::Put(key, token) => (key, token, put(key, "v"), false),
                Step::Delete(key, token) => (key, token, Command::Delete { keys: vec![b(key)] }, true),
            };
            let known = fences.get(key).copied().unwrap_or(0);
            let outcome = group.run(&token.map_or(command.clone(), |token| fenced(token, command)));
            if token.is_some_and(|token| token < known) {
                prop_assert_eq!(outcome, refused(known));
                continue;
            }
            if let Some(token) = token {
                fences.insert(key, token);
            }
            let wanted = match deletes {
                true => Outcome::Integer(i64::from(keys.remove(key))),
                false => {
                    keys.insert(key);
                    Outcome::Done
                }
            };
            prop_assert_eq!(outcome, wanted);
        }
    }
}
