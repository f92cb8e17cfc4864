//! The judge against brute force: on small random histories, right ones and spoilt ones, both must agree.
//!
//! The brute force shares nothing with the judge: it walks every order that real time allows over a model of its own,
//! with plain bytes for values and concrete numbers for revisions that nobody was told.

use proptest::prelude::*;
use sim::history::{Action, History, Operation, Outcome, Verdict, check};

/// A key as the brute force sees it. The revision survives a delete: the next write must rise above it.
#[derive(Clone, Default, Debug, PartialEq)]
struct Key {
    value: Option<Vec<u8>>,
    revision: u64,
    /// It may vanish from here on.
    until: Option<u64>,
}

/// Every result of `action` on `key` when a write gets revision `next`: the key after it, and the answer with and
/// without revisions.
fn execute(key: &Key, action: &Action, next: u64, invoke: u64) -> Option<(Key, Vec<Outcome>)> {
    let old = key.value.clone();
    let write = |value: &[u8]| Key { value: Some(value.to_vec()), revision: next, until: None };
    let removed = || Key { value: None, revision: key.revision, until: None };
    let conditional = |holds: bool, value: &[u8]| {
        if holds {
            (write(value), vec![Outcome::Flag(true), Outcome::Revision(next)])
        } else {
            (key.clone(), vec![Outcome::Flag(false)])
        }
    };
    Some(match action {
        Action::Get => {
            let versioned = old.clone().map(|value| (value, key.revision));
            (key.clone(), vec![Outcome::Value(old), Outcome::Versioned(versioned)])
        }
        Action::Put(value) => (write(value), vec![Outcome::Done, Outcome::Revision(next)]),
        Action::Delete => (removed(), vec![Outcome::Flag(old.is_some()), Outcome::Done]),
        Action::SetNx(value) => conditional(old.is_none(), value),
        Action::Cas { old: wanted, new } => conditional(old.as_ref() == Some(wanted), new),
        Action::PutIfRev { revision, value } => {
            conditional(*revision == if old.is_some() { key.revision } else { 0 }, value)
        }
        Action::Add(delta) => {
            let text = String::from_utf8(old.unwrap_or_else(|| b"0".to_vec())).ok()?;
            let sum = text.parse::<i64>().ok()?.checked_add(*delta)?;
            (Key { until: key.until, ..write(sum.to_string().as_bytes()) }, vec![Outcome::Number(sum)])
        }
        Action::Append(suffix) => {
            let value = [old.unwrap_or_default(), suffix.clone()].concat();
            (Key { until: key.until, ..write(&value) }, vec![Outcome::Number(value.len() as i64)])
        }
        Action::GetSet(value) => (write(value), vec![Outcome::Value(old)]),
        Action::GetDel => (removed(), vec![Outcome::Value(old)]),
        Action::PutFor { value, life } => {
            let key = Key { until: Some(invoke + life), ..write(value) };
            (key, vec![Outcome::Done, Outcome::Revision(next)])
        }
        Action::Renew(life) => {
            let until = life.filter(|_| old.is_some()).map(|life| invoke + life);
            (Key { until, ..key.clone() }, vec![Outcome::Flag(old.is_some())])
        }
    })
}

/// The key after it has vanished by itself.
fn vanished(key: &Key) -> Key {
    Key { value: None, revision: key.revision, until: None }
}

/// Whether some order of all answered and some open operations explains every answer.
fn brute_force(operations: &[Operation], done: &mut Vec<bool>, key: &Key, top: u64, since: u64) -> bool {
    let waiting = |o: &Operation| o.response.is_some() && o.outcome != Outcome::NotApplied;
    let left: Vec<usize> = (0..operations.len()).filter(|&n| !done[n]).collect();
    let Some(horizon) =
        left.iter().map(|&n| &operations[n]).filter(|o| waiting(o)).filter_map(|o| o.response).min()
    else {
        return true;
    };
    for number in left {
        let operation = &operations[number];
        if operation.invoke > horizon || operation.outcome == Outcome::NotApplied {
            continue;
        }
        if operation.response.is_some_and(|response| response < since) {
            continue;
        }
        for next in key.revision + 1..=top {
            let Some((after, answers)) = execute(key, &operation.action, next, operation.invoke) else {
                continue;
            };
            if operation.outcome != Outcome::Unknown && !answers.contains(&operation.outcome) {
                continue;
            }
            done[number] = true;
            let found = brute_force(operations, done, &after, top, since);
            done[number] = false;
            if found {
                return true;
            }
            if after.revision != next {
                break; // nothing written: the other revisions say the same
            }
        }
    }
    // At this instant the key may vanish: nothing that comes now is before that.
    key.until.is_some_and(|until| brute_force(operations, done, &vanished(key), top, since.max(until)))
}

