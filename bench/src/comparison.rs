//! What a comparison came to, as a table for people and as one JSON document for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::args::{Rival, Size};
use crate::environment::Environment;
use crate::report::{Percentiles, Row, Settings, time};
use crate::sweep::{Case, Differs};
use crate::{End, Failure};

/// The document.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Name and version of this program.
    pub program: &'static str,
    /// When it began, in seconds since 1970.
    pub begun_unix_s: f64,
    /// The machine.
    pub environment: Environment,
    /// What was asked for.
    pub settings: Settings,
    /// Turns of each server.
    pub rounds: u32,
    /// The servers, Pelago first.
    pub servers: Vec<Rival>,
    /// One per load.
    pub contests: Vec<Contest>,
    /// What has to be said about each.
    #[serde(skip)]
    pub differs: Differs,
}

/// One load against all servers.
#[derive(Debug, Serialize)]
pub struct Contest {
    /// Which.
    #[serde(skip)]
    pub case: Case,
    /// One per server, in the order of the servers.
    pub standings: Vec<Standing>,
}

/// What one server made of a load.
#[derive(Debug, Serialize)]
pub struct Standing {
    /// Its name.
    pub server: String,
    /// Successes per second in each turn, in their order.
    pub turns_ops_per_sec: Vec<f64>,
    /// How the first server compares with this one; not for the first itself.
    pub first_to_this: Option<Ratio>,
    /// The turn with the median of successes per second.
    pub median: Row,
    /// Wrong answers in all turns.
    pub wrong_values: u64,
}

/// Figures of the first server divided by those of another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Above 1, the first does more per second. `None` where the other did nothing.
    pub ops_per_sec: Option<f64>,
    /// Below 1, the first answers faster.
    pub p50: Option<f64>,
    /// Below 1, the first answers faster.
    pub p99: Option<f64>,
}

impl Standing {
    /// The standing of the server that had these turns. `None` without a turn.
    pub fn of(server: &str, mut turns: Vec<Row>) -> Option<Self> {
        let turns_ops_per_sec: Vec<f64> = turns.iter().map(|row| row.all.ops_per_sec).collect();
        let wrong_values = turns.iter().map(|row| row.wrong_values).sum();
        turns.sort_by(|a, b| a.all.ops_per_sec.total_cmp(&b.all.ops_per_sec));
        // Of an even number the lower one: no figure is told that was not measured.
        let median = turns.len().checked_sub(1)? / 2;
        Some(Standing {
            server: server.to_owned(),
            turns_ops_per_sec,
            first_to_this: None,
            median: turns.swap_remove(median),
            wrong_values,
        })
    }
}

impl Contest {
    /// Puts the first beside each of the others.
    pub fn of(case: Case, mut standings: Vec<Standing>) -> Self {
        if let Some((first, others)) = standings.split_first_mut() {
            for other in others {
                other.first_to_this = Some(Ratio::of(&first.median, &other.median));
            }
        }
        Contest { case, standings }
    }
}

impl Ratio {
    fn of(first: &Row, other: &Row) -> Self {
        let ratio = |a: f64, b: f64| (b > 0.0).then(|| a / b);
        let (mine, theirs) = (&first.all.latency_us, &other.all.latency_us);
        Ratio {
            ops_per_sec: ratio(first.all.ops_per_sec, other.all.ops_per_sec),
            p50: ratio(mine.p50, theirs.p50),
            p99: ratio(mine.p99, theirs.p99),
        }
    }
}

impl Comparison {
    /// The document as a table.
    pub fn table(&self) -> String {
        let mut text = self.settings.head(&self.environment);
        let first = self.servers.first().map_or("", |server| server.name.as_str());
        for server in &self.servers {
            let _ = writeln!(text, "{}: {}", server.name, server.addresses.join(", "));
        }
        let _ = writeln!(
            text,
            "median of {} turns of each server; the columns with a / are {first} divided by the other\n",
            self.rounds
        );
        let _ = writeln!(
            text,
            "{:<9} {:>5}{} {:<10} {:>9} {:>6}  {:>9} {:>6} {:>9} {:>6} {:>9}  {:>8}  least to most ops/s",
            "workload",
            "conns",
            self.differs.columns("pipe", "value"),
            "server",
            "ops/s",
            "/",
            "p50",
            "/",
            "p99",
            "/",
            "max",
            "errors"
        );
        for contest in &self.contests {
            contest.write(&mut text, self.differs);
        }
        for contest in &self.contests {
            for standing in &contest.standings {
                let name = format!("{}, {}", standing.server, contest.case.told(self.differs));
                standing.median.remarks(&mut text, &name);
            }
        }
        text
    }

    /// How the command ends.
    pub fn end(&self) -> Result<End, Failure> {
        let standings = || self.contests.iter().flat_map(|contest| &contest.standings);
        if standings().any(|standing| standing.wrong_values > 0) {
            return Ok(End::Wrong);
        }
        for server in &self.servers {
            let mut own = standings().filter(|standing| standing.server == server.name);
            if own.all(|standing| standing.median.all.ops == 0) {
                return Err(Failure(format!(
                    "{}: not one request succeeded in the measured time; see the errors above",
                    server.name
                )));
            }
        }
        Ok(End::Right)
    }
}

impl Contest {
    fn write(&self, text: &mut String, differs: Differs) {
        for (number, standing) in self.standings.iter().enumerate() {
            let load = if number == 0 {
                let Case { mix, connections, pipeline, value_size } = self.case;
                let columns = differs.columns(&pipeline.to_string(), &Size(value_size).to_string());
                format!("{:<9} {connections:>5}{columns}", mix.to_string())
            } else {
                format!("{:<9} {:>5}{}", "", "", differs.columns("", ""))
            };
            let ratio = |part: fn(Ratio) -> Option<f64>| {
                standing.first_to_this.and_then(part).map_or(String::new(), |ratio| format!("{ratio:.2}"))
            };
            let turns = &standing.turns_ops_per_sec;
            let least = turns.iter().copied().fold(f64::INFINITY, f64::min);
            let most = turns.iter().copied().fold(0.0, f64::max);
            let errors: u64 = standing.median.errors.values().sum();
            let Percentiles { p50, p99, max, .. } = standing.median.all.latency_us;
            let _ = writeln!(
                text,
                "{load} {:<10} {:>9.0} {:>6}  {:>9} {:>6} {:>9} {:>6} {:>9}  {errors:>8}  {least:.0} to {most:.0}",
                standing.server,
                standing.median.all.ops_per_sec,
                ratio(|ratio| ratio.ops_per_sec),
                time(p50),
                ratio(|ratio| ratio.p50),
                time(p99),
                ratio(|ratio| ratio.p99),
                time(max),
            );
        }
    }
}
