//! The mirror checkpoint of real processes: the log stays short, nodes that missed too much fetch
//! a checkpoint, and whatever becomes of a mirror, nothing is lost and nothing wrong is served.

mod cluster;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::{Cluster, Recipe, Reply, Snapshot, turn, within};
use server::status::NodeStatus;

/// For whatever takes no more than a start, an election or a few megabytes.
const LONG: Duration = Duration::from_secs(20);

/// For what moves tens of megabytes on a busy machine.
const VERY_LONG: Duration = Duration::from_secs(60);

const MIB: u64 = 1 << 20;

/// `log_keep_bytes` of all of these clusters; a segment has 1 MiB.
const KEEP: u64 = 4 * MIB;

/// A cluster whose log is shortened all the time, with more lines under `[checkpoint]`.
fn recipe(checkpoint: &str) -> Recipe {
    let more = format!(
        "[paxos]\nmax_batch_bytes = \"128KiB\"\n\n[limits]\nmax_value = \"128KiB\"\n\n\
         [checkpoint]\nlog_keep_bytes = \"4MiB\"\n{checkpoint}\n"
    );
    // A handful of small texts, for as long as the test process lives.
    Recipe { groups: 6, segment_size: "1MiB", more: more.leak(), ..Recipe::default() }
}

/// Keys that are overwritten together, round after round.
#[derive(Clone, Copy)]
struct Data {
    keys: u32,
    size: usize,
}

/// Two megabytes, enough keys to meet every group.
const SMALL: Data = Data { keys: 256, size: 8 << 10 };

/// Requests on their way at a time.
const PIPELINE: usize = 32;

fn key(n: u32) -> Vec<u8> {
    format!("key-{n}").into_bytes()
}

impl Data {
    fn bytes(self) -> u64 {
        u64::from(self.keys) * self.size as u64
    }

    /// A value that says which it is, followed by noise.
    fn value(self, n: u32, round: u32) -> Vec<u8> {
        let mut value = format!("{round}/{n}/").into_bytes();
        let mut noise = u64::from(round) << 32 | u64::from(n) | 1 << 63;
        while value.len() < self.size {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            value.extend_from_slice(&noise.to_be_bytes());
        }
        value.truncate(self.size);
        value
    }

    /// Overwrites every key through `node`. What was refused or is in doubt is sent again: the
    /// same put twice is the same.
    fn put(self, cluster: &Cluster, node: u32, round: u32) {
        let request = |n| vec![b"PUT".to_vec(), key(n), self.value(n, round)];
        self.ask(cluster, node, request, |n, reply| {
            assert_eq!(reply, Reply::ok(), "put of key-{n} through node {node}");
        });
    }

    /// Finds every key as round `round` left it, through `node`.
    fn find(self, cluster: &Cluster, node: u32, round: u32) {
        let request = |n| vec![b"GET".to_vec(), key(n)];
        self.ask(cluster, node, request, |n, reply| {
            assert!(
                reply == Reply::bulk(self.value(n, round)),
                "key-{n} through node {node}: {}",
                show(&reply)
            );
        });
    }

    /// Sends one request per key, until each has an answer other than to try again.
    fn ask(
        self,
        cluster: &Cluster,
        node: u32,
        request: impl Fn(u32) -> Vec<Vec<u8>>,
        mut check: impl FnMut(u32, Reply),
    ) {
        let mut client = cluster.client(node);
        let mut open: Vec<u32> = (0..self.keys).collect();
        within(VERY_LONG, &format!("node {node} answers everything"), || {
            let mut refused = BTreeMap::new();
            let mut again = Vec::new();
            for part in open.chunks(PIPELINE) {
                for n in part {
                    client.send(&request(*n)).expect("a request is sent");
                }
                for n in part {
                    let reply = client.receive().expect("an answer");
                    match reply.error_class() {
                        Some("TRYAGAIN" | "CLUSTERDOWN" | "BUSY" | "INDOUBT") => {
                            again.push(*n);
                            *refused.entry(show(&reply)).or_insert(0) += 1;
                        }
                        _ => check(*n, reply),
                    }
                }
            }
            open = again;
            if open.is_empty() { Ok(()) } else { Err(format!("{refused:?}")) }
        });
    }
}

