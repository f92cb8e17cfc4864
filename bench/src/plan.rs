//! What the threads of one load have in common, and where they meet.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Barrier, OnceLock};
use std::time::Instant;

use crate::cost::Processes;
use crate::known::{Values, Written};
use crate::ledger::{Retry, Window};
use crate::payload::Layout;

/// Nanoseconds since the program began.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Clock(Instant::now())
    }

    /// The time.
    pub fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What all threads of a phase have in common.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The clock of the run.
    pub clock: Clock,
    /// How keys and values look.
    pub layout: &'a Layout,
    /// The servers.
    pub addresses: &'a [SocketAddr],
    /// Requests under way per connection.
    pub pipeline: usize,
    /// Open loop: requests per second over all threads.
    pub rate: Option<f64>,
    /// What is sent again.
    pub retry: Retry,
    /// Nanoseconds after which a request is given up.
    pub timeout: u64,
    /// Nanoseconds before the measurement.
    pub warmup: u64,
    /// How much is measured.
    pub limit: Limit,
    /// Whether the history is recorded.
    pub record: bool,
    /// Number of threads.
    pub threads: u32,
    /// The processes of the servers, if their cost is to be measured.
    pub servers: Option<&'a Processes>,
    /// Which keys have a value.
    pub written: &'a Written,
    /// Which values they have, if something has to be compared with them.
    pub values: Option<&'a Values>,
    /// Keys that a scan asks for.
    pub scanned: u32,
    /// The next unused sequence number of the run.
    pub sequences: &'a AtomicU64,
    /// Where the threads meet.
    pub shared: Shared,
}

impl Plan<'_> {
    /// The measured time, once the load has begun. It has no end yet where that is not given as a time.
    pub fn window(&self) -> Option<Window> {
        let from = self.shared.start.get()? + self.warmup;
        let until = match self.limit {
            Limit::Time(time) => from + time,
            Limit::Requests(_) | Limit::Exhausted => u64::MAX,
        };
        Some(Window { from, until })
    }
}

/// When a phase ends.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// After this many nanoseconds of measuring.
    Time(u64),
    /// After this many measured requests over all threads.
    Requests(u64),
    /// When the source is exhausted.
    Exhausted,
}

/// Where the threads of a phase meet.
#[derive(Debug)]
pub struct Shared {
    /// Passed by all threads when they are connected, or cannot be.
    pub connected: Barrier,
    /// When the load began.
    pub start: OnceLock<u64>,
    /// Some thread has no connection at all.
    pub failed: AtomicBool,
    /// When the last write succeeded.
    pub last_write: AtomicU64,
    /// Successes and failures so far, for the progress.
    pub done: (AtomicU64, AtomicU64),
}

impl Shared {
    /// For this many threads.
    pub fn new(threads: u32) -> Self {
        Shared {
            connected: Barrier::new(threads as usize),
            start: OnceLock::new(),
            failed: AtomicBool::new(false),
            last_write: AtomicU64::new(0),
            done: (AtomicU64::new(0), AtomicU64::new(0)),
        }
    }
}
