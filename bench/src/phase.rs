//! All threads of one load together: started at one instant, watched, and their figures merged.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::Failure;
use crate::cost::{Meter, Spent};
use crate::events::Event;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::record::Entry;
use crate::stats::Figures;
use crate::worker::{Harvest, Worker};
use crate::workload::Source;

/// What a load came to.
#[derive(Debug)]
pub struct Outcome {
    /// The figures of all threads.
    pub figures: Figures,
    /// The history of all threads.
    pub history: Vec<Entry>,
    /// When the measured time began, on the run's clock.
    pub from: u64,
    /// What happened meanwhile.
    pub events: Vec<Event>,
    /// Seconds measured.
    pub seconds: f64,
    /// Seconds of processor time that this program took, warm-up included.
    pub cpu_seconds: f64,
    /// Requests settled, warm-up included.
    pub settled: u64,
    /// What the servers spent, if asked.
    pub servers: Option<Spent>,
    /// The history was full before the time was over.
    pub cut_short: bool,
}

/// Offers the load of `plan` over this many connections; `source` gives each thread its operations.
pub fn offer(
    plan: &Plan<'_>,
    connections: u32,
    source: impl Fn(u32) -> Source,
    progress: &mut Progress,
) -> Result<Outcome, Failure> {
    let cpu_before = cpu_seconds();
    let mut meter = plan.servers.map(Meter::of);
    let harvests = std::thread::scope(|scope| {
        let (sender, harvests) = mpsc::channel();
        for index in 0..plan.threads {
            let (share, rest) = (connections / plan.threads, connections % plan.threads);
            let first = index * share + index.min(rest);
            let own = share + u32::from(index < rest);
            let (sender, source) = (sender.clone(), source(index));
            scope.spawn(move || {
                let harvest = Worker::new(plan, index, first, own, source)
                    .unwrap_or_else(|error| panic!("an event loop cannot be made: {error}"))
                    .run(index);
                // The receiver waits for every thread, so it is there.
                let _ = sender.send(harvest);
            });
        }
        drop(sender);
        watch(plan, &harvests, progress, &mut meter)
    });
    if let Some(meter) = &mut meter {
        meter.stop();
    }
    let mut outcome = merge(harvests?, plan)?;
    outcome.cpu_seconds = cpu_seconds() - cpu_before;
    let (successes, failures) = &plan.shared.done;
    let in_time = outcome.figures.reads.in_time + outcome.figures.writes.in_time;
    outcome.servers = meter.map(|meter| meter.spent(in_time));
    outcome.settled = successes.load(Ordering::Relaxed) + failures.load(Ordering::Relaxed);
    Ok(outcome)
}

fn watch(
    plan: &Plan<'_>,
    harvests: &mpsc::Receiver<std::io::Result<Option<Harvest>>>,
    progress: &mut Progress,
    meter: &mut Option<Meter<'_>>,
) -> Result<Vec<Option<Harvest>>, Failure> {
    let mut collected = Vec::new();
    let mut next_tell = Instant::now() + progress.interval();
    while collected.len() < plan.threads as usize {
        let to_look = meter.as_mut().map_or(u64::MAX, |meter| meter.look(plan.window(), plan.clock.now()));
        let to_tell = next_tell.saturating_duration_since(Instant::now());
        match harvests.recv_timeout(to_tell.min(Duration::from_nanos(to_look))) {
            Ok(harvest) => {
                collected.push(harvest.map_err(|error| Failure(format!("the event loop failed: {error}")))?);
            }
            Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() >= next_tell => {
                progress.tell(plan);
                next_tell = Instant::now() + progress.interval();
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Failure("a thread ended without a result".to_owned()));
            }
        }
    }
    Ok(collected)
}

fn merge(harvests: Vec<Option<Harvest>>, plan: &Plan<'_>) -> Result<Outcome, Failure> {
    let mut outcome = Outcome {
        figures: Figures::default(),
        history: Vec::new(),
        from: plan.window().map_or(0, |window| window.from),
        events: Vec::new(),
        seconds: 0.0,
        cpu_seconds: 0.0,
        settled: 0,
        servers: None,
        cut_short: false,
    };
    for harvest in harvests {
        let Some(harvest) = harvest else {
            let addresses: Vec<String> = plan.addresses.iter().map(ToString::to_string).collect();
            return Err(Failure(format!(
                "no connection to {} within 5 s; nothing was sent. Is the cluster up? Try: pelago demo",
                addresses.join(", ")
            )));
        };
        let measured = Duration::from_nanos(harvest.window.until.saturating_sub(harvest.window.from));
        outcome.seconds = outcome.seconds.max(measured.as_secs_f64());
        outcome.figures.add(harvest.figures);
        outcome.history.extend(harvest.history);
        outcome.cut_short |= harvest.cut_short;
        drop(harvest.connections);
    }
    Ok(outcome)
}

/// Processor time of this process.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
