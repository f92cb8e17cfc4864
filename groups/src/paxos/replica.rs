//! One member of one group: the state that acceptor, learner, candidate and leader share, and
//! the dispatch of messages to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::election::{Candidacy, Probing};
use super::leader::Leadership;
use super::learner::{Learning, Recent};
use super::message::{Envelope, Mark, Message};
use super::quorum::Members;
use super::ready::Ready;
use super::teacher::Teaching;
use crate::ids::{Ballot, Boot, GroupId, InstanceId, Member, NodeId, StorageId};
use crate::kv::{ApplyError, StateHash, Sum};
use crate::log::Record;
use crate::peers::Peers;
use crate::planted::{self, Bug};
use crate::random::Random;
use crate::time::Time;

/// How a replica behaves; the same for every group of a node.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Silence of the leader's node after which its followers look for another. Also how long a
    /// leader goes on without a majority that answers.
    pub election_timeout: Duration,
    /// After this long without an answer something is said again.
    pub retry: Duration,
    /// A follower that has confirmed this leadership is told what is chosen after so long without a word to
    /// it: the next value would have told it.
    pub quiet: Duration,
    /// The log is told what is chosen once nothing more is for so long: a restart learns the rest again.
    pub rest: Duration,
    /// The most instances in flight.
    pub window: usize,
    /// The most value bytes in flight; one value may always go.
    pub window_bytes: usize,
    /// The most values, and value bytes, that an acceptor holds beyond its chosen prefix. An
    /// accept beyond that is not voted for; the value is learned later.
    pub ahead: usize,
    /// See `ahead`.
    pub ahead_bytes: usize,
    /// Chosen values kept in memory for followers that missed a few.
    pub recent: usize,
    /// See `recent`.
    pub recent_bytes: usize,
    /// Value bytes in one message that carries several.
    pub chunk_bytes: usize,
    /// Value bytes that may be under way to this node's learning groups, all of a shard together;
    /// the host divides them.
    pub learn_bytes: usize,
    /// A sender forgets a learner that it has not heard of for this long.
    pub forget: Duration,
    /// A better placed node must have been up this long before it is handed the leadership.
    pub settle: Duration,
    /// For how long an acceptor that hears its leader promises nothing to anybody else, on its own
    /// clock. Shorter than `election_timeout`; zero for no leases.
    pub lease: Duration,
    /// For how long a leader counts on that, on its own clock: less by what both clocks may drift.
    pub own_lease: Duration,
}

impl Tuning {
    /// The credit of a session while it is not known how many there are.
    pub(super) fn first_credit(&self) -> u32 {
        u32::try_from(self.learn_bytes / 16).unwrap_or(u32::MAX).max(1)
    }
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            election_timeout: Duration::from_millis(400),
            retry: Duration::from_millis(150),
            quiet: Duration::from_millis(250),
            rest: Duration::from_secs(1),
            window: 256,
            window_bytes: 8 << 20,
            ahead: 2048,
            ahead_bytes: 24 << 20,
            recent: 1024,
            recent_bytes: 4 << 20,
            chunk_bytes: 1 << 20,
            learn_bytes: 4 << 20,
            forget: Duration::from_secs(3),
            settle: Duration::from_secs(1),
            lease: Duration::ZERO,
            own_lease: Duration::ZERO,
        }
    }
}

/// A value accepted at a ballot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The ballot.
    pub ballot: Ballot,
    /// The value.
    pub value: Bytes,
}

/// A chosen value on its way to the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its instance: one more than the one delivered before.
    pub instance: InstanceId,
    /// A ballot at which it is known to be chosen.
    pub ballot: Ballot,
    /// The value.
    pub value: Bytes,
}

/// What a replica is doing beside accepting and learning.
#[derive(Debug)]
pub enum Role {
    /// Votes and learns.
    Follower,
    /// Asks whether the others miss the leader too.
    Probing(Probing),
    /// Phase 1.
    Candidate(Candidacy),
    /// Phase 2.
    Leader(Box<Leadership>),
}

