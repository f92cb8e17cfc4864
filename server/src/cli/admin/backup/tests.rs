use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use checkpoint::format::{Header, StagedFile};
use checkpoint::store::Position;
use checkpoint::{Chain, Entry, StateDigest};
use groups::ids::{ClusterId, GroupId, InstanceId};
use groups::kv::StateHash;
use proptest::prelude::*;

use super::manifest::{
    BadBackup, CHECKSUM, ImageLine, MANIFEST, Manifest, clock_of, examine, file_name, life_of, verify,
};
use crate::protocol::{SLOTS, slot_of};

const CLUSTER: ClusterId = ClusterId(7);

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn dir(name: &str) -> Dir {
    let dir = std::env::temp_dir().join(format!("pelago-backup-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory");
    Dir(dir)
}

/// A session table with nothing in it.
const NOBODY: &[u8] = b"\x01\0\0\0\0";

/// A backup of two groups that hold `entries`.
fn write(dir: &Path, entries: &[Entry]) -> Manifest {
    let mut manifest = Manifest::new("test", &CLUSTER.to_string(), 2, 1);
    for group in 0..2_u32 {
        let slots = if group == 0 { (0, 8191) } else { (8192, SLOTS - 1) };
        let mine = entries.iter().filter(|e| (slots.0..=slots.1).contains(&slot_of(&e.key).0));
        let mut mine: Vec<Entry> = mine.cloned().collect();
        mine.sort_by(|a, b| a.key.cmp(&b.key));
        mine.dedup_by(|a, b| a.key == b.key);
        let mut hash = StateHash::default();
        mine.iter().for_each(|entry| entry.add_to(&mut hash));
        let position = Position {
            applied: InstanceId(9),
            chain: Chain(3),
            state_hash: StateDigest::from(hash),
            revision: 5,
            epoch: 1,
            membership: Bytes::new(),
        };
        let header = Header {
            cluster: CLUSTER,
            group: GroupId(group),
            position,
            sessions: Bytes::from_static(NOBODY),
        };
        let path = dir.join(file_name(group));
        let mut file = StagedFile::create(&path, &header.encode().expect("a header")).expect("a file");
        for piece in mine.chunks(2) {
            file.append(piece).expect("written");
        }
        file.commit().expect("complete");
        let (header, content) = examine(&path, slots, &mut |_| {}).expect("sound");
        manifest.keys += content.keys;
        manifest.bytes += content.bytes;
        manifest.images.push(ImageLine {
            group,
            first_slot: slots.0,
            last_slot: slots.1,
            node: 1,
            taken_unix_ms: 2,
            instance: 9,
            chain: header.position.chain.to_string(),
            state_hash: header.position.state_hash.to_string(),
            revision: 5,
            epoch: 1,
            clock_ms: clock_of(&header).expect("a clock"),
            keys: content.keys,
            mortal: content.mortal,
            bytes: content.bytes,
            file: file_name(group),
            file_bytes: content.file_bytes,
            file_xxh128: content.file_xxh128,
        });
    }
    manifest.write(dir).expect("written");
    manifest
}

fn entry(key: &str, value: &str, expiry: u64) -> Entry {
    Entry { key: Bytes::from(key.to_owned()), value: Bytes::from(value.to_owned()), revision: 4, expiry }
}

fn some() -> Vec<Entry> {
    ["a", "b", "c", "d", "e"].iter().map(|key| entry(key, "value", 0)).chain([entry("m", "", 90)]).collect()
}

#[test]
fn a_backup_is_what_it_says() {
    let dir = dir("sound");
    let manifest = write(&dir.0, &some());
    assert_eq!((manifest.keys, manifest.images.iter().map(|i| i.mortal).sum::<u64>()), (6, 1));
    let mut keys = 0;
    assert_eq!(verify(&dir.0, &mut |more| keys += more).expect("sound"), manifest);
    assert_eq!(keys, 6);
}

/// Flips every byte of every file, cuts every file everywhere, leaves each out, puts one in the place of
/// another, and adds one.
#[test]
fn every_damage_is_found() {
    let dir = dir("damage");
    write(&dir.0, &some());
    let check = |what: &str| match verify(&dir.0, &mut |_| {}) {
        Ok(_) => panic!("{what}: not found"),
        Err(BadBackup::Io { .. } | BadBackup::None | BadBackup::Newer(_) | BadBackup::Damaged(..)) => {}
    };
    let names = [file_name(0), file_name(1), MANIFEST.to_owned(), CHECKSUM.to_owned()];
    for name in &names {
        let path = dir.0.join(name);
        let whole = fs::read(&path).expect("a file");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).expect("written");
            check(&format!("{name} with byte {at} flipped"));
            // A file system lets go of the end.
            if at % 7 == 0 {
                fs::write(&path, &whole[..at]).expect("written");
                check(&format!("{name} cut to {at}"));
            }
        }
        fs::write(&path, [&whole[..], b"\n"].concat()).expect("written");
        check(&format!("{name} with a byte behind it"));
        fs::remove_file(&path).expect("removed");
        check(&format!("without {name}"));
        fs::write(&path, &whole).expect("written");
    }
    let other = fs::read(dir.0.join(&names[1])).expect("a file");
    let own = fs::read(dir.0.join(&names[0])).expect("a file");
    fs::write(dir.0.join(&names[0]), other).expect("written");
    check("one file in the place of another");
    fs::write(dir.0.join(&names[0]), own).expect("written");
    fs::write(dir.0.join("group-00002.checkpoint"), "").expect("written");
    check("a file that nobody knows");
    fs::remove_file(dir.0.join("group-00002.checkpoint")).expect("removed");
    verify(&dir.0, &mut |_| {}).expect("what was put back is sound");
}

