//! Transactions over real processes: `MULTI`, `WATCH`, `MULTIOP`, and `pelago txn`. What libraries for
//! Redis make of them is in cluster_libraries.rs.

mod cluster;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cluster::{Client, Cluster, Recipe, Reply, turn};

fn int(n: i64) -> Reply {
    Reply::Integer(n)
}

fn queued() -> Reply {
    Reply::Status("QUEUED".into())
}

fn all(replies: impl IntoIterator<Item = Reply>) -> Reply {
    Reply::Array(replies.into_iter().collect())
}

/// Says the lines one by one and compares each answer.
fn talk(client: &mut Client, lines: &[(&str, Reply)]) {
    for (line, expected) in lines {
        assert_eq!(&client.say(line).expect("an answer"), expected, "{line}");
    }
}

#[track_caller]
fn refused(client: &mut Client, line: &str, start: &str) -> String {
    match client.say(line).expect("an answer") {
        Reply::Error(text) if text.starts_with(start) => text,
        other => panic!("{line}: {other:?}, not {start}"),
    }
}

#[test]
fn multi_speaks_as_redis_does() {
    // The story: what the manual of Redis says about transactions, typed at each of three nodes, in
    // both versions of the protocol.
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    for node in cluster.nodes() {
        for version in ["2", "3"] {
            let client = &mut cluster.client(node);
            client.say(&format!("HELLO {version}")).expect("an answer");
            let t = |line: &str| line.replace('#', &format!("{{t{node}{version}}}"));
            let words = |client: &mut Client, lines: &[(&str, Reply)]| {
                for (line, expected) in lines {
                    let line = t(line);
                    assert_eq!(&client.say(&line).expect("an answer"), expected, "{line}");
                }
            };
            // One answer per command, what the connection says by itself among them.
            words(
                client,
                &[
                    ("MULTI", Reply::ok()),
                    ("PING", queued()),
                    ("SET #a 1", queued()),
                    ("INCRBY #b 41", queued()),
                    ("INCR #b", queued()),
                    ("ECHO hello", queued()),
                    ("MGET #a #b #none", queued()),
                    ("GET #none", queued()),
                    ("GET #a REV", queued()),
                    ("MSET #c 3 #d 4", queued()),
                    ("DEL #c #d #none", queued()),
                    ("CAS #a 1 2", queued()),
                    ("GETDEL #a", queued()),
                    ("UNWATCH", queued()),
                ],
            );
            let reply = client.say("EXEC").expect("an answer");
            let Reply::Array(mut replies) = reply else { panic!("{reply:?}") };
            let versioned = replies.remove(7);
            assert!(
                matches!(&versioned, Reply::Array(two) if two[0] == Reply::bulk("1") && matches!(two[1], Reply::Integer(n) if n > 0)),
                "{versioned:?}"
            );
            let expected = [
                Reply::Status("PONG".into()),
                Reply::ok(),
                int(41),
                int(42),
                Reply::bulk("hello"),
                all([Reply::bulk("1"), Reply::bulk("42"), Reply::nil()]),
                Reply::nil(),
                Reply::ok(),
                int(2),
                int(1),
                Reply::bulk("2"),
                Reply::ok(),
            ];
            assert_eq!(replies, expected);

            // A command that fails when it is executed leaves the others.
            words(
                client,
                &[
                    ("SET #a text", Reply::ok()),
                    ("MULTI", Reply::ok()),
                    ("INCR #a", queued()),
                    ("INCR #n", queued()),
                ],
            );
            let not_a_number = Reply::Error("ERR value is not an integer or out of range".into());
            words(client, &[("EXEC", all([not_a_number, int(1)])), ("GET #n", Reply::bulk("1"))]);

            // What cannot be queued aborts everything, and the next transaction is a new one.
            for bad in
                ["FOOBAR x", "SET #a", "SET #a 1 FOO", "INCRBY #a x", "STATUS", "HELLO 2", "CLIENT SETNAME x"]
            {
                words(client, &[("MULTI", Reply::ok()), ("SET #a aborted", queued())]);
                refused(client, &t(bad), "ERR ");
                words(client, &[("SET #a aborted", queued())]);
                refused(client, "EXEC", "EXECABORT Transaction discarded because of previous errors.");
                words(client, &[("GET #a", Reply::bulk("text"))]);
            }

            refused(client, "EXEC", "ERR EXEC without MULTI");
            refused(client, "DISCARD", "ERR DISCARD without MULTI");
            words(client, &[("MULTI", Reply::ok())]);
            refused(client, "MULTI", "ERR MULTI calls can not be nested");
            refused(client, &t("WATCH #a"), "ERR WATCH inside MULTI is not allowed");
            words(client, &[("EXEC", all([])), ("MULTI", Reply::ok()), ("SET #a x", queued())]);
            words(client, &[("DISCARD", Reply::ok()), ("GET #a", Reply::bulk("text"))]);
            words(client, &[("MULTI", Reply::ok()), ("SET #a x", queued())]);
            assert_eq!(client.say("RESET").expect("an answer"), Reply::Status("RESET".into()));
            refused(client, "EXEC", "ERR EXEC without MULTI");
            words(client, &[("GET #a", Reply::bulk("text"))]);
        }
    }
    cluster.wait_same(Duration::from_secs(5));
}

