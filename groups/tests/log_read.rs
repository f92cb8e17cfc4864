//! Reading records back for peers, and the log on the real file system.

mod log_support;

use groups::ids::{Ballot, GroupId, InstanceId};
use groups::log::{
    AppendError, Disk, DiskFile, Durability, Log, LogOptions, OpenError, ReadError, RealDisk, Record,
    SegmentSeq, SimDisk,
};
use log_support::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn read<D: Disk>(log: &Log<D>, group: u32, from: u64, to: u64, max: usize) -> Vec<(u64, u64, Vec<u8>)> {
    log.read(GroupId(group), InstanceId(from), InstanceId(to), max)
        .expect("readable")
        .into_iter()
        .map(|(instance, ballot, value)| (instance.0, ballot.round, value.to_vec()))
        .collect()
}

#[test]
fn the_newest_record_of_an_instance_is_read() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    commit(&mut log, &[accept(1, 1, 1, "a"), accept(1, 2, 1, "b"), accept(1, 3, 1, "c")]);
    commit(&mut log, &[accept(1, 2, 5, "B"), chosen(1, 3, 4, "C")]);
    log.append(&accept(1, 1, 9, "not yet durable")).expect("appended");
    let expected = vec![(1, 1, b"a".to_vec()), (2, 5, b"B".to_vec()), (3, 4, b"C".to_vec())];
    assert_eq!(read(&log, 1, 1, 9, 100), expected);
    drop(log);
    disk.crash();
    assert_eq!(read(&open(disk.clone()).log, 1, 1, 9, 100), expected);
}

#[test]
fn a_log_can_be_given_to_a_thread_of_its_own() {
    fn is_send<T: Send>() {}
    is_send::<Log<RealDisk>>();
    is_send::<Log<SimDisk>>();
}

#[test]
fn reads_stop_at_gaps_and_at_the_limit() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    let far = u64::MAX;
    commit(
        &mut log,
        &[accept(1, 5, 1, vec![5; 100]), accept(1, 6, 1, vec![6; 100]), accept(1, 8, 1, "eight")],
    );
    commit(&mut log, &[accept(2, far, 1, "the last of all")]);
    let instances = |from, to, max| -> Vec<u64> {
        read(&log, 1, from, to, max).into_iter().map(|(instance, ..)| instance).collect()
    };
    assert_eq!(instances(5, 9, 1000), [5, 6]);
    assert_eq!(instances(5, 5, 1000), [5]);
    assert_eq!(instances(5, 9, 0), [5]);
    assert_eq!(instances(5, 9, 199), [5]);
    assert_eq!(instances(5, 9, 200), [5, 6]);
    assert_eq!(instances(7, 9, 1000), []);
    assert_eq!(instances(8, 9, 1000), [8]);
    assert_eq!(instances(9, 20, 1000), []);
    assert_eq!(instances(6, 5, 1000), []);
    assert_eq!(read(&log, 2, far, far, 1000).len(), 1);
    assert_eq!(read(&log, 3, 1, 9, 1000), []);
    let before = log.read(GroupId(1), InstanceId(4), InstanceId(9), 1000);
    assert!(matches!(before, Err(ReadError::NotHere { first: InstanceId(5) })));
}

#[test]
fn a_read_checks_what_it_finds() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    commit(&mut log, &[accept(1, 1, 1, vec![3; 64])]);
    let first = SegmentSeq(1).file_name();
    for byte in 560..560 + 48 + 64 {
        assert!(disk.flip_bit(&first, byte, 3));
        let found = log.read(GroupId(1), InstanceId(1), InstanceId(1), 100);
        assert!(matches!(found, Err(ReadError::Damaged(_))), "byte {byte}");
        assert!(disk.flip_bit(&first, byte, 3));
    }
    assert_eq!(read(&log, 1, 1, 1, 100).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn reads_agree_with_a_map(
        writes in prop::collection::vec((0..3u32, 1..25u64, 1..5u64, 0..300usize, any::<bool>()), 1..80),
        reopen in any::<bool>(),
    ) {
        let disk = SimDisk::new(1);
        let mut log = open(disk.clone()).log;
        let mut model: BTreeMap<(u32, u64), (u64, Vec<u8>)> = BTreeMap::new();
        for (n, (group, instance, round, length, learned)) in writes.into_iter().enumerate() {
            let value = vec![n as u8; length];
            let record = if learned { chosen } else { accept };
            commit(&mut log, &[record(group, instance, round, value.clone())]);
            model.insert((group, instance), (round, value));
        }
        if reopen {
            drop(log);
            disk.crash();
            log = open(disk.clone()).log;
        }
        for group in 0..3 {
            let first = model.keys().find(|key| key.0 == group).map(|key| key.1);
            prop_assert_eq!(log.first_instance(GroupId(group)), first.map(InstanceId));
            for from in first.unwrap_or(1)..26 {
                let expected: Vec<_> = (from..=25)
                    .map_while(|i| model.get(&(group, i)).map(|(round, value)| (i, *round, value.clone())))
                    .collect();
                prop_assert_eq!(read(&log, group, from, 25, usize::MAX), expected);
            }
        }
    }
}

