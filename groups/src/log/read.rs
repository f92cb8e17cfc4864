//! Reading values back, for peers that missed them: beside the thread that writes the log, and
//! without it.

use super::disk::{Disk, DiskFile};
use super::error::{Damage, ReadError};
use super::index::Position;
use super::segment::SegmentSeq;
use super::shelf::{Shared, Volume};
use super::{Log, Record};
use crate::ids::{Ballot, GroupId, InstanceId, NodeId};
use crate::log::record::RECORD_HEADER;
use crate::time::Time;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A value as it was read back.
pub type Found = (InstanceId, Ballot, Bytes);

/// One read returns at most this many values, however small they are.
const MOST: usize = 16_384;

/// Records with at most this much of others between them are read in one go,
const NEAR: u64 = 4 << 10;

/// of at most this many bytes, or one record.
const SPAN: u64 = 512 << 10;

/// The disk is told this much ahead what will be read.
const AHEAD: u32 = 4 << 20;

/// Reads a log that another thread writes. Sees what is synced.
pub struct LogReader<D: Disk> {
    shared: Arc<Shared<D::File>>,
    /// Up to where the disk was told to fetch each segment.
    fetched: BTreeMap<SegmentSeq, u32>,
    /// Values that were read from segments which are written no more.
    sealed: u64,
}

impl<D: Disk> LogReader<D> {
    pub(super) fn new(shared: Arc<Shared<D::File>>) -> LogReader<D> {
        LogReader { shared, fetched: BTreeMap::new(), sealed: 0 }
    }

    /// Values read so far from segments that were written no more.
    #[must_use]
    pub fn sealed_values(&self) -> u64 {
        self.sealed
    }

    /// `to` is being sent the values of `group` from `from` on: [`Log::is_being_sent`] says so
    /// for a few seconds.
    pub fn pin(&self, group: GroupId, to: NodeId, from: InstanceId, now: Time) {
        self.shared.lock().send(group, to, from, now);
    }

    /// The newest synced record of each instance of `from..=to`, without gaps from `from` on, up
    /// to about `max_bytes` of values but at least one. Empty if the log knows nothing about
    /// `from`, and [`ReadError::NotHere`] if that lies before what is left of the group. Whether a
    /// value is chosen is for the caller to know. Checksums are checked again; what lies before a
    /// damaged record is returned, the damage is an error once it comes first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(
        &mut self,
        group: GroupId,
        from: InstanceId,
        to: InstanceId,
        max_bytes: usize,
    ) -> Result<Vec<Found>, ReadError> {
        let (places, volumes) = self.look_up(group, from, to, max_bytes)?;
        self.fetch_ahead(&places, &volumes);
        let mut found = Vec::with_capacity(places.len());
        let mut bytes = 0;
        let mut buffer = Vec::new();
        let mut rest = &places[..];
        while !rest.is_empty() {
            let (span, behind) = rest.split_at(near(rest));
            rest = behind;
            let start = span[0].1.offset;
            let last = span[span.len() - 1].1;
            let volume = &volumes[&last.segment];
            buffer.resize((last.offset - start + last.length) as usize, 0);
            match volume.file.read_at(&mut buffer, u64::from(start)) {
                Ok(()) => {}
                Err(_) if !found.is_empty() => return Ok(found),
                Err(error) => return Err(ReadError::Io(error)),
            }
            for &(instance, position) in span {
                let (ballot, value) = match decode(volume, group, instance, position, &buffer, start) {
                    Ok(value) => value,
                    Err(_) if !found.is_empty() => return Ok(found),
                    Err(damage) => return Err(ReadError::Damaged(damage)),
                };
                bytes += value.len();
                if bytes > max_bytes && !found.is_empty() {
                    return Ok(found);
                }
                found.push((instance, ballot, value));
            }
        }
        Ok(found)
    }

    /// Where the values lie, and the segments that they lie in.
    #[allow(clippy::type_complexity, reason = "two results of one look")]
    fn look_up(
        &mut self,
        group: GroupId,
        from: InstanceId,
        to: InstanceId,
        max_bytes: usize,
    ) -> Result<(Vec<(InstanceId, Position)>, BTreeMap<SegmentSeq, Arc<Volume<D::File>>>), ReadError> {
        let shelf = self.shared.lock();
        if shelf.poisoned {
            return Err(ReadError::Poisoned);
        }
        let (mut places, mut volumes) = (Vec::new(), BTreeMap::new());
        match shelf.index.first(group) {
            Some(first) if from < first => return Err(ReadError::NotHere { first }),
            Some(_) => {}
            None => return Ok((places, volumes)),
        }
        let tail = shelf.volumes.back().map(|volume| volume.seq);
        let mut bytes = 0;
        let mut instance = from;
        while instance <= to && places.len() < MOST {
            let Some(position) = shelf.index.get(group, instance) else { break };
            // Padding is not known here: as much as there may be.
            bytes += (position.length as usize).saturating_sub(RECORD_HEADER + 7);
            if bytes > max_bytes && !places.is_empty() {
                break;
            }
            volumes.entry(position.segment).or_insert_with(|| shelf.volume(position));
            self.sealed += u64::from(Some(position.segment) != tail);
            places.push((instance, position));
            match instance.0.checked_add(1) {
                Some(next) => instance = InstanceId(next),
                None => break,
            }
        }
        Ok((places, volumes))
    }

    /// Tells the disk what will be read next: the groups of a log lie mingled in it, and one
    /// after the other they would fetch it page by page.
    fn fetch_ahead(
        &mut self,
        places: &[(InstanceId, Position)],
        volumes: &BTreeMap<SegmentSeq, Arc<Volume<D::File>>>,
    ) {
        let oldest = self.fetched.first_key_value().map(|(seq, _)| *seq);
        for (seq, volume) in volumes {
            let in_it = || places.iter().filter(|(_, p)| p.segment == *seq).map(|(_, p)| p.offset);
            let (Some(first), Some(last)) = (in_it().min(), in_it().max()) else { continue };
            let fetched = self.fetched.entry(*seq).or_insert(0);
            if last.saturating_add(AHEAD / 2) > *fetched {
                let start = first.max(*fetched);
                let end = last.min(start.saturating_add(AHEAD)).saturating_add(AHEAD);
                volume.file.will_read(u64::from(start), u64::from(end - start));
                *fetched = end;
            }
        }
        while self.fetched.len() > 64
            && let Some(oldest) = oldest
            && self.fetched.remove(&oldest).is_some()
        {}
    }
}

