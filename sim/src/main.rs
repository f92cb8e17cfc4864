//! `sim`: runs seeds of the simulated world.
//!
//! ```text
//! sim swarm --seeds 2000 [--from 1]    many seeds on all cores; ends at the first failure
//! sim replay 4711 [--only 3,7 ...]     one seed twice: prints its story and compares the hashes
//! sim replay 4711 --whole              the same with all of the story, not only how it ends
//! sim shrink 4711                      a failing seed with as little as still fails
//! sim calm --nodes 100 --groups 10000 --puts 20000   no faults: what a large cluster says and writes
//! ```
//! Built with the feature `planted`, the first three take `--plant BUG`: the product with that rule broken.
//! Exit codes: 0 all well, 1 a seed failed, 2 the command line is wrong.

use std::process::ExitCode;

use groups::planted::Bug;
use server::node::layout::SLOTS;
use sim::calm::Calm;
use sim::shrink::{Cut, FAILED, HASH, PATIENCE, parse_bug, shrink, symptom};
use sim::trial::Trial;
use sim::world::Failure;
use sim::{story, swarm, trial};

const USAGE: &str = "usage: sim swarm --seeds N [--from SEED] [--plant BUG]
       sim replay SEED [--only 3,7|none] [--clients N] [--turmoil MILLISECONDS] [--salt N] [--plant BUG] [--once|--whole]
       sim shrink SEED [--plant BUG]
       sim calm --nodes N --groups G [--replication R] [--puts P] [--rate PUTS_PER_SECOND]

example: sim swarm --seeds 2000";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match Task::parse(&words).and_then(Task::run) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// What a command line says.
enum Task {
    Swarm { seeds: u64, from: u64, plant: Option<Bug> },
    Replay { seed: u64, cut: Cut, way: Way },
    Shrink { seed: u64, cut: Cut },
    Calm(Calm),
}

/// How a seed is replayed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Twice, and the end of the story is told.
    Twice,
    /// The same, with the whole story.
    Whole,
    /// Once, without words.
    Once,
}

impl Task {
    fn parse(words: &[&str]) -> Result<Task, String> {
        let seed = |word: &str| word.parse::<u64>().map_err(|_| format!("\"{word}\" is no seed"));
        match words {
            ["swarm", options @ ..] => {
                let (seeds, from, plant) = swarm_options(options)?;
                Ok(Task::Swarm { seeds, from, plant })
            }
            ["replay", word, options @ ..] => {
                let mut way = Way::Twice;
                let mut rest = options.to_vec();
                for (name, other) in [("--once", Way::Once), ("--whole", Way::Whole)] {
                    if rest.contains(&name) {
                        way = other;
                        rest.retain(|option| *option != name);
                    }
                }
                Ok(Task::Replay { seed: seed(word)?, cut: Cut::parse(&rest)?, way })
            }
            ["shrink", word, options @ ..] => {
                Ok(Task::Shrink { seed: seed(word)?, cut: Cut::parse(options)? })
            }
            ["calm", options @ ..] => Ok(Task::Calm(calm_options(options)?)),
            _ => Err("say what to do".into()),
        }
    }

