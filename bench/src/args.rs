//! The command line.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::Failure;
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
    /// Offer the same load to Pelago and to other servers in turns, and print the ratios
    Compare(Box<Compare>),
    /// Measure what this machine could do at best: its disk, its loopback, a bare replicated log
    Limits(Limits),
    /// One replica of that log; started by `limits`
    #[command(hide = true)]
    SkeletonReplica(SkeletonReplica),
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
    /// The load.
    #[command(flatten)]
    pub load: Load,
    /// Record every operation and judge the history linearizable or not
    #[arg(long)]
    pub verify: bool,
    /// Keep the history in a file as well (with --verify; rows are numbered)
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub history: Option<PathBuf>,
    /// Processes of the servers, to report what an operation costs them
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub server_pids: Vec<u32>,
}

/// What is offered to whom, how it is measured and how it is told.
#[derive(clap::Args, Debug)]
pub struct Load {
    /// Servers, taken in turn by the connections
    #[arg(short, long, value_name = "HOST:PORT", value_delimiter = ',', default_value = "127.0.0.1:7001")]
    pub addr: Vec<String>,
    /// Connections; several numbers: a sweep
    #[arg(short, long, value_name = "C", value_delimiter = ',', default_value = "64",
          value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: Vec<u32>,
    /// Requests under way per connection; several: a sweep
    #[arg(short = 'P', long, value_name = "P", value_delimiter = ',', default_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub pipeline: Vec<u32>,
    /// put, get, mixed[:%-GETS], scan[:KEYS], cas, incr; several: a sweep [put]
    #[arg(short, long, value_name = "W", value_delimiter = ',')]
    pub workload: Vec<Mix>,
    /// Different keys [default: 100000; --verify: 16]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub keys: Option<u32>,
    /// Bytes per key
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    pub key_size: usize,
    /// Bytes per value (100, 4KiB, 1MiB); several: a sweep
    #[arg(short = 's', long, value_name = "SIZE", value_delimiter = ',', default_value = "100")]
    pub value_size: Vec<Size>,
    /// Time measured per row
    #[arg(short, long, value_name = "TIME", default_value = "10s", conflicts_with = "requests")]
    pub duration: Span,
    /// Requests measured per row, instead of a time
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Time before each row that is not measured [default: 2s; --verify: 0s]
    #[arg(long, value_name = "TIME")]
    pub warmup: Option<Span>,
    /// Open loop: requests per second, latency from when each was due
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
    /// Threads that drive the connections
    #[arg(short, long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// Same numbers, same choice of keys [default: from the clock]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Where fdatasync is measured [default: the current directory]
    #[arg(long, value_name = "DIR")]
    pub fsync_dir: Option<PathBuf>,
    /// Do not measure fdatasync and the loopback first
    #[arg(long, conflicts_with = "fsync_dir")]
    pub no_environment: bool,
    /// One JSON document instead of the table
    #[arg(long)]
    pub json: bool,
    /// Mark the lines of FILE, `<unix-seconds> <text>`, on the plots over time; scripts append to it
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Do not ask the servers for changes of leaders
    #[arg(long)]
    pub no_events: bool,
    /// Write report.json, and report.html with plots, to this directory
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

impl Load {
    /// The load that these options ask for.
    pub fn of(options: &[&str]) -> Result<Self, Failure> {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            load: Load,
        }
        Only::try_parse_from([&[""], options].concat())
            .map(|only| only.load)
            .map_err(|error| Failure(error.to_string()))
    }
}

const COMPARE_HELP: &str = "\
Exit codes: 0 measured      1 a server answered wrongly      2 bad arguments, no server, or not one success
Example: pelago-bench compare -a 127.0.0.1:7001 --with redis=127.0.0.1:6379 -c 1,64,256 -w put,get";

/// Options of `compare`.
#[derive(clap::Args, Debug)]
#[command(after_help = COMPARE_HELP)]
pub struct Compare {
    /// Another server, any that speaks RESP; the option may be repeated
    #[arg(long, value_name = "NAME=ADDR", required = true)]
    pub with: Vec<Rival>,
    /// Turns of each server; the median of them is told
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// The load.
    #[command(flatten)]
    pub load: Load,
}

