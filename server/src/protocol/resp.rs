//! Reading requests: RESP arrays of binary strings, and lines typed by people.
//!
//! The parser takes bytes as they come. Nothing is copied and nothing is allocated per word: a
//! complete request is split off the read buffer, and its words are places in it. A count or a
//! length that was only announced reserves nothing, so memory follows the bytes that really
//! arrived, and those are bounded by [`RequestLimits`]. A request that is too large, but still
//! well formed, is read past without being stored, so that the connection can go on.

use bytes::{Buf, Bytes, BytesMut};

use super::args::{Args, Spans};
use super::inline;
use super::number;

/// The largest binary string that Redis ever accepts. What announces more is not a client with
/// a large value but a stream out of step.
pub const MAX_ANNOUNCED: u64 = 512 * 1024 * 1024;

/// The longest line of the inline protocol, and the most that is read in search of its end.
pub const MAX_LINE: usize = 64 * 1024;

/// The most that is read in search of the end of a count or a length; the longest integer has
/// 20 characters.
const MAX_HEADER: usize = 32;

/// Words and bytes that a client may send before it has authenticated, as in Redis.
const UNAUTHENTICATED: (u64, u64) = (10, 16 * 1024);

/// How much one request may take.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Bytes of one word that are kept; longer ones are read past.
    pub max_word: usize,
    /// Bytes of one whole request that are kept; longer ones are read past.
    pub max_request: usize,
    /// Words of one request.
    pub max_words: usize,
}

impl RequestLimits {
    /// Redis' own bound on the number of words.
    pub const MAX_WORDS: usize = 1024 * 1024;

    /// Limits for keys and values of these sizes. One request may have `max_request` bytes, and
    /// always enough for one largest key with one largest value.
    #[must_use]
    pub fn new(max_key: usize, max_value: usize, max_request: usize) -> RequestLimits {
        const SLACK: usize = 1024;
        let max_word = max_key.max(max_value).saturating_add(SLACK);
        let max_request = max_request.max(max_word.saturating_add(max_key)).saturating_add(SLACK);
        // Spans are 32 bits wide.
        let widest = (u32::MAX / 2) as usize;
        RequestLimits {
            max_word: max_word.min(widest),
            max_request: max_request.min(widest),
            max_words: RequestLimits::MAX_WORDS,
        }
    }
}

/// What a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A complete request of at least one word.
    Command(Args),
    /// A request over the limits that was read past. Answer it with
    /// [`Command::oversized`](super::Command::oversized).
    Oversized(Oversized),
    /// A line that cannot be split into words. The next line is not affected by it.
    Malformed(&'static str),
}

/// What is known of a request that was read past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oversized {
    /// The start of the command's name; empty if the name itself was too long.
    pub name: Bytes,
    /// What went over its limit.
    pub excess: Excess,
}

/// What went over its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// One word.
    Word {
        /// Its place in the request; 0 is the command's name.
        index: usize,
        /// Its announced bytes.
        length: u64,
    },
    /// The words together.
    Request {
        /// The bytes that were announced when the limit was passed.
        length: u64,
        /// The limit.
        max: u64,
    },
}

/// The stream is out of step and nothing behind this point can be understood. Answer with
/// `-ERR` and this text, then close.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Protocol error: {0}")]
pub struct ProtocolError(String);

/// Takes requests out of a stream of bytes.
#[derive(Debug)]
pub struct RequestParser {
    limits: RequestLimits,
    authenticated: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing of the next request is known.
    Start,
    /// A line whose end is not among the first `scanned` bytes.
    Line { scanned: usize },
    /// An array. Nothing is taken out of the buffer before it is complete.
    Array(Array),
    /// An array that is over a limit. What was read of it is gone.
    Skip(Skip),
    /// Out of step for good.
    Failed(ProtocolError),
}

/// What one look at the buffer led to.
enum Step {
    NeedMore,
    Enter(State),
    Done(Request),
}

impl RequestParser {
    /// A parser at the start of a connection.
    #[must_use]
    pub fn new(limits: RequestLimits) -> RequestParser {
        RequestParser { limits, authenticated: true, state: State::Start }
    }

