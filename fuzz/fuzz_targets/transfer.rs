//! Any bytes, or a damaged frame, of a checkpoint transfer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checkpoint::fuzz::transfer(data));
