//! Sealed segments read again while the log is open: every flipped bit that stands for something
//! is found and named, a segment that is dropped meanwhile is no finding.

mod log_support;

use groups::ids::{GroupId, StorageId};
use groups::log::{Log, OpenError, Scrubbed, SegmentSeq, SimDisk, scrub_segment, sealed_segments};
use log_support::*;

/// A log of a few segments that stays open.
fn several(disk: &SimDisk) -> Log<SimDisk> {
    let mut log = open(disk.clone()).log;
    let mut n = 0;
    while log.stats().segments < 4 {
        n += 1;
        commit(&mut log, &[accept(1, n, 1, vec![n as u8; 200]), watermark(2, n)]);
    }
    log
}

fn scrub(disk: &SimDisk, seq: SegmentSeq) -> Result<Scrubbed, OpenError> {
    scrub_segment(disk, STORAGE, seq, &mut |_| {})
}

#[test]
fn a_sound_log_is_found_sound_and_the_segment_being_written_is_left_alone() {
    let disk = SimDisk::new(3);
    assert_eq!(sealed_segments(&disk, STORAGE).expect("no log"), []);
    let log = several(&disk);
    let sealed = sealed_segments(&disk, STORAGE).expect("readable");
    assert_eq!(sealed, [1, 2, 3].map(SegmentSeq));
    let mut told = 0;
    for seq in sealed {
        let found = scrub_segment(&disk, STORAGE, seq, &mut |bytes| told += bytes).expect("sound");
        assert!(matches!(found, Scrubbed::Sound { records: 2.., bytes: 400.. }), "{found:?}");
    }
    assert!(told > 1200);
    assert!(sealed_segments(&disk, StorageId(9)).is_err(), "another disk's log");
    drop(log);
}

#[test]
fn every_bit_of_a_sealed_segment_that_stands_for_something_is_found_and_named() {
    let disk = SimDisk::new(4);
    let log = several(&disk);
    let seq = SegmentSeq(2);
    let data = disk.image().files()[&seq.file_name()].clone();
    let used = data.iter().rposition(|&byte| byte != 0).expect("records") + 1;
    let (mut found, mut groups) = (0, 0);
    for bit in 0..used * 8 {
        assert!(disk.flip_bit(&seq.file_name(), (bit / 8) as u64, (bit % 8) as u8));
        match scrub(&disk, seq) {
            Err(OpenError::Damaged(damage)) => {
                found += 1;
                assert_eq!(damage.file, seq.file_name());
                assert!(damage.offset <= (bit / 8) as u64, "{damage} for bit {bit}");
                groups += usize::from(damage.groups.iter().any(|g| [1, 2].map(GroupId).contains(g)));
            }
            Err(OpenError::Newer { .. } | OpenError::Foreign { .. }) => found += 1,
            other => panic!("bit {bit}: {other:?}"),
        }
        assert!(disk.flip_bit(&seq.file_name(), (bit / 8) as u64, (bit % 8) as u8));
    }
    assert_eq!(found, used * 8);
    assert!(groups > used * 4, "most findings name a group");
    assert!(scrub(&disk, seq).is_ok(), "all bits are back");
    drop(log);
}

#[test]
fn a_segment_that_is_dropped_is_gone_and_one_that_is_lost_is_damage() {
    use groups::log::Disk as _;
    let disk = SimDisk::new(5);
    let mut log = several(&disk);
    commit(&mut log, &[anchor(1, 1000, 1), anchor(2, 1000, 1)]);
    assert!(log.drop_oldest().expect("dropped"));
    assert!(matches!(scrub(&disk, SegmentSeq(1)), Ok(Scrubbed::Gone)));
    assert!(matches!(scrub(&disk, SegmentSeq(2)), Ok(Scrubbed::Sound { .. })));
    disk.remove(&SegmentSeq(2).file_name()).expect("removed");
    let Err(OpenError::Damaged(damage)) = scrub(&disk, SegmentSeq(2)) else { panic!("it is missed") };
    assert_eq!(damage.file, SegmentSeq(2).file_name());
    assert!(damage.why.contains("missing"), "{damage}");
}
