//! The only clock of the process that the node's logic sees.

use std::time::Instant;

use groups::time::Time;

/// A monotonic clock that starts with the process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now, a second past zero, so that zero is always in the past.
    #[must_use]
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Time {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX / 2);
        Time::from_nanos(nanos + 1_000_000_000)
    }
}
