//! What a screen remembers from look to look: rates need two of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::client::overview::{Overview, UnderWay, under_way};

/// Rates that are kept, as many as a wide screen shows.
const RATES: usize = 160;

/// The past looks.
#[derive(Debug, Default)]
pub(super) struct Past {
    last: Option<Duration>,
    /// Commands by node: pid and count.
    commands: BTreeMap<u32, (u32, u64)>,
    /// Commands per second of each node between the last two looks.
    by_node: BTreeMap<u32, f64>,
    rates: VecDeque<f64>,
    syncs: VecDeque<f64>,
    /// Learning sessions: when they were first seen and what was left then.
    sessions: BTreeMap<(u32, u32, u32), (Duration, u64)>,
}

/// How far something on its way is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Progress {
    /// From 0 to 1.
    pub share: Option<f64>,
    /// Seconds.
    pub remaining: Option<f64>,
}

impl Past {
    /// A look at `at` since some start.
    pub fn note(&mut self, at: Duration, overview: &Overview) {
        let took = self.last.map(|last| at.saturating_sub(last).as_secs_f64()).filter(|took| *took > 0.0);
        self.by_node.clear();
        let mut commands = BTreeMap::new();
        for node in &overview.nodes {
            // A new process counts from 0, and what it has counted since is not of this interval alone.
            let before = self.commands.get(&node.node).filter(|(pid, _)| *pid == node.pid);
            if let (Some((_, before)), Some(took)) = (before, took) {
                self.by_node.insert(node.node, node.commands.saturating_sub(*before) as f64 / took);
            }
            commands.insert(node.node, (node.pid, node.commands));
        }
        self.commands = commands;
        if took.is_some() {
            push(&mut self.rates, self.by_node.values().sum());
        }
        push(&mut self.syncs, overview.summary.commit_p99_us as f64);
        self.last = Some(at);
        let lines = under_way(&overview.nodes);
        let sessions = lines.iter().filter(|line| !line.checkpoint).map(|line| {
            let place = (line.group, line.from, line.to);
            // A session with more to do than at its beginning is another one.
            let known = self.sessions.get(&place).copied().filter(|(_, left)| *left >= line.left);
            (place, known.unwrap_or((at, line.left)))
        });
        self.sessions = sessions.collect();
    }

    /// Commands per second of one node.
    pub fn rate_of(&self, node: u32) -> Option<f64> {
        self.by_node.get(&node).copied()
    }

    /// Commands per second, the newest last.
    pub fn rates(&self) -> Vec<f64> {
        self.rates.iter().copied().collect()
    }

    /// The slowest node's 99th percentile of commits in microseconds, the newest last.
    pub fn syncs(&self) -> Vec<f64> {
        self.syncs.iter().copied().collect()
    }

    /// How far something is that the newest look saw on its way.
    pub fn progress(&self, line: &UnderWay) -> Progress {
        if line.checkpoint {
            return Progress { share: line.share(), remaining: line.remaining_s() };
        }
        let begun = self.sessions.get(&(line.group, line.from, line.to));
        let (Some((since, all)), Some(now)) = (begun, self.last) else {
            return Progress { share: None, remaining: None };
        };
        let done = all.saturating_sub(line.left);
        let share = (*all > 0).then(|| done as f64 / *all as f64);
        let per_instance = (done > 0).then(|| (now - *since).as_secs_f64() / done as f64);
        Progress { share, remaining: per_instance.map(|each| each * line.left as f64) }
    }
}

fn push(ring: &mut VecDeque<f64>, value: f64) {
    if ring.len() == RATES {
        ring.pop_front();
    }
    ring.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::healthy;
    use crate::status::LearningLine;

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn rates_are_those_of_the_last_interval_and_a_restart_is_no_minus() {
        let mut past = Past::default();
        let mut survey = healthy(3);
        let look = |survey: &crate::client::survey::Survey| Overview::of(survey.clone());
        survey.nodes[0].commands = 1_000;
        survey.nodes[1].commands = 5_000;
        past.note(second(1), &look(&survey));
        assert_eq!((past.rate_of(1), past.rates()), (None, vec![]));
        survey.nodes[0].commands = 1_600;
        survey.nodes[1].commands = 40;
        survey.nodes[1].pid += 1;
        past.note(second(3), &look(&survey));
        assert_eq!((past.rate_of(1), past.rate_of(2), past.rates()), (Some(300.0), None, vec![300.0]));
        survey.nodes[1].commands = 140;
        past.note(second(4), &look(&survey));
        assert_eq!((past.rate_of(1), past.rate_of(2)), (Some(0.0), Some(100.0)));
    }

    #[test]
    fn a_session_is_as_far_as_it_has_come_since_it_was_first_seen() {
        let mut past = Past::default();
        let mut survey = healthy(3);
        let line = |next: u64| LearningLine {
            group: 2,
            peer: 1,
            incoming: true,
            next,
            target: 1_000,
            bytes: 10,
            elapsed_s: 1.0,
        };
        for (at, next) in [(1, 1), (2, 251)] {
            survey.nodes[2].learning = vec![line(next)];
            past.note(second(at), &Overview::of(survey.clone()));
        }
        let ways = under_way(&survey.nodes);
        assert_eq!((ways[0].from, ways[0].to, ways[0].left), (1, 3, 750));
        assert_eq!(past.progress(&ways[0]), Progress { share: Some(0.25), remaining: Some(3.0) });
        // The other end tells of it, too: it stays one.
        survey.nodes[0].learning = vec![LearningLine { peer: 3, incoming: false, ..line(200) }];
        assert_eq!(under_way(&survey.nodes), ways);
    }
}