/// How often things happened that are worth knowing in an operator's status and in a
/// simulator's coverage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Probe rounds begun.
    pub probes: u64,
    /// Ballots raised.
    pub candidacies: u64,
    /// Leaderships won.
    pub elected: u64,
    /// Leaderships lost to a higher ballot.
    pub deposed: u64,
    /// Leaderships given up because no majority answered.
    pub isolated: u64,
    /// Leaderships handed to a better placed node.
    pub transfers: u64,
    /// Values of an earlier ballot proposed again in phase 2.
    pub adopted: u64,
    /// Gaps filled with a no-op.
    pub gaps: u64,
    /// Accepts sent again.
    pub resent: u64,
    /// Values learned from a peer instead of from the watermark.
    pub learned: u64,
    /// Chunks for peers read from the log because memory had them no more.
    pub log_reads: u64,
    /// Learning sessions opened here.
    pub sessions: u64,
    /// Of those, opened where a session with another peer had stopped after it had brought values.
    pub resumed: u64,
    /// Of those, opened because a chunk was missing.
    pub reopened: u64,
    /// Prepares ignored because a live leader is known.
    pub sticky: u64,
    /// Prepares ignored because a lease forbids to answer.
    pub bound: u64,
    /// Reads answered on a lease, without asking anybody.
    pub leased: u64,
    /// Checkpoints of peers taken in.
    pub installed: u64,
    /// Accepts not voted for because they lay too far ahead.
    pub too_far: u64,
    /// Changes of members in the chosen prefix.
    pub changes: u64,
    /// Changes of members proposed.
    pub admissions: u64,
    /// Candidacies given up because others know of members that the candidate does not know.
    pub outdated: u64,
    /// States compared: a majority reported the same one.
    pub checked: u64,
    /// Groups given up because their members do not need this node any more.
    pub parted: u64,
}

impl Halt {
    /// What it means that a chosen value could not be applied.
    #[must_use]
    pub fn of(instance: InstanceId, error: ApplyError) -> Halt {
        match error {
            ApplyError::Unreadable(why) => Halt::Unreadable { instance, why },
            ApplyError::Differs { ours, agreed } => {
                Halt::StateDiffers { instance: ours.instance, ours: ours.sum, agreed }
            }
            ApplyError::Split(instance) => Halt::NoMajorityAgrees { instance },
        }
    }

    /// Whether it is this replica's own state that is wrong, and that of a majority is not known
    /// to be: it is healed by giving up the state here, in memory and in the mirror, and taking
    /// it from a peer.
    #[must_use]
    pub fn is_own_state(&self) -> bool {
        matches!(self, Halt::StateDiffers { .. } | Halt::MemoryRotten { .. })
    }
}

/// A group stopped for good because going on could answer wrongly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Replicas disagree on the chosen values.
    #[error(
        "the chained checksum of chosen values differs from node {peer}'s at instance {instance} \
         (here {ours:016x}, there {theirs:016x})"
    )]
    Diverged {
        /// Who disagrees.
        peer: NodeId,
        /// Where.
        instance: InstanceId,
        /// This replica's checksum.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
    /// A chosen value that this version cannot apply.
    #[error("the chosen value of instance {instance} cannot be applied: {why}")]
    Unreadable {
        /// Where.
        instance: InstanceId,
        /// What is wrong with it.
        why: String,
    },
    /// A majority of the members had another state at this instance than this replica: it is
    /// this one that is wrong.
    #[error(
        "the state here was {ours} at instance {instance}, a majority of the members had {agreed}: this \
         replica is wrong"
    )]
    StateDiffers {
        /// Where.
        instance: InstanceId,
        /// This replica's.
        ours: Sum,
        /// The majority's.
        agreed: Sum,
    },
    /// No majority of the members had the same state: nobody knows which is right.
    #[error(
        "no majority of the members had the same state at instance {instance}: nobody knows which is right"
    )]
    NoMajorityAgrees {
        /// Where.
        instance: InstanceId,
    },
    /// The items in memory are not those that were written.
    #[error(
        "the items in memory hash to {found} at instance {instance}, the hash that was kept of them is {kept}: \
         memory has rotted"
    )]
    MemoryRotten {
        /// Where the state stood when it was found.
        instance: InstanceId,
        /// The hash that was kept.
        kept: StateHash,
        /// Of the items as they are.
        found: StateHash,
    },
    /// The mirror's state and the log's anchor disagree.
    #[error(
        "the mirror stands at instance {instance} with checksum {ours:016x}, the log's anchor there \
         says {theirs:016x}"
    )]
    Checkpoint {
        /// Where.
        instance: InstanceId,
        /// The mirror's checksum.
        ours: u64,
        /// The log's.
        theirs: u64,
    },
    /// The log has no value for an instance that it calls chosen.
    #[error("the log has no value for chosen instance {instance}")]
    Missing {
        /// Where.
        instance: InstanceId,
    },
}

