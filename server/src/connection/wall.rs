//! The wall clock, for what clients say in its terms. Groups know nothing of it.

use std::time::SystemTime;

/// Milliseconds since the Unix epoch.
pub fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
