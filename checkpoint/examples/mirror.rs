//! How fast the mirror folds, verifies and sends:
//!
//! ```text
//! cargo run --release -p checkpoint --example mirror [-- DIRECTORY]
//! ```

use std::env;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use checkpoint::mirror::{Event, Fold, Mirror, MirrorConfig};
use checkpoint::store::{Engine, MirrorStore, Position, Sizes};
use checkpoint::{Entry, StateDigest};
use groups::ids::{Boot, GroupId, InstanceId, NodeId};
use groups::kv::StateHash;
use groups::random::Random;
use groups::time::Time;

const KEYS: usize = 100_000;
const BATCH: usize = 4096;
const ROUNDS: u64 = 200;
const GROUP: GroupId = GroupId(1);

fn open(dir: &Path, boot: u64) -> Mirror {
    let store = MirrorStore::open(dir, Engine::Fjall, &Sizes::default()).expect("a store");
    let config = MirrorConfig { boot: Boot(boot), window: 16, ..MirrorConfig::default() };
    Mirror::new(store, config, Time::ZERO)
}

fn entry(key: u64, revision: u64) -> Entry {
    let mut value = [0; 100];
    value.iter_mut().zip(revision.to_le_bytes().into_iter().cycle()).for_each(|(to, from)| *to = from);
    let key = Bytes::from(format!("key {key:012}"));
    Entry { key, value: Bytes::copy_from_slice(&value), revision, expiry: 0 }
}

fn main() {
    let dir = env::args().nth(1).map_or_else(|| env::temp_dir().join("pelago-mirror-example"), PathBuf::from);
    let _ = std::fs::remove_dir_all(&dir);
    let mut sender = open(&dir.join("sender"), 1);
    let (mut random, mut hash, mut revision) = (Random::new(1), StateHash::default(), 0);
    let mut held: Vec<Option<Entry>> = vec![None; KEYS];
    let mut folds = Vec::new();
    for round in 0..ROUNDS {
        let mut changed = std::collections::BTreeMap::new();
        for _ in 0..BATCH {
            let key = random.next_u64() % KEYS as u64;
            revision += 1;
            let new = entry(key, revision);
            new.add_to(&mut hash);
            if let Some(old) = held[key as usize].replace(new.clone()) {
                old.remove_from(&mut hash);
            }
            changed.insert(key, new);
        }
        let state_hash = StateDigest::from(hash);
        let to = Position { applied: InstanceId(round + 1), state_hash, revision, ..Position::default() };
        let (from, sessions) = (InstanceId(round), Bytes::from(vec![round as u8; 1000]));
        let entries = changed.into_values().collect();
        folds.push(Fold { group: GROUP, from, to, sessions, entries, removed: Vec::new() });
    }
    let written: usize = folds.iter().map(|fold| fold.entries.len()).sum();
    let began = Instant::now();
    folds.into_iter().for_each(|fold| sender.fold(fold));
    let took = began.elapsed().as_secs_f64();
    println!("fold: {:.0} k kv/s ({written} of {} B in {took:.2} s)", written as f64 / took / 1e3, 16 + 100);
    let began = Instant::now();
    sender.settle(&[GROUP], Time::ZERO);
    println!("settle (sync, verify, record): {:.3} s", began.elapsed().as_secs_f64());
    let keys = held.iter().flatten().count();
    let began = Instant::now();
    let loaded = sender.store().load(GROUP, drop).expect("sound");
    let took = began.elapsed().as_secs_f64();
    assert_eq!(loaded.position.applied, InstanceId(ROUNDS));
    println!("verify: {:.2} M keys/s", keys as f64 / took / 1e6);
    assert!(sender.poisoned().is_none());
    sender.turn();

    let mut receiver = open(&dir.join("receiver"), 1);
    let began = Instant::now();
    receiver.want(GROUP, InstanceId(0), vec![NodeId(1)], Time::ZERO);
    let (mut bytes, mut installed) = (0, false);
    while !installed {
        for event in receiver.turn() {
            match event {
                Event::Send { group, kind, body, .. } => {
                    sender.on_frame(NodeId(2), group, kind, body, Time::ZERO);
                }
                Event::Installed { .. } => installed = true,
                _ => {}
            }
        }
        for event in sender.turn() {
            if let Event::Send { group, kind, body, .. } = event {
                bytes += body.len();
                receiver.on_frame(NodeId(1), group, kind, body, Time::ZERO);
            }
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "transfer in memory, verified, staged, installed, read back: {:.1} MB/s ({bytes} bytes in {took:.2} s)",
        bytes as f64 / took / 1e6
    );
    let _ = std::fs::remove_dir_all(&dir);
}
