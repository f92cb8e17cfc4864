//! A power loss after every file operation of a long life, and at every byte of its last writes.
//!
//! A node with a few groups lives through 2 000 file operations: rolling segments that are
//! prepared between the commits, a commit longer than a segment, the death of the process, a
//! power loss and a clean restart. At every point it is known what was acknowledged and which
//! commit was under way; whatever the power loss leaves, the log has to have the first, and of
//! the second all or nothing.

mod log_support;

use groups::ids::{Ballot, GroupId, InstanceId};
use groups::log::{Disk, DiskImage, Durability, Log, LogOptions, Record, Recovered, SimDisk, inspect};
use log_support::member::{GROUPS, Members};
use log_support::tape::{Entry, Left, Note, Operation, RecordedDisk, Shadow, SharedTape, Tape};
use log_support::*;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

const OPERATIONS: u64 = 2000;
const SIZE: u64 = 8192;

/// The operations after which the process dies, and the power goes.
const KILLED: u64 = 649;
const CRASHED: u64 = 1201;

fn long_options(durability: Durability) -> LogOptions {
    LogOptions { segment_size: SIZE, storage_id: STORAGE, max_record: 3000, durability }
}

/// What is known about the log at one point of the trace.
#[derive(Clone, Default)]
struct Knowledge {
    /// What was acknowledged, or seen after a restart.
    durable: Vec<Record>,
    /// The commit that was neither acknowledged nor certainly lost.
    doubtful: Vec<Record>,
}

impl Knowledge {
    fn note(&mut self, note: &Note) {
        match note {
            Note::Commit(records) => self.doubtful.extend_from_slice(records),
            Note::Acknowledged => self.durable.append(&mut self.doubtful),
            Note::Opened(records) => {
                self.durable.clone_from(records);
                self.doubtful.clear();
            }
            Note::PowerLost(_) => {}
        }
    }

    /// All that was acknowledged is there, in order, and of the doubtful commit all or nothing
    /// (or, if it was longer than a segment, a part from the beginning).
    fn check(&self, seen: &[Record]) -> Result<(), String> {
        for (known, found) in promises(&self.durable).into_iter().zip(promises(seen)) {
            if found < known {
                return Err(format!("a promise fell from {known:?} to {found:?}"));
            }
        }
        let Some(new) = seen.strip_prefix(&self.durable[..]) else {
            let same = seen.iter().zip(&self.durable).take_while(|(a, b)| a == b).count();
            let (seen, durable) = (seen.len(), self.durable.len());
            return Err(format!("{seen} records of {durable} acknowledged ones, alike up to {same}"));
        };
        if !self.doubtful.starts_with(new) {
            return Err(format!("{} records that nobody wrote", new.len()));
        }
        let length: usize = self.doubtful.iter().map(Record::encoded_len).sum();
        if length + 48 <= SIZE as usize - 512 && !new.is_empty() && new.len() < self.doubtful.len() {
            return Err(format!("{} records of a commit of {}", new.len(), self.doubtful.len()));
        }
        Ok(())
    }
}

/// The promise of every group; an accept implies one.
fn promises(records: &[Record]) -> [Ballot; GROUPS as usize] {
    let mut promises = [Ballot::ZERO; GROUPS as usize];
    for record in records {
        if let Record::Promise { group, ballot } | Record::Accept { group, ballot, .. } = record {
            let promise = &mut promises[group.0 as usize];
            *promise = (*promise).max(*ballot);
        }
    }
    promises
}

/// One life of the node: opens the log, and writes until the disk has done `until` operations.
/// An error ends it early; that is what a disk that stops is for.
fn live(
    disk: &SimDisk,
    tape: &SharedTape,
    dice: &mut Dice,
    durability: Durability,
    until: u64,
) -> Result<(), String> {
    let note = |note| tape.lock().expect("one thread").entries.push(Entry::Note(note));
    let opened = try_open(RecordedDisk::new(disk, tape), long_options(durability))
        .map_err(|error| error.to_string())?;
    let mut members = Members::of(&opened.records);
    note(Note::Opened(opened.records));
    let mut log = opened.log;
    let mut turns = 0;
    while disk.operations() < until {
        turns += 1;
        let records = if turns == 70 { members.flood(dice, SIZE) } else { members.turn(dice) };
        note(Note::Commit(records.clone()));
        for record in &records {
            log.append(record).map_err(|error| error.to_string())?;
        }
        log.commit().map_err(|error| error.to_string())?;
        note(Note::Acknowledged);
        if dice.below(12) == 0 {
            log.seal().map_err(|error| error.to_string())?;
        }
    }
    assert!(log.stats().waits_for_segment > 0, "no commit ever waited for its segment");
    Ok(())
}

