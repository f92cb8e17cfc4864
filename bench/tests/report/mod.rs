//! `--report DIR` from the outside: the files, and that the page needs nothing and believes nothing.

use std::path::PathBuf;

use serde_json::Value;

use crate::fake::{self, Answer, Fake, bench, told};

/// A directory that goes with the test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// A new one; `name` tells it from those of other tests.
    pub fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("pelago-bench-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("created");
        Scratch(dir)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a plain name").to_owned()
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).expect("it was written")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn both_files_are_written_and_the_page_stands_alone() {
    let scratch = Scratch::new("report");
    let fake = Fake::start(|request| match request.number {
        30 => Answer::Bytes(b"-ERR <script>alert(1)</script>\r\n".to_vec()),
        _ => Answer::Right,
    });
    let dir = scratch.path("deep/down");
    let load =
        ["-n", "60", "-c", "1,2,4", "-P", "1,2", "-s", "16,64", "--keys", "20", "--report", &dir, "--json"];
    let output = fake.bench(&load);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let printed: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON document");
    let written: Value = serde_json::from_str(&scratch.read("deep/down/report.json")).expect("JSON");
    assert_eq!(printed, written);
    let rows = written["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 12);
    for row in rows {
        let counts = row["series"]["successes"].as_array().expect("a series");
        assert_eq!(
            counts.iter().filter_map(Value::as_u64).sum::<u64>(),
            row["all"]["ops"].as_u64().expect("ops")
        );
    }
    let page = scratch.read("deep/down/report.html");
    assert!(!page.contains("<script") && !page.contains("http"), "it needs nothing from elsewhere");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "the error is told, harmlessly");
    for title in ["ops/s over connections", "latency over value size", "ops/s over pipeline"] {
        assert!(page.contains(&format!("<h2>{title}</h2>")), "{title}");
    }
    // Two plots for each of three things that were swept, and two over time for each row.
    assert_eq!(page.matches("<figure>").count(), 6 + 24);
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("name=\"viewport\""));
    assert!(!page.contains("NaN") && !page.contains("inf"), "every place is a number");
}

#[test]
fn a_comparison_is_reported_with_its_ratios() {
    let scratch = Scratch::new("ratios");
    let (first, second) = (Fake::start(|_| Answer::Right), Fake::start(|_| Answer::Right));
    let address = first.address.to_string();
    let rival = format!("<b>other</b>={}", second.address);
    let dir = scratch.path("");
    let output = bench(&[
        "compare",
        "--addr",
        &address,
        "--with",
        &rival,
        "--rounds",
        "1",
        "--no-environment",
        "--warmup",
        "0s",
        "-n",
        "20",
        "-c",
        "1,2",
        "--keys",
        "5",
        "--report",
        &dir,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let page = scratch.read("report.html");
    assert!(page.contains("pelago divided by the others") && page.contains("&lt;b&gt;other&lt;/b&gt;"));
    assert!(!page.contains("<b>"));
    assert_eq!(page.matches("<figure>").count(), 2 + 8);
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_the_load() {
    let scratch = Scratch::new("refused");
    std::fs::write(scratch.0.join("file"), "").expect("written");
    let fake = Fake::start(|_| panic!("nothing is sent"));
    let dir = scratch.path("file/below");
    let output = fake.bench(&["-n", "1", "--keys", "1", "--report", &dir]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("file/below") && told(&output).contains("nothing was sent"));
}

#[test]
fn changes_of_leaders_and_lines_of_the_file_are_marked() {
    // The load goes on until the change was seen, so that nothing depends on how fast the machine is.
    let scratch = Scratch::new("events");
    let file = scratch.path("events.txt");
    let (sender, receiver) = std::sync::mpsc::channel::<fake::Status>();
    let state = std::sync::Mutex::new((receiver, None::<fake::Status>));
    let path = file.clone();
    let fake = Fake::start(move |request| {
        let mut state = state.lock().expect("no thread panics with it");
        if state.1.is_none() {
            state.1 = state.0.try_recv().ok();
        }
        let Some(status) = &state.1 else { return Answer::Right };
        match request.number {
            0 => status.leaders(&[1, 2]),
            10 => {
                wait_for_question(status);
                status.leaders(&[1, 3]);
                let now =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
                let line = format!("{:.3} killed <node 2>\nno time\n", now.as_secs_f64());
                std::fs::write(&path, line).expect("written");
            }
            20 => wait_for_question(status),
            _ => {}
        }
        Answer::Right
    });
    let status = fake.status();
    status.leaders(&[1, 2]);
    sender.send(fake.status()).expect("the server lives");
    let dir = scratch.path("report");
    let output =
        fake.bench(&["-n", "40", "-c", "1", "--keys", "5", "--events", &file, "--report", &dir, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(told(&output).contains("\"no time\" is no event"), "{}", told(&output));
    let report: Value = serde_json::from_str(&scratch.read("report/report.json")).expect("JSON");
    let events = report["rows"][0]["events"].as_array().expect("events");
    let mut what: Vec<&str> = events.iter().filter_map(|event| event["what"].as_str()).collect();
    what.sort_unstable();
    assert_eq!(what, ["group 1: 2 → 3", "killed <node 2>"], "{report}");
    let page = scratch.read("report/report.html");
    assert_eq!(page.matches("class=\"event\"").count(), 4, "two on each plot over time");
    assert!(page.contains("killed &lt;node 2&gt;") && !page.contains("<node"));
}

/// Returns when the status that is given now has been told.
fn wait_for_question(status: &fake::Status) {
    let before = status.asked();
    // Two, for the first may have been answered with what was said before.
    while status.asked() < before + 2 {
        std::thread::yield_now();
    }
}

#[test]
fn a_server_that_is_not_to_be_asked_is_not() {
    let fake = Fake::start(|_| Answer::Right);
    let status = fake.status();
    status.leaders(&[1]);
    fake.row(0, &["-n", "10", "--keys", "5", "--no-events"]);
    assert_eq!(status.asked(), 0);
    fake.row(0, &["-n", "10", "--keys", "5"]);
    assert!(status.asked() > 0);
}
