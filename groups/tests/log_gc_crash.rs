//! Logs that drop segments: crashes at every operation, and random histories against a model.

mod log_support;

use groups::ids::{GroupId, InstanceId};
use groups::log::{CommitError, Disk, DiskImage, Log, OpenError, Record, SimDisk};
use log_support::memory::Memories;
use log_support::tape::{Entry, Left, Note, Operation, RecordedDisk, Shadow, SharedTape};
use log_support::*;
use proptest::prelude::*;

/// What is known about a log that drops segments.
#[derive(Clone, Default)]
struct Model {
    durable: Vec<Record>,
    doubtful: Vec<Record>,
}

impl Model {
    /// Everything durable is remembered, and a part of the doubtful commit from its beginning.
    fn check(&self, seen: &[Record]) -> Result<usize, String> {
        let found = Memories::of(seen);
        let mut memories = Memories::of(&self.durable);
        let mut first = memories.check(&found);
        for (n, record) in self.doubtful.iter().enumerate() {
            if first.is_ok() && found == memories {
                // The longest part that fits: a record may say nothing new.
                memories.record(record);
                if memories.check(&found).is_err() {
                    return Ok(n);
                }
                continue;
            }
            memories.record(record);
            if memories.check(&found).is_ok() {
                first = Ok(());
            }
        }
        first.map(|()| self.doubtful.len())
    }

    fn reopened(&mut self, seen: Vec<Record>, what: &str) {
        if let Err(error) = self.check(&seen) {
            panic!("{what}: {error}");
        }
        self.durable = seen;
        self.doubtful.clear();
    }
}

/// Writes records of a few groups, brings the groups forward and drops segments.
struct Owner<D: Disk> {
    log: Log<D>,
    instances: [u64; 4],
    rounds: [u64; 4],
}

impl<D: Disk> Owner<D> {
    fn open(disk: D, seen: &mut Vec<Record>) -> Result<Owner<D>, OpenError> {
        let opened = try_open(disk, options())?;
        let mut owner = Owner { log: opened.log, instances: [0; 4], rounds: [1; 4] };
        for record in &opened.records {
            let group = record.group().0 as usize;
            if let Record::Accept { instance, ballot, .. } = record {
                owner.instances[group] = owner.instances[group].max(instance.0);
                owner.rounds[group] = owner.rounds[group].max(ballot.round);
            }
            if let Record::Promise { ballot, .. } | Record::Anchor { ballot, .. } = record {
                owner.rounds[group] = owner.rounds[group].max(ballot.round);
            }
            if let Record::Anchor { instance, .. } = record {
                owner.instances[group] = owner.instances[group].max(instance.0);
            }
        }
        *seen = opened.records;
        Ok(owner)
    }

    /// A record of any kind; the first groups are busy and the last is nearly idle.
    fn record(&mut self, dice: &mut Dice) -> Record {
        let group = match dice.below(20) {
            0 => 3,
            1..=3 => 2,
            4..=8 => 1,
            _ => 0,
        };
        let (instances, rounds) = (&mut self.instances[group as usize], &mut self.rounds[group as usize]);
        match dice.below(12) {
            0 => {
                *rounds += dice.below(2);
                promise(group, *rounds)
            }
            1 => watermark(group, dice.below(*instances + 1)),
            2 if *instances > 0 => {
                let value = dice.bytes(30);
                chosen(group, 1 + dice.below(*instances), 1, value)
            }
            3 if *instances > 0 => {
                let value = dice.bytes(20);
                accept(group, 1 + dice.below(*instances), *rounds, value)
            }
            4 => anchor(group, dice.below(*instances + 1), dice.below(*rounds + 1)),
            _ => {
                *instances += 1 + dice.below(9) / 8;
                let length = if dice.below(4) == 0 { 900 + dice.below(800) } else { dice.below(300) };
                accept(group, *instances, *rounds, dice.bytes(length as usize))
            }
        }
    }

