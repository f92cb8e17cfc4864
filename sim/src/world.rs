//! The seeded world: machines, the network between them, clients and faults, all in one queue
//! of events. A seed replays bit for bit.
//!
//! Two phases, as in "Paxos Made Live" (Chandra, Griesemer, Redstone 2007, section 5.1): while
//! faults happen, nothing may be wrong; when they have stopped, everything must be well again
//! within a bound.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use groups::ids::{CommitId, GroupId, NodeId};
use groups::paxos::{Replica, codec};
use groups::peers::Standing;
use groups::random::Random;
use groups::time::Time;
use netio::{Frame, NO_GROUP};
use server::node::birth::Word;
use server::node::layout::Layout;
use server::node::requests::{Completion, Refusal, Request};
use server::node::roster::Roster;
use server::node::watch::Pull;
use server::node::wire;

use crate::clients::{Answered, Client, Keys};
use crate::coverage::{self, Coverage};
use crate::fault::Fault;
use crate::history::{self, History};
use crate::judges::{Judges, ReadOrder, Seen, Sent, leases};
use crate::machine::{Machine, StartError, Wishes};
use crate::network::{Direction, Effect, Fate, Network};
use crate::observers::{Asked, Observers};
use crate::operator::{self, Step};
pub use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::story::{self, Story};

/// How a run ended well.
#[derive(Clone, Debug)]
pub struct Report {
    /// Hash over all events.
    pub hash: u64,
    /// Events handled.
    pub events: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// What the clients saw.
    pub history: History,
    /// What happened how often.
    pub coverage: Coverage,
}

/// How a run went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was violated.
    pub what: String,
    /// The last steps before it, if they were told aloud.
    pub story: Vec<String>,
}

enum Event {
    Tick {
        machine: usize,
        life: u64,
    },
    Deliver {
        to: usize,
        from: usize,
        epoch: u64,
        frames: Vec<Frame>,
    },
    LogDone {
        machine: usize,
        life: u64,
    },
    MirrorStep {
        machine: usize,
        life: u64,
    },
    /// The learner thread reads on.
    LearnerStep {
        machine: usize,
        life: u64,
    },
    Act {
        client: usize,
    },
    Requests {
        machine: usize,
        life: u64,
        requests: Vec<Request>,
    },
    /// The observers look again.
    Observe,
    Pulls {
        machine: usize,
        life: u64,
        pulls: Vec<Pull>,
    },
    GiveUp {
        client: usize,
        last: u64,
    },
    Restart {
        machine: usize,
    },
    FaultBegins {
        index: usize,
    },
    FaultEnds {
        index: usize,
    },
    Census,
}

impl Event {
    /// The process that it is for, if it is for one: nobody gets it after that life, and a paused one
    /// gets it later. What comes over a connection has the connection's life instead.
    fn process(&self) -> Option<(usize, u64)> {
        match self {
            Event::Tick { machine, life }
            | Event::LogDone { machine, life }
            | Event::MirrorStep { machine, life }
            | Event::LearnerStep { machine, life }
            | Event::Requests { machine, life, .. }
            | Event::Pulls { machine, life, .. } => Some((*machine, *life)),
            Event::Deliver { .. }
            | Event::Act { .. }
            | Event::Observe
            | Event::GiveUp { .. }
            | Event::Restart { .. }
            | Event::FaultBegins { .. }
            | Event::FaultEnds { .. }
            | Event::Census => None,
        }
    }
}

/// The world.
pub struct World {
    plan: Plan,
    keys: Keys,
    schedule: Schedule<Event>,
    network: Network,
    machines: Vec<Machine>,
    /// Until when each process stands still.
    paused: Vec<Time>,
    /// Until when each does not hear each other: whoever has stood still reads its sockets one after the other.
    unheard: Vec<Vec<Time>>,
    clients: Vec<Client>,
    /// Two seeds in three have them.
    observers: Option<Observers>,
    random: Random,
    judges: Judges,
    order: ReadOrder,
    /// Whether each group had a connected majority when that was last looked at.
    majorities: Vec<bool>,
    calm: bool,
    quiet: bool,
    events: u64,
    story: Story,
    coverage: Coverage,
}

/// More than any honest run has.
const MAX_EVENTS: u64 = 2_000_000;

/// How often a shard is told that time passes.
const TICK: Duration = Duration::from_millis(10);

/// How often ballots and majorities are looked at.
const CENSUS: Duration = Duration::from_millis(100);

/// A client gives up a little after the node should have.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long members may take to agree once nobody asks for anything any more.
const SETTLE: Duration = Duration::from_secs(5);

/// Placements that the history checker may try per key: some seconds, which one seed in ten
/// thousand needs.
const CHECKER_STEPS: u64 = 40_000_000;

impl World {
    /// A world of switched-off machines.
    #[must_use]
    pub fn new(plan: Plan) -> World {
        World::with(plan, false)
    }

    /// The same world, which tells its story in words.
    #[must_use]
    pub fn aloud(plan: Plan) -> World {
        World::with(plan, true)
    }

