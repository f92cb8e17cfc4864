//! The only clock of the process that the node's logic sees.

use groups::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// A monotonic clock that starts with the process. It goes on while the machine sleeps: a leader
/// that wakes must not take its lease for younger than it is (FAULTS, rule 14), and neither a user
/// nor a time server can set it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
    /// How fast it runs, in millionths of the true speed: another one only in tests.
    millionths: u64,
}

/// In a build for tests: how fast the clock runs, in millionths. A clock of the hardware that drifts
/// cannot be had otherwise: no library comes between this and the kernel.
const RATE: &str = "PELAGO_TEST_CLOCK_RATE";

fn rate() -> u64 {
    let told = cfg!(debug_assertions).then(|| std::env::var(RATE).ok()).flatten();
    told.and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

impl Clock {
    /// A clock that starts now, a second past zero, so that zero is always in the past.
    #[must_use]
    pub fn start() -> Clock {
        Clock { start: since_boot(), millionths: rate() }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Time {
        let passed = since_boot().saturating_sub(self.start);
        let shown = match self.millionths {
            1_000_000 => passed,
            rate => (u128::from(passed) * u128::from(rate) / 1_000_000) as u64,
        };
        Time::from_nanos(shown + 1_000_000_000)
    }
}

/// Nanoseconds since the machine was started.
fn since_boot() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    // Neither is negative on this clock.
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
