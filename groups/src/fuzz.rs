//! Entry points for the fuzz targets: pure functions from bytes to nothing, which panic if a
//! promise of a decoder or of the log is broken.
//!
//! Checksums keep random bytes out of everything behind them. So besides the bytes as they are,
//! the drivers build something valid, change it where the input says so, and write the checksums
//! anew: what a decoder then refuses, it refuses for what it says.

use bytes::Bytes;

use crate::ids::{Ballot, GroupId, InstanceId, NodeId, StorageId};
use crate::kv::value::{Batch, COMMAND_HEAD, Value};
use crate::kv::{Command, Outcome, State, Sum};
use crate::log::record::RECORD_HEADER;
use crate::log::segment::{COMMIT_ALIGN, MANIFEST, SEGMENT_HEADER};
use crate::log::{
    At, DiskImage, Durability, Log, LogOptions, OpenError, Pin, Record, Recovered, SegmentSeq, SimDisk,
    inspect,
};
use crate::paxos::Message;
use crate::paxos::codec::{self, ENTRY_HEAD};
use crate::paxos::message::Entry;

/// The bytes of a fuzzer, read as decisions. At its end there are only zeros.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Up to `n` bytes.
    pub fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// A number below `bound`, which is small.
    pub fn below(&mut self, bound: usize) -> usize {
        let two = usize::from(self.u8()) << 8 | usize::from(self.u8());
        two % bound.max(1)
    }

    /// A number that is likely to hurt.
    pub fn number(&mut self) -> u64 {
        match self.u8() {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX - 1,
            3 => u64::from(u32::MAX),
            4 => 1 << 32,
            5 => i64::MAX as u64,
            6 => 1 << 31,
            7 => {
                let mut raw = [0; 8];
                let bytes = self.bytes(8);
                raw[..bytes.len()].copy_from_slice(bytes);
                u64::from_le_bytes(raw)
            }
            n => u64::from(n),
        }
    }
}

/// A Paxos message: the first byte is the kind of the frame, the rest its body.
///
/// # Panics
/// If a body that is taken for a message is not what that message is written as, or more is held
/// than the body has room for.
pub fn paxos_message(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.u8();
    let body = Bytes::copy_from_slice(input.rest());
    let Ok(message) = codec::decode(kind, body.clone()) else { return };
    let entries: &[Entry] = match &message {
        Message::Promise(m) => &m.entries,
        Message::Values(m) => &m.entries,
        _ => &[],
    };
    assert!(entries.len() * ENTRY_HEAD <= body.len(), "more entries than the body has room for");
    let mut written = Vec::new();
    let (written_kind, payload) = codec::encode(&message, &mut written);
    written.extend_from_slice(&payload);
    assert_eq!((written_kind, &written[..]), (kind, &body[..]), "{message:?} has other bytes");
}

/// A command. Its bytes are canonical.
///
/// # Panics
/// If what was decoded is written as anything else.
pub fn command(data: &[u8]) {
    if let Ok(command) = Command::decode(Bytes::copy_from_slice(data)) {
        assert_eq!(command.to_bytes(), data, "{command:?} has other bytes");
    }
}

/// An outcome. Its bytes are canonical.
///
/// # Panics
/// If what was decoded is written as anything else.
pub fn outcome(data: &[u8]) {
    if let Some(outcome) = Outcome::decode(Bytes::copy_from_slice(data)) {
        let mut written = Vec::new();
        outcome.encode(&mut written);
        assert_eq!(written, data, "{outcome:?} has other bytes");
    }
}

/// A chosen value, and what two states make of it.
///
/// # Panics
/// If a good batch is not what [`Batch`] writes, a bad one goes on after its end, or the two
/// states differ.
pub fn value(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Ok(value) = Value::decode(bytes.clone()) else { return };
    if let Value::Batch(commands) = value {
        let mut batch = Batch::stamped(commands.clock(), 0);
        let mut good = true;
        let mut items = 0;
        for item in commands {
            assert!(good, "a batch goes on behind its error");
            items += 1;
            match item {
                Ok((ticket, command)) => batch.push(ticket, &command),
                Err(_) => good = false,
            }
        }
        assert!(items <= data.len() / COMMAND_HEAD + 1, "{items} commands in {} bytes", data.len());
        assert!(!good || batch.finish() == bytes, "a batch has other bytes");
    }
    assert_eq!(applied(&bytes), applied(&bytes), "one value, two states");
}

