//! From one segment to the next, without a commit that waits for it if that can be helped.

use super::disk::Disk;
use super::error::{CommitError, is_full};
use super::segment::{MANIFEST, Manifest, SEGMENT_HEADER, SPARE, SegmentHeader, SegmentSeq};
use super::{DiskFile, Log, Segment, Spare, access};
use crate::ids::CommitId;
use std::io;

impl<D: Disk> Log<D> {
    /// Has the next segment made while there is still room in this one. Failure is no news
    /// before the segment is needed: by then there may be space again.
    pub(super) fn prepare_ahead(&mut self) {
        match self.spare {
            Spare::None if self.end > self.tail().size / 4 && self.arrived.is_none() => {
                if self.disk.start_prepare(SPARE, self.options.segment_size).is_ok() {
                    self.spare = Spare::Preparing;
                }
            }
            Spare::Preparing => match self.disk.poll_prepared() {
                None => {}
                Some(Ok(())) => self.spare = Spare::Ready,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the next log segment could not be prepared");
                    self.spare = Spare::None;
                }
            },
            Spare::None | Spare::Ready => {}
        }
    }

    /// Moves on to the next segment. When there is no space it can be called again.
    pub(super) fn rotate(&mut self) -> Result<(), CommitError> {
        let next = SegmentSeq(self.tail().seq.0 + 1);
        let segment = match self.arrived.take() {
            Some(segment) => segment,
            None => {
                self.await_spare()?;
                let header = SegmentHeader {
                    storage: self.options.storage_id,
                    seq: next,
                    first_commit: CommitId(self.last_commit.0 + 1),
                    size: self.options.segment_size,
                };
                self.spare = Spare::None;
                self.install_spare(&header).map_err(|error| self.poison("begin a segment", error))?
            }
        };
        if let Err(error) = self.write_manifest(self.segments[0].seq, next) {
            self.arrived = Some(segment);
            return Err(if is_full(&error) {
                CommitError::NoSpace
            } else {
                self.poison("write the manifest", error)
            });
        }
        self.push(segment).map_err(|error| self.poison("open a segment", error))?;
        self.end = SEGMENT_HEADER as u64;
        Ok(())
    }

    fn await_spare(&mut self) -> Result<(), CommitError> {
        if self.spare == Spare::Ready {
            return Ok(());
        }
        self.stats.waits_for_segment += 1;
        let mut outcome = Ok(());
        if self.spare == Spare::None {
            outcome = self.disk.start_prepare(SPARE, self.options.segment_size);
        }
        self.spare = Spare::None;
        match outcome.and_then(|()| self.disk.wait_prepared()) {
            Ok(()) => {
                self.spare = Spare::Ready;
                Ok(())
            }
            Err(error) if is_full(&error) => Err(CommitError::NoSpace),
            Err(error) => Err(self.poison("prepare a segment", error)),
        }
    }

    /// Gives the prepared file its header and its name. The header is synced before the name is
    /// given, so a file with the name of a segment always has one.
    pub(super) fn install_spare(&mut self, header: &SegmentHeader) -> io::Result<Segment<D::File>> {
        let mut file = self.disk.open(SPARE, access(self.options.durability))?;
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        self.disk.rename(SPARE, &header.seq.file_name())?;
        self.disk.sync_dir()?;
        Ok(Segment::new(header, file))
    }

    pub(super) fn write_manifest(&self, first: SegmentSeq, last: SegmentSeq) -> io::Result<()> {
        let manifest = Manifest { storage: self.options.storage_id, first, last };
        self.disk.write_small(MANIFEST, &manifest.encode())
    }
}
