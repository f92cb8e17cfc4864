//! Reading replies: the other side of [`super::reply`], for the clients in this repository.
//!
//! Incremental, so that a reply may arrive in any number of pieces, and bounded, so that a
//! confused or hostile server cannot take the client's memory.

use bytes::{Buf, Bytes, BytesMut};

use super::error::{ErrorClass, ErrorReply};
use super::number;
use super::reply::Reply;

/// How much one reply may take.
#[derive(Clone, Copy, Debug)]
pub struct ReplyLimits {
    /// Bytes of one binary string.
    pub max_bulk: usize,
    /// Elements of one reply, all levels together.
    pub max_elements: usize,
}

impl Default for ReplyLimits {
    /// 512 MiB, which is Redis' own limit, and 4 Mi elements.
    fn default() -> ReplyLimits {
        ReplyLimits { max_bulk: 512 * 1024 * 1024, max_elements: 4 * 1024 * 1024 }
    }
}

/// Why the bytes are no reply. The connection is of no further use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A first byte that starts no reply.
    #[error("a reply cannot start with byte 0x{0:02x}; is this a Redis or Pelago port?")]
    UnknownType(u8),
    /// A part that does not read as what it should be.
    #[error("malformed reply: {0}")]
    Malformed(&'static str),
    /// More than [`ReplyLimits`] allow.
    #[error("reply over a limit of this client: {0}")]
    TooLarge(&'static str),
}

/// The longest status, error or number line.
const MAX_LINE: usize = 64 * 1024;
/// Nothing here nests deeper than `COMMAND INFO`.
const MAX_DEPTH: usize = 16;

/// Takes replies out of a stream of bytes.
#[derive(Debug)]
pub struct ReplyDecoder {
    limits: ReplyLimits,
    /// Aggregates that are not complete, outermost first.
    open: Vec<Open>,
    /// Elements of the reply in progress.
    elements: usize,
    /// Bytes at the start of the buffer that hold no line end.
    scanned: usize,
    /// A binary string whose header was taken.
    blob: Option<(Blob, usize)>,
}

#[derive(Debug)]
struct Open {
    kind: Aggregate,
    missing: usize,
    items: Vec<Reply>,
}

#[derive(Clone, Copy, Debug)]
enum Aggregate {
    Array,
    Map,
    Set,
    Push,
    /// Precedes the reply that it describes; read and dropped.
    Attribute,
}

#[derive(Clone, Copy, Debug)]
enum Blob {
    String,
    Error,
    Verbatim,
}

impl ReplyDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new(limits: ReplyLimits) -> ReplyDecoder {
        ReplyDecoder { limits, open: Vec::new(), elements: 0, scanned: 0, blob: None }
    }

    /// Takes the next reply out of `input`. `None` means that more bytes are needed. What was
    /// understood so far is taken out of `input`, so call it with the same buffer again.
    ///
    /// # Errors
    /// If the bytes are no reply; the decoder must not be used again.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, DecodeError> {
        loop {
            let Some(item) = self.item(input)? else { return Ok(None) };
            let reply = match item {
                Item::Whole(reply) => Some(reply),
                Item::Opened(kind, missing) => self.push(kind, missing)?,
            };
            if let Some(reply) = reply.and_then(|reply| self.place(reply)) {
                self.elements = 0;
                return Ok(Some(reply));
            }
        }
    }

    /// Reads one scalar or the header of one aggregate.
    fn item(&mut self, input: &mut BytesMut) -> Result<Option<Item>, DecodeError> {
        if let Some((kind, length)) = self.blob {
            return self.finish_blob(input, kind, length);
        }
        let Some(line) = self.line(input)? else { return Ok(None) };
        self.elements += 1;
        if self.elements > self.limits.max_elements {
            return Err(DecodeError::TooLarge("too many elements"));
        }
        let Some((kind, text)) = line.split_first() else {
            return Err(DecodeError::UnknownType(b'\r'));
        };
        let reply = match kind {
            b'+' => Reply::Simple(utf8(text)?.into()),
            b'-' => Reply::Error(error(text)?),
            b':' => Reply::Integer(integer(text)?),
            b'_' if text.is_empty() => Reply::Nil,
            b'#' if text == b"t" => Reply::Boolean(true),
            b'#' if text == b"f" => Reply::Boolean(false),
            b',' => Reply::Double(double(text)?),
            b'(' => Reply::BigNumber(big_number(line.slice(1..))?),
            b'$' | b'*' if text == b"-1" => match kind {
                b'$' => Reply::Nil,
                _ => Reply::NilArray,
            },
            b'$' => return self.start_blob(input, Blob::String, text),
            b'!' => return self.start_blob(input, Blob::Error, text),
            b'=' => return self.start_blob(input, Blob::Verbatim, text),
            b'*' => return self.opened(Aggregate::Array, text).map(Some),
            b'~' => return self.opened(Aggregate::Set, text).map(Some),
            b'>' => return self.opened(Aggregate::Push, text).map(Some),
            b'%' => return self.opened(Aggregate::Map, text).map(Some),
            b'|' => return self.opened(Aggregate::Attribute, text).map(Some),
            b'_' | b'#' => return Err(DecodeError::Malformed("null or boolean")),
            other => return Err(DecodeError::UnknownType(*other)),
        };
        Ok(Some(Item::Whole(reply)))
    }

    /// Takes one line, without its end.
    fn line(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        let found = input[self.scanned.min(input.len())..].iter().position(|byte| *byte == b'\n');
        let Some(offset) = found else {
            if let Some(first) = input.first().filter(|first| !b"+-:$*_#,(!=%~>|".contains(first)) {
                return Err(DecodeError::UnknownType(*first));
            }
            self.scanned = input.len();
            return match self.scanned > MAX_LINE {
                true => Err(DecodeError::TooLarge("a line without an end")),
                false => Ok(None),
            };
        };
        let end = self.scanned + offset;
        self.scanned = 0;
        let line = input.split_to(end + 1).freeze();
        match line[..end].split_last() {
            Some((b'\r', _)) if end <= MAX_LINE => Ok(Some(line.slice(..end - 1))),
            Some((b'\r', _)) => Err(DecodeError::TooLarge("a line without an end")),
            _ => Err(DecodeError::Malformed("a line that does not end in CR LF")),
        }
    }

    fn start_blob(
        &mut self,
        input: &mut BytesMut,
        kind: Blob,
        text: &[u8],
    ) -> Result<Option<Item>, DecodeError> {
        let length = length(text)?;
        if length > self.limits.max_bulk {
            return Err(DecodeError::TooLarge("a binary string"));
        }
        self.blob = Some((kind, length));
        self.finish_blob(input, kind, length)
    }

    fn finish_blob(
        &mut self,
        input: &mut BytesMut,
        kind: Blob,
        length: usize,
    ) -> Result<Option<Item>, DecodeError> {
        if input.len() < length + 2 {
            return Ok(None);
        }
        self.blob = None;
        let value = input.split_to(length).freeze();
        if !input.starts_with(b"\r\n") {
            return Err(DecodeError::Malformed("a binary string that does not end in CR LF"));
        }
        input.advance(2);
        let reply = match kind {
            Blob::String => Reply::Bulk(value),
            Blob::Error => Reply::Error(error(&value)?),
            Blob::Verbatim if value.get(3) == Some(&b':') => Reply::Text(value.slice(4..)),
            Blob::Verbatim => return Err(DecodeError::Malformed("a text without its format")),
        };
        Ok(Some(Item::Whole(reply)))
    }

    fn opened(&self, kind: Aggregate, text: &[u8]) -> Result<Item, DecodeError> {
        let count = length(text)?;
        let missing = match kind {
            Aggregate::Map | Aggregate::Attribute => count.saturating_mul(2),
            Aggregate::Array | Aggregate::Set | Aggregate::Push => count,
        };
        if missing > self.limits.max_elements {
            return Err(DecodeError::TooLarge("too many elements"));
        }
        Ok(Item::Opened(kind, missing))
    }

    /// Opens an aggregate; an empty one is complete at once.
    fn push(&mut self, kind: Aggregate, missing: usize) -> Result<Option<Reply>, DecodeError> {
        let open = Open { kind, missing, items: Vec::new() };
        if missing == 0 {
            return Ok(open.close());
        }
        if self.open.len() == MAX_DEPTH {
            return Err(DecodeError::TooLarge("nested too deeply"));
        }
        self.open.push(open);
        Ok(None)
    }

    /// Puts a complete reply where it belongs. Returns the outermost one when that is complete.
    fn place(&mut self, mut reply: Reply) -> Option<Reply> {
        loop {
            let Some(open) = self.open.last_mut() else { return Some(reply) };
            open.items.push(reply);
            open.missing -= 1;
            if open.missing > 0 {
                return None;
            }
            reply = self.open.pop().and_then(Open::close)?;
        }
    }
}

