//! `kill -9` under load: nothing acknowledged is lost, nothing old is read, nothing happens twice.

mod cluster;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cluster::{Client, Cluster, Load, Plan, Recipe, Reply, turn, within};
use groups::random::Random;

/// Survivors with a majority go on within this.
const RECOVERY: Duration = Duration::from_secs(2);

/// A restarted node is back within this.
const RETURN: Duration = Duration::from_secs(10);

/// `PELAGO_TEST_ROUNDS=20` is the length at which a release is judged.
fn rounds() -> u64 {
    std::env::var("PELAGO_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

fn seed() -> u64 {
    std::env::var("PELAGO_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

#[test]
fn rounds_of_kill_9_under_load() {
    // The story: while clients fight over few keys through all nodes, one node after another is
    // killed, every other time the one that leads most groups, and started again.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let mut random = Random::new(seed());
    let load = Load::start(cluster.addresses(), Plan { seed: seed(), ..Plan::default() });
    let (mut led, mut back) = (Duration::ZERO, Duration::ZERO);
    for round in 0..rounds() {
        load.wait_written(5, RETURN);
        let victim = match round % 2 {
            0 => cluster.busiest(),
            _ => 1 + random.below(3) as u32,
        };
        cluster.kill(victim);
        led = led.max(cluster.wait_led(RECOVERY));
        load.wait_written(5, RETURN);
        cluster.run(victim);
        back = back.max(cluster.wait_whole(RETURN));
        load.next_chapter();
    }
    load.wait_written(5, RETURN);
    let mut harvest = load.stop();
    cluster.wait_same(Duration::from_secs(5));
    harvest.read_everything();
    let (any, one) = harvest.longest_gaps();
    println!(
        "{} rounds of kill -9: {} acknowledged writes; longest gap without any {any:?}, of one group {one:?}; \
         all groups led at most {led:?} after a kill; whole at most {back:?} after a restart; answers {:?}",
        rounds(),
        harvest.writes(),
        harvest.answers
    );
    println!("judged linearizable: {} operations", harvest.judge());
}

#[test]
fn all_nodes_die_at_once_under_load() {
    // The story: the power of the whole room fails (without losing what the kernel has), twice,
    // while clients write.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let load = Load::start(cluster.addresses(), Plan { seed: seed() + 1, ..Plan::default() });
    for _ in 0..2 {
        load.wait_written(10, RETURN);
        cluster.kill_all();
        for node in cluster.nodes() {
            cluster.run(node);
        }
        let whole = cluster.wait_whole(RETURN);
        println!("whole {whole:?} after the restart of all nodes");
        load.next_chapter();
    }
    load.wait_written(5, RETURN);
    let mut harvest = load.stop();
    cluster.wait_same(Duration::from_secs(5));
    harvest.read_everything();
    println!("{} acknowledged writes, answers {:?}", harvest.writes(), harvest.answers);
    println!("judged linearizable: {} operations", harvest.judge());
}

/// What one counting client knows.
#[derive(Default)]
struct Count {
    acknowledged: Vec<i64>,
    in_doubt: u64,
    refused: u64,
}

/// Increments `key` through the nodes that `leader` does not name until told to stop.
fn increment(
    key: &str,
    addresses: &[SocketAddr],
    leader: &AtomicU64,
    written: &AtomicU64,
    stop: &AtomicBool,
    seed: u64,
) -> Count {
    let mut count = Count::default();
    let mut random = Random::new(seed);
    let mut client: Option<(usize, Client)> = None;
    while !stop.load(Ordering::Relaxed) {
        let avoid = leader.load(Ordering::Relaxed) as usize;
        let (node, mut connection) = match client.take() {
            Some((node, connection)) if node != avoid => (node, connection),
            _ => {
                let node = random.below(addresses.len() as u64) as usize;
                match (node != avoid).then(|| Client::connect(addresses[node])) {
                    Some(Ok(connection)) => (node, connection),
                    _ => continue,
                }
            }
        };
        match connection.say(&format!("INCR {key}")) {
            Ok(Reply::Integer(sum)) => {
                count.acknowledged.push(sum);
                written.fetch_add(1, Ordering::Relaxed);
            }
            Ok(reply) => match reply.error_class() {
                Some("TRYAGAIN" | "CLUSTERDOWN" | "BUSY") => count.refused += 1,
                Some("INDOUBT") => count.in_doubt += 1,
                _ => panic!("INCR was answered with {reply:?}"),
            },
            Err(_) => {
                count.in_doubt += 1;
                continue;
            }
        }
        client = Some((node, connection));
    }
    count
}

#[test]
fn forwarded_increments_happen_exactly_once() {
    // The story: a command is forwarded to the leader, the leader dies before it answers, and the
    // forwarding node sends the command to the next leader, who may have it already.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe { groups: 3, ..Recipe::default() });
    let key = "counter";
    let addresses: Arc<Vec<SocketAddr>> = Arc::new(cluster.addresses());
    // As an index into the addresses.
    let leader = Arc::new(AtomicU64::new(u64::from(cluster.leader_of(key)) - 1));
    let written = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let (addresses, leader) = (Arc::clone(&addresses), Arc::clone(&leader));
            let (written, stop) = (Arc::clone(&written), Arc::clone(&stop));
            std::thread::spawn(move || increment(key, &addresses, &leader, &written, &stop, seed() * 100 + n))
        })
        .collect();
    let more = |count: u64| {
        let goal = written.load(Ordering::Relaxed) + count;
        within(RETURN, "increments go on", || match written.load(Ordering::Relaxed) {
            now if now >= goal => Ok(()),
            now => Err(format!("{now} of {goal}")),
        });
    };
    let kills = 6;
    for _ in 0..kills {
        more(50);
        let victim = cluster.leader_of(key);
        leader.store(u64::from(victim) - 1, Ordering::Relaxed);
        more(20);
        cluster.kill(victim);
        cluster.wait_led(RECOVERY);
        // From here on the heir is spared, and the dead one is tried again once it is back.
        leader.store(u64::from(cluster.leader_of(key)) - 1, Ordering::Relaxed);
        more(20);
        cluster.run(victim);
        cluster.wait_whole(RETURN);
        leader.store(u64::from(cluster.leader_of(key)) - 1, Ordering::Relaxed);
    }
    more(50);
    stop.store(true, Ordering::Relaxed);
    let counts: Vec<Count> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
    let sums: Vec<i64> = counts.iter().flat_map(|count| count.acknowledged.iter().copied()).collect();
    let in_doubt = counts.iter().map(|count| count.in_doubt).sum::<u64>() as i64;
    let refused: u64 = counts.iter().map(|count| count.refused).sum();
    let acknowledged = sums.len() as i64;
    let distinct: BTreeSet<i64> = sums.iter().copied().collect();
    assert_eq!(distinct.len(), sums.len(), "two increments were answered with the same sum");
    for node in cluster.nodes() {
        let value = cluster.client(node).say(&format!("GET {key}")).expect("an answer");
        let Reply::Bulk(Some(text)) = value else { panic!("the counter is {value:?}") };
        let value: i64 = String::from_utf8(text).expect("digits").parse().expect("a number");
        assert!(
            (acknowledged..=acknowledged + in_doubt).contains(&value),
            "node {node}: {value} after {acknowledged} acknowledged increments and {in_doubt} in doubt"
        );
        assert!(distinct.last().is_none_or(|last| *last <= value));
    }
    println!(
        "{kills} kills of the leader: {acknowledged} increments, {in_doubt} in doubt, {refused} refused"
    );
}
