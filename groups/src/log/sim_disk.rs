//! A disk in memory that forgets, tears and fails like a real one, from a seed.
//!
//! The [`SimDisk`] that a node gets is a handle; the disk itself is shared and survives the
//! node. [`crash`](SimDisk::crash) is a power loss: what was synced stays; of what was not, each
//! sector (or each page) independently has its content from before or after any of the writes;
//! each unsynced change of a name has happened or not. [`kill`](SimDisk::kill) is the death of
//! the process alone: the kernel still has everything. Both end the life of all handles; take a
//! new one with `clone`.
//!
//! A sync that fails behaves like Linux: its pages stay readable, but are never written by a
//! later sync unless they are changed again.

use crate::log::disk::{Access, Disk, DiskFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR: usize = 512;
const PAGE_SECTORS: u64 = 8;

/// A handle to a simulated disk. Every clone belongs to the life that the disk has at that time.
pub struct SimDisk {
    world: Arc<Mutex<World>>,
    life: u64,
    holds_lock: bool,
    preparing: Option<io::Result<()>>,
}

/// The content of a whole disk, to be put back later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskImage {
    files: BTreeMap<String, Vec<u8>>,
}

impl DiskImage {
    /// Names and contents.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }

    /// Names and contents, to be changed before the image is put back.
    pub fn files_mut(&mut self) -> &mut BTreeMap<String, Vec<u8>> {
        &mut self.files
    }
}

struct World {
    random: SplitMix,
    life: u64,
    locked: bool,
    next_file: u64,
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the last sync of the directory.
    name_changes: Vec<NameChange>,
    faults: Faults,
    operations: u64,
    sync_micros: u64,
    /// So many of a thousand syncs take ten times as long.
    slow_syncs: u64,
}

#[derive(Default)]
struct Faults {
    stop_at: Option<u64>,
    writes_until_error: Option<u64>,
    syncs_until_error: Option<u64>,
    removes_until_error: Option<u64>,
    capacity: Option<u64>,
}

#[derive(Clone)]
enum NameChange {
    Add { name: String, file: u64 },
    Rename { from: String, to: String, file: u64 },
    Remove { name: String },
}

#[derive(Default)]
struct Inode {
    /// What a read sees.
    data: Vec<u8>,
    /// The length that a power loss cannot take back.
    durable_length: usize,
    /// The durable content of each sector that was written since the last sync.
    before: BTreeMap<u64, [u8; SECTOR]>,
    /// The writes since the last sync, oldest first.
    writes: Vec<(usize, Vec<u8>)>,
    /// The durable content of sectors that a failed sync left behind: no later sync writes them.
    forsaken: BTreeMap<u64, [u8; SECTOR]>,
}

/// Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// Control of the simulated disk. Works with any handle, of whichever life.
impl SimDisk {
    /// An empty disk; everything random about it follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        let world = World {
            random: SplitMix(seed),
            life: 0,
            locked: false,
            next_file: 1,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            faults: Faults::default(),
            operations: 0,
            sync_micros: 0,
            slow_syncs: 0,
        };
        SimDisk { world: Arc::new(Mutex::new(world)), life: 0, holds_lock: false, preparing: None }
    }

    /// Power loss. Faults that were asked for are over; a capacity stays.
    pub fn crash(&self) {
        let mut world = self.world();
        world.end_life();
        world.lose_names();
        let World { files, random, .. } = &mut *world;
        for inode in files.values_mut() {
            inode.lose_power(random);
        }
        world.drop_nameless();
    }

    /// The process dies; the kernel keeps what it has.
    pub fn kill(&self) {
        self.world().end_life();
    }

    /// All operations behind the `n`th from the start of the disk fail and do nothing, as if the
    /// process had died there.
    pub fn stop_after(&self, n: u64) {
        self.world().faults.stop_at = Some(n);
    }

    /// How many operations have changed something: writes, syncs and changes of names.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// The `n`th write from now on (the next is 1) fails with EIO, having written a part.
    pub fn fail_write(&self, n: u64) {
        self.world().faults.writes_until_error = Some(n);
    }

    /// The `n`th sync from now on (the next is 1), of a file or the directory, fails with EIO.
    pub fn fail_sync(&self, n: u64) {
        self.world().faults.syncs_until_error = Some(n);
    }

    /// The `n`th removal of a file from now on (the next is 1) fails with EIO.
    pub fn fail_remove(&self, n: u64) {
        self.world().faults.removes_until_error = Some(n);
    }

    /// Files may take this many bytes together; more is ENOSPC.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world().faults.capacity = bytes;
    }

    /// How long a sync takes, in microseconds, for whoever simulates time.
    pub fn set_sync_micros(&self, micros: u64) {
        self.world().sync_micros = micros;
    }

    /// How long a sync takes, in microseconds.
    #[must_use]
    pub fn sync_micros(&self) -> u64 {
        self.world().sync_micros
    }

    /// Flips one bit of a file, on the medium. `false` if there is no such bit.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> bool {
        let mask = 1 << (bit % 8);
        self.world().damage(name, offset, 1, |byte| *byte ^= mask)
    }

    /// Loses bytes of a file, on the medium: they read as zeros. `false` if they are not there.
    pub fn lose_block(&self, name: &str, offset: u64, length: usize) -> bool {
        self.world().damage(name, offset, length, |byte| *byte = 0)
    }

    /// Makes a write that was synced long ago one that went astray: the bytes at `from` stand at
    /// `to` instead, and `from` is as empty as before it. `false` if either place is not there.
    pub fn misplace(&self, name: &str, from: u64, to: u64, length: usize) -> bool {
        let mut world = self.world();
        let Some(inode) = world.names.get(name).copied().and_then(|file| world.files.get_mut(&file)) else {
            return false;
        };
        let (from, to) = (from as usize, to as usize);
        if from.max(to) + length > inode.data.len() {
            return false;
        }
        inode.data.copy_within(from..from + length, to);
        inode.data[from..from + length].fill(0);
        true
    }

    /// From now on so many of a thousand syncs take ten times as long as the others.
    pub fn set_slow_syncs(&self, share: u64) {
        self.world().slow_syncs = share;
    }

    /// How long the next sync takes, in microseconds: a draw, to be asked once per sync.
    #[must_use]
    pub fn next_sync_micros(&self) -> u64 {
        let mut world = self.world();
        let (micros, share) = (world.sync_micros, world.slow_syncs as usize);
        if share > 0 && world.random.below(1000) < share { micros * 10 } else { micros }
    }

    /// What a reader would see of the whole disk.
    #[must_use]
    pub fn image(&self) -> DiskImage {
        let world = self.world();
        let files = world.names.iter().map(|(name, file)| (name.clone(), world.files[file].data.clone()));
        DiskImage { files: files.collect() }
    }

    /// Puts an image on the disk in place of everything, durably, and ends the life of all
    /// handles: for disks that are exchanged or restored from an old copy.
    pub fn restore(&self, image: &DiskImage) {
        let mut world = self.world();
        world.end_life();
        world.files.clear();
        world.names.clear();
        world.name_changes.clear();
        for (name, data) in &image.files {
            let file = world.new_file();
            let inode = Inode { durable_length: data.len(), data: data.clone(), ..Inode::default() };
            world.files.insert(file, inode);
            world.names.insert(name.clone(), file);
        }
        world.durable_names = world.names.clone();
    }

    fn world(&self) -> MutexGuard<'_, World> {
        // A panic of a test with the lock in hand leaves nothing half-changed that matters.
        self.world.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The world, if this handle still has a life in it.
    fn alive(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.world();
        world.check_life(self.life)?;
        Ok(world)
    }

    fn fill(&self, name: &str, size: u64) -> io::Result<()> {
        let mut file = self.create(name)?;
        let filled = file.write_at(&vec![0; size as usize], 0).and_then(|()| file.sync());
        if filled.is_err() {
            let _ = self.remove(name);
        }
        filled
    }
}

impl Clone for SimDisk {
    fn clone(&self) -> SimDisk {
        let life = self.world().life;
        SimDisk { world: Arc::clone(&self.world), life, holds_lock: false, preparing: None }
    }
}

impl Drop for SimDisk {
    fn drop(&mut self) {
        let mut world = self.world();
        if self.holds_lock && self.life == world.life {
            world.locked = false;
        }
    }
}

impl World {
    fn check_life(&self, life: u64) -> io::Result<()> {
        if life == self.life { Ok(()) } else { Err(io::Error::other("a handle from before the crash")) }
    }

    /// Counts an operation that changes something, unless the world has stopped before it.
    fn operate(&mut self) -> io::Result<()> {
        if self.faults.stop_at.is_some_and(|stop| self.operations >= stop) {
            return Err(io::Error::other("the simulated process has stopped"));
        }
        self.operations += 1;
        Ok(())
    }

    fn end_life(&mut self) {
        self.life += 1;
        self.locked = false;
        self.faults = Faults { capacity: self.faults.capacity, ..Faults::default() };
    }