/// The beginning of a reply: a value is long.
fn show(reply: &Reply) -> String {
    let text = match reply {
        Reply::Bulk(Some(bytes)) => format!("a value {:?}", String::from_utf8_lossy(bytes)),
        other => format!("{other:?}"),
    };
    text.chars().take(60).collect()
}

fn status(cluster: &Cluster, node: u32) -> NodeStatus {
    within(LONG, &format!("node {node} says how it is"), || cluster.status(node)).0
}

/// Waits until every node has everything, and says so: no checkpoint on its way, no group that
/// waits for one.
fn wait_settled(cluster: &Cluster) {
    cluster.wait_whole(LONG);
    cluster.wait_same(VERY_LONG);
    for node in cluster.running() {
        within(LONG, &format!("node {node} has nothing on its way"), || {
            let now = cluster.status(node)?;
            match now.groups.iter().find(|group| group.rebuilding) {
                Some(group) => Err(format!("group {} is rebuilding", group.group)),
                None if !now.transfers.is_empty() => Err(format!("{:?}", now.transfers)),
                None => Ok(()),
            }
        });
    }
}

/// Waits until every group has a durable checkpoint on every node: one that has just been fetched
/// or built anew takes a moment.
fn wait_checkpoints(cluster: &Cluster) {
    for node in cluster.running() {
        within(LONG, &format!("node {node} has a checkpoint of every group"), || {
            let now = cluster.status(node)?;
            let ahead = now.groups.iter().find(|group| group.checkpoint > group.mirrored);
            assert!(ahead.is_none(), "durable and not there: {ahead:?}");
            match now.groups.iter().find(|group| group.checkpoint == 0) {
                Some(group) => Err(format!("{group:?}")),
                None => Ok(()),
            }
        });
    }
}

/// The alarms of all nodes.
fn alarms(cluster: &Cluster) -> Vec<String> {
    cluster.running().into_iter().flat_map(|node| status(cluster, node).alarms).collect()
}

/// Writes rounds from `round` on, `least` bytes or more, until each of `nodes` has dropped every
/// segment that it has now; returns the last round.
fn write_beyond(cluster: &Cluster, data: Data, nodes: &[u32], round: u32, least: u64) -> u32 {
    let goals: Vec<(u32, u64)> = nodes
        .iter()
        .map(|&node| (node, status(cluster, node).log))
        .map(|(node, log)| (node, log.dropped_segments + log.segments + 1))
        .collect();
    let mut written = 0;
    for round in round..round + 200 {
        data.put(cluster, nodes[0], round);
        written += data.bytes();
        let beyond = goals.iter().all(|&(node, goal)| status(cluster, node).log.dropped_segments >= goal);
        if beyond && written >= least {
            return round;
        }
    }
    panic!("{written} bytes were not enough to drop {goals:?}")
}

