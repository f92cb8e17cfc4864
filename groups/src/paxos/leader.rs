//! The leader: pipelined phase 2, read barriers, and stepping aside.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::lease::NO_TENURE;
use super::message::{self, Accept, Advance, AdvanceReply, Message, Transfer};
use super::quorum::{Members, Votes};
use super::ready::Ready;
use super::replica::{Replica, Role};
use crate::ids::{Ballot, InstanceId, Member, NodeId, StorageId};
use crate::peers::{Peers, Tenure};
use crate::planted::{self, Bug};
use crate::random::Random;
use crate::time::Time;

/// One proposed value that is not yet part of the chosen prefix.
#[derive(Debug)]
struct Flight {
    value: Bytes,
    /// Votes at this leadership's ballot, and at no other: votes of two ballots never add up.
    votes: Votes,
    sent: Time,
}

/// What the leader knows of one follower.
#[derive(Debug)]
struct Progress {
    node: NodeId,
    /// The disk it has last spoken from.
    voter: Option<StorageId>,
    /// It has spoken to this leadership; `chosen` is the end of its chosen prefix.
    confirmed: bool,
    /// Its tenure when it last confirmed this ballot.
    tenure: Tenure,
    chosen: InstanceId,
    /// The end of its chosen prefix when it last voted, and so on its disk.
    durable: InstanceId,
    /// When it was last told anything.
    told: Time,
    /// How often in a row it was told what is chosen and was none the wiser: who votes and learns
    /// nothing (halted, or without its state) is told ever more rarely.
    vain: u32,
}

impl Progress {
    /// It has not spoken to this leadership yet.
    fn unheard(node: NodeId) -> Progress {
        Progress {
            node,
            voter: None,
            confirmed: false,
            tenure: NO_TENURE,
            chosen: InstanceId::ZERO,
            durable: InstanceId::ZERO,
            told: Time::ZERO,
            vain: 0,
        }
    }

    /// It follows, and its chosen prefix ends here.
    fn confirm(&mut self, voter: StorageId, chosen: InstanceId) {
        if self.voter != Some(voter) {
            // Another disk knows nothing of what the one before it had.
            (self.voter, self.chosen, self.tenure) = (Some(voter), InstanceId::ZERO, NO_TENURE);
            self.durable = InstanceId::ZERO;
        }
        if !self.confirmed || chosen > self.chosen {
            self.vain = 0;
        }
        self.confirmed = true;
        self.chosen = self.chosen.max(chosen);
    }
}

/// An announcement is repeated after this times two to the power of the vain ones before it.
const MAX_VAIN: u32 = 3;

#[derive(Debug)]
struct Barrier {
    number: u64,
    votes: Votes,
    sent: Time,
}

#[derive(Debug)]
struct Handover {
    to: NodeId,
    begun: Time,
    sent: bool,
}

/// A leadership at one ballot.
#[derive(Debug)]
pub struct Leadership {
    pub(super) ballot: Ballot,
    /// The instance of `flights[0]`; `chosen < first`.
    first: InstanceId,
    flights: VecDeque<Flight>,
    bytes: usize,
    /// The end of the own chosen prefix when the own disk last voted.
    durable: InstanceId,
    /// The leadership's own entry: reads wait until it is applied.
    pub(super) opening: InstanceId,
    followers: Vec<Progress>,
    /// Number of the newest barrier begun.
    barrier: u64,
    barriers: VecDeque<Barrier>,
    /// `passed <= barrier`: everything up to here has been confirmed by a majority.
    passed: u64,
    handover: Option<Handover>,
    /// Another node was asked to take over at this ballot, and may do so however late: no lease counts.
    renounced: bool,
    /// Whoever is new among these has learned everything: this change is the next thing to be proposed.
    pub(super) admitting: Option<Vec<Member>>,
    /// A change of members is proposed: nothing is proposed behind it, because others decide that.
    sealed: bool,
    next_handover: Time,
    since: Time,
    /// While values below `first` are still being learned: how far, and since when.
    learned: (InstanceId, Time),
}

/// The opening of a leadership that opens nothing.
pub(super) const NEVER: InstanceId = InstanceId(u64::MAX);