/// A manifest whose checksum is right is believed only as far as it makes sense: it names files.
#[test]
fn a_manifest_that_makes_no_sense_is_refused() {
    let dir = dir("sense");
    let sound = write(&dir.0, &some());
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change); 7] = [
        ("another file", |m| m.images[0].file = "../../etc/passwd".to_owned()),
        ("a slot twice", |m| m.images[1].first_slot = 8191),
        ("a slot without a group", |m| m.images[0].last_slot = 8190),
        ("a group too few", |m| m.groups = 3),
        ("sums", |m| m.keys += 1),
        ("another instance", |m| m.images[0].instance += 1),
        ("another cluster", |m| m.cluster = ClusterId(8).to_string()),
    ];
    for (what, change) in changes {
        let mut manifest = sound.clone();
        change(&mut manifest);
        manifest.write(&dir.0).expect("written");
        let bad = verify(&dir.0, &mut |_| {}).expect_err(what);
        assert!(matches!(bad, BadBackup::Damaged(..)), "{what}: {bad}");
    }
    let newer = Manifest { format: 2, ..sound };
    newer.write(&dir.0).expect("written");
    assert!(matches!(verify(&dir.0, &mut |_| {}), Err(BadBackup::Newer(2))));
}

#[test]
fn lives_are_counted_from_the_groups_clock() {
    assert_eq!(life_of(&entry("k", "v", 0), 70), None);
    assert_eq!(life_of(&entry("k", "v", 90), 70), Some(20));
    assert_eq!(life_of(&entry("k", "v", 90), 95), Some(0), "over, and not removed yet");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn whatever_is_held_comes_back(
        held in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>(), 0..3_u64), 0..12),
    ) {
        let dir = dir("round");
        let entries: Vec<Entry> = held
            .into_iter()
            .map(|(key, value, expiry)| Entry { key: key.into(), value: value.into(), revision: 1, expiry })
            .collect();
        let manifest = write(&dir.0, &entries);
        let keys: std::collections::BTreeSet<&[u8]> = entries.iter().map(|entry| &entry.key[..]).collect();
        prop_assert_eq!(manifest.keys, keys.len() as u64);
        prop_assert_eq!(verify(&dir.0, &mut |_| {}).expect("sound"), manifest);
    }
}
