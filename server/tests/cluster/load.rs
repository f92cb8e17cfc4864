//! Clients that disturb each other on few keys, note everything, and are judged at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use groups::random::Random;
use sim::history::{Action, ClientLog, History, Outcome, check};

use super::wait::until;
use super::wire::{Client, Reply};

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many clients, each a thread with one request at a time.
    pub clients: u64,
    /// How many tags; there is a text key and a number key under each.
    pub tags: u64,
    /// Where the clients' choices start.
    pub seed: u64,
    /// How long a client waits for an answer before it takes the outcome for unknown.
    pub patience: Duration,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { clients: 6, tags: 8, seed: 1, patience: Duration::from_secs(6) }
    }
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Trace>>,
}

struct Shared {
    plan: Plan,
    addresses: Vec<SocketAddr>,
    begun: Instant,
    stop: AtomicBool,
    /// Keys are taken from the current chapter only, so that outcomes that stay unknown do not
    /// pile up on one key. A key's group does not depend on its chapter.
    chapter: AtomicU64,
    /// Acknowledged writes, by tag.
    written: Vec<AtomicU64>,
}

/// What one client noted.
struct Trace {
    log: ClientLog,
    keys: BTreeSet<Vec<u8>>,
    /// When a write was acknowledged, and to which tag.
    acks: Vec<(u64, u64)>,
    answers: BTreeMap<String, u64>,
    surprises: Vec<String>,
}

/// What all clients noted.
pub struct Harvest {
    shared: Arc<Shared>,
    logs: Vec<ClientLog>,
    keys: BTreeSet<Vec<u8>>,
    acks: Vec<(u64, u64)>,
    /// How often which kind of answer came.
    pub answers: BTreeMap<String, u64>,
}

impl Load {
    /// Starts the clients.
    pub fn start(addresses: Vec<SocketAddr>, plan: Plan) -> Load {
        let shared = Arc::new(Shared {
            plan,
            addresses,
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            chapter: AtomicU64::new(0),
            written: (0..plan.tags).map(|_| AtomicU64::new(0)).collect(),
        });
        let threads = (0..plan.clients)
            .map(|number| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || Worker::new(number, shared).run())
            })
            .collect();
        Load { shared, threads }
    }

    /// From now on other keys.
    pub fn next_chapter(&self) {
        self.shared.chapter.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until every tag has so many more acknowledged writes. Returns how long that took.
    pub fn wait_written(&self, more: u64, deadline: Duration) -> Duration {
        let count =
            || -> Vec<u64> { self.shared.written.iter().map(|n| n.load(Ordering::Relaxed)).collect() };
        let before = count();
        until(deadline, &format!("{more} more writes to every tag"), || {
            count().iter().zip(&before).all(|(now, before)| now - before >= more)
        })
    }

    /// Ends the clients.
    ///
    /// # Panics
    /// When one of them was answered with something that the contract has no room for.
    pub fn stop(mut self) -> Harvest {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut harvest = Harvest {
            shared: Arc::clone(&self.shared),
            logs: Vec::new(),
            keys: BTreeSet::new(),
            acks: Vec::new(),
            answers: BTreeMap::new(),
        };
        let mut surprises = Vec::new();
        for thread in self.threads.drain(..) {
            let trace = thread.join().expect("a client");
            harvest.logs.push(trace.log);
            harvest.keys.extend(trace.keys);
            harvest.acks.extend(trace.acks);
            surprises.extend(trace.surprises);
            for (kind, count) in trace.answers {
                *harvest.answers.entry(kind).or_insert(0) += count;
            }
        }
        harvest.acks.sort_unstable();
        assert!(surprises.is_empty(), "answers that nobody should get: {surprises:#?}");
        harvest
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Harvest {
    /// Acknowledged writes.
    pub fn writes(&self) -> usize {
        self.acks.len()
    }

    /// The longest time in which no write was acknowledged at all, and the longest for one tag.
    pub fn longest_gaps(&self) -> (Duration, Duration) {
        let longest = |times: Vec<u64>| times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        let any = longest(self.acks.iter().map(|(at, _)| *at).collect());
        let of_tag = |tag| longest(self.acks.iter().filter(|(_, t)| *t == tag).map(|(at, _)| *at).collect());
        let one = (0..self.shared.plan.tags).map(of_tag).max().unwrap_or(0);
        (Duration::from_nanos(any), Duration::from_nanos(one))
    }

    /// Reads every key that was ever used through every node, and adds that to what is judged.
    pub fn read_everything(&mut self) {
        for (number, address) in (0..).zip(self.shared.addresses.clone()) {
            let mut log = ClientLog::new(1000 + number);
            let mut client = Client::connect(address).expect("a connection for the last reads");
            let keys: Vec<&Vec<u8>> = self.keys.iter().collect();
            for part in keys.chunks(256) {
                let now = self.shared.now();
                let calls: Vec<_> = part.iter().map(|key| log.invoke(key, now, Action::Get)).collect();
                for key in part {
                    client.send(&[b"GET", key.as_slice()]).expect("a read is sent");
                }
                for call in calls {
                    let value = match client.receive().expect("a read is answered") {
                        Reply::Bulk(value) => value,
                        other => panic!("a read at rest was answered with {other:?}"),
                    };
                    log.respond(call, self.shared.now(), Outcome::Value(value));
                }
            }
            self.logs.push(log);
        }
    }

    /// Adds what another client noted on [`Harvest::now`]'s clock.
    pub fn add(&mut self, log: ClientLog) {
        self.logs.push(log);
    }

    /// Judges everything. Returns how many operations that were.
    ///
    /// # Panics
    /// With the story when the history is not linearizable.
    pub fn judge(self) -> usize {
        let history = History::from_logs(self.logs).expect("answers that fit their questions");
        let verdict = check(&history);
        assert!(verdict.is_linearizable(), "{verdict}");
        history.operations().len()
    }
}

impl Load {
    /// The clock on which operations are noted.
    pub fn clock(&self) -> impl Fn() -> u64 + Send + Clone + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.now()
    }
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("nanoseconds fit")
    }
}

