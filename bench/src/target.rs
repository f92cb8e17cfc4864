//! One server, or the nodes of one cluster, and what this program knows of its keys.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::Failure;
use crate::cost::Processes;
use crate::events::{self, Event, Watch};
use crate::known::{Values, Written};
use crate::ledger::Retry;
use crate::payload::Layout;
use crate::phase::{self, Outcome};
use crate::plan::{Limit, Plan, Shared};
use crate::progress::{Progress, Whole};
use crate::sweep::{Case, Sweep, wall_nanos};
use crate::workload::{Keys, Mix, Random, Source};

/// Requests under way per connection while the store is filled.
const FILL_PIPELINE: usize = 32;
/// Bytes under way per connection meanwhile.
const FILL_BYTES: usize = 256 << 10;

/// What loads are offered to.
pub struct Target<'a> {
    sweep: &'a Sweep,
    addresses: Vec<SocketAddr>,
    /// Its processes, if their cost is to be measured.
    servers: Option<Processes>,
    store: Store,
    sequences: AtomicU64,
    /// Loads offered so far.
    offered: u64,
}

/// What is known of the keys of one layout.
struct Store {
    layout: Layout,
    value_size: usize,
    written: Written,
    values: Option<Values>,
    /// Every key has a value.
    filled: bool,
}

impl Store {
    /// Nothing yet. A history begins with absent keys, so it gets keys that nobody has used.
    fn unknown(sweep: &Sweep, value_size: usize) -> Result<Self, Failure> {
        let tag = || (wall_nanos() ^ u64::from(std::process::id()) << 32) & 0xffff_ffff_ffff;
        Ok(Store {
            layout: Layout::new(sweep.keys, sweep.options.key_size, value_size, sweep.verify.then(tag))?,
            value_size,
            written: Written::none(sweep.keys),
            values: sweep.mixes.contains(&Mix::Cas).then(|| Values::none(sweep.keys)),
            filled: false,
        })
    }
}

impl<'a> Target<'a> {
    /// The server at these addresses, about which nothing is known.
    pub fn new(sweep: &'a Sweep, names: &[String], servers: Option<Processes>) -> Result<Self, Failure> {
        let value_size = sweep.options.value_size.first().map_or(0, |size| size.0);
        Ok(Target {
            sweep,
            addresses: resolve(names)?,
            servers,
            store: Store::unknown(sweep, value_size)?,
            sequences: AtomicU64::new(1),
            offered: 0,
        })
    }

    /// How its keys and values look at present.
    pub fn layout(&self) -> &Layout {
        &self.store.layout
    }

    /// Offers a load; `name` is what the progress calls it.
    pub fn offer(&mut self, case: Case, name: String) -> Result<Outcome, Failure> {
        // Each history is judged from absent keys on, and values of another size would be wrong ones.
        if case.value_size != self.store.value_size || self.sweep.verify && self.offered > 0 {
            self.store = Store::unknown(self.sweep, case.value_size)?;
        }
        let Sweep { options, verify, warmup, .. } = self.sweep;
        let Case { mix, connections, pipeline, .. } = case;
        if mix.needs_values() && !verify && !self.store.filled {
            self.fill(connections)?;
            self.store.filled = true;
        }
        let measured = options.duration.0;
        let whole = options.requests.map_or(Whole::Time(*warmup + measured), Whole::Requests);
        let mut progress = Progress::begin(name, whole);
        let limit = options.requests.map_or(Limit::Time(nanos(measured)), Limit::Requests);
        let threads = options.threads.min(connections);
        let plan = Plan {
            warmup: nanos(*warmup),
            rate: options.rate.map(|rate| rate as f64),
            retry: if options.retry { Retry::TryAgain } else { Retry::Never },
            record: *verify,
            servers: self.servers.as_ref(),
            scanned: mix.scanned(),
            pipeline: pipeline as usize,
            ..self.base(threads, limit)
        };
        // The last keys have not enough of them behind.
        let keys = Keys::new(self.sweep.keys - mix.scanned().saturating_sub(1), options.zipf);
        let seed = self.sweep.seed.wrapping_add(self.offered);
        let source = |thread: u32| Source::Choice {
            mix,
            keys: keys.clone(),
            random: Random::new(seed, u64::from(thread)),
        };
        let watch = (!options.no_events).then(|| Watch::begin(self.addresses.clone(), plan.clock));
        let offered = phase::offer(&plan, connections, source, &mut progress);
        let changes = watch.map(Watch::end).unwrap_or_default();
        drop(progress);
        let mut outcome = offered?;
        outcome.events = self.events(changes, outcome.from, outcome.seconds);
        if outcome.cut_short {
            eprintln!("the history is full; the load was ended after {:.1} s", outcome.seconds);
        }
        self.offered += 1;
        Ok(outcome)
    }

