//! Runs transcripts: commands in, what happens out.
//!
//! A transcript is a list of blocks: comments, commands, a line of four dashes, and what the
//! commands bring about, up to an empty line. The commands:
//!
//! ```text
//! cluster 3 [prefer=2,1,3] [chunk=40] [recent=2] [ahead=8] [settle=1s]
//! tick 400ms            the clock moves; messages wait on the wire, records wait for the disk
//! tick until 2 probing  the same, until node 2 has that role
//! run 400ms             the clock moves, and everything is delivered and synced at once
//! run until 2 leader    the same, until node 2 has that role
//! settle                everything is delivered and synced, the clock stands
//! deliver 1->2 [n]      what is on the link now, or its first n
//! deliver 1->2 last     its newest message overtakes the others
//! deliver 1->2 copy     a copy of its first message arrives; the message is still on its way
//! deliver all           everything, and what that causes
//! drop 1->2 [n], drop all
//! cut 1->2, cut 3, heal
//! sync 2 [n]            the disk has what it was given, or the n oldest turns of it
//! crash 2, restart 2    a crash loses what was not synced
//! replace 2             a new machine with an empty disk in its place
//! join 4                a machine that was not there at the birth
//! want 1 2 4            who shall be the members, the best placed leader first
//! propose 1 x=1 y+1     writes of node 1's client, in one turn
//! read 1 x [after n]    a read of node 1's client, behind its write n
//! submit 1 3/1/7[/2] x=1    a write of node 3, life 1, number 7 (2 behind), handed to node 1
//! inject 3->2 Accept 1.1 #2 [x=1] chosen=0     a message that nobody sent
//! status, disk 2
//! ```
//!
//! `brief` behind a command keeps only roles, choices and answers; `quiet` keeps nothing.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use groups::group::Submission;
use groups::ids::{Ballot, Boot, InstanceId, NodeId};
use groups::kv::Ticket;
use groups::paxos::message::{
    Accept, Accepted, Advance, Entry, Learn, Mark, Message, Prepare, Promise, Reject, Then, Transfer, Values,
};
use groups::time::Time;

use super::{Detail, Setup, World, founder, text};

const RULE: &str = "----";

#[derive(Debug, Default)]
struct Block {
    /// Comments and empty lines before the commands.
    head: Vec<String>,
    commands: Vec<String>,
    expected: Vec<String>,
}

fn parse(text: &str) -> (Vec<Block>, Vec<String>) {
    let mut blocks = Vec::new();
    let mut block = Block::default();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == RULE {
            block.expected = lines.by_ref().take_while(|l| !l.is_empty()).map(str::to_string).collect();
            blocks.push(std::mem::take(&mut block));
        } else if block.commands.is_empty() && (line.is_empty() || line.starts_with('#')) {
            block.head.push(line.to_string());
        } else {
            block.commands.push(line.to_string());
        }
    }
    assert!(block.commands.is_empty(), "commands without a `{RULE}` behind them: {:?}", block.commands);
    (blocks, block.head)
}

/// Runs one transcript. Returns what differs; with `UPDATE_TRANSCRIPTS` set, rewrites the file.
pub fn check(path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let (blocks, tail) = parse(&text);
    let mut world = None;
    let mut out = String::new();
    let mut differences = String::new();
    for block in &blocks {
        let mut happened = Vec::new();
        for command in &block.commands {
            // Shown only when the test fails.
            println!("> {command}");
            let events = run(command, &mut world);
            events.iter().for_each(|event| println!("{event}"));
            happened.extend(events);
        }
        if happened.is_empty() {
            happened.push("(nothing)".to_string());
        }
        for line in block.head.iter().chain(&block.commands) {
            let _ = writeln!(out, "{line}");
        }
        let _ = writeln!(out, "{RULE}\n{}\n", happened.join("\n"));
        if happened != block.expected {
            let _ = writeln!(
                differences,
                "after `{}`\n  expected:\n    {}\n  happened:\n    {}",
                block.commands.join("; "),
                block.expected.join("\n    "),
                happened.join("\n    ")
            );
        }
    }
    for line in tail {
        let _ = writeln!(out, "{line}");
    }
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        let out = format!("{}\n", out.trim_end());
        if out != text {
            fs::write(path, out).map_err(|e| e.to_string())?;
        }
        return Ok(());
    }
    if differences.is_empty() { Ok(()) } else { Err(differences) }
}

