//! A log with forged records, segment headers and manifest, opened.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| groups::fuzz::log_image(data));
