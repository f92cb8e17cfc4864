//! `pelago-bench run` from the outside, against servers that do one thing wrong.

mod compare;
mod fake;
mod limits;
mod report;

use std::time::Duration;

use fake::{Answer, Fake, bench, bulk, page, told};
use serde_json::Value;

/// Refuses to be run and says so in these words.
fn refused(arguments: &[&str], words: &[&str]) {
    let output = bench(&[&["run", "--no-environment"], arguments].concat());
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(output.stdout.is_empty(), "errors go to stderr: {}", told(&output));
    for word in words {
        assert!(told(&output).contains(word), "\"{word}\" is not in: {}", told(&output));
    }
}

#[test]
fn bad_arguments_are_explained() {
    refused(&["-w", "scna"], &["put, get, mixed"]);
    refused(&["-w", "scan:0"], &["1 to 10000"]);
    refused(&["-w", "put,scan:50", "--keys", "49"], &["scan:50", "49"]);
    refused(&["-w", "put,scan", "--verify"], &["--verify", "scan"]);
    refused(&["-w", "mixed:100"], &["1 to 99"]);
    refused(&["-d", "10"], &["unit", "10s"]);
    refused(&["-d", "0s"], &["measures nothing"]);
    refused(&["-c", "0"], &["0 is not in 1..=20000"]);
    refused(&["-n", "10", "-d", "1s"], &["cannot be used with"]);
    refused(&["--key-size", "5"], &["too small", "at least 6"]);
    refused(&["--value-size", "8"], &["too small", "takes 16 bytes"]);
    refused(&["--zipf", "1.5"], &["below 1"]);
    refused(&["--addr", "nonsense"], &["nonsense", "HOST:PORT"]);
    refused(&["-s", "100,1kB"], &["1kB", "KiB"]);
    refused(&["-s", "100,8"], &["too small", "takes 16 bytes"]);
    refused(&["--history", "x.jsonl"], &["--verify"]);
    refused(&["--server-pids", "4294967295"], &["process 4294967295", "nothing was sent"]);
    refused(&["--connectoins", "1"], &["--connections"]);
}

#[test]
fn a_server_that_is_not_there_is_named_and_nothing_else_is_said() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("bound").to_string();
    drop(free);
    refused(&["--addr", &address, "-n", "1"], &[&address, "nothing was sent"]);
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn pipelined_replies_find_their_requests_even_in_pieces() {
    let fake = Fake::start(|_| Answer::Right);
    let row = fake.row(0, &["-n", "20000", "-c", "5", "-P", "32", "-w", "mixed", "--keys", "500"]);
    assert_eq!(row["all"]["ops"], 20_000);
    assert_eq!(row["errors"].as_object().map(|errors| errors.len()), Some(0), "{row}");
    assert_eq!(row["wrong_values"], 0);
    let (gets, puts) = (number(&row["gets"]["ops"]), number(&row["puts"]["ops"]));
    assert!(gets + puts == 20_000.0 && gets > 9_000.0 && puts > 9_000.0, "{row}");
}

#[test]
fn values_of_any_size_come_back_whole() {
    for size in ["16", "1000", "1000000"] {
        let fake = Fake::start(|_| Answer::Right);
        let arguments =
            ["-n", "100", "-c", "2", "-P", "4", "-w", "get", "--keys", "20", "--value-size", size];
        let row = fake.row(0, &arguments);
        assert_eq!(row["all"]["ops"], 100);
        assert_eq!(row["wrong_values"], 0, "{row}");
    }
}

