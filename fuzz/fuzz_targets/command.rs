//! A command of the state machine.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| groups::fuzz::command(data));