fn run(line: &str, world: &mut Option<World>) -> Vec<String> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let detail = match words.last() {
        Some(&"brief") => Detail::Brief,
        Some(&"quiet") => Detail::Nothing,
        _ => Detail::Full,
    };
    if detail != Detail::Full {
        words.pop();
    }
    if words[0] == "cluster" {
        *world = Some(World::new(setup(&words[1..])));
        return vec!["ok".to_string()];
    }
    let world = world.as_mut().expect("`cluster` comes first");
    world.detail = detail;
    match (words[0], &words[1..]) {
        ("tick", [by]) => world.tick(duration(by)),
        ("run", [by]) => world.run(duration(by)),
        ("tick", ["until", node, role]) => until(world, node, role, |world| world.step_clock()),
        ("run", ["until", node, role]) => until(world, node, role, |world| world.run(super::STEP)),
        ("settle", []) => world.settle(),
        ("deliver", ["all"]) => world.deliver_all(),
        ("deliver", [link, which @ ..]) => {
            let (from, to) = parse_link(link);
            let waiting = world.links.get(&(from, to)).map_or(0, std::collections::VecDeque::len);
            assert!(waiting > 0, "`{line}`: nothing is on that link");
            match which {
                [] => drop(world.deliver(from, to, usize::MAX)),
                ["last"] => world.deliver_at(from, to, waiting - 1),
                ["copy"] => {
                    let message = world.links[&(from, to)][0].clone();
                    world.hand_over(from, to, message);
                }
                [count] => drop(world.deliver(from, to, number(count) as usize)),
                _ => panic!("`{line}`"),
            }
        }
        ("drop", ["all"]) => world.links.clear(),
        ("drop", [link, which @ ..]) => {
            let queue = world.links.entry(parse_link(link)).or_default();
            let count = which.first().map_or(queue.len(), |n| number(n) as usize);
            assert!(count > 0 && count <= queue.len(), "`{line}`: not so many on that link");
            queue.drain(..count);
        }
        ("cut", [what]) => match what.split_once("->") {
            Some((from, to)) => world.cut(number(from) as u32, number(to) as u32),
            None => world.isolate(number(what) as u32),
        },
        ("heal", []) => world.cut.clear(),
        ("sync", [node, which @ ..]) => {
            let count = which.first().map_or(usize::MAX, |n| number(n) as usize);
            let synced = world.sync(number(node) as u32, count);
            assert!(synced > 0, "`{line}`: nothing waits for that disk");
        }
        ("crash", [node]) => world.crash(number(node) as u32),
        ("restart", [node]) => {
            let id = number(node) as u32;
            if world.up(id) {
                world.crash(id);
            }
            world.start(id);
        }
        ("replace", [node]) => world.replace(number(node) as u32),
        ("join", [node]) => world.join(number(node) as u32),
        ("want", nodes) => world.want(nodes.iter().map(|n| number(n) as u32).collect()),
        ("propose", [node, commands @ ..]) => {
            let commands: Vec<_> = commands.iter().map(|c| text::parse_command(c)).collect();
            world.write(number(node) as u32, &commands);
        }
        ("read", [node, key]) => world.read(number(node) as u32, key, 0),
        ("read", [node, key, "after", after]) => world.read(number(node) as u32, key, number(after)),
        ("submit", [node, ticket, command]) => {
            let parts: Vec<u64> = ticket.split('/').map(number).collect();
            let ticket = Ticket {
                node: NodeId(parts[0] as u32),
                boot: Boot(parts[1]),
                number: parts[2],
                behind: parts.get(3).map_or(0, |b| *b as u32),
            };
            let command = text::parse_command(command).to_bytes();
            world.submit(number(node) as u32, vec![Submission { ticket, read: false, after: 0, command }]);
        }
        ("inject", [link, message @ ..]) => {
            let (from, to) = parse_link(link);
            // What nobody sent may be a lie: the world believes it, so that the replica can be seen.
            world.trusting = true;
            let message = forge(message, from, world);
            world.hand_over(from, to, message);
        }
        ("status", []) => return status(world),
        ("disk", [node]) => {
            let node = &world.nodes[&(number(node) as u32)];
            let pending = node.pending.iter().flat_map(|b| &b.records);
            let synced = node.durable.iter().map(text::record);
            return synced.chain(pending.map(|r| format!("not synced: {}", text::record(r)))).collect();
        }
        _ => panic!("`{line}` is no command"),
    }
    std::mem::take(&mut world.trace)
}

fn until(world: &mut World, node: &str, role: &str, step: fn(&mut World)) {
    let id = number(node) as u32;
    for _ in 0..1000 {
        if world.replica(id).role_name() == role {
            return;
        }
        step(world);
    }
    panic!("node {id} does not become {role} within ten seconds");
}

fn status(world: &World) -> Vec<String> {
    let mut out = Vec::new();
    for id in world.ids() {
        if !world.up(id) {
            out.push(format!("{id} is down"));
            continue;
        }
        let group = world.host(id).group(super::GROUP).expect("a seat");
        let replica = &group.replica;
        let mut line = format!(
            "{id} {} promised {} chosen {}",
            replica.role_name(),
            replica.promised(),
            replica.mark().instance
        );
        if let Some(leader) = replica.leader()
            && leader.0 != id
        {
            let _ = write!(line, ", follows {leader}");
        }
        if !replica.is_voter() {
            line.push_str(", no voter");
        }
        if replica.has_parted() {
            line.push_str(", parted");
        }
        if !replica.open().is_empty() {
            let open: Vec<String> = replica
                .open()
                .iter()
                .map(|(i, a)| format!("#{i} at {} {}", a.ballot, text::value(&a.value)))
                .collect();
            let _ = write!(line, ", open {}", open.join(", "));
        }
        let keys: Vec<String> = group
            .state()
            .iter()
            .map(|(k, item)| {
                format!("{}={}", String::from_utf8_lossy(k), String::from_utf8_lossy(&item.value))
            })
            .collect();
        if !keys.is_empty() {
            let _ = write!(line, ", state {}", keys.join(" "));
        }
        out.push(line);
    }
    out
}