#[test]
fn a_watched_key_that_changes_anywhere_ends_the_transaction() {
    // The story: two clients at two nodes want the same key.
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    let (mut one, mut other) = (cluster.client(1), cluster.client(2));
    let both = [("SET {w}a 2", queued()), ("SET {w}b 2", queued())];
    let begin = |client: &mut Client| {
        talk(client, &[("MULTI", Reply::ok())]);
        talk(client, &both);
    };
    // Changed, created, deleted by another: nothing is applied. The null array ends the watch.
    for change in ["SET {w}a 1", "SET {w}a 1", "DEL {w}a"] {
        talk(&mut one, &[("DEL {w}b", int(0)), ("WATCH {w}a {w}x", Reply::ok())]);
        other.say(change).expect("an answer");
        begin(&mut one);
        talk(&mut one, &[("EXEC", Reply::nil()), ("GET {w}b", Reply::nil())]);
        begin(&mut one);
        talk(&mut one, &[("EXEC", all([Reply::ok(), Reply::ok()])), ("DEL {w}b", int(1))]);
    }
    // Changed by itself is changed too; by a transaction of another; deleted while it was absent is not.
    talk(&mut one, &[("WATCH {w}a", Reply::ok()), ("SET {w}a 1", Reply::ok())]);
    begin(&mut one);
    talk(&mut one, &[("EXEC", Reply::nil()), ("WATCH {w}a", Reply::ok())]);
    begin(&mut other);
    talk(&mut other, &[("EXEC", all([Reply::ok(), Reply::ok()]))]);
    begin(&mut one);
    talk(&mut one, &[("EXEC", Reply::nil()), ("WATCH {w}none", Reply::ok())]);
    other.say("DEL {w}none").expect("an answer");
    begin(&mut one);
    talk(&mut one, &[("EXEC", all([Reply::ok(), Reply::ok()]))]);
    // Forgotten: UNWATCH, DISCARD, RESET.
    for forget in ["UNWATCH", "MULTI DISCARD", "RESET"] {
        talk(&mut one, &[("WATCH {w}a", Reply::ok())]);
        other.say("SET {w}a 1").expect("an answer");
        for word in forget.split(' ') {
            one.say(word).expect("an answer");
        }
        begin(&mut one);
        talk(&mut one, &[("EXEC", all([Reply::ok(), Reply::ok()]))]);
    }
    // Everything in one write: EXEC waits for what WATCH has seen. And a write behind EXEC sees it done.
    one.raw(
        b"SET {w}a 5\r\nWATCH {w}a\r\nMULTI\r\nINCR {w}a\r\nGET {w}a\r\nEXEC\r\nINCR {w}a\r\nGET {w}a\r\n",
    )
    .expect("bytes are sent");
    for expected in [
        Reply::ok(),
        Reply::ok(),
        Reply::ok(),
        queued(),
        queued(),
        all([int(6), Reply::bulk("6")]),
        int(7),
        Reply::bulk("7"),
    ] {
        assert_eq!(one.receive().expect("an answer"), expected);
    }
    // A transaction of reads, with what it watches.
    talk(&mut one, &[("WATCH {w}a", Reply::ok()), ("MULTI", Reply::ok()), ("GET {w}a", queued())]);
    talk(&mut one, &[("EXEC", all([Reply::bulk("7")])), ("WATCH {w}a", Reply::ok()), ("MULTI", Reply::ok())]);
    other.say("INCR {w}a").expect("an answer");
    talk(&mut one, &[("GET {w}a", queued()), ("EXEC", Reply::nil())]);
}

