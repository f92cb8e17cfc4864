//! Dropping old segments: what may go, what may not, and what is left behind.

mod log_support;

use groups::ids::{GroupId, InstanceId, StorageId};
use groups::log::{
    AppendError, CommitError, Disk, DiskImage, Log, LogOptions, OpenError, Pin, Pinned, ReadError, Record,
    SegmentSeq, SimDisk, inspect,
};
use log_support::memory::Memories;
use log_support::*;

fn segment(n: u64) -> String {
    SegmentSeq(n).file_name()
}

/// Fills the segment that is written with values of a group, until the next one has begun;
/// returns the next instance.
fn fill<D: Disk>(log: &mut Log<D>, group: u32, mut instance: u64) -> u64 {
    let segments = log.stats().segments;
    while log.stats().segments == segments {
        commit(log, &[accept(group, instance, 1, vec![instance as u8; 1400])]);
        instance += 1;
    }
    instance
}

fn pinned<D: Disk>(log: &Log<D>) -> Vec<(u32, u64, u64)> {
    let pins = log.pins(usize::MAX).expect("more than one segment").groups;
    let mut pins: Vec<_> = pins.iter().map(|pin| (pin.group.0, pin.instance.0, pin.promised.round)).collect();
    pins.sort_unstable();
    pins
}

#[test]
fn the_only_segment_is_never_dropped() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    assert_eq!(log.pins(10), None);
    assert!(!log.drop_oldest().expect("no failure"));
    commit(&mut log, &[anchor(1, 5, 1)]);
    assert!(!log.drop_oldest().expect("no failure"));
    let next = fill(&mut log, 1, 6);
    commit(&mut log, &[anchor(1, next, 1)]);
    assert!(log.drop_oldest().expect("dropped"));
    assert_eq!((log.pins(10), log.stats().segments), (None, 1));
    assert!(!log.drop_oldest().expect("no failure"));
}

/// A commit that is larger than what is left of a new segment leaves one behind without a record.
#[test]
fn a_segment_that_holds_no_record_is_dropped_at_once() {
    let disk = SimDisk::new(1);
    drop(open(disk.clone()));
    // A segment of the smaller size is too small for the record.
    let large = LogOptions { segment_size: 4 * SEGMENT, max_record: 12_000, ..options() };
    let mut log = try_open(disk.clone(), large).expect("opens").log;
    commit(&mut log, &[accept(1, 1, 1, vec![1; 9000])]);
    assert_eq!((log.stats().segments, pinned(&log)), (2, vec![]));
    assert!(log.drop_oldest().expect("dropped"));
    assert_eq!(log.stats().segments, 1);
}

