//! `pelago demo --check`: the claim of the system, tried out without a person.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Plan;
use super::cluster::Cluster;
use super::directory::Directory;
use super::interrupt::Interrupt;
use super::ports::Ports;
use super::waiting::{Step, Stop, all_led, until};
use crate::cli::status::look;
use crate::cli::watch::{Told, confirmed};
use crate::cli::{Failure, print};
use crate::client::overview::{Agreement, Overview};
use crate::client::{Client, ClientError, Options};
use crate::protocol::{ErrorClass, Reply, slot_of};

/// For birth and elections, and for a restarted node to catch up.
const START: Duration = Duration::from_secs(60);
/// For the first answer after the leader was killed. The promise is two seconds; a slow machine
/// is no broken cluster.
const AFTER_KILL: Duration = Duration::from_secs(20);
/// The key whose leader is killed.
const KEY: &str = "demo:check";
/// A number in the same group.
const COUNT: &str = "{demo:check}:count";
/// A key that does not stay.
const SHORT: &str = "{demo:check}:short";
/// A key whose changes are watched.
const WATCHED: &str = "demo:watched";
/// A number that is counted up while a node is exchanged.
const LOAD: &str = "demo:load";
/// Further keys, so that there is something to compare in many groups.
const KEYS: usize = 100;

/// Runs the check.
///
/// # Errors
/// With exit code 2 when it could not start, 1 with the reason when the check failed. The data
/// then stays where it is.
pub fn check(plan: &Plan) -> Result<(), Failure> {
    if plan.nodes.is_some_and(|nodes| nodes < 3) {
        return Err(Failure::error(
            "--check kills a node, and groups go on without one only from 3 nodes on. Nothing was started",
        ));
    }
    let interrupt = Interrupt::listen()?;
    let id = std::process::id();
    let path = match &plan.data {
        Some(path) => path.clone(),
        None => temporary(id),
    };
    let directory = Directory::prepare(plan, &path, Ports::for_process(id))?;
    let nodes = directory.config.nodes.len();
    if directory.config.cluster.replication < 3 {
        return Err(Failure::error(format!(
            "--check kills a node, but the groups in {} do not go on without one. Nothing was started. \
             Begin anew with --fresh --nodes 3",
            path.display()
        )));
    }
    for note in &directory.notes {
        print(format!("{note}\n"))?;
    }
    let started = Instant::now();
    print(format!(
        "demo --check: {nodes} nodes, {} groups, durability {}, in {}\n",
        directory.config.cluster.groups,
        directory.config.storage.durability.name(),
        directory.path.display()
    ))?;
    let mut cluster = Cluster::start(&directory)?;
    // A directory that somebody keeps goes on with the nodes that its configuration lists.
    let exchanges = plan.data.is_none();
    let mut check = Check { cluster: &mut cluster, interrupt: &interrupt, step: started };
    let outcome = check.run().and_then(|dead| match exchanges {
        true => check.exchange(dead, &directory),
        false => Ok(()),
    });
    let endings = cluster.stop(Some(&interrupt));
    let failed = match outcome {
        Ok(()) => endings.first().cloned(),
        Err(Stop::Interrupted) => Some("interrupted before the end".to_owned()),
        Err(Stop::Failed(why)) => Some(why),
    };
    if let Some(why) = failed {
        let kept = directory.path.display();
        return Err(Failure::no(format!("demo --check failed: {why}\nEverything is kept in {kept}")));
    }
    if plan.data.is_none() {
        let shown = directory.path.display().to_string();
        directory.remove().map_err(|error| {
            Failure::no(format!("all went well, but {shown} could not be removed: {error}"))
        })?;
    }
    print(format!("demo --check: passed in {:.1} s\n", started.elapsed().as_secs_f64()))
}

fn temporary(id: u32) -> PathBuf {
    std::env::temp_dir().join(format!("pelago-demo-check-{id}"))
}

