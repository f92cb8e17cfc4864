//! `sim`: runs seeds of the simulated world.
//!
//! ```text
//! sim swarm --seeds 2000 [--from 1]    many seeds on all cores; ends at the first failure
//! sim replay 4711                      one seed twice: prints its story and compares the hashes
//! ```
//! Exit codes: 0 all well, 1 a seed failed, 2 the command line is wrong.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use groups::paxos::Counters;
use sim::world::{Failure, Plan, World, add};

const USAGE: &str =
    "usage: sim swarm --seeds N [--from SEED]\n       sim replay SEED\n\nexample: sim swarm --seeds 2000";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["swarm", options @ ..] => match swarm_options(options) {
            Some((seeds, from)) => swarm(seeds, from),
            None => usage(),
        },
        ["replay", seed] => match seed.parse() {
            Ok(seed) => replay(seed),
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn swarm_options(mut options: &[&str]) -> Option<(u64, u64)> {
    let (mut seeds, mut from) = (None, 1);
    while let [name, value, rest @ ..] = options {
        match *name {
            "--seeds" => seeds = Some(value.parse().ok()?),
            "--from" => from = value.parse().ok()?,
            _ => return None,
        }
        options = rest;
    }
    if options.is_empty() { Some((seeds?, from)) } else { None }
}

struct Tally {
    simulated: Duration,
    events: u64,
    operations: u64,
    counters: Counters,
    failure: Option<(u64, Failure)>,
}

fn swarm(seeds: u64, from: u64) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let tally = Mutex::new(Tally {
        simulated: Duration::ZERO,
        events: 0,
        operations: 0,
        counters: Counters::default(),
        failure: None,
    });
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let result = World::new(Plan::from_seed(seed)).run();
                    done.fetch_add(1, Ordering::Relaxed);
                    let Ok(mut tally) = tally.lock() else { return };
                    match result {
                        Ok(report) => {
                            tally.simulated += report.simulated;
                            tally.events += report.events;
                            tally.operations += report.history.operations().len() as u64;
                            add(&mut tally.counters, &report.counters);
                        }
                        Err(failure) => {
                            stop.store(true, Ordering::Relaxed);
                            // The lowest seed, so that two runs name the same one.
                            if tally.failure.as_ref().is_none_or(|(held, _)| seed < *held) {
                                tally.failure = Some((seed, failure));
                            }
                        }
                    }
                }
            });
        }
        progress(seeds, &done, &stop, begun);
    });
    let Ok(tally) = tally.into_inner() else { return ExitCode::FAILURE };
    if let Some((seed, failure)) = tally.failure {
        tell(seed, &failure);
        return ExitCode::FAILURE;
    }
    let real = begun.elapsed();
    println!(
        "{seeds} seeds passed in {:.1} s: {:.0} s simulated ({:.0} x real time), {} events, {} operations judged",
        real.as_secs_f64(),
        tally.simulated.as_secs_f64(),
        tally.simulated.as_secs_f64() / real.as_secs_f64(),
        tally.events,
        tally.operations
    );
    coverage(&tally.counters);
    ExitCode::SUCCESS
}

/// How often the code went where it is hard to get; what never happened is named.
fn coverage(c: &Counters) {
    let events = [
        ("probe rounds", c.probes),
        ("ballots raised", c.candidacies),
        ("leaderships won", c.elected),
        ("leaderships lost", c.deposed),
        ("leaderships given up without a majority", c.isolated),
        ("leaderships handed over", c.transfers),
        ("values adopted", c.adopted),
        ("gaps filled", c.gaps),
        ("accepts repeated", c.resent),
        ("values learned", c.learned),
        ("fetches served from the log", c.log_reads),
        ("prepares ignored for a live leader", c.sticky),
        ("accepts refused as too far ahead", c.too_far),
    ];
    for (name, count) in events {
        let remark = if count == 0 { "   NEVER HAPPENED" } else { "" };
        println!("{count:>12}  {name}{remark}");
    }
}

fn progress(seeds: u64, done: &AtomicU64, stop: &AtomicBool, begun: Instant) {
    let terminal = std::io::stderr().is_terminal();
    let interval = Duration::from_secs(if terminal { 1 } else { 15 });
    let mut last = Instant::now();
    loop {
        let count = done.load(Ordering::Relaxed);
        if count >= seeds || stop.load(Ordering::Relaxed) {
            if terminal {
                eprintln!();
            }
            return;
        }
        if last.elapsed() >= interval {
            last = Instant::now();
            let rate = count as f64 / begun.elapsed().as_secs_f64();
            let left = (seeds - count) as f64 / rate.max(0.01);
            let (head, tail) = if terminal { ("\r", "   ") } else { ("", "\n") };
            eprint!("{head}{count} of {seeds} seeds, {rate:.1} a second, {left:.0} s left{tail}");
            let _ = std::io::stderr().flush();
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

fn tell(seed: u64, failure: &Failure) {
    for line in &failure.story {
        println!("{line}");
    }
    println!("\nseed {seed} failed: {}", failure.what);
    println!("replay it with: cargo run --release -p sim -- replay {seed}");
}

fn replay(seed: u64) -> ExitCode {
    let run = || World::new(Plan::from_seed(seed)).run();
    match (run(), run()) {
        (Ok(first), Ok(second)) if first.hash == second.hash => {
            println!(
                "seed {seed} passed twice alike: {} events, {} operations, {:.1} s simulated, event hash {:016x}",
                first.events,
                first.history.operations().len(),
                first.simulated.as_secs_f64(),
                first.hash
            );
            ExitCode::SUCCESS
        }
        (Err(failure), Err(_)) => {
            tell(seed, &failure);
            ExitCode::FAILURE
        }
        _ => {
            println!("seed {seed} did not run twice alike: something in the world is not seeded");
            ExitCode::FAILURE
        }
    }
}