/// The trace: four lives on one disk.
fn trace(durability: Durability) -> Tape {
    let disk = SimDisk::new(11);
    let tape = SharedTape::default();
    let mut dice = Dice(20);
    disk.stop_after(KILLED);
    live(&disk, &tape, &mut dice, durability, u64::MAX).expect_err("the process dies");
    disk.kill();
    if durability == Durability::Fsync {
        disk.stop_after(CRASHED);
        live(&disk, &tape, &mut dice, durability, u64::MAX).expect_err("the power goes");
        RecordedDisk::crash(&disk, &tape);
    }
    live(&disk, &tape, &mut dice, durability, 1600).expect("a clean end");
    live(&disk, &tape, &mut dice, durability, OPERATIONS).expect("no faults");
    let operations = disk.operations();
    drop(disk);
    let tape = Arc::into_inner(tape).expect("all handles are gone");
    let tape = Mutex::into_inner(tape).expect("no thread has panicked");
    assert_eq!(tape.operations, operations, "an operation is not on the tape");
    tape
}

/// A point of the trace: right behind an operation, with what the node knew there.
struct Point<'a> {
    operations: u64,
    shadow: &'a Shadow,
    knowledge: &'a Knowledge,
    /// The operation that was the last.
    last: Option<&'a Operation>,
}

impl Point<'_> {
    fn image(&self, mut left: Left<'_>) -> DiskImage {
        let last = match self.last {
            Some(Operation::Write { file, .. }) => Some(*file),
            _ => None,
        };
        self.shadow.left(&mut left, last)
    }

    /// The disk after the power loss, opened. `Err` if the log broke a promise.
    fn recover(&self, disk: &SimDisk) -> Result<(Log<SimDisk>, Recovered, Vec<Record>), String> {
        let options = long_options(Durability::Fsync);
        let mut records = Vec::new();
        let (log, found) = Log::open(disk.clone(), options, &mut |record| records.push(record))
            .map_err(|error| error.to_string())?;
        self.knowledge.check(&records)?;
        Ok((log, found, records))
    }

    /// The decision of a recovery alone, which changes nothing.
    fn inspect(&self, image: &DiskImage) -> Result<(), String> {
        let disk = SimDisk::new(self.operations);
        disk.restore(image);
        let mut records = Vec::new();
        inspect(&disk.clone(), Some(STORAGE), &mut |_, record| records.push(record))
            .map_err(|error| error.to_string())?;
        self.knowledge.check(&records)
    }

    fn check(&self, image: &DiskImage) -> Result<(), String> {
        let disk = SimDisk::new(self.operations);
        disk.restore(image);
        self.recover(&disk).map(drop)
    }

    /// The same, and then: everything is there for peers to read, another power loss takes
    /// nothing of it away, and the log goes on.
    fn check_and_go_on(&self, image: &DiskImage) -> Result<(), String> {
        let disk = SimDisk::new(self.operations);
        disk.restore(image);
        let (log, _, mut records) = self.recover(&disk)?;
        let mut members = Members::of(&records);
        read_back(&log, &members)?;
        drop(log);
        disk.crash();
        let (mut log, found, again) = self.recover(&disk)?;
        if again != records || found.torn.is_some() {
            return Err("what one recovery found was gone for the next".into());
        }
        let mut dice = Dice(self.operations);
        for _ in 0..3 {
            let turn = members.turn(&mut dice);
            commit(&mut log, &turn);
            records.extend(turn);
        }
        drop(log);
        disk.crash();
        let again = try_open(disk.clone(), long_options(Durability::Fsync))
            .map_err(|error| format!("after going on: {error}"))?;
        if again.records != records {
            return Err("what was acknowledged after the recovery is gone".into());
        }
        Ok(())
    }
}

/// Every group's newest value of every instance.
fn read_back<D: Disk>(log: &Log<D>, members: &Members) -> Result<(), String> {
    for (&group, member) in &members.0 {
        for (&instance, (ballot, value)) in &member.values {
            let at = InstanceId(instance);
            let found = log.read(GroupId(group), at, at, 0).map_err(|error| error.to_string())?;
            if found != [(at, *ballot, value.clone())] {
                return Err(format!("group {group} instance {instance} reads otherwise"));
            }
        }
    }
    Ok(())
}

