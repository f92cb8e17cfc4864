//! Every single bit of a log of 64 KiB, flipped.
//!
//! The log has eight segments of 8 KiB and is sealed, as a log is after every idle moment. No
//! flip may take away anything of it, nor change anything unseen: either the log is refused as
//! damaged and left untouched, or the bit stood for nothing and every record is there.

mod log_support;

use groups::ids::{GroupId, InstanceId};
use groups::log::{
    DiskImage, Durability, LogOptions, OpenError, ReadError, Record, SegmentSeq, SimDisk, inspect,
};
use log_support::member::Members;
use log_support::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

const SIZE: u64 = 8 << 10;
const SEGMENTS: u64 = 8;

fn bit_options() -> LogOptions {
    LogOptions { segment_size: SIZE, storage_id: STORAGE, max_record: 3000, durability: Durability::Fsync }
}

/// A log of full segments.
struct FullLog {
    /// Records of each commit; the seal is an empty one.
    commits: Vec<Vec<Record>>,
    image: DiskImage,
    /// Where the last commit lies in the last segment.
    last: Range<usize>,
}

fn name(n: u64) -> String {
    SegmentSeq(n).file_name()
}

/// The end of the last sector that is not all zero.
fn used(data: &[u8]) -> usize {
    data.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1).next_multiple_of(512)
}

/// Fills the segments to the last sector. What is last is the seal or, without one, a commit.
fn full_log(sealed: bool) -> FullLog {
    let disk = SimDisk::new(1);
    let mut log = try_open(disk.clone(), bit_options()).expect("a new log").log;
    let (mut members, mut dice) = (Members::default(), Dice(64));
    let mut commits = Vec::new();
    let end = |segments: u64| used(&disk.image().files()[&name(segments)]) as u64;
    while log.stats().segments < SEGMENTS || end(SEGMENTS) < SIZE - 4000 {
        commits.push(members.turn(&mut dice));
        commit(&mut log, commits.last().expect("pushed"));
    }
    while end(SEGMENTS) < SIZE - 1024 {
        commits.push(vec![promise(1, 100 + commits.len() as u64)]);
        commit(&mut log, commits.last().expect("pushed"));
    }
    // Two sectors are left.
    commits.push(vec![accept(2, 900, 90, "the last value"), watermark(2, 1)]);
    commit(&mut log, commits.last().expect("pushed"));
    if sealed {
        log.seal().expect("there is room");
        commits.push(Vec::new());
    }
    let stats = log.stats();
    assert_eq!((stats.segments, stats.disk_bytes), (SEGMENTS, SEGMENTS * SIZE));
    drop(log);
    disk.crash();
    let last = end(SEGMENTS) as usize - 512..end(SEGMENTS) as usize;
    assert_eq!(last.end as u64, if sealed { SIZE } else { SIZE - 512 });
    FullLog { commits, image: disk.image(), last }
}

fn disk_of(image: &DiskImage) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.restore(image);
    disk.clone()
}

/// What a flip comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Every record of every commit is there.
    Harmless,
    /// All but those of the last commit.
    Cut,
    /// Refused, and nothing was changed.
    Damaged,
}

impl FullLog {
    /// What the records that were found come to; `Err` for a silent change.
    fn judge(&self, found: &[Record]) -> Result<Outcome, String> {
        let mut rest = found;
        let whole = |commit: &Vec<Record>| match rest.strip_prefix(&commit[..]) {
            Some(behind) => {
                rest = behind;
                true
            }
            None => false,
        };
        let commits = self.commits.iter().map(whole).take_while(|whole| *whole).count();
        match self.commits.len() - commits {
            0 if rest.is_empty() => Ok(Outcome::Harmless),
            1 if rest.is_empty() => Ok(Outcome::Cut),
            _ => Err(format!("{} records, {commits} commits and {} records more", found.len(), rest.len())),
        }
    }

