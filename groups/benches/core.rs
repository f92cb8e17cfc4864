//! What the core of three replicas costs, without codec, log and network: puts in batches, a lease read, an
//! idle tick. One iteration is the work of all three.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use groups::ids::GroupId;
use trio::Trio;

mod trio;

const KEYS: usize = 10_000;

const GROUP: GroupId = GroupId(0);

/// A world whose only group holds every key.
fn filled() -> Trio {
    let mut trio = Trio::bare(1);
    for first in (0..KEYS).step_by(100) {
        trio.write(GROUP, (first..first + 100).map(trio::put));
    }
    trio
}

/// From submission to answer: proposed, voted for, chosen, applied; the followers apply the batch before.
fn put(c: &mut Criterion) {
    let mut puts = c.benchmark_group("put");
    for batch in [1, 16, 64] {
        let mut trio = filled();
        let commands: Vec<_> = (0..KEYS).map(trio::put).collect();
        let mut next = commands.iter().cycle().cloned();
        puts.throughput(Throughput::Elements(batch as u64));
        puts.bench_function(BenchmarkId::new("batch", batch), |b| {
            let take = || next.by_ref().take(batch).collect::<Vec<_>>();
            b.iter_batched(take, |batch| trio.write(GROUP, batch.into_iter()), BatchSize::SmallInput);
        });
    }
    puts.finish();
}

fn read(c: &mut Criterion) {
    let mut trio = filled();
    let commands: Vec<_> = (0..KEYS).map(trio::get).collect();
    let mut next = commands.iter().cycle().cloned();
    c.bench_function("lease read", |b| {
        b.iter(|| trio.read(GROUP, black_box(next.next().expect("it goes round"))));
    });
}

/// Three hosts at rest let ten milliseconds pass; every fifth time they exchange heartbeats.
fn idle(c: &mut Criterion) {
    for groups in [1, 10_000] {
        let mut trio = Trio::bare(groups);
        c.bench_function(&format!("idle tick, {groups} groups"), |b| b.iter(|| trio.tick()));
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    put(&mut criterion);
    read(&mut criterion);
    idle(&mut criterion);
    criterion.final_summary();
}
