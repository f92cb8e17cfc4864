//! The figures as a table for people and as one JSON document for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::args::{Load, Size};
use crate::cost::Spent;
use crate::environment::Environment;
use crate::events::Event;
use crate::phase::Outcome;
use crate::record::Judged;
use crate::series::Told;
use crate::stats::Latencies;
use crate::sweep::{Case, Differs};
use crate::workload::Mix;
use crate::{End, Failure, html};

/// Name and version of this program.
pub const PROGRAM: &str = concat!("pelago-bench ", env!("CARGO_PKG_VERSION"));

/// Events of a row that stand under the table.
const EVENTS_TOLD: usize = 5;

/// The document.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name and version of this program.
    pub program: &'static str,
    /// When it began, in seconds since 1970.
    pub begun_unix_s: f64,
    /// The machine.
    pub environment: Environment,
    /// What was asked for.
    pub settings: Settings,
    /// One per load.
    pub rows: Vec<Row>,
    /// What has to be said about each.
    #[serde(skip)]
    pub differs: Differs,
}

/// What all rows have in common.
#[derive(Debug, Serialize)]
pub struct Settings {
    /// The servers.
    pub addresses: Vec<String>,
    /// Different keys.
    pub keys: u32,
    /// Bytes per key.
    pub key_size: usize,
    /// Bytes per value.
    pub value_sizes: Vec<usize>,
    /// Requests under way per connection.
    pub pipelines: Vec<u32>,
    /// Open loop: requests per second.
    pub rate: Option<u64>,
    /// Exponent of the skew of keys.
    pub zipf: Option<f64>,
    /// Threads of the generator.
    pub threads: u32,
    /// Seed of the choice of keys.
    pub seed: u64,
}

/// One load.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which.
    #[serde(skip)]
    pub case: Case,
    /// As it was asked for.
    pub workload: String,
    /// Connections.
    pub connections: u32,
    /// Requests under way per connection.
    pub pipeline: u32,
    /// Bytes per value.
    pub value_size: usize,
    /// Seconds measured.
    pub seconds: f64,
    /// All operations together.
    pub all: Line,
    /// The gets, where there are both.
    pub gets: Option<Line>,
    /// The puts, where there are both.
    pub puts: Option<Line>,
    /// Compare-and-swaps that came too late. They are answers, and counted among them.
    pub conflicts: Option<u64>,
    /// Keys that a scan returned on average.
    pub keys_per_scan: Option<f64>,
    /// Requests that did not succeed, by class.
    pub errors: BTreeMap<&'static str, u64>,
    /// The first error of class `other`.
    pub other_error: Option<String>,
    /// Answers that cannot be right.
    pub wrong_values: u64,
    /// The first of them.
    pub wrong_example: Option<String>,
    /// Requests sent again.
    pub retries: u64,
    /// Open loop: requests that were due and never sent.
    pub unsent: u64,
    /// Longest time without a successful write.
    pub write_gap_ms: Option<f64>,
    /// Processor time of this program per request.
    pub generator_cpu_us_per_op: f64,
    /// What happened when.
    pub series: Told,
    /// What else happened.
    pub events: Vec<Event>,
    /// What the servers spent, with `--server-pids`.
    pub server_cost: Option<Spent>,
    /// The judgement, with `--verify`.
    pub verify: Option<Judged>,
}

/// Throughput and latency.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Successes in the measured time.
    pub ops: u64,
    /// Per second.
    pub ops_per_sec: f64,
    /// Latencies of what was due in the measured time.
    pub latency_us: Percentiles,
}

