//! A log with one damaged sector, opened.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| groups::fuzz::log_damage(data));