    /// What happened in the seconds after `from`, a time on the run's clock.
    fn events(&self, changes: Vec<(u64, String)>, from: u64, seconds: f64) -> Vec<Event> {
        let mut events: Vec<Event> = changes
            .into_iter()
            .filter_map(|(at, what)| Some(Event { at_seconds: at.checked_sub(from)? as f64 / 1e9, what }))
            .filter(|event| event.at_seconds <= seconds)
            .collect();
        if let Some(path) = &self.sweep.options.events {
            let begun = self.sweep.begun + from as f64 / 1e9;
            events.extend(events::read_file(path, begun, seconds));
        }
        events::in_order(events)
    }

    /// Puts every key once, so that reads find something.
    fn fill(&self, connections: u32) -> Result<(), Failure> {
        let keys = self.sweep.keys;
        let connections = connections.clamp(16, 64);
        let mut progress = Progress::begin("filling the keys".to_owned(), Whole::Requests(u64::from(keys)));
        let threads = self.sweep.options.threads.min(connections);
        let plan = Plan {
            retry: Retry::Always,
            pipeline: self.fill_pipeline(),
            ..self.base(threads, Limit::Exhausted)
        };
        let part = keys.div_ceil(threads);
        let source = |thread: u32| {
            let first = (thread * part).min(keys);
            Source::Fill(first..first.saturating_add(part).min(keys))
        };
        let outcome = phase::offer(&plan, connections, source, &mut progress)?;
        drop(progress);
        let missing = u64::from(keys) - outcome.figures.writes.in_time.min(u64::from(keys));
        if missing > 0 {
            let error = outcome
                .figures
                .other_error
                .map_or(String::new(), |error| format!("; the server said -{error}"));
            return Err(Failure(format!(
                "{missing} of {keys} keys could not be put before they are read{error}"
            )));
        }
        Ok(())
    }

    /// Large values would fill the server's memory for requests under way.
    fn fill_pipeline(&self) -> usize {
        (FILL_BYTES / self.store.value_size).clamp(1, FILL_PIPELINE)
    }

    /// A plan without warm-up, rate and record.
    fn base(&self, threads: u32, limit: Limit) -> Plan<'_> {
        Plan {
            clock: self.sweep.clock,
            layout: &self.store.layout,
            addresses: &self.addresses,
            pipeline: 1,
            rate: None,
            retry: Retry::Never,
            timeout: nanos(self.sweep.options.timeout.0),
            warmup: 0,
            limit,
            record: false,
            threads,
            servers: None,
            written: &self.store.written,
            values: self.store.values.as_ref(),
            scanned: 0,
            sequences: &self.sequences,
            shared: Shared::new(threads),
        }
    }
}

fn resolve(names: &[String]) -> Result<Vec<SocketAddr>, Failure> {
    let mut addresses = Vec::new();
    for name in names {
        let mut found = name.to_socket_addrs().map_err(|error| {
            Failure(format!("\"{name}\" is no address: {error}. Expected HOST:PORT, as in 127.0.0.1:7001"))
        })?;
        addresses.push(found.next().ok_or_else(|| Failure(format!("\"{name}\" has no address")))?);
    }
    Ok(addresses)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
