//! Clocks that are wrong: a leader for which no time has passed, and wall clocks that are set, jump and run
//! at another rate.
//!
//! What is tested where. A node reads two clocks. Leases, heartbeats and the groups' clocks go by
//! `CLOCK_BOOTTIME` (`server/src/runtime/clock.rs`), which nobody can set. The wall clock is read only where
//! a client names a time of day (`EXAT`, `EXPIRETIME`, `TIME`). libfaketime, by which the second test sets wall
//! clocks, replaces the C library's `clock_gettime`. It fakes `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME` too unless
//! `FAKETIME_DONT_FAKE_MONOTONIC` is set, and it is set here for two reasons: no time server and no operator
//! can do that, and it would reach half of the process only. `CLOCK_BOOTTIME` is read by a system call
//! (rustix), which no preloaded library sees, while the standard library's `Instant` would be taken from the
//! real clock that the kernel's futexes wait by. So the clock of a build for tests can be told to run at
//! another rate (`PELAGO_TEST_CLOCK_RATE`), for nodes that drift against each other by `paxos.max_clock_drift`; all
//! that the simulator does with clocks (`Fault::Drift` in `sim/src/fault.rs`) has no need of it. For the same reason the second test
//! finds a use of `SystemTime`, and would not find a wall clock that is read through rustix.

mod cluster;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster::{Client, Cluster, Recipe, Reply, turn, within};

fn ask(client: &mut Client, line: &str) -> Reply {
    client.say(line).unwrap_or_else(|e| panic!("{line}: {e}"))
}

fn number(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Bulk(Some(text)) => std::str::from_utf8(text).ok()?.parse().ok(),
        Reply::Integer(n) => u64::try_from(*n).ok(),
        _ => None,
    }
}

/// Writes the next value, and counts it if it was acknowledged.
fn write_next(writer: &mut Client, key: &str, value: &mut u64, written: &AtomicU64) {
    *value += 1;
    // A write whose outcome is not known counts for nothing; the next one is larger.
    if writer.say(&format!("PUT {key} {value}")).is_ok_and(|reply| reply == Reply::ok()) {
        written.store(*value, Ordering::SeqCst);
    }
}

/// Asks until `ended`: returns the answers that were older than what was acknowledged before the question, and
/// how many were values.
fn read_on(mut client: Client, key: &str, written: &AtomicU64, ended: &AtomicBool) -> (Vec<(u64, u64)>, u32) {
    let (mut old, mut values) = (Vec::new(), 0);
    while !ended.load(Ordering::SeqCst) {
        let least = written.load(Ordering::SeqCst);
        let reply = ask(&mut client, &format!("GET {key}"));
        match number(&reply) {
            Some(value) if value < least => old.push((least, value)),
            Some(_) => values += 1,
            None => assert!(reply.error_class().is_some(), "{reply:?}"),
        }
    }
    (old, values)
}

#[test]
fn a_leader_that_slept_through_its_lease_tells_nothing_old_in_the_moment_it_wakes() {
    // The story: a leader stands still for a bit more than its lease, again and again. A writer goes on through
    // the others as soon as they have a new leader. Whenever a write was acknowledged somebody asks the
    // sleeper, whose socket buffers fill with questions: they are the first things that it sees when it wakes. Its memory has
    // the old value, and by its last look at the clock its lease still runs. Others ask on and on while it wakes.
    // Two things keep it from answering: its lease is over, and it has heard nobody for too long to lead (`tick_leader`).
    // Without both this test fails; each alone is enough, and the simulator takes them one by one.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe { groups: 3, ..Recipe::default() });
    sleep_through(&mut cluster, &[400, 800, 1_200, 1_600]);
}

#[test]
fn clocks_that_drift_as_far_as_leases_allow_let_nothing_old_through() {
    // The story: the same with nodes whose clocks run apart, as far as `paxos.max_clock_drift` says: each 1 % off
    // in its own direction. A leader whose clock is slow counts on its lease for longer than its followers are bound
    // by fast ones, but for what it takes off. Deposed by no sleep, it is cut off by one each time.
    let _turn = turn();
    let mut cluster = Cluster::prepare(Recipe { groups: 3, ..Recipe::default() });
    for (node, rate) in [(1, "990000"), (2, "1010000"), (3, "1010000")] {
        cluster.run_in(node, &[("PELAGO_TEST_CLOCK_RATE", rate)]);
    }
    cluster.wait_whole(Duration::from_secs(20));
    sleep_through(&mut cluster, &[310, 350, 500, 800]);
}

