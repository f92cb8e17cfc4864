//! The few small files that stand beside the engine: which format, which points are durable,
//! what went wrong at the last opening.
//!
//! Two implementations: [`Directory`] is the real one, [`DiskFiles`] lies on any
//! [`groups::log::Disk`], so that the simulator can lose, tear and fail these files too.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use groups::log::{Access, Disk, DiskFile};

use crate::durably;

/// Small files with fixed names. Names never come from outside.
pub trait Files: Send + Sync {
    /// What to call the place in an error.
    fn place(&self) -> &Path;

    /// A file's content, `None` if there is none.
    ///
    /// # Errors
    /// `InvalidData` when it is longer than `max` bytes, else what the operating system reports.
    fn read(&self, name: &str, max: usize) -> io::Result<Option<Vec<u8>>>;

    /// Replaces a file in one atomic, durable step.
    ///
    /// # Errors
    /// What the operating system reports; the old content stays in place then.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Removes a file and makes that durable; it is no error if there is none.
    ///
    /// # Errors
    /// What the operating system reports.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Whether something has this name.
    ///
    /// # Errors
    /// What the operating system reports.
    fn exists(&self, name: &str) -> io::Result<bool>;

    /// Bytes that everything here occupies on the disk.
    ///
    /// # Errors
    /// What the operating system reports.
    fn total_bytes(&self) -> io::Result<u64>;
}

/// A directory of the real file system; the engine's own directory lies in it.
#[derive(Debug)]
pub struct Directory {
    dir: PathBuf,
}

impl Directory {
    /// Takes a directory, creating it durably where there is none.
    ///
    /// # Errors
    /// What the operating system reports.
    pub fn open(dir: &Path) -> io::Result<Directory> {
        durably::create_dir(dir)?;
        Ok(Directory { dir: dir.to_owned() })
    }

    /// A directory that is there already.
    pub(super) fn at(dir: &Path) -> Directory {
        Directory { dir: dir.to_owned() }
    }
}

impl Files for Directory {
    fn place(&self) -> &Path {
        &self.dir
    }

    fn read(&self, name: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.dir.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut content = Vec::new();
        file.take(max as u64 + 1).read_to_end(&mut content)?;
        if content.len() > max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is too long")));
        }
        Ok(Some(content))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        durably::replace(&self.dir.join(name), content)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.dir.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => durably::sync_dir(&self.dir),
        }
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.dir.join(name).try_exists()
    }

    fn total_bytes(&self) -> io::Result<u64> {
        durably::disk_bytes(&self.dir)
    }
}

/// Small files on a [`Disk`], told from the disk's other files by a prefix of their names.
pub struct DiskFiles<D> {
    disk: Mutex<D>,
    prefix: &'static str,
    place: PathBuf,
}

impl<D: Disk> DiskFiles<D> {
    /// The files of `disk` whose names begin with `prefix`, which is a plain beginning of a
    /// file name, such as `mirror-`.
    pub fn new(disk: D, prefix: &'static str) -> DiskFiles<D> {
        DiskFiles { disk: Mutex::new(disk), prefix, place: PathBuf::from(prefix) }
    }

    fn with<T>(&self, name: &str, run: impl FnOnce(&D, &str) -> io::Result<T>) -> io::Result<T> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        run(&disk, &format!("{}{name}", self.prefix))
    }
}

impl<D: Disk> Files for DiskFiles<D> {
    fn place(&self) -> &Path {
        &self.place
    }

    fn read(&self, name: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        self.with(name, |disk, name| disk.read_small(name, max))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.with(name, |disk, name| disk.write_small(name, content))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.exists(name)? {
            return Ok(());
        }
        self.with(name, |disk, name| disk.remove(name).and_then(|()| disk.sync_dir()))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.with(name, |disk, name| match disk.open(name, Access::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|_| true),
        })
    }

    fn total_bytes(&self) -> io::Result<u64> {
        self.with("", |disk, prefix| {
            let mut sum = 0;
            for name in disk.list()?.iter().filter(|name| name.starts_with(prefix)) {
                sum += disk.open(name, Access::Read)?.len()?;
            }
            Ok(sum)
        })
    }
}
