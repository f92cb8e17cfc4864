//! What clients ask for beside data: the keys of slots, redirects instead of forwarding, connections, the way of
//! a request; at three real nodes.

mod cluster;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use cluster::{Client, Cluster, Recipe, Reply, turn, within};
use server::protocol::slot_of;

const LIMIT: Duration = Duration::from_secs(10);

fn say(client: &mut Client, line: &str) -> Reply {
    client.say(line).unwrap_or_else(|e| panic!("{line}: {e}"))
}

fn text(reply: Reply) -> String {
    match reply {
        Reply::Bulk(Some(bytes)) => String::from_utf8(bytes).expect("text"),
        other => panic!("{other:?}"),
    }
}

/// All of a reply in one text.
fn flat(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(Some(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Array(items) => items.iter().map(flat).collect::<Vec<_>>().join(" "),
        other => format!("{other:?}"),
    }
}

/// Slot and address of a `MOVED`.
fn moved(reply: &Reply) -> Option<(u16, SocketAddr)> {
    let Reply::Error(line) = reply else { return None };
    let mut words = line.split(' ');
    if words.next() != Some("MOVED") {
        return None;
    }
    let (slot, address) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    assert_eq!(words.next(), None, "clients read what stands behind the address as part of it: {line}");
    Some((slot, address))
}

#[test]
fn clients_are_told_where_keys_are_and_what_their_requests_went_through() {
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    keys_of_slots(&cluster);
    connections(&cluster);
    info(&cluster);
    traces(&cluster);
    // Last, because it kills a node.
    let killed = redirects(&mut cluster);
    a_trace_without_a_member(&cluster, killed);
}

fn keys_of_slots(cluster: &Cluster) {
    let mut clients: Vec<Client> = cluster.nodes().into_iter().map(|n| cluster.client(n)).collect();
    let tags = ["a", "b", "c", "d", "e", "f"];
    let slots: BTreeSet<u16> = tags.iter().map(|tag| slot_of(tag.as_bytes()).0).collect();
    assert_eq!(slots.len(), tags.len());
    for (n, tag) in tags.iter().enumerate() {
        let slot = slot_of(tag.as_bytes()).0;
        // The question comes in the same packet as the writes, and sees them.
        let asked = &mut clients[n % 3];
        let mut lines = String::new();
        for key in 0..=n {
            lines += &format!("SET {{{tag}}}:{key} v\r\n");
        }
        lines += &format!("CLUSTER COUNTKEYSINSLOT {slot}\r\nDEL {{{tag}}}:0\r\n");
        asked.raw(lines.as_bytes()).expect("sent");
        for _ in 0..=n {
            assert_eq!(asked.receive().expect("a reply"), Reply::ok());
        }
        assert_eq!(asked.receive().expect("a reply"), Reply::Integer(n as i64 + 1), "slot {slot}");
        assert_eq!(asked.receive().expect("a reply"), Reply::Integer(1));
        // Every node tells the same, whoever leads the slot.
        let keys: Vec<Reply> = (1..=n).map(|key| Reply::bulk(format!("{{{tag}}}:{key}"))).collect();
        for client in &mut clients {
            assert_eq!(say(client, &format!("CLUSTER COUNTKEYSINSLOT {slot}")), Reply::Integer(n as i64));
            assert_eq!(say(client, &format!("CLUSTER GETKEYSINSLOT {slot} 100")), Reply::Array(keys.clone()));
            let two = keys.iter().take(2).cloned().collect();
            assert_eq!(say(client, &format!("CLUSTER GETKEYSINSLOT {slot} 2")), Reply::Array(two));
            assert_eq!(say(client, &format!("CLUSTER GETKEYSINSLOT {slot} 0")), Reply::Array(vec![]));
        }
    }
}

fn connections(cluster: &Cluster) {
    let (mut one, mut other) = (cluster.client(1), cluster.client(1));
    assert_eq!(say(&mut other, "CLIENT SETNAME other"), Reply::ok());
    let list = text(say(&mut one, "CLIENT LIST"));
    let line = list.lines().find(|line| line.contains(" name=other ")).unwrap_or_else(|| panic!("{list}"));
    let field = |name: &str| {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name));
        value.unwrap_or_else(|| panic!("no {name} in {line}")).to_owned()
    };
    assert_eq!(say(&mut one, "CLIENT KILL 127.0.0.1:1"), Reply::Error("ERR No such client".into()));
    assert_eq!(say(&mut one, "CLIENT KILL ID 99999999"), Reply::Integer(0));
    assert_eq!(
        say(&mut one, &format!("CLIENT KILL ID {} ADDR 127.0.0.1:1", field("id="))),
        Reply::Integer(0)
    );
    assert_eq!(say(&mut other, "PING"), Reply::Status("PONG".into()), "it was not meant");
    assert_eq!(say(&mut one, &format!("CLIENT KILL ADDR {}", field("addr="))), Reply::Integer(1));
    assert!(other.is_closed().expect("an end"), "a killed connection");
    // The own one only when asked for, and behind its answer.
    let Reply::Integer(id) = say(&mut one, "CLIENT ID") else { panic!("no number") };
    assert_eq!(say(&mut one, &format!("CLIENT KILL ID {id}")), Reply::Integer(0));
    assert_eq!(say(&mut one, &format!("CLIENT KILL ID {id} SKIPME no")), Reply::Integer(1));
    assert!(one.is_closed().expect("an end"));
}