/// What came of an operation, by its reply; `Err` for a reply that no operation of these tests
/// may get.
pub fn classify(action: &Action, reply: Reply) -> Result<Outcome, String> {
    match reply.error_class() {
        Some("TRYAGAIN" | "CLUSTERDOWN" | "BUSY") => return Ok(Outcome::NotApplied),
        Some("INDOUBT") => return Ok(Outcome::Unknown),
        _ => {}
    }
    match (action, reply) {
        (Action::Get, Reply::Bulk(value)) => Ok(Outcome::Value(value)),
        (Action::Put(_), Reply::Status(ok)) if ok == "OK" => Ok(Outcome::Done),
        (Action::Add(_), Reply::Integer(sum)) => Ok(Outcome::Number(sum)),
        (Action::Delete | Action::SetNx(_) | Action::Cas { .. }, Reply::Integer(flag @ 0..=1)) => {
            Ok(Outcome::Flag(flag == 1))
        }
        (action, reply) => Err(format!("{action} -> {reply:?}")),
    }
}

/// The words of a request.
fn words(key: &[u8], action: &Action) -> Vec<Vec<u8>> {
    let word = |text: &str| text.as_bytes().to_vec();
    match action {
        Action::Get => vec![word("GET"), key.to_vec()],
        Action::Put(value) => vec![word("PUT"), key.to_vec(), value.clone()],
        Action::Delete => vec![word("DEL"), key.to_vec()],
        Action::SetNx(value) => vec![word("SETNX"), key.to_vec(), value.clone()],
        Action::Cas { old, new } => vec![word("CAS"), key.to_vec(), old.clone(), new.clone()],
        Action::Add(by) => vec![word("INCRBY"), key.to_vec(), word(&by.to_string())],
        other => unreachable!("the clients never ask for {other}"),
    }
}

/// One client.
struct Worker {
    number: u64,
    shared: Arc<Shared>,
    random: Random,
    clients: Vec<Option<Client>>,
    /// The value that this client last saw under a key, to swap against.
    seen: BTreeMap<Vec<u8>, Vec<u8>>,
    fresh: u64,
    trace: Trace,
}

