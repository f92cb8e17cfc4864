//! What the state machine of one replica costs, by the number of keys that it holds: puts, reads, a fold for
//! the mirror, the hash, the sum. Applying is measured over chosen values of 64 puts.

use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use groups::ids::{Boot, InstanceId, NodeId};
use groups::kv::value::Batch;
use groups::kv::{self, Command, State, StateHash, Ticket};

mod trio;

/// Commands in one chosen value.
const BATCH: usize = 64;

/// Changed keys that make a fold.
const FOLD: usize = 4_096;

/// A state of so many keys, and what is applied to it.
struct Filled {
    state: State,
    keys: usize,
    instance: InstanceId,
    number: u64,
    random: u64,
}

impl Filled {
    fn with(keys: usize) -> Filled {
        let mut filled =
            Filled { state: State::default(), keys, instance: InstanceId::ZERO, number: 0, random: 1 };
        filled.state.watch_changes();
        for first in (0..keys).step_by(BATCH) {
            let keys = first..(first + BATCH).min(keys);
            let value = filled.value(keys.map(trio::put));
            filled.apply(value);
        }
        filled
    }

    fn value(&mut self, commands: impl Iterator<Item = Bytes>) -> Bytes {
        let mut batch = Batch::with_capacity(BATCH * 192);
        for (behind, command) in (0..).zip(commands) {
            self.number += 1;
            let ticket = Ticket { node: NodeId(1), boot: Boot(1), number: self.number, behind };
            batch.push(ticket, &command);
        }
        batch.finish()
    }

    fn apply(&mut self, value: Bytes) -> Duration {
        if self.state.changed() >= FOLD {
            self.state.fold(InstanceId::ZERO, 0);
        }
        self.instance = self.instance.next();
        let begun = Instant::now();
        self.state.apply(self.instance, value, &mut |_, outcome| drop(black_box(outcome))).expect("a batch");
        begun.elapsed()
    }

    fn some_key(&mut self) -> usize {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.random >> 32) as usize % self.keys
    }

    fn overwrite(&mut self) -> Duration {
        let keys: Vec<usize> = (0..BATCH).map(|_| self.some_key()).collect();
        let value = self.value(keys.into_iter().map(trio::put));
        self.apply(value)
    }

    /// New keys, which go again: there are as many afterwards.
    fn insert(&mut self) -> Duration {
        let fresh: Range<usize> = self.keys..self.keys + BATCH;
        let value = self.value(fresh.clone().map(trio::put));
        let passed = self.apply(value);
        let removal = self.value(fresh.map(|n| Command::Take { key: trio::key(n) }.to_bytes()));
        self.apply(removal);
        passed
    }

    fn fold(&mut self) -> Duration {
        self.state.fold(InstanceId::ZERO, 0);
        while self.state.changed() < FOLD.min(self.keys / 2) {
            let keys: Vec<usize> = (0..BATCH).map(|_| self.some_key()).collect();
            let value = self.value(keys.into_iter().map(trio::put));
            self.apply(value);
        }
        let begun = Instant::now();
        let fold = self.state.fold(InstanceId::ZERO, 0);
        let passed = begun.elapsed();
        drop(black_box(fold));
        passed
    }
}

fn writes(c: &mut Criterion, filled: &mut Filled) {
    let keys = filled.keys;
    let mut group = c.benchmark_group("apply");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(BenchmarkId::new("64 overwrites", keys), |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| filled.overwrite()).sum());
    });
    group.bench_function(BenchmarkId::new("64 inserts", keys), |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| filled.insert()).sum());
    });
    group.finish();
    c.bench_function(&format!("fold of {} keys/{keys}", FOLD.min(keys / 2)), |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| filled.fold()).sum());
    });
}

fn reads(c: &mut Criterion, filled: &mut Filled) {
    let keys = filled.keys;
    let some: Vec<Bytes> = (0..4_096).map(|_| trio::key(filled.some_key())).collect();
    let state = &filled.state;
    let mut next = some.iter().cycle();
    c.bench_function(&format!("get/{keys}"), |b| {
        b.iter(|| state.get(black_box(next.next().expect("it goes round"))));
    });
    c.bench_function(&format!("range of 10/{keys}"), |b| {
        b.iter(|| {
            let from = next.next().expect("it goes round").clone();
            state.read(&Command::Scan(kv::Range {
                from,
                to: None,
                limit: 10,
                max_bytes: 1 << 20,
                values: true,
            }))
        });
    });
    c.bench_function(&format!("sum/{keys}"), |b| b.iter(|| black_box(state).sum()));
}

fn hash(c: &mut Criterion) {
    let (key, value) = (trio::key(1), [7; 100]);
    let mut hash = StateHash::EMPTY;
    c.bench_function("hash, one put", |b| {
        b.iter(|| {
            hash.remove(black_box(&key), black_box(&value), 1, 0);
            hash.add(black_box(&key), black_box(&value), 2, 0);
        });
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    hash(&mut criterion);
    for keys in [1_000, 100_000, 1_000_000] {
        let mut filled = Filled::with(keys);
        writes(&mut criterion, &mut filled);
        reads(&mut criterion, &mut filled);
    }
    criterion.final_summary();
}