    fn with(plan: Plan, aloud: bool) -> World {
        let mut random = Random::new(plan.seed ^ plan.salt.rotate_left(40));
        let nodes: Vec<NodeId> = (1..=plan.cluster.nodes).map(NodeId).collect();
        let all = (1..=plan.cluster.nodes + plan.cluster.spares).map(NodeId);
        let machines: Vec<Machine> = all.map(|n| Machine::new(n, &plan.cluster, random.next_u64())).collect();
        let mut clients: Vec<Client> = (0..plan.clients)
            .map(|c| Client::new(c, plan.value_bytes, random.next_u64()).in_crowd(plan.crowd))
            .collect();
        let tellers = plan.clients..plan.clients + plan.tellers;
        clients.extend(tellers.map(|t| Client::teller(t, plan.cluster.groups, random.next_u64())));
        let layout = Layout::new(nodes, plan.cluster.groups, plan.cluster.replication);
        World {
            judges: Judges::new(&layout),
            keys: Keys::new(plan.keys, plan.cluster.groups),
            schedule: Schedule::default(),
            network: Network::new(machines.len(), random.next_u64()),
            paused: vec![Time::ZERO; machines.len()],
            unheard: vec![vec![Time::ZERO; machines.len()]; machines.len()],
            majorities: vec![true; plan.cluster.groups as usize],
            order: ReadOrder::default(),
            machines,
            clients,
            observers: (!plan.seed.is_multiple_of(3))
                .then(|| Observers::new(plan.cluster.groups, plan.seed ^ plan.salt.rotate_left(20))),
            random,
            calm: false,
            quiet: false,
            events: 0,
            story: Story::new(aloud),
            coverage: Coverage::default(),
            plan,
        }
    }

    /// The same world, in which nobody but the product itself looks into states.
    #[must_use]
    pub fn trusting(mut self) -> World {
        self.judges.trust_states();
        // They compare what they are told with what was chosen.
        self.observers = None;
        self
    }

    /// Runs both phases and judges.
    ///
    /// # Errors
    /// When an invariant breaks, progress does not return, or a history is not linearizable.
    pub fn run(mut self) -> Result<Report, Failure> {
        let failed = |what: String| Failure { what, story: story::told() };
        self.phases().map_err(failed)?;
        for machine in &self.machines {
            machine.counters().for_each(|c| self.coverage.count(c));
        }
        for group in (0..self.plan.cluster.groups).map(GroupId) {
            self.coverage
                .events(coverage::Event::LivesEnded, self.judges.ledger().group(group).ended_lives());
        }
        let logs = self.clients.into_iter().map(|c| c.log);
        let history = History::from_logs(logs).map_err(|e| failed(e.to_string()))?;
        let limits = history::Limits { steps_per_key: CHECKER_STEPS };
        match history::check_within(&history, &limits) {
            history::Verdict::Linearizable => {}
            history::Verdict::NotLinearizable(why) => {
                return Err(failed(format!("not linearizable:\n{why}")));
            }
            history::Verdict::Undecided(why) => return Err(failed(format!("undecided: {why}"))),
        }
        Ok(Report {
            hash: self.story.hash(),
            events: self.events,
            simulated: self.schedule.now().since(Time::ZERO),
            history,
            coverage: self.coverage,
        })
    }

    fn phases(&mut self) -> Result<(), String> {
        for index in 0..self.plan.faults.len() {
            self.schedule.after(self.plan.faults[index].at, Event::FaultBegins { index });
        }
        for machine in 0..self.machines.len() {
            self.start(machine)?;
        }
        for client in 0..self.clients.len() {
            self.schedule.after(Duration::from_millis(200), Event::Act { client });
        }
        if self.observers.is_some() {
            self.schedule.after(Duration::from_millis(300), Event::Observe);
        }
        self.schedule.after(CENSUS, Event::Census);
        let end = Time::ZERO + self.plan.turmoil;
        while self.schedule.now() < end {
            self.step()?;
        }
        self.end_faults()?;
        if self.plan.beyond_repair {
            return Ok(());
        }
        let recovery = self.plan.recovery;
        self.until_well(recovery, "not well", World::ailment)?;
        self.quiet = true;
        self.until_well(SETTLE, "not settled", World::unrest)
    }

    fn until_well(
        &mut self,
        bound: Duration,
        what: &str,
        ailment: fn(&World) -> Option<String>,
    ) -> Result<(), String> {
        let deadline = self.schedule.now() + bound;
        let mut look = self.schedule.now();
        loop {
            if self.schedule.now() >= look {
                look = self.schedule.now() + TICK;
                let Some(ailment) = ailment(self) else { return Ok(()) };
                if self.schedule.now() >= deadline {
                    return Err(format!("{what} {bound:?} after the last fault: {ailment}"));
                }
            }
            self.step()?;
        }
    }

    fn end_faults(&mut self) -> Result<(), String> {
        self.tell(|| "the faults stop".into());
        self.calm = true;
        self.network.heal();
        let now = self.schedule.now();
        for machine in &mut self.machines {
            machine.set_clock(1_000_000, now);
            machine.log_disk().set_capacity(None);
            machine.log_disk().set_sync_micros(0);
            machine.log_disk().set_slow_syncs(0);
        }
        for machine in 0..self.machines.len() {
            if !self.machines[machine].is_up() {
                self.start(machine)?;
            }
        }
        self.clients.iter_mut().for_each(|c| c.content = 0);
        Ok(())
    }

    /// What is still missing: every client has been answered a few times, and every group has
    /// its best placed living member for a leader that all living members follow. Whoever lags, or did so
    /// until lately, is left out: it hands over what it leads.
    fn ailment(&self) -> Option<String> {
        if let Some(client) = self.clients.iter().position(|c| c.content < 3) {
            return Some(format!("client {client} is not answered"));
        }
        let Some((_, roster)) = self.newest_roster() else { return Some("nobody runs".to_owned()) };
        let roster = Arc::clone(roster);
        for machine in self.machines.iter().filter(|m| m.is_born() && roster.node(m.node).is_some()) {
            let theirs = machine.roster().map(|r| r.version());
            if theirs != Some(roster.version()) {
                return Some(format!("node {} has version {theirs:?} of the roster", machine.node));
            }
        }
        for group in (0..self.plan.cluster.groups).map(GroupId) {
            let members = roster.preference(group);
            let listed = |m: &&Machine| !m.gone && roster.node(m.node).is_some();
            let outside = self.machines.iter().filter(listed).filter(|m| !members.contains(&m.node));
            for machine in outside {
                if machine.seat(group).is_some_and(|g| !g.replica.has_parted()) {
                    return Some(format!("node {} still has a seat in group {group}", machine.node));
                }
            }
            let living: Vec<NodeId> = members.into_iter().filter(|n| !self.machine(*n).gone).collect();
            // Where all of them lag, nobody would do better than whoever leads (seed 5019244).
            let led_by = |node: &NodeId| self.machine(*node).seat(group)?.replica.leader();
            let fit = living.iter().find(|n| !self.machine(**n).is_slow(group)).copied();
            let fit = fit.or_else(|| living.iter().find_map(led_by).filter(|leader| living.contains(leader)));
            if fit.is_none() && !living.is_empty() {
                return Some(format!("nobody leads group {group}, and all of its members lag"));
            }
            for node in &living {
                let Some(seat) = self.machine(*node).seat(group) else {
                    return Some(format!("node {node} has no seat in group {group}"));
                };
                if !seat.replica.is_voter() {
                    return Some(format!("the disk of node {node} is no member of group {group}"));
                }
                if seat.replica.leader() != fit {
                    return Some(format!(
                        "node {node} ({}) takes {:?} for the leader of group {group}, not {:?}",
                        seat.replica.role_name(),
                        seat.replica.leader(),
                        fit
                    ));
                }
            }
        }
        None
    }

