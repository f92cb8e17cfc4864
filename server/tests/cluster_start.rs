//! Starts that must fail, or wait, without changing anything, and say why.

mod cluster;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use cluster::{Cluster, Ended, Recipe, Reply, Snapshot, copy, turn};

const LONG: Duration = Duration::from_secs(10);

/// A start that ended with this code and said all of this.
fn assert_refused(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.said);
    for word in words {
        assert!(ended.said.contains(word), "{word:?} is missing in: {}", ended.said);
    }
}

fn one_node() -> Recipe {
    Recipe { nodes: 1, groups: 4, ..Recipe::default() }
}

/// A cluster of one node with some data, stopped in order.
fn stopped() -> Cluster {
    let mut cluster = Cluster::start(one_node());
    let mut client = cluster.client(1);
    for n in 0..50 {
        assert_eq!(client.say(&format!("PUT key-{n} value-{n}")).expect("an answer"), Reply::ok());
    }
    assert_eq!(cluster.terminate(1).code(), Some(0));
    cluster
}

/// Starts the stopped node again and finds everything.
fn assert_intact(cluster: &mut Cluster) {
    cluster.run(1);
    cluster.wait_whole(LONG);
    let mut client = cluster.client(1);
    for n in 0..50 {
        let value = client.say(&format!("GET key-{n}")).expect("an answer");
        assert_eq!(value, Reply::bulk(format!("value-{n}")));
    }
}

#[test]
fn a_port_in_use_is_named() {
    // The story: somebody else listens on the port, or the node was started twice from two
    // directories.
    let mut cluster = Cluster::prepare(one_node());
    let ports = cluster.ports();
    for (address, key) in
        [(ports.client(1), "client_addr"), (ports.peer(1), "peer_addr"), (ports.admin(1), "admin_addr")]
    {
        let taken = TcpListener::bind(address).expect("the port is free");
        let ended = cluster.try_start(1, &[]);
        assert_refused(&ended, 2, &[&address.to_string(), "Nothing was started", &format!("change {key}")]);
        drop(taken);
    }
    cluster.run(1);
    cluster.wait_whole(LONG);
}

#[test]
fn a_second_process_on_a_data_directory_is_refused() {
    // The story: a node is started by hand while the service runs it already.
    let _turn = turn();
    let mut cluster = Cluster::start(one_node());
    assert_eq!(cluster.client(1).say("PUT k v").expect("an answer"), Reply::ok());
    // It holds its directory and writes nothing of its own.
    cluster.pause(1);
    let before = Snapshot::of(&cluster.data(1));
    assert_refused(&cluster.try_start(1, &[]), 3, &["another process", "node-1", "Nothing was changed"]);
    before.assert_unchanged(&cluster.data(1));
    cluster.resume(1);
    assert_eq!(cluster.client(1).say("GET k").expect("an answer"), Reply::bulk("v"));
}

#[test]
fn a_foreign_data_directory_is_refused_unchanged() {
    // The story: directories were mixed up, or somebody edited what is fixed at birth.
    let mut cluster = stopped();
    let data = cluster.data(1);
    let before = Snapshot::of(&data);
    let refuse = |cluster: &Cluster, set: &str, words: &[&str]| {
        let ended = cluster.try_start(1, &["--set", set]);
        assert_refused(&ended, 3, &[words, &["Nothing was changed"]].concat());
        before.assert_unchanged(&data);
    };
    refuse(&cluster, "cluster.name=\"other\"", &["\"test\"", "\"other\""]);
    refuse(&cluster, "cluster.groups=8", &["groups = 4", "8"]);

    // Node 1's directory in the place of node 2's.
    let other = Cluster::prepare(Recipe { nodes: 2, ..one_node() });
    let place = other.data(2);
    fs::create_dir_all(place.parent().expect("a parent")).expect("a directory");
    copy(&data, &place);
    let copied = Snapshot::of(&place);
    assert_refused(
        &other.try_start(2, &[]),
        3,
        &["belongs to node 1", "this is node 2", "Nothing was changed"],
    );
    copied.assert_unchanged(&place);

    // Files that are no data directory at all.
    let strange = Cluster::prepare(one_node());
    fs::create_dir_all(strange.data(1)).expect("a directory");
    fs::write(strange.data(1).join("thesis.txt"), "precious").expect("a file");
    assert_refused(&strange.try_start(1, &[]), 3, &["thesis.txt", "Nothing was changed"]);
    assert_eq!(fs::read(strange.data(1).join("thesis.txt")).expect("the file"), b"precious");

    before.assert_unchanged(&data);
    assert_intact(&mut cluster);
}

