//! What the log knows of each group without reading: where the newest record of each instance
//! lies, and which segment still holds something that no later one says.
//!
//! Instances come nearly in order and nearly without gaps, so a group keeps runs of consecutive
//! instances, almost always one, at 16 bytes per instance. A jump to a far instance starts a
//! new run and costs nothing for what it jumped over.
//!
//! What is no value (promise, chosen prefix, anchor) is one number that only rises. The index
//! keeps each with the newest segment that says so; every older segment says nothing more.

use crate::ids::{Ballot, GroupId, InstanceId};
use crate::log::record::Record;
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

/// What the index takes from a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    group: GroupId,
    says: Says,
}

#[derive(Clone, Copy, Debug)]
enum Says {
    Promise(Ballot),
    Accept(InstanceId, Ballot),
    Chosen(InstanceId),
    Watermark(InstanceId),
    Anchor(InstanceId, Ballot),
}

impl Note {
    pub fn of(record: &Record) -> Note {
        let says = match record {
            Record::Promise { ballot, .. } => Says::Promise(*ballot),
            Record::Accept { instance, ballot, .. } => Says::Accept(*instance, *ballot),
            Record::Chosen { instance, .. } => Says::Chosen(*instance),
            Record::Watermark { instance, .. } => Says::Watermark(*instance),
            Record::Anchor { instance, ballot, .. } => Says::Anchor(*instance, *ballot),
        };
        Note { group: record.group(), says }
    }
}

/// A group that still needs a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The group.
    pub group: GroupId,
    /// An anchor of at least this instance lifts the pin. So does a lower one, if the values
    /// between it and this instance that lie in the segment are appended again; but nothing
    /// below the newest anchor of the group is an anchor at all.
    pub instance: InstanceId,
    /// The highest promise of the group in the log, accepts included. An anchor below it does
    /// not lift the pin.
    pub promised: Ballot,
}

#[derive(Default)]
pub(super) struct Index {
    groups: HashMap<GroupId, Group>,
    /// What lies in each segment that has records, oldest first.
    contents: VecDeque<Contents>,
}

struct Contents {
    segment: SegmentSeq,
    /// Each group that has a record in it, with the highest instance that it has a value of.
    groups: Vec<(GroupId, Option<InstanceId>)>,
}

#[derive(Default)]
struct Group {
    runs: Runs,
    promise: Newest<Ballot>,
    mark: Newest<InstanceId>,
    anchor: Newest<InstanceId>,
    /// The newest segment that has a record of the group, and the place of the group in its
    /// contents.
    last: SegmentSeq,
    slot: usize,
}

/// A number that only rises, and the newest segment that says so; zero for none, since the first
/// segment is 1.
#[derive(Default)]
struct Newest<T> {
    value: T,
    segment: SegmentSeq,
}

impl<T: Ord> Newest<T> {
    fn say(&mut self, value: T, segment: SegmentSeq) -> bool {
        let counts = value >= self.value;
        if counts {
            *self = Newest { value, segment };
        }
        counts
    }
}

#[derive(Default)]
struct Runs {
    /// Keyed by the first instance of the run. Runs neither overlap nor touch.
    runs: BTreeMap<u64, VecDeque<Position>>,
}

impl Index {
    /// Takes in the next record of the log.
    pub fn note(&mut self, note: &Note, position: Position) {
        let Note { group: id, says } = *note;
        let segment = position.segment;
        let group = self.groups.entry(id).or_default();
        if self.contents.back().is_none_or(|contents| contents.segment != segment) {
            self.contents.push_back(Contents { segment, groups: Vec::new() });
        }
        let contents = self.contents.back_mut().expect("pushed if there was none");
        if group.last != segment {
            (group.last, group.slot) = (segment, contents.groups.len());
            contents.groups.push((id, None));
        }
        if let Says::Accept(instance, _) | Says::Chosen(instance) = says {
            group.runs.insert(instance.0, position);
            let last = &mut contents.groups[group.slot].1;
            *last = (*last).max(Some(instance));
        }
        match says {
            Says::Promise(ballot) | Says::Accept(_, ballot) => {
                group.promise.say(ballot, segment);
            }
            Says::Chosen(_) => {}
            Says::Watermark(instance) => {
                group.mark.say(instance, segment);
            }
            Says::Anchor(instance, ballot) => {
                group.promise.say(ballot, segment);
                if group.anchor.say(instance, segment) {
                    group.mark = Newest { value: group.mark.value.max(instance), segment };
                }
            }
        }
    }

    pub fn get(&self, group: GroupId, instance: InstanceId) -> Option<Position> {
        self.groups.get(&group)?.runs.get(instance.0)
    }

    /// Where the values of the group begin: behind this there is no hole up to the anchor.
    /// `None` if it has neither values nor an anchor.
    pub fn first(&self, group: GroupId) -> Option<InstanceId> {
        self.groups.get(&group)?.first()
    }

    /// The groups that need a segment that nothing older is left of, `most` at most.
    pub fn pins(&self, oldest: SegmentSeq, most: usize) -> Vec<Pin> {
        let Some(contents) = self.contents.front().filter(|contents| contents.segment == oldest) else {
            return Vec::new();
        };
        let pin = |&(id, last): &(GroupId, Option<InstanceId>)| {
            let group = &self.groups[&id];
            let instance = group.needs(oldest, last)?;
            Some(Pin { group: id, instance, promised: group.promise.value })
        };
        contents.groups.iter().filter_map(pin).take(most).collect()
    }