/// A number of a node's last line "log opened".
fn opened(cluster: &Cluster, node: u32, name: &str) -> u64 {
    let log = cluster.log(node);
    let line = log.lines().rfind(|line| line.contains("log opened")).expect("the line of the opening");
    let word = line.split_whitespace().find_map(|word| word.strip_prefix(&format!("{name}=")));
    word.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// The story of a cluster that overwrites the same keys for a long time.
fn overwritten_again_and_again(checkpoint: &str) {
    let _turn = turn();
    let mut cluster = Cluster::start(recipe(checkpoint));
    let (phases, each) = (4, 6);
    let rounds = phases * each;
    let written = u64::from(rounds) * SMALL.bytes();
    assert!(written >= 8 * KEEP);
    let mut most = 0;
    for phase in 0..phases {
        for round in phase * each + 1..=(phase + 1) * each {
            SMALL.put(&cluster, round % 3 + 1, round);
            let logs = cluster.nodes().into_iter().map(|node| status(&cluster, node).log.disk_bytes);
            most = logs.fold(most, u64::max);
        }
        // How far the log gets ahead of its shortening depends on the machine, but not for long.
        for node in cluster.nodes() {
            within(LONG, "the log is as short as it was told to be", || match status(&cluster, node).log {
                log if log.disk_bytes <= KEEP + MIB => Ok(()),
                log => Err(format!("{log:?}")),
            });
        }
    }
    for node in cluster.nodes() {
        let now = status(&cluster, node);
        assert!((now.log.dropped_segments + 5) * MIB >= written, "{:?}", now.log);
    }
    wait_settled(&cluster);
    wait_checkpoints(&cluster);
    assert_eq!(alarms(&cluster), Vec::<String>::new());

    // Nobody has anything in memory now that another one could be asked for.
    let records: BTreeMap<u32, u64> =
        cluster.nodes().into_iter().map(|node| (node, status(&cluster, node).log.records)).collect();
    cluster.kill_all();
    for node in cluster.nodes() {
        cluster.run(node);
    }
    wait_settled(&cluster);
    wait_checkpoints(&cluster);
    for node in cluster.nodes() {
        SMALL.find(&cluster, node, rounds);
        let read = opened(&cluster, node, "records");
        assert!(read * 2 < records[&node], "node {node} read {read} of {} records", records[&node]);
    }
    assert_eq!(alarms(&cluster), Vec::<String>::new());
    println!(
        "{written} bytes written, at most {most} in the log; records {records:?}; node 1 read {} of them in {} ms",
        opened(&cluster, 1, "records"),
        opened(&cluster, 1, "took_ms")
    );

    // And it goes on from there.
    SMALL.put(&cluster, 2, rounds + 1);
    SMALL.find(&cluster, 3, rounds + 1);
    wait_settled(&cluster);
}

#[test]
fn the_log_stays_short_and_a_restart_reads_what_is_behind_the_mirror() {
    // The story: the same keys are overwritten for a long time. The log is shortened behind the
    // mirrors, again and again, and when the power of the whole room fails, the mirrors and the
    // short logs are all there is.
    overwritten_again_and_again("");
}

#[test]
fn the_other_engine_does_the_same() {
    overwritten_again_and_again("engine = \"sled\"");
}

#[test]
fn a_report_never_pairs_a_state_with_the_checksum_of_another() {
    // The story: the gate saw two nodes that stood at one instance with one state and different
    // checksums. One of the two had been asked between a frame and the end of its turn: its chosen
    // prefix had moved, its state had not, and it reported a checksum of zero.
    let _turn = turn();
    let cluster = Cluster::start(recipe(""));
    let done = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                for node in cluster.nodes() {
                    for group in status(&cluster, node).groups {
                        let empty = group.chain.bytes().all(|digit| digit == b'0');
                        assert!(!empty || group.applied == 0 || group.rebuilding, "node {node}: {group:?}");
                    }
                    asked += 1;
                }
            }
            asked
        });
        for round in 1..=12 {
            // A panic of the other thread ends it, and shows when it is joined.
            if asking.is_finished() {
                break;
            }
            SMALL.put(&cluster, round % 3 + 1, round);
        }
        done.store(true, Ordering::Relaxed);
        asking.join().expect("every report makes sense")
    });
    println!("{asked} reports");
}

