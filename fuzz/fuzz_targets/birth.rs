//! A word of the birth, and a birth that hears any words.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::fuzz::birth(data));
