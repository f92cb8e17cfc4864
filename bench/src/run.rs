//! `pelago-bench run`: checks what was asked, fills the store, and offers one load after the other.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::args::Run;
use crate::cost::Processes;
use crate::known::{Values, Written};
use crate::ledger::Retry;
use crate::payload::Layout;
use crate::phase::{self, Outcome};
use crate::plan::{Clock, Limit, Plan, Shared};
use crate::progress::{Progress, Whole};
use crate::report::{Report, Row, Settings};
use crate::workload::{Keys, Mix, Random, Source};
use crate::{End, Failure, environment, record};

/// Requests under way per connection while the store is filled.
const FILL_PIPELINE: usize = 32;

/// Runs the sweep and prints its report.
pub fn run(args: Run) -> Result<End, Failure> {
    let mut sweep = Sweep::plan(args)?;
    let measure = !sweep.args.no_environment;
    let environment = environment::survey(measure, sweep.args.fsync_dir.as_deref())?;
    let mut rows = Vec::new();
    let mut end = End::Right;
    for mix in sweep.mixes.clone() {
        for connections in sweep.args.connections.clone() {
            let row = sweep.row(mix, connections, rows.len())?;
            let judged = row.verify.as_ref().map_or(End::Right, |judged| judged.end);
            end = match (end, judged) {
                _ if row.wrong_values > 0 => End::Wrong,
                (End::Wrong, _) | (_, End::Wrong) => End::Wrong,
                (End::Undecided, _) | (_, End::Undecided) => End::Undecided,
                _ => End::Right,
            };
            rows.push(row);
        }
    }
    let nothing = rows.iter().all(|row| row.all.ops == 0);
    let report = Report {
        program: concat!("pelago-bench ", env!("CARGO_PKG_VERSION")),
        environment,
        settings: sweep.settings(),
        rows,
    };
    if sweep.args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    if nothing && end == End::Right {
        return Err(Failure(
            "not one request succeeded in the measured time; see the errors above".to_owned(),
        ));
    }
    Ok(end)
}

/// A sweep whose arguments make sense.
struct Sweep {
    args: Run,
    mixes: Vec<Mix>,
    keys: u32,
    addresses: Vec<SocketAddr>,
    warmup: Duration,
    seed: u64,
    clock: Clock,
    layout: Layout,
    written: Written,
    values: Option<Values>,
    sequences: AtomicU64,
    servers: Option<Processes>,
    filled: bool,
}

