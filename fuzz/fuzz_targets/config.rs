//! A configuration file or an override.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::config::fuzz_config(data));
