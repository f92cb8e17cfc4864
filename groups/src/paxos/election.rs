//! From silence to leadership: probe, then phase 1 over the open range.
//!
//! A probe asks a majority whether it misses the leader too, before any ballot is raised. So a
//! node that was cut off cannot depose a leader that the others hear, and ballots do not climb
//! while no majority is there.

use std::collections::BTreeMap;

use super::leader::Leadership;
use super::message::{Entry, Message, Prepare, Probe, ProbeReply, Promise, Reject};
use super::quorum::Votes;
use super::ready::Ready;
use super::replica::{Accepted, Replica, Role};
use crate::ids::{Ballot, InstanceId, NodeId};
use crate::kv::value::as_members;
use crate::log::Record;
use crate::peers::Peers;
use crate::planted::{self, Bug};
use crate::random::Random;
use crate::time::Time;

/// A probe round under way.
#[derive(Debug)]
pub struct Probing {
    attempt: u64,
    granted: Votes,
    highest: Ballot,
    begun: Time,
}

/// Phase 1 under way.
#[derive(Debug)]
pub struct Candidacy {
    pub(super) ballot: Ballot,
    consent: Ballot,
    promised: Votes,
    /// Parts of promises that are not complete yet, by member.
    parts: BTreeMap<NodeId, Parts>,
    /// Per instance the value accepted at the highest ballot that a complete promise reports.
    reported: BTreeMap<InstanceId, Accepted>,
    /// The longest chosen prefix that a promise reports, and who has it.
    chosen: (InstanceId, NodeId),
    begun: Time,
    sent: Time,
}

#[derive(Debug)]
struct Parts {
    chosen: InstanceId,
    missing: u32,
    parts: Vec<Option<Vec<Entry>>>,
}

/// The most parts of one promise: what the limits on open entries allow, with room to spare.
const MAX_PARTS: u32 = 1 << 16;

impl Replica {
    /// Whether a leader is known, heard, and hears this node. A leader that hears nobody has
    /// stepped down, and who follows it for its heartbeats alone would wait for ever. A new one
    /// gets the time of one election timeout to be heard and to answer.
    pub(super) fn has_live_leader(&self, now: Time, peers: &Peers) -> bool {
        match self.leader {
            Some(leader) if leader == self.me => self.is_leader(),
            Some(leader) => {
                peers.alive(leader, self.group, now)
                    && (peers.reachable(leader, self.group, now)
                        || now.since(self.leader_since) < self.tuning.election_timeout)
            }
            None => false,
        }
    }

    /// Sets the time of the next probe, within one election timeout from now: the better a live
    /// member is placed, the earlier its slice of that time, so that one usually goes alone and
    /// leaders end up spread as the preference says.
    pub(super) fn schedule_election(&mut self, now: Time, peers: &Peers, random: &mut Random) {
        let alive: Vec<NodeId> =
            self.preference.iter().copied().filter(|n| peers.alive(*n, self.group, now)).collect();
        let rank = alive.iter().position(|n| *n == self.me).unwrap_or(alive.len()) as u32;
        let slice = self.tuning.election_timeout / (alive.len().max(1) as u32);
        self.election_due = now + slice * rank + random.duration_below(slice);
    }

    pub(super) fn tick_election(
        &mut self,
        now: Time,
        peers: &Peers,
        random: &mut Random,
        ready: &mut Ready,
    ) -> bool {
        match &mut self.role {
            Role::Follower => {
                let patience = self.tuning.election_timeout * 2;
                let outside = !self.is_voter() || !self.preference.contains(&self.me);
                let forsaken = outside && now.since(self.leader_spoke) >= patience;
                if let Some(leader) = self.leader.filter(|_| !forsaken) {
                    if self.has_live_leader(now, peers) {
                        // Looked at again until words pass in both directions; what changes after
                        // that is noticed by the peers.
                        return !peers.reachable(leader, self.group, now) || outside;
                    }
                    self.leader_lost(leader, now, peers, random);
                } else if forsaken && self.leader.take().is_some() {
                    // A leader speaks to a disk that is no member until it is one. This one was made to follow
                    // by a late word, and knew no ballot that would have told it so; and who was the leader
                    // then may follow this node by another. Or it was taken out, and is told so when it asks.
                    self.election_due = now + self.tuning.election_timeout;
                    self.disown(ready);
                } else if now >= self.election_due && self.may_lead() && !peers.is_leaving(self.me) {
                    self.probe(now, peers, random, ready);
                } else if now >= self.election_due {
                    // It cannot lead, and says so: a late word of the node's earlier life may have made
                    // others follow it, and they would do so for its heartbeats alone.
                    self.election_due = now + self.tuning.election_timeout;
                    self.disown(ready);
                }
            }
            Role::Probing(probing) => {
                if now.since(probing.begun) >= self.tuning.retry {
                    self.role = Role::Follower;
                    self.schedule_election(now, peers, random);
                }
            }
            Role::Candidate(candidacy) => {
                if now.since(candidacy.begun) >= self.tuning.election_timeout * 2 {
                    self.role = Role::Follower;
                    self.schedule_election(now, peers, random);
                } else if now.since(candidacy.sent) >= self.tuning.retry {
                    candidacy.sent = now;
                    let (ballot, consent) = (candidacy.ballot, candidacy.consent);
                    self.send_prepares(ballot, consent, ready);
                }
            }
            Role::Leader(_) => {}
        }
        true
    }

