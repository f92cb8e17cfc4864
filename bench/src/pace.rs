//! Open loop: when the next request is due, and how to wake up for it on time.

use std::io;

use mio::{Registry, Token};

/// Requests at even intervals, due whether or not earlier ones were answered.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: u64,
    interval: f64,
    issued: u64,
}

impl Pace {
    /// `per_second` requests from `start` (nanoseconds) on.
    pub fn new(start: u64, per_second: f64) -> Self {
        Pace { start, interval: 1e9 / per_second, issued: 0 }
    }

    /// When the next request is due.
    pub fn due(&self) -> u64 {
        self.start + (self.issued as f64 * self.interval) as u64
    }

    /// Goes on to the one after it.
    pub fn advance(&mut self) {
        self.issued += 1;
    }
}

/// Wakes the event loop at a time given in nanoseconds; the timeout of `epoll_wait` counts whole milliseconds, which
/// would add up to one to every latency.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub struct Alarm {
    timer: std::os::fd::OwnedFd,
    armed_for: u64,
}

/// Waking up more often than this costs more than it tells.
#[cfg(target_os = "linux")]
const FINEST: u64 = 50_000;

#[cfg(target_os = "linux")]
impl Alarm {
    /// An alarm that reports to this event loop.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut mio::unix::SourceFd(&timer.as_raw_fd()), token, mio::Interest::READABLE)?;
        Ok(Alarm { timer, armed_for: 0 })
    }

    /// Asks to be woken at `due`, unless that is already so. The timer is never read: the event loop reports each
    /// expiry once.
    pub fn arm(&mut self, due: u64, now: u64) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        if self.armed_for > now && self.armed_for <= due.max(now + FINEST) {
            return Ok(());
        }
        let wait = due.saturating_sub(now).max(FINEST);
        self.armed_for = now + wait;
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: (wait / 1_000_000_000) as i64,
                tv_nsec: (wait % 1_000_000_000) as _,
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// How long the event loop itself may sleep.
    pub fn limit(&self, wait: u64) -> u64 {
        wait
    }
}

/// Elsewhere the event loop sleeps no longer than until the request is due.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub struct Alarm {
    left: u64,
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    /// An alarm.
    pub fn new(_: &Registry, _: Token) -> io::Result<Self> {
        Ok(Alarm { left: u64::MAX })
    }

    /// Asks to be woken at `due`.
    pub fn arm(&mut self, due: u64, now: u64) -> io::Result<()> {
        self.left = due.saturating_sub(now);
        Ok(())
    }

    /// How long the event loop itself may sleep.
    pub fn limit(&self, wait: u64) -> u64 {
        wait.min(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_even_intervals_without_drift() {
        let mut pace = Pace::new(1_000, 3.0);
        let dues: Vec<u64> = std::iter::repeat_with(|| {
            let due = pace.due();
            pace.advance();
            due
        })
        .take(3_000_001)
        .collect();
        assert_eq!(&dues[..3], &[1_000, 333_334_333, 666_667_666]);
        assert_eq!(dues[3_000_000], 1_000 + 1_000_000 * 1_000_000_000);
    }
}
