//! Reading sealed segments again while the log is in use, to find rot before a restart does.
//!
//! A segment with a later one behind it is never written again, so whatever does not hold in it
//! is damage. It can only go: when log GC drops it meanwhile there is nothing to say about it.
//! The segment that is being written is not looked at.

use super::disk::Disk;
use super::error::{Damage, OpenError};
use super::recovery::{read_header, read_manifest, same_storage, walk_sealed};
use super::segment::{MANIFEST, SegmentSeq};
use crate::ids::StorageId;

/// What came of reading a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scrubbed {
    /// Every record holds.
    Sound {
        /// Records in it.
        records: u64,
        /// Bytes that they take.
        bytes: u64,
    },
    /// The log no longer has it.
    Gone,
}

/// The sealed segments of the log in `disk`, the oldest first; none where there is no log.
///
/// # Errors
/// When the manifest is damaged, foreign or cannot be read.
pub fn sealed_segments<D: Disk>(disk: &D, storage: StorageId) -> Result<Vec<SegmentSeq>, OpenError> {
    let Some(manifest) = read_manifest(disk)? else { return Ok(Vec::new()) };
    same_storage(MANIFEST, Some(storage), manifest.storage)?;
    Ok((manifest.first.0..manifest.last.0).map(SegmentSeq).collect())
}

/// Reads one sealed segment and checks every byte that stands for something. `pace` is told of
/// every record how many bytes it takes, and may take its time.
///
/// # Errors
/// [`OpenError::Damaged`] names the file, the offset and the groups concerned; anything else says
/// that it could not be read, and nothing about what is in it.
pub fn scrub_segment<D: Disk>(
    disk: &D,
    storage: StorageId,
    seq: SegmentSeq,
    pace: &mut dyn FnMut(u64),
) -> Result<Scrubbed, OpenError> {
    let found = read_sealed(disk, storage, seq, pace);
    match found {
        Ok(sound) => Ok(sound),
        // Whoever drops a segment changes the manifest first, then removes the file.
        Err(_) if read_manifest(disk)?.is_none_or(|manifest| seq < manifest.first) => Ok(Scrubbed::Gone),
        Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(Damage::whole(&seq.file_name(), "the segment is missing").into())
        }
        Err(error) => Err(error),
    }
}

fn read_sealed<D: Disk>(
    disk: &D,
    storage: StorageId,
    seq: SegmentSeq,
    pace: &mut dyn FnMut(u64),
) -> Result<Scrubbed, OpenError> {
    let header = read_header(disk, seq)?;
    same_storage(&seq.file_name(), Some(storage), header.storage)?;
    let later = read_header(disk, SegmentSeq(seq.0 + 1))?;
    let (mut records, mut bytes) = (0, 0);
    walk_sealed(disk, &header, &later, &mut |at, _| {
        records += 1;
        bytes += u64::from(at.length);
        pace(u64::from(at.length));
    })?;
    Ok(Scrubbed::Sound { records, bytes })
}