enum Item {
    Whole(Reply),
    Opened(Aggregate, usize),
}

impl Open {
    /// The complete aggregate; `None` for an attribute, which is nobody's element.
    fn close(self) -> Option<Reply> {
        match self.kind {
            Aggregate::Array => Some(Reply::Array(self.items)),
            Aggregate::Set => Some(Reply::Set(self.items)),
            Aggregate::Push => Some(Reply::Push(self.items)),
            Aggregate::Map => {
                let mut items = self.items.into_iter();
                let mut pairs = Vec::with_capacity(items.len() / 2);
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    pairs.push((key, value));
                }
                Some(Reply::Map(pairs))
            }
            Aggregate::Attribute => None,
        }
    }
}

fn utf8(text: &[u8]) -> Result<String, DecodeError> {
    String::from_utf8(text.to_vec()).map_err(|_| DecodeError::Malformed("a status that is not UTF-8"))
}

/// An error whose class is not one of ours keeps its first word at the start of its text.
fn error(text: &[u8]) -> Result<ErrorReply, DecodeError> {
    let text = utf8(text)?;
    let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
    Ok(match ErrorClass::from_word(word) {
        Some(class) => ErrorReply::new(class, rest.to_owned()),
        None => ErrorReply::err(text),
    })
}

fn integer(text: &[u8]) -> Result<i64, DecodeError> {
    let text = text.strip_prefix(b"+").unwrap_or(text);
    number::integer(text).ok_or(DecodeError::Malformed("an integer"))
}

fn length(text: &[u8]) -> Result<usize, DecodeError> {
    number::unsigned(text)
        .and_then(|length| usize::try_from(length).ok())
        .ok_or(DecodeError::Malformed("a length"))
}

fn double(text: &[u8]) -> Result<f64, DecodeError> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(DecodeError::Malformed("a floating point number"))
}

fn big_number(digits: Bytes) -> Result<Bytes, DecodeError> {
    let magnitude = digits.strip_prefix(b"-").or(digits.strip_prefix(b"+")).unwrap_or(&digits);
    match !magnitude.is_empty() && magnitude.iter().all(u8::is_ascii_digit) {
        true => Ok(digits),
        false => Err(DecodeError::Malformed("a big number")),
    }
}
