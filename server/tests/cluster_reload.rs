//! The configuration is read again while a node runs, by command and by signal, and its log is text or JSON.

mod cluster;

use std::fs;
use std::time::Duration;

use cluster::http::request;
use cluster::{Cluster, Recipe, Reply, turn, within};

const SOON: Duration = Duration::from_secs(10);

fn edit(cluster: &Cluster, from: &str, to: &str) {
    let text = fs::read_to_string(cluster.config()).expect("the configuration");
    assert!(text.contains(from), "{from} is not in\n{text}");
    fs::write(cluster.config(), text.replace(from, to)).expect("written");
}

#[test]
fn limits_and_level_change_live_and_a_mistake_changes_nothing() {
    let _turn = turn();
    let recipe = Recipe {
        more: "[limits]\nmax_value = \"1KiB\"\nmax_connections = 100\n\n[paxos]\nwindow = 64\n\n[log]\nlevel = \"info\"\n",
        ..Recipe::default()
    };
    let mut cluster = Cluster::prepare(recipe);
    cluster.run_with(1, &["--log-format", "json"]);
    cluster.run_with(2, &["--log-level", "info"]);
    cluster.run(3);
    cluster.wait_whole(Duration::from_secs(20));
    let value = "x".repeat(2_000);
    let put = |node: u32| cluster.client(node).say(&format!("PUT key {value}")).expect("an answer");
    assert_eq!(put(1).error_class(), Some("TOOBIG"));

    edit(&cluster, "max_value = \"1KiB\"", "max_value = \"4KiB\"");
    edit(&cluster, "window = 64", "window = 32");
    edit(&cluster, "level = \"info\"", "level = \"debug\"");
    edit(&cluster, "max_connections = 100", "max_conections = 100");
    let (code, said) = cluster.pelago(&["admin", "reload"], 1);
    assert_eq!(code, Some(1), "{said}");
    for node in 1..=3 {
        assert!(
            said.contains(&format!("node {node}: the file has mistakes, and nothing was changed:")),
            "{said}"
        );
    }
    assert!(said.contains("max_conections") && said.contains("did you mean `max_connections`?"), "{said}");
    assert_eq!(put(1).error_class(), Some("TOOBIG"), "nothing at all was changed");

    edit(&cluster, "max_conections = 100", "max_connections = 100");
    let (code, said) = cluster.pelago(&["admin", "reload"], 1);
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "node 1: limits.max_value from 1KiB to 4KiB: in force (for connections that are opened from now on)",
        "node 1: paxos.window from 64 to 32: NOT in force: restart the node",
        "node 1: log.level from info to debug: in force",
        "node 2: log.level from info to debug: NOT in force: restart the node (--log-level stands before it)",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    for node in 1..=3 {
        assert_eq!(put(node), Reply::Status("OK".into()));
    }
    let shown = cluster.client(1).say("CONFIG GET limits.max_value").expect("an answer");
    assert_eq!(shown, Reply::Array(vec![Reply::bulk("limits.max_value"), Reply::bulk("4KiB")]));
    let shown = cluster.client(1).say("CONFIG GET paxos.window").expect("an answer");
    assert_eq!(shown, Reply::Array(vec![Reply::bulk("paxos.window"), Reply::bulk("64")]), "what is in force");

    // The same by a signal, for one node.
    edit(&cluster, "max_connections = 100", "max_connections = 101");
    let pid = cluster.pid(3).to_string();
    let done = std::process::Command::new("sh").args(["-c", "kill -s HUP \"$0\"", &pid]).status();
    assert!(done.is_ok_and(|status| status.success()), "kill -s HUP {pid}");
    cluster.wait_logged(3, "a setting has changed", SOON);
    within(SOON, "node 3 takes one connection more", || {
        match cluster.client(3).say("CONFIG GET maxclients").expect("an answer") {
            Reply::Array(pair) if pair[1] == Reply::bulk("101") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    // Who takes over says so at this level.
    cluster.kill(3);
    cluster.wait_logged(1, "\"DEBUG\"", SOON);

    // Node 1 writes one object per line, whatever it says.
    cluster.kill(1);
    let log = cluster.log(1);
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let said = |message: &str| lines.iter().find(|line| line["message"] == message);
    let serving = said("serving").unwrap_or_else(|| panic!("no line says that it serves:\n{log}"));
    assert_eq!((&serving["level"], &serving["groups"]), (&"INFO".into(), &16.into()));
    let changed = said("a setting has changed").expect("the change is logged");
    assert!(changed["key"].is_string() && changed["time"].is_string(), "{changed}");
    assert!(!cluster.log(2).contains("DEBUG"), "and does not where the command line has fixed it");
}

/// The story: what a node shows of its limits, and whom its admin port lets in, came from the configuration of the
/// start: after a reload `INFO` and `/metrics` told other limits than those in force, and the port took
/// the old password, or none.
#[test]
fn what_shows_a_setting_shows_the_one_in_force() {
    let _turn = turn();
    let recipe = Recipe {
        nodes: 1,
        groups: 2,
        more: "[limits]\nmax_connections = 100\nmax_state_bytes = \"64MiB\"\n",
        ..Recipe::default()
    };
    let cluster = Cluster::start(recipe);
    let port = cluster.ports().admin(1);
    let get = |path: &str, more: &str| {
        let text = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{more}connection: close\r\n\r\n");
        request(port, &text).expect("an answer")
    };
    assert_eq!(get("/status", "").code, 200);
    edit(&cluster, "max_connections = 100", "max_connections = 101");
    edit(
        &cluster,
        "max_state_bytes = \"64MiB\"\n",
        "max_state_bytes = \"65MiB\"\n\n[security]\npassword = \"sesame\"\n",
    );
    let (code, said) = cluster.pelago(&["admin", "reload"], 1);
    assert_eq!(code, Some(0), "{said}");

    assert_eq!(get("/status", "").code, 401, "the password counts here, too");
    let metrics = get("/metrics", "authorization: Bearer sesame\r\n");
    assert_eq!(metrics.code, 200);
    for line in ["pelago_connections_limit 101", "pelago_state_limit_bytes 68157440"] {
        assert!(metrics.body.lines().any(|known| known == line), "{line} is not in\n{}", metrics.body);
    }
    let mut client = cluster.client(1);
    assert_eq!(client.say("AUTH sesame").expect("an answer"), Reply::Status("OK".into()));
    for (section, line) in [("clients", "maxclients:101"), ("memory", "maxmemory:68157440")] {
        match client.say(&format!("INFO {section}")).expect("an answer") {
            Reply::Bulk(Some(text)) => {
                let text = String::from_utf8(text).expect("text");
                assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}
