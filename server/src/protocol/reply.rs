//! Replies and how they look on the wire, in RESP2 and in RESP3.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::ErrorReply;
use super::number::write_integer;

/// The version of the protocol that a connection speaks. Every connection starts with
/// [`Version::Resp2`]; `HELLO 3` changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// What every Redis client speaks.
    #[default]
    Resp2,
    /// With maps, booleans, doubles and one null of its own.
    Resp3,
}

impl Version {
    /// The number that `HELLO` uses.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Version::Resp2 => 2,
            Version::Resp3 => 3,
        }
    }
}

/// One reply. What RESP2 has no type for is sent there as Redis does: maps as flat arrays,
/// booleans as integers, doubles and texts as bulk strings.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A short status without line breaks, as `+OK`.
    Simple(Cow<'static, str>),
    /// An error.
    Error(ErrorReply),
    /// An integer.
    Integer(i64),
    /// A binary string.
    Bulk(Bytes),
    /// No value.
    Nil,
    /// No array; differs from [`Reply::Nil`] in RESP2 only.
    NilArray,
    /// A sequence.
    Array(Vec<Reply>),
    /// Pairs, in the given order.
    Map(Vec<(Reply, Reply)>),
    /// A collection without order.
    Set(Vec<Reply>),
    /// A floating point number.
    Double(f64),
    /// Yes or no.
    Boolean(bool),
    /// An integer of any size, in decimal.
    BigNumber(Bytes),
    /// Text for people, shown as it is by clients that know RESP3.
    Text(Bytes),
    /// Out-of-band data that belongs to no request.
    Push(Vec<Reply>),
}

impl Reply {
    /// `+OK`.
    #[must_use]
    pub fn ok() -> Reply {
        Reply::Simple(Cow::Borrowed("OK"))
    }

    /// A binary string of a text.
    pub fn bulk(text: impl Into<String>) -> Reply {
        Reply::Bulk(Bytes::from(text.into()))
    }

    /// Text for people.
    pub fn text(text: impl Into<String>) -> Reply {
        Reply::Text(Bytes::from(text.into()))
    }

    /// A binary string, or nil.
    #[must_use]
    pub fn bulk_or_nil(value: Option<Bytes>) -> Reply {
        value.map_or(Reply::Nil, Reply::Bulk)
    }