/// Each line: what lies in the oldest segment, what is written behind it, and what still pins.
#[test]
fn what_pins_and_what_lifts_a_pin() {
    type Case = (&'static str, Vec<Record>, Vec<Record>, Option<(u64, u64)>);
    let cases: Vec<Case> = vec![
        ("a promise", vec![promise(1, 3)], vec![], Some((0, 3))),
        ("a higher promise", vec![promise(1, 3)], vec![promise(1, 4)], None),
        ("the same promise", vec![promise(1, 3)], vec![promise(1, 3)], None),
        ("a lower promise", vec![promise(1, 3)], vec![promise(1, 2)], Some((0, 3))),
        ("an accept is a promise", vec![promise(1, 3)], vec![accept(1, 1, 3, "v")], None),
        ("a low accept is none", vec![promise(1, 3)], vec![accept(1, 1, 2, "v")], Some((0, 3))),
        ("a learned value is none", vec![promise(1, 3)], vec![chosen(1, 1, 9, "v")], Some((0, 3))),
        ("an anchor is a promise", vec![promise(1, 3)], vec![anchor(1, 0, 3)], None),
        ("a low anchor is none", vec![promise(1, 3)], vec![anchor(1, 9, 2)], Some((9, 3))),
        ("a value", vec![accept(1, 4, 1, "v")], vec![promise(1, 5)], Some((4, 5))),
        ("an anchored value", vec![accept(1, 4, 1, "v")], vec![anchor(1, 4, 1)], None),
        ("one beyond the anchor", vec![accept(1, 4, 1, "v")], vec![anchor(1, 3, 1)], Some((4, 1))),
        ("written again", vec![accept(1, 4, 1, "v")], vec![anchor(1, 3, 1), accept(1, 4, 1, "v")], None),
        ("written again without anchor", vec![accept(1, 4, 1, "v")], vec![accept(1, 4, 2, "w")], None),
        (
            "learned again, but the vote was a promise",
            vec![accept(1, 4, 3, "v")],
            vec![chosen(1, 4, 2, "v")],
            Some((0, 3)),
        ),
        (
            "the last of several",
            vec![accept(1, 4, 1, "v"), accept(1, 9, 1, "w"), accept(1, 12, 1, "x")],
            vec![anchor(1, 5, 1), accept(1, 12, 1, "x")],
            Some((9, 1)),
        ),
        ("a learned value", vec![chosen(1, 4, 1, "v")], vec![], Some((4, 0))),
        ("a watermark", vec![watermark(1, 4)], vec![], Some((0, 0))),
        ("a later watermark", vec![watermark(1, 4)], vec![watermark(1, 4)], None),
        ("a lower watermark", vec![watermark(1, 4)], vec![watermark(1, 3)], Some((0, 0))),
        ("an anchor behind a watermark", vec![watermark(1, 4)], vec![anchor(1, 2, 0)], None),
        ("an anchor", vec![anchor(1, 4, 1)], vec![promise(1, 7), watermark(1, 9)], Some((4, 7))),
        ("a later anchor", vec![anchor(1, 4, 1)], vec![anchor(1, 4, 1)], None),
        ("a lower anchor is none at all", vec![anchor(1, 4, 1)], vec![anchor(1, 3, 1)], Some((4, 1))),
        (
            "an anchor and a value beyond it",
            vec![anchor(1, 4, 1), accept(1, 6, 1, "v")],
            vec![anchor(1, 5, 1)],
            Some((6, 1)),
        ),
        (
            "the ends of the number line",
            vec![accept(1, u64::MAX, 1, "v"), accept(1, 0, 1, "v")],
            vec![anchor(1, u64::MAX, 1)],
            None,
        ),
        ("before the first", vec![accept(1, 0, 1, "v")], vec![accept(1, 1, 1, "w")], Some((0, 1))),
    ];
    for (what, first, then, expected) in cases {
        let disk = SimDisk::new(1);
        let mut log = open(disk.clone()).log;
        commit(&mut log, &first);
        let next = fill(&mut log, 2, 1);
        // Not yet written, they lift nothing.
        let before = pinned(&log);
        assert!(before.iter().any(|pin| pin.0 == 1), "{what}");
        then.iter().for_each(|record| log.append(record).expect("appended"));
        assert_eq!(pinned(&log), before, "{what}");
        assert!(!log.drop_oldest().expect("no failure"), "{what}");
        commit(&mut log, &[anchor(2, next, 1)]);
        let expected: Vec<_> = expected.iter().map(|(instance, round)| (1, *instance, *round)).collect();
        assert_eq!(pinned(&log), expected, "{what}");
        drop(log);
        disk.crash();
        let mut log = open(disk.clone()).log;
        assert_eq!(pinned(&log), expected, "{what}, after a restart");
        assert_eq!(log.drop_oldest().expect("no failure"), expected.is_empty(), "{what}");
        drop(log);
        disk.crash();
        let seen = open(disk.clone()).records;
        let all = Memories::of(first.iter().chain(&then));
        let seen = Memories::of(seen.iter().filter(|record| record.group() == GroupId(1)));
        all.check(&seen).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

/// A group says one word and is silent for ever after, while another writes and writes.
#[test]
fn an_idle_group_holds_no_segment_for_ever() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    commit(&mut log, &[promise(1, 7), accept(1, 1, 7, "one"), watermark(1, 1)]);
    let mut next = 1;
    let mut brought_forward = 0;
    for _ in 0..60 {
        next = fill(&mut log, 2, next);
        commit(&mut log, &[anchor(2, next - 1, 1)]);
        while log.stats().disk_bytes > 3 * SEGMENT {
            let Pinned { segment, bytes, log_bytes, groups } = log.pins(10).expect("several segments");
            assert_eq!((bytes, log_bytes), (SEGMENT, log.stats().segments * SEGMENT));
            for pin in &groups {
                assert_eq!(*pin, Pin { group: GroupId(1), instance: InstanceId(1), promised: ballot(7) });
                commit(&mut log, &[anchor(1, 1, 7)]);
                brought_forward += 1;
            }
            assert!(log.drop_oldest().expect("dropped"), "{segment} is held");
        }
        assert!(log.stats().segments <= 4);
    }
    assert!((10..60).contains(&brought_forward), "{brought_forward} times");
    assert!(log.stats().dropped_segments > 50);
    drop(log);
    disk.crash();
    assert_eq!(open(disk.clone()).records.iter().filter(|r| r.group() == GroupId(1)).count(), 1);
}

/// Ten thousand groups with one record each, brought forward a few at a time.
#[test]
fn many_groups_are_brought_forward_a_few_at_a_time() {
    const GROUPS: u32 = 10_000;
    let options = LogOptions { segment_size: 1 << 20, ..options() };
    let disk = SimDisk::new(1);
    let mut log = try_open(disk.clone(), options.clone()).expect("new").log;
    let promises: Vec<Record> = (0..GROUPS).map(|group| promise(group, 2)).collect();
    commit(&mut log, &promises);
    let mut instance = 0;
    let mut turns = 0;
    while log.stats().dropped_segments < 4 {
        while log.stats().segments < 3 {
            instance += 1;
            commit(&mut log, &[accept(0, instance, 2, vec![1; 1900])]);
        }
        let pins = log.pins(500).expect("three segments").groups;
        assert!(pins.len() <= 500);
        if pins.is_empty() {
            assert!(log.drop_oldest().expect("dropped"));
            continue;
        }
        turns += 1;
        let anchors: Vec<Record> = pins.iter().map(|pin| anchor(pin.group.0, pin.instance.0, 2)).collect();
        commit(&mut log, &anchors);
    }
    assert!(turns >= 20, "{turns} turns");
    drop(log);
    disk.crash();
    let opened = try_open(disk.clone(), options).expect("opens");
    assert_eq!(Memories::of(&opened.records).0.len(), GROUPS as usize);
}

#[test]
fn reads_below_what_is_left_are_refused() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    let next = fill(&mut log, 1, 1);
    commit(&mut log, &[anchor(1, next - 1, 1), anchor(2, 9, 1), accept(1, next + 3, 1, "beyond a hole")]);
    assert_eq!(log.first_instance(GroupId(1)), Some(InstanceId(1)));
    assert!(log.drop_oldest().expect("dropped"));
    let refused = |log: &Log<SimDisk>, group: u32, from: u64, expected: u64| {
        assert_eq!(log.first_instance(GroupId(group)), Some(InstanceId(expected)));
        match log.read(GroupId(group), InstanceId(from), InstanceId(99), 1 << 20) {
            Err(ReadError::NotHere { first }) => assert_eq!(first, InstanceId(expected)),
            other => panic!("{other:?}"),
        }
    };
    let held = |log: &Log<SimDisk>, group: u32, from: u64| -> Vec<u64> {
        let values = log.read(GroupId(group), InstanceId(from), InstanceId(99), 1 << 20).expect("readable");
        values.iter().map(|(instance, ..)| instance.0).collect()
    };
    for restart in [false, true] {
        if restart {
            drop(log);
            disk.crash();
            log = open(disk.clone()).log;
        }
        // The last value before the anchor began the new segment.
        for from in 0..next - 1 {
            refused(&log, 1, from, next - 1);
        }
        assert_eq!(held(&log, 1, next - 1), [next - 1]);
        assert_eq!(held(&log, 1, next), []);
        assert_eq!(held(&log, 1, next + 3), [next + 3]);
        // Nothing at all is left of the other group but the anchor.
        refused(&log, 2, 3, 10);
        refused(&log, 2, 9, 10);
        assert_eq!(held(&log, 2, 10), []);
        assert_eq!(held(&log, 3, 1), []);
    }
}

/// Values between the newest anchor and what a follower has can have holes below: an anchor from
/// a checkpoint of a peer jumps over instances that were never here.
#[test]
fn an_anchor_may_jump_over_instances_that_were_never_here() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    commit(&mut log, &[accept(1, 1, 1, "a"), accept(1, 2, 1, "b")]);
    commit(&mut log, &[anchor(1, 50, 4), accept(1, 51, 4, "c")]);
    let read = |from: u64| log.read(GroupId(1), InstanceId(from), InstanceId(99), 1 << 20);
    for from in [0, 1, 2, 3, 50] {
        assert!(matches!(read(from), Err(ReadError::NotHere { first: InstanceId(51) })), "{from}");
    }
    assert_eq!(read(51).expect("held").len(), 1);
}

