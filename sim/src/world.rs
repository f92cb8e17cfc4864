//! The seeded world: machines, the network between them, clients, and faults, all in one queue
//! of events. A seed replays bit for bit.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use groups::ids::{GroupId, InstanceId, NodeId};
use groups::kv;
use groups::random::Random;
use groups::time::Time;
use server::node::layout::Layout;
use server::node::requests::{Completion, Refusal, Request, Token};

use crate::history::{Action, Call, ClientLog, History, Outcome};
use crate::machine::{Cluster, Machine, Wishes};

/// What a run is.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything random follows from it.
    pub seed: u64,
    /// The cluster.
    pub cluster: Cluster,
    /// Clients; each has one operation under way.
    pub clients: u64,
    /// Keys that they fight over.
    pub keys: u64,
    /// How long faults happen.
    pub turmoil: Duration,
    /// In how long after them everything must be well again.
    pub recovery: Duration,
}

impl Plan {
    /// A plan whose shape follows from the seed too.
    #[must_use]
    pub fn from_seed(seed: u64) -> Plan {
        let mut random = Random::new(seed ^ 0x5EED);
        let nodes = [1, 3, 3, 3, 5][random.below(5) as usize];
        let replication = if nodes == 5 && random.below(2) == 0 { 3 } else { nodes as usize };
        Plan {
            seed,
            cluster: Cluster {
                nodes,
                groups: 1 + random.below(4) as u32,
                replication,
                shards: 1 + random.below(2) as u32,
            },
            clients: 1 + random.below(6),
            keys: 1 + random.below(6),
            turmoil: Duration::from_millis(2_000 + random.below(6_000)),
            recovery: Duration::from_secs(15),
        }
    }
}

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
    /// Protocol counters, summed over all lives that reached the end.
    pub counters: groups::paxos::Counters,
}

/// How a run went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was violated.
    pub what: String,
    /// The last steps before it.
    pub story: Vec<String>,
}

enum Event {
    Tick { machine: usize, life: u64 },
    Deliver { to: usize, from: NodeId, bytes: Vec<u8> },
    LogDone { machine: usize, life: u64 },
    Act { client: usize },
    Restart { machine: usize },
    GiveUp { client: usize, call: u64 },
    Fault,
}

struct Client {
    log: ClientLog,
    /// The call under way, its number, and the machine it went to.
    call: Option<(Call, u64, usize, Action)>,
    calls: u64,
    done_since_heal: u64,
}

/// The world.
pub struct World {
    plan: Plan,
    layout: Layout,
    now: Time,
    sequence: u64,
    queue: BTreeMap<(Time, u64), Event>,
    machines: Vec<Machine>,
    clients: Vec<Client>,
    random: Random,
    /// Cut directions: (from, to).
    cuts: Vec<(NodeId, NodeId)>,
    loss: u64,
    duplication: u64,
    slow: Vec<u64>,
    calm: bool,
    hash: u64,
    events: u64,
    story: std::collections::VecDeque<String>,
    /// The chained checksum of every prefix that any replica has reached.
    chains: BTreeMap<(GroupId, InstanceId), (u64, [u8; 32])>,
    unique: u64,
}

const STORY: usize = 400;

/// More than any honest run has.
const MAX_EVENTS: u64 = 1_000_000;

impl World {
    /// A world of switched-off machines.
    #[must_use]
    pub fn new(plan: Plan) -> World {
        let mut random = Random::new(plan.seed);
        let nodes: Vec<NodeId> = (1..=plan.cluster.nodes).map(NodeId).collect();
        let machines = nodes.iter().map(|n| Machine::new(*n, &plan.cluster, random.next_u64())).collect();
        let clients = (0..plan.clients)
            .map(|c| Client { log: ClientLog::new(c), call: None, calls: 0, done_since_heal: 0 })
            .collect();
        World {
            layout: Layout::new(nodes, plan.cluster.groups, plan.cluster.replication),
            slow: vec![0; plan.cluster.nodes as usize],
            plan,
            now: Time::ZERO,
            sequence: 0,
            queue: BTreeMap::new(),
            machines,
            clients,
            random,
            cuts: Vec::new(),
            loss: 0,
            duplication: 0,
            calm: false,
            hash: 0,
            events: 0,
            story: std::collections::VecDeque::new(),
            chains: BTreeMap::new(),
            unique: 0,
        }
    }

