//! What the answers not yet placed still demand: values that must come, and open operations that must be seen.
//!
//! Three rules for the search, each a necessary condition of a legal order.
//!
//! * **A value that was seen must still be able to come.** Where values are written as given, it must be written
//!   again; where they grow by appends, a beginning of it must be. Once nobody is left who could write any such
//!   beginning, the present value must be one. Sums can produce any number again: keys with additions have no demand.
//! * **An open operation is not overwritten unseen.** Of all legal orders look at those with the fewest open
//!   operations. If one of these stood right before a write that takes no notice of what was there, it could be left
//!   out: the value behind that write is the same, and so is the revision, or less is known of it. (An open removal
//!   that finds nothing once its predecessor is left out is left out with it.)
//! * **An open operation is awaited.** So behind every run of open operations stands an answered one that was sent
//!   before the earliest answer still missing and takes notice of what the run has left. If its answer shows a value,
//!   what an open operation leaves must be that value or, where values grow, its beginning.
//!
//! The last two hold however a configuration is reached. If one is reached with an open operation last and an order
//! through it needs a write that the second rule forbids, then the same order without that operation is legal too,
//! and the search comes to it through the configuration before.

use std::collections::{BTreeSet, HashMap};

use super::model::{Expect, NIL, Step, Value, Values};
use super::prepare::{Call, OPEN, is_mortal, seen_by, written_by};

/// How many demanded values are looked at per step; the shortest first, since they can least wait.
const LOOKED_AT: usize = 64;

/// Values that answers not yet placed have seen, and who can still bring them about.
pub(super) struct Demand {
    /// Whether values grow by appends.
    grows: bool,
    /// By value: answered calls not placed that saw it.
    unseen: Vec<u32>,
    /// By value: calls not placed that would write it, or what it can grow from.
    sources: Vec<u32>,
    /// By written value: the seen ones that it is a source of.
    feeds: Vec<Vec<Value>>,
    /// Length and number of the values that were seen and have no source left.
    pressing: BTreeSet<(usize, Value)>,
    /// By value.
    lengths: Vec<usize>,
}

impl Demand {
    /// The demand before anything is placed; `None` for keys where anybody can produce any value.
    pub(super) fn of(calls: &[Call], values: &Values) -> Option<Demand> {
        if calls.iter().any(|call| matches!(call.step, Step::Add(_))) {
            return None;
        }
        let count = values.len();
        let length = |value: Value| values.get(value).map_or(0, <[u8]>::len);
        let mut demand = Demand {
            grows: calls.iter().any(|call| matches!(call.step, Step::Append(_))),
            unseen: vec![0; count],
            sources: vec![0; count],
            feeds: feeds(calls, values),
            pressing: BTreeSet::new(),
            lengths: (0..count).map(|value| length(value as Value)).collect(),
        };
        if is_mortal(calls) {
            // The key may vanish by itself: absence, and what can grow from it, always have a source.
            for value in &demand.feeds[NIL as usize] {
                demand.sources[*value as usize] += 1;
            }
        }
        calls.iter().for_each(|call| demand.toggle(call, false));
        Some(demand)
    }

    /// A call is placed, or taken back.
    pub(super) fn toggle(&mut self, call: &Call, place: bool) {
        let count = |counter: &mut u32| if place { *counter -= 1 } else { *counter += 1 };
        if let Some(value) = seen_by(call) {
            count(&mut self.unseen[value as usize]);
            self.look_at(value);
        }
        if let Some(value) = written_by(call) {
            let fed = std::mem::take(&mut self.feeds[value as usize]);
            for &value in &fed {
                count(&mut self.sources[value as usize]);
                self.look_at(value);
            }
            self.feeds[value as usize] = fed;
        }
    }

    /// Whether everything that was seen can still come when the key has this value.
    pub(super) fn allows(&self, value: Value, values: &Values) -> bool {
        let mut pressing = self.pressing.iter().take(LOOKED_AT);
        pressing.all(|&(_, seen)| becomes(value, seen, self.grows, values))
    }

    fn look_at(&mut self, value: Value) {
        let entry = (self.lengths[value as usize], value);
        if self.unseen[value as usize] > 0 && self.sources[value as usize] == 0 {
            self.pressing.insert(entry);
        } else {
            self.pressing.remove(&entry);
        }
    }
}

