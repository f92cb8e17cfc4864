//! A node that writes what members of a few groups write: promises that rise, values accepted
//! and learned in instances that go up, watermarks behind them.

use super::{Dice, promise, watermark};
use bytes::Bytes;
use groups::ids::{Ballot, GroupId, InstanceId, NodeId};
use groups::log::Record;
use std::collections::BTreeMap;

/// How many groups the node is a member of.
pub const GROUPS: u32 = 5;

/// What a member has to remember of one group, told by its records alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The promise; it never falls.
    pub promised: Ballot,
    /// The newest record of each instance.
    pub values: BTreeMap<u64, (Ballot, Bytes)>,
    /// The end of the chosen prefix.
    pub chosen: u64,
}

impl Member {
    fn record(&mut self, record: &Record) {
        match record {
            Record::Promise { ballot, .. } => self.promised = self.promised.max(*ballot),
            Record::Accept { instance, ballot, value, .. } => {
                self.promised = self.promised.max(*ballot);
                self.values.insert(instance.0, (*ballot, value.clone()));
            }
            // A learned value leaves the promise alone.
            Record::Chosen { instance, ballot, value, .. } => {
                self.values.insert(instance.0, (*ballot, value.clone()));
                self.chosen = self.chosen.max(instance.0);
            }
            Record::Watermark { instance, .. } => self.chosen = self.chosen.max(instance.0),
            Record::Anchor { instance, ballot, .. } => {
                self.promised = self.promised.max(*ballot);
                self.chosen = self.chosen.max(instance.0);
            }
        }
    }

    fn last(&self) -> u64 {
        self.values.last_key_value().map_or(0, |(instance, _)| *instance)
    }
}

/// All groups of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(pub BTreeMap<u32, Member>);

impl Members {
    /// What a restart knows from the records of the log.
    pub fn of(records: &[Record]) -> Members {
        let mut members = Members::default();
        records.iter().for_each(|record| members.record(record));
        members
    }

    pub fn record(&mut self, record: &Record) {
        self.0.entry(record.group().0).or_default().record(record);
    }

    /// The records of one turn, of several groups as a rule.
    pub fn turn(&mut self, dice: &mut Dice) -> Vec<Record> {
        let count = 1 + dice.below(5);
        (0..count).map(|_| self.one(dice)).collect()
    }

    /// More than a segment of `size` bytes takes, as after a long wait for the disk.
    pub fn flood(&mut self, dice: &mut Dice, size: u64) -> Vec<Record> {
        let mut records = Vec::new();
        while records.iter().map(Record::encoded_len).sum::<usize>() < 2 * size as usize {
            records.push(self.one(dice));
        }
        records
    }

    fn one(&mut self, dice: &mut Dice) -> Record {
        let group = dice.below(u64::from(GROUPS)) as u32;
        let member = self.0.entry(group).or_default();
        let (round, last) = (member.promised.round.max(1), member.last());
        let record = match dice.below(16) {
            0 | 1 => promise(group, round + 1 + dice.below(3)),
            2 | 3 if last > member.chosen => {
                watermark(group, member.chosen + 1 + dice.below(last - member.chosen))
            }
            // A value of an older ballot that a peer says is chosen.
            4 => {
                let ballot = Ballot { round: 1 + dice.below(round), node: NodeId(2) };
                let (instance, value) = (InstanceId(member.chosen + 1), value(dice));
                Record::Chosen { group: GroupId(group), instance, ballot, value }
            }
            // Once more at the promised ballot, which may be another one by now.
            5 | 6 if last > member.chosen => {
                let instance = InstanceId(member.chosen + 1 + dice.below(last - member.chosen));
                let ballot = Ballot { round, node: NodeId(1) };
                Record::Accept { group: GroupId(group), instance, ballot, value: value(dice) }
            }
            _ => {
                let ballot = Ballot { round, node: NodeId(1) };
                let instance = InstanceId(last + 1);
                Record::Accept { group: GroupId(group), instance, ballot, value: value(dice) }
            }
        };
        member.record(&record);
        record
    }
}

fn value(dice: &mut Dice) -> Bytes {
    let length = match dice.below(24) {
        0 => 900 + dice.below(900),
        1..=4 => 200 + dice.below(300),
        _ => dice.below(120),
    };
    dice.bytes(length as usize).into()
}
