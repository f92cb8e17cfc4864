//! What the client protocol costs: a pipeline of 16 PUTs from bytes to commands, in both forms, and 16 replies
//! to bytes.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput};
use server::protocol::{
    Command, Reply, ReplyBuffer, Request, RequestLimits, RequestParser, SizeLimits, Version,
};

const PIPELINE: usize = 16;

const SIZES: SizeLimits = SizeLimits { max_key: 64 << 10, max_value: 4 << 20 };

fn put(number: usize, resp: bool) -> String {
    let (key, value) = (format!("key:{number:012}"), "v".repeat(100));
    if resp {
        format!("*3\r\n$3\r\nPUT\r\n$16\r\n{key}\r\n$100\r\n{value}\r\n")
    } else {
        format!("PUT {key} {value}\r\n")
    }
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("16 PUTs");
    group.throughput(Throughput::Elements(PIPELINE as u64));
    for (form, resp) in [("RESP", true), ("lines", false)] {
        let stream: String = (0..PIPELINE).map(|n| put(n, resp)).collect();
        let mut parser = RequestParser::new(RequestLimits::new(SIZES.max_key, SIZES.max_value, 15 << 20));
        let mut read = |mut input: BytesMut| {
            let mut commands = 0;
            while let Some(request) = parser.next(&mut input).expect("it is in step") {
                let Request::Command(args) = request else { panic!("a command") };
                black_box(Command::parse(&args, &SIZES).expect("a PUT"));
                commands += 1;
            }
            assert_eq!(commands, PIPELINE);
        };
        group.bench_function(format!("parsed, {form}"), |b| {
            b.iter_batched(|| BytesMut::from(stream.as_bytes()), &mut read, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("16 replies");
    group.throughput(Throughput::Elements(PIPELINE as u64));
    for (what, reply) in [("OK", Reply::ok()), ("100 bytes", Reply::Bulk(Bytes::from(vec![b'v'; 100])))] {
        group.bench_function(format!("encoded, {what}"), |b| {
            b.iter(|| {
                let mut out = ReplyBuffer::new();
                (0..PIPELINE).for_each(|_| black_box(&reply).encode(&mut out, Version::Resp2));
                out
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    parse(&mut criterion);
    encode(&mut criterion);
    criterion.final_summary();
}
