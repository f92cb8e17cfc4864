//! A disk that writes down every operation, and a power loss after any of them.
//!
//! [`RecordedDisk`] passes everything on to a [`SimDisk`] and keeps a [`Tape`] of what changed
//! something. [`Shadow`] plays the tape and says what a power loss may leave at that point:
//! exactly what the caller asks for, by rules written down a second time. A mistake in the
//! simulated disk does not hide one in the log.

use super::Dice;
use groups::log::{Access, Disk, DiskFile, DiskImage, Record, SimDisk, SimFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// One operation that changed something, or one thing the node came to know between two.
pub enum Entry {
    Operation(Operation),
    Note(Note),
}

pub enum Operation {
    Create {
        name: String,
        file: u64,
    },
    Write {
        file: u64,
        offset: usize,
        data: Vec<u8>,
    },
    /// With the name that the file had then.
    Sync {
        file: u64,
        name: String,
    },
    Rename {
        from: String,
        to: String,
        file: u64,
    },
    Remove {
        name: String,
    },
    SyncDir,
}

pub enum Note {
    /// A commit of these records begins.
    Commit(Vec<Record>),
    /// It has returned: what waited for it may have been said.
    Acknowledged,
    /// The log was opened again and had these records.
    Opened(Vec<Record>),
    /// The power was gone, and this is left.
    PowerLost(Vec<(String, u64, Vec<u8>)>),
}

/// Everything that happened to a disk, in order.
#[derive(Default)]
pub struct Tape {
    pub entries: Vec<Entry>,
    pub operations: u64,
    names: BTreeMap<String, u64>,
    next_file: u64,
}

impl Tape {
    fn new_file(&mut self) -> u64 {
        self.next_file += 1;
        self.next_file
    }

    fn name_of(&self, file: u64) -> String {
        self.names
            .iter()
            .find(|(_, found)| **found == file)
            .map_or_else(String::new, |(name, _)| name.clone())
    }

    fn operation(&mut self, operation: Operation) {
        match &operation {
            Operation::Create { name, file } => drop(self.names.insert(name.clone(), *file)),
            Operation::Rename { from, to, file } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *file);
            }
            Operation::Remove { name } => drop(self.names.remove(name)),
            Operation::Write { .. } | Operation::Sync { .. } | Operation::SyncDir => {}
        }
        self.operations += 1;
        self.entries.push(Entry::Operation(operation));
    }
}

pub type SharedTape = Arc<Mutex<Tape>>;

fn on(tape: &SharedTape) -> MutexGuard<'_, Tape> {
    tape.lock().expect("no test goes on after a panic")
}

/// A handle to a simulated disk that keeps a tape.
pub struct RecordedDisk {
    disk: SimDisk,
    tape: SharedTape,
    preparing: Option<Preparing>,
}

/// A file that is filled with zeros between the commits, as the thread of a real disk would.
struct Preparing {
    name: String,
    size: u64,
    file: Option<RecordedFile>,
    written: u64,
    synced: u64,
}

impl RecordedDisk {
    pub fn new(disk: &SimDisk, tape: &SharedTape) -> RecordedDisk {
        RecordedDisk { disk: disk.clone(), tape: Arc::clone(tape), preparing: None }
    }

    /// Takes the power away, and writes down what is left.
    pub fn crash(disk: &SimDisk, tape: &SharedTape) {
        disk.crash();
        let mut tape = on(tape);
        tape.names.clear();
        let mut left = Vec::new();
        for (name, data) in disk.image().files() {
            let file = tape.new_file();
            tape.names.insert(name.clone(), file);
            left.push((name.clone(), file, data.clone()));
        }
        tape.entries.push(Entry::Note(Note::PowerLost(left)));
    }

    /// One operation of the preparation; the outcome if it was the last.
    fn step(&mut self) -> Option<io::Result<()>> {
        let mut preparing = self.preparing.take()?;
        match preparing.step(self) {
            Ok(false) => {
                self.preparing = Some(preparing);
                None
            }
            Ok(true) => Some(Ok(())),
            Err(error) => {
                let _ = self.remove(&preparing.name);
                Some(Err(error))
            }
        }
    }
}

impl Preparing {
    fn step(&mut self, disk: &RecordedDisk) -> io::Result<bool> {
        let Some(file) = &mut self.file else {
            self.file = Some(disk.create(&self.name)?);
            return Ok(false);
        };
        if self.synced < self.written {
            file.sync()?;
            self.synced = self.written;
        } else {
            let piece = (self.size / 4).min(self.size - self.written);
            file.write_at(&vec![0; piece as usize], self.written)?;
            self.written += piece;
        }
        Ok(self.synced == self.size)
    }
}

