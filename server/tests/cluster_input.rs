//! What clients send that they should not, or more of it than one expects.

mod cluster;

use std::io::Write as _;
use std::time::{Duration, Instant};

use cluster::{Client, Cluster, Recipe, Reply, encode, turn};

const LONG: Duration = Duration::from_secs(10);
const MIB: usize = 1 << 20;

fn one_node() -> Recipe {
    Recipe { nodes: 1, groups: 4, ..Recipe::default() }
}

/// Asserts that the reply is an error that starts like this.
fn assert_error(reply: &Reply, start: &str, what: &str) {
    assert!(
        matches!(reply, Reply::Error(text) if text.starts_with(start)),
        "{what}: {reply:?}, not {start:?}"
    );
}

#[test]
fn a_stream_out_of_step_is_told_so_and_closed() {
    // The story: a broken client library, a load balancer's probe, an attacker who announces what
    // he never sends. Each gets one line and the end of its connection, and costs no memory.
    let cluster = Cluster::start(one_node());
    let memory = cluster.resident(1);
    let line = vec![b'x'; 70_000];
    let cases: [(&str, &[u8]); 9] = [
        ("a 2 GB bulk", b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2147483648\r\n"),
        ("a bulk of more than any number", b"*1\r\n$99999999999999999999\r\n"),
        ("a negative bulk", b"*1\r\n$-7\r\n"),
        ("two billion words", b"*2147483647\r\n"),
        ("a count that is no number", b"*abc\r\n"),
        ("a number in the place of a word", b"*2\r\n$3\r\nGET\r\n:1\r\n"),
        ("a word that is longer than announced", b"*1\r\n$4\r\nPINGPONG\r\n"),
        (
            "a count without an end",
            b"*11111111111111111111111111111111111111111111111111111111111111111111111111",
        ),
        ("a line without an end", &line),
    ];
    for (what, bytes) in cases {
        let mut client = cluster.client(1);
        assert_eq!(client.say("PING").expect("an answer"), Reply::Status("PONG".into()));
        client.raw(bytes).expect("bytes are sent");
        let reply = client.receive().unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_error(&reply, "ERR Protocol error: ", what);
        assert!(
            client.is_closed().unwrap_or_else(|e| panic!("{what}: {e}")),
            "{what}: the connection goes on"
        );
    }
    // The answers to what came before are not lost.
    let mut client = cluster.client(1);
    client.raw(b"PUT k v\r\nGET k\r\n*1\r\n$2147483648\r\n").expect("bytes are sent");
    assert_eq!(client.receive().expect("an answer"), Reply::ok());
    assert_eq!(client.receive().expect("an answer"), Reply::bulk("v"));
    assert_error(&client.receive().expect("an answer"), "ERR Protocol error: ", "behind good requests");

    // A hundred that announce all they may and send nothing.
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut client = cluster.client(1);
        client.raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8388608\r\nabc").expect("bytes are sent");
        idle.push(client);
    }
    assert_eq!(cluster.client(1).say("GET k").expect("an answer"), Reply::bulk("v"));
    let grown = cluster.resident(1).saturating_sub(memory);
    assert!(grown < 32 << 20, "memory grew by {grown} bytes");
}

