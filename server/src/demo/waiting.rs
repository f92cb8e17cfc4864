//! Waiting for what the cluster has to become, with a word about how far it is.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::interrupt::Interrupt;
use crate::cli::status::look;
use crate::client::Options;
use crate::client::overview::Overview;

/// Between two looks at the cluster.
const EVERY: Duration = Duration::from_millis(100);
/// Between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// How far something is.
pub enum Step<T> {
    /// It is there.
    Done(T),
    /// It is not there yet, because of this.
    Not(String),
    /// It will never be, because of this.
    Never(String),
}

/// Why waiting ended without what was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody wants an end.
    Interrupted,
    /// It did not come, with the reason and the last words of the nodes.
    Failed(String),
}

/// Looks at the cluster until `step` is satisfied, a node dies, or `limit` is over.
///
/// # Errors
/// When it was not satisfied.
pub fn until<T>(
    what: &str,
    cluster: &mut Cluster<'_>,
    interrupt: &Interrupt,
    limit: Duration,
    mut step: impl FnMut(&Overview) -> Step<T>,
) -> Result<T, Stop> {
    let start = Instant::now();
    let mut progress = Progress::new();
    loop {
        if let Some(death) = cluster.deaths().into_iter().next() {
            progress.clear();
            return Err(Stop::Failed(format!("while waiting for {what}, {}", death.text)));
        }
        let missing = match look(&cluster.addresses(), &Options::default()) {
            Ok(overview) => match step(&overview) {
                Step::Done(found) => {
                    progress.clear();
                    return Ok(found);
                }
                Step::Not(missing) => missing,
                Step::Never(why) => {
                    progress.clear();
                    return Err(Stop::Failed(why));
                }
            },
            Err(_) => "no node answers yet".to_owned(),
        };
        let elapsed = start.elapsed();
        if elapsed >= limit {
            progress.clear();
            let words = cluster.ids().into_iter().map(|node| cluster.last_words(node));
            return Err(Stop::Failed(format!(
                "waited {} s for {what}: {missing}\n{}",
                limit.as_secs(),
                words.collect::<Vec<_>>().join("\n")
            )));
        }
        progress.say(&format!(
            "{:.1} s  waiting for {what}: {missing} (at most {} s more)",
            elapsed.as_secs_f64(),
            (limit - elapsed).as_secs() + 1
        ));
        if interrupt.wait(EVERY) {
            progress.clear();
            return Err(Stop::Interrupted);
        }
    }
}

/// Every node answers and every group has a leader.
pub fn all_led(overview: &Overview, nodes: usize) -> Step<String> {
    let summary = &overview.summary;
    if overview.nodes.len() < nodes {
        return Step::Not(format!("{} of {nodes} nodes answer", overview.nodes.len()));
    }
    // Before the birth no node has a group.
    if summary.groups == 0 {
        return Step::Not(format!("the cluster is not born yet, {nodes} of {nodes} nodes answer"));
    }
    if summary.groups_led < summary.groups {
        return Step::Not(format!("{} of {} groups have a leader", summary.groups_led, summary.groups));
    }
    let leads: Vec<String> = summary.leads.values().map(usize::to_string).collect();
    Step::Done(format!("all {} groups have a leader ({} per node)", summary.groups, leads.join("/")))
}

/// One line on a terminal that changes in place; now and then a line elsewhere.
struct Progress {
    terminal: bool,
    last: Option<Instant>,
}

impl Progress {
    fn new() -> Progress {
        Progress { terminal: io::stderr().is_terminal(), last: None }
    }

    fn say(&mut self, text: &str) {
        let mut err = io::stderr().lock();
        // A closed stderr leaves nobody to tell.
        if self.terminal {
            let short: String = text.chars().take(79).collect();
            let _ = write!(err, "\r\x1b[K{short}").and_then(|()| err.flush());
        } else if self.last.is_some_and(|last| last.elapsed() >= LINE_EVERY) {
            let _ = writeln!(err, "{text}");
        } else if self.last.is_some() {
            return;
        }
        self.last = Some(Instant::now());
    }

    fn clear(&mut self) {
        if self.terminal && self.last.is_some() {
            let mut err = io::stderr().lock();
            let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
        }
    }
}