#[test]
fn a_newer_format_is_refused_unchanged() {
    // The story: a new version ran on the directory, and then the old program is started again.
    let mut cluster = stopped();
    let data = cluster.data(1);
    let manifest = data.join("NODE");
    let good = fs::read(&manifest).expect("the manifest");
    // Only the version is read of a newer one: its checksum may be made another way.
    let mut newer = good.clone();
    newer[8..12].copy_from_slice(&9_u32.to_le_bytes());
    fs::write(&manifest, &newer).expect("the manifest is replaced");
    let before = Snapshot::of(&data);
    assert_refused(&cluster.try_start(1, &[]), 3, &["format 9", "nothing was changed"]);
    before.assert_unchanged(&data);

    // Damage is not mistaken for age.
    let mut damaged = good.clone();
    damaged[40] ^= 1;
    fs::write(&manifest, &damaged).expect("the manifest is replaced");
    let before = Snapshot::of(&data);
    assert_refused(&cluster.try_start(1, &[]), 3, &["NODE", "damaged"]);
    before.assert_unchanged(&data);

    fs::write(&manifest, &good).expect("the manifest is put back");
    assert_intact(&mut cluster);
}

#[test]
fn mistakes_of_the_configuration_come_all_at_once() {
    // The story: a hand-written file with three mistakes; a wrong node; a wrong key on the command
    // line.
    let cluster = Cluster::prepare(Recipe {
        more: "[paxos]\nlease = \"900ms\"\nhartbeat_interval = \"50ms\"\n\n[limits]\nmax_value = \"much\"\n",
        ..one_node()
    });
    let ended = cluster.try_start(1, &[]);
    assert_refused(
        &ended,
        2,
        &["config.toml:13:1: unknown key `hartbeat_interval`", "`heartbeat_interval`?"],
    );
    assert_refused(&ended, 2, &["config.toml:12:9: lease", "config.toml:16:13: `max_value`", "3 mistakes"]);
    assert!(!cluster.data(1).exists(), "nothing was started");

    let cluster = Cluster::prepare(one_node());
    assert_refused(&cluster.try_start(7, &[]), 2, &["no node 7", "1"]);
    assert_refused(&cluster.try_start(1, &["--set", "cluster.grups=4"]), 2, &["grups", "groups"]);
    fs::remove_file(cluster.config()).expect("the file is there");
    assert_refused(&cluster.try_start(1, &[]), 2, &["config.toml"]);
    assert!(!cluster.data(1).exists(), "nothing was started");
}

#[test]
fn a_birth_waits_and_says_for_whom() {
    // The story: one of three machines is not racked yet.
    let _turn = turn();
    let mut cluster = Cluster::prepare(Recipe::default());
    cluster.run(1);
    cluster.wait_logged(1, "waiting for node 2, node 3", LONG);
    cluster.run(2);
    cluster.wait_logged(1, "waiting for node 3", LONG);
    cluster.wait_logged(2, "waiting for node 3", LONG);

    // A client that knocks is told in one line, whatever it was going to ask.
    for node in [1, 2] {
        let mut client = cluster.client(node);
        let reply = client.receive().expect("a line");
        let Reply::Error(text) = &reply else { panic!("an unborn node said {reply:?}") };
        assert!(text.starts_with("CLUSTERDOWN ") && text.contains("node 3"), "{text}");
        assert!(client.is_closed().expect("the end"), "and the connection is closed");
    }

    // A restart in between changes nothing.
    cluster.kill(1);
    cluster.run(1);
    cluster.run(3);
    cluster.wait_whole(LONG);
    let ids: Vec<String> =
        [1, 2, 3].iter().map(|node| cluster.status(*node).expect("a status").cluster).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn a_node_that_is_configured_differently_is_named() {
    // The story: somebody raised the number of groups on one machine only, before the birth.
    let _turn = turn();
    let mut cluster = Cluster::prepare(Recipe::default());
    cluster.run(1);
    cluster.run(2);
    cluster.run_with(3, &["--set", "cluster.groups=17"]);
    cluster.wait_logged(1, "node 3 was started with another", LONG);
    cluster.wait_logged(3, "was started with another", LONG);
    cluster.kill(3);
    cluster.run(3);
    cluster.wait_whole(LONG);
}

/// The segments of a node's log, by name.
fn segments(cluster: &Cluster, node: u32) -> BTreeMap<PathBuf, Vec<u8>> {
    let dir = cluster.data(node).join("log");
    fs::read_dir(dir)
        .expect("the log")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| fs::metadata(path).is_ok_and(|it| it.len() >= 1 << 20))
        .map(|path| (path.clone(), fs::read(path).expect("a segment")))
        .collect()
}

/// Where the last byte that is not zero stands, in the segment that holds the end of the log.
fn end_of_log(cluster: &Cluster, node: u32) -> (PathBuf, usize) {
    let used = segments(cluster, node)
        .into_iter()
        .filter_map(|(path, bytes)| Some((path, bytes.iter().rposition(|byte| *byte != 0)? + 1)));
    used.rev().find(|(_, end)| *end > 512).expect("a segment with commits")
}

