//! A chosen value, and what two states make of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| groups::fuzz::value(data));
