//! `pelago-bench`: offers load to a Pelago cluster (or any RESP server), measures it and, on request, judges whether
//! the answers were linearizable.
//!
//! * `args` the command line and what it may say · `payload` keys and values that can be told apart · `workload` which
//!   operation comes next · `encoder` and `resp` the wire, out and in · `page` the answer to a scan
//! * `pace` when the next request is due · `connection` one socket and what is under way on it · `worker` the event
//!   loop of one thread · `plan` and `phase` all threads together, from connecting to the merged figures
//! * `ledger` what a reply means · `known` what is known of the keys · `stats` what is counted · `record` the history
//!   for `--verify` · `cost` what the servers spend
//! * `machine` durable writes and messages there and back · `environment` what they take in the minute of a load
//! * `series` what happened when · `events` what else happened · `html` the report with plots
//! * `sweep` which loads · `target` to whom, with what its keys hold
//! * `run` one server · `compare` several in turns · `limits` what the machine could do at best
//! * `report` and `comparison` tables and JSON · `progress` what one sees meanwhile

mod args;
mod compare;
mod comparison;
mod connection;
mod cost;
mod encoder;
mod environment;
mod events;
mod html;
mod known;
mod ledger;
mod limits;
mod machine;
mod pace;
mod page;
mod payload;
mod phase;
mod plan;
mod progress;
mod record;
mod report;
mod resp;
mod run;
mod series;
mod stats;
mod sweep;
mod target;
mod worker;
mod workload;

use std::process::ExitCode;

use args::Command;
use clap::Parser;

fn main() -> ExitCode {
    let outcome = match args::Args::parse().command {
        Command::Run(run) => run::run(*run),
        Command::Compare(compare) => compare::compare(*compare),
        Command::Limits(args) => limits::limits(&args),
        Command::SkeletonReplica(args) => limits::replica::run(&args),
        Command::Judge(judge) => record::judge_files(&judge.files),
    };
    match outcome {
        Ok(end) => ExitCode::from(end as u8),
        Err(Failure(reason)) => {
            eprintln!("pelago-bench: {reason}");
            ExitCode::from(2)
        }
    }
}

/// How a command that could do its work ends; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Everything that was checked was right.
    Right = 0,
    /// The server answered wrongly: a wrong value, or a history that is not linearizable.
    Wrong = 1,
    /// The history took more work to judge than allowed.
    Undecided = 3,
}

impl End {
    /// The worse of two.
    fn or_worse(self, other: End) -> End {
        match (self, other) {
            (End::Wrong, _) | (_, End::Wrong) => End::Wrong,
            (End::Undecided, _) | (_, End::Undecided) => End::Undecided,
            (End::Right, End::Right) => End::Right,
        }
    }
}

/// Why a command could not do its work, for the person who typed it. Exit code 2.
#[derive(Debug)]
struct Failure(String);

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Failure(reason)
    }
}
