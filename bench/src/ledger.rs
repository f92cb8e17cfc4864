//! The books of one thread: what each reply means for the figures and for the history.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::payload::{Layout, WrongValue};
use crate::record::{Entry, Seen};
use crate::resp::Reply;
use crate::stats::{Class, Figures};
use crate::workload::Kind;

/// A request from when it is due until its outcome is known.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Get or put.
    pub kind: Kind,
    /// The key's number.
    pub key: u32,
    /// The number in the value of a put.
    pub sequence: u64,
    /// Latency counts from here: when it was due (open loop) or first sent (closed loop).
    pub due: u64,
    /// When it was first sent.
    pub first_sent: u64,
    /// When it was last sent.
    pub sent: u64,
    /// How often it was refused.
    pub refusals: u32,
    /// A put of this key had been acknowledged before this get was sent.
    pub must_exist: bool,
}

/// Which keys have a value, as far as this process knows: it put them, and was told so.
#[derive(Debug)]
pub struct Written(Vec<AtomicU64>);

impl Written {
    /// No key of `keys`.
    pub fn none(keys: u32) -> Self {
        Written((0..keys.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether a put of this key was acknowledged.
    pub fn contains(&self, key: u32) -> bool {
        self.0[(key / 64) as usize].load(Ordering::Relaxed) & 1 << (key % 64) != 0
    }

    fn insert(&self, key: u32) {
        if !self.contains(key) {
            self.0[(key / 64) as usize].fetch_or(1 << (key % 64), Ordering::Relaxed);
        }
    }
}

/// The part of the run that is measured, on the run's clock.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Requests due from here on count.
    pub from: u64,
    /// Successes after this no longer count for the throughput; their latencies do.
    pub until: u64,
}

/// When a refused request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It is not.
    Never,
    /// After `-TRYAGAIN`.
    TryAgain,
    /// Whatever happened, even with an unknown outcome: the filling of the store, where writing twice does no harm.
    Always,
}

/// Refusals after which even a patient client reports the error; with the longest backoff about half a minute.
const MAX_REFUSALS: u32 = 150;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It succeeded.
    Success,
    /// It failed and is counted so.
    Failed,
    /// It is to be sent again.
    Again,
    /// The reply makes no sense for it; the connection cannot be trusted further.
    Nonsense,
}

/// Entries of one history; at some 48 bytes each this is below 200 MB.
pub const MAX_HISTORY: usize = 4_000_000;

/// The books of one thread.
pub struct Ledger<'a> {
    /// What was counted.
    pub figures: Figures,
    /// What was recorded, with `--verify`.
    pub history: Option<Vec<Entry>>,
    /// The measured time.
    pub window: Window,
    /// Successes and failures since the progress was last told.
    pub fresh: (u64, u64),
    /// A put succeeded since the last look at the write gap.
    pub wrote: bool,
    /// The first connection of this thread, numbered over all threads.
    pub first_client: u32,
    pub layout: &'a Layout,
    pub written: &'a Written,
    pub retry: Retry,
}

impl Ledger<'_> {
    /// Whether the history may grow no further.
    pub fn is_full(&self, threads: u32) -> bool {
        self.history.as_ref().is_some_and(|history| history.len() >= MAX_HISTORY / threads as usize)
    }

    /// Settles a request by its reply.
    pub fn reply(
        &mut self,
        connection: usize,
        request: &mut Request,
        reply: &Reply<'_>,
        now: u64,
    ) -> Settled {
        match (request.kind, reply) {
            (Kind::Put, Reply::Simple(b"OK")) => {
                self.written.insert(request.key);
                self.success(connection, request, None, now)
            }
            (Kind::Get, Reply::Bulk(value)) => {
                let seen = match self.layout.sequence(request.key, value) {
                    Ok(sequence) => Seen::Sequence(sequence),
                    Err(wrong) => {
                        self.figures.wrong(|| describe(self.layout, request.key, wrong, value));
                        Seen::Strange(value.iter().take(64).copied().collect())
                    }
                };
                self.success(connection, request, Some(seen), now)
            }
            (Kind::Get, Reply::Nil) => {
                if request.must_exist {
                    let key = self.layout.key(request.key);
                    self.figures.wrong(|| {
                        let key = key.escape_ascii();
                        format!("get {key} returned nil although a put of it had been acknowledged")
                    });
                }
                self.success(connection, request, Some(Seen::Nil), now)
            }
            (_, Reply::Error(text)) => self.failure(connection, request, Class::of(text), text, now),
            _ => Settled::Nonsense,
        }
    }

    /// Settles a request that got no reply.
    pub fn no_reply(&mut self, connection: usize, request: &mut Request, class: Class, now: u64) -> Settled {
        self.failure(connection, request, class, b"", now)
    }

    /// Counts a request that was due but never sent.
    pub fn never_sent(&mut self, kind: Kind, due: u64, now: u64) {
        if due >= self.window.from {
            self.figures.unsent += 1;
            self.figures.tally(kind).latencies.record(now - due);
        }
    }

    fn success(&mut self, connection: usize, request: &Request, seen: Option<Seen>, now: u64) -> Settled {
        self.fresh.0 += 1;
        self.wrote |= request.kind == Kind::Put;
        let Window { from, until } = self.window;
        let tally = self.figures.tally(request.kind);
        if request.due >= from {
            tally.latencies.record(now.saturating_sub(request.due));
        }
        if (from..=until).contains(&now) {
            tally.in_time += 1;
            self.figures.last_success = now;
        }
        self.enter(connection, request, now, seen);
        Settled::Success
    }

    fn failure(
        &mut self,
        connection: usize,
        request: &mut Request,
        class: Class,
        text: &[u8],
        now: u64,
    ) -> Settled {
        let patient = match self.retry {
            Retry::Never => false,
            Retry::TryAgain => class == Class::TryAgain,
            Retry::Always => true,
        };
        if patient && request.refusals < MAX_REFUSALS {
            request.refusals += 1;
            self.figures.retries += 1;
            return Settled::Again;
        }
        self.fresh.1 += 1;
        if request.due >= self.window.from {
            self.figures.error(class, text);
        }
        if class.is_unknown() && request.kind == Kind::Put {
            self.enter(connection, request, now, Some(Seen::Nothing));
        }
        Settled::Failed
    }

    fn enter(&mut self, connection: usize, request: &Request, now: u64, seen: Option<Seen>) {
        let Some(history) = &mut self.history else { return };
        history.push(Entry {
            client: self.first_client + connection as u32,
            key: request.key,
            invoke: request.first_sent,
            response: now,
            written: (request.kind == Kind::Put).then_some(request.sequence),
            seen: seen.unwrap_or(Seen::Done),
        });
    }
}

fn describe(layout: &Layout, key: u32, wrong: WrongValue, value: &[u8]) -> String {
    let name = layout.key(key);
    let name = name.escape_ascii();
    match wrong {
        WrongValue::OtherKey(other) => format!("get {name} returned a value of key number {other:x}"),
        WrongValue::Length(length) => format!(
            "get {name} returned {length} bytes instead of what was put; does something else write these keys?"
        ),
        WrongValue::Form => {
            let shown = value[..value.len().min(48)].escape_ascii();
            format!("get {name} returned \"{shown}…\", which nobody put")
        }
    }
}