#[test]
fn a_torn_tail_is_cut_and_served() {
    // The story: a node died in the middle of a write. What it wrote behind its last complete
    // commit is garbage that was never acknowledged; it is cut off, once, and the node serves.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe { groups: 4, ..Recipe::default() });
    let mut client = cluster.client(1);
    for n in 0..50 {
        assert_eq!(client.say(&format!("PUT key-{n} value-{n}")).expect("an answer"), Reply::ok());
    }
    cluster.kill(2);
    let (path, end) = end_of_log(&cluster, 2);
    let garbage: Vec<u8> =
        (0..5 * 512_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
    let file = fs::OpenOptions::new().write(true).open(&path).expect("the segment");
    file.write_all_at(&garbage, end.next_multiple_of(512) as u64).expect("garbage is written");
    cluster.run(2);
    cluster.wait_logged(2, "torn=Some", LONG);
    cluster.wait_whole(LONG);
    let mut client = cluster.client(2);
    for n in 0..50 {
        let value = client.say(&format!("GET key-{n}")).expect("an answer");
        assert_eq!(value, Reply::bulk(format!("value-{n}")));
    }
    cluster.wait_same(LONG);
    assert_eq!(cluster.terminate(2).code(), Some(0));
    cluster.run(2);
    cluster.wait_whole(LONG);
    assert_eq!(cluster.log(2).matches("torn=Some").count(), 1, "it was repaired the first time");
}

#[test]
fn a_flipped_bit_in_the_log_is_named_and_nothing_is_cut() {
    // The story: a bit rots in the middle of the log of a stopped node. What stands behind it was
    // acknowledged: to cut there, as if it were a torn tail, would lose it silently.
    let mut cluster = stopped();
    let data = cluster.data(1);
    let (path, end) = end_of_log(&cluster, 1);
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).expect("the segment");
    let name = path.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
    // In the second half of what is used, on a byte that is not padding.
    let bytes = fs::read(&path).expect("the segment");
    let at = (end / 2..end - 2048).find(|at| bytes[*at] != 0).expect("something in the middle");
    file.write_all_at(&[bytes[at] ^ 0x10], at as u64).expect("the bit is flipped");
    let before = Snapshot::of(&data.join("log"));
    let ended = cluster.try_start(1, &[]);
    assert_refused(&ended, 3, &["damaged", &name, "at byte", "nothing was changed"]);
    before.assert_unchanged(&data.join("log"));
    let offset: usize = ended
        .said
        .split("at byte ")
        .nth(1)
        .and_then(|rest| rest.split(':').next())
        .and_then(|digits| digits.parse().ok())
        .expect("an offset");
    assert!(offset <= at && at - offset < 4096, "the flipped bit is at {at}, the message says {offset}");

    file.write_all_at(&bytes[at..=at], at as u64).expect("the bit is flipped back");
    assert_intact(&mut cluster);
}

#[test]
fn garbage_on_the_peer_port_disturbs_nobody() {
    // The story: a port scanner, a browser and a lost file transfer find the peer port.
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    let leads = cluster.leads().expect("the nodes' status");
    let rounds: BTreeMap<u32, u64> =
        cluster.status(1).expect("a status").groups.iter().map(|g| (g.group, g.round)).collect();
    let memory = cluster.resident(1);
    let noise: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let huge = [&u32::MAX.to_le_bytes()[..], &noise[..64]].concat();
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    for bytes in [&noise, &huge, &http, &b"*1\r\n$4\r\nPING\r\n".to_vec(), &vec![0; 4096]] {
        let mut stranger = TcpStream::connect(cluster.ports().peer(1)).expect("the peer port");
        stranger.set_read_timeout(Some(LONG)).expect("a limit");
        stranger.set_write_timeout(Some(LONG)).expect("a limit");
        // The node may hang up before all is sent.
        let _ = stranger.write_all(bytes);
        let mut rest = Vec::new();
        let end = stranger.read_to_end(&mut rest);
        let hung_up = end.as_ref().err().is_none_or(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(hung_up, "the stranger was neither dropped nor answered: {end:?}");
        assert_eq!(cluster.client(1).say("PUT k v").expect("an answer"), Reply::ok());
    }
    // A hundred that connect and say nothing.
    let silent: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(cluster.ports().peer(1)).expect("the peer port")).collect();
    assert_eq!(cluster.client(2).say("GET k").expect("an answer"), Reply::bulk("v"));
    drop(silent);
    assert_eq!(cluster.leads().expect("the nodes' status"), leads, "nobody lost a leadership");
    let after: BTreeMap<u32, u64> =
        cluster.status(1).expect("a status").groups.iter().map(|g| (g.group, g.round)).collect();
    assert_eq!(after, rounds, "no election took place");
    let grown = cluster.resident(1).saturating_sub(memory);
    assert!(grown < 32 << 20, "memory grew by {grown} bytes");
    let log = cluster.log(1);
    let told = log.lines().filter(|line| line.contains("WARN") && line.contains("127.0.0.1")).count();
    assert!((1..=10).contains(&told), "{told} warnings about strangers:\n{log}");
}
