//! What recovery makes of every torn tail and every flipped bit.

mod log_support;

use groups::ids::{CommitId, GroupId, StorageId};
use groups::log::{DiskImage, LogOptions, OpenError, Record, SegmentSeq, SimDisk, inspect};
use log_support::*;

fn segment(n: u64) -> String {
    SegmentSeq(n).file_name()
}

fn disk_of(image: &DiskImage) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.restore(image);
    disk.clone()
}

/// Records of `commits` in a row.
fn flat(commits: &[Vec<Record>]) -> Vec<Record> {
    commits.concat()
}

/// A log of three segments; returns its commits, the image and where the last commit lies.
fn small_log(sealed: bool) -> (Vec<Vec<Record>>, DiskImage, std::ops::Range<usize>) {
    let commits = vec![
        vec![promise(1, 3)],
        vec![accept(1, 1, 3, vec![7; 500]), accept(2, 1, 1, "b"), watermark(1, 1)],
        vec![accept(1, 2, 3, vec![1; 1400])],
        vec![chosen(3, 9, 2, vec![2; 900])],
        vec![accept(1, 3, 3, vec![4; 1500]), promise(2, 9)],
        vec![accept(1, 4, 3, "four"), accept(2, 2, 9, "two")],
        vec![accept(1, 5, 3, vec![5; 1300])],
        vec![watermark(1, 5)],
        vec![accept(2, 3, 9, vec![6; 700]), watermark(2, 2), accept(1, 6, 3, "six")],
    ];
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    for records in &commits {
        commit(&mut log, records);
    }
    assert_eq!(log.stats().segments, 3);
    if sealed {
        log.seal().expect("sealed");
    }
    drop(log);
    disk.kill();
    let image = disk.image();
    let tail = &image.files()[&segment(3)];
    let used = tail.iter().rposition(|&byte| byte != 0).expect("not empty") + 1;
    let end = used.next_multiple_of(512);
    let start = if sealed { end - 512 } else { end - 1024 };
    (commits, image, start..end)
}

#[test]
fn what_was_committed_comes_back_in_order() {
    let (commits, image, _) = small_log(false);
    let opened = open(disk_of(&image));
    assert_eq!(opened.records, flat(&commits));
    assert_eq!((opened.found.commits, opened.found.segments), (9, 3));
    assert_eq!((opened.found.last_commit, opened.found.torn, opened.found.fresh), (CommitId(9), None, false));
}

#[test]
fn opening_adds_one_seal_and_not_more() {
    let (commits, image, _) = small_log(false);
    let disk = disk_of(&image);
    for expected in [9, 10, 10] {
        let opened = open(disk.clone());
        assert_eq!((opened.found.commits, opened.records), (expected, flat(&commits)));
    }
}

#[test]
fn inspect_reads_without_changing_anything() {
    let (commits, image, _) = small_log(false);
    let disk = disk_of(&image);
    let mut records = Vec::new();
    let found = inspect(&disk, None, &mut |at, record| {
        assert!(at.commit.0 >= 1 && at.offset >= 512);
        records.push(record);
    });
    assert_eq!(found.expect("sound").commits, 9);
    assert_eq!(records, flat(&commits));
    assert_eq!(disk.image(), image);
}

/// Puts `tail` in place of the last commit, and expects the commits before it to come back, or
/// all if `tail` is the commit as it was; and the log to be fit for use afterwards.
fn expect_tail(commits: &[Vec<Record>], image: &DiskImage, place: &std::ops::Range<usize>, tail: &[u8]) {
    let mut changed = image.clone();
    let file = changed.files_mut().get_mut(&segment(3)).expect("the segment");
    let whole = &file[place.clone()] == tail;
    file[place.clone()].copy_from_slice(tail);
    let disk = disk_of(&changed);
    let opened = open(disk.clone());
    let kept = if whole { commits } else { &commits[..commits.len() - 1] };
    assert_eq!(opened.records, flat(kept));
    assert_eq!(opened.found.last_commit, CommitId(kept.len() as u64));
    assert_eq!(opened.found.torn.is_some(), !whole && tail.iter().any(|&byte| byte != 0));

    let mut log = opened.log;
    commit(&mut log, &[promise(5, 5)]);
    drop(log);
    disk.crash();
    let mut expected = flat(kept);
    expected.push(promise(5, 5));
    let again = open(disk.clone());
    assert_eq!((again.records, again.found.torn), (expected, None));
}

