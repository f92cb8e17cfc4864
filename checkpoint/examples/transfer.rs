//! How fast checkpoints come to an empty node: two mirrors, each on a thread of its own, over a
//! TCP connection on this machine, with everything that a transfer is: paused, verified, sent,
//! checked, staged, read back, installed. And a raw copy of as many bytes beside it.
//!
//! ```text
//! cargo run --release -p checkpoint --example transfer [-- MEGABYTES [VALUE_BYTES [GROUPS [ENGINE]]]]
//! ```
//!
//! Without arguments: 256 MB, values of 100 B and 1 KiB, 1, 20 and 100 groups, fjall.

use std::env;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use checkpoint::mirror::{Event, Fold, Mirror, MirrorConfig};
use checkpoint::store::{Engine, MirrorStore, Position, Sizes};
use checkpoint::{Entry, StateDigest};
use groups::ids::{Boot, GroupId, InstanceId, NodeId};
use groups::kv::StateHash;
use groups::random::Random;
use groups::time::Time;

const FROM: NodeId = NodeId(1);
const TO: NodeId = NodeId(2);

/// As the server's mirror thread has it.
const TICK: Duration = Duration::from_millis(20);
const GATHER: usize = 64;

fn open(dir: &Path, engine: Engine) -> Mirror {
    let store = MirrorStore::open(dir, engine, &Sizes::default()).expect("a store");
    Mirror::new(store, MirrorConfig { boot: Boot(1), ..MirrorConfig::default() }, Time::ZERO)
}

/// Fills the groups with `bytes` of random keys of 16 bytes and values, in folds like a group's.
fn fill(mirror: &mut Mirror, groups: u32, bytes: usize, value: usize) {
    let keys = bytes / (16 + value) / groups as usize;
    let mut random = Random::new(7);
    for group in (0..groups).map(GroupId) {
        let (mut hash, mut revision, mut at) = (StateHash::default(), 0, 0);
        let mut left = keys;
        while left > 0 {
            let mut entries = Vec::new();
            for _ in 0..left.min(4096) {
                revision += 1;
                let mut key = random.next_u64().to_be_bytes().to_vec();
                key.extend_from_slice(&random.next_u64().to_be_bytes());
                let mut noise = vec![0; value];
                noise.chunks_mut(8).for_each(|part| {
                    part.copy_from_slice(&random.next_u64().to_le_bytes()[..part.len()]);
                });
                let entry = Entry { key: key.into(), value: noise.into(), revision, expiry: 0 };
                entry.add_to(&mut hash);
                entries.push(entry);
            }
            left -= entries.len();
            at += 1;
            let (applied, state_hash) = (InstanceId(at), StateDigest::from(hash));
            let to = Position { applied, state_hash, revision, ..Position::default() };
            let from = InstanceId(at - 1);
            mirror.fold(Fold {
                group,
                from,
                to,
                sessions: Bytes::from_static(b"s"),
                entries,
                removed: Vec::new(),
            });
        }
    }
    let all: Vec<GroupId> = (0..groups).map(GroupId).collect();
    mirror.settle(&all, Time::ZERO);
    assert!(mirror.poisoned().is_none());
    mirror.turn();
}

type Frame = (GroupId, u8, Bytes);

fn write_frame(out: &mut impl Write, (group, kind, body): &Frame) -> io::Result<()> {
    out.write_all(&(body.len() as u32).to_le_bytes())?;
    out.write_all(&group.0.to_le_bytes())?;
    out.write_all(&[*kind])?;
    out.write_all(&crc32fast::hash(body).to_le_bytes())?;
    out.write_all(body)
}

fn read_frame(input: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 13];
    input.read_exact(&mut head)?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let mut body = vec![0; word(0) as usize];
    input.read_exact(&mut body)?;
    assert_eq!(crc32fast::hash(&body), word(9));
    Ok((GroupId(word(4)), head[8], body.into()))
}

