//! Whole nodes that come and go while the cluster serves, by `pelago admin`.

mod cluster;

use std::time::Duration;

use cluster::{Client, Cluster, Load, Plan, Recipe, Reply, turn, within};

/// For whatever takes no more than a start, an election or a few megabytes.
const LONG: Duration = Duration::from_secs(60);

/// `pelago admin member add|replace …` with the addresses of node `new`.
fn bring(cluster: &Cluster, words: &[&str], new: u32, through: u32) -> String {
    let (peer, client) = (cluster.ports().peer(new).to_string(), cluster.ports().client(new).to_string());
    let admin = cluster.ports().admin(new).to_string();
    let places = ["--peer-addr", &peer, "--client-addr", &client, "--admin-addr", &admin];
    let words = [&["admin", "member"], words, &places].concat();
    let (code, said) = cluster.pelago(&words, through);
    assert_eq!(code, Some(0), "{words:?}: {said}");
    println!("{said}");
    said
}

fn take_off(cluster: &Cluster, node: u32, through: u32) -> String {
    let (code, said) = cluster.pelago(&["admin", "member", "remove", &node.to_string()], through);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("node {node} is off")), "{said}");
    println!("{said}");
    said
}

/// The members of every group by the word of its leader.
fn members(cluster: &Cluster) -> Result<Vec<Vec<u32>>, String> {
    let mut members = Vec::new();
    for node in cluster.running() {
        let status = cluster.status(node)?;
        members.extend(status.groups.into_iter().filter(|g| g.role == "leader").map(|g| g.members));
    }
    Ok(members)
}