#[test]
fn mistakes_that_can_be_answered_keep_the_connection() {
    // The story: typos, wrong arguments, keys and values over the limit. One connection makes all
    // of these mistakes and is still in use at the end.
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    let (long_key, long_value) = (vec![b'k'; 4097], vec![b'v'; 8 * MIB + 1]);
    for node in cluster.nodes() {
        let mut client = cluster.client(node);
        let cases: [(&[&[u8]], &str); 12] = [
            (&[b"GTE", b"k"], "ERR unknown command"),
            (&[b"GET"], "ERR wrong number of arguments for 'get' command"),
            (&[b"SET", b"k"], "ERR wrong number of arguments for 'set' command"),
            (&[b"SET", b"k", b"v", b"NX", b"XX"], "ERR syntax error"),
            (&[b"INCRBY", b"k", b"ten"], "ERR value is not an integer or out of range"),
            (&[b"SELECT", b"1"], "ERR"),
            (&[b"GET", &long_key], "TOOBIG max=4096"),
            (&[b"PUT", &long_key, b"v"], "TOOBIG max=4096"),
            (&[b"PUT", b"k", &long_value], "TOOBIG max=8388608"),
            (&[b"MSET", b"a", b"1", b"k", &long_value], "TOOBIG max=8388608"),
            (&[b"DEL", b"a", &long_key], "TOOBIG max=4096"),
            (&[b"\xff\x00\r\n", b"k"], "ERR unknown command"),
        ];
        for (words, start) in cases {
            let reply = client.call(words).expect("an answer");
            assert_error(&reply, start, &String::from_utf8_lossy(words[0]));
            assert_eq!(client.say("ECHO here").expect("an answer"), Reply::bulk("here"));
        }
        client.raw(b"put k \"open\r\nping\r\n").expect("a line");
        assert_error(&client.receive().expect("an answer"), "ERR", "a quote that is not closed");
        assert_eq!(client.receive().expect("an answer"), Reply::Status("PONG".into()));
        // None of them was applied.
        for key in ["k", "a"] {
            assert_eq!(client.say(&format!("GET {key}")).expect("an answer"), Reply::nil());
        }
    }

    // The largest that is allowed goes through every node to every other one.
    let (key, mut value) = (vec![b'K'; 4096], vec![0; 8 * MIB]);
    for node in cluster.nodes() {
        value[node as usize] = node as u8;
        assert_eq!(cluster.client(node).call(&[b"PUT", &key[..], &value]).expect("an answer"), Reply::ok());
        for reader in cluster.nodes() {
            let found = cluster.client(reader).call(&[b"GET", &key[..]]).expect("an answer");
            assert!(found == Reply::bulk(&value), "8 MiB through node {node}, read through node {reader}");
        }
    }
    cluster.wait_same(LONG);
}

#[test]
fn lines_typed_by_people() {
    // The story: `nc localhost 7001`.
    let cluster = Cluster::start(one_node());
    let mut client = cluster.client(1);
    let mut type_in = |line: &[u8]| {
        client.raw(line).expect("a line");
        client.receive().expect("an answer")
    };
    assert_eq!(type_in(b"put greeting \"hello\\x20\\\"you\\\"\\n\"\n"), Reply::ok());
    assert_eq!(type_in(b"  GET \t greeting \r\n"), Reply::bulk(b"hello \"you\"\n"));
    assert_eq!(type_in(b"\r\n\n   \r\nPing\n"), Reply::Status("PONG".into()));
    assert_eq!(type_in(b"put 'single \\n' '\\x41'\n"), Reply::ok());
    assert_eq!(type_in(b"get \"single \\\\n\"\n"), Reply::bulk("\\x41"));
    assert_eq!(type_in(b"put empty \"\"\n"), Reply::ok());
    assert_eq!(type_in(b"get empty\n"), Reply::bulk(""));
    assert_eq!(type_in(b"*2\r\n$3\r\nget\r\n$5\r\nempty\r\n"), Reply::bulk(""));
    let long = [&b"put long "[..], &[b'x'; 60_000], b"\n"].concat();
    assert_eq!(type_in(&long), Reply::ok());
    assert_eq!(type_in(b"strlen long\n"), Reply::Integer(60_000));
    assert_eq!(type_in(b"quit\n"), Reply::ok());
    assert!(client.is_closed().expect("the end"));
}

#[test]
fn a_pipeline_of_ten_thousand_is_answered_in_order() {
    // The story: a loader writes everything at once and reads afterwards. Each of its reads sees
    // its own latest write, whichever group and node that takes.
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    for node in cluster.nodes() {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        // Puts, reads of what they wrote, and appends to it: one by one at first, then in runs of 25.
        for n in 0..10_000_u32 {
            let run = if n < 600 { 1 } else { 25 };
            let (turn, place) = (n / run / 3, n % run);
            let (key, value) = (format!("key-{}", turn % 2 * 25 + place), format!("{node}-{turn}-{place}"));
            match n / run % 3 {
                0 => {
                    bytes.extend(encode(&["PUT", &key, &value]));
                    expected.push(Reply::ok());
                }
                1 => {
                    bytes.extend(encode(&["GET", &key]));
                    expected.push(Reply::bulk(value));
                }
                _ => {
                    bytes.extend(encode(&["APPEND", &key, "!"]));
                    expected.push(Reply::Integer(value.len() as i64 + 1));
                }
            }
        }
        let mut client = cluster.client(node);
        let mut stream = client.stream().expect("a second handle");
        let begun = Instant::now();
        // The socket does not take it all before the first replies are read.
        let writer = std::thread::spawn(move || stream.write_all(&bytes));
        for (n, expected) in expected.into_iter().enumerate() {
            let reply = client.receive().unwrap_or_else(|e| panic!("reply {n} through node {node}: {e}"));
            assert_eq!(reply, expected, "reply {n} through node {node}");
        }
        writer.join().expect("the writer").expect("everything is sent");
        println!("10 000 commands in one write through node {node}: {:?}", begun.elapsed());
    }
    cluster.wait_same(LONG);
}

