//! The search for a legal order on one key: Wing & Gong, "Testing and Verifying Concurrent Objects" (1993), with the
//! memoisation of Lowe, "Testing for Linearizability" (2017), iterative as in porcupine.
//!
//! A configuration is the set of operations placed so far and the state they led to. The next one in the order may be
//! any operation that was sent before the earliest answer among those not yet placed; whoever is sent later must also
//! come later. The search succeeds when every answered operation is placed: open ones may stay out.
//!
//! Seven things keep it small.
//! * A configuration is entered once, whatever the order in which its set was placed.
//! * An operation that given its answer changes nothing (a get, a failed condition) and that fits the present state is
//!   placed at once, without an alternative. If a legal order places it later, moving it here is legal too: it leaves
//!   the state as it is at both ends of the move.
//! * Of several open operations that ask the same, only the one sent first is tried: in an order that uses another
//!   one, the two can change roles, since the first may stand wherever the other one does.
//! * Every value that an answer not yet placed has seen must be able to come, or that answer would never fit.
//! * An open operation is tried only where somebody takes notice of it; both rules are those of `demand.rs`.
//! * Where all that takes too long, it is tried again with a bound on the open operations that are placed at all.
//! * Among several candidates the one with the earliest deadline is tried first, and open ones last.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::demand::{Demand, Openness, takes_no_notice};
use super::model::{Revision, State, Step, Values};
use super::prepare::{Call, OPEN, Prepared};

/// What a search found.
#[derive(Debug)]
pub(super) enum Found {
    /// There is a legal order.
    Order,
    /// There is none; how far the best attempt got.
    NoOrder(Stuck),
    /// The bound on work was hit first.
    Undecided,
}

/// The deepest dead end: all ways on from here fail.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    /// The last placed calls, in order.
    pub(super) placed: Vec<usize>,
    /// The value they led to; `None` if nothing was placed.
    pub(super) value: Option<Option<Vec<u8>>>,
    /// The answered calls that could have come next and fit nowhere.
    pub(super) waiting: Vec<usize>,
}

/// Distinct configurations remembered for one key. At 16 bytes each and the load factor of a hash set this is some
/// 150 MiB, the most that one judgement takes.
const MAX_CONFIGURATIONS: usize = 4 << 20;

/// Bytes of distinct values that a search may produce (long chains of appends).
const MAX_VALUE_BYTES: usize = 256 << 20;

/// How many open operations may be placed, in one attempt after the other. An order needs few of them as a rule, but
/// a search that goes into depth first tries all that many of them can do together.
const OPEN_PLACED: [usize; 7] = [usize::MAX, 1, 2, 3, 5, 8, 16];

/// Which share of the steps such an attempt gets; the last one gets what is left.
const SHARE: u64 = 16;

/// Searches for a legal order, trying at most `steps` placements.
pub(super) fn search(key: &mut Prepared, steps: u64) -> Found {
    if let Some(late) = key.calls.iter().position(|call| call.deadline < call.invoke) {
        return Found::NoOrder(Stuck { waiting: vec![late], ..Stuck::default() });
    }
    let open = key.calls.iter().filter(|call| call.deadline == OPEN).count();
    let mut left = steps;
    let attempts = OPEN_PLACED.into_iter().filter(|most| *most == usize::MAX || *most < open);
    for (most, share) in attempts.map(|most| (most, steps / SHARE)).chain([(usize::MAX, steps)]) {
        let share = share.min(left);
        let mut search = Search::new(&key.calls, &mut key.values, key.track_revisions, share, most);
        let found = search.run();
        left -= share - search.steps_left;
        match found {
            Found::Order => return Found::Order,
            // Within a bound that was felt, it may only be the bound that leaves no order.
            Found::NoOrder(stuck) if !search.was_bounded => return Found::NoOrder(stuck),
            Found::NoOrder(_) | Found::Undecided => {}
        }
    }
    Found::Undecided
}

