//! The judge: one key after the other, the worst verdict wins.

use std::collections::BTreeMap;
use std::fmt;

use super::explain::{self, Explanation};
use super::operation::{Operation, Quoted};
use super::prepare::{narrow, prepare};
use super::record::History;
use super::search::{self, Found, Stuck};
use super::zones::{self, Conflict, Zones};

/// How much work a judgement may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Placements tried per key before it is given up as undecided. Ten million take about a second.
    pub steps_per_key: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { steps_per_key: 50_000_000 }
    }
}

/// What [`check`] says about a history.
#[derive(Debug)]
pub enum Verdict {
    /// Every key has an order in which all answers make sense.
    Linearizable,
    /// Some key has none.
    NotLinearizable(Box<Explanation>),
    /// No key was found wrong, but at least one took more work than allowed.
    Undecided(Undecided),
}

impl Verdict {
    /// Whether the history was found right.
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Verdict::Linearizable)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Linearizable => write!(f, "linearizable"),
            Verdict::NotLinearizable(explanation) => write!(f, "not linearizable: {explanation}"),
            Verdict::Undecided(undecided) => write!(f, "undecided: {undecided}"),
        }
    }
}

/// The largest key that was given up.
#[derive(Clone, Debug)]
pub struct Undecided {
    /// The key.
    pub key: Vec<u8>,
    /// Its number of operations.
    pub operations: usize,
    /// How many keys were given up.
    pub keys: usize,
    /// The bound that applied.
    pub steps: u64,
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Undecided { operations, keys, steps, .. } = self;
        let key = Quoted(&self.key);
        write!(
            f,
            "{keys} keys took more than {steps} steps, the largest is {key} with {operations} operations"
        )
    }
}

/// Judges a history with the default [`Limits`]. Every key is taken to be absent before the history begins.
pub fn check(history: &History) -> Verdict {
    check_within(history, &Limits::default())
}

/// Judges a history. Every key is taken to be absent before the history begins: values that were there earlier are
/// recorded as puts.
pub fn check_within(history: &History, limits: &Limits) -> Verdict {
    let mut by_key: BTreeMap<&[u8], Vec<&Operation>> = BTreeMap::new();
    for operation in history.operations() {
        by_key.entry(&operation.key).or_default().push(operation);
    }
    let mut undecided: Option<Undecided> = None;
    for (key, operations) in by_key {
        match judge(&operations, limits.steps_per_key) {
            Judgement::Right => {}
            Judgement::Wrong(wrong) => {
                let explanation = explain::explain(key, &operations, wrong, limits.steps_per_key);
                return Verdict::NotLinearizable(Box::new(explanation));
            }
            Judgement::Undecided => {
                let keys = undecided.as_ref().map_or(0, |undecided| undecided.keys) + 1;
                let larger = undecided.take().filter(|known| known.operations >= operations.len());
                undecided = Some(Undecided {
                    keys,
                    ..larger.unwrap_or_else(|| Undecided {
                        key: key.to_vec(),
                        operations: operations.len(),
                        keys,
                        steps: limits.steps_per_key,
                    })
                });
            }
        }
    }
    undecided.map_or(Verdict::Linearizable, Verdict::Undecided)
}

/// The judgement of one key.
pub(super) enum Judgement {
    Right,
    Wrong(Wrong),
    Undecided,
}

/// How a key was found wrong. Numbers are indices into the operations that were judged.
pub(super) enum Wrong {
    /// These operations cannot all be right, whatever the others are.
    Conflict { operations: Vec<usize>, reason: String },
    /// No order was found; how far the best attempt got.
    NoOrder(Stuck),
}

/// Judges the operations of one key.
pub(super) fn judge(operations: &[&Operation], steps: u64) -> Judgement {
    let mut key = prepare(operations);
    match zones::judge(&key) {
        Zones::Right => return Judgement::Right,
        Zones::Wrong(Conflict { calls, reason }) => {
            let operations = calls.into_iter().map(|call| key.calls[call].source).collect();
            return Judgement::Wrong(Wrong::Conflict { operations, reason });
        }
        Zones::Open => {}
    }
    narrow(&mut key.calls);
    match search::search(&mut key, steps) {
        Found::Order => Judgement::Right,
        Found::Undecided => Judgement::Undecided,
        Found::NoOrder(mut stuck) => {
            for call in stuck.placed.iter_mut().chain(&mut stuck.waiting) {
                *call = key.calls[*call].source;
            }
            Judgement::Wrong(Wrong::NoOrder(stuck))
        }
    }
}