/// A server to compare with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rival {
    /// How it is called in the report.
    pub name: String,
    /// Where it is.
    pub addresses: Vec<String>,
}

impl FromStr for Rival {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, addresses)) if !name.is_empty() && !addresses.is_empty() => Ok(Rival {
                name: name.to_owned(),
                addresses: addresses.split(',').map(str::to_owned).collect(),
            }),
            _ => Err("a server is given as NAME=HOST:PORT, as in redis=127.0.0.1:6379".to_owned()),
        }
    }
}

/// Options of `limits`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit codes: 0 measured · 2 the disk or the loopback cannot be measured\n\
                        Example: pelago-bench limits --dir /var/lib/pelago --seconds 5")]
pub struct Limits {
    /// Where the disk is measured [default: the current directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How long each of the ten measurements takes
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub seconds: f64,
    /// One JSON document instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `skeleton-replica`.
#[derive(clap::Args, Debug)]
pub struct SkeletonReplica {
    /// Where its file lies
    pub dir: PathBuf,
    /// Of a leader: the addresses of its two followers
    pub followers: Vec<SocketAddr>,
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

/// A number of bytes as typed: `100`, `4KiB`, `1MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let scale: usize = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            other => return Err(format!("unknown unit \"{other}\"; known are B, KiB, MiB")),
        };
        let number: usize = number.parse().map_err(|_| format!("\"{number}\" is no number"))?;
        number.checked_mul(scale).map(Size).ok_or_else(|| "too many bytes".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes > 0 && bytes % (1 << 20) == 0 => f.pad(&format!("{} MiB", bytes >> 20)),
            bytes if bytes > 0 && bytes % (1 << 10) == 0 => f.pad(&format!("{} KiB", bytes >> 10)),
            bytes => f.pad(&format!("{bytes} B")),
        }
    }
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
    fn sizes_are_read_with_their_units_and_told_in_the_largest_that_fits() {
        for (text, bytes, told) in [
            ("100", 100, "100 B"),
            ("4KiB", 4096, "4 KiB"),
            ("1MiB", 1 << 20, "1 MiB"),
            ("1025B", 1025, "1025 B"),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), told);
        }
        assert!("1kB".parse::<Size>().expect_err("no such unit").contains("KiB"));
        assert!("KiB".parse::<Size>().is_err());
        assert!("99999999999999999999MiB".parse::<Size>().is_err());
        assert!("99999999999999999MiB".parse::<Size>().expect_err("too many").contains("too many"));
    }

    #[test]
    fn servers_to_compare_with_have_a_name_and_addresses() {
        let rival = "redis=a:1,b:2".parse::<Rival>().expect("well-formed");
        assert_eq!((rival.name.as_str(), rival.addresses.len()), ("redis", 2));
        for text in ["redis", "=a:1", "redis="] {
            assert!(text.parse::<Rival>().expect_err("malformed").contains("NAME=HOST:PORT"));
        }
    }

    #[test]
    fn the_help_of_every_command_fits_a_screen() {
        use clap::CommandFactory;
        for command in Args::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.clone().term_width(100).render_help().to_string();
            let name = command.get_name();
            assert!(help.lines().count() <= 36, "{name}: {} lines", help.lines().count());
            assert!(
                help.trim_end().lines().last().is_some_and(|line| line.starts_with("Example:")),
                "{name}"
            );
        }
    }

    #[test]
    fn every_command_line_of_the_documents_is_one() {
        let mut found = 0;
        let texts = [
            include_str!("../../README.md"),
            include_str!("../../docs/performance.md"),
            include_str!("../../docs/scaling.md"),
        ];
        for line in texts.iter().flat_map(|text| text.split("```").skip(1).step_by(2)).flat_map(str::lines) {
            let line = line.split(" #").next().unwrap_or(line);
            let words = line.strip_prefix("cargo run --release -p bench -- ");
            let Some(words) = words.or(line.strip_prefix("pelago-bench ")) else { continue };
            found += 1;
            let words = std::iter::once("pelago-bench").chain(words.split_whitespace());
            if let Err(error) = Args::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
        assert!(found > 3, "{found} command lines");
    }
}