    fn new_file(&mut self) -> u64 {
        self.next_file += 1;
        self.next_file
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn lose_names(&mut self) {
        let changes = std::mem::take(&mut self.name_changes);
        // A journal keeps a prefix; a file system without one may keep any of them.
        let prefix = self.random.coin().then(|| self.random.below(changes.len() + 1));
        for (n, change) in changes.iter().enumerate() {
            let kept = match prefix {
                Some(prefix) => n < prefix,
                None => self.random.coin(),
            };
            if kept {
                change.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
    }

    fn drop_nameless(&mut self) {
        let named: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        let pending = &self.name_changes;
        self.files.retain(|file, _| named.contains(file) || pending.iter().any(|change| change.names(*file)));
    }

    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[file].data.len() as u64).sum()
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn damage(&mut self, name: &str, offset: u64, length: usize, change: impl Fn(&mut u8)) -> bool {
        let Some(inode) = self.names.get(name).and_then(|file| self.files.get_mut(file)) else {
            return false;
        };
        let Some(bytes) = usize::try_from(offset).ok().and_then(|at| inode.data.get_mut(at..at + length))
        else {
            return false;
        };
        bytes.iter_mut().for_each(&change);
        true
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Add { name, file } => {
                names.insert(name.clone(), *file);
            }
            NameChange::Rename { from, to, file } => {
                // The name may stand for another file by now, if an earlier change was lost.
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            NameChange::Remove { name } => {
                names.remove(name);
            }
        }
    }

    fn names(&self, wanted: u64) -> bool {
        match self {
            NameChange::Add { file, .. } | NameChange::Rename { file, .. } => *file == wanted,
            NameChange::Remove { .. } => false,
        }
    }
}

impl Inode {
    fn sector(&self, sector: u64) -> [u8; SECTOR] {
        let mut out = [0; SECTOR];
        let start = (sector as usize * SECTOR).min(self.data.len());
        let end = (start + SECTOR).min(self.data.len());
        out[..end - start].copy_from_slice(&self.data[start..end]);
        out
    }

    fn write(&mut self, data: &[u8], offset: usize) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len();
        if offset >= self.data.len() && data.iter().all(|&byte| byte == 0) {
            // Behind the end zeros look the same whether they have landed or not.
            self.data.resize(end, 0);
            return;
        }
        let (first, last) = ((offset / SECTOR) as u64, ((end - 1) / SECTOR) as u64);
        self.revive(first / PAGE_SECTORS * PAGE_SECTORS, last / PAGE_SECTORS * PAGE_SECTORS + PAGE_SECTORS);
        for sector in first..=last {
            let before = self.sector(sector);
            self.before.entry(sector).or_insert(before);
        }
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[offset..end].copy_from_slice(data);
        self.writes.push((offset, data.to_vec()));
    }

    /// Pages that are changed again are dirty again, with everything in them.
    fn revive(&mut self, from: u64, to: u64) {
        let sectors: Vec<u64> = self.forsaken.range(from..to).map(|(&sector, _)| sector).collect();
        for sector in sectors {
            if let Some(before) = self.forsaken.remove(&sector) {
                self.before.insert(sector, before);
                let start = sector as usize * SECTOR;
                let end = (start + SECTOR).min(self.data.len());
                self.writes.push((start, self.data[start..end].to_vec()));
            }
        }
    }

    fn synced(&mut self) {
        self.before.clear();
        self.writes.clear();
        self.durable_length = self.data.len();
    }

    fn sync_failed(&mut self, random: &mut SplitMix) {
        // Some of it may have reached the medium all the same.
        for (sector, before) in std::mem::take(&mut self.before) {
            if random.coin() {
                self.forsaken.entry(sector).or_insert(before);
            }
        }
        self.writes.clear();
    }

    fn lose_power(&mut self, random: &mut SplitMix) {
        for (sector, before) in std::mem::take(&mut self.forsaken) {
            if !self.before.contains_key(&sector) && random.coin() {
                self.put(sector, &before);
            }
        }
        let before = std::mem::take(&mut self.before);
        let writes = std::mem::take(&mut self.writes);
        for (&sector, content) in &before {
            self.put(sector, content);
        }
        let unit = if random.coin() { 1 } else { PAGE_SECTORS };
        let units: BTreeSet<u64> = before.keys().map(|sector| sector / unit).collect();
        for at in units {
            let (start, end) =
                (at as usize * unit as usize * SECTOR, (at + 1) as usize * unit as usize * SECTOR);
            let touching: Vec<&(usize, Vec<u8>)> =
                writes.iter().filter(|(offset, data)| *offset < end && offset + data.len() > start).collect();
            let landed = random.below(touching.len() + 1);
            for (offset, data) in &touching[..landed] {
                let (from, to) = ((*offset).max(start), (offset + data.len()).min(end));
                self.data[from..to].copy_from_slice(&data[from - offset..to - offset]);
            }
        }
        if self.durable_length < self.data.len() && random.coin() {
            self.data.truncate(self.durable_length);
        }
        self.durable_length = self.data.len();
    }

    fn put(&mut self, sector: u64, content: &[u8; SECTOR]) {
        let start = sector as usize * SECTOR;
        let end = (start + SECTOR).min(self.data.len());
        if start < end {
            self.data[start..end].copy_from_slice(&content[..end - start]);
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn lock(&mut self) -> io::Result<bool> {
        let mut world = self.alive()?;
        let free = !world.locked || self.holds_lock;
        world.locked = true;
        drop(world);
        self.holds_lock = free;
        Ok(free)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.alive()?.names.keys().cloned().collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<SimFile> {
        let file = self.alive()?.find(name)?;
        Ok(SimFile {
            world: Arc::clone(&self.world),
            life: self.life,
            file,
            writable: access != Access::Read,
        })
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut world = self.alive()?;
        world.operate()?;
        let file = world.new_file();
        world.files.insert(file, Inode::default());
        world.change_name(NameChange::Add { name: name.into(), file });
        world.drop_nameless();
        Ok(SimFile { world: Arc::clone(&self.world), life: self.life, file, writable: true })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.alive()?;
        let file = world.find(from)?;
        world.operate()?;
        world.change_name(NameChange::Rename { from: from.into(), to: to.into(), file });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.alive()?;
        if world.find(name).is_ok() {
            world.operate()?;
            if due(&mut world.faults.removes_until_error) {
                return Err(eio());
            }
            world.change_name(NameChange::Remove { name: name.into() });
        }
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut world = self.alive()?;
        world.operate()?;
        if due(&mut world.faults.syncs_until_error) {
            return Err(eio());
        }
        world.durable_names = world.names.clone();
        world.name_changes.clear();
        world.drop_nameless();
        Ok(())
    }

    fn start_prepare(&mut self, name: &str, size: u64) -> io::Result<()> {
        assert!(self.preparing.is_none(), "one preparation at a time");
        self.preparing = Some(self.fill(name, size));
        Ok(())
    }

    fn poll_prepared(&mut self) -> Option<io::Result<()>> {
        self.preparing.take()
    }

    fn wait_prepared(&mut self) -> io::Result<()> {
        self.preparing.take().unwrap_or_else(|| Err(io::Error::other("no file is being prepared")))
    }

    fn free_space(&self) -> io::Result<u64> {
        let world = self.alive()?;
        Ok(world.faults.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(world.used())))
    }
}

/// A file of a [`SimDisk`].
pub struct SimFile {
    world: Arc<Mutex<World>>,
    life: u64,
    file: u64,
    writable: bool,
}

impl SimFile {
    fn alive(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.world.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        world.check_life(self.life)?;
        Ok(world)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let world = self.alive()?;
        let data = &world.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?.data;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = start.checked_add(buf.len()).and_then(|end| data.get(start..end));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, data: &[u8], offset: u64) -> io::Result<()> {
        assert!(self.writable, "a write to a file that was opened for reading");
        let mut world = self.alive()?;
        world.operate()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let used = world.used();
        let World { files, faults, random, .. } = &mut *world;
        let inode = files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        let grown = (start + data.len()).saturating_sub(inode.data.len()) as u64;
        if grown > 0 && faults.capacity.is_some_and(|capacity| used + grown > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if due(&mut faults.writes_until_error) {
            inode.write(&data[..random.below(data.len() + 1)], start);
            return Err(eio());
        }
        inode.write(data, start);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut world = self.alive()?;
        world.operate()?;
        let World { files, faults, random, .. } = &mut *world;
        let inode = files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        if due(&mut faults.syncs_until_error) {
            inode.sync_failed(random);
            return Err(eio());
        }
        inode.synced();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let world = self.alive()?;
        Ok(world.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?.data.len() as u64)
    }
}

/// Counts down to a planned error.
fn due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        Some(0 | 1) => {
            *countdown = None;
            true
        }
        Some(n) => {
            *n -= 1;
            false
        }
        None => false,
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}