/// One operation before it is known what it is answered.
#[derive(Clone, Debug)]
struct Plan {
    action: Action,
    invoke: u64,
    /// When it takes effect, counted from the invocation, and how long after that the answer comes.
    effect: u64,
    answer: u64,
    fate: Fate,
    with_revision: bool,
    /// Replaces the answer where there is one.
    lie: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    AppliedButUnknown,
    NeverAppliedAndUnknown,
    Refused,
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(b"1".to_vec()), Just(b"2".to_vec()), Just(b"x".to_vec())]
}

fn any_action() -> BoxedStrategy<Action> {
    prop_oneof![
        4 => Just(Action::Get),
        3 => value().prop_map(Action::Put),
        1 => Just(Action::Delete),
        1 => value().prop_map(Action::SetNx),
        1 => (value(), value()).prop_map(|(old, new)| Action::Cas { old, new }),
        1 => (0..4_u64, value()).prop_map(|(revision, value)| Action::PutIfRev { revision, value }),
        2 => (1..3_i64).prop_map(Action::Add),
        1 => value().prop_map(Action::Append),
        1 => value().prop_map(Action::GetSet),
        1 => Just(Action::GetDel),
    ]
    .boxed()
}

/// Gets and puts; the puts are numbered later so that their values are distinct.
fn simple_action() -> BoxedStrategy<Action> {
    prop_oneof![Just(Action::Get), Just(Action::Put(Vec::new()))].boxed()
}

fn blind_action() -> BoxedStrategy<Action> {
    prop_oneof![3 => Just(Action::Get), 2 => value().prop_map(Action::Put), 1 => Just(Action::Delete)].boxed()
}

fn counter_action() -> BoxedStrategy<Action> {
    prop_oneof![1 => Just(Action::Get), 3 => (1..3_i64).prop_map(Action::Add)].boxed()
}

/// Texts that grow and are replaced: the values are beginnings of each other.
fn text_action() -> BoxedStrategy<Action> {
    prop_oneof![
        3 => Just(Action::Get),
        4 => value().prop_map(Action::Append),
        1 => value().prop_map(Action::Put),
        1 => value().prop_map(Action::GetSet),
        2 => Just(Action::GetDel),
    ]
    .boxed()
}

/// Keys that are given lives, and other operations on them.
fn mortal_action() -> BoxedStrategy<Action> {
    prop_oneof![
        4 => Just(Action::Get),
        3 => (value(), 0..12_u64).prop_map(|(value, life)| Action::PutFor { value, life }),
        2 => proptest::option::of(0..12_u64).prop_map(Action::Renew),
        2 => any_action(),
    ]
    .boxed()
}

fn lie() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        prop_oneof![Just(None), value().prop_map(Some)].prop_map(Outcome::Value),
        (0..5_u8).prop_map(|n| Outcome::Value(Some(format!("v{n}").into_bytes()))),
        any::<bool>().prop_map(Outcome::Flag),
        (0..5_i64).prop_map(Outcome::Number),
        (1..5_u64).prop_map(Outcome::Revision),
        (value(), 1..5_u64).prop_map(|(value, revision)| Outcome::Versioned(Some((value, revision)))),
    ]
}

/// `lost`: how many of ten operations are applied without an answer; as many are lost before they are applied.
fn plan(action: BoxedStrategy<Action>, revisions: f64, lost: u32) -> impl Strategy<Value = Plan> {
    let fate = prop_oneof![
        10 - 2 * lost => Just(Fate::Answered),
        lost => Just(Fate::AppliedButUnknown),
        lost => Just(Fate::NeverAppliedAndUnknown),
        1 => Just(Fate::Refused),
    ];
    let lie = proptest::option::weighted(0.15, lie());
    (action, 0..24_u64, 0..8_u64, 0..8_u64, fate, prop::bool::weighted(revisions), lie).prop_map(
        |(action, invoke, effect, answer, fate, with_revision, lie)| Plan {
            action,
            invoke,
            effect,
            answer,
            fate,
            with_revision,
            lie,
        },
    )
}

/// Runs the plans in the order of their effects on a true key and writes down what the clients saw.
fn act_out(mut plans: Vec<Plan>) -> Vec<Operation> {
    plans.sort_by_key(|plan| plan.invoke + plan.effect);
    let mut key = Key::default();
    let mut operations = Vec::new();
    for (number, mut plan) in plans.into_iter().enumerate() {
        if plan.action == Action::Put(Vec::new()) {
            plan.action = Action::Put(format!("v{number}").into_bytes());
        }
        let applied = matches!(plan.fate, Fate::Answered | Fate::AppliedButUnknown);
        let mut outcome = match plan.fate {
            Fate::Refused => Outcome::NotApplied,
            _ => Outcome::Unknown,
        };
        // A life that is over ends sooner or later; the plan's numbers say which.
        if key.until.is_some_and(|until| until <= plan.invoke + plan.effect) && plan.answer % 2 == 0 {
            key = vanished(&key);
        }
        if applied {
            let next = key.revision + 1;
            let Some((after, answers)) = execute(&key, &plan.action, next, plan.invoke) else { continue };
            key = after;
            if plan.fate == Fate::Answered {
                let pick = if plan.with_revision { answers.len() - 1 } else { 0 };
                outcome = answers[pick].clone();
            }
        }
        let mut operation = Operation {
            client: number as u64,
            key: b"k".to_vec(),
            invoke: plan.invoke,
            response: (outcome != Outcome::Unknown).then_some(plan.invoke + plan.effect + plan.answer),
            action: plan.action,
            outcome,
        };
        if let Some(lie) = plan.lie {
            let spoilt = Operation { outcome: lie, ..operation.clone() };
            if History::new().push(spoilt.clone()).is_ok() {
                operation = spoilt;
            }
        }
        operations.push(operation);
    }
    operations
}

