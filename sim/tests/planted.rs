//! Every planted bug is found: the proof that the simulator looks where it should.
//!
//! Run with `cargo test --release -p sim --features planted --test planted -- --nocapture`; with
//! `PELAGO_BUGS=NoProbe,HalfIsEnough` it hunts only those.
#![cfg(feature = "planted")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use groups::planted::{Bug, plant};
use sim::world::{Plan, World};

/// A bug that this many seeds do not show is not found.
const SEEDS: u64 = 5_000;

/// Bugs that few seeds show, and one that did when it was last hunted: looked at first, so that the gate
/// does not go through thousands of others each time. Should it show the bug no more, all are gone through.
const RARE: &[(Bug, u64)] = &[
    (Bug::LeaseOutlivesPromise, 3995),
    (Bug::LeaseYieldsToLeaders, 1116),
    (Bug::LeaseConsentOfAnother, 1116),
    (Bug::PartsTooEarly, 1533),
    (Bug::BirthVotesAgain, 453),
];

/// The first of the seeds that fails with the bug planted, and how.
fn hunt(bug: Bug) -> Option<(u64, String)> {
    hunt_in(bug, World::new)
}

fn hunt_in(bug: Bug, world: fn(Plan) -> World) -> Option<(u64, String)> {
    plant(Some(bug));
    let first = RARE.iter().find(|(rare, _)| *rare == bug).map(|(_, seed)| *seed);
    let found = first.into_iter().chain(1..=SEEDS).find_map(|seed| {
        let run = catch_unwind(AssertUnwindSafe(|| world(Plan::from_seed(seed)).run()));
        match run {
            Ok(Ok(_)) => None,
            Ok(Err(failure)) => Some((seed, failure.what.lines().next().unwrap_or_default().to_owned())),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
                Some((seed, text.unwrap_or_default()))
            }
        }
    });
    plant(None);
    found
}

#[test]
fn every_planted_bug_is_found() {
    // What the judges find is often an assertion of the product: its message is kept, not printed.
    std::panic::set_hook(Box::new(|_| {}));
    let wanted = std::env::var("PELAGO_BUGS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').filter(|name| !name.is_empty()).collect();
    let bugs: Vec<Bug> = Bug::ALL
        .into_iter()
        .filter(|bug| wanted.is_empty() || wanted.contains(&format!("{bug:?}").as_str()))
        .collect();
    assert!(!bugs.is_empty(), "no planted bug is called {wanted:?}");
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(&bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match hunt(bug) {
                        Some((seed, how)) => println!("{bug:?}: seed {seed}: {how}"),
                        None => {
                            println!("{bug:?}: NOT FOUND in {SEEDS} seeds");
                            survivors.lock().expect("no thread panics with it").push(bug);
                        }
                    }
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let survivors = survivors.into_inner().expect("no thread panics with it");
    println!("{} bugs, {} found", bugs.len(), bugs.len() - survivors.len());
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}

/// What the judge of equal states finds, the replicas find too when they compare their states
/// through the log: with that judge left out, it is the product's own word that ends the run.
#[test]
fn replicas_find_by_themselves_that_a_state_is_wrong() {
    for (bug, words) in
        [(Bug::StateSkewed, "a majority"), (Bug::NodeInApply, "no majority had the same state")]
    {
        let found = hunt_in(bug, |plan| World::new(plan).trusting());
        let (seed, how) = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        println!("{bug:?}: seed {seed}: {how}");
        assert!(how.contains(words), "{bug:?}: seed {seed}: {how}");
    }
}
