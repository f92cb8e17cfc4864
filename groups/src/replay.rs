//! Rebuilding a group from its checkpoint and its records.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::ids::{Ballot, InstanceId};
use crate::kv::State;
use crate::kv::value::as_members;
use crate::log::Record;
use crate::paxos::{self, Accepted, Halt, Members, Recovered};
use crate::planted::{self, Bug};

/// Takes a group's records in log order, on top of the state that its mirror had.
///
/// The log may begin later than the state ends: log GC trusts the mirror, and the mirror can be
/// lost. Then the promise, the votes and the end of the chosen prefix are known all the same,
/// and only the state is missing: the group votes, and fetches a checkpoint.
#[derive(Debug, Default)]
pub struct Replay {
    promised: Ballot,
    /// The newest record of each instance beyond the chosen prefix.
    pending: BTreeMap<InstanceId, Accepted>,
    /// `state.applied <= chosen`; equal unless the state is missing.
    chosen: InstanceId,
    chain: u64,
    /// What records call chosen. Log GC may have taken the values before the first of them; the
    /// anchor that stands for those comes later in the log.
    known: InstanceId,
    /// What watermarks call chosen, with values that the log has from `vouched_from` on.
    marked: InstanceId,
    vouched_from: InstanceId,
    /// Up to here a checksum has proven that the values are the chosen ones.
    proven: InstanceId,
    /// Records begin behind this: a state that is to be continued from the log reaches here.
    floor: InstanceId,
    /// The members that the prefix has made; `None` for those of the birth.
    members: Option<Members>,
    /// The log has the value of every instance up to here, or an anchor that stands for it.
    covered: InstanceId,
    /// Instances beyond it, up to the mirror's, of which the log has a value.
    scattered: BTreeSet<InstanceId>,
    state: State,
    /// Where the mirror stands.
    mirror: InstanceId,
    halted: Option<Halt>,
}

/// What a group starts from.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub recovered: Recovered,
    pub state: State,
    pub mirror: InstanceId,
    pub ahead: bool,
    pub floor: InstanceId,
    pub halted: Option<Halt>,
}

impl Replay {
    /// Goes on from the state of a mirror; `chain` is the chained checksum there.
    #[must_use]
    pub fn from_mirror(mut state: State, chain: u64) -> Replay {
        state.watch_changes();
        let (mirror, members) = (state.applied(), state.members().cloned());
        Replay { chosen: mirror, chain, members, state, mirror, ..Replay::default() }
    }

    /// Goes on from nothing, towards a mirror that has nothing yet.
    #[must_use]
    pub fn mirrored() -> Replay {
        Replay::from_mirror(State::default(), 0)
    }

    /// Takes the next record of the group.
    pub fn record(&mut self, record: Record) {
        match record {
            Record::Promise { .. } if planted::is(Bug::PromiseForgotten) => {}
            Record::Promise { ballot, .. } if planted::is(Bug::LearningMovesPromise) => {
                self.promised = ballot
            }
            Record::Promise { ballot, .. } => self.promised = self.promised.max(ballot),
            Record::Accept { instance, ballot, value, .. } => {
                self.cover(instance);
                // An accept implies the promise.
                self.promised = self.promised.max(ballot);
                if instance > self.chosen {
                    let older = self.pending.insert(instance, Accepted { ballot, value });
                    if let Some(older) = older.filter(|_| planted::is(Bug::ReplayTwice)) {
                        self.state.apply_again(older.value);
                    }
                }
            }
            Record::Chosen { instance, ballot, value, .. } => {
                self.cover(instance);
                // A learned value leaves the promise alone.
                if instance > self.chosen {
                    self.pending.insert(instance, Accepted { ballot, value });
                    self.choose(instance);
                }
            }
            Record::Watermark { first, instance, .. } => self.mark(first, instance),
            Record::Anchor { instance, chain, ballot, members, .. } => {
                self.anchor(instance, chain, ballot, members);
            }
        }
    }

    /// Everything up to `instance` is chosen and was in the checkpoint; records below may be gone.
    fn anchor(&mut self, instance: InstanceId, chain: u64, ballot: Ballot, members: Bytes) {
        self.promised = self.promised.max(ballot);
        self.floor = self.floor.max(instance);
        self.covered = self.covered.max(instance);
        self.scattered = self.scattered.split_off(&self.covered);
        self.scattered.remove(&self.covered);
        self.join();
        if instance == self.chosen && chain != self.chain {
            let (ours, theirs) = (self.chain, chain);
            self.halted.get_or_insert(Halt::Checkpoint { instance, ours, theirs });
        }
        if instance > self.chosen && self.chain_at(instance) == Some(chain) {
            // The values are all here, and they are the chosen ones, whatever was doubted.
            self.proven = instance;
            self.choose(instance);
        }
        if instance > self.chosen && self.halted.is_none() {
            self.pending = self.pending.split_off(&instance.next());
            (self.chosen, self.chain) = (instance, chain);
            if !members.is_empty() {
                match Members::decode(members) {
                    Some(members) => {
                        // A value beyond the anchor may have made them: it was chosen then.
                        self.known = self.known.max(members.changed_at());
                        self.members = Some(members);
                    }
                    None => {
                        let why = "its anchor names members in an unknown shape".to_owned();
                        self.halted = Some(Halt::Unreadable { instance, why });
                    }
                }
            }
            self.choose(instance);
        }
    }

