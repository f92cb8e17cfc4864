//! What this machine takes for one thing that every durable put needs: a write that lasts, a message there and back.
//!
//! * `disk` durable writes · `loopback` messages

pub mod disk;
pub mod loopback;

use std::io;
use std::time::{Duration, Instant};

use crate::stats::Latencies;

/// Repeats an action for this long.
fn repeat(time: Duration, mut action: impl FnMut() -> io::Result<()>) -> io::Result<Latencies> {
    let mut latencies = Latencies::default();
    let begun = Instant::now();
    while begun.elapsed() < time {
        let before = Instant::now();
        action()?;
        latencies.record(u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(latencies)
}