/// Frames from a socket, read by a thread of its own.
fn frames(stream: &TcpStream) -> Receiver<Frame> {
    let mut input = BufReader::with_capacity(1 << 18, stream.try_clone().expect("a second handle"));
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        while let Ok(frame) = read_frame(&mut input) {
            if sender.send(frame).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Runs a mirror as the server does, until `done` says so of an event or the other end is gone.
fn drive(mirror: &mut Mirror, stream: &TcpStream, peer: NodeId, mut done: impl FnMut(&Event) -> bool) {
    let inbox = frames(stream);
    // The network has a thread of its own.
    let mut out = BufWriter::with_capacity(1 << 18, stream.try_clone().expect("a second handle"));
    let (outbox, leaving) = channel::<Frame>();
    std::thread::spawn(move || {
        while let Ok(frame) = leaving.recv() {
            let mut next = Some(frame);
            while let Some(frame) = next {
                if write_frame(&mut out, &frame).is_err() {
                    return;
                }
                next = leaving.try_recv().ok();
            }
            if out.flush().is_err() {
                return;
            }
        }
    });
    let began = Instant::now();
    let mut tick_at = Duration::ZERO;
    loop {
        let patience = if mirror.busy() { Duration::ZERO } else { TICK };
        let mut next = match inbox.recv_timeout(patience) {
            Ok(frame) => Some(frame),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let now = || Time::from_nanos(began.elapsed().as_nanos() as u64);
        let mut taken = 0;
        while let Some((group, kind, body)) = next {
            mirror.on_frame(peer, group, kind, body, now());
            taken += 1;
            next = if taken < GATHER { inbox.try_recv().ok() } else { None };
        }
        if began.elapsed() >= tick_at {
            tick_at = began.elapsed() + TICK;
            mirror.tick(now());
        }
        for event in mirror.turn() {
            if done(&event) {
                return;
            }
            if let Event::Send { group, kind, body, .. } = event {
                let _ = outbox.send((group, kind, body));
            }
        }
    }
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    let (far, _) = listener.accept().expect("its other end");
    near.set_nodelay(true).expect("an option");
    far.set_nodelay(true).expect("an option");
    (near, far)
}

/// As many bytes from one file through a socket into another, synced.
fn raw_copy(dir: &Path, bytes: usize) -> f64 {
    let (from, to) = (dir.join("raw"), dir.join("raw.copy"));
    std::fs::write(&from, vec![7; bytes]).expect("a file");
    let (mut near, mut far) = pair();
    let began = Instant::now();
    let sender = std::thread::spawn(move || io::copy(&mut File::open(from).expect("the file"), &mut near));
    let mut file = File::create(to).expect("a file");
    let mut buffer = vec![0; 1 << 18];
    loop {
        match far.read(&mut buffer).expect("a read") {
            0 => break,
            n => file.write_all(&buffer[..n]).expect("a write"),
        }
    }
    file.sync_all().expect("a sync");
    let took = began.elapsed().as_secs_f64();
    sender.join().expect("a thread").expect("a copy");
    bytes as f64 / took / 1e6
}

fn measure(dir: &Path, engine: Engine, megabytes: usize, value: usize, groups: u32) {
    let _ = std::fs::remove_dir_all(dir);
    let (bytes, mut sender) = (megabytes * 1_000_000, open(&dir.join("sender"), engine));
    fill(&mut sender, groups, bytes, value);
    let raw = raw_copy(dir, bytes);
    let mut receiver = open(&dir.join("receiver"), engine);
    let (near, far) = pair();
    let (began, cpu_before) = (Instant::now(), cpu());
    let serving = std::thread::spawn(move || {
        drive(&mut sender, &near, TO, |_| false);
    });
    for group in (0..groups).map(GroupId) {
        receiver.want(group, InstanceId(0), vec![FROM], Time::ZERO);
    }
    let (mut left, mut moved, mut first) = (groups, 0, None);
    drive(&mut receiver, &far, FROM, |event| {
        if let Event::Installed { entries, .. } = event {
            first.get_or_insert(began.elapsed());
            moved += entries.iter().map(|e| e.key.len() + e.value.len()).sum::<usize>();
            left -= 1;
        }
        left == 0
    });
    let (took, cpu) = (began.elapsed().as_secs_f64(), cpu() - cpu_before);
    let rate = moved as f64 / took / 1e6;
    println!(
        "{engine}, {megabytes} MB in {groups} groups, values of {value} B: {rate:.1} MB/s ({:.0} % of a raw copy at {raw:.0} \
         MB/s), first group after {:.2} s, processor {:.2} s of {took:.2} s, disk {:.0} MB",
        rate / raw * 100.0,
        first.unwrap_or_default().as_secs_f64(),
        cpu.as_secs_f64(),
        receiver.disk_bytes().unwrap_or(0) as f64 / 1e6,
    );
    let _ = far.shutdown(std::net::Shutdown::Both);
    let _ = serving.join();
    drop(receiver);
    let _ = std::fs::remove_dir_all(dir);
}

fn main() {
    let dir = PathBuf::from(env::var("DIRECTORY").unwrap_or_else(|_| "target/transfer-example".into()));
    let mut words = env::args().skip(1);
    let mut number = || words.next().map(|word| word.parse::<usize>().expect("a number"));
    let (megabytes, value, groups) = (number().unwrap_or(256), number(), number());
    let engine = words.next().map_or(Engine::Fjall, |word| word.parse().expect("an engine"));
    for value in value.map_or(vec![100, 1024], |value| vec![value]) {
        for groups in groups.map_or(vec![1, 20, 100], |groups| vec![groups as u32]) {
            measure(&dir, engine, megabytes, value, groups);
        }
    }
}