fn info(cluster: &Cluster) {
    let mut client = cluster.client(2);
    let info = text(say(&mut client, "INFO"));
    let sections: Vec<&str> = info.lines().filter_map(|line| line.strip_prefix("# ")).collect();
    let all =
        ["Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "CPU", "Cluster", "Keyspace"];
    assert_eq!(sections, all);
    let value = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    let number = |text: &str, name: &str| value(text, name).parse::<f64>().expect(name);
    for line in info.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert!(line.split_once(':').is_some_and(|(name, _)| !name.is_empty()), "{line:?}");
    }
    assert_eq!(number(&info, "process_id"), f64::from(cluster.pid(2)));
    assert_eq!(number(&info, "tcp_port"), f64::from(cluster.ports().client(2).port()));
    assert!(number(&info, "used_memory_rss") > 1e6 && number(&info, "pelago_log_commits") > 0.0);
    assert_eq!(number(&info, "pelago_groups"), 16.0);
    // Only what was asked for, and counters count.
    let before = text(say(&mut client, "INFO stats Clients"));
    assert!(!before.contains("# Server") && before.contains("# Stats") && before.contains("# Clients"));
    say(&mut client, "PING");
    let after = text(say(&mut client, "INFO STATS"));
    let commands = |text: &str| number(text, "total_commands_processed");
    assert!(commands(&after) >= commands(&before) + 2.0, "{before} {after}");
    // `{a}` to `{f}` left 15 keys; one of them gets an end.
    assert_eq!(say(&mut client, "EXPIRE {f}:1 1000"), Reply::Integer(1));
    within(LIMIT, "every node to have applied it", || {
        let keys = value(&text(say(&mut client, "INFO keyspace")), "db0");
        if keys == "keys=15,expires=1" { Ok(()) } else { Err(keys) }
    });
}

/// Follows redirects until there is an answer, as cluster clients do. Every connection asks for redirects.
fn follow(start: SocketAddr, line: &str) -> Result<Reply, String> {
    let mut address = start;
    for _ in 0..5 {
        let mut client = Client::connect(address).map_err(|e| format!("{address}: {e}"))?;
        client.say("CLIENT REDIRECT ON").map_err(|e| e.to_string())?;
        let reply = client.say(line).map_err(|e| e.to_string())?;
        match moved(&reply) {
            Some((_, next)) => address = next,
            None => return Ok(reply),
        }
    }
    Err(format!("{line}: sent to and fro, last to {address}"))
}

