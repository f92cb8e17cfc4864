//! Redis' own tools against every node. They are skipped, loudly, on a machine without them.

mod cluster;

use std::process::Command;
use std::time::Instant;

use cluster::{Cluster, Recipe, turn};

/// Runs a tool and returns what it printed, or `None` when the machine does not have it.
fn tool(name: &str, words: &[&str]) -> Option<String> {
    let output = match Command::new(name).args(words).output() {
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
        }
    }
}
