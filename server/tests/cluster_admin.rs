//! The admin port of real nodes: what probes, Prometheus and people are told, whoever asks how.

mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use cluster::http::{Answer, get, request};
use cluster::{Cluster, Recipe, Reply, turn, within};
use server::admin::metrics;

const LONG: Duration = Duration::from_secs(20);

fn ask(cluster: &Cluster, node: u32, path: &str) -> Answer {
    get(cluster.ports().admin(node), path).unwrap_or_else(|e| panic!("node {node} {path}: {e}"))
}

/// The codes of the reasons for which a node says that it is not ready.
fn reasons(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    assert_eq!(json["ready"], answer.code == 200, "{json}");
    let reasons = json["reasons"].as_array().expect("reasons");
    assert_eq!(reasons.is_empty(), answer.code == 200, "{json}");
    reasons.iter().map(|r| r["code"].as_str().expect("a code").to_owned()).collect()
}

/// Waits until a node says that it is ready, or that it is not and this is among the reasons.
fn wait_ready(cluster: &Cluster, node: u32, wanted: Option<&str>) -> String {
    let address = cluster.ports().admin(node);
    within(LONG, &format!("node {node}: {wanted:?}"), || {
        let answer = get(address, "/readyz").map_err(|e| e.to_string())?;
        let codes = reasons(&answer);
        match wanted {
            None if answer.code == 200 => Ok(answer.body),
            Some(wanted) if answer.code == 503 && codes.iter().any(|code| code == wanted) => Ok(answer.body),
            _ => Err(answer.body),
        }
    })
    .0
}

/// Samples by their names and labels. Refuses whatever Prometheus would, and more.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let known: BTreeMap<&str, _> = metrics::ALL.iter().map(|metric| (metric.name, metric)).collect();
    let (mut samples, mut done) = (BTreeMap::new(), BTreeSet::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) =
            line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')).expect("a help text first");
        let metric = known.get(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        assert_eq!(help, metric.help);
        assert_eq!(lines.next(), Some(format!("# TYPE {name} {}", metric.kind.word()).as_str()));
        assert!(done.insert(name.to_owned()), "{name} is there twice");
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (base, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffix = base.strip_prefix(name).unwrap_or_else(|| panic!("{line} under {name}"));
            match metric.kind.word() {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
                _ => assert_eq!(suffix, "", "{line}"),
            }
            let labels = labels.strip_suffix('}').expect("the end of the labels");
            let names: Vec<&str> = labels.split("\",").filter_map(|l| Some(l.split_once("=\"")?.0)).collect();
            let wanted = metric.labels.iter().copied().chain((suffix == "_bucket").then_some("le"));
            assert_eq!(names, wanted.collect::<Vec<_>>(), "{line}");
            let value: f64 = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(value >= 0.0 && value.is_finite(), "{line}");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{line} is there twice");
        }
    }
    samples
}

/// The buckets of each histogram rise, and the last is its count.
fn check_histogram(samples: &BTreeMap<String, f64>, text: &str, name: &str, label: &str) -> f64 {
    let prefix = format!("{name}_bucket{{{label}");
    let counts: Vec<f64> = text
        .lines()
        .filter(|l| l.starts_with(&prefix))
        .map(|l| samples[l.rsplit_once(' ').expect("a value").0])
        .collect();
    assert!(counts.len() > 10 && counts.is_sorted(), "{prefix} {counts:?}");
    let count = samples[&match label {
        "" => format!("{name}_count"),
        label => format!("{name}_count{{{}}}", label.trim_end_matches(',')),
    }];
    assert_eq!(counts.last(), Some(&count), "{prefix}");
    count
}

