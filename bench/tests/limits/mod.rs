//! `pelago-bench limits` from the outside: real files, real sockets and three real processes, for an instant each.

use serde_json::Value;

use crate::fake::{bench, told};

#[test]
fn everything_is_measured_and_nothing_is_left_behind() {
    let dir = std::env::temp_dir().join(format!("pelago-bench-limits-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("created");
    let path = dir.to_str().expect("a plain name");
    let output = bench(&["limits", "--dir", path, "--seconds", "0.1", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON document");
    let list =
        |name: &str| report[name].as_array().unwrap_or_else(|| panic!("no {name} in {report}")).clone();
    assert_eq!((list("disk").len(), list("loopback").len()), (5, 2));
    for found in list("disk").iter().chain(&list("loopback")) {
        // A file system without direct writes has no speed for them.
        let direct = found["what"].as_str().is_some_and(|what| what.contains("O_DIRECT"));
        let fast = found["speed"]["per_sec"].as_f64().is_some_and(|rate| rate > 0.0);
        assert!(fast || direct && found["speed"].is_null(), "{found}");
    }
    let skeleton = list("skeleton");
    let connections: Vec<u64> = skeleton.iter().filter_map(|row| row["connections"].as_u64()).collect();
    assert_eq!(connections, [1, 64, 256]);
    // A disk that others use may stand still for a tenth of a second, but not for each of them.
    let rates: Vec<f64> = skeleton.iter().filter_map(|row| row["puts_per_sec"].as_f64()).collect();
    assert!(rates.len() == 3 && rates.iter().sum::<f64>() > 0.0, "{report}");
    assert!(skeleton.iter().all(|row| row["cpu_us_per_put"].is_number()), "{report}");
    // Nothing is in it, or it could not be removed.
    std::fs::remove_dir(&dir).expect("empty");
}

#[test]
fn what_cannot_be_measured_is_explained() {
    let refused = |arguments: &[&str], words: &[&str]| {
        let output = bench(&[&["limits"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        for word in words {
            assert!(told(&output).contains(word), "\"{word}\" is not in: {}", told(&output));
        }
    };
    refused(&["--seconds", "0"], &["0.001 to 3600"]);
    refused(&["--dir", "/no/such/place"], &["/no/such/place", "another --dir"]);
}