impl Disk for RecordedDisk {
    type File = RecordedFile;

    fn lock(&mut self) -> io::Result<bool> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<RecordedFile> {
        let inner = self.disk.open(name, access)?;
        let file = on(&self.tape).names[name];
        Ok(RecordedFile { inner, file, tape: Arc::clone(&self.tape) })
    }

    fn create(&self, name: &str) -> io::Result<RecordedFile> {
        let inner = self.disk.create(name)?;
        let mut tape = on(&self.tape);
        let file = tape.new_file();
        tape.operation(Operation::Create { name: name.into(), file });
        Ok(RecordedFile { inner, file, tape: Arc::clone(&self.tape) })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)?;
        let mut tape = on(&self.tape);
        let file = tape.names[from];
        tape.operation(Operation::Rename { from: from.into(), to: to.into(), file });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)?;
        let mut tape = on(&self.tape);
        if tape.names.contains_key(name) {
            tape.operation(Operation::Remove { name: name.into() });
        }
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()?;
        on(&self.tape).operation(Operation::SyncDir);
        Ok(())
    }

    fn start_prepare(&mut self, name: &str, size: u64) -> io::Result<()> {
        assert!(self.preparing.is_none(), "one preparation at a time");
        self.preparing = Some(Preparing { name: name.into(), size, file: None, written: 0, synced: 0 });
        Ok(())
    }

    fn poll_prepared(&mut self) -> Option<io::Result<()>> {
        self.step()
    }

    fn wait_prepared(&mut self) -> io::Result<()> {
        while self.preparing.is_some() {
            if let Some(outcome) = self.step() {
                return outcome;
            }
        }
        Err(io::Error::other("no file is being prepared"))
    }

    fn free_space(&self) -> io::Result<u64> {
        self.disk.free_space()
    }
}

pub struct RecordedFile {
    inner: SimFile,
    file: u64,
    tape: SharedTape,
}

impl DiskFile for RecordedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(data, offset)?;
        let (file, offset) = (self.file, offset as usize);
        on(&self.tape).operation(Operation::Write { file, offset, data: data.to_vec() });
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.inner.sync()?;
        let mut tape = on(&self.tape);
        let name = tape.name_of(self.file);
        tape.operation(Operation::Sync { file: self.file, name });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

/// What a power loss leaves of what was not synced.
pub enum Left<'a> {
    Nothing,
    All,
    /// Names alone, or contents alone.
    Names,
    Contents,
    /// Any of the writes, sector by sector or page by page, one of them torn at any byte; and
    /// the beginning or any of the changes of names.
    Any(&'a mut Dice),
    /// All, but only the first bytes of the last write.
    Head(usize),
    /// All, but of the last write only what follows its first bytes.
    Tail(usize),
}

/// A disk as the tape has it up to some operation: what is durable, and what is not.
#[derive(Clone, Default)]
pub struct Shadow {
    files: BTreeMap<u64, ShadowFile>,
    durable_names: BTreeMap<String, u64>,
    changes: Vec<Change>,
}

#[derive(Clone, Default)]
struct ShadowFile {
    durable: Vec<u8>,
    writes: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum Change {
    Set { name: String, file: u64, from: Option<String> },
    Remove { name: String },
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Change::Set { name, file, from } => {
                // The old name may stand for another file, if an earlier change was lost.
                if let Some(from) = from
                    && names.get(from) == Some(file)
                {
                    names.remove(from);
                }
                names.insert(name.clone(), *file);
            }
            Change::Remove { name } => drop(names.remove(name)),
        }
    }
}

