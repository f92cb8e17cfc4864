//! A message between two replicas.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| groups::fuzz::paxos_message(data));