#[test]
fn a_node_that_missed_too_much_gets_a_checkpoint() {
    // The story: a node is down while the logs of the others are shortened beyond what it needs.
    let _turn = turn();
    let mut cluster = Cluster::start(recipe(""));
    SMALL.put(&cluster, 1, 1);
    cluster.kill(3);
    cluster.wait_led(LONG);
    // Values are also kept in memory, 4 MiB of each group.
    let last = write_beyond(&cluster, SMALL, &[1, 2], 2, 60 * MIB);
    cluster.run(3);
    wait_settled(&cluster);
    let installed = cluster.log(3).matches("a checkpoint from a peer was verified").count();
    assert!(installed >= 6, "{installed} of 6 groups were fetched");
    SMALL.find(&cluster, 3, last);
    assert_eq!(alarms(&cluster), Vec::<String>::new());
    // What it fetched is a checkpoint of its own: it survives, and carries a majority.
    cluster.kill_all();
    cluster.run(3);
    cluster.run(2);
    cluster.wait_led(LONG);
    SMALL.find(&cluster, 3, last);
    SMALL.put(&cluster, 3, last + 1);
    cluster.run(1);
    wait_settled(&cluster);
    SMALL.find(&cluster, 1, last + 1);
    println!("node 3 missed {} rounds of {} bytes and fetched {installed} groups", last - 1, SMALL.bytes());
}

#[test]
fn a_lost_mirror_is_fetched_from_a_peer() {
    // The story: somebody removes the folder `checkpoint` of a stopped node, because it looks like
    // a cache. The log behind it is short: only the peers have the state. And one of the two is
    // down, so that without the vote of the poor node nothing would go on.
    let _turn = turn();
    let mut cluster = Cluster::start(recipe("transfer_bytes_per_sec = \"1MiB\""));
    let nodes = cluster.nodes();
    let last = write_beyond(&cluster, SMALL, &nodes, 1, 0);
    wait_settled(&cluster);
    cluster.kill(2);
    fs::remove_dir_all(cluster.data(2).join("checkpoint")).expect("the mirror is removed");
    cluster.kill(1);
    cluster.run(2);
    let told = within(LONG, "node 2 says that its state is missing", || {
        let now = cluster.status(2)?;
        let group = now.groups.iter().find(|group| group.rebuilding);
        let group = group.ok_or_else(|| "no group is rebuilding".to_owned())?;
        let alarm = format!("the state of group {} is missing here", group.group);
        assert!(now.alarms.iter().any(|text| text.starts_with(&alarm)), "{:?}", now.alarms);
        assert_ne!(group.role, "leader", "a node without the state leads");
        let incoming = now.transfers.iter().find(|transfer| transfer.incoming && transfer.bytes > 0);
        incoming.cloned().ok_or_else(|| "no transfer has begun".to_owned())
    });
    // It votes, and reads through it are right, while it has nothing.
    SMALL.find(&cluster, 2, last);
    SMALL.put(&cluster, 2, last + 1);
    let rebuilding = status(&cluster, 2).groups.iter().filter(|group| group.rebuilding).count();
    assert!(rebuilding > 0, "the transfer was over before the reads were");
    SMALL.find(&cluster, 2, last + 1);
    cluster.run(1);
    wait_settled(&cluster);
    SMALL.find(&cluster, 2, last + 1);
    assert_eq!(alarms(&cluster), Vec::<String>::new());
    println!("{told:?}; {rebuilding} groups were still missing after the reads");
}

/// Files under a directory whose path ends like this, with their bytes, the largest first.
fn files(root: &Path, like: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_str().is_some_and(|name| name.contains(like)) {
                found.push((path.clone(), fs::read(&path).expect("a file")));
            }
        }
    }
    found.sort_by_key(|(path, bytes)| (std::cmp::Reverse(bytes.len()), path.clone()));
    found
}

/// Flips a bit of the largest file like this, at `part` eighths of what is used of it. Returns
/// what was done.
fn flip(root: &Path, like: &str, part: usize) -> String {
    let (path, bytes) = files(root, like).into_iter().next().expect("a file like this");
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let at = (used * part / 8).min(used.saturating_sub(1));
    let file = fs::OpenOptions::new().write(true).open(&path).expect("the file");
    file.write_all_at(&[bytes[at] ^ 0x04], at as u64).expect("the bit is flipped");
    format!("byte {at} of {used} of {}", path.display())
}