fn check_metrics(cluster: &Cluster) {
    let answer = ask(cluster, 1, "/metrics");
    assert_eq!(
        (answer.code, answer.header("content-type")),
        (200, Some("text/plain; version=0.0.4; charset=utf-8"))
    );
    let before = samples(&answer.body);
    assert!(!answer.body.contains("group=\""), "no label of groups unless it is asked for");
    assert_eq!(before["pelago_ready"], 1.0);
    assert_eq!(before["pelago_groups{role=\"leader\"}"] + before["pelago_groups{role=\"follower\"}"], 6.0);
    assert_eq!(before["pelago_peer_up{peer=\"2\"}"], 1.0);
    assert!(before["process_resident_memory_bytes"] > 1e6, "{before:?}");

    let mut client = cluster.client(1);
    for n in 0..50 {
        assert_eq!(client.say(&format!("PUT m{n} v")).expect("an answer"), Reply::ok());
        assert_eq!(client.say(&format!("GET m{n}")).expect("an answer"), Reply::bulk("v"));
    }
    let error = client.say("PUT m0").expect("an answer");
    assert_eq!(error.error_class(), Some("ERR"));
    // A look is kept for a moment.
    let (text, after) = within(LONG, "the metrics count what was done", || {
        let text = ask(cluster, 1, "/metrics?groups=1").body;
        let after = samples(&text);
        let error = after.get("pelago_command_errors_total{code=\"ERR\"}");
        if error.is_some() { Ok((text, after)) } else { Err("no error is counted") }
    })
    .0;
    let rise = |series: &str| after[series] - before[series];
    assert_eq!(rise("pelago_commands_total{kind=\"write\"}"), 50.0);
    assert_eq!(rise("pelago_commands_total{kind=\"read\"}"), 50.0);
    assert_eq!(rise("pelago_command_duration_seconds_count{kind=\"write\"}"), 50.0);
    assert!(rise("pelago_command_duration_seconds_sum{kind=\"write\"}") > 0.0);
    for kind in ["read", "write"] {
        check_histogram(&after, &text, "pelago_command_duration_seconds", &format!("kind=\"{kind}\","));
    }
    let commits = check_histogram(&after, &text, "pelago_log_commit_duration_seconds", "");
    assert!(commits > 0.0 && rise("pelago_log_records_total") > 0.0);
    for metric in metrics::ALL {
        let shown = after.keys().any(|series| series.starts_with(metric.name));
        assert!(shown, "{} has no sample on a node that serves", metric.name);
    }
    let groups = after.keys().filter(|series| series.starts_with("pelago_group_leader_node{")).count();
    assert_eq!(groups, 6);
    // Only this one has any; each is counted once over the nodes.
    let led =
        (1..=3).map(|node| samples(&ask(cluster, node, "/metrics").body)["pelago_led_keys"]).sum::<f64>();
    assert_eq!(led, 50.0);
}