#[test]
fn keys_of_several_groups_are_refused_and_nothing_is_applied() {
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    let mut client = cluster.client(3);
    let group = |client: &mut Client, key: &str| match client.say(&format!("WHERE {key}")) {
        Ok(Reply::Array(place)) => place[3].clone(),
        other => panic!("{other:?}"),
    };
    assert_ne!(group(&mut client, "a"), group(&mut client, "b"));
    let told = |text: &str| {
        for word in ["'a' is in group", "'b' is in group", "nothing was applied", "{tag}"] {
            assert!(text.contains(word), "{text}");
        }
    };
    talk(&mut client, &[("MULTI", Reply::ok()), ("SET a 1", queued()), ("SET b 1", queued())]);
    told(&refused(&mut client, "EXEC", "CROSSSLOT "));
    talk(&mut client, &[("WATCH a b", Reply::ok()), ("MULTI", Reply::ok()), ("SET a 1", queued())]);
    told(&refused(&mut client, "EXEC", "CROSSSLOT "));
    told(&refused(&mut client, "MULTIOP IF a ABSENT THEN PUT b 1", "CROSSSLOT "));
    talk(&mut client, &[("MULTI", Reply::ok()), ("DBSIZE", queued())]);
    refused(&mut client, "EXEC", "CROSSSLOT ");
    talk(&mut client, &[("MGET a b", all([Reply::nil(), Reply::nil()])), ("DBSIZE", int(0))]);
    // Other keys of the same group, in slots of their own.
    let same = (0..).map(|n| format!("k{n}")).find(|key| group(&mut client, key) == group(&mut client, "a"));
    let same = same.expect("there are keys without end");
    talk(&mut client, &[("MULTI", Reply::ok()), ("SET a 1", queued()), (&format!("SET {same} 1"), queued())]);
    talk(&mut client, &[("EXEC", all([Reply::ok(), Reply::ok()]))]);
}

#[test]
fn multiop_goes_one_of_two_ways() {
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    for node in cluster.nodes() {
        let client = &mut cluster.client(node);
        let buy = "MULTIOP IF {s}stock VALUE 1 IF {s}sold ABSENT THEN PUT {s}stock 0 THEN PUT {s}sold ann REV \
                   ELSE GET {s}sold";
        talk(client, &[("DEL {s}stock", int(i64::from(node > 1))), ("SET {s}stock 1", Reply::ok())]);
        let Reply::Array(parts) = client.say(buy).expect("an answer") else { panic!("no array") };
        let Reply::Array(results) = &parts[1] else { panic!("{parts:?}") };
        let Reply::Integer(revision) = results[1] else { panic!("{results:?}") };
        assert_eq!((&parts[0], &results[0]), (&int(1), &Reply::ok()));
        let no = all([int(0), all([Reply::bulk("ann")])]);
        talk(client, &[(buy, no), ("GET {s}stock", Reply::bulk("0"))]);
        let line = format!("MULTIOP IF {{s}}sold REV {revision} THEN DEL {{s}}sold THEN DEL {{s}}none");
        talk(client, &[(&line, all([int(1), all([int(1), int(0)])])), (&line, all([int(0), all([])]))]);
        talk(client, &[("MULTIOP IF {s}stock PRESENT", all([int(1), all([])]))]);
        let both = "MULTIOP THEN APPEND {s}stock x THEN INCR {s}stock THEN GET {s}stock";
        let not_a_number = Reply::Error("ERR value is not an integer or out of range".into());
        talk(client, &[(both, all([int(1), all([int(2), not_a_number, Reply::bulk("0x")])]))]);
        // Words that are keywords elsewhere, and bytes that no line holds.
        let words: [&[u8]; 11] = [
            b"MULTIOP",
            b"THEN",
            b"PUT",
            b"{s}THEN",
            b"ELSE\r\n\0",
            b"THEN",
            b"GET",
            b"{s}THEN",
            b"ELSE",
            b"GET",
            b"{s}REV",
        ];
        let value = Reply::bulk(b"ELSE\r\n\0");
        assert_eq!(client.call(&words).expect("an answer"), all([int(1), all([Reply::ok(), value])]));
    }
    cluster.wait_same(Duration::from_secs(5));
}