struct Check<'a, 'b> {
    cluster: &'a mut Cluster<'b>,
    interrupt: &'a Interrupt,
    /// When the step that is under way began.
    step: Instant,
}

impl Check<'_, '_> {
    /// Returns the node that was killed and restarted.
    fn run(&mut self) -> Result<u32, Stop> {
        let nodes = self.cluster.ids().len();
        let led =
            until("all leaders", self.cluster, self.interrupt, START, |overview| all_led(overview, nodes))?;
        self.done(&format!("{nodes} nodes started: {led}"))?;

        let (one, other) = self.two_nodes(None)?;
        self.put(one, KEY, "1")?;
        self.done(&format!("put {KEY} 1 through node {one}: OK"))?;
        self.expect(other, KEY, "1")?;
        self.done(&format!("get {KEY} through node {other}: 1"))?;
        for n in 0..KEYS {
            self.put(one, &extra(n), &n.to_string())?;
        }
        self.done(&format!("put {KEYS} more keys through node {one}: all OK"))?;

        self.meaning(one, other)?;

        let (group, leader) = self.leader()?;
        self.done(&format!("{KEY} belongs to group {group}, which node {leader} leads"))?;
        let pid = self.cluster.pid(leader).unwrap_or(0);
        self.cluster.kill(leader).map_err(|failure| Stop::Failed(failure.message))?;
        self.done(&format!("kill -9 {pid} (node {leader})"))?;

        let (one, other) = self.two_nodes(Some(leader))?;
        self.expect(other, KEY, "1")?;
        self.done(&format!("get {KEY} through node {other}: 1"))?;
        self.put(one, KEY, "2")?;
        self.done(&format!("put {KEY} 2 through node {one}: OK"))?;
        self.expect(other, KEY, "2")?;
        self.expect_extras(other)?;
        self.done(&format!("get all {} keys through node {other}: as written", KEYS + 1))?;

        self.cluster.start_node(leader).map_err(|failure| Stop::Failed(failure.message))?;
        let equal =
            until("the restarted node to catch up", self.cluster, self.interrupt, START, |overview| {
                match all_led(overview, nodes) {
                    Step::Done(_) => all_equal(overview),
                    Step::Not(missing) => Step::Not(missing),
                    Step::Never(why) => Step::Never(why),
                }
            })?;
        self.done(&format!("restarted node {leader}; {equal}"))?;
        self.expect(leader, KEY, "2")?;
        self.expect_extras(leader)?;
        self.done(&format!("get all {} keys through node {leader}: as written", KEYS + 1))?;
        Ok(leader)
    }

    /// A watch that ends with its connection goes on at another node, and misses nothing.
    fn watch(&mut self, one: u32, other: u32) -> Result<(), Stop> {
        let mut position = None;
        for (node, writer, value) in [(one, other, "1"), (other, one, "3")] {
            if position.is_some() {
                // While nobody listens.
                self.put(writer, WATCHED, "2")?;
            }
            let begun = self.client(node).and_then(|mut client| {
                let mut words = vec![&b"SUBSCRIBEKV"[..], WATCHED.as_bytes()];
                if let Some(from) = &position {
                    words.extend([&b"FROM"[..], String::as_bytes(from)]);
                }
                client.call(&words).map(|reply| (client, reply))
            });
            let (mut client, reply) = begun.map_err(|error| self.failed(node, &error.to_string()))?;
            confirmed(reply, None).map_err(|failure| self.failed(node, &failure.message))?;
            self.put(writer, WATCHED, value)?;
            let wanted: &[&str] = if position.is_some() { &["2", "3"] } else { &["1"] };
            for value in wanted {
                position = Some(self.told(node, &mut client, value)?);
            }
        }
        self.done(&format!(
            "watch {WATCHED}: told of 1 by node {one}, then of 2 and 3 by node {other}, where it went on"
        ))
    }