    fn commit(&mut self, records: Vec<Record>, model: &mut Model) -> Result<(), CommitError> {
        for record in records {
            self.log.append(&record).expect("appended");
            model.doubtful.push(record);
        }
        self.log.commit()?;
        model.durable.append(&mut model.doubtful);
        Ok(())
    }

    /// Appends what brings the pinned groups forward; some of them only to a lower instance, with
    /// the values beyond it written again.
    fn forward(&mut self, model: &mut Model, dice: &mut Dice, most: usize) -> Result<(), CommitError> {
        let Some(pinned) = self.log.pins(most) else { return Ok(()) };
        let memories = Memories::of(&model.durable);
        let mut records = Vec::new();
        for pin in &pinned.groups {
            let to = match dice.below(3) {
                0 => pin.instance.0.saturating_sub(dice.below(3)),
                _ => pin.instance.0,
            };
            records.extend(memories.forward(pin, to));
        }
        self.commit(records, model)
    }

    /// What the index says is what anybody would say who reads the whole log.
    fn check(&self, model: &Model) -> Result<(), String> {
        for (&group, memory) in &Memories::of(&model.durable).0 {
            for (&instance, (_, ballot, value)) in &memory.values {
                let at = InstanceId(instance);
                let found = self.log.read(GroupId(group), at, at, usize::MAX).map_err(|e| e.to_string())?;
                if found != [(at, *ballot, value.clone())] {
                    return Err(format!("group {group} instance {instance}: {found:?}"));
                }
            }
            let first = self.log.first_instance(GroupId(group));
            if let (Some((anchor, _)), Some(first)) = (memory.anchor, first)
                && first.0 > anchor + 1
            {
                return Err(format!("group {group}: anchor {anchor}, first {first}"));
            }
        }
        Ok(())
    }
}

/// Opens the log and works until something fails.
fn work<D: Disk>(disk: D, model: &mut Model, dice: &mut Dice, turns: u64) -> Result<(), String> {
    let mut seen = Vec::new();
    let mut owner = Owner::open(disk, &mut seen).map_err(|error| error.to_string())?;
    model.reopened(seen, "after opening");
    for _ in 0..turns {
        let records = (0..=dice.below(4)).map(|_| owner.record(dice)).collect();
        owner.commit(records, model).map_err(|error| error.to_string())?;
        while owner.log.stats().segments > 3 {
            owner.forward(model, dice, usize::MAX).map_err(|error| error.to_string())?;
            assert!(owner.log.drop_oldest().map_err(|error| error.to_string())?, "nothing pins it");
        }
    }
    owner.check(model)
}

#[test]
fn a_crash_after_any_operation_forgets_nothing() {
    let disk = SimDisk::new(0);
    work(disk.clone(), &mut Model::default(), &mut Dice(4), 60).expect("no faults");
    let operations = disk.operations();
    assert!(operations > 400, "a trace of {operations} operations");
    for stop in 0..=operations {
        for seed in 0..8 {
            let disk = SimDisk::new(seed * 7919 + stop);
            let mut model = Model::default();
            disk.stop_after(stop);
            let _ = work(disk.clone(), &mut model, &mut Dice(4), 60);
            if seed == 0 {
                disk.kill()
            } else {
                disk.crash()
            }
            let what = format!("stop {stop} seed {seed}");
            work(disk.clone(), &mut model, &mut Dice(9), 12)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            disk.crash();
            model.reopened(open(disk.clone()).records, &what);
        }
    }
}