    /// Whether this replica may stand for election: its disk is a member, and it has a state.
    fn may_lead(&self) -> bool {
        !self.stateless && self.is_voter()
    }

    fn probe(&mut self, now: Time, peers: &Peers, random: &mut Random, ready: &mut Ready) {
        let heard = self.members.nodes().iter().filter(|n| peers.alive(**n, self.group, now)).count();
        if heard < self.members.majority() && !planted::is(Bug::NoProbe) {
            // Nobody to ask: look again soon, without noise.
            self.election_due = now + self.tuning.retry;
            return;
        }
        self.counters.probes += 1;
        if planted::is(Bug::NoProbe) {
            return self.campaign(self.promised, Ballot::ZERO, now, ready);
        }
        let attempt = random.next_u64();
        let mut granted = Votes::default();
        granted.add(&self.members, self.me);
        self.role = Role::Probing(Probing { attempt, granted, highest: self.promised, begun: now });
        for node in self.others() {
            self.send_probe(node, attempt, ready);
        }
        self.end_probe(now, peers, random, ready);
    }

    pub(super) fn on_probe(&mut self, from: NodeId, m: &Probe, now: Time, peers: &Peers, ready: &mut Ready) {
        self.release(from, m.life, m.renounced, peers);
        if !self.is_voter() && self.plausible(m.renounced) {
            // That ballot may be one of this node's lost disk, and bind whoever asks: it is renounced.
            self.seen = self.seen.max(m.renounced);
        }
        if self.leader == Some(from) {
            // Whoever looks for a leader is none.
            self.leader = None;
            self.election_due = now + self.tuning.election_timeout;
        }
        // Nor does it follow: a leader that thought so was told by a late word of an earlier life.
        self.peer_up(from);
        // Nor is a node far behind a good leader while there are others: it would serve nothing
        // before it has learned everything.
        let behind = m.chosen.plus(self.tuning.ahead as u64) < self.chosen;
        // Nor is an outsider, unless it knows more of who is a member than this replica.
        let eligible = self.members.contains(from) || m.chosen > self.chosen;
        let granted = !self.has_live_leader(now, peers) && !behind && eligible && self.is_voter();
        self.answer_probe(from, m.attempt, granted, ready);
        self.answer_outsider(from, now, ready);
        if m.chosen > self.chosen && !self.has_live_leader(now, peers) {
            // There may be other members by now, which this replica does not know: it may be one of them
            // and the candidate need its vote; or whoever asks was taken out, and has the value that says so.
            self.want(from, m.chosen, now);
            self.ask(now, ready);
        }
    }

    fn answer_probe(&self, to: NodeId, attempt: u64, granted: bool, ready: &mut Ready) {
        let (promised, renounced) = (self.promised, self.renounced());
        let reply = ProbeReply { attempt, granted, promised, life: self.life, renounced };
        self.send(to, Message::ProbeReply(reply), ready);
    }

    /// It takes no part, and grants nothing.
    pub(super) fn decline(&self, to: NodeId, attempt: u64, ready: &mut Ready) {
        self.answer_probe(to, attempt, false, ready);
    }

    pub(super) fn on_probe_reply(
        &mut self,
        from: NodeId,
        m: &ProbeReply,
        now: Time,
        peers: &Peers,
        random: &mut Random,
        ready: &mut Ready,
    ) {
        self.release(from, m.life, m.renounced, peers);
        let plausible = self.plausible(m.promised) || m.promised == Ballot::ZERO;
        let Role::Probing(probing) = &mut self.role else { return };
        if probing.attempt != m.attempt || !m.granted || !plausible {
            return;
        }
        probing.granted.add(&self.members, from);
        probing.highest = probing.highest.max(m.promised);
        self.end_probe(now, peers, random, ready);
    }