    /// What still moves when nobody asks for anything: calls under way, members behind.
    fn unrest(&self) -> Option<String> {
        if let Some(client) = self.clients.iter().position(|c| !c.is_idle()) {
            return Some(format!("client {client} still waits"));
        }
        let Some((_, roster)) = self.newest_roster() else { return Some("nobody runs".to_owned()) };
        for group in (0..self.plan.cluster.groups).map(GroupId) {
            let seats = || {
                let all = self.machines.iter().filter(|m| roster.node(m.node).is_some());
                let seats = all.flat_map(Machine::groups);
                seats.filter(move |g| g.replica.group() == group && !g.replica.has_parted())
            };
            let most = seats().map(|g| g.replica.mark().instance).max();
            if let Some(stateless) = seats().find(|g| g.is_rebuilding()) {
                return Some(format!(
                    "a member of group {group} has its state up to instance {} only, of {most:?}",
                    stateless.state().applied()
                ));
            }
            if let Some(behind) = seats().find(|g| Some(g.replica.mark().instance) != most) {
                return Some(format!(
                    "a member of group {group} is at instance {}, another at {most:?}",
                    behind.replica.mark().instance
                ));
            }
        }
        None
    }

    fn machine(&self, node: NodeId) -> &Machine {
        &self.machines[node.0 as usize - 1]
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        self.story.tell(self.schedule.now(), line);
    }

    fn step(&mut self) -> Result<(), String> {
        let Some(event) = self.schedule.next_event() else {
            return Err("the world stands still".into());
        };
        let now = self.schedule.now();
        self.events += 1;
        if self.events > MAX_EVENTS {
            return Err("a storm: far more events than so much simulated time explains".into());
        }
        self.story.mix(now.nanos());
        if let Some((machine, life)) = event.process() {
            if !self.is_life(machine, life) {
                return Ok(());
            }
            if let Some(later) = self.pause_of(machine) {
                // What came meanwhile may be read before the timer, so that a leader whose time is over answers first.
                let behind = match event {
                    Event::Tick { .. } => Duration::from_micros(self.random.below(5_000)),
                    _ => Duration::ZERO,
                };
                self.schedule.at(later + behind, event);
                return Ok(());
            }
        }
        match event {
            Event::Tick { machine, life } => {
                let wishes = self.machines[machine].tick(now);
                self.schedule.after(TICK, Event::Tick { machine, life });
                self.fulfil(machine, wishes)?;
            }
            Event::Deliver { to, from, epoch, frames } => {
                if !self.machines[to].is_up() || self.network.epoch((from, to)) != epoch {
                    return Ok(());
                }
                if let Some(later) = self.pause_of(to).max(self.silence_of(to, from)) {
                    self.schedule.at(later, Event::Deliver { to, from, epoch, frames });
                    return Ok(());
                }
                self.story.mix((from * 64 + to) as u64);
                for frame in &frames {
                    self.story.mix_bytes(&frame.body);
                }
                if self.story.is_aloud() {
                    for line in frames.iter().filter_map(describe) {
                        self.tell(|| format!("{} -> {}: {line}", from + 1, to + 1));
                    }
                }
                let node = self.machines[from].node;
                let wishes = self.machines[to].deliver(node, frames, now);
                self.fulfil(to, wishes)?;
            }
            Event::LogDone { machine, .. } => {
                self.story.mix(machine as u64);
                let wishes = self.machines[machine].log_done(now);
                if wishes.died.is_none() && !wishes.log_waits {
                    self.tell(|| format!("node {} synced {} records", machine + 1, wishes.durable.len()));
                }
                self.fulfil(machine, wishes)?;
            }
            Event::MirrorStep { machine, .. } => {
                let wishes = self.machines[machine].mirror_step(now);
                self.fulfil(machine, wishes)?;
            }
            Event::LearnerStep { machine, .. } => {
                let wishes = self.machines[machine].learner_step(now);
                self.fulfil(machine, wishes)?;
            }
            Event::Restart { machine } => {
                if !self.machines[machine].is_up() {
                    self.start(machine)?;
                }
            }
            Event::Act { client } => self.act(client),
            Event::Requests { machine, requests, .. } => {
                if let Some(wishes) = self.machines[machine].request(requests, now) {
                    self.fulfil(machine, wishes)?;
                }
            }
            Event::Observe => self.observe(),
            Event::Pulls { machine, pulls, .. } => {
                if let Some(wishes) = self.machines[machine].pull(pulls, now) {
                    self.fulfil(machine, wishes)?;
                }
            }
            Event::GiveUp { client, last } => {
                let ended = self.clients[client].give_up(last, now);
                self.coverage.events(coverage::Event::Unanswered, ended.len() as u64);
                self.answered(client, &ended);
            }
            Event::FaultBegins { index } => self.begin(index)?,
            Event::FaultEnds { index } => self.end(index)?,
            Event::Census => {
                self.census()?;
                self.schedule.after(CENSUS, Event::Census);
            }
        }
        Ok(())
    }