    /// Waits for the next change that a watch tells of, and returns the position behind it.
    fn told(&mut self, node: u32, client: &mut Client, wanted: &str) -> Result<String, Stop> {
        let end = Instant::now() + AFTER_KILL;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match client.listen(left).map(Told::of) {
                Ok(Some(Told::Position(_))) => {}
                Ok(Some(Told::Event(event))) if event.value.as_deref() == Some(wanted.as_bytes()) => {
                    return Ok(event.token);
                }
                other => {
                    return Err(self.failed(node, &format!("a watch waits for {wanted} and gets {other:?}")));
                }
            }
        }
    }

    /// Another node takes the places of a dead one, while somebody writes.
    fn exchange(&mut self, dead: u32, directory: &Directory) -> Result<(), Stop> {
        let failed = |failure: Failure| Stop::Failed(failure.message);
        let (one, _) = self.two_nodes(Some(dead))?;
        let (config, new) = directory.one_more().map_err(failed)?;
        self.cluster.kill(dead).map_err(failed)?;
        self.cluster.join(config, new.id.0, new.client_addr.to_string()).map_err(failed)?;
        let end = AtomicBool::new(false);
        let (written, said) = std::thread::scope(|scope| {
            let client = self.client(one);
            let load = scope.spawn(|| write_until(&end, client));
            let (old, id) = (dead.to_string(), new.id.to_string());
            let (peer, clients, admin) =
                (new.peer_addr.to_string(), new.client_addr.to_string(), new.admin_addr.to_string());
            let address = self.cluster.address(one);
            let places = ["--peer-addr", &peer, "--client-addr", &clients, "--admin-addr", &admin];
            let words =
                [&["admin", "member", "replace", &old, &id][..], &places, &["--addr", &address]].concat();
            let said = self.cluster.run(&words);
            end.store(true, Ordering::Relaxed);
            (load.join().unwrap_or(0), said)
        });
        match said.map_err(failed)? {
            (true, _) => {}
            (false, said) => return Err(self.failed(one, &said)),
        }
        let node = new.id.0;
        let seen = self.get(node, LOAD)?;
        let seen = seen.and_then(|text| String::from_utf8_lossy(&text).parse().ok()).unwrap_or(0);
        if written == 0 || seen < written {
            let why = format!("{written} writes were acknowledged meanwhile, and the number reads {seen}");
            return Err(self.failed(node, &why));
        }
        self.expect(node, KEY, "2")?;
        self.expect_extras(node)?;
        self.done(&format!(
            "killed node {dead}; node {node} took its places while {written} writes were acknowledged, and has everything"
        ))
    }

    /// What more there is than putting and getting: conditions, transactions, lives, reads on a lease.
    fn meaning(&mut self, one: u32, other: u32) -> Result<(), Stop> {
        self.answers(one, &["CAS", COUNT, "x", "1"], &Reply::Integer(0))?;
        self.answers(one, &["SET", COUNT, "0"], &Reply::ok())?;
        self.answers(other, &["CAS", COUNT, "0", "1"], &Reply::Integer(1))?;
        self.done(&format!("cas {COUNT}: refused while it held something else, done when it held 0"))?;

        let both = Reply::Array(vec![Reply::Integer(1), Reply::Array(vec![Reply::Integer(2), Reply::ok()])]);
        let add = ["MULTIOP", "IF", KEY, "VALUE", "1", "THEN", "INCR", COUNT, "THEN", "SET", KEY, "1"];
        self.answers(one, &add, &both)?;
        let not = Reply::Array(vec![Reply::Integer(0), Reply::Array(vec![])]);
        self.answers(other, &["MULTIOP", "IF", KEY, "ABSENT", "THEN", "DEL", COUNT], &not)?;
        self.answers(other, &["GET", COUNT], &Reply::bulk("2"))?;
        self.done("transaction: both of its writes when its guard held, neither when it did not")?;

        self.answers(one, &["SET", SHORT, "soon gone", "PX", "300"], &Reply::ok())?;
        let begun = Instant::now();
        while self.get(other, SHORT)?.is_some() {
            if begun.elapsed() > AFTER_KILL {
                return Err(self.failed(other, &format!("{SHORT} was to be there for 300 ms and still is")));
            }
            if self.interrupt.wait(Duration::from_millis(20)) {
                return Err(Stop::Interrupted);
            }
        }
        self.done(&format!("{SHORT} was there for 300 ms, and then on no node"))?;

        let before = self.leased()?;
        let begun = Instant::now();
        let after = loop {
            self.expect(one, KEY, "1")?;
            let now = self.leased()?;
            if now > before || begun.elapsed() > AFTER_KILL {
                break now;
            }
        };
        if after <= before {
            return Err(self.failed(one, "no get was answered on the leader's lease"));
        }
        self.done(&format!("get {KEY}: answered by the leader on its lease, without asking anybody"))?;
        self.watch(one, other)
    }

    /// Gets of the key's group that were answered on a lease.
    fn leased(&self) -> Result<u64, Stop> {
        let (slot, overview) = self.look()?;
        let group = overview.group_of(slot).map(|group| group.group);
        let lines = overview.nodes.iter().flat_map(|node| &node.groups);
        Ok(lines.filter(|line| Some(line.group) == group).map(|line| line.leased).sum())
    }

    fn answers(&mut self, node: u32, words: &[&str], wanted: &Reply) -> Result<(), Stop> {
        let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        match self.call(node, &bytes)? {
            reply if reply == *wanted => Ok(()),
            reply => Err(self.failed(node, &format!("{}: {reply:?}, and not {wanted:?}", words.join(" ")))),
        }
    }

    /// Says what was done, and how long it took.
    fn done(&mut self, what: &str) -> Result<(), Stop> {
        let text = format!("{:>8.3} s  {what}\n", self.step.elapsed().as_secs_f64());
        self.step = Instant::now();
        if self.interrupt.wait(Duration::ZERO) {
            return Err(Stop::Interrupted);
        }
        print(text).map_err(|failure| Stop::Failed(format!("nobody reads the output: {}", failure.message)))
    }

    fn two_nodes(&self, without: Option<u32>) -> Result<(u32, u32), Stop> {
        let ids: Vec<u32> = self.cluster.ids().into_iter().filter(|node| Some(*node) != without).collect();
        match ids[..] {
            [first, second, ..] => Ok((first, second)),
            _ => Err(Stop::Failed("fewer than two nodes are left".to_owned())),
        }
    }

    fn call(&mut self, node: u32, words: &[&[u8]]) -> Result<Reply, Stop> {
        let result = self.client(node).and_then(|mut client| client.call(words));
        result.map_err(|error| self.failed(node, &error.to_string()))
    }

    fn client(&self, node: u32) -> Result<Client, ClientError> {
        let options = Options { deadline: AFTER_KILL, reply: AFTER_KILL, ..Options::default() };
        Client::connect(&[self.cluster.address(node)], options)
    }

    /// Puts, and settles a put that was in doubt: nobody else writes these keys, so reading back
    /// tells, and putting once more is harmless.
    fn put(&mut self, node: u32, key: &str, value: &str) -> Result<(), Stop> {
        for _ in 0..2 {
            let doubt = match self.call(node, &[b"PUT", key.as_bytes(), value.as_bytes()])? {
                Reply::Simple(_) => return Ok(()),
                Reply::Error(error) if error.class() == ErrorClass::InDoubt => error,
                Reply::Error(error) => return Err(self.failed(node, &format!("put {key}: {error}"))),
                other => return Err(self.failed(node, &format!("put {key}: {other:?}"))),
            };
            if self.get(node, key)?.as_deref() == Some(value.as_bytes()) {
                return Ok(());
            }
            self.done(&format!("put {key} through node {node} was in doubt and is sent again: {doubt}"))?;
        }
        Err(self.failed(node, &format!("put {key} stayed in doubt")))
    }

    fn get(&mut self, node: u32, key: &str) -> Result<Option<Vec<u8>>, Stop> {
        match self.call(node, &[b"GET", key.as_bytes()])? {
            Reply::Bulk(value) => Ok(Some(value.to_vec())),
            Reply::Nil => Ok(None),
            Reply::Error(error) => Err(self.failed(node, &format!("get {key}: {error}"))),
            other => Err(self.failed(node, &format!("get {key}: {other:?}"))),
        }
    }

    fn expect(&mut self, node: u32, key: &str, value: &str) -> Result<(), Stop> {
        let found = self.get(node, key)?;
        if found.as_deref() == Some(value.as_bytes()) {
            return Ok(());
        }
        let found = found.map_or("nothing".to_owned(), |found| format!("\"{}\"", found.escape_ascii()));
        let why = format!("{key} was acknowledged as \"{value}\", and a get answers {found}");
        Err(self.failed(node, &why))
    }

    fn expect_extras(&mut self, node: u32) -> Result<(), Stop> {
        (0..KEYS).try_for_each(|n| self.expect(node, &extra(n), &n.to_string()))
    }

    /// The slot of the key that is watched, and what the nodes say of themselves.
    fn look(&self) -> Result<(u16, Overview), Stop> {
        let overview = look(&self.cluster.addresses(), &Options::default())
            .map_err(|error| Stop::Failed(error.to_string()))?;
        Ok((slot_of(KEY.as_bytes()).0, overview))
    }

    /// Group and leader of the key that is watched.
    fn leader(&mut self) -> Result<(u32, u32), Stop> {
        let (slot, overview) = self.look()?;
        let found = overview.group_of(slot).and_then(|group| Some((group.group, group.leader?)));
        found.ok_or_else(|| {
            Stop::Failed(format!("the group of slot {slot} has no leader that a status names"))
        })
    }

    /// The reason, with the last words of whoever died, or else of the node that was asked.
    fn failed(&mut self, node: u32, why: &str) -> Stop {
        let deaths: Vec<String> = self.cluster.deaths().into_iter().map(|death| death.text).collect();
        let words = match deaths.is_empty() {
            true => self.cluster.last_words(node),
            false => deaths.join("\n"),
        };
        Stop::Failed(format!("node {node}: {why}\n{words}"))
    }
}