fn check_paths_and_methods(cluster: &Cluster) {
    let address = cluster.ports().admin(1);
    for path in
        ["/", "/livez", "/readyz", "/metrics", "/status", "/status?cluster=1", "/status?cluster=1&brief=1"]
    {
        let answer = ask(cluster, 1, path);
        assert_eq!(answer.code, 200, "{path}: {}", answer.body);
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        let policies = answer.headers.iter().filter(|(name, _)| name == "content-security-policy").count();
        assert_eq!(policies, 1, "{path}: a browser obeys each of them");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        let head = request(address, &format!("HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
            .expect("an answer");
        assert_eq!((head.code, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-type"), answer.header("content-type"), "{path}");
        assert!(head.header("content-length").is_some_and(|length| length != "0"), "{path}: {head:?}");
    }
    let nonces = [(); 2].map(|()| ask(cluster, 1, "/").header("content-security-policy").map(str::to_owned));
    assert_ne!(nonces[0], nonces[1], "a nonce is used once");
    let nowhere = ask(cluster, 1, "/metric");
    assert_eq!(nowhere.code, 404);
    for path in ["/\n", "/livez\n", "/readyz\n", "/metrics\n", "/status\n"] {
        assert!(nowhere.body.contains(path), "{}", nowhere.body);
    }
    for (path, word) in [
        ("/status?clusters=1", "cluster=1"),
        ("/status?cluster=yes", "1 or 0"),
        ("/readyz?verbose", "nothing behind"),
    ] {
        let answer = ask(cluster, 1, path);
        assert!(answer.code == 400 && answer.body.contains(word), "{path}: {} {}", answer.code, answer.body);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let text =
            format!("{method} /status HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let answer = request(address, &text).expect("an answer");
        assert_eq!((answer.code, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    // What is no HTTP, or too much of it, is refused and closed, and costs a bounded buffer.
    for (text, codes) in [
        (format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(64 << 10)), [431, 431]),
        (format!("GET /livez HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)), [431, 431]),
        (format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000)), [414, 431]),
        ("*1\r\n$4\r\nPING\r\n".to_owned(), [400, 400]),
        ("GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_owned(), [400, 400]),
    ] {
        let answer = request(address, &text).unwrap_or_else(|e| panic!("{:.60}: {e}", text));
        assert!(codes.contains(&answer.code), "{:.60}: {}", text, answer.code);
    }
    // The answer comes although the client has closed its side, as `nc` does.
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("closed");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("an answer");
    assert!(said.ends_with("\r\n\r\nalive\n"), "{said}");
}

fn check_status(cluster: &Cluster) {
    let own: server::status::NodeStatus =
        serde_json::from_str(&ask(cluster, 2, "/status").body).expect("a node's status");
    assert_eq!((own.node, own.groups.len()), (2, 6));
    // The very document that the client port gives, but for what moves.
    let said = cluster.status(2).expect("a status");
    assert_eq!(
        (own.cluster, own.storage, own.boot, own.nodes.len()),
        (said.cluster, said.storage, said.boot, said.nodes.len())
    );

    let (code, text) = cluster.pelago(&["status", "--json"], 2);
    assert_eq!(code, Some(0), "{text}");
    let printed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let shown = ask(cluster, 2, "/status?cluster=1").json();
    let keys = |value: &serde_json::Value| -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(keys(&printed), keys(&shown));
    for part in ["summary", "/nodes/0", "/groups/0"] {
        let part = if part.starts_with('/') { part.to_owned() } else { format!("/{part}") };
        let at = |value: &serde_json::Value| value.pointer(&part).map(keys);
        assert_eq!(at(&printed), at(&shown), "{part}");
    }
    assert_eq!(shown["summary"]["nodes_alive"], 3, "{shown}");
    let brief = ask(cluster, 2, "/status?cluster=1&brief=1").json();
    assert_eq!(keys(&brief), keys(&shown));
    assert_eq!(brief["groups"].as_array().map(Vec::len), Some(6));
    assert_eq!(brief["nodes"][0]["groups"].as_array().map(Vec::len), Some(0));
}

/// Clients that send half a request and wait take no more than the connections there are, and not for long.
fn check_slow_clients(address: SocketAddr) {
    let mut slow: Vec<TcpStream> =
        (0..64).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhos").expect("half a request");
    }
    // One of those before may be closing.
    within(LONG, "one more is told that there are too many", || {
        let extra = get(address, "/livez").map_err(|e| e.to_string())?;
        if extra.code == 503 && extra.body.contains("too many") { Ok(()) } else { Err(extra.body) }
    });
    let took = within(LONG, "they are closed and others served", || match get(address, "/livez") {
        Ok(answer) if answer.code == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .1;
    assert!(took < Duration::from_secs(9), "{took:?}");
    for mut stream in slow {
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        // A word before the end or not: what counts is that the end comes.
        let mut rest = Vec::new();
        if let Err(e) = stream.read_to_end(&mut rest) {
            assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{e}");
        }
    }
}

#[test]
fn probes_prometheus_and_people_are_told_how_things_are() {
    // The story: an operator points Prometheus and the probes of a supervisor at a cluster, loses two of three
    // nodes, and gets them back.
    let _turn = turn();
    let mut cluster = Cluster::start(Recipe { groups: 6, ..Recipe::default() });
    wait_ready(&cluster, 1, None);
    check_metrics(&cluster);
    check_paths_and_methods(&cluster);
    check_status(&cluster);
    check_slow_clients(cluster.ports().admin(1));

    cluster.kill(2);
    cluster.kill(3);
    let why = wait_ready(&cluster, 1, Some("no_leader"));
    assert!(why.contains("1 of 3 nodes are alive"), "{why}");
    assert_eq!(ask(&cluster, 1, "/livez").code, 200, "a node without its peers is alive");
    let metrics = samples(&ask(&cluster, 1, "/metrics").body);
    assert_eq!((metrics["pelago_ready"], metrics["pelago_not_ready{reason=\"no_leader\"}"]), (0.0, 1.0));
    assert!(metrics["pelago_groups_without_leader"] > 0.0);
    assert_eq!(metrics["pelago_peer_up{peer=\"2\"}"], 0.0);
    let summary = within(LONG, "the survey misses both", || {
        let json = ask(&cluster, 1, "/status?cluster=1").json();
        let missing = json["unreachable"].as_array().map(Vec::len);
        if missing == Some(2) { Ok(json["summary"].clone()) } else { Err(json["unreachable"].to_string()) }
    })
    .0;
    assert_eq!((&summary["healthy"], &summary["nodes_alive"]), (&false.into(), &1.into()));

    cluster.run(2);
    cluster.run(3);
    for node in 1..=3 {
        wait_ready(&cluster, node, None);
    }
    // A node that is told to end says so before it does, or is gone before anybody could ask.
    assert_eq!(cluster.terminate(1).code(), Some(0));
    assert!(get(cluster.ports().admin(1), "/livez").is_err());
}

#[test]
fn an_unborn_node_says_what_it_waits_for_and_a_password_is_asked_for() {
    // The story: the first node of a cluster with a password is started long before the others.
    let _turn = turn();
    let more = "[security]\npassword = \"open sesame\"\n";
    let mut cluster = Cluster::prepare(Recipe { groups: 3, more, ..Recipe::default() });
    cluster.run(1);
    let why = wait_ready(&cluster, 1, Some("unborn"));
    assert!(why.contains("node 2") && why.contains("node 3"), "{why}");
    assert_eq!(ask(&cluster, 1, "/livez").body, "alive\n");
    let address = cluster.ports().admin(1);
    let with = |path: &str, proof: &str| {
        let text =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: {proof}\r\nconnection: close\r\n\r\n");
        request(address, &text).expect("an answer")
    };
    assert_eq!(with("/status", "Bearer open sesame").code, 503);
    let metrics = samples(&with("/metrics", "Bearer open sesame").body);
    assert_eq!((metrics["pelago_ready"], metrics["pelago_not_ready{reason=\"unborn\"}"]), (0.0, 1.0));

    cluster.run(2);
    cluster.run(3);
    wait_ready(&cluster, 1, None);
    for path in ["/", "/metrics", "/status", "/nowhere"] {
        let shut = ask(&cluster, 1, path);
        assert_eq!(shut.code, 401, "{path}");
        assert!(shut.header("www-authenticate").is_some_and(|how| how.starts_with("Basic ")), "{path}");
        assert!(!shut.body.contains("sesame"));
        assert_eq!(with(path, "Basic Ondyb25n").code, 401, "{path}");
    }
    // x:open sesame
    assert_eq!(with("/", "Basic eDpvcGVuIHNlc2FtZQ==").code, 200);
    // The node shows the others the password, too.
    within(LONG, "the survey reaches all", || {
        let json = with("/status?cluster=1", "Bearer open sesame").json();
        if json["nodes"].as_array().map(Vec::len) == Some(3) {
            Ok(())
        } else {
            Err(json["unreachable"].to_string())
        }
    });
}