#[test]
fn three_nodes_become_five_and_then_three_others_under_load() {
    // The story: a cluster moves to other machines while clients fight over few keys, and nothing that
    // they were told is taken back.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let load = Load::start(vec![cluster.ports().client(3)], Plan::default());
    load.wait_written(5, LONG);

    // Two machines more. One is started before the cluster has heard of it, and waits.
    cluster.list(5);
    cluster.run(4);
    bring(&cluster, &["add", "4"], 4, 1);
    load.wait_written(5, LONG);
    cluster.run(5);
    bring(&cluster, &["add", "5"], 5, 2);
    load.wait_written(5, LONG);
    load.next_chapter();
    let spread = members(&cluster).expect("all answer");
    assert_eq!(spread.len(), 16);
    for node in 1..=5 {
        let seats = spread.iter().filter(|m| m.contains(&node)).count();
        assert!((9..=10).contains(&seats), "node {node} has {seats} of 48 seats: {spread:?}");
    }

    // And two of the first three leave: the one through which nothing is asked, and one that is dead.
    take_off(&cluster, 1, 3);
    load.wait_written(5, LONG);
    cluster.kill(2);
    take_off(&cluster, 2, 4);
    load.wait_written(5, LONG);
    assert!(members(&cluster).expect("all answer").iter().all(|m| *m == [3, 4, 5]));

    // Whoever was taken off says so, and serves nothing.
    let mut client = cluster.client(1);
    within(LONG, "node 1 says that it is off", || match client.say("GET k") {
        Ok(Reply::Error(text)) if text.starts_with("CLUSTERDOWN node 1 was taken off") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.kill(1);

    // What was written before and meanwhile is there, also when one of the new ones dies.
    load.next_chapter();
    load.wait_written(5, LONG);
    cluster.kill(4);
    load.wait_written(5, LONG);
    cluster.run(4);
    let mut harvest = load.stop();
    cluster.wait_same(LONG);
    harvest.read_everything();
    let (any, one) = harvest.longest_gaps();
    println!(
        "{} acknowledged writes; longest gap without any {any:?}, of one group {one:?}; answers {:?}",
        harvest.writes(),
        harvest.answers
    );
    println!("judged linearizable: {} operations", harvest.judge());
}

#[test]
fn another_machine_takes_the_place_of_a_dead_one() {
    // The story: a machine burns. Another one takes its places, and the cluster tolerates the next loss.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe { groups: 6, ..Recipe::default() });
    let mut client = cluster.client(1);
    for n in 0..50 {
        let put = |client: &mut Client| client.say(&format!("PUT key-{n} {n}"));
        within(LONG, "a write", || put(&mut client).map_err(|e| e.to_string()).and_then(expect_ok));
    }
    cluster.kill(2);
    cluster.list(4);
    cluster.run(4);
    let said = bring(&cluster, &["replace", "2", "4"], 4, 3);
    assert!(said.contains("node 2 is off"), "{said}");
    cluster.kill(1);
    let mut client = cluster.client(4);
    for n in 0..50 {
        within(LONG, "a read of what was there before", || match client.say(&format!("GET key-{n}")) {
            Ok(reply) if reply == Reply::bulk(n.to_string()) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    // The burned machine comes back with everything that it had, and is let in nowhere.
    cluster.run(2);
    let mut old = cluster.client(2);
    for _ in 0..3 {
        match old.say("GET key-1") {
            Ok(Reply::Error(text)) => assert!(text.starts_with("CLUSTERDOWN"), "{text}"),
            other => panic!("a node that was taken off answers {other:?}"),
        }
    }
    within(LONG, "its log says why", || {
        let log = std::fs::read_to_string(cluster.dir().join("node-2.log")).map_err(|e| e.to_string())?;
        let told = log.contains("node 2 is not (or no longer) a member of this cluster");
        if told { Ok(()) } else { Err("nothing of the kind".to_owned()) }
    });
    cluster.run(1);
    within(LONG, "the others are whole", || {
        let status = cluster.status(3)?;
        let heard = status.nodes.iter().map(|n| (n.node, n.alive)).collect::<Vec<_>>();
        if heard == [(1, true), (3, true), (4, true)] { Ok(()) } else { Err(format!("{heard:?}")) }
    });
}

fn expect_ok(reply: Reply) -> Result<(), String> {
    if reply == Reply::ok() { Ok(()) } else { Err(format!("{reply:?}")) }
}

#[test]
fn leaderships_go_where_an_operator_wants_them_and_what_cannot_be_is_refused() {
    // The story: an operator tries things, some of which make no sense.
    let _turn = turn();
    let cluster = Cluster::start(Recipe { groups: 6, ..Recipe::default() });
    let leads =
        |node: u32| cluster.status(node).map(|s| s.groups.iter().filter(|g| g.role == "leader").count());
    let (code, said) = cluster.pelago(&["admin", "drain", "2"], 1);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(leads(2), Ok(0), "a drained node leads nothing");
    let (code, said) = cluster.pelago(&["admin", "drain", "2", "--undo"], 2);
    assert_eq!((code, leads(2)), (Some(0), Ok(2)), "{said}");
    let (code, said) = cluster.pelago(&["admin", "leader", "move", "0", "3"], 1);
    assert_eq!(code, Some(0), "{said}");
    let line = cluster.status(3).map(|s| s.groups[0].clone()).expect("a status");
    assert_eq!((line.role.as_str(), line.wanted.first()), ("leader", Some(&3)));

    let version = |through| {
        let (code, said) = cluster.pelago(&["admin", "member", "list", "--json"], through);
        assert_eq!(code, Some(0), "{said}");
        let list: server::status::RosterStatus = serde_json::from_str(&said).expect("a list");
        list.version
    };
    assert_eq!(version(1), 3);
    let (code, said) = cluster.pelago(&["admin", "member", "remove", "3", "--dry-run"], 1);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("6 groups then tolerate 0 lost nodes instead of 1"), "{said}");
    assert!(said.contains("Nothing was changed"), "{said}");
    let places = ["--peer-addr", "127.0.0.1:1", "--client-addr", "127.0.0.1:2"];
    for (words, why) in [
        (&["member", "remove", "9"][..], "the cluster has no node 9; it has 1, 2 and 3. Nothing was changed"),
        (&["leader", "move", "6", "1"], "there is no group 6; the last one is 5. Nothing was changed"),
        (&["drain", "0"], "a node is a number from 1 on; nothing was changed"),
    ] {
        let (code, said) = cluster.pelago(&[&["admin"], words].concat(), 1);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let (code, said) = cluster.pelago(&[&["admin", "member", "add", "3"], &places[..]].concat(), 1);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("node 3 is a node of the cluster already"), "{said}");
    let (code, said) =
        cluster.pelago(&["admin", "member", "add", "4", "--peer-addr", "nowhere", "--client-addr", "a:1"], 1);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("'nowhere' has no port"), "{said}");
    for node in 1..=3 {
        assert_eq!(version(node), 3, "nothing of that changed anything");
    }
}