    /// Reads the log as it is on the disk; what is not refused is opened too, and must bear a
    /// power loss and another commit.
    fn outcome(&self, disk: &SimDisk) -> Result<Outcome, String> {
        let mut found = Vec::new();
        match inspect(disk, Some(STORAGE), &mut |_, record| found.push(record)) {
            Ok(_) => {}
            Err(OpenError::Damaged(_)) => return Ok(Outcome::Damaged),
            Err(other) => return Err(other.to_string()),
        }
        let outcome = self.judge(&found)?;
        let disk = disk_of(&disk.image());
        for turn in [promise(7, 7), promise(7, 8)] {
            let opened = try_open(disk.clone(), bit_options()).map_err(|error| error.to_string())?;
            if opened.records != found {
                return Err("opened otherwise than inspected".into());
            }
            let mut log = opened.log;
            found.push(turn.clone());
            commit(&mut log, &[turn]);
            drop(log);
            disk.crash();
        }
        Ok(outcome)
    }

    /// `open` of a damaged log refuses it and leaves it as it is.
    fn expect_refusal(&self, disk: &SimDisk) -> Result<(), String> {
        let image = disk.image();
        let disk = disk_of(&image);
        match try_open(disk.clone(), bit_options()) {
            Err(OpenError::Damaged(_)) if disk.image() == image => Ok(()),
            Err(OpenError::Damaged(_)) => Err("a refused log was changed".into()),
            Err(other) => Err(other.to_string()),
            Ok(_) => Err("inspected as damaged, and opened".into()),
        }
    }

    /// What a flip of this byte must come to.
    fn expected(&self, file: &str, at: usize) -> Outcome {
        let data = &self.image.files()[file];
        if !file.ends_with(".seg") {
            Outcome::Damaged
        } else if file == name(SEGMENTS) && self.last.contains(&at) {
            // An empty commit that is cut takes nothing with it.
            if self.commits.last().is_some_and(Vec::is_empty) { Outcome::Harmless } else { Outcome::Cut }
        } else if at >= used(data) {
            Outcome::Harmless
        } else {
            Outcome::Damaged
        }
    }

    /// The same log from segment `n` on, as when a checkpoint has taken the place of the rest.
    fn from(&self, n: u64) -> FullLog {
        let mut first = None;
        inspect(&disk_of(&self.image), None, &mut |at, _| {
            if at.segment == SegmentSeq(n) {
                first.get_or_insert(at.commit.0 as usize - 1);
            }
        })
        .expect("a sound log");
        let mut image = self.image.clone();
        image.files_mut().retain(|file, _| !file.ends_with(".seg") || *file >= name(n));
        let manifest = image.files_mut().get_mut("log.manifest").expect("there");
        manifest[32..40].copy_from_slice(&n.to_le_bytes());
        let crc = crc32fast::hash(&manifest[..60]);
        manifest[60..64].copy_from_slice(&crc.to_le_bytes());
        let commits = self.commits[first.expect("a segment holds records")..].to_vec();
        let log = FullLog { commits, image, last: self.last.clone() };
        assert_eq!(log.outcome(&disk_of(&log.image)), Ok(Outcome::Harmless), "from segment {n} on");
        log
    }

    /// Flips one bit, and puts it back.
    fn flip(&self, disk: &SimDisk, file: &str, at: u64, bit: u8) -> Result<Outcome, String> {
        assert!(disk.flip_bit(file, at, bit));
        let outcome = self.outcome(disk)?;
        let expected = self.expected(file, at as usize);
        if outcome != expected {
            return Err(format!("{outcome:?} instead of {expected:?}"));
        }
        // Opening reads in the same way as inspecting; one byte of sixteen shows it.
        if outcome == Outcome::Damaged && at % 16 == 5 && u64::from(bit) == at / 16 % 8 {
            self.expect_refusal(disk)?;
        }
        assert!(disk.flip_bit(file, at, bit));
        Ok(outcome)
    }

    /// Flips every bit of these bytes of a file, on all cores. How many came to which outcome.
    ///
    /// One bit of each byte is flipped in the whole log, and the others in `short`, the part of
    /// it that begins with that file: nothing before the flip is read otherwise for it.
    fn flip_all(
        &self,
        short: &FullLog,
        file: &str,
        range: Range<u64>,
    ) -> Result<BTreeMap<&'static str, u64>, String> {
        let next = AtomicU64::new(range.start);
        let counts = [const { AtomicU64::new(0) }; 3];
        let flip = || -> Result<(), String> {
            let (whole_disk, short_disk) = (disk_of(&self.image), disk_of(&short.image));
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= range.end {
                    return Ok(());
                }
                for bit in 0..8 {
                    let outcome = if u64::from(bit) == at % 8 {
                        self.flip(&whole_disk, file, at, bit)
                    } else {
                        short.flip(&short_disk, file, at, bit)
                    };
                    let outcome = outcome.map_err(|error| format!("{file} byte {at} bit {bit}: {error}"))?;
                    counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..cores).map(|_| scope.spawn(flip)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        })?;
        let counts = counts.map(AtomicU64::into_inner);
        Ok(["harmless", "cut", "damaged"].into_iter().zip(counts).collect())
    }
}

