//! A checkpoint, whole or with a forged frame.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checkpoint::fuzz::checkpoint(data));
