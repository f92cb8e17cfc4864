//! What clients send: RESP2, RESP3 and lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::protocol::fuzz_request(data));