    /// Runs both phases and judges.
    ///
    /// # Errors
    /// When an invariant breaks, progress does not return, or a history is not linearizable.
    pub fn run(mut self) -> Result<Report, Failure> {
        match self.phases() {
            Ok(()) => {
                let mut counters = groups::paxos::Counters::default();
                for machine in &self.machines {
                    for shard in machine.shards() {
                        for group in shard.host().groups() {
                            add(&mut counters, &group.replica.counters);
                        }
                    }
                }
                let logs = self.clients.into_iter().map(|c| c.log);
                let history = match History::from_logs(logs) {
                    Ok(history) => history,
                    Err(e) => return Err(Failure { what: format!("{e:?}"), story: Vec::new() }),
                };
                let story = self.story.into();
                match crate::history::check(&history) {
                    crate::history::Verdict::Linearizable => Ok(Report {
                        hash: self.hash,
                        events: self.events,
                        simulated: self.now.since(Time::ZERO),
                        history,
                        counters,
                    }),
                    crate::history::Verdict::NotLinearizable(why) => {
                        Err(Failure { what: format!("not linearizable:\n{why}"), story })
                    }
                    crate::history::Verdict::Undecided(why) => {
                        Err(Failure { what: format!("undecided: {why:?}"), story })
                    }
                }
            }
            Err(what) => Err(Failure { what, story: self.story.into() }),
        }
    }

    fn phases(&mut self) -> Result<(), String> {
        for machine in 0..self.machines.len() {
            self.start(machine)?;
        }
        for client in 0..self.clients.len() {
            self.after(Duration::from_millis(200), Event::Act { client });
        }
        self.after(Duration::from_millis(300), Event::Fault);
        let end = self.now + self.plan.turmoil;
        while self.now < end {
            self.step()?;
        }
        self.note("the faults stop".into());
        self.calm = true;
        self.cuts.clear();
        (self.loss, self.duplication) = (0, 0);
        self.slow.fill(0);
        for machine in 0..self.machines.len() {
            if !self.machines[machine].is_up() {
                self.start(machine)?;
            }
        }
        for client in &mut self.clients {
            client.done_since_heal = 0;
        }
        let deadline = self.now + self.plan.recovery;
        while let Some(ailment) = self.ailment() {
            if self.now >= deadline {
                return Err(format!("not well {:?} after the last fault: {ailment}", self.plan.recovery));
            }
            self.step()?;
        }
        Ok(())
    }