fn agree(operations: Vec<Operation>) -> Result<bool, TestCaseError> {
    let mut history = History::new();
    for operation in &operations {
        history.push(operation.clone()).expect("the plans fit");
    }
    let expected = brute_force(
        &operations,
        &mut vec![false; operations.len()],
        &Key::default(),
        operations.len() as u64 + 6,
        0,
    );
    let verdict = check(&history);
    // The judge does not remember which number an untold revision was found *not* to be, so it may accept more there.
    let lenient = operations
        .iter()
        .any(|o| matches!(o.action, Action::PutIfRev { .. }) && o.outcome == Outcome::Flag(false))
        && operations
            .iter()
            .any(|o| matches!(o.outcome, Outcome::Done | Outcome::Unknown | Outcome::Flag(true)));
    match (expected, &verdict) {
        (true, Verdict::Linearizable) | (false, Verdict::NotLinearizable(_)) => Ok(expected),
        (false, Verdict::Linearizable) if lenient => Ok(true),
        _ => Err(TestCaseError::fail(format!("brute force says {expected}, the judge says {verdict}"))),
    }
}

/// Both answers must come up often, or the comparison proves little.
fn compare(action: fn() -> BoxedStrategy<Action>, revisions: f64, lost: u32, cases: u32) {
    let counts = std::cell::Cell::new((0_u32, 0_u32));
    let plans = prop::collection::vec(plan(action(), revisions, lost), 1..8);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let result = runner.run(&plans, |plans| {
        let linearizable = agree(act_out(plans))?;
        let (right, wrong) = counts.get();
        counts.set(if linearizable { (right + 1, wrong) } else { (right, wrong + 1) });
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (right, wrong) = counts.get();
    assert!(right > cases / 10 && wrong > cases / 25, "lopsided: {right} right, {wrong} wrong");
}

#[test]
fn puts_and_gets_of_distinct_values() {
    compare(simple_action, 0.0, 1, 6000);
}

#[test]
fn puts_and_gets_that_tell_revisions() {
    compare(simple_action, 1.0, 1, 6000);
    compare(simple_action, 0.8, 2, 6000);
}

#[test]
fn blind_writes_and_reads() {
    compare(blind_action, 0.0, 1, 6000);
}

#[test]
fn counters() {
    compare(counter_action, 0.0, 1, 3000);
}

#[test]
fn every_kind_of_operation() {
    compare(any_action, 0.0, 1, 6000);
}

#[test]
fn every_kind_of_operation_with_revisions() {
    compare(any_action, 0.7, 1, 6000);
}

#[test]
fn texts_that_grow_with_many_lost_appends() {
    compare(text_action, 0.5, 3, 12_000);
}

#[test]
fn every_kind_of_operation_with_many_lost_ones() {
    compare(any_action, 0.5, 3, 12_000);
}

#[test]
fn keys_that_vanish() {
    compare(mortal_action, 0.0, 1, 12_000);
}

#[test]
fn keys_that_vanish_with_revisions_and_many_lost_operations() {
    compare(mortal_action, 0.5, 3, 12_000);
}

#[test]
fn a_history_survives_its_file() {
    let plans = prop::collection::vec(plan(mortal_action(), 0.5, 1), 0..8);
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }, |(plans in plans, key in any::<Vec<u8>>())| {
        let mut history = History::new();
        for operation in act_out(plans) {
            history.push(Operation { key: key.clone(), ..operation }).expect("the plans fit");
        }
        let mut file = Vec::new();
        history.write_to(&mut file).expect("memory does not fail");
        prop_assert!(file.is_ascii());
        prop_assert_eq!(History::read_from(file.as_slice()), Ok(history));
    });
}

#[test]
fn the_reader_survives_any_line() {
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }, |(line in "[ -~]{0,80}", cut in 0..90_usize)| {
        let _ = History::read_from(line.as_bytes());
        let valid = r#"{"client":1,"key":"k","do":"put","value":"a\u0000","invoke":10,"response":20,"done":true}"#;
        let read = History::read_from(&valid.as_bytes()[..cut.min(valid.len())]);
        prop_assert_eq!(read.is_ok(), cut == 0 || cut >= valid.len());
    });
}
