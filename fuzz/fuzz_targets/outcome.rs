//! What a command came to.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| groups::fuzz::outcome(data));
