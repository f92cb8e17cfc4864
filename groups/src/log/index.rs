//! Where the newest record of each instance lies: `(group, instance)` to a place in a segment.
//!
//! Instances come nearly in order and nearly without gaps, so a group keeps runs of consecutive
//! instances, almost always one, at 16 bytes per instance. A jump to a far instance starts a
//! new run and costs nothing for what it jumped over.

use crate::ids::{GroupId, InstanceId};
use crate::log::segment::SegmentSeq;
use foldhash::HashMap;
use std::collections::{BTreeMap, VecDeque};

/// The place of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub segment: SegmentSeq,
    pub offset: u32,
    /// Header, payload and padding, in bytes.
    pub length: u32,
}

#[derive(Default)]
pub(super) struct Index {
    groups: HashMap<GroupId, Runs>,
}

#[derive(Default)]
struct Runs {
    /// Keyed by the first instance of the run. Runs neither overlap nor touch.
    runs: BTreeMap<u64, VecDeque<Position>>,
}

impl Index {
    pub fn insert(&mut self, group: GroupId, instance: InstanceId, position: Position) {
        self.groups.entry(group).or_default().insert(instance.0, position);
    }

    pub fn get(&self, group: GroupId, instance: InstanceId) -> Option<Position> {
        self.groups.get(&group)?.get(instance.0)
    }

    /// The lowest instance of the group that has a record.
    pub fn first(&self, group: GroupId) -> Option<InstanceId> {
        self.groups.get(&group)?.runs.keys().next().map(|&start| InstanceId(start))
    }
}

impl Runs {
    fn get(&self, instance: u64) -> Option<Position> {
        let (start, run) = self.runs.range(..=instance).next_back()?;
        run.get(usize::try_from(instance - start).ok()?).copied()
    }

    fn insert(&mut self, instance: u64, position: Position) {
        if let Some((&start, run)) = self.runs.range_mut(..=instance).next_back() {
            let at = instance - start;
            let length = run.len() as u64;
            if at < length {
                run[at as usize] = position;
                return;
            }
            if at == length {
                run.push_back(position);
                self.join(start, instance);
                return;
            }
        }
        // Not in, nor right behind, the run before it.
        let after = instance.checked_add(1).and_then(|next| self.runs.remove(&next));
        let mut run = after.unwrap_or_default();
        run.push_front(position);
        self.runs.insert(instance, run);
    }

    /// Joins the run at `start`, which now ends with `last`, to one that begins right behind it.
    fn join(&mut self, start: u64, last: u64) {
        let Some(mut right) = last.checked_add(1).and_then(|next| self.runs.remove(&next)) else { return };
        let left = self.runs.entry(start).or_default();
        // The shorter goes into the longer, so that no order of insertions is slow.
        if left.len() >= right.len() {
            left.append(&mut right);
        } else {
            while let Some(position) = left.pop_back() {
                right.push_front(position);
            }
            *left = right;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(offset: u32) -> Position {
        Position { segment: SegmentSeq(1), offset, length: 48 }
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(inserts in prop::collection::vec(0..40u64, 0..120)) {
            let mut index = Index::default();
            let mut model = BTreeMap::new();
            for (n, instance) in inserts.into_iter().enumerate() {
                let at = position(n as u32);
                index.insert(GroupId(1), InstanceId(instance), at);
                model.insert(instance, at);
                for i in 0..42 {
                    prop_assert_eq!(index.get(GroupId(1), InstanceId(i)), model.get(&i).copied());
                }
                prop_assert_eq!(index.first(GroupId(1)), model.keys().next().map(|&i| InstanceId(i)));
                let runs = &index.groups[&GroupId(1)].runs;
                let gaps = model.keys().zip(model.keys().skip(1)).filter(|(a, b)| *b - *a > 1).count();
                prop_assert_eq!(runs.len(), gaps + 1);
            }
        }
    }

    #[test]
    fn the_last_instance_of_all_is_no_overflow() {
        let mut index = Index::default();
        index.insert(GroupId(1), InstanceId(u64::MAX - 1), position(1));
        index.insert(GroupId(1), InstanceId(u64::MAX), position(2));
        index.insert(GroupId(1), InstanceId(0), position(3));
        assert_eq!(index.get(GroupId(1), InstanceId(u64::MAX)), Some(position(2)));
        assert_eq!(index.get(GroupId(1), InstanceId(1)), None);
    }
}
