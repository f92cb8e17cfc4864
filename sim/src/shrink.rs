//! From a failing seed to a small plan that fails in the same way.
//!
//! First the time: up to the end of the turmoil a shorter run is the same run, so the least turmoil
//! is bisected and what begins later is dropped. Then delta debugging (Zeller, Hildebrandt,
//! "Simplifying and Isolating Failure-Inducing Input", 2002) over the list of faults, then fewer
//! clients, and all of it again until nothing gets smaller. Leaving out a fault changes all luck
//! after it, so every candidate is tried with several salts, and with more of them when few have
//! brought all they can. Each try is a process of its own:
//! what a stopped product leaves behind goes with it.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use groups::planted::Bug;

use crate::plan::Plan;
use crate::trial::CAN_PLANT;

/// Salts tried per candidate, in one round after the other.
const SALTS: [u64; 3] = [6, 24, 96];

/// As long as `shrink` tries on the command line.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// The least turmoil that is tried, in milliseconds.
const LEAST_TURMOIL: u64 = 100;

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
    /// The bug that is planted.
    pub plant: Option<Bug>,
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

    /// Reads command line options.
    ///
    /// # Errors
    /// A sentence about the first option that is none.
    pub fn parse(mut options: &[&str]) -> Result<Cut, String> {
        let mut cut = Cut::default();
        while let [name, rest @ ..] = options {
            let [value, rest @ ..] = rest else { return Err(format!("{name} needs a value")) };
            let number =
                || value.parse::<u64>().map_err(|_| format!("{name} takes a number, not \"{value}\""));
            match *name {
                "--only" if *value == "none" => cut.only = Some(Vec::new()),
                "--only" => {
                    let numbers = value.split(',').map(|n| n.parse().ok()).collect::<Option<_>>();
                    cut.only =
                        Some(numbers.ok_or(format!("--only takes \"none\" or numbers, not \"{value}\""))?);
                }
                "--clients" => cut.clients = Some(number()?),
                "--turmoil" => cut.turmoil = Some(number()?),
                "--salt" => cut.salt = number()?,
                "--plant" => cut.plant = Some(parse_bug(value)?),
                _ => return Err(format!("there is no option {name}")),
            }
            options = rest;
        }
        Ok(cut)
    }

    /// The command that runs `sim` with these words and this cut.
    #[must_use]
    pub fn command(&self, words: &str) -> String {
        let features = if self.plant.is_some() { " --features planted" } else { "" };
        format!("cargo run --release -p sim{features} -- {words}{self}")
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
        if let Some(bug) = self.plant {
            write!(f, " --plant {bug:?}")?;
        }
        Ok(())
    }
}

/// Reads the name of a bug to be planted.
///
/// # Errors
/// A sentence: the program is built without them, or no bug has this name.
pub fn parse_bug(name: &str) -> Result<Bug, String> {
    if !CAN_PLANT {
        return Err("--plant needs the planted bugs in the program: build it with --features planted".into());
    }
    let distance = |bug: &Bug| edits(&name.to_lowercase(), &format!("{bug:?}").to_lowercase());
    let nearest = Bug::ALL.into_iter().min_by_key(distance).ok_or("there are no bugs")?;
    if format!("{nearest:?}") == name {
        return Ok(nearest);
    }
    Err(format!("there is no bug \"{name}\"; did you mean {nearest:?}?"))
}

/// The edit distance of two words (Wagner, Fischer 1974).
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}

/// What the line begins with that says why a run failed.
pub const FAILED: &str = "failed: ";

/// What the event hash stands behind.
pub const HASH: &str = "event hash ";

/// How a cut plan fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symptom {
    /// The sentence without its numbers: two failures are alike when their words are.
    pub words: String,
    /// The event hash up to the failure.
    pub hash: String,
}

/// A failing seed and the program that runs it.
struct Shrink<'a> {
    program: &'a Path,
    seed: u64,
    words: String,
    best: Cut,
    salts: u64,
    /// When nothing more is tried.
    end: Instant,
}

