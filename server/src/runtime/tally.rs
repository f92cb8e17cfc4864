//! What a worker counts of the commands of its clients. It is the worker's alone, so counting is an addition
//! and no more; others see it in the worker's [report](super::worker::ShardReport).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::{Command, ErrorClass};
use crate::status::{HistogramLine, TrafficStatus};

/// Upper bounds of the buckets, microseconds; one more bucket takes what is above.
pub const BOUNDS_US: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000,
];

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many lie at or under each bound and over the one before; the last is above all bounds.
    counts: [u64; BOUNDS_US.len() + 1],
    sum_us: u64,
}

impl Histogram {
    /// One more took so long.
    pub fn note(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_US.partition_point(|bound| *bound < micros)] += 1;
        self.sum_us = self.sum_us.saturating_add(micros);
    }

    fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// As the status tells it.
    #[must_use]
    pub fn line(&self) -> HistogramLine {
        HistogramLine { bounds_us: BOUNDS_US.to_vec(), counts: self.counts.to_vec(), sum_us: self.sum_us }
    }
}

/// What a command is to those who count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Groups answer it and nothing changes.
    Read,
    /// Groups answer it and data may change.
    Write,
    /// The connection or the node answers it, or it is none.
    Other,
}

impl Kind {
    /// The kind of a well formed command.
    #[must_use]
    pub fn of(command: &Command) -> Kind {
        match command {
            Command::Data(data) if data.is_write() => Kind::Write,
            Command::Data(_) => Kind::Read,
            Command::Local(_) | Command::Watch(_) | Command::Node(_) | Command::Transaction(_) => Kind::Other,
        }
    }
}

/// Figures since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    reads: u64,
    writes: u64,
    other: u64,
    /// Error replies by their first word, of which there is a fixed number.
    errors: BTreeMap<&'static str, u64>,
    read: Histogram,
    write: Histogram,
}

impl Counts {
    /// Adds those of another worker.
    pub fn add(&mut self, other: &Counts) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.other += other.other;
        for (word, count) in &other.errors {
            *self.errors.entry(word).or_insert(0) += count;
        }
        self.read.add(&other.read);
        self.write.add(&other.write);
    }

    /// What workers have counted, together.
    #[must_use]
    pub fn of<'a>(parts: impl Iterator<Item = &'a Counts>) -> Counts {
        let mut all = Counts::default();
        parts.for_each(|part| all.add(part));
        all
    }

    /// Commands taken from clients, of every kind.
    #[must_use]
    pub fn commands(&self) -> u64 {
        self.reads + self.writes + self.other
    }

    /// As the status tells it.
    #[must_use]
    pub fn traffic(&self) -> TrafficStatus {
        TrafficStatus {
            reads: self.reads,
            writes: self.writes,
            other: self.other,
            errors: self.errors.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect(),
            read_took: self.read.line(),
            write_took: self.write.line(),
        }
    }
}

/// The counts of one worker, shared with its connections on its thread.
#[derive(Debug, Default)]
pub struct Tally {
    counts: RefCell<Counts>,
}

impl Tally {
    /// A command was taken from a client.
    pub fn command(&self, kind: Kind) {
        let mut counts = self.counts.borrow_mut();
        match kind {
            Kind::Read => counts.reads += 1,
            Kind::Write => counts.writes += 1,
            Kind::Other => counts.other += 1,
        }
    }

    /// An error was answered.
    pub fn error(&self, class: ErrorClass) {
        *self.counts.borrow_mut().errors.entry(class.word()).or_insert(0) += 1;
    }

    /// A command that groups answer was answered, so long after it was taken.
    pub fn took(&self, write: bool, took: Duration) {
        let mut counts = self.counts.borrow_mut();
        if write { counts.write.note(took) } else { counts.read.note(took) }
    }

    /// The figures now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_at_the_first_bound_that_is_not_below_it() {
        let mut histogram = Histogram::default();
        for micros in [0, 100, 101, 5_000_000, 5_000_001] {
            histogram.note(Duration::from_micros(micros));
        }
        let HistogramLine { bounds_us, counts, sum_us } = histogram.line();
        assert_eq!(counts.len(), bounds_us.len() + 1);
        assert_eq!((counts[0], counts[1], counts[14], counts[15]), (2, 1, 1, 1));
        assert_eq!(sum_us, 10_000_202);
    }

    #[test]
    fn the_counts_of_workers_add_up() {
        let (one, two) = (Tally::default(), Tally::default());
        one.command(Kind::Read);
        one.took(false, Duration::from_millis(1));
        one.error(ErrorClass::Busy);
        two.command(Kind::Write);
        two.command(Kind::Other);
        two.took(true, Duration::from_millis(2));
        two.error(ErrorClass::Busy);
        two.error(ErrorClass::TryAgain);
        let mut all = one.counts();
        all.add(&two.counts());
        let traffic = all.traffic();
        assert_eq!((traffic.reads, traffic.writes, traffic.other), (1, 1, 1));
        assert_eq!(
            traffic.errors.into_iter().collect::<Vec<_>>(),
            [("BUSY".into(), 2), ("TRYAGAIN".into(), 1)]
        );
        assert_eq!((traffic.read_took.sum_us, traffic.write_took.sum_us), (1_000, 2_000));
    }
}