    /// Everything up to `instance` is chosen; values before `first` may be others than those.
    fn mark(&mut self, first: InstanceId, instance: InstanceId) {
        self.marked = self.marked.max(instance);
        self.vouched_from = self.vouched_from.max(first);
        self.choose(instance);
    }

    /// The log has a value of `instance`.
    fn cover(&mut self, instance: InstanceId) {
        if instance > self.covered && instance <= self.mirror {
            self.scattered.insert(instance);
            self.join();
        }
    }

    fn join(&mut self) {
        while self.covered < self.mirror && self.scattered.remove(&self.covered.next()) {
            self.covered = self.covered.next();
        }
    }

    /// Whether the mirror has what the log has not: values were folded before their records were
    /// on the disk, and then the process died. The mirror alone has them now, and before anything
    /// else is built on it, it must be durable. What the log does not call chosen is not there
    /// either: it may be another value, accepted once.
    #[must_use]
    pub fn is_mirror_ahead(&self) -> bool {
        let told = self.covered.min(self.marked.max(self.floor));
        // Nor did an earlier start have the time to anchor what it found so.
        let unproven = self.vouched_from > self.floor.next() && self.mirror > self.floor;
        (told < self.mirror || unproven) && !planted::is(Bug::MirrorAheadOfLog)
    }

    /// How many chosen values lay behind the mirror and were applied once more.
    #[must_use]
    pub fn replayed(&self) -> u64 {
        self.state.applied().0.saturating_sub(self.mirror.0)
    }

    /// The chained checksum at `instance`, if the newest records up to there were the chosen
    /// ones; `None` when some are missing.
    fn chain_at(&self, instance: InstanceId) -> Option<u64> {
        let mut next = self.chosen.next();
        let mut chain = self.chain;
        for (&at, accepted) in self.pending.range(next..=instance) {
            if at != next {
                return None;
            }
            chain = paxos::chain(chain, &accepted.value);
            next = next.next();
        }
        (next > instance).then_some(chain)
    }

    fn choose(&mut self, to: InstanceId) {
        self.known = self.known.max(to);
        while self.chosen < self.known && self.halted.is_none() {
            let next = self.chosen.next();
            if next < self.vouched_from && next > self.proven {
                // Perhaps accepted and not chosen: only an anchor can tell, or stand for it.
                return;
            }
            let Some(accepted) = self.pending.remove(&next) else { return };
            self.chain = paxos::chain(self.chain, &accepted.value);
            let changed = self.members.as_ref().map_or(InstanceId::ZERO, Members::changed_at);
            if let Some(new) = as_members(&accepted.value).filter(|new| new.follows(changed)) {
                self.members = Some(Members::since(next, new.list));
            }
            let whole = self.state.applied() == self.chosen;
            // It is chosen, whether it can be applied or not: a state that is found wrong by it is given up, and
            // the replica goes on with what it knows to be chosen.
            self.chosen = next;
            // Without the state before it nothing is applied; the checkpoint brings its effect.
            if whole && let Err(e) = self.state.apply(next, accepted.value, &mut |_, _| {}) {
                self.halted = Some(Halt::of(next, e));
            }
        }
    }

    pub(crate) fn finish(mut self) -> Replayed {
        let ahead = self.is_mirror_ahead();
        self.choose(self.known);
        // What a checkpoint has that no watermark calls chosen came with it, or may have.
        let held = self.mirror.max(self.floor);
        let doubtful = self.marked < held;
        if doubtful {
            self.vouched_from = held.next();
        }
        let Replay { promised, pending, chosen, chain, known, vouched_from, floor, .. } = self;
        let Replay { members, state, mirror, halted, .. } = self;
        let missing = (chosen < known).then_some(Halt::Missing { instance: chosen.next() });
        let halted = halted.or(missing);
        // Members that a missing value has made are not the members of this prefix.
        let members = members.filter(|m| m.changed_at() <= chosen);
        let recovered = Recovered { promised, chosen, chain, open: pending, members, vouched_from, doubtful };
        Replayed { recovered, state, mirror, ahead, floor, halted }
    }
}