/// Every operation of a life with drops; at each, what a power loss may leave, by the rules of
/// the tape and not of the simulated disk.
#[test]
fn a_power_loss_at_any_operation_forgets_nothing() {
    let (disk, tape) = (SimDisk::new(5), SharedTape::default());
    let mut dice = Dice(12);
    let mut owner = Owner::open(RecordedDisk::new(&disk, &tape), &mut Vec::new()).expect("new");
    let note = |note| tape.lock().expect("one thread").entries.push(Entry::Note(note));
    let mut model = Model::default();
    let mut drops = 0;
    while drops < 12 {
        let mut records: Vec<Record> = (0..=dice.below(4)).map(|_| owner.record(&mut dice)).collect();
        if owner.log.stats().segments > 3 {
            let memories = Memories::of(&model.durable);
            for pin in owner.log.pins(usize::MAX).expect("several").groups {
                records.extend(memories.forward(&pin, pin.instance.0));
            }
        }
        note(Note::Commit(records.clone()));
        owner.commit(records, &mut model).expect("no faults");
        note(Note::Acknowledged);
        if owner.log.stats().segments > 3 && owner.log.drop_oldest().expect("no faults") {
            drops += 1;
        }
    }
    drop(owner);

    let tape = tape.lock().expect("one thread");
    let (mut shadow, mut model) = (Shadow::default(), Model::default());
    let (mut removed, mut last, mut since_drop) = (0, None, 99);
    let mut checked = 0;
    for entry in &tape.entries {
        match entry {
            Entry::Note(Note::Commit(records)) => model.doubtful.extend_from_slice(records),
            Entry::Note(_) => model.durable.append(&mut model.doubtful),
            Entry::Operation(operation) => {
                shadow.operation(operation);
                since_drop += 1;
                match operation {
                    Operation::Remove { name } if name.ends_with(".seg") => {
                        removed += 1;
                        since_drop = 0;
                    }
                    Operation::Create { name, .. } if name == "log.manifest.tmp" => since_drop = 0,
                    Operation::Write { file, .. } => last = Some(*file),
                    _ => {}
                }
            }
        }
        // Closely around a drop or a new manifest, loosely elsewhere.
        let draws = if since_drop < 8 { 60 } else { 4 };
        let plain = [Left::Nothing, Left::All, Left::Names, Left::Contents];
        let mut images: Vec<DiskImage> =
            plain.into_iter().map(|mut left| shadow.left(&mut left, last)).collect();
        images.extend((0..draws).map(|_| shadow.left(&mut Left::Any(&mut dice), last)));
        for image in images {
            let disk = SimDisk::new(checked);
            disk.restore(&image);
            let opened = try_open(disk.clone(), options())
                .unwrap_or_else(|error| panic!("{error}, behind {removed} removals"));
            if let Err(error) = model.check(&opened.records) {
                panic!("{error}, behind {removed} removals");
            }
            checked += 1;
        }
    }
    assert_eq!(removed, 12);
    assert!(checked > 10_000, "{checked} states");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u8),
    Forward(u8),
    Drop,
    Seal,
    Crash,
    Kill,
    Reopen,
    FailSync(u8),
    FailWrite(u8),
    FailRemove(u8),
    StopIn(u8),
    Full,
    Space,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..6u8).prop_map(Step::Write),
        5 => (1..6u8).prop_map(Step::Forward),
        5 => Just(Step::Drop),
        1 => Just(Step::Seal),
        1 => Just(Step::Crash),
        1 => Just(Step::Kill),
        1 => Just(Step::Reopen),
        1 => (1..8u8).prop_map(Step::FailSync),
        1 => (1..8u8).prop_map(Step::FailWrite),
        1 => (1..4u8).prop_map(Step::FailRemove),
        1 => (0..12u8).prop_map(Step::StopIn),
        1 => Just(Step::Full),
        2 => Just(Step::Space),
    ]
}

