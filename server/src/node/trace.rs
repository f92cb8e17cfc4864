//! `TRACE`: the way of one request through the nodes, as a list of steps with their times.
//!
//! ```text
//! the node that asks       TRACE frame, before the SUBMIT ──▶ the leader
//! the leader               WATCH frame, before the Accept ──▶ each member
//! a member                 SEEN frame, once its disk has it ──▶ the leader
//! the leader               TRACED frame, when all have spoken ──▶ the node that asks
//! ```
//!
//! Every time is measured by one node, and says which: clocks of nodes are never compared. Nothing of this
//! is in Paxos' messages or in the log, so a request that is not traced carries nothing and waits for
//! nothing; a node of a version that does not know these frames drops them, and its part is missing. What is
//! remembered is bounded in number and time.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use groups::host::Host;
use groups::ids::{Boot, GroupId, InstanceId, NodeId};
use groups::paxos::Message;
use groups::time::Time;

use super::requests::Token;

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StepKind {
    /// At the node that asks: from the connection's hands until it was sent to the leader.
    Queue = 1,
    /// At the node that asks: from the sending until the answer, which came from `peer`; sent to it `amount` times.
    Forward = 2,
    /// At the leader: from its coming until it was proposed, as instance `amount`.
    Batch = 3,
    /// At the leader: how many commands the instance has; no time.
    Company = 4,
    /// At the leader: from the proposal until the own disk had it.
    OwnDisk = 5,
    /// At the leader: from the proposal until `peer`'s vote came.
    Vote = 6,
    /// At the leader: from the proposal until a majority had it.
    Quorum = 7,
    /// At the leader: from then until it was applied and answered.
    Apply = 8,
    /// At the leader: from its coming until it was read and answered.
    Read = 9,
    /// At the leader: from its coming until it was answered.
    Whole = 10,
    /// At a member: from the coming of the Accept until its log had it.
    Taken = 11,
    /// At a member: from then until its disk had it.
    Disk = 12,
}

impl StepKind {
    fn from_byte(byte: u8) -> Option<StepKind> {
        use StepKind::{
            Apply, Batch, Company, Disk, Forward, OwnDisk, Queue, Quorum, Read, Taken, Vote, Whole,
        };
        let all = [Queue, Forward, Batch, Company, OwnDisk, Vote, Quorum, Apply, Read, Whole, Taken, Disk];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whose clock measured it.
    pub node: NodeId,
    /// What it is.
    pub kind: StepKind,
    /// The other node, if there is one in it; 0 else.
    pub peer: NodeId,
    /// How long it took.
    pub took: Duration,
    /// What its kind says.
    pub amount: u64,
}

/// Names a request at the leader: the node that asks, its life, the group, the number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The node that took it from a client.
    pub asker: NodeId,
    /// That node's life.
    pub boot: Boot,
    /// The group.
    pub group: GroupId,
    /// Whether it only reads: both kinds are numbered from 1.
    pub read: bool,
    /// Its number.
    pub number: u64,
}

/// A request of this node.
#[derive(Debug)]
struct Asked {
    token: Token,
    taken: Time,
    sent: Option<(NodeId, Time)>,
    sends: u64,
    answered: Option<(NodeId, Time)>,
    /// What the leader has told.
    steps: Option<Vec<Step>>,
}

/// A request for which this node leads the group.
#[derive(Debug)]
struct Led {
    came: Time,
    proposed: Option<(InstanceId, Time)>,
    commands: u64,
    members: Vec<NodeId>,
    batch: Option<u64>,
    synced: Option<Duration>,
    votes: BTreeMap<NodeId, Duration>,
    seen: BTreeMap<NodeId, (Duration, Duration)>,
    chosen: Option<Time>,
    answered: Option<Time>,
}

/// An instance that a leader wants to hear of.
#[derive(Debug)]
struct Watched {
    since: Time,
    came: Option<Time>,
    handed: Option<(u64, Time)>,
}

/// What is traced in one shard.
#[derive(Debug, Default)]
pub struct Traces {
    asked: BTreeMap<Name, Asked>,
    led: BTreeMap<Name, Led>,
    watched: BTreeMap<(NodeId, GroupId, InstanceId), Watched>,
}

/// The most of each kind at a time; what comes beyond is not traced.
const MAX: usize = 64;

/// The leader waits so long behind the answer for what slower members have to tell.
const WAIT: Duration = Duration::from_millis(300);

/// Nothing is remembered for longer.
const FORGET: Duration = Duration::from_secs(5);