/// Barriers waiting for answers at one time; more reads join the next one.
const MAX_BARRIERS: usize = 16;

impl Leadership {
    pub(super) fn new(ballot: Ballot, first: InstanceId, circle: &[NodeId], now: Time) -> Leadership {
        Leadership {
            ballot,
            first,
            flights: VecDeque::new(),
            bytes: 0,
            durable: InstanceId::ZERO,
            opening: InstanceId::ZERO,
            followers: circle.iter().copied().map(Progress::unheard).collect(),
            barrier: 0,
            barriers: VecDeque::new(),
            passed: 0,
            handover: None,
            renounced: false,
            admitting: None,
            sealed: false,
            next_handover: now,
            since: now,
            learned: (InstanceId::ZERO, now),
        }
    }

    fn follower(&mut self, node: NodeId) -> Option<&mut Progress> {
        self.followers.iter_mut().find(|f| f.node == node)
    }

    /// Others are spoken to from now on; what is known of those that stay is kept.
    pub(super) fn set_circle(&mut self, circle: &[NodeId]) {
        self.followers.retain(|f| circle.contains(&f.node));
        let new: Vec<NodeId> = circle.iter().copied().filter(|n| self.follower(*n).is_none()).collect();
        self.followers.extend(new.into_iter().map(Progress::unheard));
    }

    /// Whether members may change now: nothing of the kind is under way, and the leadership has opened.
    pub(super) fn may_change(&self, chosen: InstanceId) -> bool {
        !self.sealed && self.handover.is_none() && chosen >= self.opening
    }

    /// The disk that a follower speaks from, and the end of its chosen prefix, once it follows.
    pub(super) fn spoken(&self, node: NodeId) -> Option<(StorageId, InstanceId)> {
        let follower = self.followers.iter().find(|f| f.node == node && f.confirmed)?;
        Some((follower.voter?, follower.chosen))
    }

    /// Up to where a member certainly has it on its disk that everything is chosen.
    pub(super) fn durable(&self, member: &Member) -> InstanceId {
        if member.node == self.ballot.node {
            return self.durable;
        }
        let of = |f: &&Progress| f.node == member.node && f.voter == Some(member.storage);
        self.followers.iter().find(of).map_or(InstanceId::ZERO, |f| f.durable)
    }

    /// The change that is due, if the window has room for it.
    pub(super) fn take_change(&mut self, window: usize) -> Option<Vec<Member>> {
        if self.handover.is_some() || self.flights.len() >= window { None } else { self.admitting.take() }
    }

    pub(super) fn has_renounced(&self) -> bool {
        self.renounced && !planted::is(Bug::LeaseKeptOnTransfer)
    }

    /// Members that have confirmed this ballot, and in which tenure they last did.
    pub(super) fn confirmations(&self, members: &Members) -> impl Iterator<Item = (NodeId, Tenure)> {
        self.followers
            .iter()
            .filter(|f| f.tenure > NO_TENURE && f.voter.is_some_and(|voter| members.counts(f.node, voter)))
            .map(|f| (f.node, f.tenure))
    }
}

impl Replica {
    /// Whether [`Replica::propose`] would take a value now.
    #[must_use]
    pub fn can_propose(&self) -> bool {
        match &self.role {
            Role::Leader(l) => {
                l.handover.is_none()
                    && l.admitting.is_none()
                    && (!l.sealed || planted::is(Bug::ProposesPastChange))
                    && l.flights.len() < self.tuning.window
                    && (l.flights.is_empty() || l.bytes < self.tuning.window_bytes)
            }
            _ => false,
        }
    }

    /// When the newest instance in flight was proposed, or last sent again; `None` when none is.
    #[must_use]
    pub fn last_proposed(&self) -> Option<Time> {
        match &self.role {
            Role::Leader(l) => l.flights.back().map(|flight| flight.sent),
            _ => None,
        }
    }

