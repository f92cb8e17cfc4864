//! What the log costs beside the disk: records appended to a commit, a commit on the simulated disk, and
//! recovery from what it has written. Records are accepts with values of 150 bytes, one put each.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use groups::ids::{Ballot, GroupId, InstanceId, NodeId, StorageId};
use groups::log::{Durability, Log, LogOptions, Record, SimDisk};

const SEGMENT: u64 = 16 << 20;

fn open(disk: &SimDisk, visit: &mut dyn FnMut(Record)) -> Log<SimDisk> {
    let options = LogOptions {
        segment_size: SEGMENT,
        storage_id: StorageId(1),
        max_record: 1 << 20,
        durability: Durability::Fsync,
    };
    Log::open(disk.clone(), options, visit).expect("the log opens").0
}

fn record(instance: u64) -> Record {
    Record::Accept {
        group: GroupId(instance as u32 % 16),
        instance: InstanceId(instance / 16 + 1),
        ballot: Ballot { round: 1, node: NodeId(1) },
        value: Bytes::from(vec![b'v'; 150]),
    }
}

/// A log that is begun anew when it has grown to some segments: the simulated disk is memory.
struct Fresh {
    log: Log<SimDisk>,
    instance: u64,
}

impl Fresh {
    fn new() -> Fresh {
        Fresh { log: open(&SimDisk::new(1), &mut |_| {}), instance: 0 }
    }

    /// How long `count` records take to be appended, and then to be committed.
    fn commit(&mut self, count: usize) -> (Duration, Duration) {
        if self.log.stats().segments > 4 {
            *self = Fresh::new();
        }
        let records: Vec<Record> = (0..count as u64).map(|n| record(self.instance + n)).collect();
        self.instance += count as u64;
        let begun = Instant::now();
        for record in &records {
            self.log.append(record).expect("it is taken");
        }
        let appended = Instant::now();
        self.log.commit().expect("it is written");
        (appended - begun, appended.elapsed())
    }
}

fn writing(c: &mut Criterion) {
    let mut log = Fresh::new();
    for count in [1, 16, 256] {
        let mut group = c.benchmark_group("log");
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("append", count), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| log.commit(count).0).sum());
        });
        group.bench_function(BenchmarkId::new("commit", count), |b| {
            b.iter_custom(|rounds| (0..rounds).map(|_| log.commit(count).1).sum());
        });
        group.finish();
    }
}

/// A whole segment in commits of 16 records: scanned, verified, decoded, indexed.
fn recovery(c: &mut Criterion) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk, &mut |_| {});
    let mut instance = 0;
    while log.stats().written_bytes < SEGMENT - (64 << 10) {
        for _ in 0..16 {
            log.append(&record(instance)).expect("it is taken");
            instance += 1;
        }
        log.commit().expect("it is written");
    }
    let bytes = log.stats().written_bytes;
    drop(log);
    let mut group = c.benchmark_group("log");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    group.bench_function("recovery of a segment", |b| {
        b.iter_custom(|rounds| {
            let recover = |_| {
                disk.kill();
                let begun = Instant::now();
                let log = open(&disk, &mut |record| drop(black_box(record)));
                let passed = begun.elapsed();
                drop(log);
                passed
            };
            (0..rounds).map(recover).sum()
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    writing(&mut criterion);
    recovery(&mut criterion);
    criterion.final_summary();
}
