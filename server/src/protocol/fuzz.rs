//! Entry points for the fuzz targets: pure functions from bytes to nothing, which panic if a
//! promise of this module is broken.

use bytes::{BufMut, BytesMut};

use super::command::{Command, SizeLimits};
use super::decode::{ReplyDecoder, ReplyLimits};
use super::reply::{Reply, Version};
use super::resp::{ProtocolError, Request, RequestLimits, RequestParser};

/// Small enough that random bytes pass them.
const SIZES: SizeLimits = SizeLimits { max_key: 16, max_value: 64 };
const REQUESTS: RequestLimits = RequestLimits { max_word: 128, max_request: 512, max_words: 1024 };
const REPLIES: ReplyLimits = ReplyLimits { max_bulk: 1024, max_elements: 1024 };

/// What a stream of requests came to: the requests, and the error that ended it.
type Requests = (Vec<Request>, Option<ProtocolError>);

/// Reads requests twice, whole and in pieces, and understands them.
///
/// # Panics
/// If the two readings differ, or more is buffered than the limits allow.
pub fn request(data: &[u8]) {
    let (first, stream) = data.split_first().map_or((1, data), |(first, rest)| (*first, rest));
    let whole = requests(stream, stream.len().max(1));
    let pieces = requests(stream, usize::from(first % 17) + 1);
    assert_eq!(whole, pieces, "requests depend on how they were cut into reads");
    for request in &whole.0 {
        let reply = match request {
            Request::Command(args) => {
                assert!(!args.is_empty(), "a request without a word");
                Command::parse(args, &SIZES).err().map(Reply::Error)
            }
            Request::Oversized(oversized) => Some(Reply::Error(Command::oversized(oversized, &SIZES))),
            Request::Malformed(text) => Some(Reply::Error(super::ErrorReply::err(*text))),
        };
        if let Some(reply) = reply {
            assert_one_line(&reply);
        }
    }
}

fn requests(stream: &[u8], piece: usize) -> Requests {
    let mut parser = RequestParser::new(REQUESTS);
    let mut buffer = BytesMut::new();
    let mut found = Vec::new();
    for piece in stream.chunks(piece) {
        buffer.put_slice(piece);
        loop {
            match parser.next(&mut buffer) {
                Ok(Some(request)) => found.push(request),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
        let line = if buffer.first() == Some(&b'*') { 0 } else { super::resp::MAX_LINE };
        let most = REQUESTS.max_request + REQUESTS.max_word + 64 + line;
        assert!(buffer.len() <= most, "{} bytes are buffered", buffer.len());
        assert!(parser.held() <= 8 * stream.len().max(64), "the parser holds {} bytes", parser.held());
    }
    (found, None)
}

fn assert_one_line(reply: &Reply) {
    let bytes = reply.to_bytes(Version::Resp2);
    let ends = bytes.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count();
    assert!(ends == 2 && bytes.ends_with(b"\r\n"), "an error of several lines: {bytes:?}");
}

/// Reads replies whole and in pieces, and writes them again.
///
/// # Panics
/// If the two readings differ, or what was written is not read as it was.
pub fn reply(data: &[u8]) {
    let (first, stream) = data.split_first().map_or((1, data), |(first, rest)| (*first, rest));
    let whole = replies(stream, stream.len().max(1));
    let pieces = replies(stream, usize::from(first % 17) + 1);
    // NaN differs from itself, so replies are compared as they are written.
    let written = |replies: &[Reply]| {
        let bytes: Vec<_> = replies.iter().map(|reply| reply.to_bytes(Version::Resp3)).collect();
        bytes.concat()
    };
    let bytes = written(&whole);
    assert_eq!(bytes, written(&pieces), "replies depend on how they were cut into reads");
    // A big blob error is written as a line, which has a limit of its own.
    if whole.iter().all(|reply| reply.to_bytes(Version::Resp3).len() <= REPLIES.max_bulk) {
        assert_eq!(bytes, written(&replies(&bytes, bytes.len().max(1))), "a reply changed on its way");
    }
}

fn replies(stream: &[u8], piece: usize) -> Vec<Reply> {
    let mut decoder = ReplyDecoder::new(REPLIES);
    let mut buffer = BytesMut::new();
    let mut found = Vec::new();
    for piece in stream.chunks(piece) {
        buffer.put_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(reply)) => found.push(reply),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}
