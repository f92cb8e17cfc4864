//! What is counted.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::series::Series;
use crate::workload::Kind;

/// Why a request did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// `-TRYAGAIN`: not applied, leadership is moving.
    TryAgain,
    /// `-CLUSTERDOWN`: not applied, no quorum.
    ClusterDown,
    /// `-INDOUBT`: proposed, outcome unknown.
    InDoubt,
    /// `-BUSY`: not applied, the node is over its limit.
    Busy,
    /// `-READONLY`: not applied, no space.
    ReadOnly,
    /// Any other error reply.
    Other,
    /// The connection broke: outcome unknown.
    Lost,
    /// No reply within `--timeout`: outcome unknown.
    Timeout,
}

impl Class {
    /// The class of an error reply by its first word.
    pub fn of(error: &[u8]) -> Class {
        match error.split(|&byte| byte == b' ').next().unwrap_or_default() {
            b"TRYAGAIN" => Class::TryAgain,
            b"CLUSTERDOWN" => Class::ClusterDown,
            b"INDOUBT" => Class::InDoubt,
            b"BUSY" => Class::Busy,
            b"READONLY" => Class::ReadOnly,
            _ => Class::Other,
        }
    }

    /// Whether the request may have been applied, or may yet be.
    pub fn is_unknown(self) -> bool {
        matches!(self, Class::InDoubt | Class::Lost | Class::Timeout)
    }

    /// The name in table and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Class::TryAgain => "TRYAGAIN",
            Class::ClusterDown => "CLUSTERDOWN",
            Class::InDoubt => "INDOUBT",
            Class::Busy => "BUSY",
            Class::ReadOnly => "READONLY",
            Class::Other => "other",
            Class::Lost => "connection lost",
            Class::Timeout => "timeout",
        }
    }
}

/// Latencies of one kind of operation.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// Longer ones count as this: an hour, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

impl Default for Latencies {
    fn default() -> Self {
        Latencies(Histogram::new_with_bounds(100, LONGEST, 3).expect("the bounds are valid"))
    }
}

impl Latencies {
    /// Counts one latency in nanoseconds.
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    /// Adds those of another thread.
    pub fn add(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    /// The latency in nanoseconds that this share of the requests did not exceed; 1.0 is the longest.
    pub fn quantile(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share).min(self.0.max())
    }

    /// In nanoseconds.
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }
}

/// What one kind of operation came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Of successes that were due in the measured time, and of requests due but never sent, which are at least this
    /// late.
    pub latencies: Latencies,
    /// Successes within the measured time.
    pub in_time: u64,
}

/// Everything one thread counted, or all of them together.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Gets and scans.
    pub reads: Tally,
    /// Everything else.
    pub writes: Tally,
    /// Compare-and-swaps that came too late, within the measured time; they are among the successes.
    pub conflicts: u64,
    /// Keys that scans returned within the measured time.
    pub keys_read: u64,
    /// Requests due in the measured time that did not succeed.
    pub errors: BTreeMap<Class, u64>,
    /// The first error of no known class, in full.
    pub other_error: Option<String>,
    /// Answers that cannot be right, at any time of the run.
    pub wrong: u64,
    /// The first of them.
    pub wrong_example: Option<String>,
    /// What happened when.
    pub series: Series,
    /// Requests sent again after `-TRYAGAIN`.
    pub retries: u64,
    /// Open loop: requests due that were never sent, for want of a free connection.
    pub unsent: u64,
    /// Longest time without a successful write, in nanoseconds.
    pub write_gap: u64,
    /// When the last measured success was seen, on the run's clock.
    pub last_success: u64,
}

impl Figures {
    /// The tally of this kind of operation.
    pub fn tally(&mut self, kind: Kind) -> &mut Tally {
        if kind.writes() { &mut self.writes } else { &mut self.reads }
    }

    /// Counts a failed request.
    pub fn error(&mut self, class: Class, text: &[u8]) {
        *self.errors.entry(class).or_default() += 1;
        if class == Class::Other && self.other_error.is_none() {
            self.other_error =
                Some(text.iter().take(200).copied().collect::<Vec<u8>>().escape_ascii().to_string());
        }
    }

    /// Notes an answer that cannot be right.
    pub fn wrong(&mut self, story: impl FnOnce() -> String) {
        self.wrong += 1;
        self.wrong_example.get_or_insert_with(story);
    }

    /// Adds what another thread counted.
    pub fn add(&mut self, other: Figures) {
        for (mine, theirs) in [(&mut self.reads, &other.reads), (&mut self.writes, &other.writes)] {
            mine.latencies.add(&theirs.latencies);
            mine.in_time += theirs.in_time;
        }
        self.conflicts += other.conflicts;
        self.keys_read += other.keys_read;
        for (class, count) in other.errors {
            *self.errors.entry(class).or_default() += count;
        }
        self.other_error = self.other_error.take().or(other.other_error);
        self.wrong += other.wrong;
        self.wrong_example = self.wrong_example.take().or(other.wrong_example);
        self.series.add(other.series);
        self.retries += other.retries;
        self.unsent += other.unsent;
        self.write_gap = self.write_gap.max(other.write_gap);
        self.last_success = self.last_success.max(other.last_success);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let (mut odd, mut even) = (Latencies::default(), Latencies::default());
        for micros in 1..=10_000_u64 {
            let half = if micros % 2 == 0 { &mut even } else { &mut odd };
            half.record(micros * 1_000);
        }
        odd.add(&even);
        assert_eq!(odd.0.len(), 10_000);
        for (share, expected) in
            [(0.5, 5_000_000.0), (0.9, 9_000_000.0), (0.99, 9_900_000.0), (1.0, 10_000_000.0)]
        {
            let found = odd.quantile(share) as f64;
            assert!((found / expected - 1.0).abs() < 0.002, "{share}: {found}");
        }
    }

    #[test]
    fn a_latency_beyond_all_bounds_is_kept_as_the_longest() {
        let mut latencies = Latencies::default();
        latencies.record(u64::MAX);
        assert_eq!(latencies.0.len(), 1);
        assert!(latencies.quantile(1.0) >= LONGEST);
    }

    #[test]
    fn errors_are_told_apart_by_their_first_word() {
        assert_eq!(Class::of(b"TRYAGAIN group=5 leader is moving"), Class::TryAgain);
        assert_eq!(Class::of(b"CLUSTERDOWN"), Class::ClusterDown);
        assert_eq!(Class::of(b"INDOUBT group=1 x"), Class::InDoubt);
        assert_eq!(Class::of(b"BUSY in flight"), Class::Busy);
        assert_eq!(Class::of(b"READONLY nospace"), Class::ReadOnly);
        assert_eq!(Class::of(b"ERR BUSY"), Class::Other);
        assert_eq!(Class::of(b""), Class::Other);
        assert!(Class::InDoubt.is_unknown() && !Class::TryAgain.is_unknown());
    }
}