/// One member of one group.
#[derive(Debug)]
pub struct Replica {
    pub(super) group: GroupId,
    pub(super) me: NodeId,
    /// The disk that remembers all this.
    pub(super) storage: StorageId,
    /// Who decides the instance behind the chosen prefix: `members.changed_at() <= chosen`.
    pub(super) members: Members,
    /// The chosen prefix has brought other members, and the role has not followed yet.
    pub(super) members_changed: bool,
    /// Who shall be the members, from the best placed leader to the worst: what a leader works towards.
    pub(super) preference: Vec<NodeId>,
    /// Who is spoken to: the members and those that shall be, without this node.
    pub(super) circle: Vec<NodeId>,
    /// It was a member, is none, and was told that nobody needs it: it has forgotten what it held, and
    /// takes no part until it is wanted again.
    pub(super) parted: bool,
    pub(super) tuning: Arc<Tuning>,
    /// When this life began: what the one before had granted is not known.
    pub(super) born: Time,
    /// The ballot at which this life has confirmed a leader, which may count on it since: nothing binds
    /// before that, and no longer than it takes for that node to say that it leads no more.
    pub(super) confirmed: Ballot,
    /// The life that this replica is part of.
    pub(super) life: Boot,
    /// Everything acknowledged before that moment lies at or below that instance.
    pub(super) fresh: (Time, InstanceId),
    /// When the leader was last asked how far that reaches.
    pub(super) asked: Time,

    /// The promise that covers all instances. Rises only through phase 1 and 2 messages, never
    /// by learning a value. `ballot of every open entry <= promised`.
    pub(super) promised: Ballot,
    /// The highest ballot heard of; the next candidacy goes above it, and above the promise.
    pub(super) seen: Ballot,
    /// Accepted values beyond the chosen prefix: `chosen < every key`.
    pub(super) open: BTreeMap<InstanceId, Accepted>,
    pub(super) open_bytes: usize,
    /// The end of the chosen prefix: `delivered <= chosen`.
    pub(super) chosen: InstanceId,
    /// Chained checksum of the chosen prefix.
    pub(super) chain: u64,
    /// `marked <= chosen`: what the log says is chosen.
    pub(super) marked: InstanceId,
    /// From here to the end of the chosen prefix the newest records of the log are the chosen values.
    /// Before it they may be what was only accepted: a checkpoint has gone beyond them.
    pub(super) vouched_from: InstanceId,
    /// The log does not say so yet.
    pub(super) doubtful: bool,
    /// What was chosen when a tick last looked at it, and since when: the log is told once that rests.
    pub(super) resting: (InstanceId, Time),
    /// When a tick is due for what can wait, if none comes before.
    pub(super) wakes: Option<Time>,
    /// Somebody here waits for what is chosen next: this follower asks for it.
    pub(super) eager: bool,
    pub(super) recent: Recent,
    /// Chosen values that the state machine has not taken yet.
    pub(super) delivery: VecDeque<Chosen>,

    pub(super) role: Role,
    /// The leader this replica follows; itself when it leads.
    pub(super) leader: Option<NodeId>,
    /// Since when it follows that one.
    pub(super) leader_since: Time,
    /// When a leader last spoke to this replica, of whatever ballot it follows.
    pub(super) leader_spoke: Time,
    /// When a follower without a leader begins to probe.
    pub(super) election_due: Time,
    pub(super) learning: Option<Learning>,
    /// The number of the newest session opened here.
    pub(super) session: u64,
    /// Bytes of values that a session of this group may have under way to this node.
    pub(super) credit: u32,
    /// Sessions with members that are behind: one for each at most.
    pub(super) teaching: BTreeMap<NodeId, Teaching>,
    /// The newest session of each member that is over: late words do not open it again.
    pub(super) taught: BTreeMap<NodeId, u64>,
    /// The state behind the chosen prefix is missing: this replica votes and learns, but it does
    /// not stand for election, because it could serve nothing.
    pub(super) stateless: bool,
    /// A peer said that its log begins only behind what is wanted here: a checkpoint that
    /// reaches this instance is needed to go on.
    pub(super) checkpoint_wanted: Option<InstanceId>,
    /// Votes of this turn for the leader, joined into runs.
    pub(super) acks: Option<super::message::Accepted>,
    /// Why it has stopped for good, if it has.
    pub(super) halted: Option<Halt>,
    /// What a halted replica has heard of since: the highest ballot of a leader, and the longest
    /// chosen prefix.
    passed: (Ballot, InstanceId),
    /// When a leader that has halted next says so.
    pub(super) resign_at: Option<Time>,
    /// Counts for status and coverage.
    pub counters: Counters,
}

