//! What the tests of the log share.
#![allow(dead_code)] // every test file uses a part of it

pub mod member;
pub mod memory;
pub mod tape;

use bytes::Bytes;
use groups::ids::{Ballot, GroupId, InstanceId, NodeId, StorageId};
use groups::log::{Disk, Durability, Log, LogOptions, OpenError, Record, Recovered};

pub const STORAGE: StorageId = StorageId(0x5107_a6e0_0000_0000_0000_0000_0000_0001);
pub const SEGMENT: u64 = 4096;

pub fn options() -> LogOptions {
    LogOptions { segment_size: SEGMENT, storage_id: STORAGE, max_record: 2048, durability: Durability::Fsync }
}

pub fn ballot(round: u64) -> Ballot {
    Ballot { round, node: NodeId(1) }
}

pub fn promise(group: u32, round: u64) -> Record {
    Record::Promise { group: GroupId(group), ballot: ballot(round) }
}

pub fn accept(group: u32, instance: u64, round: u64, value: impl Into<Bytes>) -> Record {
    let (group, instance, ballot) = (GroupId(group), InstanceId(instance), ballot(round));
    Record::Accept { group, instance, ballot, value: value.into() }
}

pub fn chosen(group: u32, instance: u64, round: u64, value: impl Into<Bytes>) -> Record {
    let (group, instance, ballot) = (GroupId(group), InstanceId(instance), ballot(round));
    Record::Chosen { group, instance, ballot, value: value.into() }
}

pub fn watermark(group: u32, instance: u64) -> Record {
    Record::Watermark { group: GroupId(group), first: InstanceId::ZERO, instance: InstanceId(instance) }
}

pub fn anchor(group: u32, instance: u64, round: u64) -> Record {
    let chain = instance.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Record::Anchor {
        group: GroupId(group),
        instance: InstanceId(instance),
        chain,
        ballot: ballot(round),
        members: Bytes::new(),
    }
}

pub struct Opened<D: Disk> {
    pub log: Log<D>,
    pub found: Recovered,
    pub records: Vec<Record>,
}

pub fn try_open<D: Disk>(disk: D, options: LogOptions) -> Result<Opened<D>, OpenError> {
    let mut records = Vec::new();
    let (log, found) = Log::open(disk, options, &mut |record| records.push(record))?;
    assert_eq!(found.records, records.len() as u64);
    Ok(Opened { log, found, records })
}

pub fn open<D: Disk>(disk: D) -> Opened<D> {
    try_open(disk, options()).expect("the log opens")
}

pub fn commit<D: Disk>(log: &mut Log<D>, records: &[Record]) {
    for record in records {
        log.append(record).expect("the record is taken");
    }
    log.commit().expect("the commit succeeds");
}

/// Small random numbers from a seed, so that a failing case can be run again.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        // Marsaglia, "Xorshift RNGs" (2003).
        self.0 = self.0.max(1);
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// A record of any kind; `n` makes it distinguishable.
    pub fn record(&mut self, n: u64) -> Record {
        let group = self.below(3) as u32;
        match self.below(8) {
            0 => promise(group, n),
            1 => watermark(group, n),
            2 => {
                let length = self.below(40) as usize;
                chosen(group, n, 1, self.bytes(length))
            }
            3 => {
                let length = 600 + self.below(900) as usize;
                accept(group, n, 1, self.bytes(length))
            }
            _ => {
                let length = self.below(200) as usize;
                accept(group, n, 1, self.bytes(length))
            }
        }
    }
}
