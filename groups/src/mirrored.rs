//! What a group and its mirror owe each other.
//!
//! The mirror is a second state machine on disk. It follows the first one at its own pace: the
//! group hands it *folds*, what a run of chosen values did to each key, at most one at a time,
//! and never waits for it. Log GC in turn waits for the mirror: only a point that the mirror has
//! verified and recorded durably lets the log go, and the group says so with an anchor record.
//!
//! `durable <= mirrored <= handed <= applied`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::{InstanceId, NodeId};
use crate::kv::{Fold, Image, State};
use crate::paxos::message::Mark;
use crate::planted::{self, Bug};
use crate::time::Time;

/// What a group asks of its mirror.
#[derive(Debug)]
pub enum MirrorOrder {
    /// Take this in. Answered by [`Mirrored::folded`].
    Fold(Fold),
    /// Give up what there is and take this whole state in. Answered likewise.
    Refill(Image),
    /// Sync, verify and record where you stand. Answered by [`Mirrored::settled`].
    Settle,
    /// What you have of the group is wrong: forget it.
    Discard,
    /// Fetch a checkpoint that reaches at least this instance from one of these nodes.
    Fetch {
        /// The instance.
        least: InstanceId,
        /// Who may have one.
        sources: Vec<NodeId>,
    },
    /// No checkpoint is wanted any more.
    Cancel,
}

/// What log GC wants of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Records up to here are to go.
    pub through: InstanceId,
    /// Disk space runs out: values are not kept for slow learners.
    pub urgent: bool,
}

/// Why a group holds the log back, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBack {
    /// The mirror has not taken in what is to go.
    MirrorBehind,
    /// The mirror verifies and records it.
    Settling,
    /// It is kept for slow learners.
    Kept,
    /// The group has no state here: a checkpoint is on its way.
    NoState,
}

impl std::fmt::Display for HeldBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            HeldBack::MirrorBehind => "the mirror has not taken it in yet",
            HeldBack::Settling => "the mirror is being verified",
            HeldBack::Kept => "it is kept for slow learners",
            HeldBack::NoState => "the state here is missing, a checkpoint is on its way",
        })
    }
}

/// How folds are cut.
#[derive(Clone, Debug)]
pub struct MirrorLimits {
    /// So many changed keys make a fold.
    pub fold_keys: usize,
    /// After so many instances a fold is made however little has changed.
    pub fold_entries: u64,
    /// Chosen values kept in the log behind the mirror, unless space runs out.
    pub keep_entries: u64,
}

impl Default for MirrorLimits {
    fn default() -> MirrorLimits {
        MirrorLimits { fold_keys: 4096, fold_entries: 100_000, keep_entries: 10_000 }
    }
}

/// A mirror that could not take the group in is given all of it again after this.
const UNMIRRORED: Duration = Duration::from_secs(60);

/// An order to settle is given again after this: it may have met a group that was not there.
const SETTLE_AGAIN: Duration = Duration::from_secs(30);

/// Durable points that are remembered: an anchor stands at one of them.
const MAX_POINTS: usize = 16;

/// One group's account with its mirror.
#[derive(Debug)]
pub struct Mirrored {
    /// The end of the last fold handed over.
    handed: InstanceId,
    /// What the mirror has taken in.
    mirrored: InstanceId,
    /// Verified and recorded points, ascending.
    durable: VecDeque<Mark>,
    /// The last anchor written.
    anchored: InstanceId,
    /// A fold or refill is under way. The mirror answers each, if only by saying that it has lost
    /// the group: one that takes long, or waits while peers read, is never given twice.
    outstanding: bool,
    /// Nothing is handed over before.
    not_before: Time,
    /// The mirror asks for everything.
    refill: bool,
    settling: Option<Time>,
    demand: Option<Demand>,
    /// A peer needs a checkpoint that reaches here.
    wanted: InstanceId,
    /// The mirror is to be brought up to here, read back and recorded, whatever is durable already.
    verify: Option<InstanceId>,
    /// How often that was done.
    verified: u64,
}

impl Mirrored {
    /// A mirror that stands where the state does that was loaded from it.
    #[must_use]
    pub fn new(at: InstanceId) -> Mirrored {
        Mirrored {
            handed: at,
            mirrored: at,
            durable: VecDeque::new(),
            anchored: InstanceId::ZERO,
            outstanding: false,
            not_before: Time::ZERO,
            refill: false,
            settling: None,
            demand: None,
            wanted: InstanceId::ZERO,
            verify: None,
            verified: 0,
        }
    }

    /// What the mirror has taken in, and up to where that is verified and durable.
    #[must_use]
    pub fn position(&self) -> (InstanceId, InstanceId) {
        (self.mirrored, self.durable.back().map_or(InstanceId::ZERO, |point| point.instance))
    }

    /// The mirror has taken in what it was handed.
    pub fn folded(&mut self, applied: InstanceId) {
        if applied >= self.handed {
            self.outstanding = false;
        }
        self.mirrored = self.mirrored.max(applied.min(self.handed));
    }

