//! The log thread: takes what all workers have ready, writes and syncs it once, then releases
//! what waited for it, straight to the network.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use groups::log::{CommitError, Disk, Log, LogStats, RealDisk};
use groups::peers::Newest;
use groups::time::Time;
use netio::NetHandle;
use parking_lot::Mutex;

use super::clock::Clock;
use super::mailbox::Tray;
use super::runway::Runway;
use super::scrub::ScrubGauge;
use super::tally::Histogram;
use super::worker::{Letter, Post};
use crate::config::LiveConfig;
use crate::node::compaction::{CompactionLimits, Compactor, Held};
use crate::node::shard::LogJob;

/// What the log thread is asked.
pub enum Task {
    /// Write, sync, release.
    Write(LogJob),
    /// Seal the log and end.
    End,
}

/// What others may know about the log at any time.
#[derive(Debug, Default)]
pub struct LogGauge {
    stats: Mutex<(LogStats, Vec<u32>)>,
    took: Mutex<Histogram>,
    held: Mutex<Option<(Held, Duration)>>,
    free: AtomicU64,
    runway: Mutex<Runway>,
    /// Less space is left than the limit, or a commit waits for space.
    pub no_space: AtomicBool,
}

impl LogGauge {
    /// Figures of the log, and its latest commit times in microseconds, ascending.
    #[must_use]
    pub fn stats(&self) -> (LogStats, Vec<u32>) {
        let (stats, mut times) = self.stats.lock().clone();
        times.sort_unstable();
        (stats, times)
    }

    /// How long every commit since the start took.
    #[must_use]
    pub fn took(&self) -> Histogram {
        self.took.lock().clone()
    }

    /// What keeps the log from being shortened, and for how long it has.
    #[must_use]
    pub fn held(&self) -> Option<(Held, Duration)> {
        self.held.lock().clone()
    }

    /// How the free space has changed lately.
    #[must_use]
    pub fn runway(&self) -> Runway {
        self.runway.lock().clone()
    }

    /// Bytes that the file system has left.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }
}

/// The commits whose times are kept.
const TIMES: usize = 1024;

/// One commit takes at most about this many bytes of jobs.
const GATHER_BYTES: usize = 8 << 20;

/// When nothing has come for this long the log is sealed, so that damage to its last commit
/// can be told from a torn tail.
const IDLE: Duration = Duration::from_millis(200);

/// The thread's state.
pub struct Logger {
    log: Log<RealDisk>,
    tasks: Arc<Tray<Task>>,
    posts: Vec<Arc<Post>>,
    net: NetHandle,
    gauge: Arc<LogGauge>,
    live: Arc<LiveConfig>,
    segment: u64,
    stop: Arc<AtomicBool>,
    next_look: Instant,
    compactor: Compactor,
    clock: Clock,
    newest: Newest,
    scrub: Arc<ScrubGauge>,
}

/// What a logger is made of beside its log.
pub struct LoggerParts {
    /// Its tasks.
    pub tasks: Arc<Tray<Task>>,
    /// The workers.
    pub posts: Vec<Arc<Post>>,
    /// The network.
    pub net: NetHandle,
    /// Where it shows how it is.
    pub gauge: Arc<LogGauge>,
    /// Bytes of free disk under which only reads and deletes are taken, and of log that are kept.
    pub live: Arc<LiveConfig>,
    /// Bytes of a segment.
    pub segment: u64,
    /// The process ends.
    pub stop: Arc<AtomicBool>,
    /// What shortens the log.
    pub compactor: Compactor,
    /// The clock.
    pub clock: Clock,
    /// Where it says how far the log is synced.
    pub newest: Newest,
    /// Where it hears of damage in the log.
    pub scrub: Arc<ScrubGauge>,
}

impl Logger {
    /// A logger over an open log.
    #[must_use]
    pub fn new(log: Log<RealDisk>, parts: LoggerParts) -> Logger {
        let LoggerParts { tasks, posts, net, gauge, live, segment, stop, compactor, clock, newest, scrub } =
            parts;
        Logger {
            log,
            tasks,
            posts,
            net,
            gauge,
            live,
            segment,
            stop,
            next_look: Instant::now(),
            compactor,
            clock,
            newest,
            scrub,
        }
    }

    /// Runs until told to end. An error of the disk ends the process: nothing is acknowledged
    /// after it, and a sync is never tried again as if it could succeed.
    pub fn run(mut self) {
        let mut jobs: Vec<LogJob> = Vec::new();
        loop {
            self.look_at_space();
            let mut end = false;
            match self.tasks.wait(IDLE) {
                Some(task) => end |= sort(task, &mut jobs),
                None => {
                    self.seal();
                    self.compact();
                    continue;
                }
            }
            loop {
                let mut bytes = 0;
                while bytes < GATHER_BYTES
                    && let Some(task) = self.tasks.take()
                {
                    if let Task::Write(job) = &task {
                        bytes += job.records.iter().map(groups::log::Record::encoded_len).sum::<usize>();
                    }
                    end |= sort(task, &mut jobs);
                }
                if jobs.is_empty() {
                    break;
                }
                self.write(&mut jobs);
                // Under a load that never pauses, the look at the disk has its turn all the same.
                self.look_at_space();
                self.compact();
            }
            if end {
                self.seal();
                return;
            }
        }
    }

