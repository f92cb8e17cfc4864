//! Crashes at every operation, failing disks, and random histories against a model.

mod log_support;

use groups::log::{AppendError, CommitError, Log, LogOptions, OpenError, ReadError, Record, SimDisk};
use log_support::*;
use proptest::prelude::*;

/// What a node knows about its log.
#[derive(Default)]
struct Model {
    /// Everything that was ever acknowledged, or seen after a restart.
    durable: Vec<Record>,
    /// Records of the commit that was neither acknowledged nor certainly lost.
    doubtful: Vec<Record>,
}

impl Model {
    /// After a restart: all that is durable is there, and of the doubtful commit all or nothing
    /// (or, if it was longer than a segment, a part from the beginning).
    fn check(&mut self, seen: Vec<Record>, what: &str) {
        assert!(seen.len() >= self.durable.len(), "{what}: {} records of {}", seen.len(), self.durable.len());
        let (old, new) = seen.split_at(self.durable.len());
        assert!(old == self.durable, "{what}: what was durable has changed");
        assert!(self.doubtful.starts_with(new), "{what}: records that nobody wrote");
        let length: usize = self.doubtful.iter().map(Record::encoded_len).sum();
        if length + 48 <= SEGMENT as usize - 512 {
            assert!(new.is_empty() || new.len() == self.doubtful.len(), "{what}: half a commit");
        }
        self.durable = seen;
        self.doubtful.clear();
    }
}