    fn is_life(&self, machine: usize, life: u64) -> bool {
        self.machines[machine].life == life && self.machines[machine].is_up()
    }

    /// When a process that stands still goes on; what comes to it waits as long.
    fn pause_of(&mut self, machine: usize) -> Option<Time> {
        let later = self.paused[machine];
        if later <= self.schedule.now() {
            return None;
        }
        self.coverage.event(coverage::Event::LateEvents);
        Some(later)
    }

    /// When a machine that has just stood still gets to what `from` has sent it meanwhile.
    fn silence_of(&self, to: usize, from: usize) -> Option<Time> {
        let later = self.unheard[to][from];
        (later > self.schedule.now()).then_some(later)
    }

    fn start(&mut self, machine: usize) -> Result<(), String> {
        let now = self.schedule.now();
        self.tell(|| format!("node {} starts", machine + 1));
        self.coverage.event(coverage::Event::Start);
        self.paused[machine] = Time::ZERO;
        self.unheard[machine].fill(Time::ZERO);
        let node = self.machines[machine].node;
        match self.machines[machine].start(now) {
            Ok(wishes) => {
                if self.machines[machine].damaged {
                    return Err(format!("node {node} starts on a damaged log"));
                }
                let life = self.machines[machine].life;
                self.schedule.after(Duration::from_millis(1), Event::Tick { machine, life });
                self.fulfil(machine, wishes)
            }
            Err(StartError::Stopped) => {
                self.stop(machine, Some(0));
                self.schedule.after(Duration::from_millis(50), Event::Restart { machine });
                Ok(())
            }
            Err(StartError::NoSpace) => {
                self.tell(|| format!("node {node} finds no space for its log"));
                self.stop(machine, None);
                self.schedule.after(Duration::from_millis(300), Event::Restart { machine });
                Ok(())
            }
            Err(StartError::Damaged(why)) if self.machines[machine].damaged => {
                self.tell(|| format!("node {node} refuses to start: {why}"));
                self.stop(machine, None);
                self.coverage.event(coverage::Event::DamageRefused);
                self.machines[machine].gone = true;
                self.judges.gone(node, self.machines[machine].storage);
                Ok(())
            }
            Err(StartError::Damaged(why) | StartError::Other(why)) => {
                Err(format!("node {node} does not start: {why}"))
            }
        }
    }

    /// Does what a machine wants done, in the order in which it would have done it itself.
    fn fulfil(&mut self, machine: usize, wishes: Wishes) -> Result<(), String> {
        let Wishes { durable, parcels, completions, log_begins, log_waits, came_to_life, died, .. } = wishes;
        let Wishes { mirror_wakes, learner_wakes, settled, alarms, renewed, verdict, pulled, .. } = wishes;
        let (node, life) = (self.machines[machine].node, self.machines[machine].life);
        let (storage, untrusted) = (self.machines[machine].storage, self.machines[machine].untrusted);
        if let Some((old, why)) = renewed {
            self.tell(|| format!("node {node} goes on as another disk: {why}"));
            self.coverage.event(coverage::Event::Renewed);
            self.judges.gone(node, old);
        }
        if came_to_life {
            let founders = self.machines[machine].founders.clone();
            self.judges.runs_on(node, storage, &founders);
        }
        // What an old copy has forgotten it has forgotten; only that it says nothing is judged.
        if came_to_life && !untrusted {
            for group in self.machines[machine].groups() {
                self.judges.started(&Seen { node, life, storage, group })?;
                if group.is_rebuilding() {
                    self.coverage.event(coverage::Event::Stateless);
                }
            }
        }
        if came_to_life
            && let Some(found) = self.machines[machine].take_recovered()
            && let Some(torn) = found.torn
        {
            self.coverage.event(coverage::Event::TornTail);
            self.tell(|| format!("node {node} cuts a torn tail of {} bytes", torn.bytes));
        }
        for (group, point) in settled {
            self.judges.settled(node, group, point)?;
            self.coverage.event(coverage::Event::Settled);
        }
        for alarm in alarms {
            self.tell(|| format!("node {node}: {alarm}"));
        }
        for record in &durable {
            self.judges.durable(node, record)?;
        }
        for parcel in parcels {
            for frame in &parcel.frames {
                if frame.kind == wire::BIRTH
                    && let Some(word) = Word::decode(frame.body.clone())
                {
                    self.judges.birth(node, &word)?;
                }
                if frame.kind == wire::SUBMIT || frame.kind == wire::ANSWER {
                    self.judges.forwarded(node, parcel.to, frame)?;
                }
                if frame.group == NO_GROUP || !(codec::FIRST_KIND..=codec::LAST_KIND).contains(&frame.kind) {
                    continue;
                }
                let message = codec::decode(frame.kind, frame.body.clone())
                    .map_err(|e| format!("node {node} sends what nobody can read: {e}"))?;
                let sent =
                    Sent { from: node, life, storage, to: parcel.to, group: frame.group, message: &message };
                self.judges.sent(&sent, &mut self.coverage)?;
            }
            let to = parcel.to.0 as usize - 1;
            let epoch = self.network.epoch((machine, to));
            match self.network.carry((machine, to), self.schedule.now()) {
                Fate::Lost => {}
                Fate::Once(delay) => {
                    let event = Event::Deliver { to, from: machine, epoch, frames: parcel.frames };
                    self.schedule.after(delay, event);
                }
                Fate::Twice(first, second) => {
                    let copy = Event::Deliver { to, from: machine, epoch, frames: parcel.frames.clone() };
                    self.schedule.after(first, copy);
                    let event = Event::Deliver { to, from: machine, epoch, frames: parcel.frames };
                    self.schedule.after(second, event);
                }
            }
        }
        if log_begins {
            let micros =
                200 + self.random.below(1_000) + self.machines[machine].log_disk().next_sync_micros();
            self.schedule.after(Duration::from_micros(micros), Event::LogDone { machine, life });
        }
        if mirror_wakes {
            // A disk that is busy elsewhere, now and then.
            let most = if self.random.below(8) == 0 { 200_000 } else { 5_000 };
            let micros = 100 + self.random.below(most);
            self.schedule.after(Duration::from_micros(micros), Event::MirrorStep { machine, life });
        }
        if learner_wakes {
            let most = if self.random.below(8) == 0 { 50_000 } else { 1_000 };
            let micros = 20 + self.random.below(most);
            self.schedule.after(Duration::from_micros(micros), Event::LearnerStep { machine, life });
        }
        if log_waits {
            self.coverage.event(coverage::Event::SpaceAwaited);
            self.schedule.after(Duration::from_millis(100), Event::LogDone { machine, life });
        }
        for completion in completions {
            self.complete(machine, life, completion)?;
        }
        for pulled in pulled {
            if let Some(observers) = &mut self.observers
                && let Some(told) = observers.pulled((machine, life), pulled, self.judges.ledger())?
            {
                self.coverage.event(coverage::Event::Watched);
                self.tell(|| format!("the watcher on node {node} gets {told}"));
            }
        }
        if let Some(why) = died {
            self.tell(|| format!("node {node} ends: {why}"));
            self.coverage.event(coverage::Event::Death);
            let power = self.random.below(2) == 0;
            self.stop(machine, power.then_some(0));
            // Whoever watches the node starts it again.
            let down = Duration::from_millis(100 + self.random.below(500));
            self.schedule.after(down, Event::Restart { machine });
            return Ok(());
        }
        if let Some(verdict) = verdict {
            return self.obey(machine, verdict);
        }
        // Whoever has parted has forgotten what it knew, and must say nothing that counts.
        for group in self.machines[machine].groups().filter(|g| !untrusted && !g.replica.has_parted()) {
            self.judges.stepped(&Seen { node, life, storage, group })?;
        }
        self.judge_leases()?;
        Ok(())
    }

