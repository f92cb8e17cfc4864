//! Reading records back for peers, and the log on the real file system.

mod log_support;

use groups::ids::{Ballot, GroupId, InstanceId, NodeId};
use groups::log::{
    AppendError, Disk, DiskFile, Durability, Log, LogOptions, LogReader, OpenError, ReadError, RealDisk,
    Record, SegmentSeq, SimDisk,
};
use groups::time::Time;
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

fn pin(reader: &LogReader<SimDisk>, group: u32, from: u64, at_ms: u64) {
    reader.pin(GroupId(group), NodeId(2), InstanceId(from), Time::from_nanos(at_ms * 1_000_000));
}

/// A log with three segments: group 1 has its first values in the oldest one and is anchored
/// behind them, so that nothing but a reader needs that.
fn three_segments(disk: &SimDisk) -> Log<SimDisk> {
    let mut log = open(disk.clone()).log;
    let mut instance = 0;
    while log.stats().segments < 3 {
        instance += 1;
        commit(&mut log, &[accept(1, instance, 1, vec![7; 400])]);
    }
    commit(&mut log, &[anchor(1, instance, 1)]);
    log
}

#[test]
fn what_is_being_sent_is_known_until_nobody_asks_any_more() {
    let disk = SimDisk::new(1);
    let log = three_segments(&disk);
    let reader = log.reader();
    let sent = |at_ms: u64| log.is_being_sent(Time::from_nanos(at_ms * 1_000_000));
    assert!(!sent(0));
    pin(&reader, 1, 1, 1_000);
    assert!(sent(2_900));
    assert!(!sent(3_100), "nobody has asked for two seconds");
    // Asked again and again without getting on: ten seconds, then it is over.
    for second in 10..20 {
        pin(&reader, 1, 1, second * 1_000);
        assert!(sent(second * 1_000 + 500));
    }
    pin(&reader, 1, 1, 20_000);
    assert!(!sent(20_500));
    // What lies in a later segment does not hold the oldest.
    pin(&reader, 1, 1, 30_000);
    assert!(sent(30_000));
    pin(&reader, 1, 1_000_000, 30_001);
    assert!(!sent(30_001));
}

#[test]
fn a_reader_sees_what_is_committed_and_what_is_dropped() {
    let disk = SimDisk::new(1);
    let mut log = three_segments(&disk);
    let mut reader = log.reader();
    let (first, far) = (InstanceId(1), InstanceId(u64::MAX));
    let found = reader.read(GroupId(1), first, far, 1_000).expect("readable");
    assert_eq!(found.iter().map(|(i, ..)| i.0).collect::<Vec<_>>(), [1, 2]);
    assert!(reader.sealed_values() >= 2);
    assert!(log.drop_oldest().expect("dropped"));
    let gone = reader.read(GroupId(1), first, far, 1_000);
    assert!(matches!(gone, Err(ReadError::NotHere { first }) if first.0 > 1), "{gone:?}");
    commit(&mut log, &[accept(2, 1, 1, "new")]);
    assert_eq!(reader.read(GroupId(2), first, far, 100).expect("readable").len(), 1);
}

/// A damaged record is never sent, and what lies before it is.
#[test]
fn a_reader_stops_before_damage_and_then_reports_it() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    let values = [accept(1, 1, 1, vec![1; 64]), accept(1, 2, 1, vec![2; 64]), accept(1, 3, 1, vec![3; 64])];
    commit(&mut log, &values);
    // A commit header, then 48 bytes of header and 64 of value each.
    assert!(disk.flip_bit(&SegmentSeq(1).file_name(), 512 + 48 + 112 + 60, 0));
    let mut reader = log.reader();
    let mut read = |from| reader.read(GroupId(1), InstanceId(from), InstanceId(9), 1_000);
    assert_eq!(read(1).expect("the first one").len(), 1);
    assert!(matches!(read(2), Err(ReadError::Damaged(_))));
    assert_eq!(read(3).expect("the last one").len(), 1);
}

/// On the real file system: a thread reads while another one writes and moves on to new segments.
#[test]
fn a_reader_on_another_thread_keeps_up_with_the_writer() {
    let dir = TempDir::new("reader");
    let options = LogOptions { durability: Durability::None, ..options() };
    let (mut log, _) = Log::open(dir.disk(), options, &mut |_| {}).expect("a new log");
    let mut reader = log.reader();
    const LAST: u64 = 3_000;
    let thread = std::thread::spawn(move || {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut next = 1;
        while next <= LAST {
            assert!(std::time::Instant::now() < deadline, "stuck at instance {next}");
            for (instance, ballot, value) in
                reader.read(GroupId(1), InstanceId(next), InstanceId(LAST), 4_000).expect("readable")
            {
                assert_eq!((instance.0, ballot.round), (next, 1));
                assert_eq!(value, next.to_le_bytes().repeat(20));
                next += 1;
            }
        }
    });
    for instance in 1..=LAST {
        log.append(&accept(1, instance, 1, instance.to_le_bytes().repeat(20))).expect("appended");
        log.append(&accept(2, instance, 1, vec![2; 300])).expect("appended");
        if instance % 7 == 0 || instance == LAST {
            log.commit().expect("committed");
        }
    }
    thread.join().expect("the reader found everything");
    assert!(log.stats().segments > 3);
}