fn forge(words: &[&str], sender: u32, world: &World) -> Message {
    let voter = founder(sender).storage;
    let (kind, words) = words.split_first().expect("a message");
    let (ballot, words) = match words.split_first() {
        Some((first, rest)) if !first.starts_with('#') && !first.contains('=') => {
            (text::parse_ballot(first), rest)
        }
        _ => Default::default(),
    };
    let option = |name: &str| words.iter().find_map(|w| w.strip_prefix(name)?.strip_prefix('='));
    let at = |name: &str| InstanceId(option(name).map_or(0, number));
    let values: Vec<_> =
        words.iter().filter(|w| w.starts_with('[') || w.starts_with("lead(") || **w == "no-op").collect();
    let instances: Vec<u64> = words.iter().filter_map(|w| w.strip_prefix('#')).map(number).collect();
    let instance = InstanceId(instances.first().copied().unwrap_or(0));
    let mark = || {
        let instance = at("chosen");
        let chain = world.chains.get(&instance.0).copied().unwrap_or(0);
        Mark { instance, chain: if option("chain") == Some("other") { !chain } else { chain } }
    };
    let entries = || -> Vec<Entry> {
        let pairs = instances.iter().zip(&values);
        pairs
            .map(|(i, v)| Entry { instance: InstanceId(*i), ballot, value: text::parse_value(v, *i) })
            .collect()
    };
    match *kind {
        "Prepare" => {
            let consent = option("consent").map_or(Ballot::ZERO, text::parse_ballot);
            Message::Prepare(Prepare { ballot, from: at("from"), consent })
        }
        "Accept" => {
            let value = text::parse_value(values[0], instance.0);
            Message::Accept(Accept { ballot, instance, mark: mark(), value })
        }
        "Accepted" => Message::Accepted(Accepted {
            ballot,
            voter,
            first: instance,
            last: InstanceId(instances.last().copied().unwrap_or(0)),
            chosen: at("chosen"),
        }),
        "Advance" => Message::Advance(Advance {
            ballot,
            mark: mark(),
            barrier: at("barrier").0,
            asked: Time::ZERO,
            life: Boot(0),
        }),
        "Reject" => {
            let promised = text::parse_ballot(option("promised").expect("promised="));
            Message::Reject(Reject { refused: ballot, promised })
        }
        "Promise" => {
            let part = at("part").0 as u32;
            let parts = option("parts").map_or(1, |p| number(p) as u32);
            let (chosen, changed) = (at("chosen"), at("changed"));
            Message::Promise(Promise { ballot, voter, changed, chosen, part, parts, entries: entries() })
        }
        "Learn" => Message::Learn(Learn {
            session: at("session").0,
            from: at("from"),
            credit: at("credit").0 as u32,
        }),
        "Values" => {
            let then = if words.contains(&"end") { Then::End } else { Then::More };
            Message::Values(Values { session: at("session").0, first: instance, then, entries: entries() })
        }
        "Transfer" => Message::Transfer(Transfer { ballot }),
        other => panic!("`{other}` cannot be forged here"),
    }
}

fn setup(words: &[&str]) -> Setup {
    let mut setup = Setup::new(number(words[0]) as u32);
    for word in &words[1..] {
        let (name, value) = word.split_once('=').expect("name=value");
        match name {
            "prefer" => setup.prefer = value.split(',').map(|n| number(n) as u32).collect(),
            "chunk" => setup.tuning.chunk_bytes = number(value) as usize,
            // What a session begins with; a group that learns alone has all of it from the next tick on.
            "credit" => setup.tuning.learn_bytes = 16 * number(value) as usize,
            "recent" => setup.tuning.recent = number(value) as usize,
            "ahead" => setup.tuning.ahead = number(value) as usize,
            "window" => setup.tuning.window = number(value) as usize,
            "settle" => setup.tuning.settle = duration(value),
            _ => panic!("no option `{name}`"),
        }
    }
    setup
}

fn parse_link(text: &str) -> (u32, u32) {
    let (from, to) = text.split_once("->").unwrap_or_else(|| panic!("`{text}` is no link"));
    (number(from) as u32, number(to) as u32)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
}

fn duration(text: &str) -> Duration {
    match text.strip_suffix("ms") {
        Some(millis) => Duration::from_millis(number(millis)),
        None => Duration::from_secs(number(text.strip_suffix('s').expect("400ms or 2s"))),
    }
}
