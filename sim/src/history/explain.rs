//! Why a history was rejected, as a person wants to read it: as few operations as still show the contradiction.

use std::fmt;

use super::check::{Judgement, Wrong, judge};
use super::operation::{Operation, Outcome, Quoted};
use super::search::Stuck;

/// The story of one key that is not linearizable.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The key.
    pub key: Vec<u8>,
    /// What does not fit, in a sentence or two.
    pub reason: String,
    /// The operations that show it, by invocation. An operation that was still running where the story ends is shown
    /// without its answer.
    pub operations: Vec<Operation>,
    /// How many more operations the key has in the recorded history.
    pub left_out: usize,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key {}: {}", Quoted(&self.key), self.reason)?;
        for operation in &self.operations {
            writeln!(f, "  {operation}")?;
        }
        write!(f, "  ({} other operations on this key left out)", self.left_out)
    }
}

/// Judgements made to make a story smaller.
const ATTEMPTS: usize = 200;

/// Work per such judgement: a story is worth some seconds, not minutes.
const STEPS: u64 = 500_000;

/// Operations told at most.
const TOLD: usize = 12;

/// Makes the story of a key that was judged `wrong`.
pub(super) fn explain(key: &[u8], operations: &[&Operation], wrong: Wrong, steps: u64) -> Explanation {
    let (mut told, reason) = match wrong {
        Wrong::Conflict { operations: numbers, reason } => {
            (numbers.into_iter().map(|number| operations[number].clone()).collect(), reason)
        }
        Wrong::NoOrder(stuck) => {
            let mut story = Story { operations: operations.iter().map(|&o| o.clone()).collect(), stuck };
            let mut attempts = Attempts { left: ATTEMPTS, steps: steps.min(STEPS) };
            story.cut_at_first_contradiction(&mut attempts);
            story.drop_needless_reads(&mut attempts);
            story.tell()
        }
    };
    told.sort_by_key(|operation: &Operation| (operation.invoke, operation.response));
    Explanation {
        key: key.to_vec(),
        reason,
        left_out: operations.len().saturating_sub(told.len()),
        operations: told,
    }
}

/// A set of operations that is known to have no legal order.
struct Story {
    operations: Vec<Operation>,
    stuck: Stuck,
}

struct Attempts {
    left: usize,
    steps: u64,
}

impl Attempts {
    /// Where the best attempt at ordering `operations` got stuck, if it is certain that there is no order.
    fn contradiction(&mut self, operations: &[Operation]) -> Option<Stuck> {
        self.left = self.left.checked_sub(1)?;
        match judge(&operations.iter().collect::<Vec<_>>(), self.steps) {
            Judgement::Wrong(Wrong::NoOrder(stuck)) => Some(stuck),
            Judgement::Wrong(Wrong::Conflict { operations, .. }) => {
                Some(Stuck { waiting: operations, ..Stuck::default() })
            }
            Judgement::Right | Judgement::Undecided => None,
        }
    }
}

impl Story {
    /// Finds the first answer after which no order is left, and forgets what came later. What was known at an earlier
    /// time is implied by what was known later, so the times can be bisected.
    fn cut_at_first_contradiction(&mut self, attempts: &mut Attempts) {
        let mut times: Vec<u64> = self.operations.iter().filter_map(|o| o.response).collect();
        times.sort_unstable();
        times.dedup();
        let (mut low, mut high) = (0, times.len());
        let whole = std::mem::take(&mut self.operations);
        let mut best = whole.clone();
        while low < high {
            let middle = low + (high - low) / 2;
            let known = known_at(times[middle], &whole);
            match attempts.contradiction(&known) {
                Some(stuck) => {
                    (high, self.stuck, best) = (middle, stuck, known);
                }
                None => low = middle + 1,
            }
        }
        self.operations = best;
    }

    /// Leaves out reads without which there still is no order, in pieces that get smaller. A write is never left out:
    /// without it, reads of its value would be wrong for another reason than the one to be told.
    fn drop_needless_reads(&mut self, attempts: &mut Attempts) {
        let mut piece = self.operations.len().div_ceil(2);
        while piece > 0 {
            let mut start = 0;
            while start < self.operations.len() {
                let end = (start + piece).min(self.operations.len());
                let mut fewer = self.operations.clone();
                let mut number = 0;
                fewer.retain(|operation| {
                    let inside = (start..end).contains(&number);
                    number += 1;
                    !(inside && is_read(operation))
                });
                if fewer.len() < self.operations.len()
                    && let Some(stuck) = attempts.contradiction(&fewer)
                {
                    (self.operations, self.stuck) = (fewer, stuck);
                } else {
                    start = end;
                }
                if attempts.left == 0 {
                    return;
                }
            }
            piece /= 2;
        }
    }

    /// The operations to show and the sentence over them.
    fn tell(self) -> (Vec<Operation>, String) {
        let Story { operations, stuck } = self;
        let last = operations.iter().filter_map(|o| o.response).max().unwrap_or(u64::MAX);
        let mut reason = "no order of these operations explains every answer".to_owned();
        if let Some(value) = &stuck.value {
            let value = value.as_deref().map_or("absent".to_owned(), |bytes| Quoted(bytes).to_string());
            reason.push_str(&format!("; the best attempt leaves the key {value} and goes no further"));
        }
        if operations.len() <= TOLD {
            return (operations, reason);
        }
        // The ones that fit nowhere, what was placed before them, and then whatever else is nearest to the end.
        let mut order: Vec<usize> = stuck.waiting.iter().chain(stuck.placed.iter().rev()).copied().collect();
        let mut nearest: Vec<usize> = (0..operations.len()).collect();
        nearest.sort_by_key(|&n| last.saturating_sub(operations[n].response.unwrap_or(operations[n].invoke)));
        order.extend(nearest);
        let mut chosen: Vec<usize> = Vec::new();
        for number in order {
            if chosen.len() < TOLD && !chosen.contains(&number) {
                chosen.push(number);
            }
        }
        (chosen.into_iter().map(|number| operations[number].clone()).collect(), reason)
    }
}

fn is_read(operation: &Operation) -> bool {
    matches!(operation.outcome, Outcome::Flag(false)) || operation.action == super::Action::Get
}

/// The history as it was known at `time`: what was not yet sent is gone, what was not yet answered is open.
fn known_at(time: u64, operations: &[Operation]) -> Vec<Operation> {
    let sent = operations.iter().filter(|o| o.invoke <= time && o.outcome != Outcome::NotApplied);
    sent.map(|operation| {
        let mut operation = operation.clone();
        if operation.response.is_none_or(|response| response > time) {
            operation.response = None;
            operation.outcome = Outcome::Unknown;
        }
        operation
    })
    .collect()
}