/// Pauses the leader of a key for so many milliseconds, one after the other, while others write and ask.
fn sleep_through(cluster: &mut Cluster, pauses: &[u64]) {
    let key = "{asleep}k";
    let written = AtomicU64::new(0);
    let (mut old, mut late, mut answered) = (Vec::new(), 0, 0);
    // The lease is 300 ms, an election takes 400 to 800 ms more.
    for pause in pauses.iter().copied().map(Duration::from_millis) {
        cluster.wait_whole(Duration::from_secs(10));
        let sleeper = cluster.leader_of(key);
        let awake = cluster.nodes().into_iter().find(|node| *node != sleeper).expect("another node");
        let mut writer = cluster.client(awake);
        let mut value = written.load(Ordering::SeqCst);
        let mut askers: Vec<Client> = (0..64).map(|_| cluster.client(sleeper)).collect();
        // The sleeper leads with a fresh lease, everybody is connected and has been answered by it.
        write_next(&mut writer, key, &mut value, &written);
        for asker in &mut askers {
            assert_eq!(number(&ask(asker, &format!("GET {key}"))), Some(value));
        }
        let mut asked = Vec::new();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers: Vec<Client> = (0..4).map(|_| cluster.client(sleeper)).collect();
            cluster.pause(sleeper);
            let paused = Instant::now();
            // At least one question behind a write that the sleeper has not seen.
            while paused.elapsed() < pause || asked.is_empty() {
                let before = written.load(Ordering::SeqCst);
                write_next(&mut writer, key, &mut value, &written);
                let least = written.load(Ordering::SeqCst);
                if least > before
                    && let Some(mut asker) = askers.pop()
                {
                    asker.say_only(&format!("GET {key}")).expect("a question to the sleeper");
                    asked.push((least, asker));
                }
            }
            let (written, ended) = (&written, &ended);
            let reading: Vec<_> = readers
                .into_iter()
                .map(|client| scope.spawn(|| read_on(client, key, written, ended)))
                .collect();
            cluster.resume(sleeper);
            let resumed = Instant::now();
            while resumed.elapsed() < Duration::from_millis(300) {
                write_next(&mut writer, key, &mut value, written);
            }
            for (least, mut asker) in asked {
                let reply = asker.receive().expect("an answer after the sleep");
                match number(&reply) {
                    Some(value) if value < least => old.push((least, value)),
                    Some(_) => late += 1,
                    None => assert!(reply.error_class().is_some(), "{reply:?}"),
                }
            }
            ended.store(true, Ordering::SeqCst);
            for reader in reading {
                let (wrong, values) = reader.join().expect("a reader");
                old.extend(wrong);
                answered += values;
            }
        });
    }
    assert!(old.is_empty(), "acknowledged before the question, and then read: {old:?}");
    assert!(answered > 0, "the test has tested nothing");
    cluster.wait_whole(Duration::from_secs(10));
    cluster.wait_same(Duration::from_secs(5));
    println!(
        "of {} sleeps: {late} values told to who had asked a sleeper, {answered} while it woke, none old",
        pauses.len()
    );
}

/// The library that fakes clocks, if the machine has it.
fn faketime() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut found =
        places.map(|place| place.path().join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    let found = found.next();
    if found.is_none() {
        println!("SKIPPED: libfaketime is not installed (apt-get install faketime)");
    }
    found
}

/// By how many seconds a node's wall clock is ahead of the machine's.
fn ahead(client: &mut Client) -> i64 {
    let Reply::Array(parts) = ask(client, "TIME") else { panic!("no time") };
    let there = number(&parts[0]).expect("seconds") as i64;
    let here = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
    there - here
}