impl Traces {
    /// Whether nothing is traced.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.led.is_empty() && self.watched.is_empty()
    }

    /// A request of this node was taken and numbered.
    pub fn ask(&mut self, name: Name, token: Token, now: Time) {
        if self.asked.len() < MAX {
            let asked = Asked { token, taken: now, sent: None, sends: 0, answered: None, steps: None };
            self.asked.insert(name, asked);
        }
    }

    /// A request of this node goes to a leader. Whether it is traced.
    pub fn sends(&mut self, name: Name, to: NodeId, now: Time) -> bool {
        let Some(asked) = self.asked.get_mut(&name) else { return false };
        asked.sent = Some((to, now));
        asked.sends += 1;
        true
    }

    /// A request that is traced is about to come.
    pub fn lead(&mut self, name: Name, now: Time) {
        if self.led.len() < MAX || self.led.contains_key(&name) {
            self.led.insert(
                name,
                Led {
                    came: now,
                    proposed: None,
                    commands: 0,
                    members: Vec::new(),
                    batch: None,
                    synced: None,
                    votes: BTreeMap::new(),
                    seen: BTreeMap::new(),
                    chosen: None,
                    answered: None,
                },
            );
        }
    }

    /// A request was answered: to the node that asked, by `from`.
    pub fn answered(&mut self, name: Name, from: NodeId, me: NodeId, now: Time) {
        if let Some(asked) = self.asked.get_mut(&name) {
            asked.answered.get_or_insert((from, now));
        }
        if let Some(led) = self.led.get_mut(&name).filter(|_| from == me) {
            led.answered.get_or_insert(now);
        }
    }

    /// A leader wants to hear of an instance, whose Accept is about to come.
    pub fn watch(&mut self, leader: NodeId, group: GroupId, instance: InstanceId, now: Time) {
        if self.watched.len() < MAX {
            let watched = Watched { since: now, came: None, handed: None };
            self.watched.insert((leader, group, instance), watched);
        }
    }

    /// A message of Paxos has come.
    pub fn hear(&mut self, from: NodeId, group: GroupId, message: &Message, now: Time) {
        match message {
            Message::Accept(accept) => {
                if let Some(watched) = self.watched.get_mut(&(from, group, accept.instance)) {
                    watched.came.get_or_insert(now);
                }
            }
            Message::Accepted(accepted) => {
                for (_, led) in self.led.iter_mut().filter(|(name, _)| name.group == group) {
                    if let Some((instance, at)) = led.proposed
                        && (accepted.first..=accepted.last).contains(&instance)
                    {
                        led.votes.entry(from).or_insert(now.since(at));
                    }
                }
            }
            _ => {}
        }
    }

    /// A member has told how long it took: from the coming to its log, and from there to its disk.
    pub fn seen(&mut self, from: NodeId, group: GroupId, seen: Seen) {
        for (_, led) in self.led.iter_mut().filter(|(name, _)| name.group == group) {
            if led.proposed.is_some_and(|(instance, _)| instance == seen.instance) {
                led.seen.entry(from).or_insert((seen.taken, seen.disk));
            }
        }
    }

    /// The leader's account of a request of this node.
    pub fn told(&mut self, name: Name, steps: Vec<Step>) {
        // A node that led for a part of the way only has less to tell than the one that executed it.
        if let Some(asked) = self.asked.get_mut(&name)
            && asked.steps.as_ref().is_none_or(|known| known.len() < steps.len())
        {
            asked.steps = Some(steps);
        }
    }

    /// The groups have had their turn: what was proposed and what is chosen. Returns the members who shall
    /// tell of an instance.
    pub fn look(&mut self, host: &mut Host, me: NodeId, now: Time) -> Vec<(NodeId, GroupId, InstanceId)> {
        let mut watch = Vec::new();
        let groups: Vec<GroupId> = self
            .led
            .iter()
            .filter(|(n, led)| !n.read && led.proposed.is_none())
            .map(|(n, _)| n.group)
            .collect();
        for group in groups {
            for traced in host.take_traced(group) {
                let name =
                    Name { asker: traced.node, boot: traced.boot, group, read: false, number: traced.number };
                let (Some(led), Some(instance)) = (self.led.get_mut(&name), traced.instance) else {
                    continue;
                };
                led.proposed = Some((instance, now));
                led.commands = traced.commands.into();
                if let Some(group) = host.group(group) {
                    led.members = group.replica.members().nodes().to_vec();
                }
                let others = led.members.iter().filter(|node| **node != me);
                watch.extend(others.map(|node| (*node, group, instance)));
            }
        }
        for (name, led) in &mut self.led {
            if let (Some((instance, _)), None) = (led.proposed, led.chosen)
                && host.group(name.group).is_some_and(|group| group.replica.mark().instance >= instance)
            {
                led.chosen = Some(now);
            }
        }
        watch
    }

    /// Records were handed to the log as this batch.
    pub fn handed(&mut self, batch: u64, now: Time) {
        for led in self.led.values_mut().filter(|led| led.proposed.is_some()) {
            led.batch.get_or_insert(batch);
        }
        for watched in self.watched.values_mut().filter(|watched| watched.came.is_some()) {
            watched.handed.get_or_insert((batch, now));
        }
    }

    /// Everything up to `batch` is on the disk. Returns what leaders want to hear.
    pub fn synced(&mut self, batch: u64, now: Time) -> Vec<(NodeId, GroupId, Seen)> {
        for led in self.led.values_mut().filter(|led| led.batch.is_some_and(|b| b <= batch)) {
            if let Some((_, at)) = led.proposed {
                led.synced.get_or_insert(now.since(at));
            }
        }
        let due = self.watched.extract_if(.., |_, watched| watched.handed.is_some_and(|(b, _)| b <= batch));
        due.filter_map(|((leader, group, instance), watched)| {
            let (came, (_, handed)) = (watched.came?, watched.handed?);
            let seen = Seen { instance, taken: handed.since(came), disk: now.since(handed) };
            Some((leader, group, seen))
        })
        .collect()
    }

    /// The accounts of requests led here that are complete, or have waited long enough. What is older than
    /// it can be of use is forgotten.
    pub fn finish(&mut self, me: NodeId, now: Time) -> Vec<(Name, Vec<Step>)> {
        self.watched.retain(|_, watched| now.since(watched.since) < FORGET);
        self.asked.retain(|_, asked| now.since(asked.taken) < 2 * FORGET);
        self.led.retain(|_, led| now.since(led.came) < FORGET);
        let done = self.led.extract_if(.., |name, led| {
            led.answered.is_some_and(|at| led.is_complete(*name, me) || now.since(at) >= WAIT)
        });
        done.map(|(name, led)| (name, led.steps(name, me))).collect()
    }

    /// What is known of the way of a request of this node, once all of it is; with `end` in any case. It is
    /// forgotten then.
    pub fn account(&mut self, token: Token, me: NodeId, end: bool) -> Option<Vec<Step>> {
        let (name, asked) = self.asked.iter().find(|(_, asked)| asked.token == token)?;
        if !(end || asked.answered.is_some() && asked.steps.is_some()) {
            return None;
        }
        let mut steps = Vec::new();
        let step = |kind, peer, took, amount| Step { node: me, kind, peer, took, amount };
        if let Some((to, sent)) = asked.sent {
            steps.push(step(StepKind::Queue, to, sent.since(asked.taken), 0));
            if let Some((from, answered)) = asked.answered {
                steps.push(step(StepKind::Forward, from, answered.since(sent), asked.sends));
            }
        }
        steps.extend(asked.steps.iter().flatten());
        let name = *name;
        self.asked.remove(&name);
        Some(steps)
    }
}