struct Search<'a> {
    calls: &'a [Call],
    values: &'a mut Values,
    steps_left: u64,
    /// Answered calls not yet placed, by invocation and by deadline; open calls not yet placed, by invocation.
    by_invoke: Chain,
    by_deadline: Chain,
    open: Chain,
    demand: Option<Demand>,
    openness: Openness,
    /// For an open call the one before it that asks the same.
    twin: Vec<Option<u32>>,
    placed: Vec<bool>,
    state: State,
    /// The placed calls in order, each with the state before it.
    order: Vec<(u32, State)>,
    answered_placed: usize,
    open_placed: usize,
    /// Open calls that may be placed, and whether that has kept one out.
    most_open: usize,
    was_bounded: bool,
    /// Combined fingerprint of the placed calls.
    fingerprint: u128,
    visited: HashSet<u128, BuildHasherDefault<LowBits>>,
    frames: Vec<Frame>,
    /// Candidates of all frames, each frame's in a piece of its own at the end.
    candidates: Vec<u32>,
    stuck: Stuck,
    stuck_depth: Option<usize>,
}

/// A configuration with untried candidates.
struct Frame {
    /// Length of `order` here.
    depth: usize,
    /// Where its candidates begin; the untried ones are `next..` up to the begin of the next frame's.
    first: usize,
    next: usize,
    end: usize,
}

impl<'a> Search<'a> {
    fn new(
        calls: &'a [Call],
        values: &'a mut Values,
        track_revisions: bool,
        steps: u64,
        most_open: usize,
    ) -> Self {
        let answered: Vec<u32> = indices(calls, |call| call.deadline != OPEN);
        let open: Vec<u32> = indices(calls, |call| call.deadline == OPEN);
        let mut by_deadline = answered.clone();
        by_deadline.sort_by_key(|&call| calls[call as usize].deadline);
        let mut last_alike = HashMap::new();
        let mut twin = vec![None; calls.len()];
        for &call in &open {
            twin[call as usize] = last_alike.insert(calls[call as usize].step, call);
        }
        let demand = Demand::of(calls, values);
        Search {
            calls,
            values,
            steps_left: steps,
            by_invoke: Chain::new(calls.len(), &answered),
            by_deadline: Chain::new(calls.len(), &by_deadline),
            open: Chain::new(calls.len(), &open),
            demand,
            openness: Openness::of(calls),
            twin,
            placed: vec![false; calls.len()],
            state: State::absent(track_revisions),
            order: Vec::with_capacity(calls.len()),
            answered_placed: 0,
            open_placed: 0,
            most_open,
            was_bounded: false,
            fingerprint: 0,
            visited: HashSet::default(),
            frames: Vec::new(),
            candidates: Vec::new(),
            stuck: Stuck::default(),
            stuck_depth: None,
        }
    }

    fn run(&mut self) -> Found {
        loop {
            self.place_pure();
            if self.by_deadline.first().is_none() {
                return Found::Order;
            }
            if self.visited.insert(self.configuration()) {
                self.open_frame();
            }
            if self.visited.len() > MAX_CONFIGURATIONS || self.values.size > MAX_VALUE_BYTES {
                return Found::Undecided;
            }
            loop {
                if self.steps_left == 0 {
                    return Found::Undecided;
                }
                match self.try_next() {
                    Tried::Placed => break,
                    Tried::NoFit => {}
                    Tried::Exhausted => return Found::NoOrder(std::mem::take(&mut self.stuck)),
                }
            }
        }
    }

    /// The answer that everything placed next must have been sent before.
    fn horizon(&self) -> u64 {
        self.by_deadline.first().map_or(OPEN, |call| self.calls[call as usize].deadline)
    }

    fn place_pure(&mut self) {
        let mut cursor = self.by_invoke.first();
        while let Some(index) = cursor {
            let call = self.calls[index as usize];
            if call.invoke > self.horizon() {
                break;
            }
            self.steps_left = self.steps_left.saturating_sub(1);
            cursor = self.by_invoke.next(index);
            let after = self.state.after_by(call.step, call.expect, call.deadline, self.values);
            if call.pure && after == Some(self.state) {
                self.place(index, self.state);
            }
        }
    }