    /// Whoever is counted on is bound.
    fn judge_leases(&self) -> Result<(), String> {
        if !self.plan.cluster.leases {
            return Ok(());
        }
        let now = self.schedule.now();
        for holder in self.machines.iter().flat_map(|machine| machine.holders(now)) {
            leases::judge(&holder, |node| {
                let machine = &self.machines[node.0 as usize - 1];
                let mut groups = machine.groups().map(|group| &group.replica);
                groups.find(|replica| replica.group() == holder.group).map(Replica::promised)
            })?;
        }
        Ok(())
    }

    /// What peers have said against a machine's disk ends its life.
    fn obey(&mut self, machine: usize, verdict: Standing) -> Result<(), String> {
        let node = self.machines[machine].node;
        self.tell(|| format!("node {node} hears what is against its disk: {verdict:?}"));
        self.stop(machine, None);
        let old = match verdict {
            Standing::Lapsed { .. } if !self.machines[machine].untrusted => {
                return Err(format!("node {node} is said to have forgotten what it has not: {verdict:?}"));
            }
            Standing::Lapsed { .. } => {
                self.coverage.event(coverage::Event::Lapsed);
                match self.machines[machine].begin_anew() {
                    Ok(old) => old,
                    // An armed fault: the next life hears the same.
                    Err(_) => self.machines[machine].storage,
                }
            }
            // An operator would do so.
            _ => {
                let old = self.machines[machine].storage;
                self.machines[machine].exchange_disks();
                old
            }
        };
        self.judges.gone(node, old);
        self.schedule.after(Duration::from_millis(20), Event::Restart { machine });
        Ok(())
    }

    /// The end of a process: `power` as in [`Machine::stop`].
    fn stop(&mut self, machine: usize, power: Option<u64>) {
        let now = self.schedule.now();
        self.tell(|| match power {
            Some(_) => format!("node {} loses power", machine + 1),
            None => format!("node {} is dead", machine + 1),
        });
        let Machine { node, life, .. } = self.machines[machine];
        self.machines[machine].counters().for_each(|c| self.coverage.count(c));
        self.coverage.events(coverage::Event::Rotation, self.machines[machine].rotations());
        self.coverage.events(coverage::Event::Dropped, self.machines[machine].dropped());
        self.coverage.events(coverage::Event::SealedRead, self.machines[machine].sealed_values());
        self.coverage.events(coverage::Event::Pinned, self.machines[machine].pinned());
        let healed = self.machines[machine].take_healed();
        self.coverage.events(coverage::Event::Healed, healed);
        self.judges.ended(node, life);
        self.machines[machine].stop(power);
        for client in 0..self.clients.len() {
            if self.clients[client].at == Some((machine, life)) {
                let ended = self.clients[client].hang_up(now);
                self.coverage.events(coverage::Event::Unanswered, ended.len() as u64);
                self.answered(client, &ended);
            }
        }
    }

    fn stop_for(&mut self, machine: usize, power: Option<u64>, down: Duration) {
        if self.machines[machine].is_up() {
            self.stop(machine, power);
            self.schedule.after(down, Event::Restart { machine });
        }
    }

    /// Directions between a side and the rest.
    fn between(&self, side: u32, both: bool) -> Vec<Direction> {
        let within = |n: usize| side >> n & 1 == 1;
        let machines = 0..self.machines.len();
        machines
            .clone()
            .flat_map(|a| machines.clone().map(move |b| (a, b)))
            .filter(|(a, b)| (within(*a) && !within(*b)) || (both && within(*b) && !within(*a)))
            .collect()
    }

