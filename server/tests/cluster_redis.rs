//! Redis' own tools against every node. They are skipped, loudly, on a machine without them.

mod cluster;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use cluster::{Cluster, Recipe, encode, turn};

/// Runs a tool and returns what it printed, or `None` when the machine does not have it.
fn tool(name: &str, words: &[&str]) -> Option<String> {
    fed(name, words, b"")
}

/// The same with this on its standard input.
fn fed(name: &str, words: &[&str], input: &[u8]) -> Option<String> {
    let run = || {
        let mut command = Command::new(name);
        let pipes = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn()?;
        let mut stdin = child.stdin.take().expect("a pipe");
        // Beside the reading, so that neither waits for the other.
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || stdin.write_all(input));
            let output = child.wait_with_output();
            let _ = writing.join().expect("no panic");
            output
        })
    };
    let output = match run() {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED: {name} is not installed (apt-get install redis-tools)");
            return None;
        }
        Err(e) => panic!("{name}: {e}"),
    };
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {words:?} ended with {}: {out}{errors}", output.status);
    assert!(!out.contains("Error") && !out.contains("ERR"), "{name} {words:?}: {out}{errors}");
    assert!(!errors.contains("rror"), "{name} {words:?}: {errors}");
    Some(out)
}

#[test]
fn redis_benchmark_runs_through_every_node() {
    // The story: the first thing that people do with a server of this protocol.
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    for node in cluster.nodes() {
        let port = cluster.ports().client(node).port().to_string();
        for pipeline in ["1", "16"] {
            let begun = Instant::now();
            let words = [
                "-p", &port, "-t", "set,get", "-n", "20000", "-r", "100000", "-c", "64", "-P", pipeline,
                "--csv",
            ];
            let Some(out) = tool("redis-benchmark", &words) else { return };
            for name in ["\"SET\"", "\"GET\""] {
                let line = out.lines().find(|line| line.starts_with(name));
                println!(
                    "node {node}, pipeline {pipeline}: {}",
                    line.unwrap_or_else(|| panic!("no {name} in {out}"))
                );
            }
            println!("node {node}, pipeline {pipeline}: {:?}", begun.elapsed());
        }
    }
    let port = cluster.ports().client(1).port().to_string();
    let words =
        ["-p", &port, "--cluster", "-t", "set,get", "-n", "20000", "-r", "100000", "-c", "64", "-P", "4"];
    // `--csv` does not tell whom it talks to.
    let out = tool("redis-benchmark", &words).expect("it was there above");
    assert!(out.contains("Cluster has 3 master nodes"), "{out}");
    for node in cluster.nodes() {
        let address = cluster.ports().client(node).to_string();
        assert!(out.contains(&address), "it knows of {address}: {out}");
    }
    let rates = out
        .lines()
        .filter(|line| line.contains("throughput summary:") || line.contains("requests per second"));
    rates.for_each(|line| println!("--cluster: {}", line.trim()));
    cluster.wait_same(std::time::Duration::from_secs(5));
}

#[test]
fn redis_cli_speaks_both_protocols() {
    // The story: an operator types commands at redis-cli, with RESP2 and with `-3`.
    let _turn = turn();
    let cluster = Cluster::start(Recipe::default());
    for node in cluster.nodes() {
        let port = cluster.ports().client(node).port().to_string();
        for protocol in ["-2", "-3"] {
            let run = |words: &[&str]| {
                tool("redis-cli", &[&["-p", &port, protocol][..], words].concat())
                    .map(|out| out.trim_end().to_owned())
            };
            let Some(pong) = run(&["PING"]) else { return };
            assert_eq!(pong, "PONG");
            let key = format!("cli{node}{protocol}");
            let expected = [
                (&["SET", &key, "a b"][..], "OK"),
                (&["GET", &key], "a b"),
                (&["EXISTS", &key], "1"),
                (&["CAS", &key, "a b", "c"], "1"),
                (&["CAS", &key, "a b", "d"], "0"),
                (&["GET", &key], "c"),
                (&["DEL", &key], "1"),
                (&["GET", &key], ""),
                (&["INCRBY", &key, "41"], "41"),
                (&["INCR", &key], "42"),
                (&["MSET", "x", "1", "y", "2"], "OK"),
                (&["MGET", "x", "none", "y"], "1\n\n2"),
            ];
            for (words, reply) in expected {
                assert_eq!(run(words).as_deref(), Some(reply), "redis-cli {protocol} {words:?}");
            }
            let scanned = run(&["--scan", "--pattern", "cli[0-9]*"]);
            assert_eq!(scanned.as_deref(), Some(&key[..]), "redis-cli {protocol} --scan");
            assert_eq!(run(&["DEL", &key]).as_deref(), Some("1"));
            assert!(run(&["INFO"]).is_some_and(|info| info.contains("pelago_version")));
            assert!(run(&["WHERE", &key]).is_some_and(|place| place.contains("leader")));
            // `HELP` itself is answered by redis-cli, from what `COMMAND DOCS` told it.
            assert!(run(&["CLIENT", "HELP"]).is_some_and(|text| text.contains("CLIENT REDIRECT ON | OFF")));
        }
        commands_from_a_pipe(&port);
        a_million_at_a_time(&port);
    }
    for node in cluster.nodes() {
        a_person_at_a_terminal(&cluster.ports().client(node).port().to_string());
    }
    redirects_are_followed(&cluster);
}