    fn write(&mut self, jobs: &mut Vec<LogJob>) {
        for record in jobs.iter().flat_map(|job| &job.records) {
            if let Err(e) = self.log.append(record) {
                fatal(&e);
            }
        }
        if self.log.pending_bytes() > 0 {
            let begun = Instant::now();
            self.commit();
            self.note(begun.elapsed());
        }
        for job in jobs.drain(..) {
            for (to, lane, batch) in job.after_sync.into_batches() {
                // A refused batch is as good as lost, and loss is what retries are for.
                let _ = self.net.send(to, lane, batch);
            }
            self.posts[job.shard as usize].mail.push(Letter::Synced(job.batch));
        }
    }

    /// Commits, waiting for space if there is none.
    fn commit(&mut self) {
        loop {
            match self.log.commit() {
                Ok(commit) => return self.newest.reach(commit),
                Err(CommitError::NoSpace) => {
                    if !self.gauge.no_space.swap(true, Ordering::Relaxed) {
                        tracing::error!(
                            "no space for the log: writes are refused until there is. Nothing acknowledged is \
                             lost. Free space on the file system of the data directory"
                        );
                    }
                    if self.stop.load(Ordering::Relaxed) {
                        tracing::error!(
                            "ending without space for the log: what waits for it was never acknowledged"
                        );
                        std::process::exit(EXIT_DISK);
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(e) => fatal(&e),
            }
        }
    }

    fn seal(&mut self) {
        if !self.newest.is_trusted() {
            return;
        }
        match self.log.seal() {
            Ok(()) | Err(CommitError::NoSpace) => {}
            Err(e) => fatal(&e),
        }
    }

    /// Drops segments that nobody needs, and asks the groups that need the oldest one to move on.
    fn compact(&mut self) {
        if !self.newest.is_trusted() {
            return;
        }
        let scarce = self.gauge.no_space.load(Ordering::Relaxed);
        let rotten = self.scrub.rotten();
        if let Some(segment) = rotten {
            self.compactor.condemn(segment);
        }
        let now = self.clock.now();
        match self.compactor.look(&mut self.log, scarce, now) {
            Ok(demands) => {
                if rotten.is_some() {
                    self.scrub.dropped_before(self.log.first_segment());
                }
                let held = self.compactor.held();
                *self.gauge.held.lock() = held.map(|held| (held.clone(), now.since(held.since)));
                for (group, demand) in demands {
                    let shard = group.0 as usize % self.posts.len();
                    self.posts[shard].mail.push(Letter::Compact(group, demand));
                }
            }
            Err(e) => fatal(&e),
        }
    }

    fn note(&mut self, took: Duration) {
        let mut guard = self.gauge.stats.lock();
        let stats = self.log.stats();
        let (held, times) = &mut *guard;
        *held = stats;
        self.gauge.took.lock().note(took);
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if times.len() < TIMES {
            times.push(micros);
        } else {
            times[(stats.commits as usize) % TIMES] = micros;
        }
    }

    fn look_at_space(&mut self) {
        if Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + Duration::from_secs(1);
        self.gauge.stats.lock().0 = self.log.stats();
        let live = self.live.now();
        self.compactor.set_limits(CompactionLimits::new(live.0.checkpoint.log_keep_bytes.0, self.segment));
        let min_free = live.0.limits.min_free_disk.0;
        match self.log.disk().free_space() {
            Ok(free) => {
                self.gauge.free.store(free, Ordering::Relaxed);
                self.gauge.runway.lock().note(self.clock.now().since(Time::ZERO), free);
                let low = free < min_free;
                if self.gauge.no_space.swap(low, Ordering::Relaxed) != low {
                    if low {
                        tracing::error!(
                            free,
                            limit = min_free,
                            "under min_free_disk: reads and deletes only"
                        );
                    } else {
                        tracing::info!(free, "there is space again: writes are taken");
                    }
                }
            }
            Err(e) => tracing::warn!("cannot ask for free space: {e}"),
        }
    }
}

fn sort(task: Task, jobs: &mut Vec<LogJob>) -> bool {
    match task {
        Task::Write(job) => jobs.push(job),
        Task::End => return true,
    }
    false
}

/// The end of the process: what was not acknowledged never will be, and peers and clients hear
/// of it by the broken connections.
fn fatal(error: &dyn std::error::Error) -> ! {
    tracing::error!(
        "the log failed: {error}. The process ends, because after a failed write or sync nobody can say what \
         is on the disk. Nothing that was acknowledged is lost. Check the disk, then start the node again"
    );
    std::process::exit(EXIT_DISK);
}

/// Exit code after a failed write or sync.
pub const EXIT_DISK: i32 = 4;