/// Puts rounds until the mirror of `node` has a table beside its journal.
fn write_until_table(cluster: &Cluster, data: Data, node: u32, round: u32) -> u32 {
    let checkpoint = cluster.data(node).join("checkpoint");
    let has = || {
        let tables = checkpoint.join("engine/keyspaces/1/tables");
        fs::read_dir(tables).is_ok_and(|mut tables| tables.next().is_some())
    };
    let mut round = round;
    while !has() {
        data.put(cluster, 1, round);
        round += 1;
        assert!(round < 300, "the mirror of node {node} never wrote a table");
    }
    round - 1
}

#[test]
fn a_flipped_bit_in_a_mirror_is_healed() {
    // The story: bits rot in the mirror of a stopped node, in one file after another. The log
    // behind it is short. It starts all the same, and from its first answer on it says nothing
    // that is not so.
    let _turn = turn();
    let mut cluster = Cluster::start(recipe(""));
    let nodes = cluster.nodes();
    let mut last = write_beyond(&cluster, SMALL, &nodes, 1, 0);
    last = write_until_table(&cluster, SMALL, 3, last + 1);
    wait_settled(&cluster);
    for node in cluster.nodes() {
        SMALL.find(&cluster, node, last);
    }
    let places = [
        // The table first: once it is moved away there is only a journal for a while.
        ("engine/keyspaces/1/tables/", 3),
        ("engine/0.jnl", 2),
        ("checkpoint/durable", 5),
        ("checkpoint/format", 4),
        (".jnl", 7),
        ("engine/keyspaces/1/current", 1),
        ("engine/version", 0),
    ];
    for (like, part) in places {
        cluster.terminate(3);
        let before = cluster.log(3).len();
        let flipped = flip(&cluster.data(3).join("checkpoint"), like, part);
        cluster.run(3);
        SMALL.find(&cluster, 3, last);
        wait_settled(&cluster);
        SMALL.find(&cluster, 3, last);
        SMALL.put(&cluster, 3, last + 1);
        last += 1;
        wait_settled(&cluster);
        let log = cluster.log(3)[before..].to_owned();
        let told: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
        println!("{flipped}: {} errors told, the first {:?}", told.len(), told.first());
        for alarm in status(&cluster, 3).alarms {
            assert!(alarm.contains("moved to") && alarm.contains("Check the disk"), "{alarm}");
        }
    }
    // The others never had anything to complain of.
    for node in [1, 2] {
        assert_eq!(status(&cluster, node).alarms, Vec::<String>::new());
        SMALL.find(&cluster, node, last);
    }
}

#[test]
fn a_mirror_that_ended_the_process_is_written_anew() {
    // The story: a block of a table is bad. A group whose entries lie in it is given up at the
    // start, and what it leaves behind is swept: the sweep reads the bad block, and a mirror that
    // fails ends the process, at every start again. So a store in which anything was found, at a
    // start or in the last life, is not gone on with: what is sound is written into a fresh one.
    let _turn = turn();
    let mut cluster = Cluster::start(recipe(""));
    let nodes = cluster.nodes();
    let last = write_beyond(&cluster, SMALL, &nodes, 1, 0);
    wait_settled(&cluster);
    // Nobody else is left to fetch anything from.
    for node in cluster.nodes() {
        cluster.terminate(node);
        let mirror = cluster.data(node).join("checkpoint");
        fs::write(mirror.join("failed"), "the engine met a bad block").expect("a note");
    }
    for node in cluster.nodes() {
        cluster.run(node);
    }
    wait_settled(&cluster);
    wait_checkpoints(&cluster);
    for node in cluster.nodes() {
        SMALL.find(&cluster, node, last);
        let now = status(&cluster, node);
        assert!(
            now.alarms.iter().any(|text| text.contains("the engine met a bad block")),
            "{:?}",
            now.alarms
        );
        assert!(!cluster.log(node).contains("a checkpoint from a peer"));
    }
    // It dies again before the fresh store is in its place.
    for node in cluster.nodes() {
        cluster.terminate(node);
        let mirror = cluster.data(node).join("checkpoint");
        fs::rename(&mirror, cluster.data(node).join("checkpoint.rebuilt")).expect("the mirror is renamed");
    }
    for node in cluster.nodes() {
        cluster.run(node);
    }
    wait_settled(&cluster);
    for node in cluster.nodes() {
        SMALL.find(&cluster, node, last);
    }
    assert_eq!(alarms(&cluster), Vec::<String>::new());
}