impl Led {
    fn is_complete(&self, name: Name, me: NodeId) -> bool {
        let others = || self.members.iter().filter(|node| **node != me);
        name.read
            || (self.synced.is_some()
                && others().all(|n| self.votes.contains_key(n) && self.seen.contains_key(n)))
    }

    fn steps(self, name: Name, me: NodeId) -> Vec<Step> {
        let step = |kind, peer, took, amount| Step { node: me, kind, peer, took, amount };
        let none = NodeId(0);
        let mut steps = Vec::new();
        if let Some((instance, proposed)) = self.proposed {
            steps.push(step(StepKind::Batch, none, proposed.since(self.came), instance.0));
            steps.push(step(StepKind::Company, none, Duration::ZERO, self.commands));
            steps.extend(self.synced.map(|took| step(StepKind::OwnDisk, none, took, 0)));
            for node in self.members.iter().filter(|node| **node != me) {
                if let Some((taken, disk)) = self.seen.get(node) {
                    let there = |kind, took| Step { node: *node, kind, peer: none, took, amount: 0 };
                    steps.push(there(StepKind::Taken, *taken));
                    steps.push(there(StepKind::Disk, *disk));
                }
                steps.extend(self.votes.get(node).map(|took| step(StepKind::Vote, *node, *took, 0)));
            }
            if let Some(chosen) = self.chosen {
                steps.push(step(StepKind::Quorum, none, chosen.since(proposed), 0));
                steps.extend(self.answered.map(|at| step(StepKind::Apply, none, at.since(chosen), 0)));
            }
        } else if let Some(answered) = self.answered.filter(|_| name.read) {
            steps.push(step(StepKind::Read, none, answered.since(self.came), 0));
        }
        steps.extend(self.answered.map(|at| step(StepKind::Whole, none, at.since(self.came), 0)));
        steps
    }
}

