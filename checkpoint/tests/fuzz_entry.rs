//! The fuzz target's entry point on stable Rust: seeds, their beginnings, random bytes, damaged
//! seeds. The memory it takes is bounded.

#[path = "../../fuzz/support.rs"]
mod support;

use std::fs;

use checkpoint::fuzz;
use support::Entry;

const CHECKPOINT: Entry = Entry { name: "checkpoint", run: fuzz::checkpoint, base: 64 << 10, times: 128 };

const TRANSFER: Entry = Entry { name: "transfer", run: fuzz::transfer, base: 64 << 10, times: 128 };

/// Good frames of every kind, changed and not, and plain bytes.
#[test]
fn transfer() {
    let mut random = groups::random::Random::new(11);
    for length in 0..100_000 {
        let decisions: Vec<u8> = (0..length % 200).map(|_| random.next_u64() as u8).collect();
        TRANSFER.check(&decisions);
    }
}

#[test]
fn checkpoint() {
    CHECKPOINT.drive(50_000);
}

#[test]
#[ignore = "writes fuzz/seeds"]
fn write_seeds() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/checkpoint-1.hex");
    let golden = fs::read_to_string(golden).expect("the golden checkpoint");
    let digits: Vec<u8> = golden.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let nibble = |digit: u8| char::from(digit).to_digit(16).expect("a hexadecimal digit") as u8;
    let golden: Vec<u8> = digits.chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect();
    let mut seeds = vec![[&[0, 9], &golden[..]].concat()];

    // Decisions, not bytes of a checkpoint: enough of them for a few chunks and changes.
    let mut random = groups::random::Random::new(5);
    for n in 0..10 {
        let decisions: Vec<u8> = (0..60 + 20 * n).map(|_| random.next_u64() as u8).collect();
        seeds.push([&[1, 3], &decisions[..]].concat());
    }
    CHECKPOINT.write_seeds(&seeds);
    let seeds: Vec<Vec<u8>> = (0..12)
        .map(|n| [&[1][..], &(0..50 + 10 * n).map(|_| random.next_u64() as u8).collect::<Vec<u8>>()].concat())
        .collect();
    TRANSFER.write_seeds(&seeds);
}
