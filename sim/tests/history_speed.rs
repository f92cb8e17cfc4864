//! Large histories of one contended key, as a benchmark records them. They must be decided at all; how fast is
//! printed (`cargo test -p sim --release --test history_speed -- --nocapture`).

use std::time::Instant;

use sim::history::{Action, History, Operation, Outcome, Verdict, check};

/// SplitMix64: the same histories on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

/// `count` operations of `clients` clients in closed loop on one true key. One in `lost` writes goes without an
/// answer, and half of those are applied.
fn record(
    count: u64,
    clients: u64,
    lost: u64,
    mut action: impl FnMut(&mut Random, u64, &Option<Vec<u8>>) -> Action,
) -> History {
    let mut random = Random(7);
    let mut free_at = vec![0; clients as usize];
    let mut value: Option<Vec<u8>> = None;
    let mut history = History::new();
    // Effects come one per tick, so the order of effects is the order of the loop.
    for n in 0..count {
        let effect = 1_000 + n * 10;
        let client = (0..clients).min_by_key(|&c| (free_at[c as usize], c)).expect("clients");
        let invoke = free_at[client as usize].max(effect.saturating_sub(random.below(clients * 10)));
        let response = effect.max(invoke) + random.below(clients * 10);
        let effect_in_window = invoke <= effect;
        free_at[client as usize] = response + 1;
        if !effect_in_window {
            continue;
        }
        let action = action(&mut random, n, &value);
        let unknown = lost > 0 && random.below(lost) == 0;
        let outcome = if unknown && random.below(2) == 0 {
            Outcome::Unknown
        } else {
            let outcome = apply(&mut value, &action);
            if unknown { Outcome::Unknown } else { outcome }
        };
        let response = (outcome != Outcome::Unknown).then_some(response);
        let operation = Operation { client, key: b"hot".to_vec(), invoke, response, action, outcome };
        history.push(operation).expect("well formed");
    }
    history
}

fn apply(value: &mut Option<Vec<u8>>, action: &Action) -> Outcome {
    match action {
        Action::Get => Outcome::Value(value.clone()),
        Action::Put(new) => {
            *value = Some(new.clone());
            Outcome::Done
        }
        Action::Delete => Outcome::Flag(value.take().is_some()),
        Action::Cas { old, new } => {
            let holds = value.as_ref() == Some(old);
            if holds {
                *value = Some(new.clone());
            }
            Outcome::Flag(holds)
        }
        Action::Add(delta) => {
            let old =
                value.take().map_or(0, |v| String::from_utf8_lossy(&v).parse::<i64>().expect("a number"));
            *value = Some((old + delta).to_string().into_bytes());
            Outcome::Number(old + delta)
        }
        other => unreachable!("{other} is not generated"),
    }
}

fn judge(name: &str, history: &History, right: bool) {
    let begin = Instant::now();
    let verdict = check(history);
    let elapsed = begin.elapsed();
    println!("{name}: {} operations on one key judged in {elapsed:.2?}", history.operations().len());
    match verdict {
        Verdict::Linearizable => assert!(right, "{name}: accepted"),
        Verdict::NotLinearizable(explanation) => assert!(!right, "{name}: {explanation}"),
        Verdict::Undecided(undecided) => panic!("{name}: {undecided}"),
    }
}

fn number(n: u64) -> Vec<u8> {
    format!("v{n}").into_bytes()
}

/// The history of these operations, each as `change` leaves it.
fn changed(operations: &[Operation], change: impl Fn(usize, &mut Operation)) -> History {
    let mut history = History::new();
    for (number, operation) in operations.iter().enumerate() {
        let mut operation = operation.clone();
        change(number, &mut operation);
        history.push(operation).expect("well formed");
    }
    history
}

/// The history with one read in its last tenth that returns a value overwritten long before.
fn spoil(history: &History) -> History {
    let operations = history.operations();
    let old = operations.iter().find_map(|o| match (&o.action, &o.outcome) {
        (Action::Put(value), Outcome::Done) => Some(value.clone()),
        _ => None,
    });
    let late = operations.len() * 9 / 10;
    let victim = (late..operations.len()).find(|&n| matches!(operations[n].outcome, Outcome::Value(_)));
    changed(operations, |number, operation| {
        if Some(number) == victim {
            operation.outcome = Outcome::Value(old.clone());
        }
    })
}

#[test]
fn puts_and_gets_with_lost_writes() {
    let history = record(100_000, 64, 50, |random, n, _| match random.below(2) {
        0 => Action::Get,
        _ => Action::Put(number(n)),
    });
    judge("puts and gets, 64 clients, 1 % lost", &history, true);
    judge("the same with one stale read", &spoil(&history), false);
}

/// The history of puts of [`number`]s as clients see it who ask for revisions.
fn with_revisions(history: &History) -> History {
    let revision = |value: &[u8]| {
        String::from_utf8_lossy(value).trim_start_matches('v').parse::<u64>().expect("a number") + 1
    };
    changed(history.operations(), |_, operation| {
        operation.outcome = match (operation.outcome.clone(), &operation.action) {
            (Outcome::Done, Action::Put(value)) => Outcome::Revision(revision(value)),
            (Outcome::Value(value), _) => Outcome::Versioned(value.map(|v| (v.clone(), revision(&v)))),
            (outcome, _) => outcome,
        };
    })
}

#[test]
fn puts_and_gets_that_tell_revisions_with_many_lost_writes() {
    // Seed 200069 of a crowd: of 270 operations on one key, half of them lost, the search could not say in 40 million
    // steps whether they are right. Their revisions say it at once.
    let history = record(20_000, 64, 3, |random, n, _| match random.below(2) {
        0 => Action::Get,
        _ => Action::Put(number(n)),
    });
    judge("puts and gets with revisions, 64 clients, a third lost", &with_revisions(&history), true);
    judge("the same with one stale read", &with_revisions(&spoil(&history)), false);
}

#[test]
fn conditional_writes_and_deletes() {
    let history = record(100_000, 16, 0, |random, n, value| match random.below(8) {
        0..=2 => Action::Get,
        3..=4 => Action::Put(number(n)),
        5 => Action::Delete,
        _ => Action::Cas { old: value.clone().unwrap_or_default(), new: number(n) },
    });
    judge("puts, gets, deletes, cas, 16 clients", &history, true);
    judge("the same with one stale read", &spoil(&history), false);
}

#[test]
fn conditional_writes_with_lost_ones() {
    let history = record(20_000, 8, 1_000, |random, n, value| match random.below(8) {
        0..=2 => Action::Get,
        3..=4 => Action::Put(number(n)),
        5 => Action::Delete,
        _ => Action::Cas { old: value.clone().unwrap_or_default(), new: number(n) },
    });
    judge("puts, gets, deletes, cas, 8 clients, 0.1 % lost", &history, true);
}

#[test]
fn counters_with_lost_additions() {
    let history = record(100_000, 32, 2_000, |random, _, _| match random.below(4) {
        0 => Action::Get,
        _ => Action::Add(1),
    });
    judge("additions and gets, 32 clients, 0.05 % lost", &history, true);
    let spoilt = changed(&history.operations()[..4_000], |number, operation| {
        if number > 3_600
            && let Outcome::Number(sum) = &mut operation.outcome
        {
            *sum += 60; // more than all lost additions together
        }
    });
    judge("the same with sums that jump", &spoilt, false);
}