    fn run(self) -> Result<ExitCode, String> {
        match self {
            Task::Swarm { seeds, from, plant } => {
                Ok(report(&swarm::run(seeds, from, plant), &Cut { plant, ..Cut::default() }))
            }
            Task::Replay { seed, cut, way: Way::Once } => Ok(replay_once(seed, &cut)),
            Task::Replay { seed, cut, way } => Ok(replay(seed, &cut, way == Way::Whole)),
            Task::Shrink { seed, cut } => small(seed, &cut),
            Task::Calm(calm) => {
                println!("{}", calm.run()?);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn swarm_options(mut options: &[&str]) -> Result<(u64, u64, Option<Bug>), String> {
    let (mut seeds, mut from, mut plant) = (None, 1, None);
    while let [name, rest @ ..] = options {
        let [value, rest @ ..] = rest else { return Err(format!("{name} needs a value")) };
        let number = || value.parse::<u64>().map_err(|_| format!("{name} takes a number, not \"{value}\""));
        match *name {
            "--seeds" => seeds = Some(number()?),
            "--from" => from = number()?,
            "--plant" => plant = Some(parse_bug(value)?),
            _ => return Err(format!("there is no option {name}")),
        }
        options = rest;
    }
    Ok((seeds.ok_or("--seeds is missing")?, from, plant))
}

fn calm_options(mut options: &[&str]) -> Result<Calm, String> {
    let mut calm = Calm { nodes: 3, groups: 16, replication: 3, puts: 1_000, rate: 1_000 };
    while let [name, rest @ ..] = options {
        let [value, rest @ ..] = rest else { return Err(format!("{name} needs a value")) };
        let number = value.parse::<u32>().ok().filter(|n| *n > 0);
        let number = number.ok_or_else(|| format!("{name} takes a number, not \"{value}\""))?;
        match *name {
            "--nodes" => calm.nodes = number,
            "--groups" => calm.groups = number,
            "--replication" => calm.replication = number as usize,
            "--puts" => calm.puts = u64::from(number),
            "--rate" => calm.rate = u64::from(number),
            _ => return Err(format!("there is no option {name}")),
        }
        options = rest;
    }
    if calm.replication > calm.nodes as usize || calm.groups > SLOTS {
        return Err(format!(
            "a group has no more members than there are nodes, and there are at most {SLOTS} groups"
        ));
    }
    Ok(calm)
}

fn report(found: &swarm::Found, cut: &Cut) -> ExitCode {
    if let Some((seed, failure)) = &found.failure {
        tell(*seed, cut, failure, false);
        println!("make it small with: {}", cut.command(&format!("shrink {seed}")));
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

fn tell(seed: u64, cut: &Cut, failure: &Failure, whole: bool) {
    for line in story::excerpt(&failure.story, &failure.what, whole) {
        println!("{line}");
    }
    println!("\nseed {seed}{cut} {FAILED}{}", failure.what);
    println!("replay it with: {}", cut.command(&format!("replay {seed}")));
}

/// One run without words, for `shrink`.
fn replay_once(seed: u64, cut: &Cut) -> ExitCode {
    let Trial { result, hash } = trial::run(cut.of(seed), cut.plant, false);
    let code = match result {
        Ok(_) => {
            println!("seed {seed} passed");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("seed {seed}{cut} {FAILED}{}", failure.what);
            ExitCode::FAILURE
        }
    };
    println!("{HASH}{hash:016x}");
    code
}

fn replay(seed: u64, cut: &Cut, whole: bool) -> ExitCode {
    let plan = cut.of(seed);
    println!(
        "seed {seed}{cut}: {} nodes, {} groups of {}, {} shards, {} {}, {} tellers, {} keys, {:?} of faults{}",
        plan.cluster.nodes,
        plan.cluster.groups,
        plan.cluster.replication,
        plan.cluster.shards,
        plan.clients,
        if plan.crowd { "clients in a crowd" } else { "clients" },
        plan.tellers,
        plan.keys,
        plan.turmoil,
        if plan.beyond_repair { ", beyond repair" } else { "" }
    );
    for planned in &plan.faults {
        println!("  {:>3}  at {:?}: {}", planned.number, planned.at, planned.fault);
    }
    let (first, second) = (trial::run(plan.clone(), cut.plant, true), trial::run(plan, cut.plant, false));
    let alike = first.hash == second.hash;
    match (first.result, second.result) {
        (Ok(report), Ok(_)) if alike => {
            println!(
                "seed {seed} passed twice alike: {} events, {} operations, {:.1} s simulated, {HASH}{:016x}",
                report.events,
                report.history.operations().len(),
                report.simulated.as_secs_f64(),
                first.hash
            );
            ExitCode::SUCCESS
        }
        (Err(failure), Err(again)) if alike && failure.what == again.what => {
            tell(seed, cut, &failure, whole);
            println!("it failed twice alike: {HASH}{:016x}", first.hash);
            ExitCode::FAILURE
        }
        _ => {
            println!("seed {seed} {FAILED}did not run twice alike: something in the world is not seeded");
            ExitCode::FAILURE
        }
    }
}

fn small(seed: u64, whole: &Cut) -> Result<ExitCode, String> {
    let program = std::env::current_exe().map_err(|e| format!("no program to start: {e}"))?;
    let Some(cut) = shrink(&program, seed, whole, PATIENCE) else {
        println!("seed {seed} does not fail");
        return Ok(ExitCode::SUCCESS);
    };
    println!("what is left of seed {seed}, and how it fails:\n");
    let code = replay(seed, &cut, false);
    // The command is a promise to whoever gets it: it has to hold in another process, too.
    let again: Vec<_> = (0..2).map(|_| symptom(&program, seed, &cut)).collect();
    if again[0].is_none() || again[0] != again[1] {
        println!("seed {seed} {FAILED}other processes do not see the same: {again:?}");
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_line_of_the_documents_is_one() {
        let mut found = 0;
        for text in [include_str!("../../docs/testing.md"), include_str!("../../docs/scaling.md")] {
            for line in text.lines().filter(|line| line.contains("-p sim")) {
                let Some((cargo, words)) = line.split_once(" -- ") else { continue };
                let words = words.split(" #").next().unwrap_or(words);
                let words: Vec<&str> = words.split_whitespace().collect();
                found += 1;
                match Task::parse(&words) {
                    Ok(_) => {}
                    // This build may have no bugs in it to plant.
                    Err(why) if cargo.contains("planted") && !cfg!(feature = "planted") => {
                        assert!(why.contains("planted"), "{line}: {why}");
                    }
                    Err(why) => panic!("{line}: {why}"),
                }
            }
        }
        assert!(found > 7, "{found} command lines");
    }
}