    /// Whether the newest record of an instance from `from` on lies in a segment that nothing
    /// older is left of.
    pub fn lies_in_oldest(&self, group: GroupId, oldest: SegmentSeq, from: InstanceId) -> bool {
        let Some(contents) = self.contents.front().filter(|contents| contents.segment == oldest) else {
            return false;
        };
        let last = contents.groups.iter().find(|(id, _)| *id == group).and_then(|(_, last)| *last);
        match (last, self.groups.get(&group)) {
            (Some(last), Some(group)) => group.runs.last_in(oldest, from.0, last.0).is_some(),
            _ => false,
        }
    }

    /// Forgets the positions in a segment that nothing older is left of and nobody needs.
    pub fn forget(&mut self, oldest: SegmentSeq) {
        let Some(contents) = self.contents.pop_front_if(|contents| contents.segment == oldest) else {
            return;
        };
        for (id, last) in contents.groups {
            let (Some(group), Some(last)) = (self.groups.get_mut(&id), last) else { continue };
            // Nobody needs the segment, so what lies in it is anchored; values beyond the anchor
            // that once lay in it have newer records.
            if let Some(anchor) = group.anchored() {
                group.runs.forget(oldest, last.min(anchor).0);
            }
        }
    }
}

impl Group {
    fn anchored(&self) -> Option<InstanceId> {
        (self.anchor.segment != SegmentSeq(0)).then_some(self.anchor.value)
    }

    fn first(&self) -> Option<InstanceId> {
        let Some(anchor) = self.anchored() else {
            return self.runs.runs.keys().next().map(|&start| InstanceId(start));
        };
        let whole = self.runs.run_at(anchor.0).or_else(|| Some(anchor.0.saturating_add(1)));
        whole.map(InstanceId)
    }

    /// Up to where an anchor must reach for the group to need the segment no longer; `None` if
    /// it does not need it.
    fn needs(&self, oldest: SegmentSeq, last: Option<InstanceId>) -> Option<InstanceId> {
        let low = match self.anchored() {
            // Behind the last instance of all there is none.
            Some(anchor) => anchor.0.checked_add(1),
            None => Some(0),
        };
        if let (Some(low), Some(last)) = (low, last)
            && let Some(instance) = self.runs.last_in(oldest, low, last.0)
        {
            return Some(InstanceId(instance));
        }
        let said = [self.promise.segment, self.mark.segment, self.anchor.segment];
        said.contains(&oldest).then_some(self.anchor.value)
    }
}

impl Runs {
    fn get(&self, instance: u64) -> Option<Position> {
        let (start, run) = self.runs.range(..=instance).next_back()?;
        run.get(usize::try_from(instance - start).ok()?).copied()
    }

    /// The start of the run that holds this instance.
    fn run_at(&self, instance: u64) -> Option<u64> {
        let (start, run) = self.runs.range(..=instance).next_back()?;
        (instance - start < run.len() as u64).then_some(*start)
    }

    /// The highest instance of `low..=high` whose newest record lies in the segment. Found at
    /// once, unless that instance was written again later.
    fn last_in(&self, segment: SegmentSeq, low: u64, high: u64) -> Option<u64> {
        for (&start, run) in self.runs.range(..=high).rev() {
            let last = start + (run.len() as u64 - 1);
            if last < low {
                return None;
            }
            let (from, to) = (low.saturating_sub(start), high.min(last) - start);
            for at in (from..=to).rev() {
                if run[at as usize].segment == segment {
                    return Some(start + at);
                }
            }
        }
        None
    }

    /// Forgets the positions in a segment of instances up to and including this one.
    fn forget(&mut self, segment: SegmentSeq, through: u64) {
        // Few as a rule: those that were written again later.
        let mut kept = Vec::new();
        while let Some(mut first) = self.runs.first_entry().filter(|first| *first.key() <= through) {
            let start = *first.key();
            let run = first.get_mut();
            let count = (through - start).saturating_add(1).min(run.len() as u64);
            let gone = (start..=u64::MAX).zip(run.drain(..count as usize));
            kept.extend(gone.filter(|(_, position)| position.segment != segment));
            if run.len() < run.capacity() / 4 {
                run.shrink_to(run.len() * 2);
            }
            let run = first.remove();
            if !run.is_empty() {
                self.runs.insert(start + count, run);
            }
        }
        for (instance, position) in kept {
            self.insert(instance, position);
        }
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

    fn insert(index: &mut Index, instance: u64, position: Position) {
        let note = Note { group: GroupId(1), says: Says::Chosen(InstanceId(instance)) };
        index.note(&note, position);
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(inserts in prop::collection::vec(0..40u64, 0..120)) {
            let mut index = Index::default();
            let mut model = BTreeMap::new();
            for (n, instance) in inserts.into_iter().enumerate() {
                let at = position(n as u32);
                insert(&mut index, instance, at);
                model.insert(instance, at);
                for i in 0..42 {
                    prop_assert_eq!(index.get(GroupId(1), InstanceId(i)), model.get(&i).copied());
                }
                prop_assert_eq!(index.first(GroupId(1)), model.keys().next().map(|&i| InstanceId(i)));
                let runs = &index.groups[&GroupId(1)].runs.runs;
                let gaps = model.keys().zip(model.keys().skip(1)).filter(|(a, b)| *b - *a > 1).count();
                prop_assert_eq!(runs.len(), gaps + 1);
            }
        }
    }

    #[test]
    fn the_last_instance_of_all_is_no_overflow() {
        let mut index = Index::default();
        insert(&mut index, u64::MAX - 1, position(1));
        insert(&mut index, u64::MAX, position(2));
        insert(&mut index, 0, position(3));
        assert_eq!(index.get(GroupId(1), InstanceId(u64::MAX)), Some(position(2)));
        assert_eq!(index.get(GroupId(1), InstanceId(1)), None);
    }
}