/// A disk that becomes a member in the place of a lost one begins so many rounds further on.
const ROUNDS_OF_A_LOST_DISK: u64 = 1 << 16;

/// What a replica starts from: what its log holds.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The highest ballot promised or accepted at.
    pub promised: Ballot,
    /// The end of the chosen prefix.
    pub chosen: InstanceId,
    /// The chained checksum there.
    pub chain: u64,
    /// Accepted beyond it.
    pub open: BTreeMap<InstanceId, Accepted>,
    /// The members that the prefix has made; `None` for those of the birth.
    pub members: Option<Members>,
    /// From where on the log's newest records, up to the end of the chosen prefix, are the chosen values.
    pub vouched_from: InstanceId,
    /// The log does not say so itself.
    pub doubtful: bool,
}

impl Replica {
    /// A replica that goes on from `recovered`. It votes at once and looks for a leader after a
    /// whole election timeout at the earliest, so that a running leader can make itself known.
    #[must_use]
    pub fn new(
        group: GroupId,
        me: Member,
        founders: Members,
        preference: Vec<NodeId>,
        tuning: Arc<Tuning>,
        recovered: Recovered,
        now: Time,
    ) -> Replica {
        let Member { node: me, storage } = me;
        let is_founder = founders.counts(me, storage);
        let members = recovered.members.unwrap_or(founders);
        assert!(members.changed_at() <= recovered.chosen, "members follow from the prefix");
        let rank = preference.iter().position(|n| *n == me).unwrap_or(preference.len()) as u32;
        let wait = tuning.election_timeout + tuning.election_timeout / 4 * rank;
        let mut seen = recovered.promised;
        if members.counts(me, storage) && !is_founder {
            // As when it became one, which no record says.
            seen = Ballot { round: seen.round + ROUNDS_OF_A_LOST_DISK, node: me };
        }
        let open_bytes = recovered.open.values().map(|a| a.value.len()).sum();
        assert!(recovered.open.keys().all(|i| *i > recovered.chosen), "open entries lie beyond the prefix");
        Replica {
            group,
            me,
            storage,
            circle: circle(&members, &preference, me),
            members,
            members_changed: false,
            preference,
            parted: false,
            promised: recovered.promised,
            seen,
            open: recovered.open,
            open_bytes,
            chosen: recovered.chosen,
            chain: recovered.chain,
            marked: recovered.chosen,
            vouched_from: recovered.vouched_from,
            doubtful: recovered.doubtful,
            resting: (recovered.chosen, now),
            wakes: None,
            eager: false,
            recent: Recent::new(recovered.chosen, &tuning),
            credit: tuning.first_credit(),
            tuning,
            born: now,
            confirmed: Ballot::ZERO,
            life: Boot(0),
            fresh: (Time::ZERO, InstanceId::ZERO),
            asked: Time::ZERO,
            delivery: VecDeque::new(),
            role: Role::Follower,
            leader: None,
            leader_since: now,
            leader_spoke: now,
            election_due: now + wait,
            learning: None,
            session: 0,
            teaching: BTreeMap::new(),
            taught: BTreeMap::new(),
            stateless: false,
            checkpoint_wanted: None,
            acks: None,
            halted: None,
            passed: (Ballot::ZERO, InstanceId::ZERO),
            resign_at: None,
            counters: Counters::default(),
        }
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Whether this replica's disk is a member: what it promises and accepts counts.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.members.counts(self.me, self.storage)
    }