/// Opens the log and writes until something fails.
fn work(disk: &SimDisk, model: &mut Model, dice: &mut Dice, commits: u64) -> Result<(), String> {
    let opened = try_open(disk.clone(), options()).map_err(|error| error.to_string())?;
    model.check(opened.records, "after opening");
    let mut log = opened.log;
    for _ in 0..commits {
        for _ in 0..=dice.below(5) {
            let record = dice.record(model.durable.len() as u64 + 1);
            log.append(&record).map_err(|error| error.to_string())?;
            model.doubtful.push(record);
        }
        log.commit().map_err(|error| error.to_string())?;
        model.durable.append(&mut model.doubtful);
        if dice.below(10) == 0 {
            log.seal().map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn operations_of(commits: u64) -> u64 {
    let disk = SimDisk::new(0);
    work(&disk, &mut Model::default(), &mut Dice(4), commits).expect("no faults");
    disk.operations()
}

#[test]
fn a_crash_after_any_operation_loses_nothing() {
    let operations = operations_of(60);
    assert!(operations > 400, "a trace of {operations} operations");
    for stop in 0..=operations {
        for seed in 0..6 {
            let disk = SimDisk::new(seed * 7919 + stop);
            let mut model = Model::default();
            disk.stop_after(stop);
            let outcome = work(&disk, &mut model, &mut Dice(4), 60);
            // Behind the end, and where only the segment after next failed, nothing is noticed.
            assert!(outcome.is_ok() || stop < operations);
            if seed == 0 {
                disk.kill()
            } else {
                disk.crash()
            }
            let what = format!("stop {stop} seed {seed}");
            let opened = try_open(disk.clone(), options()).unwrap_or_else(|error| panic!("{what}: {error}"));
            model.check(opened.records, &what);
            drop(opened.log);
            work(&disk, &mut model, &mut Dice(9), 8).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

#[test]
fn a_crash_during_recovery_loses_nothing() {
    let operations = operations_of(12);
    for stop in 0..=operations {
        for again in 0..14 {
            let disk = SimDisk::new(stop * 1000 + again);
            let mut model = Model::default();
            disk.stop_after(stop);
            let _ = work(&disk, &mut model, &mut Dice(4), 12);
            disk.crash();
            disk.stop_after(disk.operations() + again);
            let _ = work(&disk, &mut model, &mut Dice(5), 1);
            if again % 3 == 0 {
                disk.kill()
            } else {
                disk.crash()
            }
            let what = format!("stop {stop}, then {again}");
            work(&disk, &mut model, &mut Dice(6), 3).unwrap_or_else(|error| panic!("{what}: {error}"));
            disk.crash();
            model.check(open(disk.clone()).records, &what);
        }
    }
}

fn expect_poisoned(log: &mut Log<SimDisk>) {
    assert_eq!(log.append(&promise(1, 1)), Err(AppendError::Poisoned));
    assert!(matches!(log.commit(), Err(CommitError::Poisoned)));
    assert!(matches!(log.seal(), Err(CommitError::Poisoned)));
    assert!(matches!(
        log.read(groups::ids::GroupId(1), groups::ids::InstanceId(1), groups::ids::InstanceId(1), 10),
        Err(ReadError::Poisoned)
    ));
}

#[test]
fn an_error_of_any_write_or_sync_is_final() {
    let mut poisoned = 0;
    for nth in 1..60 {
        for sync in [false, true] {
            let disk = SimDisk::new(nth);
            let mut model = Model::default();
            let mut log = open(disk.clone()).log;
            if sync {
                disk.fail_sync(nth)
            } else {
                disk.fail_write(nth)
            }
            let mut dice = Dice(nth);
            let failed = (0..200).find_map(|n| {
                let record = dice.record(n);
                log.append(&record).expect("not yet poisoned");
                model.doubtful.push(record);
                let outcome = log.commit();
                if outcome.is_ok() {
                    model.durable.append(&mut model.doubtful);
                }
                outcome.err()
            });
            match failed {
                Some(CommitError::Io { .. }) => {
                    poisoned += 1;
                    expect_poisoned(&mut log);
                }
                // Only a segment that was prepared ahead of need failed; another one took its place.
                None => {}
                other => panic!("{other:?}"),
            }
            drop(log);

            // The process starts again, sees what the kernel still shows, and acts on it. Then
            // the power goes: what was seen must have been brought to the disk.
            disk.kill();
            let what = format!("error {nth} sync {sync}");
            model.check(open(disk.clone()).records, &what);
            disk.crash();
            model.check(open(disk.clone()).records, &what);
        }
    }
    assert!(poisoned > 90, "only {poisoned} errors were met");
}

#[test]
fn a_full_disk_is_no_failure_of_the_log() {
    let disk = SimDisk::new(3);
    let mut log = open(disk.clone()).log;
    disk.set_capacity(Some(3 * SEGMENT));
    let mut written = Vec::new();
    let mut n = 0;
    let record = loop {
        n += 1;
        let record = accept(1, n, 1, vec![n as u8; 700]);
        log.append(&record).expect("appended");
        match log.commit() {
            Ok(_) => written.push(record),
            Err(CommitError::NoSpace) => break record,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(matches!(log.commit(), Err(CommitError::NoSpace)));
    assert!(log.pending_bytes() > 0);
    disk.set_capacity(Some(6 * SEGMENT));
    log.commit().expect("there is space again");
    written.push(record);
    drop(log);
    disk.crash();
    assert_eq!(open(disk.clone()).records, written);
}

#[test]
fn a_disk_that_is_full_at_birth_gives_a_clear_error() {
    let disk = SimDisk::new(3);
    disk.set_capacity(Some(1000));
    assert!(matches!(try_open(disk.clone(), options()), Err(OpenError::NoSpace)));
    disk.set_capacity(None);
    assert!(open(disk.clone()).found.fresh);
}

#[test]
fn a_commit_longer_than_a_segment_is_divided() {
    let disk = SimDisk::new(3);
    let mut log = open(disk.clone()).log;
    let records: Vec<Record> = (1..=20).map(|n| accept(1, n, 1, vec![n as u8; 900])).collect();
    commit(&mut log, &[promise(1, 1)]);
    commit(&mut log, &records);
    assert!(log.stats().segments > 5);
    let read = log
        .read(groups::ids::GroupId(1), groups::ids::InstanceId(1), groups::ids::InstanceId(20), usize::MAX)
        .expect("all there");
    assert_eq!(read.len(), 20);
    drop(log);
    disk.crash();
    assert_eq!(open(disk.clone()).records[1..], records);
}

#[test]
fn a_record_that_is_too_large_is_refused() {
    let disk = SimDisk::new(3);
    let mut log = open(disk.clone()).log;
    assert_eq!(
        log.append(&accept(1, 1, 1, vec![0; 2001])),
        Err(AppendError::TooLarge { size: 2056, max: 2048 })
    );
    log.append(&accept(1, 1, 1, vec![0; 2000])).expect("exactly as large as allowed");
    let bad = LogOptions { max_record: SEGMENT as usize - 1000, ..options() };
    assert!(matches!(try_open(SimDisk::new(1), bad), Err(OpenError::Options(_))));
}

#[test]
fn the_segment_size_may_change_between_runs() {
    let disk = SimDisk::new(3);
    let large = LogOptions { segment_size: 4 * SEGMENT, max_record: 12_000, ..options() };
    let mut expected = Vec::new();
    for (n, options) in [options(), large.clone(), options(), large].into_iter().enumerate() {
        let opened = try_open(disk.clone(), options.clone()).expect("opens");
        assert_eq!(opened.records, expected);
        let mut log = opened.log;
        for i in 0..3 {
            let record = accept(1, n as u64 * 3 + i + 1, 1, vec![i as u8; options.max_record - 48]);
            commit(&mut log, std::slice::from_ref(&record));
            expected.push(record);
        }
    }
    assert_eq!(open(disk.clone()).records, expected);
}

#[test]
fn a_second_opener_is_refused_while_the_first_lives() {
    let disk = SimDisk::new(3);
    let first = open(disk.clone());
    assert!(matches!(try_open(disk.clone(), options()), Err(OpenError::Locked)));
    drop(first);
    let second = open(disk.clone());
    disk.crash();
    let mut third = open(disk.clone()).log;
    drop(second);
    assert!(matches!(try_open(disk.clone(), options()), Err(OpenError::Locked)));
    commit(&mut third, &[promise(1, 1)]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Append(u8),
    Commit,
    Seal,
    Crash,
    Kill,
    Reopen,
    FailSync(u8),
    FailWrite(u8),
    StopIn(u8),
    Full,
    Space,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..6u8).prop_map(Step::Append),
        8 => Just(Step::Commit),
        1 => Just(Step::Seal),
        2 => Just(Step::Crash),
        2 => Just(Step::Kill),
        1 => Just(Step::Reopen),
        1 => (1..8u8).prop_map(Step::FailSync),
        1 => (1..8u8).prop_map(Step::FailWrite),
        1 => (0..12u8).prop_map(Step::StopIn),
        1 => Just(Step::Full),
        2 => Just(Step::Space),
    ]
}

/// `PROPTEST_CASES`, or more than the usual number: a case takes under a millisecond.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1500)
}

/// Runs the steps; a node that fails is restarted at once, with and without a power loss.
fn run(seed: u64, steps: &[Step]) {
    let disk = SimDisk::new(seed);
    let mut dice = Dice(seed);
    let mut model = Model::default();
    let mut log = None;
    let mut numbers = 0;
    for (n, &step) in steps.iter().enumerate() {
        let what = format!("step {n}, {step:?}");
        if log.is_none() {
            match try_open(disk.clone(), options()) {
                Ok(opened) => {
                    model.check(opened.records, &what);
                    log = Some(opened.log);
                }
                Err(OpenError::NoSpace) => disk.set_capacity(None),
                Err(OpenError::Io { .. }) => disk.crash(),
                Err(other) => panic!("{what}: {other}"),
            }
        }
        let Some(open) = &mut log else { continue };
        let outcome = match step {
            Step::Append(records) => {
                for _ in 0..records {
                    numbers += 1;
                    let record = dice.record(numbers);
                    open.append(&record).expect("appended");
                    model.doubtful.push(record);
                }
                Ok(())
            }
            Step::Commit => open.commit().map(|_| model.durable.append(&mut model.doubtful)),
            Step::Seal => open.seal().map(|()| model.durable.append(&mut model.doubtful)),
            Step::FailSync(nth) => {
                disk.fail_sync(u64::from(nth));
                Ok(())
            }
            Step::FailWrite(nth) => {
                disk.fail_write(u64::from(nth));
                Ok(())
            }
            Step::StopIn(operations) => {
                disk.stop_after(disk.operations() + u64::from(operations));
                Ok(())
            }
            Step::Full => {
                disk.set_capacity(Some(disk.image().files().values().map(|file| file.len() as u64).sum()));
                Ok(())
            }
            Step::Space => {
                disk.set_capacity(None);
                Ok(())
            }
            Step::Crash | Step::Kill | Step::Reopen => {
                log = None;
                Ok(())
            }
        };
        match outcome {
            // There was room for the records, but not for the seal behind them.
            Err(CommitError::NoSpace) if log.as_ref().is_some_and(|log| log.pending_bytes() == 0) => {
                model.durable.append(&mut model.doubtful);
            }
            Ok(()) | Err(CommitError::NoSpace) => {}
            Err(_) => {
                log = None;
                if dice.below(2) == 0 { disk.kill() } else { disk.crash() }
            }
        }
        match step {
            Step::Crash => disk.crash(),
            Step::Kill => disk.kill(),
            _ => {}
        }
    }
    drop(log);
    disk.crash();
    disk.set_capacity(None);
    model.check(open(disk.clone()).records, "at the end");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]
    #[test]
    fn random_histories_keep_their_promises(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..90)) {
        run(seed, &steps);
    }
}
