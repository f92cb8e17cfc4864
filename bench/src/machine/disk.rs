//! Durable writes: by appending, as most programs do, and into a file that was filled with zeros before, as a log that
//! cares does, so that no write changes anything but data.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::OFlags;

use super::repeat;
use crate::stats::Latencies;

/// How a write is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Appending so many bytes, and fdatasync.
    Append(usize),
    /// Overwriting so many zeros, and fdatasync.
    Synced(usize),
    /// Overwriting so many zeros past the page cache, each write durable by itself.
    Direct(usize),
}

/// What is measured.
pub const WAYS: [(&str, Way); 5] = [
    ("append 128 B, fdatasync", Way::Append(128)),
    ("4 KiB into a zero-filled file, fdatasync", Way::Synced(4 << 10)),
    ("4 KiB into a zero-filled file, O_DIRECT|O_DSYNC", Way::Direct(4 << 10)),
    ("64 KiB into a zero-filled file, fdatasync", Way::Synced(64 << 10)),
    ("64 KiB into a zero-filled file, O_DIRECT|O_DSYNC", Way::Direct(64 << 10)),
];

/// Size of the zero-filled file.
const SIZE: u64 = 16 << 20;
/// Direct writes begin and end at multiples of this.
const BLOCK: usize = 512;
/// And lie in memory at multiples of this.
const PAGE: usize = 4096;
/// Written at once while the file is filled.
const ZEROS: usize = 1 << 20;

/// Writes in this way for so long. `None` if the file system does not have it.
pub fn measure(dir: &Path, way: Way, time: Duration) -> io::Result<Option<Latencies>> {
    let (Way::Append(size) | Way::Synced(size) | Way::Direct(size)) = way;
    let data = vec![0x5a; size];
    if let Way::Append(_) = way {
        let file = nameless(dir)?;
        let mut at = 0;
        return repeat(time, || {
            file.write_all_at(&data, at)?;
            at += data.len() as u64;
            file.sync_data()
        })
        .map(Some);
    }
    if let Way::Synced(_) = way {
        return synced(dir, SIZE, &data, time).map(Some);
    }
    let mut ring = Ring::create(dir, SIZE)?;
    if ring.direct.is_none() {
        return Ok(None);
    }
    repeat(time, || ring.write(&data)).map(Some)
}

/// Writes this over the zeros of a file of so many bytes, with fdatasync, for so long.
pub fn synced(dir: &Path, size: u64, data: &[u8], time: Duration) -> io::Result<Latencies> {
    let mut ring = Ring::create(dir, size)?;
    ring.direct = None;
    repeat(time, || ring.write(data))
}

/// A zero-filled file without a name that is written over from its beginning when its end is reached.
#[derive(Debug)]
pub struct Ring {
    plain: File,
    /// The same file, where every write is durable when it returns; `None` where there is no such thing.
    direct: Option<File>,
    size: u64,
    at: u64,
    /// Aligned memory, from which direct writes go out.
    memory: Vec<u8>,
}

impl Ring {
    /// Fills a file with so many zeros.
    pub fn create(dir: &Path, size: u64) -> io::Result<Ring> {
        let path = fresh_name(dir);
        let plain = create(&path)?;
        let direct = open_direct(&path);
        // Without a name it is gone with the process, however that ends.
        std::fs::remove_file(&path)?;
        let zeros = vec![0; ZEROS];
        let mut at = 0;
        while at < size {
            let step = (size - at).min(ZEROS as u64);
            plain.write_all_at(&zeros[..step as usize], at)?;
            at += step;
        }
        plain.sync_all()?;
        Ok(Ring { plain, direct: direct?, size, at: 0, memory: Vec::new() })
    }

    /// Writes whole blocks, with zeros behind the data. They are durable when this returns.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let length = data.len().next_multiple_of(BLOCK);
        if length as u64 > self.size {
            return Err(io::Error::other(format!("{length} bytes do not fit a file of {}", self.size)));
        }
        if self.at + length as u64 > self.size {
            self.at = 0;
        }
        if self.memory.len() < length + PAGE {
            self.memory.resize(length + PAGE, 0);
        }
        let start = self.memory.as_ptr().align_offset(PAGE);
        let block = &mut self.memory[start..start + length];
        block[..data.len()].copy_from_slice(data);
        block[data.len()..].fill(0);
        match &self.direct {
            // A direct write of a few blocks is all or nothing on every file system that has them.
            Some(direct) => direct.write_all_at(block, self.at)?,
            None => {
                self.plain.write_all_at(block, self.at)?;
                self.plain.sync_data()?;
            }
        }
        self.at += length as u64;
        Ok(())
    }
}

/// A file that is gone when it is closed.
fn nameless(dir: &Path) -> io::Result<File> {
    let path = fresh_name(dir);
    let file = create(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

fn fresh_name(dir: &Path) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    dir.join(format!(".pelago-bench-disk-{}-{number}", std::process::id()))
}

fn open_direct(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::DIRECT | OFlags::DSYNC;
    match OpenOptions::new().write(true).custom_flags(flags.bits() as i32).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ring: &Ring, at: u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        ring.plain.read_exact_at(&mut block, at).expect("within the file");
        block
    }

    #[test]
    fn a_ring_is_written_in_whole_blocks_and_begins_again_at_its_end() {
        for direct in [true, false] {
            let mut ring = Ring::create(&std::env::temp_dir(), 4 * BLOCK as u64).expect("created");
            if !direct {
                ring.direct = None;
            }
            ring.write(&[1; 100]).expect("written");
            ring.write(&[2; 513]).expect("written");
            assert_eq!((read(&ring, 0)[99], read(&ring, 0)[100]), (1, 0));
            assert_eq!((read(&ring, 512)[511], read(&ring, 1024)[0], read(&ring, 1024)[1]), (2, 2, 0));
            ring.write(&[3; 600]).expect("written");
            assert_eq!(read(&ring, 0), [3; BLOCK], "there were not two blocks left");
            assert!(ring.write(&[0; 5 * BLOCK]).is_err());
        }
    }

    #[test]
    fn every_way_is_measured_and_no_file_is_left() {
        let dir = std::env::temp_dir().join(format!("pelago-bench-disk-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("created");
        for (what, way) in WAYS {
            let measured = measure(&dir, way, Duration::from_millis(5)).expect(what);
            assert!(measured.is_none_or(|latencies| latencies.quantile(0.5) > 0), "{what}");
        }
        std::fs::remove_dir(&dir).expect("empty");
    }
}