#[test]
fn a_tail_torn_at_any_byte_is_cut() {
    let (commits, image, place) = small_log(false);
    let good = image.files()[&segment(3)][place.clone()].to_vec();
    let mut dice = Dice(77);
    for cut in 0..=good.len() {
        let rest = good.len() - cut;
        for filling in [vec![0; rest], vec![0xff; rest], dice.bytes(rest)] {
            expect_tail(&commits, &image, &place, &[&good[..cut], &filling].concat());
        }
        // The beginning is missing and the end has landed.
        expect_tail(&commits, &image, &place, &[&vec![0; cut], &good[cut..]].concat());
    }
}

#[test]
fn a_tail_of_any_subset_of_its_sectors_is_cut() {
    let commits =
        vec![vec![promise(1, 1)], vec![accept(1, 1, 1, vec![1; 1000]), accept(2, 1, 1, vec![2; 1500])]];
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    for records in &commits {
        commit(&mut log, records);
    }
    drop(log);
    let image = disk.image();
    let good = image.files()[&segment(1)][1024..4096].to_vec();
    for landed in 0..1u32 << (good.len() / 512) {
        let mut tail = good.clone();
        for sector in (0..good.len() / 512).filter(|sector| landed >> sector & 1 == 0) {
            tail[sector * 512..][..512].fill(0);
        }
        let mut changed = image.clone();
        changed.files_mut().get_mut(&segment(1)).expect("the segment")[1024..4096].copy_from_slice(&tail);
        let opened = open(disk_of(&changed));
        let kept = if tail == good { &commits[..] } else { &commits[..1] };
        assert_eq!(opened.records, flat(kept), "sectors {landed:b}");
    }
}

/// How a flipped bit may come out.
#[derive(Debug, PartialEq)]
enum Outcome {
    Harmless,
    Cut,
    Damaged,
}

fn flip(image: &DiskImage, file: &str, bit: usize, commits: &[Vec<Record>]) -> Outcome {
    let disk = disk_of(image);
    assert!(disk.flip_bit(file, (bit / 8) as u64, (bit % 8) as u8));
    let flipped = disk.image();
    match try_open(disk.clone(), options()) {
        Ok(opened) if opened.records == flat(commits) => Outcome::Harmless,
        Ok(opened) => {
            assert_eq!(opened.records, flat(&commits[..commits.len() - 1]), "{file} bit {bit}");
            Outcome::Cut
        }
        Err(OpenError::Damaged(_)) => {
            assert_eq!(disk.image(), flipped, "a refused log is left as it is");
            Outcome::Damaged
        }
        Err(other) => panic!("{file} bit {bit}: {other}"),
    }
}

#[test]
fn every_flipped_bit_is_seen_or_harmless() {
    for sealed in [false, true] {
        let (commits, image, last) = small_log(sealed);
        let mut commits = commits;
        if sealed {
            commits.push(Vec::new());
        }
        let mut damaged = 0;
        for (file, data) in image.files() {
            // What a seal changes is in the last segment; the others are the same in both logs.
            if sealed && *file != segment(3) {
                continue;
            }
            // Behind the last commit of a segment nothing is stored.
            let used = data.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1).next_multiple_of(512);
            for bit in 0..data.len() * 8 {
                let at = bit / 8;
                let outcome = flip(&image, file, bit, &commits);
                let expected = if *file == segment(3) && last.contains(&at) {
                    // Cutting an empty commit loses nothing.
                    if sealed { Outcome::Harmless } else { Outcome::Cut }
                } else if file == "log.spare" || at >= used && file.ends_with(".seg") {
                    Outcome::Harmless
                } else {
                    Outcome::Damaged
                };
                assert_eq!(outcome, expected, "{file} byte {at} bit {}", bit % 8);
                damaged += u64::from(outcome == Outcome::Damaged);
            }
        }
        assert!(damaged > 8 * if sealed { 3000 } else { 5000 }, "only {damaged} bits were worth something");
    }
}

