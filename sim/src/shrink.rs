//! From a failing seed to a small plan that fails in the same way.
//!
//! Delta debugging (Zeller, Hildebrandt, "Simplifying and Isolating Failure-Inducing Input",
//! 2002) over the list of faults, then fewer clients and a shorter turmoil. Leaving out a fault
//! changes all luck after it, so every candidate is tried with several salts. Each try is a
//! process of its own, because an assertion of the product ends the process.

use std::cell::RefCell;
use std::fmt;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use crate::plan::Plan;
use crate::story;

/// Salts tried per candidate.
const SALTS: u64 = 6;

/// Changes to the plan of a seed, as the command line says them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// The faults that stay; all if not said.
    pub only: Option<Vec<usize>>,
    /// The clients that stay.
    pub clients: Option<u64>,
    /// How long faults happen, in milliseconds.
    pub turmoil: Option<u64>,
    /// Other luck.
    pub salt: u64,
}

impl Cut {
    /// The plan of a seed with these changes.
    #[must_use]
    pub fn of(&self, seed: u64) -> Plan {
        let mut plan = Plan::from_seed(seed);
        if let Some(only) = &self.only {
            plan = plan.only(only);
        }
        plan.clients = self.clients.unwrap_or(plan.clients);
        plan.turmoil = self.turmoil.map_or(plan.turmoil, Duration::from_millis);
        plan.salt = self.salt;
        plan
    }

    /// Reads command line options; `None` when they are none.
    #[must_use]
    pub fn parse(mut options: &[&str]) -> Option<Cut> {
        let mut cut = Cut::default();
        while let [name, value, rest @ ..] = options {
            match *name {
                "--only" if *value == "none" => cut.only = Some(Vec::new()),
                "--only" => cut.only = Some(value.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?),
                "--clients" => cut.clients = Some(value.parse().ok()?),
                "--turmoil" => cut.turmoil = Some(value.parse().ok()?),
                "--salt" => cut.salt = value.parse().ok()?,
                _ => return None,
            }
            options = rest;
        }
        options.is_empty().then_some(cut)
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(only) = &self.only {
            let numbers: Vec<String> = only.iter().map(usize::to_string).collect();
            write!(f, " --only {}", if only.is_empty() { "none".into() } else { numbers.join(",") })?;
        }
        if let Some(clients) = self.clients {
            write!(f, " --clients {clients}")?;
        }
        if let Some(turmoil) = self.turmoil {
            write!(f, " --turmoil {turmoil}")?;
        }
        if self.salt != 0 {
            write!(f, " --salt {}", self.salt)?;
        }
        Ok(())
    }
}

thread_local! {
    static RUNNING: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Has a panic on this thread end the process with the story so far and the command that
/// repeats it. Under `panic = "abort"` nothing else could tell.
pub fn name_panics(command: &str) {
    static HOOK: Once = Once::new();
    RUNNING.with(|r| command.clone_into(&mut r.borrow_mut()));
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let command = RUNNING.with(|r| r.borrow().clone());
            if command.is_empty() {
                return before(info);
            }
            for line in story::told() {
                println!("{line}");
            }
            let what = info.payload_as_str().unwrap_or("a panic");
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            println!("\n{FAILED}the program stopped itself: {what} ({place})");
            println!("replay it with: cargo run --release -p sim -- {command}");
            std::process::exit(1);
        }));
    });
}

/// What the line begins with that says why a run failed.
pub const FAILED: &str = "failed: ";

/// The last cut that failed as the whole plan does.
#[must_use]
pub fn shrink(seed: u64) -> Option<Cut> {
    let all: Vec<usize> = Plan::from_seed(seed).faults.iter().map(|f| f.number).collect();
    let mut best = Cut { only: Some(all), ..Cut::default() };
    let wanted = reason(seed, &best)?;
    let fails = |cut: &Cut| {
        (0..SALTS)
            .map(|salt| Cut { salt: if salt == 0 { cut.salt } else { salt }, ..cut.clone() })
            .find(|cut| reason(seed, cut).as_ref() == Some(&wanted))
    };
    let full = Plan::from_seed(seed);
    let mut pieces = 2;
    loop {
        let faults = best.only.clone().unwrap_or_default();
        if faults.is_empty() {
            break;
        }
        let size = faults.len().div_ceil(pieces);
        let smaller = faults.chunks(size).find_map(|out| {
            let rest: Vec<usize> = faults.iter().copied().filter(|n| !out.contains(n)).collect();
            fails(&Cut { only: Some(rest), ..best.clone() })
        });
        match smaller {
            Some(cut) => {
                best = cut;
                pieces = (pieces - 1).max(2);
                eprintln!("{} faults are enough", best.only.as_ref().map_or(0, Vec::len));
            }
            None if size == 1 => break,
            None => pieces = (pieces * 2).min(faults.len()),
        }
    }
    for clients in 1..full.clients {
        if let Some(cut) = fails(&Cut { clients: Some(clients), ..best.clone() }) {
            best = cut;
            break;
        }
    }
    let mut turmoil = full.turmoil.as_millis() as u64;
    while turmoil > 200 {
        turmoil = turmoil * 2 / 3;
        match fails(&Cut { turmoil: Some(turmoil), ..best.clone() }) {
            Some(cut) => best = cut,
            None => break,
        }
    }
    Some(best)
}

/// Why a cut plan fails, without its numbers: two failures are alike when their words are.
fn reason(seed: u64, cut: &Cut) -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let options = cut.to_string();
    let output = Command::new(program)
        .arg("replay")
        .arg(seed.to_string())
        .args(options.split_whitespace())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    if output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|l| l.split_once(FAILED).map(|(_, what)| what))?;
    Some(line.chars().filter(|c| c.is_alphabetic() || *c == ' ').collect())
}
