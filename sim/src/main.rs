//! Runs seeds.
use std::process::ExitCode;

use sim::world::{Plan, World};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let number = |i: usize| args.get(i).and_then(|a| a.parse::<u64>().ok());
    let (first, count) = (number(1).unwrap_or(1), number(2).unwrap_or(1));
    let mut sum = groups::paxos::Counters::default();
    let (mut simulated, begun) = (0.0, std::time::Instant::now());
    for seed in first..first + count {
        match World::new(Plan::from_seed(seed)).run() {
            Ok(report) => {
                simulated += report.simulated.as_secs_f64();
                sim::world::add(&mut sum, &report.counters);
                if count == 1 {
                    println!("seed {seed}: {} events, {} operations, hash {:016x}", report.events, report.history.operations().len(), report.hash);
                }
            }
            Err(failure) => {
                for line in &failure.story {
                    println!("{line}");
                }
                println!("seed {seed}: {}", failure.what);
                return ExitCode::FAILURE;
            }
        }
    }
    let real = begun.elapsed().as_secs_f64();
    println!("{count} seeds in {real:.1} s, {:.0} x real time\n{sum:?}", simulated / real);
    ExitCode::SUCCESS
}