#[test]
fn every_lost_sector_is_seen_or_at_the_end() {
    let (commits, image, last) = small_log(true);
    for n in 1..=3 {
        let name = segment(n);
        let data = &image.files()[&name];
        for sector in 0..data.len() / 512 {
            if data[sector * 512..][..512].iter().all(|&byte| byte == 0) {
                continue;
            }
            let disk = disk_of(&image);
            assert!(disk.lose_block(&name, sector as u64 * 512, 512));
            match try_open(disk, options()) {
                Ok(opened) => {
                    assert!(n == 3 && last.contains(&(sector * 512)), "{name} sector {sector}");
                    assert_eq!(opened.records, flat(&commits));
                }
                Err(OpenError::Damaged(damage)) => assert_eq!(damage.file, name),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn damage_names_the_place_and_the_group() {
    let (_, image, _) = small_log(false);
    let disk = disk_of(&image);
    // In the value of group 1 in the second commit: headers of both commit and record are whole.
    assert!(disk.flip_bit(&segment(1), 1024 + 48 + 48 + 10, 0));
    let Err(OpenError::Damaged(damage)) = try_open(disk, options()) else { panic!("not seen") };
    assert_eq!((damage.file, damage.offset), (segment(1), 1024 + 48));
    assert!(damage.groups.contains(&GroupId(1)), "{:?}", damage.groups);
}

#[test]
fn a_missing_segment_is_damage() {
    let (_, image, _) = small_log(false);
    for gone in 1..=3 {
        let mut changed = image.clone();
        changed.files_mut().remove(&segment(gone));
        let Err(OpenError::Damaged(damage)) = try_open(disk_of(&changed), options()) else {
            panic!("segment {gone} is not missed");
        };
        assert_eq!(damage.file, segment(gone));
    }
    let mut changed = image.clone();
    changed.files_mut().remove("log.manifest");
    assert!(matches!(try_open(disk_of(&changed), options()), Err(OpenError::Damaged(_))));
    let mut changed = image.clone();
    changed.files_mut().retain(|name, _| name == "log.manifest");
    assert!(matches!(try_open(disk_of(&changed), options()), Err(OpenError::Damaged(_))));
}

#[test]
fn swapped_copied_shortened_and_older_segments_are_damage() {
    let (_, image, _) = small_log(false);
    let (one, two, three) = (segment(1), segment(2), segment(3));
    let file = |name: &String| image.files()[name].clone();
    let mut cases = Vec::new();
    let mut case = |change: &dyn Fn(&mut DiskImage)| {
        let mut changed = image.clone();
        change(&mut changed);
        cases.push(changed);
    };
    case(&|image| drop(image.files_mut().insert(one.clone(), file(&two))));
    case(&|image| drop(image.files_mut().insert(segment(4), file(&three))));
    case(&|image| drop(image.files_mut().insert(segment(5), file(&three))));
    case(&|image| image.files_mut().get_mut(&two).expect("there").truncate(2048));
    case(&|image| image.files_mut().get_mut(&two).expect("there").truncate(100));
    case(&|image| image.files_mut().get_mut(&two).expect("there").clear());
    case(&|image| image.files_mut().get_mut(&three).expect("there").push(0));
    for (n, changed) in cases.into_iter().enumerate() {
        let disk = disk_of(&changed);
        assert!(matches!(try_open(disk.clone(), options()), Err(OpenError::Damaged(_))), "case {n}");
        assert_eq!(disk.image(), changed);
    }
}

/// The manifest of an old copy of the disk, put back beside the newer segments.
#[test]
fn an_older_manifest_is_damage() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    commit(&mut log, &[promise(1, 1)]);
    let old = disk.image().files()["log.manifest"].clone();
    let mut n = 0;
    for segments in 2..5 {
        while log.stats().segments < segments {
            n += 1;
            commit(&mut log, &[accept(1, n, 1, vec![1; 1500])]);
        }
        let mut image = disk.image();
        image.files_mut().insert("log.manifest".into(), old.clone());
        let opened = try_open(disk_of(&image), options());
        assert!(matches!(opened, Err(OpenError::Damaged(_))), "{segments} segments");
    }
}

/// A torn commit was cut, but the disk kept some of its sectors, and the next attempt at the
/// same commit is torn so that both together look whole. Every record of the mixture is valid.
#[test]
fn sectors_of_two_attempts_are_no_commit() {
    let disk = SimDisk::new(1);
    let mut log = open(disk.clone()).log;
    commit(&mut log, &[promise(1, 1)]);
    drop(log);
    let image = disk.image();
    let attempt = |byte: u8| {
        let disk = disk_of(&image);
        let mut log = open(disk.clone()).log;
        // The first record ends with its sector: 512 = two headers and 416 bytes.
        commit(&mut log, &[accept(1, 1, 1, vec![byte; 416]), accept(1, 2, 1, vec![byte; 416])]);
        disk.image()
    };
    let (first, second) = (attempt(1), attempt(2));
    let start = 3 * 512; // behind the header, the promise and the seal of the second opening
    for (from_second, whole) in [(0..0, true), (0..512, false), (512..1024, false), (0..1024, true)] {
        let mut mixed = first.clone();
        let file = mixed.files_mut().get_mut(&segment(1)).expect("there");
        let place = start + from_second.start..start + from_second.end;
        file[place.clone()].copy_from_slice(&second.files()[&segment(1)][place]);
        let opened = open(disk_of(&mixed));
        assert_eq!(opened.records.len(), if whole { 3 } else { 1 }, "{from_second:?}");
        assert_eq!(opened.found.torn.is_none(), whole);
    }
}

#[test]
fn a_foreign_log_is_refused_untouched() {
    let (_, image, _) = small_log(false);
    let disk = disk_of(&image);
    let other = LogOptions { storage_id: StorageId(2), ..options() };
    match try_open(disk.clone(), other) {
        Err(OpenError::Foreign { expected, found, .. }) => {
            assert_eq!((expected, found), (StorageId(2), STORAGE));
        }
        _ => panic!("a foreign log was opened"),
    }
    assert_eq!(disk.image(), image);

    // One segment of another directory among our own.
    let disk = SimDisk::new(2);
    let mut log = try_open(disk.clone(), LogOptions { storage_id: StorageId(2), ..options() }).unwrap().log;
    commit(&mut log, &[promise(1, 1)]);
    let mut mixed = image.clone();
    mixed.files_mut().insert(segment(1), disk.image().files()[&segment(1)].clone());
    assert!(matches!(try_open(disk_of(&mixed), options()), Err(OpenError::Foreign { .. })));
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let (_, image, _) = small_log(false);
    for name in [segment(3), "log.manifest".into()] {
        let mut changed = image.clone();
        let file = changed.files_mut().get_mut(&name).expect("there");
        file[8] = 2;
        let crc = crc32fast::hash(&file[..60]);
        file[60..64].copy_from_slice(&crc.to_le_bytes());
        // Damage elsewhere must not hide that the file is newer.
        changed.files_mut().get_mut(&segment(1)).expect("there")[600] ^= 1;
        let disk = disk_of(&changed);
        match try_open(disk.clone(), options()) {
            Err(OpenError::Newer { file, version }) => assert_eq!((file, version), (name, 2)),
            _ => panic!("a newer format was opened"),
        }
        assert_eq!(disk.image(), changed);
    }
}

/// A client reads our files and stores copies of them as values, at every alignment, in the
/// commit before a torn one: the copies must not count as records behind the bad spot.
#[test]
fn values_with_copies_of_the_log_are_no_evidence() {
    let options = LogOptions { segment_size: 1 << 16, max_record: 1 << 15, ..options() };
    let disk = SimDisk::new(1);
    let mut log = try_open(disk.clone(), options.clone()).unwrap().log;
    for n in 1..=8 {
        commit(&mut log, &[accept(1, n, 1, vec![n as u8; 100])]);
    }
    // What commits 9 and 10 will look like, taken from a copy of this disk.
    let twin = disk_of(&disk.image());
    let mut future = try_open(twin.clone(), options.clone()).unwrap().log;
    for n in 9..=12 {
        commit(&mut future, &[accept(1, n, 1, vec![n as u8; 100])]);
    }
    let copy = twin.image().files()[&segment(1)][..8192].to_vec();
    let records: Vec<Record> = (0..3)
        .map(|shift| accept(2, shift + 1, 1, [vec![0; shift as usize * 8], copy.clone()].concat()))
        .collect();
    let before = disk.image().files()[&segment(1)].clone();
    commit(&mut log, &records);
    drop(log);
    let image = disk.image();
    let written = image.files()[&segment(1)].clone();
    let start = written.iter().zip(&before).position(|(a, b)| a != b).expect("something was written");
    for torn in [start, start + 1, start + 41, start + 48, start + 60, start + 100, start + 5000] {
        let mut changed = image.clone();
        changed.files_mut().get_mut(&segment(1)).expect("there")[torn] ^= 0x10;
        let opened = try_open(disk_of(&changed), options.clone()).expect("a torn tail");
        assert_eq!((opened.found.commits, opened.found.torn.is_some()), (8, true), "byte {torn}");
    }
    let opened = try_open(disk_of(&image), options).expect("a whole log");
    assert_eq!(opened.records[8..], records);
}
