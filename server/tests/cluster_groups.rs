//! A cluster of real processes in its ordinary life: many groups, a death, a return, an orderly end.

mod cluster;

use std::time::Duration;

use cluster::{Client, Cluster, Recipe, Reply, turn};

/// Puts one key per group and more through `node`.
fn put_all(cluster: &Cluster, node: u32, round: &str) {
    let mut client = cluster.client(node);
    for n in 0..KEYS {
        client.send(&["PUT", &format!("key-{n}"), &format!("{round}-{n}")]).expect("a put is sent");
    }
    for n in 0..KEYS {
        assert_eq!(client.receive().expect("an answer"), Reply::ok(), "put key-{n} through node {node}");
    }
}

fn get_all(cluster: &Cluster, node: u32, round: &str) {
    let mut client = cluster.client(node);
    for n in 0..KEYS {
        client.send(&["GET", &format!("key-{n}")]).expect("a get is sent");
    }
    for n in 0..KEYS {
        let value = client.receive().expect("an answer");
        assert_eq!(value, Reply::bulk(format!("{round}-{n}")), "get key-{n} through node {node}");
    }
}

/// Enough to meet every one of 64 groups.
const KEYS: usize = 600;

#[test]
fn many_groups_stay_even_through_a_death_and_a_return() {
    // The story: 64 groups share one process per node. A node dies; two thirds of the groups never
    // notice, its own third finds new leaders; it returns and takes its third back.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe { groups: 64, ..Recipe::default() });
    assert_eq!(cluster.status(1).expect("a status").groups.len(), 64);
    for node in [1, 2, 3] {
        put_all(&cluster, node, &format!("by{node}"));
        for reader in [1, 2, 3] {
            get_all(&cluster, reader, &format!("by{node}"));
        }
    }

    cluster.kill(2);
    let led = cluster.wait_led(Duration::from_secs(2));
    for node in [1, 3] {
        get_all(&cluster, node, "by3");
    }
    put_all(&cluster, 1, "survivors");
    get_all(&cluster, 3, "survivors");
    let spread = cluster.leads().expect("the survivors' status");

    cluster.run(2);
    let whole = cluster.wait_whole(Duration::from_secs(10));
    get_all(&cluster, 2, "survivors");
    cluster.wait_same(Duration::from_secs(5));
    println!("64 groups: all led {led:?} after kill -9 ({spread:?}), even again {whole:?} after the restart");
}

#[test]
fn sigterm_ends_a_node_in_order_and_it_comes_back() {
    // The story: an operator stops the nodes one after another, as for an upgrade, and later all
    // of them. Each ends with exit code 0 and finds everything again.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    for node in [1, 2, 3] {
        put_all(&cluster, node, &format!("before{node}"));
        let ended = cluster.terminate(node);
        assert_eq!(ended.code(), Some(0), "node {node} after SIGTERM: {ended}");
        // Others lead its groups before it goes: nobody has to miss it first.
        let log = cluster.log(node);
        let line = log.lines().rfind(|line| line.contains("leaderships handed over")).expect("the line");
        assert!(line.contains("left=0"), "{line}");
        cluster.wait_led(Duration::from_secs(3));
        get_all(&cluster, node % 3 + 1, &format!("before{node}"));
        cluster.run(node);
        cluster.wait_whole(Duration::from_secs(10));
    }
    for node in [1, 2, 3] {
        assert_eq!(cluster.terminate(node).code(), Some(0));
    }
    for node in [1, 2, 3] {
        cluster.run(node);
    }
    cluster.wait_whole(Duration::from_secs(10));
    for node in [1, 2, 3] {
        get_all(&cluster, node, "before3");
        assert!(!cluster.log(node).contains("torn: Some"), "an orderly end leaves no torn tail");
    }
    cluster.wait_same(Duration::from_secs(5));
}

#[test]
fn a_client_that_leaves_in_the_middle_disturbs_nobody() {
    // The story: a client writes half a request and goes; another one sends a hundred and does not
    // wait for the answers.
    let _turn = turn();
    let cluster = Cluster::start(Recipe { nodes: 1, groups: 4, ..Recipe::default() });
    let mut half = cluster.client(1);
    half.raw(b"*3\r\n$3\r\nPUT\r\n$1\r\nk\r\n$100\r\nhalf").expect("bytes are sent");
    drop(half);
    let mut hasty = cluster.client(1);
    for n in 0..100 {
        hasty.send(&["PUT", &format!("hasty-{n}"), "v"]).expect("a put is sent");
    }
    drop(hasty);
    let mut client: Client = cluster.client(1);
    assert_eq!(client.say("GET k").expect("an answer"), Reply::nil());
    assert_eq!(client.say("PUT k v").expect("an answer"), Reply::ok());
    let gone = Duration::from_secs(5);
    cluster::until(gone, "the connections are forgotten", || {
        cluster.status(1).is_ok_and(|status| status.connections <= 2 && status.open_requests == 0)
    });
}
