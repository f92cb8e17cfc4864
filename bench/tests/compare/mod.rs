//! `pelago-bench compare` from the outside, against servers of which one is slow, wrong or not there.

use std::time::Duration;

use serde_json::Value;

use crate::fake::{Answer, Fake, bench, told};

/// A server that takes so long for every request.
fn slow(pause: u64) -> Fake {
    Fake::start(move |_| Answer::Late(Duration::from_millis(pause)))
}

fn compare(first: &Fake, rivals: &[&str], load: &[&str]) -> std::process::Output {
    let address = first.address.to_string();
    let mut all = vec!["compare", "--addr", &address, "--no-environment", "--warmup", "0s", "--keys", "20"];
    for rival in rivals {
        all.extend(["--with", rival]);
    }
    all.extend(load);
    bench(&all)
}

#[test]
fn the_first_is_divided_by_each_of_the_others() {
    let (first, second, third) = (slow(4), slow(1), slow(16));
    let rivals = [format!("quick={}", second.address), format!("slow={}", third.address)];
    let rivals = [rivals[0].as_str(), rivals[1].as_str()];
    let load = ["-n", "10", "-c", "1", "-w", "put,get", "--rounds", "2"];
    let output = compare(&first, &rivals, &[&load[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON document");
    let contests = report["contests"].as_array().expect("contests");
    assert_eq!(contests.len(), 2, "{report}");
    for contest in contests {
        let standings = contest["standings"].as_array().expect("standings");
        let names: Vec<&str> = standings.iter().filter_map(|one| one["server"].as_str()).collect();
        assert_eq!(names, ["pelago", "quick", "slow"]);
        assert_eq!(standings[0]["first_to_this"], Value::Null);
        let ratio = |at: usize, what: &str| standings[at]["first_to_this"][what].as_f64().expect("a ratio");
        assert!(ratio(1, "ops_per_sec") < 1.0 && ratio(1, "p50") > 1.0, "{contest}");
        assert!(ratio(2, "ops_per_sec") > 1.0 && ratio(2, "p50") < 1.0, "{contest}");
        for one in standings {
            let turns = one["turns_ops_per_sec"].as_array().expect("turns");
            assert_eq!(turns.len(), 2, "{one}");
            let median = one["median"]["all"]["ops_per_sec"].as_f64();
            assert!(turns.iter().any(|turn| turn.as_f64() == median), "the median is one of them: {one}");
        }
    }
    let table = told(&compare(&first, &rivals, &load));
    assert!(table.contains("pelago divided by the other") && table.contains("quick"), "{table}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let first = Fake::start(|_| Answer::Right);
    let redis = format!("redis={}", first.address);
    let refused = |rivals: &[&str], load: &[&str], words: &[&str]| {
        let output = compare(&first, rivals, load);
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        for word in words {
            assert!(told(&output).contains(word), "\"{word}\" is not in: {}", told(&output));
        }
    };
    refused(&[], &[], &["--with"]);
    refused(&["127.0.0.1:6379"], &[], &["NAME=HOST:PORT"]);
    refused(&[&redis, &redis], &[], &["two servers are called \"redis\""]);
    refused(&[&redis], &["-w", "put,cas"], &["cas", "Pelago alone"]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = format!("redis={}", free.local_addr().expect("bound"));
    drop(free);
    refused(&[&nobody], &["-n", "1"], &["redis: no connection"]);
}

#[test]
fn a_server_that_answers_wrongly_or_not_at_all_is_named() {
    let first = Fake::start(|_| Answer::Right);
    let nil = Fake::start(|request| match request.get {
        true => Answer::Bytes(b"$-1\r\n".to_vec()),
        false => Answer::Right,
    });
    let output =
        compare(&first, &[&format!("other={}", nil.address)], &["-n", "10", "-w", "get", "--rounds", "1"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("other, get at 64 connections: 10 WRONG"), "{}", told(&output));
    let full = Fake::start(|_| Answer::Bytes(b"-BUSY\r\n".to_vec()));
    let output = compare(&first, &[&format!("other={}", full.address)], &["-n", "10", "--rounds", "1"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("other: not one request succeeded"), "{}", told(&output));
}