/// What a member tells of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The instance.
    pub instance: InstanceId,
    /// From the coming of the Accept until the log had it.
    pub taken: Duration,
    /// From then until the disk had it.
    pub disk: Duration,
}

/// The body of a `TRACE` frame, and the beginning of a `TRACED` one.
pub fn put_name(name: Name, out: &mut Vec<u8>) {
    out.put_u64_le(name.boot.0);
    out.put_u64_le(name.number);
    out.put_u8(u8::from(name.read));
}

/// Takes the name of a request of node `asker` to `group`; `None` when the bytes are none.
#[must_use]
pub fn take_name(asker: NodeId, group: GroupId, body: &mut Bytes) -> Option<Name> {
    let boot = Boot(body.try_get_u64_le().ok()?);
    let number = body.try_get_u64_le().ok()?;
    let read = match body.try_get_u8().ok()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(Name { asker, boot, group, read, number })
}

/// Adds steps.
pub fn put_steps(steps: &[Step], out: &mut Vec<u8>) {
    for step in steps {
        out.put_u32_le(step.node.0);
        out.put_u8(step.kind as u8);
        out.put_u32_le(step.peer.0);
        out.put_u64_le(nanos(step.took));
        out.put_u64_le(step.amount);
    }
}

const STEP: usize = 25;

/// The most steps of an account: the members of a group have few each.
const MAX_STEPS: usize = 1_024;

/// Takes all steps that follow; `None` when the bytes are none.
#[must_use]
pub fn take_steps(mut body: Bytes) -> Option<Vec<Step>> {
    if !body.len().is_multiple_of(STEP) || body.len() > MAX_STEPS * STEP {
        return None;
    }
    let mut steps = Vec::with_capacity(body.len() / STEP);
    while !body.is_empty() {
        steps.push(Step {
            node: NodeId(body.get_u32_le()),
            kind: StepKind::from_byte(body.get_u8())?,
            peer: NodeId(body.get_u32_le()),
            took: Duration::from_nanos(body.get_u64_le()),
            amount: body.get_u64_le(),
        });
    }
    Some(steps)
}

/// The body of a `WATCH` frame.
#[must_use]
pub fn take_instance(mut body: Bytes) -> Option<InstanceId> {
    let instance = InstanceId(body.try_get_u64_le().ok()?);
    body.is_empty().then_some(instance)
}

/// The body of a `SEEN` frame.
pub fn put_seen(seen: Seen, out: &mut Vec<u8>) {
    out.put_u64_le(seen.instance.0);
    out.put_u64_le(nanos(seen.taken));
    out.put_u64_le(nanos(seen.disk));
}