/// Plays the tape and stops behind every operation, and before the first. Operations that are
/// forgotten are counted, but the disk never did them.
fn at_every_point(
    tape: &Tape,
    forget: &dyn Fn(u64, &Operation) -> bool,
    stop: &mut dyn FnMut(&Point<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let mut shadow = Shadow::default();
    let mut knowledge = Knowledge::default();
    let mut operations = 0;
    let mut last = None;
    let mut entries = tape.entries.iter().peekable();
    loop {
        // An acknowledgement leaves at once; a commit begins with its first operation. So the
        // notes before the next operation are known at this point.
        while let Some(Entry::Note(note)) = entries.peek() {
            if let Note::PowerLost(left) = note {
                shadow.power_lost(left);
                last = None;
            }
            knowledge.note(note);
            entries.next();
        }
        let point = Point { operations, shadow: &shadow, knowledge: &knowledge, last };
        stop(&point).map_err(|error| format!("after {operations} operations: {error}"))?;
        let Some(Entry::Operation(operation)) = entries.next() else { return Ok(()) };
        operations += 1;
        last = Some(operation);
        if !forget(operations, operation) {
            shadow.operation(operation);
        }
    }
}

/// Runs `work` for each number of a share of all of them, on every core; the first error wins.
fn on_all_cores(work: impl Fn(&dyn Fn(u64) -> bool) -> Result<(), String> + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            (0..cores).map(|core| scope.spawn(move || work(&|n| n % cores == core))).collect();
        for thread in threads {
            if let Err(error) = thread.join().expect("no panic") {
                panic!("{error}");
            }
        }
    });
}

/// The outcomes that have no chance in them, and so many that have.
fn every_outcome(point: &Point<'_>, draws: u64) -> Result<(), String> {
    point.check(&point.image(Left::Nothing)).map_err(|error| format!("nothing left: {error}"))?;
    point.check(&point.image(Left::All)).map_err(|error| format!("all left: {error}"))?;
    point.check(&point.image(Left::Names)).map_err(|error| format!("names left: {error}"))?;
    point.check(&point.image(Left::Contents)).map_err(|error| format!("contents left: {error}"))?;
    for draw in 0..draws {
        let mut dice = Dice(point.operations * 1000 + draw + 1);
        let image = point.image(Left::Any(&mut dice));
        let checked = if draw == 0 { point.check_and_go_on(&image) } else { point.check(&image) };
        checked.map_err(|error| format!("draw {draw}: {error}"))?;
    }
    Ok(())
}

#[test]
fn the_trace_is_a_long_and_varied_life() {
    let tape = trace(Durability::Fsync);
    assert!(tape.operations >= OPERATIONS, "{} operations", tape.operations);
    let count = |wanted: fn(&Operation) -> bool| {
        let of = |entry: &&Entry| matches!(entry, Entry::Operation(operation) if wanted(operation));
        tape.entries.iter().filter(of).count()
    };
    let rolled = count(|operation| matches!(operation, Operation::Rename { to, .. } if to.ends_with(".seg")));
    assert!(rolled > 30, "{rolled} segments");
    // Both deaths come between the write of a commit and its sync.
    let operations: Vec<&Operation> = tape
        .entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Operation(operation) => Some(operation),
            Entry::Note(_) => None,
        })
        .collect();
    for n in [KILLED, CRASHED] {
        let next = |ahead: u64| operations[(n + ahead - 1) as usize];
        let written =
            matches!(next(0), Operation::Write { data, .. } if data.len() >= 512 && data[..512] != [0; 512]);
        assert!(
            written && !matches!(next(1), Operation::Sync { .. }),
            "operation {n} is the write of a commit"
        );
    }
    let mut knowledge = Knowledge::default();
    let (mut commits, mut shared, mut longest, mut opened) = (0, 0, 0, 0);
    for entry in &tape.entries {
        let Entry::Note(note) = entry else { continue };
        knowledge.note(note);
        if let Note::Commit(records) = note {
            commits += 1;
            let groups: BTreeSet<_> = records.iter().map(Record::group).collect();
            shared += u64::from(groups.len() > 1);
            longest = longest.max(records.iter().map(Record::encoded_len).sum());
        }
        opened += u64::from(matches!(note, Note::Opened(_)));
    }
    assert!(commits >= 350 && shared > 250, "{shared} of {commits} commits are of several groups");
    assert!(longest > SIZE as usize, "no commit is longer than a segment");
    assert_eq!(opened, 4);
    let kinds: [fn(&Record) -> bool; 4] = [
        |record| matches!(record, Record::Promise { .. }),
        |record| matches!(record, Record::Accept { .. }),
        |record| matches!(record, Record::Chosen { .. }),
        |record| matches!(record, Record::Watermark { .. }),
    ];
    for (n, kind) in kinds.into_iter().enumerate() {
        let count = knowledge.durable.iter().filter(|record| kind(record)).count();
        assert!(count > 30, "{count} records of kind {n}");
    }
    println!(
        "{} operations, {rolled} segments, {commits} commits, {} records",
        tape.operations,
        knowledge.durable.len()
    );
}