    /// The voting members.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Members from the best placed leader to the worst.
    #[must_use]
    pub fn preference(&self) -> &[NodeId] {
        &self.preference
    }

    /// The end of the chosen prefix with its checksum.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { instance: self.chosen, chain: self.chain }
    }

    /// From where on the log's newest records, up to the end of the chosen prefix, are the chosen values.
    #[must_use]
    pub fn vouched_from(&self) -> InstanceId {
        self.vouched_from
    }

    /// Tells the log what is chosen, if it does not know.
    pub fn mark_chosen(&mut self, ready: &mut Ready) {
        if self.marked != self.chosen || self.doubtful {
            self.write_mark(ready);
        }
    }

    /// The highest ballot promised.
    #[must_use]
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// The leader that this replica knows: itself, or the one it follows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Whether this replica leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The role's name for status and transcripts.
    #[must_use]
    pub fn role_name(&self) -> &'static str {
        match (&self.halted, &self.role) {
            (Some(_), _) => "halted",
            (None, Role::Follower) => "follower",
            (None, Role::Probing(_)) => "probing",
            (None, Role::Candidate(_)) => "candidate",
            (None, Role::Leader(_)) => "leader",
        }
    }

    /// Why this replica has stopped, if it has.
    #[must_use]
    pub fn halted(&self) -> Option<&Halt> {
        self.halted.as_ref()
    }

    /// Accepted values beyond the chosen prefix, for judges and tests.
    #[must_use]
    pub fn open(&self) -> &BTreeMap<InstanceId, Accepted> {
        &self.open
    }

    /// Has its learning sessions numbered so that those of an earlier life are older.
    pub fn number_sessions(&mut self, boot: Boot) {
        self.life = boot;
        self.session = self.session.max(boot.0.saturating_mul(1 << 32));
    }

    /// Value bytes in one message that carries several.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        self.tuning.chunk_bytes
    }

    /// Stops this replica for good: it votes, serves and leads no more.
    pub fn halt(&mut self, why: Halt) {
        tracing::error!(group = self.group.0, "group halted on this node: {why}");
        self.halted.get_or_insert(why);
        if self.is_leader() {
            self.resign_at = Some(Time::ZERO);
        }
        self.stand_down();
        // What was chosen behind the value that cannot be applied is not applied either.
        self.delivery.clear();
    }

    /// Leads, follows, learns and teaches no more.
    pub(super) fn stand_down(&mut self) {
        self.role = Role::Follower;
        self.leader = None;
        self.acks = None;
        self.learning = None;
        self.teaching.clear();
    }

    /// Goes on after a halt that concerned the state alone, which is given up: what was promised,
    /// accepted and chosen is what it was. Returns why it had halted; `None` where a halt is for good.
    pub fn revive(&mut self, now: Time) -> Option<Halt> {
        let halt = self.halted.take_if(|halt| halt.is_own_state())?;
        self.resign_at = None;
        self.set_stateless(true);
        // Who led says at once that it does not any more.
        self.election_due = now;
        Some(halt)
    }

    /// Whether a majority goes on without this halted replica: then what is here is what is wrong, or
    /// missing, and there is somebody to learn everything from. It takes a leader that others have
    /// elected since, or more than could have been under way with this one's vote.
    #[must_use]
    pub fn is_outlived(&self) -> bool {
        let heals = matches!(
            self.halted,
            Some(Halt::Diverged { .. } | Halt::Checkpoint { .. } | Halt::Missing { .. })
        );
        let (ballot, instance) = self.passed;
        let far = self.chosen.plus(2 * (self.tuning.window + self.tuning.ahead) as u64);
        heals && (instance > far || (ballot > self.promised && instance > self.chosen))
    }

    /// A halted replica hears how far the others are, and says nothing.
    fn overhear(&mut self, message: &Message) {
        let (ballot, mark) = match message {
            Message::Accept(m) => (m.ballot, m.mark),
            Message::Advance(m) => (m.ballot, m.mark),
            _ => return,
        };
        self.passed = (self.passed.0.max(ballot), self.passed.1.max(mark.instance));
    }

    /// Says whether the state behind the chosen prefix is missing. Such a replica votes, learns
    /// and reports, and does not stand for election.
    pub fn set_stateless(&mut self, stateless: bool) {
        self.stateless = stateless;
        if stateless && !matches!(self.role, Role::Follower) {
            self.role = Role::Follower;
            self.leader = None;
        }
    }

    /// The instance that a checkpoint must reach so that this replica can go on, when no log
    /// that it asked reaches back far enough; told once.
    pub fn take_checkpoint_wanted(&mut self) -> Option<InstanceId> {
        self.checkpoint_wanted.take()
    }

    /// Drops what waits for the state machine: a group without its state cannot take it, and
    /// reads it from its log later.
    pub fn drop_deliveries(&mut self) {
        self.delivery.clear();
    }

    /// The prefix up to `mark` has come as a checkpoint, which is durable. The promise stays as
    /// it is, and so does what was accepted beyond it (FAULTS, rule 25). The anchor record tells
    /// a later start that the prefix is chosen, should the checkpoint be lost.
    ///
    /// `members` are those that the checkpoint has, `None` for those of the birth.
    ///
    /// # Panics
    /// When the checkpoint is not ahead of the prefix.
    pub fn install(&mut self, mark: Mark, members: Option<&Members>, now: Time, ready: &mut Ready) {
        assert!(mark.instance > self.chosen, "a checkpoint only moves the prefix forward");
        if self.leads_instance(mark.instance) {
            // Others count this leader's instances as chosen and it does not: somebody else leads.
            self.counters.deposed += 1;
            self.role = Role::Follower;
            self.leader = None;
            self.acks = None;
            self.election_due = now + self.tuning.election_timeout;
        }
        self.jump(mark);
        if planted::is(Bug::InstallDropsAccepted) {
            self.open.clear();
            self.open_bytes = 0;
        }
        if planted::is(Bug::InstallLowersPromise) {
            self.promised = Ballot::ZERO;
        }
        if let Some(members) = members.filter(|m| m.changed_at() > self.members.changed_at()) {
            self.change_members(members.clone());
        }
        self.write_anchor(mark, ready);
        if let Some(learning) = &mut self.learning {
            learning.heard = None;
        }
        // What is being sent may no longer be here.
        self.teaching.clear();
        self.counters.installed += 1;
    }

    /// The prefix ends at `mark` now, of which not every value has come here.
    pub(super) fn jump(&mut self, mark: Mark) {
        (self.chosen, self.chain) = (mark.instance, mark.chain);
        self.open = self.open.split_off(&mark.instance.next());
        self.open_bytes = self.open.values().map(|a| a.value.len()).sum();
        self.recent = Recent::new(self.chosen, &self.tuning);
        self.delivery.clear();
        // What was accepted in place of those need not be what was chosen.
        (self.vouched_from, self.doubtful) = (mark.instance.next(), true);
    }

    /// Writes what stands for every older record of the group except the values beyond `mark`,
    /// and the accepted values up to `through` again, which no checkpoint has: the log in which
    /// they stand may go.
    ///
    /// # Panics
    /// When more than the chosen prefix would go.
    pub fn anchor(&mut self, mark: Mark, through: InstanceId, ready: &mut Ready) {
        assert!(mark.instance <= self.chosen, "only chosen values are in a checkpoint");
        // The anchor may name members that a value behind `mark` has made: the log says first that
        // this value is chosen, and again where the anchor stands alone.
        self.write_mark(ready);
        self.write_anchor(mark, ready);
        for (&instance, accepted) in self.open.iter().take_while(|(i, _)| **i <= through) {
            let (group, ballot, value) = (self.group, accepted.ballot, accepted.value.clone());
            ready.records.push(Record::Accept { group, instance, ballot, value });
        }
        self.write_mark(ready);
    }

    pub(super) fn write_anchor(&mut self, mark: Mark, ready: &mut Ready) {
        let (group, ballot) = (self.group, self.promised);
        let Mark { instance, chain } = mark;
        self.marked = self.marked.max(instance);
        let born = self.members.changed_at() == InstanceId::ZERO || planted::is(Bug::MembersNotInAnchor);
        let members = if born { Bytes::new() } else { self.members.encode() };
        ready.records.push(Record::Anchor { group, instance, chain, ballot, members });
    }

    /// Takes the next chosen value for the state machine.
    pub fn next_chosen(&mut self) -> Option<Chosen> {
        self.delivery.pop_front()
    }

    /// Handles a message of node `from`. Whoever is no member has no vote, but words: one that is to
    /// be a member learns, and one whose members are outdated is told so.
    pub fn step(
        &mut self,
        from: NodeId,
        message: Message,
        now: Time,
        peers: &Peers,
        random: &mut Random,
        ready: &mut Ready,
    ) {
        if let Message::Part(m) = &message {
            return self.on_part(from, m, ready);
        }
        if self.parted || self.halted.is_some() {
            if let Message::Probe(m) = &message {
                // Whoever is bound to a lease that this replica held hears that it leads no more.
                self.release(from, m.life, m.renounced, peers);
                return self.decline(from, m.attempt, ready);
            }
            return self.overhear(&message);
        }
        match message {
            Message::Probe(m) => self.on_probe(from, &m, now, peers, ready),
            Message::ProbeReply(m) => self.on_probe_reply(from, &m, now, peers, random, ready),
            Message::Prepare(m) => self.on_prepare(from, &m, now, peers, random, ready),
            Message::Promise(m) => self.on_promise(from, m, now, random, ready),
            Message::Accept(m) => self.on_accept(from, m, now, peers, random, ready),
            Message::Accepted(m) => self.on_accepted(from, &m, now),
            Message::Reject(m) => self.on_reject(&m, now, random),
            Message::Advance(m) => self.on_advance(from, &m, now, peers, random, ready),
            Message::AdvanceReply(m) => self.on_advance_reply(from, &m),
            Message::Learn(m) => self.on_learn(from, &m, now, ready),
            Message::Values(m) => self.on_values(from, m, now, ready),
            Message::Transfer(m) => self.on_transfer(from, &m, now, peers, ready),
            Message::Ask(m) => self.on_ask(from, &m, now, peers, ready),
            // The group's own business, see `check.rs`; and what every replica hears, see above.
            Message::Report(_) | Message::Part(_) => {}
        }
    }

    /// Lets time pass. Returns whether this replica wants to be ticked again: an idle group
    /// with a confirmed leader does not.
    pub fn tick(&mut self, now: Time, peers: &Peers, random: &mut Random, ready: &mut Ready) -> bool {
        self.wakes.take_if(|at| *at <= now);
        if self.parted {
            return false;
        }
        if self.halted.is_some() {
            return self.resign(now, ready);
        }
        let busy = match self.role {
            Role::Leader(_) => self.tick_leader(now, peers, random, ready),
            _ => self.tick_election(now, peers, random, ready),
        };
        let learning = self.tick_learning(now, peers, ready);
        let teaching = self.tick_teaching(now, ready);
        let asking = self.tick_eager(now, ready);
        self.tick_mark(now, ready);
        busy || learning || teaching || asking
    }

    /// When a tick is due for what can wait, if none comes before.
    #[must_use]
    pub fn wakes(&self) -> Option<Time> {
        self.wakes
    }

    /// Asks for a tick at `due`. One that is due sooner stands, and looks again: so a time that every value puts
    /// off is noted once.
    pub(super) fn wake(&mut self, due: Time) {
        if self.wakes.is_none_or(|at| due < at) {
            self.wakes = Some(due);
        }
    }

    /// Whether somebody here waits for what is chosen next, as those do that watch its keys.
    pub fn set_eager(&mut self, eager: bool) {
        self.eager = eager;
    }

    /// An eager follower that has voted asks what came of it. Returns whether it does not know yet.
    fn tick_eager(&mut self, now: Time, ready: &mut Ready) -> bool {
        let asks = self.eager && !self.open.is_empty() && !self.is_leader();
        if asks {
            self.ask_fresh(now, ready);
        }
        asks
    }

    /// A leader that has halted says again and again that it looks for another: its node's
    /// heartbeats go on, and its followers would take it for alive.
    fn resign(&mut self, now: Time, ready: &mut Ready) -> bool {
        let Some(at) = self.resign_at else { return false };
        if now >= at {
            self.resign_at = Some(now + self.tuning.election_timeout);
            self.disown(ready);
        }
        true
    }

    /// Tells everybody that this replica looks for a leader and is none; no answer is counted.
    pub(super) fn disown(&self, ready: &mut Ready) {
        for node in self.others() {
            self.send_probe(node, 0, ready);
        }
    }

    /// Ends a turn: counts votes, moves the prefix, sends what was joined over its messages.
    pub fn turn(&mut self, now: Time, ready: &mut Ready) {
        if self.halted.is_none() {
            self.advance_leadership(ready);
            self.admit(now, ready);
            self.follow_members(now, ready);
            self.flush(ready);
            self.acknowledge_values(ready);
        }
    }

    /// The chosen prefix makes these the members.
    pub(super) fn change_members(&mut self, members: Members) {
        let voted = self.is_voter();
        if matches!(self.role, Role::Candidate(_) | Role::Probing(_)) {
            // What it has been promised was counted for other members, and must not be for these.
            self.role = Role::Follower;
        }
        self.members = members;
        self.circle = circle(&self.members, &self.preference, self.me);
        self.members_changed = true;
        self.counters.changes += 1;
        if self.is_voter() && !voted {
            // The node's lost disk may have used ballots that nobody has heard of.
            let round = self.seen.max(self.promised).round + ROUNDS_OF_A_LOST_DISK;
            self.seen = Ballot { round, node: self.me };
        }
        tracing::info!(
            group = self.group.0,
            instance = self.members.changed_at().0,
            votes_here = self.is_voter(),
            "the group has other members"
        );
    }

    /// Lets the role follow a change of members: whoever leads has asked the old ones, and asks
    /// the new ones in a phase 1 of its own before it proposes anything to them.
    fn follow_members(&mut self, now: Time, ready: &mut Ready) {
        if !std::mem::take(&mut self.members_changed) {
            return;
        }
        match self.role {
            Role::Leader(_) if planted::is(Bug::NoNewPhaseOne) => self.unseal(),
            Role::Leader(_) if self.is_voter() && !self.stateless => {
                self.campaign(self.promised, self.promised, now, ready);
            }
            Role::Leader(_) | Role::Candidate(_) | Role::Probing(_) => {
                self.role = Role::Follower;
                self.leader = None;
                self.acks = None;
                self.election_due = now + self.tuning.retry;
            }
            Role::Follower => {}
        }
    }

    pub(super) fn flush(&mut self, ready: &mut Ready) {
        if let Some(ack) = self.acks.take() {
            let to = ack.ballot.node;
            if to == self.me && planted::is(Bug::OwnVoteBeforeSync) {
                return self.on_accepted(to, &ack, Time::ZERO);
            }
            let ack = super::message::Accepted { chosen: self.shown(), ..ack };
            self.send_after_sync(to, Message::Accepted(ack), ready);
        }
    }

    /// The end of the prefix as the leader is told: a replica without its state says that it has
    /// nothing, so that it is not handed the leadership.
    pub(super) fn shown(&self) -> InstanceId {
        if self.stateless { InstanceId::ZERO } else { self.chosen }
    }

    /// The leader's node is gone or in a new life.
    pub fn leader_lost(&mut self, node: NodeId, now: Time, peers: &Peers, random: &mut Random) {
        if self.leader == Some(node) && node != self.me {
            self.leader = None;
            self.schedule_election(now, peers, random);
        }
    }

    pub(super) fn send(&self, to: NodeId, message: Message, ready: &mut Ready) {
        debug_assert_ne!(to, self.me, "own votes wait for the own disk");
        ready.send_now.push(Envelope { to, group: self.group, message });
    }

    pub(super) fn send_after_sync(&self, to: NodeId, message: Message, ready: &mut Ready) {
        let early = match &message {
            Message::Promise(_) => planted::is(Bug::PromiseBeforeSync),
            Message::Accepted(_) => planted::is(Bug::VoteBeforeSync),
            _ => false,
        };
        if early && to != self.me {
            return self.send(to, message, ready);
        }
        ready.send_after_sync.push(Envelope { to, group: self.group, message });
    }

    /// Who is spoken to: the members and those that shall be, without this node.
    pub fn others(&self) -> impl Iterator<Item = NodeId> + use<> {
        self.circle.clone().into_iter()
    }
}

/// The members and those that shall be, without `me`, ascending.
pub(super) fn circle(members: &Members, preference: &[NodeId], me: NodeId) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> =
        members.nodes().iter().chain(preference).copied().filter(|n| *n != me).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}