#[test]
fn transactions_are_bounded() {
    // The story: a request of a few kilobytes that asks for gigabytes, and one that never ends.
    let _turn = turn();
    let cluster = Cluster::start(Recipe { segment_size: "64MiB", ..Recipe::default() });
    for node in cluster.nodes() {
        let client = &mut cluster.client(node);
        client.call(&["SET".as_bytes(), b"{b}large", &vec![b'x'; 4 << 20]]).expect("an answer");
        let gets = ["THEN", "GET", "{b}large"].repeat(1000);
        let words = [&["MULTIOP", "THEN", "PUT", "{b}small", "applied"][..], &gets].concat();
        let Ok(Reply::Error(much)) = client.call(&words) else { panic!("a reply of 4 GiB") };
        assert!(much.starts_with("TOOBIG max=") && much.contains("nothing was applied"), "{much}");
        let reads = [&["MULTIOP"][..], &gets[..12]].concat();
        let Ok(Reply::Error(much)) = client.call(&reads) else { panic!("a reply of 16 MiB") };
        assert!(much.starts_with("TOOBIG max="), "{much}");
        talk(client, &[("GET {b}small", Reply::nil())]);
        let two = [&["MULTIOP", "THEN", "INCR", "{b}n"][..], &gets[..6]].concat();
        let reply = client.call(&two).expect("an answer");
        assert!(matches!(&reply, Reply::Array(parts) if parts.len() == 2), "{reply:?}");

        talk(client, &[("MULTI", Reply::ok()), ("SET {b}small applied", queued())]);
        let mut refusals = 0;
        for _ in 0..5 {
            match client.call(&["SET".as_bytes(), b"{b}large", &vec![b'y'; 4 << 20]]).expect("an answer") {
                Reply::Error(text) => {
                    assert!(text.starts_with("TOOBIG max="), "{text}");
                    refusals += 1;
                }
                other => assert_eq!(other, queued()),
            }
        }
        assert_eq!(refusals, 1, "what follows is not kept");
        refused(client, "EXEC", "EXECABORT ");
        talk(client, &[("GET {b}small", Reply::nil()), ("STRLEN {b}large", int(4 << 20))]);
    }
    cluster.wait_same(Duration::from_secs(10));
}

const ACCOUNTS: usize = 5;
const EACH: i64 = 100;

fn account(n: usize) -> String {
    format!("{{bank}}{n}")
}

/// Everything that is in the bank, at one instant; `None` when that could not be read.
fn total(client: &mut Client) -> Option<i64> {
    let names: Vec<String> = (0..ACCOUNTS).map(account).collect();
    client.say("MULTI").ok()?;
    for name in &names {
        client.say(&format!("GET {name}")).ok()?;
    }
    match client.say("EXEC").ok()? {
        Reply::Array(values) => {
            let amount = |value: &Reply| match value {
                Reply::Bulk(Some(bytes)) => String::from_utf8_lossy(bytes).parse::<i64>().expect("an amount"),
                other => panic!("{other:?}"),
            };
            Some(values.iter().map(amount).sum())
        }
        Reply::Error(_) => None,
        other => panic!("{other:?}"),
    }
}

/// Moves money with what was read before; whether it went through, or `None` when nobody knows or the
/// node is gone.
fn transfer(client: &mut Client, from: usize, to: usize) -> Option<bool> {
    let (from, to) = (account(from), account(to));
    if client.say(&format!("WATCH {from} {to}")).ok()? != Reply::ok() {
        return None;
    }
    let mut read = |key: &str| match client.say(&format!("GET {key}")).ok()? {
        Reply::Bulk(Some(bytes)) => String::from_utf8_lossy(&bytes).parse::<i64>().ok(),
        _ => None,
    };
    let (left, right) = (read(&from)?, read(&to)?);
    client.say("MULTI").ok()?;
    client.say(&format!("SET {from} {}", left - 1)).ok()?;
    client.say(&format!("SET {to} {}", right + 1)).ok()?;
    match client.say("EXEC").ok()? {
        Reply::Array(_) => Some(true),
        Reply::Bulk(None) => Some(false),
        _ => None,
    }
}

