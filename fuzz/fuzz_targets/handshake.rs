//! The beginning of a connection between nodes, and its judgement.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netio::fuzz::handshake(data));
