//! What one sees while it runs: a live line on a terminal, a plain line per interval otherwise. Always on stderr.

use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::plan::Plan;

/// Between two lines where no terminal is watched.
const LINES: Duration = Duration::from_secs(2);
/// Between two looks of a live line.
const LIVE: Duration = Duration::from_millis(200);

/// The progress of one phase.
#[derive(Debug)]
pub struct Progress {
    name: String,
    /// How long the phase takes, or how many requests it makes.
    whole: Whole,
    begun: Instant,
    last: (Instant, u64),
    bar: Option<ProgressBar>,
}

/// The extent of a phase.
#[derive(Clone, Copy, Debug)]
pub enum Whole {
    /// Of time, warm-up included.
    Time(Duration),
    /// Of requests.
    Requests(u64),
}

impl Progress {
    /// Begins to tell about the phase of this name.
    pub fn begin(name: String, whole: Whole) -> Self {
        let live = std::io::stderr().is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb");
        let bar = live.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // No colours in the template, so there is nothing for NO_COLOR to turn off.
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        let now = Instant::now();
        Progress { name, whole, begun: now, last: (now, 0), bar }
    }

    /// How often [`Progress::tell`] wants to be called.
    pub fn interval(&self) -> Duration {
        if self.bar.is_some() { LIVE } else { LINES }
    }

    /// Tells how far it is.
    pub fn tell(&mut self, plan: &Plan<'_>) {
        let (done, failed) = &plan.shared.done;
        let (done, failed) = (done.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
        let now = Instant::now();
        let since = now.duration_since(self.last.0).as_secs_f64().max(1e-3);
        let rate = (done.saturating_sub(self.last.1)) as f64 / since;
        self.last = (now, done);
        let errors = if failed > 0 { format!(", {failed} errors") } else { String::new() };
        let line =
            format!("{}: {done} done, {rate:.0}/s{errors}, {} left", self.name, self.remaining(done, now));
        match &self.bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None => eprintln!("{line}"),
        }
    }

    fn remaining(&self, done: u64, now: Instant) -> String {
        let elapsed = now.duration_since(self.begun);
        let left = match self.whole {
            Whole::Time(whole) => Some(whole.saturating_sub(elapsed)),
            Whole::Requests(_) if done == 0 => None,
            Whole::Requests(whole) => Duration::try_from_secs_f64(
                elapsed.as_secs_f64() * whole.saturating_sub(done) as f64 / done as f64,
            )
            .ok(),
        };
        left.map_or("?".to_owned(), |left| format!("{:.0} s", left.as_secs_f64()))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