/// The shadow is a second account of the disk; both must tell the same.
#[test]
fn the_tape_tells_what_the_disk_has() {
    let disk = SimDisk::new(5);
    let tape = SharedTape::default();
    live(&disk, &tape, &mut Dice(9), Durability::Fsync, 700).expect("no faults");
    RecordedDisk::crash(&disk, &tape);
    live(&disk, &tape, &mut Dice(10), Durability::Fsync, 1100).expect("no faults");
    let tape = tape.lock().expect("one thread");
    let mut end = None;
    at_every_point(&tape, &|_, _| false, &mut |point| {
        end = Some(point.image(Left::All));
        Ok(())
    })
    .expect("nothing is checked");
    assert_eq!(end, Some(disk.image()));
    assert_eq!(tape.operations, disk.operations());
}

#[test]
fn a_power_loss_after_any_of_2000_operations_loses_nothing() {
    let tape = trace(Durability::Fsync);
    on_all_cores(|mine| {
        at_every_point(&tape, &|_, _| false, &mut |point| {
            if mine(point.operations) { every_outcome(point, 5) } else { Ok(()) }
        })
    });
}

#[test]
fn the_last_writes_may_be_torn_at_any_byte() {
    let tape = trace(Durability::Fsync);
    // The last commits of all, and those around the beginning of the last segment.
    let mut rolled = 0;
    let mut operations = 0;
    for entry in &tape.entries {
        let Entry::Operation(operation) = entry else { continue };
        operations += 1;
        if matches!(operation, Operation::Rename { to, .. } if to.ends_with(".seg")) {
            rolled = operations;
        }
    }
    let chosen = |n: u64| (rolled - 10..rolled + 16).contains(&n) || n + 36 > operations;
    let cuts = Mutex::new(0);
    on_all_cores(|mine| {
        at_every_point(&tape, &|_, _| false, &mut |point| {
            let Some(Operation::Write { data, .. }) = point.last else { return Ok(()) };
            // Zeros behind the end of a file are nothing that could be torn.
            if !chosen(point.operations) || data.iter().all(|&byte| byte == 0) {
                return Ok(());
            }
            let bytes = (0..=data.len()).filter(|&at| mine(at as u64));
            for at in bytes {
                for left in [Left::Head(at), Left::Tail(at)] {
                    let image = point.image(left);
                    // Recovery decides at every byte; that it also repairs, at some of them.
                    let checked =
                        if at % 32 < 2 { point.check_and_go_on(&image) } else { point.inspect(&image) };
                    checked.map_err(|error| format!("byte {at}: {error}"))?;
                    *cuts.lock().expect("no thread has panicked") += 1;
                }
            }
            Ok(())
        })
    });
    let cuts = cuts.into_inner().expect("no thread has panicked");
    println!("{cuts} cuts");
    assert!(cuts > 8000, "only {cuts} cuts");
}

/// The test of the test: a log that leaves out one kind of sync, from its birth or from some
/// point of its life on, is found out.
#[test]
fn every_kind_of_forgotten_sync_is_found() {
    type Kind = fn(&Operation) -> bool;
    let kinds: [(&str, Kind); 4] = [
        ("commits", |operation| matches!(operation, Operation::Sync { name, .. } if name.ends_with(".seg"))),
        (
            "new segments",
            |operation| matches!(operation, Operation::Sync { name, .. } if name == "log.spare"),
        ),
        (
            "manifests",
            |operation| matches!(operation, Operation::Sync { name, .. } if name.ends_with(".tmp")),
        ),
        ("the directory", |operation| matches!(operation, Operation::SyncDir)),
    ];
    let tape = trace(Durability::Fsync);
    for (kind, is) in kinds {
        for from in [0, 900, 1300, 1700] {
            let mut points = 0;
            let found = at_every_point(&tape, &|n, operation| n >= from && is(operation), &mut |point| {
                if point.operations < from {
                    return Ok(());
                }
                points += 1;
                every_outcome(point, 5)
            });
            assert!(found.is_err(), "the syncs of {kind} are not missed from operation {from} on");
            // A segment is begun every forty operations.
            assert!(points < 100, "the syncs of {kind} are missed only after {points} operations");
        }
    }
}

/// The test of the test: so is the log that is told not to sync, and by what it loses.
#[test]
fn a_log_without_durability_is_found() {
    let tape = trace(Durability::None);
    let found = at_every_point(&tape, &|_, _| false, &mut |point| every_outcome(point, 5));
    let lost = found.expect_err("the losses of a log that does not sync are not seen");
    assert!(lost.contains("acknowledged"), "{lost}");
}