#[test]
fn wall_clocks_that_are_wrong_change_no_life_and_no_read() {
    // The story: one node's wall clock is an hour ahead, and is set back by two while it runs; another one's
    // runs at twice the speed; the third is right. Each leads some groups. Keys with a time to live
    // end neither early nor late, whichever node is asked, and everybody reads what was written last.
    let _turn = turn();
    let Some(library) = faketime() else { return };
    let mut cluster = Cluster::prepare(Recipe::default());
    let clock = |node: u32| cluster.dir().join(format!("clock-{node}"));
    let (jumping, racing) = (clock(1), clock(3));
    fs::write(&jumping, "+3600s\n").expect("a clock");
    fs::write(&racing, "+0 x2\n").expect("a clock");
    let library = library.to_str().expect("a path of text").to_owned();
    for (node, file) in [(1, Some(&jumping)), (2, None), (3, Some(&racing))] {
        match file.map(|file| file.to_str().expect("a path of text")) {
            None => cluster.run(node),
            Some(file) => cluster.run_in(
                node,
                &[
                    ("LD_PRELOAD", &library),
                    ("FAKETIME_TIMESTAMP_FILE", file),
                    ("FAKETIME_NO_CACHE", "1"),
                    ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                ],
            ),
        }
    }
    cluster.wait_whole(Duration::from_secs(20));
    let mut clients: Vec<Client> = cluster.nodes().into_iter().map(|node| cluster.client(node)).collect();
    let off = ahead(&mut clients[0]);
    assert!((3_590..3_610).contains(&off), "the library has no effect: {off} s");

    // Through every node, in many groups, so that every node leads some of them.
    let keys: Vec<String> = (0..24).map(|n| format!("k{n}")).collect();
    let mut slowest = Duration::ZERO;
    for (round, jump) in
        [("an hour ahead", None), ("set back", Some("-3600s\n")), ("set ahead", Some("+7200s\n"))]
    {
        let begun = Instant::now();
        for (n, key) in keys.iter().enumerate() {
            let client = &mut clients[n % 3];
            assert_eq!(ask(client, &format!("SET short-{key} {n} PX 1500")), Reply::ok());
            assert_eq!(ask(client, &format!("SET long-{key} {n} EX 600")), Reply::ok());
            assert_eq!(ask(client, &format!("PUT plain-{key} {n}-{}", jump.is_some())), Reply::ok());
        }
        let set = begun.elapsed();
        if let Some(jump) = jump {
            fs::write(&jumping, jump).expect("a clock");
            let hours: i64 = if jump.starts_with('-') { -3_600 } else { 7_200 };
            let client = &mut clients[0];
            within(Duration::from_secs(5), "the clock jumps", || {
                let off = ahead(client);
                if (off - hours).abs() < 60 { Ok(()) } else { Err(off) }
            });
        }
        // None ends early.
        while begun.elapsed() < Duration::from_millis(1_300) {
            for (n, key) in keys.iter().enumerate().skip(20) {
                let asked = begun.elapsed();
                let reply = ask(&mut clients[(n + 1) % 3], &format!("GET short-{key}"));
                if asked < Duration::from_millis(1_400) {
                    assert_eq!(reply, Reply::bulk(n.to_string()), "{round}: short-{key} after {asked:?}");
                }
            }
        }
        // None lives for ever.
        let client = &mut clients[1];
        let (_, took) =
            within(set + Duration::from_secs(5), &format!("{round}: the short lives end"), || {
                let left = keys
                    .iter()
                    .filter(|key| ask(client, &format!("EXISTS short-{key}")) == Reply::Integer(1));
                match left.count() {
                    0 => Ok(()),
                    left => Err(format!("{left} keys are left")),
                }
            });
        slowest = slowest.max(took);
        for (n, key) in keys.iter().enumerate() {
            for client in &mut clients {
                assert_eq!(
                    ask(client, &format!("GET plain-{key}")),
                    Reply::bulk(format!("{n}-{}", jump.is_some()))
                );
                let ttl = number(&ask(client, &format!("TTL long-{key}")));
                assert!(
                    ttl.is_some_and(|ttl| (560..=600).contains(&ttl)),
                    "{round}: TTL long-{key} is {ttl:?}"
                );
            }
        }
    }
    cluster.wait_whole(Duration::from_secs(10));
    cluster.wait_same(Duration::from_secs(5));
    println!("lives of 1.5 s were over {slowest:?} after they were last seen to be there, at most");
}
