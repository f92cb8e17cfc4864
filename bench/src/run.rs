//! `pelago-bench run`: offers one load of a sweep after the other and tells what came of them.

use std::path::{Path, PathBuf};

use crate::args::Run;
use crate::cost::Processes;
use crate::phase::Outcome;
use crate::report::{self, PROGRAM, Report, Row};
use crate::sweep::Sweep;
use crate::target::Target;
use crate::{End, Failure, environment, html, record};

/// Runs the sweep and prints its report.
pub fn run(args: Run) -> Result<End, Failure> {
    let servers = (!args.server_pids.is_empty()).then(|| Processes::find(&args.server_pids)).transpose()?;
    let sweep = Sweep::plan(args.load, args.verify)?;
    let mut target = Target::new(&sweep, &sweep.options.addr, servers)?;
    let environment = environment::survey(!sweep.options.no_environment, sweep.options.fsync_dir.as_deref())?;
    let mut rows = Vec::new();
    let mut end = End::Right;
    for (number, case) in sweep.cases().into_iter().enumerate() {
        let mut outcome = target.offer(case, case.told(sweep.differs()))?;
        let verify = args
            .verify
            .then(|| {
                let file = args.history.as_deref().map(|path| numbered(path, number));
                judge(&mut outcome, &target, file.as_deref())
            })
            .transpose()?;
        let row = Row::new(case, &outcome, verify);
        end = end.or_worse(row.end());
        rows.push(row);
    }
    let nothing = rows.iter().all(|row| row.all.ops == 0);
    let report = Report {
        program: PROGRAM,
        begun_unix_s: sweep.begun,
        environment,
        settings: sweep.settings(),
        rows,
        differs: sweep.differs(),
    };
    report::tell(&sweep.options, &report, || report.table(), || html::of_run(&report))?;
    if nothing && end == End::Right {
        return Err(Failure(
            "not one request succeeded in the measured time; see the errors above".to_owned(),
        ));
    }
    Ok(end)
}

fn judge(outcome: &mut Outcome, target: &Target<'_>, file: Option<&Path>) -> Result<record::Judged, Failure> {
    record::judge(std::mem::take(&mut outcome.history), target.layout(), file)
}

/// The history file of a row: the first has the name as given.
fn numbered(path: &Path, number: usize) -> PathBuf {
    match number {
        0 => path.to_owned(),
        _ => PathBuf::from(format!("{}.{number}", path.display())),
    }
}