/// Runs the steps; a node that fails is restarted at once. Returns how many segments it dropped.
fn run(seed: u64, steps: &[Step]) -> u64 {
    let disk = SimDisk::new(seed);
    let mut dice = Dice(seed);
    let mut model = Model::default();
    let mut owner: Option<Owner<SimDisk>> = None;
    let mut dropped = 0;
    for (n, &step) in steps.iter().enumerate() {
        let what = format!("step {n}, {step:?}");
        if owner.is_none() {
            let mut seen = Vec::new();
            match Owner::open(disk.clone(), &mut seen) {
                Ok(opened) => {
                    model.reopened(seen, &what);
                    owner = Some(opened);
                }
                Err(OpenError::NoSpace) => disk.set_capacity(None),
                Err(OpenError::Io { .. }) => disk.crash(),
                Err(other) => panic!("{what}: {other}"),
            }
        }
        let Some(open) = &mut owner else { continue };
        let outcome = match step {
            Step::Write(records) => {
                let records = (0..records).map(|_| open.record(&mut dice)).collect();
                open.commit(records, &mut model)
            }
            // What waits for space is in nobody's memory yet, so nobody is brought forward past it.
            Step::Forward(_) if open.log.pending_bytes() > 0 => Ok(()),
            Step::Forward(most) => open.forward(&mut model, &mut dice, usize::from(most)),
            Step::Drop => {
                let free = open.log.pins(1).is_some_and(|pinned| pinned.groups.is_empty());
                let outcome = open.log.drop_oldest();
                if let Ok(gone) = outcome {
                    assert_eq!(gone, free, "{what}");
                    dropped += u64::from(gone);
                }
                outcome.map(drop)
            }
            Step::Seal => open.log.seal().map(|()| model.durable.append(&mut model.doubtful)),
            Step::FailSync(nth) => {
                disk.fail_sync(u64::from(nth));
                Ok(())
            }
            Step::FailWrite(nth) => {
                disk.fail_write(u64::from(nth));
                Ok(())
            }
            Step::FailRemove(nth) => {
                disk.fail_remove(u64::from(nth));
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
            Step::Reopen => {
                let pins = open.log.pins(usize::MAX).map(|pinned| {
                    let mut groups = pinned.groups;
                    groups.sort_by_key(|pin| pin.group);
                    groups
                });
                let firsts = [0, 1, 2, 3].map(|group| open.log.first_instance(GroupId(group)));
                let pending = open.log.pending_bytes() > 0;
                owner = None;
                disk.set_capacity(None);
                disk.kill();
                if let Ok(again) = try_open(disk.clone(), options()) {
                    let after = again.log.pins(usize::MAX).map(|pinned| {
                        let mut groups = pinned.groups;
                        groups.sort_by_key(|pin| pin.group);
                        groups
                    });
                    // To open may begin a segment; and what was half written may be there now.
                    if !pending && pins.is_some() {
                        assert_eq!(after, pins, "{what}");
                        let after = [0, 1, 2, 3].map(|group| again.log.first_instance(GroupId(group)));
                        assert_eq!(after, firsts, "{what}");
                    }
                }
                Ok(())
            }
            Step::Crash | Step::Kill => {
                owner = None;
                Ok(())
            }
        };
        match outcome {
            Err(CommitError::NoSpace) if owner.as_ref().is_some_and(|open| open.log.pending_bytes() == 0) => {
                model.durable.append(&mut model.doubtful);
            }
            Ok(()) | Err(CommitError::NoSpace) => {}
            Err(_) => {
                owner = None;
                if dice.below(2) == 0 { disk.kill() } else { disk.crash() }
            }
        }
        if let Some(open) = &owner
            && open.log.pending_bytes() == 0
        {
            open.check(&model).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        match step {
            Step::Crash => disk.crash(),
            Step::Kill => disk.kill(),
            _ => {}
        }
    }
    drop(owner);
    disk.crash();
    disk.set_capacity(None);
    model.reopened(open(disk.clone()).records, "at the end");
    dropped
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]
    #[test]
    fn random_histories_forget_nothing(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..120)) {
        run(seed, &steps);
    }
}

/// The test of the test: random histories do drop segments.
#[test]
fn random_histories_drop_segments() {
    let steps: Vec<Step> = (0..400)
        .map(|n| match n % 6 {
            0..=3 => Step::Write(4),
            4 => Step::Forward(9),
            _ => Step::Drop,
        })
        .collect();
    for seed in 1..20 {
        let dropped = run(seed, &steps);
        assert!(dropped > 20, "seed {seed}: {dropped}");
    }
}