#[test]
fn a_file_that_cannot_be_removed_is_no_failure() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    let mut next = 1;
    for _ in 0..4 {
        next = fill(&mut log, 1, next);
    }
    commit(&mut log, &[anchor(1, next, 1)]);
    disk.fail_remove(1);
    assert!(log.drop_oldest().expect("dropped"));
    assert!(disk.image().files().contains_key(&segment(1)));
    let stats = log.stats();
    assert_eq!((stats.segments, stats.disk_bytes, stats.dropped_segments), (4, 5 * SEGMENT, 1));
    // The next drop tries it again, this one still fails and the other goes.
    disk.fail_remove(1);
    assert!(log.drop_oldest().expect("dropped"));
    assert!(disk.image().files().contains_key(&segment(1)));
    assert!(!disk.image().files().contains_key(&segment(2)));
    assert_eq!(log.stats().disk_bytes, 4 * SEGMENT);
    // So does the next open, whatever is in it by now.
    drop(log);
    disk.crash();
    for garbage in [vec![], vec![7; 100], disk.image().files()[&segment(3)].clone()] {
        let mut image = disk.image();
        image.files_mut().insert(segment(1), garbage);
        disk.restore(&image);
        disk.fail_remove(1);
        let opened = open(disk.clone());
        assert!(disk.image().files().contains_key(&segment(1)));
        assert_eq!(opened.log.stats().segments, 3);
        drop(opened);
        let opened = open(disk.clone());
        assert!(!disk.image().files().contains_key(&segment(1)));
        assert_eq!(opened.log.stats().disk_bytes, 3 * SEGMENT);
    }
}

