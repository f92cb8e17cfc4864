//! Keeps the log readable.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use groups::ids::NodeId;

/// Whom a complaint is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Node(NodeId),
    Address(IpAddr),
    Listener,
}

/// Keeps the log readable: the same complaint about the same peer once per interval.
#[derive(Debug)]
pub(crate) struct Complaints {
    interval: Duration,
    /// When it was last said, and how often it was not since.
    said: HashMap<(Who, &'static str), (Instant, u64)>,
}

impl Complaints {
    /// More than a cluster has; strangers beyond it are not mentioned until the interval ends.
    const LIMIT: usize = 4096;

    pub(crate) fn new(interval: Duration) -> Complaints {
        Complaints { interval, said: HashMap::new() }
    }

    /// `Some` when it is time to say it, with the number of times that it was left unsaid.
    pub(crate) fn first(&mut self, who: Who, kind: &'static str, now: Instant) -> Option<u64> {
        let interval = self.interval;
        if let Some((last, unsaid)) = self.said.get_mut(&(who, kind)) {
            if now - *last < interval {
                *unsaid += 1;
                return None;
            }
            *last = now;
            return Some(std::mem::take(unsaid));
        }
        if self.said.len() >= Self::LIMIT {
            self.said.retain(|_, (last, _)| now - *last < interval);
        }
        if self.said.len() >= Self::LIMIT {
            return None;
        }
        self.said.insert((who, kind), (now, 0));
        Some(0)
    }
}