    /// Proposes `value` for the next free instance.
    ///
    /// # Panics
    /// When this replica does not lead: callers ask [`Replica::can_propose`] first.
    pub fn propose(&mut self, value: Bytes, now: Time, ready: &mut Ready) -> InstanceId {
        let Role::Leader(leadership) = &self.role else { panic!("only a leader proposes") };
        let instance = leadership.first.plus(leadership.flights.len() as u64);
        self.propose_at(instance, value, now, ready);
        instance
    }

    /// Phase 2a for `instance`, the next of this leadership. The accepts leave before the own
    /// disk has the value: the own vote is a message to oneself that waits for the disk.
    pub(super) fn propose_at(&mut self, instance: InstanceId, value: Bytes, now: Time, ready: &mut Ready) {
        let mark = self.mark();
        let Role::Leader(leadership) = &mut self.role else { panic!("only a leader proposes") };
        assert_eq!(instance, leadership.first.plus(leadership.flights.len() as u64), "no holes");
        let ballot = leadership.ballot;
        leadership.bytes += value.len();
        leadership.flights.push_back(Flight { value: value.clone(), votes: Votes::default(), sent: now });
        for follower in &mut leadership.followers {
            follower.told = now;
        }
        for node in self.others() {
            let accept = Accept { ballot, instance, mark, value: value.clone() };
            self.send(node, Message::Accept(accept), ready);
        }
        self.accept(ballot, instance, value, ready);
    }

    /// A planted defect: whoever reported the last proposed value in phase 1 has voted for it.
    pub(super) fn count_promises_as_votes(&mut self, promised: Votes) {
        let Role::Leader(leadership) = &mut self.role else { return };
        let Some(flight) = leadership.flights.back_mut() else { return };
        for node in self.members.nodes().iter().filter(|n| **n != self.me && promised.has(&self.members, **n))
        {
            flight.votes.add(&self.members, *node);
        }
    }

    /// Whether this replica, as leader, decides `instance` by its own count of votes.
    pub(super) fn leads_instance(&self, instance: InstanceId) -> bool {
        matches!(&self.role, Role::Leader(l) if instance >= l.first)
    }

    /// Phase 2b at the leader.
    pub(super) fn on_accepted(&mut self, from: NodeId, m: &message::Accepted, _now: Time) {
        let Role::Leader(leadership) = &mut self.role else { return };
        if m.ballot != leadership.ballot && !planted::is(Bug::VotesAcrossBallots) {
            return;
        }
        if let Some(follower) = leadership.follower(from) {
            follower.confirm(m.voter, m.chosen);
            follower.durable = follower.durable.max(m.chosen);
        } else if from == self.me {
            leadership.durable = leadership.durable.max(m.chosen);
        }
        if !self.members.counts(from, m.voter) {
            return;
        }
        let first = leadership.first;
        for instance in m.first.max(first).0..=m.last.0 {
            match leadership.flights.get_mut((instance - first.0) as usize) {
                Some(flight) => flight.votes.add(&self.members, from),
                None => break,
            }
        }
    }

    /// Moves the chosen prefix over everything that a majority has accepted at this ballot.
    /// Called once per turn, after its messages.
    pub(super) fn advance_leadership(&mut self, ready: &mut Ready) {
        loop {
            let Role::Leader(leadership) = &mut self.role else { return };
            if leadership.first != self.chosen.next() {
                return;
            }
            let ballot = leadership.ballot;
            let Some(flight) = leadership.flights.pop_front_if(|f| {
                f.votes.is_quorum(&self.members)
                    || (planted::is(Bug::AcknowledgesAlone) && f.votes.has(&self.members, self.me))
            }) else {
                return;
            };
            leadership.first = leadership.first.next();
            leadership.bytes -= flight.value.len();
            let instance = self.chosen.next();
            if self.open.get(&instance).is_none_or(|held| held.ballot != ballot) {
                // Chosen without the own vote: a restart must have the value all the same.
                self.write_chosen(instance, ballot, flight.value.clone(), ready);
            }
            self.choose(ballot, flight.value, ready);
        }
    }

    /// The last instance that a read at this leader has to wait for before its first answer
    /// (an entry of the leader's own ballot), or `None` when this replica does not lead.
    #[must_use]
    pub fn opening(&self) -> Option<InstanceId> {
        match &self.role {
            Role::Leader(l) => Some(l.opening),
            _ => None,
        }
    }

