//! What a node must still know of its groups when parts of its log are gone.

use bytes::Bytes;
use groups::ids::{Ballot, InstanceId};
use groups::log::{Pin, Record};
use std::collections::BTreeMap;

/// What a group must remember, told by its records in log order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub promised: Ballot,
    pub anchor: Option<(u64, u64)>,
    /// The newest record of each instance beyond the anchor.
    pub values: BTreeMap<u64, (bool, Ballot, Bytes)>,
    /// What is known to be chosen since the anchor; an anchor may take an older word back.
    pub mark: u64,
}

/// All groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memories(pub BTreeMap<u32, Memory>);

impl Memories {
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Memories {
        let mut memories = Memories::default();
        records.into_iter().for_each(|record| memories.record(record));
        memories
    }

    pub fn record(&mut self, record: &Record) {
        let memory = self.0.entry(record.group().0).or_default();
        let beyond = |memory: &Memory, instance: &InstanceId| {
            memory.anchor.is_none_or(|(anchor, _)| instance.0 > anchor)
        };
        match record {
            Record::Promise { ballot, .. } => memory.promised = memory.promised.max(*ballot),
            Record::Accept { instance, ballot, value, .. } => {
                memory.promised = memory.promised.max(*ballot);
                if beyond(memory, instance) {
                    memory.values.insert(instance.0, (true, *ballot, value.clone()));
                }
            }
            Record::Chosen { instance, ballot, value, .. } => {
                if beyond(memory, instance) {
                    memory.values.insert(instance.0, (false, *ballot, value.clone()));
                }
            }
            Record::Watermark { instance, .. } => memory.mark = memory.mark.max(instance.0),
            Record::Anchor { instance, chain, ballot, .. } => {
                memory.promised = memory.promised.max(*ballot);
                if memory.anchor.is_none_or(|(anchor, _)| instance.0 >= anchor) {
                    memory.anchor = Some((instance.0, *chain));
                    memory.values.retain(|&at, _| at > instance.0);
                    memory.mark = instance.0;
                }
            }
        }
    }

    /// `found`, read back from a log that may begin later, is the same memory.
    pub fn check(&self, found: &Memories) -> Result<(), String> {
        for (group, memory) in &self.0 {
            let Some(found) = found.0.get(group) else {
                return Err(format!("group {group} is forgotten: {memory:?}"));
            };
            if memory != found {
                return Err(format!("group {group} had {memory:?} and has {found:?}"));
            }
        }
        if found.0.len() != self.0.len() {
            return Err("a group that nobody wrote".into());
        }
        Ok(())
    }

    /// The records that bring a pinned group forward to this instance.
    pub fn forward(&self, pin: &Pin, to: u64) -> Vec<Record> {
        let memory = &self.0[&pin.group.0];
        assert_eq!(pin.promised, memory.promised);
        let to = memory.anchor.map_or(to, |(anchor, _)| to.max(anchor));
        let ballot = memory.promised;
        let chain = to.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut records = vec![Record::Anchor {
            group: pin.group,
            instance: InstanceId(to),
            chain,
            ballot,
            members: Bytes::new(),
        }];
        let again = memory.values.iter().filter(|(at, _)| (to + 1..=pin.instance.0).contains(at));
        for (&instance, (accepted, ballot, value)) in again {
            let (group, instance, ballot, value) = (pin.group, InstanceId(instance), *ballot, value.clone());
            records.push(if *accepted {
                Record::Accept { group, instance, ballot, value }
            } else {
                Record::Chosen { group, instance, ballot, value }
            });
        }
        records
    }
}
