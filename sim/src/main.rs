//! `sim`: runs seeds of the simulated world.
//!
//! ```text
//! sim swarm --seeds 2000 [--from 1]    many seeds on all cores; ends at the first failure
//! sim replay 4711 [--only 3,7 ...]     one seed twice: prints its story and compares the hashes
//! sim shrink 4711                      a failing seed with as little as still fails
//! ```
//! Exit codes: 0 all well, 1 a seed failed, 2 the command line is wrong.

use std::process::ExitCode;

use sim::shrink::{Cut, FAILED, name_panics, shrink};
use sim::swarm;
use sim::world::{Failure, World};

const USAGE: &str = "usage: sim swarm --seeds N [--from SEED]
       sim replay SEED [--only 3,7|none] [--clients N] [--turmoil MILLISECONDS] [--salt N]
       sim shrink SEED

example: sim swarm --seeds 2000";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["swarm", options @ ..] => match swarm_options(options) {
            Some((seeds, from)) => report(&swarm::run(seeds, from)),
            None => usage(),
        },
        ["replay", seed, options @ ..] => match (seed.parse(), Cut::parse(options)) {
            (Ok(seed), Some(cut)) => replay(seed, &cut),
            _ => usage(),
        },
        ["shrink", seed] => match seed.parse() {
            Ok(seed) => small(seed),
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

fn report(found: &swarm::Found) -> ExitCode {
    if let Some((seed, failure)) = &found.failure {
        tell(*seed, &Cut::default(), failure);
        println!("make it small with: cargo run --release -p sim -- shrink {seed}");
        return ExitCode::FAILURE;
    }
    let (simulated, real) = (found.simulated.as_secs_f64(), found.real.as_secs_f64());
    println!(
        "{} seeds passed in {real:.1} s ({:.1} a second): {simulated:.0} s simulated ({:.0} x real time), {} events, \
         {} operations judged",
        found.seeds,
        found.seeds as f64 / real,
        simulated / real,
        found.events,
        found.operations
    );
    for (name, count) in found.coverage.lines() {
        let remark = if count == 0 { "   NEVER HAPPENED" } else { "" };
        println!("{count:>12}  {name}{remark}");
    }
    ExitCode::SUCCESS
}

fn tell(seed: u64, cut: &Cut, failure: &Failure) {
    for line in &failure.story {
        println!("{line}");
    }
    println!("\nseed {seed}{cut} {FAILED}{}", failure.what);
    println!("replay it with: cargo run --release -p sim -- replay {seed}{cut}");
}

fn replay(seed: u64, cut: &Cut) -> ExitCode {
    name_panics(&format!("replay {seed}{cut}"));
    let plan = cut.of(seed);
    println!(
        "seed {seed}{cut}: {} nodes, {} groups of {}, {} shards, {} clients, {} keys, {:?} of faults{}",
        plan.cluster.nodes,
        plan.cluster.groups,
        plan.cluster.replication,
        plan.cluster.shards,
        plan.clients,
        plan.keys,
        plan.turmoil,
        if plan.beyond_repair { ", beyond repair" } else { "" }
    );
    for planned in &plan.faults {
        println!("  {:>3}  at {:?}: {}", planned.number, planned.at, planned.fault);
    }
    // Aloud first: if the product stops itself, that is the only run.
    match (World::aloud(plan.clone()).run(), World::new(plan).run()) {
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
        (Err(failure), Err(again)) if failure.what == again.what => {
            tell(seed, cut, &failure);
            ExitCode::FAILURE
        }
        _ => {
            println!("seed {seed} {FAILED}did not run twice alike: something in the world is not seeded");
            ExitCode::FAILURE
        }
    }
}

fn small(seed: u64) -> ExitCode {
    match shrink(seed) {
        Some(cut) => {
            println!("seed {seed} still fails with this: cargo run --release -p sim -- replay {seed}{cut}");
            ExitCode::FAILURE
        }
        None => {
            println!("seed {seed} does not fail");
            ExitCode::SUCCESS
        }
    }
}