/// The smallest cut that was found within `patience` and fails as `whole` does, by trying many as
/// `program replay`; `None` if `whole` does not fail.
#[must_use]
pub fn shrink(program: &Path, seed: u64, whole: &Cut, patience: Duration) -> Option<Cut> {
    let plan = whole.of(seed);
    let all: Vec<usize> = plan.faults.iter().map(|f| f.number).collect();
    let best = Cut {
        only: Some(all),
        clients: Some(plan.clients),
        turmoil: Some(plan.turmoil.as_millis() as u64),
        ..whole.clone()
    };
    let words = symptom(program, seed, &best)?.words;
    let mut shrink = Shrink { program, seed, words, best, salts: 0, end: Instant::now() + patience };
    for salts in SALTS {
        shrink.salts = salts;
        loop {
            let before = shrink.best.clone();
            shrink.less_time();
            shrink.fewer_faults();
            shrink.fewer_clients();
            if shrink.best == before {
                break;
            }
        }
    }
    Some(shrink.best)
}

impl Shrink<'_> {
    fn is_late(&self) -> bool {
        Instant::now() > self.end
    }

    /// Whether a cut fails in the same way under some luck, its own first; then it is the best.
    fn is_enough(&mut self, cut: Cut, what: impl FnOnce(&Cut) -> String) -> bool {
        let salts = std::iter::once(cut.salt).chain((0..self.salts).filter(|salt| *salt != cut.salt));
        let cuts = salts.map(|salt| Cut { salt, ..cut.clone() });
        let found = cuts.take_while(|_| !self.is_late()).find(|cut| {
            symptom(self.program, self.seed, cut).is_some_and(|symptom| symptom.words == self.words)
        });
        if let Some(cut) = found {
            eprintln!("{} enough", what(&cut));
            self.best = cut;
            return true;
        }
        false
    }

    /// Bisects the turmoil, then drops the faults that would begin behind it.
    fn less_time(&mut self) {
        let (mut low, mut high) = (LEAST_TURMOIL, self.best.turmoil.unwrap_or(0));
        while low < high && high - low > high / 10 {
            let middle = low + (high - low) / 2;
            let cut = Cut { turmoil: Some(middle), ..self.best.clone() };
            if self.is_enough(cut, |_| format!("{middle} ms of turmoil are")) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        let plan = self.best.of(self.seed);
        let begun = plan.faults.iter().filter(|f| f.at < plan.turmoil).map(|f| f.number);
        let cut = Cut { only: Some(begun.collect()), ..self.best.clone() };
        if cut != self.best {
            self.is_enough(cut, faults);
        }
    }

    fn fewer_faults(&mut self) {
        let mut pieces = 1;
        loop {
            let held = self.best.only.clone().unwrap_or_default();
            if held.is_empty() || self.is_late() {
                return;
            }
            let size = held.len().div_ceil(pieces);
            let smaller = held.chunks(size).any(|out| {
                let rest = held.iter().copied().filter(|n| !out.contains(n)).collect();
                self.is_enough(Cut { only: Some(rest), ..self.best.clone() }, faults)
            });
            match smaller {
                true => pieces = (pieces - 1).max(2),
                false if size == 1 => return,
                false => pieces = (pieces * 2).min(held.len()),
            }
        }
    }

    fn fewer_clients(&mut self) {
        for clients in 1..self.best.clients.unwrap_or(1) {
            let cut = Cut { clients: Some(clients), ..self.best.clone() };
            if self.is_enough(cut, |_| format!("{clients} clients are")) {
                return;
            }
        }
    }
}

fn faults(cut: &Cut) -> String {
    format!("{} faults are", cut.only.as_ref().map_or(0, Vec::len))
}

/// How a cut plan fails when it is run once by a process of its own; `None` if it does not.
#[must_use]
pub fn symptom(program: &Path, seed: u64, cut: &Cut) -> Option<Symptom> {
    let options = cut.to_string();
    let output = Command::new(program)
        .args(["replay", &seed.to_string(), "--once"])
        .args(options.split_whitespace())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    if output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let behind = |mark: &str| text.lines().find_map(|l| l.split_once(mark).map(|(_, rest)| rest.to_owned()));
    let words = behind(FAILED)?.chars().filter(|c| c.is_alphabetic() || *c == ' ').collect();
    Some(Symptom { words, hash: behind(HASH)? })
}
