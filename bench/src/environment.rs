//! What the machine can do in the same minute: the figures that a latency has to be compared with.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Failure;
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
/// Blocks of the file, written over in turn: like the segments of a log, it is allocated before it is measured.
const BLOCKS: u64 = 256;

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
        environment.loopback_p50_us = loopback().ok().map(|latencies| median_us(&latencies));
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

/// A file that is removed when the measurement is over, however it ends.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a file that cannot be removed, and nothing depends on it.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn fdatasync(dir: &Path) -> io::Result<Latencies> {
    let path = dir.join(format!(".pelago-bench-fsync-{}", std::process::id()));
    let file: File = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let _scratch = Scratch(path);
    let block = vec![0x5a; BLOCK];
    for number in 0..BLOCKS {
        file.write_all_at(&block, number * BLOCK as u64)?;
    }
    file.sync_all()?;
    let mut latencies = Latencies::default();
    let begun = Instant::now();
    for number in (0..BLOCKS).cycle() {
        let before = Instant::now();
        file.write_all_at(&block, number * BLOCK as u64)?;
        file.sync_data()?;
        latencies.record(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if begun.elapsed() > Duration::from_millis(500) {
            break;
        }
    }
    Ok(latencies)
}

fn loopback() -> io::Result<Latencies> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    let echo = std::thread::spawn(move || -> io::Result<()> {
        server.set_nodelay(true)?;
        let mut message = [0; 64];
        while server.read_exact(&mut message).is_ok() {
            server.write_all(&message)?;
        }
        Ok(())
    });
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut latencies = Latencies::default();
    let mut message = [0; 64];
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(200) {
        let before = Instant::now();
        client.write_all(&message)?;
        client.read_exact(&mut message)?;
        latencies.record(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    drop(client);
    let _ = echo.join();
    Ok(latencies)
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
