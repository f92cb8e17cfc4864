//! What people type: lines and quoted words.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::fuzz::line(data));