impl Worker {
    fn new(number: u64, shared: Arc<Shared>) -> Worker {
        Worker {
            number,
            random: Random::new(shared.plan.seed.wrapping_mul(1009).wrapping_add(number)),
            clients: shared.addresses.iter().map(|_| None).collect(),
            shared,
            seen: BTreeMap::new(),
            fresh: 0,
            trace: Trace {
                log: ClientLog::new(number),
                keys: BTreeSet::new(),
                acks: Vec::new(),
                answers: BTreeMap::new(),
                surprises: Vec::new(),
            },
        }
    }

    fn run(mut self) -> Trace {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let tag = self.random.below(self.shared.plan.tags);
            let (key, action) = self.choose(tag);
            let node = self.random.below(self.clients.len() as u64) as usize;
            self.step(node, tag, key, action);
        }
        self.trace
    }

    /// A value that nobody else writes.
    fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.number * 1_000_000_000 + self.fresh * 1_000
    }

    fn choose(&mut self, tag: u64) -> (Vec<u8>, Action) {
        let chapter = self.shared.chapter.load(Ordering::Relaxed);
        let key = |kind: &str| format!("{{tag{tag}}}:{kind}:{chapter}").into_bytes();
        let fresh = self.fresh();
        let value = fresh.to_string().into_bytes();
        let dice = self.random.below(100);
        match self.random.below(10) {
            0..4 => {
                let key = key("text");
                let action = match dice {
                    0..40 => Action::Get,
                    40..65 => Action::Put(value),
                    65..72 => Action::SetNx(value),
                    72..82 => Action::Delete,
                    _ => match self.seen.get(&key) {
                        Some(old) => Action::Cas { old: old.clone(), new: value },
                        None => Action::Get,
                    },
                };
                (key, action)
            }
            4..8 => {
                let action = match dice {
                    0..35 => Action::Get,
                    35..45 => Action::Put(value),
                    45..55 => Action::Delete,
                    _ => Action::Add(1),
                };
                (key("number"), action)
            }
            // Written once and read at the end: is anything lost that nobody looked at since?
            _ => (key(&format!("once:{fresh}")), Action::Put(value)),
        }
    }

    fn step(&mut self, node: usize, tag: u64, key: Vec<u8>, action: Action) {
        let Some(mut client) = self.connect(node) else { return };
        let write = action != Action::Get;
        let request = words(&key, &action);
        let call = self.trace.log.invoke(&key, self.shared.now(), action.clone());
        self.trace.keys.insert(key.clone());
        let reply = client.call(&request);
        let now = self.shared.now();
        self.count(&reply);
        let outcome = match reply {
            Ok(reply) => {
                self.clients[node] = Some(client);
                classify(&action, reply).unwrap_or_else(|surprise| {
                    self.trace.surprises.push(surprise);
                    Outcome::Unknown
                })
            }
            // The connection ended or nothing came in time: this one is of no further use.
            Err(_) => Outcome::Unknown,
        };
        if let Outcome::Value(Some(value)) = &outcome {
            self.seen.insert(key, value.clone());
        }
        if write && !matches!(outcome, Outcome::Unknown | Outcome::NotApplied) {
            self.trace.acks.push((now, tag));
            self.shared.written[tag as usize].fetch_add(1, Ordering::Relaxed);
        }
        self.trace.log.respond(call, now, outcome);
    }

    fn connect(&mut self, node: usize) -> Option<Client> {
        if let Some(client) = self.clients[node].take() {
            return Some(client);
        }
        let client = Client::connect_with(self.shared.addresses[node], self.shared.plan.patience);
        if client.is_err() {
            *self.trace.answers.entry("not connected".into()).or_insert(0) += 1;
            // The node is dead; it is not asked again at once.
            std::thread::sleep(Duration::from_millis(2));
        }
        client.ok()
    }

    fn count(&mut self, reply: &io::Result<Reply>) {
        let kind = match reply {
            Ok(reply) => reply.error_class().unwrap_or("ok").to_owned(),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                "timeout".into()
            }
            Err(_) => "connection lost".into(),
        };
        *self.trace.answers.entry(kind).or_insert(0) += 1;
    }
}
