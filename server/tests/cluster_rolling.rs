//! Restarting nodes one after the other while clients work: no request of theirs fails.

mod cluster;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluster::{Cluster, Recipe, Reply as Answer, turn, until, within};
use server::client::{Client, Options};
use server::protocol::Reply;

/// For a node to be back and to lead what it is placed best for.
const BACK: Duration = Duration::from_secs(30);

/// What a client did: increments by key, and how often it was told something that is no answer.
#[derive(Default)]
struct Account {
    counted: BTreeMap<String, u64>,
    failures: Vec<String>,
    /// The longest that one request took.
    longest: Duration,
}

/// A client as its user would write it: it asks one server, sends again what was answered with TRYAGAIN, and connects
/// to the next server when its own is gone. The library of this repository does that by itself.
fn client(number: usize, addresses: &[String], stop: &AtomicBool, done: &AtomicU64) -> Account {
    let mut own = addresses.to_vec();
    own.rotate_left(number % addresses.len());
    let mut client = Client::connect(&own, Options::default()).expect("a cluster that serves");
    let mut account = Account::default();
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let key = format!("count:{number}:{}", round % 32);
        let begun = Instant::now();
        let expected = account.counted.get(&key).copied().unwrap_or(0) + 1;
        match client.call(&[b"INCR", key.as_bytes()]) {
            Ok(Reply::Integer(value)) if value == expected as i64 => {
                account.counted.insert(key.clone(), expected);
            }
            other => account.failures.push(format!("incr {key} to {expected}: {other:?}")),
        }
        match client.call(&[b"GET", key.as_bytes()]) {
            Ok(Reply::Bulk(value)) if value == expected.to_string().as_bytes() => {}
            other => account.failures.push(format!("get {key}, which is {expected}: {other:?}")),
        }
        account.longest = account.longest.max(begun.elapsed());
        done.fetch_add(1, Ordering::Relaxed);
    }
    account
}

#[test]
fn every_node_is_restarted_under_load_and_no_request_fails() {
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..6)
        .map(|number| {
            let (addresses, stop, done) = (addresses.clone(), Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || client(number, &addresses, &stop, &done))
        })
        .collect();
    let more = |what: &str| {
        let before = done.load(Ordering::Relaxed);
        until(BACK, what, || done.load(Ordering::Relaxed) > before + 300);
    };
    more("the load is under way");
    for node in cluster.nodes() {
        let begun = Instant::now();
        let status = cluster.terminate(node);
        assert!(status.success(), "node {node} ended with {status}");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(6), "node {node} took {took:?} to end");
        for line in ["leaderships handed over", "clients drained"] {
            assert!(cluster.log(node).contains(line), "node {node} logs {line:?}");
        }
        more("the others serve");
        cluster.run(node);
        cluster.wait_whole(BACK);
        more("it serves again");
    }
    stop.store(true, Ordering::Relaxed);
    let mut counted = 0;
    let mut reader = cluster.client(1);
    for (number, thread) in clients.into_iter().enumerate() {
        let account = thread.join().expect("a client");
        assert!(account.failures.is_empty(), "client {number}: {:?}", account.failures);
        assert!(account.longest < Duration::from_secs(5), "client {number} waited {:?}", account.longest);
        for (key, value) in account.counted {
            let read = reader.say(&format!("GET {key}")).expect("an answer");
            assert_eq!(read, Answer::bulk(value.to_string()), "{key}");
            counted += value;
        }
    }
    assert!(counted > 1_000, "{counted} increments are no load");
    cluster.wait_same(BACK);
}

/// A node that ended closed every connection where it stood: whoever had a request under way could not know whether it
/// was executed. Now what is open is answered, and what comes later is refused as not applied.
#[test]
fn a_node_that_ends_answers_what_is_open_and_refuses_what_comes() {
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let address = cluster.addresses()[2].to_string();
    let stop = Arc::new(AtomicBool::new(false));
    // A client that never sends anything again on its own: every reply is seen.
    let raw = {
        let (address, stop) = (cluster.addresses()[2], Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut client = cluster::Client::connect(address).expect("connected");
            let mut answers: BTreeMap<String, u64> = BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                match client.say("INCR ending:count") {
                    Ok(Answer::Integer(_)) => *answers.entry("counted".into()).or_default() += 1,
                    Ok(reply) => {
                        let class = reply.error_class().unwrap_or("something else").to_owned();
                        *answers.entry(class).or_default() += 1;
                    }
                    Err(_) => break,
                }
            }
            answers
        })
    };
    let mut idle = cluster::Client::connect(cluster.addresses()[2]).expect("connected");
    assert_eq!(idle.say("PING").expect("an answer"), Answer::Status("PONG".into()));
    within(BACK, "the count rises", || match cluster.client(1).say("GET ending:count") {
        Ok(reply) if reply != Answer::Bulk(None) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(cluster.terminate(3).success());
    stop.store(true, Ordering::Relaxed);
    let answers = raw.join().expect("the client");
    assert!(answers.contains_key("TRYAGAIN"), "{answers:?}: it was told of the end");
    assert_eq!(answers.len(), 2, "{answers:?}: nothing is in doubt");
    let counted = answers["counted"].to_string();
    assert_eq!(cluster.client(1).say("GET ending:count").expect("an answer"), Answer::bulk(counted));
    assert!(idle.say("PING").is_err(), "an idle connection is closed, too");
    assert!(std::net::TcpStream::connect(&address).is_err(), "nobody listens any more");
}