/// The outcomes and the sum of the state after a value was applied twice in a row. The state is the same behind a
/// checkpoint.
fn applied(value: &Bytes) -> (Vec<(u64, Outcome)>, Sum, bool) {
    let mut state = State::default();
    let mut outcomes = Vec::new();
    let mut good = true;
    for instance in 1..=2 {
        let mut answer = |ticket: crate::kv::Ticket, outcome| outcomes.push((ticket.number, outcome));
        good = good && state.apply(InstanceId(instance), value.clone(), &mut answer).is_ok();
    }
    // One that was not applied as a whole is no state that a checkpoint is made of.
    let sum = state.sum();
    if good {
        let restored = state.image(0).into_state().expect("its own image");
        assert_eq!(restored.sum(), sum, "a checkpoint has lost something");
    }
    (outcomes, sum, good)
}

const STORAGE: StorageId = StorageId(0x5107_a6e0_0000_0000_0000_0000_0000_0001);
const SEGMENT: u64 = 4096;

fn options() -> LogOptions {
    LogOptions { segment_size: SEGMENT, storage_id: STORAGE, max_record: 2048, durability: Durability::Fsync }
}

/// A log as the real one writes it.
struct Built {
    image: DiskImage,
    /// The records of each commit.
    commits: Vec<Vec<Record>>,
    /// Where they are.
    places: Vec<At>,
}

/// Writes up to a dozen commits over a few segments, and drops some of them.
fn build(input: &mut Input) -> Built {
    let disk = SimDisk::new(1);
    let (mut log, _) = Log::open(disk.clone(), options(), &mut |_| {}).expect("an empty disk");
    let mut commits = Vec::new();
    for _ in 0..input.u8() % 13 {
        let records: Vec<Record> = (0..input.u8() % 4).map(|_| record(input)).collect();
        for record in &records {
            log.append(record).expect("a small record");
        }
        if records.is_empty() {
            log.seal().expect("a disk without faults");
        } else {
            log.commit().expect("a disk without faults");
            commits.push(records);
        }
    }
    for _ in 0..input.u8() % 3 {
        let Some(pinned) = log.pins(usize::MAX) else { break };
        let anchors: Vec<Record> = pinned.groups.iter().map(anchor).collect();
        for anchor in &anchors {
            log.append(anchor).expect("a small record");
        }
        log.commit().expect("a disk without faults");
        assert!(log.drop_oldest().expect("a disk without faults"), "anchors do not lift the pins");
    }
    drop(log);
    disk.kill();
    let image = disk.image();
    let (mut places, mut left) = (Vec::<At>::new(), Vec::<Vec<Record>>::new());
    let mut visit = |at: At, record| {
        if places.last().is_none_or(|last| last.commit != at.commit) {
            left.push(Vec::new());
        }
        left.last_mut().expect("pushed").push(record);
        places.push(at);
    };
    let found = inspect(&disk.clone(), None, &mut visit).expect("a log that was just written");
    let whole = found.commits == found.last_commit.0;
    assert!(
        !whole || left.concat().starts_with(&commits.concat()),
        "a log has other records than were written"
    );
    Built { image, commits: left, places }
}

/// What brings a group forward, whatever it has.
fn anchor(pin: &Pin) -> Record {
    let members = Bytes::new();
    Record::Anchor { group: pin.group, instance: pin.instance, chain: 0, ballot: pin.promised, members }
}

fn record(input: &mut Input) -> Record {
    let kind = input.u8();
    let group = GroupId(u32::from(input.u8() % 4));
    let instance = InstanceId(input.number());
    let ballot = Ballot { round: input.number(), node: NodeId(u32::from(kind)) };
    // Three of them and their header fit a segment, so a commit is never divided.
    let value = || Bytes::from(vec![kind; usize::from(kind) * 4]);
    match kind % 5 {
        0 => Record::Promise { group, ballot },
        1 => Record::Accept { group, instance, ballot, value: value() },
        2 => Record::Chosen { group, instance, ballot, value: value() },
        3 => Record::Watermark { group, first: InstanceId(ballot.round), instance },
        _ => {
            let members = Bytes::copy_from_slice(&[7; 64][..input.number() as usize % 65]);
            Record::Anchor { group, instance, chain: input.number(), ballot, members }
        }
    }
}

fn disk_of(image: &DiskImage) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.restore(image);
    disk.clone()
}

