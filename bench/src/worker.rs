//! The event loop of one thread: many connections, one `epoll`, no lock and no allocation per request.

mod links;
mod sending;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::{Events, Poll, Token};

use crate::connection::{Broken, Connection};
use crate::encoder::Encoder;
use crate::ledger::{Ledger, Retry, Settled, Window};
use crate::pace::{Alarm, Pace};
use crate::plan::{Limit, Plan};
use crate::record::Entry;
use crate::resp::{Scanned, scan};
use crate::stats::{Class, Figures};
use crate::workload::Source;

/// What a thread brings home.
#[derive(Debug)]
pub struct Harvest {
    /// What it counted.
    pub figures: Figures,
    /// What it recorded.
    pub history: Vec<Entry>,
    /// The time measured.
    pub window: Window,
    /// The history was full before the phase was over.
    pub cut_short: bool,
    /// Still open: a server with a thread per connection forgets what it spent on one when that ends.
    pub connections: Vec<Connection>,
}

/// How often timeouts are looked for.
const TICK: u64 = 50_000_000;
/// Rest after an error in closed loop, so that a server without a leader is not flooded while it looks for one.
const REST: u64 = 5_000_000;
const ALARM: Token = Token(usize::MAX);

/// One thread.
pub struct Worker<'a> {
    plan: &'a Plan<'a>,
    poll: Poll,
    alarm: Alarm,
    connections: Vec<Connection>,
    source: Source,
    encoder: Encoder,
    ledger: Ledger<'a>,
    /// Requests that may still be begun, where their number is limited.
    left: u64,
    pace: Option<Pace>,
    /// Open loop: connections that may have a free place.
    free: VecDeque<usize>,
    /// Open loop: connections that got requests in this round; empty between rounds.
    used: Vec<usize>,
    /// Connections to look after at the time given.
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    sequences: std::ops::Range<u64>,
    buffer: Vec<u8>,
    /// No new requests any more; replies are awaited until this time.
    draining: Option<u64>,
    cut_short: bool,
}

impl<'a> Worker<'a> {
    /// Thread `index` with `connections` connections, the first of which has the number `first` over all threads.
    pub fn new(
        plan: &'a Plan<'a>,
        index: u32,
        first: u32,
        connections: u32,
        source: Source,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let connection = |number: u32| Connection::to(number as usize % plan.addresses.len());
        let share = |total: u64| {
            total / u64::from(plan.threads) + u64::from(u64::from(index) < total % u64::from(plan.threads))
        };
        Ok(Worker {
            poll,
            alarm,
            connections: (first..first + connections).map(connection).collect(),
            source,
            encoder: Encoder::new(plan.layout, plan.scanned),
            ledger: Ledger {
                figures: Figures::default(),
                history: plan.record.then(Vec::new),
                window: Window { from: 0, until: u64::MAX },
                fresh: (0, 0),
                wrote: false,
                first_client: first,
                layout: plan.layout,
                written: plan.written,
                values: plan.values,
                scanned: plan.scanned,
                retry: plan.retry,
            },
            left: match plan.limit {
                Limit::Requests(total) => share(total),
                Limit::Time(_) | Limit::Exhausted => u64::MAX,
            },
            pace: None,
            free: VecDeque::new(),
            used: Vec::new(),
            timers: BinaryHeap::new(),
            sequences: 0..0,
            buffer: vec![0; 256 << 10],
            draining: None,
            cut_short: false,
            plan,
        })
    }

    /// Connects, waits for the other threads, offers the load and waits for the last replies. `None` if no server
    /// could be reached.
    pub fn run(mut self, index: u32) -> io::Result<Option<Harvest>> {
        let connected = self.connect();
        if !matches!(connected, Ok(true)) {
            self.plan.shared.failed.store(true, Ordering::SeqCst);
        }
        self.plan.shared.connected.wait();
        connected?;
        if self.plan.shared.failed.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.begin(index);
        self.offer()?;
        Ok(Some(self.finish()))
    }

