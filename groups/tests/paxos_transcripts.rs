//! The protocol, told in transcripts: `transcripts/*.txt`, commands in and events out. The
//! commands are listed in `paxos_support/script.rs`. `UPDATE_TRANSCRIPTS=1` rewrites what happened.

mod paxos_support;

use std::path::{Path, PathBuf};

use paxos_support::script;

fn transcripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("the folder").map(|f| f.expect("a file").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "txt"));
    files.sort();
    assert!(files.len() >= 20, "only {} transcripts in {}", files.len(), folder.display());
    files
}

/// What differs, transcript by transcript.
fn differences() -> Vec<String> {
    let mut failed = Vec::new();
    for file in transcripts() {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match std::panic::catch_unwind(|| script::check(&file)) {
            Ok(Ok(())) => {}
            Ok(Err(differences)) => failed.push(format!("== {name}\n{differences}")),
            Err(_) => failed.push(format!("== {name}\nit panicked, see above")),
        }
    }
    failed
}

#[test]
fn transcripts_tell_what_happens() {
    let failed = differences();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Each broken rule shows in a transcript (`cargo test -p groups --features planted`).
#[cfg(feature = "planted")]
#[test]
fn transcripts_show_planted_bugs() {
    use groups::planted::{Bug, plant};
    let bugs = [
        Bug::PromiseBeforeSync,
        Bug::VoteBeforeSync,
        Bug::OwnVoteBeforeSync,
        Bug::BallotNotPersisted,
        Bug::AcceptIgnoresPromise,
        Bug::TruncatedPromise,
        Bug::AdoptsLowest,
        Bug::AdoptsNothing,
        Bug::VotesAcrossBallots,
        Bug::HalfIsEnough,
        Bug::NoPhaseOneQuorum,
        Bug::WatermarkOfAnyBallot,
        Bug::LostChosenStaysLost,
        Bug::LearningMovesPromise,
        Bug::PromiseForgotten,
        Bug::AcceptedForgotten,
        Bug::NoSessions,
        Bug::SessionIgnoresBoot,
        Bug::SessionOutOfOrder,
        Bug::SessionAnswersTooEarly,
        Bug::ReadBeforeOpening,
        Bug::ReadWithoutBarrier,
        Bug::BarrierIgnoresPromise,
        Bug::ReadOvertakesWrite,
        Bug::NoProbe,
        Bug::AcknowledgesAlone,
    ];
    let mut unseen = Vec::new();
    for bug in bugs {
        plant(Some(bug));
        let failed = differences();
        plant(None);
        let names: Vec<&str> = failed.iter().filter_map(|f| f.lines().next()).collect();
        eprintln!("{bug:?}: {}", names.join(" ").replace("== ", ""));
        if failed.is_empty() {
            unseen.push(bug);
        }
    }
    assert!(unseen.is_empty(), "no transcript shows {unseen:?}");
}