type Opened = Result<(Log<SimDisk>, Recovered), OpenError>;

fn open(disk: &SimDisk) -> (Opened, Vec<Record>) {
    let mut records = Vec::new();
    let opened = Log::open(disk.clone(), options(), &mut |record| records.push(record));
    (opened, records)
}

/// Opens whatever is on the disk and checks what [`Log::open`] promises for any bytes.
fn open_any(image: &DiskImage) {
    let disk = disk_of(image);
    let mut seen = Vec::new();
    let inspected = inspect(&disk, Some(STORAGE), &mut |_, record| seen.push(record));
    assert_eq!(disk.image(), *image, "to inspect a log changes it");

    let (opened, records) = open(&disk);
    assert_eq!(records, seen, "opened and inspected, a log has different records");
    let total: usize = image.files().values().map(Vec::len).sum();
    let held: usize = records.iter().map(Record::encoded_len).sum();
    assert!(held <= total, "{held} bytes of records in files of {total} bytes");
    let (mut log, found) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            assert!(inspected.is_err(), "a log can be inspected and not opened: {error}");
            assert_eq!(disk.image(), *image, "a log was refused and changed all the same: {error}");
            return;
        }
    };
    assert_eq!(inspected.expect("what can be opened can be inspected"), found);
    assert_eq!(found.records, records.len() as u64);

    let one_more = Record::Promise { group: GroupId(9), ballot: Ballot { round: 9, node: NodeId(9) } };
    log.append(&one_more).expect("an open log takes a record");
    log.commit().expect("an open log commits");
    drop(log);
    let (again, all) = open(&disk);
    let (_, found) = again.expect("a log that was repaired opens");
    assert_eq!(found.torn, None, "a torn tail was not repaired");
    assert_eq!((&all[..records.len()], &all[records.len()..]), (&records[..], &[one_more][..]));
}

/// Any bytes as the only segment of a log, behind a good header; then a good log that is changed
/// anywhere, its checksums written anew where the input says so.
///
/// # Panics
/// If opening breaks a promise of [`Log::open`], or opens more than was there.
pub fn log_image(data: &[u8]) {
    let mut input = Input(data);
    if input.u8().is_multiple_of(4) {
        let disk = SimDisk::new(1);
        drop(Log::open(disk.clone(), options(), &mut |_| {}).expect("an empty disk"));
        let mut image = disk.image();
        if input.u8().is_multiple_of(2) {
            image.files_mut().remove(MANIFEST);
        }
        let segment = image.files_mut().get_mut(&SegmentSeq(1).file_name()).expect("the first segment");
        let room = &mut segment[SEGMENT_HEADER..];
        let bytes = input.bytes(room.len());
        room[..bytes.len()].copy_from_slice(bytes);
        return open_any(&image);
    }
    let mut built = build(&mut input);
    for _ in 0..8 {
        if input.is_empty() {
            break;
        }
        change(&mut built, &mut input);
    }
    open_any(&built.image);
}

/// The fields of a record header behind its checksum: where and how long.
const RECORD_FIELDS: [(usize, usize); 9] =
    [(4, 4), (8, 4), (12, 1), (13, 1), (16, 4), (20, 4), (24, 8), (32, 8), (40, 8)];

/// The fields of a segment header or manifest in front of its checksum.
const BLOCK_FIELDS: [(usize, usize); 5] = [(8, 4), (16, 8), (32, 8), (40, 8), (48, 8)];

fn change(built: &mut Built, input: &mut Input) {
    let names: Vec<String> = built.image.files().keys().cloned().collect();
    let what = input.u8() % 8;
    let Some(name) = names.get(input.below(names.len())) else { return };
    let files = built.image.files_mut();
    match what {
        0 => {
            if let Some(bytes) = files.get_mut(name)
                && !bytes.is_empty()
            {
                let at = input.below(bytes.len());
                bytes[at] ^= input.u8();
            }
        }
        1 => {
            let length = input.below(3 * SEGMENT as usize);
            if let Some(bytes) = files.get_mut(name) {
                bytes.resize(length, 0);
            }
        }
        2 => {
            files.remove(name);
        }
        3 => {
            let copy = files[name].clone();
            files.insert(SegmentSeq(input.number()).file_name(), copy);
        }
        4 | 5 => {
            let (at, length) = BLOCK_FIELDS[input.below(BLOCK_FIELDS.len())];
            let number = input.number();
            forge_block(files.get_mut(name).expect("its name was listed"), at, length, number);
        }
        _ => forge_record(built, input),
    }
}