    /// Begins a read barrier: asks every member whether this leadership still stands. Reads that
    /// came before may be answered once [`Replica::barrier_passed`] reaches the returned number.
    /// `None` when too many are waiting already, or when this replica does not lead.
    pub fn begin_barrier(&mut self, now: Time, ready: &mut Ready) -> Option<u64> {
        let mark = self.mark();
        let Role::Leader(leadership) = &mut self.role else { return None };
        if leadership.barriers.len() >= MAX_BARRIERS {
            return None;
        }
        leadership.barrier += 1;
        let number = leadership.barrier;
        let ballot = leadership.ballot;
        let mut votes = Votes::default();
        votes.add(&self.members, self.me);
        if votes.is_quorum(&self.members) {
            leadership.passed = number;
            return Some(number);
        }
        leadership.barriers.push_back(Barrier { number, votes, sent: now });
        for follower in &mut leadership.followers {
            follower.told = now;
        }
        for node in self.others() {
            self.send(node, Message::Advance(Advance::new(ballot, mark, number)), ready);
        }
        Some(number)
    }

    /// The newest barrier of this leadership that a majority has confirmed.
    #[must_use]
    pub fn barrier_passed(&self) -> u64 {
        match &self.role {
            Role::Leader(l) => l.passed,
            _ => 0,
        }
    }

    /// A word of the leader.
    pub(super) fn on_advance(
        &mut self,
        from: NodeId,
        m: &Advance,
        now: Time,
        peers: &Peers,
        random: &mut Random,
        ready: &mut Ready,
    ) {
        if m.ballot.node != from || !self.plausible(m.ballot) {
            return;
        }
        if m.ballot < self.promised {
            if planted::is(Bug::BarrierIgnoresPromise) {
                let (voter, chosen) = (self.storage, self.chosen);
                let tenure = peers.tenure(from);
                let reply = AdvanceReply { ballot: m.ballot, voter, chosen, barrier: m.barrier, tenure };
                return self.send(from, Message::AdvanceReply(reply), ready);
            }
            return self.reject(from, m.ballot, ready);
        }
        if self.is_held(from, m.ballot, now, peers) {
            return self.ask_holder(ready);
        }
        self.follow(m.ballot, now, random, ready);
        self.follow_mark(from, m.ballot, m.mark, now, ready);
        if self.halted.is_none() {
            self.confirmed = m.ballot;
            self.note_fresh(m, now);
            let (voter, chosen) = (self.storage, self.shown());
            let tenure = peers.tenure(from);
            let reply = AdvanceReply { ballot: m.ballot, voter, chosen, barrier: m.barrier, tenure };
            self.send(from, Message::AdvanceReply(reply), ready);
        }
    }

    pub(super) fn on_advance_reply(&mut self, from: NodeId, m: &AdvanceReply) {
        let Role::Leader(leadership) = &mut self.role else { return };
        if m.ballot != leadership.ballot || m.barrier > leadership.barrier {
            return;
        }
        if let Some(follower) = leadership.follower(from) {
            follower.confirm(m.voter, m.chosen);
            follower.tenure = follower.tenure.max(m.tenure);
        }
        if !self.members.counts(from, m.voter) {
            return;
        }
        // Whoever confirms a later barrier confirms the earlier ones: both ask about now.
        for barrier in leadership.barriers.iter_mut().take_while(|b| b.number <= m.barrier) {
            barrier.votes.add(&self.members, from);
            if barrier.votes.is_quorum(&self.members) {
                leadership.passed = barrier.number;
            }
        }
        let passed = leadership.passed;
        while leadership.barriers.pop_front_if(|b| b.number <= passed).is_some() {}
    }

    /// A member was heard again after a silence or in a new life: what it knows of this
    /// leadership is unknown.
    pub fn peer_up(&mut self, node: NodeId) {
        if let Role::Leader(leadership) = &mut self.role
            && let Some(follower) = leadership.follower(node)
        {
            follower.confirmed = false;
            follower.chosen = InstanceId::ZERO;
            follower.told = Time::ZERO;
            follower.vain = 0;
        }
    }

