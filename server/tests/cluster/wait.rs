//! Waiting for a condition, never for a time.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until `look` finds what it looks for. Returns it and how long that took.
///
/// # Panics
/// After `deadline`, with what was missing at the last look.
pub fn within<T, E: Display>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> (T, Duration) {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return (found, begun.elapsed()),
            Err(missing) if begun.elapsed() >= deadline => {
                panic!("not within {deadline:?}: {what}; at the end: {missing}")
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// Waits until `look` says yes. Returns how long that took.
///
/// # Panics
/// After `deadline`.
pub fn until(deadline: Duration, what: &str, mut look: impl FnMut() -> bool) -> Duration {
    within(deadline, what, || if look() { Ok(()) } else { Err("no") }).1
}