    fn begin(&mut self, index: usize) -> Result<(), String> {
        let (number, fault) = (self.plan.faults[index].number, self.plan.faults[index].fault.clone());
        // A disk that is lost before everybody is born takes the whole birth with it.
        let born = self.founders().all(Machine::is_born);
        if self.calm || (fault.ends().is_some() && !born && !self.plan.beyond_repair) {
            return Ok(());
        }
        let now = self.schedule.now();
        self.tell(|| format!("fault {number}: {fault}"));
        self.story.mix(number as u64);
        self.coverage.fault(fault.kind());
        if let Some(length) = fault.length() {
            self.schedule.after(length, Event::FaultEnds { index });
        }
        match fault {
            Fault::Kill { node, down } => self.stop_for(node, None, down),
            Fault::PowerLoss { node, operations, down } => self.stop_for(node, Some(operations), down),
            Fault::Blackout { operations, down } => {
                for node in 0..self.machines.len() {
                    self.stop_for(node, Some(operations), down);
                }
            }
            Fault::Midway { node, operations } => {
                let disk = self.machines[node].log_disk();
                disk.stop_after(disk.operations() + operations);
            }
            Fault::MidwayStart { node, operations, log } => {
                self.stop_for(node, None, Duration::from_millis(20));
                self.machines[node].arm_start(operations, log);
            }
            Fault::Pause { node, length } => {
                self.paused[node] = self.paused[node].max(now + length);
                for heard in &mut self.unheard[node] {
                    let behind = Duration::from_micros(self.random.below(2) * self.random.below(30_000));
                    *heard = (*heard).max(self.paused[node] + behind);
                }
            }
            Fault::Drift { node, millionths, .. } => self.machines[node].set_clock(millionths, now),
            Fault::Cut { side, both, .. } => {
                let directions = self.between(side, both);
                self.network.begin(index, Effect::Cut(directions), now);
            }
            Fault::PartialCut { a, b, .. } => {
                self.network.begin(index, Effect::Cut(vec![(a, b), (b, a)]), now);
            }
            Fault::Mute { node, hears, .. } => {
                let others = (0..self.machines.len()).filter(|n| *n != node);
                let directions = others.map(|n| if hears { (node, n) } else { (n, node) }).collect();
                self.network.begin(index, Effect::Cut(directions), now);
            }
            Fault::Flap { side, period, .. } => {
                let directions = self.between(side, true);
                self.network.begin(index, Effect::Flap(directions, period), now);
            }
            Fault::Loss { share, .. } => self.network.begin(index, Effect::Loss(share), now),
            Fault::Eclipse { node, millionths, .. } => {
                self.machines[node].set_clock(millionths, now);
                let directions = self.between(1 << node, true);
                self.network.begin(index, Effect::Cut(directions), now);
            }
            Fault::Duplication { share, by, .. } => {
                self.network.begin(index, Effect::Duplication(share, by), now);
            }
            Fault::Reorder { share, by, .. } => self.network.begin(index, Effect::Reorder(share, by), now),
            Fault::SlowLink { from, to, by, .. } => {
                self.network.begin(index, Effect::Slow((from, to), by), now);
            }
            Fault::Disconnect { a, b } => self.network.disconnect(a, b),
            Fault::SlowDisk { node, micros, share, .. } => {
                self.machines[node].log_disk().set_sync_micros(micros);
                self.machines[node].log_disk().set_slow_syncs(share);
            }
            Fault::WriteError { node, after } => self.machines[node].log_disk().fail_write(after),
            Fault::SyncError { node, after } => self.machines[node].log_disk().fail_sync(after),
            Fault::NoSpace { node, spare, .. } => {
                let disk = self.machines[node].log_disk();
                let used: usize = disk.image().files().values().map(Vec::len).sum();
                disk.set_capacity(Some(used as u64 + spare));
            }
            Fault::Damage { node, rot, place } => {
                if self.machines[node].is_up() {
                    self.stop(node, None);
                }
                self.machines[node].damage(rot, place);
                self.start(node)?;
            }
            Fault::SealedRot { node, place } => {
                if self.machines[node].rot_sealed(place) {
                    self.coverage.event(coverage::Event::Rotted);
                }
            }
            Fault::MirrorMidway { node, operations } => {
                let engine = self.machines[node].engine();
                engine.stop_after(engine.operations() + operations);
            }
            Fault::MirrorRot { node, place, bit } => {
                if self.machines[node].engine().flip(place, bit).is_some() {
                    self.judges.mirror_damaged(self.machines[node].node);
                }
            }
            Fault::MirrorLost { node } => {
                if self.machines[node].is_up() {
                    self.stop(node, None);
                }
                self.machines[node].lose_mirror();
                self.judges.mirror_damaged(self.machines[node].node);
                self.start(node)?;
            }
            Fault::MirrorFull { node, after } => {
                self.machines[node].engine().fail_write(after, std::io::ErrorKind::StorageFull);
            }
            Fault::MirrorError { node, after, sync } => {
                let engine = self.machines[node].engine();
                if sync {
                    engine.fail_sync(after, std::io::ErrorKind::Other);
                } else {
                    engine.fail_write(after, std::io::ErrorKind::Other);
                }
            }
            Fault::OldCopy { node, .. } => {
                if self.machines[node].is_up() {
                    self.stop(node, None);
                }
                self.machines[node].take_copy();
                self.start(node)?;
            }
            Fault::Roster(step) => self.operate(&step, number as u64),
            Fault::EmptyDisk { node } => {
                if self.machines[node].is_up() {
                    self.stop(node, None);
                }
                let old = self.machines[node].storage;
                self.machines[node].exchange_disks();
                if born {
                    // Too few members are left to take it in.
                    self.machines[node].gone = self.plan.cluster.replication < 3;
                    self.judges.gone(self.machines[node].node, old);
                    self.coverage.event(coverage::Event::Stranger);
                } else {
                    self.coverage.event(coverage::Event::LostBeforeBirth);
                }
                self.start(node)?;
            }
        }
        Ok(())
    }

