//! What long work notes beside a file, so that a later run can go on where this one ended.
//!
//! It is one JSON document, replaced as a whole (written beside, synced, renamed): after a crash it
//! says where the work certainly was. What it names is done; a little more may be.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_128;

use super::Failure;

/// Between two notes.
const EVERY: Duration = Duration::from_millis(500);

/// No note is longer.
const MAX_NOTE: u64 = 1 << 20;

/// Where work is noted.
#[derive(Debug)]
pub struct SideFile {
    path: PathBuf,
    noted: Option<Instant>,
}

impl SideFile {
    /// The one of `file` that ends in `.suffix`.
    pub fn of(file: &Path, suffix: &str) -> SideFile {
        let mut path = file.as_os_str().to_owned();
        path.push(".");
        path.push(suffix);
        SideFile { path: path.into(), noted: None }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What an earlier run has noted.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        let shown = self.path.display();
        let mut text = Vec::new();
        match File::open(&self.path).and_then(|file| file.take(MAX_NOTE).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::error(format!("{shown} cannot be read: {error}"))),
        }
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Failure::error(format!(
                "{shown} does not say how far an earlier run came: {error}. Nothing was sent. Run it again without --resume"
            ))
        })
    }

    /// Whether the last note is old enough for a new one.
    pub fn is_due(&self) -> bool {
        self.noted.is_none_or(|noted| noted.elapsed() >= EVERY)
    }

    /// Notes.
    pub fn note(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(what).map_err(io::Error::other)?;
        text.push(b'\n');
        checkpoint::durably::replace(&self.path, &text)?;
        self.noted = Some(Instant::now());
        Ok(())
    }

    /// The work is done.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The directory under a name to which something can be appended: no slash at its end, which a shell's
/// completion leaves there, and neither `.` nor `..`.
pub fn plain(dir: &Path) -> PathBuf {
    let dir: PathBuf = dir.components().collect();
    match dir.file_name() {
        Some(_) => dir,
        None => fs::canonicalize(&dir).unwrap_or(dir),
    }
}

/// Bytes that are looked at where a file is recognised.
const LOOKED_AT: u64 = 1 << 20;

/// Tells a file from another one, and from itself with other content: its length, and a checksum of its
/// beginning and of what lies before `offset`. Whoever changes bytes in between without a change of
/// length is not found out.
pub fn fingerprint(file: &mut File, offset: u64) -> io::Result<(u64, String)> {
    let length = file.metadata()?.len();
    let mut looked = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    io::Read::by_ref(file).take(LOOKED_AT.min(offset)).read_to_end(&mut looked)?;
    file.seek(SeekFrom::Start(offset.saturating_sub(LOOKED_AT)))?;
    io::Read::by_ref(file).take(LOOKED_AT.min(offset)).read_to_end(&mut looked)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok((length, format!("{:032x}", xxh3_128(&looked))))
}