    /// Where the followers stand, for status: node, whether it follows, end of its prefix.
    #[must_use]
    pub fn followers(&self) -> Vec<(NodeId, bool, InstanceId)> {
        match &self.role {
            Role::Leader(l) => l.followers.iter().map(|f| (f.node, f.confirmed, f.chosen)).collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn tick_leader(
        &mut self,
        now: Time,
        peers: &Peers,
        random: &mut Random,
        ready: &mut Ready,
    ) -> bool {
        let (group, chosen) = (self.group, self.chosen);
        let Role::Leader(leadership) = &mut self.role else { return false };
        let reachable = self.members.nodes().iter().filter(|n| peers.reachable(**n, group, now)).count();
        if reachable < self.members.majority() && now.since(leadership.since) >= self.tuning.election_timeout
        {
            // Nobody can be served from here; whoever hears a majority shall lead.
            self.counters.isolated += 1;
            self.role = Role::Follower;
            self.leader = None;
            self.acks = None;
            self.schedule_election(now, peers, random);
            // Who hears this and is not heard need not wait for its silence.
            self.disown(ready);
            return true;
        }
        if chosen.next() < leadership.first {
            // Values below the open range are known to be chosen, but whoever knew it may be gone
            // with it. Phase 1 once more, over what a majority that is here reports.
            if leadership.learned.0 != chosen {
                leadership.learned = (chosen, now);
            } else if now.since(leadership.learned.1) >= self.tuning.election_timeout * 2 {
                self.learning = None;
                self.campaign(self.promised, self.promised, now, ready);
                return true;
            }
        }
        // Whoever is to come and is not here is looked for now and then, by the host.
        let mut newcomers = self.preference.iter().filter(|n| !self.members.contains(**n)).peekable();
        let changing = match newcomers.peek() {
            Some(_) => newcomers.any(|n| peers.alive(*n, group, now)),
            None => self.members.count() != self.preference.len(),
        };
        let mut busy = !leadership.flights.is_empty() || !leadership.barriers.is_empty() || changing;

        // Say what is chosen to those who have not confirmed it, and repeat the open barrier.
        let asked = leadership.barriers.back().map_or(0, |b| b.number);
        let again = leadership.barriers.front().is_some_and(|b| now.since(b.sent) >= self.tuning.retry);
        let announce = self.tuning.retry / 8;
        // The next value will tell those that only have to hear what became of their votes, unless
        // somebody waits for it.
        let hurried = changing || leadership.handover.is_some() || peers.is_leaving(self.me);
        let (mut tell, mut later) = (Vec::new(), None);
        for follower in &mut leadership.followers {
            // A new disk is spoken to until it is a member.
            busy |= follower.voter.is_some_and(|voter| !self.members.counts(follower.node, voter));
            let behind = (!follower.confirmed || follower.chosen < chosen)
                && !(planted::is(Bug::LostChosenStaysLost) && follower.told > Time::ZERO);
            if !peers.alive(follower.node, group, now) {
                continue;
            }
            let patient = follower.confirmed && follower.vain == 0 && !hurried;
            busy |= behind && !patient;
            let wait = if patient { self.tuning.quiet } else { announce * (1 << follower.vain) };
            if behind && patient && now.since(follower.told) < wait {
                let due = follower.told + wait;
                later = Some(later.map_or(due, |at: Time| at.min(due)));
            }
            if again || (behind && now.since(follower.told) >= wait) {
                busy |= behind;
                follower.told = now;
                follower.vain = (follower.vain + 1).min(MAX_VAIN);
                tell.push(follower.node);
            }
        }
        if again {
            for barrier in &mut leadership.barriers {
                barrier.sent = now;
            }
        }

        // Repeat accepts that have waited too long, a bounded number of bytes per tick.
        let mut resend = Vec::new();
        let mut bytes = 0;
        for (index, flight) in (0..).zip(leadership.flights.iter_mut()) {
            if now.since(flight.sent) < self.tuning.retry || bytes > self.tuning.chunk_bytes {
                break;
            }
            flight.sent = now;
            for follower in &leadership.followers {
                if !flight.votes.has(&self.members, follower.node) && peers.alive(follower.node, group, now) {
                    bytes += flight.value.len();
                    resend.push((follower.node, leadership.first.plus(index), flight.value.clone()));
                }
            }
        }

        let ballot = leadership.ballot;
        if let Some(due) = later {
            self.wake(due);
        }
        let mark = self.mark();
        self.counters.resent += resend.len() as u64;
        for (node, instance, value) in resend {
            self.send(node, Message::Accept(Accept { ballot, instance, mark, value }), ready);
        }
        for node in tell {
            self.send(node, Message::Advance(Advance::new(ballot, mark, asked)), ready);
        }
        self.tick_change(now, peers);
        self.tick_handover(now, peers, ready) || busy
    }

    /// Nothing more is proposed by this leadership.
    pub(super) fn seal(&mut self) {
        if let Role::Leader(leadership) = &mut self.role {
            leadership.sealed = true;
        }
    }

    /// A planted defect: the leader goes on with the new members on the word of the old ones.
    pub(super) fn unseal(&mut self) {
        if let Role::Leader(leadership) = &mut self.role {
            leadership.sealed = false;
            leadership.opening = self.chosen;
        }
    }

    /// Steps aside for a better placed member that has been up for a while and has everything.
    /// Returns whether a handover is under way.
    fn tick_handover(&mut self, now: Time, peers: &Peers, ready: &mut Ready) -> bool {
        let (group, me, chosen) = (self.group, self.me, self.chosen);
        let (retry, settle) = (self.tuning.retry, self.tuning.settle);
        let Role::Leader(leadership) = &mut self.role else { return false };
        if let Some(handover) = &mut leadership.handover {
            if now.since(handover.begun) >= retry * 2 || !peers.reachable(handover.to, group, now) {
                // It did not take over: serve on, and do not pause for it again soon.
                leadership.handover = None;
                leadership.next_handover = now + settle * 2;
                if leadership.renounced {
                    // At another ballot, so that leases count again: the late word is for this one.
                    self.campaign(self.promised, self.promised, now, ready);
                }
                return true;
            }
            let (to, sent) = (handover.to, handover.sent);
            if !sent && leadership.flights.is_empty() {
                let has_all =
                    leadership.followers.iter().any(|f| f.node == to && f.confirmed && f.chosen >= chosen);
                if has_all {
                    let ballot = leadership.ballot;
                    handover.sent = true;
                    leadership.renounced = true;
                    self.counters.transfers += 1;
                    self.send(to, Message::Transfer(Transfer { ballot }), ready);
                }
            }
            return true;
        }
        let leaving = peers.is_leaving(me);
        let settled = now >= leadership.next_handover && now.since(leadership.since) >= settle;
        if chosen < leadership.opening || !(settled || leaving) {
            return false;
        }
        // Who is about to end hands over to the next best, and at once; who is slow hands over, too.
        let settle = if leaving { Duration::ZERO } else { settle };
        let unfit = leaving || peers.is_slow(me, group);
        let better = self
            .preference
            .iter()
            .take_while(|n| **n != me || unfit)
            .filter(|n| **n != me && !peers.is_leaving(**n) && !peers.is_slow(**n, group))
            .find(|n| {
                let votes = leadership.followers.iter().any(|f| {
                    f.node == **n && f.voter.is_some_and(|voter| self.members.counts(f.node, voter))
                });
                votes && peers.up_for(**n, now) >= settle && peers.reachable(**n, group, now)
            })
            .copied();
        let Some(to) = better else { return false };
        let window = self.tuning.window as u64;
        let near = leadership
            .followers
            .iter_mut()
            .find(|f| f.node == to && f.confirmed && f.chosen.0 + window >= chosen.0);
        let Some(follower) = near else { return leaving };
        leadership.handover = Some(Handover { to, begun: now, sent: false });
        if follower.chosen < chosen {
            // It is to have everything, and the group pauses until it says so.
            (follower.told, follower.vain) = (now, 1);
            let (ballot, mark) = (leadership.ballot, self.mark());
            self.send(to, Message::Advance(Advance::new(ballot, mark, 0)), ready);
        }
        true
    }
}