    /// What is still missing: every client has been answered a few times, and every group has
    /// its best placed member for a leader that all members follow.
    fn ailment(&self) -> Option<String> {
        if let Some(client) = self.clients.iter().position(|c| c.done_since_heal < 3) {
            return Some(format!("client {client} is not answered"));
        }
        for group in (0..self.plan.cluster.groups).map(GroupId) {
            let best = self.layout.preference(group)[0];
            let mut seats = 0;
            for machine in &self.machines {
                for seat in machine.shards().iter().filter_map(|s| s.host().group(group)) {
                    seats += 1;
                    if seat.replica.leader() != Some(best) {
                        return Some(format!(
                            "node {} ({}) takes {:?} for the leader of group {group}, not {best}",
                            machine.node,
                            seat.replica.role_name(),
                            seat.replica.leader()
                        ));
                    }
                }
            }
            if seats != self.plan.cluster.replication {
                return Some(format!("group {group} has {seats} members"));
            }
        }
        None
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), event);
    }

    fn note(&mut self, line: String) {
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        if self.story.len() == STORY {
            self.story.pop_front();
        }
        self.story.push_back(format!("{} {line}", self.now));
    }

    fn start(&mut self, machine: usize) -> Result<(), String> {
        let now = self.now;
        self.note(format!("node {} starts", machine + 1));
        let wishes = match self.machines[machine].start(now) {
            Ok(wishes) => wishes,
            // It died while it started; whatever was armed is spent now.
            Err(e) if e.contains("the simulated process has stopped") => {
                self.stop(machine, true);
                self.machines[machine].start(now).map_err(|e| format!("node {}: {e}", machine + 1))?
            }
            Err(e) => return Err(format!("node {} does not start: {e}", machine + 1)),
        };
        let life = self.machines[machine].life;
        self.after(Duration::from_millis(1), Event::Tick { machine, life });
        self.fulfil(machine, wishes);
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let Some(((time, _), event)) = self.queue.pop_first() else {
            return Err("the world stands still".into());
        };
        self.now = time;
        self.events += 1;
        if self.events > MAX_EVENTS {
            return Err("a storm: far more events than so much simulated time explains".into());
        }
        match event {
            Event::Tick { machine, life } => {
                if self.machines[machine].life != life || !self.machines[machine].is_up() {
                    return Ok(());
                }
                let wishes = self.machines[machine].tick(time);
                self.after(Duration::from_millis(10), Event::Tick { machine, life });
                self.fulfil(machine, wishes);
            }
            Event::Deliver { to, from, bytes } => {
                if !self.machines[to].is_up() {
                    return Ok(());
                }
                self.note(format!("{from} -> {}: {} bytes", to + 1, bytes.len()));
                let wishes = self.machines[to].deliver(from, &bytes, time);
                self.fulfil(to, wishes);
            }
            Event::LogDone { machine, life } => {
                if self.machines[machine].life != life || !self.machines[machine].is_up() {
                    return Ok(());
                }
                self.note(format!("node {} synced", machine + 1));
                let wishes = self.machines[machine].log_done(time);
                self.fulfil(machine, wishes);
            }
            Event::Restart { machine } => {
                if !self.machines[machine].is_up() {
                    self.start(machine)?;
                }
            }
            Event::Act { client } => self.act(client),
            Event::GiveUp { client, call } => {
                let c = &mut self.clients[client];
                if c.call.as_ref().is_some_and(|(_, number, _, _)| *number == call) {
                    self.answer(client, Outcome::Unknown);
                }
            }
            Event::Fault => self.fault()?,
        }
        self.judge()
    }

    fn fulfil(&mut self, machine: usize, wishes: Wishes) {
        let from = self.machines[machine].node;
        for parcel in wishes.parcels {
            let to = parcel.to;
            if self.cuts.contains(&(from, to)) || self.random.below(1000) < self.loss {
                continue;
            }
            let copies = if self.random.below(1000) < self.duplication { 2 } else { 1 };
            for _ in 0..copies {
                let delay =
                    Duration::from_micros(100 + self.random.below(1_500) + self.random.below(8) / 7 * 5_000);
                let bytes = parcel.bytes.clone();
                self.after(delay, Event::Deliver { to: to.0 as usize - 1, from, bytes });
            }
        }
        if wishes.log_begins {
            let delay = Duration::from_micros(200 + self.random.below(1_000) + self.slow[machine]);
            let life = self.machines[machine].life;
            self.after(delay, Event::LogDone { machine, life });
        }
        for completion in wishes.completions {
            self.complete(machine, completion);
        }
        if let Some(why) = wishes.died {
            self.note(format!("node {} ends: {why}", machine + 1));
            self.stop(machine, true);
            if self.calm {
                // A fault that was armed before the calm; whoever watches the node starts it again.
                self.after(Duration::from_millis(200), Event::Restart { machine });
            }
        }
    }

    fn stop(&mut self, machine: usize, power: bool) {
        self.note(format!("node {} stops, power loss: {power}", machine + 1));
        self.machines[machine].stop(power);
        for client in 0..self.clients.len() {
            if self.clients[client].call.as_ref().is_some_and(|(_, _, m, _)| *m == machine) {
                self.answer(client, Outcome::Unknown);
            }
        }
    }

    fn fault(&mut self) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        let count = self.machines.len();
        let machine = self.random.below(count as u64) as usize;
        let node = |i: usize| NodeId(i as u32 + 1);
        match self.random.below(12) {
            0 | 1 => {
                if self.machines[machine].is_up() {
                    let power = self.random.below(2) == 0;
                    self.stop(machine, power);
                }
            }
            2 => {
                // The process dies in the middle of its next file operations.
                let disk = self.machines[machine].log_disk();
                disk.stop_after(disk.operations() + 1 + self.random.below(4));
            }
            3..=5 => {
                for machine in 0..count {
                    if !self.machines[machine].is_up() {
                        self.start(machine)?;
                        break;
                    }
                }
            }
            6 => {
                // One side against the other, in one or both directions.
                let both = self.random.below(2) == 0;
                let side: Vec<bool> = (0..count).map(|_| self.random.below(2) == 0).collect();
                self.note(format!("cut {side:?}, both ways: {both}"));
                for a in 0..count {
                    for b in 0..count {
                        if side[a] && !side[b] {
                            self.cuts.push((node(a), node(b)));
                            if both {
                                self.cuts.push((node(b), node(a)));
                            }
                        }
                    }
                }
            }
            7 | 8 => {
                self.note("healed".into());
                self.cuts.clear();
            }
            9 => self.loss = [0, 0, 50, 200][self.random.below(4) as usize],
            10 => self.duplication = [0, 100, 300][self.random.below(3) as usize],
            _ => self.slow[machine] = [0, 0, 5_000, 50_000][self.random.below(4) as usize],
        }
        let pause = Duration::from_millis(20 + self.random.below(700));
        self.after(pause, Event::Fault);
        Ok(())
    }

    fn act(&mut self, client: usize) {
        if self.clients[client].call.is_some() {
            return;
        }
        let up: Vec<usize> =
            (0..self.machines.len()).filter(|m| !self.machines[*m].shards().is_empty()).collect();
        if up.is_empty() {
            return self.after(Duration::from_millis(50), Event::Act { client });
        }
        let machine = up[self.random.below(up.len() as u64) as usize];
        let key_number = self.random.below(self.plan.keys);
        let key = Bytes::from(format!("k{key_number}"));
        let group = GroupId((key_number % u64::from(self.plan.cluster.groups)) as u32);
        self.unique += 1;
        let value = format!("v{}", self.unique).into_bytes();
        let (action, command) = match self.random.below(12) {
            0..=3 => (Action::Get, kv::Command::Get { key: key.clone() }),
            4..=6 => (Action::Put(value.clone()), put(&key, value, kv::Condition::None, kv::Want::Done)),
            7 => (Action::Delete, kv::Command::Delete { keys: vec![key.clone()] }),
            8 => (Action::SetNx(value.clone()), put(&key, value, kv::Condition::Absent, kv::Want::Done)),
            9 => (Action::GetSet(value.clone()), put(&key, value, kv::Condition::None, kv::Want::Previous)),
            10 => {
                let tail = Bytes::from(format!("+{}", self.unique % 10));
                let action = Action::Append(tail.to_vec());
                (action, kv::Command::Append { key: key.clone(), value: tail, max: 60 })
            }
            _ => (Action::GetDel, kv::Command::Take { key: key.clone() }),
        };
        let now = self.now.nanos();
        let c = &mut self.clients[client];
        c.calls += 1;
        let number = c.calls;
        let call = c.log.invoke(&key, now, action.clone());
        c.call = Some((call, number, machine, action));
        let request = Request {
            token: Token { connection: client as u64, request: number },
            group,
            read: command.is_read(),
            ordered: false,
            command: command.to_bytes(),
        };
        let now = self.now;
        match self.machines[machine].request(request, now) {
            Some(wishes) => {
                self.after(Duration::from_secs(4), Event::GiveUp { client, call: number });
                self.fulfil(machine, wishes);
            }
            None => self.answer(client, Outcome::NotApplied),
        }
    }

    fn complete(&mut self, machine: usize, completion: Completion) {
        let client = completion.token.connection as usize;
        let Some((_, number, m, action)) = &self.clients[client].call else { return };
        if *number != completion.token.request || *m != machine {
            return;
        }
        let outcome = match (completion.result, action) {
            (Err(Refusal::InDoubt), _) => Outcome::Unknown,
            (Err(_) | Ok(kv::Outcome::Failed(_) | kv::Outcome::Retired), _) => Outcome::NotApplied,
            (Ok(kv::Outcome::Done), Action::SetNx(_)) => Outcome::Flag(true),
            (Ok(kv::Outcome::Unmet), _) => Outcome::Flag(false),
            (Ok(kv::Outcome::Done), _) => Outcome::Done,
            (Ok(kv::Outcome::Integer(n)), Action::Delete) => Outcome::Flag(n == 1),
            (Ok(kv::Outcome::Integer(n)), _) => Outcome::Number(n),
            (Ok(kv::Outcome::Value(v)), _) => Outcome::Value(v.map(|(v, _)| v.to_vec())),
            (Ok(other), _) => panic!("no such answer: {other:?}"),
        };
        self.answer(client, outcome);
    }

    fn answer(&mut self, client: usize, outcome: Outcome) {
        let now = self.now.nanos();
        let c = &mut self.clients[client];
        let Some((call, number, machine, action)) = c.call.take() else { return };
        let refused = matches!(outcome, Outcome::Unknown | Outcome::NotApplied);
        if !refused {
            c.done_since_heal += 1;
        }
        let line = format!("client {client} call {number} at node {}: {action:?} = {outcome:?}", machine + 1);
        c.log.respond(call, now, outcome);
        self.note(line);
        let pause = if refused { 20 } else { self.random.below(30) };
        self.after(Duration::from_millis(1 + pause), Event::Act { client });
    }

    /// Invariants 1, 3, 5 and 11: whoever has reached an instance has the same chosen values and
    /// the same state there; states hash to what they hold.
    fn judge(&mut self) -> Result<(), String> {
        for machine in &self.machines {
            for shard in machine.shards() {
                for group in shard.host().groups() {
                    if let Some(halt) = group.replica.halted() {
                        return Err(format!("node {}: {halt}", machine.node));
                    }
                    let mark = group.replica.mark();
                    let state = group.state();
                    if state.applied() != mark.instance {
                        return Err(format!("node {}: applied is not the chosen prefix", machine.node));
                    }
                    let key = (group.replica.group(), mark.instance);
                    let found = (mark.chain, state.hash().to_bytes());
                    let first = *self.chains.entry(key).or_insert(found);
                    if first != found {
                        return Err(format!(
                            "node {} diverges in group {} at instance {}",
                            machine.node, key.0, key.1
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

fn put(key: &Bytes, value: Vec<u8>, condition: kv::Condition, want: kv::Want) -> kv::Command {
    kv::Command::Put { key: key.clone(), value: value.into(), condition, want }
}

/// Adds counters up.
pub fn add(sum: &mut groups::paxos::Counters, c: &groups::paxos::Counters) {
    sum.probes += c.probes;
    sum.candidacies += c.candidacies;
    sum.elected += c.elected;
    sum.deposed += c.deposed;
    sum.isolated += c.isolated;
    sum.transfers += c.transfers;
    sum.adopted += c.adopted;
    sum.gaps += c.gaps;
    sum.resent += c.resent;
    sum.learned += c.learned;
    sum.log_reads += c.log_reads;
    sum.sticky += c.sticky;
    sum.too_far += c.too_far;
}
