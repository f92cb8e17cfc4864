//! Frames from a byte stream.

use std::io::Read;

use bytes::Bytes;

use super::frame::{CHUNK_HEAD, Decoder, Frame, TRAILER};
use super::header::{FIXED, Header};
use super::{FormatError, Progress};
use crate::entry::Entry;

/// Reads a checkpoint chunk by chunk. Never holds more than one frame.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    decoder: Decoder,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// As [`Header::decode`], and [`FormatError::Io`].
    pub fn open(mut from: R) -> Result<Reader<R>, FormatError> {
        let short = FormatError::Truncated { offset: 0 };
        let mut frame = Vec::new();
        read_up_to(&mut from, &mut frame, FIXED)?;
        let fixed = frame.first_chunk::<FIXED>().ok_or(short)?;
        let rest = Header::rest(fixed)?;
        read_up_to(&mut from, &mut frame, rest)?;
        let decoder = Decoder::begin(&Bytes::from(frame))?;
        Ok(Reader { from, decoder })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        self.decoder.header()
    }

    /// How far it has come.
    pub fn progress(&self) -> &Progress {
        self.decoder.progress()
    }

    /// The next chunk's entries; `None` once all of them were read and proven to be the state
    /// that the header promises. Before that nothing read may be used.
    ///
    /// # Errors
    /// See [`FormatError`].
    pub fn chunk(&mut self) -> Result<Option<Vec<Entry>>, FormatError> {
        if self.decoder.ended() {
            return Ok(None);
        }
        let mut frame = Vec::new();
        read_up_to(&mut self.from, &mut frame, CHUNK_HEAD)?;
        let head = frame.first_chunk::<CHUNK_HEAD>().ok_or(self.decoder.truncated())?;
        let rest =
            if Decoder::is_trailer(head) { TRAILER - CHUNK_HEAD } else { self.decoder.payload(head)? };
        read_up_to(&mut self.from, &mut frame, rest)?;
        match self.decoder.frame(&Bytes::from(frame))? {
            Frame::Chunk(entries) => Ok(Some(entries)),
            Frame::End => {
                let mut more = Vec::new();
                read_up_to(&mut self.from, &mut more, 1)?;
                if !more.is_empty() {
                    return Err(self.decoder.damaged("bytes behind the trailer"));
                }
                Ok(None)
            }
        }
    }

    pub(super) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    pub(super) fn into_decoder(self) -> Decoder {
        self.decoder
    }
}

/// Appends up to `most` bytes; memory grows with what is there, not with what was promised.
fn read_up_to(from: &mut impl Read, into: &mut Vec<u8>, most: usize) -> Result<(), FormatError> {
    from.by_ref().take(most as u64).read_to_end(into)?;
    Ok(())
}
