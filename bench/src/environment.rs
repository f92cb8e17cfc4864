//! What the machine can do in the same minute: the figures that a latency has to be compared with.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::Failure;
use crate::machine::disk;
use crate::machine::loopback::{self, Waits};
use crate::stats::Latencies;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// Processors this program may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Where fdatasync was measured.
    pub fsync_dir: Option<PathBuf>,
    /// Median of writing 4 KiB and fdatasync, in microseconds.
    pub fdatasync_p50_us: Option<f64>,
    /// Median of 64 bytes there and back over a loopback connection, in microseconds.
    pub loopback_p50_us: Option<f64>,
}

/// Bytes written before each fdatasync.
const BLOCK: usize = 4096;
/// Bytes of the file that is written over: small, because every run begins with this.
const FILE: u64 = 1 << 20;

/// Looks at the machine. With `measure` this takes most of a second.
pub fn survey(measure: bool, fsync_dir: Option<&Path>) -> Result<Environment, Failure> {
    let mut environment = Environment {
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        kernel: kernel(),
        fsync_dir: None,
        fdatasync_p50_us: None,
        loopback_p50_us: None,
    };
    if measure {
        let (dir, latencies) = match fsync_dir {
            Some(dir) => {
                let measured = fdatasync(dir).map_err(|error| {
                    Failure(format!(
                        "cannot measure fdatasync in {}: {error}; choose --fsync-dir",
                        dir.display()
                    ))
                })?;
                (dir.to_owned(), Some(measured))
            }
            None => {
                let here = std::env::current_dir().unwrap_or_else(|_| std::env::temp_dir());
                match fdatasync(&here) {
                    Ok(measured) => (here, Some(measured)),
                    Err(_) => (std::env::temp_dir(), fdatasync(&std::env::temp_dir()).ok()),
                }
            }
        };
        environment.fsync_dir = Some(dir);
        environment.fdatasync_p50_us = latencies.map(|latencies| median_us(&latencies));
        let loopback = loopback::measure(Waits::Asleep, Duration::from_millis(200));
        environment.loopback_p50_us = loopback.ok().map(|latencies| median_us(&latencies));
    }
    Ok(environment)
}

fn median_us(latencies: &Latencies) -> f64 {
    latencies.quantile(0.5) as f64 / 1e3
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, release.trim()).trim_end().to_owned()
}

fn fdatasync(dir: &Path) -> io::Result<Latencies> {
    disk::synced(dir, FILE, &[0x5a; BLOCK], Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_measured_and_nothing_is_left_behind() {
        let dir = std::env::temp_dir().join(format!("pelago-bench-test-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let environment = survey(true, Some(&dir)).expect("measured");
        assert!(environment.cores > 0);
        assert!(environment.fdatasync_p50_us.is_some_and(|us| us > 0.0));
        assert!(environment.loopback_p50_us.is_some_and(|us| us > 0.0));
        std::fs::remove_dir(&dir).expect("empty again");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let Failure(reason) = survey(true, Some(Path::new("/no/such/place"))).expect_err("no such place");
        assert!(reason.contains("/no/such/place") && reason.contains("--fsync-dir"), "{reason}");
    }
}
