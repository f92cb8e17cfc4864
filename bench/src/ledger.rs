//! The books of one thread: what each reply means for the figures and for the history.

use crate::known::{Values, Written};
use crate::page;
use crate::payload::{Layout, WrongValue};
use crate::record::{Asked, Entry, Seen};
use crate::resp::Reply;
use crate::stats::{Class, Figures};
use crate::workload::Kind;

/// A request from when it is due until its outcome is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// What is asked.
    pub kind: Kind,
    /// The key's number; the first one's of a scan.
    pub key: u32,
    /// The number in the value that is written.
    pub sequence: u64,
    /// The number in the value that a compare-and-swap compares with.
    pub expected: u64,
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
    /// A compare-and-swap was answered no, and nothing newer is known of its key.
    Lost,
    /// The reply makes no sense for it; the connection cannot be trusted further.
    Nonsense,
}

/// Entries of one history; at some 72 bytes each this is below 300 MB.
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
    /// A write succeeded since the last look at the write gap.
    pub wrote: bool,
    /// The first connection of this thread, numbered over all threads.
    pub first_client: u32,
    pub layout: &'a Layout,
    pub written: &'a Written,
    pub values: Option<&'a Values>,
    /// Keys that a scan asks for.
    pub scanned: u32,
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
                self.note_written(request);
                self.success(connection, request, Seen::Done, now)
            }
            (Kind::Get | Kind::Learn, Reply::Bulk(value)) => {
                let seen = self.value(request, value);
                self.success(connection, request, seen, now)
            }
            (Kind::Get | Kind::Learn, Reply::Nil) => {
                if request.must_exist {
                    let key = self.layout.key(request.key);
                    self.figures.wrong(|| {
                        let key = key.escape_ascii();
                        format!("get {key} returned nil although a put of it had been acknowledged")
                    });
                }
                self.success(connection, request, Seen::Nil, now)
            }
            (Kind::Cas, Reply::Integer(1)) => {
                self.note_written(request);
                self.success(connection, request, Seen::Flag(true), now)
            }
            (Kind::Cas, Reply::Integer(0)) => self.lost(connection, request, now),
            (Kind::Incr, Reply::Integer(sum)) => self.success(connection, request, Seen::Number(*sum), now),
            (Kind::Scan, Reply::Array(items)) => {
                match page::read(self.layout, request.key, self.scanned, items) {
                    Some(page) => {
                        if let Some(story) = page.wrong {
                            self.figures.wrong(|| story);
                        }
                        if self.is_measured(now) {
                            self.figures.keys_read += u64::from(page.keys);
                        }
                        self.success(connection, request, Seen::Done, now)
                    }
                    None => Settled::Nonsense,
                }
            }
            (_, Reply::Error(text)) => self.failure(connection, request, Class::of(text), text, now),
            _ => Settled::Nonsense,
        }
    }

    /// What a read says about the value of its key.
    fn value(&mut self, request: &Request, value: &[u8]) -> Seen {
        match self.layout.sequence(request.key, value) {
            Ok(sequence) => {
                if let (Kind::Learn, Some(values)) = (request.kind, self.values) {
                    values.replace(request.key, request.expected, sequence);
                }
                Seen::Sequence(sequence)
            }
            Err(wrong) => {
                let layout = self.layout;
                self.figures.wrong(|| describe(layout, request.key, wrong, value));
                Seen::Strange(value.iter().take(64).copied().collect())
            }
        }
    }

    fn note_written(&self, request: &Request) {
        self.written.insert(request.key);
        if let Some(values) = self.values {
            values.set(request.key, request.sequence);
        }
    }

    /// A compare-and-swap came too late: an answer like any other.
    fn lost(&mut self, connection: usize, request: &Request, now: u64) -> Settled {
        if self.is_measured(now) {
            self.figures.conflicts += 1;
        }
        let settled = self.success(connection, request, Seen::Flag(false), now);
        let known = self.values.and_then(|values| values.get(request.key));
        if known == Some(request.expected) { Settled::Lost } else { settled }
    }

    fn is_measured(&self, now: u64) -> bool {
        (self.window.from..=self.window.until).contains(&now)
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

    fn success(&mut self, connection: usize, request: &Request, seen: Seen, now: u64) -> Settled {
        if request.kind != Kind::Learn {
            self.fresh.0 += 1;
            self.wrote |= request.kind.writes() && !matches!(seen, Seen::Flag(false));
            let measured = self.is_measured(now);
            let latency = now.saturating_sub(request.due);
            if measured {
                self.figures.series.success(now - self.window.from, latency);
            }
            let tally = self.figures.tally(request.kind);
            if request.due >= self.window.from {
                tally.latencies.record(latency);
            }
            if measured {
                tally.in_time += 1;
                self.figures.last_success = now;
            }
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
        // What could not be learnt is asked for again after the next lost race.
        if request.kind == Kind::Learn {
            return Settled::Failed;
        }
        self.fresh.1 += 1;
        if request.due >= self.window.from {
            self.figures.error(class, text);
            if self.is_measured(now) {
                self.figures.series.failure(now - self.window.from);
            }
        }
        if class.is_unknown() && request.kind.writes() {
            self.enter(connection, request, now, Seen::Nothing);
        }
        Settled::Failed
    }

    fn enter(&mut self, connection: usize, request: &Request, now: u64, seen: Seen) {
        let Some(history) = &mut self.history else { return };
        history.push(Entry {
            client: self.first_client + connection as u32,
            key: request.key,
            invoke: request.first_sent,
            response: now,
            asked: match request.kind {
                Kind::Get | Kind::Learn => Asked::Get,
                Kind::Put => Asked::Put(request.sequence),
                Kind::Cas => Asked::Cas { old: request.expected, new: request.sequence },
                Kind::Incr => Asked::Incr,
                Kind::Scan => unreachable!("scans are not recorded; such a run is refused"),
            },
            seen,
        });
    }
}

/// The story of a wrong value.
pub fn describe(layout: &Layout, key: u32, wrong: WrongValue, value: &[u8]) -> String {
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
