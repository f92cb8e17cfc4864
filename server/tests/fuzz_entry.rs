//! The fuzz targets' entry points on stable Rust: seeds, their beginnings, random bytes, damaged
//! seeds. The memory they take is bounded.

#[path = "../../fuzz/support.rs"]
mod support;

use std::fs;

use groups::group::{Answer, Reply, Submission};
use groups::ids::{Boot, ClusterId, CommitId, GroupId, InstanceId, NodeId, StorageId};
use groups::kv::{Command, Outcome, Ticket};
use groups::peers::{Heartbeat, Memory};
use groups::time::Time;
use server::node::birth::Word;
use server::node::manifest::{Manifest, Stage};
use server::node::trace::{self, Name, Seen, Step, StepKind};
use server::node::wire::{self, Stamp};
use server::{config, fuzz, protocol};
use support::Entry;

const RESP: Entry = Entry { name: "resp", run: protocol::fuzz_request, base: 256 << 10, times: 512 };
const LINE: Entry = Entry { name: "line", run: fuzz::line, base: 256 << 10, times: 512 };
const REPLY: Entry = Entry { name: "reply", run: protocol::fuzz_reply, base: 256 << 10, times: 512 };
const CONFIG: Entry = Entry { name: "config", run: config::fuzz_config, base: 256 << 10, times: 1024 };
const WIRE: Entry = Entry { name: "wire", run: fuzz::wire, base: 256 << 10, times: 64 };
const BIRTH: Entry = Entry { name: "birth", run: fuzz::birth, base: 16 << 10, times: 64 };
/// An announced list is given room for up to 1 MiB in advance (by serde).
const MANIFEST: Entry = Entry { name: "manifest", run: fuzz::manifest, base: 2 << 20, times: 64 };

#[test]
fn resp() {
    RESP.drive(20_000);
}

#[test]
fn line() {
    LINE.drive(20_000);
}

#[test]
fn reply() {
    REPLY.drive(20_000);
}

#[test]
fn config() {
    CONFIG.drive(1000);
}

#[test]
fn wire() {
    WIRE.drive(20_000);
}

#[test]
fn birth() {
    BIRTH.drive(20_000);
}

#[test]
fn manifest() {
    MANIFEST.drive(20_000);
}

#[test]
#[ignore = "writes fuzz/seeds"]
fn write_seeds() {
    wire_seeds();
    birth_seeds();
    manifest_seeds();
    text_seeds();
}

fn wire_seeds() {
    let stamp = Stamp { from_boot: Boot(3), to_boot: Boot(4), shard: 1, sequence: 9 };
    let echoes = vec![Time::from_nanos(0), Time::from_nanos(4_999_000_000)];
    let sent = Time::from_nanos(77);
    let mut beat = vec![0];
    let (storage, commit) = (StorageId(7), CommitId(90));
    let (opened, known) = (CommitId(70), CommitId(80));
    let known = Some(Memory { storage: StorageId(8), boot: Boot(4), opened, commit: known });
    let heartbeat = Heartbeat {
        roster: 3,
        boot: Boot(3),
        shard: 0,
        shards: 2,
        sent,
        leaving: false,
        lag: std::time::Duration::from_micros(350),
        slow: false,
        storage,
        opened,
        commit,
        known,
        echo_boot: Boot(4),
        echoes,
        tenure: groups::peers::Tenure(5),
        grants: vec![Time::from_nanos(3)],
    };
    wire::encode_heartbeat(&heartbeat, &mut beat);
    let mut submissions = vec![1];
    for (number, read) in [(1, false), (2, true)] {
        let ticket = Ticket { node: NodeId(2), boot: Boot(3), number, behind: 0 };
        let command = Command::Get { key: "key".into() }.to_bytes();
        wire::put_submission(&Submission { ticket, read, after: 1, command }, &mut submissions);
    }
    let mut answers = vec![2];
    let replies = [
        Reply::Outcome(Outcome::Value(Some(("value".into(), 3)))),
        Reply::NotLeader(Some(NodeId(3))),
        Reply::NotLeader(None),
        Reply::Busy,
        Reply::Halted,
    ];
    for reply in replies {
        let answer =
            Answer { group: GroupId(4), to: NodeId(2), boot: Boot(3), read: false, number: 5, reply };
        wire::put_answer(&answer, &mut answers);
    }
    let mut stamped = vec![3; 1 + wire::STAMP + 4];
    wire::put_stamp(stamp, &mut stamped[1..]);
    let mut traced = vec![4];
    let name = Name { asker: NodeId(2), boot: Boot(3), group: GroupId(4), read: false, number: 5 };
    trace::put_name(name, &mut traced);
    let took = std::time::Duration::from_micros(350);
    let step = |kind, amount| Step { node: NodeId(2), kind, peer: NodeId(3), took, amount };
    trace::put_steps(&[step(StepKind::Batch, 812), step(StepKind::Vote, 0)], &mut traced);
    let mut seen = vec![5];
    trace::put_seen(Seen { instance: InstanceId(812), taken: took, disk: took }, &mut seen);
    WIRE.write_seeds(&[beat, submissions, answers, stamped, traced, seen]);
}