/// Counts a number up until told to end. Returns how often that was acknowledged.
fn write_until(end: &AtomicBool, client: Result<Client, ClientError>) -> u64 {
    let Ok(mut client) = client else { return 0 };
    let mut written = 0;
    while !end.load(Ordering::Relaxed) {
        // What is refused or in doubt is not counted.
        if let Ok(Reply::Integer(_)) = client.call(&[b"INCR", LOAD.as_bytes()]) {
            written += 1;
        }
    }
    written
}

fn extra(n: usize) -> String {
    format!("demo:check:{n}")
}

/// State hash and chain of every group are equal on all members, at equal instances.
fn all_equal(overview: &Overview) -> Step<String> {
    let differs = overview.groups.iter().find(|group| group.agreement == Agreement::Differs);
    if let Some(group) = differs {
        let why = group.problem.clone().unwrap_or_default();
        return Step::Never(format!("group {}: {why}", group.group));
    }
    let summary = &overview.summary;
    match summary.agreement.equal == summary.groups {
        true => Step::Done(format!(
            "state hash and checksum chain of all {} groups are equal on all members",
            summary.groups
        )),
        false => {
            let lag = overview.groups.iter().map(|group| group.lag).max().unwrap_or(0);
            Step::Not(format!(
                "{} of {} groups are at equal instances everywhere, the largest lag is {lag}",
                summary.agreement.equal, summary.groups
            ))
        }
    }
}