    fn open_frame(&mut self) {
        let first = self.candidates.len();
        let horizon = self.horizon();
        let in_reach = |call: &u32| self.calls[*call as usize].invoke <= horizon;
        self.candidates.extend(self.by_invoke.iter().take_while(in_reach));
        let calls = self.calls;
        self.candidates[first..].sort_by_key(|&call| calls[call as usize].deadline);
        for call in self.open.iter().take_while(in_reach) {
            self.steps_left = self.steps_left.saturating_sub(1);
            if self.twin[call as usize].is_none_or(|twin| self.placed[twin as usize]) {
                self.candidates.push(call);
            }
        }
        if self.state.until != 0 {
            let derived = |call: &u32| matches!(calls[*call as usize].step, Step::Add(_) | Step::Append(_));
            let vanished: Vec<u32> = self.candidates[first..].iter().copied().filter(derived).collect();
            self.candidates.extend(vanished.into_iter().map(|call| call | VANISHED));
        }
        self.frames.push(Frame { depth: self.order.len(), first, next: first, end: self.candidates.len() });
    }

    /// Tries the next candidate of the innermost configuration that has one.
    fn try_next(&mut self) -> Tried {
        let Some(frame) = self.frames.last_mut() else { return Tried::Exhausted };
        let depth = frame.depth;
        if frame.next == frame.end {
            let first = frame.first;
            self.unwind(depth);
            self.note_dead_end();
            self.candidates.truncate(first);
            self.frames.pop();
            return Tried::NoFit;
        }
        let candidate = self.candidates[frame.next];
        let (call, vanished) = (candidate & !VANISHED, candidate & VANISHED != 0);
        frame.next += 1;
        self.unwind(depth);
        self.steps_left = self.steps_left.saturating_sub(1);
        let Call { step, expect, deadline, .. } = self.calls[call as usize];
        if self.overwrites_open(call) {
            return Tried::NoFit;
        }
        if deadline == OPEN && self.open_placed == self.most_open {
            self.was_bounded = true;
            return Tried::NoFit;
        }
        let state = match vanished {
            true => {
                self.state.vanished(deadline).and_then(|s| s.after_by(step, expect, deadline, self.values))
            }
            false => self.state.after_by(step, expect, deadline, self.values),
        };
        let Some(state) = state else { return Tried::NoFit };
        self.place(call, state);
        if self.leaves_enough() && self.is_awaited() { Tried::Placed } else { Tried::NoFit }
    }

    /// The call placed last, if it is an open one.
    fn last_open(&self) -> Option<u32> {
        self.order.last().map(|&(call, _)| call).filter(|&call| self.calls[call as usize].deadline == OPEN)
    }

    /// Whether `call` would overwrite what an open call has just left, and nobody saw it.
    fn overwrites_open(&self, call: u32) -> bool {
        self.last_open().is_some() && takes_no_notice(&self.calls[call as usize])
    }

    /// Whether everything that was seen can still come behind the call placed last.
    fn leaves_enough(&self) -> bool {
        let same = self.order.last().is_some_and(|(_, before)| before.value == self.state.value);
        same || self.demand.as_ref().is_none_or(|demand| demand.allows(self.state.value, self.values))
    }

    /// Whether anybody can take notice of the call placed last, if it is an open one.
    fn is_awaited(&self) -> bool {
        let horizon = self.horizon();
        let calls = || self.by_invoke.iter().map(|call| &self.calls[call as usize]);
        self.last_open().is_none()
            || calls()
                .take_while(|call| call.invoke <= horizon)
                .any(|call| self.openness.is_noticed(self.state.value, call, self.values))
    }

    fn place(&mut self, call: u32, state: State) {
        self.order.push((call, self.state));
        self.toggle(call, true);
        self.state = state;
    }

    fn unwind(&mut self, depth: usize) {
        while self.order.len() > depth {
            let (call, before) = self.order.pop().expect("longer than depth");
            self.toggle(call, false);
            self.state = before;
        }
    }

    /// Takes a call out of the chains or, in the opposite order, puts it back.
    fn toggle(&mut self, call: u32, place: bool) {
        let answered = self.calls[call as usize].deadline != OPEN;
        let chains: &mut [&mut Chain] =
            if answered { &mut [&mut self.by_invoke, &mut self.by_deadline] } else { &mut [&mut self.open] };
        for chain in chains {
            if place { chain.remove(call) } else { chain.restore(call) }
        }
        if let Some(demand) = &mut self.demand {
            demand.toggle(&self.calls[call as usize], place);
        }
        self.placed[call as usize] = place;
        self.fingerprint ^= fingerprint(u64::from(call), u64::MAX);
        let placed = if answered { &mut self.answered_placed } else { &mut self.open_placed };
        if place { *placed += 1 } else { *placed -= 1 }
    }