fn stages() -> [Stage; 3] {
    let founders = vec![(NodeId(1), StorageId(1)), (NodeId(2), StorageId(2))];
    [Stage::Empty, Stage::Voted(founders.clone()), Stage::Born(ClusterId(7), founders)]
}

fn birth_seeds() {
    let word = |stage| {
        Word { fingerprint: 5, terms: 6, storage: StorageId(2), stage, heard: Boot(3), roster: None }.encode()
    };
    let mut seeds: Vec<Vec<u8>> = stages().map(word).into();
    // Decisions: two nodes, the other one empty, then voting as this one does, then born.
    seeds.push(vec![1, 2, 16, 1, 0, 1, 2, 40, 1, 0, 1]);
    seeds.push(vec![1, 2, 64, 1, 0, 1, 3, 0, 0, 0]);
    // A vote that a voter has broken for others, whom this one joins; and a late word of a founder that is born.
    seeds.push(vec![0x01, 0x02, 0, 0, 0x02, 0x30, 0x02, 0x01, 0, 0x05, 0x03, 0x30, 0, 0x05]);
    seeds.push(vec![0x01, 0x02, 0x30, 0, 0x05, 0x02, 0, 0, 0x03, 0x30, 0, 0x05]);
    BIRTH.write_seeds(&seeds);
}

fn manifest_seeds() {
    let mut seeds = Vec::new();
    for stage in stages() {
        let manifest = Manifest {
            cluster_name: "local".into(),
            node: NodeId(2),
            storage: StorageId(2),
            boot: Boot(3),
            groups: 16,
            replication: 3,
            log_begun: true,
            stage,
        };
        let bytes = manifest.to_bytes();
        seeds.push([&[1], &bytes[..]].concat());
        // The body alone, behind a head that is made for it.
        seeds.push([&[0, 1], &bytes[16..bytes.len() - 4]].concat());
    }
    MANIFEST.write_seeds(&seeds);
}

/// The first byte says how the rest is cut into reads.
fn text_seeds() {
    let cut = |text: &str| [&[4], text.as_bytes()].concat();
    RESP.write_seeds(&[
        cut("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"),
        cut("*0\r\n*-1\r\n\r\n*1\r\n$4\r\nPING\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n"),
        cut("*7\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n$4\r\nIFEQ\r\n$1\r\n7\r\n$3\r\nGET\r\n$2\r\nNX\r\n"),
        cut("*2\r\n$3\r\nGET\r\n$2147483648\r\n"),
        cut("*2\r\n$3\r\nGET\r\n$200\r\nx\r\n*3\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n"),
    ]);
    LINE.write_seeds(&[
        cut("set k \"a b\" nx get\r\nget k\nmset a 1 b 2\n"),
        cut("put 'it\\'s' \"\\x00\\n\\\"\"\r\n incrby n -5 \r\ncas k old new\r\n"),
        cut("hello 3 auth u p setname x\r\nclient setname y\nconfig get *\nhelp put\n"),
        cut("put \"unclosed\nget \"closed\"early\nnosuchcommand\nget\n"),
        cut("watch a b\nmulti\nmultiop if a rev 5 if b value x if c absent then put a v nx rev then cas a b c else get a rev\n"),
    ]);
    REPLY.write_seeds(&[
        cut("+OK\r\n-ERR no\r\n:42\r\n$5\r\nvalue\r\n$-1\r\n*2\r\n:1\r\n*0\r\n"),
        cut("%1\r\n+k\r\n,1.5\r\n~1\r\n#t\r\n_\r\n(123\r\n=7\r\ntxt:abc\r\n!3\r\nERR\r\n>1\r\n+x\r\n"),
        cut(",nan\r\n,-inf\r\n*-1\r\n|1\r\n+a\r\n+b\r\n:1\r\n"),
    ]);
    let shipped = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../config.toml")).expect("the shipped file");
    let small = "[cluster]\nname = \"c\"\n[[nodes]]\nid = 1\npeer_addr = \"127.0.0.1:7101\"\n\
        client_addr = \"127.0.0.1:7001\"\nadmin_addr = \"127.0.0.1:7201\"\n";
    let wrong = "[paxos]\nlease = \"9s\"\nelection_timeout = \"1s\"\nwindow = -1\nmax_batch_bytes = \"1 XiB\"\n\
        [nodes]\nid = 0\n[storage]\nsegment_size = 18446744073709551615\n";
    CONFIG.write_seeds(&[shipped, small.into(), wrong.into()]);
}
