//! The command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::workload::Mix;

/// Offers load to a Pelago cluster and measures it
#[derive(Parser, Debug)]
#[command(name = "pelago-bench", version, max_term_width = 110)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Offer one load, or a sweep of them, and print what was measured
    Run(Box<Run>),
    /// Judge histories that `run --verify --history FILE` has kept
    Judge(Judge),
}

const RUN_HELP: &str = "\
Exit codes: 0 measured, every answer right      1 a wrong value, or not linearizable
            2 bad arguments, no server, or not one success      3 --verify came to no verdict
Example: pelago-bench run -a 127.0.0.1:7001,127.0.0.1:7002 -c 1,64,256 -w put,get,mixed:50";

/// Options of `run`.
#[derive(clap::Args, Debug)]
#[command(after_help = RUN_HELP)]
pub struct Run {
    /// Servers, taken in turn by the connections
    #[arg(short, long, value_name = "HOST:PORT", value_delimiter = ',', default_value = "127.0.0.1:7001")]
    pub addr: Vec<String>,
    /// Connections; several numbers make a sweep
    #[arg(short, long, value_name = "C", value_delimiter = ',', default_value = "64",
          value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: Vec<u32>,
    /// Requests under way per connection
    #[arg(short = 'P', long, value_name = "P", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub pipeline: u32,
    /// put, get, mixed[:PERCENT-OF-GETS], scan[:KEYS], cas, incr; several make a sweep [put]
    #[arg(short, long, value_name = "W", value_delimiter = ',')]
    pub workload: Vec<Mix>,
    /// Different keys [default: 100000; --verify: 16]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub keys: Option<u32>,
    /// Bytes per key
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    pub key_size: usize,
    /// Bytes per value
    #[arg(short = 's', long, value_name = "BYTES", default_value_t = 100)]
    pub value_size: usize,
    /// Time measured per row
    #[arg(short, long, value_name = "TIME", default_value = "10s", conflicts_with = "requests")]
    pub duration: Span,
    /// Requests measured per row, instead of a time
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Time before each row that is not measured [default: 2s; --verify: 0s]
    #[arg(long, value_name = "TIME")]
    pub warmup: Option<Span>,
    /// Open loop: requests per second, latency counted from when each was due
    #[arg(short, long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,
    /// Some keys much hotter than others (exponent, 0 to 1)
    #[arg(long, value_name = "THETA", num_args = 0..=1, default_missing_value = "0.99")]
    pub zipf: Option<f64>,
    /// Resend what was answered -TRYAGAIN, with backoff
    #[arg(long)]
    pub retry: bool,
    /// Give up a request, and its connection, after this
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub timeout: Span,
    /// Record every operation and judge the history linearizable or not
    #[arg(long)]
    pub verify: bool,
    /// Keep the history in a file as well (with --verify; rows are numbered)
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub history: Option<PathBuf>,
    /// Threads that drive the connections
    #[arg(short, long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Same numbers, same choice of keys [default: from the clock]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Processes of the servers, to report what an operation costs them
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub server_pids: Vec<u32>,
    /// Where fdatasync is measured [default: the current directory]
    #[arg(long, value_name = "DIR")]
    pub fsync_dir: Option<PathBuf>,
    /// Do not measure fdatasync and the loopback first
    #[arg(long, conflicts_with = "fsync_dir")]
    pub no_environment: bool,
    /// One JSON document instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Options of `judge`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit codes: 0 linearizable · 1 not linearizable · 2 unreadable · 3 undecided\n\
                        Example: pelago-bench judge failing.jsonl")]
pub struct Judge {
    /// Files of one JSON object per operation
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// A length of time as typed: `10s`, `250ms`, `1.5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let scale = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "" => return Err("a time needs a unit: 10s, 250ms, 2m".to_owned()),
            other => return Err(format!("unknown unit \"{other}\"; known are us, ms, s, m, h")),
        };
        let number: f64 = number.parse().map_err(|_| format!("\"{number}\" is no number"))?;
        Duration::try_from_secs_f64(number * scale)
            .ok()
            .filter(|span| *span <= Duration::from_secs(7 * 24 * 3600))
            .map(Span)
            .ok_or_else(|| "longer than a week".to_owned())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Result<Duration, String> {
        text.parse::<Span>().map(|span| span.0)
    }

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!(span("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(span("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(span("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn a_bad_time_says_what_is_expected() {
        assert!(span("10").expect_err("no unit").contains("needs a unit"));
        assert!(span("10parsec").expect_err("no unit").contains("parsec"));
        assert!(span("s").is_err());
        assert!(span("1.2.3s").is_err());
        assert!(span("9999999h").is_err());
    }

    #[test]
    fn the_help_of_run_fits_a_screen() {
        use clap::CommandFactory;
        let mut command = Args::command();
        let run = command.find_subcommand_mut("run").expect("run exists");
        let help = run.clone().term_width(100).render_help().to_string();
        assert!(help.lines().count() <= 36, "{} lines", help.lines().count());
        assert!(help.trim_end().lines().last().is_some_and(|line| line.starts_with("Example:")));
    }
}