/// In microseconds.
#[derive(Debug, Serialize)]
pub struct Percentiles {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Row {
    /// The row of a load that is over.
    pub fn new(case: Case, outcome: &Outcome, verify: Option<Judged>) -> Self {
        let Case { mix, connections, pipeline, value_size } = case;
        let figures = &outcome.figures;
        let (reads, writes) = (&figures.reads, &figures.writes);
        let mut latencies = reads.latencies.clone();
        latencies.add(&writes.latencies);
        let both = matches!(mix, Mix::Mixed(_));
        let line = |ops, latencies: &Latencies| Line::new(ops, outcome.seconds, latencies);
        Row {
            case,
            workload: mix.to_string(),
            connections,
            pipeline,
            value_size,
            seconds: outcome.seconds,
            all: line(reads.in_time + writes.in_time, &latencies),
            gets: both.then(|| line(reads.in_time, &reads.latencies)),
            puts: both.then(|| line(writes.in_time, &writes.latencies)),
            conflicts: (mix == Mix::Cas).then_some(figures.conflicts),
            keys_per_scan: matches!(mix, Mix::Scan(_))
                .then(|| figures.keys_read as f64 / reads.in_time.max(1) as f64),
            errors: figures.errors.iter().map(|(class, count)| (class.name(), *count)).collect(),
            other_error: figures.other_error.clone(),
            wrong_values: figures.wrong,
            wrong_example: figures.wrong_example.clone(),
            retries: figures.retries,
            unsent: figures.unsent,
            write_gap_ms: mix.writes().then_some(figures.write_gap as f64 / 1e6),
            generator_cpu_us_per_op: outcome.cpu_seconds * 1e6 / outcome.settled.max(1) as f64,
            events: outcome.events.clone(),
            series: figures.series.told(outcome.seconds),
            server_cost: outcome.servers.clone(),
            verify,
        }
    }
}

impl Line {
    fn new(ops: u64, seconds: f64, latencies: &Latencies) -> Self {
        let us = |share| latencies.quantile(share) as f64 / 1e3;
        Line {
            ops,
            ops_per_sec: if seconds > 0.0 { ops as f64 / seconds } else { 0.0 },
            latency_us: Percentiles {
                mean: latencies.mean() / 1e3,
                p50: us(0.5),
                p90: us(0.9),
                p99: us(0.99),
                p999: us(0.999),
                max: us(1.0),
            },
        }
    }
}

/// A document as text.
pub fn json(document: &impl Serialize) -> String {
    serde_json::to_string_pretty(document).expect("numbers and strings have a JSON form")
}

/// Tells what was measured: in the files of `--report` if they are wanted, and on the standard output.
pub fn tell(
    options: &Load,
    document: &impl Serialize,
    table: impl FnOnce() -> String,
    page: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if let Some(dir) = &options.report {
        html::write(dir, &json(document), &page())?;
    }
    if options.json {
        println!("{}", json(document));
    } else {
        print!("{}", table());
    }
    Ok(())
}

impl Report {
    /// The document as a table.
    pub fn table(&self) -> String {
        let mut text = self.settings.head(&self.environment);
        let _ = writeln!(
            text,
            "{:<9} {:>5}{} {:<7} {:>9}  {:>9} {:>9} {:>9} {:>9} {:>9}  {:>8} {:>9}",
            "workload",
            "conns",
            self.differs.columns("pipe", "value"),
            "op",
            "ops/s",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max",
            "errors",
            "write gap"
        );
        for row in &self.rows {
            row.write(&mut text, self.differs);
        }
        for row in &self.rows {
            row.remarks(&mut text, &row.case.told(self.differs));
        }
        text
    }
}

impl Differs {
    /// The columns that are there only where loads differ in them.
    pub fn columns(self, pipeline: &str, value_size: &str) -> String {
        let mut columns = String::new();
        if self.pipeline {
            let _ = write!(columns, " {pipeline:>5}");
        }
        if self.value_size {
            let _ = write!(columns, " {value_size:>8}");
        }
        columns
    }
}

impl Settings {
    /// The lines above the table.
    pub fn head(&self, environment: &Environment) -> String {
        let mut text = String::new();
        let Settings { addresses, keys, key_size, value_sizes, pipelines, rate, zipf, .. } = self;
        let loop_ = rate.map_or("closed loop".to_owned(), |rate| format!("open loop at {rate}/s"));
        let skew = zipf.map_or(String::new(), |theta| format!(", zipf {theta}"));
        let pipelines: Vec<String> = pipelines.iter().map(ToString::to_string).collect();
        let values: Vec<String> = value_sizes.iter().map(|&bytes| Size(bytes).to_string()).collect();
        let _ = writeln!(
            text,
            "{loop_} · pipeline {} · {keys} keys of {key_size} B{skew} · values of {} · {}",
            pipelines.join(", "),
            values.join(", "),
            addresses.join(", ")
        );
        let Environment { cores, kernel, fsync_dir, fdatasync_p50_us, loopback_p50_us } = environment;
        let _ = write!(text, "{cores} cores · {kernel}");
        if let (Some(us), Some(dir)) = (fdatasync_p50_us, fsync_dir) {
            let _ = write!(text, " · fdatasync p50 {} ({})", time(*us), dir.display());
        }
        if let Some(us) = loopback_p50_us {
            let _ = write!(text, " · loopback p50 {}", time(*us));
        }
        text.push_str("\n\n");
        text
    }
}

impl Row {
    /// How the command ends for this row.
    pub fn end(&self) -> End {
        match &self.verify {
            _ if self.wrong_values > 0 => End::Wrong,
            Some(judged) => judged.end,
            None => End::Right,
        }
    }

