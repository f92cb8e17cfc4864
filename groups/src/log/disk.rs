//! The one door to the file system.
//!
//! A [`Disk`] is one directory. Names are relative to it and never come from outside. There are
//! two: [`RealDisk`] here and [`SimDisk`](crate::log::SimDisk) in `sim_disk.rs`; whatever the
//! log does to files, the simulator can therefore interrupt, lose, tear and fail.
//!
//! Rules for every implementation: an error of a sync is final for that file (the kernel may
//! have dropped the dirty pages and would report success the next time), a name is durable only
//! after [`sync_dir`](Disk::sync_dir), and content only after [`sync`](DiskFile::sync).
//!
//! # How commits are written
//!
//! Segments are zero-filled and synced before they are used, so a commit changes data only. On
//! the machine this was written on (2 cores shared, ext4 on virtio; writes per second and CPU
//! microseconds per write, three processes together):
//!
//! | | 512 B | 4 KiB | 64 KiB |
//! | --- | --- | --- | --- |
//! | buffered, fdatasync | 1 420/s, 80 µs | 1 850/s, 73 µs | 2 230/s, 85 µs |
//! | `O_DIRECT` and `O_DSYNC` | 1 970/s, 59 µs | 2 580/s, 46 µs | 2 010/s, 71 µs |
//!
//! So commits are written directly where the file system allows it for 512-byte blocks, and
//! buffered with an fdatasync elsewhere.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading, and writing in pairs of [`write_at`](DiskFile::write_at) and
    /// [`sync`](DiskFile::sync). The file may make each write durable by itself.
    Synced,
    /// Reading, and writing without syncs.
    Unsynced,
}