/// Puts and gets through `node` until told to stop by `more`; returns the slowest answer.
fn slowest(client: &mut Client, mut more: impl FnMut() -> bool) -> Duration {
    let mut slowest = Duration::ZERO;
    let mut n = 0_u32;
    while more() {
        n += 1;
        let begun = Instant::now();
        let (key, value) = (format!("other-{}", n % 100), n.to_string());
        assert_eq!(client.call(&["PUT", &key, &value]).expect("an answer"), Reply::ok());
        assert_eq!(client.call(&["GET", &key]).expect("an answer"), Reply::bulk(&value));
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

/// Asks `node` for `gets` large values, reads none of them for two seconds, and then all.
fn ask_and_sleep(cluster: &Cluster, node: u32, gets: usize) {
    let value = vec![b'v'; MIB];
    assert_eq!(cluster.client(1).call(&[b"PUT", LARGE, &value]).expect("an answer"), Reply::ok());
    let memory = cluster.nodes().into_iter().map(|node| cluster.resident(node)).collect::<Vec<_>>();
    let mut sleeper = cluster.client(node);
    sleeper.raw(&encode(&[b"GET", LARGE]).repeat(gets)).expect("the questions are sent");
    let mut client = cluster.client(node);
    let begun = Instant::now();
    let mut grown = 0;
    let slowest = slowest(&mut client, || {
        for (node, before) in cluster.nodes().into_iter().zip(&memory) {
            grown = grown.max(cluster.resident(node).saturating_sub(*before));
        }
        begun.elapsed() < Duration::from_secs(2)
    });
    println!(
        "node {node} beside a client that does not read: slowest {slowest:?}, memory +{} MiB",
        grown >> 20
    );
    // Milliseconds on an idle machine; an election in between would take longer than this.
    assert!(slowest < Duration::from_secs(2), "another client waited {slowest:?}");
    assert!(grown < 128 << 20, "memory grew by {} MiB", grown >> 20);
    for n in 0..gets {
        let reply = sleeper.receive().unwrap_or_else(|e| panic!("value {n}: {e}"));
        assert!(reply.error_class().is_none(), "value {n}: {reply:?}");
        assert!(reply == Reply::bulk(&value), "value {n} is not what was put");
    }
}

/// The key of a large value.
const LARGE: &[u8] = b"large";

#[test]
fn a_client_that_does_not_read_costs_no_memory_and_disturbs_nobody() {
    // The story: a client asks for half a gigabyte and goes to sleep before it reads any of it.
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    ask_and_sleep(&cluster, cluster.leader_of("large"), 500);
}

/// A cluster, and a node that does not lead the large value's group.
fn cluster_with_a_follower() -> (Cluster, u32) {
    let cluster = Cluster::start(Recipe::default());
    let leader = cluster.leader_of("large");
    let follower = cluster.nodes().into_iter().find(|node| *node != leader).expect("another node");
    (cluster, follower)
}

#[test]
fn large_answers_through_a_follower_arrive() {
    // The story: forty clients read a value of 1 MiB through a node that is not its leader. The
    // leader answered all of them in one turn, with more than may wait for one peer. The batch was
    // refused whole, asked for again and refused again until every question had timed out.
    let _turn = turn();
    let (cluster, follower) = cluster_with_a_follower();
    ask_and_sleep(&cluster, follower, 40);
}

#[test]
#[ignore = "open: answers of other nodes to a client that does not read take memory without limit"]
fn a_client_that_does_not_read_from_a_follower_costs_no_memory() {
    // The story: a client asks a follower for half a gigabyte and goes to sleep. Its questions are
    // few bytes, so all of them are forwarded at once, and the follower keeps all the answers.
    let _turn = turn();
    let (cluster, follower) = cluster_with_a_follower();
    ask_and_sleep(&cluster, follower, 500);
}

#[test]
#[ignore = "open: so many large accepts at once still cause elections; what remains is not known"]
fn the_largest_values_written_at_once_arrive() {
    // The story: seven clients put 8 MiB each, which the in-flight limit allows. The leader's
    // accepts of one turn were more than waits for one peer at most, and were refused together with
    // the heartbeats and promises of every group: elections without end, and INDOUBT.
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    let value = vec![b'v'; 8 * MIB];
    for node in cluster.nodes() {
        let writers: Vec<_> = (0..7)
            .map(|n| (n, cluster.client(node), value.clone()))
            .map(|(n, mut client, value)| {
                std::thread::spawn(move || client.call(&[b"PUT", format!("big-{n}").as_bytes(), &value]))
            })
            .collect();
        for writer in writers {
            let reply = writer.join().expect("a writer").expect("an answer");
            assert_eq!(reply, Reply::ok(), "8 MiB beside six others through node {node}");
        }
    }
    cluster.wait_same(LONG);
}

#[test]
fn a_client_that_only_writes_is_held_up() {
    // The story: the same with small answers. The node stops reading it, so that its own buffers
    // fill, and not the node's memory.
    let cluster = Cluster::start(one_node());
    let memory = cluster.resident(1);
    let client = cluster.client(1);
    let mut stream = client.stream().expect("a second handle");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a limit");
    let pings = encode(&["PING"]).repeat(10_000);
    let most = 400 * MIB;
    let mut sent = 0;
    while sent < most {
        match stream.write(&pings) {
            Ok(n) => sent += n,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                break;
            }
            Err(e) => panic!("after {sent} bytes: {e}"),
        }
    }
    assert!(sent < most, "the node took {sent} bytes of a client that does not read");
    assert_eq!(cluster.client(1).say("PUT k v").expect("an answer"), Reply::ok());
    let grown = cluster.resident(1).saturating_sub(memory);
    println!("a client that only writes was held up after {sent} bytes, memory +{} KiB", grown >> 10);
    assert!(grown < 32 << 20, "memory grew by {grown} bytes");
}

#[test]
fn five_hundred_connections() {
    // The story: every process of a fleet opens its pool. All are served, and one too many is told.
    let _turn = turn();
    let more = "[limits]\nmax_connections = 510\n";
    let cluster = Cluster::start(Recipe { more, ..Recipe::default() });
    let mut clients: Vec<Client> = (0..500).map(|_| cluster.client(1)).collect();
    for round in 0..3 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.say_only(&format!("PUT conn-{n} {round}")).expect("a put is sent");
            client.say_only(&format!("GET conn-{n}")).expect("a get is sent");
        }
        for client in &mut clients {
            assert_eq!(client.receive().expect("an answer"), Reply::ok());
            assert_eq!(client.receive().expect("an answer"), Reply::bulk(round.to_string()));
        }
    }
    let seen = cluster.status(1).expect("a status").connections;
    assert!((500..=510).contains(&seen), "{seen} connections");
    let mut beyond: Vec<Client> = (0..20).map(|_| cluster.client(1)).collect();
    let told = beyond
        .iter_mut()
        .filter_map(|client| client.say("PING").ok())
        .filter(|reply| matches!(reply, Reply::Error(text) if text.contains("max number of clients")))
        .count();
    assert!(told >= 10, "{told} of 20 were told that there are too many");
    drop(beyond);
    drop(clients);
    cluster::until(LONG, "the places are free again", || cluster.status(1).is_ok_and(|s| s.connections <= 2));
    assert_eq!(cluster.client(1).say("GET conn-499").expect("an answer"), Reply::bulk("2"));
}

#[test]
fn a_large_reply_does_not_leave_its_connection_asleep() {
    // The story: a reply of megabytes filled the connection. Where the socket then took all of it in
    // one go, nobody was left to tell the connection to read on, and the next command was not answered.
    let cluster = Cluster::start(one_node());
    let mut client = cluster.client(1);
    client.call(&[b"SET".as_slice(), b"large", &vec![b'x'; 3 * MIB]]).expect("an answer");
    for round in 0..50 {
        let Ok(Reply::Bulk(Some(value))) = client.say("GET large") else { panic!("no value, round {round}") };
        assert_eq!(value.len(), 3 * MIB);
        let pong = client.say("PING").unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(pong, Reply::Status("PONG".into()));
    }
}