impl Shadow {
    pub fn operation(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { name, file } => {
                self.files.insert(*file, ShadowFile::default());
                self.changes.push(Change::Set { name: name.clone(), file: *file, from: None });
            }
            Operation::Write { file, offset, data } => {
                self.file(*file).writes.push((*offset, data.clone()));
            }
            Operation::Sync { file, .. } => {
                let file = self.file(*file);
                for (offset, data) in std::mem::take(&mut file.writes) {
                    land(&mut file.durable, offset, &data);
                }
            }
            Operation::Rename { from, to, file } => {
                self.changes.push(Change::Set { name: to.clone(), file: *file, from: Some(from.clone()) });
            }
            Operation::Remove { name } => self.changes.push(Change::Remove { name: name.clone() }),
            Operation::SyncDir => {
                for change in std::mem::take(&mut self.changes) {
                    change.apply(&mut self.durable_names);
                }
                let named: BTreeSet<u64> = self.durable_names.values().copied().collect();
                self.files.retain(|file, _| named.contains(file));
            }
        }
    }

    pub fn power_lost(&mut self, left: &[(String, u64, Vec<u8>)]) {
        *self = Shadow::default();
        for (name, file, data) in left {
            self.durable_names.insert(name.clone(), *file);
            self.files.insert(*file, ShadowFile { durable: data.clone(), writes: Vec::new() });
        }
    }

    fn file(&mut self, file: u64) -> &mut ShadowFile {
        self.files.get_mut(&file).expect("a file that is written has a name")
    }

    /// The disk after a power loss now; `last` is the file of the last write.
    pub fn left(&self, left: &mut Left<'_>, last: Option<u64>) -> DiskImage {
        let names = self.names_left(left);
        let empty = SimDisk::new(0);
        let mut image = empty.image();
        for (name, file) in names {
            let data = self.files[&file].left(left, last == Some(file));
            image.files_mut().insert(name, data);
        }
        image
    }

    fn names_left(&self, left: &mut Left<'_>) -> BTreeMap<String, u64> {
        let mut names = self.durable_names.clone();
        let count = self.changes.len();
        let kept: Vec<bool> = match left {
            Left::Nothing | Left::Contents => vec![false; count],
            Left::All | Left::Names | Left::Head(_) | Left::Tail(_) => vec![true; count],
            // A journal keeps a prefix; a file system without one may keep any of them.
            Left::Any(dice) => {
                if dice.below(2) == 0 {
                    let prefix = dice.below(count as u64 + 1) as usize;
                    (0..count).map(|n| n < prefix).collect()
                } else {
                    (0..count).map(|_| dice.below(2) == 0).collect()
                }
            }
        };
        for (change, _) in self.changes.iter().zip(kept).filter(|(_, kept)| *kept) {
            change.apply(&mut names);
        }
        names
    }
}

impl ShadowFile {
    fn left(&self, left: &mut Left<'_>, last: bool) -> Vec<u8> {
        let mut data = self.durable.clone();
        match left {
            Left::Nothing | Left::Names => {}
            Left::Any(dice) => self.tear(&mut data, dice),
            Left::All | Left::Contents | Left::Head(_) | Left::Tail(_) => {
                let cut = if last { self.writes.len().saturating_sub(1) } else { self.writes.len() };
                for (n, (offset, bytes)) in self.writes.iter().enumerate() {
                    match left {
                        Left::Head(length) if n == cut => land(&mut data, *offset, &bytes[..*length]),
                        Left::Tail(length) if n == cut => {
                            land(&mut data, offset + *length, &bytes[*length..]);
                        }
                        _ => land(&mut data, *offset, bytes),
                    }
                }
            }
        }
        data
    }

    fn tear(&self, data: &mut Vec<u8>, dice: &mut Dice) {
        let durable = data.len();
        let unit = if dice.below(2) == 0 { SECTOR } else { PAGE };
        let units: BTreeSet<usize> = self
            .writes
            .iter()
            .flat_map(|(offset, bytes)| offset / unit..(offset + bytes.len()).div_ceil(unit))
            .collect();
        let torn = dice.below(2 * units.len().max(1) as u64) as usize;
        for (nth, at) in units.into_iter().enumerate() {
            let (start, end) = (at * unit, (at + 1) * unit);
            let touching: Vec<_> = self
                .writes
                .iter()
                .filter(|(offset, bytes)| *offset < end && offset + bytes.len() > start)
                .collect();
            let landed = dice.below(touching.len() as u64 + 1) as usize;
            for (n, (offset, bytes)) in touching[..landed].iter().enumerate() {
                let (from, mut to) = (start.max(*offset), end.min(offset + bytes.len()));
                if nth == torn && n + 1 == landed {
                    to = from + dice.below((to - from) as u64 + 1) as usize;
                }
                land(data, from, &bytes[from - offset..to - offset]);
            }
        }
        let full = self.writes.iter().map(|(offset, bytes)| offset + bytes.len()).max().unwrap_or(0);
        // The length is a thing of its own: lost, or there with holes.
        match dice.below(3) {
            0 => data.truncate(durable),
            1 => data.resize(data.len().max(full), 0),
            _ => {}
        }
    }
}

fn land(data: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset + bytes.len();
    if data.len() < end {
        data.resize(end, 0);
    }
    data[offset..end].copy_from_slice(bytes);
}