    /// Asks whether a leader is missed; the attempt 0 asks nothing and says that there is none here.
    pub(super) fn send_probe(&self, to: NodeId, attempt: u64, ready: &mut Ready) {
        let probe = Probe { attempt, chosen: self.chosen, life: self.life, renounced: self.renounced() };
        self.send(to, Message::Probe(probe), ready);
    }

    fn end_probe(&mut self, now: Time, peers: &Peers, random: &mut Random, ready: &mut Ready) {
        let Role::Probing(probing) = &self.role else { return };
        if probing.granted.is_quorum(&self.members) {
            let highest = probing.highest;
            if self.is_bound(self.me, Ballot::ZERO, now, peers) {
                // It runs out soon: a leader that is missed is not granted another one.
                self.role = Role::Follower;
                let soon = self.tuning.retry / 8;
                self.election_due = now + soon + random.duration_below(soon);
                return;
            }
            self.campaign(highest, Ballot::ZERO, now, ready);
        }
    }

    /// The leader asks this node to take over.
    pub(super) fn on_transfer(
        &mut self,
        from: NodeId,
        m: &super::message::Transfer,
        now: Time,
        peers: &Peers,
        ready: &mut Ready,
    ) {
        if self.leader == Some(from)
            && self.promised == m.ballot
            && matches!(self.role, Role::Follower)
            && self.may_lead()
            && !self.is_bound(self.me, m.ballot, now, peers)
        {
            self.campaign(self.promised, m.ballot, now, ready);
        }
    }

    /// Raises the ballot above `highest` and begins phase 1. The ballot is on the own disk
    /// before anybody hears of it: it is never used twice, whatever happens. With the consent of the
    /// leader at that ballot, or no lease of anybody's binds this replica.
    pub(super) fn campaign(&mut self, highest: Ballot, consent: Ballot, now: Time, ready: &mut Ready) {
        self.counters.candidacies += 1;
        let ballot = Ballot { round: highest.max(self.promised).max(self.seen).round + 1, node: self.me };
        self.move_promise(ballot, ready);
        self.leader = None;
        self.acks = None;
        if !planted::is(Bug::BallotNotPersisted) {
            ready.records.push(Record::Promise { group: self.group, ballot });
        }
        self.role = Role::Candidate(Candidacy {
            ballot,
            consent,
            promised: Votes::default(),
            parts: BTreeMap::new(),
            reported: BTreeMap::new(),
            chosen: (self.chosen, self.me),
            begun: now,
            sent: now,
        });
        self.send_prepares(ballot, consent, ready);
        self.report(self.me, ballot, ready);
    }

    fn send_prepares(&self, ballot: Ballot, consent: Ballot, ready: &mut Ready) {
        let prepare = Prepare { ballot, from: self.chosen.next(), consent };
        for node in self.others() {
            self.send_after_sync(node, Message::Prepare(prepare.clone()), ready);
        }
    }

    /// Gathers promises. Parts of a repeated promise replace each other; a promise counts once
    /// it is whole.
    pub(super) fn on_promise(
        &mut self,
        from: NodeId,
        m: Promise,
        now: Time,
        random: &mut Random,
        ready: &mut Ready,
    ) {
        let Role::Candidate(candidacy) = &mut self.role else { return };
        if m.ballot == candidacy.ballot
            && m.changed > self.members.changed_at()
            && !planted::is(Bug::IgnoresNewerMembers)
        {
            // Who decides what lies behind that change is not known here: first learn.
            self.counters.outdated += 1;
            self.role = Role::Follower;
            self.election_due = now + self.tuning.election_timeout;
            self.want(from, m.chosen, now);
            return self.ask(now, ready);
        }
        if m.ballot != candidacy.ballot
            || !self.members.counts(from, m.voter)
            || m.parts == 0
            || m.parts > MAX_PARTS
            || m.part >= m.parts
            || candidacy.promised.has(&self.members, from)
        {
            return;
        }
        let fresh =
            || Parts { chosen: m.chosen, missing: m.parts, parts: (0..m.parts).map(|_| None).collect() };
        let parts = candidacy.parts.entry(from).or_insert_with(fresh);
        if parts.parts.len() != m.parts as usize || parts.chosen != m.chosen {
            // A newer report of the same promise: its parts do not mix with the older one's.
            *parts = fresh();
        }
        let slot = &mut parts.parts[m.part as usize];
        if slot.is_none() {
            parts.missing -= 1;
        }
        *slot = Some(m.entries);
        if parts.missing > 0 && !planted::is(Bug::TruncatedPromise) {
            return;
        }
        let Some(parts) = candidacy.parts.remove(&from) else { return };
        // An acceptor holds little beyond what it knows to be chosen. A report from far outside is
        // damage; believing it would mean to fill everything up to there with no-ops.
        let known = parts.chosen.max(candidacy.chosen.0).max(self.chosen);
        let limit = known.plus(4 * (self.tuning.ahead + self.tuning.window) as u64);
        if parts.parts.iter().flatten().flatten().any(|entry| entry.instance > limit) {
            tracing::error!(
                group = self.group.0,
                node = from.0,
                "a promise reports instances far from any other"
            );
            return;
        }
        candidacy.promised.add(&self.members, from);
        if parts.chosen > candidacy.chosen.0 {
            candidacy.chosen = (parts.chosen, from);
        }
        for entry in parts.parts.into_iter().flatten().flatten() {
            if planted::is(Bug::AdoptsNothing) {
                break;
            }
            let report = Accepted { ballot: entry.ballot, value: entry.value };
            match candidacy.reported.get(&entry.instance) {
                Some(held) if (held.ballot >= report.ballot) != planted::is(Bug::AdoptsLowest) => {}
                _ => {
                    candidacy.reported.insert(entry.instance, report);
                }
            }
        }
        if candidacy.promised.is_quorum(&self.members) || planted::is(Bug::NoPhaseOneQuorum) {
            self.lead(now, random, ready);
        }
    }

