//! Disks that come back empty, damaged or as an older copy of themselves: the node becomes a voter
//! again by itself, and never votes with a memory that it has lost.

mod cluster;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use cluster::{Cluster, Load, Plan, Recipe, Reply, copy, turn, until, within};
use server::node::memory;
use server::status::NodeStatus;

/// For whatever takes no more than a start, an election or a few megabytes.
const LONG: Duration = Duration::from_secs(30);

const KEYS: u32 = 64;

fn recipe() -> Recipe {
    Recipe {
        groups: 6,
        segment_size: "1MiB",
        more: "[limits]\nmax_value = \"64KiB\"\n\n[paxos]\nmax_batch_bytes = \"64KiB\"\n",
        ..Recipe::default()
    }
}

fn put_all(cluster: &Cluster, node: u32, round: u32) {
    let mut client = cluster.client(node);
    for n in 0..KEYS {
        within(LONG, &format!("key-{n} is written"), || {
            match client.say(&format!("PUT key-{n} {round}/{n}")) {
                Ok(reply) if reply == Reply::ok() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

fn find_all(cluster: &Cluster, node: u32, round: u32) {
    let mut client = cluster.client(node);
    for n in 0..KEYS {
        let (reply, _) =
            within(LONG, &format!("key-{n} is read"), || match client.say(&format!("GET key-{n}")) {
                Ok(Reply::Error(text)) => Err(text),
                other => other.map_err(|e| e.to_string()),
            });
        assert_eq!(reply, Reply::bulk(format!("{round}/{n}")), "key-{n} through node {node}");
    }
}

fn status(cluster: &Cluster, node: u32) -> NodeStatus {
    within(LONG, &format!("node {node} says how it is"), || cluster.status(node)).0
}

/// Waits until the disk of `node` is a member of every group and has everything.
fn wait_voter(cluster: &Cluster, node: u32) -> Duration {
    let (_, took) = within(LONG, &format!("node {node} is a voter in every group"), || {
        let now = cluster.status(node)?;
        let missing = now.groups.iter().find(|group| !group.votes || group.rebuilding);
        missing.map_or(Ok(()), |group| Err(format!("group {}: {:?}", group.group, now.alarms)))
    });
    cluster.wait_whole(LONG);
    took
}

/// What one client of a node is told for writes and reads while nobody may answer.
fn assert_stalled(cluster: &Cluster, node: u32) {
    let mut client = cluster.client(node);
    // What is in doubt may be applied later: it is written to a key of its own.
    for line in ["PUT doubt x", "GET key-1"] {
        let reply = client.say(line).expect("an answer");
        let class = reply.error_class();
        assert!(matches!(class, Some("CLUSTERDOWN" | "TRYAGAIN" | "INDOUBT")), "{line}: {reply:?}");
    }
}

#[test]
fn an_empty_machine_takes_the_place_of_another_under_load() {
    // The story: a disk dies under load. The machine is started again with an empty one, and nothing
    // else is done. Afterwards its vote is needed, and it has everything.
    let _turn = turn();
    let mut cluster = Cluster::start(recipe());
    put_all(&cluster, 1, 1);
    let old = status(&cluster, 3);
    let load = Load::start(cluster.addresses(), Plan::default());
    load.wait_written(5, LONG);
    cluster.kill(3);
    fs::remove_dir_all(cluster.data(3)).expect("the data of node 3 is removed");
    load.wait_written(3, LONG);
    cluster.run(3);
    let took = wait_voter(&cluster, 3);
    load.wait_written(3, LONG);
    let now = status(&cluster, 3);
    assert_ne!(now.storage, old.storage);
    assert_eq!(now.cluster, old.cluster);
    assert!(now.boot > old.boot, "no life of the old disk comes back");
    assert_eq!(now.alarms, Vec::<String>::new());
    // The new disk's vote is needed now.
    cluster.kill(1);
    cluster.wait_led(LONG);
    load.wait_written(3, LONG);
    cluster.run(1);
    cluster.wait_whole(LONG);
    let mut harvest = load.stop();
    cluster.wait_same(LONG);
    find_all(&cluster, 3, 1);
    harvest.read_everything();
    println!("a voter in all groups {took:?} after its start; judged: {} operations", harvest.judge());
}

#[test]
fn without_a_majority_of_the_old_disks_nothing_is_answered() {
    // The story: one machine has lost its disk, and another one is down. An empty disk does not stand
    // in for what a majority has promised: the cluster stalls, says why, and goes on when the other
    // machine is back.
    let _turn = turn();
    let mut cluster = Cluster::start(recipe());
    put_all(&cluster, 1, 1);
    cluster.kill(3);
    cluster.kill(2);
    fs::remove_dir_all(cluster.data(3)).expect("the data of node 3 is removed");
    cluster.run(3);
    cluster.wait_logged(3, "joins as a replacement once 2 other nodes are heard", LONG);
    assert_stalled(&cluster, 1);
    let reply = cluster.client(3).receive().expect("a line");
    assert_eq!(reply.error_class(), Some("CLUSTERDOWN"), "{reply:?}");
    cluster.run(2);
    wait_voter(&cluster, 3);
    for node in cluster.nodes() {
        find_all(&cluster, node, 1);
    }

    // Two of three disks are lost for good: nobody can vouch for the rest, and it waits.
    cluster.kill(1);
    cluster.kill(2);
    for node in [1, 2] {
        fs::remove_dir_all(cluster.data(node)).expect("the data is removed");
        cluster.run(node);
    }
    cluster.wait_logged(1, "without a majority of the old disks nobody can vouch for the data", LONG);
    assert_stalled(&cluster, 3);
}

#[test]
fn an_older_copy_of_a_disk_does_not_vote() {
    // The story: a machine is put back from a snapshot. It has forgotten what it promised since, and
    // so it must not vote as if it knew. First while the others run; then after all were stopped,
    // when only what they wrote down can tell.
    let _turn = turn();
    let mut cluster = Cluster::start(recipe());
    put_all(&cluster, 1, 1);
    for all in [false, true] {
        let round = 2 + u32::from(all);
        let before = status(&cluster, 3);
        assert_eq!(cluster.terminate(3).code(), Some(0));
        let snapshot = cluster.dir().join(format!("snapshot-{round}"));
        copy(&cluster.data(3), &snapshot);
        cluster.run(3);
        cluster.wait_whole(LONG);
        let known = |node: u32| {
            let bytes = fs::read(cluster.data(node).join(memory::FILE)).unwrap_or_default();
            let peers = memory::decode(&bytes).unwrap_or_default();
            peers.into_iter().find(|(n, _)| n.0 == 3).map(|(_, m)| m.commit)
        };
        let earlier: Vec<_> = [1, 2].map(known).into();
        put_all(&cluster, 3, round);
        for (node, earlier) in [1, 2].into_iter().zip(earlier) {
            until(LONG, "what node 3 has done since is written down", || known(node) > earlier);
        }
        let nodes = if all { cluster.nodes() } else { vec![3] };
        for node in &nodes {
            assert_eq!(cluster.terminate(*node).code(), Some(0));
        }
        fs::remove_dir_all(cluster.data(3)).expect("the data of node 3 is removed");
        copy(&snapshot, &cluster.data(3));
        let told = cluster.log(3).matches("the data directory was put back from an older copy").count();
        for node in &nodes {
            cluster.run(*node);
        }
        until(LONG, "node 3 hears that it has forgotten something", || {
            cluster.log(3).matches("the data directory was put back from an older copy").count() > told
        });
        wait_voter(&cluster, 3);
        let now = status(&cluster, 3);
        assert_ne!(now.storage, before.storage, "it goes on as another disk");
        assert!(
            now.alarms.iter().any(|text| text.contains("older copy") && text.contains("aside")),
            "{:?}",
            now.alarms
        );
        find_all(&cluster, 3, round);
        cluster.wait_same(LONG);
    }
    // Its vote counts again.
    cluster.kill(2);
    cluster.wait_led(LONG);
    put_all(&cluster, 1, 9);
    find_all(&cluster, 3, 9);
}

#[test]
fn a_damaged_log_or_manifest_heals() {
    // The story: bits rot in what a stopped node needs to know, or files are gone. It names file and
    // place, puts what is left aside, learns everything again and is taken in.
    let _turn = turn();
    let mut cluster = Cluster::start(recipe());
    put_all(&cluster, 1, 1);
    let log = cluster.data(2).join("log");
    let manifest = cluster.data(2).join("NODE");
    let mut round = 1;
    for what in ["a bit of the log", "a bit of the manifest", "no manifest", "no log"] {
        round += 1;
        put_all(&cluster, 2, round);
        assert_eq!(cluster.terminate(2).code(), Some(0));
        let expected = match what {
            "a bit of the log" => {
                let (path, bytes) = fs::read_dir(&log)
                    .expect("the log")
                    .map(|entry| entry.expect("an entry").path())
                    .map(|path| (path.clone(), fs::read(path).expect("a file")))
                    .find(|(_, bytes)| bytes.len() >= 1 << 20 && bytes[512..].iter().any(|byte| *byte != 0))
                    .expect("a segment in use");
                let end = bytes.iter().rposition(|byte| *byte != 0).expect("something");
                let at = (end / 3..end - 2048).find(|at| bytes[*at] != 0).expect("something in the middle");
                let file = fs::OpenOptions::new().write(true).open(&path).expect("the segment");
                file.write_all_at(&[bytes[at] ^ 1], at as u64).expect("a bit is flipped");
                path.file_name().expect("a name").to_str().expect("UTF-8").to_owned() + " at byte"
            }
            "a bit of the manifest" => {
                let mut bytes = fs::read(&manifest).expect("the manifest");
                bytes[40] ^= 1;
                fs::write(&manifest, bytes).expect("a bit is flipped");
                "the node's manifest (NODE) is damaged".to_owned()
            }
            "no manifest" => {
                fs::remove_file(&manifest).expect("the manifest is removed");
                "joins as a replacement".to_owned()
            }
            _ => {
                fs::remove_dir_all(&log).expect("the log is removed");
                "the log of this node is gone".to_owned()
            }
        };
        let before = cluster.log(2).len();
        cluster.run(2);
        let took = wait_voter(&cluster, 2);
        let said = cluster.log(2)[before..].to_owned();
        if what != "no manifest" {
            assert!(said.contains(&expected), "{what}: {expected:?} is missing in {said}");
            let alarms = status(&cluster, 2).alarms;
            assert!(
                alarms.iter().any(|text| text.contains(&expected) && text.contains("aside")),
                "{alarms:?}"
            );
        }
        find_all(&cluster, 2, round);
        cluster.wait_same(LONG);
        println!("{what}: a voter in all groups again after {took:?}");
        // It is needed, and has everything.
        cluster.kill(3);
        cluster.wait_led(LONG);
        put_all(&cluster, 2, round + 100);
        find_all(&cluster, 1, round + 100);
        cluster.run(3);
        cluster.wait_whole(LONG);
    }
}

#[test]
fn a_disk_that_was_replaced_is_not_let_back_in() {
    // The story: the old disk turns out to be sound after all, and is started again in the place of
    // the one that the cluster has taken in for it.
    let _turn = turn();
    let mut cluster = Cluster::start(recipe());
    put_all(&cluster, 1, 1);
    assert_eq!(cluster.terminate(3).code(), Some(0));
    let old = cluster.dir().join("old");
    fs::rename(cluster.data(3), &old).expect("the old disk is taken out");
    cluster.run(3);
    wait_voter(&cluster, 3);
    let new = status(&cluster, 3).storage;
    assert_eq!(cluster.terminate(3).code(), Some(0));
    let kept = cluster.dir().join("new");
    fs::rename(cluster.data(3), &kept).expect("the new disk is taken out");
    copy(&old, &cluster.data(3));
    let ended = cluster.try_start(3, &[]);
    assert_eq!(ended.code, Some(3), "{}", ended.said);
    for words in ["have heard of another disk", &new, "belongs to it no more"] {
        assert!(ended.said.contains(words), "{words:?} is missing in {}", ended.said);
    }
    fs::remove_dir_all(cluster.data(3)).expect("the old disk is taken out");
    fs::rename(kept, cluster.data(3)).expect("the new disk is put back");
    cluster.run(3);
    cluster.wait_whole(LONG);
    find_all(&cluster, 3, 1);
}