    /// The machines that the cluster is born with.
    fn founders(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().take(self.plan.cluster.nodes as usize)
    }

    /// The newest roster that a running node works by, and which node.
    fn newest_roster(&self) -> Option<(usize, &Arc<Roster>)> {
        let known = self.machines.iter().enumerate().filter_map(|(at, m)| Some((at, m.roster()?)));
        known.max_by_key(|(at, roster)| (roster.version(), Reverse(*at)))
    }

    fn operate(&mut self, step: &Step, number: u64) {
        let Some((machine, roster)) = self.newest_roster() else { return };
        let seats = || self.machines.iter().flat_map(Machine::groups);
        let empty = |node: NodeId| !seats().any(|g| g.replica.members().contains(node));
        let replication = self.plan.cluster.replication;
        let Some(request) = operator::request(step, roster, replication, number, empty) else { return };
        self.coverage.event(coverage::Event::Rosters);
        let life = self.machines[machine].life;
        let delay = Duration::from_micros(50 + self.random.below(400));
        self.schedule.after(delay, Event::Requests { machine, life, requests: vec![request] });
    }

    fn end(&mut self, index: usize) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        let now = self.schedule.now();
        let (number, fault) = (self.plan.faults[index].number, self.plan.faults[index].fault.clone());
        self.tell(|| format!("fault {number} is over"));
        match fault {
            Fault::Drift { node, .. } => self.machines[node].set_clock(1_000_000, now),
            Fault::Eclipse { node, .. } => {
                self.machines[node].set_clock(1_000_000, now);
                self.network.end(index);
            }
            Fault::SlowDisk { node, .. } => {
                self.machines[node].log_disk().set_sync_micros(0);
                self.machines[node].log_disk().set_slow_syncs(0);
            }
            Fault::NoSpace { node, .. } => self.machines[node].log_disk().set_capacity(None),
            Fault::OldCopy { node, .. } => return self.put_copy_back(node),
            _ => self.network.end(index),
        }
        Ok(())
    }

    /// Puts the copy of a machine's log back, if that can be told at all: its peers must have written
    /// down that it once knew more, and too few may have lost what they wrote for them to be enough
    /// to vouch for it.
    fn put_copy_back(&mut self, machine: usize) -> Result<(), String> {
        let (node, storage) = (self.machines[machine].node, self.machines[machine].storage);
        let Some(commit) = self.machines[machine].copied() else { return Ok(()) };
        let others = || self.machines.iter().filter(|m| m.node != node);
        let forgetful = others().filter(|m| m.forgetful).count();
        // A log that is opened may end with one more commit, which is empty.
        let opened = CommitId(commit.0 + 1);
        let known = others().filter(|m| !m.forgetful).all(|m| m.remembers(node, storage) > opened);
        if !known || forgetful + 1 > self.plan.cluster.nodes as usize / 2 {
            return Ok(());
        }
        if self.machines[machine].is_up() {
            self.stop(machine, None);
        }
        self.tell(|| format!("the copy of node {node}'s log, up to commit {commit}, is put back"));
        self.machines[machine].put_copy_back();
        // Lives of the copy have the numbers of lives that were: what was said to those is not heard by
        // these, because a connection ends with its process.
        for other in 0..self.machines.len() {
            self.network.disconnect(machine, other);
        }
        self.judges.gone(node, storage);
        self.start(machine)
    }

    /// Looks which groups have a majority of members that all reach each other, and how far the
    /// ballots have gone.
    fn census(&mut self) -> Result<(), String> {
        let now = self.schedule.now();
        let millis = now.nanos() / 1_000_000;
        for group in (0..self.plan.cluster.groups).map(GroupId) {
            let members = self.judges.ledger().group(group).members().clone();
            let usable = |n: &NodeId| {
                let index = n.0 as usize - 1;
                let machine = &self.machines[index];
                !machine.shards().is_empty() && members.counts(*n, machine.storage)
            };
            let reaches = |a: &NodeId, b: &NodeId| {
                let (a, b) = (a.0 as usize - 1, b.0 as usize - 1);
                a == b || !(self.network.is_cut((a, b)) || self.network.is_cut((b, a)))
            };
            // Some member exchanges words with a majority: that is what a candidate needs.
            let connected = members.nodes().iter().filter(|a| usable(a)).any(|a| {
                members.nodes().iter().filter(|b| usable(b) && reaches(a, b)).count() >= members.majority()
            });
            let index = group.0 as usize;
            if self.majorities[index] != connected {
                self.majorities[index] = connected;
                self.coverage.event(if connected {
                    coverage::Event::MajorityBack
                } else {
                    coverage::Event::NoMajority
                });
            }
            self.judges.majority(group, connected, millis)?;
            if !connected {
                let seats = self.machines.iter().flat_map(Machine::groups);
                let round = seats
                    .filter(|g| g.replica.group() == group)
                    .map(|g| g.replica.promised().round)
                    .chain(self.judges.ledger().group(group).shadows().map(|(_, disk)| disk.promised.round))
                    .max();
                self.judges.round(group, round.unwrap_or(0), millis)?;
            }
        }
        Ok(())
    }

    /// The machines that clients are told of: those that run and that the cluster knows.
    fn taking_clients(&self) -> Vec<(usize, u64)> {
        let Some((_, roster)) = self.newest_roster() else { return Vec::new() };
        let known = |m: &Machine| !m.shards().is_empty() && roster.node(m.node).is_some();
        let all = self.machines.iter().enumerate();
        all.filter(|(_, m)| known(m)).map(|(index, m)| (index, m.life)).collect()
    }

    fn act(&mut self, client: usize) {
        if self.quiet || !self.clients[client].is_idle() {
            return;
        }
        let up = self.taking_clients();
        let now = self.schedule.now();
        let c = &mut self.clients[client];
        let connected = c.connect(&up);
        let Some((machine, life)) = c.at.filter(|_| connected) else {
            return self.schedule.after(Duration::from_millis(50), Event::Act { client });
        };
        let requests = c.pipeline(&self.keys, now, &mut self.order, &mut self.coverage);
        let last = c.calls();
        let delay = Duration::from_micros(50 + self.random.below(400));
        self.schedule.after(delay, Event::Requests { machine, life, requests });
        self.schedule.after(PATIENCE, Event::GiveUp { client, last });
    }

    fn observe(&mut self) {
        let up = self.taking_clients();
        let Some(observers) = &mut self.observers else { return };
        if self.quiet {
            return;
        }
        for Asked { at: (machine, life), requests, pulls } in observers.act(&up, self.judges.ledger()) {
            let delay = Duration::from_micros(50 + self.random.below(400));
            if !requests.is_empty() {
                self.schedule.after(delay, Event::Requests { machine, life, requests });
            }
            if !pulls.is_empty() {
                self.schedule.after(delay, Event::Pulls { machine, life, pulls });
            }
        }
        let pause = observers.pause();
        self.schedule.after(pause, Event::Observe);
    }

    fn complete(&mut self, machine: usize, life: u64, completion: Completion) -> Result<(), String> {
        if completion.token.connection == operator::CONNECTION {
            return Ok(());
        }
        if let Some(observers) = &mut self.observers {
            if Observers::own(completion.token.connection) {
                if let Some(told) = observers.complete(completion, self.judges.ledger())? {
                    self.coverage.event(coverage::Event::Scanned);
                    self.tell(|| format!("an observer gets a {told}"));
                }
                return Ok(());
            }
            if let Ok(outcome) = &completion.result {
                observers.known(completion.group, outcome);
            }
        }
        let client = Client::of(completion.token.connection);
        let now = self.schedule.now();
        let c = &mut self.clients[client];
        if c.at != Some((machine, life)) {
            return Ok(());
        }
        let refused = matches!(&completion.result, Err(refusal) if *refusal != Refusal::InDoubt);
        if let Some(ended) = c.complete(completion, now, &mut self.order, &mut self.coverage)? {
            if let Some((group, command)) = ended.only.as_ref().filter(|_| refused) {
                self.judges.refused(*group, command)?;
            }
            self.answered(client, &[ended]);
        }
        Ok(())
    }

    fn answered(&mut self, client: usize, ended: &[Answered]) {
        let Some(last) = ended.last() else { return };
        for one in ended {
            self.story.mix(client as u64 ^ one.number << 8);
            self.tell(|| format!("client {client} call {}: {}", one.number, one.what));
        }
        if self.clients[client].is_idle() {
            let pause = self.clients[client].pause(last.refused);
            self.schedule.after(pause, Event::Act { client });
        }
    }
}