    /// A majority has promised: adopt, fill, and open the leadership with an entry of its own.
    fn lead(&mut self, now: Time, _random: &mut Random, ready: &mut Ready) {
        let Role::Candidate(candidacy) = std::mem::replace(&mut self.role, Role::Follower) else { return };
        let Candidacy { ballot, mut reported, chosen: (chosen, holder), promised, .. } = candidacy;
        assert_eq!(ballot, self.promised, "a candidate that promised higher is no candidate");
        self.counters.elected += 1;
        self.leader = Some(self.me);
        // The own prefix may have grown since the own promise was written.
        let chosen = if chosen > self.chosen {
            self.want(holder, chosen, now);
            chosen
        } else {
            self.chosen
        };
        let last = reported.keys().next_back().copied().unwrap_or(chosen).max(chosen);
        self.role = Role::Leader(Box::new(Leadership::new(ballot, chosen.next(), &self.circle, now)));
        for instance in (chosen.next().0..=last.0).map(InstanceId) {
            let value = match reported.remove(&instance) {
                Some(accepted) => {
                    self.counters.adopted += 1;
                    accepted.value
                }
                None => {
                    self.counters.gaps += 1;
                    crate::kv::value::noop()
                }
            };
            // One that follows other members than these is a no-op, see [`NewMembers`](crate::kv::value::NewMembers).
            let changes = as_members(&value).is_some_and(|new| new.follows(self.members.changed_at()));
            self.propose_at(instance, value, now, ready);
            if planted::is(Bug::VotesAcrossBallots) {
                self.count_promises_as_votes(promised);
            }
            if changes && !planted::is(Bug::ProposesPastChange) {
                // What lies behind it is decided by others: phase 1 over that comes once this is
                // chosen, and with it the opening.
                if let Role::Leader(leadership) = &mut self.role {
                    leadership.opening = super::leader::NEVER;
                }
                return self.seal();
            }
        }
        let opening = last.next();
        self.propose_at(opening, crate::kv::value::lead(self.me), now, ready);
        if let Role::Leader(leadership) = &mut self.role {
            leadership.opening = opening;
        }
        tracing::debug!(group = self.group.0, %ballot, first = chosen.next().0, opening = opening.0, "leading");
    }

    pub(super) fn on_reject(&mut self, m: &Reject, now: Time, random: &mut Random) {
        if m.promised <= self.promised || !self.plausible(m.promised) {
            return;
        }
        self.seen = self.seen.max(m.promised);
        let own = match &self.role {
            Role::Candidate(c) => c.ballot == m.refused,
            Role::Leader(l) => l.ballot == m.refused,
            Role::Follower | Role::Probing(_) => false,
        };
        if own {
            if self.is_leader() {
                self.counters.deposed += 1;
            }
            // The promise stays as it is: nobody asked for one. The next candidacy learns the
            // higher ballot from its probe.
            self.role = Role::Follower;
            self.leader = None;
            self.acks = None;
            self.election_due =
                now + self.tuning.election_timeout / 4 + random.duration_below(self.tuning.election_timeout);
        }
    }
}