/// A directory that goes away with the test.
struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> TempDir {
        let path = std::env::temp_dir().join(format!("pelago-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        TempDir(path)
    }

    fn disk(&self) -> RealDisk {
        RealDisk::open(&self.0).expect("the directory")
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_log_on_the_real_file_system() {
    for durability in [Durability::Fsync, Durability::None] {
        let dir = TempDir::new(&format!("real-{durability:?}"));
        let options =
            LogOptions { segment_size: 1 << 20, storage_id: STORAGE, max_record: 600_000, durability };
        let mut dice = Dice(3);
        let mut written: Vec<Record> = Vec::new();
        for round in 0..4 {
            let opened = try_open(dir.disk(), options.clone()).expect("opens");
            assert_eq!(opened.found.fresh, round == 0);
            assert_eq!(opened.records, written);
            let mut log = opened.log;
            assert!(matches!(try_open(dir.disk(), options.clone()), Err(OpenError::Locked)));
            for n in 0..12 {
                let instance = written.len() as u64 + 1;
                let records = [
                    accept(1, instance, 1, dice.bytes(if n % 4 == 0 { 500_000 } else { 3000 })),
                    Record::Promise { group: GroupId(2), ballot: Ballot::ZERO },
                ];
                commit(&mut log, &records);
                let value = read(&log, 1, instance, instance, 1).remove(0).2;
                assert!(matches!(&records[0], Record::Accept { value: v, .. } if *v == value));
                written.extend(records);
            }
            if round == 2 {
                log.seal().expect("sealed");
            }
            assert!(log.disk().free_space().expect("a figure") > 0);
        }
        let names = dir.disk().list().expect("listed");
        assert!(names.contains(&"log.manifest".to_owned()), "{names:?}");
        assert!(!names.iter().any(|name| name.ends_with(".tmp")), "{names:?}");
    }
}

#[test]
fn small_files_are_replaced_as_a_whole() {
    let dir = TempDir::new("small");
    let disk = dir.disk();
    assert_eq!(disk.read_small("identity", 100).expect("readable"), None);
    for content in [&b"one"[..], b"", b"three"] {
        disk.write_small("identity", content).expect("written");
        assert_eq!(disk.read_small("identity", 5).expect("readable").as_deref(), Some(content));
    }
    assert!(disk.read_small("identity", 4).is_err());
    disk.remove("identity").expect("removed");
    disk.remove("identity").expect("nothing to remove is no error");
    assert!(disk.open("identity", groups::log::Access::Read).is_err());
}

#[test]
fn a_file_takes_writes_of_any_size_at_any_place() {
    let dir = TempDir::new("unaligned");
    let mut disk = dir.disk();
    disk.start_prepare("zeros", 3 << 20).expect("started");
    disk.wait_prepared().expect("prepared");
    let mut file = disk.open("zeros", groups::log::Access::Synced).expect("open");
    let mut expected = vec![0; 3 << 20];
    let mut dice = Dice(11);
    let places = [(0, 512), (512, 1536), (100, 3), (4096, 2 << 20), (4095, 4098), ((3 << 20) - 512, 512)];
    for (offset, length) in places {
        let data = dice.bytes(length);
        file.write_at(&data, offset as u64).expect("written");
        file.sync().expect("synced");
        expected[offset..offset + length].copy_from_slice(&data);
        let mut found = vec![0; expected.len()];
        file.read_at(&mut found, 0).expect("read");
        assert!(found == expected, "after {length} bytes at {offset}");
    }
    let mut beyond = [0; 2];
    assert!(file.read_at(&mut beyond, (3 << 20) - 1).is_err());
}

#[test]
fn an_abandoned_preparation_leaves_the_directory_usable() {
    let dir = TempDir::new("abandoned");
    let mut disk = dir.disk();
    disk.start_prepare("log.spare", 1 << 28).expect("started");
    drop(disk);
    let mut log = open(dir.disk()).log;
    assert_eq!(log.append(&promise(1, 1)), Ok::<(), AppendError>(()));
    log.commit().expect("committed");
}