    /// Whether the client has authenticated. Until it has, its arrays must be small. A new
    /// parser assumes that it has.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
    }

    /// Takes the next request out of `input`; `None` means that more bytes are needed. Bytes of
    /// an incomplete request stay in `input`, so call it with the same buffer again.
    ///
    /// # Errors
    /// If the stream is out of step. Every later call returns the same error.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        loop {
            let step = match &mut self.state {
                State::Start => start(input, self.authenticated, &self.limits),
                State::Line { scanned } => line(input, scanned),
                State::Array(array) => array.step(input, self.authenticated, &self.limits),
                State::Skip(skip) => skip.step(input),
                State::Failed(error) => return Err(error.clone()),
            };
            match step {
                Ok(Step::NeedMore) => return Ok(None),
                Ok(Step::Enter(state)) => self.state = state,
                Ok(Step::Done(request)) => {
                    self.state = State::Start;
                    return Ok(Some(request));
                }
                Err(error) => {
                    self.state = State::Failed(error.clone());
                    return Err(error);
                }
            }
        }
    }

    /// Bytes that are known to be missing before the next request can be complete, as a hint
    /// for the next read; at least 1. `buffered` is the length of the read buffer.
    #[must_use]
    pub fn missing(&self, buffered: usize) -> usize {
        match &self.state {
            State::Array(Array { at, word: Some(length), .. }) => {
                (at + length + LINE_END.len()).saturating_sub(buffered).max(1)
            }
            _ => 1,
        }
    }

    /// Bytes that the parser holds besides the read buffer.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.state {
            State::Array(array) => array.spans.heap_size(),
            _ => 0,
        }
    }
}

fn start(input: &mut BytesMut, authenticated: bool, limits: &RequestLimits) -> Result<Step, ProtocolError> {
    match input.first() {
        None => return Ok(Step::NeedMore),
        Some(b'*') => {}
        Some(_) => return Ok(Step::Enter(State::Line { scanned: 0 })),
    }
    let Some((count, at)) = header(input, 0, "mbulk")? else { return Ok(Step::NeedMore) };
    let count = count
        .filter(|count| *count <= limits.max_words as i64)
        .ok_or_else(|| ProtocolError::new("invalid multibulk length"))?;
    if count <= 0 {
        input.advance(at);
        return Ok(Step::Enter(State::Start));
    }
    if !authenticated && count as u64 > UNAUTHENTICATED.0 {
        return Err(ProtocolError::new("unauthenticated multibulk length"));
    }
    Ok(Step::Enter(State::Array(Array { missing: count as usize, at, word: None, spans: Spans::default() })))
}

