//! What clients of the program are answered.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::protocol::fuzz_reply(data));
