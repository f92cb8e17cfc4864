//! When the log is shortened, and what for that is asked of the groups.
//!
//! The oldest segment goes as soon as no group needs it. Groups that do are asked to move on:
//! each brings its mirror up to what the segment holds, has it verified and recorded, and writes
//! an anchor. That costs reading the mirror once, so it is not begun before some log has come
//! together; and while there is room, values are kept for learners that are slow. A segment from
//! which a peer is being sent values stays while that gets on, up to twice the room for the log.
//!
//! A sealed segment in which rot was found goes at once, and all before it: what it held is in
//! memory here, and once the groups have moved on, in their mirrors and anchors. So the damage is
//! healed by this node itself, before a restart would meet it.

use std::time::Duration;

use groups::ids::{GroupId, InstanceId};
use groups::log::{CommitError, Disk, Log, SegmentSeq};
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

/// Why the log is shortened, and who must move on before its oldest segment can go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The oldest segment.
    pub segment: SegmentSeq,
    /// A group that needs it, with the newest instance that it needs it for; or none: it is being
    /// sent to a peer.
    pub by: Option<(GroupId, InstanceId)>,
    /// How many groups need it, at most as many as are asked at a time.
    pub groups: usize,
    /// Since when that segment has been asked for.
    pub since: Time,
    /// Whether nothing is kept for slow learners any more.
    pub urgent: bool,
}

/// Shortens a log. One for each log, beside it.
#[derive(Debug)]
pub struct Compactor {
    limits: CompactionLimits,
    next: Time,
    kept_for_readers: u64,
    held: Option<Held>,
    rotten: Option<SegmentSeq>,
}

impl Compactor {
    /// A compactor that has not looked yet.
    #[must_use]
    pub fn new(limits: CompactionLimits) -> Compactor {
        Compactor { limits, next: Time::ZERO, kept_for_readers: 0, held: None, rotten: None }
    }

    /// From now on these count.
    pub fn set_limits(&mut self, limits: CompactionLimits) {
        self.limits = limits;
    }

    /// How often a segment was kept because it was being sent to a peer.
    #[must_use]
    pub fn kept_for_readers(&self) -> u64 {
        self.kept_for_readers
    }

    /// What holds the log back; `None` while there is no reason to shorten it.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Rot was found in the sealed segment `segment`: it shall go.
    pub fn condemn(&mut self, segment: SegmentSeq) {
        self.rotten = self.rotten.max(Some(segment));
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
            let rotten = self.rotten.is_some_and(|newest| pinned.segment <= newest);
            if pinned.log_bytes <= self.limits.start_bytes && !scarce && !rotten {
                break;
            }
            let urgent = scarce || rotten || pinned.log_bytes > self.limits.keep_bytes;
            if pinned.groups.is_empty() {
                // What is being sent stays while it gets on and there is room for it.
                let room = !scarce && !rotten && pinned.log_bytes <= self.limits.keep_bytes.saturating_mul(2);
                if room && log.is_being_sent(now) && !planted::is(Bug::GcIgnoresReaders) {
                    self.kept_for_readers += 1;
                    self.hold(pinned.segment, None, 0, urgent, now);
                    return Ok(Vec::new());
                }
                match log.drop_oldest() {
                    Ok(true) => continue,
                    Ok(false) | Err(CommitError::NoSpace) => break,
                    Err(e) => return Err(e),
                }
            }
            let first = pinned.groups.iter().min_by_key(|pin| (pin.instance, pin.group));
            self.hold(
                pinned.segment,
                first.map(|pin| (pin.group, pin.instance)),
                pinned.groups.len(),
                urgent,
                now,
            );
            let demands = pinned.groups.iter();
            return Ok(demands.map(|pin| (pin.group, Demand { through: pin.instance, urgent })).collect());
        }
        self.held = None;
        Ok(Vec::new())
    }

    fn hold(
        &mut self,
        segment: SegmentSeq,
        by: Option<(GroupId, InstanceId)>,
        groups: usize,
        urgent: bool,
        now: Time,
    ) {
        let since = self.held.as_ref().filter(|held| held.segment == segment).map_or(now, |held| held.since);
        self.held = Some(Held { segment, by, groups, since, urgent });
    }
}