#[test]
fn no_bit_of_a_sealed_log_of_64_kib_can_be_lost_or_change_unseen() {
    let log = full_log(true);
    let mut total = BTreeMap::new();
    for n in 1..=SEGMENTS {
        for (outcome, bits) in
            log.flip_all(&log.from(n), &name(n), 0..SIZE).unwrap_or_else(|error| panic!("{error}"))
        {
            *total.entry(outcome).or_insert(0) += bits;
        }
    }
    assert_eq!(total.values().sum::<u64>(), 8 * (64 << 10));
    assert_eq!(total["cut"], 0, "what was acknowledged was cut");
    assert!(total["damaged"] > 8 * (56 << 10), "{total:?}: hardly a full log");
    println!("{total:?}");
}

#[test]
fn every_bit_of_the_manifest_is_seen() {
    let log = full_log(true);
    let outcomes = log.flip_all(&log, "log.manifest", 0..64).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(outcomes, BTreeMap::from([("harmless", 0), ("cut", 0), ("damaged", 512)]));
}

/// Without a seal the last commit alone cannot be told from one that was never acknowledged.
#[test]
fn of_an_unsealed_log_the_last_commit_alone_can_be_cut() {
    let log = full_log(false);
    let outcomes = log
        .flip_all(&log.from(SEGMENTS), &name(SEGMENTS), SIZE - 3072..SIZE)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(outcomes, BTreeMap::from([("cut", 8 * 512), ("harmless", 8 * 512), ("damaged", 8 * 2048)]));
}

/// A log that is open reads what peers ask for from the disk: every bit of every value, of its
/// header and of its padding.
#[test]
fn a_peer_is_never_sent_a_flipped_bit() {
    let full = full_log(true);
    let disk = disk_of(&full.image);
    let mut newest = BTreeMap::new();
    inspect(&disk, None, &mut |at, record| {
        if let Record::Accept { group, instance, .. } | Record::Chosen { group, instance, .. } = record {
            newest.insert((group, instance), at);
        }
    })
    .expect("a sound log");
    let log = try_open(disk.clone(), bit_options()).expect("a sound log").log;
    let read = |group: GroupId, instance: InstanceId| log.read(group, instance, instance, 0);
    let mut bits = 0;
    for ((group, instance), at) in newest {
        let file = at.segment.file_name();
        for bit in 0..8 * u64::from(at.length) {
            assert!(disk.flip_bit(&file, u64::from(at.offset) + bit / 8, (bit % 8) as u8));
            let found = read(group, instance);
            assert!(matches!(found, Err(ReadError::Damaged(_))), "{at:?} bit {bit}: {found:?}");
            assert!(disk.flip_bit(&file, u64::from(at.offset) + bit / 8, (bit % 8) as u8));
            bits += 1;
        }
        assert_eq!(read(group, instance).expect("whole again").len(), 1);
    }
    assert!(bits > 8 * (16 << 10), "only {bits} bits are read");
    println!("{bits} bits of values");
}

/// The test of the test: a log that takes rot for a torn tail is found out.
#[cfg(feature = "planted")]
#[test]
fn rot_taken_for_a_torn_tail_is_found() {
    use groups::planted::{Bug, plant};
    let log = full_log(true);
    let disk = disk_of(&log.image);
    plant(Some(Bug::RotIsTornTail));
    for at in 512..1024 {
        assert!(disk.flip_bit(&name(SEGMENTS), at, 0));
        let outcome = log.outcome(&disk);
        assert!(outcome != Ok(log.expected(&name(SEGMENTS), at as usize)), "byte {at}: {outcome:?}");
        assert!(disk.flip_bit(&name(SEGMENTS), at, 0));
    }
    plant(None);
}