    fn begin(&mut self, index: u32) {
        let plan = self.plan;
        let start = *plan.shared.start.get_or_init(|| plan.clock.now());
        if let Some(window) = plan.window() {
            self.ledger.window = window;
        }
        plan.shared.last_write.fetch_max(self.ledger.window.from, Ordering::Relaxed);
        if let Some(rate) = plan.rate {
            let stagger = 1e9 / rate * f64::from(index);
            self.pace = Some(Pace::new(start + stagger as u64, rate / f64::from(plan.threads)));
        }
        for connection in 0..self.connections.len() {
            self.serve(connection, plan.clock.now());
        }
    }

    fn offer(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut next_tick = 0;
        loop {
            let now = self.plan.clock.now();
            if self.draining.is_none() && self.is_over(now) {
                self.drain(now);
            }
            if self.is_drained(now) {
                return Ok(());
            }
            self.send_due(now)?;
            let wake = self
                .timers
                .peek()
                .map_or(u64::MAX, |&Reverse((due, _))| due)
                .min(self.ledger.window.until.max(now));
            let wake = if self.draining.is_some() { now + TICK / 50 } else { wake };
            self.poll_until(&mut events, wake.min(now + TICK))?;
            for event in &events {
                if event.token() != ALARM {
                    self.attend(event.token().0, event.is_read_closed() || event.is_error());
                }
            }
            let now = self.plan.clock.now();
            self.ring_timers(now);
            if now >= next_tick {
                next_tick = now + TICK;
                self.expire(now);
                self.redial(now);
            }
            self.publish(now);
        }
    }

