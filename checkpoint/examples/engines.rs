//! Both engines through the mirror's own store, with the project's own batches.
//!
//! ```text
//! cargo run --release -p checkpoint --example engines [-- keys [directory]]
//! ```
//!
//! Random 16-byte keys, 100-byte values, default sizes. Every phase ends with a `persist`,
//! which is part of its time. Under a minute per engine with the default of 200 000 keys.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use bytes::Bytes;
use checkpoint::store::{Batch, ChunkLimit, Engine, MirrorStore, Position, Sizes, StoreError};
use checkpoint::{Entry, StateDigest};
use groups::ids::{GroupId, InstanceId};
use groups::kv::StateHash;

const VALUE: usize = 100;
const LOAD_BATCH: u64 = 1000;
const GROUPS: u32 = 128;
const GROUP_BATCH: u64 = 16;
const GETS: u64 = 20_000;

/// No phase of an engine runs longer; what was done by then is what counts.
const PATIENCE: Duration = Duration::from_secs(15);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args().skip(1);
    let keys: u64 = args.next().map_or(Ok(200_000), |keys| keys.parse())?;
    let dir = args.next().map_or_else(env::temp_dir, PathBuf::from).join("pelago-engines");
    let _ = fs::remove_dir_all(&dir);
    println!("{keys} keys, {VALUE}-byte values, {:?}", Sizes::default());
    for engine in Engine::ALL {
        println!("\n{engine}");
        measure(engine, keys, &dir.join(engine.name()))?;
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn measure(engine: Engine, keys: u64, dir: &Path) -> Result<(), StoreError> {
    let begun = Instant::now();
    let store = MirrorStore::open(dir, engine, &Sizes::default())?;
    println!("  create                {:>10.1} ms", millis(begun.elapsed()));

    let mut load = Group::new(0);
    let in_order: Vec<u64> = (0..keys).collect();
    phase("load, batches of 1000", "kv/s", || load.write(&store, &in_order, LOAD_BATCH))?;
    disk(&store, "disk after load")?;

    // As many writes again over the same keys, in another order.
    let overwrites: Vec<u64> = (0..keys).map(|n| mix(n) % keys).collect();
    phase("overwrite, batches of 1000", "kv/s", || load.write(&store, &overwrites, LOAD_BATCH))?;
    disk(&store, "disk after overwrite")?;

    let mut many: Vec<Group> = (1..=GROUPS).map(Group::new).collect();
    phase("128 groups, 2 writers, batches of 16", "kv/s", || two_writers(&store, &mut many, keys))?;
    disk(&store, "disk after that")?;

    phase("scan in chunks", "keys/s", || scan(&store, GroupId(0)))?;
    let verified = phase("scan and verify the hash", "keys/s", || {
        let mut count = 0;
        store.load(GroupId(0), |_| count += 1)?;
        Ok(count)
    })?;
    assert_eq!(verified, load.live() as u64);

    let mut worst = gets(&store, keys)?;
    worst.sort_unstable();
    let at = |share: f64| worst[((worst.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1e3;
    println!("  get p50 / p99         {:>7.1} / {:.1} µs", at(0.5), at(0.99));

    let persisted = timed("persist, nothing new", || store.persist())?;
    let verified = [store.verify(GroupId(0))?];
    timed("record one point", || store.record(&persisted, &verified))?;

    timed("discard", || store.discard(GroupId(0)))?;
    phase("sweep, steps of 1000", "keys/s", || {
        let mut deleted = 0;
        loop {
            let step = store.sweep(1000)?;
            deleted += step.deleted as u64;
            if !step.more {
                store.persist()?;
                return Ok(deleted);
            }
        }
    })?;
    disk(&store, "disk after sweep")?;
    drop(store);
    let store = timed("open again", || MirrorStore::open(dir, engine, &Sizes::default()))?;
    disk(&store, "disk after that")
}

/// A group under load, and the state it should have.
struct Group {
    id: GroupId,
    applied: InstanceId,
    hash: StateHash,
    revisions: Vec<u64>,
}

impl Group {
    fn new(id: u32) -> Group {
        Group {
            id: GroupId(id),
            applied: InstanceId::ZERO,
            hash: StateHash::default(),
            revisions: Vec::new(),
        }
    }

    fn live(&self) -> usize {
        self.revisions.iter().filter(|&&revision| revision > 0).count()
    }

    /// Writes these keys in batches; returns how many were written before patience ran out.
    fn write(&mut self, store: &MirrorStore, keys: &[u64], batch: u64) -> Result<u64, StoreError> {
        let begun = Instant::now();
        let mut written = 0;
        for keys in keys.chunks(batch as usize) {
            self.batch(store, keys)?;
            written += keys.len() as u64;
            if begun.elapsed() > PATIENCE {
                break;
            }
        }
        store.persist()?;
        Ok(written)
    }

    fn batch(&mut self, store: &MirrorStore, keys: &[u64]) -> Result<(), StoreError> {
        let mut batch = Batch::new(self.id, self.applied);
        for &n in keys {
            let slot = n as usize;
            if self.revisions.len() <= slot {
                self.revisions.resize(slot + 1, 0);
            }
            if self.revisions[slot] > 0 {
                entry(n, self.revisions[slot]).remove_from(&mut self.hash);
            }
            self.revisions[slot] += 1;
            let new = entry(n, self.revisions[slot]);
            new.add_to(&mut self.hash);
            batch.put(new);
        }
        self.applied = self.applied.next();
        let state_hash = StateDigest::from(self.hash);
        store.write(batch, Position { applied: self.applied, state_hash, ..Position::default() })
    }
}

fn two_writers(store: &MirrorStore, groups: &mut [Group], keys: u64) -> Result<u64, StoreError> {
    let half = groups.len() / 2;
    let (one, two) = groups.split_at_mut(half);
    let run = |groups: &mut [Group], seed: u64| -> Result<u64, StoreError> {
        let begun = Instant::now();
        let mut written = 0;
        while written < keys / 2 && begun.elapsed() < PATIENCE {
            for group in groups.iter_mut() {
                let batch: Vec<u64> = (0..GROUP_BATCH).map(|n| mix(seed + written + n) % 10_000).collect();
                group.batch(store, &batch)?;
                written += GROUP_BATCH;
            }
        }
        Ok(written)
    };
    let written = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(two, 1 << 40));
        let mine = run(one, 1 << 41)?;
        Ok(mine + other.join().unwrap_or(Ok(0))?)
    })?;
    store.persist()?;
    Ok(written)
}

fn scan(store: &MirrorStore, group: GroupId) -> Result<u64, StoreError> {
    let reader = store.reader(group)?;
    let mut after: Option<Bytes> = None;
    let mut count = 0;
    loop {
        let chunk = reader.chunk(after.as_deref(), ChunkLimit::default())?;
        count += chunk.entries.len() as u64;
        after = chunk.entries.last().map(|entry| entry.key.clone());
        if chunk.last {
            return Ok(count);
        }
    }
}

fn gets(store: &MirrorStore, keys: u64) -> Result<Vec<Duration>, StoreError> {
    let mut times = Vec::new();
    for n in 0..GETS {
        let key = key(mix(n + 7) % keys);
        let begun = Instant::now();
        store.get(GroupId(0), &key)?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

fn key(n: u64) -> Bytes {
    let (high, low) = (mix(n), mix(!n));
    Bytes::from([high.to_be_bytes(), low.to_be_bytes()].concat())
}

fn entry(n: u64, revision: u64) -> Entry {
    let mut value = Vec::with_capacity(VALUE + 8);
    let mut word = n ^ (revision << 40);
    while value.len() < VALUE {
        word = mix(word);
        value.extend_from_slice(&word.to_le_bytes());
    }
    value.truncate(VALUE);
    Entry { key: key(n), value: value.into(), revision, expiry: 0 }
}

/// splitmix64: the same keys in every run.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn phase(name: &str, unit: &str, run: impl FnOnce() -> Result<u64, StoreError>) -> Result<u64, StoreError> {
    let begun = Instant::now();
    let done = run()?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("  {name:<38} {:>10.0} {unit}  ({done} in {seconds:.2} s)", done as f64 / seconds);
    Ok(done)
}

fn timed<T>(name: &str, run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let begun = Instant::now();
    let result = run()?;
    println!("  {name:<38} {:>10.1} ms", millis(begun.elapsed()));
    Ok(result)
}

fn disk(store: &MirrorStore, name: &str) -> Result<(), StoreError> {
    println!("  {name:<38} {:>10.1} MB", store.disk_bytes()? as f64 / 1e6);
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
