//! The command line of `pelago`, one file per command.
//!
//! Exit codes, unless a command says otherwise: 0 done, 1 not found or a condition failed, 2 an
//! error (with what happened, why, and whether anything was applied on stderr). Results go to
//! stdout, everything else to stderr.

mod admin;
mod cas;
mod checkpoint;
mod completions;
mod config;
mod connect;
mod del;
mod demo;
mod dump;
mod exit;
mod get;
mod incr;
mod load;
mod lock;
mod log;
pub(crate) mod logging;
mod progress;
mod put;
mod rows;
mod scan;
mod serve;
mod shell;
mod sidefile;
pub mod status;
#[cfg(test)]
mod tests;
mod txn;
pub(crate) mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use exit::{Failure, print};

/// A sharded, strongly consistent key-value server
#[derive(Debug, Parser)]
#[command(name = "pelago", version, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(help_template = "{about}\n{usage-heading} {usage}\n\n{before-help}{after-help}")]
#[command(before_help = "\
Commands:
  demo, serve                    Start a whole cluster on this machine, or run one node of one
  put, get, del, cas, incr, txn  Set, print, delete, compare and swap, count; several keys at once
  scan, watch                    Print keys in their order, or changes as they happen
  lock                           Run a command while holding a lock
  shell                          Type commands and see their replies
  load, dump                     Set keys from a file, or write them into one
  status                         Show the state of the cluster
  admin                          Members, leaders, checkpoints, backup and restore
  config                         Check and show configuration files
  log, checkpoint                Read the log or the mirror checkpoints of a stopped node
  completions, man               Print completions of a shell, or write manual pages")]
#[command(after_help = "\
Exit codes: 0 done, 1 not found or condition failed, 2 error. COMMAND --help says more; there is --version.
Example: pelago demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Put(put::Put),
    Get(get::Get),
    Del(del::Del),
    Cas(cas::Cas),
    Incr(incr::Incr),
    Txn(txn::Txn),
    Scan(scan::Scan),
    Load(load::Load),
    Dump(dump::Dump),
    Watch(watch::Watch),
    Shell(shell::Shell),
    Lock(lock::Lock),
    #[command(hide = true)]
    LockCommand(lock::LockCommand),
    Status(status::Status),
    Admin(admin::AdminCommand),
    Config(config::ConfigCommand),
    Log(log::LogCommand),
    Checkpoint(checkpoint::CheckpointCommand),
    Completions(completions::Completions),
    Man(completions::Man),
}

/// Runs the command that `words` names; the first word is the program's name.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = Cli::command().try_get_matches_from(words).and_then(|m| Cli::from_arg_matches(&m));
    let outcome = match parsed {
        Ok(cli) => cli.command.run(),
        // Help and version come this way too, for stdout and with exit code 0.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Command::Demo(command) => command.run(),
            Command::Serve(command) => command.run(),
            Command::Put(command) => command.run(),
            Command::Get(command) => command.run(),
            Command::Del(command) => command.run(),
            Command::Cas(command) => command.run(),
            Command::Incr(command) => command.run(),
            Command::Txn(command) => command.run(),
            Command::Scan(command) => command.run(),
            Command::Load(command) => command.run(),
            Command::Dump(command) => command.run(),
            Command::Watch(command) => command.run(),
            Command::Shell(command) => command.run(),
            Command::Lock(command) => command.run(),
            Command::LockCommand(command) => command.run(),
            Command::Status(command) => command.run(),
            Command::Admin(command) => command.run(),
            Command::Config(command) => command.run(),
            Command::Log(command) => command.run(),
            Command::Checkpoint(command) => command.run(),
            Command::Completions(command) => command.run(),
            Command::Man(command) => command.run(),
        }
    }
}
