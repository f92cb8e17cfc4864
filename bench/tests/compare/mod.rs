//! `pelago-bench compare` from the outside, against servers of which one is wrong or not there.

use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::fake::{Answer, Fake, bench, told};

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
fn the_first_is_divided_by_each_of_the_others_and_the_median_of_the_turns_counts() {
    let fakes = [(); 3].map(|()| Fake::start(|_| Answer::Right));
    let [first, second, third] = &fakes;
    let rivals = [format!("one={}", second.address), format!("two={}", third.address)];
    let rivals = [rivals[0].as_str(), rivals[1].as_str()];
    let load = ["-n", "30", "-c", "2", "-w", "put,get,incr", "--rounds", "3"];
    let output = compare(first, &rivals, &[&load[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON document");
    let contests = report["contests"].as_array().expect("contests");
    assert_eq!(contests.len(), 3, "{report}");
    for contest in contests {
        let standings = contest["standings"].as_array().expect("standings");
        let names: Vec<&str> = standings.iter().filter_map(|one| one["server"].as_str()).collect();
        assert_eq!(names, ["pelago", "one", "two"]);
        assert_eq!(standings[0]["first_to_this"], Value::Null);
        let figure = |one: &Value, what: [&str; 2]| one["median"]["all"][what[0]][what[1]].as_f64();
        let rate = |one: &Value| one["median"]["all"]["ops_per_sec"].as_f64().expect("a rate");
        for one in standings {
            let turns = one["turns_ops_per_sec"].as_array().expect("turns");
            let mut turns: Vec<f64> = turns.iter().filter_map(Value::as_f64).collect();
            turns.sort_by(f64::total_cmp);
            assert_eq!((turns.len(), turns[1]), (3, rate(one)), "{one}");
        }
        for one in &standings[1..] {
            let is = |what: &str, expected: f64| {
                let found = one["first_to_this"][what].as_f64().expect("a ratio");
                assert!((found / expected - 1.0).abs() < 1e-6, "{what}: {found}, not {expected}");
            };
            is("ops_per_sec", rate(&standings[0]) / rate(one));
            for share in ["p50", "p99"] {
                let of = |one: &Value| figure(one, ["latency_us", share]).expect("a latency");
                is(share, of(&standings[0]) / of(one));
            }
        }
    }
    let table = told(&compare(first, &rivals, &load));
    assert!(table.contains("pelago divided by the other") && table.contains("two"), "{table}");
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

#[test]
fn another_server_begins_in_each_round() {
    let turns = Arc::new(Mutex::new(Vec::new()));
    let fakes = [0, 1, 2].map(|number| {
        let turns = Arc::clone(&turns);
        Fake::start(move |_| {
            let mut turns = turns.lock().expect("no thread panics with it");
            if turns.last() != Some(&number) {
                turns.push(number);
            }
            Answer::Right
        })
    });
    let [first, second, third] = &fakes;
    let rivals = [format!("one={}", second.address), format!("two={}", third.address)];
    let output = compare(first, &[&rivals[0], &rivals[1]], &["-n", "10", "-c", "1", "-w", "put"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(*turns.lock().expect("no thread panics with it"), [0, 1, 2, 1, 2, 0, 2, 0, 1]);
}
