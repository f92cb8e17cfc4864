//! Many seeds on all cores, and the report about them.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use groups::planted::Bug;

use crate::coverage::Coverage;
use crate::plan::Plan;
use crate::trial;
use crate::world::Failure;

/// What a swarm has found.
#[derive(Debug, Default)]
pub struct Found {
    /// Seeds that were run.
    pub seeds: u64,
    /// Simulated time, of all runs together.
    pub simulated: Duration,
    /// Time that it took.
    pub real: Duration,
    /// Events handled.
    pub events: u64,
    /// Client operations judged.
    pub operations: u64,
    /// What happened how often.
    pub coverage: Coverage,
    /// The lowest seed that failed, if one did.
    pub failure: Option<(u64, Failure)>,
}

/// Runs `seeds` seeds from `from` on all cores, until one fails; with a planted bug, if there is one.
#[must_use]
pub fn run(seeds: u64, from: u64, plant: Option<Bug>) -> Found {
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let found = Mutex::new(Found::default());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let end = from.saturating_add(seeds);
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..cores).map(|_| scope.spawn(|| work(&next, end, plant, &stop, &found))).collect();
        progress(seeds, from, &next, begun, || workers.iter().all(|w| w.is_finished()));
    });
    let mut found = found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    found.real = begun.elapsed();
    if let Some((seed, failure)) = &mut found.failure {
        // Once more, aloud.
        if let Err(again) = trial::run(Plan::from_seed(*seed), plant, true).result {
            *failure = again;
        }
    }
    found
}

fn work(next: &AtomicU64, end: u64, plant: Option<Bug>, stop: &AtomicBool, found: &Mutex<Found>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || stop.load(Ordering::Relaxed) {
            return;
        }
        let result = trial::run(Plan::from_seed(seed), plant, false).result;
        let mut found = found.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        found.seeds += 1;
        match result {
            Ok(report) => {
                found.simulated += report.simulated;
                found.events += report.events;
                found.operations += report.history.operations().len() as u64;
                found.coverage.add(&report.coverage);
            }
            Err(failure) => {
                stop.store(true, Ordering::Relaxed);
                // The lowest seed, so that two runs usually name the same one.
                if found.failure.as_ref().is_none_or(|(held, _)| seed < *held) {
                    found.failure = Some((seed, failure));
                }
            }
        }
    }
}

fn progress(seeds: u64, from: u64, next: &AtomicU64, begun: Instant, done: impl Fn() -> bool) {
    let terminal = std::io::stderr().is_terminal();
    let interval = Duration::from_secs(if terminal { 1 } else { 15 });
    let mut last = Instant::now();
    while !done() {
        std::thread::park_timeout(Duration::from_millis(20));
        if last.elapsed() < interval {
            continue;
        }
        last = Instant::now();
        let count = next.load(Ordering::Relaxed).saturating_sub(from).min(seeds);
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        let left = (seeds - count) as f64 / rate.max(0.01);
        let (head, tail) = if terminal { ("\r", "   ") } else { ("", "\n") };
        eprint!("{head}{count} of {seeds} seeds, {rate:.1} a second, {left:.0} s left{tail}");
        let _ = std::io::stderr().flush();
    }
    if terminal {
        eprintln!();
    }
}