    /// The mirror has verified and recorded a point.
    pub fn settled(&mut self, point: Mark) {
        self.settling = None;
        if point.instance <= self.mirrored && self.durable.back().is_none_or(|p| p.instance < point.instance)
        {
            self.durable.push_back(point);
            if self.durable.len() > MAX_POINTS {
                self.durable.pop_front();
            }
        }
    }

    /// A durable point that reaches `instance`.
    #[must_use]
    pub fn durable_at(&self, instance: InstanceId) -> Option<Mark> {
        self.durable.back().filter(|point| point.instance >= instance).copied()
    }

    /// The mirror has lost the group, or never had it: nothing in it is to be trusted.
    pub fn lost(&mut self) {
        self.refill = true;
        self.outstanding = false;
        self.settling = None;
        self.mirrored = InstanceId::ZERO;
        self.durable.clear();
    }

    /// The mirror cannot take the group in as it is.
    pub fn unmirrored(&mut self, now: Time) {
        self.lost();
        self.not_before = now + UNMIRRORED;
    }

    /// Log GC wants records gone.
    pub fn demand(&mut self, demand: Demand) {
        self.demand = Some(demand);
    }

    /// Takes back what log GC wants, for a group that keeps nothing.
    pub fn take_demand(&mut self) -> Option<Demand> {
        self.demand.take()
    }

    /// A peer needs a checkpoint that reaches `through`: the mirror is brought up to date.
    pub fn wanted(&mut self, through: InstanceId) {
        self.wanted = self.wanted.max(through);
    }

    /// The mirror is to be brought up to `through`, read back and recorded, whatever of it is
    /// durable already: to find what has rotted in it, or on an operator's word.
    pub fn verify(&mut self, through: InstanceId) {
        if through == InstanceId::ZERO {
            // There is nothing yet that could rot.
            self.verified += 1;
            return;
        }
        // One that is under way may have begun before whatever this is asked for.
        self.verify = self.verify.max(Some(through));
        self.settling = None;
    }

    /// How often the mirror was read back because of [`Mirrored::verify`] and was what it should be.
    #[must_use]
    pub fn verified(&self) -> u64 {
        self.verified
    }

    /// The mirror was read back up to this point, and is what it should be.
    pub fn proven(&mut self, point: Mark) {
        if self.verify.is_some_and(|through| point.instance >= through) {
            self.verify = None;
            self.verified += 1;
        }
    }

    /// Why nothing has come of a demand yet.
    #[must_use]
    pub fn held_back(&self, applied: InstanceId) -> Option<HeldBack> {
        let through = self.demand?.through.min(applied);
        let (mirrored, durable) = self.position();
        Some(if durable >= through {
            HeldBack::Kept
        } else if mirrored >= through {
            HeldBack::Settling
        } else {
            HeldBack::MirrorBehind
        })
    }

    /// What is to be asked of the mirror now; `chain` belongs to what the state has applied.
    pub fn order(
        &mut self,
        state: &mut State,
        chain: u64,
        limits: &MirrorLimits,
        now: Time,
    ) -> Option<MirrorOrder> {
        let applied = state.applied();
        if !self.outstanding && now >= self.not_before {
            if self.refill {
                self.refill = false;
                (self.handed, self.outstanding) = (applied, true);
                return Some(MirrorOrder::Refill(state.image(chain)));
            }
            let due = state.changed() >= limits.fold_keys
                || applied.0 - self.handed.0 >= limits.fold_entries
                || self.demand.is_some_and(|d| d.through.min(applied) > self.handed)
                || self.wanted.max(self.verify.unwrap_or_default()).min(applied) > self.handed;
            if due && applied > self.handed {
                self.outstanding = true;
                let fold = state.fold(self.handed, chain);
                self.handed = applied;
                return Some(match fold {
                    Some(fold) => MirrorOrder::Fold(fold),
                    None => MirrorOrder::Refill(state.image(chain)),
                });
            }
        }
        let (mirrored, durable) = self.position();
        let needed = |demand: Demand| demand.through.min(applied);
        let due = self.demand.map(needed).filter(|through| durable < *through).or(self.verify);
        let settles = self.settling.is_some_and(|since| now.since(since) < SETTLE_AGAIN);
        if due.is_some_and(|through| mirrored >= through) && !settles {
            self.settling = Some(now);
            return Some(MirrorOrder::Settle);
        }
        None
    }

    /// The point to anchor the group at, when what log GC wants gone is durable in the mirror;
    /// `applied` is where the state stands. Also returns up to where records are to go.
    pub fn anchor(&mut self, applied: Mark, limits: &MirrorLimits) -> Option<(Mark, InstanceId)> {
        let demand = self.demand?;
        let through = demand.through.min(applied.instance);
        let keep = if demand.urgent { 0 } else { limits.keep_entries };
        let usable = |point: &&Mark| {
            point.instance >= through && point.instance.0.saturating_add(keep) <= applied.instance.0
        };
        let point = match self.durable.iter().rev().find(usable) {
            Some(point) => *point,
            None if planted::is(Bug::AnchorBeforeDurable) => applied,
            // A group that has chosen nothing has only its promise to carry forward.
            None if through == InstanceId::ZERO => Mark::default(),
            None => return None,
        };
        self.demand = None;
        if point.instance < self.anchored {
            return None;
        }
        self.anchored = point.instance;
        Some((point, demand.through))
    }
}