    /// One round of `epoll`.
    fn poll_until(&mut self, events: &mut Events, wake: u64) -> io::Result<()> {
        let now = self.plan.clock.now();
        let wait = self.alarm.limit(wake.saturating_sub(now));
        match self.poll.poll(events, Some(Duration::from_nanos(wait))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    fn is_over(&mut self, now: u64) -> bool {
        if self.ledger.is_full(self.plan.threads) {
            self.cut_short = true;
            return true;
        }
        match self.plan.limit {
            Limit::Time(_) => now >= self.ledger.window.until,
            Limit::Requests(_) => self.left == 0,
            Limit::Exhausted => matches!(&self.source, Source::Fill(range) if range.is_empty()),
        }
    }

    /// Begins no more requests. Those that were due and found no free connection are counted with what they have
    /// waited so far: leaving them out would hide just the worst.
    fn drain(&mut self, now: u64) {
        self.draining = Some(now + self.plan.timeout);
        while let Some(pace) = &mut self.pace
            && pace.due() < now.min(self.ledger.window.until)
            && self.left > 0
        {
            let due = pace.due();
            pace.advance();
            let Some((kind, _)) = self.source.next() else { break };
            self.ledger.never_sent(kind, due, now);
        }
    }

    fn is_drained(&self, now: u64) -> bool {
        self.draining
            .is_some_and(|deadline| now >= deadline || self.connections.iter().all(|c| c.load() == 0))
    }

    /// A connection has something to read or room to write.
    fn attend(&mut self, index: usize, closed: bool) {
        let now = self.plan.clock.now();
        if !self.connections[index].is_open() && !self.settle_dial(index, now) {
            return;
        }
        match self.receive(index, closed) {
            Ok(()) => {
                let now = self.plan.clock.now();
                self.serve(index, now);
            }
            Err(Broken) => self.lose(index, Class::Lost, now),
        }
    }

    fn receive(&mut self, index: usize, closed: bool) -> Result<(), Broken> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = loop {
            let count = match self.connections[index].read(&mut buffer) {
                Ok(Some(count)) => count,
                Ok(None) => break Ok(()),
                Err(broken) => break Err(broken),
            };
            if let Err(broken) = self.take_in(index, &buffer[..count]) {
                break Err(broken);
            }
            // A short read means that the socket was emptied; asking again would only be told so. What comes later
            // is reported anew, except an end of the stream that was already part of this report.
            if count < buffer.len() && !closed {
                break Ok(());
            }
        };
        self.buffer = buffer;
        result
    }

    fn take_in(&mut self, index: usize, read: &[u8]) -> Result<(), Broken> {
        let now = self.plan.clock.now();
        match self.connections[index].continue_partial(read) {
            None => {
                let scanned = self.settle_replies(index, read, now)?;
                self.connections[index].keep_partial(&read[scanned..]);
            }
            Some(bytes) => {
                let scanned = self.settle_replies(index, &bytes, now)?;
                self.connections[index].keep_partial_in(bytes, scanned);
            }
        }
        Ok(())
    }

    fn settle_replies(&mut self, index: usize, bytes: &[u8], now: u64) -> Result<usize, Broken> {
        let mut scanned = 0;
        loop {
            let (reply, length) = match scan(&bytes[scanned..]) {
                Scanned::Reply(reply, length) => (reply, length),
                Scanned::Incomplete => return Ok(scanned),
                Scanned::Malformed => return Err(self.nonsense(&bytes[scanned..])),
            };
            let Some(request) = self.connections[index].under_way.front_mut() else {
                return Err(self.nonsense(&bytes[scanned..]));
            };
            match self.ledger.reply(index, request, &reply, now) {
                Settled::Nonsense => return Err(self.nonsense(&bytes[scanned..])),
                settled => self.settled(index, settled, now),
            }
            scanned += length;
        }
    }

    /// The first request under way has its outcome.
    fn settled(&mut self, index: usize, settled: Settled, now: u64) {
        let connection = &mut self.connections[index];
        let Some(request) = connection.under_way.pop_front() else { return };
        match settled {
            Settled::Success | Settled::Nonsense => {}
            Settled::Lost => self.learn(index, &request, now),
            Settled::Failed if self.pace.is_some() => {}
            Settled::Failed => {
                connection.rests_until = now + REST;
                self.timers.push(Reverse((now + REST, index)));
            }
            Settled::Again => {
                let due = now + backoff(request.refusals);
                connection.waiting.push((due, request));
                self.timers.push(Reverse((due, index)));
            }
        }
    }

    fn nonsense(&mut self, bytes: &[u8]) -> Broken {
        let shown = bytes[..bytes.len().min(60)].escape_ascii().to_string();
        self.ledger.figures.wrong(|| format!("a reply that fits no request: \"{shown}\""));
        Broken
    }

    fn ring_timers(&mut self, now: u64) {
        while let Some(&Reverse((due, index))) = self.timers.peek()
            && due <= now
        {
            self.timers.pop();
            self.serve(index, now);
        }
    }

    /// Tells the progress and the write gap what happened in this round.
    fn publish(&mut self, now: u64) {
        let (successes, failures) = std::mem::take(&mut self.ledger.fresh);
        let shared = &self.plan.shared;
        if successes > 0 {
            shared.done.0.fetch_add(successes, Ordering::Relaxed);
        }
        if failures > 0 {
            shared.done.1.fetch_add(failures, Ordering::Relaxed);
        }
        if std::mem::take(&mut self.ledger.wrote) && now >= self.ledger.window.from {
            self.note_write(now.min(self.ledger.window.until));
        }
    }

    fn note_write(&mut self, now: u64) {
        let last = self.plan.shared.last_write.fetch_max(now, Ordering::Relaxed);
        let gap = now.saturating_sub(last);
        self.ledger.figures.write_gap = self.ledger.figures.write_gap.max(gap);
    }

    fn finish(mut self) -> Harvest {
        let now = self.plan.clock.now();
        for index in 0..self.connections.len() {
            self.ledger.retry = Retry::Never;
            if self.connections[index].under_way.front().is_some() {
                self.lose(index, Class::Timeout, now);
            }
            let connection = &mut self.connections[index];
            for (_, mut request) in connection.waiting.drain(..) {
                self.ledger.no_reply(index, &mut request, Class::TryAgain, now);
            }
        }
        self.publish(now);
        let mut window = self.ledger.window;
        if self.cut_short || !matches!(self.plan.limit, Limit::Time(_)) {
            window.until = self.ledger.figures.last_success.max(window.from);
        }
        if self.plan.shared.last_write.load(Ordering::Relaxed) < window.until {
            self.note_write(window.until);
        }
        Harvest {
            figures: self.ledger.figures,
            history: self.ledger.history.unwrap_or_default(),
            window,
            cut_short: self.cut_short,
            connections: self.connections,
        }
    }
}

/// Doubles from 2 ms to 256 ms.
fn backoff(failures: u32) -> u64 {
    2_000_000 << failures.saturating_sub(1).min(7)
}