    /// A revision, or another count that is unsigned inside. RESP integers end at `i64::MAX`,
    /// which no counter that starts at zero reaches.
    #[must_use]
    pub fn unsigned(value: u64) -> Reply {
        Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// Appends this reply as `version` spells it.
    pub fn encode(&self, out: &mut ReplyBuffer, version: Version) {
        match (self, version) {
            (Reply::Simple(text), _) => out.line(b'+', text),
            (Reply::Error(error), _) => {
                out.tail.put_u8(b'-');
                out.tail.put_slice(error.class().word().as_bytes());
                out.line(b' ', error.text());
            }
            (Reply::Integer(value), _) => out.header(b':', *value),
            (Reply::Bulk(value), _) => out.bulk(b'$', value),
            (Reply::Nil | Reply::NilArray, Version::Resp3) => out.tail.put_slice(b"_\r\n"),
            (Reply::Nil, Version::Resp2) => out.tail.put_slice(b"$-1\r\n"),
            (Reply::NilArray, Version::Resp2) => out.tail.put_slice(b"*-1\r\n"),
            (Reply::Array(items), _) => out.items(b'*', items, version),
            (Reply::Set(items), Version::Resp3) => out.items(b'~', items, version),
            (Reply::Push(items), Version::Resp3) => out.items(b'>', items, version),
            (Reply::Set(items) | Reply::Push(items), Version::Resp2) => out.items(b'*', items, version),
            (Reply::Map(pairs), _) => {
                match version {
                    Version::Resp2 => out.header(b'*', 2 * pairs.len() as i64),
                    Version::Resp3 => out.header(b'%', pairs.len() as i64),
                }
                for (key, value) in pairs {
                    key.encode(out, version);
                    value.encode(out, version);
                }
            }
            (Reply::Double(value), Version::Resp3) => out.line(b',', &double(*value)),
            (Reply::Double(value), Version::Resp2) => out.bulk(b'$', &Bytes::from(double(*value))),
            (Reply::Boolean(value), Version::Resp3) => out.line(b'#', if *value { "t" } else { "f" }),
            (Reply::Boolean(value), Version::Resp2) => out.header(b':', i64::from(*value)),
            (Reply::BigNumber(digits), Version::Resp3) => out.line(b'(', &String::from_utf8_lossy(digits)),
            (Reply::BigNumber(digits), Version::Resp2) => out.bulk(b'$', digits),
            (Reply::Text(text), Version::Resp3) => {
                out.header(b'=', text.len() as i64 + 4);
                out.tail.put_slice(b"txt:");
                out.value(text);
                out.tail.put_slice(b"\r\n");
            }
            (Reply::Text(text), Version::Resp2) => out.bulk(b'$', text),
        }
    }

    /// This reply alone, as bytes.
    #[must_use]
    pub fn to_bytes(&self, version: Version) -> Bytes {
        let mut out = ReplyBuffer::new();
        self.encode(&mut out, version);
        let length = out.remaining();
        out.copy_to_bytes(length)
    }
}

impl From<ErrorReply> for Reply {
    fn from(error: ErrorReply) -> Reply {
        Reply::Error(error)
    }
}

impl<T: Into<Reply>> From<Result<T, ErrorReply>> for Reply {
    fn from(result: Result<T, ErrorReply>) -> Reply {
        match result {
            Ok(reply) => reply.into(),
            Err(error) => Reply::Error(error),
        }
    }
}

fn double(value: f64) -> String {
    if value.is_nan() { "nan".to_owned() } else { format!("{value}") }
}

/// From this size on a value is handed on as it is; below, copying beats one more slice in
/// the `writev`.
const SHARED_FROM: usize = 16 * 1024;

/// Replies on their way to a socket. Small parts are copied into one buffer, large values are
/// shared. Read it as a [`Buf`]: tokio's `write_buf` turns it into one vectored write.
#[derive(Debug, Default)]
pub struct ReplyBuffer {
    /// In front of `tail`; no part is empty.
    parts: VecDeque<Bytes>,
    /// Sum of the lengths in `parts`.
    parts_length: usize,
    tail: BytesMut,
}

impl ReplyBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> ReplyBuffer {
        ReplyBuffer::default()
    }

    /// Bytes not yet taken out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts_length + self.tail.len()
    }

    /// Whether everything was taken out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn line(&mut self, kind: u8, text: &str) {
        self.tail.put_u8(kind);
        let start = self.tail.len();
        self.tail.put_slice(text.as_bytes());
        for byte in &mut self.tail[start..] {
            if matches!(*byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.tail.put_slice(b"\r\n");
    }

    fn header(&mut self, kind: u8, number: i64) {
        self.tail.put_u8(kind);
        write_integer(&mut self.tail, number);
        self.tail.put_slice(b"\r\n");
    }

    fn bulk(&mut self, kind: u8, value: &Bytes) {
        self.header(kind, value.len() as i64);
        self.value(value);
        self.tail.put_slice(b"\r\n");
    }

    fn items(&mut self, kind: u8, items: &[Reply], version: Version) {
        self.header(kind, items.len() as i64);
        for item in items {
            item.encode(self, version);
        }
    }

    fn value(&mut self, value: &Bytes) {
        if value.len() < SHARED_FROM {
            self.tail.put_slice(value);
            return;
        }
        if !self.tail.is_empty() {
            self.push(self.tail.len());
        }
        self.parts_length += value.len();
        self.parts.push_back(value.clone());
    }

    /// Makes the first `length` bytes of the tail the last part.
    fn push(&mut self, length: usize) {
        let part = self.tail.split_to(length).freeze();
        self.parts_length += part.len();
        self.parts.push_back(part);
    }
}

impl Buf for ReplyBuffer {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&self.tail[..], |part| &part[..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = Some(&self.tail[..]).filter(|tail| !tail.is_empty());
        let chunks = self.parts.iter().map(|part| &part[..]).chain(tail);
        slices.iter_mut().zip(chunks).map(|(slice, chunk)| *slice = IoSlice::new(chunk)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len(), "advance past the end of the replies");
        while let Some(front) = self.parts.front_mut() {
            if count < front.len() {
                front.advance(count);
                self.parts_length -= count;
                return;
            }
            count -= front.len();
            self.parts_length -= front.len();
            self.parts.pop_front();
        }
        self.tail.advance(count);
    }
}