#[test]
fn another_engine_is_refused_and_the_advice_works() {
    // The story: somebody changes the engine in config.toml of a cluster that runs.
    let _turn = turn();
    let mut cluster = Cluster::start(recipe(""));
    let nodes = cluster.nodes();
    let last = write_beyond(&cluster, SMALL, &nodes, 1, 0);
    wait_settled(&cluster);
    assert_eq!(cluster.terminate(2).code(), Some(0));
    let mirror = cluster.data(2).join("checkpoint");
    let before = Snapshot::of(&mirror);
    let ended = cluster.try_start(2, &["--set", "checkpoint.engine=\"sled\""]);
    assert_eq!(ended.code, Some(3), "{}", ended.said);
    let advice = format!("mv {0} {0}.fjall", mirror.display());
    for words in ["was written by fjall", "Nothing was changed", "engine = \"fjall\"", &advice] {
        assert!(ended.said.contains(words), "{words:?} is missing in: {}", ended.said);
    }
    before.assert_unchanged(&mirror);

    // What it says, word for word.
    let moved = Command::new("sh").args(["-c", &advice]).status().expect("a shell");
    assert!(moved.success());
    cluster.run_with(2, &["--set", "checkpoint.engine=\"sled\""]);
    SMALL.find(&cluster, 2, last);
    wait_settled(&cluster);
    assert_eq!(alarms(&cluster), Vec::<String>::new());
    cluster.kill(1);
    cluster.wait_led(LONG);
    SMALL.find(&cluster, 2, last);
    SMALL.put(&cluster, 2, last + 1);
    cluster.run(1);
    wait_settled(&cluster);
    SMALL.find(&cluster, 1, last + 1);
}

/// Twenty-four megabytes.
const LARGE: Data = Data { keys: 1536, size: 16 << 10 };

#[test]
fn a_catch_up_survives_the_death_of_either_side() {
    // The story: a node that was away for long fetches its checkpoints, and while it does, now it
    // and now the node that sends them is killed.
    let _turn = turn();
    let mut cluster = Cluster::start(recipe("transfer_bytes_per_sec = \"3MiB\""));
    cluster.kill(3);
    cluster.wait_led(LONG);
    // What memory keeps must not be enough for any group.
    let last = write_beyond(&cluster, LARGE, &[1, 2], 1, 2 * LARGE.bytes());
    cluster.run(3);
    let mut deaths = Vec::new();
    for kill in 0..5 {
        let (transfer, _) = within(VERY_LONG, "a checkpoint is on its way", || {
            let now = cluster.status(3)?;
            let mut incoming = now.transfers.iter().filter(|t| t.incoming && t.bytes > 256 << 10);
            incoming.next().cloned().ok_or_else(|| {
                let behind: Vec<_> = now.groups.iter().map(|g| (g.group, g.applied, g.rebuilding)).collect();
                format!("{:?}; groups {behind:?}", now.transfers)
            })
        });
        let victim = if kill % 2 == 0 { 3 } else { transfer.peer };
        cluster.kill(victim);
        cluster.run(victim);
        deaths.push((victim, transfer.group, transfer.bytes));
    }
    wait_settled(&cluster);
    let installed = cluster.log(3).matches("a checkpoint from a peer was verified").count();
    LARGE.find(&cluster, 3, last);
    assert!(installed >= 1);
    assert_eq!(alarms(&cluster), Vec::<String>::new());
    println!("killed (node, while group, had bytes): {deaths:?}; {installed} checkpoints were installed");
}