fn commands_from_a_pipe(port: &str) {
    let lines =
        b"SET piped \"a \\x00 b\"\nSTRLEN piped\nGETRANGE piped 0 0\nMULTI\nDEL piped\nTYPE piped\nEXEC\n";
    let out = fed("redis-cli", &["-p", port], lines).expect("it was there above");
    assert_eq!(out, "OK\n5\na\nOK\nQUEUED\nQUEUED\n1\nnone\n");
}

/// As `--pipe` is meant: requests as bytes, as many as there are.
fn a_million_at_a_time(port: &str) {
    const KEYS: usize = 5_000;
    let requests: Vec<u8> =
        (0..KEYS).flat_map(|n| encode(&["SET".to_owned(), format!("mass:{n}"), n.to_string()])).collect();
    let out = fed("redis-cli", &["-p", port, "--pipe"], &requests).expect("it was there above");
    assert!(out.contains(&format!("errors: 0, replies: {KEYS}")), "{out}");
    let scanned = tool("redis-cli", &["-p", port, "--scan", "--pattern", "mass:*"]).expect("scanned");
    let mut keys: Vec<&str> = scanned.lines().collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), KEYS);
    let big = tool("redis-cli", &["-p", port, "--bigkeys"]).expect("sampled");
    let all = tool("redis-cli", &["-p", port, "DBSIZE"]).expect("counted");
    let sampled = format!("Sampled {} keys", all.trim());
    assert!(big.contains(&sampled) && big.contains("Biggest string found"), "{sampled}: {big}");
    let deletes: Vec<u8> = (0..KEYS).flat_map(|n| encode(&["DEL".to_owned(), format!("mass:{n}")])).collect();
    let out = fed("redis-cli", &["-p", port, "--pipe"], &deletes).expect("it was there above");
    assert!(out.contains("errors: 0"), "{out}");
}

fn a_person_at_a_terminal(port: &str) {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redis_cli.py");
    match Command::new("python3").arg(script).arg(port).output() {
        Ok(output) => {
            let said = format!("{output:?}");
            assert!(output.status.success() && output.stdout.ends_with(b"all well\n"), "{said}");
        }
        Err(e) => println!("SKIPPED: no python3 to hold a terminal: {e}"),
    }
}

/// `redis-cli -c` goes where a redirect says; without one it is served where it is.
fn redirects_are_followed(cluster: &Cluster) {
    let port = cluster.ports().client(1).port().to_string();
    let key = (0..).map(|n| format!("follow:{n}")).find(|key| cluster.leader_of(key) != 1).expect("a key");
    let place = cluster.ports().client(cluster.leader_of(&key));
    let plain = fed("redis-cli", &["-c", "-p", &port], format!("SET {key} 1\n").as_bytes()).expect("there");
    assert_eq!(plain, "OK\n");
    // A leader that this node did not know a moment ago is not told at once.
    cluster::within(std::time::Duration::from_secs(10), "a redirect", || {
        let lines = format!("CLIENT REDIRECT ON\nGET {key}\nGET {key}\nPING\n");
        let out = fed("redis-cli", &["-c", "-p", &port], lines.as_bytes()).expect("there");
        if out.contains(&format!("located at {place}")) || out == "OK\n1\n1\nPONG\n" {
            // Piped, it does not say where it went; whoever answers has the value.
            Ok(())
        } else {
            Err(out)
        }
    });
}
