//! Reading values back, for peers that missed them.

use super::disk::{Disk, DiskFile};
use super::error::{Damage, ReadError};
use super::index::Position;
use super::{Log, Record};
use crate::ids::{Ballot, GroupId, InstanceId};
use bytes::Bytes;

impl<D: Disk> Log<D> {
    /// The newest synced record of each instance of `from..=to`, without gaps from `from` on, up
    /// to about `max_bytes` of values but at least one. Empty if the log knows nothing about
    /// `from`, and [`ReadError::NotHere`] if that lies before what is left of the group. Whether a value is chosen is for the caller to know. Checksums are checked again.
    pub fn read(
        &self,
        group: GroupId,
        from: InstanceId,
        to: InstanceId,
        max_bytes: usize,
    ) -> Result<Vec<(InstanceId, Ballot, Bytes)>, ReadError> {
        if self.poisoned {
            return Err(ReadError::Poisoned);
        }
        match self.index.first(group) {
            Some(first) if from < first => return Err(ReadError::NotHere { first }),
            Some(_) => {}
            None => return Ok(Vec::new()),
        }
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut instance = from;
        while instance <= to {
            let Some(position) = self.index.get(group, instance) else { break };
            let (ballot, value) = self.read_one(group, instance, position)?;
            bytes += value.len();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push((instance, ballot, value));
            match instance.0.checked_add(1) {
                Some(next) => instance = InstanceId(next),
                None => break,
            }
        }
        Ok(found)
    }

    fn read_one(
        &self,
        group: GroupId,
        instance: InstanceId,
        position: Position,
    ) -> Result<(Ballot, Bytes), ReadError> {
        let nth = position.segment.0 - self.segments[0].seq.0;
        let segment = &self.segments[nth as usize];
        let mut bytes = vec![0; position.length as usize];
        segment.file.read_at(&mut bytes, u64::from(position.offset)).map_err(ReadError::Io)?;
        let why = match segment.place.record_at(&bytes, 0, position.offset) {
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
        Err(ReadError::Damaged(Damage {
            file: position.segment.file_name(),
            offset: u64::from(position.offset),
            why: why.into(),
            groups: vec![group],
        }))
    }
}