/// One directory of files.
pub trait Disk: Send + 'static {
    /// A file of it.
    type File: DiskFile;

    /// Takes the directory for this handle until it is dropped. `false` if another has it.
    fn lock(&mut self) -> io::Result<bool>;

    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file.
    fn open(&self, name: &str, access: Access) -> io::Result<Self::File>;

    /// Creates an empty file, or empties the one that is there, for [`Access::Synced`].
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Renames a file over whatever has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; it is no error if there is none.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Begins to create a zero-filled, synced file of `size` bytes in the background. One at a
    /// time; the name itself is not yet durable when it is done. A failed one leaves no file.
    fn start_prepare(&mut self, name: &str, size: u64) -> io::Result<()>;

    /// How the preparation ended; `None` while it runs and when none was started. The end is
    /// reported once.
    fn poll_prepared(&mut self) -> Option<io::Result<()>>;

    /// Waits for the preparation that was started and says how it ended.
    fn wait_prepared(&mut self) -> io::Result<()>;

    /// Bytes that this process may still write.
    fn free_space(&self) -> io::Result<u64>;

    /// The content of a small file, `None` if there is none. Longer than `max` is an error.
    fn read_small(&self, name: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open(name, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.len()?;
        if length > max as u64 {
            let why = format!("{name} has {length} bytes, at most {max} are allowed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let mut data = vec![0; length as usize];
        file.read_at(&mut data, 0)?;
        Ok(Some(data))
    }

    /// Replaces a small file in one atomic, durable step: after a crash it has the old content
    /// or the new one.
    fn write_small(&self, name: &str, data: &[u8]) -> io::Result<()> {
        let tmp = format!("{name}.tmp");
        let mut file = self.create(&tmp)?;
        file.write_at(data, 0)?;
        file.sync()?;
        drop(file);
        self.rename(&tmp, name)?;
        self.sync_dir()
    }
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Fills `buf` from `offset`; the end of the file before that is an error.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// These bytes will be read soon: a hint.
    fn will_read(&self, _offset: u64, _length: u64) {}

    /// Writes all of `data` at `offset`.
    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Returns when everything written is durable. After an error the file must not be trusted
    /// again, nor synced again.
    fn sync(&mut self) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Direct writes must begin, end and lie in memory at multiples of this. The log writes nothing
/// else; where the device wants more, the file is opened for buffered writes.
const DIRECT_ALIGN: usize = 512;

/// Where direct writes lie in memory: a page, which every device accepts.
const MEMORY_ALIGN: usize = 4096;

/// A direct write goes out in pieces of at most this many bytes.
const DIRECT_MAX: usize = 1 << 20;

/// Zeros are written and synced in pieces of this many bytes, so that a commit that comes in
/// between does not wait for a whole segment to reach the disk.
const ZERO_STEP: usize = 1 << 20;

const LOCK_FILE: &str = "LOCK";

/// A directory of the real file system.
pub struct RealDisk {
    dir: PathBuf,
    lock: Option<File>,
    preparing: Option<Preparing>,
}

struct Preparing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl RealDisk {
    /// Opens a directory, creating it if its parent is there.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let dir = dir.into();
        match std::fs::create_dir(&dir) {
            Ok(()) => {
                let parent = dir.parent().filter(|path| !path.as_os_str().is_empty());
                sync_directory(parent.unwrap_or(Path::new(".")))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(RealDisk { dir, lock: None, preparing: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        assert!(!name.contains('/') && !name.starts_with('.'), "{name} is not a plain file name");
        self.dir.join(name)
    }
}

impl Drop for RealDisk {
    fn drop(&mut self) {
        // The directory must be still before the lock goes with the handle.
        if let Some(preparing) = self.preparing.take() {
            preparing.stop.store(true, Ordering::Relaxed);
            let _ = preparing.thread.join();
        }
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    fn lock(&mut self) -> io::Result<bool> {
        if self.lock.is_some() {
            return Ok(true);
        }
        let path = self.path(LOCK_FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.lock = Some(file);
                Ok(true)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<RealFile> {
        let path = self.path(name);
        let plain = OpenOptions::new().read(true).write(access != Access::Read).open(&path)?;
        let direct = if access == Access::Synced { open_direct(&path)? } else { None };
        Ok(RealFile { plain, direct, bounce: Vec::new(), unsynced: true })
    }

    fn create(&self, name: &str) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let plain = options.open(self.path(name))?;
        Ok(RealFile { plain, direct: None, bounce: Vec::new(), unsynced: true })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        remove_if_there(&self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_directory(&self.dir)
    }

    fn start_prepare(&mut self, name: &str, size: u64) -> io::Result<()> {
        assert!(self.preparing.is_none(), "one preparation at a time");
        let path = self.path(name);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let body = move || {
            let end = zero_fill(&path, size, &stopped);
            if end.is_err() {
                // What is left would only take the space that may just have run out.
                let _ = remove_if_there(&path);
            }
            end
        };
        let thread = std::thread::Builder::new().name("log-prepare".into()).spawn(body)?;
        self.preparing = Some(Preparing { stop, thread });
        Ok(())
    }

    fn poll_prepared(&mut self) -> Option<io::Result<()>> {
        let preparing = self.preparing.take_if(|preparing| preparing.thread.is_finished())?;
        Some(join(preparing))
    }

    fn wait_prepared(&mut self) -> io::Result<()> {
        match self.preparing.take() {
            Some(preparing) => join(preparing),
            None => Err(io::Error::other("no file is being prepared")),
        }
    }

    fn free_space(&self) -> io::Result<u64> {
        let fs = rustix::fs::statvfs(&self.dir)?;
        Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
    }
}

impl RealDisk {
    /// Lets the kernel forget what it remembers of a file, as far as that is on the disk: the next
    /// read asks the disk itself.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        let file = File::open(self.dir.join(name))?;
        Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
    }
}

fn join(preparing: Preparing) -> io::Result<()> {
    preparing.thread.join().unwrap_or_else(|_| Err(io::Error::other("the preparing thread panicked")))
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn zero_fill(path: &Path, size: u64, stop: &AtomicBool) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    // Asks for the space at once and in one piece; where it is not supported, writing will do.
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    let zeros = vec![0; ZERO_STEP];
    let mut at = 0;
    while at < size {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        let step = (size - at).min(ZERO_STEP as u64);
        file.write_all_at(&zeros[..step as usize], at)?;
        file.sync_data()?;
        at += step;
    }
    file.sync_all()
}

/// The same file for direct writes, or `None` where those do not work with 512-byte blocks.
fn open_direct(path: &Path) -> io::Result<Option<File>> {
    let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags.bits() as i32);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut memory = Vec::new();
    let probe = aligned(&mut memory, DIRECT_ALIGN);
    loop {
        match file.read_at(probe, 0) {
            Ok(_) => return Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// `length` bytes of `memory`, grown as needed, that begin at a page.
fn aligned(memory: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if memory.len() < length + MEMORY_ALIGN {
        memory.resize(length + MEMORY_ALIGN, 0);
    }
    let start = memory.as_ptr().align_offset(MEMORY_ALIGN);
    &mut memory[start..start + length]
}

/// A file of a [`RealDisk`].
pub struct RealFile {
    plain: File,
    /// The same file, where each write is durable when it returns.
    direct: Option<File>,
    /// Aligned memory that direct writes are copied to; at most `DIRECT_MAX` and a page.
    bounce: Vec<u8>,
    /// Whether something was written to `plain` that is not yet synced, or may be (a kernel may
    /// hold pages of the process that had the file before).
    unsynced: bool,
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.plain.read_exact_at(buf, offset)
    }

    fn will_read(&self, offset: u64, length: u64) {
        // Where it does nothing, the reads themselves will do.
        let length = std::num::NonZeroU64::new(length);
        let _ = rustix::fs::fadvise(&self.plain, offset, length, rustix::fs::Advice::WillNeed);
    }

    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        let aligned_call =
            data.len().is_multiple_of(DIRECT_ALIGN) && offset.is_multiple_of(DIRECT_ALIGN as u64);
        match &self.direct {
            Some(direct) if aligned_call => {
                let mut at = offset;
                for piece in data.chunks(DIRECT_MAX) {
                    let memory = aligned(&mut self.bounce, piece.len());
                    memory.copy_from_slice(piece);
                    write_direct(direct, memory, at)?;
                    at += piece.len() as u64;
                }
                Ok(())
            }
            _ => {
                self.unsynced = true;
                self.plain.write_all_at(data, offset)
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.direct.is_none() || self.unsynced {
            // EINTR included: an error says nothing about what has reached the disk.
            rustix::fs::fdatasync(&self.plain)?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.plain.metadata()?.len())
    }
}

fn write_direct(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < data.len() {
        match file.write_at(&data[done..], offset + done as u64) {
            // A short write may end inside a block, and what follows must begin at one.
            Ok(n) if done + n < data.len() => {
                let landed = (done + n) / DIRECT_ALIGN * DIRECT_ALIGN;
                if landed <= done {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                done = landed;
            }
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
