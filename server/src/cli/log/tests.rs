use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use groups::ids::{Ballot, Boot, CommitId, GroupId, InstanceId, NodeId, StorageId};
use groups::kv::value::{Batch, lead};
use groups::kv::{Command, Condition, Guard, Ticket, Transaction, Want};
use groups::log::{At, Disk, Durability, Log, LogOptions, RealDisk, Record, SegmentSeq};

use super::dump;
use super::source::{Ending, Source};
use super::verify::verify;
use crate::cli::Failure;
use crate::node::manifest::{Manifest, Stage};

const STORAGE: StorageId = StorageId(77);

/// A directory that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("pelago-cli-log-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put(key: &'static str, value: &[u8]) -> Bytes {
    let command = Command::Put {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::copy_from_slice(value),
        condition: Condition::Absent,
        want: Want::Done,
    };
    let mut batch = Batch::new();
    batch.push(Ticket { node: NodeId(1), boot: Boot(1), number: 1, behind: 0 }, &command.to_bytes());
    batch.finish()
}

fn accept(instance: u64, value: Bytes) -> Record {
    let ballot = Ballot { round: 3, node: NodeId(2) };
    Record::Accept { group: GroupId(7), instance: InstanceId(instance), ballot, value }
}

/// A node's directory with a log of these records, one commit each.
fn node(dir: &Path, records: &[Record]) {
    let manifest = Manifest {
        cluster_name: "local".into(),
        node: NodeId(1),
        storage: STORAGE,
        boot: Boot(1),
        groups: 16,
        replication: 3,
        log_begun: true,
        stage: Stage::Empty,
    };
    manifest.store(&RealDisk::open(dir).expect("a directory")).expect("a manifest");
    let options = LogOptions {
        segment_size: 64 * 1024,
        storage_id: STORAGE,
        max_record: 16 * 1024,
        durability: Durability::None,
    };
    let disk = RealDisk::open(dir.join("log")).expect("a directory");
    let (mut log, _) = Log::open(disk, options, &mut |_| {}).expect("a new log");
    for record in records {
        log.append(record).expect("room");
        log.commit().expect("a commit");
    }
}

/// How verifying ends when it does not end well.
fn refusal(dir: &Path) -> Failure {
    verify(dir).and_then(|(_, verdict)| verdict).expect_err("not sound")
}

#[test]
fn a_record_is_one_bounded_line() {
    let at = At { segment: SegmentSeq(1), offset: 560, length: 104, commit: CommitId(4) };
    let place = "log-0000000000000001.seg:560 commit=4 group=7";
    assert_eq!(
        dump::line(&at, &accept(9, put("greeting", b"hello\n"))),
        format!(
            "{place} accept instance=9 ballot=3.2 batch of 1 in 58 bytes: put \"greeting\" = \"hello\\n\" if absent"
        )
    );
    assert_eq!(
        dump::line(&at, &accept(9, lead(NodeId(2)))),
        format!("{place} accept instance=9 ballot=3.2 lead node=2")
    );
    assert_eq!(
        dump::line(
            &at,
            &Record::Watermark { group: GroupId(7), first: InstanceId(3), instance: InstanceId(8) }
        ),
        format!("{place} watermark instance=8 first=3")
    );
    assert!(dump::line(&at, &accept(9, put("k", &[0xff; 9000]))).len() < 350);
    let transaction = |n: usize| {
        let key = Bytes::from_static(b"k");
        let guard = Guard { key: key.clone(), condition: Condition::Revision(7) };
        let mut batch = Batch::new();
        let command = Command::Transaction(Transaction {
            guards: vec![guard; n],
            then: vec![Command::Add { key: key.clone(), delta: -2 }; n],
            otherwise: vec![Command::Get { key }],
            max: 99,
        });
        batch.push(Ticket { node: NodeId(1), boot: Boot(1), number: 1, behind: 0 }, &command.to_bytes());
        accept(9, batch.finish())
    };
    let one = dump::line(&at, &transaction(1));
    let shown = "transaction [\"k\" if revision 7] then [add \"k\" -2] else [get \"k\"]";
    assert!(one.ends_with(shown), "{one}");
    assert!(dump::line(&at, &transaction(1000)).len() < 500);
}

#[test]
fn sound_then_torn_then_damaged() {
    let scratch = Scratch::new("verify");
    let dir = &scratch.0;
    node(dir, &[accept(1, put("a", b"1")), accept(2, put("b", b"2")), accept(3, put("c", b"3"))]);
    let (text, verdict) = verify(dir).expect("readable");
    assert!(verdict.is_ok() && text.ends_with("\nsound\n"), "{text}");

    // The last commit without its end: nothing behind it proves that it was synced.
    let file = dir.join("log").join("log-0000000000000001.seg");
    let segment = OpenOptions::new().read(true).write(true).open(&file).expect("the segment");
    let mut places = Vec::new();
    let source = Source::open(dir).expect("a stopped node");
    source.read(&mut |at, _| places.push(at)).expect("readable");
    drop(source);
    let last = places[2];
    let at = |place: &At| u64::from(place.offset) + 60;
    segment.write_all_at(b"XXXX", at(&last)).expect("written");
    let (text, verdict) = verify(dir).expect("readable");
    assert!(verdict.is_ok() && text.contains("torn tail: log-0000000000000001.seg at byte 1536"), "{text}");
    let source = Source::open(dir).expect("a stopped node");
    match source.read(&mut |_, _| {}).expect("readable") {
        Ending::Whole(found) => assert_eq!((found.records, found.torn.is_some()), (2, true)),
        other => panic!("{other:?}"),
    }
    drop(source);

    segment.write_all_at(b"XXXX", at(&places[0])).expect("written");
    let failure = refusal(dir);
    assert_eq!(failure.code, 1);
    assert!(failure.message.contains("log-0000000000000001.seg at byte"), "{}", failure.message);
}

#[test]
fn a_value_of_unknown_shape_is_told_from_damage() {
    let scratch = Scratch::new("strange");
    node(&scratch.0, &[accept(1, Bytes::from_static(b"\x77 from the future"))]);
    let failure = refusal(&scratch.0);
    assert!(failure.code == 1 && failure.message.contains("all checksums hold"), "{}", failure.message);
}

#[test]
fn a_running_node_is_refused() {
    let scratch = Scratch::new("running");
    node(&scratch.0, &[]);
    let mut running = RealDisk::open(&scratch.0).expect("a directory");
    assert!(running.lock().expect("lockable"));
    let failure = refusal(&scratch.0);
    assert!(failure.code == 2 && failure.message.contains("in use by a running node"), "{}", failure.message);
}

#[test]
fn the_wrong_directory_is_explained() {
    let scratch = Scratch::new("wrong");
    let empty = refusal(&scratch.0);
    assert!(empty.code == 2 && empty.message.contains("not the directory of a node"), "{}", empty.message);
    let inner = scratch.0.join("node-1");
    fs::create_dir(&inner).expect("a directory");
    node(&inner, &[]);
    let outer = refusal(&scratch.0);
    assert!(outer.message.contains("node-1"), "{}", outer.message);
    assert_eq!(refusal(Path::new("/nowhere")).code, 2);
    assert!(!Path::new("/nowhere").exists());
}