/// One line for a frame; `None` for heartbeats, of which there are too many.
fn describe(frame: &Frame) -> Option<String> {
    use groups::paxos::Message as M;
    let group = frame.group;
    let text = match frame.kind {
        wire::HEARTBEAT => return None,
        wire::BIRTH => match Word::decode(frame.body.clone()) {
            Some(word) => {
                format!("a word of birth: {:?}, disk {}, heard life {}", word.stage, word.storage, word.heard)
            }
            None => "an unreadable word of birth".into(),
        },
        wire::ROSTER => "the roster".into(),
        wire::SUBMIT => format!("group {group} submissions, {} bytes", frame.body.len()),
        wire::ANSWER => format!("group {group} answers, {} bytes", frame.body.len()),
        kind => match codec::decode(kind, frame.body.clone()) {
            Err(e) => format!("unreadable: {e}"),
            Ok(message) => {
                let name = message.name();
                let rest = match &message {
                    M::Ask(m) => format!("at {}", m.sent.nanos()),
                    M::Probe(m) => format!("chosen {}", m.chosen),
                    M::ProbeReply(m) => format!("granted {}, promised {}", m.granted, m.promised),
                    M::Prepare(m) => format!("{} from {}, consent {}", m.ballot, m.from, m.consent),
                    M::Promise(m) => format!(
                        "{} chosen {}, part {} of {}, reports {:?}",
                        m.ballot,
                        m.chosen,
                        m.part + 1,
                        m.parts,
                        m.entries.iter().map(|e| (e.instance.0, e.ballot)).collect::<Vec<_>>()
                    ),
                    M::Accept(m) => format!(
                        "{} instance {}, {} bytes, chosen {}",
                        m.ballot,
                        m.instance,
                        m.value.len(),
                        m.mark.instance
                    ),
                    M::Accepted(m) => {
                        format!("{} instances {}..={}, chosen {}", m.ballot, m.first, m.last, m.chosen)
                    }
                    M::Reject(m) => format!("{} for {}", m.refused, m.promised),
                    M::Advance(m) => {
                        format!("{} chosen {}, barrier {}", m.ballot, m.mark.instance, m.barrier)
                    }
                    M::AdvanceReply(m) => format!("{} chosen {}, barrier {}", m.ballot, m.chosen, m.barrier),
                    M::Learn(m) => format!("session {} from {}, credit {}", m.session, m.from, m.credit),
                    M::Values(m) => format!(
                        "session {}, {} values, first {}, then {:?}",
                        m.session,
                        m.entries.len(),
                        m.first,
                        m.then
                    ),
                    M::Transfer(m) => format!("{}", m.ballot),
                    M::Part(m) => {
                        format!(
                            "ballot {}, chosen {}, members {:?}",
                            m.ballot,
                            m.mark.instance,
                            m.members.nodes()
                        )
                    }
                    M::Report(m) => format!("instance {}, state {}", m.point.instance, m.point.sum),
                };
                format!("group {group} {name} {rest}")
            }
        },
    };
    Some(text)
}
