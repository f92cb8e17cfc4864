//! What a power loss may leave of the journal of the default engine.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use checkpoint::store::{Batch, Engine, MirrorStore, Position, Sizes, StoreError};
use checkpoint::{Chain, Entry, StateDigest};
use groups::ids::{GroupId, InstanceId};
use groups::kv::StateHash;

const G: GroupId = GroupId(3);

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn scratch(name: &str) -> Scratch {
    let dir = std::env::temp_dir().join(format!("pelago-power-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    Scratch(dir)
}

fn open(dir: &Path) -> Result<MirrorStore, StoreError> {
    MirrorStore::open(dir, Engine::Fjall, &Sizes::default())
}

/// Adds a key with 16 KiB of its own, and says where the group stands then.
fn write(store: &MirrorStore, hash: &mut StateHash, instance: u64) {
    let value = Bytes::from(vec![instance as u8; 16 << 10]);
    let entry = Entry { key: Bytes::from(format!("key-{instance}")), value, revision: instance, expiry: 0 };
    entry.add_to(hash);
    let mut batch = Batch::new(G, InstanceId(instance - 1));
    batch.put(entry);
    let position = Position {
        applied: InstanceId(instance),
        chain: Chain(instance),
        state_hash: StateDigest::from(*hash),
        ..Position::default()
    };
    store.write(batch, position).expect("written");
}

fn journal(dir: &Path) -> PathBuf {
    let names = fs::read_dir(dir.join("engine")).expect("the engine's files");
    let mut journals: Vec<PathBuf> = names
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    journals.sort();
    journals.pop().expect("a journal")
}

/// Five instances, three of them recorded as durable; returns the journal's bytes and where the
/// last value begins in them.
fn filled(dir: &Path) -> (Vec<u8>, usize) {
    let store = open(dir).expect("a new store");
    let mut hash = StateHash::EMPTY;
    (1..=3).for_each(|n| write(&store, &mut hash, n));
    let persisted = store.persist().expect("synced");
    let verified = store.verify(G).expect("sound");
    store.record(&persisted, &[verified]).expect("recorded");
    (4..=5).for_each(|n| write(&store, &mut hash, n));
    store.persist().expect("synced");
    drop(store);
    let bytes = fs::read(journal(dir)).expect("readable");
    let value = vec![5; 4096];
    let at = bytes.windows(value.len()).position(|window| window == value).expect("the last value");
    (bytes, at)
}

/// A page of the last value never reached the disk: the batch parses, its checksum is wrong, and the
/// engine would not open at all. After a power cut of three nodes at once that was every copy of
/// the data whose log had been shortened, though all of it had been synced long before.
#[test]
fn a_page_that_is_missing_in_the_last_batch_costs_that_batch_only() {
    let dir = scratch("page");
    let (mut bytes, at) = filled(&dir.0);
    bytes[at + 512..at + 4096].fill(0);
    fs::write(journal(&dir.0), &bytes).expect("written");
    let store = open(&dir.0).expect("what was synced opens");
    let position = store.position(G).expect("sound").expect("present");
    assert_eq!(position.applied, InstanceId(4));
    store.verify(G).expect("and is what it says it is");
}

/// Wherever the tail is cut or garbled, an earlier state opens; one that is too early for what was
/// recorded is called damaged and never served.
#[test]
fn every_torn_tail_leaves_an_earlier_state() {
    let dir = scratch("tails");
    let (bytes, at) = filled(&dir.0);
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    let mut places: Vec<usize> = (at - 200..end).step_by(1801).collect();
    places.extend([end - 1, end - 5, end - 13, at - 17 * 1024, at - 34 * 1024, at - 60 * 1024]);
    for place in places {
        for garble in [false, true] {
            let mut torn = bytes.clone();
            if garble {
                torn[place] ^= 0x55;
            } else {
                torn.truncate(place);
            }
            fs::write(journal(&dir.0), &torn).expect("written");
            let store = open(&dir.0).unwrap_or_else(|e| panic!("byte {place}, {garble}: {e}"));
            match store.position(G) {
                Ok(Some(position)) => {
                    assert!(position.applied >= InstanceId(3), "byte {place}");
                    store.verify(G).unwrap_or_else(|e| panic!("byte {place}, {garble}: {e}"));
                }
                Ok(None) => panic!("byte {place}: lost without a word"),
                Err(StoreError::Damaged { .. }) => assert!(place < at - 16 * 1024, "byte {place}"),
                Err(e) => panic!("byte {place}, {garble}: {e}"),
            }
        }
    }
}