/// Takes the body of a `SEEN` frame; `None` when the bytes are none.
#[must_use]
pub fn take_seen(mut body: Bytes) -> Option<Seen> {
    let instance = InstanceId(body.try_get_u64_le().ok()?);
    let taken = Duration::from_nanos(body.try_get_u64_le().ok()?);
    let disk = Duration::from_nanos(body.try_get_u64_le().ok()?);
    body.is_empty().then_some(Seen { instance, taken, disk })
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> Name {
        Name { asker: NodeId(1), boot: Boot(7), group: GroupId(3), read: false, number }
    }

    #[test]
    fn nobody_else_has_these_kinds_of_frames() {
        // The story: they had the numbers of the mirror's, which took them, and no leader ever told anything.
        use crate::node::{mirror::is_mirror_frame, wire};
        let ours = [wire::TRACE, wire::WATCH, wire::SEEN, wire::TRACED];
        let others = [wire::HEARTBEAT, wire::SUBMIT, wire::ANSWER, wire::BIRTH, wire::ROSTER];
        for kind in ours {
            assert!(!is_mirror_frame(kind) && !others.contains(&kind), "{kind}");
            assert!(kind < groups::paxos::codec::FIRST_KIND && (wire::TRACE..=wire::TRACED).contains(&kind));
        }
    }

    #[test]
    fn what_travels_is_read_as_it_was_written_and_nothing_else_is() {
        let kinds = (0..=u8::MAX).filter_map(StepKind::from_byte);
        let steps: Vec<Step> = kinds
            .zip(1..)
            .map(|(kind, n)| Step {
                node: NodeId(n),
                kind,
                peer: NodeId(n * 2),
                took: Duration::from_nanos(u64::from(n) << 20),
                amount: u64::from(n) << 40,
            })
            .collect();
        assert_eq!(steps.len(), 12, "every kind has a byte");
        let mut body = Vec::new();
        put_name(name(5), &mut body);
        put_steps(&steps, &mut body);
        let mut whole = Bytes::from(body.clone());
        assert_eq!(take_name(NodeId(1), GroupId(3), &mut whole), Some(name(5)));
        assert_eq!(take_steps(whole.clone()), Some(steps));
        assert_eq!(take_steps(whole.slice(1..)), None, "no whole number of steps");
        let mut strange = body.split_off(17);
        strange[4] = 13;
        assert_eq!(take_steps(strange.into()), None, "a kind of another version");
        assert_eq!(take_steps(vec![0; STEP * (MAX_STEPS + 1)].into()), None);
        for length in 0..17 {
            assert_eq!(take_name(NodeId(1), GroupId(3), &mut Bytes::from(body[..length].to_vec())), None);
        }
        let seen =
            Seen { instance: InstanceId(9), taken: Duration::from_micros(3), disk: Duration::from_millis(2) };
        let mut body = Vec::new();
        put_seen(seen, &mut body);
        assert_eq!(take_seen(Bytes::from(body.clone())), Some(seen));
        assert_eq!(take_seen(Bytes::from(body.clone()).slice(1..)), None);
        assert_eq!(take_instance(Bytes::from(body.clone()).slice(..8)), Some(InstanceId(9)));
        assert_eq!(take_instance(body.into()), None);
    }

    #[test]
    fn a_member_tells_when_its_disk_has_what_it_was_asked_to_watch() {
        let at = |micros: u64| Time::from_nanos(micros * 1_000);
        let (leader, group, instance) = (NodeId(2), GroupId(3), InstanceId(9));
        let accept = |instance| {
            Message::Accept(groups::paxos::message::Accept {
                ballot: groups::ids::Ballot::default(),
                instance,
                mark: groups::paxos::message::Mark::default(),
                value: Bytes::new(),
            })
        };
        let mut traces = Traces::default();
        assert!(traces.is_idle());
        traces.watch(leader, group, instance, at(0));
        traces.handed(4, at(1));
        assert_eq!(traces.synced(4, at(2)), [], "it has not come yet");
        traces.hear(leader, group, &accept(InstanceId(8)), at(3));
        traces.hear(NodeId(3), group, &accept(instance), at(3));
        traces.handed(5, at(4));
        assert_eq!(traces.synced(5, at(5)), [], "another one came, and one of another node");
        traces.hear(leader, group, &accept(instance), at(10));
        traces.handed(6, at(13));
        traces.handed(7, at(20));
        assert_eq!(traces.synced(5, at(21)), [], "not that batch");
        let seen = Seen { instance, taken: Duration::from_micros(3), disk: Duration::from_micros(17) };
        assert_eq!(traces.synced(6, at(30)), [(leader, group, seen)]);
        assert!(traces.is_idle(), "it is told once");
    }

    #[test]
    fn what_is_remembered_is_bounded_in_number_and_time() {
        let mut traces = Traces::default();
        for number in 0..10 * MAX as u64 {
            let token = Token { connection: 1, request: number };
            traces.ask(name(number), token, Time::ZERO);
            traces.lead(name(number), Time::ZERO);
            traces.watch(NodeId(2), GroupId(3), InstanceId(number), Time::ZERO);
        }
        assert_eq!((traces.asked.len(), traces.led.len(), traces.watched.len()), (MAX, MAX, MAX));
        let unknown = Token { connection: 1, request: 10 * MAX as u64 };
        assert_eq!(traces.account(unknown, NodeId(1), true), None);
        // An answer whose members do not speak is told after a while, everything else is forgotten.
        traces.answered(name(0), NodeId(1), NodeId(1), Time::ZERO);
        assert_eq!(traces.finish(NodeId(1), Time::ZERO + WAIT / 2).len(), 0);
        let told = traces.finish(NodeId(1), Time::ZERO + WAIT);
        assert!(matches!(&told[..], [(named, steps)] if *named == name(0) && !steps.is_empty()), "{told:?}");
        traces.finish(NodeId(1), Time::ZERO + 2 * FORGET);
        assert!(traces.is_idle());
    }
}