/// Changes a field of a segment header or manifest and writes the checksum anew.
fn forge_block(bytes: &mut [u8], at: usize, length: usize, number: u64) {
    if let Some(block) = bytes.first_chunk_mut::<64>() {
        block[at..at + length].copy_from_slice(&number.to_le_bytes()[..length]);
        let crc = crc32fast::hash(&block[..60]);
        block[60..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Changes a field of a record or commit header, and writes the checksums of that commit anew.
fn forge_record(built: &mut Built, input: &mut Input) {
    if built.places.is_empty() {
        return;
    }
    let chosen = built.places[input.below(built.places.len())];
    let of_commit: Vec<At> = built.places.iter().filter(|at| at.commit == chosen.commit).copied().collect();
    let Some(bytes) = built.image.files_mut().get_mut(&chosen.segment.file_name()) else { return };
    let start = of_commit[0].offset as usize - RECORD_HEADER;
    let header = if input.u8().is_multiple_of(2) { start } else { chosen.offset as usize };
    let (at, length) = RECORD_FIELDS[input.below(RECORD_FIELDS.len())];
    let number = input.number().to_le_bytes();
    let Some(field) = bytes.get_mut(header + at..header + at + length) else { return };
    field.copy_from_slice(&number[..length]);

    let mut crcs = crc32fast::Hasher::new();
    for record in &of_commit {
        let offset = record.offset as usize;
        let payload_length = bytes
            .get(offset + 8..offset + 12)
            .map_or(0, |raw| u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]) as usize);
        let payload = offset + RECORD_HEADER..(offset + RECORD_HEADER).saturating_add(payload_length);
        if payload_length > 0
            && let Some(crc) = bytes.get(payload).map(crc32fast::hash)
        {
            bytes[offset + 4..offset + 8].copy_from_slice(&crc.to_le_bytes());
        }
        stamp(bytes, chosen.segment, offset);
        crcs.update(bytes.get(offset..offset + 4).unwrap_or_default());
    }
    if at != 4 || header != start {
        let crc = crcs.finalize().to_le_bytes();
        if let Some(field) = bytes.get_mut(start + 4..start + 8) {
            field.copy_from_slice(&crc);
        }
    }
    stamp(bytes, chosen.segment, start);
}

/// Writes the checksum of the header at `offset`, as `log/record.rs` draws it.
fn stamp(bytes: &mut [u8], segment: SegmentSeq, offset: usize) {
    let Some(header) = bytes.get_mut(offset..offset + RECORD_HEADER) else { return };
    let mut crc = crc32fast::Hasher::new();
    crc.update(&STORAGE.0.to_le_bytes());
    crc.update(&segment.0.to_le_bytes());
    crc.update(&(offset as u32).to_le_bytes());
    crc.update(&header[4..]);
    header[..4].copy_from_slice(&crc.finalize().to_le_bytes());
}

/// A good log with damage in one sector of one segment: whatever it does there, either the log is
/// refused, or it opens with all commits but perhaps the last one.
///
/// # Panics
/// If anything else comes back, or the log is not refused although a commit was lost that a later
/// one proves.
pub fn log_damage(data: &[u8]) {
    let mut input = Input(data);
    let mut built = build(&mut input);
    let names: Vec<String> = built
        .image
        .files()
        .keys()
        .filter(|name| SegmentSeq::from_file_name(name).is_some())
        .cloned()
        .collect();
    let name = &names[input.below(names.len())];
    let bytes = built.image.files_mut().get_mut(name).expect("its name was listed");
    let at = input.below(bytes.len());
    let sector_end = (at / COMMIT_ALIGN + 1) * COMMIT_ALIGN;
    for byte in &mut bytes[at..sector_end.min(at + 32)] {
        *byte ^= input.u8();
    }
    open_any(&built.image);
    let (opened, records) = open(&disk_of(&built.image));
    if opened.is_ok() {
        let all = built.commits.concat();
        let but_last = built.commits.split_last().map_or(0, |(_, before)| before.iter().map(Vec::len).sum());
        assert!(
            records == all || records == all[..but_last],
            "{} records of {} survived damage at {at} of {name}",
            records.len(),
            all.len()
        );
    }
}