/// A power loss may bring back the file of a dropped segment, as it was or damaged: nobody looks.
#[test]
fn what_is_left_of_dropped_segments_is_nobodys() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    let next = fill(&mut log, 1, 1);
    let next = fill(&mut log, 1, next);
    commit(&mut log, &[anchor(1, next, 1)]);
    let before = disk.image();
    assert!(log.drop_oldest().expect("dropped"));
    assert!(log.drop_oldest().expect("dropped"));
    drop(log);
    let after = disk.image();
    let expected = {
        disk.restore(&after);
        open(disk.clone()).records
    };
    let mut foreign = before.files()[&segment(1)].clone();
    foreign[20] ^= 1;
    let mut newer = before.files()[&segment(1)].clone();
    newer[8] = 2;
    let crc = crc32fast::hash(&newer[..60]);
    newer[60..64].copy_from_slice(&crc.to_le_bytes());
    let leftovers = [
        before.files()[&segment(1)].clone(),
        before.files()[&segment(2)].clone(),
        foreign,
        newer,
        vec![1; 9],
    ];
    for (n, data) in leftovers.into_iter().enumerate() {
        for name in [segment(1), segment(2)] {
            let mut image = after.clone();
            image.files_mut().insert(name.clone(), data.clone());
            disk.restore(&image);
            let mut seen = Vec::new();
            inspect(&disk.clone(), None, &mut |_, record| seen.push(record)).expect("sound");
            assert_eq!(seen, expected);
            assert_eq!(disk.image(), image, "to inspect a log changes it");
            assert_eq!(open(disk.clone()).records, expected, "leftover {n}");
            assert!(!disk.image().files().contains_key(&name));
        }
    }
}

/// The manifest of before the drop, put back without the segment; or a manifest that names a
/// later one first.
#[test]
fn a_manifest_of_another_time_is_seen() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    let next = fill(&mut log, 1, 1);
    commit(&mut log, &[anchor(1, next, 1)]);
    let old = disk.image().files()["log.manifest"].clone();
    assert!(log.drop_oldest().expect("dropped"));
    drop(log);
    let image = disk.image();
    let refused = |change: &dyn Fn(&mut DiskImage)| {
        let mut changed = image.clone();
        change(&mut changed);
        let disk = SimDisk::new(1);
        disk.restore(&changed);
        assert!(matches!(try_open(disk.clone(), options()), Err(OpenError::Damaged(_))));
        assert_eq!(disk.image(), changed);
    };
    refused(&|image| drop(image.files_mut().insert("log.manifest".into(), old.clone())));
    refused(&|image| drop(image.files_mut().remove("log.manifest")));
    refused(&|image| drop(image.files_mut().remove(&segment(2))));
}

