//! `pelago-bench compare`: the same load against several servers in turns. What else the machine does at the time meets
//! all of them alike, and the median of the turns is told.

use crate::args::{Compare, Rival};
use crate::comparison::{Comparison, Contest, Standing};
use crate::report::{self, PROGRAM, Row};
use crate::sweep::{Case, Sweep};
use crate::target::Target;
use crate::workload::Mix;
use crate::{End, Failure, environment, html};

/// What the first server is called.
const FIRST: &str = "pelago";

/// Runs the comparison and prints its report.
pub fn compare(args: Compare) -> Result<End, Failure> {
    let sweep = Sweep::plan(args.load, false)?;
    if let Some(mix) = sweep.mixes.iter().find(|mix| matches!(mix, Mix::Scan(_) | Mix::Cas)) {
        return Err(Failure(format!(
            "{mix} is a command of Pelago alone; compare takes put, get, mixed[:PERCENT-OF-GETS] and incr"
        )));
    }
    let mut servers = vec![Rival { name: FIRST.to_owned(), addresses: sweep.options.addr.clone() }];
    for rival in args.with {
        if servers.iter().any(|server| server.name == rival.name) {
            return Err(Failure(format!(
                "two servers are called \"{}\"; give --with another NAME",
                rival.name
            )));
        }
        servers.push(rival);
    }
    let mut targets = Vec::new();
    for server in &servers {
        targets.push(Target::new(&sweep, &server.addresses, None)?);
    }
    let environment = environment::survey(!sweep.options.no_environment, sweep.options.fsync_dir.as_deref())?;
    let mut contests = Vec::new();
    for case in sweep.cases() {
        contests.push(contest(case, &sweep, &servers, &mut targets, args.rounds)?);
    }
    let comparison = Comparison {
        program: PROGRAM,
        begun_unix_s: sweep.begun,
        environment,
        settings: sweep.settings(),
        rounds: args.rounds,
        servers,
        contests,
        differs: sweep.differs(),
    };
    report::tell(&sweep.options, &comparison, || comparison.table(), || html::of_comparison(&comparison))?;
    comparison.end()
}

/// One load against every server in turns; another one begins in each round.
fn contest(
    case: Case,
    sweep: &Sweep,
    servers: &[Rival],
    targets: &mut [Target<'_>],
    rounds: u32,
) -> Result<Contest, Failure> {
    let mut rows: Vec<Vec<Row>> = servers.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds as usize {
        for turn in 0..servers.len() {
            let at = (round + turn) % servers.len();
            let name = &servers[at].name;
            let told = format!("{name}, round {} of {rounds}, {}", round + 1, case.told(sweep.differs()));
            let outcome =
                targets[at].offer(case, told).map_err(|Failure(why)| Failure(format!("{name}: {why}")))?;
            rows[at].push(Row::new(case, &outcome, None));
        }
    }
    let standings =
        servers.iter().zip(rows).filter_map(|(server, rows)| Standing::of(&server.name, rows)).collect();
    Ok(Contest::of(case, standings))
}
