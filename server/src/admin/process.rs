//! What the system says of this process, under the names that Prometheus' client libraries use.

use std::time::{Duration, SystemTime};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Figures of the process. What the system does not tell is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Processor time, user and system.
    pub cpu: Duration,
    /// Bytes of memory that are in use.
    pub resident: Option<u64>,
    /// Open files and sockets.
    pub open_fds: Option<u64>,
    /// The most that there may be.
    pub max_fds: Option<u64>,
    /// When it was started, since 1970.
    pub started: Duration,
}

impl Process {
    /// Now, of a process that runs for `uptime`.
    pub fn look(uptime: Duration) -> Process {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Process {
            // Neither part is negative on this clock.
            cpu: Duration::new(cpu.tv_sec.try_into().unwrap_or(0), cpu.tv_nsec.try_into().unwrap_or(0)),
            resident: resident(),
            // The directory that is being listed is one of them.
            open_fds: std::fs::read_dir("/proc/self/fd")
                .ok()
                .map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
            started: since_1970.saturating_sub(uptime),
        }
    }
}

fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_something_plausible() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
        let process = Process::look(Duration::from_secs(10));
        assert!(process.resident.is_some_and(|bytes| (1 << 20..1 << 40).contains(&bytes)), "{process:?}");
        assert!(process.open_fds.is_some_and(|fds| (3..100_000).contains(&fds)), "{process:?}");
        assert!(process.cpu > Duration::ZERO && process.cpu < Duration::from_secs(3600), "{process:?}");
        assert!(now.saturating_sub(process.started) >= Duration::from_secs(9), "{process:?}");
    }
}
