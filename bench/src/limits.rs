//! `pelago-bench limits`: what this machine could do at best. A durable put over three replicas cannot be faster than
//! the disk, the loopback and the cheapest program that does nothing but what every such put needs.
//!
//! * `skeleton` three processes that replicate puts and nothing else, and the load at them · `replica` one of the three

pub mod replica;
mod skeleton;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::args::Limits;
use crate::environment::{self, Environment};
use crate::machine::{disk, loopback};
use crate::report::{self, PROGRAM, time};
use crate::stats::Latencies;
use crate::{End, Failure};

/// The document.
#[derive(Debug, Serialize)]
struct Report {
    program: &'static str,
    environment: Environment,
    /// Seconds that each was measured.
    seconds: f64,
    /// Durable writes; `null` where the file system has no such way.
    disk: Vec<Found>,
    /// 64 bytes there and back.
    loopback: Vec<Found>,
    /// Puts of 100 bytes, durable on two of three replicas.
    skeleton: Vec<skeleton::Replicated>,
}

/// What one measurement came to.
#[derive(Debug, Serialize)]
struct Found {
    what: &'static str,
    speed: Option<Speed>,
}

#[derive(Debug, Serialize)]
struct Speed {
    per_sec: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Speed {
    /// Of things done one after another.
    fn of(latencies: &Latencies) -> Self {
        let us = |share| latencies.quantile(share) as f64 / 1e3;
        let mean = latencies.mean();
        Speed { per_sec: if mean > 0.0 { 1e9 / mean } else { 0.0 }, p50_us: us(0.5), p99_us: us(0.99) }
    }
}

/// Measures and prints.
pub fn limits(args: &Limits) -> Result<End, Failure> {
    let time = Some(args.seconds)
        .filter(|seconds| (0.001..=3600.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| Failure("--seconds takes 0.001 to 3600".to_owned()))?;
    let dir = args.dir.as_deref().unwrap_or(Path::new("."));
    let mut report = Report {
        program: PROGRAM,
        environment: environment::survey(false, None)?,
        seconds: time.as_secs_f64(),
        disk: Vec::new(),
        loopback: Vec::new(),
        skeleton: Vec::new(),
    };
    for (what, way) in disk::WAYS {
        eprintln!("{what}");
        let measured = disk::measure(dir, way, time).map_err(|error| unusable(dir, &error))?;
        report.disk.push(Found { what, speed: measured.as_ref().map(Speed::of) });
    }
    for (what, waits) in loopback::WAYS {
        eprintln!("{what}");
        let measured = loopback::measure(waits, time)
            .map_err(|error| Failure(format!("the loopback cannot be measured: {error}")))?;
        report.loopback.push(Found { what, speed: Some(Speed::of(&measured)) });
    }
    report.skeleton = skeleton::measure(dir, time)?;
    if args.json {
        println!("{}", report::json(&report));
    } else {
        print!("{}", report.table(dir));
    }
    Ok(End::Right)
}

fn unusable(dir: &Path, error: &std::io::Error) -> Failure {
    Failure(format!("cannot measure the disk in {}: {error}; choose another --dir", dir.display()))
}

impl Report {
    fn table(&self, dir: &Path) -> String {
        let mut text = String::new();
        let Environment { cores, kernel, .. } = &self.environment;
        let _ = writeln!(text, "{cores} cores · {kernel} · {} · {} s each\n", dir.display(), self.seconds);
        let _ = writeln!(text, "{:<52} {:>9}  {:>9} {:>9}", "one after another", "/s", "p50", "p99");
        for Found { what, speed } in self.disk.iter().chain(&self.loopback) {
            let _ = match speed {
                Some(Speed { per_sec, p50_us, p99_us }) => {
                    writeln!(text, "{what:<52} {per_sec:>9.0}  {:>9} {:>9}", time(*p50_us), time(*p99_us))
                }
                None => writeln!(text, "{what:<52} not on this file system"),
            };
        }
        let _ = writeln!(
            text,
            "\n{:<52} {:>9}  {:>9} {:>9} {:>13} {:>13}",
            "bare skeleton: puts of 100 B, durable on 2 of 3",
            "puts/s",
            "p50",
            "p99",
            "CPU us/put",
            "switches/put"
        );
        for row in &self.skeleton {
            let cost = |figure: Option<f64>| figure.map_or("?".to_owned(), |figure| format!("{figure:.1}"));
            let _ = writeln!(
                text,
                "{:<52} {:>9.0}  {:>9} {:>9} {:>13} {:>13}",
                format!("{} connections", row.connections),
                row.puts_per_sec,
                time(row.p50_us),
                time(row.p99_us),
                cost(row.cpu_us_per_put),
                cost(row.context_switches_per_put),
            );
        }
        text.push_str("the CPU is that of all three replicas, without the load\n");
        text
    }
}