fn line(input: &mut BytesMut, scanned: &mut usize) -> Result<Step, ProtocolError> {
    let end = input.len().min(MAX_LINE + 1);
    let Some(offset) = input[*scanned..end].iter().position(|byte| *byte == b'\n') else {
        *scanned = end;
        return match end > MAX_LINE {
            true => Err(ProtocolError::new("too big inline request")),
            false => Ok(Step::NeedMore),
        };
    };
    let line = input.split_to(*scanned + offset + 1).freeze();
    let content = line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n")).unwrap_or(&line);
    let Some(args) = inline::split(line.slice_ref(content)) else {
        return Ok(Step::Done(Request::Malformed("Protocol error: unbalanced quotes in request")));
    };
    // A web page can make a browser post to this port; its body must not be taken for commands.
    if args
        .get(0)
        .is_some_and(|name| name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:"))
    {
        return Err(ProtocolError::new("HTTP on the client port; the admin port speaks HTTP"));
    }
    Ok(match args.is_empty() {
        true => Step::Enter(State::Start),
        false => Step::Done(Request::Command(args)),
    })
}

#[derive(Debug)]
struct Array {
    /// Words whose end was not seen yet.
    missing: usize,
    /// How much of the buffer is understood.
    at: usize,
    /// The length of the word that starts at `at`, once its header was read.
    word: Option<usize>,
    /// `spans.len() + missing` is the announced count.
    spans: Spans,
}

impl Array {
    fn step(
        &mut self,
        input: &mut BytesMut,
        authenticated: bool,
        limits: &RequestLimits,
    ) -> Result<Step, ProtocolError> {
        while self.missing > 0 {
            let length = match self.word {
                Some(length) => length,
                None => {
                    let Some((announced, at)) = word_header(input, self.at)? else {
                        return Ok(Step::NeedMore);
                    };
                    if !authenticated && announced > UNAUTHENTICATED.1 {
                        return Err(ProtocolError::new("unauthenticated bulk length"));
                    }
                    self.at = at;
                    if let Some(excess) = self.excess(announced, limits) {
                        return Ok(Step::Enter(State::Skip(self.give_up(input, announced, excess))));
                    }
                    let length = announced as usize;
                    self.word = Some(length);
                    length
                }
            };
            let end = self.at + length;
            let Some(line_end) = input.get(end..end + LINE_END.len()) else { return Ok(Step::NeedMore) };
            if line_end != LINE_END {
                return Err(ProtocolError::new("expected CR LF after a bulk string"));
            }
            self.spans.push((self.at as u32, end as u32));
            self.at = end + LINE_END.len();
            self.word = None;
            self.missing -= 1;
        }
        let frame = input.split_to(self.at).freeze();
        Ok(Step::Done(Request::Command(Args::new(frame, std::mem::take(&mut self.spans)))))
    }

    fn excess(&self, announced: u64, limits: &RequestLimits) -> Option<Excess> {
        let total = self.at as u64 + announced;
        if announced > limits.max_word as u64 {
            Some(Excess::Word { index: self.spans.as_slice().len(), length: announced })
        } else if total > limits.max_request as u64 {
            Some(Excess::Request { length: total, max: limits.max_request as u64 })
        } else {
            None
        }
    }

    /// Lets go of what was read and goes on without storing.
    fn give_up(&mut self, input: &mut BytesMut, announced: u64, excess: Excess) -> Skip {
        const NAME: usize = 32;
        let name = self.spans.as_slice().first().map_or(Bytes::new(), |(start, end)| {
            let name = &input[*start as usize..*end as usize];
            Bytes::copy_from_slice(&name[..name.len().min(NAME)])
        });
        input.advance(self.at);
        Skip { missing: self.missing, word: Some(announced), report: Oversized { name, excess } }
    }
}

#[derive(Debug)]
struct Skip {
    missing: usize,
    /// What is left of the current word, its line end not included.
    word: Option<u64>,
    report: Oversized,
}

impl Skip {
    fn step(&mut self, input: &mut BytesMut) -> Result<Step, ProtocolError> {
        while self.missing > 0 {
            let Some(left) = &mut self.word else {
                let Some((announced, at)) = word_header(input, 0)? else { return Ok(Step::NeedMore) };
                input.advance(at);
                self.word = Some(announced);
                continue;
            };
            let now = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
            input.advance(now);
            *left -= now as u64;
            if *left > 0 || input.len() < LINE_END.len() {
                return Ok(Step::NeedMore);
            }
            if !input.starts_with(LINE_END) {
                return Err(ProtocolError::new("expected CR LF after a bulk string"));
            }
            input.advance(LINE_END.len());
            self.word = None;
            self.missing -= 1;
        }
        Ok(Step::Done(Request::Oversized(self.report.clone())))
    }
}

const LINE_END: &[u8] = b"\r\n";

/// Reads `$length` at `from`; also where the word itself starts.
fn word_header(input: &[u8], from: usize) -> Result<Option<(u64, usize)>, ProtocolError> {
    match input.get(from) {
        None => return Ok(None),
        Some(b'$') => {}
        Some(other) => {
            return Err(ProtocolError(format!("expected '$', got '{}'", other.escape_ascii())));
        }
    }
    let Some((length, at)) = header(input, from, "bulk")? else { return Ok(None) };
    match length.and_then(|length| u64::try_from(length).ok()) {
        Some(length) if length <= MAX_ANNOUNCED => Ok(Some((length, at))),
        _ => Err(ProtocolError::new("invalid bulk length")),
    }
}

/// Reads the integer behind the first byte of a header line at `from`: the integer, or `None`
/// if it is none, and where the next line starts.
fn header(input: &[u8], from: usize, what: &str) -> Result<Option<(Option<i64>, usize)>, ProtocolError> {
    let digits = from + 1;
    let window = &input[digits..input.len().min(digits + MAX_HEADER)];
    let Some(length) = window.iter().position(|byte| *byte == b'\r') else {
        return match window.len() < MAX_HEADER {
            true => Ok(None),
            false => Err(ProtocolError(format!("too big {what} count string"))),
        };
    };
    let end = digits + length;
    match input.get(end + 1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some((number::integer(&input[digits..end]), end + LINE_END.len()))),
        Some(_) => Ok(Some((None, end + LINE_END.len()))),
    }
}

impl ProtocolError {
    fn new(text: &str) -> ProtocolError {
        ProtocolError(text.to_owned())
    }
}
