//! How old things are: what a follower has applied, and a group's checkpoint.
//!
//! A follower that is 5 000 instances behind may be a second behind or an hour. The leader can tell, because it
//! remembers when it had applied what: a short trail of each group's prefix, exact to the interval at which it is
//! noted and coarser the further back it goes. A group that stands still adds nothing to its trail.

use std::collections::HashMap;
use std::time::Duration;

use groups::ids::{GroupId, InstanceId};
use groups::time::Time;

/// Points that a trail has at most; at that length every second one goes.
const MAX_POINTS: usize = 32;

/// What a shard remembers of its groups' past.
#[derive(Debug, Default)]
pub struct Ages {
    groups: HashMap<GroupId, Age>,
}

#[derive(Debug, Default)]
struct Age {
    /// Ascending, the newest is where the group is.
    trail: Vec<Point>,
    settled: Option<Time>,
}

/// For how long a group was seen at an instance.
#[derive(Clone, Copy, Debug)]
struct Point {
    instance: InstanceId,
    first: Time,
    last: Time,
}

impl Ages {
    /// A group has applied everything up to this instance.
    pub fn applied(&mut self, group: GroupId, instance: InstanceId, now: Time) {
        let trail = &mut self.groups.entry(group).or_default().trail;
        match trail.last_mut() {
            Some(newest) if newest.instance == instance => newest.last = now,
            // A state that was given up begins anew.
            Some(newest) if newest.instance > instance => trail.clear(),
            _ => {}
        }
        if trail.last().is_none_or(|newest| newest.instance != instance) {
            if trail.len() >= MAX_POINTS {
                let mut keep = false;
                trail.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            trail.push(Point { instance, first: now, last: now });
        }
    }

    /// A checkpoint of the group was verified and is durable.
    pub fn settled(&mut self, group: GroupId, now: Time) {
        self.groups.entry(group).or_default().settled = Some(now);
    }

    /// How long ago the group's checkpoint was last verified and durable, in this life.
    #[must_use]
    pub fn checkpoint(&self, group: GroupId, now: Time) -> Option<Duration> {
        Some(now.since(self.groups.get(&group)?.settled?))
    }

    /// For how long the oldest instance has been applied here that a replica at `instance` lacks; zero when it lacks
    /// none, and at least that long when the trail does not reach back to it.
    #[must_use]
    pub fn behind(&self, group: GroupId, instance: InstanceId, now: Time) -> Duration {
        let Some(trail) = self.groups.get(&group).map(|age| &age.trail[..]) else { return Duration::ZERO };
        let after = trail.partition_point(|point| point.instance <= instance);
        match (after.checked_sub(1).and_then(|before| trail.get(before)), trail.get(after)) {
            (_, None) => Duration::ZERO,
            (None, Some(oldest)) => now.since(oldest.first),
            (Some(before), Some(next)) => {
                // Between the two points instances came evenly, as far as anybody knows.
                let whole = (next.instance.0 - before.instance.0) as f64;
                let part = (instance.0 + 1 - before.instance.0) as f64;
                now.since(before.last + next.first.since(before.last).mul_f64(part / whole))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(3);

    fn at(seconds: f64) -> Time {
        Time::ZERO + Duration::from_secs_f64(seconds)
    }

    fn behind(ages: &Ages, instance: u64, now: f64) -> f64 {
        (ages.behind(GROUP, InstanceId(instance), at(now)).as_secs_f64() * 1e3).round() / 1e3
    }

    #[test]
    fn who_lacks_what_came_just_now_is_not_as_old_as_what_it_has() {
        let mut ages = Ages::default();
        ages.applied(GROUP, InstanceId(10), at(0.0));
        ages.applied(GROUP, InstanceId(10), at(3_600.0));
        ages.applied(GROUP, InstanceId(11), at(3_600.5));
        assert_eq!(behind(&ages, 11, 3_601.0), 0.0);
        assert_eq!(behind(&ages, 10, 3_601.0), 0.5, "it came between the two looks");
    }

    #[test]
    fn between_two_looks_instances_came_evenly() {
        let mut ages = Ages::default();
        for second in 0..10 {
            ages.applied(GROUP, InstanceId(second * 100), at(second as f64));
        }
        assert_eq!(behind(&ages, 849, 9.0), 0.5, "instance 850 came in the middle of second 8");
        assert_eq!(behind(&ages, 99, 9.0), 8.0);
        assert_eq!(behind(&ages, 900, 9.0), 0.0);
        assert_eq!(behind(&ages, 1_000, 9.0), 0.0, "a follower may have applied more than was noted here");
    }

    #[test]
    fn a_long_trail_keeps_its_length_in_time_and_gets_coarser() {
        let mut ages = Ages::default();
        for second in 0..10_000_u64 {
            ages.applied(GROUP, InstanceId(second * 7), at(second as f64));
        }
        assert!(ages.groups[&GROUP].trail.len() <= MAX_POINTS);
        for second in [1_u64, 500, 5_000, 9_000, 9_990] {
            let told = behind(&ages, second * 7, 9_999.0);
            let truth = 9_999.0 - second as f64;
            assert!((told - truth).abs() < 2.0, "at second {second} it is {told} s and should be {truth} s");
        }
        ages.applied(GROUP, InstanceId(5), at(10_000.0));
        assert_eq!(ages.groups[&GROUP].trail.len(), 1, "a state that was given up");
        assert_eq!(behind(&ages, 2, 10_004.0), 4.0, "at least that long");
    }

    #[test]
    fn a_checkpoint_is_as_old_as_its_last_proof() {
        let mut ages = Ages::default();
        assert_eq!(ages.checkpoint(GROUP, at(5.0)), None);
        ages.settled(GROUP, at(5.0));
        ages.settled(GROUP, at(6.0));
        assert_eq!(ages.checkpoint(GROUP, at(10.0)), Some(Duration::from_secs(4)));
        assert_eq!(ages.checkpoint(GroupId(4), at(10.0)), None);
        assert_eq!(ages.behind(GroupId(4), InstanceId(0), at(10.0)), Duration::ZERO);
    }
}
