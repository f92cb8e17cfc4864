//! From the store into checkpoint frames and back.

use std::io::Read;
use std::path::Path;

use groups::ids::{ClusterId, GroupId};

use crate::format::{CHUNK_TARGET, FormatError, Header, Reader, StagedFile, Summary};
use crate::format::{Encoder, Progress};
use crate::store::{ChunkLimit, MirrorStore, Point, Reader as StoreReader, StoreError};

/// What stopped a transfer.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The checkpoint.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The checkpoint is of another cluster or group.
    #[error("the checkpoint is of group {group} of cluster {cluster}")]
    Foreign {
        /// Its cluster.
        cluster: ClusterId,
        /// Its group.
        group: GroupId,
    },
    /// A transfer can only be continued from the state that it began with.
    #[error("the group has moved on since the transfer began")]
    MovedOn,
}

/// The header of the state that a reader reads.
///
/// # Errors
/// As [`StoreReader::sessions`].
pub fn header(cluster: ClusterId, reader: &StoreReader<'_>) -> Result<Header, StoreError> {
    let position = reader.position().clone();
    Ok(Header { cluster, group: reader.group(), position, sessions: reader.sessions()? })
}

/// Sends a group's state frame by frame: a bounded step at a time, in which the caller decides
/// about pace and order.
#[derive(Debug)]
pub struct Sender<'a> {
    reader: StoreReader<'a>,
    encoder: Option<Encoder>,
}

impl<'a> Sender<'a> {
    /// Begins; also returns the header's frame.
    ///
    /// # Errors
    /// [`TransferError::Store`], [`TransferError::Format`].
    pub fn begin(
        cluster: ClusterId,
        reader: StoreReader<'a>,
    ) -> Result<(Sender<'a>, bytes::Bytes), TransferError> {
        let (encoder, frame) = Encoder::begin(&header(cluster, &reader)?)?;
        Ok((Sender { reader, encoder: Some(encoder) }, frame))
    }

    /// Continues what a receiver already has: `wanted` is the header it holds, `progress` how
    /// far it came.
    ///
    /// # Errors
    /// [`TransferError::MovedOn`] when the group is not at that state any more.
    pub fn resume(
        cluster: ClusterId,
        reader: StoreReader<'a>,
        wanted: &Header,
        progress: Progress,
    ) -> Result<Sender<'a>, TransferError> {
        if header(cluster, &reader)? != *wanted {
            return Err(TransferError::MovedOn);
        }
        Ok(Sender { reader, encoder: Some(Encoder::resume(progress)) })
    }

    /// The next frame; the trailer is the last one, then `None`.
    ///
    /// # Errors
    /// [`TransferError::Store`], [`TransferError::Format`].
    pub fn frame(&mut self) -> Result<Option<bytes::Bytes>, TransferError> {
        let Some(encoder) = &mut self.encoder else { return Ok(None) };
        let limit = ChunkLimit { bytes: CHUNK_TARGET, ..ChunkLimit::default() };
        let chunk = self.reader.chunk(encoder.progress().last_key.as_deref(), limit)?;
        if chunk.entries.is_empty() {
            return Ok(self.encoder.take().map(Encoder::finish));
        }
        Ok(Some(encoder.chunk(&chunk.entries)?))
    }
}

/// Writes a group's state into a checkpoint file, continuing an earlier attempt where it is of
/// the same state. The file appears under its name complete or not at all.
///
/// # Errors
/// See [`TransferError`].
pub fn export(
    store: &MirrorStore,
    cluster: ClusterId,
    group: GroupId,
    path: &Path,
) -> Result<Summary, TransferError> {
    let reader = store.reader(group)?;
    let wanted = header(cluster, &reader)?;
    let earlier = StagedFile::resume(path)?.filter(|file| *file.header() == wanted);
    let mut file = match earlier {
        Some(file) => file,
        None => StagedFile::create(path, &wanted.encode()?)?,
    };
    let mut sender = Sender { reader, encoder: Some(Encoder::resume(file.progress().clone())) };
    while let Some(frame) = sender.frame()? {
        file.append_frame(&frame)?;
    }
    Ok(file.commit()?)
}

/// Installs a complete checkpoint as a group's state, continuing an earlier attempt where it
/// staged the same state.
///
/// # Errors
/// See [`TransferError`]. The group keeps its old state then.
pub fn import(
    store: &MirrorStore,
    cluster: ClusterId,
    group: GroupId,
    from: impl Read,
) -> Result<Point, TransferError> {
    let mut reader = Reader::open(from)?;
    let Header { cluster: of_cluster, group: of_group, position, sessions } = reader.header().clone();
    if (of_cluster, of_group) != (cluster, group) {
        return Err(TransferError::Foreign { cluster: of_cluster, group: of_group });
    }
    let earlier = store.staging(group)?.filter(|staging| staging.promised == position);
    let (generation, staged) = match earlier {
        Some(staging) => (staging.generation, staging.last_key),
        None => (store.begin_generation(group, position, sessions)?, None),
    };
    while let Some(mut entries) = reader.chunk()? {
        entries.retain(|entry| staged.as_ref().is_none_or(|last| entry.key > *last));
        if !entries.is_empty() {
            store.stage(group, generation, &entries)?;
        }
    }
    Ok(store.install(group, generation)?)
}