/// How many of the places, from the first on, are read in one go.
fn near(places: &[(InstanceId, Position)]) -> usize {
    let first = places[0].1;
    let mut end = u64::from(first.offset) + u64::from(first.length);
    let joins = |position: &Position| {
        let start = u64::from(position.offset);
        let next = start + u64::from(position.length);
        let near = position.segment == first.segment && start >= end && start - end <= NEAR;
        let joins = near && next - u64::from(first.offset) <= SPAN;
        if joins {
            end = next;
        }
        joins
    };
    1 + places[1..]
        .iter()
        .map(|(_, position)| position)
        .map_while({
            let mut joins = joins;
            move |position| joins(position).then_some(())
        })
        .count()
}

/// The value in `buffer`, which was read from `start` on.
fn decode<F>(
    volume: &Volume<F>,
    group: GroupId,
    instance: InstanceId,
    position: Position,
    buffer: &[u8],
    start: u32,
) -> Result<(Ballot, Bytes), Damage> {
    let at = (position.offset - start) as usize;
    let record = &buffer[at..at + position.length as usize];
    let why = match volume.place.record_at(record, 0, position.offset) {
        Ok(found) => match found.record {
            Record::Accept { group: g, instance: i, ballot, value }
            | Record::Chosen { group: g, instance: i, ballot, value }
                if g == group && i == instance =>
            {
                return Ok((ballot, value));
            }
            _ => "another record than the one that was written",
        },
        Err(bad) => bad.why(),
    };
    Err(Damage {
        file: position.segment.file_name(),
        offset: u64::from(position.offset),
        why: why.into(),
        groups: vec![group],
    })
}

impl<D: Disk> Log<D> {
    /// A reader of this log, for another thread.
    #[must_use]
    pub fn reader(&self) -> LogReader<D> {
        LogReader::new(Arc::clone(&self.shelf))
    }

    /// As [`LogReader::read`].
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(
        &self,
        group: GroupId,
        from: InstanceId,
        to: InstanceId,
        max_bytes: usize,
    ) -> Result<Vec<Found>, ReadError> {
        self.reader().read(group, from, to, max_bytes)
    }
}
