//! A random play on a [`World`]: a schedule of faults and clients, all of it from one seed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use groups::group::{Reply, Submission};
use groups::ids::{Boot, NodeId};
use groups::kv::{Command, Failure, Outcome, Ticket};
use groups::random::Random;

use super::{GROUP, STEP, Setup, World};
use groups::paxos::Message;
use groups::paxos::message::Transfer;

/// One life of one node as a client: it adds 1 to a key of its own, again and again.
#[derive(Debug, Default)]
struct Client {
    /// Writes asked for so far.
    asked: u64,
    /// The lowest write without an answer.
    low: u64,
    answered: BTreeMap<u64, i64>,
    /// Reads without an answer, and the count that each must find at least.
    reads: BTreeMap<u64, i64>,
    reads_asked: u64,
}

/// A world, its faults and its clients.
pub struct Play {
    pub world: World,
    random: Random,
    /// By node and life.
    clients: BTreeMap<(u32, u64), Client>,
    /// Per key the highest count that anybody has been told of.
    known: BTreeMap<Bytes, i64>,
    taken: usize,
}

fn key_of(node: u32, boot: u64) -> Bytes {
    Bytes::from(format!("{node}/{boot}"))
}

impl Play {
    pub fn new(seed: u64, nodes: u32) -> Play {
        let mut random = Random::new(seed);
        let mut setup = Setup::new(nodes);
        setup.seed = random.next_u64();
        // Small limits, so that their edges are walked too.
        setup.tuning.chunk_bytes = 120;
        setup.tuning.recent = 4 + random.below(20) as usize;
        setup.tuning.window = 6;
        setup.tuning.ahead = 48;
        setup.limits.max_batch_bytes = 200;
        Play { world: World::new(setup), random, clients: BTreeMap::new(), known: BTreeMap::new(), taken: 0 }
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    pub fn node(&mut self) -> u32 {
        self.below(self.world.nodes.len()) as u32 + 1
    }

    fn busy_link(&mut self) -> Option<(u32, u32, usize)> {
        let links: Vec<_> = self
            .world
            .links
            .iter()
            .filter(|(_, queue)| !queue.is_empty())
            .map(|((a, b), queue)| (*a, *b, queue.len()))
            .collect();
        if links.is_empty() { None } else { Some(links[self.below(links.len())]) }
    }

    /// Hands `numbers` of a client's writes to whoever it takes for the leader.
    fn ask(&mut self, id: u32, numbers: std::ops::RangeInclusive<u64>) {
        if !self.world.up(id) {
            return;
        }
        let boot = self.world.nodes[&id].boot;
        let leader = match self.below(8) {
            0 => Some(self.node()),
            _ => self.world.leader(),
        };
        let low = self.clients[&(id, boot)].low;
        let submissions = numbers
            .map(|number| Submission {
                ticket: Ticket {
                    node: NodeId(id),
                    boot: Boot(boot),
                    number,
                    behind: number.saturating_sub(low) as u32,
                },
                read: false,
                after: 0,
                command: Command::Add { key: key_of(id, boot), delta: 1 }.to_bytes(),
            })
            .collect();
        if let Some(leader) = leader.filter(|l| self.world.up(*l)) {
            self.world.submit(leader, submissions);
        }
    }

    fn client(&mut self, id: u32) -> &mut Client {
        let boot = self.world.nodes[&id].boot;
        self.clients.entry((id, boot)).or_insert_with(|| Client { low: 1, ..Client::default() })
    }

    fn write(&mut self, id: u32) {
        let client = self.client(id);
        client.asked += 1;
        let last = client.asked;
        self.ask(id, last..=last);
    }

    fn ask_again(&mut self, id: u32) {
        let client = self.client(id);
        let (low, last) = (client.low, client.asked.min(client.low + 5));
        if low <= last {
            self.ask(id, low..=last);
        }
    }

    /// A read of somebody's key at whoever thinks it leads.
    fn read(&mut self, id: u32) {
        if !self.world.up(id) {
            return;
        }
        let keys: Vec<Bytes> = self.clients.keys().map(|(n, b)| key_of(*n, *b)).collect();
        let leaders: Vec<u32> = self
            .world
            .ids()
            .into_iter()
            .filter(|l| self.world.up(*l) && self.world.replica(*l).is_leader())
            .collect();
        if keys.is_empty() || leaders.is_empty() {
            return;
        }
        let key = keys[self.below(keys.len())].clone();
        let leader = leaders[self.below(leaders.len())];
        let least = self.known.get(&key).copied().unwrap_or(0);
        let boot = self.world.nodes[&id].boot;
        let client = self.client(id);
        client.reads_asked += 1;
        let number = client.reads_asked;
        client.reads.insert(number, least);
        let ticket = Ticket { node: NodeId(id), boot: Boot(boot), number, behind: 0 };
        let after = if key == key_of(id, boot) { client.low - 1 } else { 0 };
        let command = Command::Get { key: key.clone() }.to_bytes();
        self.world.submit(leader, vec![Submission { ticket, read: true, after, command }]);
        self.take_answers();
    }

    /// Judges the answers that have come.
    fn take_answers(&mut self) {
        while self.taken < self.world.answers.len() {
            let (_, answer) = self.world.answers[self.taken].clone();
            self.taken += 1;
            let Some(client) = self.clients.get_mut(&(answer.to.0, answer.boot.0)) else { continue };
            let outcome = match &answer.reply {
                Reply::Outcome(outcome) => outcome.clone(),
                Reply::NotLeader(_) | Reply::Busy | Reply::Halted => continue,
            };
            if answer.read {
                let Some(least) = client.reads.remove(&answer.number) else { continue };
                let value = match outcome {
                    Outcome::Value(None) => 0,
                    Outcome::Value(Some((value, _))) => {
                        std::str::from_utf8(&value).expect("digits").parse().expect("a number")
                    }
                    other => panic!("a read came to {other:?}"),
                };
                assert!(value >= least, "read {answer:?} is stale: {value} < {least}");
                continue;
            }
            match outcome {
                // Each write of a session applies once and in its order, so it counts itself.
                Outcome::Integer(n) => {
                    assert_eq!(n, answer.number as i64, "a write applied twice, out of order or not at all");
                    client.answered.insert(answer.number, n);
                    while client.answered.contains_key(&client.low) {
                        client.low += 1;
                    }
                    let known = self.known.entry(key_of(answer.to.0, answer.boot.0)).or_default();
                    *known = (*known).max(n);
                }
                Outcome::Failed(Failure::OutOfOrder) => {}
                Outcome::Retired => {
                    // Only copies of what is answered are retired, and what an ended life asked.
                    let ended = answer.boot.0 < self.world.nodes[&answer.to.0].boot;
                    assert!(
                        ended || answer.number < client.low,
                        "a write was given up that is still awaited"
                    );
                }
                other => panic!("a write came to {other:?}"),
            }
        }
    }

    /// One random event.
    pub fn step(&mut self) {
        match self.below(100) {
            0..=29 => {
                if let Some((a, b, n)) = self.busy_link() {
                    let index = if self.below(4) == 0 { self.below(n) } else { 0 };
                    self.world.deliver_at(a, b, index);
                }
            }
            30..=34 => {
                if let Some((a, b, n)) = self.busy_link() {
                    // A copy stays behind.
                    let index = self.below(n);
                    let message = self.world.links[&(a, b)][index].clone();
                    if !self.world.asleep.contains(&b) {
                        self.world.hand_over(a, b, message);
                    }
                }
            }
            35..=37 => {
                if let Some((a, b, n)) = self.busy_link() {
                    let index = self.below(n);
                    self.world.links.get_mut(&(a, b)).expect("busy").remove(index);
                }
            }
            38..=53 => {
                let (id, count) = (self.node(), self.below(4) + 1);
                self.world.sync(id, count);
            }
            54..=63 => {
                let steps = self.below(6) + 1;
                self.world.tick(STEP * steps as u32);
            }
            64..=65 => {
                let by = self.below(900) as u64;
                self.world.tick(Duration::from_millis(by));
            }
            66..=68 => {
                let by = self.below(40) as u32 + 1;
                self.world.run(STEP * by);
            }
            69..=80 => {
                let id = self.node();
                self.write(id);
            }
            81..=84 => {
                let id = self.node();
                self.ask_again(id);
            }
            85..=91 => {
                let id = self.node();
                self.read(id);
            }
            92 => {
                // A late transfer: any follower may be told to take over at any time.
                let to = self.node();
                if let Some(from) = self.world.leader().filter(|from| *from != to)
                    && self.world.up(to)
                    && !self.world.asleep.contains(&to)
                {
                    let ballot = self.world.replica(from).promised();
                    self.world.hand_over(from, to, Message::Transfer(Transfer { ballot }));
                }
            }
            93 => {
                let id = self.node();
                if self.world.up(id) {
                    self.world.crash(id);
                }
            }
            94 => {
                // A process stops for a while, the leader's as often as any other's.
                let id = if self.below(2) == 0 { self.world.leader() } else { Some(self.node()) };
                match id {
                    Some(id) if self.world.asleep.is_empty() && self.world.up(id) => {
                        self.world.asleep.insert(id);
                    }
                    _ => self.world.asleep.clear(),
                }
            }
            95..=96 => {
                let down: Vec<u32> = self.world.ids().into_iter().filter(|id| !self.world.up(*id)).collect();
                if !down.is_empty() {
                    let id = down[self.below(down.len())];
                    self.world.start(id);
                }
            }
            97 => {
                let (a, b) = (self.node(), self.node());
                if a != b {
                    self.world.cut(a, b);
                }
            }
            98 => {
                let id = self.node();
                self.world.isolate(id);
            }
            _ => self.world.cut.clear(),
        }
        self.take_answers();
    }

    /// The faults stop, but for every link between the nodes `odd` and the others: each loses what
    /// goes one way, or the other, or both, for good. The others are a majority.
    pub fn calm_but_for(&mut self, odd: &[u32]) {
        self.world.asleep.clear();
        self.world.cut.clear();
        for id in self.world.ids() {
            if !self.world.up(id) {
                self.world.start(id);
            }
        }
        for a in odd {
            for b in self.world.ids() {
                if odd.contains(&b) {
                    continue;
                }
                let which = self.below(3);
                if which != 0 {
                    self.world.cut(*a, b);
                }
                if which != 1 {
                    self.world.cut(b, *a);
                }
            }
        }
        self.end_well(odd);
    }

    /// The faults stop, but for one link that loses everything in one direction. Everybody can still
    /// be served, though the node at its end may lag.
    pub fn calm_but_for_one_link(&mut self) {
        self.world.asleep.clear();
        self.world.cut.clear();
        for id in self.world.ids() {
            if !self.world.up(id) {
                self.world.start(id);
            }
        }
        let from = self.node();
        let to = from % self.world.nodes.len() as u32 + 1;
        let (from, to) = if self.below(2) == 0 { (from, to) } else { (to, from) };
        self.world.cut(from, to);
        let ids = self.world.ids();
        for round in 0.. {
            self.world.run(Duration::from_millis(50));
            for id in &ids {
                self.client(*id);
                self.ask_again(*id);
            }
            self.take_answers();
            // A node that lags may not have heard its own answer: whoever leads has applied it.
            let done = self.world.leader().is_some_and(|leader| {
                ids.iter().all(|id| {
                    let asked = self.client(*id).asked;
                    let boot = Boot(self.world.nodes[id].boot);
                    let state = self.world.host(leader).group(GROUP).expect("a seat").state();
                    state.is_past(NodeId(*id), boot, asked)
                })
            });
            if done {
                return;
            }
            assert!(round < 200, "no end within ten seconds with {from}->{to} cut");
        }
    }

    /// The faults stop. All but `down` nodes are up and heard; then everything that their clients
    /// have asked must come to a good end.
    pub fn calm(&mut self, down: &[u32]) {
        self.world.cut.clear();
        self.world.asleep.clear();
        for id in down {
            if self.world.up(*id) {
                self.world.crash(*id);
            }
        }
        for id in self.world.ids() {
            if !self.world.up(id) && !down.contains(&id) {
                self.world.start(id);
            }
        }
        self.end_well(down);
    }

    /// The nodes that are not `out` serve their clients, and end up alike and with one leader.
    fn end_well(&mut self, out: &[u32]) {
        let mut up = self.world.ids();
        up.retain(|id| !out.contains(id));
        for round in 0.. {
            self.world.run(Duration::from_millis(50));
            self.take_answers();
            for id in &up {
                self.client(*id);
                self.ask_again(*id);
            }
            self.take_answers();
            let waiting = up.iter().any(|id| {
                let client = self.client(*id);
                client.low <= client.asked
            });
            let ends: Vec<_> = up.iter().map(|id| self.world.replica(*id).mark()).collect();
            let alike = ends.iter().all(|end| *end == ends[0]);
            if !waiting && alike && self.world.leader().is_some_and(|id| up.contains(&id)) {
                break;
            }
            assert!(round < 200, "no end within ten calm seconds: waiting {waiting}, prefixes {ends:?}");
        }
        let hashes: Vec<_> = up
            .iter()
            .map(|id| {
                let state = self.world.host(*id).group(GROUP).expect("a seat").state();
                assert_eq!(state.hash(), state.recomputed_hash());
                (state.applied(), state.hash(), state.revision(), state.epoch())
            })
            .collect();
        assert!(hashes.iter().all(|h| *h == hashes[0]), "replicas differ: {hashes:?}");
        let leaders = up.iter().filter(|id| self.world.replica(**id).is_leader()).count();
        assert_eq!(leaders, 1, "one leader once things are quiet");
    }
}