/// Returns the node that it kills.
fn redirects(cluster: &mut Cluster) -> u32 {
    let keys: Vec<String> = (0..60).map(|n| format!("moving:{n}")).collect();
    let mut plain = cluster.client(1);
    let mut client = cluster.client(1);
    assert_eq!(say(&mut client, "CLIENT REDIRECT ON"), Reply::ok());
    let mut elsewhere = Vec::new();
    for key in &keys {
        assert_eq!(say(&mut plain, &format!("SET {key} 1")), Reply::ok(), "nobody is redirected unasked");
        let leader = cluster.leader_of(key);
        let wanted = cluster.ports().client(leader);
        if leader == 1 {
            assert_eq!(say(&mut client, &format!("INCR {key}")), Reply::Integer(2), "{key} is led here");
            continue;
        }
        elsewhere.push((key.clone(), leader));
        // A leader that was not known a moment ago is not told at once: the command is forwarded then.
        let (found, _) =
            within(LIMIT, "a redirect", || moved(&say(&mut client, &format!("GET {key}"))).ok_or(key));
        assert_eq!(found, (slot_of(key.as_bytes()).0, wanted));
        let mut there = Client::connect(wanted).expect("the leader");
        assert_eq!(say(&mut there, "CLIENT REDIRECT ON"), Reply::ok());
        assert!(moved(&say(&mut client, &format!("INCR {key}"))).is_some());
        assert_eq!(
            say(&mut there, &format!("INCR {key}")),
            Reply::Integer(2),
            "not applied where it was redirected"
        );
    }
    assert!(elsewhere.len() > 20, "two nodes of three lead other groups: {}", elsewhere.len());

    // What no cluster client sends is forwarded as ever: keys of several groups, and transactions.
    let (key, leader) = elsewhere[0].clone();
    let all = say(&mut client, &format!("MGET {}", keys.join(" ")));
    assert_eq!(all, Reply::Array(vec![Reply::bulk("2"); keys.len()]));
    assert_eq!(say(&mut client, &format!("WATCH {key}")), Reply::ok());
    assert_eq!(say(&mut client, "MULTI"), Reply::ok());
    assert_eq!(say(&mut client, &format!("INCR {key}")), Reply::Status("QUEUED".into()));
    assert_eq!(say(&mut client, "EXEC"), Reply::Array(vec![Reply::Integer(3)]));
    // Nor is who asks for what may be old: every member may answer that, and this node is asked.
    within(LIMIT, "this node has applied it", || match say(&mut client, &format!("GET {key} STALE 10000")) {
        reply if moved(&reply).is_some() => panic!("sent away: {reply:?}"),
        reply if reply == Reply::bulk("3") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(say(&mut client, "CLIENT REDIRECT OFF"), Reply::ok());
    assert_eq!(say(&mut client, &format!("GET {key}")), Reply::bulk("3"));
    assert_eq!(say(&mut client, "CLIENT REDIRECT ON"), Reply::ok());
    assert!(moved(&say(&mut client, &format!("GET {key}"))).is_some());
    assert_eq!(say(&mut client, "RESET"), Reply::Status("RESET".into()));
    assert_eq!(
        say(&mut client, &format!("GET {key}")),
        Reply::bulk("3"),
        "a connection used again is as new"
    );

    // A leader dies: whoever is asked first, the redirects lead to its heir.
    cluster.kill(leader);
    let heirs: Vec<SocketAddr> = cluster.running().into_iter().map(|n| cluster.ports().client(n)).collect();
    for start in heirs {
        within(LIMIT, "an answer of the heir", || match follow(start, &format!("GET {key}")) {
            Ok(Reply::Bulk(Some(value))) if value == b"3" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    leader
}

/// The reply of a traced command and the lines of its way: node, step, microseconds where there is a time.
fn traced(client: &mut Client, line: &str) -> (Reply, Vec<(u32, String, Option<f64>)>) {
    let Reply::Array(mut parts) = say(client, line) else { panic!("{line}: no array") };
    assert_eq!(parts.len(), 2, "{line}");
    let Some(Reply::Array(lines)) = parts.pop() else { panic!("{line}: no lines") };
    let lines = lines.into_iter().map(|line| {
        let line = text(line);
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "node", "{line}");
        (words[1].parse().expect("a node"), words[2].to_owned(), words[3].parse().ok())
    });
    (parts.pop().expect("the reply"), lines.collect())
}

fn traces(cluster: &Cluster) {
    let key = "traced";
    let leader = cluster.leader_of(key);
    for node in cluster.nodes() {
        let mut client = cluster.client(node);
        let (reply, way) = traced(&mut client, &format!("TRACE PUT {key} {node}"));
        assert_eq!(reply, Reply::ok());
        let took = |node: u32, step: &str| {
            let found = way.iter().find(|(n, name, _)| (*n, &name[..]) == (node, step));
            found.and_then(|found| found.2).unwrap_or_else(|| panic!("no {step} of node {node}: {way:?}"))
        };
        for step in ["parse", "plan", "queue"] {
            took(node, step);
        }
        if node != leader {
            took(node, "forward");
        }
        // A share of each disk, and each vote.
        cluster.nodes().into_iter().for_each(|member| assert!(took(member, "disk") > 0.0));
        let others = cluster.nodes().into_iter().filter(|member| *member != leader);
        others.clone().for_each(|member| assert!(took(member, "accept") >= 0.0));
        assert_eq!(
            way.iter().filter(|(n, name, _)| (*n, &name[..]) == (leader, "peer")).count(),
            2,
            "{way:?}"
        );
        let (batch, quorum, apply) = (took(leader, "batch"), took(leader, "quorum"), took(leader, "apply"));
        let sum = batch + quorum + apply;
        assert!((took(leader, "whole") - sum).abs() < 1.0, "the leader's parts are its whole: {way:?}");
        // A majority is the leader and the sooner of two peers, whose disks are part of their answers.
        let mut votes: Vec<f64> =
            way.iter().filter(|(_, name, _)| name == "peer").filter_map(|w| w.2).collect();
        votes.sort_by(f64::total_cmp);
        assert!(quorum + 0.1 >= votes[0].max(took(leader, "disk").min(votes[1])), "{way:?}");
        let slowest = others.map(|member| took(member, "disk")).fold(0.0, f64::max);
        assert!(votes[1] + 0.1 >= slowest.min(votes[1]), "{way:?}");
        assert!(!way.iter().any(|(_, name, _)| name == "silent" || name == "leader"), "{way:?}");

        let (reply, way) = traced(&mut client, &format!("TRACE GET {key}"));
        assert_eq!(reply, Reply::bulk(node.to_string()));
        for step in ["read", "whole"] {
            assert!(
                way.iter().any(|(n, name, took)| (*n, &name[..]) == (leader, step) && took.is_some()),
                "{way:?}"
            );
        }
        assert!(!way.iter().any(|(_, name, _)| name == "disk"), "a read needs none: {way:?}");
        if node == 1 {
            println!("{}", lines_of(&mut client, key));
        }
    }
    let mut client = cluster.client(1);
    // It sees what came before it in the same packet, and what comes behind it sees it.
    client.raw(format!("SET {key} 7\r\nTRACE INCR {key}\r\nGET {key}\r\n").as_bytes()).expect("sent");
    assert_eq!(client.receive().expect("a reply"), Reply::ok());
    let Reply::Array(parts) = client.receive().expect("a reply") else { panic!("no array") };
    assert_eq!(parts[0], Reply::Integer(8));
    assert_eq!(client.receive().expect("a reply"), Reply::bulk("8"));
    // What fails is told as it is, and what cannot be followed is refused.
    assert_eq!(say(&mut client, &format!("SET {key} text")), Reply::ok());
    let (reply, way) = traced(&mut client, &format!("TRACE INCR {key}"));
    assert_eq!(reply, Reply::Error("ERR value is not an integer or out of range".into()));
    assert!(way.iter().any(|(_, name, _)| name == "quorum"), "{way:?}");
    for (line, words) in [
        ("TRACE PING x", "TRACE follows commands on keys"),
        ("TRACE TRACE GET k", "TRACE follows commands on keys"),
        ("TRACE GTE k", "did you mean 'get'?"),
        ("TRACE GET k k2", "'k2' is not expected here"),
        ("TRACE DEL a b c d e", "the keys of this one are in several"),
        ("TRACE GET", "wrong number of arguments for 'trace'"),
    ] {
        let Reply::Error(error) = say(&mut client, line) else { panic!("{line}") };
        assert!(error.starts_with("ERR ") && error.contains(words), "{line}: {error}");
    }
}

/// The way of a put as a person sees it.
fn lines_of(client: &mut Client, key: &str) -> String {
    let Reply::Array(mut parts) = say(client, &format!("TRACE PUT {key} 1")) else { panic!("no array") };
    let Some(Reply::Array(lines)) = parts.pop() else { panic!("no lines") };
    lines.into_iter().map(|line| text(line) + "\n").collect()
}

fn a_trace_without_a_member(cluster: &Cluster, away: u32) {
    let node = cluster.running()[0];
    let mut client = cluster.client(node);
    within(LIMIT, "a leader", || match say(&mut client, "SET traced 1") {
        Reply::Status(_) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (reply, way) = traced(&mut client, "TRACE PUT traced 2");
    assert_eq!(reply, Reply::ok());
    let silent: Vec<u32> =
        way.iter().filter(|(_, name, _)| name == "silent").map(|(node, ..)| *node).collect();
    assert_eq!(silent, [away], "{way:?}");
    assert!(way.iter().any(|(_, name, took)| name == "quorum" && took.is_some()), "{way:?}");
}

/// Nodes that listened on all interfaces told clients to connect to 0.0.0.0, which is nowhere.
#[test]
fn who_listens_on_every_interface_is_named_by_its_host() {
    let _turn = turn();
    let more = "[security]\ninsecure = true\n";
    let mut cluster = Cluster::prepare(Recipe { more, ..Recipe::default() });
    let mut text = fs::read_to_string(cluster.config()).expect("the configuration");
    for node in 1..=3 {
        let address = cluster.ports().client(node);
        text = text.replace(
            &format!("client_addr = \"{address}\""),
            &format!("client_addr = \"0.0.0.0:{}\"", address.port()),
        );
    }
    assert_eq!(text.matches("0.0.0.0").count(), 3);
    fs::write(cluster.config(), text).expect("written");
    for node in 1..=3 {
        cluster.run(node);
    }
    cluster.wait_whole(LIMIT);
    let mut client = cluster.client(1);
    for command in ["CLUSTER SLOTS", "CLUSTER SHARDS", "CLUSTER NODES"] {
        let said = flat(&say(&mut client, command));
        assert!(!said.contains("0.0.0.0"), "{command}: {said}");
        for node in 1..=3 {
            let port = cluster.ports().client(node).port().to_string();
            assert!(said.contains("127.0.0.1") && said.contains(&port), "{command}: {said}");
        }
    }
    assert_eq!(say(&mut client, "CLIENT REDIRECT ON"), Reply::ok());
    let key = (0..).map(|n| format!("key{n}")).find(|key| cluster.leader_of(key) != 1).expect("some key");
    let (found, _) =
        within(LIMIT, "a redirect", || moved(&say(&mut client, &format!("GET {key}"))).ok_or(&key));
    assert_eq!(found.1, cluster.ports().client(cluster.leader_of(&key)), "where a client gets an answer");
}
