//! Keys that vanish and writes that are sent twice, on real processes: through every node, through a
//! change of leaders, and through a restart of everything.

mod cluster;

use std::time::{Duration, Instant};

use cluster::{Client, Cluster, Recipe, Reply, turn, until, within};

/// A key is gone this long after its time, with room for a busy machine.
const GONE: Duration = Duration::from_secs(3);

/// A restarted node is back within this.
const RETURN: Duration = Duration::from_secs(10);

/// Asks until it is answered: leadership may be moving.
fn ask(client: &mut Client, line: &str) -> Reply {
    let end = Instant::now() + RETURN;
    loop {
        let reply = client.say(line).expect("an answer");
        let moving = matches!(reply.error_class(), Some("TRYAGAIN" | "CLUSTERDOWN"));
        if !moving || Instant::now() > end {
            return reply;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn number(reply: &Reply) -> i64 {
    match reply {
        Reply::Integer(number) => *number,
        other => panic!("{other:?} is no number"),
    }
}

#[test]
fn keys_vanish_on_every_node_and_not_before_their_time() {
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    let mut clients: Vec<Client> = cluster.nodes().into_iter().map(|node| cluster.client(node)).collect();
    let [first, second, third] = &mut clients[..] else { panic!("three nodes") };

    // What commands do to a life, each through another node than the one before.
    for (line, reply) in [
        ("SET k v EX 100", Reply::ok()),
        ("GET k", Reply::bulk("v")),
        ("EXPIRE k 50 GT", Reply::Integer(0)),
        ("EXPIRE k 500 LT", Reply::Integer(0)),
        ("EXPIRE k 500 NX", Reply::Integer(0)),
        ("EXPIRE k 500 XX", Reply::Integer(1)),
        ("APPEND k w", Reply::Integer(2)),
        ("GETEX k", Reply::bulk("vw")),
        ("SET k v KEEPTTL", Reply::ok()),
        ("PERSIST none", Reply::Integer(0)),
        ("TTL none", Reply::Integer(-2)),
        ("EXPIRE none 10", Reply::Integer(0)),
    ] {
        assert_eq!(ask(first, line), reply, "{line}");
    }
    let ttl = number(&ask(second, "TTL k"));
    assert!((490..=500).contains(&ttl), "{ttl}");
    let at = number(&ask(third, "PEXPIRETIME k"));
    let unix =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis()
            as i64;
    assert!((at - unix - 490_000).abs() < 15_000, "{at} at {unix}");
    assert_eq!(ask(second, "PERSIST k"), Reply::Integer(1));
    assert_eq!(ask(third, "TTL k"), Reply::Integer(-1));
    assert_eq!(ask(first, "EXPIREAT k 1"), Reply::Integer(1), "a time that is past: gone at once");
    assert_eq!(ask(second, "EXISTS k"), Reply::Integer(0));
    assert_eq!(ask(first, "GETEX k PX 5"), Reply::nil());
    // A node without keys shows no database, as in Redis. It counts what it has applied itself, and may hear of a group's
    // last value a moment later than its leader.
    until(Duration::from_secs(5), "no keys and no lives are left on any node", || {
        [&mut *first, &mut *second, &mut *third].into_iter().all(|client| {
            match ask(client, "INFO keyspace") {
                Reply::Bulk(Some(text)) => !String::from_utf8_lossy(&text).contains("db0"),
                other => panic!("{other:?}"),
            }
        })
    });

    // Many lives in many groups.
    let begun = Instant::now();
    for n in 0..50 {
        assert_eq!(ask(first, &format!("SET short{n} v PX 1500")), Reply::ok());
        assert_eq!(ask(second, &format!("PSETEX long{n} 600000 v")), Reply::ok());
    }
    let mut early = 0;
    while begun.elapsed() < Duration::from_millis(1_400) {
        assert_eq!(ask(third, "GET short49"), Reply::bulk("v"), "after {:?}", begun.elapsed());
        early += 1;
    }
    assert!(early > 0, "the machine is too slow for this test");
    within(Duration::from_secs(2) + GONE, "the short lives end", || {
        let left = (0..50).filter(|n| ask(second, &format!("EXISTS short{n}")) == Reply::Integer(1)).count();
        if left == 0 { Ok(()) } else { Err(format!("{left} keys are left")) }
    });
    assert_eq!(ask(third, "DBSIZE"), Reply::Integer(50));
    cluster.wait_same(Duration::from_secs(5));
}

#[test]
fn lives_go_on_after_a_change_of_leaders_and_a_restart_of_everything() {
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let leader = cluster.leader_of("k");
    let other = cluster.nodes().into_iter().find(|node| *node != leader).expect("three nodes");
    let mut client = cluster.client(other);
    assert_eq!(ask(&mut client, "SET k v EX 600"), Reply::ok());
    assert_eq!(ask(&mut client, "SET soon v PX 4000"), Reply::ok());
    let _ = client.say("ADMIN CHECKPOINT").expect("an answer");
    cluster.kill(leader);
    let begun = Instant::now();
    let ttl = number(&ask(&mut client, "PTTL k"));
    let passed = begun.elapsed().as_millis() as i64 + 5_000;
    assert!(ttl <= 600_000 && ttl > 600_000 - passed, "{ttl} of a life are left after {passed} ms at most");
    cluster.kill_all();
    for node in cluster.nodes() {
        cluster.run(node);
    }
    cluster.wait_whole(RETURN);
    let mut client = cluster.client(other);
    let again = number(&ask(&mut client, "PTTL k"));
    assert!(again <= ttl && again > 500_000, "{again} after {ttl}: the clock went back, or a life was lost");
    until(RETURN, "the end of a life that began before the restart", || {
        ask(&mut client, "EXISTS soon") == Reply::Integer(0)
    });
    cluster.wait_same(Duration::from_secs(5));
}

#[test]
fn a_numbered_write_is_applied_once_through_all_nodes_deaths_and_restarts() {
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let leader = cluster.leader_of("n");
    let others: Vec<u32> = cluster.nodes().into_iter().filter(|node| *node != leader).collect();
    for node in cluster.nodes() {
        assert_eq!(
            ask(&mut cluster.client(node), "INCR n REQ app:1"),
            Reply::Integer(1),
            "through node {node}"
        );
        assert_eq!(
            ask(&mut cluster.client(node), "SET s v GET REQ app:2"),
            Reply::nil(),
            "through node {node}"
        );
        assert_eq!(ask(&mut cluster.client(node), "DEL a b n2 REQ app:3"), Reply::Integer(0));
    }
    let reused = ask(&mut cluster.client(leader), "INCRBY n 5 REQ app:1");
    assert_eq!(reused.error_class(), Some("ERR"), "{reused:?}");
    cluster.kill(leader);
    for node in &others {
        assert_eq!(
            ask(&mut cluster.client(*node), "INCR n REQ app:1"),
            Reply::Integer(1),
            "through node {node}"
        );
    }
    assert_eq!(ask(&mut cluster.client(others[0]), "INCR n REQ app:4"), Reply::Integer(2));
    cluster.kill_all();
    for node in cluster.nodes() {
        cluster.run(node);
    }
    cluster.wait_whole(RETURN);
    let mut client = cluster.client(leader);
    assert_eq!(ask(&mut client, "INCR n REQ app:4"), Reply::Integer(2));
    assert_eq!(ask(&mut client, "INCR n REQ app:1"), Reply::Integer(1));
    for seq in 5..40 {
        assert_eq!(ask(&mut client, &format!("INCR n REQ app:{seq}")), Reply::Integer(seq - 2));
    }
    let old = ask(&mut client, "INCR n REQ app:4");
    let Reply::Error(text) = &old else { panic!("{old:?}") };
    assert!(text.starts_with("INDOUBT group=") && text.contains("REQ 4 of client app"), "{text}");
    assert!(text.contains("(newest 39)"), "{text}");
    assert_eq!(ask(&mut client, "GET n"), Reply::bulk("37"));
    cluster.wait_same(Duration::from_secs(5));
}