#[test]
fn a_full_disk_holds_the_segment_and_nothing_else() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    let next = fill(&mut log, 1, 1);
    commit(&mut log, &[anchor(1, next, 1)]);
    let full = || disk.image().files().values().map(|file| file.len() as u64).sum();
    disk.set_capacity(Some(full()));
    assert!(matches!(log.drop_oldest(), Err(CommitError::NoSpace)));
    assert_eq!((log.stats().segments, log.stats().dropped_segments), (2, 0));
    commit(&mut log, &[promise(1, 2)]);
    disk.set_capacity(Some(full() + 64));
    assert!(log.drop_oldest().expect("dropped"));
    drop(log);
    disk.crash();
    assert_eq!(open(disk.clone()).found.segments, 1);
}

/// An error of the manifest's write or of any sync is final, and nothing is lost by it.
#[test]
fn an_error_during_a_drop_is_final() {
    let mut poisoned = 0;
    for nth in 1..8 {
        for sync in [false, true] {
            let disk = SimDisk::new(nth);
            let mut log = open(disk.clone()).log;
            let records = [promise(1, 3), accept(1, 1, 3, "v"), accept(1, 2, 3, "w")];
            commit(&mut log, &records);
            let next = fill(&mut log, 2, 1);
            let forward = [anchor(1, 1, 3), accept(1, 2, 3, "w"), anchor(2, next, 1)];
            commit(&mut log, &forward);
            if sync {
                disk.fail_sync(nth)
            } else {
                disk.fail_write(nth)
            }
            match log.drop_oldest() {
                Ok(dropped) => assert!(dropped),
                Err(CommitError::Io { .. }) => {
                    poisoned += 1;
                    assert!(matches!(log.drop_oldest(), Err(CommitError::Poisoned)));
                    assert!(matches!(log.commit(), Err(CommitError::Poisoned)));
                    assert_eq!(log.append(&promise(1, 9)), Err(AppendError::Poisoned));
                }
                Err(other) => panic!("{other}"),
            }
            drop(log);
            if nth % 2 == 0 {
                disk.kill()
            } else {
                disk.crash()
            }
            let all = Memories::of(records.iter().chain(&forward[..2]));
            let seen = open(disk.clone()).records;
            let seen = Memories::of(seen.iter().filter(|record| record.group() == GroupId(1)));
            all.check(&seen).unwrap_or_else(|error| panic!("error {nth} sync {sync}: {error}"));
        }
    }
    assert!(poisoned >= 6, "only {poisoned} errors were met");
}

/// Behind an anchor that let a segment go, the log proves that it was synced: rot in it is seen
/// and not cut as a torn tail.
#[test]
fn an_anchor_that_let_a_segment_go_is_sealed() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    commit(&mut log, &[promise(1, 9)]);
    let next = fill(&mut log, 2, 1);
    commit(&mut log, &[anchor(2, next, 1), anchor(1, 0, 9)]);
    assert!(log.drop_oldest().expect("dropped"));
    drop(log);
    disk.kill();
    let mut last = None;
    inspect(&disk.clone(), None, &mut |at, _| last = Some(at)).expect("sound");
    let last = last.expect("records");
    assert!(disk.flip_bit(&last.segment.file_name(), u64::from(last.offset), 1));
    assert!(matches!(try_open(disk.clone(), options()), Err(OpenError::Damaged(_))));
}

/// A segment of another storage in place of a dropped one is no reason to refuse the log, but in
/// place of one that is needed it is.
#[test]
fn foreign_segments_count_only_where_they_are_needed() {
    let disk = SimDisk::new(2);
    let foreign = LogOptions { storage_id: StorageId(2), ..options() };
    drop(try_open(disk.clone(), foreign).expect("new"));
    let foreign = disk.image().files()[&segment(1)].clone();
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    let next = fill(&mut log, 1, 1);
    commit(&mut log, &[anchor(1, next, 1)]);
    let mut whole = disk.image();
    whole.files_mut().insert(segment(1), foreign.clone());
    assert!(log.drop_oldest().expect("dropped"));
    drop(log);
    let mut after = disk.image();
    after.files_mut().insert(segment(1), foreign);
    disk.restore(&whole);
    assert!(matches!(try_open(disk.clone(), options()), Err(OpenError::Foreign { .. })));
    disk.restore(&after);
    assert_eq!(open(disk.clone()).found.segments, 1);
}
