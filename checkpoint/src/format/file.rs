//! Checkpoint files: written under a staged name, complete under their own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::frame::{Decoder, Encoder, Frame};
use super::{FormatError, Header, Progress, Reader};
use crate::durably;
use crate::entry::Entry;

/// A checkpoint file that is being written or received. It gets its name when it is complete,
/// verified and synced; until then everything lies in `<name>.tmp` and can be continued.
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
    file: File,
    decoder: Decoder,
}

impl StagedFile {
    /// Begins a file, from a header's frame. An earlier attempt is given up.
    ///
    /// # Errors
    /// [`FormatError::Io`], or as [`Header::decode`].
    pub fn create(path: &Path, header: &Bytes) -> Result<StagedFile, FormatError> {
        let decoder = Decoder::begin(header)?;
        let mut file = File::create(durably::staged_name(path))?;
        file.write_all(header)?;
        Ok(StagedFile { path: path.to_owned(), file, decoder })
    }

    /// Continues an earlier attempt behind its last complete chunk; `None` when there is none
    /// that is worth it. What is damaged or cut off is dropped and comes again.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn resume(path: &Path) -> Result<Option<StagedFile>, FormatError> {
        let staged = durably::staged_name(path);
        let mut file = match OpenOptions::new().read(true).write(true).open(&staged) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut reader = match Reader::open(BufReader::new(&file)) {
            Err(FormatError::Io(e)) => return Err(e.into()),
            Err(_) => return Ok(None),
            Ok(reader) => reader,
        };
        let mut decoder = reader.decoder().clone();
        loop {
            match reader.chunk() {
                Ok(Some(_)) => decoder = reader.decoder().clone(),
                // A trailer is written again: it costs nothing and may not have been synced.
                Ok(None) => break,
                Err(FormatError::Io(e)) => return Err(e.into()),
                Err(_) => break,
            }
        }
        drop(reader);
        file.set_len(decoder.progress().bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Some(StagedFile { path: path.to_owned(), file, decoder }))
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        self.decoder.header()
    }

    /// How far it has come: what a sender needs to continue.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        self.decoder.progress()
    }

    /// Adds a frame as it was received; checked before it is written. Returns whether it was
    /// the trailer.
    ///
    /// # Errors
    /// See [`FormatError`]; nothing is written then.
    pub fn append_frame(&mut self, frame: &Bytes) -> Result<bool, FormatError> {
        let decoded = self.decoder.frame(frame)?;
        self.file.write_all(frame)?;
        Ok(decoded == Frame::End)
    }

    /// Adds a chunk of entries.
    ///
    /// # Errors
    /// See [`FormatError`].
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), FormatError> {
        let frame = Encoder::resume(self.progress().clone()).chunk(entries)?;
        self.append_frame(&frame).map(|_| ())
    }

    /// Completes the file: trailer, sync, rename, sync of the directory. Fails if the entries
    /// are not the state that the header promises.
    ///
    /// # Errors
    /// [`FormatError::NotThatState`], [`FormatError::Io`].
    pub fn commit(mut self) -> Result<Summary, FormatError> {
        if !self.decoder.ended() {
            let trailer = Encoder::resume(self.progress().clone()).finish();
            self.append_frame(&trailer)?;
        }
        self.file.sync_all()?;
        fs::rename(durably::staged_name(&self.path), &self.path)?;
        durably::sync_dir(durably::parent(&self.path))?;
        Ok(Summary::of(self.decoder))
    }

    /// Makes what has arrived durable without completing it.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn sync(&mut self) -> Result<(), FormatError> {
        self.file.sync_all()?;
        Ok(())
    }
}

/// A verified checkpoint in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The header.
    pub header: Header,
    /// Chunks.
    pub chunks: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes before the trailer.
    pub bytes: u64,
}

impl Summary {
    fn of(decoder: Decoder) -> Summary {
        let Progress { chunks, entries, bytes, .. } = *decoder.progress();
        Summary { header: decoder.header().clone(), chunks, entries, bytes }
    }
}

/// Reads a whole file and checks everything in it.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn verify(path: &Path) -> Result<Summary, FormatError> {
    let mut reader = Reader::open(BufReader::new(File::open(path)?))?;
    while reader.chunk()?.is_some() {}
    Ok(Summary::of(reader.into_decoder()))
}

/// Prints a file: its header, its chunks, and with `entries` every entry, up to the first thing
/// that is wrong with it.
///
/// # Errors
/// The first thing that is wrong with it, after all before that was printed.
pub fn dump(path: &Path, entries: bool, out: &mut impl Write) -> Result<Summary, FormatError> {
    let mut reader = Reader::open(BufReader::new(File::open(path)?))?;
    let Header { cluster, group, position, sessions } = reader.header();
    writeln!(out, "cluster {cluster} group {group} instance {}", position.applied)?;
    writeln!(out, "chain {} state {}", position.chain, position.state_hash)?;
    writeln!(out, "revision {} epoch {}", position.revision, position.epoch)?;
    writeln!(out, "membership {} bytes, sessions {} bytes", position.membership.len(), sessions.len())?;
    loop {
        let offset = reader.progress().bytes;
        let Some(chunk) = reader.chunk()? else { break };
        let first = chunk.first().map(|entry| entry.key.escape_ascii().to_string()).unwrap_or_default();
        writeln!(out, "chunk at {offset}: {} entries from \"{first}\"", chunk.len())?;
        for entry in chunk.iter().filter(|_| entries) {
            let Entry { key, value, revision, expiry } = entry;
            let key = key.escape_ascii();
            writeln!(out, "  \"{key}\" revision {revision} expiry {expiry}: {} bytes", value.len())?;
        }
    }
    let summary = Summary::of(reader.into_decoder());
    writeln!(out, "complete: {} entries in {} chunks", summary.entries, summary.chunks)?;
    Ok(summary)
}