/// By written value: the seen values that can come of it without another write than appends.
fn feeds(calls: &[Call], values: &Values) -> Vec<Vec<Value>> {
    let mut literal = vec![false; values.len()];
    calls.iter().filter_map(written_by).for_each(|value| literal[value as usize] = true);
    let by_bytes: HashMap<&[u8], Value> = (1..values.len() as Value)
        .filter(|&value| literal[value as usize])
        .filter_map(|value| Some((values.get(value)?, value)))
        .collect();
    let suffixes: BTreeSet<&[u8]> = calls.iter().filter_map(|call| appended_by(call, values)).collect();
    let lengths = |of: &mut dyn Iterator<Item = usize>| of.collect::<BTreeSet<usize>>();
    let (written, appended) =
        (lengths(&mut by_bytes.keys().map(|b| b.len())), lengths(&mut suffixes.iter().map(|b| b.len())));
    let mut feeds = vec![Vec::new(); values.len()];
    for seen in calls.iter().filter_map(seen_by).collect::<BTreeSet<Value>>() {
        let Some(bytes) = values.get(seen) else {
            feeds[NIL as usize].push(NIL);
            continue;
        };
        if suffixes.is_empty() {
            feeds[seen as usize].push(seen);
            continue;
        }
        let beginnings = |lengths: &BTreeSet<usize>| -> Vec<&[u8]> {
            lengths.range(..=bytes.len()).map(|&length| &bytes[..length]).collect()
        };
        for source in beginnings(&written).into_iter().filter_map(|beginning| by_bytes.get(beginning)) {
            feeds[*source as usize].push(seen);
        }
        if beginnings(&appended).into_iter().any(|beginning| suffixes.contains(beginning)) {
            feeds[NIL as usize].push(seen);
        }
    }
    feeds
}

fn appended_by<'a>(call: &Call, values: &'a Values) -> Option<&'a [u8]> {
    match call.step {
        Step::Append(suffix) => values.get(suffix),
        _ => None,
    }
}

/// Whether `value` is `seen` or, where values grow, can become it by appends.
fn becomes(value: Value, seen: Value, grows: bool, values: &Values) -> bool {
    let grown = |seen: &[u8]| seen.starts_with(values.get(value).unwrap_or_default());
    value == seen || (grows && values.get(seen).is_some_and(grown))
}

/// What a run of open operations can do to a value before somebody takes notice of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Openness {
    /// Replace it.
    Writes,
    /// Make it longer, too.
    Appends,
    /// Anything.
    Anything,
}

impl Openness {
    /// What the open calls of a key can do.
    pub(super) fn of(calls: &[Call]) -> Openness {
        let kind = |call: &Call| match call.step {
            Step::Append(_) => Openness::Appends,
            Step::Add(_)
            | Step::Cas { .. }
            | Step::SetNx(_)
            | Step::PutIfRev { .. }
            | Step::PutFor { .. }
            | Step::Renew { .. } => Openness::Anything,
            Step::Get | Step::Put(_) | Step::Delete | Step::GetSet(_) | Step::GetDel => Openness::Writes,
        };
        let open: Vec<Openness> = calls.iter().filter(|call| call.deadline == OPEN).map(kind).collect();
        // What vanishes leaves a value that nobody has written.
        if open.contains(&Openness::Anything) || is_mortal(calls) {
            Openness::Anything
        } else if open.contains(&Openness::Appends) {
            Openness::Appends
        } else {
            Openness::Writes
        }
    }

    /// Whether an answered call can be the one that takes notice of a run in which the key had this value.
    pub(super) fn is_noticed(self, value: Value, by: &Call, values: &Values) -> bool {
        if takes_no_notice(by) {
            return false;
        }
        if self == Openness::Anything {
            return true;
        }
        if let Some(seen) = seen_by(by) {
            return becomes(value, seen, self == Openness::Appends, values);
        }
        match (by.step, by.expect) {
            (Step::Append(suffix), Expect::Number(length)) => {
                let length_of = |value: Value| values.get(value).map_or(0, <[u8]>::len) as i64;
                length_of(value).saturating_add(length_of(suffix)) <= length
            }
            _ => true,
        }
    }
}

/// Whether a call leaves the same value whatever it finds and was not told what that was.
pub(super) fn takes_no_notice(call: &Call) -> bool {
    match (call.step, call.expect) {
        (Step::Put(_) | Step::PutFor { .. }, _)
        | (Step::GetSet(_), Expect::Effect)
        | (Step::Delete, Expect::Done) => true,
        (Step::Delete | Step::GetDel, Expect::Effect) => call.deadline == OPEN,
        _ => false,
    }
}
