//! From the recorded operations of one key to what the judges work on: values interned, reads without an answer
//! and writes that cannot matter dropped, windows narrowed by what others saw.

use std::collections::{HashMap, HashSet};

use super::model::{Expect, NIL, Step, Value, Values};
use super::operation::{Action, Operation, Outcome};

/// No answer: the operation may take effect arbitrarily late.
pub(super) const OPEN: u64 = u64::MAX;

/// One operation, ready for the search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Index into the operations that were prepared.
    pub(super) source: usize,
    pub(super) invoke: u64,
    /// Takes effect no later than this; [`OPEN`] for one that may also never do.
    pub(super) deadline: u64,
    pub(super) step: Step,
    pub(super) expect: Expect,
    /// Given its answer it cannot have changed anything: a get, a failed condition, a delete of nothing.
    pub(super) pure: bool,
}

/// The history of one key.
pub(super) struct Prepared {
    /// By invocation.
    pub(super) calls: Vec<Call>,
    pub(super) values: Values,
    pub(super) track_revisions: bool,
}

/// Prepares the operations of one key.
pub(super) fn prepare(operations: &[&Operation]) -> Prepared {
    let mut values = Values::new();
    let mut calls: Vec<Call> = operations
        .iter()
        .enumerate()
        .filter_map(|(source, operation)| compile(source, operation, &mut values))
        .collect();
    calls.sort_by_key(|call| (call.invoke, call.deadline, call.source));
    drop_unseen(&mut calls);
    let track_revisions = calls.iter().any(|call| {
        matches!(call.step, Step::PutIfRev { .. })
            || matches!(call.expect, Expect::Versioned(..) | Expect::Revision(_))
    });
    Prepared { calls, values, track_revisions }
}

fn compile(source: usize, operation: &Operation, values: &mut Values) -> Option<Call> {
    let step = match &operation.action {
        Action::Get => Step::Get,
        Action::Put(value) => Step::Put(values.intern(value)),
        Action::Delete => Step::Delete,
        Action::SetNx(value) => Step::SetNx(values.intern(value)),
        Action::Cas { old, new } => Step::Cas { old: values.intern(old), new: values.intern(new) },
        Action::PutIfRev { revision, value } => {
            Step::PutIfRev { revision: *revision, value: values.intern(value) }
        }
        Action::Add(delta) => Step::Add(*delta),
        Action::Append(suffix) => Step::Append(values.intern(suffix)),
        Action::GetSet(value) => Step::GetSet(values.intern(value)),
        Action::GetDel => Step::GetDel,
        Action::PutFor { value, life } => {
            Step::PutFor { value: values.intern(value), until: end_of_life(operation.invoke, *life) }
        }
        Action::Renew(life) => {
            Step::Renew { until: life.map_or(0, |life| end_of_life(operation.invoke, life)) }
        }
    };
    let expect = match &operation.outcome {
        Outcome::NotApplied => return None,
        // A read that nobody saw constrains nothing. For the rest, not taking effect is the same as never happening,
        // so an open operation that is placed in the order at all is one that took effect.
        Outcome::Unknown if step == Step::Get => return None,
        Outcome::Unknown => Expect::Effect,
        Outcome::Done => Expect::Done,
        Outcome::Value(value) => Expect::Value(value.as_deref().map_or(NIL, |bytes| values.intern(bytes))),
        Outcome::Versioned(None) => Expect::Versioned(NIL, 0),
        Outcome::Versioned(Some((bytes, revision))) => Expect::Versioned(values.intern(bytes), *revision),
        Outcome::Flag(flag) => Expect::Flag(*flag),
        Outcome::Number(number) => Expect::Number(*number),
        Outcome::Revision(revision) => Expect::Revision(*revision),
    };
    let pure = step == Step::Get || expect == Expect::Flag(false);
    let deadline = operation.response.unwrap_or(OPEN);
    Some(Call { source, invoke: operation.invoke, deadline, step, expect, pure })
}

/// When a life of an operation may end; never 0, which is for none.
fn end_of_life(invoke: u64, life: u64) -> u64 {
    invoke.saturating_add(life).max(1)
}

/// Whether the key may vanish by itself.
pub(super) fn is_mortal(calls: &[Call]) -> bool {
    calls.iter().any(|call| matches!(call.step, Step::PutFor { .. } | Step::Renew { .. }))
}

/// Drops open writes whose effect nobody saw, on keys with blind writes and plain reads only. A benchmark against
/// nodes that are killed leaves many of them, and each would double the search.
///
/// Sound in both directions. An order without the write is an order of the whole history in which it never took
/// effect. And given an order in which it did: between it and the next write stand only reads, all of which would
/// return its value; nobody returned it, so nothing stands there and taking the write out changes no answer. With
/// conditions, sums or "did it exist?" among the answers, the write could be seen without its value being read;
/// then everything is kept.
fn drop_unseen(calls: &mut Vec<Call>) {
    let blind = calls.iter().all(|call| {
        matches!(
            (call.step, call.expect),
            (Step::Get, _) | (Step::Put(_), _) | (Step::Delete, Expect::Done | Expect::Effect)
        )
    });
    if !blind {
        return;
    }
    let seen: HashSet<Value> = calls.iter().filter_map(seen_by).collect();
    calls.retain(|call| call.deadline != OPEN || written_by(call).is_none_or(|value| seen.contains(&value)));
}

/// Moves the deadline of a write down to the first answer that shows its value, where only this one write can have
/// produced the value. For an open write this settles that it took effect.
pub(super) fn narrow(calls: &mut [Call]) {
    let derived = |call: &Call| matches!(call.step, Step::Add(_) | Step::Append(_));
    if calls.iter().any(derived) {
        return; // sums and concatenations may produce any value, too
    }
    let mut writers: HashMap<Value, Option<usize>> = HashMap::new();
    for (index, call) in calls.iter().enumerate() {
        if let Some(value) = written_by(call).filter(|value| *value != NIL) {
            writers.entry(value).and_modify(|only| *only = None).or_insert(Some(index));
        }
    }
    for reader in 0..calls.len() {
        let Some(value) = seen_by(&calls[reader]).filter(|value| *value != NIL) else { continue };
        if let Some(&Some(writer)) = writers.get(&value)
            && writer != reader
        {
            calls[writer].deadline = calls[writer].deadline.min(calls[reader].deadline);
        }
    }
}

/// The value that this operation leaves behind, if it (perhaps) leaves one that was given literally.
pub(super) fn written_by(call: &Call) -> Option<Value> {
    match call.step {
        _ if call.pure => None,
        Step::Put(value) | Step::SetNx(value) | Step::GetSet(value) => Some(value),
        Step::Cas { new, .. } => Some(new),
        Step::PutIfRev { value, .. } | Step::PutFor { value, .. } => Some(value),
        Step::Delete | Step::GetDel => Some(NIL),
        Step::Get | Step::Add(_) | Step::Append(_) | Step::Renew { .. } => None,
    }
}

/// The value that this operation certainly found, if its answer shows one.
pub(super) fn seen_by(call: &Call) -> Option<Value> {
    match (call.step, call.expect) {
        (_, Expect::Value(value) | Expect::Versioned(value, _)) => Some(value),
        (Step::SetNx(_), Expect::Flag(true) | Expect::Revision(_)) => Some(NIL),
        (Step::Cas { old, .. }, Expect::Flag(true) | Expect::Revision(_)) => Some(old),
        _ => None,
    }
}
