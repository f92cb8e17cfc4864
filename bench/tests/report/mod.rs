//! `--report DIR` from the outside: the files, and that the page needs nothing and believes nothing.

use std::path::PathBuf;

use serde_json::Value;

use crate::fake::{Answer, Fake, bench, told};

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