    /// 128 bits that stand for the placed set and the state: the exclusive or of one random word per member (Zobrist)
    /// instead of a bit set, so that a step costs the same however long the history is. Two different configurations
    /// of a search of 2^22 collide with a probability below 2^-84.
    fn configuration(&self) -> u128 {
        let (kind, revision) = match self.state.revision {
            Revision::Untracked => (0, 0),
            Revision::Exactly(revision) => (1, revision),
            Revision::Above(revision) => (2, revision),
        };
        let life = fingerprint(self.state.until, u64::MAX - 1) ^ fingerprint(self.state.since, u64::MAX - 2);
        self.fingerprint ^ life ^ fingerprint(revision, u64::from(self.state.value) << 2 | kind)
    }

    fn note_dead_end(&mut self) {
        const TOLD: usize = 4;
        if self.stuck_depth.is_some_and(|deepest| deepest >= self.answered_placed) {
            return;
        }
        self.stuck_depth = Some(self.answered_placed);
        let tail = self.order.len().saturating_sub(TOLD);
        let horizon = self.horizon();
        self.stuck = Stuck {
            placed: self.order[tail..].iter().map(|&(call, _)| call as usize).collect(),
            value: (!self.order.is_empty()).then(|| self.values.get(self.state.value).map(<[u8]>::to_vec)),
            waiting: self
                .by_invoke
                .iter()
                .map(|call| call as usize)
                .take_while(|&call| self.calls[call].invoke <= horizon)
                .collect(),
        };
    }
}

/// Marks a candidate that is tried on a key that has vanished before.
const VANISHED: u32 = 1 << 31;

enum Tried {
    Placed,
    NoFit,
    Exhausted,
}

fn indices(calls: &[Call], wanted: impl Fn(&Call) -> bool) -> Vec<u32> {
    let count = u32::try_from(calls.len()).ok().filter(|count| *count < VANISHED);
    let count = count.expect("fewer than 2^31 operations on one key");
    (0..count).filter(|&index| wanted(&calls[index as usize])).collect()
}

/// A well mixed word per pair (SplitMix64's finaliser on each half).
fn fingerprint(a: u64, b: u64) -> u128 {
    let high = mix(mix(a ^ 0x9e37_79b9_7f4a_7c15).wrapping_add(b));
    let low = mix(mix(b ^ 0xd1b5_4a32_d192_ed03).wrapping_add(a));
    u128::from(high) << 64 | u128::from(low)
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The configurations are fingerprints already.
#[derive(Default)]
struct LowBits(u64);

impl Hasher for LowBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = mix(self.0 ^ u64::from(byte));
        }
    }

    fn write_u128(&mut self, configuration: u128) {
        self.0 = configuration as u64;
    }
}

/// A doubly linked list over call numbers that gives elements back in the opposite order of removal (Knuth's dancing
/// links). The last slot is the anchor.
struct Chain {
    next: Vec<u32>,
    previous: Vec<u32>,
}

impl Chain {
    fn new(calls: usize, order: &[u32]) -> Chain {
        let anchor = u32::try_from(calls).expect("fewer than 2^32 operations on one key");
        let mut chain = Chain { next: vec![anchor; calls + 1], previous: vec![anchor; calls + 1] };
        let mut last = anchor;
        for &call in order {
            chain.next[last as usize] = call;
            chain.previous[call as usize] = last;
            last = call;
        }
        chain.next[last as usize] = anchor;
        chain.previous[calls] = last;
        chain
    }

    fn first(&self) -> Option<u32> {
        self.next(self.anchor())
    }

    fn next(&self, call: u32) -> Option<u32> {
        let next = self.next[call as usize];
        (next != self.anchor()).then_some(next)
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.first(), |&call| self.next(call))
    }

    fn remove(&mut self, call: u32) {
        let (previous, next) = (self.previous[call as usize], self.next[call as usize]);
        self.next[previous as usize] = next;
        self.previous[next as usize] = previous;
    }

    fn restore(&mut self, call: u32) {
        let (previous, next) = (self.previous[call as usize], self.next[call as usize]);
        self.next[previous as usize] = call;
        self.previous[next as usize] = call;
    }

    fn anchor(&self) -> u32 {
        (self.next.len() - 1) as u32
    }
}