#[test]
fn value_sizes_and_pipelines_make_sweeps_and_are_told_where_they_differ() {
    let fake = Fake::start(|_| Answer::Right);
    let load = ["-n", "40", "-c", "2", "-P", "1,8", "-s", "16,1KiB", "-w", "get,put", "--keys", "20"];
    let output = fake.bench(&[&load[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON document");
    let rows = report["rows"].as_array().expect("rows");
    let loads: Vec<(u64, &str, u64)> = rows
        .iter()
        .map(|row| {
            let number = |name: &str| row[name].as_u64().expect("a number");
            (number("value_size"), row["workload"].as_str().expect("a name"), number("pipeline"))
        })
        .collect();
    let of_size = |size| [(size, "get", 1), (size, "get", 8), (size, "put", 1), (size, "put", 8)];
    assert_eq!(loads, [of_size(16), of_size(1024)].concat());
    // Gets of the second size would be wrong answers if the keys were not put again.
    assert!(rows.iter().all(|row| row["wrong_values"] == 0), "{report}");
    let table = told(&fake.bench(&load));
    assert!(table.contains("pipe") && table.contains("1 KiB"), "{table}");
    let table = told(&fake.bench(&["-n", "10", "--keys", "20"]));
    assert!(!table.contains("pipe  "), "one pipeline needs no column: {table}");
}

#[test]
fn several_threads_share_the_requests() {
    let fake = Fake::start(|_| Answer::Right);
    let row = fake.row(0, &["-n", "1001", "-c", "7", "-t", "3", "--keys", "100", "-w", "mixed"]);
    assert_eq!(row["all"]["ops"], 1_001);
}

#[test]
fn a_sweep_has_one_row_per_load() {
    let fake = Fake::start(|_| Answer::Right);
    let output = fake.bench(&["-n", "50", "-c", "1,3", "-w", "put,get,mixed:90", "--keys", "50", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON document");
    let rows = report["rows"].as_array().expect("rows");
    let loads: Vec<(&str, u64)> = rows
        .iter()
        .map(|row| {
            (row["workload"].as_str().expect("a name"), row["connections"].as_u64().expect("a number"))
        })
        .collect();
    assert_eq!(loads, [("put", 1), ("put", 3), ("get", 1), ("get", 3), ("mixed:90", 1), ("mixed:90", 3)]);
    let table = told(&fake.bench(&["-n", "50", "--keys", "50"]));
    assert!(table.contains("ops/s") && table.contains("write gap"), "{table}");
    assert!(!table.contains('\u{1b}'), "no colours in a pipe");
}

#[test]
fn what_the_servers_spend_is_told_where_their_processes_are_given() {
    // The fake server lives in this process.
    let fake = Fake::start(|_| Answer::Right);
    let pid = std::process::id().to_string();
    let load = ["-n", "5000", "-c", "2", "--keys", "100", "--server-pids", &pid];
    let row = fake.row(0, &load);
    assert!(number(&row["server_cost"]["cpu_us_per_op"]) > 0.0, "{row}");
    assert!(number(&row["server_cost"]["context_switches_per_op"]) > 0.0, "{row}");
    let table = told(&fake.bench(&load));
    assert!(table.contains("context switches per operation"), "{table}");
    assert_eq!(fake.row(0, &["-n", "10", "--keys", "100"])["server_cost"], Value::Null);
}

#[test]
fn a_server_that_ends_meanwhile_has_no_known_cost() {
    let child = std::process::Command::new("sleep").arg("600").spawn().expect("it can be started");
    let pid = child.id().to_string();
    let child = std::sync::Mutex::new(child);
    let fake = Fake::start(move |request| {
        if request.number == 100 {
            let mut child = child.lock().expect("no thread panics with it");
            child.kill().and_then(|()| child.wait()).expect("it runs");
        }
        Answer::Right
    });
    let row = fake.row(0, &["-n", "200", "-c", "1", "--keys", "10", "--server-pids", &pid]);
    let why = row["server_cost"]["unknown_because"].as_str().expect("no figures");
    assert!(why.contains(&format!("process {pid}")), "{row}");
}

#[test]
fn an_open_loop_counts_from_when_a_request_was_due() {
    // 400 ms of silence in a second of load: the two fifths of the requests that fell due meanwhile have waited.
    let fake = Fake::start(|request| match request.number {
        200 => Answer::Late(Duration::from_millis(400)),
        _ => Answer::Right,
    });
    let arguments = ["-r", "1000", "-d", "1s", "-c", "1", "-P", "4", "--keys", "10"];
    let row = fake.row(0, &arguments);
    let latency = &row["all"]["latency_us"];
    assert!(number(&latency["p90"]) > 150_000.0, "{row}");
    assert!(number(&latency["p99"]) > 300_000.0, "{row}");
    assert!(number(&row["write_gap_ms"]) > 390.0, "{row}");
    // In closed loop the same stall meets four requests out of thousands.
    let fake = Fake::start(|request| match request.number {
        200 => Answer::Late(Duration::from_millis(400)),
        _ => Answer::Right,
    });
    let row = fake.row(0, &["-n", "5000", "-c", "1", "-P", "4", "--keys", "10"]);
    assert!(number(&row["all"]["latency_us"]["p99"]) < 300_000.0, "{row}");
    assert!(number(&row["all"]["latency_us"]["max"]) > 390_000.0, "{row}");
}

#[test]
fn requests_that_could_never_be_sent_are_counted_with_their_waiting() {
    let fake = Fake::start(|request| if request.number < 100 { Answer::Right } else { Answer::Silence });
    let row = fake.row(0, &["-r", "1000", "-d", "600ms", "-c", "1", "--keys", "10", "--timeout", "2s"]);
    assert!(number(&row["unsent"]) > 300.0, "{row}");
    assert!(number(&row["all"]["latency_us"]["max"]) > 300_000.0, "{row}");
    assert_eq!(row["errors"]["timeout"], 1, "{row}");
}

#[test]
fn errors_are_counted_by_class() {
    let fake = Fake::start(|request| {
        let error =
            ["TRYAGAIN group=1 moving", "CLUSTERDOWN group=1", "INDOUBT group=1", "BUSY", "ERR odd", ""];
        match error[(request.number % 6) as usize] {
            "" => Answer::Right,
            error => Answer::Bytes(format!("-{error}\r\n").into_bytes()),
        }
    });
    let row = fake.row(0, &["-n", "60", "-c", "1", "--keys", "10"]);
    assert_eq!(row["all"]["ops"], 10);
    for class in ["TRYAGAIN", "CLUSTERDOWN", "INDOUBT", "BUSY", "other"] {
        assert_eq!(row["errors"][class], 10, "{class} in {row}");
    }
    assert_eq!(row["other_error"], "ERR odd");
}

#[test]
fn nothing_but_errors_is_a_failure() {
    let fake = Fake::start(|_| Answer::Bytes(b"-CLUSTERDOWN group=3 no quorum\r\n".to_vec()));
    let output = fake.bench(&["-n", "20", "-c", "2", "--keys", "10"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("CLUSTERDOWN 20") && told(&output).contains("not one request succeeded"));
}

#[test]
fn a_refused_request_is_sent_again_until_it_succeeds() {
    let fake = Fake::start(|request| match request.number % 3 {
        0 => Answer::Right,
        _ => Answer::Bytes(b"-TRYAGAIN group=1 moving\r\n".to_vec()),
    });
    let row = fake.row(0, &["-n", "50", "-c", "3", "-P", "2", "--keys", "10", "--retry"]);
    assert_eq!(row["all"]["ops"], 50, "{row}");
    assert_eq!(row["errors"].as_object().map(|errors| errors.len()), Some(0), "{row}");
    assert!(number(&row["retries"]) >= 50.0, "{row}");
}

#[test]
fn the_value_of_another_key_is_noticed() {
    let fake = Fake::start(|request| {
        let other = request.store.iter().find(|(key, _)| *key != request.key);
        match other {
            Some((_, values)) if request.get && request.number % 50 == 0 => {
                Answer::Bytes(bulk(values.last().expect("put at least once")))
            }
            _ => Answer::Right,
        }
    });
    let row = fake.row(1, &["-n", "1000", "-c", "2", "-w", "get", "--keys", "100"]);
    assert!(number(&row["wrong_values"]) > 0.0, "{row}");
    assert!(row["wrong_example"].as_str().is_some_and(|story| story.contains("of key number")), "{row}");
}

#[test]
fn a_value_that_is_gone_is_noticed() {
    let fake = Fake::start(|request| match (request.get, request.number % 50) {
        (true, 0) => Answer::Bytes(b"$-1\r\n".to_vec()),
        _ => Answer::Right,
    });
    let row = fake.row(1, &["-n", "1000", "-c", "2", "-w", "get", "--keys", "100"]);
    assert!(row["wrong_example"].as_str().is_some_and(|story| story.contains("returned nil")), "{row}");
}

#[test]
fn a_reply_that_is_no_reply_is_noticed_and_the_run_goes_on() {
    let fake = Fake::start(|request| match request.number {
        50 => Answer::Bytes(b"#what?\r\n".to_vec()),
        _ => Answer::Right,
    });
    let row = fake.row(1, &["-n", "1000", "-c", "2", "--keys", "100"]);
    assert_eq!(row["wrong_values"], 1, "{row}");
    assert_eq!(row["errors"]["connection lost"], 1, "{row}");
    assert_eq!(row["all"]["ops"], 999, "{row}");
}

#[test]
fn lost_connections_are_made_again() {
    let fake = Fake::start(|request| match request.number % 40 {
        39 => Answer::Close { applied: request.number % 80 == 39 },
        _ => Answer::Right,
    });
    let row = fake.row(0, &["-n", "400", "-c", "4", "--keys", "10", "-w", "put"]);
    let lost = number(&row["errors"]["connection lost"]);
    assert!(lost >= 9.0, "{row}");
    assert_eq!(number(&row["all"]["ops"]) + lost, 400.0, "{row}");
}

#[test]
fn a_history_with_lost_connections_is_linearizable_and_a_stale_read_is_not() {
    let fake = Fake::start(|request| match request.number % 100 {
        99 => Answer::Close { applied: request.number % 200 == 99 },
        98 => Answer::Bytes(b"-TRYAGAIN group=1 moving\r\n".to_vec()),
        _ => Answer::Right,
    });
    let row = fake.row(0, &["--verify", "-n", "4000", "-c", "8"]);
    assert_eq!(row["verify"]["verdict"], "linearizable", "{row}");
    assert!(number(&row["verify"]["operations"]) > 3_000.0, "{row}");

    let fake = Fake::start(|request| match request.values {
        [.., old, _, _] if request.get && request.number % 10 == 0 => Answer::Bytes(bulk(old)),
        _ => Answer::Right,
    });
    let file = std::env::temp_dir().join(format!("pelago-bench-history-{}.jsonl", std::process::id()));
    let path = file.to_str().expect("a plain name");
    let row = fake.row(1, &["--verify", "-n", "4000", "-c", "2", "--keys", "4", "--history", path]);
    assert_eq!(row["verify"]["verdict"], "not linearizable", "{row}");
    assert!(row["verify"]["explanation"].as_str().is_some_and(|story| story.contains("get ->")), "{row}");
    let again = bench(&["judge", path]);
    std::fs::remove_file(&file).expect("it was written");
    assert_eq!(again.status.code(), Some(1), "{}", told(&again));
    assert!(told(&again).contains("not linearizable"), "{}", told(&again));
}

#[test]
fn a_file_that_is_no_history_is_refused_by_line() {
    let file = std::env::temp_dir().join(format!("pelago-bench-broken-{}.jsonl", std::process::id()));
    std::fs::write(&file, "\n{\"client\":1}\n").expect("written");
    let output = bench(&["judge", file.to_str().expect("a plain name")]);
    std::fs::remove_file(&file).expect("it was written");
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("line 2") && told(&output).contains("missing"), "{}", told(&output));
}

#[test]
fn a_scan_reads_the_keys_that_follow() {
    let fake = Fake::start(|_| Answer::Right);
    let row = fake.row(0, &["-n", "300", "-c", "3", "-P", "4", "-w", "scan:20", "--keys", "50"]);
    assert_eq!(row["all"]["ops"], 300, "{row}");
    assert_eq!(row["keys_per_scan"], 20.0, "{row}");
    assert_eq!(row["wrong_values"], 0, "{row}");
    assert_eq!((&row["write_gap_ms"], &row["conflicts"]), (&Value::Null, &Value::Null), "{row}");
}

#[test]
fn a_key_that_a_scan_leaves_out_is_noticed() {
    let fake = Fake::start(|request| {
        if request.command != b"RANGE" || request.number % 10 != 0 {
            return Answer::Right;
        }
        let mut found: Vec<_> = request.store.range(request.key.to_vec()..).take(6).collect();
        found.remove(2);
        Answer::Bytes(page(&found, b"token"))
    });
    let row = fake.row(1, &["-n", "100", "-w", "scan:5", "--keys", "50"]);
    assert!(row["wrong_example"].as_str().is_some_and(|story| story.contains("was due")), "{row}");
}

#[test]
fn compare_and_swaps_succeed_one_after_another_and_are_lost_side_by_side() {
    let fake = Fake::start(|_| Answer::Right);
    let alone = fake.row(0, &["-n", "500", "-c", "1", "-w", "cas", "--keys", "7"]);
    assert_eq!((&alone["all"]["ops"], &alone["conflicts"]), (&Value::from(500), &Value::from(0)), "{alone}");
    // Of a pipeline on one key only the first can win.
    let fake = Fake::start(|_| Answer::Right);
    let row = fake.row(0, &["-n", "500", "-c", "2", "-P", "4", "-w", "cas", "--keys", "1"]);
    let conflicts = number(&row["conflicts"]);
    assert_eq!(row["all"]["ops"], 500, "{row}");
    assert!((250.0..500.0).contains(&conflicts), "some are lost and some are not: {row}");
    assert_eq!(row["errors"].as_object().map(|errors| errors.len()), Some(0), "{row}");
}

#[test]
fn after_a_lost_race_against_somebody_else_the_key_is_read_again() {
    // The first compare-and-swap of all is answered as if another client had been there.
    let fake = Fake::start(|request| match request.number {
        1 => Answer::Bytes(b":0\r\n".to_vec()),
        2 => {
            assert_eq!(request.command, b"GET", "the key is read");
            Answer::Right
        }
        _ => Answer::Right,
    });
    let row = fake.row(0, &["-n", "20", "-c", "1", "-w", "cas", "--keys", "1"]);
    assert_eq!((&row["all"]["ops"], &row["conflicts"]), (&Value::from(20), &Value::from(1)), "{row}");
}

#[test]
fn counters_and_compare_and_swaps_are_judged_as_well() {
    let load = ["--verify", "-n", "2000", "-c", "4", "--keys", "4", "-w"];
    for workload in ["cas", "incr"] {
        let fake = Fake::start(|request| match request.number % 100 {
            99 => Answer::Close { applied: request.number % 200 == 99 },
            _ => Answer::Right,
        });
        let row = fake.row(0, &[&load[..], &[workload]].concat());
        assert_eq!(row["verify"]["verdict"], "linearizable", "{row}");
        assert!(number(&row["verify"]["operations"]) >= 1_980.0, "{row}");
    }
    // A sum that was answered before.
    let fake = Fake::start(|request| match request.values {
        [.., old, _] if request.number == 1_000 => Answer::Bytes([b":", old.as_slice(), b"\r\n"].concat()),
        _ => Answer::Right,
    });
    let row = fake.row(1, &[&load[..], &["incr"]].concat());
    assert_eq!(row["verify"]["verdict"], "not linearizable", "{row}");
    // A compare-and-swap that says it was applied, and was not.
    let fake = Fake::start(|request| match request.command {
        b"CAS" if request.number > 1_000 && request.number % 10 == 0 => Answer::Bytes(b":1\r\n".to_vec()),
        _ => Answer::Right,
    });
    let row = fake.row(1, &[&load[..], &["cas"]].concat());
    assert_eq!(row["verify"]["verdict"], "not linearizable", "{row}");
}
