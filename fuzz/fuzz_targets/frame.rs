//! A stream of frames between nodes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netio::fuzz::frame(data));
