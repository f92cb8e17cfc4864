//! When the log is shortened, and what for that is asked of the groups.
//!
//! The oldest segment goes as soon as no group needs it. Groups that do are asked to move on:
//! each brings its mirror up to what the segment holds, has it verified and recorded, and writes
//! an anchor. That costs reading the mirror once, so it is not begun before some log has come
//! together; and while there is room, values are kept for learners that are slow. A segment from
//! which a peer is being sent values stays while that gets on, up to twice the room for the log.

use std::time::Duration;

use groups::ids::GroupId;
use groups::log::{CommitError, Disk, Log};
use groups::mirrored::Demand;
use groups::planted::{self, Bug};
use groups::time::Time;

/// When what is done.
#[derive(Clone, Copy, Debug)]
pub struct CompactionLimits {
    /// The log is shortened once its files take more than this.
    pub start_bytes: u64,
    /// Beyond this nothing is kept for slow learners.
    pub keep_bytes: u64,
}

impl CompactionLimits {
    /// Limits that keep the files of a log within `keep_bytes`, as far as two segments allow:
    /// shortening begins at four segments, so that a restart has little to read.
    #[must_use]
    pub fn new(keep_bytes: u64, segment_size: u64) -> CompactionLimits {
        CompactionLimits { start_bytes: (keep_bytes / 2).min(4 * segment_size), keep_bytes }
    }
}

/// The groups asked at a time.
const MOST: usize = 1024;

/// How often groups that have not moved are asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// Shortens a log. One for each log, beside it.
#[derive(Debug)]
pub struct Compactor {
    limits: CompactionLimits,
    next: Time,
    kept_for_readers: u64,
}

impl Compactor {
    /// A compactor that has not looked yet.
    #[must_use]
    pub fn new(limits: CompactionLimits) -> Compactor {
        Compactor { limits, next: Time::ZERO, kept_for_readers: 0 }
    }

    /// How often a segment was kept because it was being sent to a peer.
    #[must_use]
    pub fn kept_for_readers(&self) -> u64 {
        self.kept_for_readers
    }

    /// Drops what nobody needs, and says what to ask of whom for the rest. `scarce`: the disk is
    /// nearly full. Nothing may be pending in the log.
    ///
    /// # Errors
    /// As [`Log::drop_oldest`]: anything but no space is final.
    pub fn look<D: Disk>(
        &mut self,
        log: &mut Log<D>,
        scarce: bool,
        now: Time,
    ) -> Result<Vec<(GroupId, Demand)>, CommitError> {
        if now < self.next {
            return Ok(Vec::new());
        }
        self.next = now + AGAIN;
        while let Some(pinned) = log.pins(MOST) {
            if pinned.log_bytes <= self.limits.start_bytes && !scarce {
                break;
            }
            if pinned.groups.is_empty() {
                // What is being sent stays while it gets on and there is room for it.
                let room = !scarce && pinned.log_bytes <= self.limits.keep_bytes.saturating_mul(2);
                if room && log.is_being_sent(now) && !planted::is(Bug::GcIgnoresReaders) {
                    self.kept_for_readers += 1;
                    break;
                }
                match log.drop_oldest() {
                    Ok(true) => continue,
                    Ok(false) | Err(CommitError::NoSpace) => break,
                    Err(e) => return Err(e),
                }
            }
            let urgent = scarce || pinned.log_bytes > self.limits.keep_bytes;
            let demands = pinned.groups.iter();
            return Ok(demands.map(|pin| (pin.group, Demand { through: pin.instance, urgent })).collect());
        }
        Ok(Vec::new())
    }
}