impl Sweep {
    fn plan(args: Run) -> Result<Self, Failure> {
        if args.zipf.is_some_and(|theta| !(0.0..1.0).contains(&theta)) {
            return Err(Failure(
                "--zipf takes an exponent from 0 (uniform) to below 1 (very skewed)".to_owned(),
            ));
        }
        if args.duration.0.is_zero() && args.requests.is_none() {
            return Err(Failure("--duration 0 measures nothing".to_owned()));
        }
        if args.timeout.0.is_zero() {
            return Err(Failure("--timeout 0 gives every request up at once".to_owned()));
        }
        let mixes = match (args.workload.is_empty(), args.verify) {
            (true, true) => vec![Mix::Mixed(50)],
            (true, false) => vec![Mix::Put],
            (false, _) => args.workload.clone(),
        };
        let keys = args.keys.unwrap_or(if args.verify { 16 } else { 100_000 });
        check_scans(&mixes, keys, args.verify)?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since_epoch.as_nanos()).unwrap_or_default();
        // A history begins with absent keys, so it needs keys that nobody has used before.
        let tag = args.verify.then_some((now ^ u64::from(std::process::id()) << 32) & 0xffff_ffff_ffff);
        Ok(Sweep {
            layout: Layout::new(keys, args.key_size, args.value_size, tag)?,
            addresses: resolve(&args.addr)?,
            warmup: args.warmup.map_or(Duration::from_secs(if args.verify { 0 } else { 2 }), |span| span.0),
            seed: args.seed.unwrap_or(now),
            clock: Clock::start(),
            written: Written::none(keys),
            values: mixes.contains(&Mix::Cas).then(|| Values::none(keys)),
            sequences: AtomicU64::new(1),
            servers: (!args.server_pids.is_empty())
                .then(|| Processes::find(&args.server_pids))
                .transpose()?,
            filled: false,
            mixes,
            keys,
            args,
        })
    }

    fn row(&mut self, mix: Mix, connections: u32, number: usize) -> Result<Row, Failure> {
        if self.args.verify && number > 0 {
            self.fresh_keys()?;
        }
        if mix.needs_values() && !self.args.verify && !self.filled {
            self.fill(connections)?;
            self.filled = true;
        }
        let measured = self.args.duration.0;
        let whole = self.args.requests.map_or(Whole::Time(self.warmup + measured), Whole::Requests);
        let mut progress = Progress::begin(format!("{mix}, {connections} connections"), whole);
        let limit = self.args.requests.map_or(Limit::Time(nanos(measured)), Limit::Requests);
        let threads = self.args.threads.min(connections);
        let plan = Plan {
            warmup: nanos(self.warmup),
            rate: self.args.rate.map(|rate| rate as f64),
            retry: if self.args.retry { Retry::TryAgain } else { Retry::Never },
            record: self.args.verify,
            servers: self.servers.as_ref(),
            scanned: mix.scanned(),
            pipeline: self.args.pipeline as usize,
            ..self.base(threads, limit)
        };
        // The last keys have not enough of them behind.
        let keys = Keys::new(self.keys - mix.scanned().saturating_sub(1), self.args.zipf);
        let seed = self.seed.wrapping_add(number as u64);
        let source = |thread: u32| Source::Choice {
            mix,
            keys: keys.clone(),
            random: Random::new(seed, u64::from(thread)),
        };
        let mut outcome = phase::offer(&plan, connections, source, &mut progress)?;
        drop(progress);
        if outcome.cut_short {
            eprintln!("the history is full; the load was ended after {:.1} s", outcome.seconds);
        }
        let verify = self.judge(&mut outcome, number)?;
        Ok(Row::new(mix, connections, &outcome, verify))
    }

    fn judge(&self, outcome: &mut Outcome, number: usize) -> Result<Option<record::Judged>, Failure> {
        if !self.args.verify {
            return Ok(None);
        }
        let history = std::mem::take(&mut outcome.history);
        let file = self.args.history.as_deref().map(|path| numbered(path, number));
        record::judge(history, &self.layout, file.as_deref()).map(Some)
    }

    /// Puts every key once, so that gets find something.
    fn fill(&self, connections: u32) -> Result<(), Failure> {
        let connections = connections.clamp(16, 64);
        let mut progress =
            Progress::begin("filling the keys".to_owned(), Whole::Requests(u64::from(self.keys)));
        let threads = self.args.threads.min(connections);
        let plan =
            Plan { retry: Retry::Always, pipeline: FILL_PIPELINE, ..self.base(threads, Limit::Exhausted) };
        let part = self.keys.div_ceil(threads);
        let source = |thread: u32| {
            let first = (thread * part).min(self.keys);
            Source::Fill(first..first.saturating_add(part).min(self.keys))
        };
        let outcome = phase::offer(&plan, connections, source, &mut progress)?;
        drop(progress);
        let missing = u64::from(self.keys) - outcome.figures.writes.in_time.min(u64::from(self.keys));
        if missing > 0 {
            let error = outcome
                .figures
                .other_error
                .map_or(String::new(), |error| format!("; the server said -{error}"));
            return Err(Failure(format!(
                "{missing} of {} keys could not be put before the gets{error}",
                self.keys
            )));
        }
        Ok(())
    }

    /// A plan without warm-up, rate and record.
    fn base(&self, threads: u32, limit: Limit) -> Plan<'_> {
        Plan {
            clock: self.clock,
            layout: &self.layout,
            addresses: &self.addresses,
            pipeline: 1,
            rate: None,
            retry: Retry::Never,
            timeout: nanos(self.args.timeout.0),
            warmup: 0,
            limit,
            record: false,
            threads,
            servers: None,
            written: &self.written,
            values: self.values.as_ref(),
            scanned: 0,
            sequences: &self.sequences,
            shared: Shared::new(threads),
        }
    }

    /// Each history is judged from absent keys on.
    fn fresh_keys(&mut self) -> Result<(), Failure> {
        let tag = u64::from(std::process::id()) << 24 ^ self.clock.now();
        let Run { key_size, value_size, .. } = self.args;
        self.layout = Layout::new(self.keys, key_size, value_size, Some(tag & 0xffff_ffff_ffff))?;
        self.written = Written::none(self.keys);
        self.values = self.values.take().map(|_| Values::none(self.keys));
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings {
            addresses: self.args.addr.clone(),
            keys: self.keys,
            key_size: self.layout.key(0).len(),
            value_size: self.args.value_size,
            pipeline: self.args.pipeline,
            rate: self.args.rate,
            zipf: self.args.zipf,
            threads: self.args.threads,
            seed: self.seed,
        }
    }
}

fn check_scans(mixes: &[Mix], keys: u32, verify: bool) -> Result<(), Failure> {
    let Some(largest) = mixes.iter().map(|mix| mix.scanned()).max().filter(|&scanned| scanned > 0) else {
        return Ok(());
    };
    if verify {
        return Err(Failure(
            "--verify judges the history of each key alone, which cannot judge a scan over several; verify put, get, \
             mixed, cas or incr"
                .to_owned(),
        ));
    }
    if largest > keys {
        return Err(Failure(format!("scan:{largest} reads more keys than the {keys} of --keys")));
    }
    Ok(())
}

fn resolve(names: &[String]) -> Result<Vec<SocketAddr>, Failure> {
    let mut addresses = Vec::new();
    for name in names {
        let mut found = name.to_socket_addrs().map_err(|error| {
            Failure(format!(
                "--addr \"{name}\" is no address: {error}. Expected HOST:PORT, as in 127.0.0.1:7001"
            ))
        })?;
        addresses.push(found.next().ok_or_else(|| Failure(format!("--addr \"{name}\" has no address")))?);
    }
    Ok(addresses)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// The history file of a row: the first has the name as given.
fn numbered(path: &Path, number: usize) -> PathBuf {
    match number {
        0 => path.to_owned(),
        _ => PathBuf::from(format!("{}.{number}", path.display())),
    }
}