    fn write(&self, text: &mut String, differs: Differs) {
        let errors: u64 = self.errors.values().sum();
        let gap = self.write_gap_ms.map_or("-".to_owned(), |ms| time(ms * 1e3));
        let mut lines = vec![("all", &self.all)];
        match (&self.gets, &self.puts) {
            (Some(gets), Some(puts)) => lines.extend([("get", gets), ("put", puts)]),
            _ => lines[0].0 = &self.workload,
        }
        for (number, (name, line)) in lines.into_iter().enumerate() {
            let Percentiles { p50, p90, p99, p999, max, .. } = line.latency_us;
            let (load, tail) = if number == 0 {
                let (pipeline, value_size) = (self.pipeline.to_string(), Size(self.value_size).to_string());
                let columns = differs.columns(&pipeline, &value_size);
                (
                    format!("{:<9} {:>5}{columns}", self.workload, self.connections),
                    format!("  {errors:>8} {gap:>9}"),
                )
            } else {
                (format!("{:<9} {:>5}{}", "", "", differs.columns("", "")), String::new())
            };
            let _ = writeln!(
                text,
                "{load} {name:<7} {:>9.0}  {:>9} {:>9} {:>9} {:>9} {:>9}{tail}",
                line.ops_per_sec,
                time(p50),
                time(p90),
                time(p99),
                time(p999),
                time(max),
            );
        }
    }

    /// What the table has no column for.
    pub fn remarks(&self, text: &mut String, name: &str) {
        for remark in self.remarked() {
            let _ = writeln!(text, "{name}: {remark}");
        }
    }

    /// The remarks one by one.
    pub fn remarked(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let mut remark = |what: String| remarks.push(what);
        if !self.errors.is_empty() {
            let classes: Vec<String> =
                self.errors.iter().map(|(class, count)| format!("{class} {count}")).collect();
            remark(format!("errors: {}", classes.join(", ")));
        }
        if let Some(error) = &self.other_error {
            remark(format!("the first other error: -{error}"));
        }
        if let Some(conflicts) = self.conflicts {
            let share = conflicts as f64 * 100.0 / self.all.ops.max(1) as f64;
            remark(format!("{conflicts} conflicts ({share:.1} %): another write of the key came first"));
        }
        if let Some(keys) = self.keys_per_scan {
            remark(format!("{keys:.1} keys per scan, {:.0} keys/s", keys * self.all.ops_per_sec));
        }
        if self.retries > 0 {
            remark(format!("{} requests were sent again", self.retries));
        }
        if self.unsent > 0 {
            remark(format!(
                "{} requests were due and never sent, every connection was busy; their waiting is in the latencies",
                self.unsent
            ));
        }
        if let Some(example) = &self.wrong_example {
            remark(format!("{} WRONG ANSWERS, the first: {example}", self.wrong_values));
        }
        if let Some(judged) = &self.verify {
            let why = judged.explanation.as_ref().map_or(String::new(), |why| format!(": {why}"));
            remark(format!("{} operations, {}{why}", judged.operations, judged.verdict));
        }
        for Event { at_seconds, what } in self.events.iter().take(EVENTS_TOLD) {
            remark(format!("at {at_seconds:.1} s: {what}"));
        }
        if self.events.len() > EVENTS_TOLD {
            remark(format!("and {} more events, in --json and --report", self.events.len() - EVENTS_TOLD));
        }
        match &self.server_cost {
            Some(Spent::Known { cpu_us_per_op, context_switches_per_op }) => remark(format!(
                "the servers took {cpu_us_per_op:.2} us of processor time and {context_switches_per_op:.2} \
                 context switches per operation"
            )),
            Some(Spent::Unknown { unknown_because }) => {
                remark(format!("what the servers spent is not known: {unknown_because}"));
            }
            None => {}
        }
        remark(format!(
            "generator took {:.2} us of processor time per request",
            self.generator_cpu_us_per_op
        ));
        remarks
    }
}

/// Microseconds in the unit that suits them, three digits.
pub fn time(us: f64) -> String {
    let (number, unit) = match us {
        us if us < 1_000.0 => (us, "us"),
        us if us < 1_000_000.0 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = match number {
        n if n < 10.0 => 2,
        n if n < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_have_three_digits() {
        assert_eq!(time(2.71), "2.71 us");
        assert_eq!(time(271.1), "271 us");
        assert_eq!(time(27_111.9), "27.1 ms");
        assert_eq!(time(2_714_590.0), "2.71 s");
    }
}
