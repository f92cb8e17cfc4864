//! What `pelago admin` does with real processes: a healthy cluster agrees, a bit that flips in
//! the log of a running node is named, a checkpoint leaves little to replay.

mod cluster;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::time::Duration;

use cluster::{Cluster, Recipe, Reply, turn, within};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(20);

/// What fits segments of a megabyte.
const SMALL: &str = "[paxos]\nmax_batch_bytes = \"128KiB\"\n\n[limits]\nmax_value = \"128KiB\"";

/// What `pelago admin` said: exit code, stdout, stderr.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn admin(cluster: &Cluster, words: &[&str]) -> Said {
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pelago"));
    command.arg("admin").args(words).arg("--addr").arg(addresses.join(",")).env("NO_COLOR", "1");
    let output = command.output().expect("pelago runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn document(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {}{}", said.out, said.err))
}

/// Writes so many values of a few kilobytes through node 1.
fn fill(cluster: &Cluster, from: u32, count: u32) {
    let mut client = cluster.client(1);
    for n in from..from + count {
        let words = [b"PUT".to_vec(), format!("key-{n}").into_bytes(), vec![b'a' + (n % 26) as u8; 8 << 10]];
        within(LONG, &format!("key-{n} is put"), || {
            client.send(&words).map_err(|e| e.to_string())?;
            match client.receive() {
                Ok(reply) if reply == Reply::ok() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

fn replayed(cluster: &Cluster, node: u32) -> u64 {
    let log = cluster.log(node);
    let line = log.lines().rfind(|line| line.contains("log opened")).expect("the line of the opening");
    let word = line.split_whitespace().find_map(|word| word.strip_prefix("replayed="));
    word.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("nothing replayed in {line}"))
}

#[test]
fn a_healthy_cluster_agrees_and_a_flipped_bit_in_a_running_log_is_named() {
    let _turn = turn();
    let mut cluster =
        Cluster::start(Recipe { groups: 4, segment_size: "1MiB", more: SMALL, ..Recipe::default() });
    // Two segments and a part of a third: the log is not shortened yet.
    fill(&cluster, 0, 300);
    cluster.wait_same(LONG);

    let said = admin(&cluster, &["verify"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("all agree: 4 groups on 3 nodes"), "{}", said.out);
    let said = admin(&cluster, &["verify", "--json"]);
    let found = document(&said);
    assert_eq!((&found["agree"], &found["complete"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(found["groups"].as_array().map(Vec::len), Some(4));
    for log in found["logs"].as_array().expect("logs") {
        assert!(log["segments"].as_u64() >= Some(2) && log["bytes"].as_u64() > Some(1 << 20), "{log}");
    }

    // The middle of a value in the first segment, long synced.
    let path = cluster.data(2).join("log").join("log-0000000000000001.seg");
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("the segment");
    let offset = 400_000;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read");
    byte[0] ^= 4;
    file.write_all_at(&byte, offset).expect("written");
    drop(file);

    let said = admin(&cluster, &["verify", "--json"]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    let found = document(&said);
    assert_eq!(found["agree"], Value::Bool(false));
    assert_eq!(found["groups"].as_array().map(Vec::len), Some(4), "the states agree all the same");
    let log = found["logs"].as_array().expect("logs").iter().find(|log| log["node"] == 2).expect("node 2");
    let finding = &log["findings"][0];
    assert_eq!(finding["file"].as_str(), path.to_str());
    let named = finding["offset"].as_u64().expect("an offset");
    assert!((offset - (16 << 10)..=offset).contains(&named), "{finding}");
    let wrong = found["wrong"].as_array().expect("sentences");
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].as_str().is_some_and(|text| text.contains(&path.display().to_string())), "{wrong:?}");

    // The node serves on, gets rid of the segment by itself, and then nothing is wrong any more.
    let mut client = cluster.client(2);
    assert_eq!(client.say("GET key-0").expect("an answer"), Reply::bulk(vec![b'a'; 8 << 10]));
    cluster.led().expect("every group is led");
    within(LONG, "the damaged segment is dropped", || match path.exists() {
        true => Err(format!("{:?}", cluster.status(2).map(|status| (status.log.held, status.alarms)))),
        false => Ok(()),
    });
    within(LONG, "the alarm is gone", || match cluster.status(2) {
        Ok(status) if status.alarms.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(cluster.log(2).contains("is healed: the segment was dropped"));
    // What was healed since the last pass is told once more, and then no more.
    admin(&cluster, &["verify"]);
    let said = admin(&cluster, &["verify"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    cluster.kill(2);
    cluster.run(2);
    cluster.wait_same(LONG);
    assert!(!cluster.data(2).join("aside").exists(), "nothing was put aside: the log is whole");
    assert_eq!(cluster.client(2).say("GET key-0").expect("an answer"), Reply::bulk(vec![b'a'; 8 << 10]));
}

#[test]
fn a_checkpoint_on_demand_leaves_almost_nothing_to_replay() {
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe { groups: 4, ..Recipe::default() });
    fill(&cluster, 0, 400);
    cluster.wait_same(LONG);
    // So little is not worth a fold by itself: all of it would be replayed.
    let before = cluster.status(3).expect("a status");
    assert!(before.groups.iter().all(|group| group.mirrored == 0), "{:?}", before.groups);
    fill(&cluster, 400, 100);
    cluster.wait_same(LONG);
    let said = admin(&cluster, &["checkpoint", "--json"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let found = document(&said);
    assert_eq!(found["complete"], Value::Bool(true));
    let lines = found["checkpoints"].as_array().expect("checkpoints");
    assert_eq!(lines.len(), 12, "four groups on three nodes");
    assert!(lines.iter().all(|line| line["instance"].as_u64() > Some(50)), "{lines:?}");
    cluster.kill(3);
    cluster.run(3);
    cluster.wait_whole(LONG);
    let with = replayed(&cluster, 3);
    assert!(with <= 20, "{with} replayed behind a checkpoint");
    let after = cluster.status(3).expect("a status");
    assert!(after.groups.iter().all(|group| group.checkpoint > 50), "{:?}", after.groups);

    // One group only, and one that is not there.
    let said = admin(&cluster, &["checkpoint", "--group", "2"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("1 group on 3 nodes"), "{}", said.out);
    let said = admin(&cluster, &["checkpoint", "--group", "9"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("groups 0 to 3") && said.err.contains("nothing was changed"), "{}", said.err);

    // A node that is away cannot be verified, and nothing is wrong.
    cluster.kill(3);
    let said = admin(&cluster, &["verify"]);
    assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
    assert!(said.out.contains("not asked: node 3"), "{}", said.out);
    assert!(fs::read_dir(cluster.data(1).join("checkpoint")).is_ok());
}
