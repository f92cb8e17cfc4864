//! What framing costs, checksums included: 64 frames pushed to a batch, and the same decoded.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use groups::ids::GroupId;
use netio::{Decoder, FrameBatch};

const FRAMES: usize = 64;

/// Of a Paxos message beside its value.
const HEAD: [u8; 40] = [7; 40];

fn batch(payload: &Bytes) -> FrameBatch {
    let mut batch = FrameBatch::new();
    for group in 0..FRAMES as u32 {
        batch.push(GroupId(group), 20, &HEAD, payload);
    }
    batch
}

fn push(c: &mut Criterion, size: usize) {
    let payload = Bytes::from(vec![7; size]);
    let mut group = c.benchmark_group("frames");
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function(BenchmarkId::new("64 pushed", size), |b| b.iter(|| batch(black_box(&payload))));
    group.finish();
}

/// Into the decoder's buffer as a socket would read, and out again.
fn decode(c: &mut Criterion, size: usize) {
    let stream: Vec<u8> = batch(&Bytes::from(vec![7; size])).into_segments().flatten().collect();
    let mut decoder = Decoder::new(16 << 20);
    let mut frames = Vec::with_capacity(FRAMES);
    let mut group = c.benchmark_group("frames");
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function(BenchmarkId::new("64 decoded", size), |b| {
        b.iter(|| {
            let mut rest = black_box(&stream[..]);
            while !rest.is_empty() {
                let room = decoder.room();
                let count = room.len().min(rest.len());
                room[..count].copy_from_slice(&rest[..count]);
                decoder.advance(count);
                decoder.decode(&mut frames).expect("its own bytes");
                rest = &rest[count..];
            }
            assert_eq!(frames.len(), FRAMES);
            frames.clear();
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for size in [100, 4 << 10] {
        push(&mut criterion, size);
        decode(&mut criterion, size);
    }
    criterion.final_summary();
}
