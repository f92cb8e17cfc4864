//! What nodes say to each other beside Paxos.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::fuzz::wire(data));