#[test]
fn money_is_neither_made_nor_lost_while_a_leader_dies() {
    // The story: clients at all nodes move money between five accounts with WATCH, MULTI and EXEC;
    // others count it. The leader of the accounts' group is killed in the middle of it.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe::default());
    let mut client = cluster.client(1);
    for n in 0..ACCOUNTS {
        talk(&mut client, &[(&format!("SET {} {EACH}", account(n)), Reply::ok())]);
    }
    let leader = cluster.leader_of(&account(0));
    let addresses = cluster.addresses();
    let (done, unmet, counted) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let whole = ACCOUNTS as i64 * EACH;
    std::thread::scope(|scope| {
        for worker in 0..6_usize {
            let (addresses, stop) = (&addresses, &stop);
            let (done, unmet, counted) = (&done, &unmet, &counted);
            scope.spawn(move || {
                let mut turns = worker;
                let mut client = None;
                while !stop.load(Ordering::Relaxed) {
                    turns += 1;
                    let Some(connection) = &mut client else {
                        client = Client::connect(addresses[turns % addresses.len()]).ok();
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    let went = if worker == 0 {
                        let total = total(connection);
                        if let Some(total) = total {
                            assert_eq!(total, whole, "seen in the middle of it");
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                        total.map(|_| ())
                    } else {
                        let from = turns % ACCOUNTS;
                        let went = transfer(connection, from, (from + 1 + turns % 3) % ACCOUNTS);
                        match went {
                            Some(true) => done.fetch_add(1, Ordering::Relaxed),
                            Some(false) => unmet.fetch_add(1, Ordering::Relaxed),
                            None => 0,
                        };
                        went.map(|_| ())
                    };
                    if went.is_none() {
                        client = None;
                    }
                }
            });
        }
        let some = |count: &AtomicU64| count.load(Ordering::Relaxed);
        cluster::until(Duration::from_secs(20), "transfers and conflicts", || {
            some(&done) > 20 && some(&unmet) > 0
        });
        cluster.kill(leader);
        let before = some(&done);
        cluster::until(Duration::from_secs(20), "transfers after the death", || some(&done) > before + 20);
        cluster.run(leader);
        cluster.wait_whole(Duration::from_secs(20));
        let before = some(&done);
        cluster::until(Duration::from_secs(20), "transfers after the return", || some(&done) > before + 20);
        stop.store(true, Ordering::Relaxed);
    });
    cluster.wait_same(Duration::from_secs(10));
    for node in cluster.nodes() {
        assert_eq!(total(&mut cluster.client(node)), Some(whole), "at node {node}");
    }
    assert!(counted.load(Ordering::Relaxed) > 0);
    println!("{done:?} transfers, {unmet:?} met a change, counted {counted:?} times");
}

#[test]
fn pelago_txn_ends_with_the_exit_code_of_the_way_it_went() {
    let _turn = turn();
    let cluster = Cluster::start(Recipe { nodes: 1, groups: 4, ..Recipe::default() });
    let address = cluster.ports().client(1).to_string();
    let run = |words: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pelago"));
        let output = command.args(words.split(' ')).args(["--addr", &address]).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let buy = "txn IF {s}stock VALUE 1 THEN PUT {s}stock 0 THEN INCRBY {s}sold -2 ELSE GET {s}stock ELSE GET {s}none";
    assert_eq!(run("put {s}stock 1").0, Some(0));
    assert_eq!(run(buy), (Some(0), "OK\n-2\n".into(), String::new()));
    let (code, out, said) = run(buy);
    assert_eq!((code, out.as_str()), (Some(1), "0\n(nil)\n"));
    assert!(said.contains("nothing behind THEN was applied"), "{said}");
    let (code, out, _) = run(&format!("{buy} --json"));
    assert_eq!(code, Some(1));
    assert_eq!(out, "{\"results\":[{\"value\":\"0\"},{\"value\":null}],\"then\":false}\n");
    let (code, out, said) = run("txn THEN PUT {s}stock x THEN INCR {s}stock");
    assert_eq!((code, out.starts_with("OK\n(error) ERR value is not")), (Some(2), true), "{out}{said}");
    for wrong in ["txn IF a ABSENT THEN PUT b 1", "txn GET k v"] {
        let (code, _, said) = run(wrong);
        assert!(
            code == Some(2) && said.contains("othing was applied") || said.contains("usage: MULTIOP"),
            "{said}"
        );
    }
}
